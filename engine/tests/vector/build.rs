//! An index made over a table that is in use.

use std::ops::ControlFlow;

use terrane::{Built, Database, ErrorKind, Record, Table, TableDef, Vector};
use terrane_wal::env::SimEnv;
use terrane_wal::io::sim::SimDisk;

use crate::world::*;

#[derive(Record, Clone)]
struct Late {
    #[terrane(id = 1, filter)]
    group: u16,
    #[terrane(id = 4, vector(metric = "l2", exact))]
    place: Option<Vector<DIM>>,
}

const LATE: TableDef<u32, Late> = TableDef::new("late");

fn row(random: &mut Random) -> Late {
    Late {
        group: random.below(9) as u16,
        place: (random.below(9) > 0).then(|| random.vector().into()),
    }
}

fn load(db: &Database, rows: u32) -> Table<u32, Late> {
    let table = db.table(LATE).unwrap();
    let mut random = Random(5);
    for from in (0..rows).step_by(100) {
        db.write(|tx| {
            for key in from..(from + 100).min(rows) {
                table.put(tx, key, &row(&mut random))?;
            }
            Ok(())
        })
        .unwrap();
    }
    table
}

/// Searches through the index find what a scan finds.
fn compare(table: &Table<u32, Late>, db: &Database, random: &mut Random) {
    let now = db.snapshot();
    let (mut right, mut all) = (0, 0);
    for _ in 0..30 {
        let query = random.vector();
        let search = || table.nearest(Late::PLACE, &query, 10);
        let scan = search().advanced().exact().run(&now).unwrap();
        let before = db.stats().vectors[0].searches;
        let found = search().advanced().probes(1 << 20).run(&now).unwrap();
        assert_eq!(
            db.stats().vectors[0].searches,
            before + 1,
            "the index was asked"
        );
        assert_eq!(found.len(), scan.len());
        let keys: Vec<u32> = scan.iter().map(|hit| hit.key).collect();
        right += found.iter().filter(|hit| keys.contains(&hit.key)).count();
        all += scan.len();
    }
    assert!(right * 100 >= all * 99, "{right} of {all}");
}

fn sound(path: &std::path::Path) {
    let report = terrane::check(path).unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
}

// Seen to fail with rows adopted that a commit had bound already, and with a last slice that does
// not say that it is the last.
#[test]
fn an_index_is_built_while_others_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let db = builder().open(&path).unwrap();
    let table = load(&db, 3_000);
    assert!(
        db.stats().vectors.is_empty(),
        "none without being asked for"
    );
    let old = db.snapshot();
    let mut random = Random(17);
    let (mut looks, mut last) = (0, None);
    let built = table
        .create_vector_index(Late::PLACE)
        .on_progress(|so_far| {
            looks += 1;
            if let Some(last) = last.replace(so_far) {
                assert!(
                    !last.done && last.rows <= so_far.rows,
                    "{last:?} {so_far:?}"
                );
            }
            // Before the cursor and behind it: new rows, changed ones, deleted ones.
            db.write(|tx| {
                for _ in 0..8 {
                    let key = random.below(3_300) as u32;
                    match random.below(4) {
                        0 => table.delete(tx, key).map(drop)?,
                        _ => table.put(tx, key, &row(&mut random))?,
                    }
                }
                Ok(())
            })
            .unwrap();
            ControlFlow::Continue(())
        })
        .run(&db);
    assert_eq!(built.unwrap(), Built::Ready);
    assert!(looks > 3_000 / 64, "a slice is 64 rows: {looks}");
    // Keys of rows that were deleted are looked at as well, and there are 300 more at most.
    let last = last.unwrap();
    assert!(
        last.done && (3_000..=3_300).contains(&last.rows),
        "{last:?}"
    );
    assert!(last.indexed > 2_000 && last.indexed < last.rows, "{last:?}");
    compare(&table, &db, &mut random);
    settle(&db);
    compare(&table, &db, &mut random);
    // A state from before the index is scanned.
    let before = db.stats().vectors[0].searches;
    let search = table.nearest(Late::PLACE, &random.vector(), 10);
    assert_eq!(search.advanced().probes(9).run(&old).unwrap().len(), 10);
    assert_eq!(db.stats().vectors[0].searches, before);
    // Built once: a second call has nothing to do.
    let again = table.create_vector_index(Late::PLACE).run(&db).unwrap();
    assert_eq!(again, Built::Ready);
    drop((table, db, old));
    sound(&path);
    let db = builder().open(&path).unwrap();
    let table = db.table(LATE).unwrap();
    compare(&table, &db, &mut random);
}

