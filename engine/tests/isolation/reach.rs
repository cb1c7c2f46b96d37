//! What of a scan counts as read: from the end at which it began to the last row that it gave out,
//! gaps included; all of the range when it came to its end; nothing when it was never asked.
//!
//! A reader scans and writes a row elsewhere; before it commits, somebody else changes one row. It
//! must conflict if that row lies in what the scan has seen, and must not if it lies behind.

use std::ops::Deref;

use terrane::{Database, Durability, ErrorKind, Isolation, Result, Table, TableDef, Transaction};

use crate::{CELLS, World, committed};

/// Where readers write.
const MARKS: TableDef<u64, i64> = TableDef::new("marks");

/// Rows of which some seventy lie in a leaf.
const WIDE: TableDef<u64, Vec<u8>> = TableDef::new("wide");

/// Rows 10, 20, 30, 40 and 50.
const ROWS: [u64; 5] = [10, 20, 30, 40, 50];

/// A serializable world with these rows.
pub(crate) struct Ground {
    world: World,
    pub(crate) marks: Table<u64, i64>,
}

impl Deref for Ground {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

pub(crate) type Reading<'a> = &'a dyn Fn(&mut Transaction);
pub(crate) type Change<'a> = &'a dyn Fn(&mut Transaction) -> Result<()>;

/// Commits beside a change that write elsewhere: of few the ring is asked, of more the index.
const CROWDS: [u64; 2] = [0, 20];

impl Ground {
    pub(crate) fn new() -> Ground {
        let folder = tempfile::tempdir().expect("a folder");
        let isolation = Isolation::Serializable;
        let db = Database::builder()
            .isolation(isolation)
            .durability(Durability::Buffered)
            .open(folder.path().join("db"))
            .expect("opens");
        let cells = db.table(CELLS).expect("a table");
        let marks = db.table(MARKS).expect("a table");
        let world = World {
            db,
            cells,
            isolation,
            _folder: folder,
        };
        let ground = Ground { world, marks };
        ground.restore();
        ground
    }

    /// Whether a reader conflicts with a change that is made between its reading and its commit.
    pub(crate) fn conflicts(&self, read: Reading<'_>, change: Change<'_>, crowd: u64) -> bool {
        let mut tx = self.db.begin();
        read(&mut tx);
        self.marks.put(&mut tx, 0, &1).expect("a write");
        self.db.write(|tx| change(tx)).expect("beside it");
        for number in 0..crowd {
            let put = self.db.write(|tx| self.marks.put(tx, 1 + number, &1));
            put.expect("elsewhere");
        }
        !committed(tx.commit())
    }

    /// Holds a reading against changes of single rows: those that it has seen and those behind.
    fn expect(&self, name: &str, read: Reading<'_>, seen: &[u64], behind: &[u64]) {
        let keys = seen.iter().map(|key| (*key, true));
        let keys = keys.chain(behind.iter().map(|key| (*key, false)));
        for ((key, conflict), crowd) in keys.flat_map(|case| CROWDS.map(|crowd| (case, crowd))) {
            let put = |tx: &mut Transaction| self.cells.put(tx, key, &7);
            let delete = |tx: &mut Transaction| self.cells.delete(tx, key).map(|_| ());
            let found = self.conflicts(read, &put, crowd);
            assert_eq!(found, conflict, "{name}: {key} put, {crowd} beside");
            self.restore();
            if ROWS.contains(&key) {
                let found = self.conflicts(read, &delete, crowd);
                assert_eq!(found, conflict, "{name}: {key} deleted, {crowd} beside");
                self.restore();
            }
        }
    }

