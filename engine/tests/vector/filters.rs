//! Filters inside the scan: as many hits as match, in every state.

use terrane::{Filter, Read, Table};

use crate::world::*;

type Twin = (Filter<Item>, fn(&Item) -> bool);

fn twins() -> Vec<Twin> {
    vec![
        (Item::GROUP.lt(10), |row| row.group < 10),
        (Item::GROUP.eq(3), |row| row.group == 3),
        (Item::GROUP.eq(3) & Item::WORD.eq("red"), |row| {
            row.group == 3 && row.word == "red"
        }),
        (!Item::WORD.eq("red") | Item::GROUP.ge(19), |row| {
            row.word != "red" || row.group >= 19
        }),
        (Item::GROUP.eq(777), |row| row.group == 777),
        (Item::GROUP.eq(99), |row| row.group == 99),
    ]
}

fn loaded() -> (
    tempfile::TempDir,
    terrane::Database,
    Table<i32, Item>,
    Rows<i32>,
) {
    let folder = tempfile::tempdir().unwrap();
    let db = builder().open(folder.path().join("db")).unwrap();
    let table = db.table(NUMBERED).unwrap();
    let (mut rows, mut random) = (Rows::new(), Random(12));
    for round in 0..50 {
        db.write(|tx| {
            for key in 100 * round..100 * round + 100 {
                let mut row = random.item();
                if key % 1000 == 7 {
                    row.group = 777; // one in a thousand
                }
                table.put(tx, key, &row)?;
                rows.insert(key, row);
            }
            Ok(())
        })
        .unwrap();
        db.background_step();
    }
    settle(&db);
    (folder, db, table, rows)
}

// Seen to fail with a column that is missing taken for one that does not match.
#[test]
fn there_are_k_hits_whenever_k_rows_match() {
    let (_folder, db, table, rows) = loaded();
    let mut random = Random(5);
    for (filter, passes) in twins() {
        let (mut right, mut all) = (0, 0);
        for _ in 0..25 {
            let query = random.vector();
            let search = table
                .nearest(Item::PLACE, &query, 10)
                .filter(filter.clone());
            let hits = search.run(&db.snapshot()).unwrap();
            let passing = rows.values().filter(|row| passes(row));
            let mut far: Vec<f64> = passing.filter_map(|row| distance(row, &query)).collect();
            far.sort_by(f64::total_cmp);
            far.truncate(10);
            assert_eq!(hits.len(), far.len(), "{filter:?}");
            assert!(hits.iter().all(|hit| passes(&hit.record().unwrap())));
            let Some(last) = far.last() else { continue };
            let within = hits
                .iter()
                .filter(|hit| f64::from(hit.distance) <= last + 1e-4);
            (right, all) = (right + within.count(), all + far.len());
        }
        assert!(right * 100 >= all * 93, "{filter:?}: {right} of {all}");
    }
}

// Seen to fail with the columns of a row changed in place.
#[test]
fn an_old_state_is_filtered_by_its_own_columns() {
    let (_folder, db, table, rows) = loaded();
    let old = db.snapshot();
    db.write(|tx| {
        for (key, row) in rows.iter().filter(|(key, _)| *key % 2 == 0) {
            table.put(
                tx,
                *key,
                &Item {
                    group: 99,
                    ..row.clone()
                },
            )?;
        }
        Ok(())
    })
    .unwrap();
    settle(&db);
    let mut random = Random(6);
    for _ in 0..20 {
        let query = random.vector();
        let search = || table.nearest(Item::PLACE, &query, 10);
        let then = search().filter(Item::GROUP.lt(10)).run(&old).unwrap();
        assert_eq!(then.len(), 10);
        assert!(then.iter().all(|hit| rows[&hit.key].group < 10));
        let changed = search().filter(Item::GROUP.eq(99));
        assert_eq!(changed.run(&old).unwrap().len(), 0, "nobody had it then");
        let now = search().filter(Item::GROUP.eq(99)).run(&db.snapshot());
        let now = now.unwrap();
        assert_eq!(now.len(), 10);
        assert!(now.iter().all(|hit| hit.key % 2 == 0));
    }
}

/// The distances of the nearest rows that match, measured one by one, are those of the search.
fn few_are_exact(table: &Table<i32, Item>, read: &impl Read, rows: &Rows<i32>, query: &[f32]) {
    let search = table.nearest(Item::PLACE, query, 10);
    let hits = search.filter(Item::GROUP.eq(3) & Item::WORD.eq("red"));
    let hits = hits.run(read).unwrap();
    let found: Vec<f64> = hits.iter().map(|hit| f64::from(hit.distance)).collect();
    let matching = |row: &&Item| row.group == 3 && row.word == "red";
    let matching = rows.values().filter(matching);
    let mut far: Vec<f64> = matching.filter_map(|row| distance(row, query)).collect();
    far.sort_by(f64::total_cmp);
    far.truncate(10);
    let near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-3;
    assert!(
        found.len() == far.len() && found.iter().zip(&far).all(near),
        "{found:?} for {far:?}"
    );
}

// One in sixty matches. Seen to fail with tails not asked, with columns of the next slot, and with
// few matches not looked for where patience ends a search.
#[test]
fn few_matches_are_exact_beside_upkeep_in_old_states_and_in_a_transaction() {
    let (_folder, db, table, mut rows) = loaded();
    let mut random = Random(8);
    let mut old = Vec::new();
    for round in 0..40 {
        db.write(|tx| {
            for _ in 0..30 {
                change(&table, tx, &mut rows, &mut random, 5500);
            }
            few_are_exact(&table, tx, &rows, &random.vector());
            Ok(())
        })
        .unwrap();
        db.background_step();
        few_are_exact(&table, &db.snapshot(), &rows, &random.vector());
        if round % 8 == 0 {
            old.push((db.snapshot(), rows.clone()));
        }
        for (snapshot, rows) in &old {
            few_are_exact(&table, snapshot, rows, &random.vector());
        }
    }
    settle(&db);
    for (snapshot, rows) in &old {
        few_are_exact(&table, snapshot, rows, &random.vector());
    }
}

#[test]
fn columns_that_do_not_fit_are_asked_at_the_row() {
    let folder = tempfile::tempdir().unwrap();
    let db = builder().open(folder.path().join("db")).unwrap();
    let table = db.table(NUMBERED).unwrap();
    let mut random = Random(7);
    let long = "x".repeat(400);
    for round in 0..30 {
        db.write(|tx| {
            for key in 100 * round..100 * round + 100 {
                let mut row = random.item();
                row.place.get_or_insert(random.vector().into());
                if key % 50 == 0 {
                    row.word = long.clone();
                }
                table.put(tx, key, &row)?;
            }
            Ok(())
        })
        .unwrap();
    }
    settle(&db);
    let query = random.vector();
    let search = table.nearest(Item::PLACE, &query, 100);
    let hits = search.filter(Item::WORD.eq(long.as_str()));
    let hits = hits.run(&db.snapshot()).unwrap();
    assert_eq!(hits.len(), 60);
    assert!(hits.iter().all(|hit| hit.key % 50 == 0));
}
