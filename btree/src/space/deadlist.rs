//! When a slot may be used again: the death rule (T5, M2).
//!
//! A slot holds content that was born in epoch b. Content of epoch n supersedes it (or the page
//! ends in n): the slot belongs to the images i with b <= i < n and to no other.
//!
//! - b == n: to none. The slot may be used again at once.
//! - else it goes onto deadlist n, which is released when the OLDEST retained image has epoch >= n.
//!
//! Which image is the oldest is a fact that the checkpoint states, never epoch arithmetic:
//! checkpoints may be abandoned, and then more than one epoch lies between two images. This is the
//! birth-time rule of ZFS (Bonwick et al., 2003) without clones.

use std::collections::BTreeMap;

use crate::ids::{Class, Epoch, Slot};

/// Slots that wait for an image to go.
#[derive(Debug, Default)]
pub(crate) struct Deadlists {
    lists: BTreeMap<Epoch, Vec<(Slot, Class)>>,
    bytes: u64,
}

impl Deadlists {
    /// Records the death of a slot. True if it may be used again at once.
    #[must_use]
    pub(crate) fn died(&mut self, slot: Slot, class: Class, birth: Epoch, death: Epoch) -> bool {
        // M2: a slot that dies before it was born would be released under a retained image.
        assert!(birth <= death, "{slot} born in {birth} dies in {death}");
        if birth == death {
            return true;
        }
        self.lists.entry(death).or_default().push((slot, class));
        self.bytes += class.bytes() as u64;
        false
    }

    /// Releases what no image from `oldest` on holds.
    pub(crate) fn release(&mut self, oldest: Epoch) -> Vec<(Slot, Class)> {
        let rest = self.lists.split_off(&oldest.next());
        let released: Vec<_> = std::mem::replace(&mut self.lists, rest)
            .into_values()
            .flatten()
            .collect();
        self.bytes -= released
            .iter()
            .map(|(_, class)| class.bytes() as u64)
            .sum::<u64>();
        released
    }

    /// Bytes of slots that wait.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}
