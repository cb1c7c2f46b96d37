//! Batches by io_uring: five times cheaper per operation than a call each, worthless for one
//! operation alone, so lone reads and writes stay with `preadv2` and `pwritev2`.
//!
//! A batch that has something to submit takes a ring from the pool, keeps it while anything is in
//! flight, and gives it back. So a ring has one owner at a time, needs no lock, and no batch waits
//! for another. Where all pooled rings are out, one more is made and closed after use; where the
//! kernel refuses that one, the batch is served by blocking calls.
//!
//! Invariants: R1 a request's buffer and file belong to the ring from its submission entry to its
//! completion entry; R2 at most [`ENTRIES`] operations are in flight on a ring, half of what its
//! completion queue holds, so that queue never overflows.

mod ring;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use self::ring::Ring;
use super::syscall::{failed, serve, sys_file};
use super::system::{DiskOptions, Machinery, SystemDisk};
use super::{Backend, Batch, Completion, IoError, IoStats, Purpose, Request};

/// Operations that one ring takes at a time.
pub(super) const ENTRIES: u32 = 128;

/// Rings kept for the next batch: one per core, never more than this.
const RINGS_KEPT_MAX: usize = 4;

/// The disk of this machine with batches by rings.
pub type RingDisk = SystemDisk<Rings>;

impl RingDisk {
    /// A disk with rings, or the error with which the kernel refuses them: EPERM (a sandbox, or
    /// `io_uring_disabled`), ENOSYS, ENOMEM, or Unsupported if an operation is missing.
    pub fn open(options: &DiskOptions) -> Result<RingDisk, IoError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let rings = Rings {
            idle: Arc::new(Idle {
                rings: Mutex::new(Vec::new()),
                keep: cores.min(RINGS_KEPT_MAX),
                make: Ring::new,
            }),
        };
        let first = match options.ring_refusal {
            Some(errno) => Err(std::io::Error::from_raw_os_error(errno)),
            None => Ring::new(),
        };
        let first = first.map_err(|error| failed("io_uring_setup", Path::new(""), error))?;
        rings.idle.give(first);
        Ok(SystemDisk::over(rings, options))
    }
}

/// The pool of rings.
#[derive(Debug)]
pub struct Rings {
    idle: Arc<Idle>,
}

#[derive(Debug)]
struct Idle {
    rings: Mutex<Vec<Ring>>,
    keep: usize,
    /// Asks the kernel for one more.
    make: fn() -> std::io::Result<Ring>,
}

impl Idle {
    fn take(&self) -> std::io::Result<Ring> {
        let pooled = self.rings.lock().pop();
        pooled.map_or_else(self.make, Ok)
    }

    fn give(&self, ring: Ring) {
        assert_eq!(ring.in_flight(), 0, "R1: a ring goes back idle");
        let mut rings = self.rings.lock();
        if rings.len() < self.keep && ring.is_sound() {
            rings.push(ring);
        }
    }
}

impl Machinery for Rings {
    fn backend(&self) -> Backend {
        Backend::Uring
    }

    fn batch(&self, purpose: Purpose, stats: Arc<IoStats>) -> Box<dyn Batch> {
        Box::new(RingBatch {
            idle: Arc::clone(&self.idle),
            ring: None,
            pushed: Vec::new(),
            queued: VecDeque::new(),
            done: Vec::new(),
            purpose,
            stats,
        })
    }
}

#[derive(Debug)]
struct RingBatch {
    idle: Arc<Idle>,
    ring: Option<Ring>,
    pushed: Vec<Request>,
    /// Submitted, but the ring had no room yet.
    queued: VecDeque<Request>,
    done: Vec<Completion>,
    purpose: Purpose,
    stats: Arc<IoStats>,
}

impl RingBatch {
    /// Moves what fits from the queue to the ring, and tells the kernel; with `wait`, also waits
    /// for one completion.
    fn pump(&mut self, wait: bool) {
        if self.ring.is_none() && !self.queued.is_empty() {
            self.ring = self.idle.take().ok();
        }
        let Some(ring) = &mut self.ring else {
            // No ring to be had: every request is served where it stands.
            self.done.extend(self.queued.drain(..).map(serve));
            return;
        };
        while ring.has_room()
            && let Some(request) = self.queued.pop_front()
        {
            match sys_file(&*request.file, request.offset, &request.op) {
                Ok(_) => ring.begin(request),
                Err(error) => self.done.push(Completion {
                    token: request.token,
                    result: Err(error),
                    buf: request.op.into_buf(),
                }),
            }
        }
        // A request that was refused above is a completion already: no need to wait for another.
        ring.enter(wait && self.done.is_empty() && ring.in_flight() > 0);
        ring.reap(&mut self.done);
        if ring.in_flight() == 0
            && self.queued.is_empty()
            && let Some(ring) = self.ring.take()
        {
            self.idle.give(ring);
        }
    }

    fn take_done(&mut self) -> Vec<Completion> {
        let count = &self.stats.batched[self.purpose as usize];
        count.fetch_add(self.done.len() as u64, Ordering::Relaxed);
        std::mem::take(&mut self.done)
    }

    fn started(&self) -> usize {
        let in_ring = self.ring.as_ref().map_or(0, Ring::in_flight);
        self.queued.len() + in_ring + self.done.len()
    }
}

impl Batch for RingBatch {
    fn push(&mut self, request: Request) {
        self.pushed.push(request);
    }

    fn submit(&mut self) {
        self.queued.extend(self.pushed.drain(..));
        if !self.queued.is_empty() {
            self.pump(false);
        }
    }

    fn in_flight(&self) -> usize {
        self.pushed.len() + self.started()
    }

    fn poll(&mut self) -> Vec<Completion> {
        if self.ring.is_some() {
            self.pump(false);
        }
        self.take_done()
    }

    fn wait(&mut self) -> Vec<Completion> {
        // Handing in and waiting are one call to the kernel.
        self.queued.extend(self.pushed.drain(..));
        while self.done.is_empty() && self.started() > 0 {
            self.pump(true);
        }
        self.take_done()
    }
}

impl Drop for RingBatch {
    fn drop(&mut self) {
        // What never reached the kernel has not begun and is forgotten.
        self.pushed.clear();
        self.queued.clear();
        while self.ring.is_some() {
            self.done.clear();
            self.pump(true);
        }
    }
}
