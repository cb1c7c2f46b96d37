//! The scalar tier: the definition of the kernels' sums (K1), and the fallback where the processor
//! has no tier of its own. The other tiers are tested against it, bit by bit.
//!
//! Lanes are independent, so a compiler may put them into whatever vectors its target has without
//! changing a bit; it may not reorder the additions within a lane, and does not.

use super::{fold_rest, padded};
use crate::limits::LANES;

/// The running sums, lane `j` at index `j`.
type Lanes = [f32; LANES];

batch_kernels!();

/// All lanes at +0.
#[inline]
fn zero() -> Lanes {
    [0.0; LANES]
}

/// Adds `a[j] * b[j]` to lane `j`.
#[inline]
fn dot_step(mut lanes: Lanes, a: &[f32; LANES], b: &[f32; LANES]) -> Lanes {
    for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
        *lane += a * b;
    }
    lanes
}

/// Adds `(a[j] - b[j])^2` to lane `j`.
#[inline]
fn l2_step(mut lanes: Lanes, a: &[f32; LANES], b: &[f32; LANES]) -> Lanes {
    for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
        let difference = a - b;
        *lane += difference * difference;
    }
    lanes
}

/// The sum of all lanes, folded in the order of K1.
#[inline]
fn fold(lanes: Lanes) -> f32 {
    fold_rest(lanes)
}
