//! `terrane`: verify a database, print its log; where rows lie in shards, what a policy survives. A
//! printer over [`terrane::inspect`].
//!
//! Exit codes: 0 all is well; 1 damage was found; 2 the command could not be done.

mod placing;

use std::error::Error as _;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use terrane::ErrorKind;
use terrane::inspect::{self, LogQuery};

/// Looks at a Terrane database from outside; changes nothing.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Verifies everything: META, maps, pages, trees, log, catalog, rows, index entries.
    Check {
        /// The database directory.
        directory: PathBuf,
    },
    /// Prints the log, one line for each entry.
    Log {
        /// The database directory.
        directory: PathBuf,
        /// Begins behind this position.
        #[arg(long, value_name = "LSN", default_value_t = 0)]
        from: u64,
        /// Prints segments and frames too.
        #[arg(long)]
        frames: bool,
        /// Prints the keys of the records.
        #[arg(long)]
        keys: bool,
        /// Ends after this many entries.
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
    },
    /// Computes where rows lie; opens nothing.
    #[command(subcommand)]
    Shard(placing::Shard),
    /// Computes what a durability policy survives; opens nothing.
    #[command(subcommand)]
    Policy(placing::Policy),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Check { directory } => check(&directory),
        Command::Log {
            directory,
            from,
            frames,
            keys,
            limit,
        } => {
            let query = LogQuery {
                from,
                frames,
                keys,
                limit,
            };
            log(&directory, &query)
        }
        Command::Shard(command) => command.run(),
        Command::Policy(command) => command.run(),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("terrane: {error}");
        let mut cause = error.source();
        while let Some(below) = cause {
            eprintln!("  caused by: {below}");
            cause = below.source();
        }
        match error.kind() {
            ErrorKind::Corrupt | ErrorKind::Codec => ExitCode::from(1),
            _ => ExitCode::from(2),
        }
    })
}

fn check(directory: &PathBuf) -> terrane::Result<ExitCode> {
    let report = inspect::check(directory)?;
    let mut out = io::stdout().lock();
    // A reader that went away needs no answer; the exit code still tells.
    for finding in &report.findings {
        let _ = writeln!(out, "{finding}");
    }
    let _ = writeln!(
        out,
        "generation {}, {} trees, {} pages, {} tables, {} rows, {} index entries, {} log entries \
         ({} bytes), {} frames behind its end: {} findings",
        report.generation,
        report.trees,
        report.pages,
        report.tables,
        report.rows,
        report.index_entries,
        report.log_entries,
        report.log_bytes,
        report.discarded_frames,
        report.findings.len(),
    );
    Ok(ExitCode::from(u8::from(!report.is_sound())))
}

fn log(directory: &PathBuf, query: &LogQuery) -> terrane::Result<ExitCode> {
    let mut out = io::stdout().lock();
    inspect::log(
        directory,
        query,
        &mut |line| match writeln!(out, "{line}") {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        },
    )?;
    Ok(ExitCode::SUCCESS)
}
