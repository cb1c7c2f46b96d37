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

use std::marker::PhantomData;
use std::sync::atomic::AtomicU64;

use terrane_wal::lsn::TreeId;

use crate::error::StoreError;
use crate::ids::{Class, Epoch, PageId};

/// Frames, translation, and everything that moves pages between memory and disk.
#[derive(Debug)]
pub struct Pool {
    nothing: (),
}

/// A thread's stay in the epoch gate. Short, without any wait (T4).
#[derive(Debug)]
pub struct GateGuard<'a> {
    nothing: PhantomData<&'a ()>,
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

/// A page that is looked at without a latch.
#[derive(Debug)]
pub struct Opt<'a> {
    nothing: PhantomData<&'a ()>,
}

/// A page held exclusively, dirty, in its epoch. Dropping it unlatches and bumps the version.
#[derive(Debug)]
pub struct Excl<'a> {
    nothing: PhantomData<&'a ()>,
}

impl Pool {
    /// A pool of `memory_bytes` without a disk behind it: nothing can be evicted. For tests.
    pub fn in_memory(memory_bytes: usize) -> Result<std::sync::Arc<Pool>, StoreError> {
        todo!("{memory_bytes}")
    }

    /// Enters the epoch gate.
    pub fn enter(&self) -> GateGuard<'_> {
        todo!()
    }

    /// Looks at a page without a latch. `Latched`, `Absent` or `Corrupt` (no such page).
    pub fn optimistic(&self, id: PageId) -> Result<Opt<'_>, Stall> {
        todo!("{id}")
    }

    /// Reads a page into memory if it is on disk and not there. Blocks: never inside the gate or
    /// under a latch. Ok also if the page no longer exists (then `optimistic` says so).
    pub fn load(&self, id: PageId) -> Result<(), StoreError> {
        todo!("{id}")
    }

    /// Makes frames free: evicts, writing dirty pages if needed. Blocks: never inside the gate or
    /// under a latch.
    pub fn relieve(&self) -> Result<(), StoreError> {
        todo!()
    }

    /// Lets others run before a retry after `Latched`.
    pub fn pause(&self) {
        todo!()
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
        todo!("{guard:?} {class} {tree} {kind}")
    }

    /// Ends a page's life in the guard's epoch. Its epoch must not be newer (it came from
    /// `upgrade_structure` or `allocate` under this guard). Its slot dies by the rule of
    /// `space::deadlist`, its id is used again later.
    pub fn free(&self, guard: &GateGuard<'_>, page: Excl<'_>) {
        todo!("{guard:?} {page:?}")
    }
}

impl GateGuard<'_> {
    /// The epoch in which this thread changes pages.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        todo!()
    }
}

impl<'a> Opt<'a> {
    /// The page's id.
    #[must_use]
    pub fn id(&self) -> PageId {
        todo!()
    }

    /// Its size class.
    #[must_use]
    pub fn class(&self) -> Class {
        todo!()
    }

    /// Its words, which may be changing: `PageView::new(page.words())`.
    #[must_use]
    pub fn words(&self) -> &'a [AtomicU64] {
        todo!()
    }

    /// True if everything read so far was one state of this page, and it is still the state.
    #[must_use]
    pub fn validate(&self) -> bool {
        todo!()
    }

    /// Latches the page for a change that stays inside it, in the guard's epoch or in the page's
    /// newer one. `Latched` (changed since the look) or `NoFrame` (a frozen page must be copied).
    pub fn upgrade(self, guard: &GateGuard<'_>) -> Result<Excl<'a>, Stall> {
        todo!("{guard:?}")
    }

    /// Latches the page as part of a change that spans pages; also `NewerEpoch` (T2).
    pub fn upgrade_structure(self, guard: &GateGuard<'_>) -> Result<Excl<'a>, Stall> {
        todo!("{guard:?}")
    }
}

impl Excl<'_> {
    /// The page's id.
    #[must_use]
    pub fn id(&self) -> PageId {
        todo!()
    }

    /// Its size class.
    #[must_use]
    pub fn class(&self) -> Class {
        todo!()
    }

    /// Its words, which nobody else changes: `PageEdit::new(page.words())`, `PageView::new(..)`.
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        todo!()
    }

    /// The epoch of the page's content from now on.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        todo!()
    }
}
