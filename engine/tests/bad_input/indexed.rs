//! Rows 39 to 53 once more, where a vector index serves: tables above the size that is scanned.
//!
//! That the index was asked is seen by its counters: a search by scan reads no posting.

use std::ops::ControlFlow;
use std::sync::OnceLock;

use terrane::{
    Built, Create, Database, DynVector, ErrorKind, Nearest, Record, Snapshot, Table, TableDef,
    Vector, VectorStats, check,
};

use crate::surgeon::{Surgeon, set_u32, u16_at, u32_at};
use crate::{Made, assert_usable, copy_dir, refused};

#[derive(Record, Clone, Debug, PartialEq)]
struct Item {
    #[terrane(id = 1, filter)]
    group: u32,
    #[terrane(id = 2)]
    note: u32,
    #[terrane(id = 3, vector(metric = "l2", dim = 3))]
    place: DynVector,
    #[terrane(id = 4, vector(metric = "cosine"))]
    angle: Option<Vector<3>>,
    #[terrane(id = 5, vector(metric = "dot", exact))]
    weight: Option<Vector<3>>,
}

const ITEMS: TableDef<u64, Item> = TableDef::new("items");
const ROWS: u64 = 2_400;
/// Reads every posting.
const ALL: usize = 1 << 20;

type Items = Table<u64, Item>;
type Hits = Vec<(u64, f32)>;

/// A point of a cube, the same for the same number.
fn point(key: u64) -> [f32; 3] {
    [37, 61, 89].map(|step| (key * key * step % 1009) as f32 / 100.0 - 5.0)
}

fn item(key: u64) -> Item {
    Item {
        group: key as u32 % 7,
        note: key as u32,
        place: DynVector::try_from(point(key).to_vec()).unwrap(),
        angle: Some(Vector::from(point(key + 1).map(|x| x + 7.0))),
        weight: None,
    }
}

fn settle(db: &Database) {
    assert!((0..200_000).any(|_| !db.background_step()), "upkeep ends");
}

/// A closed database with [`ROWS`] items, upkeep done.
fn filled() -> Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let made = Made::new();
        let db = made.open().unwrap();
        let items = db.table(ITEMS).unwrap();
        for from in (0..ROWS).step_by(100) {
            db.write(|tx| (from..from + 100).try_for_each(|key| items.put(tx, key, &item(key))))
                .unwrap();
        }
        settle(&db);
        drop(items);
        db.close().unwrap();
        made
    });
    let copy = Made::empty();
    copy_dir(&made.dir(), &copy.dir());
    copy
}

fn open(made: &Made) -> (Database, Items) {
    let db = made.open().unwrap();
    let items = db.table(ITEMS).unwrap();
    (db, items)
}

fn sound(made: &Made) {
    let report = check(made.dir()).unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
}

fn counters(db: &Database, table: &str, field: &str) -> VectorStats {
    let all = db.stats().vectors;
    let found = all
        .into_iter()
        .find(|one| (&*one.table, &*one.field) == (table, field));
    found.unwrap()
}

/// Runs a search of `items` that the index answers.
fn asked(
    db: &Database,
    now: &Snapshot,
    field: &str,
    run: impl FnOnce(&Snapshot) -> terrane::Result<Vec<terrane::Hit<u64, Item>>>,
) -> Hits {
    let before = counters(db, "items", field);
    let hits = run(now).unwrap();
    let after = counters(db, "items", field);
    assert_eq!(after.searches, before.searches + 1, "the index was asked");
    assert!(after.postings_read > before.postings_read + 1, "{after:?}");
    hits.iter().map(|hit| (hit.key, hit.distance)).collect()
}

/// What a search of every posting finds, which is what a scan finds.
fn nearest(db: &Database, now: &Snapshot, search: &dyn Fn() -> Nearest<u64, Item>) -> Hits {
    let scan = search().advanced().exact().run(now).unwrap();
    let scan: Hits = scan.iter().map(|hit| (hit.key, hit.distance)).collect();
    let by_index = |now: &Snapshot| search().advanced().probes(ALL).run(now);
    let found = asked(db, now, "place", by_index);
    assert_eq!(found, scan);
    found
}

