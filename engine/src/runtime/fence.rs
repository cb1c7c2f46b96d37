//! A disk that takes no more writes once it is told so.
//!
//! A member that leads no more has its trees made again from the same files (I15), while handles of
//! the old ones may still be held by callers. So the old ones write through a fence: from
//! [`Fence::close`] on every change is refused, and [`Fence::is_quiet`] says when the last one that
//! was under way has ended. Reads go on; what they find is judged by who asked for them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use terrane_wal::io::{
    Backend, Batch, Buf, Completion, Disk, File, IoError, IoStats, Lock, Op, Open, Purpose,
    Request, Stat,
};
use terrane_wal::sync::{AtomicBool, AtomicUsize, Ordering};

/// Whether changes are taken, and how many are under way.
#[derive(Debug, Default)]
struct Gate {
    closed: AtomicBool,
    inside: AtomicUsize,
}

impl Gate {
    /// Enters for a change; `leave` follows if that is granted.
    fn enter(&self) -> bool {
        // Counted first: who closes and then finds nobody inside has missed nobody.
        self.inside.fetch_add(1, Ordering::SeqCst);
        let open = !self.closed.load(Ordering::SeqCst);
        if !open {
            self.leave();
        }
        open
    }

    fn leave(&self) {
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }

    /// Runs a change, or refuses it.
    fn change<T>(
        &self,
        op: &'static str,
        path: &Path,
        change: impl FnOnce() -> Result<T, IoError>,
    ) -> Result<T, IoError> {
        if !self.enter() {
            return Err(refused(op, path));
        }
        let done = change();
        self.leave();
        done
    }
}

fn refused(op: &'static str, path: &Path) -> IoError {
    let cause = "the member leads no more: its files are another's";
    IoError {
        op,
        path: path.to_path_buf(),
        offset: 0,
        len: 0,
        source: Arc::new(std::io::Error::other(cause)),
    }
}

/// A disk whose changes can be stopped for good.
#[derive(Debug)]
pub(crate) struct Fence {
    real: Arc<dyn Disk>,
    gate: Arc<Gate>,
}

impl Fence {
    /// An open fence around a disk.
    pub(crate) fn around(real: Arc<dyn Disk>) -> Arc<Fence> {
        let gate = Arc::default();
        Arc::new(Fence { real, gate })
    }

    /// Refuses changes from now on.
    pub(crate) fn close(&self) {
        self.gate.closed.store(true, Ordering::SeqCst);
    }

    /// Whether no change is under way. Those of a batch are until somebody collects them.
    pub(crate) fn is_quiet(&self) -> bool {
        self.gate.inside.load(Ordering::SeqCst) == 0
    }
}

impl Disk for Fence {
    fn backend(&self) -> Backend {
        self.real.backend()
    }

    fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn File>, IoError> {
        let open = || self.real.open(path, how);
        let real = match how {
            Open::CreateNew => self.gate.change("open", path, open)?,
            Open::Read | Open::Write => open()?,
        };
        let gate = Arc::clone(&self.gate);
        Ok(Arc::new(FencedFile { real, gate }))
    }

    fn create_dir(&self, path: &Path) -> Result<(), IoError> {
        self.gate
            .change("create_dir", path, || self.real.create_dir(path))
    }

    fn list(&self, path: &Path) -> Result<Vec<String>, IoError> {
        self.real.list(path)
    }

