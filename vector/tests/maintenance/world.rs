//! A table, its index, its maintainer, and the same rows in a map with their history.

use std::collections::BTreeMap;

use terrane_vector::{
    CentroidSet, Change, Delta, IndexParams, IndexState, Key, Maintainer, MaintenanceHost,
    MemoryStore, Meta, PostingId, PostingStore, Prepared, Progress, RowId, SearchParams,
    VectorIndex, Vver, Write, check, nearest,
};

/// A seeded stream of numbers around zero, about normal.
pub(crate) struct Stream(pub(crate) u64);

impl Stream {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        self.0 ^ self.0 >> 33
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound
    }

    pub(crate) fn normal(&mut self) -> f32 {
        let one = |word: u64| (word >> 40) as f32 / (1_u64 << 24) as f32 - 0.5;
        (0..6).map(|_| one(self.next())).sum::<f32>() * 1.4
    }

    /// A vector near one of 40 topics.
    pub(crate) fn vector(&mut self, dim: usize) -> Vec<f32> {
        let topic = self.below(40);
        self.about(topic, dim)
    }

    /// A vector near a topic.
    pub(crate) fn about(&mut self, topic: u64, dim: usize) -> Vec<f32> {
        let mut topic = Stream(topic + 1);
        (0..dim)
            .map(|_| topic.normal() + 0.7 * self.normal())
            .collect()
    }
}

/// A row's vector, or that it has none, since a timestamp.
type History = Vec<(u64, Option<Vec<f32>>)>;

/// A commit that has bound and is not applied.
pub(crate) struct Bound {
    row: RowId,
    vector: Option<Vec<f32>>,
    pub(crate) vver: Vver,
    epoch: u64,
    pub(crate) writes: Vec<Write>,
}

pub(crate) struct World {
    pub(crate) index: VectorIndex,
    pub(crate) store: MemoryStore,
    pub(crate) maintainer: Maintainer,
    pub(crate) rows: BTreeMap<RowId, History>,
    pub(crate) ts: u64,
    /// Snapshots that stay open.
    pub(crate) open: Vec<u64>,
}

impl World {
    pub(crate) fn empty(params: IndexParams) -> Self {
        let index = VectorIndex::new(params).unwrap();
        let mut store = MemoryStore::new(CentroidSet::empty(params.metric, params.dim));
        let meta = Meta::new(params, IndexState::Ready);
        store
            .apply(0, vec![Write::put(Key::Meta, meta.encode())])
            .unwrap();
        let maintainer = Maintainer::new(index.clone());
        let (rows, ts, open) = (BTreeMap::new(), 1, Vec::new());
        Self {
            index,
            store,
            maintainer,
            rows,
            ts,
            open,
        }
    }

    /// A fresh index over the rows as they are.
    pub(crate) fn rebuilt(&self) -> Self {
        let params = IndexParams {
            posting_max: self.max(),
            ..self.params()
        };
        let index = VectorIndex::new(params).unwrap();
        let mut store = MemoryStore::new(CentroidSet::empty(params.metric, params.dim));
        let rows = self.now();
        let writes = index
            .build(1, rows.iter().map(|(id, row)| (*id, &row[..])))
            .unwrap();
        store.apply(1, writes).unwrap();
        let mut world = Self {
            index: index.clone(),
            store,
            ..Self::empty(params)
        };
        world.maintainer = Maintainer::new(index);
        for (id, row) in rows {
            world.store.put_row(1, id, Some((Vver(0), row.clone())));
            world.rows.insert(id, vec![(1, Some(row))]);
        }
        world
    }

    pub(crate) fn params(&self) -> IndexParams {
        Meta::decode(self.store.record(Key::Meta).unwrap())
            .unwrap()
            .params
    }

    pub(crate) fn max(&self) -> usize {
        self.params().posting_max
    }

    /// Takes the intent and binds.
    pub(crate) fn bind(&mut self, row: RowId, vector: Option<Vec<f32>>) -> Bound {
        let change = self.index.prepare(row, vector.as_deref()).unwrap();
        self.bind_change(row, vector, &change)
    }

    pub(crate) fn bind_change(
        &mut self,
        row: RowId,
        vector: Option<Vec<f32>>,
        change: &Change,
    ) -> Bound {
        let set = self.store.centroids();
        self.bind_in(&set, row, vector, change)
    }

    fn bind_in(
        &mut self,
        set: &CentroidSet,
        row: RowId,
        vector: Option<Vec<f32>>,
        change: &Change,
    ) -> Bound {
        self.store.begin_commit(row);
        let locator = self.store.record(Key::Locator(row));
        let (vver, writes) = self.index.bind(set, change, locator).unwrap();
        let epoch = set.epoch();
        Bound {
            row,
            vector,
            vver,
            epoch,
            writes,
        }
    }

    /// As [`World::bind`], with only those postings in sight that `sees` takes.
    pub(crate) fn bind_to(
        &mut self,
        row: RowId,
        vector: Vec<f32>,
        sees: impl Fn(PostingId) -> bool,
    ) -> Bound {
        let newest = self.store.centroids();
        let hidden = (1..10_000).map(PostingId).filter(|id| !sees(*id));
        let there = hidden.filter(|id| self.store.record(Key::Centroid(*id)).is_some());
        let gone = there.map(|id| (id, None));
        let set = newest.with(newest.epoch(), gone).unwrap();
        let change = self.index.prepare(row, Some(&vector)).unwrap();
        self.bind_in(&set, row, Some(vector), &change)
    }

