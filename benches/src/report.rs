//! What a run says: one JSON object a line, latencies as percentiles, medians as a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::Failure;
use crate::device::Counters;

/// One run of one workload on one engine.
pub(crate) struct Run<'a> {
    pub(crate) engine: &'a str,
    pub(crate) version: &'a str,
    pub(crate) options: String,
    pub(crate) workload: &'a str,
    pub(crate) threads: usize,
    pub(crate) durability: &'a str,
    pub(crate) ops: u64,
    pub(crate) secs: f64,
    /// Latency of each operation, where it was taken, in nanoseconds.
    pub(crate) latencies_ns: Vec<u32>,
    pub(crate) disk_bytes: u64,
    /// Device counters over the run.
    pub(crate) device: Counters,
    /// What was checked and came out right.
    pub(crate) check: String,
}

/// Sorted nanoseconds to microseconds at a fraction.
fn percentile_us(sorted_ns: &[u32], fraction: f64) -> Option<f64> {
    let last = sorted_ns.len().checked_sub(1)?;
    let at = (last as f64 * fraction).round() as usize;
    Some(f64::from(sorted_ns[at]) / 1000.0)
}

/// Highest resident memory of this process since [`reset_peak`], in MiB.
fn peak_rss_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find(|l| l.starts_with("VmHWM:"))
        .unwrap_or_default();
    let kib: f64 = line
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(0.0);
    kib / 1024.0
}

/// Starts a new measurement of the peak.
pub(crate) fn reset_peak() {
    // The kernel resets VmHWM on writing 5; where it refuses, the peak is of the whole process.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

impl Run<'_> {
    /// The run as a JSON object.
    pub(crate) fn json(mut self, run_id: &str, repeat: u32) -> Value {
        self.latencies_ns.sort_unstable();
        let at = |fraction| percentile_us(&self.latencies_ns, fraction);
        let per_op = |n: u64| n as f64 / self.ops.max(1) as f64;
        json!({
            "run": run_id, "repeat": repeat,
            "engine": self.engine, "version": self.version, "options": self.options,
            "workload": self.workload, "threads": self.threads, "durability": self.durability,
            "ops": self.ops, "secs": self.secs, "ops_per_s": self.ops as f64 / self.secs,
            "p50_us": at(0.5), "p99_us": at(0.99), "p999_us": at(0.999),
            "peak_rss_mib": peak_rss_mib(), "disk_mib": self.disk_bytes as f64 / 1048576.0,
            "flushes_per_op": per_op(self.device.flushes),
            "written_bytes_per_op": per_op(self.device.bytes_written),
            "check": self.check,
        })
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Prints the medians of one run id as a Markdown table: workloads down, engines across.
pub(crate) fn table(file: &Path, run: Option<&str>) -> Result<(), Failure> {
    let text = fs::read_to_string(file)?;
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let value: Value = serde_json::from_str(line)
            .map_err(|e| format!("{}:{}: not a JSON object: {e}", file.display(), number + 1))?;
        lines.push(value);
    }
    let last = lines
        .last()
        .and_then(|l| l["run"].as_str())
        .unwrap_or_default()
        .to_string();
    let run = run.unwrap_or(&last);
    let mut figures: BTreeMap<(String, u64), BTreeMap<String, Vec<f64>>> = BTreeMap::new();
    let mut engines: Vec<String> = Vec::new();
    for line in lines.iter().filter(|l| l["run"] == run) {
        let engine = line["engine"].as_str().unwrap_or_default().to_string();
        let workload = line["workload"].as_str().unwrap_or_default().to_string();
        let threads = line["threads"].as_u64().unwrap_or(1);
        if !engines.contains(&engine) {
            engines.push(engine.clone());
        }
        let rate = line["ops_per_s"].as_f64().unwrap_or(0.0);
        figures
            .entry((workload, threads))
            .or_default()
            .entry(engine)
            .or_default()
            .push(rate);
    }
    if figures.is_empty() {
        return Err(format!("{}: no line of run {run}", file.display()).into());
    }
    print!("{}", render(&engines, figures));
    println!("\nOperations per second, medians; run `{run}`.");
    Ok(())
}

fn render(
    engines: &[String],
    figures: BTreeMap<(String, u64), BTreeMap<String, Vec<f64>>>,
) -> String {
    let mut out = format!("| workload | threads | {} |\n", engines.join(" | "));
    let _ = writeln!(out, "|---|---|{}", "---|".repeat(engines.len()));
    for ((workload, threads), by_engine) in figures {
        let _ = write!(out, "| {workload} | {threads} |");
        for engine in engines {
            match by_engine.get(engine) {
                Some(rates) => {
                    let rate = median(rates.clone());
                    let _ = write!(out, " {} |", grouped(rate));
                }
                None => out.push_str(" |"),
            }
        }
        out.push('\n');
    }
    out
}

/// 1234567.8 as "1,234,568"; below 100 with one decimal.
fn grouped(figure: f64) -> String {
    if figure < 100.0 {
        return format!("{figure:.1}");
    }
    let digits = format!("{figure:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_medians() {
        let sorted: Vec<u32> = (0..=1000).map(|n| n * 1000).collect();
        assert_eq!(percentile_us(&sorted, 0.99), Some(990.0));
        assert_eq!(percentile_us(&[], 0.5), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(grouped(1_234_567.8), "1,234,568");
        assert_eq!(grouped(12.34), "12.3");
    }
}
