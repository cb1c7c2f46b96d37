//! The one background thread: ticker, collector, upkeep of vector indexes, checkpoints, eviction
//! ahead of demand.
//!
//! Each of them is a bounded step that anybody may call, so that a test drives all of it without
//! the thread. Nobody's liveness rests on the ticker: it only flushes what nobody waits for.

use std::sync::Arc;
use std::time::Duration;

use terrane_btree::Progress;
use terrane_wal::env::{Joiner, Waiter};
use terrane_wal::sync::{AtomicBool, Mutex, Ordering};

use crate::checkpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::index::vector::maintain;
use crate::runtime::Core;
use crate::txn::sweep;

/// The pause between two rounds when there is nothing to do, and between two ticks of the log.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// The pause while a checkpoint waits for the device: about two of its writes.
pub(crate) const DEVICE_PAUSE: Duration = Duration::from_micros(200);

/// When the next round is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// After the tick: there is nothing to do.
    Later,
    /// When the device has done what it was asked for.
    Soon,
    /// At once: there is more to do.
    Now,
}

impl From<bool> for Due {
    fn from(more: bool) -> Due {
        if more { Due::Now } else { Due::Later }
    }
}

/// One round of all background work, with what the ticker does.
#[cfg(feature = "sim")]
pub(crate) fn step(core: &Arc<Core>) -> Due {
    tick(core);
    round(core)
}

/// Has the log do what nobody waits for. Once in a [`TICK`] and no more: a flush takes the device
/// and a flight, and upkeep alone leaves something to flush after every round.
pub(crate) fn tick(core: &Core) {
    if let Some(log) = &core.log {
        log.tick();
    }
}

pub(crate) fn round(core: &Arc<Core>) -> Due {
    let sweeping = sweep::step(core);
    core.unapplied.retry(core);
    let keeping_up = maintain::step(core);
    let checkpointing = checkpoint::step(core);
    // An error of write-out is met again by who needs the frame, and by the next round.
    let evicting = matches!(core.store.background_step(), Ok(Progress::More));
    checkpointing
        .max(keeping_up)
        .max((sweeping || evicting).into())
}

/// The thread, from outside.
pub(crate) struct Worker {
    stop: Arc<AtomicBool>,
    waiter: Arc<dyn Waiter>,
    joiner: Mutex<Option<Box<dyn Joiner>>>,
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// `Io` if the system gives no thread.
    pub(crate) fn start(core: &Arc<Core>) -> Result<Worker> {
        let stop = Arc::new(AtomicBool::new(false));
        let waiter = core.env.park.waiter();
        let body = {
            let (core, stop, waiter) = (core.clone(), stop.clone(), waiter.clone());
            move || {
                let mut next_tick = Duration::ZERO;
                while !stop.load(Ordering::Acquire) {
                    let now = core.env.clock.now_mono();
                    if now >= next_tick {
                        tick(&core);
                        next_tick = now + TICK;
                    }
                    let pause = match round(&core) {
                        Due::Now => continue,
                        Due::Soon => DEVICE_PAUSE,
                        Due::Later => TICK,
                    };
                    waiter.park_timeout(pause);
                }
            }
        };
        let joiner = core
            .env
            .spawn
            .spawn("terrane", Box::new(body))
            .map_err(|error| {
                Error::new(ErrorKind::Io, "no background thread can be started").caused_by(error)
            })?;
        Ok(Worker {
            stop,
            waiter,
            joiner: Mutex::new(Some(joiner)),
        })
    }

    /// Ends the thread and waits for it. A second call does nothing.
    pub(crate) fn stop(&self, core: &Core) {
        self.stop.store(true, Ordering::Release);
        self.waiter.unpark();
        let joiner = self.joiner.lock().take();
        if let Some(Err(panic)) = joiner.map(Joiner::join) {
            core.poison(format!("the background thread panicked: {panic}"));
        }
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Worker")
    }
}
