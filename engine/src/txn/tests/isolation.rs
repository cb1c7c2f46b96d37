//! Two transactions at once: what each level forbids, and what the weaker one allows.
//!
//! Seen to fail with validation that finds nothing before sequencing (write skew, phantoms, absent
//! rows), with scans not noted (phantoms), and with a newer version never refused to a
//! writer (lost update).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use terrane_wal::env::SimEnv;

use super::{Rows, sim_builder, sim_open};
use crate::{Database, Error, ErrorKind, Isolation};

fn open(seed: u64, isolation: Isolation) -> (SimEnv, Database, Rows) {
    let sim = SimEnv::new(seed);
    let db = sim_builder(&sim).isolation(isolation).open("/db").unwrap();
    let rows = Rows::open(&db, "t");
    db.write(|tx| {
        rows.put(tx, "x", "1")?;
        rows.put(tx, "y", "1")
    })
    .unwrap();
    (sim, db, rows)
}

fn kind<T: std::fmt::Debug>(outcome: Result<T, Error>) -> ErrorKind {
    outcome.unwrap_err().kind()
}

#[test]
fn a_lost_update_is_refused_at_both_levels() {
    for isolation in [Isolation::Snapshot, Isolation::Serializable] {
        let (_sim, db, rows) = open(20, isolation);
        let (mut one, mut two) = (db.begin(), db.begin());
        for tx in [&mut one, &mut two] {
            assert_eq!(rows.get(tx, "x").unwrap().as_deref(), Some("1"));
            rows.put(tx, "x", "2").unwrap();
        }
        one.commit().unwrap();
        let error = two.commit().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.is_retryable());
    }
}

#[test]
fn write_skew_is_refused_by_serializable_and_allowed_by_snapshot() {
    for isolation in [Isolation::Snapshot, Isolation::Serializable] {
        let (_sim, db, rows) = open(21, isolation);
        let (mut one, mut two) = (db.begin(), db.begin());
        for (tx, off) in [(&mut one, "x"), (&mut two, "y")] {
            assert_eq!(rows.all(tx), "x=1 y=1");
            rows.put(tx, off, "0").unwrap();
        }
        one.commit().unwrap();
        match isolation {
            Isolation::Snapshot => assert!(two.commit().is_ok(), "the anomaly it allows"),
            Isolation::Serializable => assert_eq!(kind(two.commit()), ErrorKind::Conflict),
        }
    }
}

#[test]
fn a_phantom_in_a_requested_range_is_refused_also_if_the_range_was_empty() {
    for isolation in [Isolation::Snapshot, Isolation::Serializable] {
        let (_sim, db, rows) = open(22, isolation);
        let (mut one, mut two) = (db.begin(), db.begin());
        assert_eq!(rows.range(&one, "m", "p", false).unwrap(), "");
        assert_eq!(rows.range(&two, "m", "p", false).unwrap(), "");
        rows.put(&mut one, "n", "1").unwrap();
        rows.put(&mut two, "o", "1").unwrap();
        one.commit().unwrap();
        match isolation {
            Isolation::Snapshot => assert!(two.commit().is_ok()),
            Isolation::Serializable => assert_eq!(kind(two.commit()), ErrorKind::Conflict),
        }
        // A key beside the range is no phantom.
        let mut three = db.begin();
        assert_eq!(rows.range(&three, "a", "b", false).unwrap(), "");
        db.write(|tx| rows.put(tx, "b", "1")).unwrap();
        rows.put(&mut three, "z", "1").unwrap();
        three.commit().unwrap();
    }
}

#[test]
fn a_read_key_that_was_absent_or_deleted_counts() {
    let (_sim, db, rows) = open(23, Isolation::Serializable);
    let mut tx = db.begin();
    assert_eq!(rows.get(&tx, "new").unwrap(), None);
    rows.put(&mut tx, "z", "1").unwrap();
    db.write(|tx| rows.put(tx, "new", "1")).unwrap();
    assert_eq!(kind(tx.commit()), ErrorKind::Conflict);

    let mut tx = db.begin();
    assert_eq!(rows.get(&tx, "new").unwrap().as_deref(), Some("1"));
    rows.put(&mut tx, "z", "2").unwrap();
    db.write(|tx| rows.delete(tx, "new")).unwrap();
    db.background_step();
    assert_eq!(
        kind(tx.commit()),
        ErrorKind::Conflict,
        "the collector kept what it needs"
    );
}

