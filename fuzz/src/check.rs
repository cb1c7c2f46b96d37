//! Runs a script against a database on the simulated disk, beside the model, and says whether they
//! agreed all the way.
//!
//! Between troubles every answer is predicted exactly: values, order, conflicts, what survives. A
//! planned I/O failure makes errors admissible, never wrong answers: a commit must say Aborted (and
//! leave no trace) or Unknown, and after an Unknown the power is cut and the prefix rule decides.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use terrane::{Durability, Error, ErrorKind, Isolation, Outcome, Savepoint, Snapshot, Transaction};
use terrane_wal::io::sim::{Fault, SimDisk};

use crate::keys::{KeyId, Length, RowId, Val};
use crate::model::{Model, State, TxModel, Writes};
use crate::ops::{BULK_MAX, Level, Op, SNAPSHOT_SLOTS, ScanOf, Script, TX_SLOTS, Trouble};
use crate::rig::{self, Rig};

/// Bytes of values that one bulk operation writes at most.
const FILL_BYTES: usize = 200 << 10;

/// What a run has been through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Operations done.
    pub ops: u64,
    /// Commits that wrote something.
    pub commits: u64,
    /// Commits that had to conflict, and did.
    pub conflicts: u64,
    /// Reads compared.
    pub reads: u64,
    /// Power cuts.
    pub crashes: u64,
    /// Times the database was opened again.
    pub reopened: u64,
    /// Operations that failed because of a planned failure.
    pub troubles: u64,
    /// Commits whose outcome was unknown.
    pub unknown: u64,
    /// Checkpoints asked for.
    pub checkpoints: u64,
}

impl Report {
    /// Both runs together.
    pub fn add(&mut self, other: &Report) {
        self.ops += other.ops;
        self.commits += other.commits;
        self.conflicts += other.conflicts;
        self.reads += other.reads;
        self.crashes += other.crashes;
        self.reopened += other.reopened;
        self.troubles += other.troubles;
        self.unknown += other.unknown;
        self.checkpoints += other.checkpoints;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} operations, {} commits, {} conflicts, {} reads, {} checkpoints, {} crashes, \
             {} reopened, {} troubles, {} unknown",
            self.ops,
            self.commits,
            self.conflicts,
            self.reads,
            self.checkpoints,
            self.crashes,
            self.reopened,
            self.troubles,
            self.unknown
        )
    }
}

/// Runs the script; the seed decides what the script leaves open.
///
/// # Errors
/// Where database and model part, in words. A panic is one of these.
pub fn run(script: &Script, seed: u64) -> Result<Report, String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| Run::start(script, seed)?.all(script)));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("a panic: {}", text.unwrap_or("without words")))
    })
}

/// As [`run`], for tests: panics with the shrunk script as prose and as bytes.
///
/// # Panics
/// When database and model part.
#[must_use]
pub fn expect(script: &Script, seed: u64) -> Report {
    match run(script, seed) {
        Ok(report) => report,
        Err(first) => {
            let small = script.shrink(150, |smaller| run(smaller, seed).is_err());
            let why = run(&small, seed).err().unwrap_or(first);
            panic!("{why}\nseed {seed}\n{small}bytes {:02x?}", small.encode());
        }
    }
}

/// Why a run goes no further at this point.
enum Stop {
    /// Database and model disagree.
    Wrong(String),
    /// A planned failure left something unknown: only a power cut tells.
    Lost,
}

impl From<String> for Stop {
    fn from(words: String) -> Stop {
        Stop::Wrong(words)
    }
}

type Done<T = ()> = Result<T, Stop>;

struct Live {
    tx: Transaction,
    model: TxModel,
    savepoints: Vec<Savepoint>,
}

struct Held {
    snapshot: Snapshot,
    state: State,
}

struct Run {
    /// Dropped before the world in which they were begun.
    txs: [Option<Live>; TX_SLOTS],
    snapshots: [Option<Held>; SNAPSHOT_SLOTS],
    rig: Option<Rig>,
    model: Model,
    setup: crate::ops::Setup,
    seed: u64,
    version: u32,
    /// A planned failure may strike or has struck.
    troubled: bool,
    report: Report,
}

fn wrong<T>(words: impl Into<String>) -> Done<T> {
    Err(Stop::Wrong(words.into()))
}

impl Run {
    fn start(script: &Script, seed: u64) -> Result<Run, String> {
        let rig = Rig::over(seed, SimDisk::seeded(seed), script.setup)
            .map_err(|error| format!("a new database does not open: {error}"))?;
        Ok(Run {
            rig: Some(rig),
            model: Model::default(),
            txs: Default::default(),
            snapshots: Default::default(),
            setup: script.setup,
            seed,
            version: 0,
            troubled: false,
            report: Report::default(),
        })
    }

