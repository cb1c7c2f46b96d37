//! Where few rows match a filter: each of them is measured.
//!
//! ```text
//! every posting: blocks: ids -> columns: not refused -+-> marks -> matches -> rows.rs: all rows
//!                tails: not refused ------------------+
//! ```
//!
//! No code is looked at and no bound decides, so the answer is exact. It costs a look at the
//! columns of all entries, and the rows that match. Where more may match than [`MATCHES_MAX`],
//! among them those that only their row can tell about, bounds are the cheaper way after all.

use super::{Candidate, Outcome, Search, Stop};
use crate::centroid::{CentroidSet, Probe};
use crate::filter::{Admit, MATCHES_MAX};
use crate::record::{
    Block, BlockIds, Columns, Head, Key, Mark, RecordError, RowId, TailEntry, Vver,
};
use crate::store::PostingStore;

/// The entries of a block, until the columns of all blocks of its posting were visited.
#[derive(Debug)]
pub(super) struct Waiting {
    block: u32,
    seal: u32,
    ids: BlockIds,
    /// A bit for each slot that is not refused.
    left: u32,
}

impl Candidate {
    /// An entry that no bound tells anything about.
    fn unbounded(row: RowId, vver: Vver) -> Self {
        Self {
            lower: f32::NEG_INFINITY,
            upper: f32::INFINITY,
            row,
            vver,
            place: None,
            asked: Admit::AskRow,
            rank: 0,
        }
    }
}

impl<S: PostingStore> Search<'_, S> {
    /// Measures every row that matches, if they are few.
    pub(super) fn every_match(&mut self, set: &CentroidSet) -> Result<Outcome, S::Error> {
        self.state.found.all_matches = true;
        let mut next = Some(self.unassigned_probe());
        let mut order = set.probes(self.code, std::mem::take(&mut self.scratch.order));
        while let Some(probe) = next {
            if let Some(coming) = order.coming() {
                self.store.expect(coming);
            }
            if !self.matches_of(probe, set)? {
                return Ok(Outcome::Restart);
            }
            if self.scratch.candidates.len() > MATCHES_MAX {
                return Ok(Outcome::ManyMatch);
            }
            next = order.next();
        }
        self.scratch.order = order.into_room();
        self.measure_candidates()?;
        Ok(Outcome::Done(Stop::Complete))
    }

    /// Puts the entries of a posting that may match to the candidates. False if it lacks entries
    /// that the pinned epoch may need.
    fn matches_of(&mut self, probe: Probe, set: &CentroidSet) -> Result<bool, S::Error> {
        self.scratch.fresh.clear();
        self.scratch.marks.clear();
        self.scratch.waiting.clear();
        let (mut head, store) = (None, self.store);
        store.posting(probe.id, &mut |key, value| {
            match key {
                Key::Head(_) => head = Some(Head::decode(value)?),
                Key::Block(_, number) => self.wait(number, value)?,
                Key::Columns(_, number) => self.ask(number, value)?,
                Key::Tail(_, row, vver) => self.ask_tail(row, vver, value)?,
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
        for waiting in &self.scratch.waiting {
            let mut left = waiting.left;
            while left != 0 {
                let (row, vver) = waiting.ids.slot(left.trailing_zeros() as usize);
                left &= left - 1;
                self.scratch.fresh.push(Candidate::unbounded(row, vver));
            }
        }
        self.drop_gone(set.epoch());
        let scratch = &mut *self.scratch;
        scratch.candidates.append(&mut scratch.fresh);
        Ok(true)
    }

    /// Keeps a block's entries until their columns come, after the last block.
    fn wait(&mut self, block: u32, value: &[u8]) -> Result<(), RecordError> {
        let entries = Block::decode(value, self.index.space().code_dim())?;
        self.scratch.waiting.push(Waiting {
            block,
            seal: entries.seal(),
            ids: entries.ids(),
            left: u32::MAX >> (32 - entries.used()),
        });
        Ok(())
    }

    /// Asks the filter about the entries of a block. Columns of another fold than the block's tell
    /// of other entries: all of its own are left then.
    fn ask(&mut self, block: u32, value: &[u8]) -> Result<(), RecordError> {
        let columns = Columns::decode(value)?;
        let waiting = &mut self.scratch.waiting;
        let Ok(at) = waiting.binary_search_by_key(&block, |waiting| waiting.block) else {
            return Ok(());
        };
        let waiting = &mut waiting[at];
        if waiting.seal != columns.seal() {
            return Ok(());
        }
        for slot in 0..columns.used() {
            let refused = self.store.admits(columns.slot(slot)) == Admit::No;
            waiting.left &= !(u32::from(refused) << slot);
        }
        self.state.found.asked += columns.used();
        Ok(())
    }

    fn ask_tail(&mut self, row: RowId, vver: Vver, value: &[u8]) -> Result<(), RecordError> {
        let entry = TailEntry::decode(value, self.index.space().code_dim())?;
        self.state.found.asked += 1;
        if self.store.admits(entry.columns) != Admit::No {
            self.scratch.fresh.push(Candidate::unbounded(row, vver));
        }
        Ok(())
    }
}
