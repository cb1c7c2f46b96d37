//! Candidates: the second stage by their extra bits, then their rows, measured and kept if they are
//! among the nearest.

use std::cmp::Ordering;

use super::{Candidate, Search, may_hit};
use crate::error::VectorError;
use crate::record::{Extra, RowId, Vver};
use crate::store::PostingStore;

/// Rows that are read at once.
const ROW_BATCH: usize = 16;

/// The least lower bound first.
fn by_lower(a: &Candidate, b: &Candidate) -> Ordering {
    let order = a.lower.total_cmp(&b.lower);
    order.then((a.row, a.vver).cmp(&(b.row, b.vver)))
}

impl<S: PostingStore> Search<'_, S> {
    /// The score of the k-th nearest row so far.
    pub(super) fn exact_threshold(&self) -> f32 {
        self.index.space().score(self.state.nearest.threshold())
    }

    /// Reads the rows of all candidates that may be hits.
    pub(super) fn measure_candidates(&mut self) -> Result<(), S::Error> {
        let mut candidates = std::mem::take(&mut self.scratch.candidates);
        // The bounds of those to come have lowered the threshold since most were kept.
        let threshold = self.threshold();
        candidates.retain(|candidate| may_hit(candidate.lower, threshold));
        let measured = self.measure(&mut candidates);
        self.scratch.candidates = candidates;
        measured
    }

    /// Reads rows, the least lower bound first, until none can be a hit. Extra bits, where there
    /// are some, tell most of a batch off before.
    pub(super) fn measure(&mut self, candidates: &mut [Candidate]) -> Result<(), S::Error> {
        candidates.sort_unstable_by(by_lower);
        let mut batch = std::mem::take(&mut self.scratch.batch);
        let mut rest = &candidates[..];
        while !rest.is_empty() {
            batch.clear();
            let threshold = self.threshold();
            while let Some((candidate, others)) = rest.split_first()
                && batch.len() < ROW_BATCH
            {
                rest = others;
                let known = self.state.measured.contains(&candidate.row);
                let known = known && !planted!("a_hit_for_each_copy");
                if !known && may_hit(candidate.lower, threshold) {
                    batch.push(*candidate);
                }
            }
            self.second_stage(&mut batch)?;
            self.read(&mut batch)?;
        }
        self.scratch.batch = batch;
        Ok(())
    }

    /// Tighter bounds for entries of blocks, from their extra bits; one record holds those of
    /// several slots.
    pub(super) fn second_stage(&mut self, batch: &mut [Candidate]) -> Result<(), S::Error> {
        if !self.index.has_extra() {
            return Ok(());
        }
        let group = |c: &Candidate| {
            let place = c.place?;
            Some((c.rank, Extra::group(place.block, usize::from(place.slot))))
        };
        batch.sort_unstable_by_key(group);
        for same in batch.chunk_by(|a, b| group(a) == group(b)) {
            if let Some((rank, number)) = group(&same[0]) {
                let id = self.scratch.probes[rank as usize].id;
                self.store.expect_extra(id, number);
            }
        }
        let (code, dim) = (self.code, self.index.space().code_dim());
        for same in batch.chunk_by_mut(|a, b| group(a) == group(b)) {
            let Some((rank, number)) = group(&same[0]) else {
                continue;
            };
            let probe = self.scratch.probes[rank as usize];
            let mut looked = 0;
            self.store.extra(probe.id, number, &mut |_, value| {
                let extra = Extra::decode(value, dim)?;
                for candidate in &mut *same {
                    // A fold may have given the slots other entries since the block was read.
                    let place = candidate.place.filter(|place| {
                        place.seal == extra.seal() || planted!("extra_bits_of_another_fold")
                    });
                    let slot = place.and_then(|place| {
                        let (factors, planes) = extra.slot(usize::from(place.slot))?;
                        Some((place.product, planes, factors))
                    });
                    if let Some((product, planes, factors)) = slot {
                        let estimate = code.extra(product, planes, factors, probe.centred, false);
                        (candidate.lower, candidate.upper) = (estimate.lower(), estimate.upper());
                        candidate.place = None;
                        looked += 1;
                    }
                }
                Ok(())
            })?;
            self.state.found.second_stage += looked;
        }
        Ok(())
    }

    /// Reads rows and measures those that the store shows with the version wanted.
    fn read(&mut self, batch: &mut Vec<Candidate>) -> Result<(), S::Error> {
        let threshold = self.threshold();
        batch.retain(|candidate| may_hit(candidate.lower, threshold));
        batch.sort_unstable_by_key(|candidate| (candidate.row, candidate.vver));
        batch.dedup_by_key(|candidate| (candidate.row, candidate.vver));
        if batch.is_empty() {
            return Ok(());
        }
        let mut rows = [RowId(0); ROW_BATCH];
        for (row, candidate) in rows.iter_mut().zip(&*batch) {
            *row = candidate.row;
        }
        let rows = &rows[..batch.len()];
        let wanted = |row: RowId, vver: Vver| {
            let pair = (row, vver);
            batch
                .binary_search_by_key(&pair, |c| (c.row, c.vver))
                .is_ok()
        };
        self.state.found.rows += rows.len();
        let (prepared, space) = (self.prepared, self.index.space());
        let (nearest, measured) = (&mut self.state.nearest, &mut self.state.measured);
        let uppers = &mut self.state.uppers;
        self.store.rows(rows, &mut |row, vver, vector| {
            // V1: another version is another vector; its own entry leads to it.
            let right = wanted(row, vver) || planted!("any_version_of_a_row");
            let each = planted!("a_hit_for_each_copy");
            if !right || !measured.insert(row) && !each {
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
