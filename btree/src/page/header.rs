//! The first 128 bytes of a page: who it is, where its parts lie.

use bytemuck::{Pod, Zeroable};
use std::mem::{offset_of, size_of};

use super::view::PageView;
use crate::ids::PageId;

/// Bytes of the header.
pub const HEADER_LEN: usize = 128;
/// Bytes of the trailer (nonce, tag, key id; zero without encryption).
pub const TRAILER_LEN: usize = 32;
/// Bytes of a slot.
pub const SLOT_LEN: usize = 8;
/// "TP" as it lies on disk.
pub const MAGIC: u16 = u16::from_le_bytes(*b"TP");

/// Kind of a page that holds rows.
pub const LEAF: u8 = 1;
/// Kind of a page that holds separators and children.
pub const BRANCH: u8 = 2;
/// Kind of a page that holds a piece of a long value or key.
pub const OVERFLOW: u8 = 3;

/// Page flag: rows were lost to a range delete.
pub const FLAG_RANGE_DELETED: u32 = 1;
/// Page flag: a commit could not be applied to this page.
pub const FLAG_DAMAGED: u32 = 2;
/// Where the level stands in the flags.
pub const LEVEL_SHIFT: u32 = 8;
/// No tree is higher: with two children a branch, 2^40 pages make 40 levels.
pub const LEVEL_MAX: u8 = 40;
/// All flag bits that format 1 knows.
pub const FLAGS_KNOWN: u32 = FLAG_RANGE_DELETED | FLAG_DAMAGED | 0xff << LEVEL_SHIFT;

/// Offset of n, prefix_len and heap_top: one word, so one load gets all three.
pub(crate) const OFF_COUNTS: usize = 32;
pub(crate) const OFF_MOD_COUNT: usize = 24;
pub(crate) const OFF_HEAP_TOP: usize = 36;
pub(crate) const OFF_GARBAGE: usize = 40;
pub(crate) const OFF_LOWER: usize = 44;
pub(crate) const OFF_UPPER: usize = 48;
pub(crate) const OFF_FLAGS: usize = 52;
pub(crate) const OFF_UPPER_CHILD: usize = 56;
pub(crate) const OFF_HINTS: usize = 64;
/// Hints in a page.
pub(crate) const HINTS: usize = 16;
/// Bit of a fence's `len`: an overflow reference follows its inline bytes.
pub(crate) const FENCE_LONG: u16 = 0x8000;

/// Where a fence's inline bytes lie; `off` 0 is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FenceSpan {
    /// Offset in the page, or 0.
    pub off: u16,
    /// Inline bytes; bit 15: a tail reference follows.
    pub len: u16,
}

/// The page header as it lies on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct PageHeader {
    /// Over bytes 4..size as on disk.
    pub crc: u32,
    /// [`MAGIC`].
    pub magic: u16,
    /// [`LEAF`], [`BRANCH`] or [`OVERFLOW`].
    pub kind: u8,
    /// Pages of 4096 << class bytes.
    pub class: u8,
    /// Its own id.
    pub page_id: u64,
    /// The tree it belongs to.
    pub tree: u32,
    /// Epoch of its content.
    pub birth_epoch: u32,
    /// Rises with every change.
    pub mod_count: u64,
    /// Slots.
    pub n: u16,
    /// Bytes that all keys of the page have in common.
    pub prefix_len: u16,
    /// Lowest byte of the heap in use.
    pub heap_top: u32,
    /// Dead bytes in the heap.
    pub garbage: u32,
    /// Inclusive lower bound of the keys.
    pub lower_fence: FenceSpan,
    /// Exclusive upper bound of the keys.
    pub upper_fence: FenceSpan,
    /// `FLAG_*` and the level.
    pub flags: u32,
    /// Branch: child above the last separator. Overflow: the next page.
    pub upper_child: u64,
    /// Leaf, branch: sampled heads. Overflow: place and chain length.
    pub hints: [u32; HINTS],
}

