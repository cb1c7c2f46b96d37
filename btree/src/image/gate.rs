//! The epoch gate: which epoch a change belongs to, and when the last change of an epoch is done.
//!
//! Threads enter with the current epoch in striped counters by the epoch's parity, and leave. A
//! checkpoint advances the epoch and then polls until nobody of the old one is left. Nobody ever
//! waits here: inside the gate there is no wait of any kind (T4), so the poll ends in microseconds.
//!
//! Soundness is the store-buffer pattern: a thread counts itself, fences, and looks at the epoch
//! again; the checkpoint moves the epoch, fences, and looks at the counters. One of the two sees
//! the other. The epoch moves again only after the old one was drained, so a parity means one
//! epoch at a time.

use crossbeam::utils::CachePadded;
use terrane_wal::sync::{AtomicU32, Ordering, fence};

use crate::ids::Epoch;

/// Counts who changes pages, by epoch.
#[derive(Debug)]
pub struct Gate {
    epoch: CachePadded<AtomicU32>,
    stripes: Vec<CachePadded<[AtomicU32; 2]>>,
}

impl Gate {
    /// A gate whose open epoch is `first`, with `stripes` counters for each parity.
    #[must_use]
    pub fn new(first: Epoch, stripes: usize) -> Gate {
        let pair = || CachePadded::new([AtomicU32::new(0), AtomicU32::new(0)]);
        Gate {
            epoch: CachePadded::new(AtomicU32::new(first.0)),
            stripes: (0..stripes.max(1)).map(|_| pair()).collect(),
        }
    }

    /// The open epoch.
    #[inline]
    pub fn current(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    /// Enters, counted in the stripe with this number (any number). The same number and the answer
    /// are given back to [`Gate::leave`].
    #[inline]
    pub fn enter(&self, stripe: usize) -> Epoch {
        loop {
            let epoch = self.epoch.load(Ordering::Acquire);
            let count = self.count(stripe, epoch);
            count.fetch_add(1, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if self.epoch.load(Ordering::Acquire) == epoch {
                return Epoch(epoch);
            }
            // The epoch moved between: this thread belongs to the new one.
            count.fetch_sub(1, Ordering::Release);
        }
    }

    /// Leaves.
    #[inline]
    pub fn leave(&self, stripe: usize, epoch: Epoch) {
        self.count(stripe, epoch.0).fetch_sub(1, Ordering::Release);
    }

    /// Opens the next epoch and returns the one that it closed. Only a checkpoint calls this, one
    /// at a time, and only when the epoch before is drained.
    pub fn advance(&self) -> Epoch {
        let closed = self.current();
        // T2: a parity that still counts threads of the epoch before would mix two epochs.
        assert!(
            closed.0 == 0 || self.drained(Epoch(closed.0 - 1)),
            "the epoch before {closed} still has threads inside"
        );
        self.epoch.store(closed.next().0, Ordering::Release);
        fence(Ordering::SeqCst);
        closed
    }

    /// True if nobody is inside with the closed epoch `epoch` any more. What they changed is
    /// visible to the caller then.
    pub fn drained(&self, epoch: Epoch) -> bool {
        let parity = (epoch.0 & 1) as usize;
        self.stripes
            .iter()
            .all(|stripe| stripe[parity].load(Ordering::Acquire) == 0)
    }

    #[inline]
    fn count(&self, stripe: usize, epoch: u32) -> &AtomicU32 {
        &self.stripes[stripe % self.stripes.len()][(epoch & 1) as usize]
    }
}
