//! Long bytes: values above a quarter of a page, and the tails of long keys, in chains of pages.
//!
//! A chain is written once, with the row or separator that names it, and never changed; it ends
//! when that row or separator ends. Each page says its place in the chain and the chain's length,
//! so a loop, a missing page and a page of another chain are all seen at once.

use super::header::{
    HEADER_LEN, HINTS, MAGIC, OFF_HEAP_TOP, OFF_HINTS, OFF_UPPER_CHILD, OVERFLOW, PageHeader,
    TRAILER_LEN,
};
use super::view::PageView;
use crate::ids::PageId;

/// Bytes of a reference.
pub const REF_LEN: usize = 12;
/// Most bytes in a chain: the longest value.
pub const CHAIN_MAX: usize = 64 << 10;

/// Names a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverflowRef {
    /// Its first page.
    pub first: PageId,
    /// Bytes in it.
    pub len: u32,
}

impl OverflowRef {
    /// The reference at `off`.
    #[must_use]
    pub fn read(view: PageView<'_>, off: usize) -> OverflowRef {
        OverflowRef {
            first: PageId(view.u64_at(off)),
            len: view.u32_at(off + 8),
        }
    }

    /// The reference in the first 12 bytes of `bytes`, if there are so many.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<OverflowRef> {
        let first = bytes.first_chunk::<8>()?;
        let len = bytes.get(8..)?.first_chunk::<4>()?;
        Some(OverflowRef {
            first: PageId(u64::from_le_bytes(*first)),
            len: u32::from_le_bytes(*len),
        })
    }

    /// As it lies in the heap.
    #[must_use]
    pub fn to_bytes(self) -> [u8; REF_LEN] {
        let mut bytes = [0; REF_LEN];
        bytes[..8].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[8..].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }
}

/// Data bytes that a page of `size` bytes takes.
#[must_use]
pub const fn capacity(size: usize) -> usize {
    size - HEADER_LEN - TRAILER_LEN
}

/// Pages of `size` bytes that a chain of `len` bytes takes.
#[must_use]
pub const fn pages(size: usize, len: usize) -> usize {
    len.div_ceil(capacity(size))
}

/// One page of a chain, as a reader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Data bytes in this page.
    pub(crate) len: usize,
    /// The next page, or none.
    pub(crate) next: PageId,
    /// Place in the chain.
    pub(crate) index: u32,
    /// Bytes of the whole chain.
    pub(crate) total: u32,
}

impl Link {
    /// What the page says. `None` if it is not an overflow page or its length is out of bounds.
    pub(crate) fn read(view: PageView<'_>) -> Option<Link> {
        let end = view.u32_at(OFF_HEAP_TOP) as usize;
        if super::header::kind(view) != OVERFLOW
            || end < HEADER_LEN
            || end > view.size().saturating_sub(TRAILER_LEN)
        {
            return None;
        }
        Some(Link {
            len: end - HEADER_LEN,
            next: PageId(view.u64_at(OFF_UPPER_CHILD)),
            index: view.u32_at(OFF_HINTS),
            total: view.u32_at(OFF_HINTS + 4),
        })
    }

    /// Whether the page is the one at `index` of the chain `reference`, all but its next pointer.
    pub(crate) fn fits(&self, size: usize, reference: OverflowRef, index: usize) -> bool {
        let total = reference.len as usize;
        let done = index * capacity(size);
        self.index as usize == index
            && self.total == reference.len
            && done < total
            && self.len == (total - done).min(capacity(size))
            && self.next.is_none() == (done + self.len == total)
    }
}

/// The bytes of one page of a chain. `head` is the page's identity (crc is left to the writer).
pub(crate) fn build(head: &PageHeader, size: usize, link: &Link, data: &[u8]) -> Vec<u8> {
    assert!(
        data.len() == link.len && link.len <= capacity(size),
        "a chain page of the wrong length"
    );
    let mut hints = [0; HINTS];
    hints[0] = link.index;
    hints[1] = link.total;
    let header = PageHeader {
        magic: MAGIC,
        kind: OVERFLOW,
        n: 0,
        prefix_len: 0,
        heap_top: (HEADER_LEN + data.len()) as u32,
        garbage: 0,
        lower_fence: Default::default(),
        upper_fence: Default::default(),
        flags: 0,
        upper_child: link.next.0,
        hints,
        mod_count: head.mod_count + 1,
        ..*head
    };
    let mut bytes = vec![0; size];
    bytes[..HEADER_LEN].copy_from_slice(bytemuck::bytes_of(&header));
    bytes[HEADER_LEN..HEADER_LEN + data.len()].copy_from_slice(data);
    bytes
}
