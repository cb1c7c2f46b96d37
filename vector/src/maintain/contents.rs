//! All that a posting holds, taken out of its records and put back into blocks.
//!
//! Read by the jobs that rewrite a posting or empty it. Codes and payloads lie in one buffer, so
//! that a posting costs a few allocations and not a few for each entry.
//!
//! Invariant: P1. Blocks are numbered from 0 without a gap and only the last one is not full, but
//! for a fold's drops; entries stand in the order of their blocks, then the tail by row.

use crate::build::put_sealed;
use crate::code::Factors;
use crate::index::VectorIndex;
use crate::limits::{BLOCK_SLOTS, EXTRA_BITS, GROUP_SLOTS};
use crate::record::{
    Block, BlockBuilder, Columns, Extra, Head, Key, Mark, PostingId, RowId, TailEntry, Vver,
};
use crate::store::{PostingStore, Write};

/// An entry; its bytes are elsewhere.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) row: RowId,
    pub(crate) vver: Vver,
    factors: Factors,
    /// Where its code begins.
    code: usize,
    /// Factors of the extra bits, and where the planes begin.
    extra: Option<(Factors, usize)>,
    /// Where its filter columns begin, and their length.
    columns: Option<(usize, usize)>,
}

/// All that a posting holds.
#[derive(Debug)]
pub(crate) struct Contents {
    id: PostingId,
    dim: usize,
    /// `None` if the posting is gone, or is the unassigned one and never had entries sealed.
    pub(crate) head: Option<Head>,
    /// Slots used, by block.
    blocks: Vec<usize>,
    /// Those of the blocks, then those of the tail.
    pub(crate) entries: Vec<Entry>,
    /// Entries in blocks.
    pub(crate) sealed: usize,
    /// In the order of rows and versions.
    marks: Vec<(RowId, Vver, Mark)>,
    bytes: Vec<u8>,
}

impl Contents {
    /// Reads everything but the extra bits of blocks. O(entries x dimension / 8).
    pub(crate) fn read<S: PostingStore>(
        store: &S,
        id: PostingId,
        dim: usize,
    ) -> Result<Self, S::Error> {
        let mut all = Self {
            id,
            dim,
            head: None,
            blocks: Vec::new(),
            entries: Vec::new(),
            sealed: 0,
            marks: Vec::new(),
            bytes: Vec::new(),
        };
        let mut starts: Vec<(u32, usize)> = Vec::new();
        store.posting(id, &mut |key, value| {
            match key {
                Key::Head(_) => all.head = Some(Head::decode(value)?),
                Key::Block(_, number) => {
                    starts.push((number, all.entries.len()));
                    all.unpack(&Block::decode(value, dim)?);
                }
                Key::Columns(_, number) => {
                    let columns = Columns::decode(value)?;
                    if let Ok(at) = starts.binary_search_by_key(&number, |start| start.0) {
                        let (start, used) = (starts[at].1, all.blocks[at]);
                        for slot in 0..used {
                            let place = columns.slot(slot).map(|bytes| all.keep(bytes));
                            all.entries[start + slot].columns = place;
                        }
                    }
                }
                Key::Tail(_, row, vver) => all.tail(row, vver, TailEntry::decode(value, dim)?),
                Key::Mark(_, row, vver) => all.marks.push((row, vver, Mark::decode(value)?)),
                _ => {}
            }
            Ok(())
        })?;
        Ok(all)
    }

