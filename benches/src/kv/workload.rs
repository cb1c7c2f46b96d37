//! The workloads. Each opens the engine, does its work, checks answers and hands back figures.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::engine::{Durability, Engine, Kind, Reader};
use crate::device::{Counters, Device};
use crate::rows::{Random, Zipf, belongs, scatter, value};
use crate::{Failure, KvArgs};

/// What a run of a workload gave.
pub(crate) struct Measured {
    pub(crate) threads: usize,
    pub(crate) durability: Durability,
    pub(crate) options: String,
    pub(crate) ops: u64,
    pub(crate) secs: f64,
    pub(crate) latencies_ns: Vec<u32>,
    pub(crate) device: Counters,
    pub(crate) check: String,
}

/// What one thread of a race does: its number, and whether there is time left.
type Runner<'a> = &'a (dyn Fn(usize, &dyn Fn() -> bool) -> Result<Vec<u32>, Failure> + Sync);

type Body = fn(Kind, &Path, &KvArgs, &Device) -> Result<Vec<Measured>, Failure>;

/// A named workload.
#[derive(Clone, Copy)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) run: Body,
}

/// All workloads, in the order of the table.
pub(crate) const WORKLOADS: &[Workload] = &[
    Workload {
        name: "load_seq",
        run: |k, d, a, v| load(k, d, a, v, |n| n),
    },
    Workload {
        name: "load_random",
        run: |k, d, a, v| load(k, d, a, v, scatter),
    },
    Workload {
        name: "commit",
        run: commits,
    },
    Workload {
        name: "get_uniform",
        run: |k, d, a, v| gets(k, d, a, v, false),
    },
    Workload {
        name: "get_zipf",
        run: |k, d, a, v| gets(k, d, a, v, true),
    },
    Workload {
        name: "scan_100",
        run: |k, d, a, v| scans(k, d, a, v, 100),
    },
    Workload {
        name: "scan_full",
        run: |k, d, a, v| scans(k, d, a, v, u64::MAX),
    },
    Workload {
        name: "ycsb_a",
        run: |k, d, a, v| ycsb(k, d, a, v, 0.5, false),
    },
    Workload {
        name: "ycsb_b",
        run: |k, d, a, v| ycsb(k, d, a, v, 0.05, false),
    },
    Workload {
        name: "ycsb_f",
        run: |k, d, a, v| ycsb(k, d, a, v, 0.5, true),
    },
    Workload {
        name: "reopen",
        run: super::crash::reopen,
    },
];

/// Rows in one transaction of a load.
const LOAD_BATCH: u64 = 1000;

/// Loads `rows` rows whose n-th has the key `key(n)`.
fn fill(engine: &dyn Engine, rows: u64, key: fn(u64) -> u64) -> Result<(), Failure> {
    let mut batch = Vec::new();
    for number in 0..rows {
        let key = key(number);
        batch.push((key, value(key, 0)));
        if batch.len() as u64 == LOAD_BATCH || number + 1 == rows {
            engine.load(&batch)?;
            batch.clear();
        }
    }
    Ok(())
}

/// Reads `count` rows spread over the load and fails if one is missing or wrong.
fn spot_check(
    engine: &dyn Engine,
    rows: u64,
    count: u64,
    key: fn(u64) -> u64,
) -> Result<String, Failure> {
    let mut random = Random::new(rows);
    engine.read(&mut |reader| {
        let mut out = Vec::new();
        for _ in 0..count {
            let key = key(random.below(rows));
            if !reader.get(key, &mut out)? || !belongs(key, &out) {
                return Err(format!("row {key} is missing or wrong").into());
            }
        }
        Ok(())
    })?;
    Ok(format!("{count} rows read back"))
}

