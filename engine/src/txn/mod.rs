//! Transactions: what they read, what they write, and the one place where they become visible.
//!
//! Flow: a [`leg`] of a [`transaction`] gathers writes in a [`write_set`] and reads through
//! [`snapshot`], where there are several shards at a moment of all of them ([`moments`]);
//! [`commit`] places intents in [`recent`], validates, sequences in the log, applies to the trees
//! and waits. A reader asks the leaf first and [`recent`] after it, never the other way round.

#[cfg(not(loom))]
pub(crate) mod commit;
pub(crate) mod epochs;
#[cfg(not(loom))]
pub(crate) mod gate;
#[cfg(not(loom))]
pub(crate) mod intents;
#[cfg(not(loom))]
pub(crate) mod leg;
#[cfg(not(loom))]
pub(crate) mod legs;
#[cfg(not(loom))]
pub(crate) mod moments;
pub(crate) mod owner;
pub(crate) mod positions;
pub(crate) mod prefix;
#[cfg(not(loom))]
pub(crate) mod prepared;
pub(crate) mod range;
#[cfg(not(loom))]
pub(crate) mod raw;
pub(crate) mod reach;
pub(crate) mod recent;
#[cfg(not(loom))]
pub(crate) mod records;
#[cfg(not(loom))]
pub(crate) mod retry;
pub(crate) mod ring;
#[cfg(not(loom))]
pub(crate) mod scan;
#[cfg(not(loom))]
pub(crate) mod snapshot;
#[cfg(not(loom))]
pub(crate) mod spread;
#[cfg(not(loom))]
pub(crate) mod sweep;
pub(crate) mod tentative;
#[cfg(not(loom))]
pub(crate) mod transaction;
#[cfg(not(loom))]
pub(crate) mod two_phase;
pub(crate) mod validate;
#[cfg(not(loom))]
pub(crate) mod write_set;

#[cfg(not(loom))]
pub use snapshot::Snapshot;
#[cfg(not(loom))]
pub use transaction::{Savepoint, Transaction};

/// What can be read from: a [`Snapshot`] or a [`Transaction`]. Sealed.
#[cfg(not(loom))]
pub trait Read: raw::Legged {}

#[cfg(not(loom))]
impl Read for Snapshot {}
#[cfg(not(loom))]
impl Read for Transaction {}

/// What a write transaction may overlook of others that run at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Reads one snapshot; two transactions that write one row cannot both commit.
    Snapshot,
    /// As if the transactions had run one after the other: what was read is checked again when the
    /// transaction commits. That is every row that was asked for, there or not, and of a scan the
    /// part of its range from where it began to the last row that was taken, gaps included; all of
    /// the range if it was taken to its end.
    #[default]
    Serializable,
}

#[cfg(loom)]
#[cfg(test)]
mod models;
#[cfg(not(loom))]
#[cfg(test)]
pub(crate) mod tests;
#[cfg(loom)]
#[cfg(test)]
mod vector_models;
