//! The frames: one region of memory, a hard bound, never unmapped.
//!
//! Address space for the whole budget is reserved at once and touched only when used. The region is
//! aligned to 2 MiB and asks for huge pages (refused: 4 KiB pages serve as well, only slower).
//! Frames are blocks of 8 KiB granules from buddy lists inside 2 MiB chunks. Because nothing is
//! ever unmapped, a late optimistic reader reads garbage and throws it away; it never faults.
//!
//! The owner word of each granule names the page whose frame begins there: the clock walks over
//! it. Lock order: page latch before the free lists; nothing is taken under them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{Advice, MmapOptions, MmapRaw};
use terrane_wal::sync::Mutex;

use crate::error::StoreError;
use crate::ids::{Class, PageId};

/// Bytes of the smallest frame.
pub(crate) const GRANULE: usize = 8192;
const HUGE: usize = 2 << 20;
const TOP_ORDER: usize = 8;
/// In an owner word: the frame holds a copy that belongs to the checkpoint.
const FROZEN: u64 = 1 << 63;

/// Who uses a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Nobody, or the granule is inside a larger frame.
    None,
    /// The live copy of a page.
    Page(PageId),
    /// A copy that a checkpoint still has to write.
    Frozen(PageId),
}

/// All frames of a pool.
pub(crate) struct Frames {
    map: MmapRaw,
    /// Bytes from the start of the mapping to the first granule.
    skip: usize,
    granules: usize,
    owners: Box<[AtomicU64]>,
    free: Mutex<Buddies>,
}

/// Free blocks by order, in granules.
#[derive(Debug)]
struct Buddies {
    blocks: [BTreeSet<u32>; TOP_ORDER + 1],
    used: usize,
}

impl Frames {
    /// Reserves room for `bytes` bytes of frames, rounded down to granules.
    pub(crate) fn new(bytes: usize) -> Result<Frames, StoreError> {
        let full = |_| StoreError::Full {
            what: "page frames in memory",
            wanted: bytes as u64,
            available: 0,
        };
        let granules = bytes / GRANULE;
        if granules == 0 || granules > u32::MAX as usize {
            return Err(StoreError::Invalid {
                what: format!("a pool of {bytes} bytes"),
            });
        }
        let map = MmapOptions::new()
            .len(granules * GRANULE + HUGE)
            .no_reserve_swap()
            .map_anon()
            .map_err(full)?;
        let map = MmapRaw::from(map);
        let skip = map.as_ptr().align_offset(HUGE).min(HUGE);
        if granules * GRANULE >= HUGE {
            // Refused on systems without huge pages: nothing to do about it.
            let _ = map.advise_range(Advice::HugePage, skip, granules * GRANULE / HUGE * HUGE);
        }
        let mut owners = Vec::new();
        owners
            .try_reserve_exact(granules)
            .map_err(|_| StoreError::Full {
                what: "owner words of page frames in memory",
                wanted: granules as u64 * 8,
                available: 0,
            })?;
        owners.resize_with(granules, || AtomicU64::new(0));
        Ok(Frames {
            map,
            skip,
            granules,
            owners: owners.into_boxed_slice(),
            free: Mutex::new(Buddies::new(granules as u32)),
        })
    }

    /// Granules in all.
    pub(crate) fn granules(&self) -> usize {
        self.granules
    }

    /// Granules in use.
    pub(crate) fn used(&self) -> usize {
        self.free.lock().used
    }

    /// A free frame, its content undefined; None if there is none of this class.
    pub(crate) fn take(&self, class: Class) -> Option<u32> {
        self.free.lock().take(order(class))
    }

    /// Gives a frame back. Nobody but late readers may still look at it.
    pub(crate) fn give(&self, frame: u32, class: Class) {
        self.set_owner(frame, Owner::None);
        self.free.lock().give(frame, order(class));
    }

    /// The words of a frame; None if it would reach beyond the region.
    #[inline]
    pub(crate) fn words(&self, frame: u32, class: Class) -> Option<&[AtomicU64]> {
        let start = frame as usize * GRANULE;
        if start + class.bytes() > self.granules * GRANULE {
            return None;
        }
        let first: *const u8 = self.map.as_ptr().wrapping_add(self.skip + start);
        let first: *const AtomicU64 = first.cast();
        // SAFETY: the range was just checked to lie inside the private anonymous mapping, which
        // lives as long as `self`; `skip` and `start` are multiples of 4096, so words are aligned.
        // All access to this memory, here and everywhere, is through such atomic slices.
        Some(unsafe { std::slice::from_raw_parts(first, class.words()) })
    }

    /// Who uses the frame that begins at this granule.
    pub(crate) fn owner(&self, granule: usize) -> Owner {
        let word = self.owners[granule].load(Ordering::Acquire);
        match word {
            0 => Owner::None,
            word if word & FROZEN != 0 => Owner::Frozen(PageId(word & !FROZEN)),
            word => Owner::Page(PageId(word)),
        }
    }

