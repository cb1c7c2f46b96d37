//! The vector suite: one table with a vector, loaded, searched, filtered and churned, on a folder
//! of real text or of generated clusters.
//!
//! Each workload is a process of its own, so that its resident memory is its own. What it answers
//! is measured anew from the data set (`answers.rs`), so that no recall is told of wrong rows.
//! Peers run by `benches/vector/peers.py` on the same folders and print lines of the same keys.

mod answers;
mod churn;
mod commits;
mod dataset;
pub(crate) mod generate;
mod half;
mod load;
mod memory;
mod npy;
mod query;
mod store;
mod suite;
pub(crate) mod table;
mod targets;

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};

use crate::Failure;
use crate::device::Device;
use crate::kv::bytes_below;
use crate::kv::race::Outcome;
use crate::report::Run;
use dataset::Dataset;

/// Options of the vector suite.
#[derive(Args, Clone)]
pub(crate) struct VectorArgs {
    /// Workloads, comma-separated; see `--list`. Default: all that the data set has answers for.
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,
    /// Lists the workloads and stops.
    #[arg(long)]
    list: bool,
    /// Times each workload runs.
    #[arg(long, default_value_t = 1)]
    repeat: u32,
    /// Run id, to put the lines beside those of the peers; made from the time if absent.
    #[arg(long)]
    run: Option<String>,
    /// Folder on the device to measure; a fresh one below it is used and removed.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    #[command(flatten)]
    settings: Settings,
}

/// What every workload knows.
#[derive(Args, Clone)]
pub(crate) struct Settings {
    /// Folder of the data set: base.npy, queries.npy, gt.npy, meta.json and, for text, attributes
    /// and filters.
    #[arg(long, default_value = ".")]
    data: PathBuf,
    /// Seconds of each timed run.
    #[arg(long, default_value_t = 5.0)]
    secs: f64,
    /// Threads that query, comma-separated.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    threads: Vec<usize>,
    /// Goals of recall of `query`, comma-separated.
    #[arg(long, value_delimiter = ',', default_values_t = [0.8, 0.9, 0.95, 0.99])]
    targets: Vec<f64>,
    /// Goal of recall of the other workloads.
    #[arg(long, default_value_t = 0.95)]
    recall: f64,
    /// Asks the first so many queries only.
    #[arg(long)]
    queries: Option<usize>,
    /// Budget of the database in MiB.
    #[arg(long, default_value_t = 1024)]
    cache_mib: u64,
    /// One JSON object a line on standard output.
    #[arg(long)]
    json: bool,
}

/// One workload, in a process of its own.
#[derive(Args, Clone)]
pub(crate) struct VectorOnceArgs {
    workload: String,
    /// Where the database is.
    database: PathBuf,
    #[arg(long)]
    run: String,
    #[arg(long)]
    repeat: u32,
    #[command(flatten)]
    settings: Settings,
}

/// What a workload works with.
pub(crate) struct Job<'a> {
    settings: &'a Settings,
    data: Dataset,
    dir: &'a Path,
    device: Device,
}

/// What a workload found out.
pub(crate) struct Measured {
    /// A workload may tell of several things.
    workload: &'static str,
    threads: usize,
    durability: &'static str,
    unit: &'static str,
    latency_of: &'static str,
    outcome: Outcome,
    check: String,
    more: Map<String, Value>,
}

type Body = fn(&Job<'_>) -> Result<Vec<Measured>, Failure>;

/// Which database a workload works on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rows {
    /// A new one, removed afterwards.
    Fresh,
    /// It makes the one that those after it use.
    Makes,
    /// The loaded one, which stays as it is.
    Uses,
    /// The loaded one, which is no longer what was loaded afterwards.
    Spends,
}

/// A named workload.
#[derive(Clone, Copy)]
struct Workload {
    name: &'static str,
    rows: Rows,
    /// A file without which the data set has no answers for it.
    needs: &'static str,
    run: Body,
}

