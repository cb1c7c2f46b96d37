//! A system transaction in the making: locators under their intents, and records.
//!
//! Invariants:
//! * S7. A locator is read only after the intent of its row was taken, and the intent is held until
//!   the transaction is applied.
//! * V5. `stale` of a locator is the number of the row's copies that have a mark, but those of a
//!   draining posting that were dealt with. While it is not 0 the locator stays, so no version
//!   number that something still names is given out again; when it becomes 0 for a deleted row,
//!   the locator goes.

use std::collections::BTreeMap;

use super::board::Board;
use super::host::{MaintenanceHost, Publish, RecordStore};
use crate::record::{Head, Key, Locator, Mark, Meta, PostingId, RowId, Vver};
use crate::store::{IndexError, Write};

/// Rows of a slice at most.
pub(crate) const SLICE: usize = 64;

/// A transaction in the making. What is dropped has no effect, but that intents stay held.
#[derive(Debug, Default)]
pub(crate) struct Txn {
    /// As read, and as they will be.
    locators: BTreeMap<RowId, (Option<Locator>, Option<Locator>)>,
    pub(crate) writes: Vec<Write>,
    /// Live, dead and tail entries by posting.
    changes: BTreeMap<PostingId, [i64; 3]>,
}

impl Txn {
    /// Takes the intent of a row and reads its locator. False if somebody uses the row.
    pub(crate) fn take<H: MaintenanceHost>(
        &mut self,
        host: &mut H,
        row: RowId,
    ) -> Result<bool, H::Error> {
        if self.locators.contains_key(&row) {
            return Ok(true);
        }
        if !planted!("no_intent") && !host.try_intent(row) {
            return Ok(false);
        }
        let mut found = None;
        host.locator(row, &mut |_, value| {
            found = Some(Locator::decode(value)?);
            Ok(())
        })?;
        self.locators.insert(row, (found.clone(), found));
        Ok(true)
    }

    /// Rows taken.
    pub(crate) fn rows(&self) -> usize {
        self.locators.len()
    }

    /// The locator of a row that was taken.
    pub(crate) fn locator(&mut self, row: RowId) -> Option<&mut Locator> {
        self.locators.get_mut(&row)?.1.as_mut()
    }

    /// Whether the locator of a taken row lists this entry as live.
    pub(crate) fn lists(&mut self, id: PostingId, row: RowId, vver: Vver) -> bool {
        self.locator(row).is_some_and(|locator| {
            locator.live && locator.vver == vver && locator.postings.contains(&id)
        })
    }

    /// Counts a marked copy off from `stale` of a taken row. A count that overflowed is not known
    /// any more: the locator then stays for ever.
    pub(crate) fn count_off(&mut self, row: RowId) {
        if let Some(locator) = self.locator(row)
            && locator.stale != u16::MAX
        {
            locator.stale = locator.stale.saturating_sub(1);
        }
    }

    /// Counts a copy that got a mark.
    pub(crate) fn count_on(&mut self, row: RowId) {
        if let Some(locator) = self.locator(row) {
            locator.stale = locator.stale.saturating_add(1);
        }
    }

    /// Counts entries of a posting in.
    pub(crate) fn change(&mut self, id: PostingId, change: [i64; 3]) {
        let sums = self.changes.entry(id).or_default();
        for (sum, one) in sums.iter_mut().zip(change) {
            *sum += one;
        }
    }

    /// Makes a live copy of a taken row stand in `to` as well, unless it does: with a new entry,
    /// or by taking the mark off one that moved away from there before.
    pub(crate) fn add_copy<H: MaintenanceHost>(
        &mut self,
        host: &H,
        to: PostingId,
        row: RowId,
        vver: Vver,
        entry: impl FnOnce() -> Vec<u8>,
    ) -> Result<(), H::Error> {
        if self.lists(to, row, vver) {
            return Ok(());
        }
        if read_mark(host, to, row, vver)?.is_some() {
            self.writes.push(Write::delete(Key::Mark(to, row, vver)));
            self.count_off(row);
            self.change(to, [1, -1, 0]);
        } else {
            let tail = Key::Tail(to, row, vver);
            self.writes.push(Write::put(tail, entry()));
            self.change(to, [1, 0, 1]);
        }
        if let Some(locator) = self.locator(row) {
            locator.vver.0 += u32::from(planted!("a_move_raises_the_version"));
            locator.postings.push(to);
        }
        Ok(())
    }

