//! From a page id to its state word, its frame word and its location: one array access.
//!
//! The arrays are sparse anonymous mappings: all zero means not in memory and not on disk, and what
//! is never touched costs nothing. They lie in a fixed table of segments, each twice as long as all
//! before it: segment 0 holds ids below 2^16, segment k the ids from 2^(15+k) up to 2^(16+k).
//!
//! Decision: the design page grows the arrays by remapping them under the exclusive side of the
//! gate. Segments that are created once and never move need no such side: a reader finds its
//! segment by the id's highest bit and an acquire load, and growth disturbs nobody. 25 segments
//! cover all 2^40 ids.
//!
//! | word | bits |
//! |---|---|
//! | state | `latch`: version, latch, flags |
//! | frame | frame u32 (8 KiB granules), epoch of the content (low 24 bits), class u8 |
//! | place | slot 40, class 8, reserved; bit 63: known (else: ask the map's base) |
//! | proof | birth epoch u32, crc u32 |

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};

use crate::error::StoreError;
use crate::ids::{Class, Epoch, PageId, Slot};

const FIRST_BITS: u32 = 16;
const SEGMENTS: usize = 25;
/// The place and proof words say what is true (all zero otherwise means: look into the base).
const KNOWN: u64 = 1 << 63;
const SLOT_MASK: u64 = (1 << 40) - 1;

/// The arrays of one page-id space.
pub(crate) struct Translation {
    segments: [OnceLock<Segment>; SEGMENTS],
}

struct Segment {
    map: MmapRaw,
    ids: usize,
}

/// The four words of one page id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) state: &'a AtomicU64,
    pub(crate) frame: &'a AtomicU64,
    place: &'a AtomicU64,
    proof: &'a AtomicU64,
}

/// Where a page lies on disk: what a map entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    /// Slot and class; None if the page does not exist (then `birth` is the epoch of its end).
    pub(crate) at: Option<(Slot, Class)>,
    /// Epoch of the content.
    pub(crate) birth: Epoch,
    /// The page's own crc.
    pub(crate) crc: u32,
}

impl Location {
    /// A page that does not exist since `epoch`.
    pub(crate) fn none(epoch: Epoch) -> Location {
        Location {
            at: None,
            birth: epoch,
            crc: 0,
        }
    }
}

impl Translation {
    pub(crate) fn new() -> Translation {
        Translation {
            segments: [const { OnceLock::new() }; SEGMENTS],
        }
    }

