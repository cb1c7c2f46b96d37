//! Package search: the main job of Terrane's first release, end to end.
//!
//! ```text
//! cargo run --release --example package_search [-- --data DIR] [--json]
//! ```
//!
//! Reads a data set of Debian package descriptions with their vectors, loads it in durable
//! transactions, shows what can be asked (rows, indexes, transactions, nearest neighbours) with
//! timings, then proves with a killed child process that acknowledged rows survive and that no
//! transaction survives in part. Exits with 1 and a sentence if anything is not as it must be.
//!
//! Flow: `options` -> `dataset` (`npy`, `json`) -> `load` -> `queries` -> `crash` (`child`,
//! `ledger`) -> `report`. The record and its tables are in `package`, clock and dice in `clock`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use terrane::Database;

mod child;
mod clock;
mod crash;
mod dataset;
mod failure;
mod json;
mod ledger;
mod load;
mod npy;
mod options;
mod package;
mod queries;
mod report;

use clock::Stopwatch;
use dataset::Dataset;
use failure::Failure;
use options::{Options, Task};
use package::PACKAGES;
use queries::Searched;

fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1);
    let env_data = std::env::var_os("TERRANE_DATA");
    let outcome =
        Options::parse(arguments, env_data, clock::fresh_seed()).and_then(|options| match options
            .task
        {
            Task::Help => {
                println!("{}", options::USAGE);
                Ok(())
            }
            Task::Main => run(&options),
            Task::ChildLoad { round } => child_load(&options, round),
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("package_search: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn child_load(options: &Options, round: u8) -> Result<(), Failure> {
    let Some(database) = &options.database else {
        return Err(Failure::new("child-load: expected --db, found none"));
    };
    child::run(&options.data, database, options.threads, round)
}

fn run(options: &Options) -> Result<(), Failure> {
    let watch = Stopwatch::start();
    let dataset = Dataset::read(&options.data)?;
    println!(
        "{}: {} rows, {} dimensions, {} queries, seed {}",
        dataset.name,
        dataset.rows.len(),
        dataset::DIMENSION,
        dataset.query_texts.len(),
        options.seed
    );
    report::line(
        "data set read",
        watch.elapsed(),
        &options.data.display().to_string(),
    );

    let folder = Folder::choose(options.database.as_deref())?;
    let (loading, searched) = load_and_search(&folder.path, &dataset)?;
    let survived = crash::survive(options, &dataset, &folder.path)?;
    let verdict = &survived.verdict;
    let figures = report::Figures {
        rows: dataset.rows.len(),
        load_rows_per_s: report::per_second(dataset.rows.len(), loading),
        recall_at_10: searched.recall,
        filtered_recall_at_10: searched.filtered_recall,
        p50: searched.p50,
        p99: searched.p99,
        exact_recall_at_10: searched.exact_recall,
        exact_p50: searched.exact_p50,
        acknowledged: verdict.acknowledged,
        recovered: verdict.recovered,
        extra: verdict.extra,
        half: verdict.half,
        reopen: survived.reopen,
        seed: options.seed,
    };
    if options.json {
        println!("{}", figures.json());
    }
    if verdict.recovered != verdict.acknowledged || verdict.half != 0 {
        let complaints = verdict.complaints.join("\n  ");
        let kept = folder.keep();
        return Err(Failure::new(format!(
            "crash: expected {} acknowledged rows and no half transaction, found {} and {}\n  \
             {complaints}\n  the database is kept in {}",
            verdict.acknowledged,
            verdict.recovered,
            verdict.half,
            kept.display()
        )));
    }
    Ok(())
}

/// Everything with the database open in this process; it is closed on return, for the child.
fn load_and_search(folder: &Path, dataset: &Dataset) -> Result<(Duration, Searched), Failure> {
    let watch = Stopwatch::start();
    let db = Database::open(folder)?;
    let packages = db.table(PACKAGES)?;
    report::line(
        "database created",
        watch.elapsed(),
        &folder.display().to_string(),
    );
    let loading = load::load(&db, &packages, dataset)?;
    let rate = report::per_second(dataset.rows.len(), loading);
    report::line(
        "loaded, every commit durable",
        loading,
        &format!("{rate:.0} rows/s"),
    );
    let searched = queries::show(&db, &packages, dataset)?;
    Ok((loading, searched))
}

/// Where the database lives: a folder that was named and stays, or a temporary one.
struct Folder {
    path: PathBuf,
    temporary: Option<tempfile::TempDir>,
}

impl Folder {
    fn choose(named: Option<&Path>) -> Result<Folder, Failure> {
        let Some(path) = named else {
            let temporary = tempfile::Builder::new().prefix("package_search-").tempdir();
            let failed = |error| Failure::new(format!("no temporary folder: {error}"));
            let temporary = temporary.map_err(failed)?;
            let path = temporary.path().join("packages.terrane");
            return Ok(Folder {
                path,
                temporary: Some(temporary),
            });
        };
        // Rows of another run would be found beside ours, and every count would be wrong.
        match std::fs::read_dir(path).map(|mut entries| entries.next().is_some()) {
            Ok(true) => Err(Failure::bad_input(
                path,
                "--db",
                "an empty or absent folder",
                "files in it",
            )),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Failure::unreadable(path, &error))
            }
            _ => Ok(Folder {
                path: path.to_path_buf(),
                temporary: None,
            }),
        }
    }

    /// Leaves the folder where it is, for whoever looks into a failure.
    fn keep(self) -> PathBuf {
        if let Some(temporary) = self.temporary {
            // Its path without the guard that removes it.
            let _ = temporary.keep();
        }
        self.path
    }
}
