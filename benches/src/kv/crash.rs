//! Reopening after a kill: a child writes durable rows until its tail is long enough, is killed
//! with SIGKILL, and the parent times the open until the first row is read.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::engine::{Durability, ENGINES, Kind};
use super::workload::Measured;
use crate::device::Device;
use crate::rows::{VALUE_LEN, belongs, scatter, value};
use crate::{Failure, KvArgs};

/// Rows in one of the child's transactions.
const BATCH: u64 = 100;

/// Log that the child leaves behind, in MiB of keys and values.
const TAIL_MIB: u64 = 64;

/// The child: writes, says how many rows are acknowledged, and waits to be killed.
pub(crate) fn child(engine: &str, dir: &Path, tail_mib: u64) -> Result<(), Failure> {
    let kind = ENGINES
        .iter()
        .find(|k| k.name == engine)
        .ok_or("unknown engine")?;
    let engine = (kind.open)(dir, Durability::Synced, 512)?;
    let rows = (tail_mib << 20) / (VALUE_LEN as u64 + 8);
    let mut out = std::io::stdout();
    for first in (0..rows).step_by(BATCH as usize) {
        let batch: Vec<_> = (first..first + BATCH)
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
    args: &KvArgs,
    device: &Device,
) -> Result<Vec<Measured>, Failure> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["crash-child", kind.name])
        .arg(dir)
        .arg(TAIL_MIB.to_string())
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
    let engine = (kind.open)(dir, Durability::Synced, args.cache_mib)?;
    let mut first = Vec::new();
    engine.read(&mut |reader| reader.get(scatter(0), &mut first).map(|_| ()))?;
    let secs = begin.elapsed().as_secs_f64();
    let mut missing = 0;
    engine.read(&mut |reader| {
        let mut out = Vec::new();
        for key in (0..rows).map(scatter) {
            let right = reader.get(key, &mut out)? && belongs(key, &out);
            missing += u64::from(!right);
        }
        Ok(())
    })?;
    if missing > 0 {
        return Err(format!("{missing} of {rows} acknowledged rows are missing").into());
    }
    Ok(vec![Measured {
        threads: 1,
        durability: Durability::Synced,
        options: format!("{}; tail of {TAIL_MIB} MiB", engine.options()),
        ops: 1,
        secs,
        latencies_ns: Vec::new(),
        device: device.since(before),
        check: format!("{rows} acknowledged rows"),
    }])
}
