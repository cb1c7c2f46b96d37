//! Reads beside a writer: all rows replaced while one thread queries.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::json;

use super::answers::{Hits, Judge, distance, well_formed};
use super::load::{BATCH, Source, expect_rows, loading, rest, shuffled};
use super::store::{Store, open};
use super::{Job, Measured, figures};
use crate::Failure;
use crate::kv::race::{Outcome, Tally};
use crate::report::peak_rss_mib;

/// How far a told distance may be from the true one.
const ROUNDING: f64 = 1e-4;

/// Every row gets the vector of another one, in random order and at full rate, while one thread
/// queries. The exact answers of the end are those of the data set under their new ids.
pub(crate) fn churn(job: &Job<'_>) -> Result<Vec<Measured>, Failure> {
    let store = open(job.dir, &job.data, loading(job, true))?;
    let rows = job.data.rows();
    expect_rows(&*store, rows)?;
    let source = Source::new(&job.data)?;
    let new_vector_of = shuffled(rows, 3);
    let (from, begin) = (job.device.read(), Instant::now());
    let done = AtomicBool::new(false);
    let (writes, reads) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let tally = replace(&source, &*store, &new_vector_of);
            done.store(true, Ordering::Relaxed);
            tally
        });
        let reads = ask_until(job, &*store, &done, &new_vector_of);
        let writes = writer.join().map_err(|_| "the writer panicked")?;
        Ok::<_, Failure>((writes?, reads?))
    })?;
    let secs = begin.elapsed().as_secs_f64();
    let device = job.device.since(from);
    let rested = rest()?;
    expect_rows(&*store, rows)?;

    let recall = recall_after(job, &*store, &new_vector_of)?;
    let line = |workload, unit, latency_of, tally: Tally, more| Measured {
        workload,
        threads: 2,
        durability: "synced",
        unit,
        latency_of,
        outcome: Outcome {
            ops: tally.ops,
            secs,
            latencies_ns: tally.latencies_ns,
            device,
            peak_rss_mib: peak_rss_mib(),
        },
        check: "every distance is of the old or the new vector; at the end all measured anew"
            .into(),
        more,
    };
    let goal = job.settings.recall;
    let more = || {
        figures([
            ("idle_s", json!(rested)),
            ("recall_target", json!(goal)),
            ("recall_at_10", json!(recall)),
        ])
    };
    let unit = "upserts, in transactions of 100";
    Ok(vec![
        line("churn", unit, "every transaction", writes, more()),
        line(
            "churn_query",
            "queries beside the upserts",
            "every query",
            reads,
            more(),
        ),
    ])
}

/// The recall once every row has its new vector: the exact answers of the data set, under the ids
/// that their vectors have now.
fn recall_after(job: &Job<'_>, store: &dyn Store, new_vector_of: &[u32]) -> Result<f64, Failure> {
    let mut id_of = vec![0u64; new_vector_of.len()];
    for (id, row) in new_vector_of.iter().enumerate() {
        id_of[*row as usize] = id as u64;
    }
    let exact = job.data.answers("gt.npy")?.ok_or("gt.npy is not there")?;
    let renamed = |answers: &Vec<u32>| answers.iter().map(|row| id_of[*row as usize]).collect();
    let row_of = |id: u64| new_vector_of.get(id as usize).map(|row| *row as usize);
    let judge = Judge::new(
        &job.data,
        exact.iter().map(renamed).collect(),
        &row_of,
        None,
    )?;
    judge.recall(|query| store.nearest(query, job.settings.recall, None))
}

/// The writer.
fn replace(source: &Source<'_>, store: &dyn Store, to: &[u32]) -> Result<Tally, Failure> {
    let mut tally = Tally::every(1);
    for ids in shuffled(to.len(), 2).chunks(BATCH) {
        let rows = ids.iter().map(|id| source.row(*id, to[*id as usize]));
        let rows: Vec<_> = rows.collect::<Result<_, Failure>>()?;
        tally.time(|| store.put(&rows).map(|()| rows.len() as u64))?;
    }
    Ok(tally)
}

/// The reader: whatever a row has at that moment, its distance is of one of its two vectors.
fn ask_until(
    job: &Job<'_>,
    store: &dyn Store,
    done: &AtomicBool,
    to: &[u32],
) -> Result<Tally, Failure> {
    let mut tally = Tally::every(1);
    for query in job.data.queries.iter().cycle() {
        if done.load(Ordering::Relaxed) {
            break;
        }
        let mut hits = Hits::new();
        tally.time(|| {
            hits = store.nearest(query, job.settings.recall, None)?;
            Ok(1)
        })?;
        well_formed(&hits)?;
        if hits.len() < super::dataset::NEAREST.min(to.len()) {
            return Err(format!("{} answers during the upserts", hits.len()).into());
        }
        for (id, told) in &hits {
            let new = to.get(*id as usize).ok_or("an id that no row has")?;
            let mut fits = false;
            for row in [*id as usize, *new as usize] {
                let vector = job.data.vector(row)?;
                let measured = distance(job.data.metric, query, &vector);
                let slack = ROUNDING * (1.0 + measured.abs());
                fits |= (f64::from(*told) - measured).abs() <= slack;
            }
            if !fits {
                return Err(
                    format!("id {id} at {told} has neither its old nor its new vector").into(),
                );
            }
        }
    }
    Ok(tally)
}
