//! The four doors through which the world enters: disk, clock, randomness, threads and waiting.
//!
//! Engine builds one [`Env`] and hands it down. Every wait in wal, btree and engine is a
//! [`Waiter::park`]; in simulation the same calls pass the baton between logical threads, so that
//! an interleaving of the real code replays from a seed.

#[cfg(all(feature = "sim", not(loom)))]
mod baton;
#[cfg(all(feature = "sim", not(loom)))]
mod sim;
mod system;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::io::{BackendChoice, Disk, DiskOptions, IoError, Notice, open_disk};

#[cfg(all(feature = "sim", not(loom)))]
pub(crate) use baton::{Baton, Point, lock_by_turns};
#[cfg(all(feature = "sim", not(loom)))]
pub use sim::{SimClock, SimEnv, SimPark, SimSpawn};
pub use system::{SystemPark, SystemRng, SystemSpawn};
#[cfg(all(feature = "sim", not(loom)))]
pub(crate) use system::{Xoshiro, panic_message};

/// Random numbers. Object-safe, shared; implementations lock or use per-stream state.
pub trait Rng: Send + Sync + fmt::Debug {
    /// The next 64 random bits of the named sub-stream: a draw in one stream shifts no other.
    fn next_u64(&self, stream: &'static str) -> u64;
}

/// A started thread.
pub trait Joiner: Send {
    /// Waits for the thread to end. `Err` carries the panic message if it panicked.
    fn join(self: Box<Self>) -> Result<(), String>;
}

/// Starts threads. Only engine calls it on its own account; wal and btree receive it.
pub trait Spawn: Send + Sync + fmt::Debug {
    /// Runs `body` on a new thread called `name`, which may give way to others.
    fn spawn(
        &self,
        name: &str,
        body: Box<dyn FnOnce() + Send + 'static>,
    ) -> std::io::Result<Box<dyn Joiner>>;
}

/// One place to wait at: a token that [`Waiter::unpark`] sets and [`Waiter::park`] takes.
///
/// `unpark` before `park` makes that `park` return at once; several `unpark`s count as one.
pub trait Waiter: Send + Sync + fmt::Debug {
    /// Waits until the token is set, then takes it.
    fn park(&self);

    /// As `park`, at most for `timeout`. Returns false if the time ran out.
    fn park_timeout(&self, timeout: Duration) -> bool;

    /// Sets the token and wakes the thread that waits for it.
    fn unpark(&self);
}

/// Makes waiters, and is the one owner of blocking.
pub trait Park: Send + Sync + fmt::Debug {
    /// A new waiter whose token is not set. Cheap: engine keeps one per thread and commit.
    fn waiter(&self) -> Arc<dyn Waiter>;

    /// Lets other threads run; a scheduling point in simulation.
    fn yield_now(&self);
}

/// All of the outside, handed down from engine.
#[derive(Clone, Debug)]
pub struct Env {
    /// Files and batches of I/O.
    pub disk: Arc<dyn Disk>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
    /// Threads.
    pub spawn: Arc<dyn Spawn>,
    /// Waiting.
    pub park: Arc<dyn Park>,
}

impl Env {
    /// The real world: the disk of this machine with the backend chosen, the system's clock,
    /// threads and waiting, randomness seeded by the kernel. The notice says why the ring was not
    /// taken, if it was asked for and refused.
    pub fn system(choice: BackendChoice) -> Result<(Env, Option<Notice>), IoError> {
        Env::system_with(&DiskOptions::new(choice), SystemRng::from_kernel())
    }

    /// As [`Env::system`], with all options of the disk and randomness from the caller.
    pub fn system_with(
        options: &DiskOptions,
        rng: SystemRng,
    ) -> Result<(Env, Option<Notice>), IoError> {
        let spawn: Arc<dyn Spawn> = Arc::new(SystemSpawn);
        let park: Arc<dyn Park> = Arc::new(SystemPark);
        let (disk, notice) = open_disk(&spawn, &park, options)?;
        let env = Env {
            disk,
            clock: Arc::new(SystemClock::new()),
            rng: Arc::new(rng),
            spawn,
            park,
        };
        Ok((env, notice))
    }
}
