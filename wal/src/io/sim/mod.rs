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
//! Invariant S1: live world = durable world + all unsynced changes, in order.

mod file;
mod world;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::io::Errno;

use super::syscall::failed;
use super::{Backend, Batch, Disk, File, IoError, IoStats, Kind, Lock, Open, Purpose, Stat};
use crate::env::Xoshiro;
use file::{SimBatch, SimFile};
pub use world::SECTOR;
use world::{Change, Content, Inode, Node, World, parent};

/// A change that no sync has covered.
#[derive(Clone, Debug)]
struct Unsynced {
    /// Rises with each change; names it across syncs.
    seq: u64,
    /// False while the request that makes the change is still in flight: no sync covers it yet.
    done: bool,
    change: Change,
}

#[derive(Debug, Default)]
struct State {
    live: World,
    durable: World,
    unsynced: Vec<Unsynced>,
    next_seq: u64,
    next_inode: Inode,
    handles: BTreeMap<Inode, usize>,
    locks: Vec<PathBuf>,
}

impl State {
    /// Makes a change live and remembers it as unsynced.
    fn change(&mut self, change: Change, done: bool) -> u64 {
        self.live.apply(&change);
        let seq = self.next_seq;
        self.next_seq += 1;
        self.unsynced.push(Unsynced { seq, done, change });
        seq
    }

    /// Marks changes of a request that has ended.
    fn finish(&mut self, seqs: &[u64]) {
        for item in &mut self.unsynced {
            item.done |= seqs.contains(&item.seq);
        }
    }

    /// Makes the selected changes durable, in order. Older changes that stay behind must not come
    /// back over a newer durable one, so their overlapping bytes are replaced.
    fn make_durable(&mut self, select: impl Fn(&Unsynced) -> bool) {
        let mut rest: Vec<Unsynced> = Vec::with_capacity(self.unsynced.len());
        for item in std::mem::take(&mut self.unsynced) {
            if !select(&item) {
                rest.push(item);
                continue;
            }
            self.durable.apply(&item.change);
            if let Change::Data {
                inode,
                offset,
                bytes,
                ..
            } = &item.change
            {
                rest.iter_mut()
                    .for_each(|older| patch(&mut older.change, *inode, *offset, bytes));
            }
        }
        self.unsynced = rest;
    }

    /// The node at a path, or the error of looking for it.
    fn file(&self, op: &'static str, path: &Path) -> Result<Inode, IoError> {
        match self.live.node(path) {
            Some(Node::File(inode)) => Ok(inode),
            Some(Node::Directory) => Err(failed(op, path, Errno::ISDIR)),
            None => Err(failed(op, path, Errno::NOENT)),
        }
    }

    /// Checks that a name could be put into its directory.
    fn place(&self, op: &'static str, path: &Path) -> Result<(), IoError> {
        match self.live.node(parent(path)) {
            Some(Node::Directory) => Ok(()),
            Some(Node::File(_)) => Err(failed(op, path, Errno::NOTDIR)),
            None => Err(failed(op, path, Errno::NOENT)),
        }
    }

    fn create_file(&mut self, path: &Path) -> Inode {
        self.next_inode += 1;
        let inode = self.next_inode;
        self.live.contents.insert(inode, Content::default());
        self.durable.contents.insert(inode, Content::default());
        let node = Node::File(inode);
        let path = path.to_owned();
        self.change(Change::Create { path, node }, true);
        inode
    }

    /// Forgets files that nothing leads to any more.
    fn sweep(&mut self) {
        let (handles, unsynced) = (&self.handles, &self.unsynced);
        let kept = |inode: Inode| {
            let named = |item: &Unsynced| match item.change {
                Change::Create { node, .. } | Change::Rename { node, .. } => {
                    node == Node::File(inode)
                }
                _ => false,
            };
            handles.contains_key(&inode) || unsynced.iter().any(named)
        };
        self.durable.sweep(kept);
        let durable = &self.durable;
        self.live
            .contents
            .retain(|inode, _| durable.contents.contains_key(inode));
    }
}

