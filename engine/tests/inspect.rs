//! `check` and `log` on sound and damaged directories: nothing changes, what is wrong is told.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something unexpected happens"
)]

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use terrane::inspect::{self, LogQuery};
use terrane::{Create, Database, ErrorKind, Record, TableDef, check};

#[derive(Record)]
struct Person {
    #[terrane(id = 1, unique)]
    name: String,
    #[terrane(id = 2, index)]
    born: Option<i32>,
    #[terrane(id = 3, unique)]
    badge: Option<u64>,
    #[terrane(id = 4)]
    text: String,
}

const PEOPLE: TableDef<(u8, String), Person> = TableDef::new("people");

fn person(number: u64) -> Person {
    Person {
        name: format!("person {number}"),
        born: (!number.is_multiple_of(3)).then_some(1900 + (number % 50) as i32),
        badge: number.is_multiple_of(2).then_some(number),
        text: "x".repeat(number as usize % 300),
    }
}

/// A database of people, some of them changed and deleted, closed; and its directory.
fn people() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("db");
    let db = open(&dir);
    fill(&db);
    db.close().unwrap();
    (folder, dir)
}

fn open(dir: &Path) -> Database {
    Database::builder().background(false).open(dir).unwrap()
}

fn fill(db: &Database) {
    let people = db.table(PEOPLE).unwrap();
    for round in 0..3 {
        db.write(|tx| {
            for number in 0..200 {
                let key = (round as u8, format!("{number}"));
                people.put(tx, key, &person(round * 1000 + number))?;
            }
            Ok(())
        })
        .unwrap();
    }
    db.write(|tx| {
        for number in (0..200_u64).step_by(5) {
            people.delete(tx, (1, format!("{number}")))?;
            people.put(tx, (2, format!("{number}")), &person(9000 + number))?;
        }
        Ok(())
    })
    .unwrap();
}

fn bytes(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(bytes(&path));
        } else {
            all.push((path.clone(), fs::read(path).unwrap()));
        }
    }
    all.sort();
    all
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, target).unwrap();
        }
    }
}

/// Seen to fail with the check run on the disk itself instead of on a shadow.
#[test]
fn a_sound_directory_has_no_finding_and_does_not_change() {
    let (_folder, dir) = people();
    let before = bytes(&dir);
    let report = check(&dir).unwrap();
    assert_eq!(report.findings, []);
    assert_eq!(bytes(&dir), before);
    assert_eq!((report.tables, report.rows), (1, 560));
    assert_eq!(report.index_entries, 3 * 560, "each row in each index");
    assert!(report.pages > 10 && report.generation > 0, "{report:?}");
}

/// Seen to fail as the test above.
#[test]
fn what_a_killed_process_leaves_is_checked_with_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, killed) = (folder.path().join("db"), folder.path().join("killed"));
    let db = open(&dir);
    fill(&db);
    copy(&dir, &killed);
    let before = bytes(&killed);
    let report = check(&killed).unwrap();
    assert_eq!(report.findings, []);
    assert_eq!(bytes(&killed), before, "recovery ran over a shadow");
    assert_eq!(report.rows, 560);
    assert!(
        report.log_entries >= 5 && report.log_bytes > 10_000,
        "{report:?}"
    );
    // And a read-only open of it is refused, since it would have to recover.
    let read = Database::builder().read_only(true).open(&killed);
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ReadOnly);
    assert_eq!(bytes(&killed), before);
}

#[test]
fn what_is_no_damage_is_an_error() {
    let (folder, dir) = people();
    let kind = |path: &Path| check(path).unwrap_err().kind();
    assert_eq!(kind(&folder.path().join("none")), ErrorKind::NotFound);
    assert_eq!(kind(folder.path()), ErrorKind::NotFound);
    assert_eq!(kind(&dir.join("META")), ErrorKind::Invalid);
    let db = open(&dir);
    assert_eq!(kind(&dir), ErrorKind::Locked);
    db.close().unwrap();
    check(&dir).unwrap();
}

