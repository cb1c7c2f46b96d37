//! The ring of recent write sets: which keys each commit writes, in the order of the log.
//!
//! Filled inside the sequencer's section. Validation after sequencing asks it for the commits that
//! came between; the collector takes from its old end what the horizon has passed. Invariant G1: a
//! record is pushed after its owner's stamp was set, so whoever reads a timestamp here finds the
//! stamp in the index.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use terrane_wal::lsn::{TreeId, Ts};
use terrane_wal::sync::Mutex;

/// A key of a tree.
pub(crate) type RowKey = (TreeId, Arc<[u8]>);

/// The keys of one commit.
#[derive(Debug)]
pub(crate) struct WriteKeys {
    /// When.
    pub(crate) ts: Ts,
    /// In ascending order.
    pub(crate) keys: Arc<[RowKey]>,
}

impl WriteKeys {
    /// True if the commit writes this key.
    pub(crate) fn contains(&self, tree: TreeId, key: &[u8]) -> bool {
        let probe = |row: &RowKey| (row.0, &*row.1).cmp(&(tree, key));
        self.keys.binary_search_by(probe).is_ok()
    }

    /// True if the commit writes a key between the bounds.
    pub(crate) fn touches(&self, tree: TreeId, lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> bool {
        let below = |row: &RowKey| match lower {
            Bound::Unbounded => row.0 < tree,
            Bound::Included(lower) => (row.0, &*row.1) < (tree, lower),
            Bound::Excluded(lower) => (row.0, &*row.1) <= (tree, lower),
        };
        let first = self.keys.get(self.keys.partition_point(below));
        first.is_some_and(|(at, key)| {
            *at == tree
                && match upper {
                    Bound::Unbounded => true,
                    Bound::Included(upper) => &**key <= upper,
                    Bound::Excluded(upper) => &**key < upper,
                }
        })
    }
}

#[derive(Debug)]
struct Queue {
    records: VecDeque<Arc<WriteKeys>>,
    newest: Ts,
    /// Timestamp of the newest record that was taken out.
    taken: Ts,
    keys: usize,
}

/// The commits above a snapshot.
#[derive(Debug)]
pub(crate) struct Since {
    /// The newest of all: every stamp up to it is set (G1).
    pub(crate) newest: Ts,
    /// Those above the snapshot, newest first; None if they are too many, or the ring no longer
    /// reaches back to it: then the index has to be asked.
    pub(crate) commits: Option<Vec<Arc<WriteKeys>>>,
}

/// The ring.
#[derive(Debug)]
pub(crate) struct Ring {
    queue: Mutex<Queue>,
}

impl Ring {
    /// An empty ring after a commit at `ts`.
    pub(crate) fn new(ts: Ts) -> Ring {
        let queue = Queue {
            records: VecDeque::new(),
            newest: ts,
            taken: ts,
            keys: 0,
        };
        Ring {
            queue: Mutex::new(queue),
        }
    }

    /// The commits above `after`, if they are at most `most`.
    pub(crate) fn since(&self, after: Ts, most: usize) -> Since {
        let queue = self.queue.lock();
        // From the new end: the ring is long, and what is asked for is short.
        let above = queue.records.iter().rev();
        let above = above.take_while(|record| record.ts > after);
        let few = queue.taken <= after && above.clone().nth(most).is_none();
        Since {
            newest: queue.newest,
            commits: few.then(|| above.cloned().collect()),
        }
    }

    /// Keys held.
    pub(crate) fn keys(&self) -> usize {
        self.queue.lock().keys
    }

    /// Appends a commit, inside the sequencer's section.
    pub(crate) fn push(&self, ts: Ts, keys: &Arc<[RowKey]>) {
        let record = Arc::new(WriteKeys {
            ts,
            keys: keys.clone(),
        });
        let mut queue = self.queue.lock();
        assert!(ts > queue.newest, "G1: {ts} after {}", queue.newest);
        queue.newest = ts;
        queue.keys += keys.len();
        queue.records.push_back(record);
    }

    /// The commits in (`after`, `before`), newest first; None if the ring no longer reaches back to
    /// `after`.
    pub(crate) fn between(&self, after: Ts, before: Ts) -> Option<Vec<Arc<WriteKeys>>> {
        let queue = self.queue.lock();
        if queue.taken > after {
            return None;
        }
        let below = queue.records.iter().rev();
        let below = below.skip_while(|record| record.ts >= before);
        let inside = below.take_while(|record| record.ts > after);
        Some(inside.cloned().collect())
    }

    /// Takes out the oldest commit if it lies at or below `horizon`.
    pub(crate) fn take(&self, horizon: Ts) -> Option<Arc<WriteKeys>> {
        let mut queue = self.queue.lock();
        if queue.records.front()?.ts > horizon {
            return None;
        }
        let record = queue.records.pop_front()?;
        queue.taken = record.ts;
        queue.keys -= record.keys.len();
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_two_commits_is_found_by_key_and_by_range() {
        let ring = Ring::new(Ts(10));
        let tree = TreeId(300);
        for (ts, key) in [(11, "a"), (12, "c"), (13, "e")] {
            ring.push(Ts(ts), &Arc::from(vec![(tree, Arc::from(key.as_bytes()))]));
        }
        let between = ring.between(Ts(11), Ts(13)).unwrap();
        assert_eq!(
            between.iter().map(|record| record.ts).collect::<Vec<_>>(),
            [Ts(12)]
        );
        let record = &between[0];
        let above = |after, most| {
            let since = ring.since(Ts(after), most);
            assert_eq!(since.newest, Ts(13));
            let commits = since.commits?;
            Some(commits.iter().map(|record| record.ts).collect::<Vec<_>>())
        };
        assert_eq!(above(11, 2), Some(vec![Ts(13), Ts(12)]));
        assert_eq!(above(11, 1), None, "too many");
        assert_eq!(above(13, 0), Some(vec![]));
        assert_eq!(above(10, 3).map(|all| all.len()), Some(3));
        assert!(record.contains(tree, b"c") && !record.contains(TreeId(299), b"c"));
        let (b, c, d) = (b"b".as_slice(), b"c".as_slice(), b"d".as_slice());
        assert!(record.touches(tree, Bound::Included(b), Bound::Excluded(d)));
        assert!(record.touches(tree, Bound::Unbounded, Bound::Unbounded));
        assert!(record.touches(tree, Bound::Included(c), Bound::Included(c)));
        assert!(!record.touches(tree, Bound::Excluded(c), Bound::Unbounded));
        assert!(!record.touches(tree, Bound::Unbounded, Bound::Excluded(c)));
        assert!(!record.touches(TreeId(301), Bound::Unbounded, Bound::Unbounded));
        assert!(ring.take(Ts(10)).is_none());
        assert_eq!(ring.take(Ts(12)).unwrap().ts, Ts(11));
        assert!(
            ring.between(Ts(10), Ts(13)).is_none(),
            "the ring has turned over"
        );
        assert!(ring.since(Ts(10), 9).commits.is_none());
        assert!(ring.since(Ts(11), 9).commits.is_some());
        assert_eq!(ring.between(Ts(11), Ts(14)).unwrap().len(), 2);
    }
}
