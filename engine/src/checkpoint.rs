//! Checkpoints: when one begins, what it is told of the log, and what may be trimmed after it.
//!
//! The checkpoint itself is btree's (storage.md 6.2); here it is driven step by step, by the
//! background thread, by `close` and by tests. No commit ever waits for one.

use std::sync::Arc;
use std::time::Duration;

use terrane_btree::{Checkpoint, LogView, Step};
use terrane_wal::lsn::{Lsn, Term, Ts};

use crate::error::Result;
#[cfg(feature = "sim")]
use crate::error::{Error, ErrorKind};
use crate::metrics::count;
use crate::runtime::Core;
use crate::runtime::standing::Standing;
use crate::runtime::worker::Due;

/// With writes, a checkpoint begins at the latest after this time.
const INTERVAL: Duration = Duration::from_secs(15);
/// With this much log since the last one, a checkpoint begins at once.
const LOG_BYTES_MAX: u64 = 256 << 20;
/// Pause after an abandoned checkpoint.
const PAUSE: Duration = Duration::from_millis(500);
/// Steps of a checkpoint in one step of the background thread.
const BATCH: usize = 16;

/// The checkpoint under way, and what is known of the last one.
#[derive(Debug, Default)]
pub(crate) struct Checkpointer {
    running: Option<Box<Checkpoint>>,
    /// Somebody has the running one in hand.
    busy: bool,
    /// Where the log stood when the last one was published.
    published: Lsn,
    last: Duration,
}

/// What a checkpoint sees of the log and of the commits in flight.
struct View {
    core: Arc<Core>,
    clean: bool,
}

impl LogView for View {
    fn redo_lsn(&self) -> Lsn {
        // The prefix first: a commit that leaves it has put its unapplied rows there before.
        let prefix = self.core.prefix.redo_lsn();
        self.core
            .unapplied
            .redo_lsn()
            .map_or(prefix, |waiting| waiting.min(prefix))
    }

    fn image_hi(&self) -> (Lsn, Ts, Term) {
        match &self.core.log {
            // A log may go on behind what its trees follow.
            Some(log) if self.core.standing.is_some() => {
                let (lsn, ts) = self.core.prefix.newest_entered();
                (lsn, ts, log.point_at(lsn).term.max(Term::FIRST))
            }
            Some(log) => {
                let (lsn, ts) = log.positions().sequenced;
                // Nothing may have been sequenced since the open.
                (lsn, ts.max(self.core.prefix.applied_ts()), Term::FIRST)
            }
            None => (
                self.core.prefix.applied().0,
                self.core.prefix.applied_ts(),
                Term::FIRST,
            ),
        }
    }

    fn safe_lsn(&self) -> Lsn {
        match &self.core.log {
            // M1, I5: an image never holds what is not committed.
            Some(log) => match terrane_wal::planted!("images_of_what_is_not_committed") {
                true => log.durable_lsn(),
                false => log.durable_lsn().min(log.commit_lsn()),
            },
            None => self.core.prefix.applied().0,
        }
    }

    fn nudge(&self) {
        if let Some(log) = &self.core.log {
            log.tick();
        }
    }

    fn clock_bound(&self) -> u64 {
        self.core.log.as_ref().map_or(0, |log| log.last_ts().0)
    }

    fn clean_shutdown(&self) -> bool {
        self.clean
    }
}

impl Checkpointer {
    /// True if one should begin now.
    fn is_due(&self, core: &Core, now: Duration) -> bool {
        let sequenced = core
            .log
            .as_ref()
            .map_or(Lsn::ZERO, |log| log.positions().sequenced.0);
        let log_bytes = sequenced.0.saturating_sub(self.published.0);
        if log_bytes == 0 {
            return false;
        }
        log_bytes >= LOG_BYTES_MAX
            || now.saturating_sub(self.last) >= INTERVAL
            || core.store.dirty_estimate().due
    }
}

/// A bounded step: begins a checkpoint if one is due, or goes on with the one under way.
pub(crate) fn step(core: &Arc<Core>) -> Due {
    let now = core.now();
    let mut running = {
        let mut state = core.checkpointer.lock();
        if state.busy || (state.running.is_none() && !state.is_due(core, now)) {
            return Due::Later;
        }
        state.busy = true;
        state.running.take()
    };
    let outcome = drive(core, &mut running, false, BATCH);
    let mut state = core.checkpointer.lock();
    state.busy = false;
    state.running = running;
    match outcome {
        Ok(Step::Working) => Due::Now,
        Ok(Step::Waiting) => Due::Soon,
        Ok(Step::Done(_)) => {
            ended(core, &mut state, now);
            Due::Now
        }
        Err(_) => {
            count(&core.counters.checkpoints_failed);
            state.running = None;
            // As if it had been a while ago, so that the next attempt comes after a pause.
            state.last = (now + PAUSE).saturating_sub(INTERVAL);
            Due::Later
        }
    }
}

