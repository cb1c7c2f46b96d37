//! Property tests: distances, the heap and the exact search against the plainest way to compute
//! the same thing.
//!
//! The oracles know nothing of lanes, blocks or heaps: distances are sums in `f64` in element
//! order, neighbours are a sorted list cut at `k`.
//!
//! Seen to fail, each mistake alone: a tie is kept by arrival instead of by id, the last block is
//! not measured, a row lands in its neighbour's place, a sum that overflowed or vanished is used as
//! it is, the bounds of the cosine are left out, a zero product gives -0.

use proptest::prelude::*;
use terrane_vector::{ExactScan, Kernels, Metric, Prepared, Tier, TopK, nearest};

/// Elements of one kind: a vector mixes no kinds, so that every kind decides some distance.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Between -1 and 1, as of an embedding model.
    Plain,
    /// Small integers: equal distances, zero vectors.
    Coarse,
    /// Subnormal numbers and zeros of either sign.
    Subnormal,
    /// As large as the sum of squares allows, of either sign.
    Huge,
}

/// The greatest `f32` that can stand in every element of a vector of `dim` elements.
fn huge(dim: usize) -> f32 {
    let limit = f64::from(f32::MAX);
    let mut element = (limit / dim as f64).sqrt() as f32;
    while f64::from(element) * f64::from(element) * dim as f64 > limit {
        element = element.next_down();
    }
    element
}

/// A vector of a kind, made of 32 seeded bits an element.
fn vector(kind: Kind, words: &[u32]) -> Vec<f32> {
    let one = |&word: &u32| match kind {
        Kind::Plain => (word >> 8) as f32 / (1 << 23) as f32 - 1.0,
        Kind::Coarse => (word % 3) as f32 - 1.0,
        Kind::Subnormal => f32::from_bits(word & 0x807f_ffff),
        Kind::Huge => huge(words.len()) * if word % 2 == 0 { 1.0 } else { -1.0 },
    };
    words.iter().map(one).collect()
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => Just(Kind::Plain),
        4 => Just(Kind::Coarse),
        1 => Just(Kind::Subnormal),
        1 => Just(Kind::Huge),
    ]
}

fn metric() -> impl Strategy<Value = Metric> {
    prop::sample::select(&Metric::ALL[..])
}

/// A vector that the metric accepts: one with cosine gets a direction if it has none.
fn accepted(metric: Metric, kind: Kind, words: &[u32]) -> Vec<f32> {
    let mut vector = vector(kind, words);
    if metric == Metric::Cosine && vector.iter().all(|&element| element == 0.0) {
        vector[0] = f32::from_bits(1);
    }
    assert_eq!(metric.check(&vector), Ok(()));
    vector
}

/// A metric, a query and rows, all of one dimension and each of its own kind. Some rows point
/// exactly where the query does, or exactly away.
fn search(rows_max: usize) -> impl Strategy<Value = (Metric, Vec<f32>, Vec<Vec<f32>>)> {
    let dims = prop_oneof![4 => 1..140_usize, 1 => prop::sample::select(vec![384, 768, 1536])];
    (metric(), dims).prop_flat_map(move |(metric, dim)| {
        let words = move || prop::collection::vec(any::<u32>(), dim);
        let query = (kind(), words());
        query.prop_flat_map(move |(kind_of_query, words_of_query)| {
            let query = accepted(metric, kind_of_query, &words_of_query);
            let along = query.clone();
            let row = prop_oneof![
                5 => (kind(), words())
                    .prop_map(move |(kind, words)| accepted(metric, kind, &words)),
                1 => prop::sample::select(vec![1.0, -1.0_f32]).prop_map(move |sign| {
                    along.iter().map(|element| sign * element).collect::<Vec<_>>()
                }),
            ];
            (
                Just(metric),
                Just(query),
                prop::collection::vec(row, 0..rows_max),
            )
        })
    })
}

