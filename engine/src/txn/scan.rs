//! A scan: the rows of a range as one reader sees them, in order, as one owned iterator.
//!
//! Leaf by leaf from the tree (each leaf copied in one validated read), each row with a versioned
//! bit judged by the recent-writes index afterwards (R1), merged with the transaction's own writes.
//! Rows are lent out of the leaf's copy: none is copied again before somebody wants to keep it. In
//! a serializable transaction the scan's reach goes ahead of the rows that it gives out (H1), by
//! few rows at first and by a quarter of those that were given out later, so that one row costs
//! next to nothing; when the scan is dropped it goes back to the last one.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use terrane_btree::tree::cursor::LeafRow;
use terrane_btree::{Cursor, Direction, LeafRows};
use terrane_wal::lsn::Ts;

use crate::error::Result;
use crate::local::Local;
use crate::txn::positions::ReadPin;
use crate::txn::range::Range;
use crate::txn::reach::Reach;
use crate::txn::recent::Seen;
use crate::txn::snapshot::{check_floor, too_old};
use crate::txn::tentative::Tentative;
use crate::txn::write_set::WriteSet;

type Pair = (Vec<u8>, Vec<u8>);

/// A row of the leaf in hand that the reader sees.
#[derive(Debug)]
struct Judged {
    /// Its place in the leaf.
    row: usize,
    /// The value that it had for this reader; None: the one in the leaf.
    older: Option<Arc<[u8]>>,
}

/// The row that was handed out last.
#[derive(Debug)]
enum Current {
    /// None yet, or the scan is over.
    None,
    Stored(Judged),
    Own(Arc<[u8]>, Vec<u8>),
}

/// What a scan shares with the transaction that it belongs to.
#[derive(Clone)]
pub(crate) struct Within {
    /// The transaction's own writes, as they were when the scan began; None: there were none.
    pub(crate) writes: Option<Arc<WriteSet>>,
    /// Whether the transaction goes on, and the newest version that it has read.
    pub(crate) tentative: Arc<Tentative>,
    /// What of the range counts as read, if that is to be validated.
    pub(crate) reach: Option<Arc<Reach>>,
}

/// Rows of a range as (key, value), in key order or its reverse. Owned and `Send`.
pub struct RawScan {
    local: Local,
    pin: Arc<ReadPin>,
    range: Arc<Range>,
    reverse: bool,
    cursor: Option<Cursor>,
    leaf: LeafRows,
    /// The next row of `leaf`.
    at: usize,
    /// Rows of `leaf` that the reach holds; no limit where nothing is validated.
    held: usize,
    /// Rows that the reach has gone over.
    passed: usize,
    /// The next row of the tree, already judged.
    stored: Option<Judged>,
    current: Current,
    within: Option<Within>,
    /// The last own key that was handed out or passed over.
    last_own: Option<Arc<[u8]>>,
    failed: bool,
}

/// A write of the transaction itself: its key and its value, None if it deletes the row.
type OwnWrite = (Arc<[u8]>, Option<Vec<u8>>);

impl RawScan {
    /// A scan at the position of `pin`.
    pub(crate) fn new(
        local: &Local,
        pin: Arc<ReadPin>,
        range: Arc<Range>,
        reverse: bool,
        within: Option<Within>,
    ) -> Result<RawScan> {
        range.check()?;
        let (lower, upper) = range.bounds();
        let core = local.core();
        let tree = core.shown(core.tree(range.tree))?;
        let applied = core.unapplied.check_range(range.tree, lower, upper);
        core.shown(applied)?;
        let direction = if reverse {
            Direction::Backward
        } else {
            Direction::Forward
        };
        let cursor = (!range.is_void()).then(|| tree.cursor(lower, upper, direction));
        Ok(RawScan {
            local: local.clone(),
            pin,
            cursor,
            range,
            reverse,
            leaf: LeafRows::default(),
            at: 0,
            held: 0,
            passed: 0,
            stored: None,
            current: Current::None,
            within,
            last_own: None,
            failed: false,
        })
    }

