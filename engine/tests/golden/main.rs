//! A database of format 1 as it was written once: what was stored then is read now, and what was
//! damaged then is told now as `guide/format.md` says.
//!
//! `golden/v1/` is a directory as a killed process left it: two images, an unfinished checkpoint
//! and a log tail with an entry that spans two segments. Zeros at the end of a file are left out;
//! `LENGTHS` says how long each was. `golden/v1-damaged/` names, for each kind of damage, the bytes
//! (file and offset) that are inverted in it.
//!
//! The files are not made anew: they are what earlier versions wrote. Only for a new format:
//! `TERRANE_GOLDEN=write cargo test -p terrane --test golden -- --exact write_the_files`, with its
//! number.
//! `golden/v1-vectors/` holds a vector index, see `vectors.rs`.
#![allow(clippy::unwrap_used)] // a test ends at its first surprise

mod vectors;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use terrane::{
    Builder, Create, Database, Desc, DynVector, ErrorKind, Outcome, Record, Result, Table,
    TableDef, Vector, check,
};
use terrane_wal::env::{Env, SimClock, SystemRng};
use terrane_wal::io::DiskOptions;

type Small = (bool, char, u8, u16, u32, u64, u128, i8);
type Numbers = (i16, i32, i64, i128, f32, f64, [u8; 3], Vec<u8>);
type Nested = (Option<String>, Desc<u32>, (String, Option<u8>), String);

/// A record with a field of every type. Its table's key is text, so its rows get hidden numbers.
#[derive(Record, Clone, Debug, PartialEq)]
struct Every {
    #[terrane(id = 1, unique)]
    email: String,
    #[terrane(id = 2, index)]
    day: Option<u32>,
    #[terrane(id = 3, filter)]
    lang: String,
    #[terrane(id = 4, vector(metric = "cosine"))]
    angle: Vector<3>,
    #[terrane(id = 5, vector(metric = "l2", dim = 2))]
    place: DynVector,
    #[terrane(id = 6)]
    narrow: (u8, bool, char, u16, i8, i16),
    #[terrane(id = 7)]
    wide: (u64, i32, i64, u128, i128),
    #[terrane(id = 8)]
    floats: Vec<f64>,
    #[terrane(id = 9)]
    single: f32,
    #[terrane(id = 10)]
    bytes: Vec<u8>,
    #[terrane(id = 11)]
    array: [u8; 5],
    #[terrane(id = 12)]
    falling: Desc<u32>,
    #[terrane(id = 13)]
    names: Vec<Option<String>>,
    #[terrane(id = 14, default)]
    later: String,
    #[terrane(id = 400)]
    nothing: (),
}

const SMALL: TableDef<Small, u32> = TableDef::new("small");
const NUMBERS: TableDef<Numbers, String> = TableDef::new("numbers");
const NESTED: TableDef<Nested, ()> = TableDef::new("nested");
const UNIT: TableDef<(), u64> = TableDef::new("unit");
const EVERY: TableDef<String, Every> = TableDef::new("every");
const BLOBS: TableDef<Vec<u8>, Vec<u8>> = TableDef::new("blobs");
/// A leaf that is written once and then left alone.
const LONE: TableDef<u64, String> = TableDef::new("lone");

const LEAF_MARK: &str = "a row that lies in a golden leaf";
/// In one entry of the tail.
const TAIL_MARK: &str = "m103@example.org";

fn small(n: u32) -> Small {
    let letter = char::from_u32(0x3b1 + n).unwrap();
    let wide = u128::MAX / 3 + u128::from(n);
    (
        n % 2 == 1,
        letter,
        250,
        60_000,
        4_000_000_000,
        u64::MAX - 5,
        wide,
        -5,
    )
}

fn numbers(n: u32) -> Numbers {
    let sign = if n.is_multiple_of(2) { 1 } else { -1 };
    let halves = f64::from(sign) * (f64::from(n) + 0.5);
    let bytes = vec![0, n as u8, 0, 255];
    (
        sign as i16 * 300,
        sign * 70_000,
        i64::from(sign) << 40,
        i128::from(sign) << 90,
        halves as f32,
        halves * 1e300,
        [1, n as u8, 0],
        bytes,
    )
}

fn nested(n: u32) -> Nested {
    let text = |length: u32| "z\u{e4}\0".repeat(length as usize);
    (
        (!n.is_multiple_of(3)).then(|| text(n)),
        Desc(n),
        (text(1), (n.is_multiple_of(2)).then_some(n as u8)),
        text(2),
    )
}

