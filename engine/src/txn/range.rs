//! A range of rows as it was asked for: what a scan yields, and what a validation asks again.

use std::ops::Bound;

use terrane_wal::lsn::TreeId;

use crate::error::{Error, ErrorKind, Result};

/// What a scan was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Range {
    pub(crate) tree: TreeId,
    pub(crate) lower: Bound<Vec<u8>>,
    pub(crate) upper: Bound<Vec<u8>>,
    pub(crate) reverse: bool,
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
