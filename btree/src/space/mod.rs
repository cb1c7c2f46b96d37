//! Space on disk: zones of slots, deadlists, and the map from page ids to slots.
//!
//! [`zones`] says which slots are free, [`deadlist`] when a slot becomes free again, [`files`]
//! where a slot lies, [`map`] how the map's bytes look. What changed since the newest image stands
//! in delta lists in memory, one for each epoch of content.

pub(crate) mod deadlist;
pub(crate) mod files;
pub(crate) mod map;
pub(crate) mod zones;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use terrane_wal::env::Env;
use terrane_wal::io::{Buf, File, Purpose};
use terrane_wal::sync::Mutex;

use crate::error::StoreError;
use crate::ids::{Class, Epoch, PageId, Slot};
use crate::image::meta::Base;
use crate::pool::translate::Location;
use deadlist::Deadlists;
use files::DataFiles;
use zones::{UNIT, Zones, zone_units};

/// Page changes of one epoch, in the order in which they were published; later ones count.
pub(crate) type DeltaList = Vec<(PageId, Location)>;

/// The reserve is at most this much until two per cent of the store are more.
const RESERVE_MAX: u64 = 64 << 20;
/// Slots kept out of use because a write to them failed; above it the oldest is tried again, so a
/// device that fails every write for a while costs no more than this.
const FAILED_MAX: usize = 128;

/// Slots and where pages lie. Lock order: page latch, then slots, then lists; never two at once.
#[derive(Debug, Default)]
pub(crate) struct Space {
    pub(crate) slots: Mutex<Slots>,
    /// Changes by the epoch of the CONTENT (T2): a checkpoint of e writes lists <= e and never
    /// looks at the live location array.
    pub(crate) lists: Mutex<BTreeMap<Epoch, DeltaList>>,
    /// None in a pool that lives in memory only.
    pub(crate) disk: Option<SpaceDisk>,
}

/// What lies on disk.
#[derive(Debug)]
pub(crate) struct SpaceDisk {
    pub(crate) env: Env,
    pub(crate) files: DataFiles,
    /// Base of the newest image's map, for pages whose location nobody asked for yet.
    pub(crate) base: Mutex<Option<(Arc<dyn File>, Base)>>,
}

/// Free and dying slots.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    pub(crate) zones: Zones,
    pub(crate) dead: Deadlists,
    /// Bytes of slots that were taken for a write and are not published or given back yet.
    pub(crate) in_flight: u64,
    /// Could not be written; oldest first. Forgotten at the next open.
    failed: VecDeque<(Slot, Class)>,
    #[cfg(feature = "sim")]
    pub(crate) freed: Option<(crate::store::FreedHook, std::path::PathBuf)>,
}

impl Slots {
    /// The one way in which a slot becomes free.
    fn give(&mut self, slot: Slot, class: Class) {
        #[cfg(feature = "sim")]
        if let Some((hook, dir)) = &self.freed {
            let (file, offset) = zones::file_of(slot);
            (hook.0)(&dir.join(format!("data.{file}")), offset, class.bytes());
        }
        self.zones.give(slot, class);
    }

    /// Bytes of slots that are out of use because they could not be written.
    pub(crate) fn failed_bytes(&self) -> u64 {
        let bytes = |(_, class): &(Slot, Class)| class.bytes() as u64;
        self.failed.iter().map(bytes).sum()
    }
}

impl Space {
    /// The disk, or the error of a pool that has none.
    pub(crate) fn disk(&self) -> Result<&SpaceDisk, StoreError> {
        self.disk.as_ref().ok_or(StoreError::Full {
            what: "pages in a pool without a disk",
            wanted: Class::K8.bytes() as u64,
            available: 0,
        })
    }

    /// Adds a page's new place (or its end) to the list of the content's epoch.
    pub(crate) fn publish(&self, content: Epoch, id: PageId, location: Location) {
        if let Some((_, class)) = location.at {
            self.slots.lock().in_flight -= class.bytes() as u64;
        }
        self.lists
            .lock()
            .entry(content)
            .or_default()
            .push((id, location));
    }

    /// A slot's content was superseded in epoch `death`.
    pub(crate) fn slot_died(&self, at: (Slot, Class), birth: Epoch, death: Epoch) {
        let mut slots = self.slots.lock();
        if slots.dead.died(at.0, at.1, birth, death) {
            slots.give(at.0, at.1);
        }
    }

