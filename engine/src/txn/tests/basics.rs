//! One thread: what is written is read, by whom it should be and by nobody else.

use terrane_wal::env::SimEnv;

use super::{Rows, sim_builder, sim_open};
use crate::{Database, Durability, ErrorKind, Isolation, Outcome, Savepoint};

#[test]
fn what_was_committed_is_there_after_a_reopen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    {
        let db = Database::open(&path).unwrap();
        let rows = Rows::open(&db, "t");
        db.write(|tx| {
            rows.put(tx, "a", "1")?;
            rows.put(tx, "b", "2")?;
            rows.put(tx, "c", "3")
        })
        .unwrap();
        db.write(|tx| rows.delete(tx, "b")).unwrap();
        assert_eq!(rows.all(&db.snapshot()), "a=1 c=3");
        db.close().unwrap();
        db.close().unwrap();
        let error = rows.get(&db.snapshot(), "a").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
        let error = db.write(|tx| rows.put(tx, "d", "4")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
    }
    for round in 0..3 {
        let db = Database::open(&path).unwrap();
        let rows = Rows::open(&db, "t");
        assert_eq!(rows.info.schema_version, 1);
        assert_eq!(rows.get(&db.snapshot(), "a").unwrap().as_deref(), Some("1"));
        assert!(rows.all(&db.snapshot()).starts_with("a=1 c=3"));
        db.write(|tx| rows.put(tx, &format!("r{round}"), "x"))
            .unwrap();
    }
}

#[test]
fn a_snapshot_never_changes_and_a_transaction_sees_its_own_writes() {
    let sim = SimEnv::new(1);
    let db = sim_open(&sim);
    let rows = Rows::open(&db, "t");
    db.write(|tx| {
        rows.put(tx, "a", "1")?;
        rows.put(tx, "c", "3")
    })
    .unwrap();
    let old = db.snapshot();
    let mut tx = db.begin();
    rows.put(&mut tx, "b", "2").unwrap();
    rows.delete(&mut tx, "c").unwrap();
    assert_eq!(rows.all(&tx), "a=1 b=2");
    assert_eq!(rows.range(&tx, "a", "z", true).unwrap(), "b=2 a=1");
    let scan = rows.range(&tx, "b", "c", false).unwrap();
    assert_eq!(scan, "b=2");
    assert_eq!(rows.all(&db.snapshot()), "a=1 c=3");
    let commit = tx.commit().unwrap();
    assert_eq!(commit.shards, 1);
    assert_eq!(rows.all(&old), "a=1 c=3", "X3");
    let new = db.snapshot();
    assert!(new.position() >= commit.position && old.position() < commit.position);
    assert_eq!(rows.all(&new), "a=1 b=2");
    // The collector takes nothing that the old snapshot needs, and everything afterwards.
    while db.background_step() {}
    assert_eq!(rows.all(&old), "a=1 c=3");
    assert!(db.stats().recent_rows > 0);
    drop(old);
    drop(new);
    while db.background_step() {}
    assert_eq!((db.stats().recent_rows, db.stats().ghosts_purged), (0, 1));
    assert_eq!(rows.all(&db.snapshot()), "a=1 b=2");
}

#[test]
fn snapshots_stay_as_they_were_under_churn() {
    let sim = SimEnv::new(2);
    let db = sim_open(&sim);
    let rows = Rows::open(&db, "t");
    let mut kept = Vec::new();
    for round in 0..120_u32 {
        db.write(|tx| {
            for step in 0..5 {
                let key = format!("k{}", (round * 7 + step * 3) % 40);
                if (round + step) % 4 == 0 {
                    rows.delete(tx, &key)?;
                } else {
                    let long = "x".repeat((round as usize % 7) * 900);
                    rows.put(tx, &key, &format!("{round}.{step}{long}"))?;
                }
            }
            Ok(())
        })
        .unwrap();
        if round % 10 == 0 {
            let snapshot = db.snapshot();
            let state = rows.all(&snapshot);
            kept.push((snapshot, state));
        }
        if round % 3 == 0 {
            db.background_step();
        }
        if round % 50 == 49 {
            db.checkpoint().unwrap();
        }
        for (snapshot, state) in &kept {
            assert_eq!(&rows.all(snapshot), state, "X3 in round {round}");
        }
        if kept.len() > 5 {
            kept.remove(round as usize % 5);
        }
    }
}

