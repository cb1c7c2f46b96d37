//! Loads the data set in transactions, in the order of its ids.
//!
//! Each transaction is durable when `write` returns, so the rate is that of a durable load. Records
//! are made before the transaction begins: its closure may run again and must find them unchanged.

use std::time::Duration;

use terrane::{Database, Table};

use crate::clock::Stopwatch;
use crate::dataset::Dataset;
use crate::failure::Failure;
use crate::package::Package;
use crate::report::Progress;

/// About 1 MiB a transaction: large enough that the flush costs little beside the rows.
const ROWS_PER_COMMIT: usize = 500;

/// Loads everything and gives the time it took.
pub(crate) fn load(
    db: &Database,
    packages: &Table<u64, Package>,
    dataset: &Dataset,
) -> Result<Duration, Failure> {
    let total = dataset.rows.len();
    let mut progress = Progress::start(total);
    let watch = Stopwatch::start();
    for first in (0..total).step_by(ROWS_PER_COMMIT) {
        let end = total.min(first + ROWS_PER_COMMIT);
        let batch: Vec<(u64, Package)> = (first..end)
            .map(|row| {
                let id = dataset.rows[row].id;
                (id, Package::of_row(dataset, row, id))
            })
            .collect();
        db.write(|tx| {
            for (id, package) in &batch {
                packages.put(tx, *id, package)?;
            }
            Ok(())
        })?;
        progress.advance(end);
    }
    Ok(watch.elapsed())
}
