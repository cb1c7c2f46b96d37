//! Rows 39 to 48: vectors and searches.
//!
//! Seen to fail with another dimension let through.

use terrane::{Database, DynVector, ErrorKind, Record, Table, TableDef, Vector};

use crate::{Made, assert_usable, refused};

#[derive(Record, Clone)]
struct Item {
    #[terrane(id = 1, filter)]
    group: u32,
    #[terrane(id = 2, vector(metric = "cosine"))]
    angle: Vector<4>,
    #[terrane(id = 3, vector(metric = "l2", dim = 3))]
    place: DynVector,
    #[terrane(id = 4, vector(metric = "dot"))]
    weight: Option<Vector<2>>,
}

const ITEMS: TableDef<u64, Item> = TableDef::new("items");

fn item(group: u32) -> Item {
    Item {
        group,
        angle: Vector::from([1.0, group as f32, 0.0, 0.0]),
        place: DynVector::try_from(vec![group as f32, 0.0, 0.0]).unwrap(),
        weight: None,
    }
}

fn open(made: &Made) -> (Database, Table<u64, Item>) {
    let db = made.open().unwrap();
    let items = db.table(ITEMS).unwrap();
    db.write(|tx| (0..5).try_for_each(|key| items.put(tx, key, &item(key as u32))))
        .unwrap();
    (db, items)
}

/// The item is refused, and neither the row nor the search changes.
fn assert_refused(made: &Made, bad: Item, parts: &[&str]) {
    let (db, items) = open(made);
    let search = |db: &Database| {
        let hits = items
            .nearest(Item::ANGLE, &[1.0, 0.0, 0.0, 0.0], 9)
            .run(&db.snapshot());
        hits.unwrap().iter().map(|hit| hit.key).collect::<Vec<_>>()
    };
    let before = search(&db);
    let put = db.write(|tx| {
        let error = items.put(tx, 2, &bad);
        assert_eq!(items.get(tx, 2)?.unwrap().group, 2, "as before the call");
        error
    });
    refused(put, ErrorKind::Invalid, parts);
    assert_eq!(search(&db), before);
    assert_eq!(items.count(&db.snapshot()).unwrap(), 5);
    assert_usable(&db);
}

#[test]
fn row_39_another_dimension() {
    let made = Made::new();
    let bad = Item {
        place: DynVector::try_from(vec![1.0; 4]).unwrap(),
        ..item(2)
    };
    assert_refused(&made, bad, &["wanted=3", "given=4", "field=place"]);
    let made = Made::new();
    let (db, items) = open(&made);
    let search = items.nearest(Item::ANGLE, &[1.0; 3], 2).run(&db.snapshot());
    refused(search, ErrorKind::Invalid, &["wanted=4", "given=3"]);
}

#[test]
fn row_40_a_dimension_of_nothing_or_above_the_limit() {
    // `Vector<0>`, `Vector<16001>` and a `DynVector` without a dimension do not compile in a
    // derived record; one written by hand is refused when its table is opened.
    use terrane::codec::vector::{Metric, VectorDef};
    use terrane::codec::{DataType, FieldDef, Value, Wire};
    struct Shaped<const DIM: u32>;
    impl<const DIM: u32> Value for Shaped<DIM> {
        const WIRE: Wire = Wire::List;
        fn value_type() -> DataType {
            DataType::Record
        }
        fn encode_value(&self, _: &mut Vec<u8>) {}
        fn decode_value(_: &[u8]) -> terrane::Result<Self> {
            Ok(Shaped)
        }
        fn fields() -> &'static [FieldDef] {
            const fn field(dim: u32) -> FieldDef {
                FieldDef {
                    vector: Some(VectorDef {
                        metric: Metric::L2,
                        dim,
                    }),
                    ..FieldDef::of::<DynVector>(1, "shape")
                }
            }
            const NONE: [FieldDef; 1] = [field(0)];
            const MANY: [FieldDef; 1] = [field(16_001)];
            if DIM == 0 { &NONE } else { &MANY }
        }
    }
    let made = Made::new();
    let db = made.open().unwrap();
    let none = db.table(TableDef::<u64, Shaped<0>>::new("none"));
    let parts = ["field=shape", "given=0", "allowed=1 to 16000"];
    refused(none, ErrorKind::Invalid, &parts);
    let many = db.table(TableDef::<u64, Shaped<16_001>>::new("many"));
    refused(many, ErrorKind::Invalid, &["given=16001"]);
    assert_usable(&db);
}

