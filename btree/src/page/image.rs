//! A page as owned bytes: taken apart entry by entry, and built anew.
//!
//! Whatever moves many entries (split, merge, compaction, root growth) copies the page, builds the
//! new page or pages in plain memory, and writes them over the frames in one go. So there is one
//! piece of code that lays out a page, and it works on bytes that nobody else sees.

use super::header::{
    BRANCH, FENCE_LONG, FenceSpan, HEADER_LEN, HINTS, LEAF, LEVEL_SHIFT, MAGIC, PageHeader,
    SLOT_LEN, TRAILER_LEN,
};
use super::overflow::{OverflowRef, REF_LEN};
use super::slots::{ENTRY_LONG, Slot, head_of, hint_step};
use super::view::PageView;
use crate::ids::PageId;
use std::ops::{Deref, Range};

/// A key as far as a page holds it: its inline part and where its tail is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredKey {
    /// The first size / 8 bytes.
    pub(crate) inline: Vec<u8>,
    /// The rest, if there is any.
    pub(crate) tail: Option<OverflowRef>,
}

impl StoredKey {
    /// Bytes that it fills as a fence.
    fn fence_len(&self) -> usize {
        self.inline.len() + self.tail.map_or(0, |_| REF_LEN)
    }
}

/// One row or separator of a page. Its inline key is `prefix` and `suffix` together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) flags: u8,
    pub(crate) prefix: &'a [u8],
    pub(crate) suffix: &'a [u8],
    pub(crate) tail: Option<OverflowRef>,
    /// Leaf: the value, or an overflow reference.
    pub(crate) value: &'a [u8],
    /// Branch: the child below the separator.
    pub(crate) child: PageId,
}

impl Entry<'_> {
    /// The inline part of the key.
    pub(crate) fn inline(&self) -> Vec<u8> {
        [self.prefix, self.suffix].concat()
    }

    /// The key as a fence or separator holds it.
    pub(crate) fn stored_key(&self) -> StoredKey {
        StoredKey {
            inline: self.inline(),
            tail: self.tail,
        }
    }

    /// Bytes of its heap entry in a page of this kind with a prefix of `prefix_len` bytes.
    pub(crate) fn heap_len(&self, kind: u8, prefix_len: usize) -> usize {
        let key = self.prefix.len() + self.suffix.len() - prefix_len;
        let tail = self.tail.map_or(0, |_| REF_LEN);
        let fixed = if kind == BRANCH {
            8
        } else {
            varint_len(self.value.len())
        };
        1 + fixed + key + tail + self.value.len()
    }
}

/// Bytes of a value length as a varint.
pub(crate) fn varint_len(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        _ => 3,
    }
}

/// The value length at `bytes`, and the bytes it takes; longer than three bytes is not one.
#[inline]
pub(crate) fn varint(bytes: [u8; 3]) -> (usize, usize) {
    let [a, b, c] = bytes.map(usize::from);
    if a < 0x80 {
        (a, 1)
    } else if b < 0x80 {
        (a & 0x7f | b << 7, 2)
    } else {
        (a & 0x7f | (b & 0x7f) << 7 | c << 14, 3)
    }
}

/// Where the parts of a leaf's row lie in the bytes of its page.
#[derive(Clone, Debug)]
pub(crate) struct RowPlace {
    pub(crate) flags: u8,
    /// The inline key behind the page's prefix.
    pub(crate) suffix: Range<usize>,
    pub(crate) tail: Option<OverflowRef>,
    /// The value, or an overflow reference.
    pub(crate) value: Range<usize>,
}

/// A whole page, copied under its latch or copied and validated.
#[derive(Debug)]
pub(crate) struct PageCopy<B = Vec<u8>> {
    bytes: B,
    header: PageHeader,
}

impl PageCopy {
    /// Copies the page. Optimistic callers validate before they believe any of it.
    pub(crate) fn of(view: PageView<'_>) -> PageCopy {
        let mut bytes = Vec::new();
        view.copy_to(&mut bytes);
        PageCopy::from_bytes(bytes)
    }
}

impl<B: Deref<Target = [u8]>> PageCopy<B> {
    /// Takes the bytes of a page.
    pub(crate) fn from_bytes(bytes: B) -> PageCopy<B> {
        assert!(bytes.len() >= 4096, "less than a page");
        let header = bytemuck::pod_read_unaligned(&bytes[..HEADER_LEN]);
        PageCopy { bytes, header }
    }

    /// The page's bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its header.
    pub(crate) fn header(&self) -> &PageHeader {
        &self.header
    }

    /// Entries.
    pub(crate) fn n(&self) -> usize {
        usize::from(self.header.n)
    }

    /// Bytes `off..off + len`; nothing if they lie outside, which a verified page does not have.
    #[inline]
    fn span(&self, off: usize, len: usize) -> &[u8] {
        self.bytes.get(off..off + len).unwrap_or(&[])
    }

    /// The range of [`PageCopy::span`].
    #[inline]
    fn inside(&self, off: usize, len: usize) -> Range<usize> {
        if off + len <= self.bytes.len() {
            off..off + len
        } else {
            0..0
        }
    }