fn load(
    kind: Kind,
    dir: &Path,
    args: &KvArgs,
    device: &Device,
    key: fn(u64) -> u64,
) -> Result<Vec<Measured>, Failure> {
    let durability = Durability::Synced;
    let engine = (kind.open)(dir, durability, args.cache_mib)?;
    let (before, begin) = (device.read(), Instant::now());
    fill(&*engine, args.rows, key)?;
    let secs = begin.elapsed().as_secs_f64();
    Ok(vec![Measured {
        threads: 1,
        durability,
        options: format!("{}; {LOAD_BATCH} rows a transaction", engine.options()),
        ops: args.rows,
        secs,
        latencies_ns: Vec::new(),
        device: device.since(before),
        check: spot_check(&*engine, args.rows, 10_000, key)?,
    }])
}

/// Runs `body` on `threads` threads until the time is over; `body` gets the thread's number and a
/// function that is true while there is time, and returns its latencies.
fn race(threads: usize, time: Duration, body: Runner<'_>) -> Result<(Vec<u32>, f64), Failure> {
    let stop = AtomicBool::new(false);
    let go = || !stop.load(Ordering::Relaxed);
    let begin = Instant::now();
    let latencies = std::thread::scope(|scope| {
        let runners: Vec<_> = (0..threads)
            .map(|n| scope.spawn(move || body(n, &go)))
            .collect();
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for runner in runners {
            all.extend(runner.join().map_err(|_| "a bench thread panicked")??);
        }
        Ok::<_, Failure>(all)
    })?;
    Ok((latencies, begin.elapsed().as_secs_f64()))
}

fn nanos(since: Instant) -> u32 {
    u32::try_from(since.elapsed().as_nanos()).unwrap_or(u32::MAX)
}

/// Durable one-row commits on 1, 4, 16 and 64 threads.
fn commits(
    kind: Kind,
    dir: &Path,
    args: &KvArgs,
    device: &Device,
) -> Result<Vec<Measured>, Failure> {
    let durability = Durability::Synced;
    let engine = (kind.open)(dir, durability, args.cache_mib)?;
    let next = AtomicU64::new(0);
    let mut out = Vec::new();
    for threads in [1, 4, 16, 64] {
        let before = device.read();
        let (latencies_ns, secs) = race(threads, Duration::from_secs(args.secs), &|_, go| {
            let mut latencies = Vec::new();
            while go() {
                let key = scatter(next.fetch_add(1, Ordering::Relaxed));
                let begin = Instant::now();
                engine.put(key, &value(key, 0))?;
                latencies.push(nanos(begin));
            }
            Ok(latencies)
        })?;
        let written = next.load(Ordering::Relaxed);
        out.push(Measured {
            threads,
            durability,
            options: engine.options(),
            ops: latencies_ns.len() as u64,
            secs,
            latencies_ns,
            device: device.since(before),
            check: spot_check(&*engine, written, 1000, scatter)?,
        });
    }
    Ok(out)
}

