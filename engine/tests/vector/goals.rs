//! A goal of recall is calibrated: after a load, by itself, on the rows of the table.

use terrane::{Database, Table};

use crate::world::*;

const ROWS: i32 = 3_000;
const QUERIES: u64 = 200;
const K: usize = 10;

/// Rows that lie so wide around their topics that the nearest ones stand in many postings.
fn load(db: &Database) -> Table<i32, Item> {
    let table = db.table(NUMBERED).unwrap();
    let mut random = Random(21);
    for from in (0..ROWS).step_by(250) {
        db.write(|tx| {
            (from..from + 250).try_for_each(|key| {
                let place = Some(random.vector_around(1.3).into());
                let row = Item {
                    place,
                    ..random.item()
                };
                table.put(tx, key, &row)
            })
        })
        .unwrap();
    }
    table
}

/// Queries that are no rows, and the rows that are nearest to each.
fn queries(db: &Database, table: &Table<i32, Item>) -> Vec<([f32; DIM], Vec<i32>)> {
    let (now, mut random) = (db.snapshot(), Random(77));
    let of = |_| {
        let query = random.vector_around(1.3);
        let scan = table.nearest(Item::PLACE, &query, K).advanced().exact();
        let hits = scan.run(&now).unwrap();
        (query, hits.iter().map(|hit| hit.key).collect())
    };
    (0..QUERIES).map(of).collect()
}

/// Codes that searches with a goal look at, and the share of the true nearest that they find.
fn search(
    db: &Database,
    table: &Table<i32, Item>,
    queries: &[([f32; DIM], Vec<i32>)],
    goal: f64,
) -> (u64, f64) {
    let now = db.snapshot();
    let before = db.stats().vectors[0].clone();
    let (mut right, mut all) = (0, 0);
    for (query, keys) in queries {
        let search = table.nearest(Item::PLACE, query, K);
        let found = search.recall(goal).run(&now).unwrap();
        assert_eq!(found.len(), K);
        right += found.iter().filter(|hit| keys.contains(&hit.key)).count();
        all += K;
    }
    let after = &db.stats().vectors[0];
    assert_eq!(
        after.searches,
        before.searches + QUERIES,
        "the index serves"
    );
    (
        after.entries_scanned - before.entries_scanned,
        right as f64 / all as f64,
    )
}

// Seen to fail with a rule that is not written down, with a goal that is not asked for, and with
// no calibration at rest.
#[test]
fn a_load_calibrates_and_what_was_found_outlives_an_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let db = builder().open(&path).unwrap();
    let table = load(&db);
    let queries = queries(&db, &table);
    let early = [0.8, 0.99].map(|goal| search(&db, &table, &queries, goal).0);
    assert_eq!(early[0], early[1], "nothing is known yet");
    for _ in 0..50 {
        settle(&db); // sweeps, and what they make due
    }
    let goals = [0.8, 0.9, 0.99];
    let found = goals.map(|goal| search(&db, &table, &queries, goal));
    println!("goals {goals:?}: codes and recall {found:?}");
    let [few, more, most] = found.map(|(codes, _)| codes);
    assert!(
        few * 5 < most * 4 && few <= more && more <= most,
        "{found:?}"
    );
    for (goal, (codes, recall)) in goals.iter().zip(found) {
        assert!(recall >= goal - 0.03, "{recall} of {goal}, {codes} codes");
    }
    drop((table, db));

    // No slice of upkeep since the open: it is what was written down.
    let db = builder().open(&path).unwrap();
    let table = db.table(NUMBERED).unwrap();
    assert_eq!(goals.map(|goal| search(&db, &table, &queries, goal)), found);
    // Nothing has changed, so nothing is calibrated anew: nothing is written at all.
    let entries = db.stats().log.entries;
    for _ in 0..5 {
        settle(&db);
    }
    assert_eq!(db.stats().log.entries, entries);
    assert_eq!(goals.map(|goal| search(&db, &table, &queries, goal)), found);
}
