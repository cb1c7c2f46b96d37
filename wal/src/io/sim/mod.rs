//! The simulated disk: files in memory with an explicit write cache, for tests that crash.
//!
//! A change is live at once and durable only after the sync that must cover it: data and lengths
//! after `sync` of their file (or by a durable write, which covers itself and the lengths before
//! it), names after `sync_dir` of their directory. Everything else is an ordered list of unsynced
//! changes, and a crash keeps whatever selection of them it likes.
//!
//! ```text
//!   operation --> live world            (what reads and lists see)
//!             \-> unsynced changes ---sync---> durable world
//!                        \--- a selection ---> crash image = durable world + selection
//! ```
//! A failed sync is final here as on Linux: what it should have covered is never covered by a later
//! one. A failed write may have left any front part of itself behind.

mod batch;
mod crash;
mod enumerate;
mod fault;
mod file;
mod state;
mod world;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use rustix::io::Errno;

use super::syscall::failed;
use super::{Backend, Batch, Disk, File, IoError, IoStats, Kind, Lock, Open, Purpose, Stat};
use crate::env::{Baton, Point, Xoshiro};
use batch::SimBatch;
pub use crash::{CrashCaps, CrashImages, Image, ImageKind};
pub use enumerate::{CrashCounts, CrashPlan};
use fault::Control;
pub use fault::{CompletionOrder, Crashed, Fault, IoEvent, OpKind, Phase, is_crash};
use file::SimFile;
use state::State;
pub use world::SECTOR;
use world::{Change, Node, World};

struct Shared {
    state: Mutex<State>,
    control: Mutex<Control>,
    baton: Mutex<Option<Arc<Baton>>>,
    stats: IoStats,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        let (names, unsynced) = (state.live.names.len(), state.unsynced.len());
        write!(f, "{names} names, {unsynced} unsynced changes")
    }
}

impl Shared {
    /// Lets other logical threads run.
    fn scheduling_point(&self) {
        let baton = self.baton.lock().clone();
        if let Some(baton) = baton {
            baton.point(Point::Io);
        }
    }

    /// Fails with ENOSPC if `blocks` more do not fit.
    fn reserve(
        &self,
        call: &fault::Call,
        missing: impl Fn(&State) -> usize,
    ) -> Result<(), IoError> {
        let Some(capacity) = self.control.lock().capacity_bytes else {
            return Ok(());
        };
        let state = self.state.lock();
        let wanted = missing(&state);
        let used = state.used_blocks();
        if wanted > 0 && ((used + wanted) * super::BLOCK) as u64 > capacity {
            return Err(call.failed(Errno::NOSPC));
        }
        Ok(())
    }
}

/// A disk in memory that can crash. Clones are handles to the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Shared>);

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimDisk({:?})", self.0)
    }
}

impl Default for SimDisk {
    fn default() -> SimDisk {
        SimDisk::new()
    }
}

impl SimDisk {
    /// An empty disk: only the root directory (`/`, and the empty path).
    #[must_use]
    pub fn new() -> SimDisk {
        SimDisk::seeded(0)
    }

    /// An empty disk whose own draws (order of completions, damage of failed writes) follow `seed`.
    #[must_use]
    pub fn seeded(seed: u64) -> SimDisk {
        SimDisk::over(World::default(), seed)
    }

    /// A disk that holds what an image holds, all of it durable.
    #[must_use]
    pub fn from_image(image: &Image) -> SimDisk {
        SimDisk::over(image.world.clone(), image.hash())
    }

    fn over(world: World, seed: u64) -> SimDisk {
        SimDisk(Arc::new(Shared {
            state: Mutex::new(State::over(world)),
            control: Mutex::new(Control::new(seed)),
            baton: Mutex::new(None),
            stats: IoStats::default(),
        }))
    }

    /// Passes the baton of an environment at every call from now on.
    pub(crate) fn attach(&self, baton: Option<Arc<Baton>>) {
        *self.0.baton.lock() = baton;
    }

