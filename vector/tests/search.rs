//! Searches with a filter, with limits and by the oracle, against brute force.
//!
//! Where a mistake was put in and made a test fail, the test names it.

// A helper of a test ends the test on the spot.
#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::sync::Arc;

use terrane_vector::{
    Admit, Calibration, CalibrationStep, CentroidSet, IndexError, IndexParams, Key, MemoryStore,
    Metric, NewRow, PostingId, PostingStore, Prepared, RowId, Scratch, SearchParams, Stop, Tuning,
    VectorIndex, VisitRecord, VisitRow, Vver, nearest,
};

/// A seeded stream of numbers around zero, about normal.
struct Stream(u64);

impl Stream {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        self.0 ^ self.0 >> 33
    }

    fn normal(&mut self) -> f32 {
        let one = |word: u64| (word >> 40) as f32 / (1_u64 << 24) as f32 - 0.5;
        (0..6).map(|_| one(self.next())).sum::<f32>() * 1.4
    }

    /// A vector near one of 40 topics.
    fn vector(&mut self, dim: usize) -> Vec<f32> {
        let mut topic = Stream(self.next() % 40 + 1);
        (0..dim)
            .map(|_| topic.normal() + 0.7 * self.normal())
            .collect()
    }
}

/// A table whose entries carry their row's id as filter column, and its rows once more.
struct World {
    index: VectorIndex,
    store: MemoryStore,
    rows: Vec<Vec<f32>>,
}

impl World {
    fn new(metric: Metric, dim: usize, count: usize) -> Self {
        let mut stream = Stream(9);
        let rows: Vec<Vec<f32>> = (0..count).map(|_| stream.vector(dim)).collect();
        let params = IndexParams {
            columns: true,
            ..IndexParams::new(metric, dim, 3)
        };
        let index = VectorIndex::new(params).unwrap();
        let mut store = MemoryStore::new(CentroidSet::empty(metric, dim));
        let columns: Vec<[u8; 8]> = (0..count as u64).map(u64::to_le_bytes).collect();
        let new = |at: usize| NewRow {
            id: RowId(at as u64),
            vector: &rows[at],
            key: None,
            columns: Some(&columns[at]),
        };
        store
            .apply(1, index.build(1, (0..count).map(new)).unwrap())
            .unwrap();
        for (id, row) in (0..).map(RowId).zip(&rows) {
            store.put_row(1, id, Some((Vver(0), row.clone())));
        }
        Self { index, store, rows }
    }

    fn brute(&self, query: &[f32], k: usize, accept: impl Fn(RowId) -> bool) -> Vec<RowId> {
        let query = Prepared::new(self.index.metric(), query).unwrap();
        let rows = (0..).map(RowId).zip(self.rows.iter().map(Vec::as_slice));
        let hits = nearest(&query, k, rows, |id| accept(*id)).unwrap();
        hits.into_iter().map(|hit| hit.id).collect()
    }
}

/// The table with a filter, which is told columns or must be told rows.
struct Filtered<'s> {
    store: &'s MemoryStore,
    accept: &'s dyn Fn(RowId) -> bool,
    by_columns: bool,
    /// What lies beside a block is of a later fold than the block.
    folded: bool,
    rows_read: Cell<usize>,
}

/// A record beside a block as another fold left it: another seal, other slots.
fn of_another_fold(key: Key, value: &[u8]) -> Vec<u8> {
    let mut value = value.to_vec();
    match key {
        Key::Columns(..) => value[72..].rotate_left(8),
        Key::Extra(..) => value[8..].rotate_left(8),
        _ => return value,
    }
    value[4] ^= 1;
    value
}

impl<'s> Filtered<'s> {
    fn new(world: &'s World, accept: &'s dyn Fn(RowId) -> bool, by_columns: bool) -> Self {
        let (store, rows_read) = (&world.store, Cell::new(0));
        Self {
            store,
            accept,
            by_columns,
            folded: false,
            rows_read,
        }
    }
}

