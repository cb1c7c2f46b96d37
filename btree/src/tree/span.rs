//! The rows of a short range, copied out of their leaves: how a vector search reads a posting.
//!
//! A cursor copies whole leaves and remembers where it stands; a reader that wants the same few
//! rows again and again needs less. It copies nothing else, and it remembers the leaves: a page
//! that still is a leaf of the tree, whose fences enclose where the range goes on (T1), is the
//! right one however it came to be known, so the way down is spared. A wrong hint costs a look.

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
use crate::page::view::{PageView, copy_words};
use crate::pool::{Opt, Stall};

use super::chain::ChainTails;
use super::cursor::LeafRow;
use super::search::{Target, row_flags};
use super::{RowFlags, Tree};

/// Rows whose first bytes are on their way from memory while one is copied: where the next lies
/// only its slot knows, so the processor does not see it coming.
const AHEAD: usize = 4;

/// A leaf in which a range lay when it was read last, and the slot where it began there. May be
/// stale; never believed unseen.
#[derive(Debug, Default)]
pub struct LeafHint(AtomicU64);

impl LeafHint {
    /// Ids lie below [`PageId::LIMIT`]; a slot has what is above.
    const SLOT_SHIFT: u32 = PageId::LIMIT.0.trailing_zeros();

    pub(super) fn of(id: PageId) -> LeafHint {
        LeafHint(AtomicU64::new(id.0))
    }

    fn get(&self) -> (PageId, usize) {
        let word = self.0.load(Ordering::Relaxed);
        let id = PageId(word & (PageId::LIMIT.0 - 1));
        (id, (word >> Self::SLOT_SHIFT) as usize)
    }

    fn set(&self, id: PageId, slot: usize) {
        let word = id.0 | (slot as u64) << Self::SLOT_SHIFT;
        self.0.store(word, Ordering::Relaxed);
    }
}

/// The rows of a range, in ascending order of keys. Reused from call to call.
#[derive(Clone, Debug, Default)]
pub struct SpanRows {
    /// Never shortened: what was written once need not be filled with zeros again.
    bytes: Vec<u8>,
    used: usize,
    rows: Vec<Place>,
    /// Leaves that they were read from, each a state of its own.
    leaves: usize,
    /// The first of them did not change until the last was read.
    first_stood: bool,
    /// Where the leaf being read can be left for a while.
    passed: Option<Passed>,
}

/// Behind a row that lies partly in overflow pages. The rows of one leaf may have more of those
/// than fit into memory together: then the leaf is read in parts.
#[derive(Clone, Debug)]
struct Passed {
    /// Of the row.
    key: Vec<u8>,
    /// What was read up to it.
    used: usize,
    rows: usize,
}

#[derive(Clone, Debug)]
struct Place {
    key: Range<usize>,
    value: Range<usize>,
    flags: RowFlags,
}

impl SpanRows {
    /// Leaves, or parts of one, that the rows come from. The rows of each are one state of it.
    #[must_use]
    pub fn leaves(&self) -> usize {
        self.leaves
    }

