//! Three replicas under load: leaders are cut off, stopped and moved, and nothing that was
//! acknowledged is lost.
//!
//! ```text
//! cargo run --release --example three_replicas [-- --rounds N] [--data DIR] [--json]
//! ```
//!
//! Three nodes in this process, one shard, a commit acknowledged once the leader and one follower
//! have it on disk. Threads put rows of the package descriptions that `package_search` loads, one
//! searches and reads meanwhile. Each round harms the leader in one of three ways, and then moves
//! the leadership by a switchover:
//!
//! ```text
//! isolate  nobody hears the leader any more; healed once another leads
//! stop     the leader's node ends; opened again once another leads
//! restart  the leader's node ends and is opened again at once
//! ```
//!
//! At the end every row is held against what callers were told. Exits with 1 and a sentence if an
//! acknowledged row is missing or anything else is not as it must be.
//!
//! Flow: `options` -> `dataset` -> `fleet` (nodes and what is done to them), `callers` (load, and
//! what it was told) -> `verdict` -> `report`. Data set, record and clock are `package_search`'s.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

mod callers;
#[path = "../package_search/clock.rs"]
#[expect(dead_code, reason = "package_search uses all of it")]
mod clock;
#[path = "../package_search/dataset.rs"]
#[expect(dead_code, reason = "package_search uses all of it")]
mod dataset;
#[path = "../package_search/failure.rs"]
mod failure;
mod fleet;
#[path = "../package_search/json.rs"]
mod json;
#[path = "../package_search/npy.rs"]
mod npy;
mod options;
#[path = "../package_search/package.rs"]
#[expect(dead_code, reason = "package_search uses all of it")]
mod package;
mod report;
mod verdict;

use callers::Callers;
use clock::Stopwatch;
use dataset::Dataset;
use failure::Failure;
use fleet::{Fleet, Harm};
use options::Options;
use report::{Figures, Timeline};

/// Load before the first harm, and between a harm that is over and the next.
const CALM: Duration = Duration::from_millis(400);

fn main() -> ExitCode {
    let arguments = std::env::args().skip(1);
    let data = std::env::var_os("TERRANE_DATA");
    let outcome = match Options::parse(arguments, data) {
        Ok(Some(options)) => run(&options),
        Ok(None) => {
            println!("{}", options::USAGE);
            Ok(())
        }
        Err(failure) => Err(failure),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("three_replicas: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let dataset = Dataset::read(&options.data)?;
    let failed = |error| Failure::new(format!("no temporary folder: {error}"));
    let folder = tempfile::Builder::new().prefix("three_replicas-").tempdir();
    let folder = folder.map_err(failed)?;
    run_in(folder.path(), &dataset, options).map_err(|failure| {
        // Left where it is, for whoever looks into it.
        let kept = folder.keep();
        Failure::new(format!(
            "{failure}\n  the nodes are kept in {}",
            kept.display()
        ))
    })
}

fn run_in(folder: &Path, dataset: &Dataset, options: &Options) -> Result<(), Failure> {
    let mut fleet = Fleet::make(folder)?;
    let watch = Stopwatch::start();
    let mut timeline = Timeline::start(watch);
    let callers = Callers::new(&fleet.cluster().database(), dataset, watch)?;
    timeline.tell(&format!(
        "{} leads, {} writers and a searcher begin",
        fleet.leader()?,
        options.threads
    ));
    let figures = std::thread::scope(|scope| {
        let load = callers.begin(scope, options.threads);
        let harmed = rounds(options.rounds, &mut fleet, &callers, &mut timeline);
        callers.stop();
        load.into_iter().try_for_each(callers::Load::join)?;
        harmed
    });
    let told = callers.told();
    let figures = figures?;
    fleet.level()?;
    let verdict = verdict::judge(&fleet.cluster().database(), dataset, &told)?;
    figures.print(&told, &verdict);
    if options.json {
        println!("{}", figures.json(&told, &verdict, options.rounds));
    }
    verdict.complain()
}

/// Harm after harm, a switchover behind each.
fn rounds(
    count: usize,
    fleet: &mut Fleet,
    callers: &Callers<'_>,
    timeline: &mut Timeline,
) -> Result<Figures, Failure> {
    let mut figures = Figures::default();
    clock_pause(CALM);
    for harm in Harm::ALL.into_iter().cycle().take(count) {
        let old = fleet.leader()?;
        let begin = callers.now();
        fleet.harm(harm, old)?;
        let pause = callers.pause_since(begin)?;
        let new = fleet.leader()?;
        fleet.undo(harm, old)?;
        fleet.level()?;
        timeline.event(harm.name(), &format!("{old}, then {new} leads"), pause);
        figures.add(harm.name(), pause);
        clock_pause(CALM);

        let (old, begin) = (fleet.leader()?, callers.now());
        let to = fleet.other_than(old);
        // A leader that stays is no error to callers: one that is to take over lags, say.
        let (name, told) = match fleet.switchover(to) {
            Ok(()) => ("switchover", format!("{old} to {to}")),
            Err(stays) => ("refused", format!("{old} stays: {stays}")),
        };
        let pause = callers.pause_since(begin)?;
        timeline.event(name, &told, pause);
        figures.add(name, pause);
        fleet.level()?;
        clock_pause(CALM);
    }
    Ok(figures)
}

/// Lets time go by.
#[expect(
    clippy::disallowed_methods,
    reason = "a program outside the engine waits for it"
)]
pub(crate) fn clock_pause(time: Duration) {
    std::thread::sleep(time);
}
