//! How far a scan of a serializable transaction has come: what of its range counts as read.
//!
//! A scan that is stopped early has seen its range from the end at which it began up to the last
//! row that it gave out, the gaps between its rows included, and nothing behind that row. This much
//! is validated at commit, not the range that was asked for: a transaction that takes the first
//! hundred rows of an open range has no quarrel with who writes the hundred and first.
//!
//! ```text
//! asked for            [lower ............................... upper]
//! from the front       [lower .. a .. c]                                gave out a, c
//! and from the back                          [x ... z ...... upper]     gave out z, x
//! ran to its end       [lower ............................... upper]
//! never asked          nothing
//! ```
//!
//! The scan (both of its ends) and its transaction share one reach. What layers above looked at and
//! passed over (filters, entries of indexes) was given out by the scan below them, so it counts.
//!
//! While a scan is held its reach is ahead of it, by at most a quarter of the rows that it gave
//! out: to count more than was seen is safe, and to set the reach for every row would cost a scan a
//! fifth of its speed.
//!
//! Invariants:
//! - H1: a row is given out when the reach holds it, the end of the scan or an error when the reach
//!   holds all of the range.
//! - H2: a commit ends its scans and takes their reach after that; a scan sets its reach and looks
//!   for the end after that. So what the commit does not count is not given out.
//! - H3: a scan that is dropped leaves its reach at the last row that it gave out.

use std::ops::Bound;
use std::sync::Arc;

use terrane_wal::sync::Mutex;

use crate::txn::range::Range;

/// What of the range of one scan its transaction has read.
#[derive(Debug)]
pub(crate) struct Reach {
    /// None when it was taken.
    open: Mutex<Option<Seen>>,
}

#[derive(Debug)]
struct Seen {
    asked: Arc<Range>,
    /// How far it has come from the front, and from the back.
    front: Option<Vec<u8>>,
    back: Option<Vec<u8>>,
    /// The scan came to its end, or failed.
    whole: bool,
}

impl Reach {
    /// Of a scan that has given out nothing.
    pub(crate) fn new(asked: Arc<Range>) -> Reach {
        Reach {
            open: Mutex::new(Some(Seen {
                asked,
                front: None,
                back: None,
                whole: false,
            })),
        }
    }

    /// Rows are about to be given out up to the one at `key`, from the back or from the front; or
    /// no row behind it was.
    pub(crate) fn set(&self, from_back: bool, key: &[u8]) {
        let mut open = self.open.lock();
        let Some(seen) = open.as_mut() else { return };
        let edge = if from_back {
            &mut seen.back
        } else {
            &mut seen.front
        };
        let edge = edge.get_or_insert_with(Vec::new);
        edge.clear();
        edge.extend_from_slice(key);
    }

    /// The end of the scan, or its error, is about to be told.
    pub(crate) fn finish(&self) {
        if let Some(seen) = self.open.lock().as_mut() {
            seen.whole = true;
        }
    }

    /// Moves what was seen to `ranges`, none of which is void.
    pub(crate) fn take(&self, ranges: &mut Vec<Range>) {
        let Some(seen) = self.open.lock().take() else {
            return;
        };
        let asked = Arc::unwrap_or_clone(seen.asked);
        if seen.whole {
            ranges.extend((!asked.is_void()).then_some(asked));
            return;
        }
        let Range { tree, lower, upper } = asked;
        let front = seen.front.map(|last| (lower, Bound::Included(last)));
        let back = seen.back.map(|last| (Bound::Included(last), upper));
        let ends = front.into_iter().chain(back);
        ranges.extend(ends.map(|(lower, upper)| Range { tree, lower, upper }));
    }
}

#[cfg(test)]
mod tests {
    use terrane_wal::lsn::TreeId;

    use super::*;

    fn range(lower: Bound<&str>, upper: Bound<&str>) -> Range {
        let owned = |bound: Bound<&str>| bound.map(|key| key.as_bytes().to_vec());
        Range {
            tree: TreeId(300),
            lower: owned(lower),
            upper: owned(upper),
        }
    }

    /// What is left to validate of a scan of b..m.
    fn seen(scan: impl Fn(&Reach)) -> Vec<Range> {
        let asked = range(Bound::Included("b"), Bound::Excluded("m"));
        let (reach, mut ranges) = (Reach::new(Arc::new(asked)), Vec::new());
        scan(&reach);
        reach.take(&mut ranges);
        ranges
    }

    #[test]
    fn what_was_given_out_counts_with_its_gaps_and_nothing_behind_it() {
        let front = |last| range(Bound::Included("b"), Bound::Included(last));
        let back = |last| range(Bound::Included(last), Bound::Excluded("m"));
        assert_eq!(seen(|_| {}), [], "never asked");
        let rows = |from_back: bool, keys: &'static [&str]| {
            move |reach: &Reach| {
                for key in keys {
                    reach.set(from_back, key.as_bytes());
                }
            }
        };
        assert_eq!(seen(rows(false, &["c", "f"])), [front("f")]);
        assert_eq!(seen(rows(true, &["k", "h"])), [back("h")]);
        let both = |reach: &Reach| {
            rows(false, &["c", "d"])(reach);
            rows(true, &["l"])(reach);
        };
        assert_eq!(seen(both), [front("d"), back("l")]);
    }

    #[test]
    fn an_end_or_an_error_counts_all_of_the_range() {
        let whole = range(Bound::Included("b"), Bound::Excluded("m"));
        let ended = |reach: &Reach| {
            reach.set(false, b"c");
            reach.finish();
        };
        assert_eq!(seen(ended), [whole]);
        // No key lies there, and a map would refuse to be asked.
        let void = range(Bound::Excluded("b"), Bound::Excluded("b"));
        let (reach, mut ranges) = (Reach::new(Arc::new(void)), Vec::new());
        reach.finish();
        reach.take(&mut ranges);
        assert_eq!(ranges, []);
    }
}
