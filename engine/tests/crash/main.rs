//! Crash-point enumeration: at every I/O boundary of every path, every image that a power cut
//! could leave is recovered, checked as a whole and held against the model (the state after some
//! prefix of the commits that has all acknowledged ones), and goes on working.
//!
//! Of sampled images the recovery itself is photographed and crashed (depth 2); it must come to the
//! same rows. A run prints how many images it recovered by path and kind, and fails if a cell that
//! can have any has none. `TERRANE_CRASH=full` recovers every image that was taken.
//!
//! Seen to fail with a commit that is acknowledged without the wait for its flush.
#![allow(clippy::unwrap_used)] // a test ends at its first surprise

mod late;
mod paths;
mod stage;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use terrane_fuzz::keys::{KeyId, Length, RowId, Val};
use terrane_fuzz::model::{Model, Rows};
use terrane_fuzz::ops::Setup;
use terrane_fuzz::rig::{self, Rig};
use terrane_wal::env::SimEnv;
use terrane_wal::io::sim::{CrashCaps, Image, ImageKind, SimDisk};

use paths::{PATHS, Path};
use stage::{Job, Played, Stage, contents, photograph, recover};

/// How much of it all is done.
#[derive(Clone, Copy)]
struct Effort {
    /// Images of one kind at one boundary.
    per_boundary: usize,
    /// Images of one kind of one path that are recovered.
    per_cell: usize,
    /// Images of one path whose recovery is crashed.
    deeper: usize,
    /// Images of one such recovery.
    per_recovery: usize,
}

fn effort() -> Effort {
    match std::env::var("TERRANE_CRASH").as_deref() {
        Ok("full") => Effort {
            per_boundary: 64,
            per_cell: usize::MAX,
            deeper: 40,
            per_recovery: 400,
        },
        _ => Effort {
            per_boundary: 8,
            per_cell: 60,
            deeper: 5,
            per_recovery: 20,
        },
    }
}

/// Images recovered, by kind (one image may be of several); the last column is depth 2.
#[derive(Clone, Copy, Default)]
struct Counts {
    kinds: [u64; ImageKind::ALL.len()],
    deeper: u64,
    /// Different images, depth 2 apart.
    images: u64,
}

impl Counts {
    fn note(&mut self, kind: ImageKind) {
        let at = ImageKind::ALL.iter().position(|other| *other == kind);
        self.kinds[at.unwrap()] += 1;
    }

    fn of(&self, kind: ImageKind) -> u64 {
        let at = ImageKind::ALL.iter().position(|other| *other == kind);
        self.kinds[at.unwrap()]
    }

    fn sum(&self) -> u64 {
        self.images + self.deeper
    }
}

/// Of each kind at most `most`, evenly spread over the run.
fn choose(jobs: Vec<Job>, most: usize) -> Vec<Job> {
    let mut chosen = BTreeSet::new();
    for kind in ImageKind::ALL {
        let of_kind = jobs
            .iter()
            .enumerate()
            .filter(|(_, job)| job.kinds.contains(&kind));
        let places: Vec<usize> = of_kind.map(|(at, _)| at).collect();
        let count = places.len();
        let keeps = |at: usize| count <= most || (at * most) / count != ((at + 1) * most) / count;
        chosen.extend(
            places
                .iter()
                .enumerate()
                .filter(|(at, _)| keeps(*at))
                .map(|(_, p)| *p),
        );
    }
    let jobs = jobs.into_iter().enumerate();
    jobs.filter(|(at, _)| chosen.contains(at))
        .map(|(_, job)| job)
        .collect()
}

/// Runs `work` on every item, on two threads: each has simulated worlds of its own.
fn on_two_threads<T: Sync>(items: &[T], work: impl Fn(usize, &T) -> Result<(), String> + Sync) {
    let next = AtomicUsize::new(0);
    let failure = Mutex::new(None);
    let run = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return };
            if failure.lock().unwrap().is_some() {
                return;
            }
            if let Err(words) = work(at, item) {
                failure.lock().unwrap().get_or_insert(words);
            }
        }
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(run);
        run();
        other.join().unwrap();
    });
    if let Some(words) = failure.into_inner().unwrap() {
        panic!("{words}");
    }
}

/// Recovers an image and checks everything that can be checked.
fn judge(job: &Job, model: &Model, setup: Setup, at: usize) -> Result<Rows, String> {
    let rig = recover(&job.image, at as u64, setup)?;
    let rows = contents(&rig)?;
    model.explain_within(&rows, job.acknowledged, job.issued)?;
    rig::check_store(&rig.db)?;
    late::check(&rig.db)?;
    goes_on(rig, &rows, at, setup)?;
    Ok(rows)
}

/// A recovered database takes commits, and what it acknowledges survives the next crash.
fn goes_on(rig: Rig, rows: &Rows, at: usize, setup: Setup) -> Result<(), String> {
    let row = RowId {
        table: 1,
        key: KeyId::bulk(900),
    };
    let val = Val::new(1 << 30, Length::Medium);
    let put = rig
        .db
        .write(|tx| rig.tables[1].put(tx, row.key.bytes(), &val.bytes(row)));
    put.map_err(|error| format!("a commit after recovery: {error}"))?;
    let mut wanted = rows.clone();
    wanted.insert(row, val);
    if !at.is_multiple_of(4) {
        rig.stop();
        return Ok(());
    }
    let left = rig.crash(at as u64);
    let again = Rig::over(at as u64, left, setup)
        .map_err(|error| format!("the recovery after the next crash: {error}"))?;
    let found = contents(&again)?;
    again.stop();
    match terrane_fuzz::model::differences(&wanted, &found) {
        differing if differing.is_empty() => Ok(()),
        differing => Err(format!("after the next crash: {}", differing.join("; "))),
    }
}

