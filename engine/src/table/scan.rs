//! A scan: the rows of a range in key order, decoded one by one, from either end.
//!
//! A cursor of the tree runs in one direction, so a scan that is read from both ends has two, and
//! the second is opened only when it is asked for. They meet by comparing keys.
//!
//! Invariants:
//! - S1: every row of the range comes exactly once, whichever end it is taken from.
//! - S2: a scan ends after its first error.
//! - S3: a scan owns what it reads: it is `Send`, outlives the call that made it, and rows that
//!   its transaction writes later are not in it. A transaction's scan ends with `Closed` when the
//!   transaction does: what it would give out later may have been rolled back.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Bound;

use terrane_wal::lsn::TreeId;

use crate::codec::{Key, Ref, Span, Value};
use crate::error::{Error, Result};
use crate::table::merge::Merge;
use crate::txn::raw::RawRead;
use crate::txn::scan::RawScan;

/// A row as bytes.
pub(crate) type RawRow = (Vec<u8>, Vec<u8>);

/// The bounds of a span, for a cursor.
pub(crate) fn bounds(span: &Span) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let end = span.end().map(<[u8]>::to_vec);
    (
        Bound::Included(span.start().to_vec()),
        end.map_or(Bound::Unbounded, Bound::Excluded),
    )
}

/// A row as bytes, lent until the next one is asked for.
pub(crate) type LentRow<'a> = (&'a [u8], &'a [u8]);

/// Rows as bytes from both ends.
#[derive(Debug)]
pub(crate) struct RawEnds {
    state: State,
}

#[derive(Debug)]
enum State {
    Open {
        front: Box<RawScan>,
        /// Opened when it is first asked for.
        back: Option<Box<RawScan>>,
    },
    /// Those of several shards.
    Merged(Box<Merge>),
    /// An error to be told before the end.
    Refused(Error),
    Done,
}

impl RawEnds {
    /// The rows of `tree` in `span`. An error is told by the first row that is asked for.
    pub(crate) fn open(read: &(impl RawRead + ?Sized), tree: TreeId, span: Result<Span>) -> Self {
        let open = |span: Span| -> Result<State> {
            if span.is_empty() {
                return Ok(State::Done);
            }
            let (lower, upper) = bounds(&span);
            let front = Box::new(read.scan_raw(tree, lower, upper, false)?);
            Ok(State::Open { front, back: None })
        };
        RawEnds {
            state: span.and_then(open).unwrap_or_else(State::Refused),
        }
    }

    /// No rows, and why.
    pub(crate) fn refused(error: Error) -> Self {
        let state = State::Refused(error);
        RawEnds { state }
    }

    /// The rows of several shards, in the order of their keys.
    pub(crate) fn merge(mut parts: Vec<RawEnds>) -> Self {
        let state = match parts.pop() {
            None => State::Done,
            Some(only) if parts.is_empty() => return only,
            Some(last) => {
                parts.push(last);
                State::Merged(Box::new(Merge::new(parts)))
            }
        };
        RawEnds { state }
    }

    /// Which of the merged parts the last row came from.
    pub(crate) fn part(&self) -> usize {
        match &self.state {
            State::Merged(merge) => merge.part(),
            _ => 0,
        }
    }

    /// The next row from the front or from the back.
    #[inline]
    pub(crate) fn lend(&mut self, from_back: bool) -> Option<Result<LentRow<'_>>> {
        match self.advance(from_back) {
            Ok(true) => self.current(from_back).map(Ok),
            Ok(false) => {
                self.state = State::Done;
                None
            }
            Err(error) => {
                self.state = State::Done; // S2
                Some(Err(error))
            }
        }
    }

    /// Goes on at one end; false if the ends have met.
    #[inline]
    fn advance(&mut self, from_back: bool) -> Result<bool> {
        let (mine, other) = match &mut self.state {
            State::Open { front, back } if !from_back => (&mut **front, back.as_deref()),
            State::Open { front, back } => (opened(front, back)?, Some(&**front)),
            State::Merged(merge) => return merge.advance(from_back),
            State::Refused(_) => match std::mem::replace(&mut self.state, State::Done) {
                State::Refused(error) => return Err(error),
                _ => return Ok(false),
            },
            State::Done => return Ok(false),
        };
        if !mine.advance()? {
            return Ok(false);
        }
        // Each end stands on the last row that it gave out.
        Ok(match (mine.row(), other.and_then(RawScan::row)) {
            (Some((mine, _)), Some((other, _))) => !met(mine, other, from_back),
            (mine, _) => mine.is_some(),
        })
    }

    /// The row on which an end stands.
    #[inline]
    fn current(&self, from_back: bool) -> Option<LentRow<'_>> {
        match &self.state {
            State::Open { front, .. } if !from_back => front.row(),
            State::Open { back, .. } => back.as_deref().and_then(RawScan::row),
            State::Merged(merge) => Some(merge.row()),
            State::Refused(_) | State::Done => None,
        }
    }

    fn owned(&mut self, from_back: bool) -> Option<Result<RawRow>> {
        let row = self.lend(from_back)?;
        Some(row.map(|(key, value)| (key.to_vec(), value.to_vec())))
    }
}