#[test]
fn rows_41_42_elements_that_are_not_finite() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let made = Made::new();
        let bad = Item {
            place: DynVector::try_from(vec![0.0, bad, 0.0]).unwrap(),
            ..item(2)
        };
        assert_refused(&made, bad, &["not finite", "position=1", "field=place"]);
    }
    let made = Made::new();
    let bad = Item {
        place: DynVector::try_from(vec![3.0e38, 3.0e38, 0.0]).unwrap(),
        ..item(2)
    };
    assert_refused(&made, bad, &["sum of squares", "limit="]);
    let made = Made::new();
    let (db, items) = open(&made);
    for bad in [f32::NAN, f32::INFINITY, 3.0e38] {
        let query = [bad, bad, 0.0, 0.0];
        let search = items.nearest(Item::ANGLE, &query, 2).run(&db.snapshot());
        refused(search, ErrorKind::Invalid, &["position="]);
    }
}

#[test]
fn row_43_a_vector_without_a_direction() {
    let made = Made::new();
    let bad = Item {
        angle: Vector::from([0.0; 4]),
        ..item(2)
    };
    assert_refused(&made, bad, &["zeros", "cosine"]);
    let made = Made::new();
    let (db, items) = open(&made);
    let zeros = Item {
        place: DynVector::try_from(vec![0.0; 3]).unwrap(),
        weight: Some(Vector::from([0.0; 2])),
        ..item(2)
    };
    db.write(|tx| items.put(tx, 2, &zeros)).unwrap();
    let search = items.nearest(Item::ANGLE, &[0.0; 4], 2).run(&db.snapshot());
    refused(search, ErrorKind::Invalid, &["zeros"]);
    for query in [[0.0; 3], [1.0, 0.0, 0.0]] {
        let hits = items.nearest(Item::PLACE, &query, 9).run(&db.snapshot());
        assert_eq!(hits.unwrap().len(), 5);
    }
}

#[test]
fn row_44_odd_but_finite_elements() {
    let made = Made::new();
    let (db, items) = open(&made);
    let odd = [
        [1.0e-40, -0.0, 0.0],
        [-0.0, -0.0, -0.0],
        [1.0e19, 0.0, 1.0],
        [f32::MIN_POSITIVE, 1.0e-45, 3.0e18],
    ];
    db.write(|tx| {
        for (key, place) in odd.iter().enumerate() {
            let odd = Item {
                place: DynVector::try_from(place.to_vec()).unwrap(),
                ..item(9)
            };
            items.put(tx, 100 + key as u64, &odd)?;
        }
        Ok(())
    })
    .unwrap();
    for query in odd {
        let hits = items
            .nearest(Item::PLACE, &query, 20)
            .run(&db.snapshot())
            .unwrap();
        assert_eq!(hits.len(), 9);
        assert!(hits.iter().all(|hit| !hit.distance.is_nan()));
        let rising = |pair: &[terrane::Hit<u64, Item>]| {
            let order = pair[0].distance.total_cmp(&pair[1].distance);
            order.then(pair[0].key.cmp(&pair[1].key)).is_lt()
        };
        assert!(hits.windows(2).all(rising));
    }
}

#[test]
fn rows_45_46_47_how_many_hits() {
    let made = Made::new();
    let (db, items) = open(&made);
    let now = db.snapshot();
    let query = [1.0, 0.0, 0.0, 0.0];
    let hits = |k| items.nearest(Item::ANGLE, &query, k).run(&now);
    assert_eq!(hits(0).unwrap().len(), 0);
    assert_eq!(hits(3).unwrap().len(), 3);
    assert_eq!(hits(1000).unwrap().len(), 5, "all there are");
    refused(hits(usize::MAX), ErrorKind::TooLarge, &["limit"]);
    let none = items
        .nearest(Item::ANGLE, &query, 9)
        .filter(Item::GROUP.eq(77));
    assert_eq!(none.run(&now).unwrap().len(), 0);
    // An optional field that no row has, and a table without rows.
    let empty = items.nearest(Item::WEIGHT, &[1.0, 2.0], 9).run(&now);
    assert_eq!(empty.unwrap().len(), 0);
    let bare = db.table(TableDef::<u64, Item>::new("bare")).unwrap();
    let empty = bare.nearest(Item::ANGLE, &query, 9).run(&db.snapshot());
    assert_eq!(empty.unwrap().len(), 0);
    assert_usable(&db);
}

#[test]
fn row_48_a_put_replaces() {
    let made = Made::new();
    let (db, items) = open(&made);
    let before = db.snapshot();
    db.write(|tx| items.put(tx, 2, &item(40))).unwrap();
    let query = [40.0, 0.0, 0.0];
    let first = |read: &terrane::Snapshot| {
        let hits = items.nearest(Item::PLACE, &query, 1).run(read).unwrap();
        (hits[0].key, hits[0].distance)
    };
    assert_eq!(first(&db.snapshot()), (2, 0.0));
    assert_eq!(first(&before).0, 4, "the old row in the old snapshot");
    assert_eq!(items.count(&db.snapshot()).unwrap(), 5);
    db.write(|tx| items.delete(tx, 2).map(drop)).unwrap();
    assert_eq!(first(&db.snapshot()).0, 4, "row 52: deleted, not found");
}
