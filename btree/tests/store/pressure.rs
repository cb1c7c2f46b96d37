//! Too little memory, a full device, failing calls: typed errors, nothing lost, and it clears.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use terrane_btree::{Class, Step, Store, StoreError, StoreOptions};
use terrane_wal::io::sim::{Fault, OpKind, SimDisk};
use terrane_wal::lsn::TreeId;

use crate::rig::{self, Dice, ModelLog, Op};

/// Sixteen threads and a checkpoint that steps slowly share 64 frames; a watchdog of 60 s.
#[test]
fn sixty_four_frames_serve_sixteen_threads() {
    let disk = SimDisk::seeded(1);
    let (store, tree) = rig::create(&disk, &rig::plain_env(&disk)).expect("create");
    let log = ModelLog::eager();
    let stop = Arc::new(AtomicBool::new(false));
    let finished = Arc::new(AtomicBool::new(false));
    let watchdog = {
        let finished = finished.clone();
        std::thread::spawn(move || {
            for _ in 0..600 {
                std::thread::park_timeout(Duration::from_millis(100));
                if finished.load(Ordering::SeqCst) {
                    return;
                }
            }
            eprintln!("no end after 60 s: somebody waits under a latch or in the gate (T4)");
            std::process::abort();
        })
    };
    let threads: Vec<_> = (0..16u64)
        .map(|writer| {
            let (log, tree) = (log.clone(), tree.clone());
            std::thread::spawn(move || {
                let mut dice = Dice(writer);
                for _ in 0..250 {
                    let (mut key, value) = dice.op(200, 20);
                    key.extend_from_slice(format!(" of {writer}").as_bytes());
                    log.run(&tree, (key, value)).expect("update");
                }
            })
        })
        .collect();
    let checkpointer = {
        let (store, log, stop) = (store.clone(), log.clone(), stop.clone());
        std::thread::spawn(move || {
            let mut published = 0;
            while !stop.load(Ordering::SeqCst) || published == 0 {
                let mut checkpoint = store.begin_checkpoint(log.clone()).expect("begin");
                while !matches!(checkpoint.step().expect("step"), Step::Done(_)) {
                    std::thread::park_timeout(Duration::from_micros(300));
                }
                published += 1;
            }
            published
        })
    };
    for thread in threads {
        thread.join().expect("writer");
    }
    stop.store(true, Ordering::SeqCst);
    assert!(checkpointer.join().expect("checkpointer") > 0);
    finished.store(true, Ordering::SeqCst);
    watchdog.join().expect("watchdog");
    let stats = store.stats();
    assert!(stats.pool_used_bytes <= 64 * 8192, "{stats:?}");
    assert!(stats.pages_evicted_dirty > 100, "{stats:?}");
    assert!(rig::content(&store).expect("rows") == log.rows_at(log.len()));
    rig::assert_clean(&store, "at the end");
}

/// Rows 80 and 81: a full device refuses before anything is changed, lets a checkpoint finish out
/// of the reserve, and serves again without a reopen when there is room; with room for zero to
/// three more zones at the start.
///
/// Seen to fail with a reserve of zero (the checkpoint fails as well).
#[test]
fn a_full_device_refuses_and_recovers() {
    for zones in 0..4 {
        full_and_back(zones);
    }
}

/// Bytes of the first `zones` zones: 256 KiB, and each twice the one before.
fn bytes_of(zones: u32) -> u64 {
    (256 << 10) * ((1 << zones) - 1)
}

/// A put of 2 to 6 KB, so that few rows fill a device.
fn wide(dice: &mut Dice) -> Op {
    let key = format!("row {:05}", dice.below(WIDE)).into_bytes();
    let len = 2000 + dice.below(4000) as usize;
    (key, Some(vec![dice.next() as u8; len]))
}

/// Keys of [`wide`]: more bytes than the largest device here has.
const WIDE: u64 = 12_000;

