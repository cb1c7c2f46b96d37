//! The order of a whole invocation: which process runs what, when, in which folder.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use terrane_wal::env::{SystemPark, SystemSpawn};

use super::engine::Kind;
use super::race::Outcome;
use super::workload::{Rows, WORKLOADS, Workload};
use super::{named, suits};
use crate::device::Probes;
use crate::report::Run;
use crate::{Failure, KvArgs};

/// Bytes of the file that the device probes read and write.
const PROBE_BYTES: u64 = 1 << 30;

/// One invocation: where it works, and under which id it reports.
pub(crate) struct Suite<'a> {
    args: &'a KvArgs,
    base: PathBuf,
    run_id: String,
    begin: Instant,
    /// Runs done and to do.
    done: usize,
    total: usize,
    failed: Vec<String>,
}

impl Suite<'_> {
    pub(crate) fn new(args: &KvArgs) -> Result<Suite<'_>, Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let base = args
            .data
            .join(format!("terrane-bench-{}", std::process::id()));
        fs::create_dir_all(&base)?;
        Ok(Suite {
            args,
            base,
            run_id: format!("{now:x}"),
            begin: Instant::now(),
            done: 0,
            total: 0,
            failed: Vec::new(),
        })
    }

    /// Every repeat of every workload on every engine.
    pub(crate) fn run(mut self, engines: &[Kind], workloads: &[Workload]) -> Result<(), Failure> {
        let mut plan: Vec<(u32, Workload, Kind)> = Vec::new();
        for repeat in 0..self.args.repeat {
            for (round, workload) in workloads.iter().enumerate() {
                if repeat >= self.repeats_of(workload) {
                    continue;
                }
                // Each round begins with another engine.
                let mut order = engines.to_vec();
                order.retain(|engine| suits(workload, *engine));
                let turn = (repeat as usize + round) % order.len().max(1);
                order.rotate_left(turn);
                plan.extend(order.iter().map(|engine| (repeat, *workload, *engine)));
            }
        }
        self.total = plan.len();
        let probes = Probes::new(
            &self.base,
            Arc::new(SystemSpawn),
            Arc::new(SystemPark),
            PROBE_BYTES,
        )?;
        let mut probed = None;
        for (repeat, workload, engine) in plan {
            // The commits stand beside the device's own rate: it is probed right before them.
            let due = workload.name == "commit" || !workloads.iter().any(|w| w.name == "commit");
            if due && probed != Some(repeat) {
                self.probe(&probes, repeat)?;
                probed = Some(repeat);
            }
            let minutes = self.begin.elapsed().as_secs_f64() / 60.0;
            if self.args.minutes.is_some_and(|most| minutes >= most) {
                let left = self.total - self.done;
                eprintln!("terrane-bench: {minutes:.0} minutes are over, {left} runs left out");
                break;
            }
            self.one(engine, &workload, repeat)?;
        }
        drop(probes);
        if self.failed.is_empty() {
            fs::remove_dir_all(&self.base)?;
            return Ok(());
        }
        let list = self.failed.join("; ");
        Err(format!("failed: {list} (left in {})", self.base.display()).into())
    }

    /// Loads may run fewer times than what takes a second or two.
    fn repeats_of(&self, workload: &Workload) -> u32 {
        let load = workload.name.starts_with("load_") || workload.name == "reopen";
        match self.args.load_repeat {
            Some(repeats) if load => repeats.min(self.args.repeat),
            _ => self.args.repeat,
        }
    }

    /// The bare device.
    fn probe(&self, probes: &Probes, repeat: u32) -> Result<(), Failure> {
        let time = Duration::from_secs_f64(self.args.secs);
        for probe in probes.run(time)? {
            Run {
                engine: "device",
                version: String::new(),
                options: format!("file of {} MiB, O_DIRECT", PROBE_BYTES >> 20),
                workload: probe.name,
                threads: probe.depth,
                durability: probe.durability,
                unit: "blocks of 4 KiB; threads is the queue depth",
                latency_of: "every block",
                outcome: Outcome {
                    ops: probe.ops,
                    secs: probe.secs,
                    latencies_ns: probe.latencies_ns,
                    device: probe.device,
                    peak_rss_mib: 0.0,
                },
                rows: 0,
                cache_mib: 0,
                disk_bytes: PROBE_BYTES,
                check: probe.check.into(),
                more: serde_json::Map::new(),
            }
            .print(&self.run_id, repeat, self.args.json);
        }
        Ok(())
    }

    /// One workload on one engine, in a process of its own. What fails is told at the end.
    fn one(&mut self, engine: Kind, workload: &Workload, repeat: u32) -> Result<(), Failure> {
        let shared = self.base.join(format!("{}-rows", engine.rows_of()));
        let dir = match workload.rows {
            Rows::Fresh => self.base.join(format!("{}-{}", engine.name, workload.name)),
            Rows::Makes | Rows::Uses => shared.clone(),
        };
        if workload.rows == Rows::Uses && !shared.exists() {
            self.progress(repeat, "rows for", engine.rows_of());
            let load = WORKLOADS.iter().find(|w| w.rows == Rows::Makes);
            let load = load.ok_or("no workload loads rows")?;
            let quiet = true;
            self.spawn(named(engine.rows_of())?, load, &shared, repeat, quiet)?;
        }
        if workload.rows != Rows::Uses && dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        self.progress(repeat, workload.name, engine.name);
        self.spawn(engine, workload, &dir, repeat, false)?;
        self.done += 1;
        if workload.rows == Rows::Fresh && self.failed.is_empty() {
            fs::remove_dir_all(&dir)?;
        }
        Ok(())
    }

    fn spawn(
        &mut self,
        engine: Kind,
        workload: &Workload,
        dir: &std::path::Path,
        repeat: u32,
        quiet: bool,
    ) -> Result<(), Failure> {
        fs::create_dir_all(dir)?;
        // What others wrote and nobody synced would be written during this run.
        rustix::fs::syncfs(fs::File::open(&self.base)?)?;
        let mut child = Command::new(std::env::current_exe()?);
        child
            .args(["once", engine.name, workload.name])
            .arg(dir)
            .arg("--secs")
            .arg(self.args.secs.to_string())
            .arg("--rows")
            .arg(self.args.rows.to_string())
            .arg("--cache-mib")
            .arg(self.args.cache_mib.to_string())
            .arg("--run")
            .arg(&self.run_id)
            .arg("--repeat")
            .arg(repeat.to_string());
        if self.args.json {
            child.arg("--json");
        }
        if quiet {
            child.stdout(std::process::Stdio::null());
        }
        let status = child.status()?;
        if !status.success() {
            let name = format!("{} on {} ({status})", workload.name, engine.name);
            eprintln!("terrane-bench: failed: {name}");
            self.failed.push(name);
        }
        Ok(())
    }

    /// A line on standard error before each run.
    fn progress(&self, repeat: u32, workload: &str, engine: &str) {
        let elapsed = self.begin.elapsed().as_secs();
        let left = match self.done {
            0 => String::new(),
            done => {
                let left = elapsed as f64 / done as f64 * (self.total - done) as f64;
                format!(", about {:.0} s left", left)
            }
        };
        eprintln!(
            "[{}/{} repeat {}/{} at {elapsed} s{left}] {workload} {engine}",
            self.done + 1,
            self.total,
            repeat + 1,
            self.args.repeat
        );
    }
}
