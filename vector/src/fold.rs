//! The fold: a posting's tail becomes sealed blocks, and what no snapshot needs is dropped.
//!
//! The most frequent maintenance, and the cheapest: it stays inside one posting and copies codes as
//! they are. A step returns records; the host applies them as one system transaction, while it
//! holds the intents that the step asked for.
//!
//! Invariants:
//! * S2. An entry is dropped only if its version was dead at the horizon.
//! * S7. It is dropped only under the intent of its row, and only if the locator, read again under
//!   that intent, does not list it as live; a row in use is left for the next fold.
//! * V5. A dropped copy is counted off from `stale`; the locator of a deleted row goes with the
//!   last copy, so no version number that something still names is given out again.

use std::collections::BTreeMap;

use crate::code::Factors;
use crate::index::VectorIndex;
use crate::record::{
    Block, BlockBuilder, Extra, Head, Key, Locator, Mark, PostingId, RecordError, RowId, TailEntry,
    Vver,
};
use crate::store::{PostingStore, Write};

/// A fold is due at this many tail entries, or at a quarter of dead ones.
const TAIL_MAX: u32 = 32;

/// An entry taken out of its record.
struct Entry {
    factors: Factors,
    code: Vec<u8>,
    extra: Option<(Factors, Vec<u8>)>,
}

/// All that a posting holds.
#[derive(Default)]
struct Contents {
    head: Head,
    blocks: Vec<u32>,
    sealed: Vec<(RowId, Vver, Entry)>,
    tail: BTreeMap<(RowId, Vver), Entry>,
    marks: BTreeMap<(RowId, Vver), Mark>,
}

impl Contents {
    fn read<S: PostingStore>(store: &S, id: PostingId, dim: usize) -> Result<Self, S::Error> {
        let mut all = Self::default();
        store.posting(id, &mut |key, value| {
            match key {
                Key::Head(_) => all.head = Head::decode(value)?,
                Key::Block(_, number) => {
                    all.blocks.push(number);
                    all.unpack(&Block::decode(value, dim)?);
                }
                Key::Tail(_, row, vver) => {
                    let entry = TailEntry::decode(value, dim)?;
                    let extra = entry
                        .extra
                        .map(|(factors, planes)| (factors, planes.to_vec()));
                    let (factors, code) = (entry.factors, entry.code.to_vec());
                    all.tail.insert(
                        (row, vver),
                        Entry {
                            factors,
                            code,
                            extra,
                        },
                    );
                }
                Key::Mark(_, row, vver) => {
                    all.marks.insert((row, vver), Mark::decode(value)?);
                }
                _ => {}
            }
            Ok(())
        })?;
        let mut start = 0;
        for &number in &all.blocks {
            let sealed = &mut all.sealed;
            let mut used = sealed.len() - start;
            store.extra(id, number, &mut |_, value| {
                let extra = Extra::decode(value, dim)?;
                let slots = (0..).map_while(|slot| extra.slot(slot));
                used = 0;
                for ((_, _, entry), (factors, planes)) in sealed[start..].iter_mut().zip(slots) {
                    entry.extra = Some((factors, planes.to_vec()));
                    used += 1;
                }
                Ok(())
            })?;
            start += used;
        }
        Ok(all)
    }

    fn unpack(&mut self, block: &Block<'_>) {
        let [adds, ips, errs] = block.all_factors();
        for slot in 0..block.used() {
            let factors = Factors {
                add: adds[slot],
                ip: ips[slot],
                err: errs[slot],
            };
            let (code, extra) = (block.code(slot), None);
            let entry = Entry {
                factors,
                code,
                extra,
            };
            self.sealed.push((block.row(slot), block.vver(slot), entry));
        }
    }
}

impl VectorIndex {
    /// Whether a posting with this head is worth a fold.
    ///
    /// # Errors
    /// [`RecordError`] if the value is no head.
    pub fn fold_due(&self, head: &[u8]) -> Result<bool, RecordError> {
        let head = Head::decode(head)?;
        let entries = head.live + head.dead;
        Ok(head.tail >= TAIL_MAX || head.dead > 0 && 4 * head.dead >= entries)
    }

