//! The workloads. Each opens the engine, does its work, checks the answers and hands back figures.
//!
//! While the clock runs a value is checked for its length and its key; before and after a run every
//! row of the database is recomputed and compared whole.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::engine::{Audit, Durability, Engine, Kind, Reader, Setting};
use super::race::{Outcome, race};
use crate::device::Device;
use crate::report::peak_rss_mib;
use crate::rows::{Random, Zipf, belongs, intact, scatter, value};
use crate::{Failure, OnceArgs};

/// What a run of a workload gave.
pub(crate) struct Measured {
    pub(crate) threads: usize,
    pub(crate) durability: Durability,
    pub(crate) options: String,
    /// What `ops` counts.
    pub(crate) unit: &'static str,
    /// Which calls the latencies are of.
    pub(crate) latency_of: &'static str,
    pub(crate) outcome: Outcome,
    pub(crate) check: String,
}

type Body = fn(Kind, &Path, &OnceArgs, &Device) -> Result<Vec<Measured>, Failure>;

/// Which database a workload works on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    /// A new one, removed afterwards.
    Fresh,
    /// It makes the one that those after it use.
    Makes,
    /// The loaded one; the workload leaves its keys as they are.
    Uses,
}

/// A named workload.
#[derive(Clone, Copy)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) rows: Rows,
    /// It runs on variants too: its figures depend on the level of isolation.
    pub(crate) isolation: bool,
    pub(crate) run: Body,
}

const fn workload(name: &'static str, rows: Rows, run: Body) -> Workload {
    Workload {
        name,
        rows,
        isolation: false,
        run,
    }
}

/// A workload of transactions that read and write.
const fn isolated(name: &'static str, run: Body) -> Workload {
    Workload {
        name,
        rows: Rows::Uses,
        isolation: true,
        run,
    }
}

/// All workloads, in the order in which they run.
pub(crate) const WORKLOADS: &[Workload] = &[
    workload("load_seq", Rows::Fresh, |k, d, a, v| {
        load(k, d, a, v, |n| n)
    }),
    workload("load_random", Rows::Makes, |k, d, a, v| {
        load(k, d, a, v, scatter)
    }),
    workload("commit", Rows::Fresh, commits),
    workload("get_uniform", Rows::Uses, |k, d, a, v| {
        gets(k, d, a, v, false)
    }),
    workload("get_zipf", Rows::Uses, |k, d, a, v| gets(k, d, a, v, true)),
    workload("scan_100", Rows::Uses, |k, d, a, v| scans(k, d, a, v, 100)),
    workload("scan_full", Rows::Uses, |k, d, a, v| {
        scans(k, d, a, v, u64::MAX)
    }),
    isolated("ycsb_a", |k, d, a, v| ycsb(k, d, a, v, 0.5, false)),
    workload("ycsb_b", Rows::Uses, |k, d, a, v| {
        ycsb(k, d, a, v, 0.05, false)
    }),
    isolated("ycsb_f", |k, d, a, v| ycsb(k, d, a, v, 0.5, true)),
    isolated("scan_100_tx", scan_transactions),
    workload("reopen", Rows::Fresh, super::crash::reopen),
];

/// Rows in one transaction of a load.
const LOAD_BATCH: u64 = 1000;

/// Gets and operations of YCSB take less than a microsecond: one in so many is timed.
const SAMPLE: u64 = 16;
const SAMPLED: &str = "every 16th operation";

/// Opens an engine whose rows are already there.
fn opened(
    kind: Kind,
    dir: &Path,
    args: &OnceArgs,
    transactions: bool,
) -> Result<Box<dyn Engine>, Failure> {
    let setting = Setting {
        durability: Durability::Buffered,
        cache_mib: args.cache_mib,
    };
    let open = if transactions {
        kind.open_transactions
    } else {
        kind.open
    };
    let engine = open(dir, setting)?;
    // Warms the cache as well.
    audit(&*engine, args.rows)?;
    Ok(engine)
}

/// Reads the whole database and fails unless it holds `rows` rows in order, each intact.
pub(crate) fn audit(engine: &dyn Engine, rows: u64) -> Result<String, Failure> {
    let (mut audit, mut broken) = (Audit::default(), 0u64);
    engine.read(&mut |reader| {
        reader.scan(0, u64::MAX, &mut |key, value| {
            broken += u64::from(!intact(key, value));
            audit.row(key, value);
        })?;
        Ok(())
    })?;
    audit.passed(rows)?;
    if broken > 0 {
        return Err(format!("{broken} of {rows} values are not as written").into());
    }
    Ok(format!("all {rows} rows afterwards"))
}

