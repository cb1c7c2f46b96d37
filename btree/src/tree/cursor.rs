//! Rows in order, a leaf at a time.
//!
//! A cursor holds no latch and no page between calls: it remembers the key from which it goes on.
//! Each call goes down from the root, copies one leaf word by word, validates the copy once, and
//! takes its fence as the next key (T1), so splits, merges and removals in between neither repeat a
//! row nor skip one that was there all the time. Values are lent out of the copy; keys, which lie
//! there without the page's prefix, are put together beside it. Long values and keys are read after
//! the copy and believed only if the leaf is still the same; if memory does not hold them all at
//! once, the rows read so far are given out and the cursor goes on behind them.

use std::ops::{Bound, Range};

use crate::error::StoreError;
use crate::page::image::{PageCopy, RowPlace};
use crate::page::leaf::{self, ROW_OVERFLOW};
use crate::page::overflow::OverflowRef;
use crate::page::view::PageView;
use crate::pool::{Opt, Stall};

use super::chain::ChainTails;
use super::search::{Path, Target, row_flags};
use super::{RowFlags, Tree};

/// Which way a cursor goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// By rising keys.
    Forward,
    /// By falling keys.
    Backward,
}

/// One row of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafRow<'a> {
    /// The whole key.
    pub key: &'a [u8],
    /// The whole value; empty for a ghost.
    pub value: &'a [u8],
    /// Ghost and versioned.
    pub flags: RowFlags,
}

/// A part of a row: in the copy of the page or beside it.
#[derive(Clone, Debug)]
enum Part {
    Page(Range<usize>),
    Apart(Range<usize>),
}

#[derive(Clone, Debug)]
struct Span {
    key: Part,
    value: Part,
    flags: RowFlags,
}

/// The rows of one leaf, in the cursor's direction. Reused from call to call.
#[derive(Clone, Debug, Default)]
pub struct LeafRows {
    /// The copy of the leaf.
    page: Vec<u8>,
    /// What does not lie there in one piece.
    apart: Vec<u8>,
    rows: Vec<Span>,
}

impl LeafRows {
    /// Rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Row `i`, if there are so many.
    #[inline]
    #[must_use]
    pub fn get(&self, i: usize) -> Option<LeafRow<'_>> {
        self.rows.get(i).map(|span| LeafRow {
            key: self.part(&span.key),
            value: self.part(&span.value),
            flags: span.flags,
        })
    }

    #[inline]
    fn part(&self, part: &Part) -> &[u8] {
        match part {
            Part::Page(range) => &self.page[range.clone()],
            Part::Apart(range) => &self.apart[range.clone()],
        }
    }

    /// All rows, in the cursor's direction.
    pub fn iter(&self) -> impl Iterator<Item = LeafRow<'_>> {
        (0..self.len()).filter_map(|i| self.get(i))
    }

    fn clear(&mut self) {
        self.apart.clear();
        self.rows.clear();
    }
}

/// A position in a tree. Owned; may move between threads.
#[derive(Clone, Debug)]
pub struct Cursor {
    tree: Tree,
    direction: Direction,
    lower: Bound<Vec<u8>>,
    upper: Bound<Vec<u8>>,
    done: bool,
    /// Leaves to read together when the next one is not in memory: grows as the scan goes on.
    ahead: usize,
}

/// Leaves that a long scan reads together, at most.
const AHEAD_MAX: usize = 32;

/// What a leaf says about the way on.
enum Next {
    /// The next leaf begins (forward) or ends (backward) at this key.
    Fence(Vec<u8>),
    /// The rows so far end at this key; the leaf has more.
    Row(Vec<u8>),
    /// There is no further leaf.
    End,
}

fn owned(bound: Bound<&[u8]>) -> Bound<Vec<u8>> {
    match bound {
        Bound::Included(key) => Bound::Included(key.to_vec()),
        Bound::Excluded(key) => Bound::Excluded(key.to_vec()),
        Bound::Unbounded => Bound::Unbounded,
    }
}

impl Cursor {
    pub(super) fn new(
        tree: Tree,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
        direction: Direction,
    ) -> Cursor {
        Cursor {
            tree,
            direction,
            lower: owned(lower),
            upper: owned(upper),
            done: false,
            ahead: 1,
        }
    }

