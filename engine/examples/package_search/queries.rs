//! The shows: what a program can ask of the database, each with its time and with what came of it.
//!
//! Every show compares the answer with what the data set says it must be and fails the program if
//! it differs; nearest-neighbour searches are measured against the exact answers instead, through
//! the index and by a scan of every row.

use std::time::Duration;

use terrane::{Database, ErrorKind, Table};

use crate::clock::Stopwatch;
use crate::dataset::{Dataset, Filtered, NEAREST};
use crate::failure::Failure;
use crate::npy::Matrix;
use crate::package::{self, COUNTERS, Package, Way, nearest_keys};
use crate::report;

/// What the searches measured.
pub(crate) struct Searched {
    pub(crate) recall: f64,
    pub(crate) filtered_recall: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) exact_recall: f64,
    pub(crate) exact_p50: Duration,
}

/// Queries that are also answered by a scan of every row.
const EXACT_QUERIES: usize = 50;

/// The goal of recall of a search that says nothing, and how far a few hundred queries may fall
/// short of it.
const GOAL: f64 = 0.95;
const SHORT: f64 = 0.03;
/// A scan finds the true nearest rows; the given answers may break a tie otherwise.
const SCANNED: f64 = 0.999;

/// Runs every show.
pub(crate) fn show(
    db: &Database,
    packages: &Table<u64, Package>,
    dataset: &Dataset,
) -> Result<Searched, Failure> {
    report::heading("Rows");
    look_up(db, packages, dataset)?;
    index_range(db, packages, dataset)?;
    unique_refused(db, packages, dataset)?;
    conflict_retried(db)?;

    report::heading("Nearest neighbours");
    let queries = dataset.query_vectors();
    let found = search_all(db, packages, &queries, &dataset.answers, None, Way::Index)?;
    let Search { recall, p50, p99 } = found;
    let outcome = format!("recall@{NEAREST} {recall:.4}, {} queries", queries.len());
    report::line("nearest by index, median", p50, &outcome);
    report::line("nearest by index, 99th percentile", p99, "");
    let few = &queries[..queries.len().min(EXACT_QUERIES)];
    let exact = search_all(db, packages, few, &dataset.answers, None, Way::Exact)?;
    let outcome = format!(
        "recall@{NEAREST} {:.4}, {} queries",
        exact.recall,
        few.len()
    );
    report::line("nearest by scan, median", exact.p50, &outcome);
    best_hit(db, packages, dataset, &queries[0])?;
    let mut recalls = Vec::new();
    for filtered in &dataset.filters {
        let answers = &filtered.answers;
        let found = search_all(db, packages, &queries, answers, Some(filtered), Way::Index)?;
        let outcome = format!(
            "recall@{NEAREST} {:.4}, {}",
            found.recall, filtered.predicate
        );
        report::line(
            &format!("filtered by {}, median", filtered.name),
            found.p50,
            &outcome,
        );
        recalls.push(found.recall);
    }
    in_transaction_and_snapshot(db, packages, dataset, &queries[0])?;
    // A data set without a filter is refused when it is read.
    let filtered_recall = recalls.iter().sum::<f64>() / recalls.len() as f64;
    for (what, found, least) in [
        ("recall by scan", exact.recall, SCANNED),
        ("recall by index", recall, GOAL - SHORT),
        (
            "recall by index with filters",
            filtered_recall,
            GOAL - SHORT,
        ),
    ] {
        let (expected, shown) = (format!("{least} or more"), format!("{found:.4}"));
        expect(found >= least, what, &expected, &shown)?;
    }
    Ok(Searched {
        recall,
        filtered_recall,
        p50,
        p99,
        exact_recall: exact.recall,
        exact_p50: exact.p50,
    })
}

/// Fails the program when the database's answer is not the one that the data set gives.
fn expect(holds: bool, what: &str, expected: &str, found: &str) -> Result<(), Failure> {
    if holds {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{what}: expected {expected}, found {found}"
    )))
}

fn look_up(
    db: &Database,
    packages: &Table<u64, Package>,
    dataset: &Dataset,
) -> Result<(), Failure> {
    let row = dataset.rows.len() / 2;
    let id = dataset.rows[row].id;
    let now = db.snapshot();
    let watch = Stopwatch::start();
    let found = packages.get(&now, id)?;
    let elapsed = watch.elapsed();
    let right = found
        .as_ref()
        .is_some_and(|p| p.same_bytes(&Package::of_row(dataset, row, id)));
    expect(
        right,
        "key look-up",
        &format!("row {id} as it was put"),
        "another or none",
    )?;
    report::line(
        "key look-up",
        elapsed,
        &format!("{id} is of {}", dataset.rows[row].package),
    );
    Ok(())
}

