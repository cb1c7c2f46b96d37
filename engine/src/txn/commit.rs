//! The one place where a transaction becomes visible (storage.md 6.1).
//!
//! ```text
//! scans end -> leaves -> intents -> vectors bound -> log space -> validate up to v
//!         -> guard of the bound sets -> SEQUENCE (ts, stamp, ring, prefix) -> guard left
//!         -> validate (v, ts) -> fill -> apply (pre-image, leaf) per key, records
//!         -> intents go -> prefix -> wait for the level
//! ```
//! Invariants: X1 visible to all or none at its timestamp; X2 after sequencing nothing fails softly
//! and nothing blocks the prefix: what cannot be applied waits as unapplied, what cannot even do
//! that poisons; X5 the outcome is Aborted before sequencing and after a VOID, Committed when the
//! level is reached, else Unknown.

use std::sync::Arc;

use terrane_wal::epochs::Point;
use terrane_wal::io::Purpose;
use terrane_wal::lsn::Ts;
use terrane_wal::{Entry, EntryBuilder, Sequenced};

use crate::apply;
use crate::catalog::{OUTCOMES, Remembered};
use crate::database::{Commit, Durability, Position};
use crate::error::{Error, ErrorKind, Result};
use crate::index::vector::bind::{Binding, bind};
use crate::index::vector::maintain;
use crate::limits::RECENT_SHARDS;
use crate::local::Local;
use crate::metrics::count;
use crate::runtime::Core;
use crate::txn::Isolation;
use crate::txn::leg::Leg;
use crate::txn::owner::Owner;
use crate::txn::raw::RawRead;
use crate::txn::records::Records;
use crate::txn::ring::RowKey;
use crate::txn::snapshot::{check_floor, read_row};
use crate::txn::sweep;
use crate::txn::write_set::Write;

/// Commits since the snapshot that a validation looks through. Of more it asks the index: that
/// takes a lock for each key that was read, and one for each shard for each range.
const COMMITS_CHECKED: usize = RECENT_SHARDS;

/// How a commit passes the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entrance {
    /// Beside other commits.
    Beside,
    /// The caller holds the gate alone: a change of the schema.
    Alone,
}

/// A commit that is applied and on its way to its level. Dropping it waits for nothing.
#[derive(Debug)]
#[must_use]
pub(crate) enum Ticket {
    /// Sequenced there, at this core.
    At(Local, Durability, Sequenced),
    /// Nothing was written, and what was read is at its level.
    Left(Commit),
}

impl Ticket {
    /// Step 9: waits until the level's position covers the entry and the prefix has reached it.
    ///
    /// # Errors
    /// `Unknown` if the log failed first.
    pub(crate) fn wait(self) -> Result<Commit> {
        let (local, durability, place) = match self {
            Ticket::Left(commit) => return Ok(commit),
            Ticket::At(local, durability, place) => (local, durability, place),
        };
        let (core, ts) = (local.core(), place.ts);
        let at = Point {
            term: place.term,
            lsn: place.end,
        };
        let _guard = PanicGuard(core);
        let logged = core.wait_logged(durability, at);
        if let Err(cause) = logged.and_then(|()| wait_applied(core, ts)) {
            count(&core.counters.unknown);
            let error = Error::new(ErrorKind::Unknown, "the commit may or may not survive");
            return Err(error.with("position", at.lsn).caused_by(cause));
        }
        let position = match &core.options.moments {
            None => Position(at.lsn.0),
            Some(moments) => {
                moments.raise(ts);
                Position(ts.0)
            }
        };
        let shards = 1;
        Ok(Commit { position, shards })
    }
}

/// Waits until the applied prefix has reached `ts`, which was sequenced or is zero.
pub(crate) fn wait_applied(core: &Core, ts: Ts) -> Result<()> {
    if core.prefix.applied_ts() >= ts {
        return Ok(());
    }
    let waiter = core.env.park.waiter();
    while !core.prefix.reached(ts, &waiter) {
        if core.is_poisoned() {
            return core.check_writable();
        }
        waiter.park();
    }
    Ok(())
}

/// Closes the database for writing if a commit panics (testing.md e, row 104).
struct PanicGuard<'a>(&'a Core);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison_by_panic();
        }
    }
}

