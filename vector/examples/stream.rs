//! Maintenance on real embeddings, inserted in the order of their ids, which drifts from topic to
//! topic: a measurement, not a test.
//!
//! `TERRANE_DATA` names a folder with `base.npy`, `queries.npy` (binary16, rows of one length) and
//! exact neighbours by cosine at each checkpoint: `gt_stream_25.npy`, `_50`, `_75`, `gt.npy`, and
//! `gt_stream_100_del10.npy` after the first tenth of the ids is deleted. At each: recall@10 when
//! about as many vectors are scanned as in a fresh build, and what maintenance did. One core.

// A measurement needs a clock, and ends on the spot where its files are not what it expects.
#![allow(clippy::disallowed_methods, clippy::expect_used)]

mod npy;

use std::path::Path;
use std::time::{Duration, Instant};

use npy::{halves, ids as neighbours};
use terrane_vector::{
    CentroidSet, Delta, IndexParams, IndexState, Kernels, Key, Maintainer, MemoryStore, Meta,
    Metric, PostingStore, Progress, RowId, SearchParams, VectorIndex, Vver, Write, check,
};

/// Time that this thread ran, where the system tells: others may share its core.
fn ran() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text
        .split(' ')
        .next()
        .and_then(|number| number.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// An index that grows, and how long it took.
struct Stream {
    index: VectorIndex,
    store: MemoryStore,
    maintainer: Maintainer,
    ts: u64,
    binding: Duration,
    maintaining: Duration,
    longest: Duration,
}

impl Stream {
    fn new(params: IndexParams) -> Self {
        let index = VectorIndex::new(params).expect("parameters in range");
        let mut store = MemoryStore::new(CentroidSet::empty(params.metric, params.dim));
        let meta = Meta::new(params, IndexState::Ready).encode();
        let made = store.apply(0, vec![Write::put(Key::Meta, meta)]);
        made.expect("a meta record");
        let maintainer = Maintainer::new(index.clone());
        Self {
            index,
            store,
            maintainer,
            ts: 1,
            binding: Duration::ZERO,
            maintaining: Duration::ZERO,
            longest: Duration::ZERO,
        }
    }

    fn change(&mut self, row: RowId, vector: Option<&[f32]>) {
        let start = ran();
        self.ts += 1;
        let change = self.index.prepare(row, vector).expect("an acceptable row");
        let set = self.store.centroids();
        let locator = self.store.record(Key::Locator(row));
        let bound = self.index.bind(&set, &change, locator);
        let (vver, writes) = bound.expect("a locator of this index");
        let deltas = Delta::of(&writes);
        let applied = self.store.apply_commit(self.ts, writes);
        applied.expect("records of this index");
        self.binding += ran() - start;
        let vector = vector.map(|vector| (vver, vector.to_vec()));
        self.store.put_row(self.ts, row, vector);
        self.store.set_horizon(self.ts);
        self.maintainer.observe(&deltas);
    }

    /// Steps until there is nothing to do, at most so many.
    fn maintain(&mut self, steps: usize) {
        let start = ran();
        for _ in 0..steps {
            let step = Instant::now();
            let progress = self.maintainer.step(&mut self.store);
            self.longest = self.longest.max(step.elapsed());
            if progress.expect("a sound index") != Progress::More {
                break;
            }
        }
        self.maintaining += ran() - start;
    }
}

/// Recall@10 and entries scanned, for searches that stop after so many postings.
fn recall(
    index: &VectorIndex,
    store: &MemoryStore,
    queries: &[f32],
    truth: &(Vec<u64>, usize),
    postings_max: usize,
) -> (f64, usize) {
    let params = SearchParams {
        postings_max,
        patience: usize::MAX,
        ratio: 1e9,
        exact_below: 0,
        ..SearchParams::new(10)
    };
    let (mut right, mut scanned, mut count) = (0, 0, 0);
    let truth = truth.0.chunks_exact(truth.1);
    for (query, truth) in queries.chunks_exact(index.dim()).zip(truth) {
        let found = index.search(store, query, &params).expect("a search");
        let nearest = &truth[..10];
        right += found
            .hits
            .iter()
            .filter(|hit| nearest.contains(&hit.id.0))
            .count();
        scanned += found.scanned;
        count += 1;
    }
    (right as f64 / (10 * count) as f64, scanned / count)
}

/// Recall where this many entries are scanned, between the two nearest numbers of postings.
fn recall_at(
    index: &VectorIndex,
    store: &MemoryStore,
    queries: &[f32],
    truth: &(Vec<u64>, usize),
    scanned: usize,
) -> f64 {
    let (mut low, mut high) = (1, store.centroids().len().max(2));
    while high - low > 1 {
        let middle = usize::midpoint(low, high);
        if recall(index, store, queries, truth, middle).1 <= scanned {
            low = middle;
        } else {
            high = middle;
        }
    }
    let (a, b) = (
        recall(index, store, queries, truth, low),
        recall(index, store, queries, truth, high),
    );
    let part = (scanned as f64 - a.1 as f64) / (b.1 as f64 - a.1 as f64).max(1.0);
    a.0 + (b.0 - a.0) * part.clamp(0.0, 1.0)
}

fn main() {
    let Some(folder) = std::env::var_os("TERRANE_DATA") else {
        println!("TERRANE_DATA names no folder: nothing to measure");
        return;
    };
    let folder = Path::new(&folder);
    let (base, dim) = halves(&folder.join("base.npy"));
    let (queries, _) = halves(&folder.join("queries.npy"));
    let count = base.len() / dim;
    let number = |at, default| {
        let given = std::env::args().nth(at);
        given.map_or(default, |text| text.parse().expect("a number"))
    };
    let (replicas, posting_max, parts) = (number(1, 1), number(2, 112), number(3, 5));
    let params = IndexParams {
        replicas,
        posting_max,
        ..IndexParams::new(Metric::Cosine, dim, 7)
    };
    let tier = Kernels::detect().tier();
    println!("kernels {tier}, {count} rows of {dim}, replicas {replicas}");
    let mut stream = Stream::new(params);
    let points = [
        ("gt_stream_25.npy", count / 4),
        ("gt_stream_50.npy", count / 2),
        ("gt_stream_75.npy", 3 * count / 4),
        ("gt.npy", count),
    ];
    let mut next = 0;
    for (file, end) in points.into_iter().take(parts) {
        for (id, row) in base.chunks_exact(dim).enumerate().take(end).skip(next) {
            stream.change(RowId(id as u64), Some(row));
            stream.maintain(64);
        }
        next = end;
        report(&mut stream, &base, &queries, &folder.join(file), 0..end);
    }
    let gone = if parts > 4 { count / 10 } else { 0 };
    for id in 0..gone {
        stream.change(RowId(id as u64), None);
        stream.maintain(64);
    }
    if gone > 0 {
        let file = folder.join("gt_stream_100_del10.npy");
        report(&mut stream, &base, &queries, &file, gone..count);
    }
}

fn report(
    stream: &mut Stream,
    base: &[f32],
    queries: &[f32],
    truth: &Path,
    ids: std::ops::Range<usize>,
) {
    stream.maintain(usize::MAX);
    let stats = stream.maintainer.stats();
    let all = (stream.binding + stream.maintaining).as_secs_f64();
    println!(
        "rows {ids:?}: {:.0} changes/s in one thread (of its time: bind {:.2?}, maintenance \
         {:.2?}; longest step {:.2?} by the clock)",
        stream.ts as f64 / all,
        stream.binding,
        stream.maintaining,
        stream.longest,
    );
    println!("  {stats:?}");
    let wrong = check(&stream.index, &stream.store).expect("records");
    println!("  checker: {} wrong {:?}", wrong.len(), wrong.first());
    let truth = neighbours(truth);
    let rows = ids.map(|id| {
        (
            RowId(id as u64),
            &base[id * stream.index.dim()..][..stream.index.dim()],
        )
    });
    let mut fresh = MemoryStore::new(CentroidSet::empty(Metric::Cosine, stream.index.dim()));
    let writes = stream
        .index
        .build(1, rows.clone())
        .expect("acceptable rows");
    fresh.apply(1, writes).expect("records of this index");
    for (id, row) in rows {
        fresh.put_row(1, id, Some((Vver(0), row.to_vec())));
    }
    for (name, store) in [("stream", &stream.store), ("fresh", &fresh)] {
        let quality = stream.index.quality(store, 1).expect("records");
        println!("  {name}: {quality:?}");
    }
    let (here, there) = (stream.store.centroids().len(), fresh.centroids().len());
    println!("  postings {here}, fresh build {there}; recall@10 at equal vectors scanned:");
    for postings in [8, 16, 32, 64, 128] {
        let (of_fresh, scanned) = recall(&stream.index, &fresh, queries, &truth, postings);
        let of_stream = recall_at(&stream.index, &stream.store, queries, &truth, scanned);
        println!("    {scanned:6} scanned: stream {of_stream:.4}, fresh build {of_fresh:.4}");
    }
}