/// Opens an engine without synced commits and loads it.
fn loaded(kind: Kind, dir: &Path, args: &KvArgs) -> Result<Box<dyn Engine>, Failure> {
    let engine = (kind.open)(dir, Durability::Buffered, args.cache_mib)?;
    fill(&*engine, args.rows, scatter)?;
    Ok(engine)
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

fn get_checked(reader: &mut dyn Reader, key: u64, out: &mut Vec<u8>) -> Result<(), Failure> {
    if reader.get(key, out)? && belongs(key, out) {
        return Ok(());
    }
    Err(format!("row {key} is missing or wrong").into())
}

/// Point gets of rows that are there, on 1 and 2 threads.
fn gets(
    kind: Kind,
    dir: &Path,
    args: &KvArgs,
    device: &Device,
    zipf: bool,
) -> Result<Vec<Measured>, Failure> {
    let engine = loaded(kind, dir, args)?;
    let choice = if zipf {
        Choice::Zipf(Zipf::new(args.rows))
    } else {
        Choice::Uniform(args.rows)
    };
    let mut out = Vec::new();
    for threads in [1, 2] {
        let before = device.read();
        let (latencies_ns, secs) = race(threads, Duration::from_secs(args.secs), &|n, go| {
            let (mut random, mut value) = (Random::new(n as u64), Vec::new());
            let mut latencies = Vec::new();
            while go() {
                // A reader lives for a thousand gets: long enough not to measure its making.
                engine.read(&mut |reader| {
                    for _ in 0..1000 {
                        let begin = Instant::now();
                        get_checked(reader, choice.key(&mut random), &mut value)?;
                        latencies.push(nanos(begin));
                    }
                    Ok(())
                })?;
            }
            Ok(latencies)
        })?;
        out.push(Measured {
            threads,
            durability: Durability::Buffered,
            options: engine.options(),
            ops: latencies_ns.len() as u64,
            secs,
            latencies_ns,
            device: device.since(before),
            check: "every value".into(),
        });
    }
    Ok(out)
}

/// Scans of up to `limit` rows from a random key; `ops` counts rows.
fn scans(
    kind: Kind,
    dir: &Path,
    args: &KvArgs,
    device: &Device,
    limit: u64,
) -> Result<Vec<Measured>, Failure> {
    let engine = loaded(kind, dir, args)?;
    let (before, rows) = (device.read(), AtomicU64::new(0));
    let (latencies_ns, secs) = race(1, Duration::from_secs(args.secs), &|n, go| {
        let (mut random, mut latencies) = (Random::new(n as u64), Vec::new());
        while go() {
            let from = if limit == u64::MAX {
                0
            } else {
                random.next() >> 1
            };
            let begin = Instant::now();
            engine.read(&mut |reader| {
                let (mut last, mut wrong) = (None, 0u64);
                let seen = reader.scan(from, limit, &mut |key, value| {
                    let ordered = last.is_none_or(|last| last < key);
                    wrong += u64::from(!ordered || !belongs(key, value));
                    last = Some(key);
                })?;
                rows.fetch_add(seen, Ordering::Relaxed);
                let complete = seen == limit.min(args.rows);
                let fault = format!("scan from {from}: {seen} rows, {wrong} wrong");
                if complete && wrong == 0 {
                    Ok(())
                } else {
                    Err(fault.into())
                }
            })?;
            latencies.push(nanos(begin));
        }
        Ok(latencies)
    })?;
    Ok(vec![Measured {
        threads: 1,
        durability: Durability::Buffered,
        options: engine.options(),
        ops: rows.load(Ordering::Relaxed),
        secs,
        latencies_ns,
        device: device.since(before),
        check: "order, count, every value".into(),
    }])
}

/// YCSB A, B and F: zipfian keys, a share of writes, blind or read-modify-write; 2 threads.
fn ycsb(
    kind: Kind,
    dir: &Path,
    args: &KvArgs,
    device: &Device,
    writes: f64,
    modify: bool,
) -> Result<Vec<Measured>, Failure> {
    let engine = loaded(kind, dir, args)?;
    let zipf = Zipf::new(args.rows);
    let before = device.read();
    let (latencies_ns, secs) = race(2, Duration::from_secs(args.secs), &|n, go| {
        let (mut random, mut out) = (Random::new(n as u64 + 7), Vec::new());
        let mut latencies = Vec::new();
        while go() {
            let key = scatter(zipf.draw(&mut random));
            let write = random.unit() < writes;
            let fresh = value(key, random.next());
            let begin = Instant::now();
            match (write, modify) {
                (false, _) => engine.read(&mut |reader| get_checked(reader, key, &mut out))?,
                (true, false) => engine.put(key, &fresh)?,
                (true, true) => {
                    if !engine.modify(key, &fresh)? {
                        return Err(format!("row {key} is missing").into());
                    }
                }
            }
            latencies.push(nanos(begin));
        }
        Ok(latencies)
    })?;
    Ok(vec![Measured {
        threads: 2,
        durability: Durability::Buffered,
        options: engine.options(),
        ops: latencies_ns.len() as u64,
        secs,
        latencies_ns,
        device: device.since(before),
        check: spot_check(&*engine, args.rows, 10_000, scatter)?,
    }])
}
