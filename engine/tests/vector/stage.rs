//! A table with vectors in a simulated world that is photographed while commits and upkeep go on,
//! and the recovery of what was taken.

use std::collections::BTreeSet;
use std::sync::Arc;

use terrane::{Database, Durability, MaintenanceStats, Table};
use terrane_wal::env::SimEnv;
use terrane_wal::io::sim::SimDisk;

use crate::film::*;
use crate::world::*;

const PATH: &str = "/db";

/// Rows of a commit; None deletes.
pub(crate) type Changes = Vec<(i32, Option<Item>)>;

/// What happened while photographs were taken, as upkeep counts it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Steps {
    pub(crate) commits: u64,
    pub(crate) assigned: u64,
    pub(crate) folds: u64,
    pub(crate) splits: u64,
    pub(crate) merges: u64,
    /// System transactions while a posting was draining.
    pub(crate) drains: u64,
    /// Entries that a reassign moved.
    pub(crate) reassigned: u64,
    pub(crate) recentred: u64,
    pub(crate) swept: u64,
}

/// A database in a simulated world, and the states that it went through.
pub(crate) struct Stage {
    pub(crate) db: Database,
    pub(crate) table: Table<i32, Item>,
    pub(crate) states: Vec<Rows<i32>>,
    pub(crate) random: Random,
    pub(crate) film: Arc<Film>,
    pub(crate) steps: Steps,
    pub(crate) sim: SimEnv,
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

/// What upkeep has done; nothing if there is no index.
fn upkeep(db: &Database) -> MaintenanceStats {
    let stats = db.stats();
    stats
        .vectors
        .first()
        .map(|vector| vector.upkeep)
        .unwrap_or_default()
}

/// Commits what leads to a state.
pub(crate) fn commit_to(
    (db, table): (&Database, &Table<i32, Item>),
    film: &Film,
    state: usize,
    changes: &Changes,
) {
    film.issue(state);
    db.write(|tx| {
        for (key, row) in changes {
            match row {
                Some(row) => table.put(tx, *key, row)?,
                None => table.delete(tx, *key).map(drop)?,
            }
        }
        Ok(())
    })
    .unwrap();
    film.acknowledge(state);
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
            steps: Steps::default(),
            sim,
        }
    }

    /// The state after these changes, which are yet to be committed.
    pub(crate) fn plan(&mut self, changes: &Changes) -> usize {
        let mut rows = self.states.last().unwrap().clone();
        for (key, row) in changes {
            match row {
                Some(row) => rows.insert(*key, row.clone()),
                None => rows.remove(key),
            };
        }
        self.states.push(rows);
        self.states.len() - 1
    }

    /// A commit of these rows.
    pub(crate) fn commit(&mut self, changes: Changes) {
        let state = self.plan(&changes);
        commit_to((&self.db, &self.table), &self.film, state, &changes);
        self.steps.commits += 1;
    }

    /// Rows with vectors, each near one of these topics.
    pub(crate) fn rows_near(
        &mut self,
        keys: std::ops::Range<i32>,
        topics: std::ops::Range<u64>,
    ) -> Changes {
        let random = &mut self.random;
        let near = |key| {
            let topic = topics.start + random.below(topics.end - topics.start);
            let place = Some(random.vector_near(topic).into());
            let row = Item {
                place,
                ..random.item()
            };
            (key, Some(row))
        };
        keys.map(near).collect()
    }

    /// A commit of rows with vectors.
    pub(crate) fn fill(&mut self, keys: std::ops::Range<i32>) {
        let rows = self.rows_near(keys, 0..TOPICS);
        self.commit(rows);
    }

    /// A commit that deletes rows.
    pub(crate) fn clear(&mut self, keys: std::ops::Range<i32>) {
        self.commit(keys.map(|key| (key, None)).collect());
    }

    /// One step of the background work; true if there is more to do.
    pub(crate) fn step(&mut self) -> bool {
        let before = upkeep(&self.db);
        let more = self.db.background_step();
        let after = upkeep(&self.db);
        let steps = &mut self.steps;
        steps.assigned += after.assigned - before.assigned;
        steps.folds += after.folds - before.folds;
        steps.splits += after.splits - before.splits;
        steps.merges += after.merges - before.merges;
        steps.recentred += after.recentred - before.recentred;
        steps.swept += after.swept - before.swept;
        if before.draining > 0 {
            steps.drains += after.commits - before.commits;
        }
        if after.swept == before.swept {
            steps.reassigned += after.moved - before.moved;
        }
        more
    }

    /// Background work until there is nothing to do.
    pub(crate) fn settle(&mut self) {
        let steps = (0..100_000).take_while(|_| self.step());
        assert!(steps.count() < 100_000, "upkeep does not end");
    }

    /// The same, and what it does when it finds nothing to do several times.
    pub(crate) fn rest(&mut self) {
        for _ in 0..12 {
            self.settle();
        }
    }
}

/// Commits, upkeep and more, in a world that is photographed.
pub(crate) struct Scene {
    pub(crate) name: &'static str,
    pub(crate) seed: u64,
    /// Before the camera rolls.
    pub(crate) prepare: fn(&mut Stage),
    pub(crate) act: fn(&mut Stage),
    /// What a recovered database is asked to do before its upkeep is run to its end.
    pub(crate) go_on: fn(&Database, &Table<i32, Item>),
}