/// Replaces the part of an older change that a newer durable write covers.
fn patch(older: &mut Change, newer: Inode, at: u64, with: &[u8]) {
    let Change::Data {
        inode,
        offset,
        bytes,
        free,
    } = older
    else {
        return;
    };
    let start = at.max(*offset);
    let end = (at + with.len() as u64).min(*offset + bytes.len() as u64);
    if *inode != newer || start >= end {
        return;
    }
    let mut fresh = bytes.to_vec();
    fresh[(start - *offset) as usize..(end - *offset) as usize]
        .copy_from_slice(&with[(start - at) as usize..(end - at) as usize]);
    *bytes = fresh.into();
    *free = false;
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    stats: IoStats,
}

/// A disk in memory that can crash. Clones are handles to the same disk.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Shared>);

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state.lock();
        write!(
            f,
            "SimDisk({} names, {} unsynced changes)",
            state.live.names.len(),
            state.unsynced.len()
        )
    }
}

impl SimDisk {
    /// An empty disk: only the root directory.
    #[must_use]
    pub fn new() -> SimDisk {
        SimDisk::default()
    }

    fn from_world(world: World) -> SimDisk {
        let next_inode = world.contents.keys().next_back().copied().unwrap_or(0);
        let state = State {
            live: world.clone(),
            durable: world,
            next_inode,
            ..State::default()
        };
        SimDisk(Arc::new(Shared {
            state: Mutex::new(state),
            stats: IoStats::default(),
        }))
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
        SimDisk::from_world(world)
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
        let mut state = self.0.state.lock();
        let inode = match how {
            Open::Read | Open::Write => state.file("open", path)?,
            Open::CreateNew => {
                state.place("open", path)?;
                if state.live.node(path).is_some() {
                    return Err(failed("open", path, Errno::EXIST));
                }
                state.create_file(path)
            }
        };
        *state.handles.entry(inode).or_default() += 1;
        Ok(Arc::new(SimFile {
            shared: Arc::clone(&self.0),
            path: path.to_owned(),
            inode,
            writable: how != Open::Read,
        }))
    }

    fn create_dir(&self, path: &Path) -> Result<(), IoError> {
        let mut state = self.0.state.lock();
        state.place("create_dir", path)?;
        if state.live.node(path).is_some() {
            return Err(failed("create_dir", path, Errno::EXIST));
        }
        let (path, node) = (path.to_owned(), Node::Directory);
        state.change(Change::Create { path, node }, true);
        Ok(())
    }

    fn list(&self, path: &Path) -> Result<Vec<String>, IoError> {
        let state = self.0.state.lock();
        match state.live.node(path) {
            Some(Node::Directory) => Ok(state.live.list(path)),
            Some(Node::File(_)) => Err(failed("list", path, Errno::NOTDIR)),
            None => Err(failed("list", path, Errno::NOENT)),
        }
    }

    fn stat(&self, path: &Path) -> Result<Option<Stat>, IoError> {
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
        let mut state = self.0.state.lock();
        let node = Node::File(state.file("rename", from)?);
        state.place("rename", to)?;
        if state.live.node(to) == Some(Node::Directory) {
            return Err(failed("rename", from, Errno::ISDIR));
        }
        let (from, to) = (from.to_owned(), to.to_owned());
        state.change(Change::Rename { from, to, node }, true);
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<(), IoError> {
        let mut state = self.0.state.lock();
        state.file("remove", path)?;
        let path = path.to_owned();
        state.change(Change::Remove { path }, true);
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> Result<(), IoError> {
        let mut state = self.0.state.lock();
        if state.live.node(path) != Some(Node::Directory) {
            return Err(failed("sync_dir", path, Errno::NOENT));
        }
        state.make_durable(|item| item.change.directory() == Some(path));
        state.sweep();
        Ok(())
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Lock>>, IoError> {
        let mut state = self.0.state.lock();
        state.place("lock", path)?;
        if state.live.node(path).is_none() {
            state.create_file(path);
        }
        if state.locks.iter().any(|held| held == path) {
            return Ok(None);
        }
        state.locks.push(path.to_owned());
        Ok(Some(Box::new(SimLock {
            shared: Arc::clone(&self.0),
            path: path.to_owned(),
        })))
    }

    fn batch(&self, purpose: Purpose) -> Box<dyn Batch> {
        Box::new(SimBatch::new(Arc::clone(&self.0), purpose))
    }

    fn stats(&self) -> &IoStats {
        &self.0.stats
    }
}

#[cfg(test)]
mod tests;
