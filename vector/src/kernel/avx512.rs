//! The AVX-512 tier: four registers of sixteen lanes, the same sums as the scalar tier (K1).
//!
//! Register `r` holds lanes `16 r` to `16 r + 15`. Four chains of additions run side by side,
//! which hides the latency of each. Multiplication and addition stay apart: a fused one rounds
//! differently. Loads ask for no alignment. Only AVX-512F is needed.

use std::arch::x86_64::{
    __m512, _mm512_add_ps, _mm512_loadu_ps, _mm512_mul_ps, _mm512_setzero_ps, _mm512_storeu_ps,
    _mm512_sub_ps,
};

use super::{fold_rest, padded};
use crate::limits::LANES;

/// Lanes of a register.
const WIDTH: usize = 16;

/// The running sums, lane `j` in register `j / WIDTH`.
type Lanes = [__m512; LANES / WIDTH];

batch_kernels!(#[target_feature(enable = "avx512f")]);

/// All lanes at +0.
#[inline]
#[target_feature(enable = "avx512f")]
fn zero() -> Lanes {
    [_mm512_setzero_ps(); LANES / WIDTH]
}

/// The lanes of a register from memory of any alignment.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(from: &[f32; WIDTH]) -> __m512 {
    // SAFETY: `from` is a live reference to exactly the 64 bytes that the load reads, and `loadu`
    // asks for no alignment.
    unsafe { _mm512_loadu_ps(from.as_ptr()) }
}

/// Adds `a[j] * b[j]` to lane `j`.
#[inline]
#[target_feature(enable = "avx512f")]
fn dot_step(mut lanes: Lanes, a: &[f32; LANES], b: &[f32; LANES]) -> Lanes {
    let (a, b) = (a.as_chunks::<WIDTH>().0, b.as_chunks::<WIDTH>().0);
    for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
        *lane = _mm512_add_ps(*lane, _mm512_mul_ps(load(a), load(b)));
    }
    lanes
}

/// Adds `(a[j] - b[j])^2` to lane `j`.
#[inline]
#[target_feature(enable = "avx512f")]
fn l2_step(mut lanes: Lanes, a: &[f32; LANES], b: &[f32; LANES]) -> Lanes {
    let (a, b) = (a.as_chunks::<WIDTH>().0, b.as_chunks::<WIDTH>().0);
    for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
        let difference = _mm512_sub_ps(load(a), load(b));
        *lane = _mm512_add_ps(*lane, _mm512_mul_ps(difference, difference));
    }
    lanes
}

/// The sum of all lanes, folded in the order of K1: whole registers by 32 and 16
/// lanes, then the last one.
#[inline]
#[target_feature(enable = "avx512f")]
fn fold([r0, r1, r2, r3]: Lanes) -> f32 {
    let last = _mm512_add_ps(_mm512_add_ps(r0, r2), _mm512_add_ps(r1, r3));
    let mut rest = [0.0; WIDTH];
    // SAFETY: `rest` is exactly the 64 bytes that the store writes, held exclusively here, and
    // `storeu` asks for no alignment.
    unsafe { _mm512_storeu_ps(rest.as_mut_ptr(), last) };
    fold_rest(rest)
}