#[test]
fn a_blind_write_conflicts_with_nobody() {
    let (_sim, db, rows) = open(24, Isolation::Serializable);
    let (mut one, mut two) = (db.begin(), db.begin());
    rows.put(&mut one, "x", "one").unwrap();
    rows.put(&mut two, "x", "two").unwrap();
    one.commit().unwrap();
    two.commit().unwrap();
    assert_eq!(rows.all(&db.snapshot()), "x=two y=1");
}

#[test]
fn wait_die_an_older_one_waits_and_a_younger_one_gives_way() {
    let (sim, db, rows) = open(25, Isolation::Snapshot);
    let mut older = db.begin();
    let mut younger = db.begin();
    assert_eq!(rows.lock(&mut younger, "x").unwrap().as_deref(), Some("1"));
    assert_eq!(rows.lock(&mut older, "y").unwrap().as_deref(), Some("1"));
    // The younger one holds something, so it may not wait for the older one.
    assert_eq!(kind(rows.lock(&mut younger, "y")), ErrorKind::Conflict);
    // The older one waits until the younger one is gone.
    let order = Arc::new(AtomicU64::new(0));
    let thread = {
        let (rows, order) = (rows.clone(), order.clone());
        let body = move || {
            rows.lock(&mut older, "x").unwrap();
            assert_eq!(order.swap(2, Ordering::SeqCst), 1, "it has waited");
            rows.put(&mut older, "x", "older").unwrap();
            older.commit().unwrap();
        };
        sim.env().spawn.spawn("older", Box::new(body)).unwrap()
    };
    for _ in 0..50 {
        sim.env().park.yield_now();
    }
    assert_eq!(order.swap(1, Ordering::SeqCst), 0);
    drop(younger);
    thread.join().unwrap();
    assert_eq!(rows.all(&db.snapshot()), "x=older y=1");
}

#[test]
fn a_lock_that_never_comes_times_out() {
    let sim = SimEnv::new(26);
    let second = std::time::Duration::from_secs(1);
    let db = sim_builder(&sim).lock_timeout(second).open("/db").unwrap();
    let rows = Rows::open(&db, "t");
    let mut holder = db.begin();
    rows.lock(&mut holder, "x").unwrap();
    let mut waiter = db.begin();
    let before = sim.env().clock.now_mono();
    assert_eq!(kind(rows.lock(&mut waiter, "x")), ErrorKind::TimedOut);
    assert!(sim.env().clock.now_mono() - before >= second);
    drop(holder);
    rows.lock(&mut waiter, "x").unwrap();
}

#[test]
fn a_conflict_is_retried_also_if_the_closure_hides_it() {
    let (_sim, db, rows) = open(27, Isolation::Snapshot);
    let mut runs = 0;
    let value = db
        .write(|tx| {
            runs += 1;
            let value: u32 = rows.get(tx, "x")?.unwrap().parse().unwrap();
            if runs == 1 {
                db.write(|tx| rows.put(tx, "x", "10")).unwrap();
                // A lock of what has changed is a conflict; the closure swallows it.
                assert!(rows.lock(tx, "x").is_err());
                return Ok(0);
            }
            rows.put(tx, "x", &(value + 1).to_string()).map(|()| value)
        })
        .unwrap();
    assert_eq!((runs, value), (2, 10));
    assert_eq!(
        rows.get(&db.snapshot(), "x").unwrap().as_deref(),
        Some("11")
    );
    assert_eq!(db.stats().retries, 1);
}

#[test]
fn retries_are_bounded_and_application_errors_pass_through() {
    #[derive(Debug)]
    enum Mine {
        Overdrawn,
        Storage(Error),
    }
    impl From<Error> for Mine {
        fn from(error: Error) -> Mine {
            Mine::Storage(error)
        }
    }
    let (_sim, db, rows) = open(28, Isolation::Snapshot);
    let outcome: Result<(), Mine> = db.try_write(|tx| {
        rows.put(tx, "x", "never")?;
        Err(Mine::Overdrawn)
    });
    assert!(matches!(outcome, Err(Mine::Overdrawn)));
    assert_eq!(rows.get(&db.snapshot(), "x").unwrap().as_deref(), Some("1"));

    let mut runs = 0;
    let writer = db.writer().retries(3).isolation(Isolation::Serializable);
    let outcome: Result<((), crate::Commit), Mine> = writer.run(|tx| {
        runs += 1;
        rows.range(tx, "m", "p", false)?;
        db.write(|tx| rows.put(tx, "n", &runs.to_string()))?;
        rows.put(tx, "z", "mine")?;
        Ok(())
    });
    match outcome {
        Err(Mine::Storage(error)) => assert_eq!(error.kind(), ErrorKind::Conflict),
        other => panic!("{other:?}"),
    }
    assert_eq!(runs, 4);
}

