//! Reading one posting: its entries by their bounds, then by filter and marks.

use super::{Candidate, Place, Search, may_hit};
use crate::centroid::{CentroidSet, Probe};
use crate::code::Factors;
use crate::filter::Admit;
use crate::kernel::Bounding;
use crate::record::{
    Block, Columns, Head, Key, Mark, PostingId, RecordError, RowId, TailEntry, Vver,
};
use crate::store::{IndexError, PostingStore};

/// Entries whose extra bits are read at once.
const BUNCH: usize = 8;

impl Candidate {
    /// The estimate of its score.
    fn middle(&self) -> f32 {
        self.lower + (self.upper - self.lower) / 2.0
    }
}

impl<S: PostingStore> Search<'_, S> {
    /// Reads a posting. False if it lacks entries that the pinned epoch may need.
    pub(crate) fn posting(&mut self, probe: Probe, set: &CentroidSet) -> Result<bool, S::Error> {
        self.scratch.fresh.clear();
        self.scratch.marks.clear();
        self.scratch.probes.push(probe);
        let mut head = None;
        let store = self.store;
        let with = self.code.bounding(probe.centred, self.threshold());
        store.posting(probe.id, &mut |key, value| {
            match key {
                Key::Head(_) => head = Some(Head::decode(value)?),
                Key::Block(_, number) => self.block(number, value, probe, &with)?,
                Key::Columns(_, number) => self.columns(number, value)?,
                Key::Tail(_, row, vver) => self.tail(row, vver, value, probe)?,
                Key::Mark(_, row, vver) => {
                    self.scratch.marks.push((row, vver, Mark::decode(value)?));
                }
                _ => {}
            }
            Ok(())
        })?;
        self.state.found.postings += 1;
        if !self.stands(head, probe.id, set)? {
            return Ok(false);
        }
        self.drop_gone(set.epoch());
        self.sort_out()?;
        self.refine()?;
        self.keep()?;
        Ok(true)
    }

    /// Whether a posting with this head holds what the snapshot and the pinned epoch may need.
    pub(super) fn stands(
        &self,
        head: Option<Head>,
        posting: PostingId,
        set: &CentroidSet,
    ) -> Result<bool, S::Error> {
        let head = match head {
            Some(head) => head,
            // The unassigned posting has no head before a fold.
            None if posting == PostingId::UNASSIGNED => Head::default(),
            None => return Ok(false),
        };
        if head.lacks_since > set.epoch() && !planted!("lacks_since_not_looked_at") {
            return Ok(false);
        }
        let (snapshot, horizon) = (self.store.snapshot(), head.fold_horizon);
        if snapshot < horizon && !planted!("fold_horizon_not_looked_at") {
            let old = IndexError::SnapshotTooOld {
                posting,
                snapshot,
                horizon,
            };
            return Err(old.into());
        }
        Ok(true)
    }

    fn block(
        &mut self,
        block: u32,
        value: &[u8],
        probe: Probe,
        with: &Bounding,
    ) -> Result<(), RecordError> {
        let entries = Block::decode(value, self.index.space().code_dim())?;
        let factors = entries.factor_bytes();
        let scanned = &mut self.scratch.scanned;
        let mask = self.code.judge(entries.codes(), factors, with, scanned);
        self.state.found.scanned += entries.used();
        let mut left = mask & u32::MAX >> (32 - entries.used());
        while left != 0 {
            let slot = left.trailing_zeros() as usize;
            left &= left - 1;
            let product = self.code.product(scanned.sums[slot]);
            let factors = Factors::of_block(factors, slot);
            let estimate = self.code.of_scan(product, factors, probe.centred);
            let (slot, row) = (slot as u8, entries.row(slot));
            self.scratch.fresh.push(Candidate {
                lower: estimate.lower(),
                upper: estimate.upper(),
                row,
                vver: entries.vver(usize::from(slot)),
                place: Some(Place {
                    block,
                    slot,
                    seal: entries.seal(),
                    product,
                }),
                asked: Admit::AskRow,
                rank: self.state.found.postings as u32,
            });
        }
        Ok(())
    }

    /// Asks the filter about what is left of a block, which was visited before.
    fn columns(&mut self, number: u32, value: &[u8]) -> Result<(), RecordError> {
        if !self.filtered {
            return Ok(());
        }
        let mut columns = None;
        for candidate in &mut self.scratch.fresh {
            let Some(place) = candidate.place.filter(|place| place.block == number) else {
                continue;
            };
            let columns = match &columns {
                Some(columns) => columns,
                None => columns.insert(Columns::decode(value)?),
            };
            if columns.seal() != place.seal {
                continue;
            }
            let other = usize::from(planted!("columns_of_another_slot"));
            let columns = columns.slot(usize::from(place.slot) ^ other);
            candidate.asked = self.store.admits(columns);
            self.state.found.asked += 1;
        }
        Ok(())
    }

    fn tail(
        &mut self,
        row: RowId,
        vver: Vver,
        value: &[u8],
        probe: Probe,
    ) -> Result<(), RecordError> {
        let entry = TailEntry::decode(value, self.index.space().code_dim())?;
        self.state.found.scanned += 1;
        let (product, mut estimate) = self.code.single(entry.code, entry.factors, probe.centred);
        let threshold = self.threshold();
        if !may_hit(estimate.lower(), threshold) {
            return Ok(());
        }
        let mut asked = Admit::AskRow;
        if self.filtered {
            asked = self.store.admits(entry.columns);
            self.state.found.asked += 1;
            if asked == Admit::No {
                self.state.judged += 1;
                return Ok(());
            }
        }
        if let Some((factors, planes)) = entry.extra {
            self.state.found.second_stage += 1;
            let centred = probe.centred;
            estimate = self.code.extra(product, planes, factors, centred, true);
        }
        if may_hit(estimate.lower(), threshold) {
            self.scratch.fresh.push(Candidate {
                lower: estimate.lower(),
                upper: estimate.upper(),
                row,
                vver,
                place: None,
                asked,
                rank: self.state.found.postings as u32,
            });
        }
        Ok(())
    }

    /// Drops entries that their posting's marks call gone. Marks are sorted by key. A dead entry of
    /// an older snapshot counts there; a moved one counts for the epochs before the move.
    pub(super) fn drop_gone(&mut self, epoch: u64) {
        let snapshot = self.store.snapshot();
        let (marks, fresh) = (&self.scratch.marks, &mut self.scratch.fresh);
        if marks.is_empty() {
            return;
        }
        fresh.retain(|candidate| {
            let pair = (candidate.row, candidate.vver);
            let mark = marks.binary_search_by_key(&pair, |mark| (mark.0, mark.1));
            !mark.is_ok_and(|at| match marks[at].2 {
                Mark::Dead(ts) => ts <= snapshot || planted!("marks_of_the_future"),
                Mark::Moved(at) => at <= epoch,
            })
        });
    }

    /// Drops what the filter refused, and measures what only a row can tell about.
    fn sort_out(&mut self) -> Result<(), S::Error> {
        if let Some(except) = self.state.except {
            self.scratch.fresh.retain(|c| c.row != except);
        }
        if !self.filtered && !self.state.eager {
            for candidate in &mut self.scratch.fresh {
                candidate.asked = Admit::Yes;
            }
            return Ok(());
        }
        let eager = self.state.eager;
        let (fresh, unsure) = (&mut self.scratch.fresh, &mut self.scratch.unsure);
        unsure.clear();
        let (judged, admitted) = (&mut self.state.judged, &mut self.state.admitted);
        fresh.retain(|candidate| match candidate.asked {
            Admit::No => {
                *judged += 1;
                false
            }
            Admit::Yes if !eager => {
                *judged += 1;
                *admitted += 1;
                true
            }
            Admit::Yes | Admit::AskRow => {
                unsure.push(*candidate);
                false
            }
        });
        Ok(())
    }

    /// The second stage for entries that may lower the threshold, the likeliest first.
    fn refine(&mut self) -> Result<(), S::Error> {
        let mut fresh = std::mem::take(&mut self.scratch.fresh);
        let mut rest = &mut fresh[..];
        if self.index.has_extra() {
            rest.sort_unstable_by(|a, b| a.middle().total_cmp(&b.middle()));
            loop {
                let threshold = self.threshold();
                let likely = |c: &&Candidate| c.middle() <= threshold;
                let count = rest.iter().take(BUNCH).take_while(likely).count();
                if count == 0 {
                    break;
                }
                let (now, later) = rest.split_at_mut(count);
                self.second_stage(now)?;
                for candidate in now {
                    self.state.uppers.push(candidate.upper, candidate.row);
                }
                rest = later;
            }
        }
        for candidate in rest {
            self.state.uppers.push(candidate.upper, candidate.row);
        }
        self.scratch.fresh = fresh;
        Ok(())
    }

    /// Puts what may still be a hit to the candidates of all postings.
    fn keep(&mut self) -> Result<(), S::Error> {
        let threshold = self.threshold();
        let scratch = &mut *self.scratch;
        let hopeful = scratch.fresh.iter().filter(|c| may_hit(c.lower, threshold));
        scratch.candidates.extend(hopeful);
        if scratch.unsure.is_empty() {
            return Ok(());
        }
        let mut unsure = std::mem::take(&mut scratch.unsure);
        let before = (self.state.found.rows, self.state.measured.len());
        let measured = self.measure(&mut unsure);
        unsure.clear();
        self.scratch.unsure = unsure;
        self.state.judged += self.state.found.rows - before.0;
        self.state.admitted += self.state.measured.len() - before.1;
        measured
    }
}
