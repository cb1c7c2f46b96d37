//! A write transaction in one shard: buffered writes over a snapshot. Owned, `'static + Send`.
//!
//! The snapshot is taken lazily at the applied position, by the first read, and after a first
//! `get_for_update` has been granted: so a read-modify-write of a hot row that begins with it does
//! not lose to whom it waited for. What is read may not be durable yet; it leaves the transaction
//! at commit, or through `leave`, which wait for it.

use std::cell::{OnceCell, RefCell};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use terrane_wal::lsn::{Lsn, TreeId, Ts};

use crate::catalog::TreeOp;
use crate::database::{Commit, Database, Durability, Position};
use crate::error::{Error, ErrorKind, Result};
use crate::index::vector::bind::Binding;
use crate::limits::{check_key, check_value};
use crate::local::Local;
use crate::routes::Anchor;
use crate::runtime::Core;
use crate::txn::Isolation;
use crate::txn::commit::{self, Ticket};
use crate::txn::intents::Intents;
use crate::txn::moments::Moment;
use crate::txn::owner::Owner;
use crate::txn::positions::ReadPin;
use crate::txn::prepared::Part;
use crate::txn::range::Range;
use crate::txn::raw::{RawRead, ReadState};
use crate::txn::reach::Reach;
use crate::txn::records::Records;
use crate::txn::ring::RowKey;
use crate::txn::scan::{RawScan, Within};
use crate::txn::snapshot::read_row;
use crate::txn::tentative::Tentative;
use crate::txn::validate::Reads;
use crate::txn::write_set::{Write, WriteSet};

/// What a write transaction does in one shard; all of it where there is one. Dropping it aborts it,
/// without waiting.
pub struct Leg {
    anchor: Anchor,
    pub(super) isolation: Isolation,
    pub(super) durability: Durability,
    pub(super) idempotency: Option<Vec<u8>>,
    pub(super) intents: Intents,
    pub(super) writes: Arc<WriteSet>,
    pub(super) tree_ops: Vec<TreeOp>,
    /// Records of vector indexes that are not bound from rows: upkeep, and new indexes.
    pub(crate) records: Records,
    /// Vectors of rows that are indexed and not written.
    pub(super) adopted: Binding,
    pub(super) reads: RefCell<Reads>,
    snapshot: OnceCell<Pinned>,
    tentative: Arc<Tentative>,
    conflict: RefCell<Option<Conflicted>>,
    /// False: begun on a closed handle, in a forked child, or with nobody leading.
    alive: bool,
    /// Where the database has other shards: what is read in all of them.
    moment: Option<Arc<Moment>>,
    /// What other shards have decided is read from then on.
    pub(super) shown: Option<Ts>,
}

/// A conflict that an operation of the transaction has met.
#[derive(Clone, Debug)]
pub(crate) struct Conflicted {
    /// The row, if it was one: the next attempt locks it first.
    pub(crate) key: Option<RowKey>,
}

/// The read position of a transaction.
#[derive(Debug)]
pub(super) struct Pinned {
    pub(super) pin: Arc<ReadPin>,
    /// An applied position at or above the pinned one.
    lsn: Lsn,
}

/// How a transaction is to run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Begin {
    pub(crate) isolation: Isolation,
    pub(crate) durability: Durability,
    pub(crate) idempotency: Option<Vec<u8>>,
    /// Rank of the first attempt.
    pub(crate) age: u64,
    /// What is read, where the database has other shards.
    pub(crate) moment: Option<Arc<Moment>>,
}

impl Begin {
    /// As the database has it, for a first attempt.
    pub(crate) fn of(core: &Core) -> Begin {
        Begin {
            isolation: core.options.isolation,
            durability: core.options.durability,
            idempotency: None,
            age: core.next_age(),
            moment: None,
        }
    }
}

impl Leg {
    /// An attempt of a transaction. Where nobody leads, one whose every call says so.
    pub(crate) fn begin(anchor: Anchor, begin: Begin) -> Leg {
        let core = anchor.local().ok().map(Local::core);
        let alive = core.is_some_and(|core| core.check_process().is_ok());
        let intents = core.map_or_else(Intents::none, |core| Intents::new(core, begin.age));
        Leg {
            anchor,
            isolation: begin.isolation,
            durability: begin.durability,
            idempotency: begin.idempotency,
            intents,
            writes: Arc::new(WriteSet::default()),
            tree_ops: Vec::new(),
            records: Records::default(),
            adopted: Binding::default(),
            reads: RefCell::default(),
            snapshot: OnceCell::new(),
            tentative: Arc::default(),
            conflict: RefCell::new(None),
            alive,
            moment: begin.moment,
            shown: None,
        }
    }

