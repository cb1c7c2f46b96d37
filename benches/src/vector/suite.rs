//! The order of a whole invocation: which process runs what, in which folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Rows, VectorArgs, WORKLOADS, Workload, named};
use crate::Failure;

/// One invocation: where it works, and under which id it reports.
pub(crate) struct Suite<'a> {
    args: &'a VectorArgs,
    base: PathBuf,
    run_id: String,
    failed: Vec<String>,
}

impl Suite<'_> {
    pub(crate) fn new(args: &VectorArgs) -> Result<Suite<'_>, Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let base = args
            .dir
            .join(format!("terrane-bench-{}", std::process::id()));
        fs::create_dir_all(&base)?;
        Ok(Suite {
            args,
            base,
            run_id: args.run.clone().unwrap_or_else(|| format!("{now:x}")),
            failed: Vec::new(),
        })
    }

    /// What was asked for; of the rest, what the data set has answers for.
    fn workloads(&self) -> Result<Vec<Workload>, Failure> {
        if !self.args.workloads.is_empty() {
            return self.args.workloads.iter().map(|name| named(name)).collect();
        }
        let data = &self.args.settings.data;
        let (run, left): (Vec<_>, Vec<_>) = WORKLOADS
            .iter()
            .copied()
            .partition(|workload| data.join(workload.needs).exists());
        for workload in left {
            eprintln!(
                "terrane-bench: no {} for {}: left out",
                workload.needs, workload.name
            );
        }
        Ok(run)
    }

    /// Every repeat of every workload.
    pub(crate) fn run(mut self) -> Result<(), Failure> {
        let workloads = self.workloads()?;
        for repeat in 0..self.args.repeat {
            for workload in &workloads {
                self.one(workload, repeat)?;
            }
        }
        if self.failed.is_empty() {
            fs::remove_dir_all(&self.base)?;
            return Ok(());
        }
        let list = self.failed.join("; ");
        Err(format!("failed: {list} (left in {})", self.base.display()).into())
    }

    /// One workload. What fails is told at the end.
    fn one(&mut self, workload: &Workload, repeat: u32) -> Result<(), Failure> {
        let shared = self.base.join("rows");
        let uses = matches!(workload.rows, Rows::Uses | Rows::Spends);
        if uses && !shared.exists() {
            let load = WORKLOADS.iter().find(|w| w.rows == Rows::Makes);
            let load = load.ok_or("no workload loads rows")?;
            self.spawn(load, &shared, repeat, true)?;
        }
        let dir = match workload.rows {
            Rows::Fresh => self.base.join(workload.name),
            Rows::Makes | Rows::Uses | Rows::Spends => shared,
        };
        if !uses && dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        let good = self.spawn(workload, &dir, repeat, false)?;
        if good && matches!(workload.rows, Rows::Fresh | Rows::Spends) {
            fs::remove_dir_all(&dir)?;
        }
        Ok(())
    }

    /// Runs a workload in a process of its own; true if it did well.
    fn spawn(
        &mut self,
        workload: &Workload,
        dir: &Path,
        repeat: u32,
        quiet: bool,
    ) -> Result<bool, Failure> {
        fs::create_dir_all(dir)?;
        // What others wrote and nobody synced would be written during this run.
        rustix::fs::syncfs(fs::File::open(&self.base)?)?;
        let purpose = if quiet { ", for those after it" } else { "" };
        eprintln!(
            "[repeat {}/{}] {}{purpose}",
            repeat + 1,
            self.args.repeat,
            workload.name
        );
        let mut child = Command::new(std::env::current_exe()?);
        child.arg("vector-once").arg(workload.name).arg(dir);
        child.args(["--run", &self.run_id, "--repeat", &repeat.to_string()]);
        child.args(self.args.settings.as_arguments());
        if quiet {
            child.stdout(Stdio::null());
        }
        let status = child.status()?;
        if !status.success() {
            let name = format!("{} ({status})", workload.name);
            eprintln!("terrane-bench: failed: {name}");
            self.failed.push(name);
        }
        Ok(status.success())
    }
}
