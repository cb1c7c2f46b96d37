//! What a transaction has read: tentative until it commits, and not to be read after its end.
//!
//! Shared by a transaction and its scans. A scan owns what it reads and may outlive its
//! transaction, but what it would give out then may have been rolled back.

use terrane_wal::lsn::Ts;
use terrane_wal::sync::{AtomicU64, Ordering};

use crate::error::{Error, ErrorKind, Result};

/// Set when the transaction is over; above every timestamp that a log gives out.
const ENDED: u64 = 1 << 63;

/// Begin of the newest version that was read, and whether the transaction is over.
///
/// One word, so that of a scan that notes a version and looks for the end, and a commit that sets
/// the end and asks for the newest version, at least one sees the other.
#[derive(Debug, Default)]
pub(crate) struct Tentative(AtomicU64);

impl Tentative {
    /// A version that began at `begin` was read.
    pub(crate) fn note(&self, begin: Ts) {
        self.0.fetch_max(begin.0, Ordering::Relaxed);
    }

    /// Begin of the newest version that was read.
    pub(crate) fn newest(&self) -> Ts {
        Ts(self.0.load(Ordering::Relaxed) & !ENDED)
    }

    /// The transaction commits or is rolled back: its scans give out nothing more.
    pub(crate) fn end(&self) {
        self.0.fetch_or(ENDED, Ordering::Relaxed);
    }

    /// Refuses a scan whose transaction is over.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) & ENDED == 0 {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Closed,
            "the transaction of this scan is over; a snapshot's scan outlives it",
        ))
    }
}
