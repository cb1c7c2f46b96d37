//! A query made ready: checked once, normalised once, bound to the kernels of this processor.
//!
//! Between the kernels (sums in `f32`) and the searches (distances in order). A kernel's sum may
//! overflow or vanish although every vector was accepted by [`Metric::check`]; such a row, rare in
//! real data, is measured again in `f64`.
//!
//! Invariants, for a query and rows that the metric accepts:
//! * D1. A distance is finite, never NaN and never -0: `f32::total_cmp` orders by value.
//! * D2. The distance of a row is the same bits on every machine, in every batch and alone.
//! * D3. Smaller is nearer.

use crate::error::VectorError;
use crate::kernel::Kernels;
use crate::limits::{BLOCK_ROWS_MAX, block_rows};
use crate::metric::Metric;
use crate::wide;

/// Below this a sum of up to 16,384 squares may have lost more than its last bits: a square below
/// 2^-149 vanishes, so the sum may be short by 2^-135, which is 2^-35 of this.
const VANISHING: f32 = 1.0 / (1_u128 << 100) as f32;

/// A query for the distances of rows.
///
/// ```
/// use terrane_vector::{Metric, Prepared};
///
/// # fn main() -> Result<(), terrane_vector::VectorError> {
/// let query = Prepared::new(Metric::L2, &[0.0, 0.0])?;
/// let mut distances = [0.0; 2];
/// query.distances(&[3.0, 4.0, 5.0, 12.0], &mut distances);
/// assert_eq!(distances, [5.0, 13.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Prepared {
    metric: Metric,
    kernels: Kernels,
    /// The elements; with [`Metric::Cosine`] those of the unit vector.
    query: Vec<f32>,
}

impl Prepared {
    /// Checks the query and makes it ready for the widest kernels of this processor.
    ///
    /// # Errors
    /// What [`Metric::check`] says of the query.
    pub fn new(metric: Metric, query: &[f32]) -> Result<Self, VectorError> {
        Self::with_kernels(metric, query, Kernels::detect())
    }

    /// As [`Prepared::new`], with given kernels.
    ///
    /// # Errors
    /// As [`Prepared::new`].
    pub fn with_kernels(
        metric: Metric,
        query: &[f32],
        kernels: Kernels,
    ) -> Result<Self, VectorError> {
        metric.check(query)?;
        let query = match metric {
            Metric::L2 | Metric::Dot => query.to_vec(),
            // In f64, where the norm of a subnormal vector has an inverse.
            Metric::Cosine => {
                let norm = wide::norm_squared(query).sqrt();
                query
                    .iter()
                    .map(|&element| (f64::from(element) / norm) as f32)
                    .collect()
            }
        };
        Ok(Self {
            metric,
            kernels,
            query,
        })
    }

