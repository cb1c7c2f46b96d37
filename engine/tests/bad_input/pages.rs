//! Rows 68 to 72: damaged pages. The page is told, the other tables stay usable, and `check` finds
//! it too.
//!
//! Seen to fail with stale pages let through.

use std::fs;

use terrane::{ErrorKind, TableDef, check};

use crate::surgeon::{Place, Surgeon, set_u32, set_u64, u16_at, u32_at, u64_at};
use crate::{MANY, Made, ROWS, assert_usable, refused, scan, value};

/// Trees in the order in which `Made` makes their tables.
const ROWS_TREE: u32 = 256;
const LEAF: u8 = 1;
const BRANCH: u8 = 2;
const OVERFLOW: u8 = 3;

/// A leaf from the middle of the table.
fn middle(surgeon: &Surgeon) -> (u64, Place) {
    let leaves = surgeon.pages(ROWS_TREE, LEAF);
    assert!(leaves.len() > 4, "{} leaves", leaves.len());
    leaves[leaves.len() / 2]
}

/// After damage to pages of the table: a scan of it ends with `Corrupt` and these parts, keys that
/// lie elsewhere are read, the other table is usable, nothing wrong is ever returned, `check` finds
/// it.
fn assert_damage(made: &Made, parts: &[&str]) {
    let report = check(made.dir()).unwrap();
    assert!(!report.is_sound(), "check has missed it: {parts:?}");
    let db = made.open().unwrap();
    let rows = db.table(ROWS).unwrap();
    let mut all = vec!["expected=", "found="];
    all.extend(parts);
    refused(scan(&db, &rows), ErrorKind::Corrupt, &all);
    let now = db.snapshot();
    for key in 0..MANY {
        match rows.get(&now, key) {
            Ok(found) => {
                let found = found.unwrap_or_else(|| panic!("row {key} is gone"));
                assert!(
                    found == value(key, 0) || found == value(key, 1),
                    "row {key}"
                );
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}"),
        }
    }
    assert_usable(&db);
}

#[test]
fn row_68_a_flipped_bit() {
    for at in [200, 4096, 8191, 16] {
        let made = Made::new();
        let surgeon = Surgeon::new(&made.dir());
        let (id, place) = middle(&surgeon);
        surgeon.edit("data.0", |bytes| bytes[place.offset + at] ^= 4);
        assert_damage(&made, &[&format!("page={id}"), "data.0"]);
    }
}

#[test]
fn row_68_a_page_of_zeros_and_row_78_a_hole() {
    let made = Made::new();
    let surgeon = Surgeon::new(&made.dir());
    let (id, place) = middle(&surgeon);
    surgeon.edit("data.0", |bytes| {
        bytes[place.offset..place.offset + place.size].fill(0);
    });
    assert_damage(&made, &[&format!("page={id}")]);
}

#[test]
fn row_68_a_page_of_another_database() {
    let (made, other) = (Made::new(), Made::empty());
    let db = other.create();
    other.fill(&db, 0..MANY, 9);
    db.close().unwrap();
    let theirs = Surgeon::new(&other.dir());
    let page = theirs.page(middle(&theirs).1);
    let surgeon = Surgeon::new(&made.dir());
    let (id, place) = middle(&surgeon);
    surgeon.edit("data.0", |bytes| {
        bytes[place.offset..place.offset + place.size].copy_from_slice(&page);
    });
    assert_damage(&made, &[&format!("page={id}")]);
}

#[test]
fn row_68_a_page_of_another_number() {
    // Sealed again, so that only its number tells.
    let made = Made::new();
    let surgeon = Surgeon::new(&made.dir());
    let leaves = surgeon.pages(ROWS_TREE, LEAF);
    let wrong = surgeon.page(leaves[1].1);
    let (id, place) = leaves[2];
    surgeon.edit_page(place, |page| page.copy_from_slice(&wrong));
    assert_damage(&made, &[&format!("page={id}")]);
}

