//! Tables: what goes in comes out, in order, from both ends, and bad input is refused by name.
#![allow(clippy::unwrap_used)] // a test may panic wherever it stands in its file

use std::collections::BTreeMap;
use std::ops::Bound;

use tempfile::TempDir;
use terrane::codec::hidden::Hidden;
use terrane::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use terrane::{Database, ErrorKind, Record, Result, Table, TableDef, Vector};

fn open() -> (TempDir, Database) {
    let folder = tempfile::tempdir().unwrap();
    let db = Database::open(folder.path().join("db")).unwrap();
    (folder, db)
}

const NUMBERS: TableDef<u64, String> = TableDef::new("numbers");
const WORDS: TableDef<String, Vec<u8>> = TableDef::new("words");

fn kind<T>(result: Result<T>) -> ErrorKind {
    match result {
        Ok(_) => panic!("an error was expected"),
        Err(error) => error.kind(),
    }
}

fn pairs<K, V>(rows: impl Iterator<Item = Result<(K, V)>>) -> Vec<(K, V)> {
    rows.map(Result::unwrap).collect()
}

#[test]
fn rows_are_put_replaced_inserted_and_deleted() {
    let (_folder, db) = open();
    let numbers = db.table(NUMBERS).unwrap();
    let empty = db.snapshot();
    db.write(|tx| {
        assert!(!numbers.delete(tx, 1)?, "nothing to delete");
        numbers.put(tx, 1, &"one".into())?;
        assert_eq!(numbers.get(tx, 1)?.as_deref(), Some("one"), "own write");
        numbers.put(tx, 2, &"zwei".into())?;
        numbers.put(tx, 2, &"two".into())
    })
    .unwrap();
    let before = db.snapshot();
    assert_eq!(numbers.get(&before, 2).unwrap().as_deref(), Some("two"));
    assert!(numbers.contains(&before, 1).unwrap());
    assert!(!numbers.contains(&before, 3).unwrap());
    assert_eq!(numbers.count(&before).unwrap(), 2);
    assert_eq!(numbers.count(&empty).unwrap(), 0);

    let refused = db
        .write(|tx| numbers.insert(tx, 1, &"uno".into()))
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Exists);
    assert!(
        refused.to_string().contains("table=numbers, key=1"),
        "{refused}"
    );
    db.write(|tx| {
        numbers.insert(tx, 3, &"three".into())?;
        assert!(numbers.delete(tx, 1)?);
        assert!(!numbers.delete(tx, 1)?);
        assert_eq!(numbers.get_for_update(tx, 2)?.as_deref(), Some("two"));
        assert_eq!(numbers.get_for_update(tx, 1)?, None);
        Ok(())
    })
    .unwrap();
    let after = db.snapshot();
    let rows = pairs(numbers.iter(&after));
    assert_eq!(rows, [(2, "two".to_string()), (3, "three".to_string())]);
    assert_eq!(
        numbers.get(&before, 1).unwrap().as_deref(),
        Some("one"),
        "old snapshot"
    );
    let encoded = numbers.get_ref(&after, 3).unwrap().unwrap();
    assert_eq!(
        (encoded.bytes(), encoded.decode().unwrap()),
        (&b"three"[..], "three".into())
    );
    assert!(numbers.get_ref(&after, 1).unwrap().is_none());
}

/// Random puts and deletes in some transactions, some of them aborted, against a map; every kind
/// of scan from both ends after each.
#[test]
fn scans_agree_with_a_map_from_both_ends() {
    let (_folder, db) = open();
    let numbers = db.table(NUMBERS).unwrap();
    let mut model: BTreeMap<u64, String> = BTreeMap::new();
    let mut random = Random(1);
    for round in 0..40 {
        let mut tx = db.begin();
        let mut next = model.clone();
        for _ in 0..random.below(60) {
            let key = random.below(500);
            if random.below(3) == 0 {
                let had = next.remove(&key).is_some();
                assert_eq!(numbers.delete(&mut tx, key).unwrap(), had);
            } else {
                let value = format!("{key} in {round}");
                numbers.put(&mut tx, key, &value).unwrap();
                next.insert(key, value);
            }
        }
        check_scans(&numbers, &tx, &next, &mut random);
        if random.below(4) == 0 {
            drop(tx);
        } else {
            tx.commit().unwrap();
            model = next;
        }
        check_scans(&numbers, &db.snapshot(), &model, &mut random);
    }
}

