//! The same for a vector index: several postings with sealed blocks, extra bits, filter columns,
//! tails and dead marks, a split under way with its job, and a tail of the log.
//!
//! `v1-vectors/PARTS` names each file, its length, and its parts that are not zeros (offset +
//! length); those stand one after the other in `v1-vectors/parts`. `v1-vectors/damaged` names bytes
//! that tests invert: one in a centroid record, one in the head of a posting, one in a locator.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use tempfile::TempDir;
use terrane::{Create, Database, ErrorKind, Hit, Read, Record, Table, TableDef, Vector, check};

use crate::{builder, files, findings, golden, open};

#[derive(Record, Clone, Debug, PartialEq)]
struct Spot {
    #[terrane(id = 1, filter)]
    lang: String,
    #[terrane(id = 2)]
    note: u32,
    #[terrane(id = 3, vector(metric = "l2"))]
    at: Option<Vector<3>>,
}

/// Keys are text, so rows have hidden numbers and locators carry keys.
const SPOTS: TableDef<String, Spot> = TableDef::new("spots");
const PLAIN: TableDef<u64, String> = TableDef::new("plain");

type Spots = Table<String, Spot>;
type Rows = BTreeMap<String, Spot>;

/// Where pages may begin.
const BLOCK: usize = 4096;
/// Zeros between two parts at least.
const GAP: usize = 16;
/// The first trees of tables: rows of `spots`, and its index.
const INDEX_TREE: u32 = 257;
/// Reads every posting.
const ALL: usize = 1 << 20;

fn key(n: u32) -> String {
    format!("spot {n}")
}

fn spot(n: u32) -> Spot {
    let at = [37, 61, 89].map(|step| (n * n * step % 1009) as f32 / 100.0);
    Spot {
        lang: ["en", "fr", "de", "it"][n as usize % 4].into(),
        note: n,
        at: (!n.is_multiple_of(19)).then(|| Vector::from(at)),
    }
}

/// One of many in a small place.
fn near(n: u32) -> Spot {
    let at = [37, 61, 89].map(|step| 5.0 + (n * n * step % 1009) as f32 / 1009.0);
    Spot {
        at: Some(Vector::from(at)),
        ..spot(n)
    }
}

/// What the files hold.
fn rows() -> Rows {
    let mut rows: Rows = (0..175).map(|n| (key(n), spot(n))).collect();
    rows.extend((0..10).map(|n| (key(n), spot(n + 500))));
    (20..27).for_each(|n| drop(rows.remove(&key(n))));
    rows.extend((200..300).map(|n| (key(n), near(n))));
    rows.extend((320..325).map(|n| (key(n), spot(n))));
    rows.remove(&key(40));
    rows
}

fn put(db: &Database, spots: &Spots, numbers: std::ops::Range<u32>, row: fn(u32) -> Spot) {
    db.write(|tx| {
        numbers
            .clone()
            .try_for_each(|n| spots.put(tx, key(n), &row(n)))
    })
    .unwrap();
}

fn settle(db: &Database) {
    assert!((0..100_000).any(|_| !db.background_step()), "upkeep ends");
}

/// Stores [`rows`] step by step, with a split that is not finished.
fn store(db: &Database) {
    let spots = db.table(SPOTS).unwrap();
    let plain = db.table(PLAIN).unwrap();
    for from in (0..175).step_by(25) {
        put(db, &spots, from..from + 25, spot);
    }
    settle(db);
    put(db, &spots, 200..300, near);
    let upkeep = || db.stats().vectors[0].upkeep;
    let begun = (0..1000).any(|_| {
        db.background_step();
        upkeep().draining > 0
    });
    assert!(begun, "{:?}", upkeep());
    // Some of its entries are dealt with.
    db.background_step();
    // The log goes on in another segment, and the ones before are trimmed.
    for key in 0..9 {
        let zeros = "\0".repeat(60_000);
        db.write(|tx| plain.put(tx, key, &zeros)).unwrap();
        db.write(|tx| plain.delete(tx, key)).unwrap();
    }
    for text in ["plain", "text"] {
        db.write(|tx| plain.put(tx, 1, &text.to_owned())).unwrap();
        db.checkpoint().unwrap();
    }
    // Dead entries: replaced and deleted.
    put(db, &spots, 0..10, |n| spot(n + 500));
    db.write(|tx| (20..27).try_for_each(|n| spots.delete(tx, key(n)).map(drop)))
        .unwrap();
    db.checkpoint().unwrap();
    // The tail of the log.
    put(db, &spots, 320..325, spot);
    db.write(|tx| spots.delete(tx, key(40)).map(drop)).unwrap();
    db.background_step();
    let upkeep = upkeep();
    assert!(upkeep.draining > 0 && upkeep.folds > 0, "{upkeep:?}");
    assert!(upkeep.dead > 10 && upkeep.tail > 10, "{upkeep:?}");
}

fn far(row: &Spot, query: &[f32; 3]) -> Option<f64> {
    let squares = row.at.as_ref()?.iter().zip(query);
    let sum: f64 = squares
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2))
        .sum();
    Some(sum.sqrt())
}

