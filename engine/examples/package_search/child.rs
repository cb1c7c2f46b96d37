//! The process that gets killed: it loads with several threads and tells each commit as it goes.
//!
//! Started by `crash.rs` with the hidden sub-command `child-load`. Its standard output is the pipe
//! of `ledger.rs`, so nothing else may be printed there. It ends only by being killed, or by an
//! error: a parent that died closes the pipe, and the next line cannot be written.

use std::io::Write;
use std::path::Path;

use terrane::{Database, ErrorKind, Table};

use crate::dataset::Dataset;
use crate::failure::Failure;
use crate::ledger::Batch;
use crate::package::{ARRIVALS, Package};

/// A child that nobody kills stops here, before it fills the disk (about 150 MiB a thread).
const BATCHES_MAX: u32 = 20_000;

/// Loads until killed.
pub(crate) fn run(data: &Path, database: &Path, threads: u8, round: u8) -> Result<(), Failure> {
    let dataset = Dataset::read(data)?;
    let db = Database::open(database)?;
    let arrivals = db.table(ARRIVALS)?;
    std::thread::scope(|scope| {
        let (db, arrivals, dataset) = (&db, &arrivals, &dataset);
        let loaders: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || load(db, arrivals, dataset, round, thread)))
            .collect();
        // Every loader ends with a failure; the first one told is enough.
        loaders
            .into_iter()
            .try_for_each(|loader| match loader.join() {
                Ok(outcome) => outcome,
                Err(_) => Err(Failure::new("a loading thread panicked")),
            })
    })
}

fn load(
    db: &Database,
    arrivals: &Table<u64, Package>,
    dataset: &Dataset,
    round: u8,
    thread: u8,
) -> Result<(), Failure> {
    for number in 0..BATCHES_MAX {
        let batch = Batch {
            round,
            thread,
            number,
        };
        let rows: Vec<(u64, Package)> = (0..batch.rows())
            .map(|slot| {
                let key = batch.key(slot);
                let source = batch.source_row(slot, dataset.rows.len());
                (key, Package::of_row(dataset, source, key))
            })
            .collect();
        commit(db, arrivals, batch, &rows)?;
    }
    Err(Failure::new(format!(
        "thread {thread} was not killed within {BATCHES_MAX} commits"
    )))
}

/// One transaction, told before and after its commit.
fn commit(
    db: &Database,
    arrivals: &Table<u64, Package>,
    batch: Batch,
    rows: &[(u64, Package)],
) -> Result<(), Failure> {
    let mut told = false;
    loop {
        let mut tx = db.begin();
        for (key, package) in rows {
            arrivals.put(&mut tx, *key, package)?;
        }
        // Told once, at the latest moment: from here on the batch may or may not be there.
        if !told {
            tell(&batch.begin_line())?;
            told = true;
        }
        match tx.commit() {
            Ok(_) => return tell(&batch.ack_line()),
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Writes one line to the pipe in one call, so that lines of different threads do not mix.
fn tell(line: &str) -> Result<(), Failure> {
    let mut pipe = std::io::stdout().lock();
    let told = pipe.write_all(line.as_bytes()).and_then(|()| pipe.flush());
    told.map_err(|error| Failure::new(format!("the parent does not listen: {error}")))
}
