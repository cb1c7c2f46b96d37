//! A power cut at every I/O boundary while an index is made over a table that is in use, while such
//! a build is cancelled, and while an index is taken away.
//!
//! Every image opens and holds the rows of some state that may be; an index that was acknowledged
//! is used, one that was taken away is not there, and whatever is left of a build or a drop, the
//! same call again makes an index that finds every row (`stage.rs` asks for all of them).

use std::ops::ControlFlow;
use std::sync::Arc;

use terrane::{Built, Database, Table};

use crate::film::Promise;
use crate::stage::*;
use crate::world::*;

/// Makes the index, or goes on with it, or finds it made.
fn make(db: &Database, table: &Table<i32, Item>) {
    let built = table.create_vector_index(Item::PLACE).run(db);
    assert_eq!(built.unwrap(), Built::Ready);
}

/// A table of rows and no index.
fn rows_alone(stage: &mut Stage) {
    let (db, table) = (&stage.db, &stage.table);
    table.drop_vector_index(db, Item::PLACE).unwrap();
    for at in 0..5 {
        stage.fill(100 * at..100 * at + 100);
    }
    stage.db.checkpoint().unwrap();
}

/// Commits of another thread while `work` runs, each at whatever moment the scheduler gives it:
/// rows before and behind the cursor of a build, new ones, changed ones, deleted ones.
fn beside(stage: &mut Stage, commits: usize, work: impl FnOnce(&Stage)) {
    let plans: Vec<(usize, Changes)> = (0..commits)
        .map(|_| {
            let random = &mut stage.random;
            let change = |_| {
                let key = random.below(560) as i32;
                (key, (random.below(4) > 0).then(|| random.item()))
            };
            let changes = (0..6).map(change).collect();
            (stage.plan(&changes), changes)
        })
        .collect();
    let (db, table, film) = (stage.db.clone(), stage.table.clone(), stage.film.clone());
    let body = move || {
        for (state, changes) in &plans {
            commit_to((&db, &table), &film, *state, changes);
        }
    };
    stage.sim.preempt_at_locks(true);
    let spawn = stage.sim.env().spawn;
    let joiner = spawn.spawn("writer", Box::new(body)).unwrap();
    work(stage);
    joiner.join().unwrap();
    stage.sim.preempt_at_locks(false);
    stage.steps.commits += commits as u64;
}

// Seen to fail with a cursor that is written before the rows that it stands behind, and with a
// check that takes the rows before which the cursor stands for lost.
#[test]
fn an_index_is_made_beside_commits() {
    enumerate(&Scene {
        name: "create index",
        seed: 6,
        prepare: rows_alone,
        act: |stage| {
            let film = Arc::clone(&stage.film);
            beside(stage, 12, |stage| {
                let (db, mut slices) = (stage.db.clone(), 0);
                let create = stage.table.create_vector_index(Item::PLACE);
                let create = create.on_progress(|_| {
                    slices += 1;
                    // What the slice wrote goes to the disk without a commit that waits for it.
                    db.background_step();
                    ControlFlow::Continue(())
                });
                assert_eq!(create.run(&stage.db).unwrap(), Built::Ready);
                film.promise(Promise::Ready);
                assert!(slices > 6, "{slices} slices");
            });
            stage.fill(560..600);
            stage.rest();
            stage.db.checkpoint().unwrap();
        },
        go_on: make,
    });
}

// Seen to fail with a build that says it is ready, and with a drop that says it is done, before the
// log has it on the disk.
#[test]
fn a_build_is_cancelled_and_an_index_is_taken_away() {
    enumerate(&Scene {
        name: "cancel and drop",
        seed: 7,
        prepare: rows_alone,
        act: |stage| {
            let film = Arc::clone(&stage.film);
            beside(stage, 4, |stage| {
                let (db, mut slices) = (stage.db.clone(), 0);
                let create = stage.table.create_vector_index(Item::PLACE);
                let create = create.on_progress(|_| {
                    slices += 1;
                    db.background_step();
                    match slices {
                        4.. => ControlFlow::Break(()),
                        _ => ControlFlow::Continue(()),
                    }
                });
                assert_eq!(create.run(&stage.db).unwrap(), Built::Cancelled);
                film.promise(Promise::Gone);
            });
            stage.fill(560..580);
            film.promise(Promise::Nothing);
            make(&stage.db, &stage.table);
            film.promise(Promise::Ready);
            stage.settle();
            beside(stage, 4, |stage| {
                film.promise(Promise::Nothing);
                let (db, table) = (&stage.db, &stage.table);
                table.drop_vector_index(db, Item::PLACE).unwrap();
                film.promise(Promise::Gone);
            });
            stage.fill(580..600);
            stage.db.checkpoint().unwrap();
            stage.settle();
        },
        go_on: make,
    });
}