fn load(
    kind: Kind,
    dir: &Path,
    args: &OnceArgs,
    device: &Device,
    key: fn(u64) -> u64,
) -> Result<Vec<Measured>, Failure> {
    let setting = Setting {
        durability: Durability::Synced,
        cache_mib: args.cache_mib,
    };
    let engine = (kind.open)(dir, setting)?;
    let (before, begin) = (device.read(), Instant::now());
    let (mut batch, mut latencies_ns) = (Vec::new(), Vec::new());
    for number in 0..args.rows {
        let key = key(number);
        batch.push((key, value(key, 0)));
        if batch.len() as u64 == LOAD_BATCH || number + 1 == args.rows {
            let start = Instant::now();
            engine.load(&batch)?;
            latencies_ns.push(u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX));
            batch.clear();
        }
    }
    let outcome = Outcome {
        ops: args.rows,
        secs: begin.elapsed().as_secs_f64(),
        latencies_ns,
        device: device.since(before),
        peak_rss_mib: peak_rss_mib(),
    };
    Ok(vec![Measured {
        threads: 1,
        durability: Durability::Synced,
        options: format!("{}; {LOAD_BATCH} rows a transaction", engine.options()),
        unit: "rows",
        latency_of: "every transaction",
        outcome,
        check: audit(&*engine, args.rows)?,
    }])
}

/// Durable one-row commits on 1, 4, 16 and 64 threads, into one database.
fn commits(
    kind: Kind,
    dir: &Path,
    args: &OnceArgs,
    device: &Device,
) -> Result<Vec<Measured>, Failure> {
    let setting = Setting {
        durability: Durability::Synced,
        cache_mib: args.cache_mib,
    };
    let engine = (kind.open)(dir, setting)?;
    let next = AtomicU64::new(0);
    let mut out = Vec::new();
    for threads in [1, 4, 16, 64] {
        let time = Duration::from_secs_f64(args.secs);
        let outcome = race(threads, time, 1, device, &|_, go, tally| {
            while go() {
                let key = scatter(next.fetch_add(1, Ordering::Relaxed));
                tally.time(|| engine.put(key, &value(key, 0)).map(|()| 1))?;
            }
            Ok(())
        })?;
        out.push(Measured {
            threads,
            durability: Durability::Synced,
            options: engine.options(),
            unit: "commits",
            latency_of: "every commit",
            outcome,
            check: audit(&*engine, next.load(Ordering::Relaxed))?,
        });
    }
    Ok(out)
}

/// Which row the next operation takes.
enum Choice {
    Uniform(u64),
    Zipf(Zipf),
}

impl Choice {
    fn key(&self, random: &mut Random) -> u64 {
        match self {
            Choice::Uniform(rows) => scatter(random.below(*rows)),
            Choice::Zipf(zipf) => scatter(zipf.draw(random)),
        }
    }
}

fn expect(found: bool, key: u64, value: &[u8]) -> Result<u64, Failure> {
    if found && belongs(key, value) {
        return Ok(1);
    }
    Err(format!("row {key} is missing or wrong").into())
}

fn get_checked(reader: &mut dyn Reader, key: u64, out: &mut Vec<u8>) -> Result<u64, Failure> {
    let found = reader.get(key, out)?;
    expect(found, key, out)
}

/// Point gets of rows that are there, on 1 and 2 threads.
fn gets(
    kind: Kind,
    dir: &Path,
    args: &OnceArgs,
    device: &Device,
    zipf: bool,
) -> Result<Vec<Measured>, Failure> {
    let engine = opened(kind, dir, args, false)?;
    let choice = if zipf {
        Choice::Zipf(Zipf::new(args.rows))
    } else {
        Choice::Uniform(args.rows)
    };
    let mut out = Vec::new();
    for threads in [1, 2] {
        let time = Duration::from_secs_f64(args.secs);
        let outcome = race(threads, time, SAMPLE, device, &|n, go, tally| {
            let (mut random, mut value) = (Random::new(n as u64), Vec::new());
            while go() {
                // A reader lives for a thousand gets: long enough not to measure its making.
                engine.read(&mut |reader| {
                    for _ in 0..1000 {
                        let key = choice.key(&mut random);
                        tally.time(|| get_checked(reader, key, &mut value))?;
                    }
                    Ok(())
                })?;
            }
            Ok(())
        })?;
        out.push(Measured {
            threads,
            durability: Durability::Buffered,
            options: engine.options(),
            unit: "gets",
            latency_of: SAMPLED,
            outcome,
            check: "key and length of every value; all rows before".into(),
        });
    }
    Ok(out)
}