/// Fills a store of four zones on a device that has room for so many more, then empties it.
fn full_and_back(zones: u32) {
    let disk = SimDisk::seeded(2);
    let (store, tree) = rig::create(&disk, &rig::plain_env(&disk)).expect("create");
    let log = ModelLog::eager();
    let mut dice = Dice(3);
    while store.stats().file_bytes < bytes_of(4) {
        log.run(&tree, wide(&mut dice)).expect("update");
    }
    assert_eq!(store.stats().file_bytes, bytes_of(4), "zones at the start");
    // Beside the data: superblock and maps, less than another zone.
    disk.set_capacity(Some(bytes_of(4 + zones) + (2 << 20)));
    let mut refused = 0;
    while refused <= 40 {
        match store.admit(4) {
            Ok(()) => log.run(&tree, wide(&mut dice)).expect("an admitted change"),
            Err(StoreError::Full { .. }) => {
                refused += 1;
                // Slots that only older images hold come back with them.
                rig::checkpoint(&store, &log).expect("a checkpoint on a full device");
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(
        store.stats().file_bytes,
        bytes_of(4 + zones),
        "zones when full"
    );
    assert!(rig::content(&store).expect("rows") == log.rows_at(log.len()));
    rig::assert_clean(&store, "full");
    // Deletes need pages too: they are not refused, and they make room.
    for n in 0..WIDE {
        if n % 8 != 0 {
            log.run(&tree, (format!("row {n:05}").into_bytes(), None))
                .expect("delete");
        }
        if n % 2000 == 1999 {
            rig::checkpoint(&store, &log).expect("checkpoint");
        }
    }
    rig::checkpoint(&store, &log).expect("checkpoint");
    rig::checkpoint(&store, &log).expect("checkpoint");
    for _ in 0..40 {
        store.admit(4).expect("there is room again");
        log.run(&tree, wide(&mut dice)).expect("update");
    }
    rig::checkpoint(&store, &log).expect("checkpoint");
    rig::assert_clean(&store, "after");
}

/// Pages that are dirty in a large pool have no slots yet, so an admission counts them: all that
/// was admitted can be written.
///
/// Seen to fail with dirty pages left out of the admission (then nothing is ever refused).
#[test]
fn what_is_admitted_can_be_written() {
    let disk = SimDisk::seeded(4);
    let options = StoreOptions {
        memory_bytes: 16 << 20,
        ..rig::options(&disk)
    };
    let env = rig::plain_env(&disk);
    let store = Store::create(&env, rig::root(), [3; 16], options).expect("create");
    let tree = store.create_tree(rig::TREE, Class::K8).expect("tree");
    let log = ModelLog::eager();
    let mut dice = Dice(3);
    disk.set_capacity(Some(6 << 20));
    let mut admitted = 0;
    while store.admit(4).is_ok() {
        log.run(&tree, dice.op(100_000, 0)).expect("admitted");
        admitted += 1;
        assert!(admitted < 20_000, "the device was never full");
    }
    assert!(store.stats().pages_dirty > 150, "{:?}", store.stats());
    rig::checkpoint(&store, &log).expect("all of it has its slots");
    rig::assert_clean(&store, "full");
}

/// The n-th call fails, once or for ever, for every n of a checkpoint: an error, nothing lost, and
/// what is on disk opens as the image before or this one.
#[test]
fn every_failing_call_of_a_checkpoint_is_survived() {
    let mut failures = 0;
    for n in 0..40 {
        for sticky in [false, true] {
            let disk = SimDisk::seeded(n);
            let (store, tree) = rig::create(&disk, &rig::plain_env(&disk)).expect("create");
            let log = ModelLog::eager();
            let mut dice = Dice(n);
            for _ in 0..150 {
                log.run(&tree, dice.op(200, 10)).expect("update");
            }
            rig::checkpoint(&store, &log).expect("checkpoint");
            for _ in 0..100 {
                log.run(&tree, dice.op(200, 10)).expect("update");
            }
            let fault = Fault::nth_call(n);
            disk.inject(if sticky { fault.sticky() } else { fault });
            let done = rig::checkpoint(&store, &log);
            disk.clear_faults();
            failures += u64::from(done.is_err());
            // In memory nothing is lost.
            assert!(rig::content(&store).expect("rows") == log.rows_at(log.len()));
            match rig::checkpoint(&store, &log) {
                Ok(()) => rig::assert_clean(&store, "after a failure"),
                Err(StoreError::Poisoned { .. }) => assert!(done.is_err()),
                Err(error) => panic!("call {n}: {error}"),
            }
            drop((tree, store));
            let after = disk.crash(n);
            let (store, opened) = rig::open(&after).expect("open");
            let rows = rig::content(&store).expect("rows");
            let hi = opened.image_hi_lsn.0;
            assert!(log.redo(rows, opened.redo_lsn.0, hi) == log.rows_at(hi));
            rig::assert_clean(&store, "reopened");
        }
    }
    assert!(failures > 10, "{failures}");
}

/// A failed data sync or superblock write is final (row 83's rule for data).
#[test]
fn a_failed_sync_poisons_and_is_not_retried() {
    for fault in [
        Fault::nth(OpKind::Sync, 0).on("data."),
        Fault::nth(OpKind::Write, 0).on("META"),
        Fault::nth(OpKind::Write, 1).on("META"),
    ] {
        let disk = SimDisk::seeded(7);
        let (store, tree) = rig::create(&disk, &rig::plain_env(&disk)).expect("create");
        let log = ModelLog::eager();
        for op in 0..50 {
            log.run(&tree, Dice(op).op(200, 10)).expect("update");
        }
        disk.inject(fault);
        let failed = rig::checkpoint(&store, &log);
        assert!(
            matches!(failed, Err(StoreError::Poisoned { .. })),
            "{failed:?}"
        );
        let again = rig::checkpoint(&store, &log);
        assert!(
            matches!(again, Err(StoreError::Poisoned { .. })),
            "{again:?}"
        );
        assert!(rig::content(&store).expect("reads go on") == log.rows_at(50));
    }
}

/// M1: nothing is published that the log could still lose.
///
/// Seen failing with the wait of the phase "safe" left out.
#[test]
fn a_checkpoint_waits_for_the_log_and_nudges_it() {
    let disk = SimDisk::seeded(8);
    let (store, tree) = rig::create(&disk, &rig::plain_env(&disk)).expect("create");
    let log = Arc::new(ModelLog::default());
    log.run(&tree, Dice(1).op(200, 0)).expect("update");
    let mut checkpoint = store.begin_checkpoint(log.clone()).expect("begin");
    let second = store.begin_checkpoint(log.clone());
    assert!(matches!(second, Err(StoreError::Invalid { .. })));
    for _ in 0..100 {
        assert!(!matches!(checkpoint.step().expect("step"), Step::Done(_)));
    }
    assert_eq!(checkpoint.phase(), "safe");
    assert!(log.nudges() > 0);
    log.flush();
    while !matches!(checkpoint.step().expect("step"), Step::Done(_)) {}
}

/// Trees come, go and come back; classes mix in one small pool.
#[test]
fn trees_of_three_classes_share_a_pool() {
    let disk = SimDisk::seeded(9);
    let (store, tree) = rig::create(&disk, &rig::plain_env(&disk)).expect("create");
    let log = ModelLog::eager();
    let large = store.create_tree(TreeId(300), Class::K32).expect("tree");
    let middle = store.create_tree(TreeId(301), Class::K16).expect("tree");
    assert!(matches!(
        store.create_tree(TreeId(300), Class::K8),
        Err(StoreError::Invalid { .. })
    ));
    let mut dice = Dice(1);
    for round in 0..1200 {
        let op = dice.op(3000, 5);
        rig::apply(&large, &op).expect("large");
        rig::apply(&middle, &op).expect("middle");
        log.run(&tree, op).expect("small");
        if round % 400 == 399 {
            rig::checkpoint(&store, &log).expect("checkpoint");
        }
    }
    rig::assert_clean(&store, "three classes");
    assert!(store.stats().pages_evicted > 100);
    drop((large, middle));
    store.drop_tree(TreeId(300)).expect("drop");
    store.drop_tree(TreeId(300)).expect("drop again");
    assert_eq!(store.trees().expect("trees").len(), 2);
    rig::assert_clean(&store, "dropped");
    rig::checkpoint(&store, &log).expect("checkpoint");
    drop((tree, store));
    let (store, _): (Store, _) = rig::open(&disk).expect("open");
    let trees = store.trees().expect("trees");
    assert_eq!(
        trees,
        vec![(rig::TREE, Class::K8), (TreeId(301), Class::K16)]
    );
    rig::assert_clean(&store, "reopened");
}