/// The distance in `f64`, and how far an `f32` computation may be from it.
fn oracle(metric: Metric, query: &[f32], row: &[f32]) -> (f64, f64) {
    let pairs = || {
        query
            .iter()
            .zip(row)
            .map(|(&q, &x)| (f64::from(q), f64::from(x)))
    };
    let dot: f64 = pairs().map(|(q, x)| q * x).sum();
    let magnitude: f64 = pairs().map(|(q, x)| (q * x).abs()).sum();
    let norms = pairs().map(|(q, _)| q * q).sum::<f64>() * pairs().map(|(_, x)| x * x).sum::<f64>();
    let l2 = pairs().map(|(q, x)| (q - x) * (q - x)).sum::<f64>().sqrt();
    // The bound of `kernel/mod.rs`, and four roundings after the sum.
    let relative = (query.len().div_ceil(64) + 9 + 4) as f64 * 2f64.powi(-24);
    // What vanishes of the products, and the spacing of subnormal results.
    let absolute = (query.len() + 1) as f64 * 2f64.powi(-149);
    match metric {
        Metric::L2 => (l2, l2 * relative + absolute),
        Metric::Dot => (-dot, magnitude * relative + absolute),
        // By Cauchy and Schwarz no sum of magnitudes exceeds the product of the norms.
        Metric::Cosine => (1.0 - dot / norms.sqrt(), 3.0 * relative),
    }
}

fn tiers() -> impl Iterator<Item = Kernels> {
    Tier::ALL.into_iter().filter_map(Kernels::forced)
}

