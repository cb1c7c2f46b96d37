//! Making room: a clock over frames, clean pages first, dirty ones in batches.
//!
//! The hand walks over aligned blocks of the size that is wanted, so that frames of a larger class
//! come together: a block is cleared as a whole. A page that was looked at since the hand last
//! passed loses its mark and stays. Only try-latches are taken; a thread that needs a frame evicts
//! itself, outside gate and latches (T4). It writes frozen copies as well, and those first: a pool
//! of 64 frames works with any number of writers, however slowly a checkpoint steps.

use std::sync::atomic::Ordering;
use std::time::Duration;

use terrane_wal::io::Purpose;
use terrane_wal::waits::assert_may_wait;

use crate::error::StoreError;
use crate::ids::{Class, Epoch, PageId};

use super::frame::{GRANULE, Owner};
use super::latch;
use super::translate::FrameWord;
use super::writeout::{Victim, WriteOut};
use super::{Frozen, Pool};

/// Dirty pages written together.
const BATCH: usize = 64;
/// How long a thread waits before it looks for a frame again when all are busy.
const BUSY_WAIT: Duration = Duration::from_micros(200);

/// What became of a block under the hand.
#[derive(Debug, PartialEq, Eq)]
enum Cleared {
    /// Bytes that became free.
    Freed(u64),
    /// Its dirty pages were added to the victims.
    Dirty,
    /// In use.
    Kept,
}

impl Pool {
    /// Makes frames free: evicts, writing dirty pages if needed. Blocks: never inside the gate or
    /// under a latch.
    pub fn relieve(&self) -> Result<(), StoreError> {
        assert_may_wait();
        self.reserve_ids()?;
        let class = self.wanted_class();
        // Also if there is a free frame: whoever asks needed more of them at once than there were.
        if self.evict(class)? > 0 {
            return Ok(());
        }
        let park = &self.space.disk()?.env.park;
        park.waiter().park_timeout(BUSY_WAIT);
        Ok(())
    }

    /// One sweep for frames of a class. Returns the bytes that became free. Blocks.
    pub(crate) fn evict(&self, class: Class) -> Result<u64, StoreError> {
        let block = class.bytes() / GRANULE;
        let blocks = self.frames.granules() / block;
        if blocks == 0 {
            return Err(StoreError::Full {
                what: "a page of this class in the pool",
                wanted: class.bytes() as u64,
                available: (self.frames.granules() * GRANULE) as u64,
            });
        }
        let goal = (class.bytes() * (blocks / 16).clamp(2, 64)) as u64;
        let mut victims = Vec::new();
        let mut freed = 0;
        for step in 0..2 * blocks {
            // A page that nobody looked at for a round, dirty as it is, goes before a clean one
            // that lost its mark just now: otherwise the pages in use would drive out each other.
            if step >= blocks && !victims.is_empty() {
                break;
            }
            let at = self.hand.fetch_add(1, Ordering::Relaxed) % blocks * block;
            match self.clear_block(at, block, &mut victims) {
                Cleared::Freed(bytes) => freed += bytes,
                Cleared::Dirty | Cleared::Kept => {}
            }
            // Clean first: dirty pages are written only if a whole batch of them was met before
            // enough clean ones.
            if freed >= goal || victims.len() >= BATCH {
                break;
            }
        }
        if freed >= goal {
            return Ok(freed);
        }
        // Copies that a checkpoint waits for are looked at by nobody else: they go first, so that a
        // checkpoint that steps slowly never holds more than a part of the frames.
        let frozen = self.frozen_victims(BATCH);
        if !frozen.is_empty() {
            victims = frozen;
        }
        match self.write_victims(victims, true) {
            Ok(more) => Ok(freed + more),
            // There is room all the same; who finds none next time hears of it.
            Err(_) if freed > 0 => Ok(freed),
            Err(error) => Err(error),
        }
    }

    /// Writes up to a batch of pages that were not used lately, and keeps them in memory: later
    /// evictions then find them clean. Returns the pages written. Blocks.
    pub(crate) fn clean_ahead(&self) -> Result<u64, StoreError> {
        let before = self.counters.evicted_dirty.load(Ordering::Relaxed);
        let mut victims = Vec::new();
        for _ in 0..self.frames.granules().min(4 * BATCH) {
            let at = self.hand.fetch_add(1, Ordering::Relaxed) % self.frames.granules();
            self.clear_block(at, 1, &mut victims);
            if victims.len() >= BATCH {
                break;
            }
        }
        self.write_victims(victims, false)?;
        Ok(self.counters.evicted_dirty.load(Ordering::Relaxed) - before)
    }

    /// Writes victims of any classes and waits for them.
    fn write_victims(
        &self,
        mut victims: Vec<Victim>,
        drop_frames: bool,
    ) -> Result<u64, StoreError> {
        if victims.is_empty() {
            return Ok(0);
        }
        victims.sort_by_key(|victim| (victim.class, victim.id));
        let mut out = WriteOut::new(self, Purpose::Evict)?;
        let mut started = Ok(());
        for of_class in victims.chunk_by(|a, b| a.class == b.class) {
            started = out.start(self, of_class);
            if started.is_err() {
                break;
            }
        }
        let settled = out.finish(self, drop_frames)?;
        self.counters
            .evicted_dirty
            .fetch_add(settled.written, Ordering::Relaxed);
        started?;
        Ok(settled.freed)
    }