    fn all(mut self, script: &Script) -> Result<Report, String> {
        for (at, op) in script.ops.iter().enumerate() {
            let words = match self.op(op) {
                Ok(()) => None,
                Err(Stop::Wrong(words)) => Some(words),
                Err(Stop::Lost) => self.power_cut(self.seed ^ at as u64).err(),
            };
            if let Some(words) = words {
                return Err(format!("operation {at}, {op}: {words}"));
            }
            self.report.ops += 1;
        }
        let end = |words: String| format!("at the end: {words}");
        if self.troubled {
            self.power_cut(self.seed).map_err(end)?;
        }
        self.compare_all().map_err(end)?;
        match self.reopen() {
            Ok(()) => Ok(self.report),
            Err(Stop::Wrong(words)) => Err(end(words)),
            Err(Stop::Lost) => Err(end("lost without trouble".to_owned())),
        }
    }

    fn rig(&self) -> Done<&Rig> {
        self.rig
            .as_ref()
            .ok_or_else(|| Stop::Wrong("there is no database".to_owned()))
    }

    /// An error of a call that does not commit: none is expected without trouble.
    fn blame(&mut self, what: &str, error: &Error) -> Done {
        let admissible = match error.kind() {
            ErrorKind::Io | ErrorKind::Full | ErrorKind::Closed | ErrorKind::Unknown => {
                self.troubled
            }
            // A read that fails twice cannot be told from a damaged page.
            ErrorKind::Corrupt => self.troubled,
            // Only a small budget gives old versions up.
            ErrorKind::SnapshotTooOld => self.setup.small_pool,
            _ => false,
        };
        if !admissible {
            return wrong(format!("{what} failed: {error}"));
        }
        self.report.troubles += 1;
        Ok(())
    }

    fn op(&mut self, op: &Op) -> Done {
        match *op {
            Op::Begin { tx, level } => self.begin(tx, level),
            Op::Get { tx, row } => self.get(tx, row),
            Op::Put { tx, row, length } => self.put(tx, row, length),
            Op::Delete { tx, row } => self.delete(tx, row),
            Op::Scan { tx, scan } => self.scan(tx, &scan),
            Op::Savepoint { tx } => {
                let live = self.live(tx)?;
                let savepoint = live.tx.savepoint();
                live.savepoints.push(savepoint);
                live.model.savepoint();
                Ok(())
            }
            Op::Rollback { tx, back } => self.rollback(tx, back),
            Op::Commit { tx } => self.commit(tx, true),
            Op::CommitLazily { tx } => self.commit(tx, false),
            Op::Abort { tx } => {
                self.txs[tx as usize] = None;
                Ok(())
            }
            Op::Snapshot { snapshot } => {
                self.snapshots[snapshot as usize] = None;
                self.held(snapshot).map(drop)
            }
            Op::SnapshotGet { snapshot, row } => self.snapshot_get(snapshot, row),
            Op::SnapshotScan { snapshot, scan } => self.snapshot_scan(snapshot, &scan),
            Op::Forget { snapshot } => {
                self.snapshots[snapshot as usize] = None;
                Ok(())
            }
            Op::Fill {
                table,
                from,
                count,
                length,
            } => {
                let most = FILL_BYTES / length.bytes().max(64);
                let count = (count as usize).min(most).min(BULK_MAX);
                self.bulk(table, from, count, Some(length))
            }
            Op::Clear { table, from, count } => self.bulk(table, from, count as usize, None),
            Op::Checkpoint => self.checkpoint(),
            Op::Step { steps } => self.step(steps),
            Op::Flush => self.flush(),
            Op::Reopen => self.reopen(),
            Op::Crash { seed } => Ok(self.power_cut(u64::from(seed))?),
            Op::Plan { trouble, calls } => self.plan(trouble, calls),
        }
    }

    fn begin(&mut self, tx: u8, level: Level) -> Done {
        self.txs[tx as usize] = None;
        let isolation = match level {
            Level::Snapshot => Isolation::Snapshot,
            Level::Serializable => Isolation::Serializable,
        };
        let tx_real = self.rig()?.db.writer().isolation(isolation).begin();
        let tx_real = match tx_real {
            Ok(tx_real) => tx_real,
            Err(error) => return self.blame("begin", &error),
        };
        let live = Live {
            tx: tx_real,
            model: TxModel::new(level),
            savepoints: Vec::new(),
        };
        self.txs[tx as usize] = Some(live);
        Ok(())
    }

