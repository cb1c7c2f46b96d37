//! One timestamp for what is read in several shards.
//!
//! ```text
//! commit acknowledged, shard at rest  -> raise      what every later moment holds
//! transaction, snapshot               -> Moment     one timestamp, held in no shard but here
//! a shard's collector                 -> horizon    what no moment can ask for
//! ```
//!
//! All shards of a cluster in this process share it. A shard reads at a moment once its clock is
//! beyond it and all before it is applied ([`crate::runtime::Core::reach`]).
//!
//! Invariants:
//! - M1: a moment is at or above every timestamp that was raised before it was taken, so it holds
//!   every commit that anybody was told of.
//! - M2: a collector raises to its own visible position and looks for moments after that (X6): one
//!   that it does not meet lies at or above what it collects.

use std::sync::Arc;
use std::time::Duration;

use terrane_wal::env::Env;
use terrane_wal::lsn::Ts;
use terrane_wal::sync::{AtomicU64, Ordering};

use crate::txn::positions::{ReadPin, ReadPositions};

/// What is known of the time of all shards, and the moments that are read.
#[derive(Debug)]
pub(crate) struct Moments {
    env: Env,
    known: AtomicU64,
    reads: Arc<ReadPositions>,
    /// Rank of the next transaction: the smaller, the older.
    ages: AtomicU64,
}

/// What one transaction or snapshot reads in every shard: settled by the first that is asked.
#[derive(Debug)]
pub(crate) struct Moment {
    all: Arc<Moments>,
    pin: std::sync::OnceLock<ReadPin>,
}

impl Moments {
    /// Of shards that nobody has read yet.
    pub(crate) fn new(env: &Env) -> Arc<Moments> {
        Arc::new(Moments {
            env: env.clone(),
            known: AtomicU64::new(0),
            reads: ReadPositions::new(),
            ages: AtomicU64::new(1),
        })
    }

    /// The world that its times are of.
    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    /// The rank of a new transaction.
    pub(crate) fn next_age(&self) -> u64 {
        self.ages.fetch_add(1, Ordering::Relaxed)
    }

    /// Every moment from now on is at or above `ts`.
    pub(crate) fn raise(&self, ts: Ts) {
        self.known.fetch_max(ts.0, Ordering::AcqRel);
    }

    /// What was raised so far.
    pub(crate) fn known(&self) -> Ts {
        Ts(self.known.load(Ordering::Acquire))
    }

    /// A moment that is settled later.
    pub(crate) fn later(self: &Arc<Self>) -> Arc<Moment> {
        Arc::new(Moment {
            all: Arc::clone(self),
            pin: std::sync::OnceLock::new(),
        })
    }

    /// The moment of now.
    pub(crate) fn now(self: &Arc<Self>) -> Arc<Moment> {
        let moment = self.later();
        moment.at(|| Ts::ZERO);
        moment
    }

    /// Below it no moment is read, now or later, but for those below `floor`, which were given up.
    /// `visible` is what the asker shows (M2).
    pub(crate) fn horizon_from(&self, floor: Ts, visible: Ts) -> Ts {
        if !terrane_wal::planted!("a_collector_says_not_what_it_shows") {
            self.raise(visible);
        }
        let known = self.known();
        self.reads.horizon_from(floor, known)
    }

    /// The oldest moment at or above `floor`, and for how long it has been read.
    pub(crate) fn oldest(&self, floor: Ts) -> Option<(Ts, Duration)> {
        let (ts, taken_at) = self.reads.oldest(floor)?;
        Some((ts, self.env.clock.now_mono().saturating_sub(taken_at)))
    }
}

impl Moment {
    /// All of them.
    pub(crate) fn all(&self) -> &Arc<Moments> {
        &self.all
    }

    /// Its timestamp, if it is settled.
    pub(crate) fn ts(&self) -> Option<Ts> {
        self.pin.get().map(ReadPin::ts)
    }

    /// Its timestamp; settled now, at or above `least`, if it was not before.
    pub(crate) fn at(&self, least: impl FnOnce() -> Ts) -> Ts {
        let now = || self.all.env.clock.now_mono();
        let take = || self.all.reads.pin(now(), || self.all.known().max(least()));
        self.pin.get_or_init(take).ts()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use terrane_wal::env::SimEnv;

    fn moments() -> Arc<Moments> {
        Moments::new(&SimEnv::new(1).env())
    }

    #[test]
    fn a_moment_holds_what_was_raised_before_and_stays() {
        let all = moments();
        all.raise(Ts(7));
        let (now, later) = (all.now(), all.later());
        all.raise(Ts(9));
        all.raise(Ts(8));
        assert_eq!((now.ts(), later.ts()), (Some(Ts(7)), None));
        assert_eq!(later.at(|| Ts(3)), Ts(9));
        assert_eq!(later.at(|| Ts(30)), Ts(9), "settled");
        assert_eq!(all.later().at(|| Ts(30)), Ts(30));
        assert_eq!(all.known(), Ts(9), "what is read is not what was told");
    }

    /// Seen to fail with the moments looked at before the visible position is raised (M2).
    #[test]
    fn nothing_is_collected_that_a_moment_reads() {
        let all = moments();
        all.raise(Ts(7));
        let held = all.now();
        assert_eq!(all.horizon_from(Ts::ZERO, Ts(20)), Ts(7));
        // Taken after that, it is not below what the collector showed.
        assert_eq!(all.now().ts(), Some(Ts(20)));
        assert_eq!(all.oldest(Ts::ZERO).map(|(ts, _)| ts), Some(Ts(7)));
        // Given up.
        assert_eq!(all.horizon_from(Ts(8), Ts(20)), Ts(20));
        drop(held);
        assert_eq!(all.horizon_from(Ts::ZERO, Ts(12)), Ts(20));
    }
}
