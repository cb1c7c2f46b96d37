//! Durable commits of one row on a lone database and on three replicas, by turns in fresh folders.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use terrane::{Database, Durability, TableDef};

use super::fleet::{Fleet, layout};
use super::{Ground, median, value};
use crate::Failure;
use crate::device::Device;
use crate::kv::race::lap;
use crate::report::{cpu_secs, percentile_us};

const ROWS: TableDef<u64, Vec<u8>> = TableDef::new("rows");
const THREADS: [usize; 2] = [1, 64];
/// A thread's number stands above this bit of its keys.
const THREAD_SHIFT: u32 = 32;
/// Memory of a database, and of each member.
const MEMORY_BYTES: usize = 64 << 20;
/// What is measured of each run, in this order.
const FIGURES: [&str; 6] = [
    "commits_per_s",
    "p50_us",
    "p99_us",
    "cpu_s_per_1000",
    "flushes_per_commit",
    "written_bytes_per_commit",
];
const SIDES: [&str; 2] = ["lone", "replicas"];

type Figures = [f64; FIGURES.len()];

/// Both sides by turns, and then the medians and their ratios.
pub(super) fn run(ground: &Ground, repeat: usize) -> Result<(), Failure> {
    for threads in THREADS {
        let mut found: [Vec<Figures>; 2] = Default::default();
        for round in 0..repeat {
            for turn in 0..SIDES.len() {
                // Each round begins with the other side.
                let side = (round + turn) % SIDES.len();
                eprintln!(
                    "[commits, {threads} threads, round {}] {}",
                    round + 1,
                    SIDES[side]
                );
                let figures = match side {
                    0 => lone(ground, threads)?,
                    _ => replicas(ground, threads)?,
                };
                let mut line = named(&figures);
                line["part"] = json!("commits");
                line["side"] = json!(SIDES[side]);
                line["threads"] = json!(threads);
                line["round"] = json!(round + 1);
                ground.say(&line);
                found[side].push(figures);
            }
        }
        let medians = found.map(|runs| {
            std::array::from_fn::<f64, { FIGURES.len() }, _>(|at| {
                median(runs.iter().map(|run| run[at]))
            })
        });
        let ratios: Figures = std::array::from_fn(|at| medians[1][at] / medians[0][at]);
        ground.say(&json!({
            "part": "commits_median", "threads": threads, "rounds": repeat,
            "lone": named(&medians[0]), "replicas": named(&medians[1]),
            "replicas_to_lone": named(&ratios),
        }));
    }
    Ok(())
}

fn named(figures: &Figures) -> Value {
    let pairs = FIGURES.iter().zip(figures);
    let pairs = pairs.map(|(name, figure)| (name.to_string(), json!(figure)));
    Value::Object(pairs.collect())
}

fn lone(ground: &Ground, threads: usize) -> Result<Figures, Failure> {
    let dir = ground.dir.join("lone");
    let db = Database::builder()
        .durability(Durability::Local)
        .memory_bytes(MEMORY_BYTES)
        .open(&dir)?;
    let figures = measure(ground, &db, threads)?;
    db.close()?;
    fs::remove_dir_all(&dir)?;
    Ok(figures)
}

fn replicas(ground: &Ground, threads: usize) -> Result<Figures, Failure> {
    let dir = ground.dir.join("replicas");
    let fleet = Fleet::make(&dir, layout().memory_bytes(MEMORY_BYTES))?;
    let figures = measure(ground, &fleet.cluster.database(), threads)?;
    fleet.level()?;
    fleet.end()?;
    Ok(figures)
}

/// Commits until the time is over, after a tenth of it that does not count.
fn measure(ground: &Ground, db: &Database, threads: usize) -> Result<Figures, Failure> {
    let rows = db.table(ROWS)?;
    let device = Device::below(&ground.dir)?;
    let done: Vec<AtomicU64> = (0..threads).map(|_| AtomicU64::new(0)).collect();
    let body = |thread: usize, go: &dyn Fn() -> bool, tally: &mut crate::kv::race::Tally| {
        while go() {
            let key = (thread as u64) << THREAD_SHIFT | done[thread].load(Ordering::Relaxed);
            let row = value(key);
            tally.time(|| {
                db.write(|tx| rows.put(tx, key, &row))?;
                Ok(1)
            })?;
            done[thread].fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    lap(threads, ground.secs / 10, 1, &body)?;
    let (before, cpu) = (device.read(), cpu_secs()?);
    let (tallies, secs) = lap(threads, ground.secs, 1, &body)?;
    let (cpu, device) = (cpu_secs()? - cpu, device.since(before));
    check(db, &done)?;
    let mut sorted: Vec<u32> = tallies
        .into_iter()
        .flat_map(|tally| tally.latencies_ns)
        .collect();
    sorted.sort_unstable();
    let commits = sorted.len() as f64;
    let at = |fraction| percentile_us(&sorted, fraction).ok_or("no commit in the time");
    Ok([
        commits / secs,
        at(0.5)?,
        at(0.99)?,
        cpu * 1000.0 / commits,
        device.flushes as f64 / commits,
        device.bytes_written as f64 / commits,
    ])
}

/// Every row that was acknowledged is there, with its bytes, and no other.
fn check(db: &Database, done: &[AtomicU64]) -> Result<(), Failure> {
    let rows = db.table(ROWS)?;
    let expected: u64 = done.iter().map(|count| count.load(Ordering::Relaxed)).sum();
    let mut found = 0;
    for row in rows.iter(&db.snapshot()) {
        let (key, bytes) = row?;
        let count = done.get((key >> THREAD_SHIFT) as usize);
        let number = key & ((1 << THREAD_SHIFT) - 1);
        let acknowledged = count.is_some_and(|count| number < count.load(Ordering::Relaxed));
        if !acknowledged || bytes != value(key) {
            return Err(format!("row {key}: expected what was put, found another").into());
        }
        found += 1;
    }
    if found == expected {
        return Ok(());
    }
    Err(format!("expected {expected} rows, found {found}").into())
}
