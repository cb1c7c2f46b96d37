//! A scan: the rows of a range as one reader sees them, in order, as one owned iterator.
//!
//! Leaf by leaf from the tree (each leaf copied in one validated read), each row with a versioned
//! bit judged by the recent-writes index afterwards (R1), merged with the transaction's own writes.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use terrane_btree::tree::cursor::LeafRow;
use terrane_btree::{Cursor, Direction, LeafRows};
use terrane_wal::lsn::{TreeId, Ts};
use terrane_wal::sync::{AtomicU64, Ordering};

use crate::database::Database;
use crate::error::{Error, ErrorKind, Result};
use crate::txn::positions::ReadPin;
use crate::txn::recent::Seen;
use crate::txn::snapshot::{check_floor, too_old};
use crate::txn::write_set::{WriteSet, crossed};

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
    fn check(&self) -> Result<()> {
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

type Pair = (Vec<u8>, Vec<u8>);

/// Rows of a range as (key, value), in key order or its reverse. Owned and `Send`.
pub struct RawScan {
    db: Database,
    pin: Arc<ReadPin>,
    range: Range,
    cursor: Option<Cursor>,
    leaf: LeafRows,
    /// The next row of `leaf`.
    at: usize,
    /// The next row of the tree, already judged.
    stored: Option<Pair>,
    own: Option<Own>,
    /// Raised to the newest version that was seen.
    tentative: Option<Arc<AtomicU64>>,
    failed: bool,
}

/// The transaction's own writes, as they were when the scan began.
struct Own {
    writes: Arc<WriteSet>,
    /// The last own key that was handed out or passed over.
    last: Option<Arc<[u8]>>,
}

impl RawScan {
    /// A scan at the position of `pin`.
    pub(crate) fn new(
        db: &Database,
        pin: Arc<ReadPin>,
        range: Range,
        own: Option<Arc<WriteSet>>,
        tentative: Option<Arc<AtomicU64>>,
    ) -> Result<RawScan> {
        range.check()?;
        let (lower, upper) = range.bounds();
        let core = db.core();
        let tree = core.tree(range.tree)?;
        core.unapplied.check_range(range.tree, lower, upper)?;
        let direction = if range.reverse {
            Direction::Backward
        } else {
            Direction::Forward
        };
        let cursor = (!crossed(lower, upper)).then(|| tree.cursor(lower, upper, direction));
        Ok(RawScan {
            db: db.clone(),
            pin,
            cursor,
            range,
            leaf: LeafRows::default(),
            at: 0,
            stored: None,
            own: own.map(|writes| Own { writes, last: None }),
            tentative,
            failed: false,
        })
    }

    /// The same rows in the other direction, from its first on.
    pub(crate) fn reversed(&self) -> Result<RawScan> {
        let range = Range {
            reverse: !self.range.reverse,
            ..self.range.clone()
        };
        let own = self.own.as_ref().map(|own| own.writes.clone());
        let tentative = self.tentative.clone();
        RawScan::new(&self.db, self.pin.clone(), range, own, tentative)
    }

    /// The next row of the tree that the reader sees.
    fn next_stored(&mut self) -> Result<Option<Pair>> {
        loop {
            while self.at < self.leaf.len() {
                let row = self.at;
                self.at += 1;
                if let Some(pair) = self.judge(row)? {
                    return Ok(Some(pair));
                }
            }
            if !self.next_leaf()? {
                return Ok(None);
            }
        }
    }

    /// Goes on to the next leaf; false after the last one.
    fn next_leaf(&mut self) -> Result<bool> {
        check_floor(self.db.core(), self.pin.ts())?;
        let Some(cursor) = &mut self.cursor else {
            return Ok(false);
        };
        self.at = 0;
        if !cursor.next_leaf(&mut self.leaf)? {
            self.cursor = None;
        }
        Ok(true)
    }

    /// Calls `visit` with each row, in order, until the end or its first error. Where there are
    /// no own writes to merge, rows are lent out of the leaf's copy: none is allocated for.
    pub(crate) fn visit(mut self, mut visit: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
        if self.own.is_some() {
            return self.try_for_each(|row| row.and_then(|(key, value)| visit(&key, &value)));
        }
        loop {
            self.db.core().check_open()?;
            while let Some(LeafRow { key, value, flags }) = self.leaf.get(self.at) {
                if !flags.versioned && !flags.ghost {
                    visit(key, value)?;
                } else if let Some((key, value)) = self.judge(self.at)? {
                    visit(&key, &value)?;
                }
                self.at += 1;
            }
            if !self.next_leaf()? {
                return Ok(());
            }
        }
    }

    /// The value of a row of the leaf in hand, if the reader sees one.
    fn judge(&self, row: usize) -> Result<Option<Pair>> {
        let Some(LeafRow { key, value, flags }) = self.leaf.get(row) else {
            return Ok(None);
        };
        let pair = |value: &[u8]| Some((key.to_vec(), value.to_vec()));
        let leaf = || if flags.ghost { None } else { pair(value) };
        if !flags.versioned && !flags.ghost {
            return Ok(leaf());
        }
        let (core, at) = (self.db.core(), self.pin.ts());
        let (begin, seen) = match core.recent.seen(self.range.tree, key, at) {
            Seen::Leaf(begin) => {
                if flags.ghost && begin == Ts::ZERO {
                    core.recent.note_ghost(self.range.tree, key);
                }
                (begin, leaf())
            }
            Seen::Older(begin, value) => (begin, value.and_then(|value| pair(&value))),
            Seen::Gone => return Err(too_old(core, at)),
        };
        // The leaf was copied a while ago; since then the index may have forgotten the row.
        check_floor(core, at)?;
        if let Some(tentative) = &self.tentative {
            tentative.fetch_max(begin.0, Ordering::Relaxed);
        }
        Ok(seen)
    }

    /// True if `a` comes before `b` in the direction of the scan.
    fn before(&self, a: &[u8], b: &[u8]) -> bool {
        if self.range.reverse { a > b } else { a < b }
    }

    fn step(&mut self) -> Result<Option<Pair>> {
        self.db.core().check_open()?;
        loop {
            if self.stored.is_none() {
                self.stored = self.next_stored()?;
            }
            let Some(own) = &self.own else {
                return Ok(self.stored.take());
            };
            let (lower, upper) = self.range.bounds();
            let last = own.last.as_deref().map(Bound::Excluded);
            let next = if self.range.reverse {
                own.writes
                    .next(self.range.tree, lower, last.unwrap_or(upper), true)
            } else {
                own.writes
                    .next(self.range.tree, last.unwrap_or(lower), upper, false)
            };
            let Some((key, write)) = next else {
                return Ok(self.stored.take());
            };
            if let Some((stored, _)) = &self.stored {
                if self.before(stored, key) {
                    return Ok(self.stored.take());
                }
                if **stored == **key {
                    self.stored = None;
                }
            }
            let (key, value) = (key.clone(), write.value.clone());
            if let Some(own) = &mut self.own {
                own.last = Some(key.clone());
            }
            if let Some(value) = value {
                return Ok(Some((key.to_vec(), value)));
            }
        }
    }
}

impl Iterator for RawScan {
    type Item = Result<Pair>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let step = self.step();
        self.failed = step.is_err();
        step.transpose()
    }
}

impl fmt::Debug for RawScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawScan({:?} at {})", self.range, self.pin.ts())
    }
}
