//! Each tier against the scalar one, bit by bit (K1), and the scalar one against sums in `f64`
//! within the bound that `mod.rs` states.
//!
//! Seen to fail when: a lane is folded in another order, a multiplication is fused, the last chunk
//! is left out, or the padding is a stale value.

use super::*;

/// Dimensions of the tests: every shape of the last chunk, and those of real models.
fn dims() -> impl Iterator<Item = usize> {
    (1..=70).chain([127, 128, 129, 384, 768, 1000, 1536])
}

/// A seeded stream of 64-bit numbers (splitmix64, Steele, Lea and Flood, OOPSLA 2014).
pub(super) struct Stream(pub(super) u64);

impl Stream {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [-1, 1).
    pub(super) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// A number of any kind that a row may hold: mostly plain, some subnormal, zero of either
    /// sign, huge.
    fn wild(&mut self) -> f32 {
        match self.next() % 8 {
            0 => f32::from_bits((self.next() as u32) & 0x807f_ffff),
            1 => 0.0,
            2 => -0.0,
            3 => self.unit() * 1e18,
            4 => self.unit() * 1e-22,
            _ => self.unit(),
        }
    }
}

/// Vectors at an odd offset, so that no load is aligned by chance.
fn rows(stream: &mut Stream, count: usize, mut one: impl FnMut(&mut Stream) -> f32) -> Vec<f32> {
    (0..=count).map(|_| one(stream)).collect()
}

/// The tiers of this processor beside the scalar one. A machine has at least its detected one.
pub(super) fn others() -> Vec<Kernels> {
    let all: Vec<_> = Tier::ALL.into_iter().filter_map(Kernels::forced).collect();
    assert_eq!(all[0].tier(), Tier::Scalar);
    if std::env::var_os("TERRANE_KERNELS").is_none() {
        assert_eq!(all[all.len() - 1].tier(), Kernels::detect().tier());
    }
    all.into_iter().skip(1).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// One result of each kernel, in one list.
fn all_kernels(kernels: Kernels, query: &[f32], rows: &[f32]) -> Vec<f32> {
    let count = rows.len() / query.len();
    // Stale values that a kernel must overwrite.
    let mut out = vec![f32::NAN; 3 * count];
    let (dot, rest) = out.split_at_mut(count);
    let (l2, norm) = rest.split_at_mut(count);
    kernels.dot(query, rows, dot);
    kernels.l2_squared(query, rows, l2);
    kernels.norm_squared(query.len(), rows, norm);
    out
}

#[test]
fn every_tier_gives_the_bits_of_the_scalar_tier() {
    let mut stream = Stream(1);
    let scalar = Kernels::scalar();
    for dim in dims() {
        for round in 0..4 {
            let one = if round < 2 {
                Stream::unit
            } else {
                Stream::wild
            };
            let query = rows(&mut stream, dim, one);
            let rows = rows(&mut stream, 5 * dim, one);
            let expected = all_kernels(scalar, &query[1..], &rows[1..]);
            for kernels in others() {
                let found = all_kernels(kernels, &query[1..], &rows[1..]);
                assert_eq!(bits(&found), bits(&expected), "{} at {dim}", kernels.tier());
            }
        }
    }
}

#[test]
fn the_scalar_tier_is_within_its_bound_of_the_exact_sums() {
    let mut stream = Stream(2);
    for dim in dims() {
        let query = rows(&mut stream, dim, Stream::unit);
        let rows = rows(&mut stream, 3 * dim, Stream::unit);
        let (query, rows) = (&query[1..], &rows[1..]);
        let found = all_kernels(Kernels::scalar(), query, rows);
        let bound = (dim.div_ceil(LANES) + 9) as f64 * 2f64.powi(-24);
        for (r, row) in rows.chunks_exact(dim).enumerate() {
            let pairs = || {
                query
                    .iter()
                    .zip(row)
                    .map(|(&q, &x)| (f64::from(q), f64::from(x)))
            };
            let dot: f64 = pairs().map(|(q, x)| q * x).sum();
            let magnitudes: f64 = pairs().map(|(q, x)| (q * x).abs()).sum();
            let l2: f64 = pairs().map(|(q, x)| (q - x) * (q - x)).sum();
            let norm: f64 = pairs().map(|(_, x)| x * x).sum();
            let exact = [(found[r], dot, magnitudes), (found[3 + r], l2, l2)];
            for (found, exact, scale) in exact.into_iter().chain([(found[6 + r], norm, norm)]) {
                let error = (f64::from(found) - exact).abs();
                assert!(error <= bound * scale, "{found} for {exact} at {dim}");
            }
        }
    }
}

#[test]
fn the_sum_is_the_defined_one() {
    // K1 written down once more, with neither chunks nor folding in place. The large numbers make
    // every change of order show.
    let mut stream = Stream(3);
    for dim in [1, 63, 64, 65, 200, 384] {
        let query = rows(&mut stream, dim, |s| s.unit() * 1e6);
        let rows = rows(&mut stream, dim, |s| s.unit() * 1e6);
        let (query, row) = (&query[1..], &rows[1..]);
        let mut lanes: Vec<f32> = (0..64)
            .map(|j| {
                (j..dim)
                    .step_by(64)
                    .fold(0.0, |sum, i| sum + query[i] * row[i])
            })
            .collect();
        while lanes.len() > 1 {
            let (low, high) = lanes.split_at(lanes.len() / 2);
            lanes = low.iter().zip(high).map(|(a, b)| a + b).collect();
        }
        let mut out = [0.0];
        Kernels::detect().dot(query, row, &mut out);
        assert_eq!(out[0].to_bits(), lanes[0].to_bits(), "dimension {dim}");
    }
}

#[test]
fn negative_zero_and_subnormals_are_kept() {
    for kernels in others().into_iter().chain([Kernels::scalar()]) {
        let mut out = [f32::NAN];
        kernels.dot(&[-0.0; 3], &[1.0; 3], &mut out);
        assert_eq!(
            out[0].to_bits(),
            0,
            "{}: a sum of -0 is +0 (K3)",
            kernels.tier()
        );
        let tiny = f32::from_bits(1);
        kernels.dot(&[tiny; 65], &[1.0; 65], &mut out);
        assert_eq!(
            out[0].to_bits(),
            65,
            "{}: subnormals add up",
            kernels.tier()
        );
    }
}

#[test]
fn no_rows_are_no_work() {
    Kernels::detect().dot(&[1.0], &[], &mut []);
    Kernels::detect().norm_squared(7, &[], &mut []);
}

#[test]
#[should_panic(expected = "5 elements are not 2 rows of 3")]
fn a_batch_of_another_shape_is_refused() {
    Kernels::detect().l2_squared(&[0.0; 3], &[0.0; 5], &mut [0.0; 2]);
}

#[test]
#[should_panic(expected = "at least one element")]
fn an_empty_query_is_refused() {
    Kernels::detect().dot(&[], &[], &mut []);
}

#[test]
fn a_tier_of_another_processor_is_not_made() {
    let foreign = if cfg!(target_arch = "x86_64") {
        Tier::Neon
    } else {
        Tier::Avx512
    };
    assert!(Kernels::forced(foreign).is_none());
}
