//! Where the tests' trees live: in memory alone, or in a store on the simulated disk whose pool
//! holds 64 pages, so that nearly every step evicts, writes and reads.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use terrane_btree::check::{TreeReport, check_tree};
use terrane_btree::{Class, LogView, Step, Store, StoreOptions, Tree};
use terrane_wal::clock::SystemClock;
use terrane_wal::env::{Env, SystemPark, SystemRng, SystemSpawn};
use terrane_wal::io::sim::SimDisk;
use terrane_wal::lsn::{Lsn, Term, TreeId, Ts};

/// A log in which everything is durable at once.
#[derive(Debug)]
struct NoLog;

impl LogView for NoLog {
    fn redo_lsn(&self) -> Lsn {
        Lsn(1)
    }
    fn image_hi(&self) -> (Lsn, Ts, Term) {
        (Lsn(1), Ts(1), Term::FIRST)
    }
    fn safe_lsn(&self) -> Lsn {
        Lsn(1)
    }
    fn nudge(&self) {}
    fn clock_bound(&self) -> u64 {
        1
    }
}

/// A tree and what it lives in.
pub(crate) struct World {
    /// The tree.
    pub(crate) tree: Tree,
    class: Class,
    store: Option<(Store, Env)>,
}

const TREE: TreeId = TreeId(256);

fn tiny(class: Class) -> StoreOptions {
    StoreOptions {
        memory_bytes: 64 * class.bytes(),
        ..StoreOptions::default()
    }
}

impl World {
    /// A tree in memory.
    pub(crate) fn in_memory(class: Class) -> World {
        World {
            tree: Tree::in_memory(TREE, class, 256 << 20).unwrap(),
            class,
            store: None,
        }
    }

    /// A tree in a store with 64 frames.
    pub(crate) fn tiny(class: Class) -> World {
        let env = Env {
            disk: Arc::new(SimDisk::new()),
            clock: Arc::new(SystemClock::new()),
            rng: Arc::new(SystemRng::seeded(1)),
            spawn: Arc::new(SystemSpawn),
            park: Arc::new(SystemPark),
        };
        let store = Store::create(&env, Path::new("/"), [7; 16], tiny(class)).unwrap();
        let tree = store.create_tree(TREE, class).unwrap();
        World {
            tree,
            class,
            store: Some((store, env)),
        }
    }

    /// One checkpoint, if there is a disk.
    pub(crate) fn checkpoint(&self) {
        if let Some((store, _)) = &self.store {
            let mut checkpoint = store.begin_checkpoint(Arc::new(NoLog)).unwrap();
            loop {
                match checkpoint.step().unwrap() {
                    Step::Done(_) => break,
                    Step::Waiting => std::thread::yield_now(),
                    Step::Working => {}
                }
            }
        }
    }

    /// Checkpoints, one after the other, until `done`. Returns how many.
    pub(crate) fn checkpoint_until(&self, done: &AtomicBool) -> usize {
        if self.store.is_none() {
            return 1;
        }
        let mut count = 0;
        while !done.load(Ordering::Relaxed) {
            self.checkpoint();
            count += 1;
            std::thread::yield_now();
        }
        count
    }

    /// A checkpoint, and the same tree from its image.
    pub(crate) fn reopen(self) -> World {
        self.checkpoint();
        let Some((store, env)) = self.store else {
            return self;
        };
        drop((self.tree, store));
        let found = Store::open(&env, Path::new("/"), tiny(self.class)).unwrap();
        let (store, _) = found.settle().unwrap();
        let tree = store.tree(TREE).unwrap().unwrap();
        World {
            tree,
            class: self.class,
            store: Some((store, env)),
        }
    }

    /// Pages that were evicted so far.
    pub(crate) fn evicted(&self) -> u64 {
        self.store
            .as_ref()
            .map_or(0, |(store, _)| store.stats().pages_evicted)
    }

    /// Verifies the tree; every page is reached once.
    pub(crate) fn check(&self) -> TreeReport {
        let mut found = Vec::new();
        let mut reached = BTreeSet::new();
        let report =
            check_tree(&self.tree, &mut reached, &mut |one| found.push(one.error)).unwrap();
        assert!(found.is_empty(), "{}", found[0]);
        assert_eq!(report.pages(), reached.len() as u64);
        report
    }
}
