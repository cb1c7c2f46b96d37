//! The handle of an open database, and the options of one write.

use std::path::Path;
use std::sync::Arc;

use terrane_btree::Class;
use terrane_wal::lsn::{TreeId, Ts};
use terrane_wal::sync::{AtomicBool, Ordering};

use crate::builder::Builder;
use crate::catalog::{self, OUTCOMES, Remembered, TableInfo, TableSpec};
use crate::checkpoint;
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::limits::MAX_IDEMPOTENCY_KEY_BYTES;
use crate::metrics::{IoCounts, Stats};
use crate::runtime::Core;
use crate::runtime::worker::Worker;
use crate::txn::intents::Intents;
use crate::txn::snapshot::read_row;
use crate::txn::transaction::Begin;
use crate::txn::{Isolation, Snapshot, Transaction, commit, retry, sweep};

/// How safe a commit is when it returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// In the log's memory: it survives a panic of the caller, not the end of the process. The log
    /// is flushed every 10 ms.
    Buffered,
    /// On the disk of this machine, with one device flush.
    #[default]
    Local,
    /// On the disk of this machine and of a replica.
    Replicated,
}

/// A position in the log of each shard. What a commit returns and what a snapshot can be held to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub(crate) u64);

/// What a transaction became.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Commit {
    /// The state right after the commit, or, if nothing was written, the state that was read.
    pub position: Position,
    /// How many shards took part; 0 if nothing was written.
    pub shards: u32,
}

/// An open database. Clones are handles of the same one; the last one closes it when dropped.
#[derive(Clone, Debug)]
pub struct Database {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    core: Arc<Core>,
    worker: Option<Worker>,
    ended: AtomicBool,
}

