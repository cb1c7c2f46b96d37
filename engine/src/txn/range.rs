//! A range of rows: what a scan is asked for, and what of it counts as read.

use std::ops::Bound;

use terrane_wal::lsn::TreeId;

use crate::error::{Error, ErrorKind, Result};

/// A range of one tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) tree: TreeId,
    pub(crate) lower: Bound<Vec<u8>>,
    pub(crate) upper: Bound<Vec<u8>>,
}

impl Range {
    /// The bounds, borrowed.
    pub(crate) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (borrow(&self.lower), borrow(&self.upper))
    }

    /// Refuses a range that runs backwards.
    pub(crate) fn check(&self) -> Result<()> {
        let (lower, upper) = self.bounds();
        let (Some(low), Some(high)) = (edge(lower), edge(upper)) else {
            return Ok(());
        };
        if low > high {
            let error = Error::new(ErrorKind::Invalid, "a range starts above its end");
            return Err(error.with("tree", self.tree.0));
        }
        Ok(())
    }

    /// Whether a key lies in the range.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        use std::ops::RangeBounds;
        self.bounds().contains(key)
    }

    /// True if no key can lie in the range.
    pub(crate) fn is_void(&self) -> bool {
        let (lower, upper) = self.bounds();
        crossed(lower, upper)
    }
}

fn borrow(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Unbounded => Bound::Unbounded,
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
    }
}

fn edge(bound: Bound<&[u8]>) -> Option<&[u8]> {
    match bound {
        Bound::Unbounded => None,
        Bound::Included(key) | Bound::Excluded(key) => Some(key),
    }
}

/// True if no key lies between the bounds, in the cases where a map's `range` would panic.
pub(crate) fn crossed(lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> bool {
    match (lower, upper) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Excluded(lower), Bound::Excluded(upper)) => lower >= upper,
        (Bound::Included(lower) | Bound::Excluded(lower), Bound::Included(upper))
        | (Bound::Included(lower), Bound::Excluded(upper)) => lower > upper,
    }
}