fn check_scans(
    numbers: &Table<u64, String>,
    read: &impl terrane::Read,
    model: &BTreeMap<u64, String>,
    random: &mut Random,
) {
    let (a, b) = (random.below(520), random.below(520));
    let (low, high) = (a.min(b), a.max(b));
    let wanted: Vec<(u64, String)> = model
        .range(low..high)
        .map(|(k, v)| (*k, v.clone()))
        .collect();
    assert_eq!(pairs(numbers.range(read, low..high)), wanted);
    let mut reverse = pairs(numbers.range(read, low..high).rev());
    reverse.reverse();
    assert_eq!(reverse, wanted);
    // From both ends by turns: every row once.
    let (mut scan, mut front, mut back) = (numbers.range(read, low..high), vec![], vec![]);
    loop {
        let from_back = random.below(2) == 0;
        let row = if from_back {
            scan.next_back()
        } else {
            scan.next()
        };
        match row.transpose().unwrap() {
            Some(row) if from_back => back.push(row),
            Some(row) => front.push(row),
            None => break,
        }
    }
    assert!(
        scan.next().is_none() && scan.next_back().is_none(),
        "a scan that ended has ended"
    );
    front.extend(back.into_iter().rev());
    assert_eq!(front, wanted);
    let above: Vec<u64> = model
        .range((Bound::Excluded(low), Bound::Unbounded))
        .map(|r| *r.0)
        .collect();
    let keys = numbers
        .range(read, (Bound::Excluded(low), Bound::Unbounded))
        .keys();
    assert_eq!(keys.map(Result::unwrap).collect::<Vec<_>>(), above);
    assert_eq!(
        numbers.range(read, ..=high).count(),
        model.range(..=high).count()
    );
    assert_eq!(numbers.count(read).unwrap(), model.len() as u64);
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
}

/// Row 25 of the bad-input catalogue.
#[test]
fn ranges_that_run_backwards_are_invalid_and_empty_ones_are_empty() {
    let (_folder, db) = open();
    let numbers = db.table(NUMBERS).unwrap();
    db.write(|tx| (0..5).try_for_each(|key| numbers.put(tx, key, &key.to_string())))
        .unwrap();
    let now = db.snapshot();
    #[expect(clippy::reversed_empty_ranges, reason = "the range that is refused")]
    let mut backwards = numbers.range(&now, 3..2);
    let error = backwards.next().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("table=numbers"), "{error}");
    assert!(
        backwards.next().is_none(),
        "after an error a scan has ended"
    );
    assert_eq!(numbers.range(&now, 3..3).count(), 0);
    assert_eq!(
        numbers
            .range(&now, (Bound::Excluded(3), Bound::Excluded(3)))
            .count(),
        0
    );
    assert_eq!(numbers.range(&now, ..).count(), 5);
    assert_eq!(numbers.range(&now, 3..=3).count(), 1);
}

#[test]
fn prefixes_are_leading_parts_or_leading_bytes() {
    const ORDERS: TableDef<(u32, String), u64> = TableDef::new("orders");
    let (_folder, db) = open();
    let (orders, words) = (db.table(ORDERS).unwrap(), db.table(WORDS).unwrap());
    db.write(|tx| {
        for (tenant, order) in [(1, "x"), (2, ""), (2, "a"), (2, "b"), (256, "a"), (3, "z")] {
            orders.put(tx, (tenant, order), &u64::from(tenant))?;
        }
        for word in ["", "a", "ab", "ab\0", "abc", "b", "\u{10ffff}"] {
            words.put(tx, word, &word.as_bytes().to_vec())?;
        }
        Ok(())
    })
    .unwrap();
    let now = db.snapshot();
    let of_two = orders.prefix(&now, 2).keys().map(Result::unwrap);
    let of_two: Vec<String> = of_two.map(|(_, order)| order).collect();
    assert_eq!(of_two, ["", "a", "b"]);
    assert_eq!(orders.prefix(&now, 4).count(), 0);
    let words_of = |prefix: &str| -> Vec<String> {
        words
            .prefix(&now, prefix)
            .keys()
            .map(Result::unwrap)
            .collect()
    };
    assert_eq!(words_of("ab"), ["ab", "ab\0", "abc"]);
    assert_eq!(words_of("").len(), 7);
    assert_eq!(words_of("\u{10ffff}").len(), 1);
}

