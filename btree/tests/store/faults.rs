//! Failing calls between crashes: three checkpoints in a row, one call of them fails, and at every
//! boundary of what follows every kind of power cut.
//!
//! The work runs in the smallest pool, so pages are evicted between and during the checkpoints;
//! rows come, grow past a page, and go in stretches, so pages split, chain and merge. First a run
//! without a fault counts the calls of each kind in each checkpoint; then each of them fails in a
//! run of its own, once and for ever. An image is judged by what it says of itself: with its redo
//! it is the log, also the older one of the two (M2), and sometimes work goes on in it and it is
//! crashed again. Equal images of all runs are judged once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use terrane_btree::{Store, StoreError, Tree};
use terrane_wal::io::sim::{CrashCaps, Fault, Image, IoEvent, OpKind, Phase, SimDisk};

use crate::rig::{self, Dice, ModelLog};

/// Calls that can fail: what they do, and on which files.
const CALLS: [(OpKind, &str); 10] = [
    (OpKind::Write, "data."),
    (OpKind::Sync, "data."),
    (OpKind::Allocate, "data."),
    (OpKind::Write, "map."),
    (OpKind::Sync, "map."),
    (OpKind::Create, "map."),
    (OpKind::Remove, "map."),
    (OpKind::SyncDir, ""),
    (OpKind::Write, "META"),
    (OpKind::Read, ""),
];

/// Reads have no boundaries to be counted at: so many of them fail in each checkpoint.
const READS: u64 = 3;
const ROUNDS: usize = 3;
const KEYS: u64 = 700;

/// What fails in a run.
#[derive(Clone, Debug)]
struct Failing {
    round: usize,
    fault: Fault,
}

/// What all runs have seen together.
#[derive(Debug, Default)]
struct Seen {
    images: BTreeSet<(u64, u64)>,
    boundaries: u64,
    judged: u64,
    older: u64,
    deeper: u64,
    /// Checkpoints that failed, by the error's kind.
    failed: BTreeMap<&'static str, u64>,
}

/// How much of it all is done.
#[derive(Clone, Copy)]
struct Effort {
    /// Of so many boundaries one is looked at; runs begin at different ones.
    stride: u64,
    /// Images of a kind at a boundary.
    images: usize,
    /// Of so many judged images one is gone on with.
    deeper: u64,
}

fn effort() -> Effort {
    match std::env::var("TERRANE_CRASH").as_deref() {
        Ok("full") => Effort {
            stride: 1,
            images: 2,
            deeper: 41,
        },
        _ => Effort {
            stride: 31,
            images: 1,
            deeper: 97,
        },
    }
}

/// Calls of each kind in each round, by what the hook saw.
type Calls = BTreeMap<(usize, usize), u64>;

struct Run {
    disk: SimDisk,
    store: Store,
    tree: Tree,
    log: Arc<ModelLog>,
    dice: Dice,
    /// The newest generation that was acknowledged.
    published: Arc<Mutex<u64>>,
}

fn errors_name(error: &StoreError) -> &'static str {
    match error {
        StoreError::Io(_) => "io",
        StoreError::Poisoned { .. } => "poisoned",
        StoreError::Full { .. } => "full",
        other => panic!("{other}"),
    }
}

impl Run {
    /// Two images of a tree that is larger than the pool.
    fn new(seed: u64) -> Run {
        let disk = SimDisk::seeded(seed);
        let (store, tree) = rig::create(&disk, &rig::plain_env(&disk)).expect("create");
        let mut run = Run {
            disk,
            store,
            tree,
            log: ModelLog::eager(),
            dice: Dice(seed),
            published: Arc::new(Mutex::new(2)),
        };
        for _ in 0..2 {
            run.work(450, 0);
            run.checkpoint().expect("checkpoint");
        }
        run
    }

