//! Nearest-neighbour search against a search by hand, and what it refuses.
#![allow(clippy::unwrap_used)] // a test may panic wherever it stands in its file

use tempfile::TempDir;
use terrane::{
    Database, DynVector, ErrorKind, Filter, Read, Record, Result, Table, TableDef, Vector,
};

const DIM: usize = 19;

#[derive(Record, Clone)]
struct Passage {
    #[terrane(id = 1, filter)]
    lang: String,
    #[terrane(id = 2)] // not stored beside codes
    year: u16,
    #[terrane(id = 3, vector(metric = "cosine"))]
    angle: Vector<DIM>,
    #[terrane(id = 4, vector(metric = "l2"))]
    place: Vector<DIM>,
    #[terrane(id = 5, vector(metric = "dot"))]
    weight: Option<Vector<DIM>>,
}

const PASSAGES: TableDef<String, Passage> = TableDef::new("passages");

fn open() -> (TempDir, Database, Table<String, Passage>) {
    let folder = tempfile::tempdir().unwrap();
    let db = Database::open(folder.path().join("db")).unwrap();
    let passages = db.table(PASSAGES).unwrap();
    (folder, db, passages)
}

/// splitmix64
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    /// Small whole numbers: sums are exact, so ties are ties in any order of addition.
    fn vector(&mut self) -> [f32; DIM] {
        let mut vector = std::array::from_fn(|_| self.below(5) as f32 - 2.0);
        vector[0] = 1.0;
        vector
    }

    fn passage(&mut self) -> Passage {
        Passage {
            lang: ["en", "fr", "de"][self.below(3) as usize].into(),
            year: 2000 + self.below(30) as u16,
            angle: Vector::from(self.vector()),
            place: Vector::from(self.vector()),
            weight: (self.below(4) > 0).then(|| Vector::from(self.vector())),
        }
    }
}

#[derive(Clone, Copy)]
enum By {
    Angle,
    Place,
    Weight,
}

/// Distance by definition, in f64; none where the row has no vector.
fn distance(by: By, row: &Passage, query: &[f32]) -> Option<f64> {
    let stored: &[f32] = match by {
        By::Angle => &row.angle,
        By::Place => &row.place,
        By::Weight => row.weight.as_deref()?,
    };
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    Some(match by {
        By::Angle => {
            let lengths = (dot(stored, stored) * dot(query, query)).sqrt();
            1.0 - dot(stored, query) / lengths
        }
        By::Place => {
            let far = |(a, b): (&f32, &f32)| (f64::from(*a) - f64::from(*b)).powi(2);
            stored.iter().zip(query).map(far).sum::<f64>().sqrt()
        }
        By::Weight => -dot(stored, query),
    })
}

/// A filter, and the same condition by hand.
type Twin = (Filter<Passage>, fn(&Passage) -> bool);

