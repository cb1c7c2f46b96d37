//! A write transaction as callers have it: its part in each shard, of which there is mostly one.

use std::fmt;

use crate::database::{Commit, Database};
use crate::error::{Error, ErrorKind, Result};
use crate::routes::Anchor;
use crate::txn::commit::Ticket;
use crate::txn::leg::{Begin, Conflicted, Leg};
use crate::txn::raw::Legged;
use crate::txn::ring::RowKey;
use crate::txn::spread::Spread;

/// A write transaction. Nothing of it is visible to others until [`Transaction::commit`];
/// dropping it aborts it, without waiting.
///
/// Its end consumes it, so a second commit does not compile, and a snapshot takes no writes:
///
/// ```compile_fail,E0382
/// # fn f(tx: terrane::Transaction) -> terrane::Result<()> {
/// tx.commit()?;
/// tx.commit()?; // used after it was moved
/// # Ok(())
/// # }
/// ```
///
/// ```compile_fail,E0308
/// # fn f(db: terrane::Database, table: terrane::Table<u64, u64>) -> terrane::Result<()> {
/// let mut snapshot = db.snapshot();
/// table.put(&mut snapshot, 1, &1)?; // wants a transaction
/// # Ok(())
/// # }
/// ```
pub struct Transaction {
    parts: Parts,
}

#[expect(
    clippy::large_enum_variant,
    reason = "a transaction of one shard costs no allocation"
)]
enum Parts {
    /// The database has one shard.
    One(Leg),
    Spread(Box<Spread>),
}

/// A place inside a transaction to which [`Transaction::rollback_to`] goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Savepoint(usize);

impl Transaction {
    /// An attempt in the only shard.
    pub(crate) fn begin(anchor: Anchor, begin: Begin) -> Transaction {
        let parts = Parts::One(Leg::begin(anchor, begin));
        Transaction { parts }
    }

    /// One in all shards.
    pub(crate) fn spread(spread: Spread) -> Transaction {
        let parts = Parts::Spread(Box::new(spread));
        Transaction { parts }
    }

    /// Makes everything written visible and durable (at the level of the database or of the
    /// [`crate::Writer`]), or nothing of it. Without writes it waits until what was
    /// read is durable.
    ///
    /// # Errors
    /// `Conflict`, `Schema` (a table changed under the transaction), `TooLarge`, `Full`,
    /// `TimedOut`, `Closed`, `CrossShard`: aborted. `Unknown`: sequenced, but the log failed before
    /// its level.
    pub fn commit(mut self) -> Result<Commit> {
        self.commit_ticket()?.wait()
    }

    /// The commit up to where others can build on it; its ticket waits for the level.
    pub(crate) fn commit_ticket(&mut self) -> Result<Ticket> {
        match &mut self.parts {
            Parts::One(leg) => leg.commit_ticket(),
            Parts::Spread(spread) => spread.commit_ticket(),
        }
    }

    /// A place to go back to. Savepoints nest freely; going back to an outer one ends the inner
    /// ones.
    #[must_use]
    pub fn savepoint(&mut self) -> Savepoint {
        Savepoint(match &mut self.parts {
            Parts::One(leg) => leg.mark(),
            Parts::Spread(spread) => spread.savepoint(),
        })
    }

    /// Takes back every write made after `savepoint`. Reads and locks stay.
    pub fn rollback_to(&mut self, savepoint: Savepoint) {
        match &mut self.parts {
            Parts::One(leg) => leg.back_to(savepoint.0),
            Parts::Spread(spread) => spread.rollback_to(savepoint.0),
        }
    }

    /// The database that the transaction belongs to.
    #[must_use]
    pub fn database(&self) -> &Database {
        match &self.parts {
            Parts::One(leg) => leg.database(),
            Parts::Spread(spread) => spread.database(),
        }
    }

    /// What is done in a shard, to write there.
    ///
    /// # Errors
    /// `Unavailable` if none of its members leads.
    pub(crate) fn leg_mut(&mut self, shard: u32) -> Result<&mut Leg> {
        match &mut self.parts {
            Parts::One(leg) if shard == 0 => Ok(leg),
            Parts::One(_) => Err(no_such_shard(shard)),
            Parts::Spread(spread) => spread.leg_mut(shard),
        }
    }

    /// Locks a row of a shard before anything is read.
    ///
    /// # Errors
    /// As [`Leg::lock`].
    pub(crate) fn lock(&mut self, shard: u32, (tree, key): &RowKey) -> Result<()> {
        self.leg_mut(shard)?.lock(*tree, key)
    }

    /// The conflict that an operation has met, if any, and in which shard.
    pub(crate) fn take_conflict(&self) -> Option<(u32, Conflicted)> {
        match &self.parts {
            Parts::One(leg) => leg.take_conflict().map(|conflict| (0, conflict)),
            Parts::Spread(spread) => spread.take_conflict(),
        }
    }

    /// Whether the members that it works at lead still: otherwise nothing of it counts.
    pub(crate) fn check_leads(&self) -> Result<()> {
        match &self.parts {
            Parts::One(leg) => leg.check_leads(),
            Parts::Spread(spread) => spread.check_leads(),
        }
    }

    /// Lets what was read leave; see [`Leg::leave`].
    pub(crate) fn leave(&self) -> Result<Commit> {
        match &self.parts {
            Parts::One(leg) => leg.leave(),
            Parts::Spread(spread) => spread.leave(),
        }
    }
}

impl Legged for Transaction {
    type Leg = Leg;

    #[inline]
    fn leg(&self, shard: u32) -> Result<&Leg> {
        match &self.parts {
            Parts::One(leg) if shard == 0 => Ok(leg),
            Parts::One(_) => Err(no_such_shard(shard)),
            Parts::Spread(spread) => spread.leg(shard),
        }
    }
}

/// A table of a database of more shards was used.
pub(crate) fn no_such_shard(shard: u32) -> Error {
    Error::new(ErrorKind::Invalid, "a table is used with another database").with("shard", shard)
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.parts {
            Parts::One(leg) => f.debug_tuple("Transaction").field(leg).finish(),
            Parts::Spread(spread) => f.debug_tuple("Transaction").field(spread).finish(),
        }
    }
}