/// What every search must return: ids of all rows in order, cut at `k`.
fn sorted(mut all: Vec<(f32, u32)>, k: usize) -> Vec<(f32, u32)> {
    all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    all.truncate(k);
    all
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn distances_are_near_the_oracle((metric, query, rows) in search(6)) {
        let prepared = Prepared::new(metric, &query).unwrap();
        for row in &rows {
            let found = prepared.distance(row);
            prop_assert!(found.is_finite(), "{metric}: {found} (D1)");
            prop_assert!(found != 0.0 || found.is_sign_positive(), "{metric}: -0 (D1)");
            let (exact, bound) = oracle(metric, &query, row);
            let error = (f64::from(found) - exact).abs();
            prop_assert!(error <= bound, "{metric}: {found} for {exact}, bound {bound:e}");
            if metric == Metric::Cosine {
                prop_assert!((0.0..=2.0).contains(&found), "{found}");
            }
        }
    }

    #[test]
    fn a_distance_does_not_depend_on_batch_or_tier((metric, query, rows) in search(80)) {
        let expected = Prepared::with_kernels(
            metric,
            &query,
            Kernels::forced(Tier::Scalar).unwrap(),
        ).unwrap();
        let flat = rows.concat();
        for kernels in tiers() {
            let prepared = Prepared::with_kernels(metric, &query, kernels).unwrap();
            let mut batch = vec![f32::NAN; rows.len()];
            prepared.distances(&flat, &mut batch);
            for (row, found) in rows.iter().zip(batch) {
                let mut norm = [0.0];
                kernels.norm_squared(query.len(), row, &mut norm);
                let known = prepared.distance_with_norm_squared(row, norm[0]);
                let alone = expected.distance(row);
                prop_assert_eq!(found.to_bits(), alone.to_bits(), "{}", kernels.tier());
                prop_assert_eq!(known.to_bits(), alone.to_bits(), "{}", kernels.tier());
            }
        }
    }

    #[test]
    fn the_heap_is_a_sorted_list_cut_at_k(
        candidates in prop::collection::vec((-4_i8..4, 0_u32..50), 0..200),
        k in 0_usize..40,
    ) {
        let candidates: Vec<_> = candidates.iter().map(|&(d, id)| (f32::from(d), id)).collect();
        let mut heap = TopK::new(k);
        let mut so_far = Vec::new();
        for &(distance, id) in &candidates {
            let before = sorted(so_far.clone(), k);
            so_far.push((distance, id));
            let after = sorted(so_far.clone(), k);
            prop_assert_eq!(heap.push(distance, id), before != after, "a push says what it did");
            prop_assert_eq!(heap.len(), after.len());
            let full = after.len() == k;
            let threshold = after.last().filter(|_| full).map(|worst| worst.0);
            let none = if k == 0 { f32::NEG_INFINITY } else { f32::INFINITY };
            prop_assert_eq!(heap.threshold(), threshold.unwrap_or(none));
            prop_assert!(!heap.push(f32::NAN, 0), "a NaN is never kept (H2)");
            prop_assert!(!heap.push(-f32::NAN, 0), "a NaN is never kept (H2)");
        }
        let found: Vec<_> = heap.into_sorted_vec().iter().map(|n| (n.distance, n.id)).collect();
        prop_assert_eq!(found, sorted(candidates, k));
    }

    #[test]
    fn a_scan_finds_what_a_sort_finds(
        (metric, query, rows) in search(150),
        k in prop_oneof![0_usize..12, Just(1_000)],
        step in 1_usize..7,
        multiple in 1_u32..4,
    ) {
        let prepared = Prepared::new(metric, &query).unwrap();
        // Ids fall while rows rise, so that ties are not broken by arrival.
        let ids: Vec<u32> = (0..rows.len() as u32).rev().collect();
        let accept = |id: &u32| id.is_multiple_of(multiple);
        let all = ids.iter().zip(&rows).filter(|(id, _)| accept(id));
        let all: Vec<_> = all.map(|(&id, row)| (prepared.distance(row), id)).collect();
        let expected = sorted(all, k);

        let mut scan = ExactScan::new(&prepared, k).unwrap();
        let offers = ids.iter().zip(&rows).filter(|(id, _)| accept(id));
        for (at, (&id, row)) in offers.enumerate() {
            if at % step == 0 {
                scan.offer(id, row).unwrap();
            } else {
                // Stored bytes at an odd address.
                let mut bytes = vec![0_u8];
                bytes.extend(row.iter().flat_map(|element| element.to_le_bytes()));
                scan.offer_bytes(id, &bytes[1..]).unwrap();
            }
        }
        let found: Vec<_> = scan.finish().unwrap().iter().map(|n| (n.distance, n.id)).collect();
        prop_assert_eq!(&found, &expected);

        let rows = ids.iter().copied().zip(rows.iter().map(Vec::as_slice));
        let found = nearest(&prepared, k, rows, accept).unwrap();
        let found: Vec<_> = found.iter().map(|n| (n.distance, n.id)).collect();
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn huge_vectors_apart_have_their_distance() {
    // The sum of squared differences is four times f32::MAX; its root is representable.
    let (plus, minus) = ([huge(384); 384], [-huge(384); 384]);
    let query = Prepared::new(Metric::L2, &plus).unwrap();
    let found = f64::from(query.distance(&minus));
    let exact = 2.0 * f64::from(f32::MAX).sqrt();
    assert!((found / exact - 1.0).abs() < 1e-6, "{found}");
    let query = Prepared::new(Metric::Dot, &plus).unwrap();
    assert!(query.distance(&minus) > 0.999 * f32::MAX);
    assert!(query.distance(&plus) < -0.999 * f32::MAX);
}

#[test]
fn a_sum_that_rounds_over_the_limit_is_measured_again() {
    let mut overflows = 0;
    for dim in 1..300 {
        let vector = vec![huge(dim); dim];
        let mut sum = [0.0];
        Kernels::detect().norm_squared(dim, &vector, &mut sum);
        overflows += u32::from(sum[0].is_infinite());
        for (metric, exact) in [(Metric::Dot, -f64::from(f32::MAX)), (Metric::Cosine, 0.0)] {
            let query = Prepared::new(metric, &vector).unwrap();
            let found = f64::from(query.distance(&vector));
            assert!(found.is_finite(), "{metric} at {dim}");
            assert!(
                (found - exact).abs() <= 1e-5 * exact.abs().max(1.0),
                "{metric} at {dim}"
            );
        }
    }
    assert!(
        overflows > 0,
        "no dimension makes a kernel's sum overflow: the test tests nothing"
    );
}

#[test]
fn subnormal_vectors_have_distances_and_angles() {
    let tiny = |n: u32| f32::from_bits(n);
    let query = Prepared::new(Metric::L2, &[tiny(3), 0.0]).unwrap();
    assert_eq!(query.distance(&[0.0, tiny(4)]).to_bits(), 5);
    let query = Prepared::new(Metric::Cosine, &[tiny(3), 0.0]).unwrap();
    assert_eq!(query.distance(&[tiny(1), 0.0]), 0.0);
    assert_eq!(query.distance(&[0.0, tiny(1)]), 1.0);
    assert_eq!(query.distance(&[-tiny(7), 0.0]), 2.0);
}

#[test]
fn equal_rows_are_found_by_id() {
    let query = Prepared::new(Metric::Cosine, &[1.0, 2.0, 3.0]).unwrap();
    let row = [3.0, 2.0, 1.0];
    let rows = (0..1_000_u32).rev().map(|id| (id, &row[..]));
    let ids: Vec<u32> = nearest(&query, 4, rows, |_| true)
        .unwrap()
        .iter()
        .map(|n| n.id)
        .collect();
    assert_eq!(ids, [0, 1, 2, 3]);
}
