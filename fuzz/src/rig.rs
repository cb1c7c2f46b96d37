//! A database in a simulated world: opened, looked at as a whole, cut off from its power.
//!
//! Every look goes through the public API, so what it sees is what a user would have.

use std::fmt;
use std::ops::Bound;

use terrane::{Database, Durability, Error, Result, Scan, Snapshot, Table, TableDef};
use terrane_wal::env::SimEnv;
use terrane_wal::io::sim::SimDisk;

use crate::keys::{KeyId, RowId, TABLES, Val};
use crate::model::{Rows, differences};
use crate::ops::{Edge, ScanOf, Setup};

/// A table of a script.
pub type Plain = Table<Vec<u8>, Vec<u8>>;

/// The tables of every script.
pub const DEFS: [TableDef<Vec<u8>, Vec<u8>>; TABLES as usize] =
    [TableDef::new("first"), TableDef::new("second")];

/// Where the database lies on the simulated disk.
pub const PATH: &str = "/db";

/// Scheduling points after which a world is taken to go round in circles.
const STEPS_MAX: u64 = 2_000_000;

/// An open database and the world that it runs in.
pub struct Rig {
    /// Dropped first: it still needs its world.
    pub db: Database,
    /// Its tables.
    pub tables: Vec<Plain>,
    /// The world.
    pub sim: SimEnv,
}

impl fmt::Debug for Rig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rig({:?})", self.sim.disk())
    }
}

/// Opens the database of a world.
///
/// # Errors
/// Those of an open and of two tables.
pub fn open(sim: &SimEnv, setup: Setup) -> Result<(Database, Vec<Plain>)> {
    let durability = if setup.buffered {
        Durability::Buffered
    } else {
        Durability::Local
    };
    // In a small pool, a few hundred pages; old versions are given up early.
    let (memory, versions) = if setup.small_pool {
        (4 << 20, 2 << 20)
    } else {
        (32 << 20, 12 << 20)
    };
    let db = Database::builder()
        .env(sim.env())
        .background(false)
        .memory_bytes(memory)
        .version_bytes(versions)
        .segment_bytes(256 << 10)
        .durability(durability)
        .open(PATH)?;
    let tables = DEFS
        .into_iter()
        .map(|def| db.table(def))
        .collect::<Result<_>>()?;
    Ok((db, tables))
}

impl Rig {
    /// A new world over a disk, and the database on it.
    ///
    /// # Errors
    /// Those of an open.
    pub fn over(seed: u64, disk: SimDisk, setup: Setup) -> Result<Rig> {
        let sim = SimEnv::with_disk(seed, disk);
        sim.set_steps_max(STEPS_MAX);
        let (db, tables) = open(&sim, setup)?;
        Ok(Rig { db, tables, sim })
    }

    /// Cuts the power: what a crash left, drawn by the seed. Everything of this world is gone.
    #[must_use]
    pub fn crash(self, seed: u64) -> SimDisk {
        let left = self.sim.disk().crash(seed);
        self.stop();
        left
    }

    /// Ends the world without letting it write any more.
    pub fn stop(self) {
        self.sim.disk().crash_at(self.sim.disk().boundaries());
        // The handle's close fails on the stopped disk; a hang here would be a defect as well.
        let Rig { db, tables, sim } = self;
        drop((db, tables));
        drop(sim);
    }
}

/// All rows of a snapshot, each checked to be what it says, read in both directions.
///
/// # Errors
/// What is wrong with them, in words.
pub fn rows(tables: &[Plain], snapshot: &Snapshot) -> Result<Rows, String> {
    let failed = |error: Error| format!("a scan of everything failed: {error}");
    let mut all = Rows::new();
    for (table, handle) in (0..TABLES).zip(tables) {
        let mut last: Option<KeyId> = None;
        for row in handle.iter(snapshot) {
            let (key, value) = row.map_err(failed)?;
            let row = row_of(table, &key)?;
            if last.is_some_and(|last| last >= row.key) {
                return Err(format!("{row} comes after a key that is not below it"));
            }
            last = Some(row.key);
            all.insert(row, Val::read(row, &value)?);
        }
    }
    let mut backward = Rows::new();
    for (table, handle) in (0..TABLES).zip(tables) {
        for row in handle.iter(snapshot).rev() {
            let (key, value) = row.map_err(failed)?;
            let row = row_of(table, &key)?;
            backward.insert(row, Val::read(row, &value)?);
        }
    }
    match differences(&all, &backward) {
        differing if differing.is_empty() => Ok(all),
        differing => Err(format!(
            "upwards and downwards differ: {}",
            differing.join("; ")
        )),
    }
}

/// Verifies every page, tree and slot of a database that nobody changes meanwhile.
///
/// # Errors
/// What is wrong with them, in words.
pub fn check_store(db: &Database) -> Result<(), String> {
    match db.check_store() {
        Ok(findings) if findings.is_empty() => Ok(()),
        Ok(findings) => Err(format!("the store is damaged: {}", findings.join("; "))),
        Err(error) => Err(format!("the store cannot be checked: {error}")),
    }
}

/// The row that a key of a table names.
///
/// # Errors
/// It is no key that a script writes.
pub fn row_of(table: u8, key: &[u8]) -> Result<RowId, String> {
    let Some(key) = KeyId::of(key) else {
        let shown = key.escape_ascii().to_string();
        return Err(format!(
            "a key that nobody wrote: {shown:.80} of {} bytes",
            key.len()
        ));
    };
    Ok(RowId { table, key })
}

/// The scan of a table that a script asks for.
pub fn scan(tables: &[Plain], read: &impl terrane::Read, scan: &ScanOf) -> Scan<Vec<u8>, Vec<u8>> {
    let bound = |edge: Edge| match edge {
        Edge::Open => Bound::Unbounded,
        Edge::Included(key) => Bound::Included(key.bytes()),
        Edge::Excluded(key) => Bound::Excluded(key.bytes()),
    };
    tables[scan.table as usize].range(read, (bound(scan.from), bound(scan.to)))
}

/// What the scan yields, at most its limit.
///
/// # Errors
/// The scan's error, or a row that is not what it says, in words.
pub fn take(
    rows: Scan<Vec<u8>, Vec<u8>>,
    scan: &ScanOf,
) -> Result<Result<Vec<(KeyId, Val)>>, String> {
    let limit = scan.limit as usize;
    let taken: Result<Vec<(Vec<u8>, Vec<u8>)>> = match scan.reverse {
        false => rows.take(limit).collect(),
        true => rows.rev().take(limit).collect(),
    };
    let taken = match taken {
        Ok(taken) => taken,
        Err(error) => return Ok(Err(error)),
    };
    let named = taken.into_iter().map(|(key, value)| {
        let row = row_of(scan.table, &key)?;
        Ok((row.key, Val::read(row, &value)?))
    });
    named.collect::<Result<_, String>>().map(Ok)
}