    /// Replaces `rows` with the next leaf's rows inside the bounds (ghosts included), at least one;
    /// false, and `rows` empty, when there are no more. The rows are one state of their leaf. After
    /// an error the cursor stands where it stood.
    pub fn next_leaf(&mut self, rows: &mut LeafRows) -> Result<bool, StoreError> {
        rows.clear();
        while !self.done && rows.is_empty() {
            match self.try_leaf(rows) {
                Ok(next) => self.advance(next),
                Err(stall) => {
                    rows.clear();
                    if matches!(stall, Stall::Absent(_)) {
                        self.read_ahead()?;
                    }
                    self.tree.settle(stall)?;
                }
            }
        }
        Ok(!rows.is_empty())
    }

    /// Reads the leaves to come: none on the first miss, so that a short scan reads what it needs.
    fn read_ahead(&mut self) -> Result<(), StoreError> {
        if self.ahead > 1 {
            let target = self.target();
            self.tree
                .prefetch_beside(target, self.direction, self.ahead)?;
        }
        self.ahead = (self.ahead * 4).min(AHEAD_MAX);
        Ok(())
    }

    /// Where the next leaf is.
    fn target(&self) -> Target<'_> {
        match (self.direction, &self.lower, &self.upper) {
            (Direction::Forward, Bound::Included(key) | Bound::Excluded(key), _) => {
                Target::Key(key)
            }
            (Direction::Forward, Bound::Unbounded, _) => Target::Key(&[]),
            (Direction::Backward, _, Bound::Included(key)) => Target::Key(key),
            (Direction::Backward, _, Bound::Excluded(key)) => Target::Below(key),
            (Direction::Backward, _, Bound::Unbounded) => Target::Last,
        }
    }

    /// Moves the near bound to where the rows ended.
    fn advance(&mut self, next: Next) {
        match (self.direction, next) {
            (_, Next::End) => self.done = true,
            (Direction::Forward, Next::Row(key)) => self.lower = Bound::Excluded(key),
            (Direction::Backward, Next::Row(key)) => self.upper = Bound::Excluded(key),
            (Direction::Forward, Next::Fence(fence)) => {
                self.done = match &self.upper {
                    Bound::Included(bound) => fence > *bound,
                    Bound::Excluded(bound) => fence >= *bound,
                    Bound::Unbounded => false,
                };
                self.lower = Bound::Included(fence);
            }
            (Direction::Backward, Next::Fence(fence)) => {
                self.done = match &self.lower {
                    Bound::Included(bound) | Bound::Excluded(bound) => fence <= *bound,
                    Bound::Unbounded => false,
                };
                self.upper = Bound::Excluded(fence);
            }
        }
    }

    fn try_leaf(&self, rows: &mut LeafRows) -> Result<Next, Stall> {
        let Path { parent, page } = self.tree.locate(self.target(), 0)?;
        PageView::new(page.words()).copy_to(&mut rows.page);
        if let Some((parent, place)) = &parent {
            self.tree.expect_beside(parent, *place, self.direction);
        }
        if !page.validate() {
            return Err(Stall::Latched);
        }
        let LeafRows { page: bytes, .. } = rows;
        let copy = PageCopy::from_bytes(bytes.as_slice());
        let n = copy.n();
        let places = self.places(&page, n, copy.prefix())?;
        let forward = self.direction == Direction::Forward;
        let beyond = if forward {
            places.end < n
        } else {
            places.start > 0
        };
        if let Err(stall) = self.append_all(rows, &page, places) {
            // The rows so far were read from the copy or validated with it.
            let last = rows.len().checked_sub(1).and_then(|last| rows.get(last));
            return match (last, stall) {
                (_, stall @ Stall::Corrupt(_)) | (None, stall) => Err(stall),
                (Some(row), _) => Ok(Next::Row(row.key.to_vec())),
            };
        }
        if beyond {
            return Ok(Next::End);
        }
        let copy = PageCopy::from_bytes(rows.page.as_slice());
        let fence = if forward { copy.upper() } else { copy.lower() };
        let Some(fence) = fence else {
            return Ok(Next::End);
        };
        let whole = self.tree.resolve(&fence);
        let whole = self.tree.believe(&page, whole)?;
        if fence.tail.is_some() && !page.validate() {
            return Err(Stall::Latched);
        }
        Ok(Next::Fence(whole))
    }

    /// The rows of a leaf of `n` rows that lie between the bounds: searched for, so that few long
    /// keys are read and no row is compared. All keys of the leaf begin with `prefix`.
    fn places(&self, page: &Opt<'_>, n: usize, prefix: &[u8]) -> Result<Range<usize>, Stall> {
        let split = |key: &[u8], behind: bool| -> Result<usize, Stall> {
            if !key.starts_with(prefix) {
                // A far bound may lie outside the leaf's fences, where no search of it goes.
                return Ok(if key < prefix { 0 } else { n });
            }
            let view = PageView::new(page.words());
            let found = leaf::find(view, key, &ChainTails(&self.tree));
            Ok(match self.tree.believe(page, found)? {
                Ok(i) => i + usize::from(behind),
                Err(i) => i,
            })
        };
        let start = match &self.lower {
            Bound::Included(key) => split(key, false)?,
            Bound::Excluded(key) => split(key, true)?,
            Bound::Unbounded => 0,
        };
        let end = match &self.upper {
            Bound::Included(key) => split(key, true)?,
            Bound::Excluded(key) => split(key, false)?,
            Bound::Unbounded => n,
        };
        if !page.validate() {
            return Err(Stall::Latched);
        }
        Ok(start..end.max(start))
    }

    /// Appends the rows at `places`, in the cursor's direction. On a stall those before it stay.
    fn append_all(
        &self,
        rows: &mut LeafRows,
        page: &Opt<'_>,
        places: Range<usize>,
    ) -> Result<(), Stall> {
        let LeafRows {
            page: bytes,
            apart,
            rows,
        } = rows;
        let copy = PageCopy::from_bytes(bytes.as_slice());
        let prefix = copy.prefix();
        rows.reserve(places.len());
        for step in 0..places.len() {
            let place = match self.direction {
                Direction::Forward => places.start + step,
                Direction::Backward => places.end - 1 - step,
            };
            let row = copy.row(place);
            let start = apart.len();
            let key = if prefix.is_empty() && row.tail.is_none() {
                Part::Page(row.suffix.clone())
            } else {
                apart.extend_from_slice(prefix);
                apart.extend_from_slice(&bytes[row.suffix.clone()]);
                Part::Apart(start..apart.len())
            };
            let whole = if row.tail.is_none() && row.flags & ROW_OVERFLOW == 0 {
                Ok((key, Part::Page(row.value.clone())))
            } else {
                self.long_row(apart, page, &row, (key, &bytes[row.value.clone()]))
            };
            match whole {
                Ok((key, value)) => rows.push(Span {
                    key,
                    value,
                    flags: row_flags(row.flags),
                }),
                Err(stall) => {
                    apart.truncate(start);
                    return Err(stall);
                }
            }
        }
        Ok(())
    }

    /// Completes a row of which a part lies in overflow pages. Its inline key is the last thing in
    /// `apart` if it goes on in a tail.
    #[cold]
    fn long_row(
        &self,
        apart: &mut Vec<u8>,
        page: &Opt<'_>,
        row: &RowPlace,
        (key, value): (Part, &[u8]),
    ) -> Result<(Part, Part), Stall> {
        let key = match (key, row.tail) {
            (Part::Apart(inline), Some(tail)) => {
                self.long_bytes(page, tail, apart)?;
                Part::Apart(inline.start..apart.len())
            }
            (key, _) => key,
        };
        let chain = OverflowRef::parse(value).filter(|_| row.flags & ROW_OVERFLOW != 0);
        let Some(chain) = chain else {
            return Ok((key, Part::Page(row.value.clone())));
        };
        let middle = apart.len();
        self.long_bytes(page, chain, apart)?;
        Ok((key, Part::Apart(middle..apart.len())))
    }

    /// Reads a chain that the leaf names, and believes it only if the leaf still does.
    fn long_bytes(
        &self,
        page: &Opt<'_>,
        chain: OverflowRef,
        out: &mut Vec<u8>,
    ) -> Result<(), Stall> {
        self.tree.believe(page, self.tree.read_chain(chain, out))?;
        if page.validate() {
            Ok(())
        } else {
            Err(Stall::Latched)
        }
    }
}
