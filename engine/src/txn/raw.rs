//! Rows as bytes: what a table reads from, whether it is a snapshot or an open transaction.
//!
//! Public only in name (the module is private): [`super::Read`] is sealed by it.

use std::ops::Bound;
use std::sync::Arc;

use terrane_wal::lsn::TreeId;

use crate::error::Result;
use crate::local::Local;
use crate::txn::positions::ReadPin;
use crate::txn::scan::RawScan;
use crate::txn::write_set::WriteSet;

/// What is read in one shard or in several: a part for each shard, all of one state.
pub trait Legged {
    /// The part in a shard.
    type Leg: RawRead;

    /// What is read in the shard with this number.
    ///
    /// # Errors
    /// `Unavailable` if no member of the shard leads; `Invalid` if there is no such shard;
    /// `SnapshotTooOld` if it no longer has that state.
    fn leg(&self, shard: u32) -> Result<&Self::Leg>;
}

/// Reads rows of one consistent state. A transaction's own writes are merged in.
pub trait RawRead {
    /// The trees that are read, the same from begin to end.
    ///
    /// # Errors
    /// `Unavailable` if no member of the cluster led when this began.
    fn local(&self) -> Result<&Local>;

    /// The value at `key`, or None.
    ///
    /// # Errors
    /// `SnapshotTooOld`, `Corrupt`, `Io`, `Closed`, `NotFound` (no such tree).
    fn get_raw(&self, tree: TreeId, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// The rows between the bounds in key order, or in reverse order. The scan owns all it needs:
    /// rows that the transaction writes later are not in it.
    ///
    /// # Errors
    /// As [`RawRead::get_raw`], and `Invalid` if the lower bound lies above the upper one.
    fn scan_raw(
        &self,
        tree: TreeId,
        lower: Bound<Vec<u8>>,
        upper: Bound<Vec<u8>>,
        reverse: bool,
    ) -> Result<RawScan>;

    /// The state that is read, for who reads rows past this trait: all rows of `tree` count as
    /// read, and the reader's own writes are to be merged by the caller.
    ///
    /// # Errors
    /// `Closed`.
    fn state(&self, tree: TreeId) -> Result<ReadState>;
}

/// A read position and the writes that its reader sees beside it.
#[derive(Debug)]
pub struct ReadState {
    pub(crate) pin: Arc<ReadPin>,
    /// None for a snapshot, and for a transaction that has written nothing.
    pub(crate) own: Option<Arc<WriteSet>>,
}
