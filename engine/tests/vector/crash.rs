//! A power cut at every I/O boundary of commits with vectors and of each kind of upkeep.
//!
//! Every image is recovered. Rows are those after some prefix of the commits that holds the
//! acknowledged ones; the records of the index agree with them and with each other (`check`, which
//! knows V1 and V5), at once and again after another open and upkeep to its end; and the nearest
//! rows are found. Seen to fail with records that are logged but not in the commit's own entry.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use terrane::{Database, Durability, Table};
use terrane_wal::env::SimEnv;
use terrane_wal::io::sim::{CrashCaps, Image, SimDisk};

use crate::world::*;

const PATH: &str = "/db";
/// Images of one workload that are recovered.
const IMAGES_MAX: usize = 220;

struct Shot {
    image: Image,
    acknowledged: usize,
    issued: usize,
}

#[derive(Default)]
struct Film {
    acknowledged: AtomicUsize,
    issued: AtomicUsize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    seen: BTreeSet<(u64, usize, usize)>,
    shots: Vec<Shot>,
}

/// A database in a simulated world, and the states that it went through.
struct Stage {
    db: Database,
    table: Table<i32, Item>,
    states: Vec<Rows<i32>>,
    random: Random,
    film: Arc<Film>,
    sim: SimEnv,
}

fn open(sim: &SimEnv) -> terrane::Result<(Database, Table<i32, Item>)> {
    let db = Database::builder()
        .env(sim.env())
        .background(false)
        .memory_bytes(16 << 20)
        .segment_bytes(256 << 10)
        .durability(Durability::Local)
        .open(PATH)?;
    let table = db.table(NUMBERED)?;
    Ok((db, table))
}

impl Stage {
    fn new(seed: u64) -> Stage {
        let sim = SimEnv::with_disk(seed, SimDisk::seeded(seed));
        let (db, table) = open(&sim).unwrap();
        Stage {
            db,
            table,
            states: vec![Rows::new()],
            random: Random(seed),
            film: Arc::default(),
            sim,
        }
    }

    /// A commit of these rows; None deletes.
    fn commit(&mut self, changes: Vec<(i32, Option<Item>)>) {
        let mut rows = self.states.last().unwrap().clone();
        for (key, row) in &changes {
            match row {
                Some(row) => rows.insert(*key, row.clone()),
                None => rows.remove(key),
            };
        }
        self.states.push(rows);
        self.film
            .issued
            .store(self.states.len() - 1, Ordering::Relaxed);
        let table = &self.table;
        self.db
            .write(|tx| {
                for (key, row) in &changes {
                    match row {
                        Some(row) => table.put(tx, *key, row)?,
                        None => table.delete(tx, *key).map(drop)?,
                    }
                }
                Ok(())
            })
            .unwrap();
        self.film
            .acknowledged
            .store(self.states.len() - 1, Ordering::Relaxed);
    }

    /// Rows with vectors around one place.
    fn fill(&mut self, keys: std::ops::Range<i32>) {
        let random = &mut self.random;
        let rows = keys.map(|key| {
            let mut row = random.item();
            row.place.get_or_insert(random.vector().into());
            (key, Some(row))
        });
        let rows = rows.collect();
        self.commit(rows);
    }

    fn roll(&self) {
        let film = self.film.clone();
        self.sim.disk().on_io(move |disk, event| {
            let at = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
            let (acknowledged, issued) = (at(&film.acknowledged), at(&film.issued));
            let images = disk.crash_images(event.boundary, &CrashCaps::at_most(2));
            let mut taken = film.taken.lock().unwrap();
            for (_, image) in images {
                if taken.seen.insert((image.hash(), acknowledged, issued)) {
                    taken.shots.push(Shot {
                        image,
                        acknowledged,
                        issued,
                    });
                }
            }
        });
    }

    fn upkeep(&self) -> terrane::MaintenanceStats {
        self.db.stats().vectors[0].upkeep
    }
}

