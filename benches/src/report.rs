//! What a run says: one JSON object a line with everything that is known of it, or a short line.

use std::fmt::Write as _;
use std::fs;

use serde_json::{Map, Value, json};

use crate::Failure;
use crate::kv::race::Outcome;

/// One run of one workload on one engine.
pub(crate) struct Run<'a> {
    pub(crate) engine: &'a str,
    pub(crate) version: String,
    pub(crate) options: String,
    pub(crate) workload: &'a str,
    pub(crate) threads: usize,
    pub(crate) durability: &'a str,
    /// What `ops` counts.
    pub(crate) unit: &'a str,
    /// Which calls the latencies are of.
    pub(crate) latency_of: &'a str,
    pub(crate) outcome: Outcome,
    /// Rows of the loaded database.
    pub(crate) rows: u64,
    /// Cache that the engine was given.
    pub(crate) cache_mib: u64,
    pub(crate) disk_bytes: u64,
    /// What was checked and came out right.
    pub(crate) check: String,
    /// Figures that only this suite has.
    pub(crate) more: Map<String, Value>,
}

/// Sorted nanoseconds to microseconds at a fraction.
pub(crate) fn percentile_us(sorted_ns: &[u32], fraction: f64) -> Option<f64> {
    let last = sorted_ns.len().checked_sub(1)?;
    let at = (last as f64 * fraction).round() as usize;
    Some(f64::from(sorted_ns[at]) / 1000.0)
}

/// Highest resident memory of this process, which runs one workload of one engine, in MiB.
pub(crate) fn peak_rss_mib() -> f64 {
    memory_mib("VmHWM:")
}

/// Resident memory of this process now, in MiB.
pub(crate) fn rss_mib() -> f64 {
    memory_mib("VmRSS:")
}

fn memory_mib(key: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find(|l| l.starts_with(key))
        .unwrap_or_default();
    let kib: f64 = line
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(0.0);
    kib / 1024.0
}

/// Seconds of processor time that this process has taken.
pub(crate) fn cpu_secs() -> Result<f64, Failure> {
    let text = fs::read_to_string("/proc/self/stat")?;
    // The name of the program may hold anything and ends with the last bracket.
    let after = text.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = after.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok());
    match (ticks(11), ticks(12)) {
        (Some(user), Some(system)) => {
            let per_second = rustix::param::clock_ticks_per_second() as f64;
            Ok((user + system) / per_second)
        }
        _ => Err("/proc/self/stat does not tell the processor time".into()),
    }
}

impl Run<'_> {
    /// Prints the run on standard output.
    pub(crate) fn print(self, run_id: &str, repeat: u32, as_json: bool) {
        if as_json {
            println!("{}", self.json(run_id, repeat));
            return;
        }
        let rate = self.outcome.ops as f64 / self.outcome.secs;
        let (name, workload, threads) = (self.engine, self.workload, self.threads);
        let mut more = String::new();
        for (key, value) in &self.more {
            let _ = write!(more, " {key}={value}");
        }
        println!("{name:>10} {workload:<16} x{threads:<3} {rate:>14.1}/s{more}");
    }

    /// The run as a JSON object.
    fn json(mut self, run_id: &str, repeat: u32) -> Value {
        self.outcome.latencies_ns.sort_unstable();
        let outcome = &self.outcome;
        let at = |fraction| percentile_us(&outcome.latencies_ns, fraction);
        let per_op = |n: u64| n as f64 / outcome.ops.max(1) as f64;
        let mut object = json!({
            "run": run_id, "repeat": repeat,
            "engine": self.engine, "version": self.version, "options": self.options,
            "workload": self.workload, "threads": self.threads, "durability": self.durability,
            "rows": self.rows, "cache_mib": self.cache_mib, "unit": self.unit,
            "ops": outcome.ops, "secs": outcome.secs,
            "ops_per_s": outcome.ops as f64 / outcome.secs,
            "latency_of": self.latency_of,
            "p50_us": at(0.5), "p99_us": at(0.99), "p999_us": at(0.999),
            "peak_rss_mib": outcome.peak_rss_mib,
            "disk_mib": self.disk_bytes as f64 / 1_048_576.0,
            "flushes_per_op": per_op(outcome.device.flushes),
            "written_bytes_per_op": per_op(outcome.device.bytes_written),
            "check": self.check,
        });
        if let Some(all) = object.as_object_mut() {
            all.append(&mut self.more);
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let sorted: Vec<u32> = (0..=1000).map(|n| n * 1000).collect();
        assert_eq!(percentile_us(&sorted, 0.99), Some(990.0));
        assert_eq!(percentile_us(&[], 0.5), None);
    }

    #[test]
    fn an_object_has_every_key() {
        let run = Run {
            engine: "e",
            version: "1".into(),
            options: String::new(),
            workload: "w",
            threads: 1,
            durability: "synced",
            unit: "rows",
            latency_of: "every row",
            outcome: Outcome {
                ops: 10,
                secs: 2.0,
                latencies_ns: vec![3000, 1000, 2000],
                device: crate::device::Counters {
                    flushes: 20,
                    bytes_written: 40,
                },
                peak_rss_mib: 1.0,
            },
            rows: 10,
            cache_mib: 512,
            disk_bytes: 1 << 20,
            check: "c".into(),
            more: Map::from_iter([("recall_at_10".to_string(), json!(0.5))]),
        };
        let object = run.json("id", 3);
        for (key, value) in [
            ("ops_per_s", 5.0),
            ("p50_us", 2.0),
            ("p999_us", 3.0),
            ("disk_mib", 1.0),
            ("flushes_per_op", 2.0),
            ("written_bytes_per_op", 4.0),
            ("recall_at_10", 0.5),
        ] {
            assert_eq!(object[key].as_f64(), Some(value), "{key}");
        }
        for key in ["run", "engine", "version", "options", "durability", "check"] {
            assert!(object[key].is_string(), "{key}");
        }
    }
}