/// A store that can publish nothing any more would let the log grow without end, so nothing more is
/// committed into it. What was committed is in the log.
fn poison_with_store(core: &Core) {
    if let Some(cause) = core.store.poisoned() {
        core.poison(format!("a checkpoint could not be made durable: {cause}"));
    }
}

/// Notes a published checkpoint.
fn ended(core: &Core, state: &mut Checkpointer, now: Duration) {
    state.last = now;
    state.published = core
        .log
        .as_ref()
        .map_or(Lsn::ZERO, |log| log.positions().durable.0);
}

/// Some steps of a checkpoint, which is begun if there is none; trims the log after the last. All
/// errors of checkpoints end here.
fn drive(
    core: &Arc<Core>,
    running: &mut Option<Box<Checkpoint>>,
    clean: bool,
    steps: usize,
) -> Result<Step> {
    let driven = advance(core, running, clean, steps);
    if driven.is_err() {
        poison_with_store(core);
    }
    driven
}

fn advance(
    core: &Arc<Core>,
    running: &mut Option<Box<Checkpoint>>,
    clean: bool,
    steps: usize,
) -> Result<Step> {
    let checkpoint = match running {
        Some(checkpoint) => checkpoint,
        None => {
            let view = Arc::new(View {
                core: core.clone(),
                clean,
            });
            running.insert(Box::new(core.store.begin_checkpoint(view)?))
        }
    };
    for _ in 0..steps {
        match checkpoint.step()? {
            Step::Working => {}
            Step::Waiting => return Ok(Step::Waiting),
            Step::Done(published) => {
                *running = None;
                if let Some(log) = &core.log {
                    let standing = core.standing.as_ref();
                    let keep = standing.map_or(Lsn(u64::MAX), Standing::kept_from);
                    log.trim(published.older_redo_lsn.min(keep))?;
                }
                return Ok(Step::Done(published));
            }
        }
    }
    Ok(Step::Working)
}

/// Publishes a checkpoint that holds everything committed before the call. Waits.
///
/// # Errors
/// What made the checkpoint fail; the older images stay.
pub(crate) fn now(core: &Arc<Core>, clean: bool) -> Result<()> {
    let waiter = core.env.park.waiter();
    // One that is under way may have begun too early: it is finished first, by whoever has it.
    let mut running = loop {
        let mut state = core.checkpointer.lock();
        if !state.busy {
            state.busy = true;
            break state.running.take();
        }
        drop(state);
        waiter.park_timeout(Duration::from_millis(1));
    };
    let mut early = running.is_some();
    let outcome = loop {
        match drive(core, &mut running, clean && !early, BATCH) {
            Ok(Step::Done(_)) if early => early = false,
            Ok(Step::Done(_)) => break Ok(()),
            Ok(Step::Working) => {}
            Ok(Step::Waiting) => {
                // M1: what the log will never make durable is never published.
                if let Some(cause) = core.log.as_ref().and_then(|log| log.poisoned()) {
                    break Err((*cause).clone().into());
                }
                // Nor what another leader may have decided against.
                if let Err(error) = core.check_shown() {
                    break Err(error);
                }
                waiter.park_timeout(Duration::from_millis(1));
            }
            Err(error) => break Err(error),
        }
    };
    let mut state = core.checkpointer.lock();
    state.busy = false;
    state.running = None;
    if outcome.is_ok() {
        ended(core, &mut state, core.now());
    }
    outcome
}

/// One step of the checkpoint under way, or of a new one. True when it is published.
///
/// # Errors
/// What made the checkpoint fail; `Locked` if somebody else has it in hand.
#[cfg(feature = "sim")]
pub(crate) fn single_step(core: &Arc<Core>) -> Result<bool> {
    let mut running = {
        let mut state = core.checkpointer.lock();
        if state.busy {
            return Err(Error::new(ErrorKind::Locked, "a checkpoint is under way"));
        }
        state.busy = true;
        state.running.take()
    };
    let outcome = drive(core, &mut running, false, 1);
    let mut state = core.checkpointer.lock();
    state.busy = false;
    state.running = running.filter(|_| outcome.is_ok());
    match outcome? {
        Step::Done(_) => {
            ended(core, &mut state, core.now());
            Ok(true)
        }
        Step::Working | Step::Waiting => Ok(false),
    }
}

/// Drops a checkpoint that is under way.
pub(crate) fn abandon(core: &Core) {
    let running = core.checkpointer.lock().running.take();
    drop(running);
}
