//! How a handle of a cluster finds the trees that serve it, and what holds on to them.
//!
//! ```text
//! Database -> Routes::leader -> Local    anew for each transaction and attempt of a write
//! Leg, View -> Anchor                    the same Local from begin to end, whoever leads meanwhile
//! ```
//!
//! A member that leads no more refuses: its transactions and snapshots end with an error, and what
//! is tried again is tried at the next leader (`txn/retry.rs`).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use terrane_shard::ShardMap;
use terrane_wal::lsn::Ts;

use crate::database::{CrossShard, Database, Place};
use crate::error::{Error, ErrorKind, Result};
use crate::local::Local;
use crate::txn::moments::Moments;
use crate::txn::snapshot::View;

/// Where the shards of a cluster are served, by their numbers: 0, 1, ... in the order of the map.
pub(crate) trait Routes: Send + Sync + fmt::Debug {
    /// Which shards there are.
    fn map(&self) -> &Arc<ShardMap>;

    /// What is read in all of them, where there are several.
    fn moments(&self) -> Option<&Arc<Moments>>;

    /// The trees of the member that leads a shard, for a transaction: waits for one as long as the
    /// window allows.
    ///
    /// # Errors
    /// `Unavailable` if none came; `Invalid` if there is no such shard.
    fn leader(&self, shard: u32) -> Result<Local>;

    /// What a snapshot reads in a shard, at its visible position or at a moment of all shards: of a
    /// leader that is known to have led when that was taken, so that it is not stale.
    ///
    /// # Errors
    /// As [`Routes::leader`]; `SnapshotTooOld` if the shard no longer has the moment.
    fn view(&self, db: &Database, shard: u32, moment: Option<Ts>) -> Result<View>;

    /// What becomes of a transaction that several shards take part in.
    fn cross_shard(&self) -> CrossShard;

    /// How long failed leaders are made up for by trying again: the buffer window.
    fn window(&self) -> Duration;

    /// Ends the handle.
    ///
    /// # Errors
    /// What the end of the members that are served here gives.
    fn close(&self) -> Result<()>;
}

/// What a transaction or a snapshot works in for its whole life, and the handle that it came from.
#[derive(Debug)]
pub(crate) struct Anchor {
    db: Database,
    /// In a cluster: the leader's trees, or why there are none. None: the handle has its own, so
    /// that nothing is held twice where there is nothing to choose.
    led: Option<Result<Local>>,
}

impl Anchor {
    /// At whoever leads the only shard now.
    pub(crate) fn of(db: &Database) -> Anchor {
        Anchor {
            led: match db.place() {
                Place::Alone(_) => None,
                Place::Cluster(routes) => Some(routes.leader(0)),
            },
            db: db.clone(),
        }
    }

    /// At this member of a cluster, or at none.
    pub(crate) fn at(db: &Database, led: Result<Local>) -> Anchor {
        Anchor {
            db: db.clone(),
            led: Some(led),
        }
    }

    /// The trees.
    ///
    /// # Errors
    /// The one that there was when a leader was asked for.
    #[inline]
    pub(crate) fn local(&self) -> Result<&Local> {
        match (&self.led, self.db.lone()) {
            (Some(Ok(local)), _) | (None, Some(local)) => Ok(local),
            (Some(Err(error)), _) => Err(error.again()),
            (None, None) => Err(Error::new(
                ErrorKind::Unavailable,
                "no member was asked for",
            )),
        }
    }

    /// The handle.
    pub(crate) fn database(&self) -> &Database {
        &self.db
    }
}

/// Work inside of one core, whoever leads.
impl From<&Local> for Anchor {
    fn from(local: &Local) -> Anchor {
        Anchor {
            db: Database::alone(local.clone()),
            led: None,
        }
    }
}

#[cfg(test)]
mod tests;
