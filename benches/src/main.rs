//! `terrane-bench`: Terrane measured beside its peers, with the answers checked.
//!
//! `terrane-bench kv --json` runs the key-value suite and prints one JSON object a line,
//! `terrane-bench vector --data DIR --json` the vector suite, and `terrane-bench vector-generate`
//! makes a folder for it; `terrane-bench table` turns such lines into the README's tables;
//! `terrane-bench levels` compares the levels of isolation, `terrane-bench replicas` three replicas
//! with a lone database. The device's own limits are probed between the runs, so that every figure
//! stands beside what the hardware gave in that hour.

// A bench is where wall time is measured and threads are started on purpose.
#![allow(clippy::disallowed_methods)]

mod device;
mod kv;
mod levels;
mod replicas;
mod report;
mod rows;
mod table;
mod targets;
mod vector;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Whatever went wrong, as a sentence for the person who reads the terminal.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
#[command(
    name = "terrane-bench",
    version,
    about = "Terrane measured beside its peers"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The key-value suite.
    Kv(KvArgs),
    /// The vector suite.
    Vector(vector::VectorArgs),
    /// Writes a folder of clusters for the vector suite.
    VectorGenerate(vector::generate::GenerateArgs),
    /// Makes Markdown tables from the JSON lines of one run.
    Table {
        /// File of JSON lines.
        file: PathBuf,
        /// Run id; the last one in the file if absent.
        #[arg(long)]
        run: Option<String>,
        /// Figure to show: ops_per_s, p50_us, p99_us, p999_us, peak_rss_mib, disk_mib,
        /// flushes_per_op, written_bytes_per_op.
        #[arg(long, default_value = "ops_per_s")]
        column: String,
    },
    /// What serializable costs over snapshot isolation: both by turns in one process.
    Levels(levels::LevelsArgs),
    /// What three replicas cost over a lone database, and how long a failover and a switchover
    /// pause commits.
    Replicas(replicas::ReplicasArgs),
    /// One workload on one engine; started by the suite itself.
    #[command(hide = true)]
    Once(OnceArgs),
    /// One workload of the vector suite; started by the suite itself.
    #[command(hide = true)]
    VectorOnce(vector::VectorOnceArgs),
    /// Writes durable rows until it is killed; started by the suite itself.
    #[command(hide = true)]
    CrashChild {
        engine: String,
        dir: PathBuf,
        cache_mib: u64,
    },
}

/// One run of one workload on one engine, in a process of its own.
#[derive(Args, Clone)]
pub(crate) struct OnceArgs {
    pub(crate) engine: String,
    pub(crate) workload: String,
    pub(crate) dir: PathBuf,
    #[arg(long)]
    pub(crate) secs: f64,
    #[arg(long)]
    pub(crate) rows: u64,
    #[arg(long)]
    pub(crate) cache_mib: u64,
    /// Run id.
    #[arg(long)]
    pub(crate) run: String,
    #[arg(long)]
    pub(crate) repeat: u32,
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of the key-value suite.
#[derive(Args, Clone)]
pub(crate) struct KvArgs {
    /// Engines, comma-separated: terrane, terrane-si (at snapshot isolation), redb, fjall, lmdb,
    /// sqlite, rocksdb. Default: all built.
    #[arg(long, value_delimiter = ',')]
    engines: Vec<String>,
    /// Workloads, comma-separated; see `--list`. Default: all.
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,
    /// Lists engines and workloads and stops.
    #[arg(long)]
    list: bool,
    /// Seconds of each timed run.
    #[arg(long, default_value_t = 5.0)]
    secs: f64,
    /// Rows of the loads.
    #[arg(long, default_value_t = 2_000_000)]
    rows: u64,
    /// Times each workload runs; the table shows medians.
    #[arg(long, default_value_t = 5)]
    repeat: u32,
    /// Times the loads and the reopening run, if fewer.
    #[arg(long)]
    load_repeat: Option<u32>,
    /// Minutes after which no further run begins: later repeats are then left out, and the table
    /// tells of how many each median is.
    #[arg(long)]
    minutes: Option<f64>,
    /// Folder on the device to measure; a fresh one below it is used and removed.
    #[arg(long, default_value = ".")]
    data: PathBuf,
    /// Cache of each engine in MiB.
    #[arg(long, default_value_t = 512)]
    cache_mib: u64,
    /// One JSON object a line on standard output; without it a short line for the eye. What runs
    /// next is told on standard error either way.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Kv(args) => kv::run(&args),
        Command::Vector(args) => vector::run(&args),
        Command::VectorGenerate(args) => vector::generate::run(&args),
        Command::VectorOnce(args) => vector::once(&args),
        Command::Table { file, run, column } => table::print(&file, run.as_deref(), &column),
        Command::Levels(args) => levels::run(&args),
        Command::Replicas(args) => replicas::run(&args),
        Command::Once(args) => kv::once(&args),
        Command::CrashChild {
            engine,
            dir,
            cache_mib,
        } => kv::crash::child(&engine, &dir, cache_mib),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("terrane-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}
