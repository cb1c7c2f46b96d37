//! Rows 64 to 67 and 78: META, lengths, versions, and which generation counts.
//!
//! Seen to fail without the bound of timestamps in META.

use std::fs;

use terrane::{ErrorKind, check};

use crate::surgeon::{COPY, COPY_STRIDE, Surgeon, seal_meta, set_u32, set_u64, u64_at};
use crate::{MANY, Made, ROWS, assert_usable, refused, value};

/// Opens after damage that another copy heals: everything is there, and check finds nothing more
/// once a checkpoint or two have passed.
fn assert_whole(made: &Made) {
    let db = made.open().unwrap();
    let rows = db.table(ROWS).unwrap();
    let now = db.snapshot();
    assert_eq!(rows.count(&now).unwrap(), MANY);
    assert_eq!(rows.get(&now, 0).unwrap(), Some(value(0, 1)));
    assert_usable(&db);
    db.checkpoint().unwrap();
    made.fill(&db, 3..4, 5);
    db.close().unwrap();
    let report = check(made.dir()).unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
}

#[test]
fn row_64_meta_of_too_few_bytes() {
    for len in [0, 1, 64, 4095] {
        let made = Made::new();
        Surgeon::new(&made.dir()).edit("META", |bytes| bytes.truncate(len));
        let before = made.bytes();
        let parts = ["structure=META", "META", "expected=", "found="];
        refused(made.open(), ErrorKind::Corrupt, &parts);
        let report = check(made.dir()).unwrap();
        assert!(!report.is_sound(), "{len}");
        assert_eq!(made.bytes(), before, "nothing is put over it");
    }
    // A last partial zone is growth that was torn: cut, and grown again.
    let made = Made::new();
    let path = made.dir().join("data.0");
    let mut data = fs::read(&path).unwrap();
    data.extend([7; 1000]);
    fs::write(&path, data).unwrap();
    assert_whole(&made);
}

#[test]
fn row_65_a_foreign_magic() {
    let made = Made::new();
    let surgeon = Surgeon::new(&made.dir());
    surgeon.edit("META", |bytes| {
        for copy in 0..4 {
            bytes[copy * COPY_STRIDE..][..8].copy_from_slice(b"SQLite f");
        }
    });
    refused(made.open(), ErrorKind::Invalid, &["META", "magic"]);

    let made = Made::new();
    let surgeon = Surgeon::new(&made.dir());
    let delta = surgeon.delta();
    surgeon.edit(&delta, |bytes| {
        let end = u64_at(&surgeon.newest(), 112) as usize;
        bytes[end - 32..end - 28].copy_from_slice(b"ABCD");
    });
    // The map of the newest generation is gone: the one before it opens.
    let db = made.open().unwrap();
    assert_eq!(db.notices().len(), 1, "{:?}", db.notices());
    assert!(db.notices()[0].contains("map"), "{:?}", db.notices());
    assert_usable(&db);
}

#[test]
fn row_66_a_version_of_the_future() {
    // Offsets of format and incompatible features in a copy.
    for (at, name) in [(12, "format"), (24, "features")] {
        let made = Made::new();
        let surgeon = Surgeon::new(&made.dir());
        let all = surgeon.generations().concat();
        surgeon.edit_meta(&all, |copy| copy[at] = 9);
        let before = made.bytes();
        let parts = ["META", "supported=", "found=9"];
        let error = refused(made.open(), ErrorKind::Version, &parts);
        assert_eq!(made.bytes(), before, "{name}: {error}");
        refused(check(made.dir()), ErrorKind::Version, &parts);
    }
    // Format 0 was never written by anybody: as unsupported as one of the future.
    let made = Made::new();
    let surgeon = Surgeon::new(&made.dir());
    surgeon.edit_meta(&surgeon.generations().concat(), |copy| set_u32(copy, 12, 0));
    refused(made.open(), ErrorKind::Version, &["found=0"]);
}

#[test]
fn row_67_one_copy_bad() {
    for copy in 0..4 {
        let made = Made::new();
        let surgeon = Surgeon::new(&made.dir());
        surgeon.edit("META", |bytes| bytes[copy * COPY_STRIDE + 100] ^= 1);
        let report = check(made.dir()).unwrap();
        assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
        let finding = &report.findings[0];
        assert_eq!(
            finding.offset,
            Some((copy * COPY_STRIDE) as u64),
            "{finding}"
        );
        assert!(finding.to_string().contains("crc"), "{finding}");
        assert_whole(&made);
    }
}