#[test]
fn savepoints_nest_and_an_aborted_transaction_leaves_nothing() {
    let sim = SimEnv::new(3);
    let db = sim_open(&sim);
    let rows = Rows::open(&db, "t");
    let mut tx = db.begin();
    rows.put(&mut tx, "a", "1").unwrap();
    let outer: Savepoint = tx.savepoint();
    rows.put(&mut tx, "b", "2").unwrap();
    let inner = tx.savepoint();
    rows.put(&mut tx, "a", "9").unwrap();
    tx.rollback_to(inner);
    assert_eq!(rows.all(&tx), "a=1 b=2");
    tx.rollback_to(outer);
    assert_eq!(rows.all(&tx), "a=1");
    drop(tx);
    assert_eq!(rows.all(&db.snapshot()), "");
    assert_eq!(db.stats().read_positions, 0);
}

#[test]
fn a_transaction_over_its_limit_is_refused_and_the_handle_goes_on() {
    let sim = SimEnv::new(4);
    let db = sim_builder(&sim)
        .commit_keys(3)
        .commit_bytes(100)
        .open("/db")
        .unwrap();
    let rows = Rows::open(&db, "t");
    let four =
        |tx: &mut crate::Transaction| (0..4).try_for_each(|i| rows.put(tx, &i.to_string(), ""));
    let error = db.write(four).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.to_string().contains("ingest") && error.to_string().contains("write_in_batches"));
    let error = db
        .write(|tx| rows.put(tx, "k", &"x".repeat(101)))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    db.write(|tx| rows.put(tx, "k", "v")).unwrap();
    assert_eq!(rows.all(&db.snapshot()), "k=v");
}

#[test]
fn ranges_that_run_backwards_are_invalid_and_empty_ones_are_empty() {
    let sim = SimEnv::new(5);
    let db = sim_open(&sim);
    let rows = Rows::open(&db, "t");
    db.write(|tx| rows.put(tx, "", "empty key")).unwrap();
    let now = db.snapshot();
    assert_eq!(
        rows.range(&now, "b", "a", false).unwrap_err().kind(),
        ErrorKind::Invalid
    );
    assert_eq!(rows.range(&now, "a", "a", false).unwrap(), "");
    assert_eq!(rows.all(&now), "=empty key");
    let long = "k".repeat(32 << 10);
    db.write(|tx| rows.put(tx, &long, "longest")).unwrap();
    assert_eq!(
        rows.get(&db.snapshot(), &long).unwrap().as_deref(),
        Some("longest")
    );
    let error = db
        .write(|tx| rows.put(tx, &format!("{long}k"), "x"))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}

