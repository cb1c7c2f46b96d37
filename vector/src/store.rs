//! What the index asks of its host: records of postings, rows of a snapshot.
//!
//! The index reads through this and writes by returning records: the host puts them into its trees
//! in one transaction. So nothing here knows a page, a lock or a log.

use std::fmt;
use std::sync::Arc;

use crate::centroid::CentroidSet;
use crate::error::VectorError;
use crate::record::{Key, PostingId, RecordError, RowId, Vver};

/// A record to be put, or with `None` to be deleted.
pub type Write = (Key, Option<Vec<u8>>);

/// What a search may be told of a record: its key and its value.
pub type VisitRecord<'v> = dyn FnMut(Key, &[u8]) -> Result<(), RecordError> + 'v;

/// What a search is told of a row: its id, the version of its vector, the vector.
pub type VisitRow<'v> = dyn FnMut(RowId, Vver, &[f32]) -> Result<(), VectorError> + 'v;

/// A snapshot of a table and the newest records of its index.
pub trait PostingStore {
    /// The host's error; what the index itself finds is turned into it.
    type Error: From<IndexError>;

    /// The newest published centroid set. Asked for after the snapshot was taken (S4).
    fn centroids(&self) -> Arc<CentroidSet>;

    /// The commit timestamp of the snapshot.
    fn snapshot(&self) -> u64;

    /// Visits head, blocks, tail entries and marks of a posting in the order of their keys, all of
    /// one generation; without its extra bits. A posting that is gone has no head and no visit.
    ///
    /// # Errors
    /// What the host could not read, or what `visit` returned.
    fn posting(&self, id: PostingId, visit: &mut VisitRecord<'_>) -> Result<(), Self::Error>;

    /// The extra bits of a block, if it has some.
    ///
    /// # Errors
    /// As [`PostingStore::posting`].
    fn extra(
        &self,
        id: PostingId,
        block: u32,
        visit: &mut VisitRecord<'_>,
    ) -> Result<(), Self::Error>;

    /// Visits the locator of a row, if it has one.
    ///
    /// # Errors
    /// As [`PostingStore::posting`].
    fn locator(&self, row: RowId, visit: &mut VisitRecord<'_>) -> Result<(), Self::Error>;

    /// Visits those of `rows` that the snapshot holds, in any order. At most 16 are asked for at
    /// once; a host reads them side by side.
    ///
    /// # Errors
    /// As [`PostingStore::posting`].
    fn rows(&self, rows: &[RowId], visit: &mut VisitRow<'_>) -> Result<(), Self::Error>;

    /// Rows of the snapshot, about.
    ///
    /// # Errors
    /// As [`PostingStore::posting`].
    fn row_count(&self) -> Result<u64, Self::Error>;

    /// Visits every row of the snapshot that has a vector.
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
