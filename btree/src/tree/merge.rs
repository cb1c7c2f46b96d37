//! Merging a page that became sparse into a neighbour, and taking a root's only child up.
//!
//! A merge latches the parent, the left page and the right page in one epoch (T2). The left page's
//! entries move into the right page; the left page and, in a leaf's case, the chain of the
//! separator between them end. A merge is housekeeping: the row is long removed, so a merge that
//! cannot be made (the neighbour is full, or cannot be read) is left for the next removal, and no
//! error of it reaches whoever removed the row.

use crate::ids::PageId;
use crate::page::branch;
use crate::page::header::{BRANCH, LEAF, PageHeader, SLOT_LEN, counts, kind, level};
use crate::page::image::{Builder, Entry, Frame, PageCopy, prefix_len};
use crate::page::leaf::{capacity, live_bytes};
use crate::page::view::{PageEdit, PageView};
use crate::pool::{Excl, GateGuard, Opt, Stall};

use super::Tree;
use super::search::{Path, Target};
use super::split::transplant;

/// Attempts at one level before a merge is left for later.
const ATTEMPTS: usize = 32;

/// How an attempt ended.
enum Outcome {
    /// Merged; the parent became sparse.
    ParentSparse,
    /// Nothing (more) to do.
    Done,
}

/// Whether a page should be merged: it fills less than two fifths.
pub(super) fn is_sparse(view: PageView<'_>) -> bool {
    live_bytes(view) * 5 < capacity(view.size()) * 2
}

/// Bytes that a merged page may fill: nine tenths, so that the next rows do not split it again.
fn merge_max(size: usize) -> usize {
    capacity(size) * 9 / 10
}

impl Tree {
    /// Merges the leaf that covers `key` if it is sparse, and its parents as far as they become so.
    pub(super) fn merge_around(&self, key: &[u8]) {
        let mut target = 0;
        let mut attempts = 0;
        while attempts < ATTEMPTS {
            match self.try_merge(key, target) {
                Ok(Outcome::ParentSparse) => {
                    target += 1;
                    attempts = 0;
                }
                Ok(Outcome::Done) => return,
                Err(stall) => {
                    if self.settle(stall).is_err() {
                        return;
                    }
                    attempts += 1;
                }
            }
        }
    }

    fn try_merge(&self, key: &[u8], target: u8) -> Result<Outcome, Stall> {
        let guard = self.pool.enter();
        let Path { parent, page } = self.locate(Target::Key(key), target)?;
        let view = PageView::new(page.words());
        if level(view) != target {
            return Ok(Outcome::Done);
        }
        let Some((parent, place)) = parent else {
            return self.shrink(&guard, page);
        };
        if !is_sparse(view) {
            return if page.validate() {
                Ok(Outcome::Done)
            } else {
                Err(Stall::Latched)
            };
        }
        let above = PageView::new(parent.words());
        let n = counts(above).n;
        // The right neighbour first; the first of a branch has no left one, the last no right one.
        let right = (place < n).then_some(place + 1);
        let left = (place > 0).then(|| place - 1);
        for other in [right, left].into_iter().flatten() {
            let id = branch::child(above, other);
            if !parent.validate() {
                return Err(Stall::Latched);
            }
            let neighbour = self.believe(&parent, self.pool.optimistic(id))?;
            if !parent.validate() {
                return Err(Stall::Latched);
            }
            let sum = live_bytes(view) + live_bytes(PageView::new(neighbour.words()));
            if !neighbour.validate() || !page.validate() {
                return Err(Stall::Latched);
            }
            if sum > merge_max(view.size()) {
                continue;
            }
            let pair = if other > place {
                [page, neighbour]
            } else {
                [neighbour, page]
            };
            return self.merge(&guard, parent, place.min(other), pair);
        }
        if n == 0 {
            Ok(Outcome::ParentSparse)
        } else {
            Ok(Outcome::Done)
        }
    }

