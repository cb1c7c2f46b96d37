//! The collector of the recent-writes index: a polled step of the background thread, and of any
//! commit that finds the index above its budget.
//!
//! Takes write sets from the ring's old end while they lie at or below the horizon (X6), drops what
//! their keys keep for nobody, and removes the ghosts that they leave. Above the budget, or beyond
//! the age allowed, the oldest read position is given up: it ends with `SnapshotTooOld`.

use std::sync::Arc;

use terrane_wal::lsn::{TreeId, Ts};

use crate::apply::purge;
use crate::metrics::count;
use crate::runtime::Core;
use crate::txn::recent::Collected;

/// Write sets that one step takes.
const STEP: usize = 256;

/// One bounded step. True if there may be more to do.
pub(crate) fn step(core: &Core) -> bool {
    let visible = core.visible_ts();
    let horizon = core.horizon_from(core.recent.floor(), visible);
    let mut ghosts: Vec<(TreeId, Arc<[u8]>)> = core.recent.take_leftover();
    let mut taken = 0;
    while taken < STEP {
        let Some(record) = core.ring.take(horizon) else {
            break;
        };
        taken += 1;
        for (tree, key) in record.keys.iter() {
            if core.recent.collect(*tree, key, horizon) == Collected::LeftGhost {
                ghosts.push((*tree, key.clone()));
            }
        }
    }
    for (tree, key) in ghosts {
        // A ghost that still has its (idle) entry is one that an aborted intent left behind.
        core.recent.collect(tree, &key, horizon);
        // A leaf that cannot be read keeps its ghost; a scan that meets it notes it again.
        if let Ok(true) = purge(core, tree, &key) {
            count(&core.counters.ghosts_purged);
        }
    }
    // Only what the horizon itself holds back is a reader's fault.
    taken == STEP || give_up_old_reader(core, visible)
}

/// A step, if the index is above its budget: a commit calls it, so that commits cannot outrun the
/// background thread.
pub(crate) fn relieve(core: &Core) {
    if bytes(core) > core.options.version_bytes {
        step(core);
    }
}

/// Bytes that versions, entries and the ring take, by estimate.
pub(crate) fn bytes(core: &Core) -> usize {
    core.recent.bytes() + core.ring.keys() * 32
}

/// Raises the floor above the oldest read position if it holds too much or too long. True if it
/// did.
fn give_up_old_reader(core: &Core, visible: Ts) -> bool {
    let Some((oldest, age)) = core.oldest_reader() else {
        return false;
    };
    if oldest >= visible {
        return false;
    }
    let over_budget = bytes(core) > core.options.version_bytes;
    let over_age = age > core.options.snapshot_age;
    if over_budget || over_age {
        let next = core.horizon_from(oldest.next(), visible);
        core.recent.raise_floor(next);
    }
    over_budget || over_age
}