/// A state of the index: hits around some places, by either field.
fn look(db: &Database, items: &Items) -> Vec<Hits> {
    let now = db.snapshot();
    let query = |at: u64| point(at * 97 + 5);
    let places = (0..4).map(|at| nearest(db, &now, &|| items.nearest(Item::PLACE, &query(at), 12)));
    let angles = (0..4).map(|at| {
        let query = query(at).map(|x| x + 6.0);
        asked(db, &now, "angle", |now| {
            items.nearest(Item::ANGLE, &query, 12).run(now)
        })
    });
    places.chain(angles).collect()
}

#[test]
fn rows_39_41_42_43_refused_writes_leave_the_index_as_it_was() {
    let made = filled();
    let (db, items) = open(&made);
    let before = look(&db, &items);
    let live = |db: &Database| counters(db, "items", "place").upkeep;
    let upkeep = live(&db);
    let place = |elements: &[f32]| Item {
        place: DynVector::try_from(elements.to_vec()).unwrap(),
        ..item(2)
    };
    let angle = |elements: [f32; 3]| Item {
        angle: Some(Vector::from(elements)),
        ..item(2)
    };
    let bad: [(Item, &[&str]); 8] = [
        (place(&[1.0; 4]), &["wanted=3", "given=4", "field=place"]),
        (place(&[1.0; 2]), &["wanted=3", "given=2", "field=place"]),
        (place(&[0.0, f32::NAN, 0.0]), &["position=1", "field=place"]),
        (place(&[0.0, 0.0, f32::INFINITY]), &["position=2", "inf"]),
        (place(&[f32::NEG_INFINITY, 0.0, 0.0]), &["position=0"]),
        (place(&[3.0e38, 3.0e38, 0.0]), &["sum of squares", "limit="]),
        (angle([0.0; 3]), &["zeros", "cosine", "field=angle"]),
        (angle([-0.0; 3]), &["zeros", "cosine", "field=angle"]),
    ];
    for (row, parts) in &bad {
        for key in [2, ROWS + 5] {
            let put = db.write(|tx| {
                items.put(tx, 1, &item(1))?;
                let error = items.put(tx, key, row);
                assert_eq!(items.get(tx, key)?, (key < ROWS).then(|| item(key)));
                error
            });
            refused(
                put,
                ErrorKind::Invalid,
                &[parts, &["table=items"][..]].concat(),
            );
        }
    }
    assert_eq!(look(&db, &items), before);
    settle(&db);
    assert_eq!(live(&db).live, ROWS);
    assert_eq!(live(&db).commits, upkeep.commits, "nothing for upkeep");
    assert_eq!(items.count(&db.snapshot()).unwrap(), ROWS);
    assert_usable(&db);
    drop(items);
    db.close().unwrap();
    sound(&made);
    let (db, items) = open(&made);
    assert_eq!(look(&db, &items), before);
}