    /// Tries to empty a block of frames: clean pages leave, dirty ones become victims.
    fn clear_block(&self, at: usize, block: usize, victims: &mut Vec<Victim>) -> Cleared {
        let mut clean = Vec::new();
        let mut dirty = Vec::new();
        let mut kept = false;
        for granule in at..at + block {
            match self.frames.owner(granule) {
                Owner::None => {}
                Owner::Frozen(_) => kept = true,
                Owner::Page(id) => match self.judge(id) {
                    Some((class, false)) => clean.push((id, class)),
                    Some((class, true)) => dirty.push(Victim {
                        id,
                        class,
                        frozen: None,
                    }),
                    None => kept = true,
                },
            }
        }
        if kept {
            return Cleared::Kept;
        }
        let freed = clean
            .into_iter()
            .map(|(id, class)| self.drop_clean(id, class))
            .sum();
        if !dirty.is_empty() {
            victims.append(&mut dirty);
            return Cleared::Dirty;
        }
        Cleared::Freed(freed)
    }

    /// Class of a page that may leave, and whether it is dirty; None if it stays.
    fn judge(&self, id: PageId) -> Option<(Class, bool)> {
        let entry = self.translation.entry(id)?;
        let state = entry.state.load(Ordering::Relaxed);
        if !latch::is_free(state) || state & latch::RESIDENT == 0 || state & latch::IO != 0 {
            return None;
        }
        if state & latch::MARKED != 0 {
            latch::clear(entry.state, latch::MARKED);
            return None;
        }
        let frame = FrameWord::unpack(entry.frame.load(Ordering::Relaxed))?;
        Some((frame.class, state & latch::DIRTY != 0))
    }

    /// Drops a page if it is still clean and nobody holds it. Returns the bytes freed.
    fn drop_clean(&self, id: PageId, class: Class) -> u64 {
        let Some(entry) = self.translation.entry(id) else {
            return 0;
        };
        let Some(before) = latch::try_latch(entry.state) else {
            return 0;
        };
        let clean = before & (latch::RESIDENT | latch::DIRTY | latch::IO) == latch::RESIDENT;
        if !clean {
            latch::release_unchanged(entry.state);
            return 0;
        }
        self.drop_resident(entry);
        latch::release_changed(entry.state);
        class.bytes() as u64
    }

    /// Pages of at most `epoch` that are not on disk, among `many` granules from `at` on. Returns
    /// where to go on, or None at the end.
    pub(crate) fn find_dirty(
        &self,
        epoch: Epoch,
        at: usize,
        many: usize,
        found: &mut Vec<Victim>,
    ) -> Option<usize> {
        let end = (at + many).min(self.frames.granules());
        for granule in at..end {
            if let Owner::Page(id) = self.frames.owner(granule)
                && let Some(class) = self.unwritten(id, epoch)
            {
                found.push(Victim {
                    id,
                    class,
                    frozen: None,
                });
            }
        }
        (end < self.frames.granules()).then_some(end)
    }

    /// True if the live page holds content of at most `epoch` that is not on disk.
    pub(crate) fn needs_write(&self, id: PageId, epoch: Epoch) -> bool {
        self.unwritten(id, epoch).is_some()
    }

    /// Without a latch: a page in the middle of a change may be named although it need not be, but
    /// none is missed. A writer freezes a copy before the frame word shows its newer epoch.
    fn unwritten(&self, id: PageId, epoch: Epoch) -> Option<Class> {
        let entry = self.translation.entry(id)?;
        let frame = FrameWord::unpack(entry.frame.load(Ordering::Acquire))?;
        let wanted = latch::RESIDENT | latch::DIRTY;
        let dirty = entry.state.load(Ordering::Acquire) & wanted == wanted;
        (dirty && frame.epoch(self.gate.current()) <= epoch).then_some(frame.class)
    }

    /// True if a copy of at most `epoch` waits to be written or is being written.
    pub(crate) fn has_frozen(&self, epoch: Epoch) -> bool {
        self.frozen
            .lock()
            .keys()
            .any(|&(_, content)| content <= epoch)
    }

    /// The checkpoint was abandoned: copies that nobody is writing are needed by no image, because
    /// the next one holds their pages' newer content.
    pub(crate) fn drop_frozen(&self) {
        let mut dropped = Vec::new();
        self.frozen.lock().retain(|_, frozen| {
            if !frozen.busy {
                dropped.push(*frozen);
            }
            frozen.busy
        });
        for frozen in dropped {
            self.frames.give(frozen.frame, frozen.class);
        }
    }

    /// Frozen copies that nobody is writing.
    pub(crate) fn frozen_victims(&self, most: usize) -> Vec<Victim> {
        let frozen = self.frozen.lock();
        let idle = frozen.iter().filter(|(_, frozen)| !frozen.busy);
        idle.take(most)
            .map(|(&(id, content), &Frozen { class, .. })| Victim {
                id,
                class,
                frozen: Some(content),
            })
            .collect()
    }
}