/// Searches of every posting find the nearest rows, with and without a filter.
fn assert_hits(spots: &Spots, read: &impl Read, rows: &Rows) {
    for at in 0..30_u32 {
        let query = [3, 5, 7].map(|step| (at * step % 11) as f32);
        for lang in [None, Some("fr")] {
            let search = spots.nearest(Spot::AT, &query, 12);
            let search = match lang {
                Some(lang) => search.filter(Spot::LANG.eq(lang)),
                None => search,
            };
            let hits = search.advanced().probes(ALL).run(read).unwrap();
            let passes = |row: &&Spot| lang.is_none_or(|lang| row.lang == lang);
            let wanted = rows.values().filter(passes);
            let mut wanted: Vec<f64> = wanted.filter_map(|row| far(row, &query)).collect();
            wanted.sort_by(f64::total_cmp);
            assert_eq!(hits.len(), 12);
            for (hit, wanted) in hits.iter().zip(wanted) {
                assert_eq!(&hit.record().unwrap(), &rows[&hit.key]);
                assert!((f64::from(hit.distance) - wanted).abs() < 1e-4, "{hit:?}");
            }
        }
    }
}

fn assert_rows(db: &Database, rows: &Rows) {
    let (spots, now) = (db.table(SPOTS).unwrap(), db.snapshot());
    let found: Rows = spots.iter(&now).map(Result::unwrap).collect();
    assert!(found == *rows, "{} rows", found.len());
    assert_hits(&spots, &now, rows);
}