#[test]
fn row_69_a_stale_page() {
    // A write that was lost: the slot holds what the page was before.
    let made = Made::new();
    let surgeon = Surgeon::new(&made.dir());
    let (id, place) = middle(&surgeon);
    let old = surgeon.page(place);
    let db = made.open().unwrap();
    let first = u64::from_be_bytes(old[key_of(&old, 0)..][..8].try_into().unwrap());
    made.fill(&db, first..first + 1, 1);
    db.close().unwrap();
    let place = surgeon.places()[&id];
    assert_ne!(surgeon.page(place), old);
    surgeon.edit("data.0", |bytes| {
        bytes[place.offset..place.offset + place.size].copy_from_slice(&old);
    });
    assert_damage(&made, &[&format!("page={id}")]);
}

/// Where the key of a leaf's slot lies, if the page has no common prefix to take off: else its
/// fence, which is the key of the first row or below.
fn key_of(page: &[u8], slot: usize) -> usize {
    let prefix = u16_at(page, 34) as usize;
    if prefix > 0 {
        // The lower fence is whole, and is a key of a row that was first here once.
        return u16_at(page, 44) as usize;
    }
    u16_at(page, 128 + slot * 8 + 4) as usize + 3
}

#[test]
fn row_70_pointers_of_a_branch() {
    let probe = Made::new();
    let surgeon = Surgeon::new(&probe.dir());
    let branches = surgeon.pages(ROWS_TREE, BRANCH);
    let (root, place) = branches[0];
    let other = surgeon.pages(257, LEAF)[0].0;
    let absent = u64_at(&surgeon.newest(), 136) + 5;
    let child = u64_at(&surgeon.page(place), 56);
    assert_eq!(branches.len(), 1, "one level of branches");
    for (name, to) in [
        ("not in the map", absent),
        ("itself", root),
        ("no page", 0),
        ("a leaf of another tree", other),
        ("above all ids", u64::MAX),
    ] {
        assert_ne!(to, child);
        let made = Made::new();
        let surgeon = Surgeon::new(&made.dir());
        let (_, place) = surgeon.pages(ROWS_TREE, BRANCH)[0];
        // The last child: `upper_child`; and the first one, in its heap entry.
        surgeon.edit_page(place, |page| set_u64(page, 56, to));
        let report = check(made.dir()).unwrap();
        assert!(!report.is_sound(), "{name}");
        let db = made.open().unwrap();
        let rows = db.table(ROWS).unwrap();
        refused(
            rows.get(&db.snapshot(), MANY - 1),
            ErrorKind::Corrupt,
            &["found="],
        );
        refused(scan(&db, &rows), ErrorKind::Corrupt, &["found="]);
        let back = rows.iter(&db.snapshot()).next_back().unwrap();
        refused(back, ErrorKind::Corrupt, &["found="]);
        assert_usable(&db);
    }
}

#[test]
fn row_70_a_leaf_of_another_level() {
    let made = Made::new();
    let surgeon = Surgeon::new(&made.dir());
    let (id, place) = middle(&surgeon);
    surgeon.edit_page(place, |page| {
        // Kind and level say branch, bytes 6 and 53.
        page[6] = BRANCH;
        page[53] = 1;
    });
    assert_damage(&made, &[&format!("page={id}")]);
}

/// Changes the slots of a leaf in the middle, sealed again.
fn with_slots(edit: impl Fn(&mut [u8], usize)) {
    let made = Made::new();
    let surgeon = Surgeon::new(&made.dir());
    let (id, place) = middle(&surgeon);
    surgeon.edit_page(place, |page| {
        let n = u16_at(page, 32) as usize;
        assert!(n > 4);
        edit(page, n);
    });
    assert_damage(&made, &[&format!("page={id}")]);
}

#[test]
fn row_71_keys_out_of_order() {
    with_slots(|page, _| {
        let (one, two) = (128 + 8, 128 + 16);
        for at in 0..8 {
            page.swap(one + at, two + at);
        }
    });
}