/// Bytes of every page are flipped one page at a time; whatever lies in a slot of an image is
/// noticed, and told with the file. Seen to fail with the crc of page and map not compared.
#[test]
fn a_flip_in_any_page_is_found() {
    let (_folder, dir) = people();
    let data = fs::read(dir.join("data.0")).unwrap();
    let pages = (0..data.len())
        .step_by(8192)
        .filter(|at| data[*at..*at + 8192] != [0; 8192]);
    let (mut flipped, mut found) = (0, 0);
    for at in pages {
        let mut bad = data.clone();
        bad[at + 3000] ^= 8;
        fs::write(dir.join("data.0"), &bad).unwrap();
        let report = check(&dir).unwrap();
        flipped += 1;
        // A slot that belongs to no image any more may hold anything.
        if let Some(finding) = report.findings.first() {
            let file = finding.file.as_ref().unwrap();
            assert!(file.ends_with("data.0"), "{finding}");
            assert!(
                finding.offset.is_some_and(|offset| offset as usize == at),
                "{finding}"
            );
            found += 1;
        }
    }
    fs::write(dir.join("data.0"), data).unwrap();
    let pages = check(&dir).unwrap().pages;
    assert_eq!(found, pages, "of {flipped} pages flipped");
}

fn lines(dir: &Path, query: &LogQuery) -> terrane::Result<Vec<String>> {
    let mut lines = Vec::new();
    inspect::log(dir, query, &mut |line| {
        lines.push(line.to_owned());
        ControlFlow::Continue(())
    })?;
    Ok(lines)
}

/// Seen to fail with `LogQuery::from` ignored.
#[test]
fn the_log_is_told_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, killed) = (folder.path().join("db"), folder.path().join("killed"));
    let db = open(&dir);
    let numbers = db.table(TableDef::<u64, u64>::new("numbers")).unwrap();
    for number in 0..5 {
        let writer = db.writer().idempotency(format!("n{number}"));
        writer.run(|tx| numbers.put(tx, number, &number)).unwrap();
    }
    db.write(|tx| numbers.delete(tx, 3).map(drop)).unwrap();
    copy(&dir, &killed);
    let before = bytes(&killed);
    let all = lines(&killed, &LogQuery::default()).unwrap();
    assert_eq!(all.len(), 7, "{all:#?}");
    assert!(all[0].starts_with("entry lsn 0.."), "{}", all[0]);
    assert!(all[0].contains("\"numbers\""), "{}", all[0]);
    assert!(
        all[1].contains("put") && all[1].contains("commit as b\"n0\""),
        "{}",
        all[1]
    );
    assert!(all[6].contains("del"), "{}", all[6]);
    let query = LogQuery {
        keys: true,
        frames: true,
        limit: Some(2),
        ..LogQuery::default()
    };
    let some = lines(&killed, &query).unwrap();
    let kinds: Vec<&str> = some
        .iter()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(
        kinds,
        ["segment", "frame", "entry", "frame", "entry"],
        "{some:#?}"
    );
    assert!(
        some[4].contains("b\"\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\""),
        "{}",
        some[4]
    );
    let end = all[4]
        .split_once("..")
        .unwrap()
        .1
        .split_once(' ')
        .unwrap()
        .0;
    let from = LogQuery {
        from: end.parse().unwrap(),
        ..LogQuery::default()
    };
    assert_eq!(lines(&killed, &from).unwrap(), all[5..]);
    assert_eq!(bytes(&killed), before);
}

/// Seen to fail with a bad frame taken as the end of the log although later frames vouch for it.
#[test]
fn a_damaged_log_is_told_up_to_the_damage() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, killed) = (folder.path().join("db"), folder.path().join("killed"));
    let db = open(&dir);
    let numbers = db.table(TableDef::<u64, u64>::new("numbers")).unwrap();
    for number in 0..5 {
        db.write(|tx| numbers.put(tx, number, &number)).unwrap();
    }
    copy(&dir, &killed);
    let segment = killed.join("log/0000000000000001.seg");
    let mut damaged = fs::read(&segment).unwrap();
    damaged[4096 + 3 * 4096 + 150] ^= 1;
    fs::write(&segment, damaged).unwrap();
    let mut told = 0;
    let error = inspect::log(&killed, &LogQuery::default(), &mut |_| {
        told += 1;
        ControlFlow::Continue(())
    });
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(told, 3);
    let report = check(&killed).unwrap();
    assert!(!report.is_sound());
    // Without META the log is told all the same.
    fs::remove_file(killed.join("META")).unwrap();
    assert!(lines(&killed, &LogQuery::default()).is_err());
    let never = Database::builder().create(Create::Never).open(&killed);
    assert!(never.is_err());
}
