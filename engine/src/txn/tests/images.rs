//! What an image and the log behind it promise each other: the log has what the image holds, it is
//! kept for the older image too, and its rows may be in the image already.

use terrane_btree::Class;
use terrane_wal::EntryBuilder;
use terrane_wal::env::SimEnv;
use terrane_wal::io::sim::SimDisk;
use terrane_wal::lsn::TreeId;

use super::{Applied, Rows, after_power_cut, log_entry, sim_builder, sim_open};
use crate::{Database, Durability, Outcome, Transaction};

/// M1, row 3 of the likeliest mistakes: no commit here waits for its flush, so all of the log that
/// a checkpoint needs on disk is what it waits for itself; the power is cut after each of its
/// steps. Seen to fail (the log does not reach the image) with `safe_lsn` naming what is sequenced.
#[test]
fn a_checkpoint_waits_for_the_log_behind_it() {
    for seed in 0..8 {
        let sim = SimEnv::new(seed);
        let buffered = sim_builder(&sim).durability(Durability::Buffered);
        let db = buffered.open("/db").unwrap();
        let rows = Rows::open(&db, "t");
        for n in 0..20 {
            db.write(|tx| rows.put(tx, &format!("k{n:02}"), "v"))
                .unwrap();
        }
        assert!(db.core().log().unwrap().positions().durable.0 < rows_end(&db));
        let mut published = false;
        while !published {
            published = db.checkpoint_step().unwrap();
            let again = after_power_cut(&sim, seed * 100);
            let db = sim_open(&again);
            let found = Rows::open(&db, "t").all(&db.snapshot());
            let found = found.split_terminator(' ').count();
            let expected: Vec<_> = (0..found).map(|n| format!("k{n:02}=v")).collect();
            let rows = Rows::open(&db, "t");
            assert_eq!(rows.all(&db.snapshot()), expected.join(" "), "a prefix");
            assert!(found == 20 || !published, "seed {seed}: {found} rows");
        }
    }
}

fn rows_end(db: &Database) -> terrane_wal::lsn::Lsn {
    db.core().log().unwrap().positions().sequenced.0
}

/// Damages both copies of META's newest generation.
fn spoil_newest(disk: &SimDisk) {
    let meta = std::path::Path::new("/db/META");
    let bytes = disk.image().read(meta).unwrap();
    let generation = |at: usize| {
        let field = &bytes[at + 48..at + 56];
        u64::from_le_bytes(field.try_into().unwrap())
    };
    let copies = [0, 64 << 10, 128 << 10, 192 << 10];
    let newest = copies.iter().map(|at| generation(*at)).max().unwrap();
    let spoilt = copies.iter().filter(|at| generation(**at) == newest);
    for at in spoilt {
        assert!(disk.corrupt(meta, *at as u64 + 100, 1, |byte| byte[0] ^= 1));
    }
}

/// L4, row 6: after each of many checkpoints the older image is opened, with the log from its own
/// redo point on. Seen to fail with the log trimmed below the newer one's.
#[test]
fn the_older_image_has_its_log() {
    let sim = SimEnv::new(70);
    let db = sim_open(&sim);
    let rows = Rows::open(&db, "t");
    let value = "v".repeat(8_000);
    let mut expected = 0;
    for round in 0..8 {
        for n in 0..50 {
            let key = format!("k{round}{n:02}");
            db.write(|tx| rows.put(tx, &key, &value)).unwrap();
            expected += 1;
        }
        db.checkpoint().unwrap();
        let disk = sim.disk().crash(700 + round);
        spoil_newest(&disk);
        let again = SimEnv::with_disk(700 + round, disk);
        let db = sim_open(&again);
        let all = Rows::open(&db, "t").all(&db.snapshot());
        assert_eq!(all.matches('=').count(), expected, "round {round}");
    }
    let log = db.stats().log;
    assert!(log.segments_trimmed > 4, "{log:?}");
}

/// M3, row 15: an entry that is sequenced and not applied holds the redo position, so the image has
/// the rows of the whole tail behind it already; replay puts them there again. Seen to fail with a
/// replay that takes a row that it finds in place for another's.
#[test]
fn replay_over_an_image_that_has_its_rows() {
    let sim = SimEnv::new(71);
    let db = sim_open(&sim);
    let rows = Rows::open(&db, "t");
    let first = |tx: &mut Transaction| {
        rows.put(tx, "gone", "1")?;
        (0..200).try_for_each(|n| rows.put(tx, &format!("k{n:03}"), "1"))
    };
    db.write(first).unwrap();
    log_entry(&db, EntryBuilder::new().commit(b""), Applied::Never);
    let mut count = 0;
    let mut commit = |key: &str, value: Option<&str>| {
        let mut tx = db.begin();
        match value {
            Some(value) => rows.put(&mut tx, key, value),
            None => rows.delete(&mut tx, key),
        }
        .unwrap();
        count += 1;
        tx.leg_mut(0).unwrap().idempotency = Some(format!("commit {count}").into());
        // The prefix stands still, so nobody can wait for it.
        drop(tx.commit_ticket().unwrap());
    };
    commit("gone", None);
    commit("k000", None);
    commit("k000", Some("again"));
    commit("k000", Some("again"));
    let long = "long".repeat(700);
    for n in 100..300 {
        commit(&format!("k{n:03}"), Some(&long));
    }
    db.core().log().unwrap().flush().unwrap();
    db.checkpoint().unwrap();
    let expected = |n| match n {
        0 => "again",
        1..100 => "1",
        _ => &long,
    };
    let expected: Vec<_> = (0..300)
        .map(|n| format!("k{n:03}={}", expected(n)))
        .collect();
    for seed in 0..4 {
        let again = after_power_cut(&sim, 710 + seed);
        let db = sim_open(&again);
        assert!(Rows::open(&db, "t").all(&db.snapshot()) == expected.join(" "));
        assert_eq!(db.outcome("commit 150").unwrap(), Outcome::Committed);
        assert_eq!(db.outcome("commit 999").unwrap(), Outcome::Aborted);
    }
}

/// The tree of a table whose commit never came, in an image that was made between the two: the next
/// open drops it. Seen to fail with `drop_orphans` left out of recovery.
#[test]
fn a_tree_that_no_table_names_is_dropped_by_the_next_open() {
    const ORPHAN: TreeId = TreeId(900);
    let sim = SimEnv::new(72);
    let db = sim_open(&sim);
    let rows = Rows::open(&db, "t");
    db.write(|tx| rows.put(tx, "a", "1")).unwrap();
    let has = |db: &Database| {
        let trees = db.core().store.trees().unwrap();
        trees.iter().any(|(id, _)| *id == ORPHAN)
    };
    db.core().store.create_tree(ORPHAN, Class::K8).unwrap();
    db.checkpoint().unwrap();
    assert!(has(&db));
    let again = after_power_cut(&sim, 720);
    let db = sim_open(&again);
    assert!(!has(&db));
    assert_eq!(Rows::open(&db, "t").all(&db.snapshot()), "a=1");
}
