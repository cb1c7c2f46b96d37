//! The epoch cut as a model test on the real store: random work with eviction, merges, overflow,
//! failing I/O and abandoned checkpoints; every image plus its redo is the log's state (T2, M1,
//! M2).

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use terrane_btree::{Checkpoint, Step, Store, StoreError, Tree};
use terrane_wal::env::SimEnv;
use terrane_wal::env::{Park, Spawn};
use terrane_wal::io::sim::{CompletionOrder, Fault, OpKind, SimDisk};

use crate::rig::{self, Dice, ModelLog};

/// Opens what a crash left and holds it, with its redo, against the log.
fn judge(disk: &SimDisk, log: &ModelLog, published: u64, how: &str) {
    let (store, opened) = rig::open(disk).unwrap_or_else(|error| panic!("{how}: {error}"));
    assert!(
        opened.generation >= published,
        "{how}: an acknowledged image is gone"
    );
    let rows = rig::content(&store).unwrap_or_else(|error| panic!("{how}: {error}"));
    let hi = opened.image_hi_lsn.0;
    let rows = log.redo(rows, opened.redo_lsn.0, hi);
    assert!(
        rows == log.rows_at(hi),
        "{how}: image {} and its redo are not the log",
        opened.epoch
    );
    rig::assert_clean(&store, how);
}

