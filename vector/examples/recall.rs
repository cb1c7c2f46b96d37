//! Recall and cost of the index on real embeddings: a measurement, not a test.
//!
//! `TERRANE_DATA` names a folder with `base.npy` and `queries.npy` (binary16, rows of one length)
//! and `gt.npy` (32-bit ids of the exact nearest by cosine). For each way to stop: recall@10, what
//! was scanned, and the time of a query on one core.

// A measurement needs a clock, and ends on the spot where its files are not what it expects.
#![allow(clippy::disallowed_methods, clippy::expect_used)]

use std::path::Path;
use std::time::Instant;

use terrane_vector::{
    CentroidSet, IndexParams, Kernels, MemoryStore, Metric, RowId, SearchParams, VectorIndex, Vver,
};

/// The numbers of a `.npy` file after its header, and the length of a row.
fn npy(path: &Path) -> (Vec<u8>, usize) {
    let bytes = std::fs::read(path).expect("a readable file");
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let text = String::from_utf8_lossy(&bytes[10..10 + header]).into_owned();
    let shape = text.split("'shape': (").nth(1).expect("a shape");
    let row = shape.split([',', ')']).nth(1).expect("two dimensions");
    (
        bytes[10 + header..].to_vec(),
        row.trim().parse().expect("a number"),
    )
}

fn halves(path: &Path) -> (Vec<f32>, usize) {
    let (bytes, dim) = npy(path);
    let wide = |half: &[u8; 2]| {
        let bits = u16::from_le_bytes(*half);
        let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
        let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
        let value = match exponent {
            0 => fraction * 2.0_f32.powi(-24),
            _ => (1.0 + fraction / 1024.0) * 2.0_f32.powi(exponent - 15),
        };
        sign * value
    };
    (bytes.as_chunks().0.iter().map(wide).collect(), dim)
}

fn main() {
    let Some(folder) = std::env::var_os("TERRANE_DATA") else {
        println!("TERRANE_DATA names no folder: nothing to measure");
        return;
    };
    let folder = Path::new(&folder);
    let (base, dim) = halves(&folder.join("base.npy"));
    let (queries, _) = halves(&folder.join("queries.npy"));
    let (truth, _) = npy(&folder.join("gt.npy"));
    let truth: Vec<u64> = truth
        .as_chunks()
        .0
        .iter()
        .map(|&id| u64::from(u32::from_le_bytes(id)))
        .collect();
    println!(
        "kernels {}, {} rows of {dim}",
        Kernels::detect().tier(),
        base.len() / dim
    );
    for extra_bits in [true, false] {
        let params = IndexParams {
            extra_bits,
            ..IndexParams::new(Metric::Cosine, dim, 7)
        };
        let index = VectorIndex::new(params).expect("parameters in range");
        let start = Instant::now();
        let rows = || (0..).map(RowId).zip(base.chunks_exact(dim));
        let writes = index.build(1, rows()).expect("acceptable rows");
        let built = start.elapsed();
        let mut store = MemoryStore::new(CentroidSet::empty(Metric::Cosine, dim));
        store.apply(1, writes).expect("records of this index");
        for (row, vector) in rows() {
            store.put_row(1, row, Some((Vver(0), vector.to_vec())));
        }
        println!(
            "extra bits {extra_bits}: built in {built:.1?}, {} bytes of records a row",
            store.record_bytes() / (base.len() / dim)
        );
        measure(&index, &store, &queries, &truth);
    }
}

/// A line for each way to stop.
fn measure(index: &VectorIndex, store: &MemoryStore, queries: &[f32], truth: &[u64]) {
    let dim = index.dim();
    let per_query = truth.len() / (queries.len() / dim);
    println!(" patience ratio | recall@10 | postings scanned second rows |  p50 us  p99 us");
    let ways = [
        (4, 9.0),
        (8, 9.0),
        (16, 9.0),
        (32, 9.0),
        (64, 9.0),
        (96, 9.0),
        (128, 9.0),
        (32, 0.6),
        (64, 0.3),
    ];
    for (patience, ratio) in ways {
        let params = SearchParams {
            patience,
            ratio,
            ..SearchParams::new(10)
        };
        let (mut right, mut sums, mut times) = (0, [0; 4], Vec::new());
        for (query, truth) in queries.chunks_exact(dim).zip(truth.chunks_exact(per_query)) {
            let start = Instant::now();
            let found = index.search(store, query, &params, None).expect("a search");
            times.push(start.elapsed().as_nanos());
            let is_right = |id: &RowId| truth[..10].contains(&id.0);
            right += found.hits.iter().filter(|hit| is_right(&hit.id)).count();
            let costs = [
                found.postings,
                found.scanned,
                found.second_stage,
                found.rows,
            ];
            for (sum, cost) in sums.iter_mut().zip(costs) {
                *sum += cost;
            }
        }
        times.sort_unstable();
        let count = times.len();
        let [postings, scanned, second, rows] = sums.map(|sum| sum / count);
        println!(
            " {patience:8} {ratio:5} | {:9.3} | {postings:8} {scanned:7} {second:6} {rows:4} | \
             {:7} {:7}",
            right as f64 / (10 * count) as f64,
            times[count / 2] / 1000,
            times[count * 99 / 100] / 1000,
        );
    }
}
