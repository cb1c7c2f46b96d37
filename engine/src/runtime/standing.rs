//! What a member of a shard is at this moment: whether its trees are written by commits here, or
//! follow another member's log.
//!
//! ```text
//! Follows -> Leads(term) -> Deposed: its trees are made again, by another core
//! ```
//!
//! Invariant I15: what a deposed member's trees hold beyond what is committed is shown to nobody.

use std::fmt;
use std::time::Duration;

use terrane_wal::lsn::{Lsn, Term};
use terrane_wal::sync::{AtomicU64, Ordering};

use crate::error::{Error, ErrorKind, Result};

/// Who carries a member's log to the others.
pub(crate) trait Ship: Send + Sync + fmt::Debug {
    /// The log has another entry, or is on disk farther than before. Does not wait.
    fn ship(&self);
}

/// Follows another, in [`Standing::state`].
const FOLLOWS: u64 = 0;
/// Led, and leads no more.
const DEPOSED: u64 = u64::MAX;

/// A member's standing.
#[derive(Debug)]
pub(crate) struct Standing {
    /// The term that it leads, or one of the two above.
    state: AtomicU64,
    ship: Box<dyn Ship>,
    within: Duration,
    /// The log is kept from here on.
    keep: AtomicU64,
}

impl Standing {
    /// Of a member that follows, and once it leads waits so long for others to have a commit.
    pub(crate) fn new(ship: Box<dyn Ship>, within: Duration) -> Standing {
        Standing {
            state: AtomicU64::new(FOLLOWS),
            ship,
            within,
            keep: AtomicU64::new(0),
        }
    }

    /// The log is kept from here on, for others to catch up by.
    pub(crate) fn keep_from(&self, keep: Lsn) {
        self.keep.store(keep.0, Ordering::Release);
    }

    /// Up to where the log may be trimmed.
    pub(crate) fn kept_from(&self) -> Lsn {
        Lsn(self.keep.load(Ordering::Acquire))
    }

    /// How long a commit waits for the others.
    pub(crate) fn within(&self) -> Duration {
        self.within
    }

    /// See [`Ship::ship`].
    pub(crate) fn ship(&self) {
        self.ship.ship();
    }

    /// The term that it leads.
    pub(crate) fn leads(&self) -> Option<Term> {
        match self.state.load(Ordering::Acquire) {
            FOLLOWS | DEPOSED => None,
            term => Some(Term(term)),
        }
    }

    /// Commits are taken from now on.
    pub(crate) fn lead(&self, term: Term) {
        self.state.store(term.0, Ordering::Release);
    }

    /// As if it had never led: only for a mistake that is planted.
    pub(crate) fn follow(&self) {
        self.state.store(FOLLOWS, Ordering::Release);
    }

    /// Whether it has led and leads no more.
    pub(crate) fn is_deposed(&self) -> bool {
        self.state.load(Ordering::Acquire) == DEPOSED
    }

    /// Neither commits nor reads are taken from now on.
    pub(crate) fn depose(&self) {
        self.state.store(DEPOSED, Ordering::Release);
    }

    /// Refuses writes where another member leads.
    pub(crate) fn check_leads(&self) -> Result<()> {
        match self.leads() {
            Some(_) => Ok(()),
            None => Err(Error::new(
                ErrorKind::NotLeader,
                "another member leads the shard",
            )),
        }
    }

    /// Refuses reads of trees that are being made again.
    pub(crate) fn check_shown(&self) -> Result<()> {
        match self.is_deposed() {
            false => Ok(()),
            true => Err(Error::new(
                ErrorKind::Unavailable,
                "the member led the shard and leads no more; read again",
            )),
        }
    }
}
