//! What an index is made with, and the ranges of it.

use crate::limits::{CODE_DIM_STEP, MAX_DIM};
use crate::metric::Metric;
use crate::store::IndexError;

/// What an index is made with; stored in its meta record and never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexParams {
    /// How near is measured.
    pub metric: Metric,
    /// Elements of a vector.
    pub dim: usize,
    /// Seed of the rotation and of clustering.
    pub seed: u64,
    /// Three further bits for each dimension as a second stage, besides the first.
    pub extra_bits: bool,
    /// Postings that a row stands in, 1 to 4.
    pub replicas: usize,
    /// Entries of a posting at most, 8 or more.
    pub posting_max: usize,
    /// Entries carry filter columns, where the host gives them.
    pub columns: bool,
}

/// Entries whose blocks fill a page: of short vectors more, since a posting costs a look-up, a
/// centre and half an empty block, however little is in it: 200,000 rows of 128 dimensions take
/// 8 % less room with 217 than with 112, and half as many centres.
fn posting_max(dim: usize) -> usize {
    const PAGE: usize = 7400;
    let entry = dim.next_multiple_of(CODE_DIM_STEP) / 8 + 18;
    (PAGE / entry).clamp(112, 224)
}

impl IndexParams {
    /// The defaults: second stage, one posting for a row, postings that fit a page of 8 KiB (of
    /// 112 to 224 entries), no filter columns.
    #[must_use]
    pub fn new(metric: Metric, dim: usize, seed: u64) -> Self {
        Self {
            metric,
            dim,
            seed,
            extra_bits: true,
            replicas: 1,
            posting_max: posting_max(dim),
            columns: false,
        }
    }

    /// # Errors
    /// [`IndexError::Parameter`] for one outside its range.
    pub(crate) fn check(&self) -> Result<(), IndexError> {
        let checks = [
            ("dim", (1..=MAX_DIM).contains(&self.dim), "1 to 16,384"),
            ("replicas", (1..=4).contains(&self.replicas), "1 to 4"),
            (
                "posting_max",
                (8..=1 << 20).contains(&self.posting_max),
                "8 to 2^20",
            ),
        ];
        match checks.into_iter().find(|(_, fits, _)| !fits) {
            Some((name, _, expected)) => Err(IndexError::Parameter { name, expected }),
            None => Ok(()),
        }
    }

    /// Entries below which a posting is too small to keep: an eighth of the most.
    pub(crate) fn posting_min(&self) -> usize {
        self.posting_max / 8
    }
}