    /// Postings that live entries came to.
    pub(crate) fn gained(&self) -> Vec<PostingId> {
        let gained = |(_, change): &(&PostingId, &[i64; 3])| change[0] > 0;
        self.changes
            .iter()
            .filter(gained)
            .map(|(id, _)| *id)
            .collect()
    }

    /// Takes a posting off the list of a taken row.
    pub(crate) fn unlist(&mut self, id: PostingId, row: RowId) {
        if let Some(locator) = self.locator(row) {
            locator.postings.retain(|&posting| posting != id);
        }
    }

    /// Writes locators that changed and everything else; gives the intents back. Nothing is
    /// written if there is nothing.
    pub(crate) fn commit<H: MaintenanceHost>(
        mut self,
        board: &mut Board,
        host: &mut H,
        publish: Publish,
    ) -> Result<(), H::Error> {
        for (row, (before, after)) in std::mem::take(&mut self.locators) {
            let needed = after.filter(|locator| {
                locator.live || locator.stale > 0 && !planted!("locator_goes_early")
            });
            if needed != before {
                let key = Key::Locator(row);
                self.writes.push(match needed {
                    Some(locator) => Write::put(key, locator.encode()),
                    None => Write::delete(key),
                });
            }
        }
        if self.writes.is_empty() && publish == Publish::Nothing {
            host.release();
            return Ok(());
        }
        self.count_centroids(board, host);
        board.stats.commits += 1;
        host.commit(self.writes, publish)?;
        for (id, [live, dead, tail]) in self.changes {
            board.change(id, live, dead, tail);
            board.consider(id);
        }
        Ok(())
    }

    /// Keeps the number of centroid records in the meta record, which every transaction that adds
    /// or removes some writes for its epoch.
    fn count_centroids<H: MaintenanceHost>(&mut self, board: &mut Board, host: &H) {
        let set = host.centroids();
        let mut centroids = i64::from(board.meta.centroids);
        for write in &self.writes {
            if let Key::Centroid(id) = write.key {
                centroids += i64::from(write.value.is_some()) - i64::from(set.contains(id));
            }
        }
        let meta = self.writes.iter_mut().find(|write| write.key == Key::Meta);
        if let Some(meta) = meta {
            board.meta.centroids = centroids as u32;
            meta.value = Some(board.meta.encode());
        } else {
            debug_assert_eq!(centroids, i64::from(board.meta.centroids));
        }
    }
}

pub(crate) fn read_mark<H: RecordStore>(
    host: &H,
    id: PostingId,
    row: RowId,
    vver: Vver,
) -> Result<Option<Mark>, H::Error> {
    let mut mark = None;
    host.read(Key::Mark(id, row, vver), &mut |_, value| {
        mark = Some(Mark::decode(value)?);
        Ok(())
    })?;
    Ok(mark)
}

/// The head of a posting; that of a new one if there is none.
pub(crate) fn read_head<H: RecordStore>(host: &H, id: PostingId) -> Result<Head, H::Error> {
    let mut head = Head::default();
    host.read(Key::Head(id), &mut |_, value| {
        head = Head::decode(value)?;
        Ok(())
    })?;
    Ok(head)
}

/// The meta record. An online build writes it too, so it is read before each change.
pub(crate) fn read_meta<H: RecordStore>(host: &H) -> Result<Meta, H::Error> {
    let mut meta = None;
    host.read(Key::Meta, &mut |_, value| {
        meta = Some(Meta::decode(value)?);
        Ok(())
    })?;
    Ok(meta.ok_or(IndexError::Missing { record: "meta" })?)
}