    /// The disk after a power cut now: what was synced, and of the unsynced changes a selection
    /// that the seed draws, sector by sector. This disk goes on unharmed.
    #[must_use]
    pub fn crash(&self, seed: u64) -> SimDisk {
        let mut rng = Xoshiro::named(seed, "crash");
        let state = self.0.state.lock();
        let mut world = state.durable.clone();
        // One seed in four keeps or loses everything: the two images that bugs like best.
        let all = match rng.below(8) {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        };
        for item in &state.unsynced {
            match &item.change {
                Change::Data {
                    inode,
                    offset,
                    bytes,
                    free,
                } => {
                    for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                        if all.unwrap_or_else(|| rng.below(2) == 0) {
                            let at = offset + (index * SECTOR) as u64;
                            world.write(*inode, at, sector, *free);
                        }
                    }
                }
                change if all.unwrap_or_else(|| rng.below(2) == 0) => world.apply(change),
                _ => {}
            }
        }
        SimDisk::over(world, seed)
    }

    /// Plans a failing call.
    pub fn inject(&self, fault: Fault) {
        self.0.control.lock().faults.push(fault);
    }

    /// Takes back all planned failures.
    pub fn clear_faults(&self) {
        self.0.control.lock().faults.clear();
    }

    /// Stops the machine at a boundary: it and every later call fails with [`Crashed`] and has no
    /// effect, so that the images of this moment can be taken at leisure.
    pub fn crash_at(&self, boundary: u64) {
        self.0.control.lock().crash_at = Some(boundary);
    }

    /// True once the machine stands still.
    #[must_use]
    pub fn has_crashed(&self) -> bool {
        self.0.control.lock().crashed
    }

    /// Calls made so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.0.control.lock().calls
    }

    /// Boundaries passed so far.
    #[must_use]
    pub fn boundaries(&self) -> u64 {
        self.0.control.lock().boundaries
    }

    /// Hash of all calls so far, in order.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.0.control.lock().trace
    }

    /// Runs `look` at every boundary, before it is passed, on the thread that makes the call. It
    /// may take images of this disk; it must not make calls on it.
    pub fn on_io(&self, look: impl Fn(&SimDisk, &IoEvent) + Send + Sync + 'static) {
        self.0.control.lock().hook = Some(Arc::new(look));
    }

    /// Ends what [`SimDisk::on_io`] began.
    pub fn off_io(&self) {
        self.0.control.lock().hook = None;
    }

    /// Limits the space of all files together; None lifts the limit. Space that is freed counts
    /// again at once.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.control.lock().capacity_bytes = bytes;
    }

    /// Bytes that files take, in whole blocks: those reachable by name or by an open handle.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        (self.0.state.lock().used_blocks() * super::BLOCK) as u64
    }

    /// The order in which requests of batches end.
    pub fn set_completion_order(&self, order: CompletionOrder) {
        self.0.control.lock().order = order;
    }

    /// Changes bytes of a file behind everybody's back, in the live and the durable world: a rotten
    /// sector. `edit` gets what stands there, at most `len` bytes. False if there is no such file.
    pub fn corrupt(&self, path: &Path, offset: u64, len: usize, edit: impl Fn(&mut [u8])) -> bool {
        self.0.state.lock().corrupt(path, offset, len, edit)
    }

    /// Panics from now on when somebody writes into the range, cuts it off or punches it: an
    /// acknowledged byte of the log is never rewritten (L2). Renaming or removing the file lifts
    /// the protection. False if there is no such file.
    pub fn protect(&self, path: &Path, offset: u64, len: u64) -> bool {
        self.0.state.lock().protect(path, offset, len)
    }

    /// Panics from now on when somebody reads bytes of the range that were not written again since:
    /// freed space belongs to nobody. False if there is no such file.
    pub fn forbid_reads(&self, path: &Path, offset: u64, len: u64) -> bool {
        self.0.state.lock().free(path, offset..offset + len)
    }

    /// Lifts all protection of a file, against writes and against reads.
    pub fn unprotect(&self, path: &Path) {
        self.0.state.lock().unprotect(path);
    }

    /// Changes that no sync has covered.
    #[must_use]
    pub fn unsynced_changes(&self) -> usize {
        self.0.state.lock().unsynced.len()
    }
}

#[derive(Debug)]
struct SimLock {
    shared: Arc<Shared>,
    path: PathBuf,
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.locks.retain(|held| *held != self.path);
    }
}

impl Disk for SimDisk {
    fn backend(&self) -> Backend {
        Backend::Sim
    }

    fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn File>, IoError> {
        let op = match how {
            Open::Read | Open::Write => OpKind::Open,
            Open::CreateNew => OpKind::Create,
        };
        let call = self.0.begin_plain(op, path, 0, 0)?;
        let inode = {
            let mut state = self.0.state.lock();
            let inode = match how {
                Open::Read | Open::Write => state.file("open", path)?,
                Open::CreateNew => {
                    state.vacant("open", path)?;
                    state.create_file(path)
                }
            };
            *state.handles.entry(inode).or_default() += 1;
            inode
        };
        let file = SimFile {
            shared: Arc::clone(&self.0),
            path: path.to_owned(),
            inode,
            writable: how != Open::Read,
        };
        self.0.end(&call)?;
        Ok(Arc::new(file))
    }