    /// The slot's transaction, begun if there is none.
    fn live(&mut self, tx: u8) -> Done<&mut Live> {
        if self.txs[tx as usize].is_none() {
            self.begin(tx, Level::Serializable)?;
        }
        // None only if begin itself met trouble.
        self.txs[tx as usize].as_mut().ok_or(Stop::Lost)
    }

    fn new_version(&mut self, length: Length) -> Val {
        self.version += 1;
        Val::new(self.version, length)
    }

    fn get(&mut self, tx: u8, row: RowId) -> Done {
        self.live(tx)?;
        let (Some(rig), Some(live)) = (&self.rig, &mut self.txs[tx as usize]) else {
            return Err(Stop::Lost);
        };
        let expected = live.model.get(&self.model, row);
        let found = rig.tables[row.table as usize].get(&live.tx, row.key.bytes());
        match found {
            Ok(found) => self.same(row, expected, found),
            Err(error) => {
                self.txs[tx as usize] = None;
                self.blame("get", &error)
            }
        }
    }

    fn same(&mut self, row: RowId, expected: Option<Val>, found: Option<Vec<u8>>) -> Done {
        self.report.reads += 1;
        let found = found.map(|bytes| Val::read(row, &bytes)).transpose()?;
        if found != expected {
            let show = |val: Option<Val>| val.map_or("no row".to_owned(), |val| val.to_string());
            return wrong(format!(
                "{row}: wanted {}, found {}",
                show(expected),
                show(found)
            ));
        }
        Ok(())
    }