/// All workloads, in the order in which they run.
const WORKLOADS: &[Workload] = &[
    workload("load", Rows::Makes, "gt.npy", load::load),
    workload("query", Rows::Uses, "gt.npy", query::query),
    workload("query_filter", Rows::Uses, "filters.json", query::filtered),
    workload("memory", Rows::Uses, "gt.npy", memory::memory),
    workload("churn", Rows::Spends, "gt.npy", churn::churn),
    workload("load_drift", Rows::Fresh, "gt_stream_25.npy", load::drift),
    workload("commit_p99", Rows::Fresh, "base.npy", commits::commits),
];

const fn workload(name: &'static str, rows: Rows, needs: &'static str, run: Body) -> Workload {
    Workload {
        name,
        rows,
        needs,
        run,
    }
}

/// Runs what the arguments ask for.
pub(crate) fn run(args: &VectorArgs) -> Result<(), Failure> {
    if args.list {
        let names: Vec<_> = WORKLOADS.iter().map(|w| w.name).collect();
        println!("workloads: {}", names.join(", "));
        return Ok(());
    }
    suite::Suite::new(args)?.run()
}

/// The workload of a name.
fn named(name: &str) -> Result<Workload, Failure> {
    let found = WORKLOADS.iter().find(|w| w.name == name).copied();
    found.ok_or_else(|| format!("unknown workload {name}; see --list").into())
}

/// One workload in this process; prints its figures.
pub(crate) fn once(args: &VectorOnceArgs) -> Result<(), Failure> {
    let settings = &args.settings;
    let job = Job {
        settings,
        data: Dataset::open(&settings.data, settings.queries.unwrap_or(usize::MAX))?,
        dir: &args.database,
        device: Device::below(&args.database)?,
    };
    for measured in (named(&args.workload)?.run)(&job)? {
        let mut more = measured.more;
        for (key, value) in [
            ("suite", json!("vector")),
            ("data", json!(job.data.name)),
            ("dim", json!(job.data.dim())),
        ] {
            more.insert(key.into(), value);
        }
        Run {
            engine: "terrane",
            version: format!("terrane {}", env!("CARGO_PKG_VERSION")),
            options: String::new(),
            workload: measured.workload,
            threads: measured.threads,
            durability: measured.durability,
            unit: measured.unit,
            latency_of: measured.latency_of,
            outcome: measured.outcome,
            rows: job.data.rows() as u64,
            cache_mib: settings.cache_mib,
            disk_bytes: bytes_below(job.dir)?,
            check: measured.check,
            more,
        }
        .print(&args.run, args.repeat, settings.json);
    }
    Ok(())
}

impl Settings {
    /// The options as a child process takes them.
    fn as_arguments(&self) -> Vec<String> {
        let list = |numbers: Vec<String>| numbers.join(",");
        let mut out = vec![
            format!("--data={}", self.data.display()),
            format!("--secs={}", self.secs),
            format!(
                "--threads={}",
                list(self.threads.iter().map(usize::to_string).collect())
            ),
            format!(
                "--targets={}",
                list(self.targets.iter().map(f64::to_string).collect())
            ),
            format!("--recall={}", self.recall),
            format!("--cache-mib={}", self.cache_mib),
        ];
        out.extend(self.queries.map(|most| format!("--queries={most}")));
        out.extend(self.json.then(|| "--json".to_string()));
        out
    }
}

/// Figures of a suite's own, by key.
fn figures<const N: usize>(pairs: [(&str, Value); N]) -> Map<String, Value> {
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_string(), value))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        settings: Settings,
    }

    #[test]
    fn a_child_gets_the_settings_of_its_parent() {
        let given = [
            "x",
            "--data=/d",
            "--secs=0.5",
            "--threads=1,4",
            "--targets=0.9,0.99",
            "--recall=0.8",
            "--cache-mib=64",
            "--queries=7",
            "--json",
        ];
        let parent = Cli::parse_from(given).settings;
        let mut again = vec!["x".to_string()];
        again.extend(parent.as_arguments());
        let child = Cli::parse_from(again).settings;
        assert_eq!(child.as_arguments(), given[1..]);
        let plain = Cli::parse_from(["x"]).settings;
        assert_eq!((plain.threads, plain.targets.len()), (vec![1, 2], 4));
    }
}