/// The search under test against one by hand over the rows that `read` sees.
fn check(
    passages: &Table<String, Passage>,
    read: &impl Read,
    random: &mut Random,
    filters: &[Twin],
) {
    let rows: Vec<(String, Passage)> = passages.iter(read).map(Result::unwrap).collect();
    for by in [By::Angle, By::Place, By::Weight] {
        let query = random.vector();
        let k = random.below(30) as usize + 1;
        let search = |k| match by {
            By::Angle => passages.nearest(Passage::ANGLE, &query, k),
            By::Place => passages.nearest(Passage::PLACE, &query, k),
            By::Weight => passages.nearest(Passage::WEIGHT, &query, k),
        };
        for (filter, passes) in filters {
            let filtered = || search(k).filter(filter.clone()).recall(0.9);
            // What is not stored beside the index only a scan can ask.
            let hits = if filter.first_without_codes().is_some() {
                let error = filtered().run(read).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Invalid);
                assert!(error.to_string().contains("filter=year"), "{error}");
                filtered().advanced().exact().run(read).unwrap()
            } else {
                filtered().run(read).unwrap()
            };
            let mut wanted: Vec<(f64, &String)> = rows
                .iter()
                .filter(|(_, row)| passes(row))
                .filter_map(|(key, row)| Some((distance(by, row, &query)?, key)))
                .collect();
            wanted.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(b.1)));
            wanted.truncate(k);
            assert_eq!(hits.len(), wanted.len(), "{filter:?}");
            for pair in hits.windows(2) {
                let order = pair[0].distance.total_cmp(&pair[1].distance);
                let by_key = order.then_with(|| pair[0].key.cmp(&pair[1].key));
                assert!(by_key.is_lt(), "ordered by distance, then by key");
            }
            for (hit, (far, _)) in hits.iter().zip(&wanted) {
                assert!((f64::from(hit.distance) - far).abs() < 1e-5, "{filter:?}");
                let row = hit.record().unwrap();
                let own = distance(by, &row, &query).unwrap();
                assert!(
                    (own - far).abs() < 1e-5 && passes(&row),
                    "the row is the one measured"
                );
            }
            // Sums of L2 and dot are exact here, so ties are exact and the keys are known.
            if !matches!(by, By::Angle) {
                let keys: Vec<&String> = hits.iter().map(|hit| &hit.key).collect();
                assert_eq!(keys, wanted.iter().map(|row| row.1).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn searches_agree_with_one_by_hand() {
    let (_folder, db, passages) = open();
    let mut random = Random(3);
    let en: Filter<Passage> = Passage::LANG.eq("en");
    let filters: Vec<Twin> = vec![
        (Passage::LANG.ne("none"), |_| true),
        (en.clone(), |row| row.lang == "en"),
        (en.clone() & Passage::YEAR.between(2010..), |row| {
            row.lang == "en" && row.year >= 2010
        }),
        (!en | Passage::YEAR.lt(2002), |row| {
            row.lang != "en" || row.year < 2002
        }),
        (Passage::LANG.is_in(["fr", "xx"]), |row| row.lang == "fr"),
        (Passage::LANG.eq("nobody"), |_| false),
    ];
    check(&passages, &db.snapshot(), &mut random, &filters);
    let mut old = None;
    for round in 0..6 {
        let mut tx = db.begin();
        for _ in 0..80 {
            let key = format!("p{:03}", random.below(300));
            if random.below(5) == 0 {
                passages.delete(&mut tx, &key).unwrap();
            } else {
                passages.put(&mut tx, &key, &random.passage()).unwrap();
            }
        }
        check(&passages, &tx, &mut random, &filters); // its own writes among them
        if round == 3 {
            drop(tx);
            check(&passages, &db.snapshot(), &mut random, &filters);
            old = Some((db.snapshot(), passages.count(&db.snapshot()).unwrap()));
        } else {
            tx.commit().unwrap();
        }
    }
    let (old, rows) = old.unwrap();
    assert_eq!(passages.count(&old).unwrap(), rows);
    assert_ne!(passages.count(&db.snapshot()).unwrap(), rows);
    check(&passages, &old, &mut random, &filters);
}

/// Hits own their rows: the transaction may end, the row may go.
#[test]
fn a_hit_outlives_its_transaction_and_its_row() {
    let (_folder, db, passages) = open();
    let mut random = Random(5);
    let row = random.passage();
    let mut tx = db.begin();
    passages.put(&mut tx, "gone", &row).unwrap();
    let hits = passages
        .nearest(Passage::PLACE, &row.place, 5)
        .run(&tx)
        .unwrap();
    drop(tx);
    assert_eq!(hits.len(), 1);
    assert_eq!((hits[0].key.as_str(), hits[0].distance), ("gone", 0.0));
    let record = hits[0].record().unwrap();
    assert_eq!((record.year, record.place), (row.year, row.place));
    assert_eq!(hits[0].encoded().field(Passage::YEAR).unwrap(), row.year);
    assert_eq!(passages.count(&db.snapshot()).unwrap(), 0);
}

/// Rows 45 to 48 and 52 of the bad-input catalogue.
#[test]
fn k_may_be_zero_or_above_the_rows_and_has_a_limit() {
    let (_folder, db, passages) = open();
    let mut random = Random(9);
    let query = random.vector();
    let search = |k: usize| passages.nearest(Passage::PLACE, &query, k);
    assert_eq!(
        search(3).run(&db.snapshot()).unwrap().len(),
        0,
        "an empty table"
    );
    let first = random.passage();
    db.write(|tx| {
        passages.put(tx, "a", &first)?;
        passages.put(tx, "a", &random.passage())?; // replaced: found once
        passages.put(tx, "b", &random.passage())?;
        assert!(!passages.delete(tx, "unknown")?);
        Ok(())
    })
    .unwrap();
    let now = db.snapshot();
    assert_eq!(search(0).run(&now).unwrap().len(), 0);
    assert_eq!(search(10_000).run(&now).unwrap().len(), 2);
    let error = search(10_001).run(&now).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(
        error.to_string().contains("given=10001, limit=10000"),
        "{error}"
    );
    let nobody = search(5)
        .filter(Passage::LANG.eq("nobody"))
        .run(&now)
        .unwrap();
    assert!(nobody.is_empty());
    db.write(|tx| {
        passages.delete(tx, "a")?;
        let keys: Vec<String> = search(5).run(tx)?.into_iter().map(|hit| hit.key).collect();
        assert_eq!(
            keys,
            ["b"],
            "deleted, then searched for, in one transaction"
        );
        Ok(())
    })
    .unwrap();
    assert_eq!(
        search(5).run(&now).unwrap().len(),
        2,
        "an older snapshot still has it"
    );
}

#[derive(Record)]
struct Free {
    #[terrane(id = 1, vector(metric = "cosine", dim = 3))]
    angle: DynVector,
    #[terrane(id = 2, vector(metric = "l2"))]
    place: Vector<3>,
    #[terrane(id = 3)]
    plain: DynVector,
}

const GOOD: [f32; 3] = [1.0, 2.0, 3.0];

fn free(angle: &[f32], place: [f32; 3]) -> Free {
    Free {
        angle: DynVector::try_from(angle).unwrap(),
        place: Vector::from(place),
        plain: DynVector::try_from(vec![f32::NAN; 7]).unwrap(), // stored, never searched
    }
}

/// Rows 39 to 44, stored.
#[test]
fn vectors_that_cannot_be_measured_are_invalid_and_change_nothing() {
    let (_folder, db, _) = open();
    let table = db.table(TableDef::<u64, Free>::new("free")).unwrap();
    let (row, good) = (free, GOOD);
    db.write(|tx| table.put(tx, 1, &row(&good, good))).unwrap();
    let refused = [
        (row(&[1.0, 2.0], good), "field=angle", "wanted=3, given=2"),
        (
            row(&[1.0, f32::NAN, 2.0], good),
            "field=angle",
            "position=1, given=NaN",
        ),
        (
            row(&good, [0.0, 0.0, f32::NEG_INFINITY]),
            "field=place",
            "position=2, given=-inf",
        ),
        (
            row(&good, [0.0, f32::MAX, 1.0]),
            "field=place",
            "position=1",
        ),
        (row(&[0.0, -0.0, 0.0], good), "field=angle", "no direction"),
    ];
    let mut tx = db.begin();
    for (row, field, what) in &refused {
        let error = table.put(&mut tx, 1, row).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        let text = error.to_string();
        assert!(
            text.contains(field) && text.contains(what) && text.contains("key=1"),
            "{text}"
        );
    }
    tx.commit().unwrap();
    let kept = table.get(&db.snapshot(), 1).unwrap().unwrap();
    assert_eq!(*kept.place, good);
}

/// Rows 39 to 44, asked for: what cannot be stored cannot be searched for either.
#[test]
fn queries_that_cannot_be_served_are_invalid() {
    let (_folder, db, _) = open();
    let table = db.table(TableDef::<u64, Free>::new("free")).unwrap();
    let good = GOOD;
    db.write(|tx| table.put(tx, 1, &free(&good, good))).unwrap();
    let now = db.snapshot();
    for (query, what) in [
        (&[1.0, 2.0][..], "wanted=3, given=2"),
        (&[], "wanted=3, given=0"),
        (&[1.0, 2.0, f32::NAN], "position=2"),
        (&[f32::INFINITY, 0.0, 0.0], "position=0"),
        (&[0.0; 3], "no direction"),
    ] {
        for k in [0, 5] {
            let error = table.nearest(Free::ANGLE, query, k).run(&now).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            let text = error.to_string();
            assert!(
                text.contains(what) && text.contains("field=angle"),
                "{text}"
            );
        }
    }
    let error = table.nearest(Free::PLAIN, &good, 1).run(&now).unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Invalid,
        "no metric is declared: {error}"
    );
    for recall in [0.0, -1.0, 1.001, f64::NAN] {
        let error = table
            .nearest(Free::PLACE, &good, 1)
            .recall(recall)
            .run(&now)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{recall}");
    }
    assert_eq!(
        table
            .nearest(Free::PLACE, &good, 1)
            .recall(1.0)
            .run(&now)
            .unwrap()
            .len(),
        1
    );
    #[expect(clippy::reversed_empty_ranges, reason = "the range that is refused")]
    let backwards = Passage::YEAR.between(2020..2000);
    let passages = db.table(PASSAGES).unwrap();
    let error = passages
        .nearest(Passage::PLACE, &[1.0; DIM], 1)
        .filter(backwards)
        .run(&now);
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Invalid);
}