    fn work(&mut self, ops: u64, deletes: u64) {
        for _ in 0..ops {
            let at = self.log.sequence(self.dice.op(KEYS, deletes));
            let op = self.log.op(at);
            loop {
                match rig::apply(&self.tree, &op) {
                    Ok(()) => break,
                    // The pool could not make room just now.
                    Err(StoreError::Io(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            self.log.applied(at);
        }
    }

    fn checkpoint(&mut self) -> Result<(), StoreError> {
        let done = rig::checkpoint(&self.store, &self.log);
        if done.is_ok() {
            *self.published.lock().unwrap() += 1;
        }
        done
    }

    /// Work and checkpoints by turns. `failing` is in force during one of the checkpoints.
    fn rounds(&mut self, failing: Option<&Failing>, seen: &Mutex<Seen>, round: &Mutex<usize>) {
        for number in 0..ROUNDS + 1 {
            self.work(25, [5, 80, 5, 60][number % 4]);
            *round.lock().unwrap() = number;
            let now = failing.filter(|failing| failing.round == number);
            if let Some(failing) = now {
                self.disk.inject(failing.fault.clone());
            }
            if let Err(error) = self.checkpoint() {
                let mut seen = seen.lock().unwrap();
                *seen.failed.entry(errors_name(&error)).or_default() += 1;
                assert!(failing.is_some(), "{error}");
            }
            self.disk.clear_faults();
        }
        let rows = rig::content(&self.store).expect("rows");
        assert!(rows == self.log.rows_at(self.log.len()), "{failing:?}");
        rig::assert_clean(&self.store, &format!("{failing:?}"));
    }
}

/// The calls that can fail, by round.
fn count_calls(seed: u64) -> Calls {
    let mut run = Run::new(seed);
    let calls: Arc<Mutex<Calls>> = Arc::default();
    let round: Arc<Mutex<usize>> = Arc::default();
    let (count, number) = (calls.clone(), round.clone());
    run.disk.on_io(move |_, event: &IoEvent| {
        if event.phase != Phase::Before {
            return;
        }
        for (kind, (op, part)) in CALLS.iter().enumerate() {
            if event.op == *op && event.path.to_string_lossy().contains(part) {
                let at = (*number.lock().unwrap(), kind);
                *count.lock().unwrap().entry(at).or_default() += 1;
            }
        }
    });
    run.rounds(None, &Mutex::default(), &round);
    run.disk.off_io();
    let mut calls = std::mem::take(&mut *calls.lock().unwrap());
    for round in 0..ROUNDS {
        calls.insert((round, CALLS.len() - 1), READS);
    }
    calls
}

/// An image with its newest generation made unreadable.
fn without_newest(image: &Image) -> Option<Image> {
    let path = rig::root().join("META");
    let mut image = image.clone();
    let mut meta = image.read(&path)?;
    let generation = |copy: usize| {
        let at = copy * 65536;
        let crc = u32::from_le_bytes(meta[at + 8..at + 12].try_into().unwrap());
        let good = crc == crc32fast::hash(&meta[at + 12..at + 4096]);
        let number = u64::from_le_bytes(meta[at + 48..at + 56].try_into().unwrap());
        if good { number } else { 0 }
    };
    let all = [0, 1, 2, 3].map(generation);
    let newest = all.into_iter().max()?;
    for copy in (0..4).filter(|&copy| all[copy] == newest) {
        meta[copy * 65536 + 100] ^= 1;
    }
    assert!(image.replace(&path, &meta));
    Some(image)
}

/// Opens an image; with its redo it is the log.
fn judge(image: &Image, log: &ModelLog, least: u64, how: &str) {
    let disk = SimDisk::from_image(image);
    let (store, opened) = rig::open(&disk).unwrap_or_else(|error| panic!("{how}: {error}"));
    let generation = opened.generation;
    assert!(generation >= least, "{how}: generation {generation}, not {least}");
    let rows = rig::content(&store).unwrap_or_else(|error| panic!("{how}: {error}"));
    let hi = opened.image_hi_lsn.0;
    let rows = log.redo(rows, opened.redo_lsn.0, hi);
    let epoch = opened.epoch;
    assert!(rows == log.rows_at(hi), "{how}: image {epoch} is not the log");
    rig::assert_clean(&store, how);
}

/// Recovers an image, goes on working in it, and crashes that again at every boundary.
fn go_on(image: &Image, log: &ModelLog, how: &str) -> u64 {
    let disk = SimDisk::from_image(image);
    let count: Arc<Mutex<u64>> = Arc::default();
    let (store, opened) = rig::open(&disk).unwrap_or_else(|error| panic!("{how}: {error}"));
    let log = log.fork(opened.redo_lsn.0);
    let tree = store.tree(rig::TREE).expect("tree").expect("it is there");
    let (images, copy) = (count.clone(), log.clone());
    let before = format!("{how}, gone on with");
    let least = opened.generation;
    disk.on_io(move |disk: &SimDisk, event: &IoEvent| {
        if !event.boundary.is_multiple_of(7) {
            return;
        }
        for (_, image) in disk.crash_images(event.boundary, &CrashCaps::at_most(1)).take(4) {
            *images.lock().unwrap() += 1;
            let how = format!("{before}, {event:?}, {}", image.how());
            judge(&image, &copy, least, &how);
        }
    });
    let mut dice = Dice(image.hash());
    for at in opened.redo_lsn.0..log.len() {
        rig::apply(&tree, &log.op(at)).expect("redo");
        log.applied(at);
    }
    for _ in 0..2 {
        rig::checkpoint(&store, &log).expect("checkpoint");
        for _ in 0..15 {
            log.run(&tree, dice.op(KEYS, 40)).expect("update");
        }
    }
    disk.off_io();
    let rows = rig::content(&store).expect("rows");
    assert!(rows == log.rows_at(log.len()), "{how}, gone on with");
    rig::assert_clean(&store, how);
    *count.lock().unwrap()
}

/// Looks at boundaries of a run from now on.
fn watch(run: &Run, what: &str, offset: u64, effort: Effort, seen: &Arc<Mutex<Seen>>) {
    let (log, published) = (run.log.clone(), run.published.clone());
    let (seen, what) = (seen.clone(), what.to_owned());
    run.disk.on_io(move |disk: &SimDisk, event: &IoEvent| {
        if (event.boundary + offset) % effort.stride != 0 {
            return;
        }
        let least = *published.lock().unwrap();
        let mut seen = seen.lock().unwrap();
        seen.boundaries += 1;
        let caps = CrashCaps::at_most(effort.images);
        for (_, image) in disk.crash_images(event.boundary, &caps) {
            if !seen.images.insert((image.hash(), least)) {
                continue;
            }
            seen.judged += 1;
            let how = format!("{what}, {event:?}, {}", image.how());
            judge(&image, &log, least, &how);
            let older = without_newest(&image).filter(|_| seen.judged % 3 == 0);
            if let Some(older) = &older {
                seen.older += 1;
                judge(older, &log, least - 1, &format!("{how}, the older image"));
            }
            if seen.judged % effort.deeper == 0 {
                seen.deeper += go_on(older.as_ref().unwrap_or(&image), &log, &how);
            }
        }
    });
}

/// Every call of three checkpoints fails, once and for ever, and every crash after it leads to the
/// log.
#[test]
fn every_failing_call_and_every_crash_behind_it() {
    let effort = effort();
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let mut runs = 0;
    for seed in 1..=2 {
        let calls = count_calls(seed);
        for (&(round, kind), &count) in calls.range(..(ROUNDS, 0)) {
            let (op, part) = CALLS[kind];
            for (n, sticky) in (0..count).flat_map(|n| [(n, false), (n, true)]) {
                let fault = Fault::nth(op, n).on(part);
                let fault = if sticky { fault.sticky() } else { fault };
                let failing = Failing { round, fault };
                let mut run = Run::new(seed);
                let what = format!("seed {seed}, {failing:?}");
                watch(&run, &what, runs * 11, effort, &seen);
                run.rounds(Some(&failing), &seen, &Mutex::default());
                run.disk.off_io();
                runs += 1;
            }
        }
    }
    let seen = seen.lock().unwrap();
    println!(
        "failing calls: {runs} runs, {} of {} boundaries' images judged, {} older ones, {} again \
         behind a recovery; failed: {:?}",
        seen.judged, seen.boundaries, seen.older, seen.deeper, seen.failed
    );
    assert!(runs > 100 && seen.judged > 500 && seen.older > 100 && seen.deeper > 100);
    assert!(seen.failed["io"] > 50 && seen.failed["poisoned"] > 10);
}
