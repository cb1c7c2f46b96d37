//! Models of readers against commits and the collector, and of serializable commits against each
//! other: loom runs the shipped index, owners, positions, ring, prefix and validation through all
//! interleavings.
//!
//! `RUSTFLAGS='--cfg loom' LOOM_MAX_PREEMPTIONS=3 cargo test --release -p terrane --lib models
//! --target-dir target/loom`. Each rule is also modelled switched off, and must then fail.

use std::ops::Bound;
use std::sync::Arc;

use loom::thread;
use terrane_wal::lsn::{Lsn, TreeId, Ts};
use terrane_wal::sync::{AtomicU64, Mutex, Ordering};

use crate::txn::owner::Owner;
use crate::txn::positions::ReadPositions;
use crate::txn::prefix::Prefix;
use crate::txn::range::Range;
use crate::txn::reach::Reach;
use crate::txn::recent::{Claim, Recent, Seen};
use crate::txn::ring::{Ring, RowKey};
use crate::txn::tentative::Tentative;
use crate::txn::validate::Reads;

const TREE: TreeId = TreeId(300);
const KEY: &[u8] = b"k";
/// The leaf row: a value, and above it the versioned bit.
const VERSIONED: u64 = 1 << 32;

/// One row with its index and its positions: the value 1 of long ago, then 2 from ts 10 on.
struct World {
    leaf: AtomicU64,
    recent: Recent,
    reads: Arc<ReadPositions>,
    applied: AtomicU64,
    durable: AtomicU64,
}

impl World {
    fn new() -> Arc<World> {
        Arc::new(World {
            leaf: AtomicU64::new(1),
            recent: Recent::new(),
            reads: ReadPositions::new(),
            applied: AtomicU64::new(9),
            durable: AtomicU64::new(9),
        })
    }

    /// Steps 3 to 8 of the commit at ts 10.
    fn commit(&self) {
        let (owner, key) = (Owner::new(1), Arc::from(KEY));
        assert!(matches!(
            self.recent.claim(TREE, &key, &owner, None),
            Claim::Granted(_)
        ));
        owner.set_stamp(Ts(10));
        self.recent.push(TREE, KEY, Ts(10), Some(b"1"), false);
        self.leaf.store(2 | VERSIONED, Ordering::Release);
        self.recent.release(TREE, KEY, &owner);
        owner.released();
        self.applied.store(10, Ordering::Release);
    }

    fn visible(&self) -> Ts {
        let applied = self.applied.load(Ordering::Acquire);
        Ts(applied.min(self.durable.load(Ordering::Acquire)))
    }

    fn index(&self, at: Ts) -> Option<u64> {
        match self.recent.seen(TREE, KEY, at) {
            Seen::Leaf(_) => None,
            Seen::Older(_, value) => Some(u64::from(value.expect("there is a row")[0] - b'0')),
            Seen::Gone => panic!("the version of {at} is gone"),
        }
    }

    /// The read rule: the leaf, then, if its bit is set, the index (R1).
    fn read(&self, at: Ts) -> u64 {
        let leaf = self.leaf.load(Ordering::Acquire);
        if leaf & VERSIONED == 0 {
            return leaf;
        }
        self.index(at).unwrap_or(leaf & !VERSIONED)
    }

    /// The rule turned round.
    fn read_index_first(&self, at: Ts) -> u64 {
        let index = self.index(at);
        index.unwrap_or(self.leaf.load(Ordering::Acquire) & !VERSIONED)
    }

    fn collect(&self, visible: Ts) {
        let horizon = self.reads.horizon_from(self.recent.floor(), visible);
        self.recent.collect(TREE, KEY, horizon);
    }
}

fn leaf_and_index(read: fn(&World, Ts) -> u64) {
    loom::model(move || {
        let world = World::new();
        let writer = {
            let world = world.clone();
            thread::spawn(move || world.commit())
        };
        assert_eq!(read(&world, Ts(9)), 1, "X3");
        writer.join().unwrap();
    });
}

#[test]
fn reader_leaf_then_index() {
    leaf_and_index(World::read);
}

#[test]
#[should_panic(expected = "X3")]
fn reader_leaf_then_index_off() {
    leaf_and_index(World::read_index_first);
}

/// ts 10 is applied and never durable; a collector runs; a snapshot begins at 9.
fn horizon(position: fn(&World) -> Ts) {
    loom::model(move || {
        let world = World::new();
        let writer = {
            let world = world.clone();
            thread::spawn(move || world.commit())
        };
        let collector = {
            let world = world.clone();
            thread::spawn(move || world.collect(position(&world)))
        };
        let pin = world
            .reads
            .pin(std::time::Duration::ZERO, || world.visible());
        assert_eq!(world.read(pin.ts()), 1, "X6");
        drop(pin);
        writer.join().unwrap();
        collector.join().unwrap();
        let pin = world
            .reads
            .pin(std::time::Duration::ZERO, || world.visible());
        assert_eq!(world.read(pin.ts()), 1, "X6");
    });
}

#[test]
fn horizon_below_visible() {
    horizon(World::visible);
}