/// Crashes the recovery of an image at each of its boundaries; each crash must lead to `rows`.
fn deeper(image: &Image, rows: &Rows, setup: Setup, effort: Effort) -> Result<u64, String> {
    let disk = SimDisk::from_image(image);
    let sim = SimEnv::with_disk(7, disk);
    let caps = CrashCaps::at_most(1);
    let jobs = photograph(sim.disk(), caps, || drop(rig::open(&sim, setup).unwrap()));
    drop(sim);
    let jobs = choose(jobs, effort.per_recovery.div_ceil(ImageKind::ALL.len()));
    for job in &jobs {
        let words = |words| format!("depth 2, boundary {}: {words}", job.at);
        let rig = recover(&job.image, 8, setup).map_err(words)?;
        let found = contents(&rig).map_err(words)?;
        rig.stop();
        let differing = terrane_fuzz::model::differences(rows, &found);
        if !differing.is_empty() {
            return Err(words(format!("other rows: {}", differing.join("; "))));
        }
    }
    Ok(jobs.len() as u64)
}

/// Plays a path and recovers its images.
fn play(path: &Path, seed: u64, effort: Effort) -> (Counts, u64) {
    let setup = paths::setup(path);
    let mut stage: Stage = (path.prepare)(seed);
    stage.roll(CrashCaps::at_most(effort.per_boundary));
    (path.act)(&mut stage);
    let Played {
        model,
        jobs,
        boundaries,
    } = stage.cut();
    let jobs = choose(jobs, effort.per_cell);
    (develop(path.name, &model, &jobs, setup, effort), boundaries)
}

/// Recovers chosen images, and crashes the recovery of some.
fn develop(name: &str, model: &Model, jobs: &[Job], setup: Setup, effort: Effort) -> Counts {
    let counts = Mutex::new(Counts::default());
    let stride = jobs.len().div_ceil(effort.deeper).max(1);
    on_two_threads(jobs, |at, job| {
        let words = |words| format!("{name}, boundary {}: {words}", job.at);
        let rows = judge(job, model, setup, at).map_err(words)?;
        job.kinds
            .iter()
            .for_each(|kind| counts.lock().unwrap().note(*kind));
        counts.lock().unwrap().images += 1;
        if at % stride == stride / 2 {
            let more = deeper(&job.image, &rows, setup, effort).map_err(words)?;
            counts.lock().unwrap().deeper += more;
        }
        Ok(())
    });
    counts.into_inner().unwrap()
}

/// The making of a database: afterwards there is none, or an empty one that works.
fn creation(effort: Effort) -> (Counts, u64) {
    let sim = SimEnv::new(3);
    let setup = Setup::default();
    let caps = CrashCaps::at_most(effort.per_boundary);
    let jobs = photograph(sim.disk(), caps, || drop(rig::open(&sim, setup).unwrap()));
    let boundaries = sim.disk().boundaries();
    drop(sim);
    let jobs = choose(jobs, effort.per_cell);
    (
        develop("creation", &Model::default(), &jobs, setup, effort),
        boundaries,
    )
}

/// Recovery: crashed at every boundary, it must come to the same rows.
fn recovery(effort: Effort) -> (Counts, u64) {
    let (disk, model) = paths::interrupted(5);
    let sim = SimEnv::with_disk(6, disk);
    let setup = Setup::default();
    let caps = CrashCaps::at_most(effort.per_boundary);
    let mut jobs = photograph(sim.disk(), caps, || drop(rig::open(&sim, setup).unwrap()));
    let boundaries = sim.disk().boundaries();
    drop(sim);
    for job in &mut jobs {
        (job.acknowledged, job.issued) = (model.newest(), model.newest());
    }
    let jobs = choose(jobs, effort.per_cell);
    (
        develop("recovery", &model, &jobs, setup, effort),
        boundaries,
    )
}

fn print(table: &[(&str, &[ImageKind], Counts, u64)]) {
    let total: u64 = table.iter().map(|(_, _, counts, _)| counts.sum()).sum();
    let boundaries: u64 = table.iter().map(|(.., boundaries)| boundaries).sum();
    let paths = table.len();
    println!("crash images: {total} recovered at {boundaries} boundaries of {paths} paths");
    let names: String = ImageKind::ALL
        .iter()
        .map(|kind| format!("{:>8}", kind.name()))
        .collect();
    println!("{:<16}{names}{:>8}", "path", "depth 2");
    for (name, _, counts, _) in table {
        let cells: String = counts
            .kinds
            .iter()
            .map(|count| format!("{count:>8}"))
            .collect();
        println!("{name:<16}{cells}{:>8}", counts.deeper);
    }
}

#[test]
fn every_crash_leads_to_a_prefix_that_has_all_acknowledged_commits() {
    let effort = effort();
    let mut table: Vec<(&str, &[ImageKind], Counts, u64)> = Vec::new();
    for (at, path) in PATHS.iter().enumerate() {
        let (counts, boundaries) = play(path, at as u64 + 1, effort);
        table.push((path.name, path.cannot, counts, boundaries));
    }
    let (counts, boundaries) = creation(effort);
    table.push(("creation", &[], counts, boundaries));
    let (counts, boundaries) = recovery(effort);
    table.push(("recovery", &[], counts, boundaries));
    print(&table);
    for (name, cannot, counts, _) in &table {
        for kind in ImageKind::ALL {
            let any = counts.of(kind) > 0;
            assert!(
                any || cannot.contains(&kind),
                "{name}: no image of kind {}",
                kind.name()
            );
        }
        assert!(counts.deeper > 0, "{name}: no crash inside of recovery");
    }
}