/// A copy of the directory at full length, with the bytes inverted that a line of `damaged` names.
fn copy(damage: Option<&str>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (golden().join("v1-vectors"), folder.path().join("db"));
    let parts = fs::read(from.join("parts")).unwrap();
    let mut rest = &parts[..];
    for line in fs::read_to_string(from.join("PARTS")).unwrap().lines() {
        let mut words = line.split(' ');
        let path = to.join(words.next().unwrap());
        let mut bytes = vec![0; words.next().unwrap().parse().unwrap()];
        for word in words {
            let (at, len) = word.split_once('+').unwrap();
            let (part, after) = rest.split_at(len.parse().unwrap());
            bytes[at.parse().unwrap()..][..part.len()].copy_from_slice(part);
            rest = after;
        }
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let lines = fs::read_to_string(from.join("damaged")).unwrap();
    for line in lines.lines() {
        let mut words = line.split(' ');
        if words.next() == damage {
            let path = to.join(words.next().unwrap());
            invert(&path, words.next().unwrap().parse().unwrap());
        }
    }
    folder
}

fn invert(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset] ^= 0xff;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_vector_index_of_format_1_is_searched_and_goes_on() {
    let folder = copy(None);
    assert_eq!(findings(&folder), [""; 0]);
    let db = open(&folder, 2).unwrap();
    assert_eq!(db.notices(), [""; 0]);
    let upkeep = |db: &Database| db.stats().vectors[0].upkeep;
    let before = upkeep(&db);
    assert!(before.ready >= 2 && before.draining == 1, "{before:?}");
    let mut rows = rows();
    assert_rows(&db, &rows);
    // The split ends; then the index changes.
    settle(&db);
    let after = upkeep(&db);
    assert_eq!((after.draining, after.receiving, after.queue), (0, 0, 0));
    assert!(after.ready > before.ready, "{after:?}");
    assert_rows(&db, &rows);
    let spots = db.table(SPOTS).unwrap();
    for from in (400..700).step_by(60) {
        put(&db, &spots, from..from + 60, spot);
        rows.extend((from..from + 60).map(|n| (key(n), spot(n))));
    }
    db.write(|tx| (60..140).try_for_each(|n| spots.delete(tx, key(n)).map(drop)))
        .unwrap();
    (60..140).for_each(|n| drop(rows.remove(&key(n))));
    settle(&db);
    assert_rows(&db, &rows);
    drop(spots);
    db.close().unwrap();
    assert_eq!(findings(&folder), [""; 0]);
    let db = open(&folder, 3).unwrap();
    assert_rows(&db, &rows);
}

/// What is told of a damaged page of the index, by the checker and by a search; rows are whole.
fn told(damage: &str) -> (Vec<String>, terrane::Result<Vec<Hit<String, Spot>>>) {
    let folder = copy(Some(damage));
    let found = findings(&folder);
    assert!(found.iter().any(|one| one.contains("page")), "{found:?}");
    let db = open(&folder, 2).unwrap();
    let (spots, now) = (db.table(SPOTS).unwrap(), db.snapshot());
    let search = || spots.nearest(Spot::AT, &[5.0; 3], 150).advanced();
    let scan = search().exact().run(&now).unwrap();
    assert_eq!(scan.len(), 150);
    let rows = rows();
    let all = spots.iter(&now).map(Result::unwrap);
    assert!(all.eq(rows.clone()), "rows are whole");
    let plain = db.table(PLAIN).unwrap();
    db.write(|tx| plain.put(tx, 2, &"new".to_owned())).unwrap();
    let by_index = search().probes(ALL).run(&now);
    // Made again, it serves.
    spots.drop_vector_index(&db, Spot::AT).unwrap();
    spots.create_vector_index(Spot::AT).run(&db).unwrap();
    settle(&db);
    assert_hits(&spots, &db.snapshot(), &rows);
    (found, by_index)
}

#[test]
fn a_damaged_centroid_closes_the_index() {
    let (_, search) = told("centroid");
    let error = search.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let text = error.to_string();
    for part in ["structure=vector index", "table=spots", "field=at", "page="] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_damaged_posting_is_told_by_the_search_that_reads_it() {
    let (_, search) = told("head");
    let error = search.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    for part in ["table=spots", "field=at", "page="] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn a_damaged_locator_is_told_by_the_search_that_needs_it() {
    let (_, search) = told("locator");
    let error = search.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    for part in ["table=spots", "field=at", "page="] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

/// Records in leaves of the index, old ones too, whose keys have this kind: where the page begins,
/// and the value.
fn records(data: &[u8], kind: u8) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let u16_at = |at: usize| u16::from_le_bytes([data[at], data[at + 1]]) as usize;
    for at in (0..data.len()).step_by(BLOCK) {
        let leaf = data[at + 4..at + 7] == *b"TP\x01";
        if !leaf || data[at + 16..at + 20] != INDEX_TREE.to_le_bytes() {
            continue;
        }
        let (prefix, fence) = (u16_at(at + 34), u16_at(at + 44));
        for slot in 0..u16_at(at + 32) {
            let (entry, len) = (u16_at(at + 132 + 8 * slot), u16_at(at + 134 + 8 * slot));
            let bytes = data[at + entry + 1..].iter();
            let varint = 1 + bytes.take_while(|byte| **byte >= 128).count();
            let suffix = at + entry + 1 + varint;
            let first = if prefix > 0 { at + fence } else { suffix };
            if data[first] == kind {
                found.push((at, suffix + len));
            }
        }
    }
    found
}

/// Writes the files; does nothing unless it is asked to by name and variable.
#[test]
fn write_the_files() {
    if std::env::var("TERRANE_GOLDEN").as_deref() != Ok("write") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("db");
    let db = builder(5).create(Create::New).open(&dir).unwrap();
    store(&db);
    // Under an open handle: as a killed process leaves it.
    let mut all = files(&dir, "");
    // The segment that is prepared ahead has what a trimmed one had; an open makes another.
    let ahead = all.iter().rposition(|(name, _)| name.ends_with(".seg"));
    let without = tempfile::tempdir().unwrap();
    for (name, bytes) in all
        .iter()
        .enumerate()
        .filter(|(at, _)| Some(*at) != ahead)
        .map(|(_, one)| one)
    {
        let path = without.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    if check(without.path()).unwrap().is_sound() {
        all.remove(ahead.unwrap());
    }
    let target = golden().join("v1-vectors");
    fs::create_dir_all(&target).unwrap();
    let (mut names, mut parts) = (String::new(), Vec::new());
    for (name, bytes) in &all {
        write!(names, "{name} {}", bytes.len()).unwrap();
        let mut at = 0;
        while let Some(from) = bytes[at..].iter().position(|byte| *byte != 0) {
            let part = &bytes[at + from..];
            let zeros = part.windows(GAP).position(|gap| gap == [0; GAP]);
            let part = &part[..zeros.unwrap_or(part.len())];
            write!(names, " {}+{}", at + from, part.len()).unwrap();
            parts.extend_from_slice(part);
            at += from + part.len();
        }
        names.push('\n');
    }
    fs::write(target.join("PARTS"), &names).unwrap();
    fs::write(target.join("parts"), &parts).unwrap();
    fs::write(target.join("damaged"), "").unwrap();
    // Leaves of older images lie there too: one that the checker minds is of the newest.
    let data = &all.iter().find(|(name, _)| name == "data.0").unwrap().1;
    let mut damaged = String::new();
    for (name, kind) in [("centroid", 2), ("head", 3), ("locator", 4)] {
        // One record of each kind whose leaf has none of the kinds before.
        let before: Vec<usize> = (1..kind)
            .flat_map(|kind| records(data, kind))
            .map(|one| one.0)
            .collect();
        let fits = |one: &(usize, usize)| kind == 2 || !before.contains(&one.0);
        let minded = records(data, kind)
            .into_iter()
            .filter(fits)
            .find(|(_, at)| {
                let folder = copy(None);
                invert(&folder.path().join("db/data.0"), *at);
                !check(folder.path().join("db")).unwrap().is_sound()
            });
        writeln!(damaged, "{name} data.0 {}", minded.unwrap().1).unwrap();
    }
    fs::write(target.join("damaged"), damaged).unwrap();
    let bytes = parts.len() + names.len();
    assert!(bytes < 150 << 10, "{bytes} bytes");
}
