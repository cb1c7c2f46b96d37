//! `terrane-bench`: Terrane measured beside its peers, with the answers checked.
//!
//! `terrane-bench kv` runs the key-value suite and prints one JSON object a line; `terrane-bench
//! table` turns such lines into the README's table. The device's own limits are probed between the
//! runs, so that every figure stands beside what the hardware gave in that same hour.

// A bench is where wall time is measured and threads are started on purpose.
#![allow(clippy::disallowed_methods)]

mod device;
mod kv;
mod report;
mod rows;

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
    /// Makes a Markdown table from the JSON lines of one run.
    Table {
        /// File of JSON lines.
        file: PathBuf,
        /// Run id; the last one in the file if absent.
        #[arg(long)]
        run: Option<String>,
    },
    /// Writes durable rows until it is killed; started by the suite itself.
    #[command(hide = true)]
    CrashChild {
        engine: String,
        dir: PathBuf,
        tail_mib: u64,
    },
}

/// Options of the key-value suite.
#[derive(Args, Clone)]
pub(crate) struct KvArgs {
    /// Engines, comma-separated: terrane, redb, fjall, lmdb, sqlite, rocksdb. Default: all built.
    #[arg(long, value_delimiter = ',')]
    engines: Vec<String>,
    /// Workloads, comma-separated; see `--list`. Default: all.
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,
    /// Lists engines and workloads and stops.
    #[arg(long)]
    list: bool,
    /// Seconds of each timed run.
    #[arg(long, default_value_t = 5)]
    secs: u64,
    /// Rows of the loads.
    #[arg(long, default_value_t = 2_000_000)]
    rows: u64,
    /// Times each workload runs; the table shows medians.
    #[arg(long, default_value_t = 5)]
    repeat: u32,
    /// Folder on the device to measure; a fresh one below it is used and removed.
    #[arg(long, default_value = ".")]
    data: PathBuf,
    /// Cache of each engine in MiB.
    #[arg(long, default_value_t = 512)]
    cache_mib: u64,
    /// JSON lines only; without it a short line per run is printed as well, on standard error.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Kv(args) => kv::run(&args),
        Command::Table { file, run } => report::table(&file, run.as_deref()),
        Command::CrashChild {
            engine,
            dir,
            tail_mib,
        } => kv::crash::child(&engine, &dir, tail_mib),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("terrane-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}