/// Rows 43 and 44: what L2 and dot accept is stored, found, and gives no NaN.
#[test]
fn odd_but_finite_vectors_are_accepted_and_ordered() {
    let (_folder, db, _) = open();
    let table = db.table(TableDef::<u64, Free>::new("odd")).unwrap();
    let huge = f32::MAX.sqrt() / 2.0;
    let tiny = f32::from_bits(1);
    let places = [
        [0.0; 3],
        [-0.0; 3],
        [tiny, -tiny, 0.0],
        [huge, -huge, huge],
        [1.0, 0.0, 0.0],
    ];
    db.write(|tx| {
        for (key, place) in (0_u64..).zip(places) {
            let free = Free {
                angle: DynVector::try_from(vec![tiny, 0.0, huge]).unwrap(),
                place: Vector::from(place),
                plain: DynVector::try_from(vec![0.0]).unwrap(),
            };
            table.put(tx, key, &free)?;
        }
        Ok(())
    })
    .unwrap();
    for query in places {
        let hits = table
            .nearest(Free::PLACE, &query, 9)
            .run(&db.snapshot())
            .unwrap();
        assert_eq!(hits.len(), places.len());
        assert!(hits.iter().all(|hit| hit.distance.is_finite()));
        assert!(hits.is_sorted_by(|a, b| (a.distance, a.key) < (b.distance, b.key)));
    }
    let hits = table
        .nearest(Free::ANGLE, &[0.0, 0.0, tiny], 9)
        .run(&db.snapshot())
        .unwrap();
    assert!(hits.iter().all(|hit| hit.distance.abs() < 1e-6), "{hits:?}");
}
