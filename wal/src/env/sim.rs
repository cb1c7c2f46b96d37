//! The simulated environment: clock, randomness, threads and waiting that replay from one seed,
//! over the simulated disk.
//!
//! [`SimEnv::new`] makes the calling thread logical thread 0; threads started through its [`Env`]
//! are the others. The environment must outlive what runs in it: dropping it is a power cut for
//! threads, and those that still wait unwind.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::baton::{Baton, Point, ThreadId};
use super::{Env, Joiner, Park, Spawn, SystemRng, Waiter};
use crate::clock::Clock;
use crate::io::sim::SimDisk;
use crate::waits::assert_may_wait;

/// A clock that stands until it is moved: by scheduling points, or by a test.
#[derive(Debug)]
pub struct SimClock {
    mono_ns: AtomicU64,
    /// Wall time minus monotonic time, wrapping: so a jump moves the wall alone.
    offset_ns: AtomicU64,
}

/// Wall time at which a simulated clock starts: 2026-01-01.
const WALL_START_MS: u64 = 1_767_225_600_000;

impl SimClock {
    /// A clock at monotonic time zero, on 2026-01-01.
    #[must_use]
    pub fn new() -> SimClock {
        SimClock {
            mono_ns: AtomicU64::new(0),
            offset_ns: AtomicU64::new(WALL_START_MS * 1_000_000),
        }
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.mono_ns.fetch_add(nanos(by), Ordering::Relaxed);
    }

    /// Sets the wall clock, forward or back; monotonic time goes on as if nothing had happened.
    pub fn jump_wall(&self, to: Duration) {
        let mono = self.mono_ns.load(Ordering::Relaxed);
        let offset = nanos(to).wrapping_sub(mono);
        self.offset_ns.store(offset, Ordering::Relaxed);
    }
}

impl Default for SimClock {
    fn default() -> SimClock {
        SimClock::new()
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Clock for SimClock {
    fn now_mono(&self) -> Duration {
        Duration::from_nanos(self.mono_ns.load(Ordering::Relaxed))
    }

    fn now_wall(&self) -> Duration {
        let mono = self.mono_ns.load(Ordering::Relaxed);
        let wall = mono.wrapping_add(self.offset_ns.load(Ordering::Relaxed));
        Duration::from_nanos(wall)
    }
}

/// Threads that run by turns.
#[derive(Clone, Debug)]
pub struct SimSpawn(Arc<Baton>);

struct SimJoiner {
    baton: Arc<Baton>,
    id: ThreadId,
}

impl Joiner for SimJoiner {
    fn join(self: Box<Self>) -> Result<(), String> {
        self.baton.join(self.id)
    }
}

impl Spawn for SimSpawn {
    fn spawn(
        &self,
        name: &str,
        body: Box<dyn FnOnce() + Send + 'static>,
    ) -> std::io::Result<Box<dyn Joiner>> {
        let id = self.0.start(name, body)?;
        let baton = Arc::clone(&self.0);
        Ok(Box::new(SimJoiner { baton, id }))
    }
}

/// Waiting that passes the baton.
#[derive(Clone, Debug)]
pub struct SimPark(Arc<Baton>);

struct SimWaiter {
    baton: Arc<Baton>,
    state: Mutex<WaiterState>,
}

#[derive(Debug, Default)]
struct WaiterState {
    set: bool,
    parked: Option<ThreadId>,
}

impl fmt::Debug for SimWaiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimWaiter({:?})", *self.state.lock())
    }
}

impl SimWaiter {
    fn wait(&self, timeout: Option<Duration>) -> bool {
        let until = timeout.map(|timeout| self.baton.deadline(timeout));
        self.baton.point(Point::Park);
        loop {
            let me = self.baton.parking();
            {
                let mut state = self.state.lock();
                if std::mem::take(&mut state.set) {
                    return true;
                }
                let other = state.parked.replace(me);
                assert!(other.is_none(), "two threads wait at one waiter");
            }
            let woken = self.baton.park(until);
            let mut state = self.state.lock();
            state.parked = None;
            // A stopped environment wakes everybody; so does the end of the time.
            if !woken || self.baton.has_stopped() {
                return std::mem::take(&mut state.set);
            }
        }
    }
}