fn every(n: u32) -> Every {
    let there = n.is_multiple_of(2);
    let x = (n % 50) as f32;
    Every {
        email: format!("m{n}@example.org"),
        day: there.then_some(20_000 + n),
        lang: ["en", "fr", "de"][n as usize % 3].into(),
        angle: Vector::from([1.0, x, -x / 2.0]),
        place: DynVector::try_from(vec![x, -0.0]).unwrap(),
        narrow: (200, there, '\u{10ffff}', 65_535, -128, -1),
        wide: (1 << 63, i32::MIN, i64::MIN, u128::MAX, i128::MIN),
        floats: vec![f64::MIN_POSITIVE, f64::from(n), f64::NEG_INFINITY],
        single: -x,
        bytes: vec![n as u8; n as usize],
        array: [0, 1, 2, 3, n as u8],
        falling: Desc(n),
        names: vec![None, Some(String::new()), there.then(|| "last".into())],
        later: if there { "x".repeat(40) } else { String::new() },
        nothing: (),
    }
}

/// A key as long as any, in pages of its own like its value.
fn blob(n: u8) -> (Vec<u8>, Vec<u8>) {
    let mut key = vec![
        b'k';
        if n == 1 {
            32 << 10
        } else {
            20 + usize::from(n) * 90
        }
    ];
    key[0] = n;
    (key, vec![n ^ 0x55; if n < 2 { 20_000 } else { 50_000 }])
}

struct Tables {
    small: Table<Small, u32>,
    numbers: Table<Numbers, String>,
    nested: Table<Nested, ()>,
    unit: Table<(), u64>,
    every: Table<String, Every>,
    blobs: Table<Vec<u8>, Vec<u8>>,
    lone: Table<u64, String>,
}

impl Tables {
    fn of(db: &Database) -> Tables {
        Tables {
            small: db.table(SMALL).unwrap(),
            numbers: db.table(NUMBERS).unwrap(),
            nested: db.table(NESTED).unwrap(),
            unit: db.table(UNIT).unwrap(),
            every: db.table(EVERY).unwrap(),
            blobs: db.table(BLOBS).unwrap(),
            lone: db.table(LONE).unwrap(),
        }
    }
}

/// Smallest segments, no background thread, and always the same day: idempotency keys are
/// remembered for one. Each seed draws other salts.
fn builder(seed: u64) -> Builder {
    let rng = SystemRng::seeded(seed);
    let (env, _) = Env::system_with(&DiskOptions::default(), rng).unwrap();
    let env = Env {
        clock: Arc::new(SimClock::new()),
        ..env
    };
    Database::builder()
        .env(env)
        .memory_bytes(8 << 20)
        .segment_bytes(256 << 10)
        .background(false)
}

fn put_every(db: &Database, tables: &Tables, key: u32, n: u32) {
    db.write(|tx| tables.every.put(tx, format!("key {key}"), &every(n)))
        .unwrap();
}

fn put_blobs(db: &Database, tables: &Tables, numbers: std::ops::Range<u8>) {
    db.write(|tx| {
        numbers.clone().try_for_each(|n| {
            let (key, value) = blob(n);
            tables.blobs.put(tx, &key, &value)
        })
    })
    .unwrap();
}

/// What the files hold, in the order in which it was stored.
fn store(db: &Database) {
    let tables = Tables::of(db);
    db.write(|tx| {
        for n in 0..6 {
            tables.small.put(tx, small(n), &n)?;
            tables.numbers.put(tx, numbers(n), &n.to_string())?;
            tables.nested.put(tx, nested(n), &())?;
        }
        tables.unit.put(tx, (), &7)?;
        tables.lone.put(tx, 1, &LEAF_MARK.to_owned())
    })
    .unwrap();
    (0..8).for_each(|n| put_every(db, &tables, n, n));
    put_blobs(db, &tables, 0..2);
    db.checkpoint().unwrap();
    put_every(db, &tables, 2, 102);
    db.write(|tx| tables.unit.put(tx, (), &8)).unwrap();
    db.checkpoint().unwrap();
    // The tail: replaced, deleted, new, remembered; a checkpoint that is not finished.
    put_every(db, &tables, 3, 103);
    db.write(|tx| tables.every.delete(tx, "key 5")).unwrap();
    db.write(|tx| tables.small.put(tx, small(6), &6)).unwrap();
    let paid = db.writer().idempotency("golden");
    paid.run(|tx| tables.unit.put(tx, (), &9)).unwrap();
    for _ in 0..3 {
        assert!(!db.checkpoint_step().unwrap());
    }
    put_blobs(db, &tables, 2..6);
    (8..12).for_each(|n| put_every(db, &tables, n, n));
    db.background_step();
}

