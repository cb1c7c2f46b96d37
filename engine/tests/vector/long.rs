//! States that stay open for long, and rows that stay locked: upkeep goes on around them.

use terrane::{Database, Isolation, MaintenanceStats};

use crate::world::*;

fn upkeep(db: &Database) -> MaintenanceStats {
    db.stats().vectors[0].upkeep
}

// Seen to fail with a horizon that passes over open snapshots. (That no commit gives way while a
// slice is under way, threads show in `threads.rs`.)
#[test]
fn a_long_snapshot_stops_no_split_and_a_long_transaction_no_commit() {
    let folder = tempfile::tempdir().unwrap();
    let db = builder()
        .isolation(Isolation::Serializable)
        .open(folder.path().join("db"))
        .unwrap();
    let table = db.table(NUMBERED).unwrap();
    let (mut rows, mut random) = (Rows::new(), Random(31));
    let commit = |rows: &mut Rows<i32>, random: &mut Random, from: i32| {
        // One attempt: a conflict would be one with upkeep, as nobody else writes.
        let mut tx = db.begin();
        for key in from..from + 100 {
            let row = random.item();
            table.put(&mut tx, key, &row).unwrap();
            rows.insert(key, row);
        }
        tx.commit().unwrap();
        for _ in 0..6 {
            db.background_step();
        }
    };
    for round in 0..12 {
        commit(&mut rows, &mut random, 100 * round);
    }
    settle(&db);
    let (long, held, before) = (db.snapshot(), rows.clone(), upkeep(&db));
    let inside = db.writer().isolation(Isolation::Snapshot).begin();
    let mut inside = inside.unwrap();
    // Its state is that of its first read.
    assert!(table.get(&inside, 0).unwrap().is_some());
    let mut own = rows.clone();
    for key in 9_000..9_040 {
        let row = random.item();
        table.put(&mut inside, key, &row).unwrap();
        own.insert(key, row);
    }
    let mut judge = Judge::new();
    for round in 0..36 {
        commit(&mut rows, &mut random, 100 * (round * 7 % 24));
        let query = random.vector();
        judge.ask(&table, &long, &held, &query, 10);
        judge.ask(&table, &inside, &own, &query, 10);
        judge.ask(&table, &db.snapshot(), &rows, &query, 10);
    }
    settle(&db);
    let after = upkeep(&db);
    assert!(after.splits > before.splits + 5, "{before:?} {after:?}");
    assert!(after.dead > 1_000, "the snapshot needs them: {after:?}");
    for k in [held.len(), 10] {
        judge.ask(&table, &long, &held, &random.vector(), k);
        judge.ask(&table, &inside, &own, &random.vector(), k);
    }
    // It writes what nobody else has written.
    inside.commit().unwrap();
    rows.extend(own.range(9_000..).map(|(key, row)| (*key, row.clone())));
    assert_eq!(db.stats().conflicts, 0, "V4");
    drop(long);
    for _ in 0..20 {
        settle(&db);
    }
    let ended = upkeep(&db);
    // A few may stay in postings that are not due for a fold.
    assert!(
        ended.dead * 20 < ended.live && ended.queue == 0,
        "{ended:?}"
    );
    judge.ask(&table, &db.snapshot(), &rows, &random.vector(), rows.len());
    judge.done("long states");
}

/// Steps until upkeep does nothing but wait for somebody.
fn step_until_stuck(db: &Database) {
    let steps = (0..100_000).take_while(|_| db.background_step());
    assert!(steps.count() < 100_000);
}

// A draining posting has given a row away that was deleted since, and whose locator went with its
// last entry elsewhere; then nobody remembers that it was dealt with. Seen to fail with a drain
// that asks for the intent of such a row, whose key nothing tells.
#[test]
fn a_drain_ends_after_an_open_though_rows_that_it_gave_away_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let db = builder().open(&path).unwrap();
    let table = db.table(NAMED).unwrap();
    let (mut random, mut keys) = (Random(6), 0);
    while db.stats().vectors[0].upkeep.draining == 0 {
        assert!(keys < 4_000, "no split");
        db.write(|tx| {
            (keys..keys + 20).try_for_each(|key| {
                let place = Some(random.vector_near(key % 2).into());
                let row = Item {
                    place,
                    ..random.item()
                };
                table.put(tx, String::of(key), &row)
            })
        })
        .unwrap();
        keys += 20;
        for _ in 0..4 {
            if db.stats().vectors[0].upkeep.draining == 0 {
                db.background_step();
            }
        }
    }
    let lock = || {
        let mut tx = db.begin();
        for key in 0..20 {
            table.get_for_update(&mut tx, String::of(key)).unwrap();
        }
        tx
    };
    let held = lock();
    step_until_stuck(&db);
    assert!(upkeep(&db).draining > 0, "{:?}", upkeep(&db));
    drop(held);
    db.write(|tx| (20..keys).try_for_each(|key| table.delete(tx, String::of(key)).map(drop)))
        .unwrap();
    let held = lock();
    step_until_stuck(&db);
    let now = upkeep(&db);
    assert!(now.draining > 0 && now.dropped > 50, "{now:?}");
    drop((held, table, db));
    let db = builder().open(&path).unwrap();
    for _ in 0..20 {
        settle(&db);
    }
    let now = upkeep(&db);
    assert_eq!([now.queue, now.draining, now.receiving], [0; 3], "{now:?}");
    assert_eq!(now.live, 20, "{now:?}");
    drop(db);
    let report = terrane::check(&path).unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
}