#[test]
fn row_67_a_generation_bad() {
    let made = Made::new();
    let surgeon = Surgeon::new(&made.dir());
    let [newest, _] = surgeon.generations();
    surgeon.edit("META", |bytes| {
        newest.iter().for_each(|at| bytes[at + 50] ^= 1)
    });
    // The older image and the log from its redo point are the same database.
    assert_whole(&made);
}

/// Seen failing (it opened) without the bound.
#[test]
fn row_87_a_clock_bound_from_the_future() {
    let made = Made::new();
    let surgeon = Surgeon::new(&made.dir());
    let copies = surgeon.generations().concat();
    surgeon.edit_meta(&copies, |copy| set_u64(copy, 152, u64::MAX - 1));
    let before = made.bytes();
    let parts = ["structure=META", "expected=timestamps up to", "found=ts"];
    refused(made.open(), ErrorKind::Corrupt, &parts);
    assert_eq!(made.bytes(), before);
    // Thousands of years ahead, with room above: told, and no harm.
    surgeon.edit_meta(&copies, |copy| set_u64(copy, 152, 1 << 63));
    let db = made.open().unwrap();
    assert!(db.notices()[0].contains("ahead of the wall clock"));
    drop(db);
    assert_whole(&made);
}

#[test]
fn row_67_all_copies_bad() {
    let made = Made::new();
    let surgeon = Surgeon::new(&made.dir());
    surgeon.edit("META", |bytes| {
        (0..4).for_each(|copy| bytes[copy * COPY_STRIDE + 200] ^= 1);
    });
    let before = made.bytes();
    refused(
        made.open(),
        ErrorKind::Corrupt,
        &["structure=META", "expected=crc"],
    );
    assert_eq!(made.bytes(), before);
    let report = check(made.dir()).unwrap();
    assert!(report.findings.len() >= 4, "{:?}", report.findings);
}

#[test]
fn row_67_generations_of_other_epochs() {
    // A copy of the newest generation whose epoch was changed: the pair differs, the one that
    // verifies counts.
    let made = Made::new();
    let surgeon = Surgeon::new(&made.dir());
    let [[first, _], _] = surgeon.generations();
    surgeon.edit("META", |bytes| {
        let copy = &mut bytes[first..first + COPY];
        set_u64(copy, 112, u64::MAX / 2);
        seal_meta(copy);
    });
    let report = check(made.dir()).unwrap();
    assert!(!report.is_sound());
    let db = made.open().unwrap();
    assert_usable(&db);
}

#[test]
fn row_78_a_data_file_that_is_too_short() {
    let made = Made::new();
    let surgeon = Surgeon::new(&made.dir());
    surgeon.edit("data.0", |bytes| bytes.truncate(8192));
    let before = made.bytes();
    let parts = ["structure=length", "data.0", "expected=", "found="];
    refused(made.open(), ErrorKind::Corrupt, &parts);
    assert_eq!(made.bytes(), before);
    assert!(!check(made.dir()).unwrap().is_sound());
}

#[test]
fn row_79_files_taken_away_while_open() {
    let made = Made::new();
    let db = made.open().unwrap();
    let rows = db.table(ROWS).unwrap();
    fs::rename(made.dir(), made.folder.path().join("moved")).unwrap();
    // The open handle goes on with the files that it has, or tells of a failed call.
    assert_eq!(rows.get(&db.snapshot(), 0).unwrap(), Some(value(0, 1)));
    for key in 0..50 {
        match db.write(|tx| rows.put(tx, key, &value(key, 8))) {
            Ok(()) => assert_eq!(rows.get(&db.snapshot(), key).unwrap(), Some(value(key, 8))),
            Err(error) => assert!(
                matches!(error.kind(), ErrorKind::Io | ErrorKind::NotFound),
                "{error:?}"
            ),
        }
    }
    refused(made.open(), ErrorKind::NotFound, &["path="]);
    // Another database in its place is another one: nothing of the old handle gets into it.
    let fresh = made.create();
    made.fill(&fresh, 0..1, 4);
    let _ = db.checkpoint();
    drop(db);
    fresh.close().unwrap();
    let report = check(made.dir()).unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
    assert_eq!(report.rows, 1);
}