    /// Copies bytes; where they are now.
    fn keep(&mut self, bytes: &[u8]) -> (usize, usize) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        (start, bytes.len())
    }

    fn unpack(&mut self, block: &Block<'_>) {
        for slot in 0..block.used() {
            let code = self.bytes.len();
            block.code(slot, &mut self.bytes);
            self.entries.push(Entry {
                row: block.row(slot),
                vver: block.vver(slot),
                factors: block.factors(slot),
                code,
                extra: None,
                columns: None,
            });
        }
        self.blocks.push(block.used());
        self.sealed = self.entries.len();
    }

    fn tail(&mut self, row: RowId, vver: Vver, entry: TailEntry<'_>) {
        let (code, _) = self.keep(entry.code);
        let extra = entry
            .extra
            .map(|(factors, planes)| (factors, self.keep(planes).0));
        let columns = entry.columns.map(|bytes| self.keep(bytes));
        let factors = entry.factors;
        self.entries.push(Entry {
            row,
            vver,
            factors,
            code,
            extra,
            columns,
        });
    }

    /// Reads the extra bits of the blocks from one on, as far as there are some.
    pub(crate) fn read_extra<S: PostingStore>(
        &mut self,
        store: &S,
        from: usize,
    ) -> Result<(), S::Error> {
        let (id, dim) = (self.id, self.dim);
        let mut start: usize = self.blocks[..from.min(self.blocks.len())].iter().sum();
        for number in from..self.blocks.len() {
            let used = self.blocks[number];
            for first in (0..used).step_by(GROUP_SLOTS) {
                store.extra(id, Extra::group(number as u32, first), &mut |_, value| {
                    let extra = Extra::decode(value, dim)?;
                    for slot in first..used.min(first + GROUP_SLOTS) {
                        if let Some((factors, planes)) = extra.slot(slot) {
                            let place = self.keep(planes).0;
                            self.entries[start + slot].extra = Some((factors, place));
                        }
                    }
                    Ok(())
                })?;
            }
            start += used;
        }
        Ok(())
    }

    /// The bytes of an entry.
    pub(crate) fn entry(&self, at: usize) -> TailEntry<'_> {
        let entry = &self.entries[at];
        let planes = EXTRA_BITS * self.dim / 8;
        let bytes = |start: usize, len: usize| &self.bytes[start..start + len];
        TailEntry {
            factors: entry.factors,
            code: bytes(entry.code, self.dim / 8),
            extra: entry
                .extra
                .map(|(factors, at)| (factors, bytes(at, planes))),
            columns: entry.columns.map(|(start, len)| bytes(start, len)),
        }
    }

    /// The mark of an entry. O(log marks).
    pub(crate) fn mark(&self, row: RowId, vver: Vver) -> Option<Mark> {
        let at = self
            .marks
            .binary_search_by_key(&(row, vver), |mark| (mark.0, mark.1));
        at.ok().map(|at| self.marks[at].2)
    }

    pub(crate) fn id(&self) -> PostingId {
        self.id
    }

    pub(crate) fn marks(&self) -> impl Iterator<Item = Mark> {
        self.marks.iter().map(|mark| mark.2)
    }

    /// What has a mark.
    pub(crate) fn marked(&self) -> impl Iterator<Item = (RowId, Vver)> {
        self.marks.iter().map(|mark| (mark.0, mark.1))
    }

    /// Slots used, by block.
    pub(crate) fn block_sizes(&self) -> &[usize] {
        &self.blocks
    }

    /// Where an entry stands. O(entries).
    pub(crate) fn find(&self, row: RowId, vver: Vver) -> Option<usize> {
        let is = |entry: &Entry| entry.row == row && entry.vver == vver;
        self.entries.iter().position(is)
    }

    /// How many of these entries stand in the tail.
    pub(crate) fn tail_of(&self, places: &[usize]) -> usize {
        places.iter().filter(|&&at| at >= self.sealed).count()
    }

    /// The block that a sealed entry stands in.
    fn block_of(&self, at: usize) -> usize {
        let mut end = 0;
        let holds = |used: &usize| {
            end += used;
            at < end
        };
        self.blocks
            .iter()
            .position(holds)
            .unwrap_or(self.blocks.len())
    }

    /// Moves the tail into blocks and leaves out the entries of `dropped`, in rising order. Blocks
    /// before the first that changes stay as they are, others are of the new generation. The marks
    /// of what is left out go too; the head is the caller's.
    pub(crate) fn repack<S: PostingStore>(
        &mut self,
        index: &VectorIndex,
        store: &S,
        generation: u64,
        dropped: &[usize],
        writes: &mut Vec<Write>,
    ) -> Result<(), S::Error> {
        let open = match self.blocks.last() {
            Some(&used) if used < BLOCK_SLOTS => self.blocks.len() - 1,
            _ => self.blocks.len(),
        };
        let first_drop = dropped.first().map_or(open, |&at| self.block_of(at));
        let from = first_drop.min(open);
        self.read_extra(store, from)?;
        let start: usize = self.blocks[..from].iter().sum();
        let (id, mut number) = (self.id, from);
        let mut block = BlockBuilder::new(self.dim, generation);
        let mut used = Vec::new();
        let kept = (start..self.entries.len()).filter(|at| dropped.binary_search(at).is_err());
        let kept: Vec<usize> = kept.collect();
        for (place, &at) in kept.iter().enumerate() {
            let entry = &self.entries[at];
            block.push(entry.row, entry.vver, &self.entry(at));
            if block.is_full() || place + 1 == kept.len() {
                let full = std::mem::replace(&mut block, BlockBuilder::new(self.dim, generation));
                used.push(if place + 1 == kept.len() {
                    kept.len() - BLOCK_SLOTS * used.len()
                } else {
                    BLOCK_SLOTS
                });
                put_sealed(id, number as u32, full, writes);
                number += 1;
            }
        }
        self.delete_rest(index, from, &used, writes);
        for entry in &self.entries[self.sealed..] {
            writes.push(Write::delete(Key::Tail(id, entry.row, entry.vver)));
        }
        for &at in dropped {
            let Entry { row, vver, .. } = self.entries[at];
            if self.mark(row, vver).is_some() {
                writes.push(Write::delete(Key::Mark(id, row, vver)));
            }
        }
        Ok(())
    }

    /// Deletes what old blocks from `from` on have beyond the new ones.
    fn delete_rest(
        &self,
        index: &VectorIndex,
        from: usize,
        used: &[usize],
        writes: &mut Vec<Write>,
    ) {
        for (place, &old) in self.blocks[from..].iter().enumerate() {
            let (id, number) = (self.id, (from + place) as u32);
            let new = used.get(place).copied().unwrap_or(0);
            if new == 0 {
                writes.push(Write::delete(Key::Block(id, number)));
                if index.params().columns {
                    writes.push(Write::delete(Key::Columns(id, number)));
                }
            }
            if index.has_extra() {
                for slot in (new.next_multiple_of(GROUP_SLOTS)..old).step_by(GROUP_SLOTS) {
                    let group = Extra::group(number, slot);
                    writes.push(Write::delete(Key::Extra(id, group)));
                }
            }
        }
    }

    /// Deletes every record of the posting but its centroid and its job; the head first, so that
    /// a search that comes now finds the posting gone.
    pub(crate) fn delete_all(&self, index: &VectorIndex, writes: &mut Vec<Write>) {
        writes.push(Write::delete(Key::Head(self.id)));
        self.delete_rest(index, 0, &[], writes);
        for entry in &self.entries[self.sealed..] {
            writes.push(Write::delete(Key::Tail(self.id, entry.row, entry.vver)));
        }
        for &(row, vver, _) in &self.marks {
            writes.push(Write::delete(Key::Mark(self.id, row, vver)));
        }
    }

    /// Entries that no block has taken yet.
    pub(crate) fn tail_len(&self) -> usize {
        self.entries.len() - self.sealed
    }

    /// Entries without and with a mark.
    pub(crate) fn counts(&self) -> (u32, u32) {
        let marked = |entry: &&Entry| self.mark(entry.row, entry.vver).is_some();
        let dead = self.entries.iter().filter(marked).count();
        ((self.entries.len() - dead) as u32, dead as u32)
    }
}