/// Every row of every table but `lone` is what [`store`] put there.
fn assert_rows(db: &Database) {
    let (tables, now) = (Tables::of(db), db.snapshot());
    let smalls: Vec<_> = tables.small.iter(&now).map(Result::unwrap).collect();
    let order = [0, 2, 4, 6, 1, 3, 5]; // false before true
    assert_eq!(smalls, order.map(|n| (small(n), n)));
    let found: Vec<_> = tables.numbers.iter(&now).map(Result::unwrap).collect();
    let order = [5, 3, 1, 0, 2, 4]; // negative first
    assert_eq!(found, order.map(|n| (numbers(n), n.to_string())));
    let found: Vec<_> = tables
        .nested
        .iter(&now)
        .keys()
        .map(Result::unwrap)
        .collect();
    let mut wanted: Vec<_> = (0..6).map(nested).collect();
    wanted.sort();
    assert_eq!(found, wanted);
    assert_eq!(tables.unit.get(&now, ()).unwrap(), Some(9));
    let mut wanted: Vec<_> = (0..6).map(blob).collect();
    wanted.sort();
    let found: Vec<_> = tables.blobs.iter(&now).map(Result::unwrap).collect();
    assert!(found == wanted, "{} blobs", found.len());
    let wanted = |key| match key {
        2 | 3 => 100 + key,
        _ => key,
    };
    let mut keys: Vec<u32> = (0..12).filter(|key| *key != 5).collect();
    keys.sort_by_key(u32::to_string);
    let rows = |keys: &[u32]| -> Vec<_> {
        let row = |key: &u32| (format!("key {key}"), every(wanted(*key)));
        keys.iter().map(row).collect()
    };
    let found: Vec<_> = tables.every.iter(&now).map(Result::unwrap).collect();
    assert_eq!(found, rows(&keys));
    for &key in &keys {
        let row = every(wanted(key));
        let by_email = tables.every.index(Every::EMAIL).get(&now, &row.email);
        assert_eq!(by_email.unwrap().unwrap().0, format!("key {key}"));
        for (field, query) in [(0, &row.angle[..]), (1, &row.place[..])] {
            let search = match field {
                0 => tables.every.nearest(Every::ANGLE, query, 1),
                _ => tables.every.nearest(Every::PLACE, query, 1),
            };
            assert_eq!(search.run(&now).unwrap()[0].key, format!("key {key}"));
        }
    }
    let days = tables.every.index(Every::DAY);
    let days: Vec<_> = days
        .range(&now, Some(20_004)..Some(20_200))
        .map(|row| row.unwrap().0)
        .collect();
    let wanted = [4, 6, 8, 10, 2].map(|key| format!("key {key}"));
    assert_eq!(days, wanted);
    assert_eq!(db.outcome("golden").unwrap(), Outcome::Committed);
    assert_eq!(db.outcome("other").unwrap(), Outcome::Aborted);
}

fn golden() -> PathBuf {
    // A build folder that checkouts share may hold a program that another one built.
    let package = std::env::var_os("CARGO_MANIFEST_DIR");
    let package = package.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    package.join("tests/golden")
}

/// A copy of the directory at full length, with the bytes inverted that `damage` names.
fn copy(damage: Option<&str>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (golden().join("v1"), folder.path().join("db"));
    for line in fs::read_to_string(from.join("LENGTHS")).unwrap().lines() {
        let (name, length) = line.rsplit_once(' ').unwrap();
        let mut bytes = fs::read(from.join(name)).unwrap();
        bytes.resize(length.parse().unwrap(), 0);
        let path = to.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let patch = damage.map(|name| fs::read_to_string(golden().join("v1-damaged").join(name)));
    for line in patch.map(Result::unwrap).unwrap_or_default().lines() {
        let (name, offset) = line.rsplit_once(' ').unwrap();
        let mut bytes = fs::read(to.join(name)).unwrap();
        bytes[offset.parse::<usize>().unwrap()] ^= 0xff;
        fs::write(to.join(name), bytes).unwrap();
    }
    folder
}

fn open(folder: &TempDir, seed: u64) -> Result<Database> {
    builder(seed)
        .create(Create::Never)
        .open(folder.path().join("db"))
}

fn findings(folder: &TempDir) -> Vec<String> {
    let report = check(folder.path().join("db")).unwrap();
    report.findings.iter().map(ToString::to_string).collect()
}

/// Goes on where the files end: writes, closes, opens, and all of it is there.
fn assert_goes_on(folder: &TempDir, db: Database) {
    assert_rows(&db);
    let lone = db.table(LONE).unwrap();
    assert_eq!(lone.get(&db.snapshot(), 1).unwrap().unwrap(), LEAF_MARK);
    db.write(|tx| lone.put(tx, 2, &"new".to_owned())).unwrap();
    drop(lone);
    db.close().unwrap();
    assert_eq!(findings(folder), [""; 0]);
    let db = open(folder, 3).unwrap();
    assert_rows(&db);
    let lone = db.table(LONE).unwrap();
    assert_eq!(lone.get(&db.snapshot(), 2).unwrap().unwrap(), "new");
}

#[test]
fn what_format_1_stored_is_read_and_goes_on() {
    let folder = copy(None);
    assert_eq!(findings(&folder), [""; 0]);
    let db = open(&folder, 2).unwrap();
    assert_eq!(db.notices(), [""; 0]);
    assert_goes_on(&folder, db);
}

#[test]
fn a_damaged_generation_of_meta_gives_way_to_the_one_before() {
    let folder = copy(Some("meta"));
    let found = findings(&folder);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|text| text.contains("crc")), "{found:?}");
    let db = open(&folder, 2).unwrap();
    assert_goes_on(&folder, db);
}