#[test]
fn rows_39_41_42_43_50_queries_that_the_index_is_not_asked() {
    let made = filled();
    let (db, items) = open(&made);
    let now = db.snapshot();
    let searches = || ["place", "angle"].map(|field| counters(&db, "items", field).searches);
    let before = searches();
    let places: [(&[f32], &[&str]); 6] = [
        (&[1.0; 2], &["wanted=3", "given=2", "field=place"]),
        (&[1.0; 4], &["wanted=3", "given=4", "field=place"]),
        (&[], &["wanted=3", "given=0", "field=place"]),
        (&[1.0, f32::NAN, 1.0], &["position=1", "NaN"]),
        (&[f32::INFINITY, 1.0, 1.0], &["position=0", "inf"]),
        (&[1.0, 3.0e38, 1.0], &["position=1", "sum="]),
    ];
    for (query, parts) in places {
        let parts = [parts, &["table=items"][..]].concat();
        let search = || items.nearest(Item::PLACE, query, 3);
        refused(search().run(&now), ErrorKind::Invalid, &parts);
        let probes = search().advanced().probes(3).run(&now);
        refused(probes, ErrorKind::Invalid, &parts);
        db.write(|tx| {
            items.put(tx, 3, &item(30))?;
            refused(search().run(tx), ErrorKind::Invalid, &parts);
            Ok(())
        })
        .unwrap();
    }
    let zeros = items.nearest(Item::ANGLE, &[0.0; 3], 3).run(&now);
    refused(zeros, ErrorKind::Invalid, &["zeros", "field=angle"]);
    let search = || items.nearest(Item::PLACE, &[1.0; 3], 3);
    let none = search().advanced().probes(0).run(&now);
    refused(none, ErrorKind::Invalid, &["probes=0", "field=place"]);
    for recall in [0.0, -0.5, 1.001, f64::NAN, f64::INFINITY] {
        let given = format!("given={recall}");
        let parts = [&*given, "range=above 0, up to 1", "field=place"];
        refused(
            search().recall(recall).run(&now),
            ErrorKind::Invalid,
            &parts,
        );
    }
    let parts = ["filter=note", "hint=", "table=items", "field=place"];
    let filter = search().filter(Item::NOTE.eq(3)).run(&now);
    refused(filter, ErrorKind::Invalid, &parts);
    let both = search().filter(Item::GROUP.eq(3) & !Item::NOTE.lt(3));
    refused(both.run(&now), ErrorKind::Invalid, &parts);
    let scan = search().filter(Item::NOTE.eq(3)).advanced().exact();
    assert_eq!(scan.run(&now).unwrap().len(), 1);
    assert_eq!(searches(), before, "no posting was read");
    assert_usable(&db);
}

#[test]
fn row_44_odd_but_finite_elements() {
    let made = filled();
    let (db, items) = open(&made);
    // From denormals to what is nearly too large, either sign; upkeep clusters them with the rest.
    let odd = |key: u64| {
        let size = 10.0_f64.powi((key * 7 % 64) as i32 - 45);
        let sign = if key.is_multiple_of(2) { 1.0 } else { -1.0 };
        let [x, y, _] = point(key);
        [f64::from(x) * size * sign, f64::from(y) * size, -0.0].map(|x| x as f32)
    };
    for from in (0..300).step_by(50) {
        db.write(|tx| {
            (from..from + 50).try_for_each(|key| {
                let row = Item {
                    place: DynVector::try_from(odd(key).to_vec()).unwrap(),
                    ..item(key)
                };
                items.put(tx, ROWS + key, &row)
            })
        })
        .unwrap();
        db.background_step();
    }
    settle(&db);
    let now = db.snapshot();
    let mut queries: Vec<[f32; 3]> = (0..32).map(|key| odd(key * 9)).collect();
    queries.extend([
        [0.0; 3],
        [-0.0; 3],
        [1.0e-45, -1.0e-45, f32::MIN_POSITIVE],
        [1.0e19, -1.0e19, 1.0e19],
    ]);
    let (mut right, mut all) = (0, 0);
    for query in queries {
        let search = || items.nearest(Item::PLACE, &query, 40);
        let found = asked(&db, &now, "place", |now| {
            search().advanced().probes(ALL).run(now)
        });
        let scan = search().advanced().exact().run(&now).unwrap();
        assert_eq!(found.len(), 40);
        assert!(found.iter().all(|hit| !hit.1.is_nan()));
        let rising = |pair: &[(u64, f32)]| {
            let order = pair[0].1.total_cmp(&pair[1].1);
            order.then(pair[0].0.cmp(&pair[1].0)).is_lt()
        };
        assert!(found.windows(2).all(rising), "{query:?}: {found:?}");
        // Many distances are equal, of any of which the last hits may be.
        let last = scan[39].distance;
        let within = found.iter().filter(|hit| hit.1 <= last);
        (right, all) = (right + within.count(), all + scan.len());
    }
    assert!(right * 100 >= all * 99, "{right} of {all}");
    drop(items);
    db.close().unwrap();
    sound(&made);
}