    /// Repacks a posting. `horizon` is the timestamp below which no snapshot reads; `intent` tries
    /// for the intent of a row without waiting and says whether it is held. O(entries x dimension).
    ///
    /// # Errors
    /// [`crate::IndexError::Record`] for a record that cannot be read; and the host's own.
    pub fn fold<S: PostingStore>(
        &self,
        store: &S,
        id: PostingId,
        horizon: u64,
        intent: &mut dyn FnMut(RowId) -> bool,
    ) -> Result<Vec<Write>, S::Error> {
        let all = Contents::read(store, id, self.space().code_dim())?;
        let mut locators: BTreeMap<RowId, Option<Locator>> = BTreeMap::new();
        let (mut writes, mut kept) = (Vec::new(), Vec::new());
        let mut head = all.head;
        (head.live, head.dead, head.tail) = (0, 0, 0);
        head.generation += 1;
        let tail_keys: Vec<_> = all.tail.keys().copied().collect();
        let tail = all
            .tail
            .into_iter()
            .map(|((row, vver), entry)| (row, vver, entry));
        for (row, vver, entry) in all.sealed.into_iter().chain(tail) {
            let mark = all.marks.get(&(row, vver));
            let dead = matches!(mark, Some(Mark::Dead(ts)) if *ts <= horizon);
            if dead && intent(row) && drop_copy(store, &mut locators, id, row, vver)? {
                writes.push((Key::Mark(id, row, vver), None));
                head.fold_horizon = head.fold_horizon.max(horizon);
                continue;
            }
            *(if mark.is_some() {
                &mut head.dead
            } else {
                &mut head.live
            }) += 1;
            kept.push((row, vver, entry));
        }
        let sealed = self.seal_entries(id, &kept, &mut writes);
        for number in all.blocks.into_iter().filter(|&number| number >= sealed) {
            writes.push((Key::Block(id, number), None));
            writes.push((Key::Extra(id, number), None));
        }
        for (row, vver) in tail_keys {
            writes.push((Key::Tail(id, row, vver), None));
        }
        for (row, locator) in locators {
            // The last copy of a deleted row takes the locator with it.
            let needed = locator.filter(|locator| locator.live || locator.stale > 0);
            writes.push((Key::Locator(row), needed.map(|locator| locator.encode())));
        }
        writes.push((Key::Head(id), Some(head.encode())));
        Ok(writes)
    }

    /// Blocks 0 and up of these entries; how many.
    fn seal_entries(
        &self,
        id: PostingId,
        entries: &[(RowId, Vver, Entry)],
        writes: &mut Vec<Write>,
    ) -> u32 {
        let mut number = 0;
        for entries in entries.chunks(crate::limits::BLOCK_SLOTS) {
            let mut block = BlockBuilder::new(self.space().code_dim());
            for (row, vver, entry) in entries {
                let extra = entry
                    .extra
                    .as_ref()
                    .map(|(factors, planes)| (*factors, &planes[..]));
                let (factors, code) = (entry.factors, &entry.code[..]);
                block.push(
                    *row,
                    *vver,
                    &TailEntry {
                        factors,
                        code,
                        extra,
                    },
                );
            }
            let (value, extra) = block.finish();
            writes.push((Key::Block(id, number), Some(value)));
            writes.push((Key::Extra(id, number), extra));
            number += 1;
        }
        number
    }
}

/// Counts a copy off from its row's locator. False if the locator lists it as live, or is gone.
fn drop_copy<S: PostingStore>(
    store: &S,
    locators: &mut BTreeMap<RowId, Option<Locator>>,
    id: PostingId,
    row: RowId,
    vver: Vver,
) -> Result<bool, S::Error> {
    let mut read = None;
    if let std::collections::btree_map::Entry::Vacant(vacant) = locators.entry(row) {
        store.locator(row, &mut |_, value| {
            read = Some(Locator::decode(value)?);
            Ok(())
        })?;
        vacant.insert(read);
    }
    let Some(Some(locator)) = locators.get_mut(&row) else {
        locators.remove(&row);
        return Ok(false);
    };
    if locator.live && locator.vver == vver && locator.postings.contains(&id) {
        return Ok(false);
    }
    // A count that overflowed is not known any more: the locator then stays for ever.
    if locator.stale != u16::MAX {
        locator.stale = locator.stale.saturating_sub(1);
    }
    Ok(true)
}
