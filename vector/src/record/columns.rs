//! The filter columns of a sealed block: for each slot bytes that mean something to the host alone.
//!
//! A slot without them is *unknown*: the host's filter must be told its row. A block of which no
//! slot is known has no such record.

use super::{Reader, RecordError};
use crate::limits::{BLOCK_SLOTS, COLUMNS_MAX};

/// In an end offset: the slot is unknown, its payload has no bytes.
const UNKNOWN: u16 = 0x8000;

const _: () = assert!(BLOCK_SLOTS * COLUMNS_MAX < UNKNOWN as usize);

/// Filter columns as they lie in their record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Columns<'a> {
    used: usize,
    seal: u32,
    ends: [u16; BLOCK_SLOTS],
    payloads: &'a [u8],
}

impl<'a> Columns<'a> {
    /// The record of these slots, for the block with this seal; none if all are unknown.
    ///
    /// # Panics
    /// If there are more slots than a block has, or a payload is above its limit.
    pub(crate) fn encode(slots: &[Option<&[u8]>], seal: u32) -> Option<Vec<u8>> {
        assert!(slots.len() <= BLOCK_SLOTS, "slots of one block");
        if slots.iter().all(Option::is_none) {
            return None;
        }
        let mut out = vec![1, slots.len() as u8, 0, 0];
        out.extend(seal.to_le_bytes());
        let mut end = 0;
        for slot in slots {
            let bytes = slot.map_or(0, <[u8]>::len);
            assert!(bytes <= COLUMNS_MAX, "columns have a limit");
            end += bytes as u16;
            let unknown = if slot.is_none() { UNKNOWN } else { 0 };
            out.extend((end | unknown).to_le_bytes());
        }
        out.resize(8 + 2 * BLOCK_SLOTS, 0);
        for bytes in slots.iter().flatten() {
            out.extend_from_slice(bytes);
        }
        Some(out)
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let mut from = Reader::new("filter columns", bytes);
        from.version()?;
        let used = usize::from(from.u8()?);
        if !(1..=BLOCK_SLOTS).contains(&used) {
            return Err(from.wrong("slots", used as u64));
        }
        let reserved = from.u16()?;
        if reserved != 0 {
            return Err(from.wrong("reserved", u64::from(reserved)));
        }
        let seal = from.u32()?;
        let (mut ends, mut start) = ([0; BLOCK_SLOTS], 0);
        for (slot, end) in ends.iter_mut().enumerate() {
            *end = from.u16()?;
            let at = *end & !UNKNOWN;
            let fits = if slot >= used {
                *end == 0
            } else if *end & UNKNOWN != 0 {
                at == start
            } else {
                at >= start && usize::from(at - start) <= COLUMNS_MAX
            };
            if !fits {
                return Err(from.wrong("end", u64::from(*end)));
            }
            start = if slot < used { at } else { start };
        }
        let payloads = from.take(usize::from(start))?;
        from.end()?;
        if ends[..used].iter().all(|end| end & UNKNOWN != 0) {
            return Err(from.wrong("known slots", 0));
        }
        Ok(Self {
            used,
            seal,
            ends,
            payloads,
        })
    }

    /// Slots of the block that hold an entry.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// The seal of the block that they belong to.
    pub(crate) fn seal(&self) -> u32 {
        self.seal
    }

    /// The payload of a slot; `None` if it is unknown or holds no entry.
    pub(crate) fn slot(&self, slot: usize) -> Option<&'a [u8]> {
        if slot >= self.used || self.ends[slot] & UNKNOWN != 0 {
            return None;
        }
        let end = |slot: usize| usize::from(self.ends[slot] & !UNKNOWN);
        let start = slot.checked_sub(1).map_or(0, end);
        self.payloads.get(start..end(slot))
    }
}