/// Commits the transaction up to step 8; the ticket waits for the level.
pub(crate) fn run(tx: &mut Leg, entrance: Entrance) -> Result<Ticket> {
    tx.end_scans();
    let (local, durability) = (tx.local()?.clone(), tx.durability);
    let core = local.core().clone();
    let nothing = tx.writes.is_empty() && tx.records.is_empty() && tx.tree_ops.is_empty();
    if nothing && tx.idempotency.is_none() {
        core.check_process()?;
        return Ok(Ticket::Left(tx.leave()?));
    }
    core.check_writable()?;
    if entrance == Entrance::Beside {
        maintain::relieve(&core, &tx.writes);
    }
    let _inside = (entrance == Entrance::Beside).then(|| core.gate.enter());
    core.check_open()?;
    core.check_leads()?;
    let _guard = PanicGuard(&core);
    check_schemas(&core, tx)?;
    if let Some(key) = tx.idempotency.clone() {
        remember(tx, key)?;
    }
    core.shown(fetch_leaves(&core, tx))?;
    place_intents(tx)?;
    admit_writes(&core, tx)?;
    if let Some(commit) = done_before(&core, tx)? {
        return Ok(Ticket::Left(commit));
    }
    let mut binding = match tx.writes.is_empty() {
        true => std::mem::take(&mut tx.adopted),
        false => core.shown(bind(&core, &tx.writes))?,
    };
    binding.number(&mut tx.writes)?;
    let place = sequence_and_apply(&core, tx, &mut binding)?;
    count(&core.counters.commits);
    Ok(Ticket::At(local, durability, place))
}

/// Refuses rows of another schema than that of their table. What is decided was asked before.
fn check_schemas(core: &Core, tx: &Leg) -> Result<()> {
    if tx.shown.is_some() {
        return Ok(());
    }
    let mut schemas = tx.writes.schemas();
    schemas.try_for_each(|(tree, schema)| core.catalog.check_schema(tree, schema))
}

/// Waits for undecided transactions of several shards that have read what is about to be written,
/// as wait-die by age allows (D1). Asked when the intents are placed.
fn admit_writes(core: &Core, tx: &Leg) -> Result<()> {
    let none = core.prepared.is_empty() || terrane_wal::planted!("what_was_read_is_not_kept");
    if tx.shown.is_some() || none {
        return Ok(());
    }
    core.prepared.admit(core, &tx.intents, &tx.writes)
}

/// Everything of a commit before its validation, for a transaction that other shards take part in.
///
/// # Errors
/// Those of a commit.
pub(crate) fn ready(tx: &mut Leg) -> Result<()> {
    tx.end_scans();
    let core = tx.core()?.clone();
    core.check_writable()?;
    let _inside = core.gate.enter();
    core.check_open()?;
    core.check_leads()?;
    check_schemas(&core, tx)?;
    core.shown(fetch_leaves(&core, tx))?;
    place_intents(tx)?;
    admit_writes(&core, tx)?;
    let writes = Arc::clone(&tx.writes);
    let mut reads = tx.reads.borrow_mut();
    reads.forget_written(|tree, key| writes.get(tree, key).is_some());
    Ok(())
}

/// Whether all that was read holds, once nobody can change it any more without a look at who has
/// read it: whoever was about to has its intent there, or has its place in the log by now (D1).
///
/// # Errors
/// `Conflict`, `SnapshotTooOld`.
pub(crate) fn hold_reads(core: &Core, tx: &Leg, owner: &Arc<Owner>) -> Result<()> {
    let Some(read_ts) = tx.read_ts().filter(|_| tx.has_read()) else {
        return Ok(());
    };
    let reads = tx.reads.borrow();
    if terrane_wal::planted!("what_others_read_is_not_validated") {
        return Ok(());
    }
    if tx.isolation == Isolation::Serializable && !reads.is_empty() {
        let free = reads.check_free(&core.recent, owner);
        free.map_err(|key| conflict(core, tx, key))?;
        let since = core.ring.since(read_ts, COMMITS_CHECKED);
        let checked = reads.check_before(&core.recent, &since, read_ts, owner);
        checked.map_err(|key| conflict(core, tx, key))?;
    }
    check_floor(core, read_ts)
}

