//! Searching a loaded table: recall against rate for several goals, and with filters.

use std::time::Duration;

use serde_json::json;
use terrane::Durability;

use super::answers::{Judge, well_formed};
use super::dataset::{Condition, NEAREST};
use super::load::{expect_rows, wide};
use super::store::{Setting, Store, index_counts, open};
use super::{Job, Measured, figures};
use crate::Failure;
use crate::kv::race::{Outcome, race};
use crate::report::rss_mib;

/// Opens the loaded database and reads it all once, which warms the cache.
pub(crate) fn opened(job: &Job<'_>) -> Result<std::sync::Arc<dyn Store>, Failure> {
    let setting = Setting {
        durability: Durability::Buffered,
        cache_mib: job.settings.cache_mib,
        searchable: true,
    };
    let store = open(job.dir, &job.data, setting)?;
    expect_rows(&*store, job.data.rows())?;
    Ok(store)
}

/// What is asked in a timed run.
#[derive(Clone, Copy)]
struct Ask<'a> {
    store: &'a dyn Store,
    recall: f64,
    filter: Option<&'a Condition>,
    /// Answers that there must be.
    count: usize,
}

/// Queries in turn on some threads, one at a time on each, until the time is over.
fn timed(job: &Job<'_>, threads: usize, ask: Ask<'_>) -> Result<Outcome, Failure> {
    let queries = &job.data.queries;
    let time = Duration::from_secs_f64(job.settings.secs);
    race(threads, time, 1, &job.device, &|n, go, tally| {
        let mut at = n * queries.len() / threads;
        while go() {
            let query = &queries[at % queries.len()];
            at += 1;
            tally.time(|| {
                let hits = ask.store.nearest(query, ask.recall, ask.filter)?;
                well_formed(&hits)?;
                if hits.len() == ask.count {
                    return Ok(1);
                }
                Err(format!("{} answers, not {}", hits.len(), ask.count).into())
            })?;
        }
        Ok(())
    })
}

/// Every goal of recall, on every number of threads.
pub(crate) fn query(job: &Job<'_>) -> Result<Vec<Measured>, Failure> {
    let store = opened(job)?;
    let exact = job.data.answers("gt.npy")?.ok_or("gt.npy is not there")?;
    let row_of = |id: u64| Some(id as usize).filter(|row| *row < job.data.rows());
    let judge = Judge::new(&job.data, wide(&exact), &row_of, None)?;
    let mut out = Vec::new();
    for target in &job.settings.targets {
        let scanned = || index_counts(&store.db().stats()).scanned;
        let before = scanned();
        let recall = judge.recall(|query| store.nearest(query, *target, None))?;
        let scanned = match (before, scanned()) {
            (Some(before), Some(after)) => Some((after - before) as f64 / judge.queries() as f64),
            _ => None,
        };
        for threads in &job.settings.threads {
            let ask = Ask {
                store: &*store,
                recall: *target,
                filter: None,
                count: NEAREST.min(job.data.rows()),
            };
            out.push(Measured {
                workload: "query",
                threads: *threads,
                durability: "buffered",
                unit: "queries",
                latency_of: "every query",
                outcome: timed(job, *threads, ask)?,
                check: "every answer measured anew before; order and number in the run".into(),
                more: figures([
                    ("recall_target", json!(target)),
                    ("recall_at_10", json!(recall)),
                    ("vectors_scanned", json!(scanned)),
                    ("short", json!(0)),
                    ("rss_mib", json!(rss_mib())),
                ]),
            });
        }
    }
    Ok(out)
}

/// Every filter of the data set. Fewer answers than match fail the run (A4).
pub(crate) fn filtered(job: &Job<'_>) -> Result<Vec<Measured>, Failure> {
    let store = opened(job)?;
    let mut out = Vec::new();
    for filter in job.data.filters()? {
        let row_of = |id: u64| Some(id as usize).filter(|row| *row < job.data.rows());
        let judge = Judge::new(
            &job.data,
            wide(&filter.answers),
            &row_of,
            Some(&filter.mask),
        )?;
        let condition = Some(&filter.condition);
        let goal = job.settings.recall;
        let recall = judge.recall(|query| store.nearest(query, goal, condition))?;
        let matching = filter.mask.iter().filter(|passes| **passes).count();
        for threads in &job.settings.threads {
            let ask = Ask {
                store: &*store,
                recall: goal,
                filter: condition,
                count: NEAREST.min(matching),
            };
            out.push(Measured {
                workload: "query_filter",
                threads: *threads,
                durability: "buffered",
                unit: "queries",
                latency_of: "every query",
                outcome: timed(job, *threads, ask)?,
                check: "every answer measured anew before; order and number in the run".into(),
                more: figures([
                    ("filter", json!(filter.name)),
                    ("matching", json!(matching)),
                    ("recall_target", json!(goal)),
                    ("recall_at_10", json!(recall)),
                    ("short", json!(0)),
                ]),
            });
        }
    }
    Ok(out)
}