    fn create_dir(&self, path: &Path) -> Result<(), IoError> {
        let call = self.0.begin_plain(OpKind::CreateDir, path, 0, 0)?;
        {
            let mut state = self.0.state.lock();
            state.vacant("create_dir", path)?;
            let (path, node) = (path.to_owned(), Node::Directory);
            state.change(Change::Create { path, node }, true);
        }
        self.0.end(&call)
    }

    fn list(&self, path: &Path) -> Result<Vec<String>, IoError> {
        self.0.begin_plain(OpKind::List, path, 0, 0)?;
        let state = self.0.state.lock();
        match state.live.node(path) {
            Some(Node::Directory) => Ok(state.live.list(path)),
            Some(Node::File(_)) => Err(failed("list", path, Errno::NOTDIR)),
            None => Err(failed("list", path, Errno::NOENT)),
        }
    }

    fn stat(&self, path: &Path) -> Result<Option<Stat>, IoError> {
        self.0.begin_plain(OpKind::Stat, path, 0, 0)?;
        let state = self.0.state.lock();
        let Some(node) = state.live.node(path) else {
            return Ok(None);
        };
        let (kind, len, inode) = match node {
            Node::Directory => (Kind::Directory, 0, 0),
            Node::File(inode) => (Kind::File, state.live.contents[&inode].len(), inode),
        };
        Ok(Some(Stat {
            kind,
            len,
            device: 1,
            inode,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        let call = self.0.begin_plain(OpKind::Rename, from, 0, 0)?;
        {
            let mut state = self.0.state.lock();
            let node = Node::File(state.file("rename", from)?);
            state.place("rename", to)?;
            if state.live.node(to) == Some(Node::Directory) {
                return Err(failed("rename", from, Errno::ISDIR));
            }
            state.unprotect(from);
            state.unprotect(to);
            let (from, to) = (from.to_owned(), to.to_owned());
            state.change(Change::Rename { from, to, node }, true);
        }
        self.0.end(&call)
    }

    fn remove(&self, path: &Path) -> Result<(), IoError> {
        let call = self.0.begin_plain(OpKind::Remove, path, 0, 0)?;
        {
            let mut state = self.0.state.lock();
            state.file("remove", path)?;
            state.unprotect(path);
            let path = path.to_owned();
            state.change(Change::Remove { path }, true);
        }
        self.0.end(&call)
    }

    fn sync_dir(&self, path: &Path) -> Result<(), IoError> {
        let call = match self.0.begin(OpKind::SyncDir, path, 0, 0) {
            Ok(call) => call,
            Err(fault::Refusal::Fault(error)) => {
                let mut state = self.0.state.lock();
                state.give_up(|item| item.change.directory() == Some(path));
                return Err(error);
            }
            Err(refusal) => return Err(refusal.into_error()),
        };
        {
            let mut state = self.0.state.lock();
            if state.live.node(path) != Some(Node::Directory) {
                return Err(failed("sync_dir", path, Errno::NOENT));
            }
            state.make_durable(|item| item.done && item.change.directory() == Some(path));
            state.sweep();
        }
        self.0.stats.flushes.fetch_add(1, Ordering::Relaxed);
        self.0.end(&call)
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Lock>>, IoError> {
        let call = self.0.begin_plain(OpKind::Lock, path, 0, 0)?;
        {
            let mut state = self.0.state.lock();
            state.place("lock", path)?;
            if state.live.node(path).is_none() {
                state.create_file(path);
            }
            if state.locks.iter().any(|held| held == path) {
                return Ok(None);
            }
            state.locks.push(path.to_owned());
        }
        // Made before the last boundary, so that a crash there gives the lock back.
        let lock = SimLock {
            shared: Arc::clone(&self.0),
            path: path.to_owned(),
        };
        self.0.end(&call)?;
        Ok(Some(Box::new(lock)))
    }

    fn batch(&self, purpose: Purpose) -> Box<dyn Batch> {
        Box::new(SimBatch::new(Arc::clone(&self.0), purpose))
    }

    fn stats(&self) -> &IoStats {
        &self.0.stats
    }
}

#[cfg(test)]
mod enumerate_tests;
#[cfg(test)]
mod tests;
