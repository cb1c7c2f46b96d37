//! The records of an index: keys and values, byte by byte, as the format page lays them down.
//!
//! Between what the algorithms work on and what a host stores. A decode takes foreign bytes and
//! returns an error, never a panic; an encode writes the one form that the decode accepts.
//!
//! Invariants: F1 keys sort as their bytes, with what a scan of a posting reads side by side, its
//! head first, and extra bits, which only a second stage reads, apart from them; F2
//! `decode(encode(x)) == x`; F3 lengths are exact: no record has bytes to spare; F4 what lies
//! beside a block carries its seal, which no two blocks of a posting with one number share.

mod any;
mod block;
mod columns;
mod meta;
#[cfg(test)]
mod seeds;
mod small;
#[cfg(test)]
mod tests;
mod tuning;

pub use any::decode_any;
pub(crate) use block::{Block, BlockBuilder, BlockIds, Extra, TailEntry};
pub(crate) use columns::Columns;
pub use meta::{IndexState, Meta};
pub(crate) use small::{Centroid, Head, Job, JobKind, Locator, Mark, State, narrow};
pub use tuning::Tuning;
pub(crate) use tuning::{Point, TARGETS};

use std::fmt;

use crate::code::rotate::code_dim;

/// A posting: a list of entries around one centre. 0 is the list of rows not assigned yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PostingId(pub u32);

impl PostingId {
    /// Rows that no posting has taken yet. It has no centre and every search reads it.
    pub const UNASSIGNED: Self = Self(0);
}

/// A row of the table, as the host numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId(pub u64);

/// The version of a row's vector: rises with every change, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Vver(pub u32);

/// What a record is about; the order is that of the encoded keys (F1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The index itself.
    Meta,
    /// The centre of a posting.
    Centroid(PostingId),
    /// Counters and horizons of a posting.
    Head(PostingId),
    /// 32 entries of a posting.
    Block(PostingId, u32),
    /// The filter columns of a block.
    Columns(PostingId, u32),
    /// An entry that no block has taken yet.
    Tail(PostingId, RowId, Vver),
    /// A note that an entry is dead or has moved.
    Mark(PostingId, RowId, Vver),
    /// Where the entries of a row are.
    Locator(RowId),
    /// Work that a posting waits for.
    Job(PostingId),
    /// The further bits of 8 slots of a block: group `4 * block + slot / 8`.
    Extra(PostingId, u32),
    /// What a calibration found: how long to search for what recall.
    Tuning,
}

impl Key {
    /// The key's bytes, at most 18.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(18);
        let posting = |out: &mut Vec<u8>, kind: u8, id: PostingId| {
            out.push(kind);
            out.extend(id.0.to_be_bytes());
        };
        match self {
            Self::Meta => out.push(1),
            Self::Centroid(id) => posting(&mut out, 2, id),
            Self::Head(id) => posting(&mut out, 3, id),
            Self::Block(id, number) | Self::Columns(id, number) => {
                posting(&mut out, 3, id);
                out.push(u8::from(matches!(self, Self::Columns(..))));
                out.extend(number.to_be_bytes());
            }
            Self::Tail(id, row, vver) | Self::Mark(id, row, vver) => {
                posting(&mut out, 3, id);
                out.push(if matches!(self, Self::Tail(..)) { 2 } else { 3 });
                out.extend(row.0.to_be_bytes());
                out.extend(vver.0.to_be_bytes());
            }
            Self::Locator(row) => {
                out.push(4);
                out.extend(row.0.to_be_bytes());
            }
            Self::Job(id) => posting(&mut out, 5, id),
            Self::Extra(id, group) => {
                posting(&mut out, 6, id);
                out.extend(group.to_be_bytes());
            }
            Self::Tuning => out.push(7),
        }
        out
    }

    /// The keys of a posting's records, extra bits excepted: from the first up to, not including,
    /// the second.
    #[must_use]
    pub fn posting_range(id: PostingId) -> (Vec<u8>, Vec<u8>) {
        let end = match id.0.checked_add(1) {
            Some(next) => Self::Head(PostingId(next)).encode(),
            None => vec![4],
        };
        (Self::Head(id).encode(), end)
    }

    /// Whether these are the bytes of a [`Key::Columns`].
    #[must_use]
    pub fn is_columns(bytes: &[u8]) -> bool {
        matches!(bytes, [3, _, _, _, _, 1, ..])
    }

    /// The keys of all centroids, as [`Key::posting_range`].
    #[must_use]
    pub fn centroid_range() -> (Vec<u8>, Vec<u8>) {
        (vec![2], vec![3])
    }

    /// The keys of all locators, as [`Key::posting_range`].
    #[must_use]
    pub fn locator_range() -> (Vec<u8>, Vec<u8>) {
        (vec![4], vec![5])
    }

    /// The key of these bytes.
    ///
    /// # Errors
    /// [`RecordError`] if no key has them.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut from = Reader::new("key", bytes);
        let kind = from.u8()?;
        let key = match kind {
            1 => Self::Meta,
            2 => Self::Centroid(PostingId(from.u32_be()?)),
            3 => {
                let id = PostingId(from.u32_be()?);
                if from.is_empty() {
                    return Ok(Self::Head(id));
                }
                match from.u8()? {
                    0 => Self::Block(id, from.u32_be()?),
                    1 => Self::Columns(id, from.u32_be()?),
                    2 => Self::Tail(id, RowId(from.u64_be()?), Vver(from.u32_be()?)),
                    3 => Self::Mark(id, RowId(from.u64_be()?), Vver(from.u32_be()?)),
                    other => return Err(from.wrong("record of a posting", u64::from(other))),
                }
            }
            4 => Self::Locator(RowId(from.u64_be()?)),
            5 => Self::Job(PostingId(from.u32_be()?)),
            6 => Self::Extra(PostingId(from.u32_be()?), from.u32_be()?),
            7 => Self::Tuning,
            other => return Err(from.wrong("kind", u64::from(other))),
        };
        from.end()?;
        Ok(key)
    }
}

