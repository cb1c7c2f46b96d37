//! Bad input: every row of the catalogue that a single node can meet, one test or more for each.
//!
//! A test is named after its row. It asserts the exact kind, that the text names what, where,
//! expected and found as far as the row has them, that nothing durable changed, and that the handle
//! can be used on (or is closed for writing, where the row says so). Rows 26 to 28 are refused by
//! the compiler too: see the documentation of `Transaction`.
//!
//! `open` paths, locks, options; `rows` keys, values, transactions; `schema`, `vectors`; `indexed`
//! vectors where an index serves; `meta`, `pages`, `maps`, `logs` damage done to a real directory
//! by `surgeon`; `faults` a failing disk.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something unexpected happens"
)]

mod faults;
mod indexed;
mod logs;
mod maps;
mod meta;
mod open;
mod pages;
mod rows;
mod schema;
mod surgeon;
mod vectors;

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use terrane::{Builder, Create, Database, Error, ErrorKind, Result, Table, TableDef};

const ROWS: TableDef<u64, Vec<u8>> = TableDef::new("rows");
const OTHER: TableDef<u64, u64> = TableDef::new("other");

/// Rows of [`ROWS`] in a made database: several leaves under a branch.
const MANY: u64 = 400;

/// The error, of this kind and with these parts in its text.
fn refused<T>(outcome: Result<T>, kind: ErrorKind, parts: &[&str]) -> Error {
    let Err(error) = outcome else {
        panic!("{kind} was expected")
    };
    assert_eq!(error.kind(), kind, "{error:?}");
    let text = format!("{error:?}");
    for part in parts {
        assert!(text.contains(part), "no {part:?} in: {text}");
    }
    error
}

/// Small, without a background thread: what a test sees is what it did.
fn builder() -> Builder {
    Database::builder()
        .memory_bytes(8 << 20)
        .segment_bytes(256 << 10)
        .background(false)
}

fn value(key: u64, round: u64) -> Vec<u8> {
    format!("{key} in {round} {}", "v".repeat(180)).into_bytes()
}

/// A directory with a database in it, closed in order unless a test says otherwise.
struct Made {
    folder: TempDir,
}

impl Made {
    /// [`MANY`] rows and ten of another table, in two checkpoints and a clean close.
    fn new() -> Made {
        let made = Made {
            folder: tempfile::tempdir().unwrap(),
        };
        let db = made.create();
        made.fill(&db, 0..MANY, 0);
        let other = db.table(OTHER).unwrap();
        db.write(|tx| (0..10).try_for_each(|key| other.put(tx, key, &(key * 7))))
            .unwrap();
        db.checkpoint().unwrap();
        made.fill(&db, 0..2, 1);
        db.close().unwrap();
        made
    }

    /// No database yet.
    fn empty() -> Made {
        Made {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("db")
    }

    fn create(&self) -> Database {
        builder().create(Create::New).open(self.dir()).unwrap()
    }

    fn open(&self) -> Result<Database> {
        builder().create(Create::Never).open(self.dir())
    }

    fn fill(&self, db: &Database, keys: std::ops::Range<u64>, round: u64) {
        let rows = db.table(ROWS).unwrap();
        db.write(|tx| {
            keys.clone()
                .try_for_each(|key| rows.put(tx, key, &value(key, round)))
        })
        .unwrap();
    }

    /// Copies the directory as it is now, under an open handle: what a killed process leaves.
    fn killed_copy(&self) -> Made {
        let copy = Made::empty();
        copy_dir(&self.dir(), &copy.dir());
        copy
    }

    /// All bytes of all files, to see that nothing changed.
    fn bytes(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut all = Vec::new();
        let mut dirs = vec![self.dir()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else {
                    all.push((path.clone(), fs::read(path).unwrap()));
                }
            }
        }
        all.sort();
        all
    }
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_dir(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// The other table is whole, takes writes, and they are there after a reopen.
fn assert_usable(db: &Database) {
    let other = db.table(OTHER).unwrap();
    let now = db.snapshot();
    let rows: Vec<_> = other.iter(&now).map(Result::unwrap).collect();
    let wanted: Vec<_> = (0..10).map(|key| (key, key * 7)).collect();
    assert_eq!(rows[..10], wanted);
    db.write(|tx| other.put(tx, 1000, &1)).unwrap();
    assert_eq!(other.get(&db.snapshot(), 1000).unwrap(), Some(1));
}

/// Every row of the table as a map, or the first error.
fn scan(db: &Database, table: &Table<u64, Vec<u8>>) -> Result<Vec<(u64, Vec<u8>)>> {
    table.iter(&db.snapshot()).collect()
}

/// Says aloud that a row could not be tried here.
fn skipped(row: &str, why: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "\nSKIPPED: {row}: {why}");
}
