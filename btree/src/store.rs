//! A store: a directory of trees, its buffer pool, its space and its images.

use std::path::Path;
use std::sync::Arc;

use terrane_wal::env::Env;
use terrane_wal::lsn::{Lsn, Term, TreeId, Ts};

use crate::error::StoreError;
use crate::ids::{Class, Epoch};
use crate::image::{Checkpoint, LogView};
use crate::stats::StoreStats;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Bytes of memory for pages: a hard bound. At least 512 KiB.
    pub memory_bytes: usize,
    /// Reads of pages that a reopen may cost: what the checkpoint trigger counts against.
    pub reopen_reads: u64,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            memory_bytes: 256 << 20,
            reopen_reads: 600_000,
        }
    }
}

/// What open found.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The database's id.
    pub uuid: [u8; 16],
    /// Generation of the image that was opened.
    pub generation: u64,
    /// Its epoch.
    pub epoch: Epoch,
    /// Replay starts here.
    pub redo_lsn: Lsn,
    /// The log must reach at least this far.
    pub image_hi_lsn: Lsn,
    /// Timestamp of that entry.
    pub image_hi_ts: Ts,
    /// Term of that entry.
    pub image_hi_term: Term,
    /// No timestamp above this one was given out before the image.
    pub clock_bound: u64,
    /// The last close was orderly.
    pub clean_shutdown: bool,
    /// Why the newest image was not opened but the one before it.
    pub fell_back: Option<String>,
}

/// How background work goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing to do for now.
    Idle,
    /// Something was done; there is more.
    More,
}

/// A store. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    nothing: Arc<()>,
}

impl Store {
    /// Makes a store in an existing, empty directory. Durable when it returns.
    pub fn create(
        env: &Env,
        dir: &Path,
        uuid: [u8; 16],
        options: StoreOptions,
    ) -> Result<Store, StoreError> {
        todo!("{env:?} {dir:?} {uuid:?} {options:?}")
    }

    /// Opens the newest image that verifies.
    pub fn open(
        env: &Env,
        dir: &Path,
        options: StoreOptions,
    ) -> Result<(Store, Opened), StoreError> {
        todo!("{env:?} {dir:?} {options:?}")
    }

    /// Starts a checkpoint. One at a time: a second one is Invalid until the first is dropped.
    pub fn begin_checkpoint(&self, log: Arc<dyn LogView>) -> Result<Checkpoint, StoreError> {
        let _ = log;
        todo!()
    }

    /// Asks, before a commit is sequenced, for the slots of `pages` more pages (8 KiB each); `Full`
    /// if the device has no room for them. Blocks: never inside the gate.
    pub fn admit(&self, pages: u64) -> Result<(), StoreError> {
        todo!("{pages}")
    }

    /// Bounded background work: eviction ahead of demand, growth ahead of need.
    pub fn background_step(&self) -> Result<Progress, StoreError> {
        todo!()
    }

    /// Drops a tree. Ok also if there is none.
    pub fn drop_tree(&self, tree: TreeId) -> Result<(), StoreError> {
        todo!("{tree}")
    }

    /// All trees with their page class, by rising id.
    pub fn trees(&self) -> Result<Vec<(TreeId, Class)>, StoreError> {
        todo!()
    }

    /// Counters.
    pub fn stats(&self) -> StoreStats {
        todo!()
    }
}
