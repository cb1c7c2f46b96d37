//! Models of readers against commits and the collector: loom runs the shipped index, owners and
//! read positions through all interleavings.
//!
//! `RUSTFLAGS='--cfg loom' LOOM_MAX_PREEMPTIONS=3 cargo test --release -p terrane --lib models
//! --target-dir target/loom`. Each rule is also modelled switched off, and must then fail.

use std::sync::Arc;

use loom::thread;
use terrane_wal::lsn::{TreeId, Ts};
use terrane_wal::sync::{AtomicU64, Ordering};

use crate::txn::owner::Owner;
use crate::txn::positions::ReadPositions;
use crate::txn::recent::{Claim, Recent, Seen};

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