#[test]
fn rows_45_46_47_50_how_many_hits() {
    let made = filled();
    let (db, items) = open(&made);
    let now = db.snapshot();
    let search = |k| items.nearest(Item::PLACE, &[0.0; 3], k);
    assert_eq!(search(0).run(&now).unwrap().len(), 0);
    for k in [1, 10, 1000] {
        let run = |now: &Snapshot| search(k).run(now);
        assert_eq!(asked(&db, &now, "place", run).len(), k);
    }
    let run = |now: &Snapshot| search(10_000).run(now);
    assert_eq!(
        asked(&db, &now, "place", run).len() as u64,
        ROWS,
        "all there are"
    );
    for k in [10_001, usize::MAX] {
        let parts = ["limit=10000", "table=items", "field=place"];
        refused(search(k).run(&now), ErrorKind::TooLarge, &parts);
    }
    let few = search(10).filter(Item::GROUP.eq(77));
    assert_eq!(asked(&db, &now, "place", |now| few.run(now)).len(), 0);
    let group = |k| nearest(&db, &now, &|| search(k).filter(Item::GROUP.eq(3)));
    assert_eq!(group(10).len(), 10);
    assert_eq!(group(1000).len() as u64, ROWS / 7 + 1);
    // More postings than there are: all of them.
    let run = |now: &Snapshot| search(10).advanced().probes(usize::MAX).run(now);
    let most = asked(&db, &now, "place", run);
    assert_eq!(most, nearest(&db, &now, &|| search(10)));
    // An index without rows, from the first and after all were deleted.
    let bare = db.table(TableDef::<u64, Item>::new("bare")).unwrap();
    let empty = bare.nearest(Item::PLACE, &[0.0; 3], 5).advanced().probes(5);
    assert_eq!(empty.run(&db.snapshot()).unwrap().len(), 0);
    assert_eq!(counters(&db, "bare", "place").searches, 1);
    for from in (0..ROWS).step_by(200) {
        db.write(|tx| (from..from + 200).try_for_each(|key| items.delete(tx, key).map(drop)))
            .unwrap();
    }
    let run = |now: &Snapshot| search(10).advanced().probes(ALL).run(now);
    for _ in 0..2 {
        assert_eq!(run(&db.snapshot()).unwrap().len(), 0);
        assert_eq!(asked(&db, &now, "place", run).len(), 10, "as it was");
        settle(&db);
    }
    drop((now, items, bare));
    settle(&db);
    db.close().unwrap();
    sound(&made);
}

#[test]
fn rows_48_52_a_put_replaces_and_a_delete_hides_at_once() {
    let made = filled();
    let (db, items) = open(&made);
    let before = db.snapshot();
    let far = [90.0, 0.0, 0.0];
    let first = |now: &Snapshot, query: &[f32; 3]| {
        nearest(&db, now, &|| items.nearest(Item::PLACE, query, 3))[0]
    };
    let moved = Item {
        place: DynVector::try_from(far.to_vec()).unwrap(),
        ..item(7)
    };
    db.write(|tx| items.put(tx, 7, &moved)).unwrap();
    assert_eq!(first(&db.snapshot(), &far), (7, 0.0));
    assert_ne!(first(&db.snapshot(), &point(7)).0, 7);
    assert_eq!(
        first(&before, &point(7)),
        (7, 0.0),
        "the old row in the old snapshot"
    );
    assert_ne!(first(&before, &far).0, 7);
    assert_eq!(items.count(&db.snapshot()).unwrap(), ROWS);
    // Deleted: gone for the transaction itself, then for all that begin later.
    let again = db.snapshot();
    db.write(|tx| {
        assert!(!items.delete(tx, ROWS + 1)?, "unknown");
        assert!(items.delete(tx, 7)?);
        let hits = items.nearest(Item::PLACE, &far, 3).advanced().probes(ALL);
        assert!(hits.run(tx)?.iter().all(|hit| hit.key != 7));
        assert!(!items.delete(tx, 7)?);
        Ok(())
    })
    .unwrap();
    for _ in 0..2 {
        assert_ne!(first(&db.snapshot(), &far).0, 7);
        assert_eq!(first(&again, &far), (7, 0.0));
        assert_eq!(first(&before, &point(7)), (7, 0.0));
        settle(&db);
    }
    // A rollback brings nothing and takes nothing.
    let mut tx = db.begin();
    items.delete(&mut tx, 8).unwrap();
    items.put(&mut tx, 9, &moved).unwrap();
    drop(tx);
    assert_eq!(first(&db.snapshot(), &point(8)), (8, 0.0));
    assert_ne!(first(&db.snapshot(), &far).1, 0.0);
    drop((before, again, items));
    settle(&db);
    db.close().unwrap();
    sound(&made);
}

