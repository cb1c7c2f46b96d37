//! The state behind every handle of one open database, and the positions that rule its reads.
//!
//! [`Core`] is made by `recovery` and shared by handles, snapshots, transactions and the background
//! thread. Positions: `applied` is the contiguous prefix of commits that are in the trees; the
//! level's position is what the log has filled or made durable; the visible position is the lower
//! of the two, and it never goes back.

pub(crate) mod fence;
pub(crate) mod home;
mod lower;
pub(crate) mod standing;
pub(crate) mod trees;
pub(crate) mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use terrane_btree::{Store, Tree};
use terrane_wal::env::Env;
use terrane_wal::epochs::Point;
use terrane_wal::io::Lock;
use terrane_wal::lsn::{Lsn, TreeId, Ts};
use terrane_wal::sync::Mutex;
use terrane_wal::{Level, Log};

use crate::apply::Unapplied;
use crate::builder::Options;
use crate::catalog::Catalog;
use crate::checkpoint::Checkpointer;
use crate::database::Durability;
use crate::error::{Error, ErrorKind, Result};
use crate::index::vector::VectorTables;
use crate::metrics::Counters;
use crate::txn::commit::wait_applied;
use crate::txn::gate::Gate;
use crate::txn::positions::ReadPositions;
use crate::txn::prefix::Prefix;
use crate::txn::prepared::Prepared;
use crate::txn::recent::Recent;
use crate::txn::ring::Ring;
use crate::txn::snapshot::check_floor;

use home::Home;
use standing::Standing;
use trees::Trees;

/// One open database.
#[derive(Debug)]
pub(crate) struct Core {
    /// Which database it is.
    pub(crate) home: Home,
    pub(crate) env: Env,
    pub(crate) options: Options,
    pub(crate) store: Store,
    /// None: opened read-only.
    pub(crate) log: Option<Arc<Log>>,
    /// Of a member of a shard; None: a database by itself.
    pub(crate) standing: Option<Standing>,
    pub(crate) trees: Trees,
    pub(crate) catalog: Catalog,
    pub(crate) recent: Recent,
    pub(crate) reads: Arc<ReadPositions>,
    pub(crate) prefix: Prefix,
    pub(crate) ring: Ring,
    pub(crate) gate: Gate,
    /// Undecided transactions of several shards.
    pub(crate) prepared: Prepared,
    pub(crate) unapplied: Unapplied,
    pub(crate) vectors: VectorTables,
    pub(crate) checkpointer: Mutex<Checkpointer>,
    pub(crate) counters: Counters,
    /// Rank of the next transaction: the smaller, the older.
    ages: AtomicU64,
    /// The newest commit that open found: positions start here.
    base: (Lsn, Ts),
    closed: AtomicBool,
    poison: Mutex<Option<String>>,
    poisoned: AtomicBool,
    panicked: AtomicBool,
    /// Who opened it.
    pid: AtomicU32,
    lock: Mutex<Option<Box<dyn Lock>>>,
}

/// What recovery hands over.
#[derive(Debug)]
pub(crate) struct Parts {
    /// Of the database, or of the shard.
    pub(crate) uuid: [u8; 16],
    pub(crate) env: Env,
    pub(crate) options: Options,
    pub(crate) store: Store,
    pub(crate) log: Option<Arc<Log>>,
    pub(crate) standing: Option<Standing>,
    pub(crate) lock: Option<Box<dyn Lock>>,
    pub(crate) trees: Trees,
    pub(crate) catalog: Catalog,
    pub(crate) base: (Lsn, Ts),
}

impl Core {
    /// An open database whose trees hold everything up to the base position.
    pub(crate) fn new(mut parts: Parts) -> Arc<Core> {
        let (lsn, ts) = parts.base;
        let prefix = Prefix::new(lsn, ts);
        let home = match parts.standing {
            None => {
                // What is durable is committed.
                prefix.commit_to(Lsn(u64::MAX));
                Home::alone(parts.uuid)
            }
            Some(_) => {
                // What the leader's disk alone has, the next leader may not have.
                parts.options.durability = Durability::Replicated;
                Home::shard(parts.uuid)
            }
        };
        let recent = Recent::new();
        // Versions of before are nowhere.
        recent.raise_floor(ts);
        Arc::new(Core {
            home,
            gate: Gate::new(parts.env.park.clone()),
            env: parts.env,
            options: parts.options,
            store: parts.store,
            log: parts.log,
            standing: parts.standing,
            trees: parts.trees,
            catalog: parts.catalog,
            recent,
            reads: ReadPositions::new(),
            prefix,
            ring: Ring::new(ts),
            prepared: Prepared::default(),
            unapplied: Unapplied::default(),
            vectors: VectorTables::default(),
            checkpointer: Mutex::new(Checkpointer::default()),
            counters: Counters::default(),
            ages: AtomicU64::new(1),
            base: parts.base,
            closed: AtomicBool::new(false),
            poison: Mutex::new(None),
            poisoned: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            pid: AtomicU32::new(std::process::id()),
            lock: Mutex::new(parts.lock),
        })
    }

