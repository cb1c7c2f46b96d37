//! The intents of one attempt of a transaction: placed one by one, given back together.
//!
//! Dropping gives everything back: the one release path, also for a panic and an early return.

use std::sync::Arc;
use std::time::Duration;

use terrane_wal::env::Waiter;
use terrane_wal::lsn::{TreeId, Ts};

use crate::error::{Error, ErrorKind, Result};
use crate::runtime::Core;
use crate::txn::owner::Owner;
use crate::txn::recent::Claim;
use crate::txn::ring::RowKey;

/// How long a commit in progress is waited for, whatever the ages.
const COMMIT_WAIT: Duration = Duration::from_micros(200);

/// The intents of one attempt.
#[derive(Debug)]
pub(crate) struct Intents {
    /// None: nothing can be locked, for nobody leads.
    core: Option<Arc<Core>>,
    owner: Arc<Owner>,
    placed: Vec<RowKey>,
    /// The transaction may hold something in another shard.
    elsewhere: bool,
}

impl Intents {
    /// No intents yet.
    pub(crate) fn new(core: &Arc<Core>, age: u64) -> Intents {
        Intents {
            core: Some(core.clone()),
            owner: Owner::new(age),
            placed: Vec::new(),
            elsewhere: false,
        }
    }

    /// Of a transaction that found no leader, which places none.
    pub(crate) fn none() -> Intents {
        Intents {
            core: None,
            owner: Owner::new(0),
            placed: Vec::new(),
            elsewhere: false,
        }
    }

    /// From now on the transaction may hold something in another shard: that nothing is held here
    /// is no reason to wait.
    pub(crate) fn held_elsewhere(&mut self) {
        self.elsewhere = true;
    }

    /// Whether it may.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.elsewhere
    }

    /// Whether another transaction of this age may be waited for, whatever it waits for: who holds
    /// nothing closes no cycle, and an older one waits only for younger ones.
    pub(crate) fn may_wait_for(&self, age: u64) -> bool {
        (self.placed.is_empty() && !self.elsewhere) || self.owner.age() < age
    }

    /// The owner word behind all of them.
    pub(crate) fn owner(&self) -> &Arc<Owner> {
        &self.owner
    }

    /// Places an intent, waiting for another's as wait-die by age allows; returns when the value
    /// that it guards began. With a `read_ts`, a value that began after it is a conflict.
    ///
    /// # Errors
    /// `Conflict`, or `TimedOut` after the database's lock timeout.
    pub(crate) fn place(
        &mut self,
        tree: TreeId,
        key: &Arc<[u8]>,
        read_ts: Option<Ts>,
    ) -> Result<Ts> {
        let mut wait: Option<(Arc<dyn Waiter>, Duration)> = None;
        let Some(core) = &self.core else {
            return Err(Error::new(ErrorKind::Unavailable, "no member leads"));
        };
        loop {
            let holder = match core.recent.claim(tree, key, &self.owner, read_ts) {
                Claim::Granted(begin) => {
                    self.placed.push((tree, key.clone()));
                    return Ok(begin);
                }
                Claim::Newer(ts) => {
                    let error = Error::new(ErrorKind::Conflict, "a newer version was committed");
                    return Err(error.with("tree", tree.0).with("committed", ts));
                }
                Claim::Held(holder) => holder,
            };
            let patient = self.may_wait_for(holder.age());
            let limit = match (patient, holder.is_committing()) {
                (true, _) => core.options.lock_timeout,
                (false, true) => COMMIT_WAIT,
                (false, false) => Duration::ZERO,
            };
            let now = core.now();
            let (waiter, since) = wait.get_or_insert_with(|| (core.env.park.waiter(), now));
            let left = limit.saturating_sub(now.saturating_sub(*since));
            if left.is_zero() {
                return Err(given_up(tree, patient));
            }
            if holder.await_release(waiter) {
                waiter.park_timeout(left);
            }
        }
    }

    /// Places an intent if nobody else holds the key; never waits. For upkeep, which changes no row
    /// and so meets no conflict.
    pub(crate) fn try_place(&mut self, tree: TreeId, key: &Arc<[u8]>) -> bool {
        let claim = |core: &Arc<Core>| core.recent.claim(tree, key, &self.owner, None);
        let granted = matches!(self.core.as_ref().map(claim), Some(Claim::Granted(_)));
        if granted {
            self.placed.push((tree, key.clone()));
        }
        granted
    }

    /// Leaves the intent on `key` standing when the others are given back: its row waits for a
    /// page.
    pub(crate) fn leave_standing(&mut self, tree: TreeId, key: &[u8]) {
        self.placed
            .retain(|(placed, at)| *placed != tree || **at != *key);
    }

    /// Gives all of them back and wakes whom they kept waiting.
    pub(crate) fn release(&mut self) {
        let Some(core) = self.core.as_ref().filter(|_| !self.placed.is_empty()) else {
            return;
        };
        for (tree, key) in self.placed.drain(..) {
            core.recent.release(tree, &key, &self.owner);
        }
        self.owner.released();
    }
}

impl Drop for Intents {
    fn drop(&mut self) {
        self.release();
    }
}

fn given_up(tree: TreeId, patient: bool) -> Error {
    let error = if patient {
        Error::new(
            ErrorKind::TimedOut,
            "a row stayed locked by another transaction",
        )
    } else {
        Error::new(
            ErrorKind::Conflict,
            "a row is locked by an older transaction",
        )
    };
    error.with("tree", tree.0)
}
