//! Sees to it that no transaction of several shards stays undecided: one thread of a cluster.
//!
//! ```text
//! prepared for more than a second  -> ask the coordinator's shard -> do as it says
//! decided for more than a second   -> has everybody heard?        -> forget the decision
//! ```
//! Whoever commits does all of this itself, if nothing comes in between.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use terrane_wal::env::{Env, Joiner, Waiter};
use terrane_wal::sync::{AtomicBool, Ordering};

use super::Places;
use crate::error::{Error, ErrorKind, Result};
use crate::local::Local;
use crate::txn::prepared::{Dtid, Pending};
use crate::txn::two_phase::{self, Decision};

/// How often it looks.
const TICK: Duration = Duration::from_millis(250);
/// How long a transaction is left to who began it.
const LEFT_ALONE: Duration = Duration::from_secs(1);

/// The thread, ended when dropped.
pub(super) struct Resolver {
    joiner: Option<Box<dyn Joiner>>,
    stop: Arc<AtomicBool>,
    waiter: Arc<dyn Waiter>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl Resolver {
    /// Starts it for these shards.
    ///
    /// # Errors
    /// `Io` if the system gives no thread.
    pub(super) fn start(env: &Env, places: &Arc<Places>, shards: u32) -> Result<Resolver> {
        let stop = Arc::new(AtomicBool::new(false));
        let waiter = env.park.waiter();
        let round = Round {
            env: env.clone(),
            places: Arc::clone(places),
            shards,
        };
        let body = {
            let (stop, waiter) = (Arc::clone(&stop), Arc::clone(&waiter));
            move || {
                while !stop.load(Ordering::Acquire) {
                    round.run();
                    waiter.park_timeout(TICK);
                }
            }
        };
        let started = env.spawn.spawn("terrane-resolver", Box::new(body));
        let joiner = started.map_err(|error| {
            Error::new(ErrorKind::Io, "a thread of a cluster cannot be started").caused_by(error)
        })?;
        Ok(Resolver {
            joiner: Some(joiner),
            stop,
            waiter,
        })
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.waiter.unpark();
        if let Some(joiner) = self.joiner.take() {
            // What it had not done, the next one does.
            let _ = joiner.join();
        }
    }
}

struct Round {
    env: Env,
    places: Arc<Places>,
    shards: u32,
}

impl Round {
    fn run(&self) {
        for shard in 0..self.shards {
            let Some(local) = self.leader(shard) else {
                continue;
            };
            for pending in local.core().prepared.all() {
                let age = local.core().now().saturating_sub(pending.since);
                if age >= LEFT_ALONE {
                    // A leader that is lost in between, or a full disk: the next round.
                    let _ = self.resolve(shard, &local, &pending);
                }
            }
            let _ = self.forget(&local);
        }
    }

    fn leader(&self, shard: u32) -> Option<Local> {
        let (_, host) = self.places.leader_of(shard)?;
        Some(Local::detached(&host.core()?))
    }

    /// Does what was decided.
    fn resolve(&self, shard: u32, local: &Local, pending: &Arc<Pending>) -> Result<()> {
        let Some(coordinator) = self.leader(pending.dtid.coordinator) else {
            return Ok(());
        };
        let asked = match terrane_wal::planted!("a_shard_gives_up_by_itself") {
            true => Some(Decision::Abort(shard)),
            false => two_phase::ask(&coordinator, pending.dtid, shard)?,
        };
        let commit = match asked {
            None => return Ok(()),
            Some(Decision::Commit(ts, _)) => Some(ts),
            Some(Decision::Abort(_)) => None,
        };
        two_phase::decide(local, pending, commit).map(|_| ())
    }

    /// Forgets decisions that everybody has heard.
    fn forget(&self, local: &Local) -> Result<()> {
        for (dtid, decision) in two_phase::decisions(local)? {
            let young = match &decision {
                Decision::Commit(ts, _) => {
                    let decided = Duration::from_millis(ts.ms());
                    self.env.clock.now_wall().saturating_sub(decided) < LEFT_ALONE
                }
                Decision::Abort(_) => false,
            };
            if !young && self.have_heard(dtid, &decision)? {
                two_phase::forget(local, dtid)?;
            }
        }
        Ok(())
    }

    fn have_heard(&self, dtid: Dtid, decision: &Decision) -> Result<bool> {
        for shard in decision.told() {
            match self.leader(*shard) {
                Some(local) if two_phase::is_through(&local, dtid)? => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }
}
