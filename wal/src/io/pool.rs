//! Batches served by a pool of threads: the backend for kernels and sandboxes without io_uring.
//!
//! `submit` hands the requests to one queue; threads take them and make the lone calls of
//! `syscall.rs`; completions gather in the batch, whose owner parks until one is there. All waiting
//! goes through [`Park`]. Invariant: a request is in exactly one of four places: pushed (batch),
//! queued, running (one thread), or done (batch) - so its buffer has exactly one owner.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::syscall::{failed, serve};
use super::system::{DiskOptions, Machinery, SystemDisk};
use super::{Backend, Batch, Completion, IoError, IoStats, Purpose, Request};
use crate::env::{Joiner, Park, Spawn, Waiter};

/// The disk of this machine with batches by a pool of threads.
pub type PoolDisk = SystemDisk<Pool>;

impl PoolDisk {
    /// A disk with `threads` threads from `spawn`, which wait by `park`.
    pub fn new(
        spawn: &Arc<dyn Spawn>,
        park: &Arc<dyn Park>,
        threads: usize,
    ) -> Result<PoolDisk, IoError> {
        PoolDisk::with_options(spawn, park, threads, &DiskOptions::default())
    }

    pub(super) fn with_options(
        spawn: &Arc<dyn Spawn>,
        park: &Arc<dyn Park>,
        threads: usize,
        options: &DiskOptions,
    ) -> Result<PoolDisk, IoError> {
        let workers = Workers::start(spawn, park, threads)?;
        let pool = Pool {
            workers: Arc::new(workers),
            park: Arc::clone(park),
        };
        Ok(SystemDisk::over(pool, options))
    }
}

/// The threads and their queue; they end when the disk and all its batches are gone.
#[derive(Debug)]
pub struct Pool {
    workers: Arc<Workers>,
    park: Arc<dyn Park>,
}

impl Machinery for Pool {
    fn backend(&self) -> Backend {
        Backend::Pool
    }

    fn batch(&self, purpose: Purpose, stats: Arc<IoStats>) -> Box<dyn Batch> {
        Box::new(PoolBatch {
            workers: Arc::clone(&self.workers),
            pushed: Vec::new(),
            started: 0,
            returns: Arc::new(Returns {
                done: Mutex::new(Vec::new()),
                waiter: self.park.waiter(),
                purpose,
                stats,
            }),
        })
    }
}

/// Where the completions of a batch gather.
#[derive(Debug)]
struct Returns {
    done: Mutex<Vec<Completion>>,
    waiter: Arc<dyn Waiter>,
    purpose: Purpose,
    stats: Arc<IoStats>,
}

#[derive(Debug)]
struct Job {
    request: Request,
    returns: Arc<Returns>,
}

#[derive(Debug, Default)]
struct QueueState {
    jobs: VecDeque<Job>,
    /// Threads that found no job and are about to park or parked.
    idle: Vec<Arc<dyn Waiter>>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Queue(Mutex<QueueState>);

impl Queue {
    fn push(&self, jobs: impl Iterator<Item = Job>) {
        let mut state = self.0.lock();
        let before = state.jobs.len();
        state.jobs.extend(jobs);
        let fresh = state.jobs.len() - before;
        let wake_from = state.idle.len().saturating_sub(fresh);
        let wake = state.idle.split_off(wake_from);
        drop(state);
        wake.iter().for_each(|waiter| waiter.unpark());
    }

    /// The next job; None once the queue is closed and empty.
    fn pop(&self, waiter: &Arc<dyn Waiter>) -> Option<Job> {
        loop {
            let mut state = self.0.lock();
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state.idle.push(Arc::clone(waiter));
            drop(state);
            waiter.park();
        }
    }

    fn close(&self) {
        let mut state = self.0.lock();
        state.closed = true;
        let wake = std::mem::take(&mut state.idle);
        drop(state);
        wake.iter().for_each(|waiter| waiter.unpark());
    }
}

struct Workers {
    queue: Arc<Queue>,
    joiners: Mutex<Vec<Box<dyn Joiner>>>,
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Workers({})", self.joiners.lock().len())
    }
}

impl Workers {
    fn start(
        spawn: &Arc<dyn Spawn>,
        park: &Arc<dyn Park>,
        threads: usize,
    ) -> Result<Workers, IoError> {
        assert!(threads > 0, "a pool without threads serves nobody");
        // Made first, so that a thread that cannot be started ends those that could.
        let workers = Workers {
            queue: Arc::new(Queue::default()),
            joiners: Mutex::new(Vec::new()),
        };
        for index in 0..threads {
            let queue = Arc::clone(&workers.queue);
            let waiter = park.waiter();
            let body = move || {
                while let Some(job) = queue.pop(&waiter) {
                    job.run();
                }
            };
            let name = format!("terrane-io-{index}");
            let joiner = spawn
                .spawn(&name, Box::new(body))
                .map_err(|error| failed("spawn", name.as_ref(), error))?;
            workers.joiners.lock().push(joiner);
        }
        Ok(workers)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.queue.close();
        for joiner in std::mem::take(&mut *self.joiners.lock()) {
            // A worker does not panic; if it did, its batch has said so by never ending.
            let _ended = joiner.join();
        }
    }
}

impl Job {
    fn run(self) {
        let Job { request, returns } = self;
        let completion = serve(request);
        let count = &returns.stats.batched[returns.purpose as usize];
        count.fetch_add(1, Ordering::Relaxed);
        returns.done.lock().push(completion);
        returns.waiter.unpark();
    }
}

#[derive(Debug)]
struct PoolBatch {
    workers: Arc<Workers>,
    pushed: Vec<Request>,
    /// Submitted requests whose completion was not handed out.
    started: usize,
    returns: Arc<Returns>,
}

impl Batch for PoolBatch {
    fn push(&mut self, request: Request) {
        self.pushed.push(request);
    }

    fn submit(&mut self) {
        self.started += self.pushed.len();
        let returns = &self.returns;
        self.workers
            .queue
            .push(self.pushed.drain(..).map(|request| Job {
                request,
                returns: Arc::clone(returns),
            }));
    }

    fn in_flight(&self) -> usize {
        self.pushed.len() + self.started
    }

    fn poll(&mut self) -> Vec<Completion> {
        let done = std::mem::take(&mut *self.returns.done.lock());
        self.started -= done.len();
        done
    }

    fn wait(&mut self) -> Vec<Completion> {
        self.submit();
        loop {
            let done = self.poll();
            if !done.is_empty() || self.started == 0 {
                return done;
            }
            self.returns.waiter.park();
        }
    }
}

impl Drop for PoolBatch {
    fn drop(&mut self) {
        // What was pushed but never submitted has not begun and is forgotten.
        self.pushed.clear();
        while self.started > 0 {
            self.wait();
        }
    }
}