impl PostingStore for Filtered<'_> {
    type Error = IndexError;

    fn centroids(&self) -> Arc<CentroidSet> {
        self.store.centroids()
    }

    fn snapshot(&self) -> u64 {
        self.store.snapshot()
    }

    fn filtered(&self) -> bool {
        true
    }

    fn admits(&self, columns: Option<&[u8]>) -> Admit {
        match columns.and_then(|columns| columns.as_array()) {
            Some(&id) if self.by_columns => {
                if (self.accept)(RowId(u64::from_le_bytes(id))) {
                    Admit::Yes
                } else {
                    Admit::No
                }
            }
            _ => Admit::AskRow,
        }
    }

    fn posting(&self, id: PostingId, visit: &mut VisitRecord<'_>) -> Result<(), IndexError> {
        if !self.folded {
            return self.store.posting(id, visit);
        }
        let mut other = |key, value: &[u8]| visit(key, &of_another_fold(key, value));
        self.store.posting(id, &mut other)
    }

    fn extra(
        &self,
        id: PostingId,
        group: u32,
        visit: &mut VisitRecord<'_>,
    ) -> Result<(), IndexError> {
        if !self.folded {
            return self.store.extra(id, group, visit);
        }
        let mut other = |key, value: &[u8]| visit(key, &of_another_fold(key, value));
        self.store.extra(id, group, &mut other)
    }

    fn locator(&self, row: RowId, visit: &mut VisitRecord<'_>) -> Result<(), IndexError> {
        self.store.locator(row, visit)
    }

    fn rows(&self, rows: &[RowId], visit: &mut VisitRow<'_>) -> Result<(), IndexError> {
        self.rows_read.set(self.rows_read.get() + rows.len());
        self.store.rows(rows, &mut |row, vver, vector| {
            if (self.accept)(row) {
                visit(row, vver, vector)?;
            }
            Ok(())
        })
    }

    fn row_count(&self) -> Result<u64, IndexError> {
        self.store.row_count()
    }

    fn all_rows(&self, visit: &mut VisitRow<'_>) -> Result<(), IndexError> {
        self.store.all_rows(&mut |row, vver, vector| {
            if (self.accept)(row) {
                visit(row, vver, vector)?;
            }
            Ok(())
        })
    }
}

fn overlap(a: &[RowId], b: &[RowId]) -> usize {
    a.iter().filter(|id| b.contains(id)).count()
}

// Seen to fail with columns of another slot asked about. Not with thresholds from entries that only
// their row can tell about: the check of V2 finds that out and the search runs again.
#[test]
fn a_filter_gets_k_rows_whenever_k_match() {
    for metric in Metric::ALL {
        let world = World::new(metric, 40, 4000);
        let mut stream = Stream(12);
        for by_columns in [true, false] {
            for modulus in [2, 20, 200, 1000, 3999] {
                let accept = |row: RowId| row.0.is_multiple_of(modulus);
                let (mut right, mut all) = (0, 0);
                for _ in 0..8 {
                    let store = Filtered::new(&world, &accept, by_columns);
                    let query = stream.vector(40);
                    let params = SearchParams::new(10);
                    let found = world.index.search(&store, &query, &params).unwrap();
                    let ids: Vec<RowId> = found.hits.iter().map(|hit| hit.id).collect();
                    let brute = world.brute(&query, 10, accept);
                    assert_eq!(ids.len(), brute.len(), "one of {modulus}, {metric}");
                    assert!(ids.iter().all(|id| accept(*id)));
                    assert!(!found.partial);
                    right += overlap(&ids, &brute);
                    all += brute.len();
                }
                assert!(
                    right * 100 >= all * 95,
                    "{metric}: {right} of {all}, {modulus}"
                );
            }
        }
    }
}