fn index_range(
    db: &Database,
    packages: &Table<u64, Package>,
    dataset: &Dataset,
) -> Result<(), Failure> {
    let (low_kib, high_kib) = (10_000, 12_000);
    let now = db.snapshot();
    let watch = Stopwatch::start();
    let mut found = 0_usize;
    for row in packages
        .index(Package::INSTALLED_SIZE_KIB)
        .range(&now, low_kib..high_kib)
    {
        let (id, package) = row?;
        let inside = (low_kib..high_kib).contains(&package.installed_size_kib);
        expect(
            inside,
            "index range",
            "sizes of 10 to 12 MB",
            &format!("row {id} outside"),
        )?;
        found += 1;
    }
    let elapsed = watch.elapsed();
    let sizes = dataset.rows.iter().map(|row| row.installed_size_kib);
    let expected = sizes
        .filter(|size| (low_kib..high_kib).contains(size))
        .count();
    expect(
        found == expected,
        "index range",
        &format!("{expected} rows"),
        &format!("{found}"),
    )?;
    report::line(
        "index range",
        elapsed,
        &format!("{found} rows of 10 to 12 MB installed"),
    );
    Ok(())
}

/// A key that no row of the data set has: ids rise.
fn free_key(dataset: &Dataset) -> u64 {
    dataset.rows.last().map_or(0, |row| row.id + 1)
}

fn unique_refused(
    db: &Database,
    packages: &Table<u64, Package>,
    dataset: &Dataset,
) -> Result<(), Failure> {
    let key = free_key(dataset);
    let mut twin = Package::of_row(dataset, 0, key);
    twin.slug = package::slug(&dataset.rows[0].package, dataset.rows[0].id);
    let watch = Stopwatch::start();
    let refused = db.write(|tx| packages.put(tx, key, &twin));
    let elapsed = watch.elapsed();
    let error = match refused {
        Err(error) if error.kind() == ErrorKind::Constraint => error,
        Err(error) => return Err(error.into()),
        Ok(_) => {
            return Err(Failure::new(
                "unique: expected a refusal, found the row accepted",
            ));
        }
    };
    let absent = packages.get(&db.snapshot(), key)?.is_none();
    expect(absent, "unique", "no trace of the refused row", "the row")?;
    report::line("unique violation", elapsed, &format!("refused: {error}"));
    Ok(())
}

/// Two transactions add to one row: the one that comes second runs again and sees the first.
fn conflict_retried(db: &Database) -> Result<(), Failure> {
    let counters = db.table(COUNTERS)?;
    let before = counters.get(&db.snapshot(), "visits")?.unwrap_or(0);
    let mut attempts = 0;
    let watch = Stopwatch::start();
    db.write(|tx| {
        attempts += 1;
        let seen = counters.get(tx, "visits")?.unwrap_or(0);
        if attempts == 1 {
            // What this attempt has read is no longer true after this commit.
            db.write(|other| {
                let seen = counters.get(other, "visits")?.unwrap_or(0);
                counters.put(other, "visits", &(seen + 1))
            })?;
        }
        counters.put(tx, "visits", &(seen + 1))
    })?;
    let elapsed = watch.elapsed();
    let after = counters.get(&db.snapshot(), "visits")?.unwrap_or(0);
    let (expected, found) = (format!("{} visits", before + 2), format!("{after}"));
    expect(after == before + 2, "write conflict", &expected, &found)?;
    expect(
        attempts == 2,
        "write conflict",
        "2 attempts",
        &format!("{attempts}"),
    )?;
    report::line(
        "write conflict",
        elapsed,
        "the second attempt added to the other's commit",
    );
    Ok(())
}

struct Search {
    recall: f64,
    p50: Duration,
    p99: Duration,
}

/// Asks every query, one after the other.
fn search_all(
    db: &Database,
    packages: &Table<u64, Package>,
    queries: &[Vec<f32>],
    answers: &Matrix<i32>,
    filtered: Option<&Filtered>,
    way: Way,
) -> Result<Search, Failure> {
    let now = db.snapshot();
    let condition = filtered.map(|filtered| &filtered.condition);
    let mut times = Vec::with_capacity(queries.len());
    let mut right = 0;
    for (query, vector) in queries.iter().enumerate() {
        let watch = Stopwatch::start();
        let keys = nearest_keys(packages, &now, vector, condition, way)?;
        times.push(watch.elapsed());
        let Some(keys) = keys else {
            return Err(Failure::new(format!(
                "filters.json: expected a modulus of 20 or 200, found {condition:?}"
            )));
        };
        right += overlap(&keys, &answers.row(query)[..NEAREST]);
    }
    Ok(Search {
        recall: right as f64 / (queries.len() * NEAREST) as f64,
        p50: report::percentile(&mut times, 50),
        p99: report::percentile(&mut times, 99),
    })
}

