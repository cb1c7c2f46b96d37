//! The whole path of a commit that waits for no device (`Buffered`), and of a get, on a real
//! directory; serializable beside snapshot isolation for a transaction that reads first.

use std::hint::black_box;

use criterion::Criterion;
use terrane::{Database, Durability, Isolation, Table, TableDef};

use crate::scatter;

const ROWS: TableDef<u64, Vec<u8>> = TableDef::new("rows");
const COUNT: u64 = 100_000;

fn open(folder: &std::path::Path, isolation: Isolation) -> (Database, Table<u64, Vec<u8>>) {
    let db = Database::builder()
        .durability(Durability::Buffered)
        .isolation(isolation)
        .open(folder)
        .expect("a database");
    let rows = db.table(ROWS).expect("a table");
    for first in (0..COUNT).step_by(1000) {
        let fill = db.write(|tx| {
            for number in first..first + 1000 {
                rows.put(tx, scatter(number), &vec![7; 100])?;
            }
            Ok(())
        });
        fill.expect("rows");
    }
    (db, rows)
}

pub(crate) fn all(c: &mut Criterion) {
    for isolation in [Isolation::Serializable, Isolation::Snapshot] {
        let folder = tempfile::tempdir().expect("a folder");
        let (db, rows) = open(&folder.path().join("db"), isolation);
        let mut group = c.benchmark_group(format!("commit/{isolation:?}"));
        let mut number = 0;
        let mut next = || {
            number = scatter(number) % COUNT;
            scatter(number)
        };
        if isolation == Isolation::Serializable {
            group.bench_function("put_one_row", |b| {
                b.iter(|| {
                    let key = next();
                    let done = db.write(|tx| rows.put(tx, key, &vec![8; 100]));
                    done.expect("committed");
                });
            });
            let now = db.snapshot();
            group.bench_function("get_in_a_snapshot", |b| {
                b.iter(|| {
                    let row = rows.get_ref(&now, black_box(next())).expect("readable");
                    assert_eq!(row.expect("there").bytes().len(), 100);
                });
            });
        }
        group.bench_function("read_and_put_one_row", |b| {
            b.iter(|| {
                let key = next();
                let done = db.write(|tx| {
                    assert!(rows.get_ref(tx, key)?.is_some());
                    rows.put(tx, key, &vec![9; 100])
                });
                done.expect("committed");
            });
        });
        group.finish();
        let seen = rows.iter(&db.snapshot()).filter(Result::is_ok).count() as u64;
        assert_eq!(seen, COUNT);
        db.close().expect("closed");
    }
}