    /// The same rows in the other direction, from its first on. What both have seen counts
    /// together.
    pub(crate) fn reversed(&self) -> Result<RawScan> {
        let (pin, range) = (self.pin.clone(), self.range.clone());
        RawScan::new(&self.local, pin, range, !self.reverse, self.within.clone())
    }

    /// The next row of the tree that the reader sees.
    #[inline]
    fn next_stored(&mut self) -> Result<Option<Judged>> {
        loop {
            while self.at < self.leaf.len() {
                let row = self.at;
                self.at += 1;
                if row >= self.held {
                    self.reach_ahead(row);
                }
                if let Some(judged) = self.judge(row)? {
                    return Ok(Some(judged));
                }
            }
            if !self.next_leaf()? {
                return Ok(None);
            }
        }
    }

    /// Goes on to the next leaf; false after the last one.
    fn next_leaf(&mut self) -> Result<bool> {
        check_floor(self.local.core(), self.pin.ts())?;
        let Some(cursor) = &mut self.cursor else {
            return Ok(false);
        };
        self.at = 0;
        self.held = usize::MAX;
        if self.within.as_ref().is_some_and(|w| w.reach.is_some()) {
            self.held = 0;
        }
        if !cursor.next_leaf(&mut self.leaf)? {
            self.cursor = None;
        }
        Ok(true)
    }

    /// Widens the reach from `row` on, which is about to be looked at.
    fn reach_ahead(&mut self, row: usize) {
        let last = (row + self.passed / 4).min(self.leaf.len() - 1);
        if let (Some(reach), Some(row)) = (self.reach(), self.leaf.get(last)) {
            reach.set(self.reverse, row.key);
        }
        self.passed += last + 1 - row;
        self.held = last + 1;
    }

    /// Calls `visit` with each row, in order, until the end or its first error.
    pub(crate) fn visit(mut self, mut visit: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
        while self.advance()? {
            if let Some((key, value)) = self.row() {
                visit(key, value)?;
            }
        }
        Ok(())
    }

    /// What the reader sees of a row of the leaf in hand.
    #[inline]
    fn judge(&self, row: usize) -> Result<Option<Judged>> {
        let Some(LeafRow { key, flags, .. }) = self.leaf.get(row) else {
            return Ok(None);
        };
        if !flags.versioned && !flags.ghost {
            return Ok(Some(Judged { row, older: None }));
        }
        let (core, at) = (self.local.core(), self.pin.ts());
        let (begin, seen) = match core.recent.seen(self.range.tree, key, at) {
            Seen::Leaf(begin) => {
                if flags.ghost && begin == Ts::ZERO {
                    core.recent.note_ghost(self.range.tree, key);
                }
                let live = !flags.ghost;
                (begin, live.then_some(Judged { row, older: None }))
            }
            Seen::Older(begin, value) => {
                let older = |value| Judged {
                    row,
                    older: Some(value),
                };
                (begin, value.map(older))
            }
            Seen::Gone => return Err(too_old(core, at)),
        };
        // The leaf was copied a while ago; since then the index may have forgotten the row.
        check_floor(core, at)?;
        if let Some(within) = &self.within {
            within.tentative.note(begin);
        }
        Ok(seen)
    }

    /// True if `a` comes before `b` in the direction of the scan.
    fn before(&self, a: &[u8], b: &[u8]) -> bool {
        if self.reverse { a > b } else { a < b }
    }

    /// The row that the last [`RawScan::advance`] went to, if it went to one.
    #[inline]
    pub(crate) fn row(&self) -> Option<(&[u8], &[u8])> {
        match &self.current {
            Current::None => None,
            Current::Own(key, value) => Some((key, value)),
            Current::Stored(Judged { row, older }) => {
                let LeafRow { key, value, .. } = self.leaf.get(*row)?;
                Some((key, older.as_deref().unwrap_or(value)))
            }
        }
    }