/// The cursor from the back, opened when it is first asked for.
fn opened<'b>(front: &RawScan, back: &'b mut Option<Box<RawScan>>) -> Result<&'b mut RawScan> {
    match back {
        Some(back) => Ok(back),
        None => Ok(back.insert(Box::new(front.reversed()?))),
    }
}

/// Whether a key that came from one end has been given out by the other already.
fn met(key: &[u8], other: &[u8], from_back: bool) -> bool {
    if from_back {
        key <= other
    } else {
        key >= other
    }
}

impl Iterator for RawEnds {
    type Item = Result<RawRow>;

    fn next(&mut self) -> Option<Self::Item> {
        self.owned(false)
    }
}

impl DoubleEndedIterator for RawEnds {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.owned(true)
    }
}

/// The rows of a range, in key order from the front and in reverse order from the back.
///
/// Each item is a row or the error that ended the scan: `Invalid` for a range that starts above
/// its end, `SnapshotTooOld`, `Corrupt`, `Codec`, `Io`, `Closed` (the database is closed, or the
/// transaction that the scan belongs to has committed or was rolled back).
#[must_use = "a scan reads nothing until it is iterated"]
pub struct Scan<K, V> {
    rows: RawEnds,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: Key, V: Value> Scan<K, V> {
    pub(crate) fn new(rows: RawEnds) -> Scan<K, V> {
        Scan {
            rows,
            types: PhantomData,
        }
    }

    /// The keys alone: no value is decoded.
    pub fn keys(self) -> impl DoubleEndedIterator<Item = Result<K>> + Send {
        Mapped {
            rows: self.rows,
            make: |(key, _)| K::decode_key(key),
        }
    }

    /// The rows with their values as they are stored: see [`crate::Table::get_ref`].
    pub fn refs(self) -> impl DoubleEndedIterator<Item = Result<(K, Ref<V>)>> + Send {
        Mapped {
            rows: self.rows,
            make: |(key, value)| Ok((K::decode_key(key)?, Ref::new(value))),
        }
    }
}

/// What is made of each row while it is lent.
struct Mapped<T> {
    rows: RawEnds,
    make: fn(LentRow<'_>) -> Result<T>,
}

impl<T> Iterator for Mapped<T> {
    type Item = Result<T>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.rows.lend(false).map(|row| row.and_then(self.make))
    }
}

impl<T> DoubleEndedIterator for Mapped<T> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.rows.lend(true).map(|row| row.and_then(self.make))
    }
}

fn decode<K: Key, V: Value>((key, value): LentRow<'_>) -> Result<(K, V)> {
    Ok((K::decode_key(key)?, V::decode_value(value)?))
}

impl<K: Key, V: Value> Iterator for Scan<K, V> {
    type Item = Result<(K, V)>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.rows.lend(false).map(|row| row.and_then(decode))
    }

    /// Counts rows, an error among them, without decoding any.
    fn count(mut self) -> usize {
        let mut rows = 0;
        while self.rows.lend(false).is_some() {
            rows += 1;
        }
        rows
    }
}

impl<K: Key, V: Value> DoubleEndedIterator for Scan<K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.rows.lend(true).map(|row| row.and_then(decode))
    }
}

impl<K, V> fmt::Debug for Scan<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Scan").field(&self.rows).finish()
    }
}