#[test]
fn a_panic_in_the_closure_rolls_back_and_the_handle_goes_on() {
    let (_sim, db, rows) = open(29, Isolation::Serializable);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        db.write(|tx| -> crate::Result<()> {
            rows.lock(tx, "x")?;
            rows.put(tx, "x", "never")?;
            panic!("user code")
        })
    }));
    assert!(outcome.is_err());
    db.write(|tx| rows.put(tx, "y", "2")).unwrap();
    db.write(|tx| rows.lock(tx, "x").map(|_| ())).unwrap();
    assert_eq!(rows.all(&db.snapshot()), "x=1 y=2");
}

#[test]
fn a_snapshot_over_its_budget_is_given_up_and_others_go_on() {
    let sim = SimEnv::new(30);
    let db = sim_builder(&sim)
        .version_bytes(64 << 10)
        .open("/db")
        .unwrap();
    let rows = Rows::open(&db, "t");
    db.write(|tx| rows.put(tx, "x", "first")).unwrap();
    let old = db.snapshot();
    for round in 0..100 {
        let value = format!("{round}{}", "v".repeat(2000));
        db.write(|tx| rows.put(tx, "x", &value)).unwrap();
        db.background_step();
    }
    assert_eq!(kind(rows.get(&old, "x")), ErrorKind::SnapshotTooOld);
    assert!(
        db.stats().recent_bytes < 128 << 10,
        "{}",
        db.stats().recent_bytes
    );
    assert!(
        rows.get(&db.snapshot(), "x")
            .unwrap()
            .unwrap()
            .starts_with("99")
    );
}

/// Threads of the operating system on a real folder: no increment is lost, and a sum that every
/// transfer keeps is the same in every snapshot.
#[test]
fn counters_and_a_bank_on_real_threads() {
    let folder = tempfile::tempdir().unwrap();
    let db = Database::open(folder.path().join("db")).unwrap();
    let rows = Rows::open(&db, "t");
    db.write(|tx| {
        rows.put(tx, "n", "0")?;
        (0..4).try_for_each(|i| rows.put(tx, &format!("acc{i}"), "100"))
    })
    .unwrap();
    let number = |text: Option<String>| text.unwrap().parse::<i64>().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (db, rows) = (&db, &rows);
            scope.spawn(move || {
                for round in 0..25 {
                    db.write(|tx| {
                        let n = number(rows.get(tx, "n")?);
                        rows.put(tx, "n", &(n + 1).to_string())
                    })
                    .unwrap();
                    let (from, to) = ((thread + round) % 4, (thread + round * 3 + 1) % 4);
                    if from == to {
                        continue;
                    }
                    db.write(|tx| {
                        let (from, to) = (format!("acc{from}"), format!("acc{to}"));
                        let (a, b) = (number(rows.get(tx, &from)?), number(rows.get(tx, &to)?));
                        rows.put(tx, &from, &(a - 3).to_string())?;
                        rows.put(tx, &to, &(b + 3).to_string())
                    })
                    .unwrap();
                }
            });
        }
        let (db, rows) = (&db, &rows);
        scope.spawn(move || {
            for _ in 0..100 {
                let now = db.snapshot();
                let sum: i64 = (0..4)
                    .map(|i| number(rows.get(&now, &format!("acc{i}")).unwrap()))
                    .sum();
                assert_eq!(sum, 400, "X1");
            }
        });
    });
    assert_eq!(number(rows.get(&db.snapshot(), "n").unwrap()), 100);
    db.close().unwrap();
}

#[test]
fn many_writers_of_one_row_in_simulation() {
    for seed in 0..10 {
        let sim = SimEnv::new(seed);
        let db = sim_open(&sim);
        let rows = Rows::open(&db, "t");
        db.write(|tx| rows.put(tx, "n", "0")).unwrap();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (db, rows) = (db.clone(), rows.clone());
                let body = move || {
                    for _ in 0..5 {
                        db.write(|tx| {
                            let n: u32 = rows.get(tx, "n")?.unwrap().parse().unwrap();
                            rows.put(tx, "n", &(n + 1).to_string())
                        })
                        .unwrap();
                    }
                };
                sim.env().spawn.spawn("writer", Box::new(body)).unwrap()
            })
            .collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        assert_eq!(rows.all(&db.snapshot()), "n=20", "seed {seed}");
    }
}