    /// Goes to the next row; false at the end and after an error.
    #[inline]
    pub(crate) fn advance(&mut self) -> Result<bool> {
        self.current = Current::None;
        if self.failed {
            return Ok(false);
        }
        let stepped = self.step();
        let stepped = self.local.core().shown(stepped);
        let stepped = stepped.map(|current| self.current = current);
        let open = self.after_step();
        if let Err(error) = stepped.and(open) {
            (self.current, self.failed) = (Current::None, true);
            return Err(error);
        }
        Ok(!matches!(self.current, Current::None))
    }

    #[inline]
    fn step(&mut self) -> Result<Current> {
        if let Some(within) = &self.within {
            within.tentative.check()?;
        }
        self.local.core().check_open()?;
        if self.writes().is_some() {
            return self.merged();
        }
        Ok(self.next_stored()?.map_or(Current::None, Current::Stored))
    }

    /// At its end and after an error the scan has read all of its range (H1). Then it looks whether
    /// its transaction goes on: after the reach (H2), and after noting what the commit waits for.
    #[inline]
    fn after_step(&self) -> Result<()> {
        let Some(within) = &self.within else {
            return Ok(());
        };
        match (&within.reach, &self.current) {
            (Some(reach), Current::None) => reach.finish(),
            // No row of the tree was reached that lies behind this one.
            (Some(reach), Current::Own(key, _)) if self.is_beyond_tree() => {
                reach.set(self.reverse, key);
            }
            _ => {}
        }
        within.tentative.check()
    }

    /// No row of the tree is left.
    fn is_beyond_tree(&self) -> bool {
        self.cursor.is_none() && self.stored.is_none() && self.at >= self.leaf.len()
    }

    fn reach(&self) -> Option<&Reach> {
        self.within.as_ref()?.reach.as_deref()
    }

    fn writes(&self) -> Option<&Arc<WriteSet>> {
        self.within.as_ref()?.writes.as_ref()
    }

    /// The next row of the tree or of the transaction's own writes, whichever comes first.
    fn merged(&mut self) -> Result<Current> {
        loop {
            if self.stored.is_none() {
                self.stored = self.next_stored()?;
            }
            let Some((key, value)) = self.next_own() else {
                return Ok(self.stored.take().map_or(Current::None, Current::Stored));
            };
            let stored = self.stored.as_ref().and_then(|s| self.leaf.get(s.row));
            if let Some(stored) = stored {
                if self.before(stored.key, &key) {
                    return Ok(self.stored.take().map_or(Current::None, Current::Stored));
                }
                if *stored.key == *key {
                    self.stored = None;
                }
            }
            self.last_own = Some(key.clone());
            if let Some(value) = value {
                return Ok(Current::Own(key, value));
            }
        }
    }

    /// The next own write: its key and its value, None if it deletes the row.
    fn next_own(&self) -> Option<OwnWrite> {
        let writes = self.writes()?;
        let (lower, upper) = self.range.bounds();
        let last = self.last_own.as_deref().map(Bound::Excluded);
        let (lower, upper) = if self.reverse {
            (lower, last.unwrap_or(upper))
        } else {
            (last.unwrap_or(lower), upper)
        };
        let (key, write) = writes.next(self.range.tree, lower, upper, self.reverse)?;
        Some((key.clone(), write.value.clone()))
    }
}

impl Iterator for RawScan {
    type Item = Result<Pair>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.advance() {
            Ok(_) => self
                .row()
                .map(|(key, value)| Ok((key.to_vec(), value.to_vec()))),
            Err(error) => Some(Err(error)),
        }
    }
}

impl Drop for RawScan {
    /// What was reached ahead of the last row was not given out.
    fn drop(&mut self) {
        if let (Some(reach), Some((key, _))) = (self.reach(), self.row()) {
            reach.set(self.reverse, key);
        }
    }
}

impl fmt::Debug for RawScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawScan({:?} at {})", self.range, self.pin.ts())
    }
}
