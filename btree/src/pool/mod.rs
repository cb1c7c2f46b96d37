//! The buffer pool: pages in memory, found by array translation, guarded by optimistic latches.
//!
//! What a tree does with it:
//!
//! - a reader calls [`Pool::optimistic`], reads through the view, and believes nothing before
//!   [`Opt::validate`] said yes (parent before child: read the child's id, get the child, validate
//!   the parent);
//! - a writer enters the gate ([`Pool::enter`]), turns an `Opt` into an [`Excl`] by
//!   [`Opt::upgrade`] (the change stays in this page) or [`Opt::upgrade_structure`] (the change
//!   spans pages: all of them are latched before the first is changed), and edits;
//! - on a [`Stall`] it drops its latches and its gate guard, then waits where waiting is allowed:
//!   `Absent` -> [`Pool::load`], `NoFrame` -> [`Pool::relieve`], the others -> simply again;
//!   `Latched` may first call [`Pool::pause`].
//!
//! What the store asks of the tree side: `Tree::create_root(&Arc<Pool>, TreeId, Class) ->
//! Result<PageId, StoreError>` (an empty leaf), `Tree::attach(Arc<Pool>, TreeId, Class, root:
//! PageId)
//! -> Tree`, and `Tree::drop_contents(&self)` (frees every page, the root too).
//!
//! T4: nothing here waits while a gate guard or an `Excl` lives. Space on disk never stops a change
//! in memory (X2): it is asked for ahead by `Store::admit`, so there is no stall for it.

#![allow(
    unsafe_code,
    reason = "the mappings of frames and arrays are made here"
)]

mod evict;
pub(crate) mod frame;
mod hold;
pub mod latch;
pub(crate) mod load;
#[cfg(test)]
mod tests;
pub(crate) mod translate;
pub(crate) mod writeout;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use terrane_wal::lsn::TreeId;
use terrane_wal::sync::Mutex;
use terrane_wal::waits::NoWait;

use crate::error::StoreError;
use crate::ids::{Class, Epoch, PageId};
use crate::image::gate::Gate;
use crate::space::{Space, SpaceDisk};
use frame::{Frames, GRANULE, Owner};
pub use hold::{Excl, Opt};
use latch::Blocked;
use translate::{FrameWord, Location, Translation};

const GATE_STRIPES: usize = 32;
const MAGIC: u64 = u16::from_le_bytes(*b"TP") as u64;

/// Frames, translation, and everything that moves pages between memory and disk.
#[derive(Debug)]
pub struct Pool {
    pub(crate) gate: Gate,
    /// Epoch that a checkpoint is cutting off; 0 if none is.
    cut: AtomicU32,
    frames: Frames,
    translation: Translation,
    ids: Mutex<Ids>,
    /// Content <= cut whose page went on in a copy, by page and epoch of the content, until it was
    /// written.
    frozen: Mutex<BTreeMap<(PageId, Epoch), Frozen>>,
    /// Where the clock's hand is, in blocks of whatever size was wanted.
    hand: AtomicUsize,
    /// Number of the largest class for which there was no frame.
    wanted: AtomicU8,
    pub(crate) space: Space,
    pub(crate) counters: Counters,
}

/// Page ids not in use.
#[derive(Debug)]
struct Ids {
    /// The first id never used.
    next: u64,
    /// Ids of pages that ended, with the epoch of their end.
    ended: Vec<(Epoch, PageId)>,
    /// Ids that no page of the opened image has, as half-open ranges.
    gaps: Vec<(u64, u64)>,
}

/// A frame whose page went on in a copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frozen {
    pub(crate) frame: u32,
    pub(crate) class: Class,
    /// Version of the page when it was frozen.
    pub(crate) version: u64,
    /// Somebody is writing it.
    pub(crate) busy: bool,
}

