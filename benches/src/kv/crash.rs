//! Reopening after a kill: a child writes 64 MiB of durable rows into a new database and is killed
//! with SIGKILL; the parent times the open until the first row is read.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::engine::{Durability, Kind, Setting};
use super::race::Outcome;
use super::workload::{Measured, audit};
use crate::device::Device;
use crate::report::peak_rss_mib;
use crate::rows::{VALUE_LEN, scatter, value};
use crate::{Failure, OnceArgs};

/// Rows in one of the child's transactions.
const BATCH: u64 = 100;

/// Log that the child leaves behind, in MiB of keys and values.
const TAIL_MIB: u64 = 64;

fn setting(cache_mib: u64) -> Setting {
    Setting {
        durability: Durability::Synced,
        cache_mib,
    }
}

/// The child: writes, says how many rows are acknowledged, and waits to be killed.
pub(crate) fn child(engine: &str, dir: &Path, cache_mib: u64) -> Result<(), Failure> {
    let engine = (super::named(engine)?.open)(dir, setting(cache_mib))?;
    let rows = (TAIL_MIB << 20) / (VALUE_LEN as u64 + 8);
    let mut out = std::io::stdout();
    for first in (0..rows).step_by(BATCH as usize) {
        let batch: Vec<_> = (first..rows.min(first + BATCH))
            .map(|n| (scatter(n), value(scatter(n), 0)))
            .collect();
        engine.load(&batch)?;
    }
    writeln!(out, "{rows}")?;
    out.flush()?;
    loop {
        std::thread::sleep(std::time::Duration::from_secs(60));
    }
}

/// Times the open after the kill; `ops` is 1 and `secs` the time until the first row was read.
pub(crate) fn reopen(
    kind: Kind,
    dir: &Path,
    args: &OnceArgs,
    device: &Device,
) -> Result<Vec<Measured>, Failure> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["crash-child", kind.name])
        .arg(dir)
        .arg(args.cache_mib.to_string())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let pipe = child.stdout.take().ok_or("the child has no pipe")?;
    BufReader::new(pipe).read_line(&mut line)?;
    child.kill()?;
    child.wait()?;
    let rows: u64 = line
        .trim()
        .parse()
        .map_err(|_| format!("the child said {line:?}"))?;
    let (before, begin) = (device.read(), Instant::now());
    let engine = (kind.open)(dir, setting(args.cache_mib))?;
    let mut first = Vec::new();
    let found = engine.get(scatter(0), &mut first)?;
    let outcome = Outcome {
        ops: 1,
        secs: begin.elapsed().as_secs_f64(),
        latencies_ns: Vec::new(),
        device: device.since(before),
        peak_rss_mib: peak_rss_mib(),
    };
    if !found {
        return Err("the first acknowledged row is missing".into());
    }
    audit(&*engine, rows)?;
    Ok(vec![Measured {
        threads: 1,
        durability: Durability::Synced,
        options: format!("{}; tail of {TAIL_MIB} MiB", engine.options()),
        unit: "opens",
        latency_of: "",
        outcome,
        check: format!("all {rows} acknowledged rows and no other"),
    }])
}
