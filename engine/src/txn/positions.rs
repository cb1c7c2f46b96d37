//! Read positions that are in use, and the horizon below which nobody reads (X6).
//!
//! Pinned and released through [`ReadPin`] and nothing else: one release path, RAII only. The
//! registry is striped; a pin reads its position under its stripe's lock. A collector reads the
//! visible position first and the stripes after it, so a pin that it does not meet was taken later
//! and stands at or above what the collector read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use terrane_wal::lsn::Ts;
use terrane_wal::sync::{AtomicUsize, Mutex, Ordering};

use crate::limits::PIN_STRIPES;

/// How often a position is held, and when it was last taken.
#[derive(Debug)]
struct Held {
    count: usize,
    taken_at: Duration,
}

/// All read positions in use.
#[derive(Debug)]
pub(crate) struct ReadPositions {
    stripes: Vec<Mutex<BTreeMap<Ts, Held>>>,
    next: AtomicUsize,
}

/// One held read position; given back when dropped.
#[derive(Debug)]
pub(crate) struct ReadPin {
    positions: Arc<ReadPositions>,
    stripe: usize,
    ts: Ts,
}

impl ReadPositions {
    /// Nobody reads.
    pub(crate) fn new() -> Arc<ReadPositions> {
        Arc::new(ReadPositions {
            stripes: (0..PIN_STRIPES)
                .map(|_| Mutex::new(BTreeMap::new()))
                .collect(),
            next: AtomicUsize::new(0),
        })
    }

    /// Takes the position that `current` names and holds it. `current` must never go back.
    pub(crate) fn pin(self: &Arc<Self>, now: Duration, current: impl FnOnce() -> Ts) -> ReadPin {
        let stripe = self.next.fetch_add(1, Ordering::Relaxed) % self.stripes.len();
        let mut held = self.stripes[stripe].lock();
        let ts = current();
        let entry = held.entry(ts).or_insert(Held {
            count: 0,
            taken_at: now,
        });
        entry.count += 1;
        entry.taken_at = now;
        drop(held);
        ReadPin {
            positions: self.clone(),
            stripe,
            ts,
        }
    }

    /// X6: min(active read positions, `visible`), where positions below `floor` were given up.
    /// `visible` must have been read before the call.
    pub(crate) fn horizon_from(&self, floor: Ts, visible: Ts) -> Ts {
        let lowest = |stripe: &Mutex<BTreeMap<Ts, Held>>| {
            stripe.lock().range(floor..).next().map(|(ts, _)| *ts)
        };
        self.stripes
            .iter()
            .filter_map(lowest)
            .fold(visible, Ts::min)
    }

    /// The oldest position at or above `floor` and when it was last taken.
    pub(crate) fn oldest(&self, floor: Ts) -> Option<(Ts, Duration)> {
        let lowest = |stripe: &Mutex<BTreeMap<Ts, Held>>| {
            stripe
                .lock()
                .range(floor..)
                .next()
                .map(|(ts, held)| (*ts, held.taken_at))
        };
        self.stripes.iter().filter_map(lowest).min()
    }

    /// Positions held at this moment.
    pub(crate) fn active(&self) -> usize {
        let count = |stripe: &Mutex<BTreeMap<Ts, Held>>| -> usize {
            stripe.lock().values().map(|held| held.count).sum()
        };
        self.stripes.iter().map(count).sum()
    }
}

impl ReadPin {
    /// The position.
    pub(crate) fn ts(&self) -> Ts {
        self.ts
    }
}

impl Drop for ReadPin {
    fn drop(&mut self) {
        let mut held = self.positions.stripes[self.stripe].lock();
        let Some(entry) = held.get_mut(&self.ts) else {
            panic!("X6: read position {} released twice", self.ts);
        };
        entry.count -= 1;
        if entry.count == 0 {
            held.remove(&self.ts);
        }
    }
}
