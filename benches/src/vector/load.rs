//! Loading: in random order, and in the order of ids, whose sections drift.

use std::time::{Duration, Instant};

use serde_json::json;
use terrane::Durability;

use super::answers::Judge;
use super::dataset::{Attributes, Dataset};
use super::store::{NewRow, Setting, Store, index_counts, open};
use super::{Job, Measured, figures};
use crate::Failure;
use crate::kv::race::{Outcome, Tally};
use crate::report::{cpu_secs, peak_rss_mib, rss_mib};
use crate::rows::Random;

/// Vectors in one transaction.
pub(crate) const BATCH: usize = 100;

/// Background work that has not come to rest after this long never will.
const REST_AT_MOST: Duration = Duration::from_secs(3600);

/// Numbers below `n` in an order of their own per seed.
pub(crate) fn shuffled(n: usize, seed: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n as u32).collect();
    let mut random = Random::new(seed);
    for last in (1..n).rev() {
        order.swap(last, random.below(last as u64 + 1) as usize);
    }
    order
}

/// The rows of a data set, on their way into a table.
pub(crate) struct Source<'a> {
    data: &'a Dataset,
    attributes: Vec<Attributes>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(data: &'a Dataset) -> Result<Source<'a>, Failure> {
        let attributes = data.attributes()?;
        Ok(Source { data, attributes })
    }

    /// A row with the vector of a row, which may be another one.
    pub(crate) fn row(&self, id: u32, vector_of: u32) -> Result<NewRow, Failure> {
        Ok(NewRow {
            id: u64::from(id),
            attributes: self.attributes[id as usize].clone(),
            vector: self.data.vector(vector_of as usize)?,
        })
    }

    /// Writes rows in transactions of [`BATCH`], timing each.
    pub(crate) fn fill(
        &self,
        store: &dyn Store,
        order: &[u32],
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        for ids in order.chunks(BATCH) {
            let rows: Vec<NewRow> = ids
                .iter()
                .map(|id| self.row(*id, *id))
                .collect::<Result<_, Failure>>()?;
            tally.time(|| store.put(&rows).map(|()| rows.len() as u64))?;
        }
        Ok(())
    }
}

/// Waits until the process does nothing more by itself, and tells after how many seconds that
/// was so. Whatever works in the background takes processor time, which needs no interface to see.
pub(crate) fn rest() -> Result<f64, Failure> {
    /// How long nothing may be done, in how many looks, and how busy "nothing" is.
    const LOOK: Duration = Duration::from_millis(250);
    const LOOKS: u32 = 4;
    const BUSY: f64 = 0.04;
    let begin = Instant::now();
    let (mut quiet, mut since) = (0, Duration::ZERO);
    while quiet < LOOKS {
        let before = cpu_secs()?;
        let at = begin.elapsed();
        std::thread::sleep(LOOK);
        if cpu_secs()? - before > BUSY * LOOK.as_secs_f64() {
            quiet = 0;
            if begin.elapsed() > REST_AT_MOST {
                return Err("the background work does not come to rest".into());
            }
            continue;
        }
        if quiet == 0 {
            since = at;
        }
        quiet += 1;
    }
    Ok(since.as_secs_f64())
}

/// How the loads open the database.
pub(crate) fn loading(job: &Job<'_>, searchable: bool) -> Setting {
    Setting {
        durability: Durability::Local,
        cache_mib: job.settings.cache_mib,
        searchable,
    }
}

/// Fails unless the table has so many rows.
pub(crate) fn expect_rows(store: &dyn Store, rows: usize) -> Result<(), Failure> {
    let found = store.count()?;
    if found == rows as u64 {
        return Ok(());
    }
    Err(format!("the table has {found} rows, not {rows}").into())
}

/// What a timed part came to.
pub(crate) fn outcome(
    job: &Job<'_>,
    tally: Tally,
    secs: f64,
    from: crate::device::Counters,
) -> Outcome {
    Outcome {
        ops: tally.ops,
        secs,
        latencies_ns: tally.latencies_ns,
        device: job.device.since(from),
        peak_rss_mib: peak_rss_mib(),
    }
}

/// All rows in random order, durable transactions of 100; then the time until nothing is left to
/// do, and the recall of what was built.
pub(crate) fn load(job: &Job<'_>) -> Result<Vec<Measured>, Failure> {
    let store = open(job.dir, &job.data, loading(job, true))?;
    let source = Source::new(&job.data)?;
    let order = shuffled(job.data.rows(), 1);
    let (from, begin) = (job.device.read(), Instant::now());
    let mut tally = Tally::every(1);
    source.fill(&*store, &order, &mut tally)?;
    let outcome = outcome(job, tally, begin.elapsed().as_secs_f64(), from);
    let rested = rest()?;
    expect_rows(&*store, job.data.rows())?;
    let exact = job.data.answers("gt.npy")?.ok_or("gt.npy is not there")?;
    let row_of = |id: u64| Some(id as usize).filter(|row| *row < job.data.rows());
    let judge = Judge::new(&job.data, wide(&exact), &row_of, None)?;
    let recall = judge.recall(|query| store.nearest(query, job.settings.recall, None))?;
    store.db().checkpoint()?;
    let stats = store.db().stats();
    Ok(vec![Measured {
        workload: "load",
        threads: 1,
        durability: "synced",
        unit: "vectors, in transactions of 100",
        latency_of: "every transaction",
        outcome,
        check: format!("{} rows; every answer measured anew", job.data.rows()),
        more: figures([
            ("idle_s", json!(rested)),
            ("recall_target", json!(job.settings.recall)),
            ("recall_at_10", json!(recall)),
            ("rss_mib", json!(rss_mib())),
            (
                "store_mib",
                json!(stats.store.slot_bytes_used as f64 / 1_048_576.0),
            ),
        ]),
    }])
}