#[test]
fn a_cancelled_build_leaves_nothing_and_can_begin_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let db = builder().open(&path).unwrap();
    let table = load(&db, 1_000);
    let built = table
        .create_vector_index(Late::PLACE)
        .on_progress(|so_far| match so_far.rows {
            300.. => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
        .run(&db);
    assert_eq!(built.unwrap(), Built::Cancelled);
    assert!(db.stats().vectors.is_empty());
    let mut random = Random(2);
    db.write(|tx| table.put(tx, 7, &row(&mut random))).unwrap();
    let query = random.vector();
    let hits = table.nearest(Late::PLACE, &query, 5).run(&db.snapshot());
    assert_eq!(hits.unwrap().len(), 5);
    drop((table, db));
    sound(&path);
    let db = builder().open(&path).unwrap();
    let table = db.table(LATE).unwrap();
    let built = table.create_vector_index(Late::PLACE).replicas(3).run(&db);
    assert_eq!(built.unwrap(), Built::Ready);
    settle(&db);
    compare(&table, &db, &mut random);
    drop((table, db));
    sound(&path);
}

#[test]
fn what_cannot_be_built_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let db = builder().open(folder.path().join("db")).unwrap();
    let table = load(&db, 10);
    let error = table.create_vector_index(Late::GROUP).run(&db).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("field=group"), "{error}");
    for replicas in [0, 5] {
        let create = table.create_vector_index(Late::PLACE).replicas(replicas);
        let error = create.run(&db).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("range=1 to 4"), "{error}");
    }
    assert!(db.stats().vectors.is_empty(), "nothing was begun");
}

// Seen to fail with the cursor not written: rows are looked at twice, and counted so.
#[test]
fn a_build_that_a_power_cut_ended_goes_on_behind_its_last_slice() {
    for at in [1, 3, 9, 15] {
        let open = |sim: &SimEnv| {
            let db = Database::builder()
                .env(sim.env())
                .background(false)
                .memory_bytes(16 << 20)
                .open("/db")
                .unwrap();
            let table = db.table(LATE).unwrap();
            (db, table)
        };
        let sim = SimEnv::with_disk(at, SimDisk::seeded(at));
        let (db, table) = open(&sim);
        let loaded = load(&db, 1_000);
        let (mut slices, mut left) = (0, None);
        let disk = sim.disk().clone();
        let built = loaded
            .create_vector_index(Late::PLACE)
            .on_progress(|so_far| {
                slices += 1;
                if slices == at {
                    // What a commit acknowledges, it acknowledges for the slices before it.
                    db.write(|tx| table.delete(tx, 999)).unwrap();
                    left = Some((disk.crash(at), so_far.rows));
                }
                ControlFlow::Continue(())
            })
            .run(&db);
        assert_eq!(built.unwrap(), Built::Ready);
        let (left, done) = left.unwrap();
        drop((table, loaded, db));
        drop(sim);
        let sim = SimEnv::with_disk(at, left);
        let (db, table) = open(&sim);
        let mut rows = 0;
        let built = table
            .create_vector_index(Late::PLACE)
            .on_progress(|so_far| {
                rows = so_far.rows;
                ControlFlow::Continue(())
            })
            .run(&db);
        assert_eq!(built.unwrap(), Built::Ready);
        assert_eq!(rows, 999 - done, "the rest of the rows");
        settle(&db);
        compare(&table, &db, &mut Random(8));
        drop((table, db));
        let report = terrane::inspect::check_with(&sim.env(), "/db").unwrap();
        assert!(report.is_sound(), "{:?}", report.findings);
    }
}
