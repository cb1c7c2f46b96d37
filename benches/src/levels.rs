//! What the default level of isolation costs, measured within one process.
//!
//! Two processes one after the other find two machines where others work on it too, and the
//! difference between those may be larger than that between the levels. So here two threads go on
//! with one workload on the same rows, and the level that they ask for changes every 20 ms. Batches
//! of operations are timed one by one; what is compared are the batches that nobody interrupted
//! (the tenth percentile) and the median.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use terrane::{Database, Durability, Isolation, Table, TableDef};

use crate::Failure;
use crate::rows::{Random, Zipf, belongs, intact, scatter, value};

const ROWS: TableDef<u64, Vec<u8>> = TableDef::new("rows");
const LEVELS: [Isolation; 2] = [Isolation::Snapshot, Isolation::Serializable];
const TURN: Duration = Duration::from_millis(20);
/// Rows of a scan, and of a transaction that loads.
const SCAN: usize = 100;
const LOAD: u64 = 1000;

/// Options of the comparison of levels.
#[derive(Args, Clone)]
pub(crate) struct LevelsArgs {
    /// Seconds of each workload in each repeat.
    #[arg(long, default_value_t = 10.0)]
    secs: f64,
    /// Rows of the table.
    #[arg(long, default_value_t = 2_000_000)]
    rows: u64,
    /// Times each workload runs; the table shows medians and the spread of the cost.
    #[arg(long, default_value_t = 5)]
    repeat: usize,
    /// Folder to work in; a fresh one below it is used and removed.
    #[arg(long, default_value = ".")]
    data: PathBuf,
    /// Memory budget in MiB.
    #[arg(long, default_value_t = 512)]
    cache_mib: usize,
}

#[derive(Clone, Copy)]
enum Work {
    /// Half gets in a snapshot, half blind writes, zipfian.
    YcsbA,
    /// Half gets in a snapshot, half read-modify-writes, zipfian.
    YcsbF,
    /// Scans of an open range, stopped after 100 rows, and a write of the first of them.
    Scan,
}

const WORKLOADS: [(&str, Work, u64); 3] = [
    ("ycsb_a", Work::YcsbA, 200),
    ("ycsb_f", Work::YcsbF, 200),
    ("scan_100_tx", Work::Scan, 10),
];

struct Ground {
    db: Database,
    table: Table<u64, Vec<u8>>,
    rows: u64,
    zipf: Zipf,
}

/// Nanoseconds an operation, of each batch, at snapshot isolation and at serializable.
type Times = [Vec<u64>; 2];

