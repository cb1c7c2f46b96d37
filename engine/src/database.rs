//! The handle of an open database, and the options of one write.

use std::path::Path;
use std::sync::Arc;

use crate::builder::Builder;
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::limits::MAX_IDEMPOTENCY_KEY_BYTES;
use crate::local::Local;
use crate::metrics::Stats;
use crate::routes::{Anchor, Routes};
use crate::runtime::Core;
use crate::txn::leg::Begin;
use crate::txn::moments::Moments;
use crate::txn::snapshot::View;
use crate::txn::spread::Spread;
use crate::txn::{Isolation, Snapshot, Transaction, retry};

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

/// What becomes of a transaction that several shards take part in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CrossShard {
    /// It commits in all of them or in none, in two phases: it costs two flushes instead of one.
    #[default]
    Atomic,
    /// It ends with `CrossShard`: for those who place together what is changed together, and want
    /// to know where they do not.
    Refuse,
}

/// A position in the log, or, in a database of several shards, in the time of all of them. What a
/// commit returns and what a snapshot can be held to.
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
    place: Place,
}

/// What serves a handle.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// The trees of one directory.
    Alone(Local),
    /// Whoever leads a shard.
    Cluster(Arc<dyn Routes>),
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

    /// The handle of a database by itself.
    pub(crate) fn alone(local: Local) -> Database {
        Database {
            place: Place::Alone(local),
        }
    }

    /// The handle of a cluster's database.
    pub(crate) fn routed(routes: Arc<dyn Routes>) -> Database {
        Database {
            place: Place::Cluster(routes),
        }
    }

    /// The trees of a database by itself.
    #[inline]
    pub(crate) fn lone(&self) -> Option<&Local> {
        match &self.place {
            Place::Alone(local) => Some(local),
            Place::Cluster(_) => None,
        }
    }

    /// What serves the handle.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// The trees that serve a call in a shard that begins now.
    ///
    /// # Errors
    /// `Unavailable` if no member of the shard leads.
    pub(crate) fn leader(&self, shard: u32) -> Result<Local> {
        match &self.place {
            Place::Alone(local) => Ok(local.clone()),
            Place::Cluster(routes) => routes.leader(shard),
        }
    }

    /// How many shards there are.
    pub(crate) fn shards(&self) -> u32 {
        match &self.place {
            Place::Alone(_) => 1,
            Place::Cluster(routes) => routes.map().shards().len() as u32,
        }
    }

    /// The way to its shards and what is read in all of them, where there are several.
    pub(crate) fn spread(&self) -> Option<(&Arc<dyn Routes>, &Arc<Moments>)> {
        match &self.place {
            Place::Alone(_) => None,
            Place::Cluster(routes) => Some((routes, routes.moments()?)),
        }
    }

    /// A consistent state to read from: everything committed at this database's level.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        if let Some((routes, moments)) = self.spread() {
            return Snapshot::spread(self, routes, moments);
        }
        match &self.place {
            Place::Alone(_) => Snapshot::begin(Anchor::of(self)),
            Place::Cluster(routes) => {
                let view = routes.view(self, 0, None);
                let none = |error| View::begin(Anchor::at(self, Err(error)));
                Snapshot::of(view.unwrap_or_else(none))
            }
        }
    }

    /// Begins a write transaction with the database's isolation and durability.
    #[must_use]
    pub fn begin(&self) -> Transaction {
        if let Some((routes, moments)) = self.spread() {
            let options = WriteOptions::default();
            let age = moments.next_age();
            let spread = Spread::begin(self, (routes, moments), &options, age);
            return Transaction::spread(spread);
        }
        let anchor = Anchor::of(self);
        let begin = anchor.local().map(|local| Begin::of(local.core()));
        Transaction::begin(anchor, begin.unwrap_or_default())
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
    /// `Invalid` for a key that is empty or longer than 64 bytes, and in a database of several
    /// shards; those of a read.
    pub fn outcome(&self, key: impl AsRef<[u8]>) -> Result<Outcome> {
        let key = key.as_ref();
        check_idempotency(key)?;
        if self.spread().is_some() {
            return Err(no_keys());
        }
        Ok(retry::outcome(self, key)?.0)
    }

    /// What open found worth telling, though it is no error: that a ring was refused and a pool of
    /// threads serves instead, that the newest image was damaged and the one before it was opened.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        self.lone()
            .map_or(&[], |local| &local.core().options.notices)
    }

    /// Counters of the database and of everything below it; of a cluster, those of the member that
    /// leads its first shard.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.leader(0)
            .map_or_else(|_| Stats::none(), |local| local.stats())
    }

    /// Writes a checkpoint that holds everything committed before the call, so that a reopen has
    /// little to replay. Never needed: checkpoints come by themselves.
    ///
    /// # Errors
    /// `Full`, `Io`: the older images stay, nothing is lost. `ReadOnly`, `Closed`.
    pub fn checkpoint(&self) -> Result<()> {
        (0..self.shards()).try_for_each(|shard| retry::at_leader(self, shard, Local::checkpoint))
    }

    /// One round of the background work, for a database opened without its thread. True if there
    /// is more to do.
    #[cfg(feature = "sim")]
    pub fn background_step(&self) -> bool {
        use crate::runtime::worker::{Due, step};
        self.leader(0)
            .is_ok_and(|local| step(local.core()) == Due::Now)
    }

    /// Verifies every page, tree and slot of a database that nobody changes meanwhile; what is
    /// wrong, in words.
    ///
    /// # Errors
    /// `Io` if the device fails, `Closed`.
    #[cfg(feature = "sim")]
    pub fn check_store(&self) -> Result<Vec<String>> {
        let local = self.leader(0)?;
        local.core().check_open()?;
        let mut findings = Vec::new();
        let mut found = |finding: terrane_btree::check::Finding| {
            findings.push(finding.error.to_string());
        };
        local.core().store.check(&mut found)?;
        Ok(findings)
    }

    /// One step of a checkpoint, which is begun if none is under way: true when it is published.
    /// For tests that do something between any two steps.
    ///
    /// # Errors
    /// As [`Database::checkpoint`].
    #[cfg(feature = "sim")]
    pub fn checkpoint_step(&self) -> Result<bool> {
        crate::checkpoint::single_step(self.leader(0)?.core())
    }

    /// From now on every handle answers as one that a forked child has inherited, until it is told
    /// otherwise: for tests, which cannot fork safely. Returns one of the handles.
    #[cfg(feature = "sim")]
    pub fn as_in_a_fork(&self, forked: bool) -> Database {
        if let Ok(local) = self.leader(0) {
            local.core().set_foreign(forked);
        }
        self.clone()
    }

    /// Waits for commits in flight, then closes: later reads and commits give `Closed`. A second
    /// close does nothing.
    ///
    /// # Errors
    /// What the last flush or checkpoint gives; the database is closed all the same, and nothing
    /// that was acknowledged is lost.
    pub fn close(&self) -> Result<()> {
        match &self.place {
            Place::Alone(local) => local.close(),
            Place::Cluster(routes) => routes.close(),
        }
    }
}