/// Rows 21 to 23.
#[test]
fn keys_and_values_may_be_empty_and_have_a_limit() {
    const BLOBS: TableDef<Vec<u8>, Vec<u8>> = TableDef::new("blobs");
    let (_folder, db) = open();
    let blobs = db.table(BLOBS).unwrap();
    let (key, value) = (vec![7_u8; MAX_KEY_BYTES], vec![9_u8; MAX_VALUE_BYTES]);
    db.write(|tx| {
        blobs.put(tx, b"", &Vec::new())?;
        blobs.put(tx, &key, &value)
    })
    .unwrap();
    let now = db.snapshot();
    assert_eq!(blobs.get(&now, b"").unwrap(), Some(Vec::new()));
    assert_eq!(blobs.get(&now, &key).unwrap(), Some(value.clone()));
    assert_eq!(blobs.count(&now).unwrap(), 2);

    let (long_key, long_value) = (vec![7_u8; MAX_KEY_BYTES + 1], vec![9; MAX_VALUE_BYTES + 1]);
    let mut tx = db.begin();
    for error in [
        blobs.put(&mut tx, &long_key, &Vec::new()).unwrap_err(),
        blobs.put(&mut tx, b"", &long_value).unwrap_err(),
        blobs.get(&tx, &long_key).unwrap_err(),
        blobs.delete(&mut tx, &long_key).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert!(error.to_string().contains("limit_bytes="), "{error}");
    }
    blobs.put(&mut tx, b"still", &vec![1]).unwrap();
    tx.commit().unwrap();
    assert_eq!(
        blobs.get(&db.snapshot(), b"").unwrap(),
        Some(Vec::new()),
        "nothing changed"
    );
    assert_eq!(blobs.count(&db.snapshot()).unwrap(), 3);
}

/// Row 34.
#[derive(Record, Debug, PartialEq)]
struct Early {
    #[terrane(id = 1)]
    name: String,
}

#[derive(Record, Debug, PartialEq)]
struct Late {
    #[terrane(id = 1)]
    title: String, // renamed
    #[terrane(id = 2, default)]
    pages: u32,
    #[terrane(id = 3)]
    note: Option<String>,
}

#[test]
fn old_rows_read_as_the_defaults_of_added_fields() {
    let (folder, db) = open();
    let early = db.table(TableDef::<u64, Early>::new("books")).unwrap();
    db.write(|tx| early.put(tx, 1, &Early { name: "old".into() }))
        .unwrap();
    let late = db.table(TableDef::<u64, Late>::new("books")).unwrap();
    let new = Late {
        title: "new".into(),
        pages: 7,
        note: Some("n".into()),
    };
    db.write(|tx| late.put(tx, 2, &new)).unwrap();
    let check = |late: &Table<u64, Late>, db: &Database| {
        let rows = pairs(late.iter(&db.snapshot()));
        let old = Late {
            title: "old".into(),
            pages: 0,
            note: None,
        };
        assert_eq!(rows.len(), 2);
        assert_eq!((&rows[0].1, rows[1].1.pages), (&old, 7));
    };
    check(&late, &db);

    // The older handle no longer says what its rows mean: it may not write.
    let mut tx = db.begin();
    let name = "x".into();
    early.put(&mut tx, 3, &Early { name }).unwrap();
    assert_eq!(kind(tx.commit()), ErrorKind::Schema);
    let error = db.table(TableDef::<u64, Early>::new("books")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Schema);
    assert!(error.to_string().contains("no longer declared"), "{error}");

    drop((early, late));
    db.close().unwrap();
    drop(db);
    let db = Database::open(folder.path().join("db")).unwrap();
    check(&db.table(TableDef::<u64, Late>::new("books")).unwrap(), &db);
}

#[derive(Record)]
struct Place {
    #[terrane(id = 1)]
    name: String,
    #[terrane(id = 2, vector(metric = "l2"))]
    at: Vector<2>,
}

