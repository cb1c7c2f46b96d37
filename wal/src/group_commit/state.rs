//! The queue of one log: what is reserved, filled, taken and on its way, and who waits for it. All
//! of it under the board's lock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::{BoardStats, Content, Piece, Wakes};
use crate::budget::Budget;
use crate::env::Waiter;
use crate::epochs::Epochs;
use crate::error::WalError;
use crate::log::Level;
use crate::lsn::{Lsn, Term, Ts};
use crate::recent::Recent;

/// A reserved piece of the stream that no flush has taken as a whole yet.
#[derive(Debug)]
pub(super) struct Range {
    pub(super) begin: Lsn,
    pub(super) end: Lsn,
    pub(super) ts: Ts,
    pub(super) content: Option<Content>,
}

/// A flight that has not been passed by `durable`.
#[derive(Debug)]
pub(super) struct Flying {
    pub(super) id: u64,
    /// The last entry that is complete when this flight and all before it are.
    pub(super) entry: (Lsn, Ts),
    pub(super) done: bool,
}

pub(super) type Queue = BTreeMap<(Lsn, u64), Arc<dyn Waiter>>;

#[derive(Debug)]
pub(super) struct State {
    pub(super) last_ts: Ts,
    pub(super) sequenced: (Lsn, Ts),
    pub(super) filled: (Lsn, Ts),
    pub(super) durable: (Lsn, Ts),
    /// Up to here, flights have taken the stream; may lie inside an entry.
    pub(super) taken: Lsn,
    /// The last entry taken as a whole.
    pub(super) taken_entry: (Lsn, Ts),
    /// The terms up to `sequenced`.
    pub(super) epochs: Epochs,
    /// What was filled last.
    pub(super) recent: Recent,
    pub(super) ranges: VecDeque<Range>,
    /// Ranges at the front that are filled.
    pub(super) head_filled: usize,
    pub(super) flights: VecDeque<Flying>,
    pub(super) next_flight: u64,
    pub(super) want_durable: Queue,
    pub(super) want_filled: Queue,
    pub(super) want_committed: Queue,
    pub(super) want_room: Vec<Arc<dyn Waiter>>,
    /// Those who close, until nothing is admitted that is not sequenced.
    pub(super) want_quiet: Vec<Arc<dyn Waiter>>,
    /// Admissions that are neither sequenced nor released.
    pub(super) admitted: u64,
    pub(super) next_waiter: u64,
    pub(super) budget: Budget,
    pub(super) closed: bool,
    /// Entries of this member's own are refused: another one leads.
    pub(super) sealed: bool,
    /// The last term that this member led and leads no more.
    pub(super) ended: Term,
    pub(super) poison: Option<Arc<WalError>>,
    pub(super) stats: BoardStats,
}

impl State {
    pub(super) fn can_take(&self, flights_max: usize) -> bool {
        self.head_filled > 0 && self.flights.len() < flights_max && self.poison.is_none()
    }

    /// L5: if a flush is possible and somebody wants it, wakes one who will lead it.
    pub(super) fn pass_lead(&mut self, flights_max: usize, wakes: &mut Wakes) {
        if !self.can_take(flights_max) {
            return;
        }
        let uncovered = self.want_durable.range((self.taken, u64::MAX)..).next();
        let heir = uncovered
            .map(|(_, waiter)| waiter)
            .or(self.want_room.first());
        if let Some(waiter) = heir {
            self.stats.handoffs += 1;
            wakes.0.push(Arc::clone(waiter));
        }
    }

    /// Moves `filled` over every filled range at its front.
    pub(super) fn advance_filled(&mut self, wakes: &mut Wakes) {
        let before = self.head_filled;
        while let Some(range) = self.ranges.get(self.head_filled)
            && let Some(content) = &range.content
        {
            self.recent.push(range.begin, content, self.durable.0);
            self.filled = (range.end, range.ts);
            self.head_filled += 1;
        }
        if self.head_filled > before {
            drain_covered(&mut self.want_filled, self.filled.0, wakes);
        }
        assert!(self.filled.0 <= self.sequenced.0, "L3");
    }

    /// Moves `durable` over every completed flight at its front.
    pub(super) fn advance_durable(&mut self, wakes: &mut Wakes) {
        while let Some(first) = self.flights.front()
            && first.done
        {
            assert!(self.durable.0 <= first.entry.0, "L3: durable is monotone");
            self.durable = first.entry;
            self.flights.pop_front();
        }
        assert!(self.durable.0 <= self.filled.0, "L3");
        drain_covered(&mut self.want_durable, self.durable.0, wakes);
    }

    /// The term of what is taken next.
    pub(super) fn next_term(&self) -> Term {
        self.epochs.term_at(self.taken.advance(1)).max(Term::FIRST)
    }

    /// Up to `whole` bytes of the filled prefix, all of one term.
    pub(super) fn take_pieces(&mut self, whole: usize) -> (Vec<Piece>, usize) {
        let other = self.epochs.next_start(self.taken.advance(1));
        let of_term = other.map_or(u64::MAX, |(_, start)| start.since(self.taken));
        let mut room = usize::try_from(of_term).map_or(whole, |of_term| whole.min(of_term));
        if crate::planted!("frames_of_two_terms") {
            room = whole;
        }
        let mut pieces = Vec::with_capacity(self.head_filled);
        let mut payload_len = 0;
        while self.head_filled > 0 && payload_len < room {
            let Some(range) = self.ranges.front() else {
                break;
            };
            let Some(content) = range.content.clone() else {
                break;
            };
            let from = self.taken.0.saturating_sub(range.begin.0) as usize;
            let len = content.bytes.len();
            let to = len.min(from + (room - payload_len));
            self.budget.release(len - from, len - to);
            self.taken = range.begin.advance(to as u64);
            payload_len += to - from;
            pieces.push(Piece { content, from, to });
            if to == len {
                self.taken_entry = (range.end, range.ts);
                self.ranges.pop_front();
                self.head_filled -= 1;
            }
        }
        (pieces, payload_len)
    }

    /// An admission was sequenced or released.
    pub(super) fn leave(&mut self, wakes: &mut Wakes) {
        assert!(self.admitted > 0, "X2: sequenced without an admission");
        self.admitted -= 1;
        if self.admitted == 0 {
            wakes.0.append(&mut self.want_quiet);
        }
    }

    pub(super) fn queue(&mut self, level: Level) -> &mut Queue {
        match level {
            Level::Durable => &mut self.want_durable,
            Level::Filled => &mut self.want_filled,
        }
    }

    pub(super) fn poisoned(&self) -> Result<(), WalError> {
        match &self.poison {
            Some(cause) => Err(WalError::Poisoned {
                cause: Arc::clone(cause),
            }),
            None => Ok(()),
        }
    }
}

/// Moves the waiters up to `position` from the queue to `wakes`.
pub(super) fn drain_covered(queue: &mut Queue, position: Lsn, wakes: &mut Wakes) {
    while let Some(first) = queue.first_entry()
        && first.key().0 <= position
    {
        wakes.0.push(first.remove());
    }
}