/// What tests of the trees look at.
#[cfg(test)]
impl Database {
    pub(crate) fn local(&self) -> &Local {
        self.lone().expect("a database by itself")
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        self.local().core()
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
    /// How a transaction with these options is to run.
    ///
    /// # Errors
    /// As [`WriteOptions::effective_durability`].
    pub(crate) fn begin(&self, core: &Core) -> Result<Begin> {
        Ok(Begin {
            isolation: self.isolation.unwrap_or(core.options.isolation),
            durability: self.effective_durability(core)?,
            idempotency: self.idempotency.clone(),
            age: core.next_age(),
            moment: None,
        })
    }

    /// Whether a database of several shards can keep them.
    ///
    /// # Errors
    /// `Invalid`.
    pub(crate) fn check_spread(&self) -> Result<()> {
        match (self.durability, &self.idempotency) {
            (_, Some(_)) => Err(no_keys()),
            (None | Some(Durability::Replicated), None) => Ok(()),
            (Some(asked), None) => Err(asks_for_less(asked, Durability::Replicated)),
        }
    }

    /// The durability to wait for.
    ///
    /// # Errors
    /// `Invalid` if it cannot be kept, or is less than the database's.
    fn effective_durability(&self, core: &Core) -> Result<Durability> {
        if let Some(key) = &self.idempotency {
            check_idempotency(key)?;
        }
        let own = core.options.durability;
        match self.durability {
            None => Ok(own),
            Some(Durability::Replicated) if core.standing.is_none() => Err(no_replicas()),
            Some(asked) if asked < own => Err(asks_for_less(asked, own)),
            Some(asked) => Ok(asked),
        }
    }
}

fn asks_for_less(asked: Durability, own: Durability) -> Error {
    Error::new(ErrorKind::Invalid, "a write may only ask for more")
        .with("durability", format!("{asked:?}"))
        .with("database", format!("{own:?}"))
}

/// The error of an idempotency key that no one shard can keep.
fn no_keys() -> Error {
    let what = "a database of several shards keeps no idempotency keys yet";
    Error::new(ErrorKind::Invalid, what)
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
    /// `Invalid` for options that cannot be kept; `Unavailable` if no member of a cluster leads.
    pub fn begin(&self) -> Result<Transaction> {
        if let Some((routes, moments)) = self.db.spread() {
            self.options.check_spread()?;
            let (all, age) = ((routes, moments), moments.next_age());
            let spread = Spread::begin(&self.db, all, &self.options, age);
            return Ok(Transaction::spread(spread));
        }
        let anchor = Anchor::of(&self.db);
        let begin = self.options.begin(anchor.local()?.core())?;
        Ok(Transaction::begin(anchor, begin))
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