    /// Applies what was bound, with its row.
    pub(crate) fn apply(&mut self, bound: Bound) -> Vver {
        self.ts += 1;
        let deltas = Delta::of(&bound.writes);
        self.store.apply_commit(self.ts, bound.writes).unwrap();
        let row = bound.vector.clone().map(|vector| (bound.vver, vector));
        self.store.put_row(self.ts, bound.row, row);
        self.store.end_commit(bound.row, bound.epoch);
        self.maintainer.observe(&deltas);
        let history = self.rows.entry(bound.row).or_default();
        history.push((self.ts, bound.vector));
        self.set_horizon();
        bound.vver
    }

    /// Gives a commit up after it has bound.
    pub(crate) fn abandon(&mut self, bound: &Bound) {
        self.store.end_commit(bound.row, bound.epoch);
    }

    pub(crate) fn change(&mut self, row: RowId, vector: Option<Vec<f32>>) -> Vver {
        let bound = self.bind(row, vector);
        self.apply(bound)
    }

    /// Opens a snapshot of what is now.
    pub(crate) fn snapshot(&mut self) -> u64 {
        self.open.push(self.ts);
        self.ts
    }

    pub(crate) fn close(&mut self, at: usize) {
        self.open.remove(at);
        self.set_horizon();
    }

    fn set_horizon(&mut self) {
        let oldest = self.open.iter().copied().min();
        self.store.set_horizon(oldest.unwrap_or(self.ts));
    }

    pub(crate) fn step(&mut self) -> Progress {
        self.maintainer.step(&mut self.store).unwrap()
    }

    /// Steps until nothing is left to do, nor anything that is done when there is nothing else.
    pub(crate) fn settle(&mut self) {
        let (mut waits, mut idle) = (0, 0);
        for _ in 0..200_000 {
            match self.step() {
                Progress::Idle if idle == 1 => return,
                Progress::Idle => idle += 1,
                Progress::Waiting if waits == 100 => return,
                Progress::Waiting => waits += 1,
                Progress::More => idle = 0,
            }
        }
        panic!("the queue does not drain: {:?}", self.maintainer.stats());
    }

    /// Forgets everything that is not in records.
    pub(crate) fn crash(&mut self) {
        self.store.release();
        self.maintainer = Maintainer::new(self.index.clone());
    }

    #[track_caller]
    pub(crate) fn verify(&self) {
        let wrong = check(&self.index, &self.store).unwrap();
        assert!(
            wrong.is_empty(),
            "{} wrong: {:#?}",
            wrong.len(),
            &wrong[..wrong.len().min(5)]
        );
    }

    /// The rows of a snapshot.
    pub(crate) fn at(&self, ts: u64) -> BTreeMap<RowId, Vec<f32>> {
        let visible = |(id, history): (&RowId, &History)| {
            let at = history.partition_point(|version| version.0 <= ts);
            Some((*id, history[..at].last()?.1.clone()?))
        };
        self.rows.iter().filter_map(visible).collect()
    }

    pub(crate) fn now(&self) -> BTreeMap<RowId, Vec<f32>> {
        self.at(self.ts)
    }

    pub(crate) fn brute(
        &self,
        rows: &BTreeMap<RowId, Vec<f32>>,
        query: &[f32],
        k: usize,
    ) -> Vec<RowId> {
        let query = Prepared::new(self.index.metric(), query).unwrap();
        let rows = rows.iter().map(|(id, row)| (*id, &row[..]));
        let hits = nearest(&query, k, rows, |_| true).unwrap();
        hits.into_iter().map(|hit| hit.id).collect()
    }

    /// Ids from a search of every posting, in the snapshot at `ts`.
    pub(crate) fn full(&mut self, query: &[f32], k: usize, ts: u64) -> Vec<RowId> {
        let params = SearchParams {
            patience: usize::MAX,
            ratio: 1e9,
            exact_below: 0,
            ..SearchParams::new(k)
        };
        self.search(query, &params, ts)
    }

    pub(crate) fn search(&mut self, query: &[f32], params: &SearchParams, ts: u64) -> Vec<RowId> {
        self.store.set_snapshot(ts);
        let found = self.index.search(&self.store, query, params);
        self.store.set_snapshot(u64::MAX);
        let found = found.unwrap();
        assert!(found.restarts < 3, "the index was searched");
        found.hits.into_iter().map(|hit| hit.id).collect()
    }

    /// The part of the ten nearest that searches of all postings find, now and in open snapshots.
    #[track_caller]
    pub(crate) fn recall(&mut self, stream: &mut Stream, queries: usize, least: f64) {
        let mut snapshots = self.open.clone();
        snapshots.push(self.ts);
        for ts in snapshots {
            let rows = self.at(ts);
            let (mut right, mut all) = (0, 0);
            for _ in 0..queries {
                let query = stream.vector(self.index.dim());
                let brute = self.brute(&rows, &query, 10);
                let found = self.full(&query, 10, ts);
                assert_eq!(found.len(), brute.len(), "as many hits as there are rows");
                right += found.iter().filter(|id| brute.contains(id)).count();
                all += brute.len();
            }
            assert!(
                right as f64 >= least * all as f64,
                "{right} of {all} in the snapshot at {ts}"
            );
        }
    }
}
