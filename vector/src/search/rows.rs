//! Rows of candidates: read by lower bound, measured, kept if they are among the nearest.

use super::{Candidate, Search, may_hit};
use crate::error::VectorError;
use crate::record::{RowId, Vver};
use crate::store::PostingStore;

/// Rows that are read at once.
const ROW_BATCH: usize = 16;

impl<S: PostingStore> Search<'_, S> {
    /// The score of the k-th nearest row so far.
    pub(super) fn exact_threshold(&self) -> f32 {
        self.index.space().score(self.state.nearest.threshold())
    }

    /// Reads the rows of all candidates that may be hits.
    pub(super) fn measure_candidates(&mut self) -> Result<(), S::Error> {
        let mut candidates = std::mem::take(&mut self.scratch.candidates);
        // The bounds of those to come have lowered the threshold since most were kept.
        let threshold = self.state.uppers.threshold();
        candidates.retain(|candidate| may_hit(candidate.lower, threshold));
        let measured = self.measure(&mut candidates);
        self.scratch.candidates = candidates;
        measured
    }

    /// Reads rows, the least lower bound first, until none can be a hit.
    pub(super) fn measure(&mut self, candidates: &mut [Candidate]) -> Result<(), S::Error> {
        candidates.sort_unstable_by(|a, b| {
            let order = a.lower.total_cmp(&b.lower);
            order.then((a.row, a.vver).cmp(&(b.row, b.vver)))
        });
        let (mut wanted, mut rows) = ([(RowId(0), Vver(0)); ROW_BATCH], [RowId(0); ROW_BATCH]);
        let mut rest = &candidates[..];
        while !rest.is_empty() {
            // Entries whose upper bounds made the threshold are among the candidates: all that can
            // be a hit lies below both thresholds, or the check at the end finds out (V2).
            let threshold = self.exact_threshold().min(self.state.uppers.threshold());
            let mut count = 0;
            while let Some((candidate, others)) = rest.split_first()
                && count < ROW_BATCH
            {
                rest = others;
                let pair = (candidate.row, candidate.vver);
                let known =
                    self.state.measured.contains(&pair.0) || wanted[..count].contains(&pair);
                if !known && may_hit(candidate.lower, threshold) {
                    (wanted[count], rows[count]) = (pair, pair.0);
                    count += 1;
                }
            }
            if count > 0 {
                self.read(&wanted[..count], &rows[..count])?;
            }
        }
        Ok(())
    }

    /// Reads some rows and measures those that the store shows with the version wanted.
    fn read(&mut self, wanted: &[(RowId, Vver)], rows: &[RowId]) -> Result<(), S::Error> {
        self.state.found.rows += rows.len();
        let (prepared, space) = (self.prepared, self.index.space());
        let (nearest, measured) = (&mut self.state.nearest, &mut self.state.measured);
        let uppers = &mut self.state.uppers;
        self.store.rows(rows, &mut |row, vver, vector| {
            // V1: another version is another vector; its own entry leads to it.
            if !wanted.contains(&(row, vver)) || !measured.insert(row) {
                return Ok(());
            }
            if vector.len() != prepared.dim() {
                let (expected, found) = (prepared.dim(), vector.len());
                return Err(VectorError::Dimension { expected, found });
            }
            let distance = prepared.distance(vector);
            nearest.push(distance, row);
            uppers.push(space.score(distance), row);
            Ok(())
        })
    }
}