/// The row's key in a locator, where the host gave one.
///
/// # Errors
/// [`RecordError`] if the value is no locator.
pub fn locator_key(value: &[u8]) -> Result<Option<Vec<u8>>, RecordError> {
    Ok(Locator::decode(value)?.key)
}

/// Whether the row of a locator has a vector.
///
/// # Errors
/// As [`locator_key`].
pub fn locator_is_live(value: &[u8]) -> Result<bool, RecordError> {
    Ok(Locator::decode(value)?.live)
}

/// Bytes of the largest record of an index of this dimension, but for filter columns: a host
/// chooses its pages so that it lies inline.
#[must_use]
pub fn largest_record_bytes(dim: usize) -> usize {
    let dim = code_dim(dim);
    block::block_bytes(dim).max(small::centroid_bytes(dim))
}

/// A record whose bytes are not what the format says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordError {
    /// Another length than the format gives.
    Length {
        /// The record.
        record: &'static str,
        /// Bytes that the format asks for; if the record is shorter, at least this many.
        expected: usize,
        /// Bytes that there are.
        found: usize,
    },
    /// Another dimension than that of the index.
    Dimension {
        /// The record.
        record: &'static str,
        /// The dimension of the index's codes.
        expected: usize,
        /// That of the record.
        found: usize,
    },
    /// A number that the format does not know.
    Value {
        /// The record.
        record: &'static str,
        /// The field.
        field: &'static str,
        /// What it holds.
        found: u64,
    },
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length {
                record,
                expected,
                found,
            } => {
                write!(
                    f,
                    "vector index {record}: expected {expected} bytes, found {found}"
                )
            }
            Self::Dimension {
                record,
                expected,
                found,
            } => {
                write!(
                    f,
                    "vector index {record}: expected {expected} dimensions, found {found}"
                )
            }
            Self::Value {
                record,
                field,
                found,
            } => {
                write!(
                    f,
                    "vector index {record}: {field} has the unknown value {found}"
                )
            }
        }
    }
}

impl std::error::Error for RecordError {}

/// Takes a record apart from the front.
struct Reader<'a> {
    record: &'static str,
    len: usize,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn new(record: &'static str, bytes: &'a [u8]) -> Self {
        Self {
            record,
            len: bytes.len(),
            rest: bytes,
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let found = self.len;
        let expected = found - self.rest.len() + len;
        let (part, rest) = self.rest.split_at_checked(len).ok_or(RecordError::Length {
            record: self.record,
            expected,
            found,
        })?;
        self.rest = rest;
        Ok(part)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u8(&mut self) -> Result<u8, RecordError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, RecordError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, RecordError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, RecordError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn u32_be(&mut self) -> Result<u32, RecordError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn u64_be(&mut self) -> Result<u64, RecordError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// The version byte that records begin with.
    fn version(&mut self) -> Result<(), RecordError> {
        match self.u8()? {
            1 => Ok(()),
            other => Err(self.wrong("version", u64::from(other))),
        }
    }

    /// A number of code dimensions, stored in units of 64; it must be that of the index.
    fn code_dim(&mut self, expected: usize) -> Result<(), RecordError> {
        let found = self.u16()?;
        if usize::from(found) * 64 == expected {
            Ok(())
        } else {
            Err(RecordError::Dimension {
                record: self.record,
                expected,
                found: usize::from(found) * 64,
            })
        }
    }

    fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What is left.
    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    fn end(&self) -> Result<(), RecordError> {
        if self.is_empty() {
            return Ok(());
        }
        Err(RecordError::Length {
            record: self.record,
            expected: self.len - self.rest.len(),
            found: self.len,
        })
    }

    fn wrong(&self, field: &'static str, found: u64) -> RecordError {
        RecordError::Value {
            record: self.record,
            field,
            found,
        }
    }
}