#[test]
fn an_idempotency_key_commits_once_and_is_remembered_over_a_reopen() {
    let sim = SimEnv::new(6);
    let db = sim_open(&sim);
    let rows = Rows::open(&db, "t");
    assert_eq!(db.outcome("pay-1").unwrap(), Outcome::Aborted);
    let mut runs = 0;
    for _ in 0..2 {
        let writer = db.writer().idempotency("pay-1");
        let (value, commit) = writer
            .run(|tx| {
                runs += 1;
                let count = rows.get(tx, "n")?.map_or(0, |n| n.parse::<u32>().unwrap());
                rows.put(tx, "n", &(count + 1).to_string()).map(|()| count)
            })
            .unwrap();
        assert_eq!((value, commit.shards), (runs - 1, 1));
    }
    assert_eq!(rows.all(&db.snapshot()), "n=1");
    assert_eq!(db.outcome("pay-1").unwrap(), Outcome::Committed);
    let again = super::after_power_cut(&sim, 60);
    drop(db);
    let db = sim_open(&again);
    assert_eq!(db.outcome("pay-1").unwrap(), Outcome::Committed);
    assert_eq!(db.outcome("pay-2").unwrap(), Outcome::Aborted);
    // After 24 hours it is forgotten.
    again
        .clock()
        .advance(std::time::Duration::from_secs(25 * 60 * 60));
    assert_eq!(db.outcome("pay-1").unwrap(), Outcome::Aborted);
    assert_eq!(db.outcome("").unwrap_err().kind(), ErrorKind::Invalid);
    let error = db
        .writer()
        .idempotency([0; 65])
        .run(|_| Ok::<_, crate::Error>(()))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn a_write_may_only_ask_for_more_durability() {
    let sim = SimEnv::new(7);
    let db = sim_builder(&sim)
        .durability(Durability::Buffered)
        .open("/db")
        .unwrap();
    let rows = Rows::open(&db, "t");
    let ask = |durability| {
        db.writer()
            .durability(durability)
            .run(|tx| rows.put(tx, "a", "1"))
            .map(|_| ())
    };
    let flushes = db.stats().log.flushes;
    ask(Durability::Buffered).unwrap();
    assert_eq!(
        db.stats().log.flushes,
        flushes,
        "nobody has waited for the disk"
    );
    assert_eq!(rows.all(&db.snapshot()), "a=1");
    ask(Durability::Local).unwrap();
    assert!(db.stats().log.flushes > flushes);
    assert_eq!(
        ask(Durability::Replicated).unwrap_err().kind(),
        ErrorKind::Invalid
    );
    db.close().unwrap();
    let db = sim_builder(&sim)
        .isolation(Isolation::Snapshot)
        .open("/db")
        .unwrap();
    let rows = Rows::open(&db, "t");
    let writer = db.writer().durability(Durability::Buffered);
    let error = writer.run(|tx| rows.put(tx, "a", "2")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn row_ids_are_never_given_out_twice_also_over_a_reopen() {
    let sim = SimEnv::new(8);
    let db = sim_open(&sim);
    let rows = Rows::open(&db, "t");
    let tree = rows.info.tree;
    let first: Vec<u64> = (0..5000)
        .map(|_| db.local().next_row_id(tree).unwrap())
        .collect();
    assert!(first.windows(2).all(|pair| pair[0] < pair[1]) && first[0] == 1);
    db.write(|tx| rows.put(tx, "a", "1")).unwrap();
    let again = super::after_power_cut(&sim, 80);
    let db = sim_open(&again);
    assert!(db.local().next_row_id(tree).unwrap() > *first.last().unwrap());
}

#[test]
fn a_table_of_other_types_is_refused_and_names_are_checked() {
    use crate::catalog::schema::Schema;
    use crate::catalog::{RowIds, TableSpec};
    let sim = SimEnv::new(9);
    let db = sim_open(&sim);
    let bytes = Rows::open(&db, "t");
    let schema = Schema::of::<u64, String>().unwrap();
    let spec = TableSpec {
        class: db.local().page_class(),
        row_ids: RowIds::Key,
        vectors: &[],
        schema: &schema,
    };
    assert_eq!(
        db.local().open_table("t", &spec).unwrap_err().kind(),
        ErrorKind::Schema
    );
    let other = db.local().open_table("u", &spec).unwrap();
    assert_ne!(other.tree, bytes.info.tree);
    for name in ["", &"n".repeat(256), "a\0b", "terrane.x"] {
        assert_eq!(
            db.local().open_table(name, &spec).unwrap_err().kind(),
            ErrorKind::Invalid
        );
    }
    // A row written under another version of the schema does not commit.
    let mut tx = db.begin();
    tx.leg_mut(0)
        .unwrap()
        .put_raw(bytes.info.tree, 2, 0, b"k".to_vec(), b"v".to_vec())
        .unwrap();
    let error = tx.commit().unwrap_err();
    assert_eq!(
        (error.kind(), error.is_retryable()),
        (ErrorKind::Schema, true)
    );
}
