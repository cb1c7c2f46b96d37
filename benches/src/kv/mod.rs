//! The key-value suite: every engine, every workload, the device probed in between.
//!
//! Each run is a process of its own, so that its resident memory is the engine's and nothing of one
//! engine works on while the next is measured; before it starts, what others left to be written is
//! written. A workload goes round all engines before the next begins, and each round starts with
//! another engine, so that a slow hour and a warm device hit all alike. An engine's rows are loaded
//! once per repeat and used by the workloads that do not change its keys.

pub(crate) mod crash;
pub(crate) mod engine;
#[cfg(feature = "compare")]
mod fjall;
#[cfg(feature = "compare")]
mod lmdb;
pub(crate) mod race;
#[cfg(feature = "compare")]
mod redb;
#[cfg(feature = "compare-cpp")]
mod rocksdb;
#[cfg(feature = "compare")]
mod sqlite;
mod suite;
mod terrane;
mod workload;

use std::fs;
use std::path::Path;

use crate::device::Device;
use crate::report::Run;
use crate::{Failure, KvArgs, OnceArgs};
use engine::{ENGINES, Kind};
use workload::{Measured, WORKLOADS, Workload};

/// Runs what the arguments ask for and prints one JSON object a line.
pub(crate) fn run(args: &KvArgs) -> Result<(), Failure> {
    if args.list {
        println!("engines: {}", names(ENGINES.iter().map(|e| e.name)));
        println!("workloads: {}", names(WORKLOADS.iter().map(|w| w.name)));
        return Ok(());
    }
    let engines = chosen(&args.engines, ENGINES, |e| e.name, "engine")?;
    let workloads = chosen(&args.workloads, WORKLOADS, |w| w.name, "workload")?;
    suite::Suite::new(args)?.run(&engines, &workloads)
}

fn names<'a>(all: impl Iterator<Item = &'a str>) -> String {
    all.collect::<Vec<_>>().join(", ")
}

/// The engine of that name.
pub(crate) fn named(name: &str) -> Result<Kind, Failure> {
    Ok(chosen(&[name.to_string()], ENGINES, |e| e.name, "engine")?[0])
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

/// True if a workload is run on an engine: a variant runs only what its level of isolation changes.
fn suits(workload: &Workload, engine: Kind) -> bool {
    workload.isolation || engine.variant_of.is_none()
}

/// One workload on one engine, in this process; prints its figures.
pub(crate) fn once(args: &OnceArgs) -> Result<(), Failure> {
    let engine = named(&args.engine)?;
    let workload = chosen(
        std::slice::from_ref(&args.workload),
        WORKLOADS,
        |w| w.name,
        "workload",
    )?[0];
    let device = Device::below(&args.dir)?;
    for measured in (workload.run)(engine, &args.dir, args, &device)? {
        let Measured {
            threads,
            durability,
            options,
            unit,
            latency_of,
            outcome,
            check,
        } = measured;
        Run {
            engine: engine.name,
            version: engine.version(),
            options,
            workload: workload.name,
            threads,
            durability: durability.name(),
            unit,
            latency_of,
            outcome,
            rows: args.rows,
            cache_mib: args.cache_mib,
            disk_bytes: bytes_below(&args.dir)?,
            check,
            more: serde_json::Map::new(),
        }
        .print(&args.run, args.repeat, args.json);
    }
    Ok(())
}

/// Bytes that the files below a folder take on disk.
pub(crate) fn bytes_below(dir: &Path) -> Result<u64, Failure> {
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