    /// The commit up to where others can build on it; its ticket waits for the level.
    pub(crate) fn commit_ticket(&mut self) -> Result<Ticket> {
        let outcome = commit::run(self, commit::Entrance::Beside);
        // Read positions pin old versions: not needed any more, whatever came out.
        self.snapshot = OnceCell::new();
        outcome
    }

    /// A mark to go back to. Marks nest freely; going back to an outer one ends the inner ones.
    pub(crate) fn mark(&mut self) -> usize {
        Arc::make_mut(&mut self.writes).savepoint()
    }

    /// Takes back every write made after `mark`. Reads and locks stay.
    pub(crate) fn back_to(&mut self, mark: usize) {
        Arc::make_mut(&mut self.writes).rollback_to(mark);
    }

    /// The database that the transaction belongs to.
    pub(crate) fn database(&self) -> &Database {
        self.anchor.database()
    }

    /// The trees that it works in.
    ///
    /// # Errors
    /// `Unavailable` if nobody led when it began.
    #[inline]
    pub(super) fn core(&self) -> Result<&Arc<Core>> {
        self.anchor.local().map(Local::core)
    }

    fn check(&self) -> Result<&Arc<Core>> {
        let core = self.core()?;
        if self.alive {
            core.check_open()?;
        } else {
            core.check_process()?;
        }
        Ok(core)
    }

    /// Whether its member leads still: otherwise nothing of it counts.
    pub(super) fn check_leads(&self) -> Result<()> {
        self.core()?.check_leads()
    }

    /// The snapshot, taken now if it was not before.
    fn pinned(&self) -> Result<&Pinned> {
        let core = self.check()?;
        if let Some(pinned) = self.snapshot.get() {
            return Ok(pinned);
        }
        let pinned = match &self.moment {
            None => Pinned {
                pin: Arc::new(core.reads.pin(core.now(), || core.prefix.applied_ts())),
                lsn: core.prefix.applied().0,
            },
            Some(moment) => self.pinned_at(core, moment)?,
        };
        Ok(self.snapshot.get_or_init(|| pinned))
    }

    /// The snapshot where other shards are read as well.
    fn pinned_at(&self, core: &Core, moment: &Moment) -> Result<Pinned> {
        let ts = moment.at(|| core.prefix.applied_ts());
        let pin = Arc::new(core.reads.pin(core.now(), || ts));
        if let Err(error) = core.reach(ts) {
            if error.kind() == ErrorKind::SnapshotTooOld {
                // The next attempt reads what is there.
                moment.all().raise(core.recent.floor());
                self.conflicted(None);
            }
            return Err(error);
        }
        let lsn = core.prefix.applied().0;
        Ok(Pinned { pin, lsn })
    }

    /// The snapshot's position, if one was taken here or, of a transaction in several shards, in
    /// another one.
    pub(super) fn read_ts(&self) -> Option<Ts> {
        let own = self.snapshot.get().map(|pinned| pinned.pin.ts());
        own.or_else(|| self.moment.as_ref()?.ts())
    }

    /// What the leg does in its shard.
    pub(super) fn part(&self) -> Part {
        let mut part = Part::of(self.intents.owner().age(), &self.writes);
        if self.isolation == Isolation::Serializable {
            (part.keys, part.ranges) = self.reads.borrow().all();
        }
        part
    }

    /// From now on the transaction may hold something in another shard.
    pub(super) fn held_elsewhere(&mut self) {
        self.intents.held_elsewhere();
    }

    /// Gives the intents into another hand.
    pub(super) fn take_intents(&mut self) -> Intents {
        std::mem::replace(&mut self.intents, Intents::none())
    }

    /// Goes on with the intents of what was prepared; what is decided is read from `shown` on.
    pub(super) fn go_on(&mut self, intents: Intents, shown: Option<Ts>) {
        (self.intents, self.shown) = (intents, shown);
    }

    /// Writes what was within the limits before.
    pub(super) fn put_write(&mut self, tree: TreeId, key: Vec<u8>, write: Write) {
        Arc::make_mut(&mut self.writes).put(tree, key, write);
    }

