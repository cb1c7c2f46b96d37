//! The handle of an open database.

use std::path::Path;
use std::sync::Arc;

use terrane_wal::lsn::TreeId;

use crate::catalog::{SchemaMatch, TableInfo, TableSpec};
use crate::error::{Error, Outcome, Result};
use crate::txn::{Isolation, Snapshot, Transaction};

/// How safe a commit is when it returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// In the log's memory: survives a panic of the caller, not the end of the process.
    Buffered,
    /// On the disk of this machine, with one device flush.
    #[default]
    Local,
    /// On the disk of this machine and of a replica.
    Replicated,
}

/// A position in the log of each shard. What a commit returns and what a snapshot can be held to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub(crate) u64);

/// What a transaction became.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Commit {
    /// The state right after the commit.
    pub position: Position,
    /// How many shards took part; 0 if nothing was written.
    pub shards: u32,
}

/// An open database. Clones are handles of the same one.
#[derive(Clone, Debug)]
pub struct Database {}

impl Database {
    /// Opens the database in the directory `path`, creating it if nothing is there.
    ///
    /// # Errors
    /// See [`crate::Builder::open`].
    pub fn open(_path: impl AsRef<Path>) -> Result<Database> {
        todo!()
    }

    /// A consistent state to read from: everything committed at this database's level.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        todo!()
    }

    /// Begins a write transaction.
    #[must_use]
    pub fn begin(&self) -> Transaction {
        todo!()
    }

    /// Runs `body` in a transaction and commits it; runs it again on a conflict.
    ///
    /// # Errors
    /// What `body` returns, and what [`Transaction::commit`] returns.
    pub fn write<T>(&self, body: impl FnMut(&mut Transaction) -> Result<T>) -> Result<T> {
        self.try_write(body)
    }

    /// As [`Database::write`], with the caller's own error type.
    ///
    /// # Errors
    /// What `body` returns, and what [`Transaction::commit`] returns.
    pub fn try_write<T, E: From<Error>>(
        &self,
        _body: impl FnMut(&mut Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        todo!()
    }

    /// Options of one write.
    #[must_use]
    pub fn writer(&self) -> Writer {
        todo!()
    }

    /// What became of the transaction that carried the idempotency key `key`.
    ///
    /// # Errors
    /// `Invalid` for a key that is empty or longer than 64 bytes.
    pub fn outcome(&self, _key: impl AsRef<[u8]>) -> Result<Outcome> {
        todo!()
    }

    /// Waits for commits in flight, then closes: later reads and commits give `Closed`.
    ///
    /// # Errors
    /// What the last flush or checkpoint gives. A second close does nothing.
    pub fn close(&self) -> Result<()> {
        todo!()
    }

    /// Opens the table `name`, creating it and its trees if it does not exist. `check` compares the
    /// stored schema's encoding with the declared one.
    ///
    /// # Errors
    /// What `check` gives, `Invalid` for a bad name, and those of a commit.
    pub(crate) fn open_table(
        &self,
        _name: &str,
        _spec: &TableSpec,
        _check: &dyn Fn(&TableInfo) -> Result<SchemaMatch>,
    ) -> Result<Arc<TableInfo>> {
        todo!()
    }

    /// A row id of the table in `tree` that was never given out. Taken from logged blocks; numbers
    /// are lost when the process ends, never repeated.
    ///
    /// # Errors
    /// Those of a commit.
    pub(crate) fn next_row_id(&self, _tree: TreeId) -> Result<u64> {
        todo!()
    }
}

/// Options of one write; see [`Database::writer`].
#[derive(Clone, Debug)]
pub struct Writer {}

impl Writer {
    /// The isolation of this write.
    #[must_use]
    pub fn isolation(self, _isolation: Isolation) -> Writer {
        todo!()
    }

    /// The durability of this write; may only ask for more than the database's.
    #[must_use]
    pub fn durability(self, _durability: Durability) -> Writer {
        todo!()
    }

    /// How often a conflict is answered by another attempt.
    #[must_use]
    pub fn retries(self, _retries: u32) -> Writer {
        todo!()
    }

    /// Names this write: of several with one key at most one commits within 24 hours.
    #[must_use]
    pub fn idempotency(self, _key: impl AsRef<[u8]>) -> Writer {
        todo!()
    }

    /// Runs `body` as [`Database::try_write`] does, and returns the commit too.
    ///
    /// # Errors
    /// As [`Database::write`], and `Invalid` for options that cannot be kept.
    pub fn run<T, E: From<Error>>(
        &self,
        _body: impl FnMut(&mut Transaction) -> Result<T, E>,
    ) -> Result<(T, Commit), E> {
        todo!()
    }
}