const _: () = {
    assert!(size_of::<PageHeader>() == HEADER_LEN);
    assert!(offset_of!(PageHeader, magic) == 4);
    assert!(offset_of!(PageHeader, page_id) == 8);
    assert!(offset_of!(PageHeader, tree) == 16);
    assert!(offset_of!(PageHeader, birth_epoch) == 20);
    assert!(offset_of!(PageHeader, mod_count) == OFF_MOD_COUNT);
    assert!(offset_of!(PageHeader, n) == OFF_COUNTS);
    assert!(offset_of!(PageHeader, prefix_len) == OFF_COUNTS + 2);
    assert!(offset_of!(PageHeader, heap_top) == OFF_HEAP_TOP);
    assert!(offset_of!(PageHeader, garbage) == OFF_GARBAGE);
    assert!(offset_of!(PageHeader, lower_fence) == OFF_LOWER);
    assert!(offset_of!(PageHeader, upper_fence) == OFF_UPPER);
    assert!(offset_of!(PageHeader, flags) == OFF_FLAGS);
    assert!(offset_of!(PageHeader, upper_child) == OFF_UPPER_CHILD);
    assert!(offset_of!(PageHeader, hints) == OFF_HINTS);
};

impl PageHeader {
    /// The header of a page in bytes; `None` if there are not even 128.
    #[must_use]
    pub fn of(page: &[u8]) -> Option<PageHeader> {
        page.get(..HEADER_LEN).map(bytemuck::pod_read_unaligned)
    }

    /// The level: 0 for leaves, one more than its children's for a branch.
    #[must_use]
    pub fn level(&self) -> u8 {
        (self.flags >> LEVEL_SHIFT) as u8
    }
}

/// The crc that belongs into bytes 0..4 of `page` (as it is on disk).
#[must_use]
pub fn page_crc(page: &[u8]) -> u32 {
    crc32fast::hash(&page[4..])
}

/// Largest number of key bytes that lie inline in pages of `size` bytes.
#[inline]
#[must_use]
pub const fn inline_key_max(size: usize) -> usize {
    size / 8
}

/// Largest number of value bytes that lie inline.
#[must_use]
pub const fn inline_value_max(size: usize) -> usize {
    size / 4
}

/// Largest entry with its slot: two of them fit into a page with any two fences.
#[must_use]
pub const fn entry_max(size: usize) -> usize {
    let fences = 2 * (inline_key_max(size) + super::overflow::REF_LEN);
    (size - HEADER_LEN - TRAILER_LEN - fences) / 2
}

const _: () = {
    // A row with the longest key and an overflow value fits, in every class.
    assert!(entry_max(8192) >= SLOT_LEN + 4 + inline_key_max(8192) + 2 * super::overflow::REF_LEN);
    // A slot's offset and a fence's 15-bit length can name every byte they must.
    assert!(inline_key_max(65536) < FENCE_LONG as usize);
};

/// The parts of a header that a descent looks at, each read once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    /// Slots.
    pub(crate) n: usize,
    /// Bytes that all keys have in common.
    pub(crate) prefix_len: usize,
    /// Lowest byte of the heap in use.
    pub(crate) heap_top: usize,
}

/// Reads n, prefix_len and heap_top in one load.
#[inline]
pub(crate) fn counts(view: PageView<'_>) -> Counts {
    let word = view.u64_at(OFF_COUNTS);
    Counts {
        n: usize::from(word as u16),
        prefix_len: usize::from((word >> 16) as u16),
        heap_top: (word >> 32) as usize,
    }
}

/// The page's kind.
#[inline]
pub(crate) fn kind(view: PageView<'_>) -> u8 {
    view.u8_at(6)
}

/// The page's level.
#[inline]
pub(crate) fn level(view: PageView<'_>) -> u8 {
    view.u8_at(OFF_FLAGS + 1)
}

/// The id written in the page.
#[inline]
pub(crate) fn page_id(view: PageView<'_>) -> PageId {
    PageId(view.u64_at(8))
}

/// The tree written in the page.
#[inline]
pub(crate) fn tree(view: PageView<'_>) -> u32 {
    view.u32_at(16)
}