    /// The rank of a new transaction.
    pub(crate) fn next_age(&self) -> u64 {
        self.ages.fetch_add(1, Ordering::Relaxed)
    }

    /// The log, if this handle may write.
    pub(crate) fn log(&self) -> Result<&Arc<Log>> {
        match &self.log {
            Some(log) => Ok(log),
            None => Err(Error::new(
                ErrorKind::ReadOnly,
                "the database was opened read-only",
            )),
        }
    }

    /// The handle of a tree.
    pub(crate) fn tree(&self, id: TreeId) -> Result<&Tree> {
        self.trees.get(id)
    }

    /// Monotonic time.
    pub(crate) fn now(&self) -> Duration {
        self.env.clock.now_mono()
    }

    /// Wall time as far as timestamps follow it: without it a clock that jumps ahead would make
    /// commits forget their idempotency keys.
    pub(crate) fn now_wall(&self) -> Duration {
        match &self.log {
            Some(log) => log.clock().now(),
            None => self.env.clock.now_wall(),
        }
    }

    /// Timestamp up to which the log has reached this database's level of durability.
    pub(crate) fn level_ts(&self) -> Ts {
        let reached = match (&self.log, self.options.durability) {
            (None, _) => Ts::ZERO,
            (Some(log), Durability::Buffered) => log.filled_ts(),
            (Some(log), Durability::Local) => log.durable_ts(),
            (Some(_), Durability::Replicated) => {
                match terrane_wal::planted!("tentative_rows_are_shown") {
                    true => self.prefix.applied_ts(),
                    false => self.prefix.committed_ts(),
                }
            }
        };
        reached.max(self.base.1)
    }

    /// The visible position: what a snapshot that begins now reads at.
    pub(crate) fn visible_ts(&self) -> Ts {
        self.prefix.applied_ts().min(self.level_ts())
    }

    /// X6: what no reader asks for that is there or comes, but for those below `floor`, which were
    /// given up. `visible` must have been read before the call.
    pub(crate) fn horizon_from(&self, floor: Ts, visible: Ts) -> Ts {
        let own = self.reads.horizon_from(floor, visible);
        match &self.options.moments {
            None => own,
            Some(moments) => own.min(moments.horizon_from(floor, visible)),
        }
    }

    /// The oldest position that is read and not given up, and for how long.
    pub(crate) fn oldest_reader(&self) -> Option<(Ts, Duration)> {
        let floor = self.recent.floor();
        let age = |(ts, taken_at)| (ts, self.now().saturating_sub(taken_at));
        let own = self.reads.oldest(floor).map(age);
        let moments = self.options.moments.as_ref();
        let other = moments.and_then(|moments| moments.oldest(floor));
        own.into_iter().chain(other).min_by_key(|(ts, _)| *ts)
    }

    /// Has this shard come to a moment that is read in others too: what is committed here from now
    /// on comes after it, and all before it is in the trees.
    ///
    /// # Errors
    /// `SnapshotTooOld` if versions of then may be gone; that of a poisoned database.
    pub(crate) fn reach(&self, moment: Ts) -> Result<()> {
        let behind = self.prefix.applied_ts() < moment;
        if behind && !terrane_wal::planted!("a_shard_is_not_brought_to_the_moment") {
            self.log()?.observe(moment);
            wait_applied(self, self.prefix.newest())?;
        }
        check_floor(self, moment)
    }

    /// As [`Core::reach`], for who reads only what is at this database's level.
    pub(crate) fn reach_shown(&self, moment: Ts) -> Result<()> {
        self.reach(moment)?;
        let (lsn, newest) = self.prefix.applied();
        if self.level_ts() < newest.min(moment) {
            self.wait_read(lsn)?;
        }
        Ok(())
    }

    /// End of the newest entry that a snapshot at the visible position holds for certain.
    pub(crate) fn visible_lsn(&self) -> Lsn {
        let (applied, _) = self.prefix.applied();
        let level = match (&self.log, self.options.durability) {
            (None, _) => applied,
            (Some(log), Durability::Buffered) => log.positions().filled.0,
            (Some(log), Durability::Local) => log.positions().durable.0,
            (Some(log), Durability::Replicated) => log.commit_lsn(),
        };
        applied.min(level.max(self.base.0))
    }