#[test]
#[should_panic(expected = "X6")]
fn horizon_below_visible_off() {
    horizon(|world| Ts(world.applied.load(Ordering::Acquire)));
}

/// A snapshot begins while the commit is applied and made durable and the collector runs.
#[test]
fn snapshot_begin_against_apply_and_collect() {
    loom::model(|| {
        let world = World::new();
        let writer = {
            let world = world.clone();
            thread::spawn(move || {
                world.commit();
                world.durable.store(10, Ordering::Release);
            })
        };
        let collector = {
            let world = world.clone();
            thread::spawn(move || world.collect(world.visible()))
        };
        let pin = world
            .reads
            .pin(std::time::Duration::ZERO, || world.visible());
        let expected = if pin.ts() >= Ts(10) { 2 } else { 1 };
        assert_eq!(world.read(pin.ts()), expected, "X3");
        assert_eq!(world.read(pin.ts()), expected, "X3, again");
        drop(pin);
        writer.join().unwrap();
        collector.join().unwrap();
    });
}

/// Two rows, 0 from long ago, and everything that serializable commits meet at.
struct Pair {
    leaves: [AtomicU64; 2],
    recent: Recent,
    ring: Ring,
    prefix: Prefix,
    /// The sequencer.
    last: Mutex<u64>,
}

type State = [u64; 2];

/// A transaction of the pair.
#[derive(Clone, Copy)]
struct Step {
    reads: &'static [usize],
    writes: usize,
    value: fn(State) -> u64,
}

/// How a commit is validated.
#[derive(Clone, Copy)]
struct Rule {
    /// Commits since the snapshot up to which the ring is asked before sequencing, not the index.
    few: usize,
    /// After sequencing, too.
    after: bool,
}

/// The time of the first state.
const LONG_AGO: u64 = 9;

impl Pair {
    fn new() -> Arc<Pair> {
        Arc::new(Pair {
            leaves: [AtomicU64::new(0), AtomicU64::new(0)],
            recent: Recent::new(),
            ring: Ring::new(Ts(LONG_AGO)),
            prefix: Prefix::new(Lsn(LONG_AGO), Ts(LONG_AGO)),
            last: Mutex::new(LONG_AGO),
        })
    }

    fn key(row: usize) -> RowKey {
        (TREE, Arc::from([b'x' + row as u8]))
    }

    fn read(&self, row: usize, at: Ts) -> u64 {
        let leaf = self.leaves[row].load(Ordering::Acquire);
        if leaf & VERSIONED == 0 {
            return leaf;
        }
        match self.recent.seen(TREE, &Pair::key(row).1, at) {
            Seen::Leaf(_) => leaf & !VERSIONED,
            Seen::Older(_, value) => u64::from(value.expect("there is a row")[0]),
            Seen::Gone => panic!("the version of {at} is gone"),
        }
    }

    /// Steps 3 to 8 of a commit; where it stands, if it came through.
    fn run(&self, step: Step, rule: Rule) -> Option<Ts> {
        let read_ts = self.prefix.applied_ts();
        let (mut seen, mut reads) = ([0; 2], Reads::default());
        for &row in step.reads {
            let (tree, key) = Pair::key(row);
            seen[row] = self.read(row, read_ts);
            // By scan and by key in turns of what is read.
            if row == 0 {
                let reach = reach_from(&key);
                reach.set(false, &key);
                reads.scan(reach);
            } else {
                reads.key(tree, &key);
            }
        }
        reads.take_scans();
        let (tree, key) = Pair::key(step.writes);
        let owner = Owner::new(1 + step.writes as u64);
        let claim = self.recent.claim(tree, &key, &owner, Some(read_ts));
        assert!(matches!(claim, Claim::Granted(_)), "nobody else writes it");
        let placed = self.sequence(&reads, read_ts, &owner, step.writes, rule);
        if let Some(ts) = placed {
            let before = self.leaves[step.writes].load(Ordering::Acquire);
            let before = [(before & !VERSIONED) as u8];
            self.recent.push(tree, &key, ts, Some(&before), false);
            let value = (step.value)(seen) | VERSIONED;
            self.leaves[step.writes].store(value, Ordering::Release);
        }
        self.recent.release(tree, &key, &owner);
        owner.released();
        if let Some(ts) = placed {
            self.prefix.mark(ts);
        }
        placed
    }

    /// Validation, sequencer, validation.
    fn sequence(
        &self,
        reads: &Reads,
        read_ts: Ts,
        owner: &Arc<Owner>,
        row: usize,
        rule: Rule,
    ) -> Option<Ts> {
        let since = self.ring.since(read_ts, rule.few);
        let checked = reads.check_before(&self.recent, &since, read_ts, owner);
        checked.ok()?;
        let keys: Arc<[RowKey]> = Arc::from(vec![Pair::key(row)]);
        let ts = {
            let mut last = self.last.lock();
            let ts = Ts(*last + 1);
            owner.set_stamp(ts);
            self.ring.push(ts, &keys);
            self.prefix.enter(Lsn(*last), Lsn(ts.0), ts);
            *last = ts.0;
            ts
        };
        if rule.after && reads.changed_between(&self.ring, since.newest, ts) {
            self.prefix.mark(ts);
            return None;
        }
        Some(ts)
    }
}

