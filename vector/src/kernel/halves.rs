//! Kernels over rows of binary16 numbers, one row at a time: what a query has to do with a centre.
//!
//! Centres are stored in 16 bits. Widened to `f32`, which is exact, they go through the same lanes
//! in the same order as `f32` rows (K1), so `l2` of a row is to the bit what
//! [`Kernels::l2_squared`] gives for the widened row, on every tier. The bodies are plain Rust,
//! written once and compiled for each instruction set: whole-number shifts and one exact
//! multiplication widen a lane, which a compiler turns into whatever registers it is allowed; there
//! is nothing here for hand-written instructions to win.

use super::{Kernels, fold_rest};
use crate::code::half::f16_finite_to;
use crate::limits::LANES;

/// A query against one row of halves. Unsafe to call only because of the instruction set (K2).
type AgainstHalves = unsafe fn(&[f32], &[u16]) -> f32;

/// The kernels of one tier over halves.
#[derive(Clone, Copy)]
pub(super) struct HalfTable {
    l2: AgainstHalves,
    dot: AgainstHalves,
}

/// Writes the module of a tier.
macro_rules! half_kernels {
    ($tier:ident $(, #[$feature:meta])?) => {
        pub(super) mod $tier {
            use super::*;

            pub(in crate::kernel) const TABLE: HalfTable = HalfTable { l2, dot };

            /// Sums `term` over the pairs of elements in the order of K1. Both of one length, a
            /// whole number of lanes.
            $(#[$feature])?
            #[inline]
            fn sum(query: &[f32], row: &[u16], term: impl Fn(f32, f32) -> f32) -> f32 {
                let mut lanes = [0.0_f32; LANES];
                let chunks = row.as_chunks::<LANES>().0;
                for (query, row) in query.as_chunks::<LANES>().0.iter().zip(chunks) {
                    for (lane, (&q, &x)) in lanes.iter_mut().zip(query.iter().zip(row)) {
                        *lane += term(q, f16_finite_to(x));
                    }
                }
                fold_rest(lanes)
            }

            $(#[$feature])?
            fn l2(query: &[f32], row: &[u16]) -> f32 {
                sum(query, row, |q, x| (q - x) * (q - x))
            }

            $(#[$feature])?
            fn dot(query: &[f32], row: &[u16]) -> f32 {
                sum(query, row, |q, x| q * x)
            }
        }
    };
}

half_kernels!(scalar);
#[cfg(target_arch = "x86_64")]
half_kernels!(avx2, #[target_feature(enable = "avx2")]);
#[cfg(target_arch = "x86_64")]
half_kernels!(avx512, #[target_feature(enable = "avx512f")]);
#[cfg(target_arch = "aarch64")]
half_kernels!(neon, #[target_feature(enable = "neon")]);

impl Kernels {
    /// The squared Euclidean distance of the query to a row of finite binary16 numbers.
    ///
    /// # Panics
    /// If both are not of one length, a multiple of 64.
    #[inline]
    pub(crate) fn l2_squared_half(&self, query: &[f32], row: &[u16]) -> f32 {
        assert_whole(query, row);
        // SAFETY: the one thing `l2` asks for is its instruction set, and `forced` makes a table
        // of a tier only after the processor was seen to have it (K2).
        unsafe { (self.halves.l2)(query, row) }
    }

    /// The dot product of the query with a row of finite binary16 numbers.
    ///
    /// # Panics
    /// As [`Kernels::l2_squared_half`].
    #[inline]
    pub(crate) fn dot_half(&self, query: &[f32], row: &[u16]) -> f32 {
        assert_whole(query, row);
        // SAFETY: as in `l2_squared_half`: the table's tier is one that the processor has (K2).
        unsafe { (self.halves.dot)(query, row) }
    }
}

/// Elements beyond whole lanes would be left out of the sum: wrong answers, so always checked.
#[inline]
fn assert_whole(query: &[f32], row: &[u16]) {
    assert_eq!(query.len(), row.len(), "a row of the query's dimension");
    assert!(query.len().is_multiple_of(LANES), "whole lanes");
}

#[cfg(test)]
mod tests {
    use super::super::Tier;
    use super::super::tests::{Stream, others};
    use super::*;
    use crate::code::half::{f16_from, f16_to};

    // Seen to fail with the term of `dot` in `l2`, and with the last chunk left out.
    #[test]
    fn a_row_of_halves_gives_the_bits_of_the_widened_row() {
        let mut stream = Stream(21);
        let mut all = others();
        all.extend(Kernels::forced(Tier::Scalar));
        for dim in [64, 128, 384, 768, 1536] {
            let query: Vec<f32> = (0..dim).map(|_| stream.unit()).collect();
            // Subnormal halves among them.
            let scale = |at: usize| if at.is_multiple_of(7) { 1e-6 } else { 1.0 };
            let row: Vec<u16> = (0..dim)
                .map(|at| f16_from(stream.unit() * scale(at)))
                .collect();
            let wide: Vec<f32> = row.iter().map(|&x| f16_to(x)).collect();
            for kernels in &all {
                let (mut l2, mut dot) = ([0.0], [0.0]);
                kernels.l2_squared(&query, &wide, &mut l2);
                kernels.dot(&query, &wide, &mut dot);
                let found = [
                    kernels.l2_squared_half(&query, &row),
                    kernels.dot_half(&query, &row),
                ];
                let bits = |x: [f32; 2]| x.map(f32::to_bits);
                assert_eq!(
                    bits(found),
                    bits([l2[0], dot[0]]),
                    "{} at {dim}",
                    kernels.tier()
                );
            }
        }
    }
}
