//! What vectors cost those who do not use them: durable commits of one row in a plain table, while
//! another table takes vectors and its index is kept.
//!
//! ```text
//! a third of the rows, rest -> alone -> a sixth at full speed, then beside the splits it left
//!   -> rest -> beside 1,000 inserts/s -> beside inserts at full speed
//!   -> the same at full speed without an index: a full log and device slow commits too
//! ```

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::load::{BATCH, Source, expect_rows, loading, outcome, rest, shuffled};
use super::store::{Store, open};
use super::{Job, Measured, figures};
use crate::Failure;
use crate::kv::race::{Outcome, Tally};

/// Inserts of one row a second, where they are paced.
const PACE: u32 = 1000;

/// A table that takes vectors beside the plain one, in one phase after the other.
struct Bench<'a> {
    job: &'a Job<'a>,
    store: &'a dyn Store,
    source: &'a Source<'a>,
    /// Rows that are still to be inserted.
    left: &'a [u32],
    inserted: usize,
    /// The next plain row.
    next: u64,
    /// The p99 of commits alone, in nanoseconds.
    alone: Option<f64>,
    out: Vec<Measured>,
}

/// Every phase.
pub(crate) fn commits(job: &Job<'_>) -> Result<Vec<Measured>, Failure> {
    let source = Source::new(&job.data)?;
    let order = shuffled(job.data.rows(), 1);
    let (mut out, mut alone) = (Vec::new(), None);
    for (searchable, folder) in [(true, "indexed"), (false, "plain")] {
        let dir = job.dir.join(folder);
        fs::create_dir_all(&dir)?;
        let store = open(&dir, &job.data, loading(job, searchable))?;
        let mut bench = Bench {
            job,
            store: &*store,
            source: &source,
            left: &order,
            inserted: 0,
            next: 0,
            alone,
            out,
        };
        bench.fill(order.len() / 3)?;
        rest()?;
        if searchable {
            bench.alone()?;
            bench.fill(order.len() / 6)?;
            bench.phase("commit_beside_splits", None)?;
            rest()?;
            bench.phase("commit_beside_paced_vectors", Some(Pace::Each))?;
            bench.phase("commit_beside_vectors", Some(Pace::Full))?;
        } else {
            bench.fill(order.len() / 6)?;
            rest()?;
            bench.phase("commit_plain_alone", None)?;
            bench.phase("commit_beside_paced_plain_rows", Some(Pace::Each))?;
            bench.phase("commit_beside_plain_rows", Some(Pace::Full))?;
        }
        expect_rows(&*store, bench.inserted)?;
        (out, alone) = (bench.out, bench.alone);
    }
    Ok(out)
}

/// How fast rows are inserted beside the commits.
#[derive(Clone, Copy)]
enum Pace {
    /// One at a time, [`PACE`] a second.
    Each,
    /// In transactions of [`BATCH`], one after the other.
    Full,
}

impl Bench<'_> {
    /// Inserts so many rows at full speed.
    fn fill(&mut self, count: usize) -> Result<(), Failure> {
        let (now, left) = self.left.split_at(count.min(self.left.len()));
        self.source.fill(self.store, now, &mut Tally::every(1))?;
        (self.left, self.inserted) = (left, self.inserted + now.len());
        Ok(())
    }

    fn alone(&mut self) -> Result<(), Failure> {
        self.phase("commit_alone", None)?;
        let measured = self.out.last().map(|line| &line.outcome);
        self.alone = measured.and_then(p99);
        Ok(())
    }

    /// Commits until the time is over, beside inserts if there is a pace for them, or until nothing
    /// is left to insert.
    fn phase(&mut self, name: &'static str, pace: Option<Pace>) -> Result<(), Failure> {
        let (store, source, left) = (self.store, self.source, self.left);
        let before = self.upkeep();
        let (stop, from, begin) = (
            AtomicBool::new(false),
            self.job.device.read(),
            Instant::now(),
        );
        let time = Duration::from_secs_f64(self.job.settings.secs);
        let mut tally = Tally::every(1);
        let next = &mut self.next;
        let inserted = std::thread::scope(|scope| {
            let stop = &stop;
            let writer = pace
                .map(|pace| scope.spawn(move || insert(store, source, left, (pace, begin), stop)));
            let ended = || writer.as_ref().is_some_and(|writer| writer.is_finished());
            let mut done = Ok(());
            while done.is_ok() && begin.elapsed() < time && !ended() {
                *next += 1;
                let key = *next;
                done = tally.time(|| store.note(key).map(|()| 1));
            }
            stop.store(true, Ordering::Relaxed);
            let inserted = writer.map(|writer| writer.join().map_err(|_| "the writer panicked"));
            done?;
            inserted.transpose()?.unwrap_or(Ok(0))
        })?;
        let secs = begin.elapsed().as_secs_f64();
        let after = self.upkeep();
        (self.left, self.inserted) = (&left[inserted..], self.inserted + inserted);
        let outcome = outcome(self.job, tally, secs, from);
        let ratio = p99(&outcome)
            .zip(self.alone)
            .map(|(with, alone)| with / alone);
        let upkeep = after.zip(before);
        self.out.push(Measured {
            workload: name,
            threads: 1,
            durability: "synced",
            unit: "commits of one plain row",
            latency_of: "every commit",
            outcome,
            check: "number of rows".into(),
            more: figures([
                ("p99_ratio", json!(ratio)),
                ("vectors_per_s", json!(inserted as f64 / secs)),
                ("splits", json!(upkeep.map(|(to, from)| to.0 - from.0))),
                (
                    "upkeep_commits",
                    json!(upkeep.map(|(to, from)| to.1 - from.1)),
                ),
            ]),
        });
        Ok(())
    }

    /// Splits and transactions of upkeep so far; None without an index.
    fn upkeep(&self) -> Option<(u64, u64)> {
        let stats = self.store.db().stats();
        let of_index = stats.vectors.first().map(|index| &index.upkeep);
        of_index.map(|upkeep| (upkeep.splits, upkeep.commits))
    }
}

/// Inserts until it is stopped or nothing is left, and tells how many.
fn insert(
    store: &dyn Store,
    source: &Source<'_>,
    order: &[u32],
    (pace, begin): (Pace, Instant),
    stop: &AtomicBool,
) -> Result<usize, Failure> {
    let size = match pace {
        Pace::Each => 1,
        Pace::Full => BATCH,
    };
    let (mut tally, mut done) = (Tally::every(1), 0);
    for (turn, ids) in order.chunks(size).enumerate() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if matches!(pace, Pace::Each) {
            let due = Duration::from_secs(1) / PACE * turn as u32;
            std::thread::sleep(due.saturating_sub(begin.elapsed()));
        }
        source.fill(store, ids, &mut tally)?;
        done += ids.len();
    }
    Ok(done)
}

/// In nanoseconds.
fn p99(outcome: &Outcome) -> Option<f64> {
    let mut all = outcome.latencies_ns.clone();
    all.sort_unstable();
    let last = all.len().checked_sub(1)?;
    Some(f64::from(all[(last as f64 * 0.99).round() as usize]))
}