    fn put(&mut self, tx: u8, row: RowId, length: Length) -> Done {
        let val = self.new_version(length);
        self.live(tx)?;
        let (Some(rig), Some(live)) = (&self.rig, &mut self.txs[tx as usize]) else {
            return Err(Stop::Lost);
        };
        let table = &rig.tables[row.table as usize];
        live.model.put(row, val);
        match table.put(&mut live.tx, row.key.bytes(), &val.bytes(row)) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.txs[tx as usize] = None;
                self.blame("put", &error)
            }
        }
    }

    fn delete(&mut self, tx: u8, row: RowId) -> Done {
        self.live(tx)?;
        let (Some(rig), Some(live)) = (&self.rig, &mut self.txs[tx as usize]) else {
            return Err(Stop::Lost);
        };
        let expected = live.model.delete(&self.model, row);
        match rig.tables[row.table as usize].delete(&mut live.tx, row.key.bytes()) {
            Ok(found) if found == expected => Ok(()),
            Ok(found) => wrong(format!("{row} was there: wanted {expected}, found {found}")),
            Err(error) => {
                self.txs[tx as usize] = None;
                self.blame("delete", &error)
            }
        }
    }

    fn scan(&mut self, tx: u8, scan: &ScanOf) -> Done {
        self.live(tx)?;
        let (Some(rig), Some(live)) = (&self.rig, &mut self.txs[tx as usize]) else {
            return Err(Stop::Lost);
        };
        let rows = rig::scan(&rig.tables, &live.tx, scan);
        if scan.is_inverted() {
            return refused(rows.map(|row| row.map(drop)).next());
        }
        let expected = live.model.scan(&self.model, scan);
        match rig::take(rows, scan)? {
            Ok(found) => self.same_rows(&expected, &found),
            Err(error) => {
                self.txs[tx as usize] = None;
                self.blame("scan", &error)
            }
        }
    }

    fn same_rows(&mut self, expected: &[(KeyId, Val)], found: &[(KeyId, Val)]) -> Done {
        self.report.reads += 1;
        if expected == found {
            return Ok(());
        }
        let at = expected
            .iter()
            .zip(found)
            .take_while(|(a, b)| a == b)
            .count();
        let show = |rows: &[(KeyId, Val)]| {
            rows.get(at)
                .map_or("the end".to_owned(), |(key, val)| format!("{key} = {val}"))
        };
        let (wanted, got) = (show(expected), show(found));
        let (all, some) = (expected.len(), found.len());
        wrong(format!(
            "row {at} of a scan: wanted {wanted}, found {got}; {some} rows for {all}"
        ))
    }

    fn rollback(&mut self, tx: u8, back: u8) -> Done {
        let live = self.live(tx)?;
        let Some(newest) = live.savepoints.len().checked_sub(1) else {
            return Ok(());
        };
        let to = newest.saturating_sub(back as usize);
        live.tx.rollback_to(live.savepoints[to]);
        live.savepoints.truncate(to);
        live.model.rollback(to);
        Ok(())
    }

    fn commit(&mut self, tx: u8, wait: bool) -> Done {
        let Some(live) = self.txs[tx as usize].take() else {
            return Ok(());
        };
        let conflicts = live.model.conflicts(&self.model);
        let outcome = live.tx.commit().map(drop);
        self.judge(outcome, conflicts, live.model.writes().clone())?;
        if wait && self.setup.buffered {
            self.flush()?;
        }
        Ok(())
    }

    /// What a commit became, against what it had to become.
    fn judge(&mut self, outcome: terrane::Result<()>, conflicts: bool, writes: Writes) -> Done {
        let error = match outcome {
            Ok(()) if conflicts => return wrong("a commit that must conflict did not"),
            Ok(()) => {
                if !writes.is_empty() {
                    let state = self.model.commit(writes);
                    self.report.commits += 1;
                    if !self.setup.buffered {
                        self.model.acknowledge(state);
                    }
                }
                return Ok(());
            }
            Err(error) => error,
        };
        match (error.kind(), error.outcome()) {
            (ErrorKind::Conflict, Outcome::Aborted) if conflicts => {
                self.report.conflicts += 1;
                Ok(())
            }
            (ErrorKind::Unknown, Outcome::Unknown) if self.troubled => {
                self.report.unknown += 1;
                self.model.commit(writes);
                Err(Stop::Lost)
            }
            // Closed for writing by a failure: nothing goes on before a power cut.
            (ErrorKind::Io | ErrorKind::Closed, Outcome::Aborted) if self.troubled => {
                self.report.troubles += 1;
                Err(Stop::Lost)
            }
            (_, Outcome::Aborted) => self.blame("commit", &error),
            (_, outcome) => wrong(format!("a commit ended {outcome:?}: {error}")),
        }
    }

    fn held(&mut self, slot: u8) -> Done<&Held> {
        let state = self.model.newest();
        let slot = slot as usize;
        if self.snapshots[slot].is_none() {
            let snapshot = self.rig()?.db.snapshot();
            self.snapshots[slot] = Some(Held { snapshot, state });
        }
        self.snapshots[slot].as_ref().ok_or(Stop::Lost)
    }

    fn snapshot_get(&mut self, slot: u8, row: RowId) -> Done {
        let Held { snapshot, state } = self.held(slot)?;
        let (snapshot, state) = (snapshot.clone(), *state);
        let found = self.rig()?.tables[row.table as usize].get(&snapshot, row.key.bytes());
        match found {
            Ok(found) => self.same(row, self.model.get(row, state), found),
            Err(error) => {
                self.snapshots[slot as usize] = None;
                self.blame("get", &error)
            }
        }
    }

    fn snapshot_scan(&mut self, slot: u8, scan: &ScanOf) -> Done {
        let Held { snapshot, state } = self.held(slot)?;
        let (snapshot, state) = (snapshot.clone(), *state);
        let rows = rig::scan(&self.rig()?.tables, &snapshot, scan);
        if scan.is_inverted() {
            return refused(rows.map(|row| row.map(drop)).next());
        }
        match rig::take(rows, scan)? {
            Ok(found) => self.same_rows(&self.model.scan(scan, state), &found),
            Err(error) => {
                self.snapshots[slot as usize] = None;
                self.blame("scan", &error)
            }
        }
    }

    fn bulk(&mut self, table: u8, from: u16, count: usize, length: Option<Length>) -> Done {
        let mut writes = Writes::new();
        for n in 0..count {
            let row = RowId {
                table,
                key: KeyId::bulk(from as usize + n),
            };
            match length {
                Some(length) => {
                    let val = self.new_version(length);
                    writes.insert(row, Some(val));
                }
                None => {
                    if self.model.get(row, self.model.newest()).is_some() {
                        writes.insert(row, None);
                    }
                }
            }
        }
        let rig = self.rig()?;
        let handle = &rig.tables[table as usize];
        let outcome = rig.db.write(|tx| {
            for (row, val) in &writes {
                match val {
                    Some(val) => handle.put(tx, row.key.bytes(), &val.bytes(*row))?,
                    None => handle.delete(tx, row.key.bytes()).map(drop)?,
                }
            }
            Ok(())
        });
        self.judge(outcome, false, writes)
    }

    fn checkpoint(&mut self) -> Done {
        self.report.checkpoints += 1;
        match self.rig()?.db.checkpoint() {
            Ok(()) => {
                // An image is published only when all that it holds is durable.
                self.model.acknowledge(self.model.newest());
                Ok(())
            }
            Err(error) => self.blame("checkpoint", &error),
        }
    }

    fn step(&mut self, steps: u8) -> Done {
        let rig = self.rig()?;
        // Long enough, now and then, for the checkpoint that comes by itself.
        let pause = if steps > 12 {
            Duration::from_secs(16)
        } else {
            Duration::from_millis(10)
        };
        rig.sim.clock().advance(pause);
        for _ in 0..steps {
            rig.db.background_step();
        }
        Ok(())
    }

    /// One more row, and a wait until it and everything before it is durable.
    fn flush(&mut self) -> Done {
        let row = RowId {
            table: 0,
            key: KeyId::bulk(0),
        };
        let val = self.new_version(Length::Tiny);
        let rig = self.rig()?;
        let handle = &rig.tables[0];
        let writer = rig.db.writer().durability(Durability::Local);
        let put = writer.run(|tx| handle.put(tx, row.key.bytes(), &val.bytes(row)));
        let ok = put.is_ok();
        self.judge(put.map(drop), false, Writes::from([(row, Some(val))]))?;
        if ok {
            self.model.acknowledge(self.model.newest());
        }
        Ok(())
    }

    fn plan(&mut self, trouble: Trouble, calls: u16) -> Done {
        self.troubled = true;
        let disk = self.rig()?.sim.disk();
        let after = u64::from(calls);
        // ENOSPC
        let full = 28;
        match trouble {
            Trouble::Stop => disk.crash_at(disk.boundaries() + after),
            Trouble::Error => disk.inject(Fault::nth_call(after)),
            Trouble::Errors => disk.inject(Fault::nth_call(after).sticky()),
            Trouble::Full => disk.inject(Fault::nth_call(after).with_errno(full)),
        }
        Ok(())
    }

    /// Closes and opens again, with everything checked that a close promises.
    fn reopen(&mut self) -> Done {
        self.txs = Default::default();
        self.snapshots = Default::default();
        let Some(Rig { db, tables, sim }) = self.rig.take() else {
            return Err(Stop::Lost);
        };
        let kept = db.snapshot();
        let closed = db.close();
        let late = tables[0].get(&kept, b"a".as_slice());
        if !matches!(&late, Err(error) if error.kind() == ErrorKind::Closed) {
            return wrong(format!("a read after close gave {late:?}"));
        }
        drop(kept);
        if let Err(error) = closed {
            drop((db, tables));
            self.rig = None;
            self.blame("close", &error)?;
            let disk = sim.disk().crash(self.seed);
            drop(sim);
            return Ok(self.start_again(disk)?);
        }
        self.model.acknowledge(self.model.newest());
        drop((db, tables));
        self.report.reopened += 1;
        match rig::open(&sim, self.setup) {
            Ok((db, tables)) => self.rig = Some(Rig { db, tables, sim }),
            Err(error) => {
                self.blame("open", &error)?;
                let disk = sim.disk().crash(self.seed);
                drop(sim);
                return Ok(self.start_again(disk)?);
            }
        }
        // With a failure still planned nothing can be read for certain.
        if self.troubled {
            Err(Stop::Lost)
        } else {
            Ok(self.compare_all()?)
        }
    }

    fn power_cut(&mut self, seed: u64) -> Result<(), String> {
        self.txs = Default::default();
        self.snapshots = Default::default();
        let Some(rig) = self.rig.take() else {
            return Err("there is no database".to_owned());
        };
        let disk = rig.crash(seed);
        self.start_again(disk)
    }

    /// Opens what a crash left and finds out which prefix it is.
    fn start_again(&mut self, disk: SimDisk) -> Result<(), String> {
        self.report.crashes += 1;
        self.troubled = false;
        self.seed = self
            .seed
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(1);
        let rig = Rig::over(self.seed, disk, self.setup)
            .map_err(|error| format!("recovery failed: {error}"))?;
        let rows = rig::rows(&rig.tables, &rig.db.snapshot())?;
        let state = self.model.explain(&rows)?;
        self.model.truncate(state);
        self.rig = Some(rig);
        Ok(())
    }

    fn compare_all(&mut self) -> Result<(), String> {
        let Some(rig) = &self.rig else {
            return Err("there is no database".to_owned());
        };
        let rows = rig::rows(&rig.tables, &rig.db.snapshot())?;
        let wanted = self.model.rows(self.model.newest());
        match crate::model::differences(&wanted, &rows) {
            differing if differing.is_empty() => rig::check_store(&rig.db),
            differing => Err(format!("all rows: {}", differing.join("; "))),
        }
    }
}

/// A range whose start lies above its end must be Invalid.
fn refused(first: Option<terrane::Result<()>>) -> Done {
    match first {
        Some(Err(error)) if error.kind() == ErrorKind::Invalid => Ok(()),
        other => wrong(format!(
            "a range from a higher to a lower key gave {other:?}"
        )),
    }
}