    /// Waits until an entry of the log is as safe as that.
    ///
    /// # Errors
    /// Of the log; `NotLeader` and `TimedOut` if it was not seen to be committed. The entry may be
    /// all the same.
    pub(crate) fn wait_logged(&self, durability: Durability, at: Point) -> Result<()> {
        let log = self.log()?;
        match (durability, &self.standing) {
            (Durability::Buffered, _) => log.wait(Level::Filled, at.lsn)?,
            (Durability::Replicated, Some(standing)) => {
                log.wait(Level::Durable, at.lsn)?;
                standing.ship();
                if !terrane_wal::planted!("what_is_durable_here_is_acknowledged") {
                    log.wait_committed(at, standing.within())?;
                }
            }
            _ => log.wait(Level::Durable, at.lsn)?,
        }
        Ok(())
    }

    /// As [`Core::wait_logged`], of what was read here at this database's level: trees of a member
    /// that leads no more may have held what another decided against.
    pub(crate) fn wait_read(&self, lsn: Lsn) -> Result<()> {
        self.wait_logged(self.options.durability, self.log()?.point_at(lsn))?;
        self.check_shown()
    }

    /// The log has another entry: it goes to the other members, if there are any.
    pub(crate) fn ship(&self) {
        if let Some(standing) = &self.standing {
            standing.ship();
        }
    }

    /// Refuses a handle that is closed or was inherited by a forked process, and trees that are
    /// made again.
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "the database is closed"));
        }
        self.check_shown()
    }

    /// Refuses reads of what may never have been committed (I15).
    pub(crate) fn check_shown(&self) -> Result<()> {
        self.standing.as_ref().map_or(Ok(()), Standing::check_shown)
    }

    /// What a read came to, unless the trees were being made again meanwhile: then neither the rows
    /// nor the error mean anything (I15).
    #[inline]
    pub(crate) fn shown<T>(&self, read: Result<T>) -> Result<T> {
        match &self.standing {
            None => read,
            Some(standing) => standing.check_shown().and(read),
        }
    }

    /// As [`Core::shown`], where something else than rows comes of it, which stands.
    pub(crate) fn shown_error<T>(&self, done: Result<T>) -> Result<T> {
        done.map_err(|error| self.check_shown().err().unwrap_or(error))
    }

    /// Refuses writes where another member leads.
    pub(crate) fn check_leads(&self) -> Result<()> {
        self.standing.as_ref().map_or(Ok(()), Standing::check_leads)
    }

    /// As [`Core::check_open`], and refuses a forked child. Asked at begin and commit.
    pub(crate) fn check_process(&self) -> Result<()> {
        self.check_open()?;
        if self.is_foreign() {
            let error = Error::new(ErrorKind::Closed, "a forked process cannot use it");
            let used_by = std::process::id();
            let opened_by = self.pid.load(Ordering::Relaxed);
            return Err(error.with("opened_by", opened_by).with("used_by", used_by));
        }
        Ok(())
    }

    /// True in a child that was forked off the process that opened the database.
    pub(crate) fn is_foreign(&self) -> bool {
        std::process::id() != self.pid.load(Ordering::Relaxed)
    }

    /// Makes the core look as a forked child sees it, or as before.
    #[cfg(feature = "sim")]
    pub(crate) fn set_foreign(&self, foreign: bool) {
        let own = std::process::id();
        let pid = if foreign { own.wrapping_add(1) } else { own };
        self.pid.store(pid, Ordering::Relaxed);
    }

    /// Refuses writes after a failure that only a reopen heals.
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.check_process()?;
        if self.poisoned.load(Ordering::Acquire) {
            let error = Error::new(ErrorKind::Io, "closed for writing; reopen the database");
            let cause = self.poison.lock().clone();
            return Err(error.with("cause", cause.unwrap_or_default()));
        }
        self.check_leads()?;
        if let Some(cause) = self.log()?.poisoned() {
            let error = Error::new(ErrorKind::Io, "a log write failed; reopen the database");
            return Err(error.caused_by((*cause).clone()));
        }
        Ok(())
    }

    /// True if writes are closed until a reopen.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    /// Closes the handle for writing. Reads go on at the visible position.
    pub(crate) fn poison(&self, cause: impl Into<String>) {
        self.poison.lock().get_or_insert_with(|| cause.into());
        self.poisoned.store(true, Ordering::Release);
        self.prefix.wake_all();
    }

    /// As [`Core::poison`], after a panic: whoever panicked may have been leading a flush, so the
    /// log is not waited for any more, not even at the end.
    pub(crate) fn poison_by_panic(&self) {
        self.panicked.store(true, Ordering::Release);
        self.poison("a panic inside a commit");
    }

    /// True after a panic inside a commit.
    pub(crate) fn has_panicked(&self) -> bool {
        self.panicked.load(Ordering::Acquire)
    }

    /// From now on reads and commits give `Closed`. False: they did before.
    pub(crate) fn set_closed(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }

    /// Gives the lock of the directory back.
    pub(crate) fn unlock(&self) {
        let _ = self.lock.lock().take();
    }
}
