//! The AVX2 tier: eight registers of eight lanes, the same sums as the scalar tier (K1).
//!
//! Register `r` holds lanes `8 r` to `8 r + 7`. Eight chains of additions run side by side, which
//! hides the latency of each; eight of the sixteen registers stay free for loads. Multiplication
//! and addition stay apart: a fused one rounds differently. Loads ask for no alignment.

use std::arch::x86_64::{
    __m256, _mm256_add_ps, _mm256_loadu_ps, _mm256_mul_ps, _mm256_setzero_ps, _mm256_storeu_ps,
    _mm256_sub_ps,
};

use super::{fold_rest, padded};
use crate::limits::LANES;

/// Lanes of a register.
const WIDTH: usize = 8;

/// The running sums, lane `j` in register `j / WIDTH`.
type Lanes = [__m256; LANES / WIDTH];

batch_kernels!(#[target_feature(enable = "avx2")]);

/// All lanes at +0.
#[inline]
#[target_feature(enable = "avx2")]
fn zero() -> Lanes {
    [_mm256_setzero_ps(); LANES / WIDTH]
}

/// The lanes of a register from memory of any alignment.
#[inline]
#[target_feature(enable = "avx2")]
fn load(from: &[f32; WIDTH]) -> __m256 {
    // SAFETY: `from` is a live reference to exactly the 32 bytes that the load reads, and `loadu`
    // asks for no alignment.
    unsafe { _mm256_loadu_ps(from.as_ptr()) }
}

/// Adds `a[j] * b[j]` to lane `j`.
#[inline]
#[target_feature(enable = "avx2")]
fn dot_step(mut lanes: Lanes, a: &[f32; LANES], b: &[f32; LANES]) -> Lanes {
    let (a, b) = (a.as_chunks::<WIDTH>().0, b.as_chunks::<WIDTH>().0);
    for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
        *lane = _mm256_add_ps(*lane, _mm256_mul_ps(load(a), load(b)));
    }
    lanes
}

/// Adds `(a[j] - b[j])^2` to lane `j`.
#[inline]
#[target_feature(enable = "avx2")]
fn l2_step(mut lanes: Lanes, a: &[f32; LANES], b: &[f32; LANES]) -> Lanes {
    let (a, b) = (a.as_chunks::<WIDTH>().0, b.as_chunks::<WIDTH>().0);
    for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
        let difference = _mm256_sub_ps(load(a), load(b));
        *lane = _mm256_add_ps(*lane, _mm256_mul_ps(difference, difference));
    }
    lanes
}

/// The sum of all lanes, folded in the order of K1: whole registers by 32, 16 and 8 lanes, then
/// the last one.
#[inline]
#[target_feature(enable = "avx2")]
fn fold([r0, r1, r2, r3, r4, r5, r6, r7]: Lanes) -> f32 {
    let low = _mm256_add_ps(_mm256_add_ps(r0, r4), _mm256_add_ps(r2, r6));
    let high = _mm256_add_ps(_mm256_add_ps(r1, r5), _mm256_add_ps(r3, r7));
    let last = _mm256_add_ps(low, high);
    let mut rest = [0.0; WIDTH];
    // SAFETY: `rest` is exactly the 32 bytes that the store writes, held exclusively here, and
    // `storeu` asks for no alignment.
    unsafe { _mm256_storeu_ps(rest.as_mut_ptr(), last) };
    fold_rest(rest)
}
