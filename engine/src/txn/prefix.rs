//! The applied prefix: commits in flight, in the order of the log.
//!
//! A commit enters inside the sequencer's section and is marked when its rows are in the trees (or
//! when it was voided); the prefix advances over marked ones only. Invariant P1: timestamps and
//! positions in the queue rise.

use std::collections::VecDeque;
use std::sync::Arc;

use terrane_wal::env::Waiter;
use terrane_wal::lsn::{Lsn, Ts};
use terrane_wal::sync::{AtomicU64, Mutex, Ordering};

/// A commit between its place in the log and its place in the prefix.
#[derive(Debug)]
struct Flight {
    begin: Lsn,
    end: Lsn,
    ts: Ts,
    applied: bool,
    waiters: Vec<Arc<dyn Waiter>>,
}

#[derive(Debug)]
struct Queue {
    flights: VecDeque<Flight>,
    /// End and timestamp of the newest commit of the prefix.
    applied: (Lsn, Ts),
    /// End of the newest commit that was sequenced.
    sequenced: Lsn,
    /// Commits of the prefix that are not known to be committed in the shard, in order.
    tentative: VecDeque<(Lsn, Ts)>,
    /// Everything up to here is.
    commit: Lsn,
}

/// The applied prefix.
#[derive(Debug)]
pub(crate) struct Prefix {
    queue: Mutex<Queue>,
    applied_ts: AtomicU64,
    committed_ts: AtomicU64,
}

impl Prefix {
    /// A prefix that ends at `end`, whose newest commit was at `ts`.
    pub(crate) fn new(end: Lsn, ts: Ts) -> Prefix {
        Prefix {
            queue: Mutex::new(Queue {
                flights: VecDeque::new(),
                applied: (end, ts),
                sequenced: end,
                tentative: VecDeque::new(),
                commit: end,
            }),
            applied_ts: AtomicU64::new(ts.0),
            committed_ts: AtomicU64::new(ts.0),
        }
    }

    /// The timestamp up to which every commit is in the trees and committed in the shard.
    pub(crate) fn committed_ts(&self) -> Ts {
        Ts(self.committed_ts.load(Ordering::Acquire))
    }

    /// Everything up to `commit` is committed in the shard. It does not go back.
    pub(crate) fn commit_to(&self, commit: Lsn) {
        let mut queue = self.queue.lock();
        queue.commit = queue.commit.max(commit);
        self.settle(&mut queue);
    }

    /// Moves the committed prefix over what is applied and committed.
    fn settle(&self, queue: &mut Queue) {
        while let Some((end, ts)) = queue.tentative.front().copied()
            && end <= queue.commit
        {
            queue.tentative.pop_front();
            self.committed_ts.store(ts.0, Ordering::Release);
        }
    }

    /// End and timestamp of the newest commit that was sequenced, applied or not.
    pub(crate) fn newest_entered(&self) -> (Lsn, Ts) {
        let queue = self.queue.lock();
        let last = queue.flights.back();
        (
            queue.sequenced,
            last.map_or(queue.applied.1, |flight| flight.ts),
        )
    }

    /// The timestamp up to which every commit is in the trees.
    pub(crate) fn applied_ts(&self) -> Ts {
        Ts(self.applied_ts.load(Ordering::Acquire))
    }

    /// The same with the log position that it belongs to.
    pub(crate) fn applied(&self) -> (Lsn, Ts) {
        self.queue.lock().applied
    }

    /// Timestamp of the newest commit that was sequenced, applied or not.
    pub(crate) fn newest(&self) -> Ts {
        self.newest_entered().1
    }

    /// Where redo has to begin: the start of the oldest commit that is not applied.
    pub(crate) fn redo_lsn(&self) -> Lsn {
        let queue = self.queue.lock();
        queue
            .flights
            .front()
            .map_or(queue.sequenced, |flight| flight.begin)
    }

    /// Whether all that was sequenced is applied.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.queue.lock().flights.is_empty()
    }

    /// Enters a commit. Called inside the sequencer's section, hence in order.
    pub(crate) fn enter(&self, begin: Lsn, end: Lsn, ts: Ts) {
        let mut queue = self.queue.lock();
        assert!(
            begin >= queue.sequenced && end > begin,
            "P1: {begin} below {}",
            queue.sequenced
        );
        assert!(
            ts > queue
                .flights
                .back()
                .map_or(queue.applied.1, |flight| flight.ts),
            "P1: {ts}"
        );
        queue.sequenced = end;
        let waiters = Vec::new();
        queue.flights.push_back(Flight {
            begin,
            end,
            ts,
            applied: false,
            waiters,
        });
    }

    /// Marks a commit as applied (or void) and wakes whom the prefix frees.
    pub(crate) fn mark(&self, ts: Ts) {
        let mut freed = Vec::new();
        {
            let mut queue = self.queue.lock();
            match queue.flights.binary_search_by_key(&ts, |flight| flight.ts) {
                Ok(at) => queue.flights[at].applied = true,
                Err(_) => panic!("P1: {ts} is not in flight"),
            }
            while queue.flights.front().is_some_and(|flight| flight.applied) {
                let Some(flight) = queue.flights.pop_front() else {
                    break;
                };
                queue.applied = (flight.end, flight.ts);
                queue.tentative.push_back((flight.end, flight.ts));
                freed.extend(flight.waiters);
            }
            self.settle(&mut queue);
            self.applied_ts.store(queue.applied.1.0, Ordering::Release);
        }
        for waiter in freed {
            waiter.unpark();
        }
    }

    /// True if the prefix has reached `ts`; otherwise `waiter` is unparked when it does.
    pub(crate) fn reached(&self, ts: Ts, waiter: &Arc<dyn Waiter>) -> bool {
        if self.applied_ts() >= ts {
            return true;
        }
        let mut queue = self.queue.lock();
        if queue.applied.1 >= ts {
            return true;
        }
        let at = queue.flights.partition_point(|flight| flight.ts < ts);
        match queue.flights.get_mut(at) {
            Some(flight) => flight.waiters.push(waiter.clone()),
            None => panic!("P1: {ts} was never sequenced"),
        }
        false
    }

    /// Wakes every waiter, for them to find that the database was poisoned.
    pub(crate) fn wake_all(&self) {
        let waiters: Vec<_> = {
            let mut queue = self.queue.lock();
            queue
                .flights
                .iter_mut()
                .flat_map(|flight| std::mem::take(&mut flight.waiters))
                .collect()
        };
        for waiter in waiters {
            waiter.unpark();
        }
    }
}