    fn stat(&self, path: &Path) -> Result<Option<Stat>, IoError> {
        self.real.stat(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        self.gate
            .change("rename", from, || self.real.rename(from, to))
    }

    fn remove(&self, path: &Path) -> Result<(), IoError> {
        self.gate.change("remove", path, || self.real.remove(path))
    }

    fn sync_dir(&self, path: &Path) -> Result<(), IoError> {
        self.gate
            .change("sync_dir", path, || self.real.sync_dir(path))
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Lock>>, IoError> {
        self.real.lock(path)
    }

    fn batch(&self, purpose: Purpose) -> Box<dyn Batch> {
        Box::new(FencedBatch {
            real: self.real.batch(purpose),
            gate: Arc::clone(&self.gate),
            changes: Vec::new(),
            refused: Vec::new(),
        })
    }

    fn stats(&self) -> &IoStats {
        self.real.stats()
    }
}

#[derive(Debug)]
struct FencedFile {
    real: Arc<dyn File>,
    gate: Arc<Gate>,
}

impl File for FencedFile {
    fn path(&self) -> &Path {
        self.real.path()
    }

    fn len(&self) -> Result<u64, IoError> {
        self.real.len()
    }

    fn set_len(&self, len: u64) -> Result<(), IoError> {
        self.gate
            .change("set_len", self.path(), || self.real.set_len(len))
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<(), IoError> {
        let allocate = || self.real.allocate(offset, len);
        self.gate.change("allocate", self.path(), allocate)
    }

    fn punch(&self, offset: u64, len: u64) -> Result<(), IoError> {
        self.gate
            .change("punch", self.path(), || self.real.punch(offset, len))
    }

    fn sync(&self) -> Result<(), IoError> {
        self.gate.change("sync", self.path(), || self.real.sync())
    }

    fn read(&self, purpose: Purpose, offset: u64, buf: &mut Buf) -> Result<usize, IoError> {
        self.real.read(purpose, offset, buf)
    }

    fn write(
        &self,
        purpose: Purpose,
        offset: u64,
        buf: &Buf,
        durable: bool,
    ) -> Result<(), IoError> {
        let write = || self.real.write(purpose, offset, buf, durable);
        self.gate.change("write", self.path(), write)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

#[derive(Debug)]
struct FencedBatch {
    real: Box<dyn Batch>,
    gate: Arc<Gate>,
    /// Tokens of the changes under way.
    changes: Vec<u64>,
    refused: Vec<Completion>,
}

impl FencedBatch {
    /// Takes the changes among what has ended out of the gate.
    fn ended(&mut self, mut all: Vec<Completion>) -> Vec<Completion> {
        for done in &all {
            if let Some(at) = self.changes.iter().position(|token| *token == done.token) {
                self.changes.swap_remove(at);
                self.gate.leave();
            }
        }
        all.append(&mut self.refused);
        all
    }
}

impl Batch for FencedBatch {
    fn push(&mut self, mut request: Request) {
        if let Some(file) = request.file.as_any().downcast_ref::<FencedFile>() {
            request.file = Arc::clone(&file.real);
        }
        if !matches!(request.op, Op::Read(_)) {
            if !self.gate.enter() {
                let path: PathBuf = request.file.path().to_path_buf();
                self.refused.push(Completion {
                    token: request.token,
                    result: Err(refused(request.op.name(), &path)),
                    buf: request.op.into_buf(),
                });
                return;
            }
            self.changes.push(request.token);
        }
        self.real.push(request);
    }

    fn submit(&mut self) {
        self.real.submit();
    }

    fn in_flight(&self) -> usize {
        self.real.in_flight() + self.refused.len()
    }

    fn poll(&mut self) -> Vec<Completion> {
        let all = self.real.poll();
        self.ended(all)
    }

    fn wait(&mut self) -> Vec<Completion> {
        let all = match self.refused.is_empty() {
            true => self.real.wait(),
            false => self.real.poll(),
        };
        self.ended(all)
    }
}

impl Drop for FencedBatch {
    fn drop(&mut self) {
        // What the kernel still owns is waited for; what was never submitted is forgotten.
        while self.real.in_flight() > 0 {
            let all = self.real.wait();
            if all.is_empty() {
                break;
            }
            self.ended(all);
        }
        for _ in self.changes.drain(..) {
            self.gate.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use terrane_wal::io::BLOCK;
    use terrane_wal::io::sim::SimDisk;

    use super::*;

    fn request(token: u64, file: &Arc<dyn File>) -> Request {
        Request {
            token,
            file: Arc::clone(file),
            offset: 0,
            op: Op::Write(Buf::zeroed(BLOCK)),
        }
    }

    // Seen to fail with a batch that does not leave the gate, and with one that does not enter it.
    #[test]
    fn what_was_under_way_ends_and_nothing_begins_after() {
        let fence = Fence::around(Arc::new(SimDisk::new()));
        let path = Path::new("/file");
        let file = fence.open(path, Open::CreateNew).unwrap();
        let buf = Buf::zeroed(BLOCK);
        file.write(Purpose::Other, 0, &buf, true).unwrap();
        assert!(fence.is_quiet());
        let mut batch = fence.batch(Purpose::Other);
        batch.push(request(1, &file));
        batch.submit();
        fence.close();
        assert!(!fence.is_quiet(), "a write is under way");
        batch.push(request(2, &file));
        let mut results = Vec::new();
        while batch.in_flight() > 0 {
            let ended = batch.wait();
            results.extend(
                ended
                    .into_iter()
                    .map(|done| (done.token, done.result.is_ok())),
            );
        }
        results.sort_unstable();
        assert_eq!(results, [(1, true), (2, false)]);
        assert!(fence.is_quiet());
        let error = file.write(Purpose::Other, 0, &buf, false).unwrap_err();
        assert!(error.to_string().contains("leads no more"));
        for refused in [file.sync(), file.set_len(0), fence.remove(path)] {
            assert!(refused.is_err());
        }
        let mut back = Buf::zeroed(BLOCK);
        assert_eq!(file.read(Purpose::Other, 0, &mut back).unwrap(), BLOCK);
        // Pushed and never submitted.
        let fence = Fence::around(Arc::new(SimDisk::new()));
        let file = fence.open(path, Open::CreateNew).unwrap();
        let mut batch = fence.batch(Purpose::Other);
        batch.push(request(1, &file));
        drop(batch);
        assert!(fence.is_quiet());
    }
}