/// Photographs `act` and recovers what was taken.
fn enumerate(what: &str, seed: u64, prepare: fn(&mut Stage), act: fn(&mut Stage)) {
    let mut stage = Stage::new(seed);
    prepare(&mut stage);
    let ready = stage.states.len() - 1;
    stage.film.acknowledged.store(ready, Ordering::Relaxed);
    stage.film.issued.store(ready, Ordering::Relaxed);
    stage.roll();
    act(&mut stage);
    stage.sim.disk().off_io();
    let shots = std::mem::take(&mut stage.film.taken.lock().unwrap().shots);
    let Stage {
        db,
        table,
        states,
        sim: _sim,
        ..
    } = stage;
    drop((table, db));

    let step = shots.len().div_ceil(IMAGES_MAX).max(1);
    let taken = shots.len();
    let mut recovered = 0;
    let mut judge = Judge::new();
    for (at, shot) in shots.into_iter().enumerate().step_by(step) {
        recover(&shot, seed + at as u64, &states, &mut judge)
            .unwrap_or_else(|error| panic!("{what}, image {at}: {error}"));
        recovered += 1;
    }
    judge.done(what);
    assert!(recovered > 20, "{what}: {recovered} images");
    println!("vector crash images: {recovered} of {taken} recovered, {what}");
}

fn recover(shot: &Shot, seed: u64, states: &[Rows<i32>], judge: &mut Judge) -> Result<(), String> {
    let sim = SimEnv::with_disk(seed, SimDisk::from_image(&shot.image));
    let mut random = Random(seed);
    let mut state = None;
    for round in 0..2 {
        let (db, table) = open(&sim).map_err(|error| format!("recovery failed: {error}"))?;
        if round == 1 {
            settle(&db);
        }
        let found: Rows<i32> = table
            .iter(&db.snapshot())
            .collect::<terrane::Result<_>>()
            .map_err(|error| error.to_string())?;
        let possible = match state {
            None => shot.acknowledged..=shot.issued,
            Some(at) => at..=at,
        };
        state = possible.clone().find(|at| states[*at] == found);
        if state.is_none() {
            let rows = found.len();
            return Err(format!("{rows} rows, which are no state of {possible:?}"));
        }
        for _ in 0..4 {
            judge.ask(&table, &db.snapshot(), &found, &random.vector(), 10);
        }
        drop((table, db));
        sound(
            &sim,
            if round == 0 {
                "recovered"
            } else {
                "after upkeep"
            },
        )?;
    }
    Ok(())
}

fn sound(sim: &SimEnv, when: &str) -> Result<(), String> {
    let report =
        terrane::inspect::check_with(&sim.env(), PATH).map_err(|error| error.to_string())?;
    match report.findings.first() {
        None => Ok(()),
        Some(first) => Err(format!("{when}: {first}")),
    }
}

#[test]
fn commits_with_vectors() {
    let prepare = |stage: &mut Stage| {
        stage.fill(0..60);
        settle(&stage.db);
    };
    enumerate("commit", 1, prepare, |stage| {
        stage.fill(40..70); // replaced and new
        let gone = (0..20).map(|key| (key, None)).collect();
        stage.commit(gone);
        stage.db.checkpoint().unwrap();
        stage.fill(0..10); // inserted again
    });
}

#[test]
fn the_first_postings_and_splits() {
    let prepare = |stage: &mut Stage| stage.fill(0..100);
    enumerate("assign and split", 2, prepare, |stage| {
        let before = stage.upkeep();
        for at in 0..4 {
            stage.fill(100 + 120 * at..220 + 120 * at);
            for _ in 0..40 {
                stage.db.background_step();
            }
            stage.db.checkpoint().unwrap();
        }
        settle(&stage.db);
        let after = stage.upkeep();
        assert!(
            after.assigned > before.assigned && after.splits > 0,
            "{after:?}"
        );
        assert!(after.evaluated > 0, "{after:?}");
    });
}

#[test]
fn folds_and_merges() {
    let prepare = |stage: &mut Stage| {
        for at in 0..5 {
            stage.fill(80 * at..80 * at + 80);
            settle(&stage.db);
        }
        stage.db.checkpoint().unwrap();
    };
    enumerate("fold and merge", 3, prepare, |stage| {
        for at in 0..6 {
            let gone = (60 * at..60 * at + 60).map(|key| (key, None)).collect();
            stage.commit(gone);
            for _ in 0..60 {
                stage.db.background_step();
            }
        }
        stage.db.checkpoint().unwrap();
        settle(&stage.db);
        let after = stage.upkeep();
        assert!(after.folds > 0 && after.merges > 0, "{after:?}");
    });
}
