//! The way down: optimistic lock coupling, without a latch and without an allocation.
//!
//! At each branch: read the child's id, validate the branch (so the id is one that stood there),
//! look at the child, validate the branch again (so the child was its child when the look began).
//! A descent is bounded by the levels written in the pages: each child must be one below its
//! parent, so no pointer, however wrong, leads in a circle.

use crate::error::{Corruption, StoreError};
use crate::ids::PageId;
use crate::page::branch::{Toward, child, child_for};
use crate::page::header::{BRANCH, LEAF, LEVEL_MAX, counts, kind, level, page_id, tree};
use crate::page::leaf::{self, ROW_GHOST, ROW_VERSIONED};
use crate::page::view::PageView;
use crate::pool::{Opt, Stall};

use super::chain::ChainTails;
use super::cursor::Direction;
use super::span::LeafHint;
use super::{KEY_MAX, RowFlags, Tree};

/// Where a descent goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target<'k> {
    /// To the page that covers this key.
    Key(&'k [u8]),
    /// To the page that covers the keys just below this one.
    Below(&'k [u8]),
    /// To the last page of the level.
    Last,
}

/// Where a descent arrived.
#[derive(Debug)]
pub(super) struct Path<'a> {
    /// The page's parent and its place in it; none for the root.
    pub(super) parent: Option<(Opt<'a>, usize)>,
    /// The page.
    pub(super) page: Opt<'a>,
}

/// From the bits of a row.
pub(super) fn row_flags(flags: u8) -> RowFlags {
    RowFlags {
        ghost: flags & ROW_GHOST != 0,
        versioned: flags & ROW_VERSIONED != 0,
    }
}

impl Tree {
    /// Reads the row with `key` into `value` (cleared first): flags and value from one validated
    /// read. A ghost is reported, with an empty value. O(height).
    pub fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<Option<RowFlags>, StoreError> {
        self.get_at(key, &LeafHint::default(), value)
    }

    /// As [`Tree::get`], without the way down where the hint, one of [`Tree::find_leaves`], holds.
    ///
    /// # Errors
    /// As [`Tree::get`].
    pub fn get_at(
        &self,
        key: &[u8],
        hint: &LeafHint,
        value: &mut Vec<u8>,
    ) -> Result<Option<RowFlags>, StoreError> {
        if key.len() > KEY_MAX {
            return Ok(None);
        }
        loop {
            match self.try_get(key, hint, value) {
                Ok(found) => return Ok(found),
                Err(stall) => self.settle(stall)?,
            }
        }
    }

    fn try_get(
        &self,
        key: &[u8],
        hint: &LeafHint,
        value: &mut Vec<u8>,
    ) -> Result<Option<RowFlags>, Stall> {
        let page = match self.hinted(hint, key) {
            Some(page) => page,
            None => self.leaf(key)?,
        };
        let view = PageView::new(page.words());
        value.clear();
        let found = self.believe(&page, leaf::find(view, key, &ChainTails(self)))?;
        let Ok(place) = found else {
            return if page.validate() {
                Ok(None)
            } else {
                Err(Stall::Latched)
            };
        };
        let row = leaf::row(view, place);
        let whole = match row.overflow(view) {
            None => view.append_to(row.value_off, row.value_len, value),
            Some(chain) => {
                if !page.validate() {
                    return Err(Stall::Latched);
                }
                self.believe(&page, self.read_chain(chain, value))?;
                true
            }
        };
        if !page.validate() {
            return Err(Stall::Latched);
        }
        if !whole {
            return Err(self.bad_page(page.id(), "a value inside the page", &row));
        }
        Ok(Some(row_flags(row.flags)))
    }

    /// Goes down to the leaf that covers `key`.
    #[inline]
    fn leaf(&self, key: &[u8]) -> Result<Opt<'_>, Stall> {
        let (mut page, mut here) = self.top()?;
        while here > 0 {
            here -= 1;
            page = self.step(&page, Target::Key(key), here)?.0;
        }
        Ok(page)
    }

    /// Goes down to the page at `target_level` that covers the target, or to the root if it is not
    /// that high.
    pub(super) fn locate(&self, target: Target<'_>, target_level: u8) -> Result<Path<'_>, Stall> {
        let (mut page, mut here) = self.top()?;
        let mut parent = None;
        while here > target_level {
            here -= 1;
            let (lower, place) = self.step(&page, target, here)?;
            parent = Some((page, place));
            page = lower;
        }
        Ok(Path { parent, page })
    }

    /// Tells the processor that the child beside the one at `place` is read next. What a changing
    /// parent says is harmless here.
    #[inline]
    pub(super) fn expect_beside(&self, parent: &Opt<'_>, place: usize, direction: Direction) {
        let view = PageView::new(parent.words());
        let beside = match direction {
            Direction::Forward => place.checked_add(1).filter(|&next| next <= counts(view).n),
            Direction::Backward => place.checked_sub(1),
        };
        if let Some(beside) = beside {
            self.pool.expect(child(view, beside));
        }
    }

    /// The root and its level.
    #[inline]
    fn top(&self) -> Result<(Opt<'_>, u8), Stall> {
        let page = self.pool.optimistic(self.root)?;
        let view = PageView::new(page.words());
        let here = level(view);
        if !self.is_node(view, self.root, here) || here > LEVEL_MAX {
            return Err(self.suspect(&page, "a root"));
        }
        Ok((page, here))
    }

    /// From a branch to its child at level `below` toward the target, and the child's place.
    #[inline]
    fn step(
        &self,
        page: &Opt<'_>,
        target: Target<'_>,
        below: u8,
    ) -> Result<(Opt<'_>, usize), Stall> {
        let view = PageView::new(page.words());
        let next = self.toward(view, target);
        let (place, id) = self.believe(page, next)?;
        if !page.validate() {
            return Err(Stall::Latched);
        }
        let lower = self.believe(page, self.pool.optimistic(id))?;
        if !page.validate() {
            return Err(Stall::Latched);
        }
        if !self.is_node(PageView::new(lower.words()), id, below) {
            return Err(self.suspect(&lower, "a page one level below its parent"));
        }
        Ok((lower, place))
    }

    /// The child of a branch toward the target: its place and its id.
    #[inline]
    pub(super) fn toward(
        &self,
        view: PageView<'_>,
        target: Target<'_>,
    ) -> Result<(usize, PageId), Stall> {
        let tails = ChainTails(self);
        match target {
            Target::Key(key) => child_for(view, key, Toward::Key, &tails),
            Target::Below(key) => child_for(view, key, Toward::Below, &tails),
            Target::Last => Ok((counts(view).n, child(view, usize::MAX))),
        }
    }

    /// Whether the page says that it is this page of this tree at this level.
    #[inline]
    fn is_node(&self, view: PageView<'_>, id: PageId, here: u8) -> bool {
        kind(view) == (if here == 0 { LEAF } else { BRANCH })
            && level(view) == here
            && page_id(view) == id
            && tree(view) == self.id.0
    }

    /// A page that is not what its parent said, or has just changed.
    #[cold]
    fn suspect(&self, page: &Opt<'_>, expected: &str) -> Stall {
        let view = PageView::new(page.words());
        let found = (kind(view), level(view), page_id(view), tree(view));
        if !page.validate() {
            return Stall::Latched;
        }
        let (kind, level, id, tree) = found;
        let expected = format!("{expected} of {}, {}", self.id, page.id());
        self.bad_page(
            page.id(),
            &expected,
            &format!("kind {kind} level {level} tree {tree} {id}"),
        )
    }

    /// A stall that says what is wrong with a page.
    #[cold]
    pub(super) fn bad_page(
        &self,
        page: PageId,
        expected: &str,
        found: &dyn std::fmt::Debug,
    ) -> Stall {
        Stall::Corrupt(StoreError::Corrupt(Box::new(Corruption {
            what: "page",
            page: Some(page),
            tree: Some(self.id),
            expected: expected.to_owned(),
            found: format!("{found:?}"),
            ..Corruption::default()
        })))
    }

    /// Believes that something is corrupt only if the page that led to it has not changed.
    #[inline]
    pub(super) fn believe<T>(&self, page: &Opt<'_>, result: Result<T, Stall>) -> Result<T, Stall> {
        match result {
            Err(Stall::Corrupt(_) | Stall::Absent(_)) if !page.validate() => Err(Stall::Latched),
            other => other,
        }
    }
}