    /// Says who uses the frame.
    pub(crate) fn set_owner(&self, frame: u32, owner: Owner) {
        let word = match owner {
            Owner::None => 0,
            Owner::Page(id) => id.0,
            Owner::Frozen(id) => id.0 | FROZEN,
        };
        self.owners[frame as usize].store(word, Ordering::Release);
    }
}

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frames({} granules)", self.granules)
    }
}

/// Asks for the first lines of `words`, which are about to be read.
#[inline]
pub(crate) fn expect(words: &[AtomicU64]) {
    /// As many as a core fetches at once; behind them the processor sees the pattern itself.
    const LINES: usize = 10;
    for line in words.chunks(8).take(LINES) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a prefetch reads nothing that the program sees and faults nowhere; the
            // address is inside a live slice besides.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = line;
    }
}

/// Copies a cache line that may be changing: each word as a relaxed load would see it.
#[inline]
pub(crate) fn copy_line(line: &[AtomicU64; 8], copy: &mut [[u8; 8]; 8]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::asm;
        // Eight loads of a word each are what this is, but cost a search a tenth of its time: four
        // of 16 bytes leave the core room to wait for twice as many lines at once.
        // SAFETY: all 64 bytes of `line` and of `copy` are inside live references, and `copy` is
        // this thread's alone. `line` is atomics that others may store to meanwhile: to the
        // language, assembly is an access that it does not look into, and the processor loads an
        // aligned word whole, within a wider load too (Intel SDM 3A, 9.1.1; AMD APM 2, 7.3.2). Half
        // a word would be no harm either: what is copied counts only if the page's version stands.
        // No flags and no stack are touched; memory is written, which is not denied here.
        unsafe {
            asm!(
                "movups {a}, [{from}]",
                "movups {b}, [{from} + 16]",
                "movups {c}, [{from} + 32]",
                "movups {d}, [{from} + 48]",
                "movups [{to}], {a}",
                "movups [{to} + 16], {b}",
                "movups [{to} + 32], {c}",
                "movups [{to} + 48], {d}",
                from = in(reg) line.as_ptr(),
                to = in(reg) copy.as_mut_ptr(),
                a = out(xmm_reg) _,
                b = out(xmm_reg) _,
                c = out(xmm_reg) _,
                d = out(xmm_reg) _,
                options(nostack, preserves_flags),
            );
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    for (word, bytes) in line.iter().zip(copy) {
        *bytes = word.load(Ordering::Relaxed).to_le_bytes();
    }
}

/// log2 of the granules of a frame.
fn order(class: Class) -> usize {
    (class.bytes() / GRANULE).trailing_zeros() as usize
}

impl Buddies {
    fn new(granules: u32) -> Buddies {
        let mut buddies = Buddies {
            blocks: Default::default(),
            used: 0,
        };
        let mut at = 0;
        while at < granules {
            let mut order = TOP_ORDER;
            while at % (1 << order) != 0 || at + (1 << order) > granules {
                order -= 1;
            }
            buddies.blocks[order].insert(at);
            at += 1 << order;
        }
        buddies
    }

    fn take(&mut self, order: usize) -> Option<u32> {
        let from = (order..=TOP_ORDER).find(|&o| !self.blocks[o].is_empty())?;
        let block = self.blocks[from].pop_first()?;
        for half in (order..from).rev() {
            self.blocks[half].insert(block + (1 << half));
        }
        self.used += 1 << order;
        Some(block)
    }

    fn give(&mut self, block: u32, order: usize) {
        self.used -= 1 << order;
        let (mut block, mut order) = (block, order);
        while order < TOP_ORDER && self.blocks[order].remove(&(block ^ (1 << order))) {
            block &= !(1 << order);
            order += 1;
        }
        assert!(
            self.blocks[order].insert(block),
            "frame {block} was given back twice"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen to fail with the coalescing loop of `give` left out: the 32 KiB frame is not found.
    #[test]
    fn frames_split_coalesce_and_stay_in_the_bound() {
        let frames = Frames::new(11 * GRANULE).expect("reserve");
        let mut taken = Vec::new();
        while let Some(frame) = frames.take(Class::K8) {
            taken.push(frame);
        }
        assert_eq!(taken.len(), 11);
        assert_eq!(frames.used(), 11);
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len(), 11, "one frame was handed out twice");
        assert!(frames.words(10, Class::K8).is_some());
        assert!(frames.words(10, Class::K16).is_none());
        for frame in taken {
            frames.give(frame, Class::K8);
        }
        let large = frames.take(Class::K32).expect("coalesced");
        assert_eq!(large % 4, 0);
        assert_eq!(frames.used(), 4);
    }
}