#[derive(Record, Clone)]
struct Point {
    #[terrane(id = 1, vector(metric = "l2"))]
    at: Vector<3>,
}

// `TERRANE_EQUAL` says how many there are instead, a million for one.
#[test]
fn row_49_twenty_thousand_equal_vectors() {
    // A million in a run by hand: minutes.
    let rows = std::env::var("TERRANE_EQUAL").map_or(20_000, |text| text.parse().unwrap());
    let made = Made::empty();
    let builder = Database::builder().memory_bytes((8 << 20).max(256 * rows as usize));
    let builder = builder.create(Create::New).background(false);
    let db = builder.open(made.dir()).unwrap();
    let points = db.table(TableDef::<u32, Point>::new("points")).unwrap();
    let at = Vector::from([1.5, -2.0, 0.25]);
    for from in (0..rows).step_by(500) {
        db.write(|tx| {
            let point = Point { at: at.clone() };
            (from..from + 500).try_for_each(|key| points.put(tx, key, &point))
        })
        .unwrap();
        if from == 3_000 {
            // So few can be told apart, so there is a tuning that more rows make stale.
            settle(&db);
        }
        // Not enough to keep up.
        (0..20.max(rows / 5000)).for_each(|_| _ = db.background_step());
    }
    assert!(
        (0..200_000.max(rows)).any(|_| !db.background_step()),
        "upkeep ends"
    );
    let upkeep = counters(&db, "points", "at").upkeep;
    assert_eq!((upkeep.queue, upkeep.live), (0, rows.into()), "{upkeep:?}");
    assert!(
        upkeep.equal_splits > u64::from(rows) / 400 && upkeep.splits < u64::from(rows) / 25,
        "{upkeep:?}"
    );
    let now = db.snapshot();
    for k in [1, 10, 10_000] {
        let hits = points.nearest(Point::AT, &at, k).run(&now).unwrap();
        let mut keys: Vec<u32> = hits.iter().map(|hit| hit.key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), k);
        assert!(hits.iter().all(|hit| hit.distance == 0.0));
    }
    assert_eq!(counters(&db, "points", "at").searches, 3);
    let commits = counters(&db, "points", "at").upkeep.commits;
    settle(&db);
    let after = counters(&db, "points", "at").upkeep;
    assert_eq!(after.commits, commits, "nothing is left to do");
    drop((now, points));
    db.close().unwrap();
    sound(&made);
}

#[derive(Record)]
struct Wider {
    #[terrane(id = 1, filter)]
    group: u32,
    #[terrane(id = 2)]
    note: u32,
    #[terrane(id = 3, vector(metric = "l2", dim = 4))]
    place: DynVector,
}

#[derive(Record)]
struct Turned {
    #[terrane(id = 1, filter)]
    group: u32,
    #[terrane(id = 2)]
    note: u32,
    #[terrane(id = 3, vector(metric = "dot", dim = 3))]
    place: DynVector,
}

#[test]
fn row_51_another_metric_or_dimension() {
    let made = filled();
    {
        let db = made.open().unwrap();
        let wider = db.table(TableDef::<u64, Wider>::new("items"));
        let parts = [
            "table=items",
            "vector(l2, 3)",
            "declared=place",
            "vector(l2, 4)",
        ];
        refused(wider, ErrorKind::Schema, &parts);
        let turned = db.table(TableDef::<u64, Turned>::new("items"));
        let parts = [
            "table=items",
            "stored=place",
            "vector(l2, 3)",
            "vector(dot, 3)",
        ];
        refused(turned, ErrorKind::Schema, &parts);
        let items = db.table(ITEMS).unwrap();
        look(&db, &items);
    }
    sound(&made);
}