/// How many of the answers are among the keys.
fn overlap(keys: &[u64], answers: &[i32]) -> usize {
    answers
        .iter()
        .filter(|id| {
            keys.iter()
                .any(|key| i64::try_from(*key) == Ok((**id).into()))
        })
        .count()
}

/// One search as a reader would make it: the record is decoded only for the hit that is shown.
fn best_hit(
    db: &Database,
    packages: &Table<u64, Package>,
    dataset: &Dataset,
    query: &[f32],
) -> Result<(), Failure> {
    let now = db.snapshot();
    let hits = packages
        .nearest(Package::EMBEDDING, query, NEAREST)
        .run(&now)?;
    let Some(best) = hits.first() else {
        return Err(Failure::new("nearest: expected hits, found none"));
    };
    let record = best.record()?;
    println!("  {:?}", dataset.query_texts[0]);
    println!(
        "  is nearest to {:?} ({}, {:.3})",
        record.text, record.name, best.distance
    );
    Ok(())
}

/// A row just put is found by its own transaction before the commit, by a new snapshot after it,
/// and never by a snapshot taken before.
fn in_transaction_and_snapshot(
    db: &Database,
    packages: &Table<u64, Package>,
    dataset: &Dataset,
    query: &[f32],
) -> Result<(), Failure> {
    let key = free_key(dataset);
    let mut newcomer = Package::of_row(dataset, 0, key);
    newcomer.embedding = package::embedding(query);
    let old = db.snapshot();

    let mut tx = db.begin();
    packages.put(&mut tx, key, &newcomer)?;
    let inside = plain_search(packages, &tx, query)?;
    same_first("search in its transaction", &inside.keys, key)?;
    let outcome = "the row just put comes first";
    report::line("in an uncommitted transaction", inside.elapsed, outcome);
    let outside = plain_search(packages, &db.snapshot(), query)?;
    without("search beside a transaction", &outside.keys, key)?;
    tx.commit()?;

    let behind = plain_search(packages, &old, query)?;
    without("search in an old snapshot", &behind.keys, key)?;
    let outcome = "the row committed since is not seen";
    report::line("in an old snapshot", behind.elapsed, outcome);
    let after = plain_search(packages, &db.snapshot(), query)?;
    same_first("search after the commit", &after.keys, key)?;

    db.write(|tx| {
        packages.delete(tx, key)?;
        Ok(())
    })?;
    let gone = plain_search(packages, &db.snapshot(), query)?;
    without("search after the delete", &gone.keys, key)
}

struct Answer {
    keys: Vec<u64>,
    elapsed: Duration,
}

/// One search without a filter.
fn plain_search(
    packages: &Table<u64, Package>,
    reader: &impl terrane::Read,
    query: &[f32],
) -> Result<Answer, Failure> {
    let watch = Stopwatch::start();
    let keys = nearest_keys(packages, reader, query, None, Way::Index)?;
    let elapsed = watch.elapsed();
    // Only a filter can be one that no column answers.
    Ok(Answer {
        keys: keys.unwrap_or_default(),
        elapsed,
    })
}

fn same_first(what: &str, keys: &[u64], first: u64) -> Result<(), Failure> {
    let right = keys.first() == Some(&first);
    expect(right, what, &format!("{first} first"), &format!("{keys:?}"))
}

fn without(what: &str, keys: &[u64], hidden: u64) -> Result<(), Failure> {
    let right = keys.len() == NEAREST && !keys.contains(&hidden);
    let expected = format!("{NEAREST} hits without {hidden}");
    expect(right, what, &expected, &format!("{keys:?}"))
}

#[cfg(test)]
mod tests {
    use super::overlap;

    #[test]
    fn overlap_counts_answers_found() {
        assert_eq!(overlap(&[3, 1, 2], &[1, 2, 4]), 2);
        assert_eq!(overlap(&[], &[1, 2]), 0);
        assert_eq!(overlap(&[u64::MAX], &[-1]), 0);
    }
}