/// The reach of a scan from `key` on.
fn reach_from(key: &[u8]) -> Arc<Reach> {
    Arc::new(Reach::new(Arc::new(Range {
        tree: TREE,
        lower: Bound::Included(key.to_vec()),
        upper: Bound::Unbounded,
    })))
}

/// The states that a reader beside the steps, and after all of them, sees in this order.
fn serial(steps: [Step; 2], committed: [bool; 2], order: [usize; 3]) -> (State, State) {
    let (mut state, mut seen) = ([0; 2], [0; 2]);
    for who in order {
        match steps.get(who) {
            Some(step) if committed[who] => state[step.writes] = (step.value)(state),
            Some(_) => {}
            None => seen = state,
        }
    }
    (seen, state)
}

const ORDERS: [[usize; 3]; 6] = [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
];

/// Two commits at once; then every prefix that a reader may have taken is held against the serial
/// orders of those that came through. (What a reader sees at one position never changes, so it
/// need not run beside them.)
fn crossing(steps: [Step; 2], few: usize, after: bool) {
    let rule = Rule { few, after };
    loom::model(move || {
        let pair = Pair::new();
        let other = {
            let pair = pair.clone();
            thread::spawn(move || pair.run(steps[1], rule))
        };
        let placed = [pair.run(steps[0], rule), other.join().unwrap()];
        let committed = placed.map(|ts| ts.is_some());
        assert!(committed != [false; 2], "one of two comes through");
        let state = |at: Ts| [0, 1].map(|row| pair.read(row, at));
        let end = state(pair.prefix.applied_ts());
        let prefixes = placed.into_iter().flatten().chain([Ts(LONG_AGO)]);
        for seen in prefixes.map(state) {
            let is_serial = |order| serial(steps, committed, order) == (seen, end);
            assert!(ORDERS.into_iter().any(is_serial), "X4: {seen:?}, {end:?}");
        }
    });
}

/// Each reads what the other one writes.
const CROSSING: [Step; 2] = [
    Step {
        reads: &[1],
        writes: 0,
        value: |state| state[1] + 1,
    },
    Step {
        reads: &[0],
        writes: 1,
        value: |state| state[0] + 1,
    },
];

/// A withdrawal that pays a fee if it sees nothing, and a deposit (Fekete and others, 2004).
const FEE: [Step; 2] = [
    Step {
        reads: &[0, 1],
        writes: 1,
        value: |state| if state == [0; 2] { 2 } else { 1 },
    },
    Step {
        reads: &[0],
        writes: 0,
        value: |state| state[0] + 5,
    },
];

/// Commits since the snapshot that are looked through.
const BY_RING: usize = 2;
const BY_INDEX: usize = 0;

#[test]
fn crossing_pair_and_prefix_reader() {
    crossing(CROSSING, BY_RING, true);
}

#[test]
fn crossing_pair_and_prefix_reader_by_index() {
    crossing(CROSSING, BY_INDEX, true);
}

#[test]
#[should_panic(expected = "X4")]
fn crossing_pair_and_prefix_reader_off() {
    crossing(CROSSING, BY_RING, false);
}

#[test]
#[should_panic(expected = "X4")]
fn crossing_pair_and_prefix_reader_by_index_off() {
    crossing(CROSSING, BY_INDEX, false);
}

#[test]
fn read_only_anomaly() {
    crossing(FEE, BY_RING, true);
}

#[test]
fn read_only_anomaly_by_index() {
    crossing(FEE, BY_INDEX, true);
}

#[test]
#[should_panic(expected = "X4")]
fn read_only_anomaly_off() {
    crossing(FEE, BY_RING, false);
}

#[test]
#[should_panic(expected = "X4")]
fn read_only_anomaly_by_index_off() {
    crossing(FEE, BY_INDEX, false);
}

/// A scan is about to give out a row on one thread while its transaction begins to commit on
/// another: what is given out is among what is validated.
fn scan_beside_commit(set_first: bool, end_first: bool) {
    loom::model(move || {
        let (reach, tentative) = (reach_from(b"x"), Arc::new(Tentative::default()));
        let mut reads = Reads::default();
        reads.scan(reach.clone());
        let scan = {
            let tentative = tentative.clone();
            thread::spawn(move || {
                let open = !set_first && tentative.check().is_ok();
                reach.set(false, b"y");
                open || set_first && tentative.check().is_ok()
            })
        };
        if end_first {
            tentative.end();
        }
        reads.take_scans();
        tentative.end();
        let given = scan.join().unwrap();
        assert!(!given || !reads.is_empty(), "H2");
    });
}

#[test]
fn scan_beside_commit_ends_first() {
    scan_beside_commit(true, true);
}

#[test]
#[should_panic(expected = "H2")]
fn scan_beside_commit_looks_too_early_off() {
    scan_beside_commit(false, true);
}

#[test]
#[should_panic(expected = "H2")]
fn scan_beside_commit_ends_too_late_off() {
    scan_beside_commit(true, false);
}