    /// True if the rows of the first were still its rows when those of the last were read.
    #[must_use]
    pub fn first_stood(&self) -> bool {
        self.first_stood
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

impl SpanRows {
    /// The next so many bytes, whose content is undefined.
    #[inline]
    fn room(&mut self, len: usize) -> &mut [u8] {
        let start = self.used;
        self.used += len;
        if self.bytes.len() < self.used {
            self.bytes.resize(self.used, 0);
        }
        &mut self.bytes[start..self.used]
    }

    /// Says that a leaf can be left behind the row with this key, with the first `used` bytes.
    #[cold]
    fn pass(&mut self, key: Range<usize>, used: usize) {
        self.passed = Some(Passed {
            key: self.bytes[key].to_vec(),
            used,
            rows: self.rows.len(),
        });
    }

    /// Has bytes of overflow pages appended.
    fn append(
        &mut self,
        read: impl FnOnce(&mut Vec<u8>) -> Result<(), Stall>,
    ) -> Result<(), Stall> {
        self.bytes.truncate(self.used);
        read(&mut self.bytes)?;
        self.used = self.bytes.len();
        Ok(())
    }
}

/// What is read of a tree.
#[derive(Clone, Copy)]
pub struct Span<'a> {
    /// Rows from this key on,
    pub lower: &'a [u8],
    /// up to, not including, this one,
    pub upper: &'a [u8],
    /// whose keys are wanted.
    pub wanted: &'a dyn Fn(&[u8]) -> bool,
}

/// How far a range was read.
enum Next {
    End,
    /// The next leaf begins at this key.
    At(Vec<u8>),
}

impl Tree {
    /// Replaces `out` with the rows of `range`, leaf by leaf in ascending order. `hints` belong to
    /// its bounds: one for each of the first leaves. O(leaves x height + rows), without the height
    /// where a hint holds.
    ///
    /// # Errors
    /// As [`Tree::get`].
    pub fn read_span(
        &self,
        range: Span<'_>,
        hints: &[LeafHint],
        out: &mut SpanRows,
    ) -> Result<(), StoreError> {
        out.used = 0;
        out.rows.clear();
        out.leaves = 0;
        let mut first: Option<Opt<'_>> = None;
        let mut next: Option<Vec<u8>> = None;
        loop {
            let from = next.as_deref().unwrap_or(range.lower);
            let before = (out.used, out.rows.len());
            match self.span_of_leaf(from, range, hints.get(out.leaves), out) {
                Ok((page, found)) => {
                    out.leaves += 1;
                    let first = first.get_or_insert(page);
                    let Next::At(key) = found else {
                        out.first_stood = first.validate();
                        return Ok(());
                    };
                    next = Some(key);
                }
                Err(stall) => {
                    out.used = before.0;
                    out.rows.truncate(before.1);
                    self.settle(stall)?;
                }
            }
        }
    }

    /// Has a leaf on its way from memory that is read soon. Nothing is read from the disk.
    pub fn expect(&self, hint: &LeafHint) {
        self.pool
            .expect_front(PageId(hint.0.load(Ordering::Relaxed)));
    }

    /// The rows of the leaf that covers `from`.
    fn span_of_leaf(
        &self,
        from: &[u8],
        range: Span<'_>,
        hint: Option<&LeafHint>,
        out: &mut SpanRows,
    ) -> Result<(Opt<'_>, Next), Stall> {
        let hinted = hint.and_then(|hint| self.hinted(hint, from));
        let page = match hinted {
            Some(page) => page,
            None => self.locate(Target::Key(from), 0)?.page,
        };
        let start = self.start(&page, from, hint)?;
        out.passed = None;
        let read = match self.copy_rows(&page, start, range, out) {
            Ok(true) => Ok(Next::End),
            Ok(false) => self.behind(&page, range.upper),
            Err(stall) => Err(stall),
        };
        let next = match (read, out.passed.take()) {
            // What is to come would drive out what was read, and neither would ever be whole.
            (Err(Stall::Absent(_)), Some(passed)) => {
                out.used = passed.used;
                out.rows.truncate(passed.rows);
                Next::At([&*passed.key, &[0]].concat())
            }
            (read, _) => read?,
        };
        if page.validate() {
            Ok((page, next))
        } else {
            Err(Stall::Latched)
        }
    }

    /// The slot of the first row that is not below `from`, which the leaf covers.
    fn start(&self, page: &Opt<'_>, from: &[u8], hint: Option<&LeafHint>) -> Result<usize, Stall> {
        let view = PageView::new(page.words());
        if let Some((off, len, false)) = fence(view, OFF_LOWER)
            && view.compare(off, len, from).is_eq()
        {
            if let Some(hint) = hint {
                hint.set(page.id(), 0);
            }
            return Ok(0);
        }
        if let Some((id, slot)) = hint.map(LeafHint::get)
            && id == page.id()
            && leaf::has_at(view, slot, from)
        {
            return Ok(slot);
        }
        let found = self.believe(page, leaf::find(view, from, &ChainTails(self)))?;
        let slot = found.unwrap_or_else(|place| place);
        if let Some(hint) = hint {
            hint.set(page.id(), slot);
        }
        Ok(slot)
    }

