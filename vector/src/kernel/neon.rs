//! The NEON tier of aarch64: sixteen registers of four lanes, the same sums as the scalar tier
//! (K1).
//!
//! Register `r` holds lanes `4 r` to `4 r + 3`; sixteen of the 32 registers stay free for loads.
//! Multiplication and addition stay apart: a fused one rounds differently. Loads ask for the
//! alignment of an element only. Subnormal numbers are kept, as IEEE 754 asks (aarch64 flushes
//! them only if a program sets FPCR.FZ, which nobody here does).

use std::arch::aarch64::{
    float32x4_t, vaddq_f32, vdupq_n_f32, vld1q_f32, vmulq_f32, vst1q_f32, vsubq_f32,
};

use super::{fold_rest, padded};
use crate::limits::LANES;

/// Lanes of a register.
const WIDTH: usize = 4;

/// The running sums, lane `j` in register `j / WIDTH`.
type Lanes = [float32x4_t; LANES / WIDTH];

batch_kernels!(#[target_feature(enable = "neon")]);

/// All lanes at +0.
#[inline]
#[target_feature(enable = "neon")]
fn zero() -> Lanes {
    [vdupq_n_f32(0.0); LANES / WIDTH]
}

/// The lanes of a register from memory.
#[inline]
#[target_feature(enable = "neon")]
fn load(from: &[f32; WIDTH]) -> float32x4_t {
    // SAFETY: `from` is a live reference to exactly the 16 bytes that the load reads, aligned for
    // an element, which is all that the load asks for.
    unsafe { vld1q_f32(from.as_ptr()) }
}

/// Adds `a[j] * b[j]` to lane `j`.
#[inline]
#[target_feature(enable = "neon")]
fn dot_step(mut lanes: Lanes, a: &[f32; LANES], b: &[f32; LANES]) -> Lanes {
    let (a, b) = (a.as_chunks::<WIDTH>().0, b.as_chunks::<WIDTH>().0);
    for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
        *lane = vaddq_f32(*lane, vmulq_f32(load(a), load(b)));
    }
    lanes
}

/// Adds `(a[j] - b[j])^2` to lane `j`.
#[inline]
#[target_feature(enable = "neon")]
fn l2_step(mut lanes: Lanes, a: &[f32; LANES], b: &[f32; LANES]) -> Lanes {
    let (a, b) = (a.as_chunks::<WIDTH>().0, b.as_chunks::<WIDTH>().0);
    for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
        let difference = vsubq_f32(load(a), load(b));
        *lane = vaddq_f32(*lane, vmulq_f32(difference, difference));
    }
    lanes
}

/// The sum of all lanes, folded in the order of K1: whole registers by 32, 16, 8 and 4 lanes, then
/// the last one.
#[inline]
#[target_feature(enable = "neon")]
fn fold(mut lanes: Lanes) -> f32 {
    for width in [8, 4, 2, 1] {
        for register in 0..width {
            lanes[register] = vaddq_f32(lanes[register], lanes[register + width]);
        }
    }
    let mut rest = [0.0; WIDTH];
    // SAFETY: `rest` is exactly the 16 bytes that the store writes, held exclusively here and
    // aligned for an element, which is all that the store asks for.
    unsafe { vst1q_f32(rest.as_mut_ptr(), lanes[0]) };
    fold_rest(rest)
}