    /// Waits until nothing is undecided that this reader may see there.
    fn settle(
        &self,
        core: &Core,
        tree: TreeId,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> Result<()> {
        match (&self.moment, self.snapshot.get()) {
            (Some(_), Some(pinned)) => core.prepared.settle(core, tree, bounds, pinned.pin.ts()),
            _ => Ok(()),
        }
    }

    /// Whether something was read here.
    pub(crate) fn has_read(&self) -> bool {
        self.snapshot.get().is_some()
    }

    /// How many rows are to be written here.
    pub(super) fn written(&self) -> usize {
        self.writes.len()
    }

    /// Whether something is to be written here.
    pub(crate) fn has_written(&self) -> bool {
        !self.writes.is_empty()
    }

    /// The buffered writes.
    #[cfg(test)]
    pub(crate) fn writes(&self) -> &Arc<WriteSet> {
        &self.writes
    }

    /// The owner word of its intents.
    pub(crate) fn owner(&self) -> &Arc<Owner> {
        self.intents.owner()
    }

    fn note_read(&self, begin: Ts) {
        self.tentative.note(begin);
    }

    /// Remembers a conflict, so that a retry happens also if the closure hides the error. The next
    /// attempt reads what this one met.
    pub(super) fn conflicted(&self, key: Option<RowKey>) {
        if let (Some(moment), Ok(core)) = (&self.moment, self.core()) {
            moment.all().raise(core.prefix.applied_ts());
        }
        *self.conflict.borrow_mut() = Some(Conflicted { key });
    }

    /// The conflict that an operation has met, if any.
    pub(crate) fn take_conflict(&self) -> Option<Conflicted> {
        self.conflict.borrow_mut().take()
    }

    /// Writes a row. `schema` is the table's schema version (0 for system trees), `flags` are those
    /// of the log record (1: an index row).
    ///
    /// # Errors
    /// `TooLarge` for a key, a value or a transaction above its limit; `Closed`, `ReadOnly`.
    pub(crate) fn put_raw(
        &mut self,
        tree: TreeId,
        schema: u32,
        flags: u8,
        key: Vec<u8>,
        value: Vec<u8>,
    ) -> Result<()> {
        check_value(&value)?;
        self.write(
            tree,
            key,
            Write {
                value: Some(value),
                schema,
                flags,
            },
        )
    }

    /// Deletes a row, whether or not it exists.
    ///
    /// # Errors
    /// As [`Leg::put_raw`].
    pub(crate) fn delete_raw(
        &mut self,
        tree: TreeId,
        schema: u32,
        flags: u8,
        key: Vec<u8>,
    ) -> Result<()> {
        self.write(
            tree,
            key,
            Write {
                value: None,
                schema,
                flags,
            },
        )
    }

    fn write(&mut self, tree: TreeId, key: Vec<u8>, write: Write) -> Result<()> {
        check_key(&key)?;
        let options = &self.check()?.options;
        let (keys_max, bytes_max) = (options.commit_keys, options.commit_bytes);
        let bytes = key.len() + write.value.as_ref().map_or(0, Vec::len);
        if self.writes.len() >= keys_max || self.writes.bytes() + bytes > bytes_max {
            let hint = "a transaction is above its limit; use `ingest` or `write_in_batches`";
            return Err(Error::new(ErrorKind::TooLarge, hint)
                .with("limit_keys", keys_max)
                .with("limit_bytes", bytes_max));
        }
        Arc::make_mut(&mut self.writes).put(tree, key, write);
        Ok(())
    }

    /// Makes or drops a tree when the transaction commits. Only under the gate held alone.
    pub(crate) fn tree_op(&mut self, op: TreeOp) {
        self.tree_ops.push(op);
    }

    /// Locks the row for this transaction, then reads it. Taken before the first other read, it
    /// makes a read-modify-write of a hot row succeed at the first attempt.
    ///
    /// # Errors
    /// `Conflict`, `TimedOut`, and those of a read.
    pub(crate) fn get_for_update_raw(
        &mut self,
        tree: TreeId,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>> {
        check_key(key)?;
        self.lock(tree, &Arc::from(key))?;
        self.get_raw(tree, key)
    }

    /// Takes over vectors that were bound from rows as they are stored.
    pub(crate) fn adopt(&mut self, binding: Binding) {
        self.adopted = binding;
    }

    /// Locks a row if nobody else holds it; never waits.
    pub(crate) fn try_lock(&mut self, tree: TreeId, key: &Arc<[u8]>) -> bool {
        self.intents.try_place(tree, key)
    }

    /// Locks a row. Without a snapshot yet, waits until the row's last commit can be read.
    pub(crate) fn lock(&mut self, tree: TreeId, key: &Arc<[u8]>) -> Result<()> {
        self.check()?.check_writable()?;
        let read_ts = self.read_ts();
        match self.intents.place(tree, key, read_ts) {
            Ok(begin) if read_ts.is_none() => commit::wait_applied(self.core()?, begin),
            Ok(_) => Ok(()),
            Err(error) => {
                if error.kind() == ErrorKind::Conflict {
                    self.conflicted(Some((tree, key.clone())));
                }
                Err(error)
            }
        }
    }

    /// Ends the scans: what was read up to now is what is validated and waited for (H2).
    pub(super) fn end_scans(&self) {
        self.tentative.end();
        self.reads.borrow_mut().take_scans();
    }

    /// Lets what was read leave, after which no scan gives out more: waits until the newest version
    /// that was read is at the database's level. Nothing is logged.
    ///
    /// # Errors
    /// `Io` if the log failed: what was read may be lost.
    pub(crate) fn leave(&self) -> Result<Commit> {
        self.end_scans();
        let core = self.core()?;
        let commit = |lsn: Lsn| Commit {
            position: Position(lsn.0),
            shards: 0,
        };
        let Some(pinned) = self.snapshot.get() else {
            return Ok(commit(core.visible_lsn()));
        };
        if self.tentative.newest() > core.level_ts() {
            core.wait_read(pinned.lsn)?;
        }
        Ok(commit(pinned.lsn))
    }
}

impl Drop for Leg {
    fn drop(&mut self) {
        self.tentative.end();
    }
}

impl RawRead for Leg {
    fn local(&self) -> Result<&Local> {
        self.anchor.local()
    }

    fn get_raw(&self, tree: TreeId, key: &[u8]) -> Result<Option<Vec<u8>>> {
        if let Some(write) = self.writes.get(tree, key) {
            self.check()?;
            return Ok(write.value.clone());
        }
        let pinned = self.pinned()?;
        if self.isolation == Isolation::Serializable {
            self.reads.borrow_mut().key(tree, key);
        }
        let core = self.core()?;
        self.settle(core, tree, (Bound::Included(key), Bound::Included(key)))?;
        let found = read_row(core, tree, key, pinned.pin.ts())?;
        self.note_read(found.begin);
        Ok(found.value)
    }

    fn scan_raw(
        &self,
        tree: TreeId,
        lower: Bound<Vec<u8>>,
        upper: Bound<Vec<u8>>,
        reverse: bool,
    ) -> Result<RawScan> {
        let pin = self.pinned()?.pin.clone();
        let range = Arc::new(Range { tree, lower, upper });
        self.settle(self.core()?, tree, range.bounds())?;
        let serializable = self.isolation == Isolation::Serializable;
        let within = Within {
            writes: (!self.writes.is_empty()).then(|| self.writes.clone()),
            tentative: self.tentative.clone(),
            reach: serializable.then(|| Arc::new(Reach::new(range.clone()))),
        };
        let reach = within.reach.clone();
        let scan = RawScan::new(self.anchor.local()?, pin, range, reverse, Some(within))?;
        if let Some(reach) = reach {
            self.reads.borrow_mut().scan(reach);
        }
        Ok(scan)
    }

    fn state(&self, tree: TreeId) -> Result<ReadState> {
        let pin = self.pinned()?.pin.clone();
        self.settle(self.core()?, tree, (Bound::Unbounded, Bound::Unbounded))?;
        if self.isolation == Isolation::Serializable {
            let (lower, upper) = (Bound::Unbounded, Bound::Unbounded);
            let reach = Reach::new(Arc::new(Range { tree, lower, upper }));
            reach.finish();
            self.reads.borrow_mut().scan(Arc::new(reach));
        }
        // Which of the rows were looked at nobody can tell: all of them up to here may have been.
        self.note_read(pin.ts());
        let own = (!self.writes.is_empty()).then(|| self.writes.clone());
        Ok(ReadState { pin, own })
    }
}

impl fmt::Debug for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leg")
            .field("isolation", &self.isolation)
            .field("snapshot", &self.read_ts())
            .field("keys", &self.writes.len())
            .finish_non_exhaustive()
    }
}