/// Adds the row of the idempotency key. Its value is known when the commit has its place, so the
/// log carries the key in the COMMIT record and the applier makes the row.
fn remember(tx: &mut Leg, key: Vec<u8>) -> Result<()> {
    let row = Write {
        value: Some(Vec::new()),
        schema: 0,
        flags: 0,
    };
    Arc::make_mut(&mut tx.writes).put(OUTCOMES, key, row);
    Ok(())
}

/// Step 2: the leaves of all write keys, read together while nobody waits for this commit yet. The
/// leaf of a lone row is read when it is needed.
fn fetch_leaves(core: &Core, tx: &Leg) -> Result<()> {
    if tx.writes.len() < 2 {
        return Ok(());
    }
    let rows: Vec<_> = tx.writes.iter().collect();
    for rows in rows.chunk_by(|a, b| a.0 == b.0) {
        // A tree that this transaction makes is empty.
        if let Ok(tree) = core.tree(rows[0].0) {
            tree.prefetch(rows.iter().map(|row| &**row.1), Purpose::Prefetch)?;
        }
    }
    Ok(())
}

/// Step 3, the intents: all write keys in ascending order.
fn place_intents(tx: &mut Leg) -> Result<()> {
    tx.intents.owner().set_committing();
    let read_ts = tx.read_ts();
    let writes = tx.writes.clone();
    for (tree, key, _) in writes.iter() {
        // Of commits with one idempotency key the later one finds the earlier one.
        let read_ts = read_ts.filter(|_| tree != OUTCOMES);
        if let Err(error) = tx.intents.place(tree, key, read_ts) {
            if error.kind() == ErrorKind::Conflict {
                count(&tx.core()?.counters.conflicts);
                tx.conflicted(Some((tree, key.clone())));
            }
            return Err(error);
        }
    }
    Ok(())
}

/// The earlier commit with the same idempotency key, if there is one that is remembered.
fn done_before(core: &Arc<Core>, tx: &Leg) -> Result<Option<Commit>> {
    let Some(key) = &tx.idempotency else {
        return Ok(None);
    };
    // With the intent held the latest value is the one in the tree.
    let Some(row) = read_row(core, OUTCOMES, key, Ts(u64::MAX))?.value else {
        return Ok(None);
    };
    let remembered = Remembered::decode(&row)?;
    if remembered.is_over(core.now_wall()) {
        return Ok(None);
    }
    wait_applied(core, remembered.ts)?;
    let (lsn, _) = core.prefix.applied();
    core.wait_read(lsn)?;
    Ok(Some(Commit {
        position: Position(lsn.0),
        shards: 1,
    }))
}

/// The log entry of the transaction, without timestamp.
fn encode(tx: &Leg, records: &Records) -> Entry {
    let mut entry = EntryBuilder::new();
    for op in &tx.tree_ops {
        entry.ddl(&op.record());
    }
    for (tree, key, write) in tx.writes.iter().filter(|(tree, ..)| *tree != OUTCOMES) {
        match &write.value {
            Some(value) => entry.put(tree, write.schema, write.flags, key, value),
            None => entry.del(tree, write.schema, write.flags, key),
        }
    }
    records.encode(&mut entry);
    entry.commit(tx.idempotency.as_deref().unwrap_or_default())
}

/// The error of a read that no longer holds.
fn conflict(core: &Core, tx: &Leg, key: Option<RowKey>) -> Error {
    count(&core.counters.conflicts);
    tx.conflicted(key);
    Error::new(
        ErrorKind::Conflict,
        "a row or range that was read has changed",
    )
}

/// The records and the entry of a commit as it is bound now, with pages for them.
fn entry_of(core: &Core, tx: &Leg, binding: &Binding) -> Result<(Records, Entry)> {
    let mut records = tx.records.clone();
    binding.records(&mut records);
    let entry = encode(tx, &records);
    core.store
        .admit(apply::pages_wanted(&tx.writes, &records))?;
    fetch_records(core, &records)?;
    Ok((records, entry))
}