    /// Where a range goes on whose rows reach to the end of a leaf.
    fn behind(&self, page: &Opt<'_>, upper: &[u8]) -> Result<Next, Stall> {
        let view = PageView::new(page.words());
        let Some((off, len, long)) = fence(view, OFF_UPPER) else {
            return Ok(Next::End);
        };
        let mut key = Vec::new();
        if long {
            key = self.long_fence(page)?;
        } else if view.compare(off, len, upper).is_ge() {
            return Ok(Next::End);
        } else if !view.append_to(off, len, &mut key) {
            return Err(Stall::Latched);
        }
        Ok(if *key < *upper {
            Next::At(key)
        } else {
            Next::End
        })
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
    pub(super) fn hinted(&self, hint: &LeafHint, from: &[u8]) -> Option<Opt<'_>> {
        let (id, _) = hint.get();
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

    /// Copies the rows from `start` on. True if one was met that lies behind the range.
    fn copy_rows(
        &self,
        page: &Opt<'_>,
        start: usize,
        range: Span<'_>,
        out: &mut SpanRows,
    ) -> Result<bool, Stall> {
        let view = PageView::new(page.words());
        let prefix_len = counts(view).prefix_len;
        let prefix = fence(view, OFF_LOWER).map_or(0, |(off, ..)| off);
        let n = counts(view).n;
        let ahead = |place: usize| {
            if place < n {
                view.expect(Slot::read(view, place).off);
            }
        };
        (start..start + AHEAD).for_each(ahead);
        for place in start..n {
            ahead(place + AHEAD);
            let slot = Slot::read(view, place);
            let row = leaf::row(view, place);
            let start = out.used;
            let reference = if row.tail.is_some() { REF_LEN } else { 0 };
            // The page may be changing: then anything may stand here, and nothing is believed.
            let suffix = row.value_off.checked_sub(reference + slot.klen);
            let whole = prefix_len + slot.klen <= view.size() && suffix.is_some();
            if let Some(suffix) = suffix.filter(|_| whole) {
                let (head, tail) = out.room(prefix_len + slot.klen).split_at_mut(prefix_len);
                view.copy_few(prefix, head);
                view.copy_few(suffix, tail);
            }
            if let Some(tail) = row.tail {
                out.append(|bytes| self.long_part(page, tail, bytes))?;
            }
            let middle = out.used;
            let key = &out.bytes[start..middle];
            if whole && *key >= *range.upper {
                out.used = start;
                return Ok(true);
            }
            if whole && !(range.wanted)(key) {
                if row.tail.is_some() {
                    out.pass(start..middle, start);
                }
                out.used = start;
                continue;
            }
            let value = if let Some(chain) = row.overflow(view) {
                out.append(|bytes| self.long_part(page, chain, bytes))?;
                Some(middle..out.used)
            } else {
                view.enclosing(row.value_off, row.value_len).map(|words| {
                    copy_words(words, out.room(8 * words.len()));
                    let at = middle + row.value_off % 8;
                    at..at + row.value_len
                })
            };
            let Some(value) = value.filter(|_| whole) else {
                return Err(match page.validate() {
                    true => self.bad_page(page.id(), "rows inside the page", &row),
                    false => Stall::Latched,
                });
            };
            out.rows.push(Place {
                key: start..middle,
                value,
                flags: row_flags(row.flags),
            });
            if row.tail.is_some() || row.overflow(view).is_some() {
                out.pass(start..middle, out.used);
            }
        }
        Ok(false)
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