/// Ids of the data set as ids of the table.
pub(crate) fn wide(ids: &[Vec<u32>]) -> Vec<Vec<u64>> {
    let row = |row: &Vec<u32>| row.iter().map(|id| u64::from(*id)).collect();
    ids.iter().map(row).collect()
}

/// Rows in the order of their ids, asked at a quarter, a half, three quarters and the end, and once
/// more after the first tenth of them is deleted.
pub(crate) fn drift(job: &Job<'_>) -> Result<Vec<Measured>, Failure> {
    let store = open(job.dir, &job.data, loading(job, true))?;
    let source = Source::new(&job.data)?;
    let rows = job.data.rows();
    let order: Vec<u32> = (0..rows as u32).collect();
    let mut out = Vec::new();
    let mut done = 0;
    for (percent, file) in [
        (25, "gt_stream_25.npy"),
        (50, "gt_stream_50.npy"),
        (75, "gt_stream_75.npy"),
        (100, "gt.npy"),
    ] {
        let end = rows * percent / 100;
        let (from, begin) = (job.device.read(), Instant::now());
        let mut tally = Tally::every(1);
        source.fill(&*store, &order[done..end], &mut tally)?;
        let outcome = outcome(job, tally, begin.elapsed().as_secs_f64(), from);
        done = end;
        expect_rows(&*store, end)?;
        let label = format!("{percent} %");
        out.push(checkpoint(job, &*store, &label, file, 0..end, outcome)?);
    }
    let cut = rows / 10;
    let (from, begin) = (job.device.read(), Instant::now());
    let mut tally = Tally::every(1);
    for first in (0..cut).step_by(BATCH) {
        let ids = first as u64..cut.min(first + BATCH) as u64;
        let many = ids.end - ids.start;
        tally.time(|| store.delete(ids.clone()).map(|()| many))?;
    }
    let outcome = outcome(job, tally, begin.elapsed().as_secs_f64(), from);
    expect_rows(&*store, rows - cut)?;
    let (label, file) = ("100 %, first 10 % deleted", "gt_stream_100_del10.npy");
    out.push(checkpoint(job, &*store, label, file, cut..rows, outcome)?);
    Ok(out)
}

/// The recall of a stage, with the rows of `live` in the table.
fn checkpoint(
    job: &Job<'_>,
    store: &dyn Store,
    label: &str,
    file: &str,
    live: std::ops::Range<usize>,
    outcome: Outcome,
) -> Result<Measured, Failure> {
    let rested = rest()?;
    let exact = job.data.answers(file)?;
    let exact = exact.ok_or_else(|| format!("{file} is not there"))?;
    let row_of = |id: u64| Some(id as usize).filter(|row| live.contains(row));
    let judge = Judge::new(&job.data, wide(&exact), &row_of, None)?;
    let scanned = || index_counts(&store.db().stats()).scanned;
    let before = scanned();
    let mut took = Tally::every(1);
    let recall = judge.recall(|query| {
        let mut hits = Vec::new();
        took.time(|| {
            hits = store.nearest(query, job.settings.recall, None)?;
            Ok(1)
        })?;
        Ok(hits)
    })?;
    let per_query = match (before, scanned()) {
        (Some(before), Some(after)) => Some((after - before) as f64 / judge.queries() as f64),
        _ => None,
    };
    took.latencies_ns.sort_unstable();
    let middle = took.latencies_ns.get(took.latencies_ns.len() / 2).copied();
    Ok(Measured {
        workload: "load_drift",
        threads: 1,
        durability: "synced",
        unit: "vectors, in transactions of 100",
        latency_of: "every transaction",
        outcome,
        check: "number of rows; every answer measured anew".into(),
        more: figures([
            ("checkpoint", json!(label)),
            ("idle_s", json!(rested)),
            ("recall_target", json!(job.settings.recall)),
            ("recall_at_10", json!(recall)),
            (
                "query_p50_us",
                json!(middle.map(|ns| f64::from(ns) / 1000.0)),
            ),
            ("vectors_scanned", json!(per_query)),
        ]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_has_every_number_once() {
        let mut order = shuffled(1000, 1);
        assert_ne!(order, shuffled(1000, 2));
        assert!(!order.is_sorted());
        order.sort_unstable();
        assert!(order.into_iter().eq(0..1000));
        assert!(shuffled(0, 1).is_empty());
    }

    #[test]
    fn processor_time_is_seen() {
        let before = cpu_secs().unwrap();
        let begin = Instant::now();
        while cpu_secs().unwrap() < before + 0.02 {
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "no tick in a minute"
            );
        }
    }
}
