//! The rows of a short range, copied out of their leaves: how a vector search reads a posting.
//!
//! A cursor copies whole leaves and remembers where it stands; a reader that wants the same few
//! rows again and again needs less. It copies nothing else, and it remembers the leaf: a page that
//! still is a leaf of the tree, whose fences enclose the range's start (T1), is the right one
//! however it came to be known, so the way down is spared. A hint that is wrong costs a look.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::StoreError;
use crate::ids::PageId;
use crate::page::header::{
    FENCE_LONG, LEAF, OFF_LOWER, OFF_UPPER, counts, kind, level, page_id, tree,
};
use crate::page::image::PageCopy;
use crate::page::leaf;
use crate::page::overflow::{OverflowRef, REF_LEN};
use crate::page::slots::Slot;
use crate::page::view::PageView;
use crate::pool::{Opt, Stall};

use super::chain::ChainTails;
use super::cursor::LeafRow;
use super::search::{Target, row_flags};
use super::{RowFlags, Tree};

/// The leaf in which a range began when it was read last. May be stale; never believed unseen.
#[derive(Debug, Default)]
pub struct LeafHint(AtomicU64);

/// The rows of a range, in ascending order of keys. Reused from call to call.
#[derive(Clone, Debug, Default)]
pub struct SpanRows {
    bytes: Vec<u8>,
    rows: Vec<Place>,
    /// Leaves that they were read from, each a state of its own.
    leaves: usize,
}

#[derive(Clone, Debug)]
struct Place {
    key: Range<usize>,
    value: Range<usize>,
    flags: RowFlags,
}

impl SpanRows {
    /// Leaves that the rows come from. The rows of one leaf are one state of it.
    #[must_use]
    pub fn leaves(&self) -> usize {
        self.leaves
    }

    /// The rows, ghosts included.
    pub fn iter(&self) -> impl Iterator<Item = LeafRow<'_>> {
        self.rows.iter().map(|place| LeafRow {
            key: &self.bytes[place.key.clone()],
            value: &self.bytes[place.value.clone()],
            flags: place.flags,
        })
    }
}

/// How far a range was read.
enum Next {
    End,
    /// The next leaf begins at this key.
    At(Vec<u8>),
}

impl Tree {
    /// Replaces `out` with the rows from `lower` up to, not including, `upper`. `hint` belongs to
    /// this range. O(height + rows), without the height where the hint holds.
    ///
    /// # Errors
    /// As [`Tree::get`].
    pub fn read_span(
        &self,
        lower: &[u8],
        upper: &[u8],
        hint: Option<&LeafHint>,
        out: &mut SpanRows,
    ) -> Result<(), StoreError> {
        out.bytes.clear();
        out.rows.clear();
        out.leaves = 0;
        let mut next: Option<Vec<u8>> = None;
        loop {
            let from = next.as_deref().unwrap_or(lower);
            let before = (out.bytes.len(), out.rows.len());
            let hint = hint.filter(|_| out.leaves == 0);
            match self.span_of_leaf(from, upper, hint, out) {
                Ok(Next::End) => {
                    out.leaves += 1;
                    return Ok(());
                }
                Ok(Next::At(key)) => {
                    out.leaves += 1;
                    next = Some(key);
                }
                Err(stall) => {
                    out.bytes.truncate(before.0);
                    out.rows.truncate(before.1);
                    self.settle(stall)?;
                }
            }
        }
    }

    /// The rows of the leaf that covers `from`.
    fn span_of_leaf(
        &self,
        from: &[u8],
        upper: &[u8],
        hint: Option<&LeafHint>,
        out: &mut SpanRows,
    ) -> Result<Next, Stall> {
        let page = match hint.and_then(|hint| self.hinted(hint, from)) {
            Some(page) => page,
            None => {
                let page = self.locate(Target::Key(from), 0)?.page;
                if let Some(hint) = hint {
                    hint.0.store(page.id().0, Ordering::Relaxed);
                }
                page
            }
        };
        let view = PageView::new(page.words());
        let tails = ChainTails(self);
        let found = self.believe(&page, leaf::find(view, from, &tails))?;
        let start = found.unwrap_or_else(|place| place);
        let n = counts(view).n;
        let fence = fence(view, OFF_UPPER);
        let whole = match fence {
            Some((.., true)) => Some(self.long_fence(&page)?),
            _ => None,
        };
        let covers = match (fence, &whole) {
            (None, _) => true,
            (Some(_), Some(whole)) => **whole >= *upper,
            (Some((off, len, _)), None) => view.compare(off, len, upper).is_ge(),
        };
        // A key outside the leaf's prefix lies behind all of its rows, and no search goes there.
        let prefix_len = counts(view).prefix_len;
        let prefix = self::fence(view, OFF_LOWER).map_or(0, |(off, ..)| off);
        let shares = upper
            .get(..prefix_len)
            .is_some_and(|head| view.compare(prefix, prefix_len, head).is_eq());
        let end = if covers && shares {
            let found = self.believe(&page, leaf::find(view, upper, &tails))?;
            found.unwrap_or_else(|place| place)
        } else {
            n
        };
        self.copy_rows(&page, start..end, out)?;
        let next = match (fence, whole) {
            (Some(_), Some(whole)) if !covers => Next::At(whole),
            (Some((off, len, _)), None) if !covers => {
                let mut key = Vec::with_capacity(len);
                if !view.append_to(off, len, &mut key) {
                    return Err(Stall::Latched);
                }
                Next::At(key)
            }
            _ => Next::End,
        };
        if page.validate() {
            Ok(next)
        } else {
            Err(Stall::Latched)
        }
    }