impl Waiter for SimWaiter {
    fn park(&self) {
        assert_may_wait();
        self.wait(None);
    }

    fn park_timeout(&self, timeout: Duration) -> bool {
        assert_may_wait();
        self.wait(Some(timeout))
    }

    fn unpark(&self) {
        let parked = {
            let mut state = self.state.lock();
            state.set = true;
            state.parked
        };
        if let Some(id) = parked {
            self.baton.wake(id);
        }
        self.baton.point(Point::Unpark);
    }
}

impl Park for SimPark {
    fn waiter(&self) -> Arc<dyn Waiter> {
        Arc::new(SimWaiter {
            baton: Arc::clone(&self.0),
            state: Mutex::default(),
        })
    }

    fn yield_now(&self) {
        self.0.point(Point::Yield);
    }
}

/// One simulated world: all that a seed decides.
#[derive(Debug)]
pub struct SimEnv {
    seed: u64,
    baton: Arc<Baton>,
    clock: Arc<SimClock>,
    rng: Arc<SystemRng>,
    disk: SimDisk,
}

impl SimEnv {
    /// A world with an empty disk. The calling thread becomes its logical thread 0.
    #[must_use]
    pub fn new(seed: u64) -> SimEnv {
        SimEnv::with_disk(seed, SimDisk::seeded(seed))
    }

    /// A world over a disk that is there already, such as a crash image.
    #[must_use]
    pub fn with_disk(seed: u64, disk: SimDisk) -> SimEnv {
        let clock = Arc::new(SimClock::new());
        let baton = Baton::new(seed, Arc::clone(&clock));
        disk.attach(Some(Arc::clone(&baton)));
        SimEnv {
            seed,
            baton,
            clock,
            rng: Arc::new(SystemRng::seeded(seed)),
            disk,
        }
    }

    /// What the code under test receives.
    #[must_use]
    pub fn env(&self) -> Env {
        Env {
            disk: Arc::new(self.disk.clone()),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            rng: Arc::clone(&self.rng) as Arc<dyn super::Rng>,
            spawn: Arc::new(SimSpawn(Arc::clone(&self.baton))),
            park: Arc::new(SimPark(Arc::clone(&self.baton))),
        }
    }

    /// What the code under test receives on another machine of this world, with a disk of its own.
    #[must_use]
    pub fn env_on(&self, disk: &SimDisk) -> Env {
        disk.attach(Some(Arc::clone(&self.baton)));
        Env {
            disk: Arc::new(disk.clone()),
            ..self.env()
        }
    }

    /// The seed: print it where a failure must replay.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The disk.
    #[must_use]
    pub fn disk(&self) -> &SimDisk {
        &self.disk
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &SimClock {
        &self.clock
    }

    /// Makes every mutex of [`crate::sync`] a scheduling point. Finer interleavings; code that
    /// spins without yielding while another thread holds a latch and enters a mutex would hang.
    pub fn preempt_at_locks(&self, on: bool) {
        self.baton.set_preempt_at_locks(on);
    }

    /// Stops with a panic after so many scheduling points: the end of a livelock.
    pub fn set_steps_max(&self, steps_max: u64) {
        self.baton.set_steps_max(steps_max);
    }

    /// Lets the other threads run until none of them could go on without time passing.
    pub fn settle(&self) {
        self.baton.settle();
    }

    /// Scheduling points passed.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.baton.steps()
    }

    /// Hash of every decision of the scheduler and every call on the disk: equal for two runs of
    /// one seed, or something in between was not deterministic.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.baton.trace().rotate_left(1) ^ self.disk.trace_hash()
    }
}

impl Drop for SimEnv {
    fn drop(&mut self) {
        self.disk.attach(None);
        self.baton.stop("the environment was dropped");
    }
}

#[cfg(test)]
mod tests;