/// A row of a table with a vector and no number of its own is given one, and keeps it.
#[test]
fn hidden_row_ids_are_unique_and_kept() {
    const PLACES: TableDef<String, Place> = TableDef::new("places");
    let (folder, db) = open();
    let places = db.table(PLACES).unwrap();
    let put = |db: &Database, places: &Table<String, Place>, key: &str, name: &str| {
        let place = Place {
            name: name.into(),
            at: Vector::from([1.0, 2.0]),
        };
        db.write(|tx| places.put(tx, key, &place)).unwrap();
    };
    let id = |db: &Database, places: &Table<String, Place>, key: &str| {
        let row = places.get_ref(&db.snapshot(), key).unwrap().unwrap();
        Hidden::read(row.bytes()).unwrap().row_id.expect("a row id")
    };
    put(&db, &places, "a", "first");
    put(&db, &places, "b", "second");
    let (a, b) = (id(&db, &places, "a"), id(&db, &places, "b"));
    assert_ne!(a, b);
    put(&db, &places, "a", "again");
    assert_eq!(id(&db, &places, "a"), a, "kept while replaced");
    assert_eq!(
        places.get(&db.snapshot(), "a").unwrap().unwrap().name,
        "again"
    );
    db.write(|tx| places.delete(tx, "a")).unwrap();
    put(&db, &places, "a", "reborn");
    let reborn = id(&db, &places, "a");
    assert!(reborn != a && reborn != b, "never given again");

    drop(places);
    db.close().unwrap();
    drop(db);
    let db = Database::open(folder.path().join("db")).unwrap();
    let places = db.table(PLACES).unwrap();
    put(&db, &places, "c", "after");
    assert!(![a, b, reborn].contains(&id(&db, &places, "c")));
    assert_eq!(id(&db, &places, "a"), reborn);
}

#[test]
fn an_application_error_and_a_dropped_transaction_leave_nothing() {
    let (_folder, db) = open();
    let numbers = db.table(NUMBERS).unwrap();
    let mut tx = db.begin();
    numbers.put(&mut tx, 1, &"one".into()).unwrap();
    drop(tx);
    let refused: Result<()> = db.write(|tx| {
        numbers.put(tx, 2, &"two".into())?;
        numbers.insert(tx, 2, &"again".into())
    });
    assert_eq!(kind(refused), ErrorKind::Exists);
    assert_eq!(numbers.count(&db.snapshot()).unwrap(), 0);
}

/// Handles and scans are owned: they go to other threads and outlive what they came from.
#[test]
fn handles_and_scans_are_owned() {
    fn owned<T: Send + 'static>(value: T) -> T {
        value
    }
    let (_folder, db) = open();
    let numbers = db.table(NUMBERS).unwrap();
    db.write(|tx| numbers.put(tx, 1, &"one".into())).unwrap();
    let scan = owned(numbers.iter(&db.snapshot()));
    let handle = owned(numbers.clone());
    db.write(|tx| numbers.put(tx, 2, &"two".into())).unwrap();
    assert_eq!(pairs(scan).len(), 1, "a scan keeps its snapshot");
    let mut tx = db.begin();
    let scan = handle.iter(&tx);
    for row in scan {
        let (key, value) = row.unwrap();
        handle.put(&mut tx, key + 10, &value).unwrap();
    }
    tx.commit().unwrap();
    let keys: Vec<u64> = numbers
        .iter(&db.snapshot())
        .keys()
        .map(Result::unwrap)
        .collect();
    assert_eq!(
        keys,
        [1, 2, 11, 12],
        "what is written while a scan runs is not in it"
    );
}

/// Tree numbers mean other rows in another database.
#[test]
fn a_table_is_of_one_database() {
    let ((_one, db), (_two, other)) = (open(), open());
    let numbers = db.table(NUMBERS).unwrap();
    other.table(WORDS).unwrap(); // its rows would be written to
    let mut tx = other.begin();
    let now = other.snapshot();
    let refused = [
        numbers.get(&now, 1).err(),
        numbers.put(&mut tx, 1, &"x".into()).err(),
        numbers.delete(&mut tx, 1).err(),
        numbers.count(&tx).err(),
        numbers.iter(&now).next().and_then(Result::err),
    ];
    for error in refused {
        assert_eq!(error.unwrap().kind(), ErrorKind::Invalid);
    }
    let clone = db.clone();
    assert_eq!(
        numbers.get(&clone.snapshot(), 1).unwrap(),
        None,
        "handles are of one database"
    );
}
