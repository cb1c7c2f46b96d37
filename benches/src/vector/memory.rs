//! What the index takes: resident memory after the load and the queries, and bytes on disk beside
//! the same rows without an index.

use std::fs;
use std::time::Instant;

use serde_json::json;

use super::load::{Source, loading, rest, shuffled};
use super::query::opened;
use super::store::open;
use super::{Job, Measured, figures};
use crate::Failure;
use crate::kv::race::Tally;
use crate::report::rss_mib;

/// Opens the loaded table, asks every query twice, then loads the rows once more with vectors that
/// are only stored.
pub(crate) fn memory(job: &Job<'_>) -> Result<Vec<Measured>, Failure> {
    let before_mib = rss_mib();
    let store = opened(job)?;
    let (from, begin) = (job.device.read(), Instant::now());
    let mut tally = Tally::every(1);
    for query in job.data.queries.iter().chain(&job.data.queries) {
        tally.time(|| store.nearest(query, job.settings.recall, None).map(|_| 1))?;
    }
    let outcome = super::load::outcome(job, tally, begin.elapsed().as_secs_f64(), from);
    let after_mib = rss_mib();
    let pool_mib = mib(store.db().stats().store.pool_used_bytes);
    let whole = store.db().stats().store.slot_bytes_used;
    drop(store);
    let plain = bytes_without_index(job)?;
    Ok(vec![Measured {
        workload: "memory",
        threads: 1,
        durability: "buffered",
        unit: "queries",
        latency_of: "every query",
        outcome,
        check: "the same rows in both tables".into(),
        more: figures([
            ("rss_mib", json!(after_mib)),
            ("rss_before_open_mib", json!(before_mib)),
            ("pool_mib", json!(pool_mib)),
            // What the process holds beyond the pages of its cache.
            ("beyond_pool_mib", json!(after_mib - before_mib - pool_mib)),
            ("store_mib", json!(mib(whole))),
            ("index_bytes", json!(whole.saturating_sub(plain))),
        ]),
    }])
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

/// Bytes of the slots of a database with the same rows, written the same way.
fn bytes_without_index(job: &Job<'_>) -> Result<u64, Failure> {
    let dir = job.dir.join("plain");
    fs::create_dir_all(&dir)?;
    let store = open(&dir, &job.data, loading(job, false))?;
    let order = shuffled(job.data.rows(), 1);
    Source::new(&job.data)?.fill(&*store, &order, &mut Tally::every(1))?;
    super::load::expect_rows(&*store, job.data.rows())?;
    rest()?;
    store.db().checkpoint()?;
    drop(store);
    // As the other one, without what older images held.
    let store = open(&dir, &job.data, loading(job, false))?;
    let bytes = store.db().stats().store.slot_bytes_used;
    drop(store);
    fs::remove_dir_all(dir)?;
    Ok(bytes)
}
