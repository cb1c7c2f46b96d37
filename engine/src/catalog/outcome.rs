//! What is remembered of a commit that carried an idempotency key: a row of tree 4.

use std::time::Duration;

use terrane_wal::lsn::{Lsn, Ts};

use crate::error::{Error, ErrorKind, Result};
use crate::limits::IDEMPOTENCY_MS;

const VERSION: u8 = 1;

/// A remembered commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remembered {
    /// Its timestamp.
    pub(crate) ts: Ts,
    /// Where its entry begins.
    pub(crate) begin: Lsn,
}

impl Remembered {
    /// The row's value.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut row = vec![VERSION, 0, 0, 0, 0, 0, 0, 0];
        row.extend(self.ts.0.to_le_bytes());
        row.extend(self.begin.0.to_le_bytes());
        row
    }

    /// Reads the row's value.
    pub(crate) fn decode(row: &[u8]) -> Result<Remembered> {
        let number = |at: usize| -> Option<u64> {
            Some(u64::from_le_bytes(row.get(at..at + 8)?.try_into().ok()?))
        };
        match (row.first(), row.len(), number(8), number(16)) {
            (Some(&VERSION), 24, Some(ts), Some(begin)) => Ok(Remembered {
                ts: Ts(ts),
                begin: Lsn(begin),
            }),
            (Some(version), 24, ..) => {
                let error = Error::new(ErrorKind::Version, "an outcome row of another version");
                Err(error.with("found", version))
            }
            _ => {
                let error = Error::new(ErrorKind::Corrupt, "an outcome row has another length");
                Err(error.with("expected", 24).with("found", row.len()))
            }
        }
    }

    /// True if the time for which it counts has passed.
    pub(crate) fn is_over(&self, now_wall: Duration) -> bool {
        let now_ms = u64::try_from(now_wall.as_millis()).unwrap_or(u64::MAX);
        now_ms.saturating_sub(self.ts.ms()) > IDEMPOTENCY_MS
    }
}
