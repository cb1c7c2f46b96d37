//! What the index asks of its host: records of postings, rows of a snapshot.
//!
//! The index reads through this and writes by returning records: the host puts them into its trees
//! in one transaction. So nothing here knows a page, a lock or a log.

use std::fmt;
use std::sync::Arc;

use crate::centroid::CentroidSet;
use crate::error::VectorError;
use crate::filter::Admit;
use crate::record::{Key, PostingId, RecordError, RowId, Vver};

/// A change of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The record.
    pub key: Key,
    /// What it holds from now on; `None` deletes it, which is no error where there is none.
    pub value: Option<Vec<u8>>,
    /// The last eight bytes of the value wait for the commit's timestamp, little-endian.
    pub stamp: bool,
}

impl Write {
    /// Puts a record.
    #[must_use]
    pub fn put(key: Key, value: Vec<u8>) -> Self {
        let (value, stamp) = (Some(value), false);
        Self { key, value, stamp }
    }

    /// Deletes a record.
    #[must_use]
    pub fn delete(key: Key) -> Self {
        let (value, stamp) = (None, false);
        Self { key, value, stamp }
    }

    pub(crate) fn stamped(key: Key, value: Vec<u8>) -> Self {
        let (value, stamp) = (Some(value), true);
        Self { key, value, stamp }
    }

    /// Writes the commit's timestamp where the value waits for it. A host that has already copied
    /// the value into its log may write the eight bytes there instead.
    pub fn stamp(&mut self, ts: u64) {
        if std::mem::take(&mut self.stamp)
            && let Some(place) = self.value.as_mut().and_then(|value| value.last_chunk_mut())
        {
            *place = ts.to_le_bytes();
        }
    }
}

/// What a search may be told of a record: its key and its value.
pub type VisitRecord<'v> = dyn FnMut(Key, &[u8]) -> Result<(), RecordError> + 'v;

/// What a search is told of a row: its id, the version of its vector, the vector.
pub type VisitRow<'v> = dyn FnMut(RowId, Vver, &[f32]) -> Result<(), VectorError> + 'v;

/// A snapshot of a table, with or without a filter of its rows, and the newest records of its
/// index.
pub trait PostingStore {
    /// The host's error; what the index itself finds is turned into it.
    type Error: From<IndexError>;

    /// The newest published centroid set. Asked for after the snapshot was taken (S4).
    fn centroids(&self) -> Arc<CentroidSet>;

    /// The commit timestamp of the snapshot.
    fn snapshot(&self) -> u64;

    /// Visits head, blocks, filter columns, tail entries and marks of a posting in the order of
    /// their keys, from [`Key::Head`] up to that of the next id. A system transaction that changes
    /// it meanwhile may show in what comes first and not in what comes last, never the other way
    /// round: what moves inside a posting moves to a lesser key, so nothing is missed. A posting
    /// that is gone has no head and no visit.
    ///
    /// # Errors
    /// What the host could not read, or what `visit` returned.
    fn posting(&self, id: PostingId, visit: &mut VisitRecord<'_>) -> Result<(), Self::Error>;

    /// A posting is visited soon: a host whose memory is far may have it on its way.
    fn expect(&self, id: PostingId) {
        let _ = id;
    }

    /// As [`PostingStore::expect`], for extra bits.
    fn expect_extra(&self, id: PostingId, group: u32) {
        let _ = (id, group);
    }

    /// Visits the extra bits of a group of slots, [`Key::Extra`], if there are some. They lie apart
    /// from the posting and may be newer or older than what was visited of it.
    ///
    /// # Errors
    /// As [`PostingStore::posting`].
    fn extra(
        &self,
        id: PostingId,
        group: u32,
        visit: &mut VisitRecord<'_>,
    ) -> Result<(), Self::Error>;

    /// Visits the locator of a row, if it has one.
    ///
    /// # Errors
    /// As [`PostingStore::posting`].
    fn locator(&self, row: RowId, visit: &mut VisitRecord<'_>) -> Result<(), Self::Error>;

    /// Visits those of `rows` that the snapshot holds and the filter accepts, in any order. At most
    /// 16 are asked for at once; a host reads them side by side.
    ///
    /// # Errors
    /// As [`PostingStore::posting`].
    fn rows(&self, rows: &[RowId], visit: &mut VisitRow<'_>) -> Result<(), Self::Error>;

    /// Whether the store has a filter, so that [`PostingStore::rows`] and
    /// [`PostingStore::all_rows`] visit accepted rows only. Without one, [`PostingStore::admits`]
    /// is not asked.
    fn filtered(&self) -> bool {
        false
    }

    /// What the filter says of a row by the filter columns beside its entry; `None` where an entry
    /// has none. Must agree with the row of that version: columns are written with the entry.
    fn admits(&self, columns: Option<&[u8]>) -> Admit {
        let _ = columns;
        Admit::AskRow
    }

    /// Rows of the snapshot, about, and whatever the filter.
    ///
    /// # Errors
    /// As [`PostingStore::posting`].
    fn row_count(&self) -> Result<u64, Self::Error>;

    /// Visits every row of the snapshot that has a vector and that the filter accepts.
    ///
    /// # Errors
    /// As [`PostingStore::posting`].
    fn all_rows(&self, visit: &mut VisitRow<'_>) -> Result<(), Self::Error>;
}

/// What can be wrong with an index, or with what it was asked.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum IndexError {
    /// A vector or a `k` that cannot be served.
    Vector(VectorError),
    /// A record that is not what the format says.
    Record(RecordError),
    /// A posting has dropped entries that this old snapshot may need.
    SnapshotTooOld {
        /// The posting.
        posting: PostingId,
        /// The snapshot's timestamp.
        snapshot: u64,
        /// The least timestamp that the posting still serves.
        horizon: u64,
    },
    /// A record that must be there is not.
    Missing {
        /// The record.
        record: &'static str,
    },
    /// A locator names a version of a row's vector that the row does not have.
    Row {
        /// The row.
        row: RowId,
        /// The version.
        vver: Vver,
    },
    /// A parameter outside its range.
    Parameter {
        /// Its name.
        name: &'static str,
        /// What it may be.
        expected: &'static str,
    },
}

impl fmt::Display for IndexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vector(error) => error.fmt(f),
            Self::Record(error) => error.fmt(f),
            Self::SnapshotTooOld {
                posting,
                snapshot,
                horizon,
            } => write!(
                f,
                "vector index posting {}: expected a snapshot of {horizon} or later, found \
                 {snapshot}",
                posting.0
            ),
            Self::Missing { record } => {
                write!(f, "vector index {record}: expected a record, found none")
            }
            Self::Row { row, vver } => write!(
                f,
                "vector index: expected version {} of the vector of row {}, found another or none",
                vver.0, row.0
            ),
            Self::Parameter { name, expected } => {
                write!(f, "vector index parameter {name}: expected {expected}")
            }
        }
    }
}

impl std::error::Error for IndexError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Vector(error) => Some(error),
            Self::Record(error) => Some(error),
            _ => None,
        }
    }
}

impl From<VectorError> for IndexError {
    fn from(error: VectorError) -> Self {
        Self::Vector(error)
    }
}

impl From<RecordError> for IndexError {
    fn from(error: RecordError) -> Self {
        Self::Record(error)
    }
}
