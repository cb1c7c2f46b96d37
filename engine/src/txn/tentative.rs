//! What a transaction has read: tentative until it commits, and not to be read after its end.
//!
//! Shared by a transaction and its scans. A scan owns what it reads and may outlive its
//! transaction, but what it would give out then may have been rolled back.

use terrane_wal::lsn::Ts;
use terrane_wal::sync::{AtomicU64, Ordering};

use crate::error::{Error, ErrorKind, Result};

/// Above every timestamp that a log gives out.
const ENDED: u64 = u64::MAX;

/// Begin of the newest version that was read, or that the transaction is over.
#[derive(Debug, Default)]
pub(crate) struct Tentative(AtomicU64);

impl Tentative {
    /// A version that began at `begin` was read.
    pub(crate) fn note(&self, begin: Ts) {
        self.0.fetch_max(begin.0, Ordering::Relaxed);
    }

    /// Begin of the newest version that was read.
    pub(crate) fn newest(&self) -> Ts {
        Ts(self.0.load(Ordering::Relaxed))
    }

    /// The transaction committed or was rolled back.
    pub(crate) fn end(&self) {
        self.0.store(ENDED, Ordering::Relaxed);
    }

    /// Refuses a scan whose transaction is over.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) < ENDED {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Closed,
            "the transaction of this scan is over; a snapshot's scan outlives it",
        ))
    }
}