/// Runs the comparison and prints its table.
pub(crate) fn run(args: &LevelsArgs) -> Result<(), Failure> {
    let dir = args
        .data
        .join(format!("terrane-bench-levels-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let ground = Ground::make(args, &dir)?;
    let mut found: Vec<Vec<[f64; 4]>> = vec![Vec::new(); WORKLOADS.len()];
    for repeat in 0..args.repeat {
        for (at, (name, work, batch)) in WORKLOADS.into_iter().enumerate() {
            eprintln!("[repeat {}/{}] {name}", repeat + 1, args.repeat);
            let times = ground.measure(work, batch, Duration::from_secs_f64(args.secs))?;
            found[at].push(judge(times)?);
        }
    }
    ground.check()?;
    ground.db.close()?;
    fs::remove_dir_all(&dir)?;
    println!(
        "| workload, 2 threads | n | serializable | snapshot isolation | cost | median batch |"
    );
    println!("|---|---|---|---|---|---|");
    for ((name, ..), found) in WORKLOADS.iter().zip(&found) {
        let figures = |which: usize| sorted(found.iter().map(|run| run[which]));
        let middle = |which: usize| figures(which)[found.len() / 2];
        let cost = |which: usize| {
            let all = figures(which);
            let (low, high) = (all[0], all[all.len() - 1]);
            format!("{:.1} % ({low:.1} to {high:.1})", middle(which))
        };
        println!(
            "| {name} | {} | {:.0} ns | {:.0} ns | {} | {} |",
            found.len(),
            middle(0),
            middle(1),
            cost(2),
            cost(3)
        );
    }
    Ok(())
}

fn sorted(figures: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures
}

/// The tenth percentile at serializable and at snapshot isolation, the cost there and at the median
/// in percent.
fn judge(times: Times) -> Result<[f64; 4], Failure> {
    let [snapshot, serializable] = times.map(|times| sorted(times.iter().map(|ns| *ns as f64)));
    if snapshot.len().min(serializable.len()) < 20 {
        return Err("too few batches: more seconds are needed".into());
    }
    let cost = |share: usize| {
        let at = |all: &[f64]| all[all.len() * share / 100];
        (at(&serializable) / at(&snapshot) - 1.0) * 100.0
    };
    let (fast, slow) = (
        snapshot[snapshot.len() / 10],
        serializable[serializable.len() / 10],
    );
    Ok([slow, fast, cost(10), cost(50)])
}

impl Ground {
    fn make(args: &LevelsArgs, dir: &std::path::Path) -> Result<Ground, Failure> {
        let db = Database::builder()
            .durability(Durability::Buffered)
            .memory_bytes(args.cache_mib << 20)
            .open(dir.join("terrane"))?;
        let table = db.table(ROWS)?;
        eprintln!("loading {} rows", args.rows);
        for first in (0..args.rows).step_by(LOAD as usize) {
            db.write(|tx| {
                (first..args.rows.min(first + LOAD)).try_for_each(|number| {
                    let key = scatter(number);
                    table.put(tx, key, &value(key, 0).to_vec())
                })
            })?;
        }
        db.checkpoint()?;
        Ok(Ground {
            db,
            table,
            rows: args.rows,
            zipf: Zipf::new(args.rows),
        })
    }

    /// Two threads at this workload for so long.
    fn measure(&self, work: Work, batch: u64, time: Duration) -> Result<Times, Failure> {
        let (turn, stop, failed) = (
            AtomicUsize::new(0),
            AtomicBool::new(false),
            AtomicU64::new(0),
        );
        let one = |thread: u64| -> Result<Times, Failure> {
            let (mut random, mut times) = (Random::new(thread), Times::default());
            while !stop.load(Ordering::Relaxed) {
                let now = turn.load(Ordering::Relaxed);
                let begin = Instant::now();
                for _ in 0..batch {
                    self.operation(work, LEVELS[now % 2], &mut random)?;
                }
                let ns = begin.elapsed().as_nanos() as u64 / batch;
                // A batch belongs to one level.
                if turn.load(Ordering::Relaxed) == now {
                    times[now % 2].push(ns);
                }
            }
            Ok(times)
        };
        let both = thread::scope(|scope| {
            let threads = [1, 2].map(|number| {
                let (one, failed) = (&one, &failed);
                scope.spawn(move || {
                    let done = one(number);
                    failed.fetch_add(u64::from(done.is_err()), Ordering::Relaxed);
                    done
                })
            });
            let begin = Instant::now();
            while begin.elapsed() < time && failed.load(Ordering::Relaxed) == 0 {
                thread::sleep(TURN);
                turn.fetch_add(1, Ordering::Relaxed);
            }
            stop.store(true, Ordering::Relaxed);
            threads.map(|thread| thread.join())
        });
        let mut all = Times::default();
        for times in both {
            let times = times.map_err(|_| "a thread panicked")??;
            for (all, times) in all.iter_mut().zip(times) {
                all.extend(times);
            }
        }
        Ok(all)
    }

    fn operation(&self, work: Work, level: Isolation, random: &mut Random) -> Result<(), Failure> {
        let writer = self.db.writer().isolation(level);
        let table = &self.table;
        if let Work::Scan = work {
            // Random keys are spread evenly: the lower half has enough rows above it.
            let (from, generation) = (random.next() >> 1, random.next());
            writer.run(|tx| -> Result<(), Failure> {
                let (mut first, mut seen) = (None, 0);
                for row in table.range(tx, from..).refs().take(SCAN) {
                    let (key, row) = row?;
                    first.get_or_insert(key);
                    seen += usize::from(belongs(key, row.bytes()));
                }
                let first = first.filter(|_| seen == SCAN).ok_or("a scan is wrong")?;
                Ok(table.put(tx, first, &value(first, generation).to_vec())?)
            })?;
            return Ok(());
        }
        let key = scatter(self.zipf.draw(random));
        if random.unit() < 0.5 {
            let row = table.get_ref(&self.db.snapshot(), key)?;
            let right = row.is_some_and(|row| belongs(key, row.bytes()));
            return right
                .then_some(())
                .ok_or("a row is missing or wrong".into());
        }
        let fresh = value(key, random.next()).to_vec();
        writer.run(|tx| -> Result<(), Failure> {
            if let Work::YcsbF = work {
                table.get_ref(tx, key)?.ok_or("a row is missing")?;
            }
            Ok(table.put(tx, key, &fresh)?)
        })?;
        Ok(())
    }

    /// Every row is there and as it was written.
    fn check(&self) -> Result<(), Failure> {
        let mut seen = 0;
        for row in self.table.iter(&self.db.snapshot()).refs() {
            let (key, row) = row?;
            seen += u64::from(intact(key, row.bytes()));
        }
        if seen == self.rows {
            return Ok(());
        }
        Err(format!("{seen} of {} rows are intact", self.rows).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_is_that_of_the_same_percentile() {
        let slow: Vec<u64> = (0..100).map(|n| 110 + 11 * n).collect();
        let fast: Vec<u64> = (0..100).map(|n| 100 + 10 * n).collect();
        let [at_slow, at_fast, fast_cost, middle_cost] = judge([fast, slow]).unwrap();
        assert_eq!((at_slow, at_fast), (220.0, 200.0));
        assert!((fast_cost - 10.0).abs() < 1e-9 && (middle_cost - 10.0).abs() < 1e-9);
        assert!(judge(Times::default()).is_err());
    }
}
