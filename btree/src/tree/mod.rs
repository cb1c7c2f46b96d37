//! B+trees over the pool: rows by key, many threads at once.
//!
//! - [`search`]: the way down, by optimistic lock coupling; `get`.
//! - [`update`]: one row changed under its leaf's latch; [`chain`]: bytes too long for a page.
//! - [`split`], [`merge`]: changes of structure. Each latches all its pages and reserves all its
//!   new ones in one epoch before it changes the first byte, or starts again (T2).
//! - [`plant`]: a new tree's root together with the row that names it.
//! - [`run`]: many rows in order, a leaf at a time; [`prefetch`]: leaves read ahead of need.
//! - [`cursor`]: rows in order, a leaf at a time; [`span`]: the rows of a short range, copied out.
//!
//! Nothing waits inside the gate or under a latch (T4): whatever cannot go on returns a [`Stall`],
//! all guards are dropped on the way out, and [`Tree::settle`] waits outside. The id of a tree's
//! root never changes: a root that overflows moves its content down, a root left with one child
//! takes its content up. There are no sibling pointers.

mod chain;
pub mod cursor;
mod merge;
mod plant;
mod prefetch;
pub mod run;
mod search;
pub mod span;
mod split;
#[cfg(test)]
mod tests;
mod update;

use std::ops::Bound;
use std::sync::Arc;

use terrane_wal::lsn::TreeId;

use crate::error::StoreError;
use crate::ids::{Class, PageId};
use crate::page::header::{LEAF, PageHeader, counts, kind};
use crate::page::image::{Builder, Frame, PageCopy};
use crate::page::view::{PageEdit, PageView};
use crate::pool::{Excl, Pool, Stall};
use cursor::{Cursor, Direction};
pub(crate) use plant::Seed;

/// Longest key in bytes.
pub const KEY_MAX: usize = 32 << 10;
/// Longest value in bytes.
pub const VALUE_MAX: usize = crate::page::overflow::CHAIN_MAX;

/// What a row says about itself beside its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowFlags {
    /// The row was deleted; older versions may live elsewhere.
    pub ghost: bool,
    /// Older versions of the row may live elsewhere.
    pub versioned: bool,
}

/// The value of a row that is about to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowValue<'a> {
    /// The value.
    Inline(&'a [u8]),
    /// The value is in overflow pages; [`Tree::get`] reads it.
    Overflow {
        /// Its length in bytes.
        len: usize,
    },
}

/// A row that is about to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// Ghost and versioned.
    pub flags: RowFlags,
    /// The value; empty for a ghost.
    pub value: RowValue<'a>,
}

/// What becomes of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit<'v> {
    /// Nothing.
    Keep,
    /// It has this value from now on, whether it was there or not.
    Put {
        /// At most [`VALUE_MAX`] bytes.
        value: &'v [u8],
        /// Whether older versions may live elsewhere.
        versioned: bool,
    },
    /// It stays as a ghost without a value (also if it was not there), versioned.
    Ghost,
    /// It goes, if it was there.
    Remove,
}

/// A tree. Clones are cheap and share it.
#[derive(Clone, Debug)]
pub struct Tree {
    pool: Arc<Pool>,
    id: TreeId,
    class: Class,
    root: PageId,
}

impl Tree {
    /// The tree whose root page is `root`.
    pub(crate) fn attach(pool: Arc<Pool>, id: TreeId, class: Class, root: PageId) -> Tree {
        Tree {
            pool,
            id,
            class,
            root,
        }
    }

    /// Allocates the root of a new, empty tree, which nobody names yet.
    pub(crate) fn create_root(
        pool: &Arc<Pool>,
        id: TreeId,
        class: Class,
    ) -> Result<PageId, StoreError> {
        let tree = Tree::attach(pool.clone(), id, class, PageId::NONE);
        loop {
            let guard = pool.enter();
            let stall = match pool.allocate(&guard, class, id, LEAF) {
                Ok(page) => {
                    write_empty_leaf(&page);
                    return Ok(page.id());
                }
                Err(stall) => stall,
            };
            drop(guard);
            tree.settle(stall)?;
        }
    }

    /// A tree in memory only, in a pool of its own: `Full` when that is used up.
    pub fn in_memory(id: TreeId, class: Class, memory_bytes: usize) -> Result<Tree, StoreError> {
        let pool = Pool::in_memory(memory_bytes)?;
        let root = Tree::create_root(&pool, id, class)?;
        Ok(Tree::attach(pool, id, class, root))
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> TreeId {
        self.id
    }

    /// The class of its pages.
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    /// Its root page.
    pub(crate) fn root(&self) -> PageId {
        self.root
    }

    /// The pool that its pages are in.
    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Rows from `lower` to `upper`, in `direction`. The cursor owns what it needs, holds no latch
    /// between calls, and sees every row that was there all the time it was open.
    #[must_use]
    pub fn cursor(&self, lower: Bound<&[u8]>, upper: Bound<&[u8]>, direction: Direction) -> Cursor {
        Cursor::new(self.clone(), lower, upper, direction)
    }

    /// Ends the tree: removes every row, and with them every page, at last the root. Nobody may
    /// name the tree any more. Each step is a change like any other, so a checkpoint may cut
    /// between any two of them. O(rows).
    pub fn drop_contents(&self) -> Result<(), StoreError> {
        let mut rows = cursor::LeafRows::default();
        loop {
            let mut cursor = self.cursor(Bound::Unbounded, Bound::Unbounded, Direction::Forward);
            while cursor.next_leaf(&mut rows)? {
                for row in rows.iter() {
                    self.update(row.key, &mut |_| Edit::Remove)?;
                }
            }
            match self.free_root() {
                Ok(true) => return Ok(()),
                // A merge was left for later; now it is later.
                Ok(false) => self.merge_around(&[]),
                Err(stall) => self.settle(stall)?,
            }
        }
    }

    /// Frees the root if it is an empty leaf.
    fn free_root(&self) -> Result<bool, Stall> {
        let guard = self.pool.enter();
        let root = self.pool.optimistic(self.root)?.upgrade_structure(&guard)?;
        let view = PageView::new(root.words());
        if kind(view) != LEAF || counts(view).n > 0 {
            return Ok(false);
        }
        self.pool.free(&guard, root);
        Ok(true)
    }

    /// Waits, outside gate and latches, until what stopped an operation may have passed (T4).
    pub(crate) fn settle(&self, stall: Stall) -> Result<(), StoreError> {
        match stall {
            Stall::Latched => self.pool.pause(),
            Stall::NewerEpoch => {}
            Stall::Absent(id) => self.pool.load(id).map_err(|error| error.in_tree(self.id))?,
            Stall::NoFrame => self.pool.relieve()?,
            Stall::Corrupt(error) => return Err(error.in_tree(self.id)),
        }
        Ok(())
    }
}

/// Makes a freshly allocated page the empty root of a tree.
pub(crate) fn write_empty_leaf(page: &Excl<'_>) {
    let identity = header_of(page);
    let frame = Frame {
        identity: &identity,
        kind: LEAF,
        level: 0,
        lower: None,
        upper: None,
    };
    let builder = Builder::new(page.class().bytes(), frame);
    PageEdit::new(page.words()).write_page(&builder.finish(PageId::NONE));
}

/// The header of a latched page.
fn header_of(page: &Excl<'_>) -> PageHeader {
    *PageCopy::of(PageView::new(page.words())).header()
}
