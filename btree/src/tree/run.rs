//! Many rows in ascending order, a leaf at a time: how recovery writes.
//!
//! Going down, latching and entering the gate are paid once a leaf. Whatever is more than a row in
//! its leaf (a split, a chain, a merge) is left to [`super::update`].

use std::cmp::Ordering;

use terrane_wal::io::Purpose;

use crate::error::StoreError;
use crate::page::header::{FENCE_LONG, OFF_UPPER, inline_key_max};
use crate::page::leaf;
use crate::page::view::PageView;
use crate::pool::Stall;

use super::chain::ChainTails;
use super::search::Target;
use super::update::{Change, apply, need, value_is_inline};
use super::{Edit, Tree};

/// A row of a run: its key and its value; None removes it.
pub type RunRow<'a> = (&'a [u8], Option<&'a [u8]>);

/// What one visit of a leaf did.
struct Visit {
    /// Rows done, the first ones of the run.
    done: usize,
    /// The last one left the leaf so empty that it should be merged.
    sparse: bool,
}

impl Tree {
    /// Makes the rows what `rows` says, none of them versioned. Keys ascend strictly. Leaves that
    /// are not in memory are read ahead in batches for `purpose`. Not one change, but as many as
    /// leaves: nobody may depend on seeing all or nothing of it. Errors as those of
    /// [`Tree::update`]; rows in front of the failing one are done. O(rows + leaves x height).
    pub fn apply_run(&self, rows: &[RunRow<'_>], purpose: Purpose) -> Result<(), StoreError> {
        let mut rest = rows;
        // Once for each visit that ends: read ahead again and again, the leaves would drive the
        // path that the visit waits for out of a small pool, for ever.
        let mut read_ahead = false;
        while let Some(&(key, value)) = rest.first() {
            match self.visit(rest) {
                Ok(Visit { done: 0, .. }) => {
                    read_ahead = false;
                    self.update(key, &mut |_| match value {
                        Some(value) => Edit::Put {
                            value,
                            versioned: false,
                        },
                        None => Edit::Remove,
                    })?;
                    rest = &rest[1..];
                }
                Ok(Visit { done, sparse }) => {
                    read_ahead = false;
                    if sparse {
                        self.merge_around(rest[done - 1].0);
                    }
                    rest = &rest[done..];
                }
                Err(stall) => {
                    if !read_ahead && matches!(stall, Stall::Absent(_)) {
                        read_ahead = true;
                        self.prefetch(rest.iter().map(|row| row.0), purpose)?;
                    }
                    self.settle(stall)?;
                }
            }
        }
        Ok(())
    }

    /// Changes rows of the first one's leaf, up to the first that belongs elsewhere or is more than
    /// a row in its leaf.
    fn visit(&self, rows: &[RunRow<'_>]) -> Result<Visit, Stall> {
        let mut visit = Visit {
            done: 0,
            sparse: false,
        };
        let guard = self.pool.enter();
        let page = self.locate(Target::Key(rows[0].0), 0)?.page;
        let page = page.upgrade(&guard)?;
        let view = PageView::new(page.words());
        let size = self.class.bytes();
        for &(key, value) in rows {
            let short = key.len() <= inline_key_max(size);
            if !short || (visit.done > 0 && !is_below_upper(view, key)) {
                break;
            }
            let found = leaf::find(view, key, &ChainTails(self))?;
            let old = found.ok().map(|place| leaf::row(view, place));
            if value.is_none() && old.is_none() {
                visit.done += 1;
                continue;
            }
            let chained = old.is_some_and(|row| row.tail.or(row.overflow(view)).is_some());
            let change = Change {
                found,
                old,
                ending: [None, None],
                put: value.map(|value| (0, value)),
            };
            let inline = value.is_none_or(|value| value_is_inline(size, key.len(), value.len()));
            if chained || !inline || need(&page, key, &change, false).is_some() {
                break;
            }
            visit.sparse = apply(&page, key, &change, None, None) && page.id() != self.root;
            visit.done += 1;
            if visit.sparse {
                break;
            }
        }
        Ok(visit)
    }
}

/// True if the key certainly lies below the page's upper fence.
fn is_below_upper(view: PageView<'_>, key: &[u8]) -> bool {
    let span = view.u32_at(OFF_UPPER);
    let (off, len) = (span as u16, (span >> 16) as u16);
    if off == 0 {
        return true;
    }
    let inline = usize::from(len & !FENCE_LONG);
    view.compare(usize::from(off), inline, key) == Ordering::Greater
}
