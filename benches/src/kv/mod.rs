//! The key-value suite: every engine, every workload, the device probed in between.
//!
//! Each workload runs in a fresh folder with the same rows and the same durability for all engines,
//! `--repeat` times round robin over the engines, so that a slow hour hits all of them.

pub(crate) mod crash;
pub(crate) mod engine;
#[cfg(feature = "compare")]
mod fjall;
#[cfg(feature = "compare")]
mod lmdb;
#[cfg(feature = "compare")]
mod redb;
#[cfg(feature = "compare-cpp")]
mod rocksdb;
#[cfg(feature = "compare")]
mod sqlite;

mod terrane;
mod workload;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use terrane_wal::env::{SystemPark, SystemSpawn};

use crate::device::{self, Device};
use crate::report::{Run, reset_peak};
use crate::{Failure, KvArgs};
use engine::{ENGINES, Kind};
use workload::{Measured, WORKLOADS, Workload};

/// Bytes of the file that the device probes read and write.
const PROBE_BYTES: u64 = 1 << 30;

/// Runs what the arguments ask for and prints one JSON object a line.
pub(crate) fn run(args: &KvArgs) -> Result<(), Failure> {
    if args.list {
        println!("engines: {}", names(ENGINES.iter().map(|e| e.name)));
        println!("workloads: {}", names(WORKLOADS.iter().map(|w| w.name)));
        return Ok(());
    }
    let engines = chosen(&args.engines, ENGINES, |e| e.name, "engine")?;
    let workloads = chosen(&args.workloads, WORKLOADS, |w| w.name, "workload")?;
    let suite = Suite::new(args)?;
    for repeat in 0..args.repeat {
        suite.probe(repeat)?;
        for workload in &workloads {
            for engine in &engines {
                suite.one(*engine, workload, repeat)?;
            }
        }
    }
    Ok(())
}

fn names<'a>(all: impl Iterator<Item = &'a str>) -> String {
    all.collect::<Vec<_>>().join(", ")
}

/// The entries that were asked for, in that order; all of them if none was.
fn chosen<T: Copy>(
    asked: &[String],
    all: &[T],
    name: fn(&T) -> &'static str,
    what: &str,
) -> Result<Vec<T>, Failure> {
    if asked.is_empty() {
        return Ok(all.to_vec());
    }
    let find = |asked: &String| {
        all.iter()
            .find(|one| name(one) == asked)
            .copied()
            .ok_or_else(|| {
                let known = names(all.iter().map(name));
                format!("unknown {what} {asked}; this build knows: {known}").into()
            })
    };
    asked.iter().map(find).collect()
}

/// One invocation: where it works, and under which id it reports.
struct Suite<'a> {
    args: &'a KvArgs,
    base: PathBuf,
    run_id: String,
    device: Device,
}

impl Suite<'_> {
    fn new(args: &KvArgs) -> Result<Suite<'_>, Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let base = args
            .data
            .join(format!("terrane-bench-{}", std::process::id()));
        fs::create_dir_all(&base)?;
        let device = Device::below(&base)?;
        Ok(Suite {
            args,
            base,
            run_id: format!("{now:x}"),
            device,
        })
    }

    /// The bare device.
    fn probe(&self, repeat: u32) -> Result<(), Failure> {
        let folder = self.base.join("device");
        fs::create_dir_all(&folder)?;
        let time = Duration::from_secs(self.args.secs.min(3));
        let (spawn, park) = (Arc::new(SystemSpawn), Arc::new(SystemPark));
        for probe in device::probe(&folder, spawn, park, PROBE_BYTES, time)? {
            let run = Run {
                engine: "device",
                version: "",
                options: format!("{} MiB file, O_DIRECT", PROBE_BYTES >> 20),
                workload: probe.name,
                threads: probe.depth,
                durability: "synced",
                ops: probe.ops,
                secs: probe.secs,
                latencies_ns: probe.latencies_ns,
                disk_bytes: PROBE_BYTES,
                device: device::Counters::default(),
                check: "lengths".into(),
            };
            self.print(run, repeat);
        }
        fs::remove_dir_all(&folder)?;
        Ok(())
    }

    /// One workload on one engine, in a fresh folder.
    fn one(&self, engine: Kind, workload: &Workload, repeat: u32) -> Result<(), Failure> {
        let dir = self.base.join(format!("{}-{}", engine.name, workload.name));
        fs::create_dir_all(&dir)?;
        let place = |e: Failure| format!("{} on {}: {e}", workload.name, engine.name);
        reset_peak();
        for measured in (workload.run)(engine, &dir, self.args, &self.device).map_err(place)? {
            let Measured {
                threads,
                durability,
                options,
                ops,
                secs,
                latencies_ns,
                device,
                check,
            } = measured;
            let run = Run {
                engine: engine.name,
                version: engine.version,
                options,
                workload: workload.name,
                threads,
                durability: durability.name(),
                ops,
                secs,
                latencies_ns,
                disk_bytes: bytes_below(&dir)?,
                device,
                check,
            };
            self.print(run, repeat);
        }
        fs::remove_dir_all(&dir)?;
        Ok(())
    }

    fn print(&self, run: Run<'_>, repeat: u32) {
        let (name, workload, threads) = (
            run.engine.to_string(),
            run.workload.to_string(),
            run.threads,
        );
        let rate = run.ops as f64 / run.secs;
        println!("{}", run.json(&self.run_id, repeat));
        if !self.args.json {
            eprintln!("{name:>8} {workload:<16} x{threads:<3} {rate:>14.0}/s");
        }
    }
}

impl Drop for Suite<'_> {
    fn drop(&mut self) {
        // Best effort: a failed run leaves its folder for a look.
        let _ = fs::remove_dir(&self.base);
    }
}

/// Bytes that the files below a folder take on disk.
fn bytes_below(dir: &Path) -> Result<u64, Failure> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let facts = entry.metadata()?;
        bytes += if facts.is_dir() {
            bytes_below(&entry.path())?
        } else {
            facts.blocks() * 512
        };
    }
    Ok(bytes)
}
