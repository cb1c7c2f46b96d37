//! What is done to a member's trees: they follow the log, come to be led by commits here, are made
//! again, and are kept up in the background. One thread of a node does it for all of its members,
//! in bounded steps.

use std::sync::Arc;
use std::time::Duration;

use terrane_wal::lsn::Lsn;
use terrane_wal::sync::Ordering;

use super::host::Host;
use crate::error::ErrorKind;
use crate::recovery;
use crate::replica::Follower;
use crate::runtime::Core;
use crate::runtime::worker::{DEVICE_PAUSE, Due, TICK, round, tick};

/// The trees of one member, in the hand of the thread that sees to them.
#[derive(Debug)]
pub(super) struct Tending {
    host: Arc<Host>,
    core: Option<Arc<Core>>,
    follower: Option<Follower>,
    /// Admission is closed.
    held: bool,
    /// The log is ticked again then.
    tick_at: Duration,
    /// The next round of upkeep, and of other background work.
    round_at: Duration,
}

impl Tending {
    pub(super) fn of(host: &Arc<Host>) -> Tending {
        let core = host.core();
        Tending {
            host: Arc::clone(host),
            follower: core.as_ref().map(Follower::of),
            core,
            held: false,
            tick_at: Duration::ZERO,
            round_at: Duration::ZERO,
        }
    }

    /// One bounded step.
    pub(super) fn step(&mut self) -> Due {
        let mut reopen = std::mem::take(&mut self.host.work.lock().reopen);
        if reopen && terrane_wal::planted!("trees_of_a_deposed_leader_stay") {
            reopen = false;
            self.stay();
        }
        if reopen && self.host.failure().is_none() {
            self.let_go();
            (self.core, self.follower) = (None, None);
            match self.host.reopen() {
                Ok(core) => {
                    self.follower = Some(Follower::of(&core));
                    self.core = Some(core);
                    self.report();
                }
                Err(error) => self.host.fail(error),
            }
        }
        let Some(core) = self.core.clone() else {
            return Due::Later;
        };
        let following = self.follow();
        self.serve(&core);
        self.admit(&core);
        following.max(self.keep_up(&core))
    }

    /// The background work of trees, not at every commit that comes by.
    fn keep_up(&mut self, core: &Arc<Core>) -> Due {
        let now = core.now();
        // What nobody waits for goes to the disk, also while admission is closed: who takes over
        // must have it.
        if now >= self.tick_at {
            self.tick_at = now + TICK;
            tick(core);
        }
        // Upkeep commits, and would wait for admission that only this thread opens again.
        if self.held || now < self.round_at {
            return Due::Later;
        }
        let due = round(core);
        self.round_at = match due {
            Due::Now => now,
            Due::Soon => now + DEVICE_PAUSE,
            Due::Later => now + TICK,
        };
        due
    }

    /// Applies what is committed, unless commits here do that themselves.
    fn follow(&mut self) -> Due {
        let unable = self.host.unable.load(Ordering::Relaxed);
        let Some(follower) = self.follower.as_mut().filter(|_| !unable) else {
            return Due::Later;
        };
        let before = follower.applied();
        let outcome = follower.step();
        let advanced = follower.applied() > before;
        if advanced {
            self.report();
        }
        match outcome {
            Ok(more) => more.into(),
            // Until write-out has made room.
            Err(error) if error.kind() == ErrorKind::Full => Due::Soon,
            Err(_) => {
                // It goes on acknowledging, and does not come to lead.
                self.host.unable.store(true, Ordering::Release);
                self.host.call_node();
                Due::Later
            }
        }
    }

    /// The mistake that is planted: what may not have been committed stays in the trees.
    fn stay(&mut self) {
        if let Some(core) = &self.core
            && let Some(standing) = &core.standing
        {
            standing.follow();
            self.follower = Some(Follower::of(core));
        }
    }

    fn report(&self) {
        let applied = self.follower.as_ref().map_or(Lsn::ZERO, Follower::applied);
        self.host.applied.store(applied.0, Ordering::Release);
        self.host.call_node();
    }

    /// Takes commits, once all that was there before is applied.
    fn serve(&mut self, core: &Arc<Core>) {
        let Some((term, at)) = self.host.work.lock().serve else {
            return;
        };
        let behind = self
            .follower
            .as_ref()
            .is_some_and(|follower| follower.applied() < at);
        if behind || self.host.unable.load(Ordering::Relaxed) {
            return;
        }
        // What is in memory beside the trees is derived from them again.
        if recovery::lead(core).is_err() {
            self.host.unable.store(true, Ordering::Release);
            self.host.call_node();
            return;
        }
        let mut work = self.host.work.lock();
        if work.serve.take() == Some((term, at))
            && let Some(standing) = &core.standing
        {
            standing.lead(term);
            self.follower = None;
        }
    }

    /// Opens or closes admission.
    fn admit(&mut self, core: &Core) {
        let hold = self.host.work.lock().hold;
        if hold && !self.held && core.standing.as_ref().is_some_and(|s| s.leads().is_some()) {
            core.gate.hold();
            self.held = true;
            self.host.drained.store(true, Ordering::Release);
            self.host.call_node();
        } else if !hold {
            self.let_go();
        }
    }

    fn let_go(&mut self) {
        if std::mem::take(&mut self.held)
            && let Some(core) = &self.core
        {
            core.gate.release();
        }
    }
}

impl Drop for Tending {
    fn drop(&mut self) {
        self.let_go();
    }
}