/// What the pool counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) resident: AtomicU64,
    pub(crate) dirty: AtomicU64,
    pub(crate) dirty_bytes: AtomicU64,
    pub(crate) copied: AtomicU64,
    pub(crate) loaded: AtomicU64,
    pub(crate) evicted: AtomicU64,
    pub(crate) evicted_dirty: AtomicU64,
    pub(crate) checkpointed: AtomicU64,
}

impl Counters {
    fn dirtied(&self, class: Class) {
        self.dirty.fetch_add(1, Ordering::Relaxed);
        self.dirty_bytes
            .fetch_add(class.bytes() as u64, Ordering::Relaxed);
    }

    fn clean(&self, class: Class) {
        self.dirty.fetch_sub(1, Ordering::Relaxed);
        self.dirty_bytes
            .fetch_sub(class.bytes() as u64, Ordering::Relaxed);
    }
}

/// What a pool starts with.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) memory_bytes: usize,
    pub(crate) disk: Option<SpaceDisk>,
    /// The first open epoch.
    pub(crate) epoch: Epoch,
    /// The first page id never used.
    pub(crate) next_id: PageId,
}

/// A thread's stay in the epoch gate. Short, without any wait (T4).
#[derive(Debug)]
pub struct GateGuard<'a> {
    gate: &'a Gate,
    stripe: usize,
    epoch: Epoch,
    /// Nothing waits in the gate (T4). Not `Send`: a guard leaves through the stripe of its own
    /// thread.
    _no_wait: NoWait,
}

/// Why an operation could not go on. Drop all latches and the gate guard before acting on it.
#[derive(Debug)]
pub enum Stall {
    /// Somebody holds or changed the page: again from the root.
    Latched,
    /// Not in memory: [`Pool::load`], then again.
    Absent(PageId),
    /// No free frame: [`Pool::relieve`], then again.
    NoFrame,
    /// A structure change met a page that was changed in a newer epoch: leave the gate, enter it
    /// again (in the newer epoch), again (T2).
    NewerEpoch,
    /// The page cannot be had: no such page in the map. The parent that named it may have changed
    /// meanwhile: validate it before believing this.
    Corrupt(StoreError),
}

impl Pool {
    /// A pool of `memory_bytes` without a disk behind it: nothing can be evicted. For tests.
    pub fn in_memory(memory_bytes: usize) -> Result<Arc<Pool>, StoreError> {
        Pool::new(Start {
            memory_bytes,
            disk: None,
            epoch: Epoch(1),
            next_id: PageId::DIRECTORY,
        })
    }

    pub(crate) fn new(start: Start) -> Result<Arc<Pool>, StoreError> {
        let translation = Translation::new();
        translation.reserve(start.next_id)?;
        Ok(Arc::new(Pool {
            gate: Gate::new(start.epoch, GATE_STRIPES),
            cut: AtomicU32::new(0),
            frames: Frames::new(start.memory_bytes)?,
            translation,
            ids: Mutex::new(Ids {
                next: start.next_id.0,
                ended: Vec::new(),
                gaps: Vec::new(),
            }),
            frozen: Mutex::default(),
            hand: AtomicUsize::new(0),
            wanted: AtomicU8::new(0),
            space: Space {
                disk: start.disk,
                ..Space::default()
            },
            counters: Counters::default(),
        }))
    }