/// Scans of up to `limit` rows from a random key; `ops` counts rows.
fn scans(
    kind: Kind,
    dir: &Path,
    args: &OnceArgs,
    device: &Device,
    limit: u64,
) -> Result<Vec<Measured>, Failure> {
    let engine = opened(kind, dir, args, false)?;
    let time = Duration::from_secs_f64(args.secs);
    let outcome = race(1, time, 1, device, &|n, go, tally| {
        let mut random = Random::new(n as u64);
        while go() {
            // Random keys are spread evenly: the lower half has enough rows above it.
            let full = limit == u64::MAX;
            let from = if full { 0 } else { random.next() >> 1 };
            tally.time(|| {
                let mut audit = Audit::default();
                engine.read(&mut |reader| {
                    let visit = &mut |key, value: &[u8]| audit.row(key, value);
                    reader.scan(from, limit, visit).map(|_| ())
                })?;
                audit.passed(limit.min(args.rows)).map(|()| audit.seen)
            })?;
        }
        Ok(())
    })?;
    Ok(vec![Measured {
        threads: 1,
        durability: Durability::Buffered,
        options: engine.options(),
        unit: "rows",
        latency_of: "every scan",
        outcome,
        check: "order, count, key and length of every value; all rows before".into(),
    }])
}

/// YCSB A, B and F: zipfian keys, a share of writes, blind or read-modify-write; 2 threads.
fn ycsb(
    kind: Kind,
    dir: &Path,
    args: &OnceArgs,
    device: &Device,
    writes: f64,
    modify: bool,
) -> Result<Vec<Measured>, Failure> {
    let engine = opened(kind, dir, args, modify)?;
    let zipf = Zipf::new(args.rows);
    let time = Duration::from_secs_f64(args.secs);
    let outcome = race(2, time, SAMPLE, device, &|n, go, tally| {
        let (mut random, mut out) = (Random::new(n as u64 + 7), Vec::new());
        while go() {
            let key = scatter(zipf.draw(&mut random));
            let write = random.unit() < writes;
            let fresh = value(key, random.next());
            tally.time(|| match (write, modify) {
                (false, _) => {
                    let found = engine.get(key, &mut out)?;
                    expect(found, key, &out)
                }
                (true, false) => engine.put(key, &fresh).map(|()| 1),
                (true, true) if engine.modify(key, &fresh)? => Ok(1),
                (true, true) => Err(format!("row {key} is missing").into()),
            })?;
        }
        Ok(())
    })?;
    Ok(vec![Measured {
        threads: 2,
        durability: Durability::Buffered,
        options: engine.options(),
        unit: "operations",
        latency_of: SAMPLED,
        outcome,
        check: audit(&*engine, args.rows)?,
    }])
}

/// Transactions that scan 100 rows from a random key and write the first of them; 2 threads, `ops`
/// counts rows. The level of isolation decides what a scan leaves behind to be checked at commit.
fn scan_transactions(
    kind: Kind,
    dir: &Path,
    args: &OnceArgs,
    device: &Device,
) -> Result<Vec<Measured>, Failure> {
    let engine = opened(kind, dir, args, true)?;
    let (time, limit) = (Duration::from_secs_f64(args.secs), 100);
    let outcome = race(2, time, 1, device, &|n, go, tally| {
        let mut random = Random::new(n as u64 + 11);
        while go() {
            let (from, generation) = (random.next() >> 1, random.next());
            tally.time(|| {
                let mut audit = Audit::default();
                let fresh = |key| value(key, generation);
                engine.scan_and_put(from, limit, &mut audit, &fresh)?;
                audit.passed(limit as u64).map(|()| audit.seen)
            })?;
        }
        Ok(())
    })?;
    Ok(vec![Measured {
        threads: 2,
        durability: Durability::Buffered,
        options: engine.options(),
        unit: "rows",
        latency_of: "every transaction",
        outcome,
        check: audit(&*engine, args.rows)?,
    }])
}
