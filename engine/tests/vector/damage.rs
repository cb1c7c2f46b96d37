//! An index whose records are damaged: told, and the rest of the database goes on.

use std::fs;
use std::path::Path;

use terrane::{Database, ErrorKind, TableDef};

use crate::world::*;

const PLAIN: TableDef<u64, u64> = TableDef::new("plain");

fn make(path: &Path) {
    let db = builder().open(path).unwrap();
    let table = db.table(NUMBERED).unwrap();
    let plain = db.table(PLAIN).unwrap();
    let mut random = Random(3);
    for round in 0..30 {
        db.write(|tx| {
            plain.put(tx, round, &round)?;
            for key in 0..100 {
                table.put(tx, 100 * round as i32 + key, &random.item())?;
            }
            Ok(())
        })
        .unwrap();
    }
    settle(&db);
    db.close().unwrap();
}

/// Flips a bit in every page of a tree that begins like a page of it.
fn damage(path: &Path, tree: u32) -> usize {
    let file = path.join("data.0");
    let mut bytes = fs::read(&file).unwrap();
    let mut pages = 0;
    for at in (0..bytes.len()).step_by(4096) {
        let is_page = bytes[at + 4..at + 6] == *b"TP";
        if is_page && bytes[at + 16..at + 20] == tree.to_le_bytes() {
            bytes[at + 200] ^= 4;
            pages += 1;
        }
    }
    fs::write(file, bytes).unwrap();
    pages
}

#[test]
fn a_damaged_index_closes_its_table_for_writing_and_can_be_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    make(&path);
    // The first table's tree is 256, its index 257.
    assert!(damage(&path, 257) > 10);
    let report = terrane::check(&path).unwrap();
    let told = |part: &str| {
        report
            .findings
            .iter()
            .any(|one| one.to_string().contains(part))
    };
    assert!(told("tree 257"), "{:?}", report.findings.first());

    let db: Database = builder().open(&path).unwrap();
    let plain = db.table(PLAIN).unwrap();
    db.write(|tx| plain.put(tx, 77, &77)).unwrap();
    let table = db.table(NUMBERED).unwrap();
    let mut random = Random(9);
    let query = random.vector();
    let search = || table.nearest(Item::PLACE, &query, 10);
    let named = |error: &terrane::Error| {
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{text}");
        for part in ["structure=vector index", "table=numbered", "field=place"] {
            assert!(text.contains(part), "{text}");
        }
    };
    named(&search().run(&db.snapshot()).unwrap_err());
    let row = random.item();
    named(&db.write(|tx| table.put(tx, 5, &row)).unwrap_err());
    let exact = search().advanced().exact().run(&db.snapshot()).unwrap();
    assert_eq!(exact.len(), 10, "rows are read and scanned");

    table.drop_vector_index(&db, Item::PLACE).unwrap();
    db.write(|tx| table.put(tx, 5, &row)).unwrap();
    table.create_vector_index(Item::PLACE).run(&db).unwrap();
    settle(&db);
    let again = search().advanced().probes(1 << 20).run(&db.snapshot());
    assert_eq!(again.unwrap().len(), 10);
}
