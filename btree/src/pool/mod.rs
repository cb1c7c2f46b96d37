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
//! Result<PageId, StoreError>` (an empty leaf), `Tree::attach(Arc<Pool>, TreeId, Class, root: PageId)
//! -> Tree`, and `Tree::drop_contents(&self)` (frees every page, the root too).
//!
//! T4: nothing here waits while a gate guard or an `Excl` lives. Space on disk never stops a change
//! in memory (X2): it is asked for ahead by `Store::admit`, so there is no stall for it.

#![allow(
    unsafe_code,
    reason = "the mappings of frames and arrays are made here"
)]

pub(crate) mod frame;
mod hold;
pub mod latch;
#[cfg(test)]
mod tests;
pub(crate) mod translate;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use terrane_wal::lsn::TreeId;
use terrane_wal::sync::Mutex;

use crate::error::StoreError;
use crate::ids::{Class, Epoch, PageId};
use crate::image::gate::Gate;
use crate::space::Space;
use frame::{Frames, Owner};
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
    /// Content <= cut whose page went on in a copy, until the checkpoint has written it.
    frozen: Mutex<BTreeMap<PageId, Frozen>>,
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
}

/// A frame that belongs to the checkpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frozen {
    pub(crate) frame: u32,
    pub(crate) class: Class,
    pub(crate) content: Epoch,
}

/// What the pool counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) resident: AtomicU64,
    pub(crate) dirty: AtomicU64,
    pub(crate) copied: AtomicU64,
}

/// A thread's stay in the epoch gate. Short, without any wait (T4).
#[derive(Debug)]
pub struct GateGuard<'a> {
    gate: &'a Gate,
    stripe: usize,
    epoch: Epoch,
    /// A guard leaves through the stripe of its own thread.
    not_send: std::marker::PhantomData<*const ()>,
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
        let translation = Translation::new();
        translation.reserve(PageId::DIRECTORY)?;
        Ok(Arc::new(Pool {
            gate: Gate::new(Epoch(1), GATE_STRIPES),
            cut: AtomicU32::new(0),
            frames: Frames::new(memory_bytes)?,
            translation,
            ids: Mutex::new(Ids {
                next: 1,
                ended: Vec::new(),
            }),
            frozen: Mutex::default(),
            space: Space::default(),
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
            not_send: std::marker::PhantomData,
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

    /// Reads a page into memory if it is on disk and not there. Blocks: never inside the gate or
    /// under a latch. Ok also if the page no longer exists (then `optimistic` says so).
    pub fn load(&self, id: PageId) -> Result<(), StoreError> {
        Err(StoreError::Invalid {
            what: format!("{id}: this pool has no disk"),
        })
    }

    /// Makes frames free: evicts, writing dirty pages if needed. Blocks: never inside the gate or
    /// under a latch.
    pub fn relieve(&self) -> Result<(), StoreError> {
        let next = PageId(self.ids.lock().next);
        if !self.translation.covers(next) {
            return self.translation.reserve(next);
        }
        Err(StoreError::Full {
            what: "pages in a pool without a disk",
            wanted: Class::K8.bytes() as u64,
            available: 0,
        })
    }

    /// Lets others run before a retry after `Latched`.
    pub fn pause(&self) {
        std::hint::spin_loop();
    }

    /// A new page: zeroed, its header filled in as far as the pool knows it (magic, kind, class,
    /// page id, tree, birth epoch), latched, dirty in the guard's epoch. `NoFrame` at most.
    pub fn allocate(
        &self,
        guard: &GateGuard<'_>,
        class: Class,
        tree: TreeId,
        kind: u8,
    ) -> Result<Excl<'_>, Stall> {
        let epoch = guard.epoch();
        let frame = self.frames.take(class).ok_or(Stall::NoFrame)?;
        let Some((id, entry, words)) = self.new_id(epoch).and_then(|id| {
            let entry = self.translation.entry(id)?;
            Some((id, entry, self.frames.words(frame, class)?))
        }) else {
            self.frames.give(frame, class);
            return Err(Stall::NoFrame);
        };
        // An ended id may still be latched by a thread that finds out that it ended.
        while latch::try_latch(entry.state).is_none() {
            std::hint::spin_loop();
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
        self.counters.dirty.fetch_add(1, Ordering::Relaxed);
        Ok(Excl {
            pool: self,
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
        self.counters.dirty.fetch_sub(1, Ordering::Relaxed);
        if let Some(Location {
            at: Some(at),
            birth,
            ..
        }) = page.entry.location()
        {
            let end = Location::none(epoch);
            page.entry.set_location(end);
            self.space.publish(epoch, page.id, end);
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

    fn freeze(&self, id: PageId, frozen: Frozen) {
        self.counters.copied.fetch_add(1, Ordering::Relaxed);
        let before = self.frozen.lock().insert(id, frozen);
        // T2: two copies of one page for one image: one of them would be lost.
        assert!(before.is_none(), "{id} was frozen twice for one checkpoint");
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