    /// The common beginning of all keys.
    pub(crate) fn prefix(&self) -> &[u8] {
        let off = usize::from(self.header.lower_fence.off);
        self.span(off, usize::from(self.header.prefix_len))
    }

    /// The inclusive lower bound.
    pub(crate) fn lower(&self) -> Option<StoredKey> {
        self.fence(self.header.lower_fence)
    }

    /// The exclusive upper bound.
    pub(crate) fn upper(&self) -> Option<StoredKey> {
        self.fence(self.header.upper_fence)
    }

    fn fence(&self, span: FenceSpan) -> Option<StoredKey> {
        if span.off == 0 {
            return None;
        }
        let (off, len) = (usize::from(span.off), usize::from(span.len & !FENCE_LONG));
        let tail = (span.len & FENCE_LONG != 0)
            .then(|| OverflowRef::parse(self.span(off + len, REF_LEN)))
            .flatten();
        Some(StoredKey {
            inline: self.span(off, len).to_vec(),
            tail,
        })
    }

    #[inline]
    fn slot(&self, i: usize) -> Slot {
        let word = self.span(HEADER_LEN + i * SLOT_LEN, SLOT_LEN).first_chunk();
        Slot::unpack(word.map_or(0, |word| u64::from_le_bytes(*word)))
    }

    /// Where the parts of row `i` of a leaf lie.
    #[inline]
    pub(crate) fn row(&self, i: usize) -> RowPlace {
        let slot = self.slot(i);
        // The trailer lies behind every entry, so four bytes are always there.
        let prologue = self.span(slot.off, 4).first_chunk::<4>();
        let [flags, a, b, c] = *prologue.unwrap_or(&[0; 4]);
        let (value_len, used) = varint([a, b, c]);
        let key_off = slot.off + 1 + used;
        let (tail, value_off) = self.tail(flags, key_off + slot.klen);
        RowPlace {
            flags,
            suffix: self.inside(key_off, slot.klen),
            tail,
            value: self.inside(value_off, value_len),
        }
    }

    /// The tail of a key whose inline part ends at `off`, and where the key ends in the page.
    #[inline]
    fn tail(&self, flags: u8, off: usize) -> (Option<OverflowRef>, usize) {
        if flags & ENTRY_LONG == 0 {
            return (None, off);
        }
        (OverflowRef::parse(self.span(off, REF_LEN)), off + REF_LEN)
    }

    /// Entry `i`.
    pub(crate) fn entry(&self, i: usize) -> Entry<'_> {
        if self.header.kind != BRANCH {
            let row = self.row(i);
            return Entry {
                flags: row.flags,
                prefix: self.prefix(),
                suffix: &self.bytes[row.suffix],
                tail: row.tail,
                value: &self.bytes[row.value],
                child: PageId::NONE,
            };
        }
        let slot = self.slot(i);
        let flags = self.span(slot.off, 1).first().copied().unwrap_or(0);
        let child = self.span(slot.off + 1, 8).first_chunk::<8>();
        let key_off = slot.off + 9;
        Entry {
            flags,
            prefix: self.prefix(),
            suffix: self.span(key_off, slot.klen),
            tail: self.tail(flags, key_off + slot.klen).0,
            value: &[],
            child: PageId(child.map_or(0, |id| u64::from_le_bytes(*id))),
        }
    }

    /// Bytes of slots, entries and fences: what the page would fill without garbage.
    pub(crate) fn live_bytes(&self) -> usize {
        let heap = (self.bytes.len() - TRAILER_LEN).saturating_sub(self.header.heap_top as usize);
        (heap + self.n() * SLOT_LEN).saturating_sub(self.header.garbage as usize)
    }

    /// All entries in order.
    pub(crate) fn entries(&self) -> impl DoubleEndedIterator<Item = Entry<'_>> {
        (0..self.n()).map(|i| self.entry(i))
    }
}

/// What stays of a page when its content is built anew, and the bounds of the new content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    /// The page's own header: id, tree, class, birth epoch and mod count are taken from it.
    pub(crate) identity: &'a PageHeader,
    /// [`LEAF`] or [`BRANCH`].
    pub(crate) kind: u8,
    /// 0 for a leaf.
    pub(crate) level: u8,
    /// Inclusive lower bound.
    pub(crate) lower: Option<&'a StoredKey>,
    /// Exclusive upper bound.
    pub(crate) upper: Option<&'a StoredKey>,
}

/// Lays out a page.
#[derive(Debug)]
pub(crate) struct Builder {
    bytes: Vec<u8>,
    header: PageHeader,
}

/// The prefix that pages between these fences have.
pub(crate) fn prefix_len(lower: Option<&StoredKey>, upper: Option<&StoredKey>) -> usize {
    match (lower, upper) {
        (Some(lower), Some(upper)) => common(&lower.inline, &upper.inline),
        _ => 0,
    }
}