    /// Enters the epoch gate.
    #[inline]
    pub fn enter(&self) -> GateGuard<'_> {
        let stripe = stripe();
        GateGuard {
            epoch: self.gate.enter(stripe),
            gate: &self.gate,
            stripe,
            _no_wait: NoWait::begin(),
        }
    }

    /// Looks at a page without a latch. `Latched`, `Absent` or `Corrupt` (no such page).
    #[inline]
    pub fn optimistic(&self, id: PageId) -> Result<Opt<'_>, Stall> {
        let Some(entry) = self.translation.entry(id) else {
            return Err(no_such_page(id));
        };
        let seen = match latch::look(entry.state) {
            Ok(seen) => seen,
            Err(Blocked::Latched) => return Err(Stall::Latched),
            Err(Blocked::Absent) => {
                return Err(match entry.location() {
                    Some(Location { at: None, .. }) => no_such_page(id),
                    _ => Stall::Absent(id),
                });
            }
        };
        let frame = FrameWord::unpack(entry.frame.load(Ordering::Relaxed));
        // The frame word belongs to the state word only if that did not change between.
        let frame = frame.filter(|_| latch::unchanged(entry.state, seen));
        let Some(frame) = frame else {
            return Err(Stall::Latched);
        };
        let Some(words) = self.frames.words(frame.frame, frame.class) else {
            return Err(Stall::Latched);
        };
        Ok(Opt {
            pool: self,
            id,
            entry,
            seen,
            class: frame.class,
            words,
        })
    }

    /// Tells the processor that a page is about to be read: the first lines of each of its halves
    /// are on their way from memory while the caller goes on. Nothing is read from the disk.
    #[inline]
    pub(crate) fn expect(&self, id: PageId) {
        if let Some(words) = self.likely_words(id) {
            let (front, back) = words.split_at(words.len() / 2);
            frame::expect(front);
            frame::expect(back);
        }
    }

    /// As [`Pool::expect`], for a page in which a row is looked for: its header and the first of
    /// its slots.
    #[inline]
    pub(crate) fn expect_front(&self, id: PageId) {
        const WORDS: usize = 48;
        if let Some(words) = self.likely_words(id) {
            frame::expect(words.get(..WORDS).unwrap_or(words));
        }
    }

    /// Where a page probably lies.
    #[inline]
    fn likely_words(&self, id: PageId) -> Option<&[AtomicU64]> {
        let entry = self.translation.entry(id)?;
        // Whatever the word says, it is a place in the frames or refused.
        let frame = FrameWord::unpack(entry.frame.load(Ordering::Relaxed))?;
        self.frames.words(frame.frame, frame.class)
    }

    /// Lets others run before a retry after `Latched`.
    pub fn pause(&self) {
        match &self.space.disk {
            Some(disk) => disk.env.park.yield_now(),
            None => std::hint::spin_loop(),
        }
    }

    /// A new page: zeroed, its header filled in as far as the pool knows it (magic, kind, class,
    /// page id, tree, birth epoch), latched, dirty in the guard's epoch. `NoFrame`, or `Latched` if
    /// the id is still held by a thread that looked for its last page.
    pub fn allocate(
        &self,
        guard: &GateGuard<'_>,
        class: Class,
        tree: TreeId,
        kind: u8,
    ) -> Result<Excl<'_>, Stall> {
        let epoch = guard.epoch();
        let frame = self.take_or_want(class).ok_or(Stall::NoFrame)?;
        let Some((id, entry, words)) = self.new_id(epoch).and_then(|id| {
            let entry = self.translation.entry(id)?;
            Some((id, entry, self.frames.words(frame, class)?))
        }) else {
            self.frames.give(frame, class);
            return Err(Stall::NoFrame);
        };
        if latch::try_latch(entry.state).is_none() {
            // A thread that finds out that the id's last page ended holds it for a moment.
            self.frames.give(frame, class);
            self.ids.lock().ended.push((epoch, id));
            return Err(Stall::Latched);
        }
        for word in words {
            word.store(0, Ordering::Relaxed);
        }
        let kinds = u64::from(kind) << 16 | u64::from(class.number()) << 24;
        words[0].store((MAGIC | kinds) << 32, Ordering::Relaxed);
        words[1].store(id.0, Ordering::Relaxed);
        words[2].store(u64::from(tree.0), Ordering::Relaxed);
        stamp(words, epoch);
        let frame_word = FrameWord::new(frame, epoch, class);
        entry.frame.store(frame_word.pack(), Ordering::Relaxed);
        if entry.location().is_none() {
            entry.set_location(Location::none(Epoch(0)));
        }
        self.frames.set_owner(frame, Owner::Page(id));
        latch::set(entry.state, latch::RESIDENT | latch::DIRTY | latch::MARKED);
        self.counters.resident.fetch_add(1, Ordering::Relaxed);
        self.counters.dirtied(class);
        Ok(Excl {
            id,
            entry,
            frame: frame_word,
            epoch,
            words,
        })
    }

    /// Ends a page's life in the guard's epoch. Its epoch must not be newer (it came from
    /// `upgrade_structure` or `allocate` under this guard). Its slot dies by the rule of
    /// `space::deadlist`, its id is used again later.
    pub fn free(&self, guard: &GateGuard<'_>, page: Excl<'_>) {
        let epoch = guard.epoch();
        // T2: the end of a page is a structure change.
        assert!(
            page.epoch == epoch,
            "{} of {} freed in {epoch}",
            page.id,
            page.epoch
        );
        latch::clear(
            page.entry.state,
            latch::RESIDENT | latch::DIRTY | latch::MARKED,
        );
        self.counters.resident.fetch_sub(1, Ordering::Relaxed);
        self.counters.clean(page.frame.class);
        let end = Location::none(epoch);
        let before = page.entry.location();
        page.entry.set_location(end);
        self.space.publish(epoch, page.id, end);
        if let Some(Location {
            at: Some(at),
            birth,
            ..
        }) = before
        {
            self.space.slot_died(at, birth, epoch);
        }
        self.frames.give(page.frame.frame, page.frame.class);
        let id = page.id;
        drop(page);
        self.ids.lock().ended.push((epoch, id));
    }

    /// Epoch that a checkpoint is cutting off; epoch 0 if none is.
    pub(crate) fn cut(&self) -> Epoch {
        Epoch(self.cut.load(Ordering::Acquire))
    }

    pub(crate) fn set_cut(&self, epoch: Epoch) {
        self.cut.store(epoch.0, Ordering::Release);
    }

    /// The first page id never used.
    pub(crate) fn page_id_hi(&self) -> PageId {
        PageId(self.ids.lock().next)
    }

    /// Bytes of all frames.
    pub(crate) fn frame_bytes(&self) -> u64 {
        (self.frames.granules() * GRANULE) as u64
    }

    /// Bytes of frames in use.
    pub(crate) fn frames_used(&self) -> u64 {
        (self.frames.used() * GRANULE) as u64
    }

    /// True if the page is not in memory at this moment.
    pub(crate) fn is_absent(&self, id: PageId) -> bool {
        matches!(self.optimistic(id), Err(Stall::Absent(_)))
    }

    /// The tree that a page belongs to; None if there is no such page. Blocks.
    pub(crate) fn tree_of(&self, id: PageId) -> Result<Option<TreeId>, StoreError> {
        loop {
            let stall = match self.optimistic(id) {
                Ok(page) => {
                    let tree = TreeId(page.words()[2].load(Ordering::Relaxed) as u32);
                    if page.validate() {
                        return Ok(Some(tree));
                    }
                    Stall::Latched
                }
                Err(stall) => stall,
            };
            match stall {
                Stall::Absent(id) => self.load(id)?,
                Stall::Corrupt(_) => return Ok(None),
                Stall::NoFrame => self.relieve()?,
                Stall::Latched | Stall::NewerEpoch => self.pause(),
            }
        }
    }

    /// Ids that no page has, as half-open ranges. Before the pool is shared.
    pub(crate) fn set_gaps(&self, gaps: Vec<(u64, u64)>) {
        self.ids.lock().gaps = gaps;
    }

    /// Sets where a page lies. Before the pool is shared.
    pub(crate) fn set_location(&self, id: PageId, location: Location) {
        if let Some(entry) = self.translation.entry(id) {
            entry.set_location(location);
        }
    }

    fn freeze(&self, page: (PageId, Epoch), frozen: Frozen) {
        self.counters.copied.fetch_add(1, Ordering::Relaxed);
        let before = self.frozen.lock().insert(page, frozen);
        // T2: two copies of one content: one of them would be lost.
        assert!(
            before.is_none(),
            "{} was frozen twice in {}",
            page.0,
            page.1
        );
    }

    /// A frame, or a note that one of this class is wanted.
    fn take_or_want(&self, class: Class) -> Option<u32> {
        let frame = self.frames.take(class);
        if frame.is_none() {
            self.wanted.fetch_max(class.number(), Ordering::Relaxed);
        }
        frame
    }

    /// The class to make room for, and forgets that it was wanted.
    fn wanted_class(&self) -> Class {
        let wanted = self.wanted.swap(0, Ordering::Relaxed);
        Class::new(wanted).unwrap_or(Class::K8)
    }

    /// Reserves the words of the next page ids, if a thread in the gate is about to need them.
    fn reserve_ids(&self) -> Result<(), StoreError> {
        let next = PageId(self.ids.lock().next);
        if self.translation.covers(next) {
            return Ok(());
        }
        self.translation.reserve(next)
    }

    /// An id for a page that begins in `epoch`. An id that ended in a newer epoch than the writer's
    /// is left alone: its end would follow its new beginning in the image.
    fn new_id(&self, epoch: Epoch) -> Option<PageId> {
        let mut ids = self.ids.lock();
        if let Some(&(end, id)) = ids.ended.last()
            && end <= epoch
        {
            ids.ended.pop();
            return Some(id);
        }
        if let Some(gap) = ids.gaps.last_mut() {
            let id = PageId(gap.0);
            gap.0 += 1;
            if gap.0 == gap.1 {
                ids.gaps.pop();
            }
            return Some(id);
        }
        let id = PageId(ids.next);
        if !self.translation.covers(id) {
            return None;
        }
        ids.next += 1;
        Some(id)
    }
}

