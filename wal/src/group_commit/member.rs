//! What a member of a shard asks of the board beside commits of its own: copies of a leader's
//! entries in their places, and to go back where another leader's log differs.

use std::sync::Arc;

use super::state::drain_covered;
use super::{Board, Content, Wakes};
use crate::append::Sequenced;
use crate::env::{Park, Waiter};
use crate::epochs::{Epochs, Point};
use crate::error::WalError;
use crate::lsn::{Lsn, Term, Ts};
use crate::recent::Kept;
use crate::sync::Ordering;

/// A place among those who wait for an entry to be committed.
#[derive(Debug)]
#[must_use]
pub struct Awaited((Lsn, u64));

impl Board {
    /// Puts an entry of another log where it lies there, behind all others.
    pub fn place_copy(&self, term: Term, begin: Lsn, content: Content) -> Wakes {
        let mut wakes = Wakes::default();
        let mut state = self.state.lock();
        assert_eq!(begin, state.sequenced.0, "G1: a copy goes to its own place");
        let place = Sequenced {
            begin,
            end: begin.advance(content.bytes.len() as u64),
            // Chunks have none.
            ts: content.ts.max(state.sequenced.1),
            term,
        };
        self.place(&mut state, place, Some(content), &mut wakes);
        wakes
    }

    /// As [`Board::close`], of this member's own entries, until [`Board::unseal`]. Who waits for
    /// one to be committed does so no longer.
    pub fn seal(&self, park: &dyn Park) {
        self.refuse(park, &|state| {
            state.sealed = true;
            state.ended = state.epochs.last().term;
        });
        let mut wakes = Wakes::default();
        let mut state = self.state.lock();
        drain_covered(&mut state.want_committed, Lsn(u64::MAX), &mut wakes);
        drop(state);
        wakes.wake();
    }

    /// Everything up to here is committed.
    pub fn commit_lsn(&self) -> Lsn {
        Lsn(self.commit.load(Ordering::Acquire))
    }

    /// Everything up to `commit` is committed: wakes who waits for that. It does not go back.
    pub fn commit_to(&self, commit: Lsn) {
        self.commit.fetch_max(commit.0, Ordering::AcqRel);
        let mut wakes = Wakes::default();
        let mut state = self.state.lock();
        drain_covered(&mut state.want_committed, self.commit_lsn(), &mut wakes);
        drop(state);
        wakes.wake();
    }

    /// Whether an entry of this member's own is committed. If that is open, `waiter` is unparked
    /// when it may be known; what is returned takes it off the list again.
    ///
    /// # Errors
    /// Deposed if another member may have decided about it, Poisoned.
    pub fn committed(
        &self,
        at: Point,
        waiter: &Arc<dyn Waiter>,
    ) -> Result<Option<Awaited>, WalError> {
        let mut state = self.state.lock();
        // An entry is known by its end and its term.
        let same = state.epochs.term_at(at.lsn) == at.term
            || crate::planted!("whatever_is_committed_there_counts");
        if self.commit_lsn() >= at.lsn && same {
            return Ok(None);
        }
        if state.ended >= at.term {
            return Err(WalError::Deposed { term: at.term });
        }
        state.poisoned()?;
        let key = (at.lsn, state.next_waiter);
        state.next_waiter += 1;
        state.stats.parks += 1;
        state.want_committed.insert(key, Arc::clone(waiter));
        Ok(Some(Awaited(key)))
    }

    /// Waits no more.
    pub fn forget(&self, awaited: &Awaited) {
        self.state.lock().want_committed.remove(&awaited.0);
    }

    /// Admits this member's own entries again.
    pub fn unseal(&self) {
        self.state.lock().sealed = false;
    }

    /// The terms up to the last sequenced entry.
    pub fn epochs(&self) -> Epochs {
        self.state.lock().epochs.clone()
    }

    /// The term of the entry that ends at `lsn` or reaches beyond.
    pub fn term_at(&self, lsn: Lsn) -> Term {
        self.state.lock().epochs.term_at(lsn)
    }

    /// The last sequenced entry, and its timestamp.
    pub(crate) fn last(&self) -> (Point, Ts) {
        let state = self.state.lock();
        (state.epochs.last(), state.sequenced.1)
    }

    /// The terms up to what begins at `lsn`, that one included, with where they begin.
    pub(crate) fn starts_to(&self, lsn: Lsn) -> Vec<(Term, Lsn)> {
        let state = self.state.lock();
        let starts = state.epochs.starts();
        let count = starts.partition_point(|(_, start)| *start <= lsn);
        starts[..count].to_vec()
    }

    /// Entries from the one that begins at `from` on, if that one is in memory.
    pub(crate) fn recent(&self, from: Lsn, bytes: usize) -> Option<Vec<Kept>> {
        self.state.lock().recent.read(from, bytes)
    }

    /// The entry that ends at `end`, if it is in memory; and where memory begins.
    pub(crate) fn recent_ending(&self, end: Lsn) -> (Option<Kept>, Option<Lsn>) {
        let state = self.state.lock();
        (state.recent.ending(end).cloned(), state.recent.begin())
    }

    /// Forgets what lies behind `to`, the end of an entry with timestamp `ts`; the current segment
    /// is left, with `blocks_left` in it. Timestamps do not go back.
    ///
    /// Fails if the log is not at rest: something is admitted or not durable.
    pub(crate) fn cut(&self, to: Lsn, ts: Ts, blocks_left: u64) -> Result<(), WalError> {
        let mut wakes = Wakes::default();
        let mut state = self.state.lock();
        state.poisoned()?;
        let rests = state.admitted == 0 && state.ranges.is_empty() && state.flights.is_empty();
        if !rests || to > state.durable.0 {
            let at = state.durable.0;
            let what = format!("a cut at {to} of a log at rest, found it busy or to end at {at}");
            return Err(WalError::Invalid { what });
        }
        let at = (to, ts);
        (state.sequenced, state.filled, state.durable) = (at, at, at);
        (state.taken, state.taken_entry) = (to, at);
        state.epochs.truncate(to);
        state.recent.cut(to);
        state.budget.abandon(blocks_left);
        self.settle(&mut state, &mut wakes);
        drop(state);
        wakes.wake();
        Ok(())
    }
}
