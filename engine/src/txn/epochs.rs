//! The epoch guard of a vector index: which set of centroids commits bind to, and who still does.
//!
//! A commit binds its vectors to postings of one set outside, enters the guard, finds that the
//! newest set still fills them (or leaves and binds again what drains there), passes the sequencer
//! and leaves. The guard is held from that look to sequencing and nothing waits under it.
//! Maintenance publishes the next set and then polls until everybody of older epochs has left: who
//! enters later has looked at the new set, what was bound before is sequenced, and the posting that
//! drains receives no more once that is applied.
//!
//! Invariants: E1 epochs rise; E2 when [`Epochs::left`] says so, every commit that looked at a set
//! below the epoch has passed the sequencer or given up; E3 nothing waits inside.

use std::collections::BTreeMap;
use std::sync::Arc;

use terrane_wal::sync::Mutex;
use terrane_wal::waits::NoWait;

#[derive(Debug)]
struct State<S> {
    epoch: u64,
    set: Arc<S>,
    /// Commits inside the guard, by the epoch that they entered at.
    inside: BTreeMap<u64, usize>,
}

/// The newest set of an index and the commits that bind to it.
#[derive(Debug)]
pub(crate) struct Epochs<S> {
    state: Mutex<State<S>>,
}

/// A commit between its look at the newest set and the sequencer.
#[derive(Debug)]
#[must_use]
pub(crate) struct Inside<'a, S> {
    epochs: &'a Epochs<S>,
    epoch: u64,
    set: Arc<S>,
    _no_wait: NoWait,
}

impl<S> Inside<'_, S> {
    /// The set that was the newest when the guard was entered: what it does not fill, its
    /// maintenance may take for done once this commit has left (E2).
    pub(crate) fn set(&self) -> &S {
        &self.set
    }
}

impl<S> Epochs<S> {
    /// Begins with a set.
    pub(crate) fn new(epoch: u64, set: Arc<S>) -> Epochs<S> {
        Epochs {
            state: Mutex::new(State {
                epoch,
                set,
                inside: BTreeMap::new(),
            }),
        }
    }

    /// The newest set. A search asks after it has its snapshot (S4).
    pub(crate) fn newest(&self) -> Arc<S> {
        self.state.lock().set.clone()
    }

    /// Enters at the newest epoch.
    pub(crate) fn enter(&self) -> Inside<'_, S> {
        let mut state = self.state.lock();
        let (epoch, set) = (state.epoch, state.set.clone());
        *state.inside.entry(epoch).or_default() += 1;
        Inside {
            epochs: self,
            epoch,
            set,
            _no_wait: NoWait::begin(),
        }
    }

    /// From now on commits and searches take `set`.
    pub(crate) fn publish(&self, epoch: u64, set: Arc<S>) {
        let mut state = self.state.lock();
        assert!(epoch > state.epoch, "E1: {epoch} after {}", state.epoch);
        state.epoch = epoch;
        state.set = set;
    }

    /// Whether every commit that entered below `epoch` has left (E2).
    pub(crate) fn left(&self, epoch: u64) -> bool {
        let state = self.state.lock();
        state
            .inside
            .first_key_value()
            .is_none_or(|(oldest, _)| *oldest >= epoch)
    }
}

impl<S> Drop for Inside<'_, S> {
    fn drop(&mut self) {
        let mut state = self.epochs.state.lock();
        let count = state.inside.get_mut(&self.epoch);
        match count {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                state.inside.remove(&self.epoch);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_older_epoch_has_left_when_its_last_commit_has() {
        let epochs = Epochs::new(3, Arc::new("three"));
        let (first, second) = (epochs.enter(), epochs.enter());
        epochs.publish(4, Arc::new("four"));
        assert_eq!(*epochs.newest(), "four");
        let newer = epochs.enter();
        assert_eq!((*first.set(), *newer.set()), ("three", "four"));
        assert!(!epochs.left(4));
        drop(first);
        assert!(!epochs.left(4), "one is still inside");
        drop(second);
        assert!(epochs.left(4) && !epochs.left(5));
        drop(newer);
        assert!(epochs.left(5));
    }
}