    /// Makes the rows what they were.
    fn restore(&self) {
        let there = keys(self.cells.iter(&self.db.snapshot()));
        let restored = self.db.write(|tx| {
            for key in there.iter().filter(|key| !ROWS.contains(key)) {
                self.cells.delete(tx, *key)?;
            }
            ROWS.iter().try_for_each(|key| self.cells.put(tx, key, &1))
        });
        restored.expect("restored");
    }
}

/// The keys that a scan gives out.
fn keys(rows: impl Iterator<Item = Result<(u64, i64)>>) -> Vec<u64> {
    rows.map(|row| row.expect("a row").0).collect()
}

/// Seen to fail with a reach that leaves out its last key, with one that holds the keys which were
/// given out and no gap, with the requested range in its place, and with one that stays where the
/// scan's first row was; beside a crowd with an index that finds no range changed, and with a ring
/// that forgets the oldest commits.
#[test]
fn a_scan_that_was_stopped_has_read_up_to_its_last_row() {
    let ground = Ground::new();
    let cells = &ground.cells;
    ground.expect(
        "two from the front",
        &|tx| assert_eq!(keys(cells.range(tx, 15..).take(2)), [20, 30]),
        &[15, 16, 20, 25, 30],
        &[14, 10, 31, 40, 45, 60],
    );
    ground.expect(
        "two from the back",
        &|tx| assert_eq!(keys(cells.range(tx, ..45).rev().take(2)), [40, 30]),
        &[44, 40, 35, 30],
        &[45, 50, 29, 20, 10, 5],
    );
    ground.expect(
        "one that is looked for",
        &|tx| {
            let found = cells
                .iter(tx)
                .find(|row| matches!(row, Ok((key, _)) if *key == 30));
            assert!(found.is_some());
        },
        &[5, 10, 15, 25, 30],
        &[31, 40],
    );
    ground.expect(
        "just as many as there are",
        &|tx| assert_eq!(keys(cells.range(tx, 25..).take(3)), [30, 40, 50]),
        &[25, 45, 50],
        &[24, 51, 60],
    );
    ground.expect(
        "keys alone",
        &|tx| assert_eq!(cells.range(tx, 15..).keys().take(1).count(), 1),
        &[15, 20],
        &[21, 30],
    );
    ground.expect(
        "values as they are stored",
        &|tx| {
            assert_eq!(
                cells.range(tx, 15..).refs().nth(1).map(|r| r.is_ok()),
                Some(true)
            )
        },
        &[15, 20, 25, 30],
        &[31, 40],
    );
}

/// Seen to fail with an end that does not count as read: a reach that stays at the last row.
#[test]
fn a_scan_that_came_to_its_end_has_read_all_of_its_range() {
    let ground = Ground::new();
    let cells = &ground.cells;
    ground.expect(
        "to the end",
        &|tx| assert_eq!(keys(cells.range(tx, 25..)), [30, 40, 50]),
        &[25, 30, 45, 51, 60],
        &[24, 20],
    );
    ground.expect(
        "to the end of a bounded range",
        &|tx| assert_eq!(keys(cells.range(tx, 25..48)), [30, 40]),
        &[25, 41, 47],
        &[24, 48, 50],
    );
    ground.expect(
        "back to the beginning",
        &|tx| assert_eq!(keys(cells.range(tx, 5..25).rev()), [20, 10]),
        &[5, 9, 15, 24],
        &[4, 25, 30],
    );
    ground.expect(
        "counted",
        &|tx| assert_eq!(cells.range(tx, 25..).count(), 3),
        &[25, 30, 60],
        &[24],
    );
    ground.expect(
        "counted as a table",
        &|tx| assert_eq!(cells.count(tx).expect("a count"), 5),
        &[1, 30, 60],
        &[],
    );
    ground.expect(
        "the last of all",
        &|tx| assert!(cells.range(tx, 25..).last().is_some()),
        &[25, 30, 60],
        &[24],
    );
    ground.expect(
        "a range without rows",
        &|tx| assert!(cells.range(tx, 12..18).next().is_none()),
        &[12, 15, 17],
        &[11, 18, 20],
    );
    ground.expect(
        "one more than there are",
        &|tx| assert_eq!(keys(cells.range(tx, 25..).take(4)).len(), 3),
        &[25, 51, 60],
        &[24],
    );
}

#[test]
fn a_scan_that_was_never_asked_has_read_nothing() {
    let ground = Ground::new();
    let cells = &ground.cells;
    let none = |tx: &mut Transaction| drop(cells.range(tx, 5..));
    ground.expect("dropped", &none, &[], &[5, 10, 60]);
    let zero = |tx: &mut Transaction| assert_eq!(cells.iter(tx).take(0).count(), 0);
    ground.expect("none taken", &zero, &[], &[5, 10, 60]);
}

/// Seen to fail with ends that share one edge, and with a back end whose reach nobody holds.
#[test]
fn a_scan_from_both_ends_has_read_both_and_not_the_middle() {
    let ground = Ground::new();
    let cells = &ground.cells;
    ground.expect(
        "one from each end",
        &|tx| {
            let mut rows = cells.range(tx, 5..55);
            assert_eq!(keys(rows.by_ref().take(1)), [10]);
            assert_eq!(keys(rows.rev().take(1)), [50]);
        },
        &[5, 10, 50, 54],
        &[4, 11, 20, 40, 49, 55],
    );
    let turns = |count: usize| {
        move |tx: &mut Transaction| {
            let mut rows = cells.range(tx, 5..);
            for turn in 0..count {
                let row = if turn % 2 == 0 {
                    rows.next()
                } else {
                    rows.next_back()
                };
                assert_eq!(row.is_some(), turn < 5);
            }
        }
    };
    ground.expect(
        "three in turns",
        &turns(3),
        &[15, 20, 50, 60],
        &[21, 30, 49],
    );
    let all = [5, 15, 20, 25, 30, 35, 40, 45, 60];
    ground.expect("until they meet", &turns(6), &all, &[4]);
}

/// Seen to fail with a dropped scan that leaves its reach ahead where its last row is its own.
#[test]
fn own_rows_and_own_deletes_move_the_reach_as_others_do() {
    let ground = Ground::new();
    let cells = &ground.cells;
    let delete = |tx: &mut Transaction, key: u64| {
        assert!(cells.delete(tx, key).expect("a delete"));
    };
    ground.expect(
        "a row that it has deleted is passed over",
        &|tx| {
            delete(tx, 20);
            assert_eq!(keys(cells.range(tx, 5..).take(2)), [10, 30]);
        },
        &[5, 15, 25, 30],
        &[31, 40, 45],
    );
    ground.expect(
        "deleted rows behind the last one",
        &|tx| {
            delete(tx, 40);
            delete(tx, 50);
            assert_eq!(keys(cells.range(tx, 5..).take(3)), [10, 20, 30]);
        },
        &[5, 15, 25, 30],
        &[31, 45, 60],
    );
    ground.expect(
        "deleted rows at the end",
        &|tx| {
            delete(tx, 40);
            delete(tx, 50);
            assert_eq!(keys(cells.range(tx, 25..)), [30]);
        },
        &[25, 35, 45, 60],
        &[24],
    );
    ground.expect(
        "a row of its own is the last",
        &|tx| {
            cells.put(tx, 25, &1).expect("a write");
            assert_eq!(keys(cells.range(tx, 5..).take(3)), [10, 20, 25]);
        },
        &[5, 15, 20, 24],
        &[26, 30, 35],
    );
    ground.expect(
        "rows of its own behind all others, from the back",
        &|tx| {
            cells.put(tx, 70, &1).expect("a write");
            delete(tx, 50);
            assert_eq!(keys(cells.range(tx, 5..).rev().take(2)), [70, 40]);
        },
        &[80, 60, 45, 40],
        &[39, 30],
    );
}

/// Seen to fail with scans that count nothing while somebody holds them.
#[test]
fn a_scan_that_is_still_there_counts_as_far_as_it_came_and_ends() {
    let ground = Ground::new();
    for (key, conflict) in [(15, true), (20, true), (21, false), (30, false)] {
        let mut tx = ground.db.begin();
        let mut rows = ground.cells.range(&tx, 15..);
        assert_eq!(keys(rows.by_ref().take(1)), [20]);
        ground.marks.put(&mut tx, 0, &1).expect("a write");
        let put = ground.db.write(|tx| ground.cells.put(tx, key, &1));
        put.expect("beside it");
        assert_eq!(committed(tx.commit()), !conflict, "{key}");
        let after = rows.next().expect("an error").expect_err("no row");
        assert_eq!(after.kind(), ErrorKind::Closed, "{after}");
        assert!(rows.next().is_none());
        ground.restore();
    }
}

/// Rows of its own behind all others count while the scan is held, too. Seen to fail with a reach
/// that only rows of the tree move.
#[test]
fn a_scan_that_is_held_counts_up_to_its_own_rows_behind_all_others() {
    let ground = Ground::new();
    let cells = &ground.cells;
    for (own, key, conflict) in [
        (70, 60, true),
        (70, 55, true),
        (70, 71, false),
        (3, 5, true),
        (3, 2, false),
    ] {
        let mut tx = ground.db.begin();
        cells.put(&mut tx, own, &1).expect("a write");
        let mut rows = cells.iter(&tx);
        for _ in 0..=ROWS.len() {
            let row = if own > 50 {
                rows.next()
            } else {
                rows.next_back()
            };
            assert!(row.is_some_and(|row| row.is_ok()));
        }
        let put = ground.db.write(|tx| cells.put(tx, key, &1));
        put.expect("beside it");
        let found = !committed(tx.commit());
        assert_eq!(found, conflict, "{key} put, {own} is its own");
        drop(rows);
        ground.restore();
    }
}

/// While a scan is held its reach may be ahead of it, by a quarter of the rows that it gave out,
/// and never behind. Seen to fail with a reach that is set for a row when the next one is asked
/// for, with a scan that takes its reach for one row longer than it is, and with one that goes
/// ahead by a leaf.
#[test]
fn a_scan_that_is_held_counts_what_it_gave_out_and_little_more() {
    const ROWS: u64 = 300;
    let ground = Ground::new();
    let wide = ground.db.table(WIDE).expect("a table");
    let put = ground.db.write(|tx| {
        let row = vec![1; 100];
        (0..ROWS).try_for_each(|n| wide.put(tx, 10 * n, &row))
    });
    put.expect("set up");
    for (taken, backward) in [1, 2, 4, 5, 9, 40, 69, 70, 71, 72, 150, 299]
        .into_iter()
        .flat_map(|taken| [(taken, false), (taken, true)])
    {
        let nth = |n: u64| 10 * if backward { ROWS - 1 - n } else { n };
        let inward = |key: u64| if backward { key + 5 } else { key - 5 };
        let last = taken - 1;
        let mut cases = vec![(nth(last), true), (nth(last / 2), true)];
        if last > 0 {
            cases.push((inward(nth(last)), true));
        }
        if taken < 200 {
            cases.push((nth(taken + taken / 4 + 1), false));
        }
        for (key, conflict) in cases {
            let mut tx = ground.db.begin();
            let mut rows = wide.range(&tx, ..);
            for _ in 0..taken {
                let row = if backward {
                    rows.next_back()
                } else {
                    rows.next()
                };
                assert!(row.is_some_and(|row| row.is_ok()));
            }
            ground.marks.put(&mut tx, 0, &1).expect("a write");
            let put = ground.db.write(|tx| wide.put(tx, key, &vec![2; 100]));
            put.expect("beside it");
            let found = !committed(tx.commit());
            assert_eq!(found, conflict, "{taken} taken, {backward}, {key} put");
            drop(rows);
            if key % 10 > 0 {
                let gone = ground.db.write(|tx| wide.delete(tx, key));
                assert!(gone.expect("restored"));
            }
        }
    }
}