/// Says which image it was, should the thread panic.
struct Named<'a>(&'a str, &'a Shot);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("image of {}, {}", self.0, self.1.at);
        }
    }
}

/// Plays a scene, recovers what was photographed, and crashes some of the recoveries.
pub(crate) fn enumerate(scene: &Scene) {
    let effort = effort();
    let (shots, states) = play(scene, effort);
    let taken = shots.len();
    let shots = choose(shots, effort.images, effort.seed);
    let kinds: BTreeSet<_> = shots.iter().map(|shot| shot.kind).collect();
    let stride = shots.len().div_ceil(effort.deeper);
    let (mut judge, mut deeper) = (Judge::new(), 0);
    for (at, shot) in shots.iter().enumerate() {
        let _named = Named(scene.name, shot);
        let seed = effort.seed + at as u64;
        let found = recover(scene, shot, seed, &states, &mut judge);
        if at % stride != stride / 2 {
            continue;
        }
        let again = crash_recovery(scene, shot, found, effort);
        for again in &again {
            let _named = Named("its recovery", again);
            recover(scene, again, seed, &states, &mut judge);
        }
        deeper += again.len();
    }
    let (recovered, name, seed) = (shots.len(), scene.name, effort.seed);
    println!(
        "vector crash images: {recovered} of {taken} recovered, of {} kinds, {deeper} at depth 2, \
         {} of {} neighbours, seed {seed}: {name}",
        kinds.len(),
        judge.right,
        judge.all
    );
    judge.done(name);
    assert!(
        recovered > 40 && deeper > 5,
        "{name}: {recovered}, {deeper}"
    );
    assert!(kinds.len() >= 5, "{name}: {kinds:?}");
}

/// The images of a scene, and the states that they may hold.
fn play(scene: &Scene, effort: Effort) -> (Vec<Shot>, Vec<Rows<i32>>) {
    let mut stage = Stage::new(scene.seed);
    (scene.prepare)(&mut stage);
    stage.steps = Steps::default();
    stage.film.roll(stage.sim.disk(), effort);
    (scene.act)(&mut stage);
    let shots = stage.film.cut(stage.sim.disk());
    let Stage {
        db,
        table,
        states,
        sim: _sim,
        ..
    } = stage;
    drop((table, db));
    (shots, states)
}

/// Images of the recovery of an image whose rows are those of a state, and of the upkeep after it.
fn crash_recovery(scene: &Scene, shot: &Shot, state: usize, effort: Effort) -> Vec<Shot> {
    let film: Arc<Film> = Arc::default();
    film.issue(state);
    film.acknowledge(state);
    if shot.promise != Promise::Gone {
        film.promise(shot.promise);
    }
    let sim = SimEnv::with_disk(effort.seed, SimDisk::from_image(&shot.image));
    film.roll(sim.disk(), effort);
    let (db, table) = open(&sim).unwrap();
    (scene.go_on)(&db, &table);
    settle(&db);
    let shots = film.cut(sim.disk());
    drop((table, db));
    choose(shots, effort.per_recovery, effort.seed)
}

/// Opens an image, twice; the state that it holds. Whatever is wrong with it panics.
fn recover(
    scene: &Scene,
    shot: &Shot,
    seed: u64,
    states: &[Rows<i32>],
    judge: &mut Judge,
) -> usize {
    let sim = SimEnv::with_disk(seed, SimDisk::from_image(&shot.image));
    let mut random = Random(seed);
    let mut possible = shot.acknowledged..=shot.issued;
    for round in 0..2 {
        let (db, table) = open(&sim).unwrap_or_else(|error| panic!("recovery failed: {error}"));
        if round == 1 {
            (scene.go_on)(&db, &table);
            for _ in 0..3 {
                settle(&db);
            }
        }
        let rows: Result<Rows<i32>, _> = table.iter(&db.snapshot()).collect();
        let rows = rows.unwrap();
        let state = possible.clone().find(|at| states[*at] == rows);
        let state =
            state.unwrap_or_else(|| panic!("{} rows: no state of {possible:?}", rows.len()));
        possible = state..=state;
        for _ in 0..3 {
            judge.ask(&table, &db.snapshot(), &rows, &random.vector(), 10);
        }
        // One search for all rows: none is lost.
        let mut whole = Judge::new();
        whole.ask(&table, &db.snapshot(), &rows, &random.vector(), rows.len());
        assert_eq!(whole.right, whole.all);
        match round {
            0 => keeps(shot.promise, &db),
            _ => ended(upkeep(&db)),
        }
        drop((table, db));
        let report = terrane::inspect::check_with(&sim.env(), PATH).unwrap();
        assert!(report.is_sound(), "round {round}: {:?}", report.findings);
    }
    *possible.start()
}

/// Whether what was under way when the power went has come to its end.
fn ended(upkeep: MaintenanceStats) {
    let under_way = [upkeep.queue, upkeep.draining, upkeep.receiving];
    assert_eq!(under_way, [0; 3], "{upkeep:?}");
}

/// Whether the searches so far were served as was promised.
fn keeps(promise: Promise, db: &Database) {
    let vectors = db.stats().vectors;
    let served = vectors.first().map(|vector| vector.searches > 0);
    match promise {
        Promise::Nothing => {}
        Promise::Ready => assert_eq!(served, Some(true), "an index that was acknowledged"),
        Promise::Gone => assert_eq!(served, None, "an index that was taken away"),
    }
}