/// Step 3, the validation: what was read holds up to the commit whose timestamp is returned; None
/// if nothing that was read has to hold.
fn validate(core: &Core, tx: &Leg) -> Result<Option<Ts>> {
    // A transaction that has read nothing has no snapshot.
    let Some(read_ts) = tx.read_ts().filter(|_| tx.has_read()) else {
        return Ok(None);
    };
    let reads = tx.reads.borrow();
    let mut upto = None;
    if tx.isolation == Isolation::Serializable && !reads.is_empty() {
        let since = core.ring.since(read_ts, COMMITS_CHECKED);
        let checked = reads.check_before(&core.recent, &since, read_ts, tx.intents.owner());
        checked.map_err(|key| conflict(core, tx, key))?;
        upto = Some(since.newest);
    }
    // Below the floor the index may have forgotten what it was asked for.
    check_floor(core, read_ts)?;
    Ok(upto)
}

/// Steps 3 (validation) to 8.
fn sequence_and_apply(core: &Arc<Core>, tx: &mut Leg, binding: &mut Binding) -> Result<Sequenced> {
    let log = core.log()?;
    let keys: Arc<[RowKey]> = tx
        .writes
        .iter()
        .map(|(tree, key, _)| (tree, key.clone()))
        .collect();
    for op in &tx.tree_ops {
        op.prepare(core)?;
    }
    tx.reads
        .borrow_mut()
        .forget_written(|tree, key| tx.writes.get(tree, key).is_some());

    // What is bound holds while its postings are open: a commit that finds one drained under the
    // guard binds again outside of it, and asks for room anew since the entry may have another
    // length.
    let (records, admission, entry, validated, guards) = loop {
        let (records, entry) = core.shown(entry_of(core, tx, binding))?;
        let postings = binding.postings();
        let admission = log.admit(entry.len())?;
        let validated = validate(core, tx)?;
        match binding.enter(&postings) {
            Some(guards) => break (records, admission, entry, validated, guards),
            None => drop(admission),
        }
        core.shown(binding.rebind())?;
    };

    // What its caller knows of in other shards came before it (M1).
    if let Some(moments) = &core.options.moments
        && !terrane_wal::planted!("a_commit_knows_nothing_of_other_shards")
    {
        log.observe(moments.known());
    }

    // Step 4. Nothing in the section blocks: three short mutexes, taken one after the other. The
    // owner of records alone has no stamp: its intents keep others out, and change no row.
    let owner = tx.intents.owner().clone();
    let mut inside = |at: Sequenced| {
        if !keys.is_empty() {
            owner.set_stamp(at.ts);
        }
        core.ring.push(at.ts, &keys);
        core.prefix.enter(at.begin, at.end, at.ts);
    };
    let reservation = log.sequence(admission, entry, validated.is_none(), &mut inside);
    drop(guards);
    let place = reservation.place();

    // Step 5.
    let changed = |upto| {
        let reads = tx.reads.borrow();
        reads.changed_between(&core.ring, upto, place.ts)
    };
    if validated.is_some_and(changed) {
        reservation.void();
        core.prefix.mark(place.ts);
        count(&core.counters.voids);
        return Err(conflict(core, tx, None));
    }

    // Step 6: the point of no return (X2).
    reservation.fill();
    core.ship();
    install(core, tx, binding, records, place)?;
    sweep::relieve(core);
    Ok(place)
}

/// Steps 7 and 8: rows and records into their trees, then the prefix over them.
fn install(
    core: &Arc<Core>,
    tx: &mut Leg,
    binding: &Binding,
    mut records: Records,
    place: Sequenced,
) -> Result<()> {
    records.stamp(place.ts);
    apply::rows(core, &tx.writes, &mut tx.intents, (place, tx.shown))?;
    apply::records(core, &records, place)?;
    binding.installed();
    tx.intents.release();
    core.prefix.mark(place.ts);
    Ok(())
}

/// The leaves of the records, read together like those of the rows.
fn fetch_records(core: &Core, records: &Records) -> Result<()> {
    for (tree, records) in records.trees().filter(|(_, records)| records.len() > 1) {
        // A tree that this transaction makes is empty.
        if let Ok(tree) = core.tree(tree) {
            tree.prefetch(records.keys().map(Vec::as_slice), Purpose::Prefetch)?;
        }
    }
    Ok(())
}