#[test]
fn a_cancelled_build_leaves_the_table_as_it_was() {
    let made = filled();
    let (db, items) = open(&made);
    for from in (0..ROWS).step_by(300) {
        db.write(|tx| {
            (from..from + 300).try_for_each(|key| {
                let weight = Some(Vector::from(point(key)));
                let row = Item {
                    weight,
                    ..item(key)
                };
                items.put(tx, key, &row)
            })
        })
        .unwrap();
    }
    let indexes = || db.stats().vectors.len();
    let search = || items.nearest(Item::WEIGHT, &[1.0, 2.0, 3.0], 9);
    let found = |hits: Vec<terrane::Hit<u64, Item>>| -> Hits {
        hits.iter().map(|hit| (hit.key, hit.distance)).collect()
    };
    let exact = found(search().run(&db.snapshot()).unwrap());
    for stop_at in [0, 64, 1000, 2300] {
        let built = items
            .create_vector_index(Item::WEIGHT)
            .on_progress(|so_far| match so_far.rows >= stop_at {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            })
            .run(&db);
        assert_eq!(built.unwrap(), Built::Cancelled, "{stop_at}");
        assert_eq!(indexes(), 2);
        assert_eq!(found(search().run(&db.snapshot()).unwrap()), exact);
        db.write(|tx| items.put(tx, ROWS + 1, &item(1))).unwrap();
        settle(&db);
    }
    look(&db, &items);
    let built = items.create_vector_index(Item::WEIGHT).run(&db);
    assert_eq!(built.unwrap(), Built::Ready);
    settle(&db);
    let by_index = |now: &Snapshot| search().advanced().probes(ALL).run(now);
    assert_eq!(asked(&db, &db.snapshot(), "weight", by_index), exact);
    look(&db, &items);
    drop(items);
    db.close().unwrap();
    sound(&made);
}

/// A record in a leaf.
struct Found {
    key: Vec<u8>,
    /// Where its flags stand, its key without the prefix, and its value.
    flags: usize,
    suffix: usize,
    value: usize,
    /// Bytes of the value.
    len: usize,
}

/// The records of a leaf page, in order.
fn records(page: &[u8]) -> Vec<Found> {
    let prefix = u16_at(page, 34) as usize;
    let fence = u16_at(page, 44) as usize;
    let slots = 0..u16_at(page, 32) as usize;
    let found = slots.map(|slot| {
        let flags = u16_at(page, 132 + 8 * slot) as usize;
        let key_len = u16_at(page, 134 + 8 * slot) as usize;
        let varint = page[flags + 1..].iter().take_while(|byte| **byte >= 128);
        let bytes = 1 + varint.count();
        let digits = page[flags + 1..][..bytes].iter().rev();
        let suffix = flags + 1 + bytes;
        Found {
            key: [
                &page[fence..fence + prefix],
                &page[suffix..suffix + key_len],
            ]
            .concat(),
            flags,
            suffix,
            value: suffix + key_len,
            len: digits.fold(0, |len, digit| len << 7 | usize::from(digit & 127)),
        }
    });
    found.collect()
}

/// Makes a record a ghost: its key again, and no value.
fn ghost(page: &mut [u8], found: &Found) {
    let suffix = found.value - found.suffix;
    page[found.flags] |= 1;
    page[found.flags + 1] = 0;
    page.copy_within(found.suffix..found.value, found.flags + 2);
    // What lies behind it belongs to nothing now.
    let spare = found.len + found.value - (found.flags + 2 + suffix);
    let garbage = u32_at(page, 40) + spare as u32;
    set_u32(page, 40, garbage);
}

/// A filled database, the first record of this kind in the index by `place` changed.
fn damaged(kind: u8, edit: impl Fn(&mut [u8], &Found)) -> Made {
    damaged_where(|key| key[0] == kind, edit)
}

/// As [`damaged`], of the records with such keys.
fn damaged_where(which: impl Fn(&[u8]) -> bool, edit: impl Fn(&mut [u8], &Found)) -> Made {
    let made = filled();
    let surgeon = Surgeon::new(&made.dir());
    // Tables of `Made::new` come first: 256 and 257. Rows are in 258, the index by place in 259.
    let leaves = surgeon.pages(259, 1);
    let mut done = false;
    for (_, place) in leaves {
        let page = surgeon.page(place);
        let found = records(&page).into_iter().find(|one| which(&one.key));
        if let Some(found) = found.filter(|_| !done) {
            surgeon.edit_page(place, |page| edit(page, &found));
            done = true;
        }
    }
    assert!(done, "such a record");
    made
}

