//! Transactions: what they read, what they write, and the one place where they become visible.
//!
//! Flow: [`transaction`] gathers writes in a [`write_set`] and reads through [`snapshot`];
//! [`commit`] places intents in [`recent`], validates, sequences in the log, applies to the trees
//! and waits. A reader asks the leaf first and [`recent`] after it, never the other way round.

pub(crate) mod commit;
pub(crate) mod gate;
pub(crate) mod intents;
pub(crate) mod owner;
pub(crate) mod positions;
pub(crate) mod prefix;
pub(crate) mod raw;
pub(crate) mod recent;
pub(crate) mod retry;
pub(crate) mod ring;
pub(crate) mod scan;
pub(crate) mod snapshot;
pub(crate) mod sweep;
pub(crate) mod transaction;
pub(crate) mod validate;
pub(crate) mod write_set;

pub use snapshot::Snapshot;
pub use transaction::{Savepoint, Transaction};

/// What can be read from: a [`Snapshot`] or a [`Transaction`]. Sealed.
pub trait Read: raw::RawRead {}

impl Read for Snapshot {}
impl Read for Transaction {}

/// What a write transaction may overlook of others that run at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Reads one snapshot; two transactions that write one row cannot both commit.
    Snapshot,
    /// As if the transactions had run one after the other: what was read, rows and ranges, is
    /// checked again when the transaction commits.
    #[default]
    Serializable,
}

#[cfg(all(test, not(loom)))]
mod tests;
