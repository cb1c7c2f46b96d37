//! An open file of the simulated disk, and its batches.
//!
//! A lone call has ended when it returns. A request of a batch is live from `submit` on (a crash
//! may keep it), and ends when its completion is made; a sync covers what had ended before it
//! started, no more.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::world::{Change, Inode};
use super::{Shared, State, Unsynced};
use crate::io::syscall::failed_at;
use crate::io::{Batch, Buf, Completion, File, IoError, Op, Purpose, Request, request_fault};

#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) shared: Arc<Shared>,
    pub(super) path: PathBuf,
    pub(super) inode: Inode,
    pub(super) writable: bool,
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        if let Some(count) = state.handles.get_mut(&self.inode) {
            *count -= 1;
            if *count == 0 {
                state.handles.remove(&self.inode);
            }
        }
    }
}

impl SimFile {
    fn failed(&self, op: &'static str, offset: u64, len: usize, errno: Errno) -> IoError {
        failed_at(op, &self.path, offset, len, errno)
    }

    fn read_now(&self, offset: u64, buf: &mut [u8]) -> usize {
        // What lies behind the end of a short read is nobody's: never the zeros of a fresh buffer.
        buf.fill(0xa5);
        let n = self.shared.state.lock().live.contents[&self.inode].read(offset, buf);
        let stats = &self.shared.stats;
        stats.bytes_read.fetch_add(n as u64, Ordering::Relaxed);
        n
    }

    /// Makes the changes of a write; they count as in flight until they are finished.
    fn begin_write(&self, offset: u64, bytes: &[u8]) -> Result<Vec<u64>, IoError> {
        if !self.writable {
            return Err(self.failed("write", offset, bytes.len(), Errno::BADF));
        }
        let inode = self.inode;
        let end = offset + bytes.len() as u64;
        let mut state = self.shared.state.lock();
        let mut seqs = Vec::new();
        if state.live.contents[&inode].len() < end {
            seqs.push(state.change(Change::Grow { inode, len: end }, false));
        }
        let change = Change::Data {
            inode,
            offset,
            bytes: bytes.into(),
            free: false,
        };
        seqs.push(state.change(change, false));
        let stats = &self.shared.stats;
        stats
            .bytes_written
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(seqs)
    }

    /// Ends a write; a durable one carries with it the lengths that its bytes need.
    fn end_write(&self, seqs: &[u64], durable: bool) {
        let mut state = self.shared.state.lock();
        state.finish(seqs);
        if durable {
            let inode = Some(self.inode);
            let last = seqs.last().copied().unwrap_or(0);
            state.make_durable(|item| {
                let length = item.change.is_length() && item.change.inode() == inode;
                seqs.contains(&item.seq) || (length && item.done && item.seq < last)
            });
            self.shared.stats.flushes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The changes that a sync which starts now must cover.
    fn covered(&self, state: &State) -> Vec<u64> {
        let covers = |item: &&Unsynced| item.done && item.change.inode() == Some(self.inode);
        let items = state.unsynced.iter().filter(covers);
        items.map(|item| item.seq).collect()
    }

    fn end_sync(&self, covered: &[u64]) {
        let mut state = self.shared.state.lock();
        state.make_durable(|item| covered.contains(&item.seq));
        self.shared.stats.flushes.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self, purpose: Purpose) {
        let count = &self.shared.stats.lone[purpose as usize];
        count.fetch_add(1, Ordering::Relaxed);
    }
}

impl File for SimFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64, IoError> {
        Ok(self.shared.state.lock().live.contents[&self.inode].len())
    }

    fn set_len(&self, len: u64) -> Result<(), IoError> {
        let inode = self.inode;
        let mut state = self.shared.state.lock();
        state.change(Change::SetLen { inode, len }, true);
        Ok(())
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<(), IoError> {
        let inode = self.inode;
        let mut state = self.shared.state.lock();
        let end = offset + len;
        if state.live.contents[&inode].len() < end {
            state.change(Change::Grow { inode, len: end }, true);
        }
        state.change(Change::Reserve { inode, offset, len }, true);
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> Result<(), IoError> {
        let change = Change::Data {
            inode: self.inode,
            offset,
            bytes: vec![0; len as usize].into(),
            free: true,
        };
        self.shared.state.lock().change(change, true);
        Ok(())
    }

    fn sync(&self) -> Result<(), IoError> {
        let covered = self.covered(&self.shared.state.lock());
        self.end_sync(&covered);
        Ok(())
    }

    fn read(&self, purpose: Purpose, offset: u64, buf: &mut Buf) -> Result<usize, IoError> {
        self.count(purpose);
        Ok(self.read_now(offset, buf))
    }

    fn write(
        &self,
        purpose: Purpose,
        offset: u64,
        buf: &Buf,
        durable: bool,
    ) -> Result<(), IoError> {
        self.count(purpose);
        let seqs = self.begin_write(offset, buf)?;
        self.end_write(&seqs, durable);
        Ok(())
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// A request that was submitted and has not ended.
#[derive(Debug)]
struct Started {
    request: Request,
    /// Changes of a write, or those that a sync covers.
    seqs: Result<Vec<u64>, IoError>,
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

    fn start(request: Request) -> Started {
        let fault = request_fault(&*request.file, request.offset, &request.op);
        let seqs = match (fault, request.file.as_any().downcast_ref::<SimFile>()) {
            (Some(error), _) => Err(error),
            (None, None) => Err(failed_at("batch", request.file.path(), 0, 0, Errno::INVAL)),
            (None, Some(file)) => match &request.op {
                Op::Write(buf) | Op::WriteDurable(buf) => file.begin_write(request.offset, buf),
                Op::Sync => Ok(file.covered(&file.shared.state.lock())),
                Op::Read(_) => Ok(Vec::new()),
            },
        };
        Started { request, seqs }
    }

    fn end(&self, started: Started) -> Completion {
        let Started { request, seqs } = started;
        let Request {
            token,
            file,
            offset,
            mut op,
        } = request;
        let sim = file.as_any().downcast_ref::<SimFile>();
        let result = match (seqs, sim) {
            (Err(error), _) => Err(error),
            (Ok(_), None) => Err(failed_at("batch", file.path(), 0, 0, Errno::INVAL)),
            (Ok(seqs), Some(file)) => match &mut op {
                Op::Read(buf) => Ok(file.read_now(offset, buf)),
                Op::Write(buf) => {
                    file.end_write(&seqs, false);
                    Ok(buf.len())
                }
                Op::WriteDurable(buf) => {
                    file.end_write(&seqs, true);
                    Ok(buf.len())
                }
                Op::Sync => {
                    file.end_sync(&seqs);
                    Ok(0)
                }
            },
        };
        let count = &self.shared.stats.batched[self.purpose as usize];
        count.fetch_add(1, Ordering::Relaxed);
        let buf = op.into_buf();
        Completion { token, result, buf }
    }
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
        let mut started = std::mem::take(&mut self.started);
        // The reverse of the order of submission, which nobody may count on.
        started.reverse();
        started
            .into_iter()
            .map(|started| self.end(started))
            .collect()
    }

    fn wait(&mut self) -> Vec<Completion> {
        self.submit();
        self.poll()
    }
}

impl Drop for SimBatch {
    fn drop(&mut self) {
        self.pushed.clear();
        self.poll();
    }
}
