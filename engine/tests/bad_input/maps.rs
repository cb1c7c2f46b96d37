//! Row 73: a damaged page map. The previous image is tried; where both are bad nothing is opened
//! and nothing is allocated.
//!
//! Seen to fail with a slot that two pages name let through.

use terrane::{ErrorKind, check};

use crate::surgeon::{Surgeon, set_u32, set_u64, u64_at};
use crate::{MANY, Made, ROWS, assert_usable, refused};

const ENTRY: usize = 24;

/// Damage of the newest run only: the image before it opens, and that is told.
fn assert_falls_back(edit: impl FnOnce(&mut Vec<u8>, (usize, usize)), seal: bool) {
    let made = Made::new();
    let surgeon = Surgeon::new(&made.dir());
    let run = surgeon.runs(&surgeon.read(&surgeon.delta()))[0];
    if seal {
        surgeon.edit_delta(|delta| edit(delta, run));
    } else {
        surgeon.edit(&surgeon.delta(), |delta| edit(delta, run));
    }
    let report = check(made.dir()).unwrap();
    let told = report.findings.iter().any(|f| f.structure.contains("map"));
    assert!(told, "{:?}", report.findings);
    let db = made.open().unwrap();
    assert_eq!(db.notices().len(), 1, "{:?}", db.notices());
    assert!(db.notices()[0].contains("generation"), "{:?}", db.notices());
    let rows = db.table(ROWS).unwrap();
    assert_eq!(rows.count(&db.snapshot()).unwrap(), MANY);
    assert_usable(&db);
    db.close().unwrap();
    let report = check(made.dir()).unwrap();
    assert_eq!(report.findings, [], "what was written since is sound");
}

/// Damage that both images share: nothing is opened, nothing changes.
fn assert_refused(edit: impl Fn(&mut Vec<u8>, &Surgeon), parts: &[&str]) {
    let made = Made::new();
    let surgeon = Surgeon::new(&made.dir());
    surgeon.edit_delta(|delta| edit(delta, &surgeon));
    let before = made.bytes();
    let mut all = vec!["structure=map", "expected=", "found=", "map."];
    all.extend(parts);
    refused(made.open(), ErrorKind::Corrupt, &all);
    assert_eq!(made.bytes(), before);
    assert!(!check(made.dir()).unwrap().is_sound());
}

/// Entries of every run of the newest image, oldest run last.
fn entries(delta: &[u8], surgeon: &Surgeon) -> Vec<usize> {
    let runs = surgeon.runs(delta).into_iter();
    runs.flat_map(|(from, footer)| (from..footer).step_by(ENTRY))
        .collect()
}

#[test]
fn row_73_a_flipped_bit_in_a_run() {
    assert_falls_back(|delta, (from, _)| delta[from + 9] ^= 1, false);
}

#[test]
fn row_73_a_bad_footer() {
    assert_falls_back(|delta, (_, footer)| delta[footer + 1] ^= 1, false);
}

#[test]
fn row_73_a_loop_of_runs() {
    assert_falls_back(
        |delta, (_, footer)| set_u64(delta, footer + 24, footer as u64),
        true,
    );
}

#[test]
fn row_73_two_pages_in_one_slot() {
    assert_refused(
        |delta, surgeon| {
            let mut places = surgeon.places().into_values();
            let (one, two) = (places.next().unwrap(), places.next().unwrap());
            // In every run: what stands in an old one is what the older image has.
            let word = u64_at(delta, one.entry + 8);
            let id = u64_at(delta, two.entry);
            for entry in entries(delta, surgeon) {
                if u64_at(delta, entry) == id {
                    set_u64(delta, entry + 8, word);
                }
                if u64_at(delta, entry) == u64_at(delta, one.entry) {
                    set_u64(delta, entry + 8, word);
                }
            }
        },
        &["slot"],
    );
}

#[test]
fn row_73_a_slot_beyond_the_data() {
    assert_refused(
        |delta, surgeon| {
            for entry in entries(delta, surgeon) {
                let word = u64_at(delta, entry + 8);
                set_u64(delta, entry + 8, word & !0xff_ffff_ffff | 0xff_ffff_0000);
            }
        },
        &[],
    );
}

#[test]
fn row_73_an_entry_of_no_legal_page() {
    assert_refused(
        |delta, surgeon| {
            for entry in entries(delta, surgeon) {
                delta[entry + 8 + 5] = 77;
            }
        },
        &[],
    );
}

#[test]
fn row_73_a_limbo_run_that_names_a_live_page() {
    // META says how many entries the last run unlinks; a run of pages turned into one of limbo
    // names pages that are live.
    let made = Made::new();
    let surgeon = Surgeon::new(&made.dir());
    let [newest, _] = surgeon.generations();
    let mut n = 0;
    surgeon.edit_delta(|delta| {
        let (from, footer) = surgeon.runs(delta)[0];
        n = ((footer - from) / ENTRY) as u64;
        set_u32(delta, footer + 12, 1);
    });
    surgeon.edit_meta(&newest, |copy| set_u64(copy, 160, n));
    let report = check(made.dir()).unwrap();
    assert!(!report.is_sound());
    let db = made.open().unwrap();
    assert_eq!(db.notices().len(), 1, "{:?}", db.notices());
    assert_usable(&db);
}
