//! Space on disk: zones of slots, deadlists, and the map from page ids to slots.

pub(crate) mod deadlist;
pub(crate) mod zones;

use std::collections::BTreeMap;

use terrane_wal::sync::Mutex;

use crate::ids::{Class, Epoch, PageId, Slot};
use crate::pool::translate::Location;
use deadlist::Deadlists;
use zones::Zones;

/// Page changes of one epoch, in the order in which they were published; later ones count.
pub(crate) type DeltaList = Vec<(PageId, Location)>;

/// Slots and where pages lie. Lock order: page latch, then slots, then lists; never two at once.
#[derive(Debug, Default)]
pub(crate) struct Space {
    pub(crate) slots: Mutex<Slots>,
    /// Changes by the epoch of the CONTENT (T2): a checkpoint of e writes lists <= e and never looks
    /// at the live location array.
    pub(crate) lists: Mutex<BTreeMap<Epoch, DeltaList>>,
}

/// Free and dying slots.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    pub(crate) zones: Zones,
    pub(crate) dead: Deadlists,
}

impl Space {
    /// Adds a page's new place (or its end) to the list of the content's epoch.
    pub(crate) fn publish(&self, content: Epoch, id: PageId, location: Location) {
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
            slots.zones.give(at.0, at.1);
        }
    }
}
