//! The proof: every row that is there against what callers were told.

use std::collections::{BTreeMap, BTreeSet};

use terrane::Database;

use crate::callers::{COUNTS, Told, WRITER_SHIFT};
use crate::dataset::Dataset;
use crate::failure::Failure;
use crate::package::{ARRIVALS, Package};

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Rows.
    pub(crate) found: u64,
    /// Acknowledged, and not there.
    pub(crate) lost: u64,
    /// Transactions that were done more often than once.
    pub(crate) duplicated: u64,
    /// Refused or never asked for, and there.
    pub(crate) uncalled: u64,
    /// Rows whose bytes are not those that were put, and transactions that were done in part.
    pub(crate) damaged: u64,
    /// Reads that did not find what was acknowledged before.
    pub(crate) stale: u64,
}

/// Reads everything and compares.
pub(crate) fn judge(db: &Database, dataset: &Dataset, told: &Told) -> Result<Verdict, Failure> {
    let (packages, counts) = (db.table(ARRIVALS)?, db.table(COUNTS)?);
    let now = db.snapshot();
    let mut verdict = Verdict {
        stale: told.stale,
        ..Verdict::default()
    };
    let mut found = BTreeSet::new();
    let mut rows: BTreeMap<u64, u64> = BTreeMap::new();
    for row in packages.iter(&now) {
        let (number, package) = row?;
        let source = number as usize % dataset.rows.len();
        let whole = package.same_bytes(&Package::of_row(dataset, source, number));
        verdict.damaged += u64::from(!whole);
        let asked = told.acknowledged.contains(&number) || told.unknown.contains(&number);
        verdict.uncalled += u64::from(!asked);
        *rows.entry(number >> WRITER_SHIFT).or_default() += 1;
        found.insert(number);
    }
    for row in counts.iter(&now) {
        let (writer, count) = row?;
        let there = rows.remove(&writer).unwrap_or(0);
        verdict.duplicated += count.saturating_sub(there);
        verdict.damaged += there.saturating_sub(count);
    }
    // Rows of writers without a count.
    verdict.damaged += rows.values().sum::<u64>();
    verdict.found = found.len() as u64;
    verdict.lost = told.acknowledged.difference(&found).count() as u64;
    Ok(verdict)
}

impl Verdict {
    /// A failure if anything is not as it must be.
    pub(crate) fn complain(&self) -> Result<(), Failure> {
        let faults = [
            (self.lost, "lost"),
            (self.duplicated, "duplicated"),
            (self.uncalled, "uncalled"),
            (self.damaged, "damaged"),
            (self.stale, "stale reads"),
        ];
        let faults: Vec<String> = faults
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if faults.is_empty() {
            return Ok(());
        }
        Err(Failure::new(format!(
            "expected what callers were told, found {}",
            faults.join(", ")
        )))
    }
}