#[test]
fn a_damaged_run_of_the_map_gives_way_to_the_image_before() {
    let folder = copy(Some("map"));
    let found = findings(&folder);
    assert!(found[0].starts_with("map"), "{found:?}");
    let db = open(&folder, 2).unwrap();
    assert!(db.notices()[0].contains("does not verify"));
    assert_goes_on(&folder, db);
}

#[test]
fn a_damaged_leaf_is_told_and_the_rest_is_read() {
    let folder = copy(Some("leaf"));
    let found = findings(&folder);
    assert!(found.iter().any(|text| text.contains("page")), "{found:?}");
    let db = open(&folder, 2).unwrap();
    assert_rows(&db);
    let lone = db.table(LONE).unwrap();
    let error = lone.get(&db.snapshot(), 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("page="), "{error}");
}

#[test]
fn a_damaged_frame_that_later_ones_vouch_for_is_corrupt() {
    let folder = copy(Some("wal"));
    let error = open(&folder, 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    for part in ["structure=wal", ".seg", "offset=", "payload crc"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    let found = findings(&folder);
    assert!(found[0].starts_with("wal"), "{found:?}");
}

/// All files below `dir`, by name.
fn files(dir: &Path, below: &str) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{below}{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            all.extend(files(&entry.path(), &format!("{name}/")));
        } else {
            all.push((name, fs::read(entry.path()).unwrap()));
        }
    }
    all.sort();
    all
}

/// The line of a patch: where `mark` lies first in the files whose names start with `prefix`.
fn place_of(files: &[(String, Vec<u8>)], prefix: &str, mark: &[u8]) -> String {
    let mut files = files.iter().filter(|(name, _)| name.starts_with(prefix));
    let found = files.find_map(|(name, bytes)| {
        let at = bytes
            .windows(mark.len())
            .position(|window| window == mark)?;
        Some(format!("{name} {at}\n"))
    });
    found.unwrap()
}

/// Writes the files; does nothing unless it is asked to by name and variable.
#[test]
fn write_the_files() {
    if std::env::var("TERRANE_GOLDEN").as_deref() != Ok("write") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("db");
    let db = builder(1).create(Create::New).open(&dir).unwrap();
    store(&db);
    // Under an open handle: as a killed process leaves it.
    let all = files(&dir, "");
    let segments = all
        .iter()
        .filter(|(name, bytes)| name.ends_with(".seg") && bytes.get(4096..4100) == Some(b"TFRM"));
    assert!(segments.count() >= 2, "an entry spans two segments");
    let (target, damaged) = (golden().join("v1"), golden().join("v1-damaged"));
    fs::create_dir_all(target.join("log")).unwrap();
    fs::create_dir_all(&damaged).unwrap();
    let mut lengths = String::new();
    for (name, bytes) in &all {
        writeln!(lengths, "{name} {}", bytes.len()).unwrap();
        let used = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1);
        fs::write(target.join(name), &bytes[..used]).unwrap();
    }
    fs::write(target.join("LENGTHS"), lengths).unwrap();
    let meta = &all.iter().find(|(name, _)| name == "META").unwrap().1;
    let number = |at: usize| u64::from_le_bytes(meta[at..at + 8].try_into().unwrap());
    let copies = [0, 1, 2, 3].map(|copy| copy * (64 << 10));
    let newest = copies.into_iter().max_by_key(|at| number(at + 48)).unwrap();
    let same = |at: &usize| number(at + 48) == number(newest + 48);
    let meta_lines: String = copies
        .into_iter()
        .filter(same)
        .map(|at| format!("META {}\n", at + 100))
        .collect();
    let epoch = number(newest + 96) as u32;
    // The last entry before the footer of the newest run.
    let run = format!("map.{epoch}.delta {}\n", number(newest + 112) - 32 - 24);
    let tail = place_of(&all, "log/", TAIL_MARK.as_bytes());
    let leaf = place_of(&all, "data.", LEAF_MARK.as_bytes());
    for (name, lines) in [
        ("meta", meta_lines),
        ("map", run),
        ("wal", tail),
        ("leaf", leaf),
    ] {
        fs::write(damaged.join(name), lines).unwrap();
    }
}