    /// The upper fence of a leaf, with its tail.
    #[cold]
    fn long_fence(&self, page: &Opt<'_>) -> Result<Vec<u8>, Stall> {
        let copy = PageCopy::of(PageView::new(page.words()));
        match copy.upper() {
            Some(fence) => self.believe(page, self.resolve(&fence)),
            None => Err(Stall::Latched),
        }
    }

    /// The page of a hint, if it is a leaf of this tree that covers `from`.
    fn hinted(&self, hint: &LeafHint, from: &[u8]) -> Option<Opt<'_>> {
        let id = PageId(hint.0.load(Ordering::Relaxed));
        if id == PageId::NONE {
            return None;
        }
        // A page that is gone, or belongs to another tree by now, is no error: it was a guess.
        let page = self.pool.optimistic(id).ok()?;
        let view = PageView::new(page.words());
        let mine = kind(view) == LEAF
            && level(view) == 0
            && page_id(view) == id
            && tree(view) == self.id.0;
        let above = fence(view, OFF_LOWER)
            .is_none_or(|(off, len, long)| !long && view.compare(off, len, from).is_le());
        let below =
            fence(view, OFF_UPPER).is_none_or(|(off, len, _)| view.compare(off, len, from).is_gt());
        (mine && above && below && page.validate()).then_some(page)
    }

    /// Copies the rows at `places`.
    fn copy_rows(
        &self,
        page: &Opt<'_>,
        places: Range<usize>,
        out: &mut SpanRows,
    ) -> Result<(), Stall> {
        let view = PageView::new(page.words());
        let prefix_len = counts(view).prefix_len;
        let prefix = fence(view, OFF_LOWER).map_or(0, |(off, ..)| off);
        for place in places {
            let slot = Slot::read(view, place);
            let row = leaf::row(view, place);
            let start = out.bytes.len();
            let reference = if row.tail.is_some() { REF_LEN } else { 0 };
            // The page may be changing: then anything may stand here, and nothing is believed.
            let suffix = row.value_off.checked_sub(reference + slot.klen);
            let mut whole = view.append_to(prefix, prefix_len, &mut out.bytes)
                && suffix.is_some_and(|at| view.append_to(at, slot.klen, &mut out.bytes));
            if let Some(tail) = row.tail {
                self.long_part(page, tail, &mut out.bytes)?;
            }
            let middle = out.bytes.len();
            if let Some(chain) = row.overflow(view) {
                self.long_part(page, chain, &mut out.bytes)?;
            } else {
                whole &= view.append_to(row.value_off, row.value_len, &mut out.bytes);
            }
            if !whole {
                return Err(match page.validate() {
                    true => self.bad_page(page.id(), "rows inside the page", &row),
                    false => Stall::Latched,
                });
            }
            out.rows.push(Place {
                key: start..middle,
                value: middle..out.bytes.len(),
                flags: row_flags(row.flags),
            });
        }
        Ok(())
    }
}

impl Tree {
    /// Appends what lies in overflow pages, if the leaf still names them.
    #[cold]
    fn long_part(
        &self,
        page: &Opt<'_>,
        chain: OverflowRef,
        out: &mut Vec<u8>,
    ) -> Result<(), Stall> {
        if !page.validate() {
            return Err(Stall::Latched);
        }
        self.believe(page, self.read_chain(chain, out))
    }
}

/// Where a fence's inline bytes lie, and whether a tail follows; None for no bound.
#[inline]
fn fence(view: PageView<'_>, at: usize) -> Option<(usize, usize, bool)> {
    let span = view.u32_at(at);
    let (off, len) = (span as u16, (span >> 16) as u16);
    (off != 0).then_some((
        usize::from(off),
        usize::from(len & !FENCE_LONG),
        len & FENCE_LONG != 0,
    ))
}
