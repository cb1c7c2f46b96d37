//! A handle of the trees of one directory: all that there is of a database by itself, and of a
//! cluster what one member has.
//!
//! Everything inside the engine works here. A [`crate::Database`] is one of these, or finds the one
//! of the member that leads.

use std::sync::Arc;

use terrane_btree::Class;
use terrane_wal::lsn::{TreeId, Ts};
use terrane_wal::sync::{AtomicBool, AtomicU64, Ordering};

use crate::catalog::{self, OUTCOMES, Remembered, TableInfo, TableSpec};
use crate::checkpoint;
use crate::database::Position;
use crate::error::{Outcome, Result};
use crate::metrics::{IoCounts, Stats};
use crate::runtime::Core;
use crate::runtime::worker::Worker;
use crate::txn::intents::Intents;
use crate::txn::snapshot::read_row;
use crate::txn::{commit, sweep};

/// A handle of one core. The last clone of the handle that was made first closes it when dropped.
#[derive(Clone, Debug)]
pub struct Local {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    core: Arc<Core>,
    worker: Option<Worker>,
    ended: AtomicBool,
}

impl Local {
    /// The handle of trees that recovery has made ready.
    ///
    /// # Errors
    /// `Io` if the system gives no thread for the background work.
    pub(crate) fn over(core: Arc<Core>, background: bool) -> Result<Local> {
        let worker = if background {
            Some(Worker::start(&core)?)
        } else {
            None
        };
        let ended = AtomicBool::new(false);
        Ok(Local {
            handle: Arc::new(Handle {
                core,
                worker,
                ended,
            }),
        })
    }

    /// A handle whose end closes nothing: for the background work.
    pub(crate) fn detached(core: &Arc<Core>) -> Local {
        Local {
            handle: Arc::new(Handle {
                core: core.clone(),
                worker: None,
                ended: AtomicBool::new(true),
            }),
        }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.handle.core
    }

    /// See [`crate::Database::outcome`]; and a position that holds what was committed.
    ///
    /// # Errors
    /// Those of a read.
    pub(crate) fn outcome(&self, key: &[u8]) -> Result<(Outcome, Position)> {
        let core = self.core();
        core.check_process()?;
        // The intent on the key waits for a commit that is under way with it.
        let shared: Arc<[u8]> = key.into();
        let mut intents = Intents::new(core, core.next_age());
        intents.place(OUTCOMES, &shared, None)?;
        let read = read_row(core, OUTCOMES, key, Ts(u64::MAX))?.value;
        drop(intents);
        let remembered = read.map(|row| Remembered::decode(&row)).transpose()?;
        let Some(remembered) = remembered.filter(|found| !found.is_over(core.now_wall())) else {
            return Ok((Outcome::Aborted, Position::default()));
        };
        if core.log.is_none() {
            return Ok((Outcome::Committed, Position(core.visible_lsn().0)));
        }
        commit::wait_applied(core, remembered.ts)?;
        let (applied, _) = core.prefix.applied();
        Ok(match core.wait_read(applied) {
            Ok(()) => (Outcome::Committed, Position(applied.0)),
            Err(_) => (Outcome::Unknown, Position::default()),
        })
    }

    /// Counters of the core and of everything below it.
    pub(crate) fn stats(&self) -> Stats {
        let core = self.core();
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            commits: load(&core.counters.commits),
            conflicts: load(&core.counters.conflicts),
            retries: load(&core.counters.retries),
            voids: load(&core.counters.voids),
            unknown: load(&core.counters.unknown),
            recent_rows: core.recent.entries() as u64,
            recent_bytes: sweep::bytes(core) as u64,
            read_positions: core.reads.active() as u64,
            ghosts_purged: load(&core.counters.ghosts_purged),
            snapshots_too_old: load(&core.counters.snapshots_too_old),
            checkpoints_failed: load(&core.counters.checkpoints_failed),
            vectors: core.vectors.stats(),
            backend: core.env.disk.backend(),
            io: IoCounts::read(core.env.disk.stats()),
            log: core.log.as_ref().map(|log| log.stats()).unwrap_or_default(),
            store: core.store.stats(),
        }
    }

    /// See [`crate::Database::checkpoint`].
    ///
    /// # Errors
    /// `Full`, `Io`, `ReadOnly`, `Closed`, `NotLeader`.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        self.core().check_writable()?;
        checkpoint::now(self.core(), false)
    }

    /// Waits for commits in flight, then closes. A second close does nothing.
    ///
    /// # Errors
    /// What the last flush or checkpoint gives; the core is closed all the same.
    pub(crate) fn close(&self) -> Result<()> {
        self.handle.end()
    }

    /// The page size class of new tables.
    pub(crate) fn page_class(&self) -> Class {
        self.core().options.page_class
    }

    /// Opens the table `name`, creating it and its trees if it does not exist.
    ///
    /// # Errors
    /// `Invalid` for a bad name, `Schema` naming both sides, and those of a commit.
    pub(crate) fn open_table(&self, name: &str, spec: &TableSpec<'_>) -> Result<Arc<TableInfo>> {
        catalog::open_table(self, name, spec)
    }

    /// A row id of the table in `tree` that was never given out. Taken from logged blocks; numbers
    /// are lost when the process ends, never repeated.
    ///
    /// # Errors
    /// Those of a commit.
    pub(crate) fn next_row_id(&self, tree: TreeId) -> Result<u64> {
        catalog::next_row_id(self, tree)
    }
}

impl Handle {
    fn end(&self) -> Result<()> {
        let core = &self.core;
        if self.ended.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        if core.is_foreign() {
            // A forked child has the memory but none of the threads, and the files belong to its
            // parent: nothing is written, nothing is waited for, nothing is given back.
            std::mem::forget(core.clone());
            return Ok(());
        }
        let alone = core.gate.close();
        core.set_closed();
        drop(alone);
        if let Some(worker) = &self.worker {
            worker.stop(core);
        }
        let outcome = self.last_checkpoint();
        checkpoint::abandon(core);
        core.unlock();
        outcome
    }

    /// Leaves an image that holds everything, if nothing has failed.
    fn last_checkpoint(&self) -> Result<()> {
        let core = &self.core;
        let Some(log) = &core.log else { return Ok(()) };
        if core.has_panicked() {
            return Ok(());
        }
        log.flush()?;
        if !core.is_poisoned() && core.unapplied.len() == 0 && !std::thread::panicking() {
            checkpoint::now(core, true)?;
        }
        Ok(log.close()?)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Nobody is there to be told; what was acknowledged is in the log.
        let _ = self.end();
    }
}