impl Database {
    /// Opens the database in the directory `path`, creating it if nothing is there.
    ///
    /// # Errors
    /// See [`Builder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Database> {
        Database::builder().open(path)
    }

    /// Options of an open.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// The handle of a database that recovery has made ready.
    pub(crate) fn over(core: Arc<Core>, background: bool) -> Result<Database> {
        let worker = if background {
            Some(Worker::start(&core)?)
        } else {
            None
        };
        let ended = AtomicBool::new(false);
        Ok(Database {
            handle: Arc::new(Handle {
                core,
                worker,
                ended,
            }),
        })
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.handle.core
    }

    /// A handle for the background work: its end closes nothing.
    pub(crate) fn detached(core: &Arc<Core>) -> Database {
        Database {
            handle: Arc::new(Handle {
                core: core.clone(),
                worker: None,
                ended: AtomicBool::new(true),
            }),
        }
    }

    /// A consistent state to read from: everything committed at this database's level.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::begin(self)
    }

    /// Begins a write transaction with the database's isolation and durability.
    #[must_use]
    pub fn begin(&self) -> Transaction {
        let core = self.core();
        let begin = Begin {
            isolation: core.options.isolation,
            durability: core.options.durability,
            idempotency: None,
            age: core.next_age(),
        };
        Transaction::begin(self, begin)
    }

    /// Runs `body` in a transaction and commits it. On a conflict its writes are dropped and it
    /// runs again on a newer state, up to 100 times: clone or borrow what it captures.
    ///
    /// # Errors
    /// What `body` returns, and what [`Transaction::commit`] returns.
    pub fn write<T>(&self, body: impl FnMut(&mut Transaction) -> Result<T>) -> Result<T> {
        self.try_write(body)
    }

    /// As [`Database::write`], with the caller's own error type. An error of `body` aborts at once,
    /// and is returned when what `body` had read is durable.
    ///
    /// # Errors
    /// What `body` returns, and what [`Transaction::commit`] returns.
    pub fn try_write<T, E: From<Error>>(
        &self,
        body: impl FnMut(&mut Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        retry::run(self, &WriteOptions::default(), body).map(|(value, _)| value)
    }

    /// Options of one write.
    #[must_use]
    pub fn writer(&self) -> Writer {
        Writer {
            db: self.clone(),
            options: WriteOptions::default(),
        }
    }

    /// What became of the transaction that carried the idempotency key `key`: `Committed` (and
    /// durable), or `Aborted` if it has not committed and is not about to. `Unknown` if it is
    /// committed here, but the log failed before it was durable.
    ///
    /// # Errors
    /// `Invalid` for a key that is empty or longer than 64 bytes; those of a read.
    pub fn outcome(&self, key: impl AsRef<[u8]>) -> Result<Outcome> {
        let key = key.as_ref();
        check_idempotency(key)?;
        let core = self.core();
        core.check_process()?;
        // The intent on the key waits for a commit that is under way with it.
        let shared: Arc<[u8]> = key.into();
        let mut intents = Intents::new(core, core.next_age());
        intents.place(OUTCOMES, &shared, None)?;
        let Some(row) = read_row(core, OUTCOMES, key, Ts(u64::MAX))?.value else {
            return Ok(Outcome::Aborted);
        };
        drop(intents);
        let remembered = Remembered::decode(&row)?;
        if remembered.is_over(core.now_wall()) {
            return Ok(Outcome::Aborted);
        }
        if core.log.is_none() {
            return Ok(Outcome::Committed);
        }
        commit::wait_applied(core, remembered.ts)?;
        match core.wait_read(core.prefix.applied().0) {
            Ok(()) => Ok(Outcome::Committed),
            Err(_) => Ok(Outcome::Unknown),
        }
    }

    /// What open found worth telling, though it is no error: that a ring was refused and a pool of
    /// threads serves instead, that the newest image was damaged and the one before it was opened.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.core().options.notices
    }

    /// Counters of the database and of everything below it.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let core = self.core();
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
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

    /// Writes a checkpoint that holds everything committed before the call, so that a reopen has
    /// little to replay. Never needed: checkpoints come by themselves.
    ///
    /// # Errors
    /// `Full`, `Io`: the older images stay, nothing is lost. `ReadOnly`, `Closed`.
    pub fn checkpoint(&self) -> Result<()> {
        self.core().check_writable()?;
        checkpoint::now(self.core(), false)
    }

    /// One round of the background work, for a database opened without its thread. True if there
    /// is more to do.
    #[cfg(feature = "sim")]
    pub fn background_step(&self) -> bool {
        use crate::runtime::worker::{Due, step};
        step(self.core()) == Due::Now
    }

    /// Verifies every page, tree and slot of a database that nobody changes meanwhile; what is
    /// wrong, in words.
    ///
    /// # Errors
    /// `Io` if the device fails, `Closed`.
    #[cfg(feature = "sim")]
    pub fn check_store(&self) -> Result<Vec<String>> {
        self.core().check_open()?;
        let mut findings = Vec::new();
        let mut found = |finding: terrane_btree::check::Finding| {
            findings.push(finding.error.to_string());
        };
        self.core().store.check(&mut found)?;
        Ok(findings)
    }

    /// One step of a checkpoint, which is begun if none is under way: true when it is published.
    /// For tests that do something between any two steps.
    ///
    /// # Errors
    /// As [`Database::checkpoint`].
    #[cfg(feature = "sim")]
    pub fn checkpoint_step(&self) -> Result<bool> {
        checkpoint::single_step(self.core())
    }

    /// From now on every handle answers as one that a forked child has inherited, until it is told
    /// otherwise: for tests, which cannot fork safely. Returns one of the handles.
    #[cfg(feature = "sim")]
    pub fn as_in_a_fork(&self, forked: bool) -> Database {
        self.core().set_foreign(forked);
        self.clone()
    }

    /// Waits for commits in flight, then closes: later reads and commits give `Closed`. A second
    /// close does nothing.
    ///
    /// # Errors
    /// What the last flush or checkpoint gives; the database is closed all the same, and nothing
    /// that was acknowledged is lost.
    pub fn close(&self) -> Result<()> {
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

/// Options of one write; see [`Database::writer`].
#[derive(Clone, Debug)]
pub struct Writer {
    db: Database,
    options: WriteOptions,
}

/// What was asked of one write.
#[derive(Clone, Debug)]
pub(crate) struct WriteOptions {
    pub(crate) isolation: Option<Isolation>,
    pub(crate) durability: Option<Durability>,
    pub(crate) retries: u32,
    pub(crate) idempotency: Option<Vec<u8>>,
}

impl Default for WriteOptions {
    fn default() -> WriteOptions {
        WriteOptions {
            isolation: None,
            durability: None,
            retries: 100,
            idempotency: None,
        }
    }
}

impl WriteOptions {
    /// The durability to wait for.
    ///
    /// # Errors
    /// `Invalid` if it cannot be kept, or is less than the database's.
    pub(crate) fn effective_durability(&self, core: &Core) -> Result<Durability> {
        if let Some(key) = &self.idempotency {
            check_idempotency(key)?;
        }
        let own = core.options.durability;
        match self.durability {
            None => Ok(own),
            Some(Durability::Replicated) => Err(no_replicas()),
            Some(asked) if asked < own => {
                let error = Error::new(ErrorKind::Invalid, "a write may only ask for more");
                Err(error
                    .with("durability", format!("{asked:?}"))
                    .with("database", format!("{own:?}")))
            }
            Some(asked) => Ok(asked),
        }
    }
}

/// The error of a level that needs replicas.
pub(crate) fn no_replicas() -> Error {
    Error::new(ErrorKind::Invalid, "the database has no replicas")
        .with("durability", "Replicated")
        .with("allowed", "Buffered, Local")
}

fn check_idempotency(key: &[u8]) -> Result<()> {
    if key.is_empty() || key.len() > MAX_IDEMPOTENCY_KEY_BYTES {
        let error = Error::new(ErrorKind::Invalid, "an idempotency key has 1 to 64 bytes");
        return Err(error.with("given_bytes", key.len()));
    }
    Ok(())
}

impl Writer {
    /// The isolation of this write.
    #[must_use]
    pub fn isolation(mut self, isolation: Isolation) -> Writer {
        self.options.isolation = Some(isolation);
        self
    }

    /// The durability of this write; may only ask for more than the database's.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Writer {
        self.options.durability = Some(durability);
        self
    }

    /// How often a conflict is answered by another attempt. Default 100.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Writer {
        self.options.retries = retries;
        self
    }

    /// Names this write by 1 to 64 bytes: of several with one key at most one commits within 24
    /// hours. A later one runs its closure, drops what it wrote and returns as committed.
    #[must_use]
    pub fn idempotency(mut self, key: impl AsRef<[u8]>) -> Writer {
        self.options.idempotency = Some(key.as_ref().to_vec());
        self
    }

    /// Begins a transaction by hand with these options; nothing is retried.
    ///
    /// # Errors
    /// `Invalid` for options that cannot be kept.
    pub fn begin(&self) -> Result<Transaction> {
        let core = self.db.core();
        let begin = Begin {
            isolation: self.options.isolation.unwrap_or(core.options.isolation),
            durability: self.options.effective_durability(core)?,
            idempotency: self.options.idempotency.clone(),
            age: core.next_age(),
        };
        Ok(Transaction::begin(&self.db, begin))
    }

    /// Runs `body` as [`Database::try_write`] does, and returns the commit too.
    ///
    /// # Errors
    /// As [`Database::try_write`], and `Invalid` for options that cannot be kept.
    pub fn run<T, E: From<Error>>(
        &self,
        body: impl FnMut(&mut Transaction) -> Result<T, E>,
    ) -> Result<(T, Commit), E> {
        retry::run(&self.db, &self.options, body)
    }
}