    /// Gives back a slot that no map ever named. One that could not be written stays out of use for
    /// a while: handed out again at once, a bad place on the device would fail every checkpoint.
    pub(crate) fn slot_unwanted(&self, at: (Slot, Class), good: bool) {
        let mut slots = self.slots.lock();
        slots.in_flight -= at.1.bytes() as u64;
        if good {
            slots.give(at.0, at.1);
            return;
        }
        slots.failed.push_back(at);
        if slots.failed.len() > FAILED_MAX
            && let Some((slot, class)) = slots.failed.pop_front()
        {
            slots.give(slot, class);
        }
    }

    /// Takes out the lists of at most `epoch`, by rising epoch.
    pub(crate) fn take_lists(&self, epoch: Epoch) -> Vec<(Epoch, DeltaList)> {
        let mut lists = self.lists.lock();
        let rest = lists.split_off(&epoch.next());
        std::mem::replace(&mut *lists, rest).into_iter().collect()
    }

    /// Puts lists back, in front of what was published since.
    pub(crate) fn put_back(&self, taken: Vec<(Epoch, DeltaList)>) {
        let mut lists = self.lists.lock();
        for (epoch, list) in taken {
            lists.entry(epoch).or_default().splice(0..0, list);
        }
    }

    /// M2: releases the slots that no image from `oldest` on needs.
    pub(crate) fn release(&self, oldest: Epoch) {
        let mut slots = self.slots.lock();
        for (slot, class) in slots.dead.release(oldest) {
            slots.give(slot, class);
        }
    }

    /// At least one and at most `wanted` slots, ascending as far as possible. Grows the files if
    /// needed; `Full` if that fails and there is none. Blocks.
    pub(crate) fn take_slots(&self, class: Class, wanted: usize) -> Result<Vec<Slot>, StoreError> {
        let mut taken = Vec::with_capacity(wanted);
        loop {
            let zones = {
                let mut slots = self.slots.lock();
                while taken.len() < wanted
                    && let Some(slot) = slots.zones.take(class)
                {
                    taken.push(slot);
                    slots.in_flight += class.bytes() as u64;
                }
                slots.zones.len()
            };
            if taken.len() == wanted {
                return Ok(taken);
            }
            match self.grow(zones) {
                Ok(()) => {}
                Err(_) if !taken.is_empty() => return Ok(taken),
                Err(error) => return Err(error),
            }
        }
    }

    /// Adds the zone after the first `zones`, unless somebody else was first. Blocks.
    fn grow(&self, zones: usize) -> Result<(), StoreError> {
        self.disk()?.files.reserve_zone(zones)?;
        let mut slots = self.slots.lock();
        if slots.zones.len() == zones {
            slots.zones.grow();
        }
        Ok(())
    }

    /// Makes sure that the free slots cover `wanted` bytes more than the pages that are dirty now
    /// (`dirty` bytes) and the reserve, which is never handed out on request: so a checkpoint and
    /// deletes always finish on a full device. Blocks.
    pub(crate) fn admit(&self, wanted: u64, dirty: u64) -> Result<(), StoreError> {
        loop {
            let (zones, free, used) = {
                let slots = self.slots.lock();
                let zones = &slots.zones;
                (zones.len(), zones.free_bytes(), zones.used_bytes())
            };
            let zone = zone_units(zones.saturating_sub(1)) * UNIT;
            let share = used / 50;
            let reserve = share.max(zone.min(RESERVE_MAX));
            if free >= wanted + dirty + reserve {
                return Ok(());
            }
            match self.grow(zones) {
                Ok(()) => {}
                Err(StoreError::Full { .. }) => {
                    return Err(StoreError::Full {
                        what: "pages on the device",
                        wanted,
                        available: free.saturating_sub(dirty + reserve),
                    });
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads the base chunk that holds `id`: first page id and entries. None if the base does not
    /// reach so far. Blocks.
    pub(crate) fn read_base(
        &self,
        id: PageId,
    ) -> Result<Option<(PageId, Vec<Location>)>, StoreError> {
        let Some((file, base)) = self.disk()?.base.lock().clone() else {
            return Ok(None);
        };
        let chunk = map::chunk_of(id);
        let offset = chunk * map::CHUNK as u64;
        if offset >= base.len {
            return Ok(None);
        }
        let mut buf = Buf::zeroed(map::CHUNK);
        let read = file.read(Purpose::Miss, offset, &mut buf)?;
        let (_, entries) = map::read_chunk(&buf[..read], chunk, base.epoch)
            .map_err(|error| error.at(file.path(), offset))?;
        Ok(Some((map::chunk_start(chunk), entries)))
    }
}
