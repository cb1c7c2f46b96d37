//! What a serializable transaction has read, and whether it still holds (X4).
//!
//! Two checks (storage.md 6.1): before sequencing up to the newest commit `v` of the ring, through
//! the recent-writes index; after sequencing for the commits between `v` and the own timestamp,
//! through the ring alone. One check before the timestamp is fixed would admit a read-only anomaly.
//! Of a scan counts what it had reached when the commit began, gaps included (`reach`).

use std::sync::Arc;

use terrane_wal::lsn::{TreeId, Ts};

use crate::txn::owner::Owner;
use crate::txn::range::Range;
use crate::txn::reach::Reach;
use crate::txn::recent::{Asked, Recent};
use crate::txn::ring::{Ring, RowKey};

/// The reads of one transaction.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    keys: Vec<RowKey>,
    /// Scans that may still go on.
    scans: Vec<Arc<Reach>>,
    /// What the others have seen.
    ranges: Vec<Range>,
}

impl Reads {
    /// Notes a key that was asked for.
    pub(crate) fn key(&mut self, tree: TreeId, key: &[u8]) {
        // A loop over one row need not be remembered row by row.
        let repeated = self
            .keys
            .last()
            .is_some_and(|(t, k)| *t == tree && **k == *key);
        if !repeated {
            self.keys.push((tree, key.into()));
        }
    }

    /// Notes a scan, which counts as far as it has come when the scans are over.
    pub(crate) fn scan(&mut self, reach: Arc<Reach>) {
        self.scans.push(reach);
    }

    /// Counts what the scans have seen, which must be over (H2).
    pub(crate) fn take_scans(&mut self) {
        for scan in self.scans.drain(..) {
            scan.take(&mut self.ranges);
        }
    }

    /// True if nothing was read. Asked, as all that follows, when the scans are counted.
    pub(crate) fn is_empty(&self) -> bool {
        debug_assert!(self.scans.is_empty(), "H2: a scan may go on");
        self.keys.is_empty() && self.ranges.is_empty()
    }

    /// Forgets the keys that are also written, once their intents are placed: placing has refused a
    /// version newer than the snapshot, and until the intents go nobody else writes these rows. So
    /// a read-modify-write has nothing left to validate.
    pub(crate) fn forget_written(&mut self, is_written: impl Fn(TreeId, &[u8]) -> bool) {
        self.keys.retain(|(tree, key)| !is_written(*tree, key));
    }

    /// Checks against the commits in (`read_ts`, `upto`] and every intent stamped at or below
    /// `upto`. An error names the key that changed, if it was read by key.
    pub(crate) fn check_before(
        &self,
        recent: &Recent,
        read_ts: Ts,
        upto: Ts,
        owner: &Arc<Owner>,
    ) -> Result<(), Option<RowKey>> {
        let asked = Asked {
            after: read_ts,
            upto,
            owner,
        };
        for (tree, key) in &self.keys {
            if recent.changed(&asked, *tree, key) {
                return Err(Some((*tree, key.clone())));
            }
        }
        for range in &self.ranges {
            let (lower, upper) = range.bounds();
            if recent.range_changed(&asked, range.tree, lower, upper) {
                return Err(None);
            }
        }
        Ok(())
    }

    /// True if a commit in (`after`, `before`) wrote what was read, or if that cannot be told any
    /// more.
    pub(crate) fn changed_between(&self, ring: &Ring, after: Ts, before: Ts) -> bool {
        if self.is_empty() {
            return false;
        }
        let Some(records) = ring.between(after, before) else {
            return true;
        };
        records.iter().any(|record| {
            let key = |(tree, key): &RowKey| record.contains(*tree, key);
            let range = |range: &Range| {
                let (lower, upper) = range.bounds();
                record.touches(range.tree, lower, upper)
            };
            self.keys.iter().any(key) || self.ranges.iter().any(range)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_written_is_left_to_validate() {
        let mut reads = Reads::default();
        for key in [b"a", b"b"] {
            reads.key(TreeId(300), key);
        }
        reads.forget_written(|tree, key| tree == TreeId(300) && key == b"a");
        assert_eq!(reads.keys, [(TreeId(300), b"b".as_slice().into())]);
        reads.forget_written(|tree, _| tree == TreeId(300));
        assert!(reads.is_empty());
    }
}
