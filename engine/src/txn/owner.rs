//! The owner word of a transaction's intents, and how others wait for it.
//!
//! One [`Owner`] stands behind all intents of one attempt of a transaction. Waits are wait-die by
//! age: an older transaction waits for a younger one, a younger one gives way, so no cycle of
//! waiters can close. A transaction that holds nothing may wait for anybody.

use std::sync::Arc;

use terrane_wal::env::Waiter;
use terrane_wal::lsn::Ts;
use terrane_wal::sync::{AtomicBool, AtomicU64, Mutex, Ordering};

/// Who holds an intent.
#[derive(Debug)]
pub(crate) struct Owner {
    /// Rank of the transaction's first attempt: the smaller, the older.
    age: u64,
    /// The commit timestamp, set inside the sequencer's section; zero before.
    stamp: AtomicU64,
    /// True from the placing of commit intents on: the holder needs nothing of its user any more.
    committing: AtomicBool,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// All intents are gone: nobody may wait any more.
    released: bool,
    waiters: Vec<Arc<dyn Waiter>>,
}

impl Owner {
    /// The owner of one attempt of a transaction of this age.
    pub(crate) fn new(age: u64) -> Arc<Owner> {
        Arc::new(Owner {
            age,
            stamp: AtomicU64::new(0),
            committing: AtomicBool::new(false),
            queue: Mutex::new(Queue::default()),
        })
    }

    /// The rank: the smaller, the older.
    pub(crate) fn age(&self) -> u64 {
        self.age
    }

    /// The commit timestamp; zero before the sequencer gave one.
    pub(crate) fn stamp(&self) -> Ts {
        Ts(self.stamp.load(Ordering::Acquire))
    }

    /// Called once, inside the sequencer's section.
    pub(crate) fn set_stamp(&self, ts: Ts) {
        self.stamp.store(ts.0, Ordering::Release);
    }

    /// The holder has entered its commit.
    pub(crate) fn set_committing(&self) {
        self.committing.store(true, Ordering::Release);
    }

    /// True if the holder has entered its commit, so that waiting for it is short.
    pub(crate) fn is_committing(&self) -> bool {
        self.committing.load(Ordering::Acquire)
    }

    /// Has `waiter` unparked when the intents are gone. False: they are gone already.
    pub(crate) fn await_release(&self, waiter: &Arc<dyn Waiter>) -> bool {
        let mut queue = self.queue.lock();
        if queue.released {
            return false;
        }
        queue.waiters.push(waiter.clone());
        true
    }

    /// All intents were taken back: wakes everybody. Called after the last one left the index.
    pub(crate) fn released(&self) {
        let waiters = {
            let mut queue = self.queue.lock();
            queue.released = true;
            std::mem::take(&mut queue.waiters)
        };
        for waiter in waiters {
            waiter.unpark();
        }
    }
}
