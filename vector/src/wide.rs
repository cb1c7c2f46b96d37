//! Sums in `f64`, for vectors whose `f32` sums would overflow or vanish, and for checks.
//!
//! A product of two `f32` is exact in `f64` and a sum of [`crate::limits::MAX_DIM`] of them can
//! neither overflow nor, unless all are zero, vanish. Eight running sums let a compiler use what
//! registers it has; their order is fixed, so every machine gives the same bits.

/// Sum of `a[i] * b[i]`. Both of one length.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f64 {
    sum(a, b, |a, b| a * b)
}

/// Sum of `(a[i] - b[i])^2`. Both of one length.
pub(crate) fn l2_squared(a: &[f32], b: &[f32]) -> f64 {
    sum(a, b, |a, b| (a - b) * (a - b))
}

/// Sum of `a[i]^2`.
pub(crate) fn norm_squared(a: &[f32]) -> f64 {
    dot(a, a)
}

/// Sums `term` over the pairs of elements: element `i` in running sum `i mod 8`.
#[inline]
fn sum(a: &[f32], b: &[f32], term: impl Fn(f64, f64) -> f64) -> f64 {
    debug_assert_eq!(a.len(), b.len());
    let ((a_full, a_rest), (b_full, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a_full.iter().zip(b_full) {
        for (sum, (&a, &b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += term(f64::from(a), f64::from(b));
        }
    }
    for (sum, (&a, &b)) in sums.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *sum += term(f64::from(a), f64::from(b));
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_counts_once() {
        for dim in 1..=40_u16 {
            let a: Vec<f32> = (1..=dim).map(f32::from).collect();
            let b: Vec<f32> = (1..=dim).map(|i| f32::from(2 * i)).collect();
            let n = f64::from(dim);
            let squares = n * (n + 1.0) * (2.0 * n + 1.0) / 6.0;
            assert_eq!(dot(&a, &b), 2.0 * squares);
            assert_eq!(l2_squared(&a, &b), squares);
            assert_eq!(norm_squared(&b), 4.0 * squares);
        }
    }

    #[test]
    fn the_extremes_of_f32_fit() {
        let tiny = [f32::from_bits(1)];
        assert!(norm_squared(&tiny) > 0.0);
        let huge = [f32::MAX; 1000];
        assert!(l2_squared(&huge, &[-f32::MAX; 1000]).is_finite());
    }
}