// Seen to fail with the seal of columns, and with that of extra bits, not compared.
#[test]
fn records_of_another_fold_than_their_block_are_left_aside() {
    let world = World::new(Metric::L2, 40, 4000);
    let mut stream = Stream(19);
    let accept = |row: RowId| row.0.is_multiple_of(3);
    for _ in 0..20 {
        let mut store = Filtered::new(&world, &accept, true);
        store.folded = true;
        let query = stream.vector(40);
        let params = SearchParams {
            patience: usize::MAX,
            ratio: 1e9,
            ..SearchParams::new(10)
        };
        let found = world.index.search(&store, &query, &params).unwrap();
        let ids: Vec<RowId> = found.hits.iter().map(|hit| hit.id).collect();
        assert_eq!(ids, world.brute(&query, 10, accept));
        assert_eq!(found.second_stage, 0);
    }
}

// Seen to fail with the switch left out (patience ends the search early), and with the columns not
// asked before rows are read (every row is read).
#[test]
fn few_matches_are_all_looked_at_and_no_others_are_read() {
    let world = World::new(Metric::Cosine, 64, 6000);
    let mut stream = Stream(3);
    // Far from the query too: row ids have nothing to do with places.
    let accept = |row: RowId| row.0 % 300 == 7;
    for _ in 0..10 {
        let store = Filtered::new(&world, &accept, true);
        let query = stream.vector(64);
        let params = SearchParams {
            patience: 2,
            ..SearchParams::new(10)
        };
        let found = world.index.search(&store, &query, &params).unwrap();
        let ids: Vec<RowId> = found.hits.iter().map(|hit| hit.id).collect();
        assert!(found.all_matches);
        assert_eq!(ids, world.brute(&query, 10, accept));
        assert!(store.rows_read.get() <= 20, "20 rows match");
    }
}

#[test]
fn a_filter_that_goes_against_the_query_still_gets_its_rows() {
    let world = World::new(Metric::L2, 32, 5000);
    let mut stream = Stream(4);
    let query = stream.vector(32);
    let near = world.brute(&query, 4000, |_| true);
    // Only the far fifth is accepted.
    let accept = |row: RowId| !near.contains(&row);
    for by_columns in [true, false] {
        let store = Filtered::new(&world, &accept, by_columns);
        let found = world
            .index
            .search(&store, &query, &SearchParams::new(10))
            .unwrap();
        let ids: Vec<RowId> = found.hits.iter().map(|hit| hit.id).collect();
        let brute = world.brute(&query, 10, accept);
        assert!(overlap(&ids, &brute) >= 8, "{ids:?} for {brute:?}");
    }
}

// Seen to fail with the unassigned posting counted as a probe, and `partial` never set.
#[test]
fn limits_are_kept_and_said() {
    let world = World::new(Metric::L2, 32, 4000);
    let query = Stream(5).vector(32);
    let postings = world.store.centroids().len();
    let search = |params: SearchParams| world.index.search(&world.store, &query, &params);
    let base = SearchParams {
        ratio: 99.0,
        patience: 1000,
        ..SearchParams::new(10)
    };
    for (asked, read) in [(1, 1), (7, 7), (postings, postings), (usize::MAX, postings)] {
        let probes = Some(asked);
        let found = search(SearchParams { probes, ..base }).unwrap();
        assert_eq!(found.postings, read + 1, "with the unassigned one");
        let stop = if asked < postings {
            Stop::Probes
        } else {
            Stop::Complete
        };
        assert_eq!((found.stop, found.partial), (stop, false));
    }
    // One posting does not hold as many.
    let (k, probes) = (200, Some(1));
    let found = search(SearchParams { k, probes, ..base }).unwrap();
    assert!(found.partial && found.hits.len() < 200);
    let postings_max = 5;
    let found = search(SearchParams {
        postings_max,
        ..base
    })
    .unwrap();
    assert_eq!((found.stop, found.partial), (Stop::Budget, true));
    assert_eq!(found.postings, 6);
    let exact = SearchParams {
        exact: true,
        ..base
    };
    let found = search(exact).unwrap();
    let ids: Vec<RowId> = found.hits.iter().map(|hit| hit.id).collect();
    assert_eq!(ids, world.brute(&query, 10, |_| true));
    assert_eq!((found.rows, found.postings), (4000, 0));
}

