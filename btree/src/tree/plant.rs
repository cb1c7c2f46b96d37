//! The root of a new tree, and the row that names it.
//!
//! Both in one epoch (T2): a checkpoint that cuts between them would publish a page that nothing
//! names, and replay, which makes the tree again, would take another one.

use crate::error::StoreError;
use crate::ids::{Class, PageId};
use crate::page::header::LEAF;
use crate::page::leaf;
use crate::page::view::PageView;
use crate::pool::Stall;
use terrane_wal::lsn::TreeId;

use super::chain::ChainTails;
use super::search::Target;
use super::update::{Change, apply, need};
use super::{Tree, write_empty_leaf};

/// How an attempt ended.
enum Outcome {
    /// There is a new root, and its row.
    Planted(PageId),
    /// Nothing done: a row with this key is there.
    Taken,
    /// Nothing done: the row needs so many more bytes in the leaf.
    NeedsRoom(usize),
}

/// A tree that is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seed<'a> {
    /// Its id.
    pub(crate) id: TreeId,
    /// The class of its pages.
    pub(crate) class: Class,
    /// Key of the row that will name its root: short enough to lie in a page.
    pub(crate) key: &'a [u8],
}

impl Tree {
    /// Makes an empty tree and its row in this tree, the directory. `row` gives the row's value for
    /// a root: short, and it may be asked again after a restart. `None`, and nothing is changed, if
    /// there is a row with the key. O(height).
    pub(crate) fn plant(
        &self,
        seed: Seed<'_>,
        row: &dyn Fn(PageId) -> [u8; 16],
    ) -> Result<Option<PageId>, StoreError> {
        loop {
            match self.try_plant(seed, row) {
                Ok(Outcome::Planted(root)) => return Ok(Some(root)),
                Ok(Outcome::Taken) => return Ok(None),
                Ok(Outcome::NeedsRoom(bytes)) => self.split(seed.key, 0, bytes)?,
                Err(stall) => self.settle(stall)?,
            }
        }
    }

    fn try_plant(
        &self,
        seed: Seed<'_>,
        row: &dyn Fn(PageId) -> [u8; 16],
    ) -> Result<Outcome, Stall> {
        let guard = self.pool.enter();
        let page = self
            .locate(Target::Key(seed.key), 0)?
            .page
            .upgrade_structure(&guard)?;
        let found = leaf::find(PageView::new(page.words()), seed.key, &ChainTails(self))?;
        if found.is_ok() {
            return Ok(Outcome::Taken);
        }
        let root = self.pool.allocate(&guard, seed.class, seed.id, LEAF)?;
        let value = row(root.id());
        let change = Change {
            found,
            old: None,
            ending: [None, None],
            put: Some((0, &value)),
        };
        if let Some(bytes) = need(&page, seed.key, &change, false) {
            self.pool.free(&guard, root);
            return Ok(Outcome::NeedsRoom(bytes));
        }
        assert!(
            root.epoch() == guard.epoch() && page.epoch() == guard.epoch(),
            "T2: a root and its row in two epochs"
        );
        write_empty_leaf(&root);
        apply(&page, seed.key, &change, None, None);
        Ok(Outcome::Planted(root.id()))
    }
}
