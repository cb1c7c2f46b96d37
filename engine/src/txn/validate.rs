//! What a serializable transaction has read, and whether it still holds (X4).
//!
//! Two checks (storage.md 6.1): before sequencing up to the newest commit `v` of the ring; after
//! sequencing for the commits between `v` and the own timestamp. One check before the timestamp is
//! fixed would admit a read-only anomaly. Both ask the ring of recent write sets, the first one
//! only if few commits came since the snapshot: else it asks the recent-writes index, whose cost is
//! that of the reads and not of the commits.
//! Of a scan counts what it had reached when the commit began, gaps included (`reach`).

use std::sync::Arc;

use terrane_wal::lsn::{TreeId, Ts};

use crate::txn::owner::Owner;
use crate::txn::range::Range;
use crate::txn::reach::Reach;
use crate::txn::recent::{Asked, Recent};
use crate::txn::ring::{Ring, RowKey, Since, WriteKeys};

/// The reads of one transaction.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    keys: Keys,
    /// Scans that may still go on.
    scans: Vec<Arc<Reach>>,
    /// What the others have seen.
    ranges: Vec<Range>,
}

impl Reads {
    /// Notes a key that was asked for.
    pub(crate) fn key(&mut self, tree: TreeId, key: &[u8]) {
        // A loop over one row need not be remembered row by row.
        if self.keys.iter().next_back() != Some((tree, key)) {
            self.keys.push(tree, key);
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
        self.keys.places.is_empty() && self.ranges.is_empty()
    }

    /// Forgets the keys that are also written, once their intents are placed: placing has refused a
    /// version newer than the snapshot, and until the intents go nobody else writes these rows. So
    /// a read-modify-write has nothing left to validate.
    pub(crate) fn forget_written(&mut self, is_written: impl Fn(TreeId, &[u8]) -> bool) {
        self.keys.retain(|tree, key| !is_written(tree, key));
    }

    /// Checks against the commits above `read_ts` that `since` knows of, and against every intent
    /// stamped at or below the newest of them. An error names the key that changed, if it was read
    /// by key.
    pub(crate) fn check_before(
        &self,
        recent: &Recent,
        since: &Since,
        read_ts: Ts,
        owner: &Arc<Owner>,
    ) -> Result<(), Option<RowKey>> {
        if let Some(commits) = &since.commits {
            return self.check_against(commits);
        }
        let asked = Asked {
            after: read_ts,
            upto: since.newest,
            owner,
        };
        let mut keys = self.keys.iter();
        if let Some((tree, key)) = keys.find(|(tree, key)| recent.changed(&asked, *tree, key)) {
            return Err(Some((tree, key.into())));
        }
        for range in &self.ranges {
            let (lower, upper) = range.bounds();
            if recent.range_changed(&asked, range.tree, lower, upper) {
                return Err(None);
            }
        }
        Ok(())
    }

    /// Whether nobody but `owner` is about to write what was read; an error as that of
    /// [`Reads::check_before`].
    pub(crate) fn check_free(
        &self,
        recent: &Recent,
        owner: &Arc<Owner>,
    ) -> Result<(), Option<RowKey>> {
        if terrane_wal::planted!("who_is_about_to_write_is_not_seen") {
            return Ok(());
        }
        let mut keys = self.keys.iter();
        if let Some((tree, key)) = keys.find(|(tree, key)| recent.is_claimed(*tree, key, owner)) {
            return Err(Some((tree, key.into())));
        }
        let mut ranges = self.ranges.iter();
        match ranges.any(|range| recent.is_range_claimed(range.tree, range.bounds(), owner)) {
            true => Err(None),
            false => Ok(()),
        }
    }

    /// The keys and the ranges that count.
    pub(crate) fn all(&self) -> (Vec<RowKey>, Vec<Range>) {
        let keys = self.keys.iter().map(|(tree, key)| (tree, key.into()));
        (keys.collect(), self.ranges.clone())
    }

    /// True if a commit in (`after`, `before`) wrote what was read, or if that cannot be told any
    /// more.
    pub(crate) fn changed_between(&self, ring: &Ring, after: Ts, before: Ts) -> bool {
        if self.is_empty() {
            return false;
        }
        let commits = ring.between(after, before);
        commits.is_none_or(|commits| self.check_against(&commits).is_err())
    }

    fn check_against(&self, commits: &[Arc<WriteKeys>]) -> Result<(), Option<RowKey>> {
        for commit in commits {
            let mut keys = self.keys.iter();
            if let Some((tree, key)) = keys.find(|(tree, key)| commit.contains(*tree, key)) {
                return Err(Some((tree, key.into())));
            }
            let touched = |range: &Range| {
                let (lower, upper) = range.bounds();
                commit.touches(range.tree, lower, upper)
            };
            if self.ranges.iter().any(touched) {
                return Err(None);
            }
        }
        Ok(())
    }
}

/// Keys of trees, their bytes one behind the other: a read costs no allocation.
#[derive(Debug, Default)]
struct Keys {
    bytes: Vec<u8>,
    places: Vec<(TreeId, usize, usize)>,
}

impl Keys {
    fn push(&mut self, tree: TreeId, key: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        self.places.push((tree, start, self.bytes.len()));
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = (TreeId, &[u8])> {
        let places = self.places.iter();
        places.map(|&(tree, from, to)| (tree, &self.bytes[from..to]))
    }

    fn retain(&mut self, keep: impl Fn(TreeId, &[u8]) -> bool) {
        let Keys { bytes, places } = self;
        places.retain(|&(tree, from, to)| keep(tree, &bytes[from..to]));
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
        let left: Vec<_> = reads.keys.iter().collect();
        assert_eq!(left, [(TreeId(300), b"b".as_slice())]);
        reads.forget_written(|tree, _| tree == TreeId(300));
        assert!(reads.is_empty());
    }
}