    /// The words of a page id; None if its segment was never asked for.
    #[inline]
    pub(crate) fn entry(&self, id: PageId) -> Option<Entry<'_>> {
        let (segment, index) = place_of(id)?;
        let segment = self.segments[segment].get()?;
        let words = segment.words();
        let hot = index * 2;
        let cold = segment.ids * 2 + index * 2;
        Some(Entry {
            state: words.get(hot)?,
            frame: words.get(hot + 1)?,
            place: words.get(cold)?,
            proof: words.get(cold + 1)?,
        })
    }

    /// True if ids below `end` have their words.
    pub(crate) fn covers(&self, id: PageId) -> bool {
        place_of(id).is_some_and(|(segment, _)| self.segments[segment].get().is_some())
    }

    /// Reserves address space for all ids up to `id`, included.
    pub(crate) fn reserve(&self, id: PageId) -> Result<(), StoreError> {
        let Some((last, _)) = place_of(id) else {
            return Err(StoreError::Invalid {
                what: format!("{id} lies above the last possible page id"),
            });
        };
        for number in 0..=last {
            if self.segments[number].get().is_none() {
                let segment = Segment::map(number)?;
                // Another thread may have been first; then this mapping goes away unused.
                let _ = self.segments[number].set(segment);
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Translation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mapped = self.segments.iter().filter(|s| s.get().is_some()).count();
        write!(f, "Translation({mapped} segments)")
    }
}

/// Segment and index of an id.
#[inline]
fn place_of(id: PageId) -> Option<(usize, usize)> {
    if id.0 >> FIRST_BITS == 0 {
        return Some((0, id.0 as usize));
    }
    if id >= PageId::LIMIT {
        return None;
    }
    let bits = 63 - id.0.leading_zeros();
    Some((
        (bits - FIRST_BITS + 1) as usize,
        (id.0 - (1 << bits)) as usize,
    ))
}

impl Segment {
    fn map(number: usize) -> Result<Segment, StoreError> {
        let ids = if number == 0 {
            1 << FIRST_BITS
        } else {
            1usize << (FIRST_BITS as usize + number - 1)
        };
        let map = MmapOptions::new()
            .len(ids * 32)
            .no_reserve_swap()
            .map_anon()
            .map_err(|_| StoreError::Full {
                what: "page ids in the address space",
                wanted: ids as u64 * 32,
                available: 0,
            })?;
        Ok(Segment {
            map: MmapRaw::from(map),
            ids,
        })
    }

    #[inline]
    fn words(&self) -> &[AtomicU64] {
        let start: *const AtomicU64 = self.map.as_ptr().cast();
        // SAFETY: the mapping is private, anonymous, page-aligned, `ids * 32` bytes long, lives as
        // long as `self` and is reached only through this function. Zeroed memory is a valid array
        // of atomics, and all access is atomic, so shared slices of it may coexist.
        unsafe { std::slice::from_raw_parts(start, self.ids * 4) }
    }
}

impl Entry<'_> {
    /// Where the page lies; None if the base of the map has to be asked. Call it under the page's
    /// latch, or take the answer as a hint.
    pub(crate) fn location(&self) -> Option<Location> {
        let place = self.place.load(Ordering::Acquire);
        let proof = self.proof.load(Ordering::Relaxed);
        if place & KNOWN == 0 {
            return None;
        }
        let class = Class::new((place >> 40) as u8);
        Some(Location {
            at: class.map(|class| (Slot(place & SLOT_MASK), class)),
            birth: Epoch((proof >> 32) as u32),
            crc: proof as u32,
        })
    }

    /// Sets the location. Only under the page's latch, or before the pool is shared.
    pub(crate) fn set_location(&self, location: Location) {
        let place = match location.at {
            Some((slot, class)) => slot.0 | u64::from(class.number()) << 40,
            None => 0,
        };
        let proof = u64::from(location.birth.0) << 32 | u64::from(location.crc);
        self.proof.store(proof, Ordering::Relaxed);
        self.place.store(place | KNOWN, Ordering::Release);
    }
}

/// The frame word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameWord {
    /// First granule of the frame.
    pub(crate) frame: u32,
    /// Low 24 bits of the epoch of the content.
    epoch: u32,
    /// Class of the page.
    pub(crate) class: Class,
}

impl FrameWord {
    const EPOCH_MASK: u32 = (1 << 24) - 1;

    pub(crate) fn new(frame: u32, epoch: Epoch, class: Class) -> FrameWord {
        FrameWord {
            frame,
            epoch: epoch.0 & FrameWord::EPOCH_MASK,
            class,
        }
    }

    /// The word's parts; None if it was never set.
    #[inline]
    pub(crate) fn unpack(word: u64) -> Option<FrameWord> {
        Some(FrameWord {
            frame: word as u32,
            epoch: (word >> 32) as u32 & FrameWord::EPOCH_MASK,
            class: Class::new((word >> 56) as u8)?,
        })
    }

    #[inline]
    pub(crate) fn pack(self) -> u64 {
        u64::from(self.frame) | u64::from(self.epoch) << 32 | u64::from(self.class.number()) << 56
    }

    /// The whole epoch, given the open one, which is never older. Content older than 2^24 epochs
    /// looks newer than it is; then a structure change starts again in the open epoch, needlessly.
    #[inline]
    pub(crate) fn epoch(self, open: Epoch) -> Epoch {
        let age = open.0.wrapping_sub(self.epoch) & FrameWord::EPOCH_MASK;
        Epoch(open.0.saturating_sub(age))
    }
}