/// The index by `place` is told as damaged with these parts; everything else goes on.
fn assert_closed(made: &Made, parts: &[&str]) {
    let report = check(made.dir()).unwrap();
    let told = report.findings.iter().map(ToString::to_string);
    let told: Vec<String> = told.collect();
    assert!(
        told.iter().any(|one| one.contains("vector index")),
        "{told:?}"
    );
    let (db, items) = open(made);
    let parts = [
        parts,
        &["structure=vector index", "table=items", "field=place"],
    ]
    .concat();
    let search = || items.nearest(Item::PLACE, &[0.0; 3], 3);
    refused(search().run(&db.snapshot()), ErrorKind::Corrupt, &parts);
    let probes = search().advanced().probes(3).run(&db.snapshot());
    refused(probes, ErrorKind::Corrupt, &parts);
    let put = db.write(|tx| items.put(tx, 1, &item(2)));
    refused(put, ErrorKind::Corrupt, &parts);
    let scan = search().advanced().exact().run(&db.snapshot()).unwrap();
    assert_eq!(scan.len(), 3);
    // The other field's index serves.
    let run = |now: &Snapshot| items.nearest(Item::ANGLE, &[1.0; 3], 3).run(now);
    assert_eq!(asked(&db, &db.snapshot(), "angle", run).len(), 3);
    assert_usable(&db);
    items.drop_vector_index(&db, Item::PLACE).unwrap();
    items.create_vector_index(Item::PLACE).run(&db).unwrap();
    settle(&db);
    look(&db, &items);
    drop(items);
    db.close().unwrap();
    sound(made);
}

#[test]
fn row_53_a_centroid_of_another_dimension() {
    let made = damaged(2, |page, found| page[found.value + 2] = 2);
    assert_closed(&made, &["expected 64 dimensions", "found 128"]);
}

#[test]
fn row_53_no_meta_record() {
    let made = damaged(1, ghost);
    assert_closed(&made, &["meta"]);
}

// The catalog says what the field is.
#[test]
fn row_53_the_meta_record_of_another_index() {
    let made = damaged(1, |page, found| page[found.value + 2] = 4);
    assert_closed(
        &made,
        &["expected=l2 of dimension 3", "found=l2 of dimension 4"],
    );
    let made = damaged(1, |page, found| page[found.value + 1] = 3);
    assert_closed(&made, &["found=dot of dimension 3"]);
}

// Seen to fail with an open that does not count: the rows of the posting are not found.
#[test]
fn row_53_a_centroid_that_is_not_there() {
    let made = damaged(2, ghost);
    assert_closed(&made, &["centroids are missing", "expected=", "found="]);
}

// How long to search is derived from the rows: it is found out again.
#[test]
fn row_53_a_tuning_that_cannot_be_read() {
    let made = damaged(7, |page, found| page[found.value] = 9);
    let told = check(made.dir()).unwrap().findings;
    let told: Vec<String> = told.iter().map(ToString::to_string).collect();
    let of_tuning = |one: &String| one.contains("vector index") && one.contains("tuning");
    assert!(told.iter().any(of_tuning), "{told:?}");
    let (db, items) = open(&made);
    look(&db, &items);
    settle(&db);
    look(&db, &items);
    drop(items);
    db.close().unwrap();
    sound(&made);
}

#[test]
fn row_53_a_posting_that_cannot_be_read() {
    // A head, whose key is its posting alone.
    let head = |key: &[u8]| key[0] == 3 && key.len() == 5;
    let made = damaged_where(head, |page, found| set_u32(page, found.value, 0xffff_ffff));
    let (db, items) = open(&made);
    let parts = [
        "structure=vector index",
        "table=items",
        "field=place",
        "255",
    ];
    let search = items
        .nearest(Item::PLACE, &[0.0; 3], 3)
        .advanced()
        .probes(ALL);
    refused(search.run(&db.snapshot()), ErrorKind::Corrupt, &parts);
}