#[test]
fn row_71_a_key_outside_of_the_fences() {
    with_slots(|page, n| {
        // The last key gets a higher byte in front, in its head and in the heap.
        let slot = 128 + (n - 1) * 8;
        let at = u16_at(page, slot + 4) as usize;
        let key = (at..at + 8).find(|at| page[*at] == 0).unwrap_or(at + 3);
        page[key] = 0xff;
        set_u32(page, slot, u32::MAX);
    });
}

#[test]
fn row_71_a_slot_outside_of_the_page() {
    with_slots(|page, _| page[128 + 8 + 4..128 + 8 + 6].copy_from_slice(&u16::MAX.to_le_bytes()));
}

#[test]
fn row_71_slots_that_overlap() {
    with_slots(|page, _| {
        let at = u16_at(page, 128 + 8 + 4) + 2;
        page[128 + 16 + 4..128 + 16 + 6].copy_from_slice(&at.to_le_bytes());
    });
}

#[test]
fn row_71_more_slots_than_fit() {
    with_slots(|page, _| page[32..34].copy_from_slice(&5000_u16.to_le_bytes()));
}

const LONG: TableDef<u64, Vec<u8>> = TableDef::new("long");

/// A table with one value of several overflow pages, the pages in the order of the chain.
fn long_value() -> (Made, Vec<(u64, Place)>) {
    let made = Made::new();
    let db = made.open().unwrap();
    let long = db.table(LONG).unwrap();
    db.write(|tx| {
        long.put(tx, 1, &vec![1; 50_000])?;
        long.put(tx, 2, &vec![2; 10])
    })
    .unwrap();
    db.close().unwrap();
    let surgeon = Surgeon::new(&made.dir());
    let mut pages = surgeon.pages(258, OVERFLOW);
    pages.sort_by_key(|(_, place)| u32_at(&surgeon.page(*place), 64));
    assert!(pages.len() > 4, "{}", pages.len());
    (made, pages)
}

#[test]
fn row_72_chains_of_overflow_pages() {
    /// Changes one page of the chain.
    type Edit = fn(&mut [u8], &[(u64, Place)]);
    let cases: [(&str, usize, Edit); 6] = [
        ("a loop", 2, |page, chain| set_u64(page, 56, chain[1].0)),
        ("itself", 2, |page, chain| set_u64(page, 56, chain[2].0)),
        ("too short", 2, |page, _| set_u64(page, 56, 0)),
        ("too long", 6, |page, chain| set_u64(page, 56, chain[0].0)),
        ("another place", 3, |page, _| set_u32(page, 64, 9)),
        ("another length", 3, |page, _| set_u32(page, 36, 200)),
    ];
    for (name, which, edit) in cases {
        let (made, chain) = long_value();
        let which = which.min(chain.len() - 1);
        let surgeon = Surgeon::new(&made.dir());
        surgeon.edit_page(chain[which].1, |page| edit(page, &chain));
        let report = check(made.dir()).unwrap();
        assert!(!report.is_sound(), "{name}");
        let db = made.open().unwrap();
        let long = db.table(LONG).unwrap();
        let now = db.snapshot();
        refused(
            long.get(&now, 1),
            ErrorKind::Corrupt,
            &["expected=", "found="],
        );
        assert_eq!(long.get(&now, 2).unwrap(), Some(vec![2; 10]), "{name}");
        assert_usable(&db);
    }
}

#[test]
fn the_sound_directory_has_no_finding() {
    // What the other tests rest on: their findings come from the damage.
    let (made, _) = long_value();
    let before = made.bytes();
    let report = check(made.dir()).unwrap();
    assert_eq!(report.findings, []);
    assert_eq!((report.tables, report.rows), (3, MANY + 10 + 2));
    assert!(report.pages > 20 && report.trees >= 6, "{report:?}");
    assert_eq!(made.bytes(), before, "a check changes nothing");
    assert!(fs::metadata(made.dir().join("LOCK")).is_ok());
}
