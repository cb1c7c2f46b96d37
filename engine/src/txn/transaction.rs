//! A write transaction: buffered writes over a snapshot. Owned, `'static + Send`.

use std::ops::Bound;

use terrane_wal::lsn::TreeId;

use crate::database::{Commit, Database};
use crate::error::Result;
use crate::txn::raw::RawRead;
use crate::txn::scan::RawScan;

/// A write transaction. Nothing of it is visible to others until [`Transaction::commit`];
/// dropping it aborts it, without waiting.
#[derive(Debug)]
pub struct Transaction {}

/// A place inside a transaction to which [`Transaction::rollback_to`] goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Savepoint(usize);

impl Transaction {
    /// Makes everything written visible and durable (at the level of the database or of the
    /// [`crate::Writer`]), or nothing of it.
    ///
    /// # Errors
    /// `Conflict`, `Schema` (a table changed under the transaction), `TooLarge`, `Full`,
    /// `TimedOut`, `Closed`: aborted. `Unknown`: sequenced, but the log failed before its level.
    pub fn commit(self) -> Result<Commit> {
        todo!()
    }

    /// A place to go back to. Savepoints nest freely.
    #[must_use]
    pub fn savepoint(&self) -> Savepoint {
        todo!()
    }

    /// Takes back every write made after `savepoint`.
    pub fn rollback_to(&mut self, _savepoint: Savepoint) {
        todo!()
    }

    /// The database that the transaction belongs to.
    #[must_use]
    pub fn database(&self) -> &Database {
        todo!()
    }

    /// Writes a row. `schema` is the table's schema version (0 for system trees), `flags` are those
    /// of the log record (1: an index row).
    pub(crate) fn put_raw(
        &mut self,
        _tree: TreeId,
        _schema: u32,
        _flags: u8,
        _key: Vec<u8>,
        _value: Vec<u8>,
    ) -> Result<()> {
        todo!()
    }

    /// Deletes a row, whether or not it exists.
    pub(crate) fn delete_raw(
        &mut self,
        _tree: TreeId,
        _schema: u32,
        _flags: u8,
        _key: Vec<u8>,
    ) -> Result<()> {
        todo!()
    }

    /// Locks the row for this transaction, then reads it. Taken before the first other read, it
    /// makes a read-modify-write of a hot row succeed at the first attempt.
    pub(crate) fn get_for_update_raw(
        &mut self,
        _tree: TreeId,
        _key: &[u8],
    ) -> Result<Option<Vec<u8>>> {
        todo!()
    }
}

impl RawRead for Transaction {
    fn get_raw(&self, _tree: TreeId, _key: &[u8]) -> Result<Option<Vec<u8>>> {
        todo!()
    }

    fn scan_raw(
        &self,
        _tree: TreeId,
        _lower: Bound<Vec<u8>>,
        _upper: Bound<Vec<u8>>,
        _reverse: bool,
    ) -> Result<RawScan> {
        todo!()
    }
}