/// Leading bytes that two strings share.
pub(crate) fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl Builder {
    /// An empty page of `size` bytes in `frame`.
    pub(crate) fn new(size: usize, frame: Frame<'_>) -> Builder {
        debug_assert!((frame.kind == LEAF) == (frame.level == 0));
        let identity = frame.identity;
        let low_flags = identity.flags & ((1 << LEVEL_SHIFT) - 1);
        let header = PageHeader {
            crc: 0,
            magic: MAGIC,
            kind: frame.kind,
            mod_count: identity.mod_count + 1,
            n: 0,
            prefix_len: prefix_len(frame.lower, frame.upper) as u16,
            heap_top: (size - TRAILER_LEN) as u32,
            garbage: 0,
            lower_fence: FenceSpan::default(),
            upper_fence: FenceSpan::default(),
            flags: low_flags | u32::from(frame.level) << LEVEL_SHIFT,
            upper_child: 0,
            hints: [0; HINTS],
            ..*identity
        };
        let mut builder = Builder {
            bytes: vec![0; size],
            header,
        };
        builder.header.lower_fence = builder.put_fence(frame.lower);
        builder.header.upper_fence = builder.put_fence(frame.upper);
        builder
    }

    fn put_fence(&mut self, key: Option<&StoredKey>) -> FenceSpan {
        let Some(key) = key else {
            return FenceSpan::default();
        };
        let off = self.header.heap_top as usize - key.fence_len();
        let end = off + key.inline.len();
        self.bytes[off..end].copy_from_slice(&key.inline);
        let mut len = key.inline.len() as u16;
        if let Some(tail) = key.tail {
            self.bytes[end..end + REF_LEN].copy_from_slice(&tail.to_bytes());
            len |= FENCE_LONG;
        }
        self.header.heap_top = off as u32;
        FenceSpan {
            off: off as u16,
            len,
        }
    }

    /// Bytes between the slots and the heap.
    pub(crate) fn free(&self) -> usize {
        self.header.heap_top as usize - HEADER_LEN - usize::from(self.header.n) * SLOT_LEN
    }

    /// Appends an entry, which must be above all before it. False, and nothing changed, if it does
    /// not fit.
    #[must_use]
    pub(crate) fn push(&mut self, entry: Entry<'_>) -> bool {
        let prefix_len = usize::from(self.header.prefix_len);
        let len = entry.heap_len(self.header.kind, prefix_len);
        if len + SLOT_LEN > self.free() {
            return false;
        }
        let off = self.header.heap_top as usize - len;
        let flags = entry.flags & !ENTRY_LONG | entry.tail.map_or(0, |_| ENTRY_LONG);
        let mut at = off;
        let mut put = |bytes: &[u8]| {
            self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&[flags]);
        if self.header.kind == BRANCH {
            put(&entry.child.0.to_le_bytes());
        } else {
            let vlen = entry.value.len();
            match varint_len(vlen) {
                1 => put(&[vlen as u8]),
                2 => put(&[vlen as u8 | 0x80, (vlen >> 7) as u8]),
                _ => put(&[
                    vlen as u8 | 0x80,
                    (vlen >> 7) as u8 | 0x80,
                    (vlen >> 14) as u8,
                ]),
            }
        }
        // The old prefix may be longer or shorter than this page's.
        let from_prefix = entry.prefix.get(prefix_len..).unwrap_or(&[]);
        let from_suffix = &entry.suffix[prefix_len.saturating_sub(entry.prefix.len())..];
        put(from_prefix);
        put(from_suffix);
        if let Some(tail) = entry.tail {
            put(&tail.to_bytes());
        }
        put(entry.value);
        debug_assert_eq!(at, off + len);
        let klen = from_prefix.len() + from_suffix.len();
        let head_bytes: Vec<u8> = from_prefix
            .iter()
            .chain(from_suffix)
            .take(4)
            .copied()
            .collect();
        let slot = Slot {
            head: head_of(&head_bytes),
            off,
            klen,
        };
        let slot_off = HEADER_LEN + usize::from(self.header.n) * SLOT_LEN;
        self.bytes[slot_off..slot_off + SLOT_LEN].copy_from_slice(&slot.pack().to_le_bytes());
        self.header.heap_top = off as u32;
        self.header.n += 1;
        true
    }

    /// The page. `upper_child` is a branch's last child, none for a leaf.
    pub(crate) fn finish(mut self, upper_child: PageId) -> Vec<u8> {
        assert_eq!(
            upper_child.is_none(),
            self.header.kind == LEAF,
            "only branches have children"
        );
        let step = hint_step(usize::from(self.header.n));
        if step >= 2 {
            for i in 0..HINTS {
                let off = HEADER_LEN + (i + 1) * step * SLOT_LEN;
                let head = self.bytes[off..]
                    .first_chunk::<4>()
                    .copied()
                    .unwrap_or_default();
                self.header.hints[i] = u32::from_le_bytes(head);
            }
        }
        self.header.upper_child = upper_child.0;
        self.bytes[..HEADER_LEN].copy_from_slice(bytemuck::bytes_of(&self.header));
        self.bytes
    }
}