    /// Merges two neighbours, the children at `place` and the next of `parent`.
    fn merge(
        &self,
        guard: &GateGuard<'_>,
        parent: Opt<'_>,
        place: usize,
        [left, right]: [Opt<'_>; 2],
    ) -> Result<Outcome, Stall> {
        let parent = parent.upgrade_structure(guard)?;
        let left = left.upgrade_structure(guard)?;
        let right = right.upgrade_structure(guard)?;
        let above = PageCopy::of(PageView::new(parent.words()));
        let between = above.entry(place);
        let first = PageCopy::of(PageView::new(left.words()));
        let second = PageCopy::of(PageView::new(right.words()));
        let same = first.upper() == second.lower() && first.upper() == Some(between.stored_key());
        assert!(same, "T1: neighbours meet at their parent's separator");
        let Some(image) = merged(&first, &second, &between) else {
            return Ok(Outcome::Done);
        };
        let mut ending = Vec::new();
        if first.header().kind == LEAF {
            self.latch_chain(guard, between.tail, &mut ending)?;
        }
        let one = guard.epoch();
        let epochs = [&parent, &left, &right].map(Excl::epoch);
        assert!(
            epochs.iter().all(|epoch| *epoch == one),
            "T2: a merge within one epoch"
        );
        PageEdit::new(right.words()).write_page(&image);
        let mut edit = PageEdit::new(parent.words());
        branch::remove(&mut edit, place);
        let sparse = is_sparse(edit.view());
        ending.push(left);
        self.abandon(guard, ending);
        Ok(if sparse {
            Outcome::ParentSparse
        } else {
            Outcome::Done
        })
    }

    /// Takes the content of a root's only child up into the root.
    fn shrink(&self, guard: &GateGuard<'_>, root: Opt<'_>) -> Result<Outcome, Stall> {
        let view = PageView::new(root.words());
        let only = (kind(view) == BRANCH && counts(view).n == 0).then(|| branch::child(view, 0));
        if !root.validate() {
            return Err(Stall::Latched);
        }
        let Some(id) = only else {
            return Ok(Outcome::Done);
        };
        let child = self.believe(&root, self.pool.optimistic(id))?;
        let root = root.upgrade_structure(guard)?;
        let child = child.upgrade_structure(guard)?;
        let copy = PageCopy::of(PageView::new(child.words()));
        assert!(
            root.epoch() == child.epoch(),
            "T2: a root shrinks within one epoch"
        );
        assert!(
            copy.lower().is_none() && copy.upper().is_none(),
            "T1: an only child's fences"
        );
        transplant(&copy, &root);
        self.pool.free(guard, child);
        Ok(Outcome::Done)
    }
}

/// The page that holds the entries of both, in the place of the right one; `None` if they do not
/// fit, for the common prefix may have become shorter.
fn merged(left: &PageCopy, right: &PageCopy, between: &Entry<'_>) -> Option<Vec<u8>> {
    let size = right.bytes().len();
    let (lower, upper) = (left.lower(), right.upper());
    let (kind, level) = (right.header().kind, right.header().level());
    let prefix = prefix_len(lower.as_ref(), upper.as_ref());
    let down = Entry {
        child: PageId(left.header().upper_child),
        value: &[],
        ..*between
    };
    let down = (kind == BRANCH).then_some(down);
    let entries = || left.entries().chain(down).chain(right.entries());
    let bytes: usize = entries()
        .map(|entry| entry.heap_len(kind, prefix) + SLOT_LEN)
        .sum();
    if bytes > merge_max(size) {
        return None;
    }
    let identity = PageHeader {
        flags: left.header().flags | right.header().flags,
        mod_count: left.header().mod_count.max(right.header().mod_count),
        ..*right.header()
    };
    let frame = Frame {
        identity: &identity,
        kind,
        level,
        lower: lower.as_ref(),
        upper: upper.as_ref(),
    };
    let mut builder = Builder::new(size, frame);
    for entry in entries() {
        if !builder.push(entry) {
            return None;
        }
    }
    Some(builder.finish(PageId(right.header().upper_child)))
}