    /// The metric of the distances.
    #[must_use]
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// Elements of the query and of every row.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.query.len()
    }

    /// The distance of one row, as [`Prepared::distances`] gives it.
    ///
    /// # Panics
    /// If the row has another dimension.
    #[must_use]
    pub fn distance(&self, row: &[f32]) -> f32 {
        let mut out = [0.0];
        self.distances(row, &mut out);
        out[0]
    }

    /// The distance of a row whose squared norm the caller keeps, from [`Kernels::norm_squared`].
    ///
    /// The same bits as [`Prepared::distance`]; with [`Metric::Cosine`] the row is read once
    /// instead of twice, with the others the norm is not used.
    ///
    /// # Panics
    /// If the row has another dimension.
    #[must_use]
    pub fn distance_with_norm_squared(&self, row: &[f32], norm_squared: f32) -> f32 {
        match self.metric {
            Metric::L2 | Metric::Dot => self.distance(row),
            Metric::Cosine => {
                let mut dot = [0.0];
                self.kernels.dot(&self.query, row, &mut dot);
                self.cosine(dot[0], norm_squared, row)
            }
        }
    }

    /// The distances of rows that lie one after the other: `out[r]` is that of row `r`.
    ///
    /// * L2: the Euclidean distance (not its square).
    /// * Cosine: 1 - cos, between 0 and 2.
    /// * Dot: the negative inner product.
    ///
    /// Rows must be acceptable to the metric ([`Metric::check`]); of others the distance may be
    /// NaN. O(rows x dimension); large batches are read once from memory.
    ///
    /// # Panics
    /// If `rows` does not hold exactly `out.len()` rows.
    pub fn distances(&self, rows: &[f32], out: &mut [f32]) {
        let dim = self.dim();
        assert_eq!(
            rows.len(),
            dim * out.len(),
            "rows of {dim} elements for every distance"
        );
        match self.metric {
            Metric::L2 => {
                self.kernels.l2_squared(&self.query, rows, out);
                for (out, row) in out.iter_mut().zip(rows.chunks_exact(dim)) {
                    *out = self.euclidean(*out, row);
                }
            }
            Metric::Dot => {
                self.kernels.dot(&self.query, rows, out);
                for (out, row) in out.iter_mut().zip(rows.chunks_exact(dim)) {
                    *out = self.negative_dot(*out, row);
                }
            }
            Metric::Cosine => {
                // Block by block: the pass for the norms finds the rows in the cache.
                let block = block_rows(dim);
                let mut norms = [0.0; BLOCK_ROWS_MAX];
                for (rows, out) in rows.chunks(block * dim).zip(out.chunks_mut(block)) {
                    let norms = &mut norms[..out.len()];
                    self.kernels.dot(&self.query, rows, out);
                    self.kernels.norm_squared(dim, rows, norms);
                    let rows = rows.chunks_exact(dim);
                    for ((out, &norm_squared), row) in out.iter_mut().zip(&*norms).zip(rows) {
                        *out = self.cosine(*out, norm_squared, row);
                    }
                }
            }
        }
    }

    /// The Euclidean distance from a kernel's sum. The root fits in `f32` even where the sum does
    /// not: both norms are below 2^64.
    #[inline]
    fn euclidean(&self, sum: f32, row: &[f32]) -> f32 {
        if is_plain(sum) {
            sum.sqrt()
        } else {
            self.wide_euclidean(row)
        }
    }

    #[cold]
    fn wide_euclidean(&self, row: &[f32]) -> f32 {
        wide::l2_squared(&self.query, row).sqrt() as f32
    }

    /// The negative inner product from a kernel's sum. A sum that vanished is right to 2^-135,
    /// which is as good as a distance of any sign gets; one that overflowed is bounded by the
    /// product of the norms (Cauchy and Schwarz), which `f32` holds.
    #[inline]
    fn negative_dot(&self, sum: f32, row: &[f32]) -> f32 {
        let sum = if sum.is_finite() {
            sum
        } else {
            self.wide_dot(row)
        };
        // Not `-sum`, which is -0 for 0 (D1).
        0.0 - sum
    }

    #[cold]
    fn wide_dot(&self, row: &[f32]) -> f32 {
        wide::dot(&self.query, row) as f32
    }

    /// One minus the cosine, from a kernel's inner product with the unit query and the row's
    /// squared norm. Rounding may carry a cosine beyond 1, hence the bounds.
    #[inline]
    fn cosine(&self, dot: f32, norm_squared: f32, row: &[f32]) -> f32 {
        let cosine = if is_plain(norm_squared) {
            dot / norm_squared.sqrt()
        } else {
            self.wide_cosine(row)
        };
        (1.0 - cosine).clamp(0.0, 2.0)
    }

    #[cold]
    fn wide_cosine(&self, row: &[f32]) -> f32 {
        (wide::dot(&self.query, row) / wide::norm_squared(row).sqrt()) as f32
    }
}

/// Whether a sum of squares neither overflowed nor came near to vanishing. False for NaN.
#[inline]
fn is_plain(sum: f32) -> bool {
    (VANISHING..=f32::MAX).contains(&sum)
}
