//! Batches of the simulated disk: requests that end in any order.
//!
//! A write is live from `submit` on, so a crash may keep any selection of what is in flight. The
//! requests end, and their completions are handed out, in the order that [`CompletionOrder`] names;
//! the buffer of a read holds garbage until then.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::Shared;
use super::fault::CompletionOrder;
use super::file::{Begun, SimFile};
use crate::io::syscall::failed_at;
use crate::io::{Batch, Completion, IoError, Op, Purpose, Request, request_fault};

/// A request that was submitted and has not ended.
#[derive(Debug)]
struct Started {
    request: Request,
    begun: Result<Begun, IoError>,
}

#[derive(Debug)]
pub(super) struct SimBatch {
    shared: Arc<Shared>,
    purpose: Purpose,
    pushed: Vec<Request>,
    started: Vec<Started>,
}

impl SimBatch {
    pub(super) fn new(shared: Arc<Shared>, purpose: Purpose) -> SimBatch {
        SimBatch {
            shared,
            purpose,
            pushed: Vec::new(),
            started: Vec::new(),
        }
    }

    fn start(mut request: Request) -> Started {
        let fault = request_fault(&*request.file, request.offset, &request.op);
        let begun = match (fault, request.file.as_any().downcast_ref::<SimFile>()) {
            (Some(error), _) => Err(error),
            (None, None) => Err(foreign(&request)),
            (None, Some(file)) => match &mut request.op {
                Op::Write(buf) => file.begin_write(request.offset, buf, false),
                Op::WriteDurable(buf) => file.begin_write(request.offset, buf, true),
                Op::Sync => file.begin_sync(),
                Op::Read(buf) => {
                    buf.fill(0x5a);
                    file.begin_read(request.offset, buf.len())
                }
            },
        };
        Started { request, begun }
    }

    fn end(&self, started: Started) -> Completion {
        let Started { mut request, begun } = started;
        let result = match (begun, request.file.as_any().downcast_ref::<SimFile>()) {
            (Err(error), _) => Err(error),
            (Ok(_), None) => Err(foreign(&request)),
            (Ok(begun), Some(file)) => match &mut request.op {
                Op::Read(buf) => file.end_read(&begun, request.offset, buf),
                Op::Write(buf) => file.end_write(&begun, false).map(|()| buf.len()),
                Op::WriteDurable(buf) => file.end_write(&begun, true).map(|()| buf.len()),
                Op::Sync => file.end_sync(&begun).map(|()| 0),
            },
        };
        let count = &self.shared.stats.batched[self.purpose as usize];
        count.fetch_add(1, Ordering::Relaxed);
        Completion {
            token: request.token,
            result,
            buf: request.op.into_buf(),
        }
    }

    /// Takes the requests that end now, at least `least` of those in flight, in their order.
    fn ending(&mut self, least: usize) -> Vec<Started> {
        let mut control = self.shared.control.lock();
        match control.order {
            CompletionOrder::Submitted => std::mem::take(&mut self.started),
            CompletionOrder::Reversed => {
                let mut all = std::mem::take(&mut self.started);
                all.reverse();
                all
            }
            CompletionOrder::Seeded => {
                let most = self.started.len();
                let spread = most - least.min(most) + 1;
                let count = least.min(most) + control.rng.below(spread);
                let draw = |_| {
                    let index = control.rng.below(self.started.len());
                    self.started.remove(index)
                };
                (0..count).map(draw).collect()
            }
        }
    }

    fn finish(&mut self, least: usize) -> Vec<Completion> {
        let ending = self.ending(least);
        ending
            .into_iter()
            .map(|started| self.end(started))
            .collect()
    }
}

fn foreign(request: &Request) -> IoError {
    let path = request.file.path();
    failed_at(request.op.name(), path, request.offset, 0, Errno::INVAL)
}

impl Batch for SimBatch {
    fn push(&mut self, request: Request) {
        self.pushed.push(request);
    }

    fn submit(&mut self) {
        let pushed = std::mem::take(&mut self.pushed);
        self.started.extend(pushed.into_iter().map(SimBatch::start));
    }

    fn in_flight(&self) -> usize {
        self.pushed.len() + self.started.len()
    }

    fn poll(&mut self) -> Vec<Completion> {
        self.finish(0)
    }

    fn wait(&mut self) -> Vec<Completion> {
        self.submit();
        self.finish(1)
    }
}

impl Drop for SimBatch {
    fn drop(&mut self) {
        self.pushed.clear();
        while !self.started.is_empty() {
            self.finish(1);
        }
    }
}
