//! An open file of the simulated disk.
//!
//! A lone call has ended when it returns. A request of a batch is live from `submit` on (a crash
//! may keep it), and ends when its completion is made; a sync covers what had ended before it
//! started, no more. Both are made of the same halves: begin, which makes the change live and
//! unsynced, and end, which makes it durable if asked to.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::Shared;
use super::fault::{Call, OpKind, Phase, Refusal};
use super::state::Unsynced;
use super::world::{Change, Inode, SECTOR};
use crate::io::{Buf, File, IoError, Purpose};

#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) shared: Arc<Shared>,
    pub(super) path: PathBuf,
    pub(super) inode: Inode,
    pub(super) writable: bool,
}

/// A call whose effect is live, and the changes that it made or must make durable.
#[derive(Debug)]
pub(super) struct Begun {
    call: Call,
    seqs: Vec<u64>,
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
    pub(super) fn begin_read(&self, offset: u64, len: usize) -> Result<Begun, IoError> {
        let call = self
            .shared
            .begin_plain(OpKind::Read, &self.path, offset, len)?;
        let seqs = Vec::new();
        Ok(Begun { call, seqs })
    }

    pub(super) fn end_read(
        &self,
        begun: &Begun,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<usize, IoError> {
        // What lies behind the end of a short read is nobody's: never the zeros of a fresh buffer.
        buf.fill(0xa5);
        let n = {
            let state = self.shared.state.lock();
            let n = state.live.contents[&self.inode].read(offset, buf);
            state.check_freed(self.inode, &self.path, offset..offset + n as u64);
            n
        };
        let stats = &self.shared.stats;
        stats.bytes_read.fetch_add(n as u64, Ordering::Relaxed);
        self.shared.end(&begun.call)?;
        Ok(n)
    }

    /// Makes the changes of a write; they count as in flight until they are finished.
    pub(super) fn begin_write(
        &self,
        offset: u64,
        bytes: &[u8],
        durable: bool,
    ) -> Result<Begun, IoError> {
        let call = match self
            .shared
            .begin(OpKind::Write, &self.path, offset, bytes.len())
        {
            Ok(call) => call,
            Err(Refusal::Fault(error)) => {
                // Any front part of a failed write may have arrived; no sync ever covers it.
                let sectors = bytes.len() / SECTOR + 1;
                let kept = self.shared.control.lock().rng.below(sectors) * SECTOR;
                if self.writable && kept > 0 {
                    // The request has ended: what it left is covered by the next sync, and replaced
                    // by whatever is written over it.
                    let seqs = self.change_data(offset, &bytes[..kept]);
                    self.shared.state.lock().finish(&seqs);
                }
                return Err(error);
            }
            Err(refusal) => return Err(refusal.into_error()),
        };
        if !self.writable {
            return Err(call.failed(Errno::BADF));
        }
        self.shared.reserve(&call, |state| {
            state.live.contents[&self.inode].missing(offset, bytes.len())
        })?;
        let seqs = self.change_data(offset, bytes);
        let stats = &self.shared.stats;
        let written = bytes.len() as u64;
        stats.bytes_written.fetch_add(written, Ordering::Relaxed);
        if durable {
            self.shared.boundary(&call, Phase::Pending)?;
        }
        Ok(Begun { call, seqs })
    }

    fn change_data(&self, offset: u64, bytes: &[u8]) -> Vec<u64> {
        let inode = self.inode;
        let end = offset + bytes.len() as u64;
        let mut state = self.shared.state.lock();
        state.check_protected(inode, &self.path, offset..end);
        state.reuse(inode, &(offset..end));
        let mut seqs = Vec::new();
        // A length that another request in flight asked for is not there yet: whoever needs it too
        // asks for it as well, or its bytes would be durable behind the end of the file.
        let asked = |item: &Unsynced| {
            !item.done && item.change.is_length() && item.change.inode() == Some(inode)
        };
        let short = state.live.contents[&inode].len() < end;
        if short || state.unsynced.iter().any(asked) {
            seqs.push(state.change(Change::Grow { inode, len: end }, false));
        }
        let change = Change::Data {
            inode,
            offset,
            bytes: bytes.into(),
            free: false,
        };
        seqs.push(state.change(change, false));
        seqs
    }

    /// Ends a write; a durable one carries with it the lengths that its bytes need.
    pub(super) fn end_write(&self, begun: &Begun, durable: bool) -> Result<(), IoError> {
        if self.shared.control.lock().crashed {
            return self.shared.end(&begun.call);
        }
        {
            let mut state = self.shared.state.lock();
            let Begun { seqs, .. } = begun;
            state.finish(seqs);
            if durable {
                let inode = Some(self.inode);
                let last = seqs.last().copied().unwrap_or(0);
                state.make_durable(|item| {
                    let length = item.change.is_length() && item.change.inode() == inode;
                    seqs.binary_search(&item.seq).is_ok()
                        || (length && item.done && item.seq < last)
                });
                self.shared.stats.flushes.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.shared.end(&begun.call)
    }

    /// Starts a sync of what has ended by now.
    pub(super) fn begin_sync(&self) -> Result<Begun, IoError> {
        let ours = |item: &Unsynced| item.done && item.change.inode() == Some(self.inode);
        match self.shared.begin(OpKind::Sync, &self.path, 0, 0) {
            Ok(call) => {
                let state = self.shared.state.lock();
                let covered = state.unsynced.iter().filter(|item| ours(item));
                let seqs = covered.map(|item| item.seq).collect();
                Ok(Begun { call, seqs })
            }
            Err(Refusal::Fault(error)) => {
                self.shared.state.lock().give_up(ours);
                Err(error)
            }
            Err(refusal) => Err(refusal.into_error()),
        }
    }

    pub(super) fn end_sync(&self, begun: &Begun) -> Result<(), IoError> {
        if self.shared.control.lock().crashed {
            return self.shared.end(&begun.call);
        }
        {
            let mut state = self.shared.state.lock();
            state.make_durable(|item| item.done && begun.seqs.binary_search(&item.seq).is_ok());
        }
        self.shared.stats.flushes.fetch_add(1, Ordering::Relaxed);
        self.shared.end(&begun.call)
    }

    fn count(&self, purpose: Purpose) {
        let count = &self.shared.stats.lone[purpose as usize];
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn writable(&self, call: &Call) -> Result<(), IoError> {
        match self.writable {
            true => Ok(()),
            false => Err(call.failed(Errno::BADF)),
        }
    }
}

impl File for SimFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64, IoError> {
        self.shared.begin_plain(OpKind::Stat, &self.path, 0, 0)?;
        Ok(self.shared.state.lock().live.contents[&self.inode].len())
    }

    fn set_len(&self, len: u64) -> Result<(), IoError> {
        let call = self
            .shared
            .begin_plain(OpKind::SetLen, &self.path, len, 0)?;
        self.writable(&call)?;
        {
            let inode = self.inode;
            let mut state = self.shared.state.lock();
            let old = state.live.contents[&inode].len();
            state.check_protected(inode, &self.path, len..old.max(len));
            state.change(Change::SetLen { inode, len }, true);
        }
        self.shared.end(&call)
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<(), IoError> {
        let size = usize::try_from(len).unwrap_or(usize::MAX);
        let call = self
            .shared
            .begin_plain(OpKind::Allocate, &self.path, offset, size)?;
        self.writable(&call)?;
        let inode = self.inode;
        self.shared.reserve(&call, |state| {
            state.live.contents[&inode].missing(offset, size)
        })?;
        {
            let mut state = self.shared.state.lock();
            let end = offset + len;
            if state.live.contents[&inode].len() < end {
                state.change(Change::Grow { inode, len: end }, true);
            }
            state.change(Change::Reserve { inode, offset, len }, true);
        }
        self.shared.end(&call)
    }

    fn punch(&self, offset: u64, len: u64) -> Result<(), IoError> {
        let size = usize::try_from(len).unwrap_or(usize::MAX);
        let call = self
            .shared
            .begin_plain(OpKind::Punch, &self.path, offset, size)?;
        self.writable(&call)?;
        {
            let mut state = self.shared.state.lock();
            state.check_protected(self.inode, &self.path, offset..offset + len);
            let change = Change::Data {
                inode: self.inode,
                offset,
                bytes: vec![0; size].into(),
                free: true,
            };
            state.change(change, true);
        }
        self.shared.end(&call)
    }

    fn sync(&self) -> Result<(), IoError> {
        let begun = self.begin_sync()?;
        self.end_sync(&begun)
    }

    fn read(&self, purpose: Purpose, offset: u64, buf: &mut Buf) -> Result<usize, IoError> {
        self.count(purpose);
        let begun = self.begin_read(offset, buf.len())?;
        self.end_read(&begun, offset, buf)
    }

    fn write(
        &self,
        purpose: Purpose,
        offset: u64,
        buf: &Buf,
        durable: bool,
    ) -> Result<(), IoError> {
        self.count(purpose);
        let begun = self.begin_write(offset, buf, durable)?;
        self.end_write(&begun, durable)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
