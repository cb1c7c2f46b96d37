//! The load: threads that write and one that reads, and what they were told.
//!
//! Each writer numbers its rows and counts them in the transactions that put them, so a transaction
//! that was done twice shows, as does one that was done in part.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use terrane::{Database, Error, Outcome, Table, TableDef};

use crate::clock::Stopwatch;
use crate::clock_pause;
use crate::dataset::Dataset;
use crate::failure::Failure;
use crate::fleet::PATIENCE;
use crate::package::{ARRIVALS, Package, Way, nearest_keys};

/// How many rows each writer has put.
pub(crate) const COUNTS: TableDef<u64, u64> = TableDef::new("counts");
/// A writer's number stands above this bit of its rows' numbers.
pub(crate) const WRITER_SHIFT: u32 = 32;
/// Between two calls of one caller, so that the load leaves time to others.
const PAUSE: Duration = Duration::from_millis(2);

/// What callers were told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) acknowledged: BTreeSet<u64>,
    /// Those that may be there or not.
    pub(crate) unknown: BTreeSet<u64>,
    /// Those that must not be there.
    pub(crate) refused: BTreeSet<u64>,
    /// Begin and end of each acknowledged call.
    acks: Vec<(Duration, Duration)>,
    /// Reads and searches that were answered.
    pub(crate) reads: u64,
    /// Reads that did not find what was acknowledged before.
    pub(crate) stale: u64,
    /// Errors to callers, each with how often.
    pub(crate) errors: BTreeMap<String, u64>,
}

/// The callers, and what they share.
pub(crate) struct Callers<'a> {
    db: Database,
    packages: Table<u64, Package>,
    counts: Table<u64, u64>,
    dataset: &'a Dataset,
    watch: Stopwatch,
    stop: AtomicBool,
    told: Mutex<Told>,
}

/// A thread of the load.
pub(crate) struct Load<'scope>(ScopedJoinHandle<'scope, ()>);

impl Load<'_> {
    /// Waits for its end.
    pub(crate) fn join(self) -> Result<(), Failure> {
        let panicked = |_| Failure::new("a thread of the load panicked");
        self.0.join().map_err(panicked)
    }
}

impl<'a> Callers<'a> {
    /// Callers of a database.
    pub(crate) fn new(
        db: &Database,
        dataset: &'a Dataset,
        watch: Stopwatch,
    ) -> Result<Callers<'a>, Failure> {
        Ok(Callers {
            packages: db.table(ARRIVALS)?,
            counts: db.table(COUNTS)?,
            db: db.clone(),
            dataset,
            watch,
            stop: AtomicBool::new(false),
            told: Mutex::default(),
        })
    }

    /// Starts so many writers, and the searcher.
    pub(crate) fn begin<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        writers: usize,
    ) -> Vec<Load<'scope>> {
        let writer = |number| Load(scope.spawn(move || self.write(number)));
        let mut load: Vec<Load<'_>> = (1..=writers as u64).map(writer).collect();
        load.push(Load(scope.spawn(|| self.search())));
        load
    }

    /// No call begins any more.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// What callers were told so far.
    pub(crate) fn told(&self) -> Told {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time of acknowledgements.
    pub(crate) fn now(&self) -> Duration {
        self.watch.elapsed()
    }

    /// The longest time without an acknowledgement since `begin`, seen once a call that begins from
    /// now on is acknowledged.
    pub(crate) fn pause_since(&self, begin: Duration) -> Result<Duration, Failure> {
        let now = self.now();
        loop {
            let over = longest_pause(&self.lock().acks, begin, now);
            if let Some(pause) = over {
                return Ok(pause);
            }
            if self.now() > now + PATIENCE {
                return Err(Failure::new(format!(
                    "expected an acknowledged commit, found none for {PATIENCE:?}"
                )));
            }
            clock_pause(Duration::from_millis(1));
        }
    }

    fn write(&self, writer: u64) {
        let mut number = writer << WRITER_SHIFT;
        while self.goes_on() {
            number += 1;
            let row = number as usize % self.dataset.rows.len();
            let package = Package::of_row(self.dataset, row, number);
            let begin = self.now();
            let outcome = self.db.write(|tx| {
                let count = self.counts.get(tx, writer)?.unwrap_or(0);
                self.counts.put(tx, writer, &(count + 1))?;
                self.packages.put(tx, number, &package)
            });
            let mut told = self.lock();
            match outcome {
                Ok(()) => {
                    told.acknowledged.insert(number);
                    told.acks.push((begin, self.now()));
                }
                Err(error) => {
                    match error.outcome() {
                        Outcome::Unknown => told.unknown.insert(number),
                        _ => told.refused.insert(number),
                    };
                    told.note("write", &error);
                }
            }
            drop(told);
            clock_pause(PAUSE);
        }
    }

    /// Searches, and reads what was acknowledged last.
    fn search(&self) {
        let queries = self.dataset.query_vectors();
        for query in queries.iter().cycle() {
            if !self.goes_on() {
                return;
            }
            let newest = self.lock().acknowledged.last().copied();
            let now = self.db.snapshot();
            let found = nearest_keys(&self.packages, &now, query, None, Way::Index);
            let read = newest.map(|number| self.packages.get(&now, number));
            let mut told = self.lock();
            match found {
                Ok(_) => told.reads += 1,
                Err(error) => told.note("search", &error),
            }
            match read {
                Some(Ok(row)) => {
                    told.reads += 1;
                    told.stale += u64::from(row.is_none());
                }
                Some(Err(error)) => told.note("read", &error),
                None => {}
            }
            drop(told);
            clock_pause(PAUSE);
        }
    }
}

impl Told {
    fn note(&mut self, what: &str, error: &Error) {
        let (kind, outcome) = (error.kind().name(), error.outcome());
        let text = format!("{what}: {kind}, {outcome:?}: {}", error.message());
        *self.errors.entry(text).or_default() += 1;
    }

    /// All errors to callers.
    pub(crate) fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// The longest time between two acknowledgements from `begin` to the first of a call that began at
/// `after` or later; None before that.
fn longest_pause(
    acks: &[(Duration, Duration)],
    begin: Duration,
    after: Duration,
) -> Option<Duration> {
    let fresh = acks.iter().filter(|(began, _)| *began >= after);
    let end = fresh.map(|(_, done)| *done).min()?;
    let inside = acks.iter().map(|(_, done)| *done);
    let mut times: Vec<Duration> = inside.filter(|at| (begin..=end).contains(at)).collect();
    times.push(begin);
    times.sort_unstable();
    let gaps = times.windows(2).map(|two| two[1] - two[0]);
    gaps.max()
}
