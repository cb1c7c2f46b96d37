//! Distances: each kernel by dimension and instruction set, and exact top 10 over 10,000 rows.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use terrane_vector::{ExactScan, Kernels, Metric, Prepared, Tier};

use crate::scatter;

/// Numbers in [-1, 1).
fn floats(count: usize, seed: u64) -> Vec<f32> {
    let number = |i: usize| (scatter(seed ^ i as u64) >> 40) as f32 / (1 << 23) as f32 - 1.0;
    (0..count).map(number).collect()
}

pub(crate) fn all(c: &mut Criterion) {
    kernels(c);
    exact(c);
}

/// 64 rows, which stay in the cache: what the processor can do.
fn kernels(c: &mut Criterion) {
    let mut group = c.benchmark_group("vector/kernel_64_rows");
    for dim in [128, 384, 1536] {
        let (query, rows) = (floats(dim, 1), floats(dim * 64, 2));
        let (mut expected, mut out) = ([0.0; 64], [0.0; 64]);
        let scalar = Kernels::forced(Tier::Scalar).expect("every processor has it");
        scalar.dot(&query, &rows, &mut expected);
        group.throughput(Throughput::Bytes(rows.len() as u64 * 4));
        let widest = Kernels::detect();
        for kernels in [scalar, widest] {
            let tier = kernels.tier();
            group.bench_function(format!("dot_{dim}_{tier:?}"), |b| {
                b.iter(|| kernels.dot(black_box(&query), &rows, &mut out));
            });
            assert_eq!(out.map(f32::to_bits), expected.map(f32::to_bits));
        }
        group.bench_function(format!("l2_{dim}_{:?}", widest.tier()), |b| {
            b.iter(|| widest.l2_squared(black_box(&query), &rows, &mut out));
        });
        scalar.l2_squared(&query, &rows, &mut expected);
        assert_eq!(out.map(f32::to_bits), expected.map(f32::to_bits));
    }
    group.finish();
}

/// Rows from memory: what the engine's exact search does with the rows of a snapshot.
fn exact(c: &mut Criterion) {
    const ROWS: usize = 10_000;
    let mut group = c.benchmark_group("vector/exact_top_10_of_10k_rows");
    for dim in [128, 384, 768] {
        let rows = floats(ROWS * dim, 3);
        // The query is one of the rows: the nearest must be that one.
        let query = Prepared::new(Metric::Cosine, &rows[77 * dim..78 * dim]).expect("a query");
        group.throughput(Throughput::Bytes(rows.len() as u64 * 4));
        group.bench_function(format!("cosine_{dim}"), |b| {
            b.iter(|| {
                let mut scan = ExactScan::new(&query, 10).expect("k is right");
                for (id, row) in rows.chunks(dim).enumerate() {
                    scan.offer(id, row).expect("a row");
                }
                let hits = scan.finish().expect("hits");
                assert_eq!((hits.len(), hits[0].id), (10, 77));
            });
        });
    }
    group.finish();
}
