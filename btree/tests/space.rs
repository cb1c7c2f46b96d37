//! The store on the simulated disk: create, fill beyond memory, checkpoint, reopen.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use terrane_btree::{Class, Edit, LogView, Step, Store, StoreOptions};
use terrane_wal::clock::SystemClock;
use terrane_wal::env::{Env, SystemPark, SystemRng, SystemSpawn};
use terrane_wal::io::sim::SimDisk;
use terrane_wal::lsn::{Lsn, Term, TreeId, Ts};

fn env(disk: &SimDisk) -> Env {
    Env {
        disk: Arc::new(disk.clone()),
        clock: Arc::new(SystemClock::new()),
        rng: Arc::new(SystemRng::seeded(1)),
        spawn: Arc::new(SystemSpawn),
        park: Arc::new(SystemPark),
    }
}

#[derive(Debug, Default)]
struct TestLog(AtomicU64);

impl LogView for TestLog {
    fn redo_lsn(&self) -> Lsn {
        Lsn(self.0.load(Ordering::SeqCst))
    }
    fn image_hi(&self) -> (Lsn, Ts, Term) {
        (Lsn(self.0.load(Ordering::SeqCst)), Ts(7), Term::FIRST)
    }
    fn safe_lsn(&self) -> Lsn {
        Lsn(self.0.load(Ordering::SeqCst))
    }
    fn nudge(&self) {}
    fn clock_bound(&self) -> u64 {
        9
    }
}

fn checkpoint(store: &Store, log: &Arc<TestLog>) {
    let mut checkpoint = store.begin_checkpoint(log.clone()).expect("begin");
    while !matches!(checkpoint.step().expect("step"), Step::Done(_)) {}
}

fn small() -> StoreOptions {
    StoreOptions {
        memory_bytes: 64 * 8192,
        ..StoreOptions::default()
    }
}

#[test]
fn rows_beyond_memory_survive_a_reopen() {
    let disk = SimDisk::new();
    let env = env(&disk);
    let log = Arc::new(TestLog::default());
    let store = Store::create(&env, Path::new("/"), [3; 16], small()).expect("create");
    let tree = store.create_tree(TreeId(256), Class::K8).expect("tree");
    for round in 0..3u64 {
        for i in 0..4000u64 {
            let key = (i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes();
            let value = [(i + round) as u8; 200];
            tree.update(&key, &mut |_| Edit::Put {
                value: &value,
                versioned: false,
            })
            .expect("update");
        }
        log.0.store(round + 1, Ordering::SeqCst);
        checkpoint(&store, &log);
    }
    let stats = store.stats();
    assert!(stats.pages_evicted > 100, "{stats:?}");
    drop((tree, store));
    let (store, opened) = Store::open(&env, Path::new("/"), small()).expect("open");
    assert_eq!(opened.redo_lsn, Lsn(3));
    assert_eq!(opened.fell_back, None);
    let tree = store.tree(TreeId(256)).expect("look").expect("there");
    let mut value = Vec::new();
    for i in 0..4000u64 {
        let key = (i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes();
        assert!(tree.get(&key, &mut value).expect("get").is_some(), "{i}");
        assert_eq!(value, [(i + 2) as u8; 200]);
    }
}
