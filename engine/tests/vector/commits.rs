//! Vectors commit with their rows: bound late, visible at once, gone with a rollback.

use terrane::{Database, Isolation, TableDef};

use crate::world::*;

fn churn<K: KeyOf>(def: TableDef<K, Item>, seed: u64, rounds: usize, keys: u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let mut db = builder().open(&path).unwrap();
    let mut table = db.table(def).unwrap();
    let (mut rows, mut random) = (Rows::new(), Random(seed));
    let mut old = Vec::new();
    let mut judge = Judge::new();
    for round in 0..rounds {
        let isolation = match random.below(2) {
            0 => Isolation::Snapshot,
            _ => Isolation::Serializable,
        };
        let mut tx = db.writer().isolation(isolation).begin().unwrap();
        let mut inside = rows.clone();
        for _ in 0..random.below(40) {
            change(&table, &mut tx, &mut inside, &mut random, keys);
        }
        if random.below(4) == 0 {
            let query = random.vector();
            judge.ask(&table, &tx, &inside, &query, 10);
        }
        if random.below(5) > 0 {
            tx.commit().unwrap();
            rows = inside;
        } else {
            drop(tx); // a rollback leaves nothing
        }
        for _ in 0..random.below(4) {
            db.background_step();
        }
        let query = random.vector();
        judge.ask(
            &table,
            &db.snapshot(),
            &rows,
            &query,
            1 + random.below(30) as usize,
        );
        if random.below(10) == 0 {
            old.push((db.snapshot(), rows.clone()));
        }
        if old.len() > 4 {
            old.remove(random.below(5) as usize);
        }
        for (snapshot, rows) in &old {
            let query = random.vector();
            judge.ask(&table, snapshot, rows, &query, 10);
        }
        if round % 60 == 59 {
            old.clear();
            drop((table, db));
            db = builder().open(&path).unwrap();
            table = db.table(def).unwrap();
            settle(&db);
        }
    }
    judge.done("churn");
    drop((table, db));
    let report = terrane::check(&path).unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
}

#[test]
fn every_state_finds_its_own_rows_where_keys_are_row_ids() {
    for seed in 0..3 {
        churn(NUMBERED, seed, 240, 900);
    }
}

#[test]
fn every_state_finds_its_own_rows_where_row_ids_are_hidden() {
    for seed in 10..13 {
        churn(NAMED, seed, 240, 900);
    }
}

#[test]
fn a_version_rises_only_with_vector_or_columns() {
    let folder = tempfile::tempdir().unwrap();
    let db: Database = builder().open(folder.path().join("db")).unwrap();
    let table = db.table(NUMBERED).unwrap();
    let mut row = Random(3).item();
    row.place = Some(Random(4).vector().into());
    let vver = |db: &Database| {
        let raw = table.get_ref(&db.snapshot(), 7).unwrap().unwrap();
        let bytes = raw.bytes().to_vec();
        // The vector is the last field: dimension, kind, version, elements.
        let at = bytes.len() - DIM * 4 - 4;
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    };
    let mut seen = Vec::new();
    for step in 0..6 {
        match step {
            1 => row.note = "another".into(),
            2 => row.group += 1,
            4 => row.place = Some(Random(5).vector().into()),
            _ => {}
        }
        if step == 3 {
            db.write(|tx| table.delete(tx, 7)).unwrap();
        }
        db.write(|tx| table.put(tx, 7, &row)).unwrap();
        seen.push(vver(&db));
    }
    assert_eq!(seen, [1, 1, 2, 3, 4, 4]);
}