impl GateGuard<'_> {
    /// The epoch in which this thread changes pages.
    #[inline]
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }
}

impl Drop for GateGuard<'_> {
    fn drop(&mut self) {
        self.gate.leave(self.stripe, self.epoch);
    }
}

fn no_such_page(id: PageId) -> Stall {
    Stall::Corrupt(StoreError::corrupt_page(
        id,
        "a page in the map",
        "no entry",
    ))
}

/// Writes the content's epoch into the header and counts the change.
fn stamp(words: &[AtomicU64], epoch: Epoch) {
    let tree = words[2].load(Ordering::Relaxed) & 0xffff_ffff;
    words[2].store(tree | u64::from(epoch.0) << 32, Ordering::Relaxed);
    let count = words[3].load(Ordering::Relaxed);
    words[3].store(count.wrapping_add(1), Ordering::Relaxed);
}

fn copy_words(from: &[AtomicU64], to: &[AtomicU64]) {
    for (from, to) in from.iter().zip(to) {
        to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// The gate stripe of this thread.
fn stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static STRIPE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    STRIPE.with(|stripe| {
        if stripe.get() == usize::MAX {
            stripe.set(NEXT.fetch_add(1, Ordering::Relaxed) % GATE_STRIPES);
        }
        stripe.get()
    })
}

/// Copies a frame into bytes.
fn copy_out(words: &[AtomicU64], bytes: &mut [u8]) {
    for (word, bytes) in words.iter().zip(bytes.chunks_exact_mut(8)) {
        bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
    }
}

/// Copies bytes into a frame.
fn copy_in(bytes: &[u8], words: &[AtomicU64]) {
    for (word, bytes) in words.iter().zip(bytes.chunks_exact(8)) {
        let mut raw = [0; 8];
        raw.copy_from_slice(bytes);
        word.store(u64::from_le_bytes(raw), Ordering::Relaxed);
    }
}