#[test]
fn parameters_outside_their_range_are_named() {
    let world = World::new(Metric::L2, 8, 100);
    let base = SearchParams::new(1);
    let cases = [
        (
            "probes",
            SearchParams {
                probes: Some(0),
                ..base
            },
        ),
        (
            "postings_max",
            SearchParams {
                postings_max: 0,
                ..base
            },
        ),
        (
            "ratio",
            SearchParams {
                ratio: -0.1,
                ..base
            },
        ),
        (
            "ratio",
            SearchParams {
                ratio: f32::NAN,
                ..base
            },
        ),
    ];
    for (expected, params) in cases {
        match world.index.search(&world.store, &[0.0; 8], &params) {
            Err(IndexError::Parameter { name, .. }) => assert_eq!(name, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
}

// Seen to fail with the candidates of the search before left in place.
#[test]
fn memory_of_the_search_before_changes_nothing() {
    let world = World::new(Metric::Dot, 48, 4000);
    let mut stream = Stream(6);
    let mut scratch = Scratch::default();
    for k in [10, 100, 1, 0, 30] {
        let query = stream.vector(48);
        let params = SearchParams::new(k);
        let fresh = world.index.search(&world.store, &query, &params).unwrap();
        let kept = world
            .index
            .search_in(&mut scratch, &world.store, &query, &params);
        assert_eq!(kept.unwrap(), fresh);
    }
}

fn calibrated(world: &World, calibration: Calibration) -> Tuning {
    let mut calibration = calibration;
    for _ in 0..100_000 {
        match calibration.step(&world.index, &world.store).unwrap() {
            CalibrationStep::Working => {}
            CalibrationStep::Done(tuning) => return tuning,
            CalibrationStep::Nothing => break,
        }
    }
    panic!("a calibration of {} rows ends", world.rows.len());
}

/// Mean recall, and codes looked at, of queries that no calibration saw.
fn held_out(world: &World, params: &SearchParams) -> (f64, usize) {
    let k = params.k;
    let mut stream = Stream(1234);
    let (mut right, mut codes) = (0, 0);
    for _ in 0..100 {
        let query = stream.vector(world.rows[0].len());
        let found = world.index.search(&world.store, &query, params).unwrap();
        let ids: Vec<RowId> = found.hits.iter().map(|hit| hit.id).collect();
        right += overlap(&ids, &world.brute(&query, k, |_| true));
        codes += found.scanned;
    }
    (right as f64 / (100 * k) as f64, codes / 100)
}

// Seen to fail with nothing added to a target for what a sample does not show.
#[test]
fn a_calibration_reaches_its_targets_on_queries_that_it_never_saw() {
    for metric in Metric::ALL {
        let world = World::new(metric, 96, 5000);
        let tuning = calibrated(&world, Calibration::new(10, 7).unwrap());
        assert_eq!(Tuning::decode(&tuning.encode()), Ok(tuning.clone()));
        let mut last = 0;
        for target in [0.8, 0.9, 0.95, 0.99] {
            let params = tuning.params(10, target).unwrap();
            let (recall, codes) = held_out(&world, &params);
            assert!(
                recall >= f64::from(target) - 0.015,
                "{metric}: {recall} for {target}"
            );
            assert!(codes >= last, "more recall costs more");
            last = codes;
            let (expected, scanned) = tuning.expected(target).unwrap();
            assert!(expected >= target && scanned > 0.0);
        }
        assert!(last < 5000, "{metric}: not all codes are looked at");
    }
}

#[test]
fn a_calibration_takes_the_hosts_queries() {
    let world = World::new(Metric::Cosine, 64, 4000);
    let mut stream = Stream(77);
    let queries = (0..150).map(|_| stream.vector(64)).collect();
    let calibration = Calibration::new(10, 1).unwrap().with_queries(queries);
    let tuning = calibrated(&world, calibration);
    let (recall, _) = held_out(&world, &tuning.params(10, 0.9).unwrap());
    assert!(recall >= 0.885, "{recall}");
}