/// One thread, work and checkpoint steps in random order, crashes and failures at random.
fn one_run(seed: u64) -> (u64, u64) {
    let disk = SimDisk::seeded(seed);
    disk.set_completion_order(CompletionOrder::Seeded);
    let (store, tree) = rig::create(&disk, &rig::plain_env(&disk)).expect("create");
    let log = Arc::new(ModelLog::default());
    let mut dice = Dice(seed);
    let mut running: Option<Checkpoint> = None;
    let mut generation = 2;
    let mut deletes = 20;
    for _ in 0..1200 {
        log.run(&tree, dice.op(1500, 0)).expect("update");
    }
    for _ in 0..1500 {
        match dice.below(1000) {
            0..800 => {
                let at = log.sequence(dice.op(1500, deletes));
                let op = log.op(at);
                loop {
                    match rig::apply(&tree, &op) {
                        Ok(()) => break,
                        // The pool could not make room just now.
                        Err(StoreError::Io(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                log.applied(at);
            }
            800..960 => match &mut running {
                None => running = Some(store.begin_checkpoint(log.clone()).expect("begin")),
                Some(checkpoint) => match checkpoint.step() {
                    Ok(Step::Done(published)) => {
                        assert_eq!(published.generation, generation + 1);
                        generation = published.generation;
                        running = None;
                    }
                    Ok(_) => {}
                    Err(StoreError::Io(_)) => running = None,
                    Err(error) => panic!("{error}"),
                },
            },
            960..970 => log.flush(),
            970..974 => {
                // Abandoned, or published if its superblock was on its way.
                running = None;
                generation = store.stats().generation;
            }
            974..984 => deletes = [5, 20, 90][dice.below(3) as usize],
            984..990 => {
                let op = [OpKind::Write, OpKind::Read][dice.below(2) as usize];
                // Not META: a superblock that could not be written poisons.
                let part = ["data.", "map."][dice.below(2) as usize];
                disk.inject(Fault::nth(op, dice.below(4)).on(part));
            }
            _ => {
                let after = disk.crash(dice.next());
                judge(&after, &log, generation, &format!("seed {seed}"));
            }
        }
    }
    disk.clear_faults();
    drop(running);
    log.flush();
    rig::checkpoint(&store, &log).expect("checkpoint");
    generation = store.stats().generation;
    rig::assert_clean(&store, "at the end");
    let stats = store.stats();
    drop((tree, store));
    judge(&disk, &log, generation, "reopened");
    (stats.pages_evicted_dirty, stats.checkpoints_abandoned)
}

/// Seen failing with a frozen copy that moves the live location back, and with lists not given
/// back by an abandoned checkpoint.
#[test]
fn every_image_and_its_redo_is_the_log() {
    let config = ProptestConfig {
        cases: 8,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    // A single seed may abandon none.
    let (evicted, abandoned) = (Cell::new(0), Cell::new(0));
    let run = TestRunner::new(config).run(&any::<u64>(), |seed| {
        let counts = one_run(seed);
        evicted.set(evicted.get() + counts.0);
        abandoned.set(abandoned.get() + counts.1);
        Ok(())
    });
    run.unwrap();
    assert!(evicted.get() > 0 && abandoned.get() > 0);
}

/// T2, the schedule `epoch_cut_eviction`: a leaf splits in e+1 and is evicted before the lists of e
/// are written; image e names neither its new slot nor its new sibling.
///
/// Seen to fail with a publish to the list of the epoch that is open at the time of the write, and
/// with the live places of pages written in place of the lists.
#[test]
fn a_split_evicted_before_the_cut_is_written_is_not_in_the_image() {
    let disk = SimDisk::seeded(1);
    let (store, tree) = rig::create(&disk, &rig::plain_env(&disk)).expect("create");
    let log = ModelLog::eager();
    let mut dice = Dice(1);
    for _ in 0..300 {
        log.run(&tree, dice.op(300, 0)).expect("update");
    }
    let mut checkpoint = store.begin_checkpoint(log.clone()).expect("begin");
    // Begin, drain, scan: e is closed, nothing of it is written yet.
    while checkpoint.phase() != "write" {
        checkpoint.step().expect("step");
    }
    let closed = log.len();
    let evicted = store.stats().pages_evicted_dirty;
    // Splits, merges and overflow of e+1, far more than memory holds: frozen copies of e are pushed
    // out as well.
    for round in 0..3 {
        for _ in 0..800 {
            log.run(&tree, dice.op(2500, [0, 80, 0][round]))
                .expect("update");
        }
    }
    let stats = store.stats();
    assert!(stats.pages_evicted_dirty > evicted + 50, "{stats:?}");
    assert!(stats.pages_copied > 0, "{stats:?}");
    while !matches!(checkpoint.step().expect("step"), Step::Done(_)) {}
    let after = disk.crash(0);
    let (image, opened) = rig::open(&after).expect("open");
    assert_eq!(opened.image_hi_lsn.0, closed);
    assert!(rig::content(&image).expect("rows") == log.rows_at(closed));
    rig::assert_clean(&image, "image e");
    rig::assert_clean(&store, "the store that went on");
}

/// Another thread changes pages between any two steps of a checkpoint, and is never made to wait.
#[test]
fn a_second_thread_commits_between_any_two_steps() {
    let disk = SimDisk::seeded(2);
    let (store, tree) = rig::create(&disk, &rig::plain_env(&disk)).expect("create");
    let log = ModelLog::eager();
    let mut dice = Dice(2);
    for _ in 0..600 {
        log.run(&tree, dice.op(600, 0)).expect("update");
    }
    let mut steps = 0;
    for _ in 0..3 {
        let mut checkpoint = store.begin_checkpoint(log.clone()).expect("begin");
        loop {
            let (other, tree, seed) = (log.clone(), tree.clone(), dice.next());
            let between = std::thread::spawn(move || {
                let mut dice = Dice(seed);
                for _ in 0..5 {
                    other.run(&tree, dice.op(600, 30)).expect("update");
                }
            });
            // It ends although nobody steps: the checkpoint holds nothing up.
            between.join().expect("the other thread");
            steps += 1;
            if matches!(checkpoint.step().expect("step"), Step::Done(_)) {
                break;
            }
        }
    }
    assert!(steps > 20, "{steps}");
    judge(&disk.crash(4), &log, 5, "after");
    let io = terrane_wal::io::Disk::stats(&disk);
    let batched = io.batched[terrane_wal::io::Purpose::Checkpoint as usize].load(Ordering::Relaxed);
    assert!(batched > 10, "checkpoints go in batches");
}

struct Shared {
    log: Arc<ModelLog>,
    tree: Tree,
    store: Store,
    done: AtomicU64,
    stop: AtomicBool,
    generation: Mutex<u64>,
}

/// Checkpoints until the end, in competition with another thread that does.
fn keep_checkpointing(shared: &Shared, park: &dyn Park) {
    while !shared.stop.load(Ordering::SeqCst) {
        let Ok(mut checkpoint) = shared.store.begin_checkpoint(shared.log.clone()) else {
            park.yield_now();
            continue;
        };
        loop {
            match checkpoint.step().expect("step") {
                Step::Done(published) => {
                    let mut generation = shared.generation.lock().unwrap();
                    *generation = published.generation.max(*generation);
                    break;
                }
                Step::Working => {}
                Step::Waiting => park.yield_now(),
            }
        }
    }
}

/// Three writers and two checkpointing threads by turns, preempted at every lock and every I/O.
fn by_turns(seed: u64) -> (u64, u64, u64) {
    let sim = SimEnv::new(seed);
    let env = sim.env();
    let (store, tree) = rig::create(sim.disk(), &env).expect("create");
    let shared = Arc::new(Shared {
        log: ModelLog::eager(),
        tree,
        store,
        done: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        generation: Mutex::new(2),
    });
    sim.preempt_at_locks(true);
    let mut threads = Vec::new();
    for writer in 0..3u64 {
        let shared = shared.clone();
        threads.push(start(&*env.spawn, move || {
            let mut dice = Dice(seed ^ writer);
            for round in 0..500 {
                let (mut key, value) = dice.op(400, if round > 300 { 60 } else { 5 });
                // Each writer has its own keys: the log's order of a key is its thread's.
                key.extend_from_slice(format!(" of {writer}").as_bytes());
                shared.log.run(&shared.tree, (key, value)).expect("update");
            }
            shared.done.fetch_add(1, Ordering::SeqCst);
        }));
    }
    // Two of them: one begins as soon as the other is through.
    let checkpointers = [(); 2].map(|()| {
        let (shared, park) = (shared.clone(), env.park.clone());
        start(&*env.spawn, move || keep_checkpointing(&shared, &*park))
    });
    let mut images = 0;
    while shared.done.load(Ordering::SeqCst) < 3 {
        env.park.yield_now();
        let generation = *shared.generation.lock().unwrap();
        let after = sim.disk().crash(seed + images);
        judge(
            &after,
            &shared.log,
            generation,
            &format!("seed {seed}, image {images}"),
        );
        images += 1;
    }
    shared.stop.store(true, Ordering::SeqCst);
    for thread in threads {
        thread.join().expect("writer");
    }
    for checkpointer in checkpointers {
        checkpointer.join().expect("checkpointer");
    }
    rig::assert_clean(&shared.store, "at the end");
    let stats = shared.store.stats();
    (images, stats.pages_copied, stats.pages_evicted)
}

fn start(
    spawn: &dyn Spawn,
    body: impl FnOnce() + Send + 'static,
) -> Box<dyn terrane_wal::env::Joiner> {
    spawn.spawn("model", Box::new(body)).expect("spawn")
}

/// Seen to fail with a publish to the list of the open epoch, with a frozen copy that leaves the
/// set before its place is in the list (an image without the page), and with a published checkpoint
/// that resets the cut when the next one has begun already. The restart of a structure change on a
/// newer page is too rare here; the loom model of the gate and the pool's own test have it.
#[test]
fn writers_and_checkpoints_by_turns() {
    let mut all = (0, 0, 0);
    for seed in 0..60 {
        let one = by_turns(seed * 7919 + 1);
        all = (all.0 + one.0, all.1 + one.1, all.2 + one.2);
    }
    assert!(all.0 > 200 && all.1 > 300 && all.2 > 100, "{all:?}");
}
