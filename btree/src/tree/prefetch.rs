//! Leaves read ahead of need, many at once.
//!
//! The level above the leaves says which pages hold the keys to come. Those that are not in memory
//! are read in one batch, and nothing is believed of them: whoever comes for a row goes down as
//! ever, and reads for itself what was not to be had.

use terrane_wal::io::Purpose;

use crate::error::StoreError;
use crate::ids::PageId;
use crate::page::branch::child;
use crate::page::header::{counts, level};
use crate::page::view::PageView;
use crate::pool::Stall;

use super::Tree;
use super::cursor::Direction;
use super::search::Target;
use super::span::LeafHint;

/// Leaves read ahead at once, at most.
const AHEAD_MAX: usize = 128;
/// Part of the pool that one read-ahead may fill.
const POOL_PART: usize = 8;

impl Tree {
    /// Reads the leaves of `keys`, best in ascending order, into memory in one batch, as far as
    /// they are not there; of more than an eighth of the pool the first. A leaf that cannot be read
    /// is no error here. Blocks. O(keys x height).
    pub fn prefetch<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k [u8]>,
        purpose: Purpose,
    ) -> Result<(), StoreError> {
        let most = self.ahead_max();
        let mut ids = Vec::new();
        let mut last = None;
        for key in keys {
            let mut beside = Vec::new();
            self.beside(Target::Key(key), Direction::Forward, 1, &mut beside)?;
            // The tree is one leaf: there is nothing to read ahead.
            let Some(&id) = beside.first() else { break };
            if last != Some(id) && self.pool.is_absent(id) {
                ids.push(id);
            }
            last = Some(id);
            if ids.len() == most {
                break;
            }
        }
        self.load_ahead(&ids, purpose)
    }

    /// Replaces `hints` with the leaves of `keys`, one for each, and has them on their way to the
    /// processor; those that are on disk are read in one batch. Then [`Tree::get_at`] takes each
    /// key with its hint. Blocks. O(keys x height).
    ///
    /// # Errors
    /// As [`Tree::get`], but for a leaf that cannot be read, which is none here.
    pub fn find_leaves<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k [u8]>,
        hints: &mut Vec<LeafHint>,
    ) -> Result<(), StoreError> {
        hints.clear();
        let (mut leaf, mut absent) = (Vec::new(), Vec::new());
        for key in keys {
            self.beside(Target::Key(key), Direction::Forward, 1, &mut leaf)?;
            let Some(&id) = leaf.first() else {
                hints.push(LeafHint::default());
                continue;
            };
            hints.push(LeafHint::of(id));
            if self.pool.is_absent(id) {
                absent.push(id);
            } else {
                self.pool.expect(id);
            }
        }
        absent.dedup();
        absent.truncate(self.ahead_max());
        self.load_ahead(&absent, Purpose::Miss)
    }

    /// Reads up to `n` leaves from the target's on, in `direction`, under the same parent.
    pub(super) fn prefetch_beside(
        &self,
        target: Target<'_>,
        direction: Direction,
        n: usize,
    ) -> Result<(), StoreError> {
        let mut ids = Vec::new();
        self.beside(target, direction, n.min(self.ahead_max()), &mut ids)?;
        ids.retain(|&id| self.pool.is_absent(id));
        self.load_ahead(&ids, Purpose::Prefetch)
    }

    fn ahead_max(&self) -> usize {
        let frames = self.pool.frame_bytes() as usize / self.class.bytes();
        (frames / POOL_PART).clamp(1, AHEAD_MAX)
    }

    /// A lone read goes without a batch.
    fn load_ahead(&self, ids: &[PageId], purpose: Purpose) -> Result<(), StoreError> {
        if ids.len() < 2 {
            return Ok(());
        }
        self.pool.load_many(ids, purpose)
    }

    /// The ids of up to `n` leaves; none if the root is a leaf.
    fn beside(
        &self,
        target: Target<'_>,
        direction: Direction,
        n: usize,
        ids: &mut Vec<PageId>,
    ) -> Result<(), StoreError> {
        loop {
            ids.clear();
            match self.try_beside(target, direction, n, ids) {
                Ok(()) => return Ok(()),
                Err(stall) => self.settle(stall)?,
            }
        }
    }

    fn try_beside(
        &self,
        target: Target<'_>,
        direction: Direction,
        n: usize,
        ids: &mut Vec<PageId>,
    ) -> Result<(), Stall> {
        let page = self.locate(target, 1)?.page;
        let view = PageView::new(page.words());
        if level(view) == 0 {
            return Ok(());
        }
        let (place, _) = self.believe(&page, self.toward(view, target))?;
        let forward = direction == Direction::Forward;
        let places = if forward {
            place..(place + n).min(counts(view).n + 1)
        } else {
            (place + 1).saturating_sub(n)..place + 1
        };
        ids.extend(places.map(|place| child(view, place)));
        if page.validate() {
            Ok(())
        } else {
            Err(Stall::Latched)
        }
    }
}
