//! Rows in order, a leaf at a time.
//!
//! A cursor holds no latch and no page between calls: it remembers the key from which it goes on.
//! Each call goes down from the root, copies one leaf, validates the copy once, and takes its fence
//! as the next key (T1), so splits, merges and removals in between neither repeat a row nor skip
//! one that was there all the time. Long values and keys are read after the copy and believed only
//! if the leaf is still the same; if memory does not hold them all at once, the rows read so far
//! are given out and the cursor goes on behind them.

use std::ops::{Bound, Range};

use crate::error::StoreError;
use crate::page::image::{Entry, PageCopy};
use crate::page::leaf::{self, ROW_OVERFLOW};
use crate::page::overflow::OverflowRef;
use crate::page::view::PageView;
use crate::pool::{Opt, Stall};

use super::chain::ChainTails;
use super::search::{Target, row_flags};
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

#[derive(Clone, Debug)]
struct Span {
    key: Range<usize>,
    value: Range<usize>,
    flags: RowFlags,
}

/// The rows of one leaf, in the cursor's direction. Reused from call to call.
#[derive(Clone, Debug, Default)]
pub struct LeafRows {
    bytes: Vec<u8>,
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
    #[must_use]
    pub fn get(&self, i: usize) -> Option<LeafRow<'_>> {
        self.rows.get(i).map(|span| LeafRow {
            key: &self.bytes[span.key.clone()],
            value: &self.bytes[span.value.clone()],
            flags: span.flags,
        })
    }

    /// All rows, in the cursor's direction.
    pub fn iter(&self) -> impl Iterator<Item = LeafRow<'_>> {
        (0..self.len()).filter_map(|i| self.get(i))
    }

    fn clear(&mut self) {
        self.bytes.clear();
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
}

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

fn above_lower(lower: &Bound<Vec<u8>>, key: &[u8]) -> bool {
    match lower {
        Bound::Included(bound) => key >= bound.as_slice(),
        Bound::Excluded(bound) => key > bound.as_slice(),
        Bound::Unbounded => true,
    }
}

fn below_upper(upper: &Bound<Vec<u8>>, key: &[u8]) -> bool {
    match upper {
        Bound::Included(bound) => key <= bound.as_slice(),
        Bound::Excluded(bound) => key < bound.as_slice(),
        Bound::Unbounded => true,
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
                    self.tree.settle(stall)?;
                }
            }
        }
        Ok(!rows.is_empty())
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
        let target = match (self.direction, &self.lower, &self.upper) {
            (Direction::Forward, Bound::Included(key) | Bound::Excluded(key), _) => {
                Target::Key(key)
            }
            (Direction::Forward, Bound::Unbounded, _) => Target::Key(&[]),
            (Direction::Backward, _, Bound::Included(key)) => Target::Key(key),
            (Direction::Backward, _, Bound::Excluded(key)) => Target::Below(key),
            (Direction::Backward, _, Bound::Unbounded) => Target::Last,
        };
        let page = self.tree.locate(target, 0)?.page;
        let copy = PageCopy::of(PageView::new(page.words()));
        if !page.validate() {
            return Err(Stall::Latched);
        }
        let places = self.places(&page, copy.n())?;
        let forward = self.direction == Direction::Forward;
        for step in 0..places.len() {
            let place = if forward {
                places.start + step
            } else {
                places.end - 1 - step
            };
            match self.append(rows, &page, &copy.entry(place)) {
                Ok(true) => {}
                Ok(false) => return Ok(Next::End),
                Err(stall @ Stall::Corrupt(_)) => return Err(stall),
                Err(stall) => {
                    // The rows so far were read from the copy or validated with it.
                    let last = rows.len().checked_sub(1).and_then(|last| rows.get(last));
                    return match last {
                        Some(row) => Ok(Next::Row(row.key.to_vec())),
                        None => Err(stall),
                    };
                }
            }
        }
        let fence = match self.direction {
            Direction::Forward => copy.upper(),
            Direction::Backward => copy.lower(),
        };
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

    /// The rows of a leaf of `n` rows that lie on the right side of the near bound: searched for,
    /// so that few long keys are read.
    fn places(&self, page: &Opt<'_>, n: usize) -> Result<Range<usize>, Stall> {
        let near = match self.direction {
            Direction::Forward => &self.lower,
            Direction::Backward => &self.upper,
        };
        let (Bound::Included(key) | Bound::Excluded(key)) = near else {
            return Ok(0..n);
        };
        let view = PageView::new(page.words());
        let found = self
            .tree
            .believe(page, leaf::find(view, key, &ChainTails(&self.tree)))?;
        if !page.validate() {
            return Err(Stall::Latched);
        }
        let with_key = matches!(near, Bound::Included(_));
        let split = match found {
            Ok(i) if with_key == (self.direction == Direction::Backward) => i + 1,
            Ok(i) | Err(i) => i,
        };
        Ok(if self.direction == Direction::Forward {
            split..n
        } else {
            0..split
        })
    }

    /// Appends a row if it lies between the bounds. False if it lies beyond the far one.
    fn append(
        &self,
        rows: &mut LeafRows,
        page: &Opt<'_>,
        entry: &Entry<'_>,
    ) -> Result<bool, Stall> {
        let start = rows.bytes.len();
        match self.append_parts(rows, page, entry) {
            Ok(Some(span)) => {
                rows.rows.push(span);
                Ok(true)
            }
            Ok(None) => {
                let key = &rows.bytes[start..];
                let going_on = match self.direction {
                    Direction::Forward => below_upper(&self.upper, key),
                    Direction::Backward => above_lower(&self.lower, key),
                };
                rows.bytes.truncate(start);
                Ok(going_on)
            }
            Err(stall) => {
                rows.bytes.truncate(start);
                Err(stall)
            }
        }
    }

    /// Appends the bytes of a row; of a row outside the bounds only the key, and `None`.
    fn append_parts(
        &self,
        rows: &mut LeafRows,
        page: &Opt<'_>,
        entry: &Entry<'_>,
    ) -> Result<Option<Span>, Stall> {
        let start = rows.bytes.len();
        rows.bytes.extend_from_slice(entry.prefix);
        rows.bytes.extend_from_slice(entry.suffix);
        if let Some(tail) = entry.tail {
            self.long_bytes(page, tail, &mut rows.bytes)?;
        }
        let middle = rows.bytes.len();
        let key = &rows.bytes[start..];
        if !above_lower(&self.lower, key) || !below_upper(&self.upper, key) {
            return Ok(None);
        }
        match OverflowRef::parse(entry.value) {
            Some(chain) if entry.flags & ROW_OVERFLOW != 0 => {
                self.long_bytes(page, chain, &mut rows.bytes)?;
            }
            _ => rows.bytes.extend_from_slice(entry.value),
        }
        let end = rows.bytes.len();
        Ok(Some(Span {
            key: start..middle,
            value: middle..end,
            flags: row_flags(entry.flags),
        }))
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
