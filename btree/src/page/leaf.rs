//! Rows in a leaf: found, inserted, replaced, removed in place.
//!
//! An entry is written below the heap and named by a slot; what it replaces becomes garbage, which
//! compaction (the page built anew from its own copy) turns into free space when the page is full.
//! Every change ends with the counts, the mod count and the hints as format.md defines them.

use super::header::{
    Counts, HEADER_LEN, LEAF, OFF_COUNTS, OFF_GARBAGE, OFF_MOD_COUNT, SLOT_LEN, TRAILER_LEN, counts,
};
use super::image::{Builder, Entry, Frame, PageCopy, varint};
use super::overflow::{OverflowRef, REF_LEN};
use super::slots::{ENTRY_LONG, EntryKey, Slot, Tails, head_of, refresh_hints, search};
use super::view::{PageEdit, PageView};
use crate::ids::PageId;

/// Entry flag: the row was deleted, older versions of it may live elsewhere.
pub(crate) const ROW_GHOST: u8 = 1;
/// Entry flag: older versions of the row may live elsewhere.
pub(crate) const ROW_VERSIONED: u8 = 2;
/// Entry flag: the value is in overflow pages.
pub(crate) const ROW_OVERFLOW: u8 = 4;
/// All flags that a leaf entry of format 1 may have.
pub(crate) const ROW_FLAGS: u8 = ROW_GHOST | ROW_VERSIONED | ROW_OVERFLOW | ENTRY_LONG;

/// Where the parts of a row lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowSpan {
    /// `ROW_*` and [`ENTRY_LONG`].
    pub(crate) flags: u8,
    /// The whole heap entry.
    pub(crate) off: usize,
    /// Its length.
    pub(crate) len: usize,
    /// The tail of the key, if it is long.
    pub(crate) tail: Option<OverflowRef>,
    /// The value or its reference.
    pub(crate) value_off: usize,
    /// Its length in the page.
    pub(crate) value_len: usize,
}

impl RowSpan {
    /// The chain of the value, if it is not inline.
    pub(crate) fn overflow(&self, view: PageView<'_>) -> Option<OverflowRef> {
        (self.flags & ROW_OVERFLOW != 0).then(|| OverflowRef::read(view, self.value_off))
    }
}

/// Flags, value length and where the key begins, from the first bytes of an entry.
#[inline]
fn prologue(view: PageView<'_>, off: usize) -> (u8, usize, usize) {
    let word = view.u32_at(off).to_le_bytes();
    let (value_len, used) = varint([word[1], word[2], word[3]]);
    (word[0], value_len, off + 1 + used)
}

#[inline]
fn entry_key(view: PageView<'_>, off: usize) -> EntryKey {
    let (flags, _, key_off) = prologue(view, off);
    EntryKey {
        off: key_off,
        long: flags & ENTRY_LONG != 0,
    }
}

/// Finds `key`: `Ok(i)` if row i has it, `Err(i)` if it belongs before row i.
#[inline]
pub(crate) fn find<T: Tails>(
    view: PageView<'_>,
    key: &[u8],
    tails: &T,
) -> Result<Result<usize, usize>, T::Error> {
    search(view, key, entry_key, tails)
}

/// Whether row `i` has this short key, which the page's fences enclose.
#[inline]
pub(crate) fn has_at(view: PageView<'_>, i: usize, key: &[u8]) -> bool {
    let counts = counts(view);
    if i >= counts.n {
        return false;
    }
    let slot = Slot::read(view, i);
    let EntryKey { off, long } = entry_key(view, slot.off);
    let suffix = key.get(counts.prefix_len..);
    !long && suffix.is_some_and(|suffix| view.compare(off, slot.klen, suffix).is_eq())
}

/// The parts of row `i`.
#[inline]
pub(crate) fn row(view: PageView<'_>, i: usize) -> RowSpan {
    let slot = Slot::read(view, i);
    let (flags, value_len, key_off) = prologue(view, slot.off);
    let mut value_off = key_off + slot.klen;
    let mut tail = None;
    if flags & ENTRY_LONG != 0 {
        tail = Some(OverflowRef::read(view, value_off));
        value_off += REF_LEN;
    }
    let len = value_off + value_len - slot.off;
    RowSpan {
        flags,
        off: slot.off,
        len,
        tail,
        value_off,
        value_len,
    }
}

/// Bytes of slots, entries and fences: what the page would fill without garbage.
pub(crate) fn live_bytes(view: PageView<'_>) -> usize {
    let counts = counts(view);
    let heap = (view.size() - TRAILER_LEN).saturating_sub(counts.heap_top);
    (heap + counts.n * SLOT_LEN).saturating_sub(view.u32_at(OFF_GARBAGE) as usize)
}

/// Bytes that a page can hold besides header and trailer.
pub(crate) fn capacity(size: usize) -> usize {
    size - HEADER_LEN - TRAILER_LEN
}

/// Writes n, prefix_len and heap_top in one store, and counts the change.
pub(crate) fn put_counts(edit: &mut PageEdit<'_>, counts: Counts) {
    let word = counts.n as u64 | (counts.prefix_len as u64) << 16 | (counts.heap_top as u64) << 32;
    edit.put_u64(OFF_COUNTS, word);
    let mods = edit.view().u64_at(OFF_MOD_COUNT);
    edit.put_u64(OFF_MOD_COUNT, mods + 1);
}

/// Adds to the garbage counter.
pub(crate) fn add_garbage(edit: &mut PageEdit<'_>, bytes: usize) {
    let garbage = edit.view().u32_at(OFF_GARBAGE) as usize + bytes;
    edit.put_u32(OFF_GARBAGE, garbage as u32);
}

/// Makes `need` bytes free between slots and heap, if garbage allows it.
pub(crate) fn make_room(edit: &mut PageEdit<'_>, need: usize) -> bool {
    let view = edit.view();
    let counts = counts(view);
    let free = counts.heap_top - HEADER_LEN - counts.n * SLOT_LEN;
    if need <= free {
        return true;
    }
    if need > free + view.u32_at(OFF_GARBAGE) as usize {
        return false;
    }
    compact(edit);
    true
}

/// Builds the page anew without its garbage.
pub(crate) fn compact(edit: &mut PageEdit<'_>) {
    let copy = PageCopy::of(edit.view());
    let (lower, upper) = (copy.lower(), copy.upper());
    let frame = Frame {
        identity: copy.header(),
        kind: copy.header().kind,
        level: copy.header().level(),
        lower: lower.as_ref(),
        upper: upper.as_ref(),
    };
    let mut builder = Builder::new(edit.view().size(), frame);
    for entry in copy.entries() {
        assert!(builder.push(entry), "a page does not hold its own entries");
    }
    edit.write_page(&builder.finish(PageId(copy.header().upper_child)));
}

/// Opens slot `at` for an entry of `len` bytes and returns where to write it.
pub(crate) fn open_slot(edit: &mut PageEdit<'_>, at: usize, len: usize, suffix: &[u8]) -> usize {
    let counts = counts(edit.view());
    assert!(at <= counts.n, "a slot beyond the page's");
    let off = counts.heap_top - len;
    debug_assert!(off >= HEADER_LEN + (counts.n + 1) * SLOT_LEN);
    let word = HEADER_LEN / 8 + at;
    edit.move_words(word, word + 1, counts.n - at);
    let slot = Slot {
        head: head_of(suffix),
        off,
        klen: suffix.len(),
    };
    edit.put_u64(word * 8, slot.pack());
    put_counts(
        edit,
        Counts {
            n: counts.n + 1,
            heap_top: off,
            ..counts
        },
    );
    refresh_hints(edit, counts.n + 1);
    off
}

/// Takes slot `at` away; its entry of `len` bytes becomes garbage.
pub(crate) fn close_slot(edit: &mut PageEdit<'_>, at: usize, len: usize) {
    let counts = counts(edit.view());
    assert!(at < counts.n, "a slot beyond the page's");
    let word = HEADER_LEN / 8 + at;
    edit.move_words(word + 1, word, counts.n - at - 1);
    add_garbage(edit, len);
    put_counts(
        edit,
        Counts {
            n: counts.n - 1,
            ..counts
        },
    );
    refresh_hints(edit, counts.n - 1);
}

/// What is stored under a key: flags without [`ENTRY_LONG`], and the value or its reference.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Payload<'a> {
    pub(crate) flags: u8,
    pub(crate) value: &'a [u8],
}

/// Inserts a row before slot `at`. False, and nothing changed, if there is no room for it.
/// `inline` is the inline part of the key with the page's prefix.
#[must_use]
pub(crate) fn insert(
    edit: &mut PageEdit<'_>,
    at: usize,
    inline: &[u8],
    tail: Option<OverflowRef>,
    payload: Payload<'_>,
) -> bool {
    let prefix_len = counts(edit.view()).prefix_len;
    let (prefix, suffix) = inline.split_at(prefix_len);
    let entry = Entry {
        flags: payload.flags,
        prefix,
        suffix,
        tail,
        value: payload.value,
        child: PageId::NONE,
    };
    let len = entry.heap_len(LEAF, prefix_len);
    if !make_room(edit, len + SLOT_LEN) {
        return false;
    }
    let off = open_slot(edit, at, len, suffix);
    write_entry(edit, off, suffix, tail, payload);
    true
}

/// Writes an entry's bytes at `off`.
fn write_entry(
    edit: &mut PageEdit<'_>,
    off: usize,
    suffix: &[u8],
    tail: Option<OverflowRef>,
    payload: Payload<'_>,
) {
    edit.put_u8(off, payload.flags | tail.map_or(0, |_| ENTRY_LONG));
    let mut at = off + 1;
    let mut vlen = payload.value.len();
    while vlen >= 0x80 {
        edit.put_u8(at, vlen as u8 | 0x80);
        vlen >>= 7;
        at += 1;
    }
    edit.put_u8(at, vlen as u8);
    at += 1;
    edit.put_bytes(at, suffix);
    at += suffix.len();
    if let Some(tail) = tail {
        edit.put_bytes(at, &tail.to_bytes());
        at += REF_LEN;
    }
    edit.put_bytes(at, payload.value);
}

/// Replaces flags and value of row `at`, whose key has the inline part `inline`. False, and nothing
/// changed, if there is no room.
#[must_use]
pub(crate) fn replace(
    edit: &mut PageEdit<'_>,
    at: usize,
    inline: &[u8],
    payload: Payload<'_>,
) -> bool {
    let view = edit.view();
    let old = row(view, at);
    let now = counts(view);
    let suffix = &inline[now.prefix_len..];
    if old.value_len == payload.value.len() {
        // The common update: the same length, so only these bytes change.
        edit.put_u8(old.off, payload.flags | old.flags & ENTRY_LONG);
        edit.put_bytes(old.value_off, payload.value);
        put_counts(edit, now);
        return true;
    }
    let tail_len = old.tail.map_or(0, |_| REF_LEN);
    let vlen_len = super::image::varint_len(payload.value.len());
    let len = 1 + vlen_len + suffix.len() + tail_len + payload.value.len();
    if len <= old.len {
        write_entry(edit, old.off, suffix, old.tail, payload);
        add_garbage(edit, old.len - len);
        put_counts(edit, now);
        return true;
    }
    let free = now.heap_top - HEADER_LEN - now.n * SLOT_LEN;
    if len > free + view.u32_at(OFF_GARBAGE) as usize + old.len {
        return false;
    }
    close_slot(edit, at, old.len);
    let made = make_room(edit, len + SLOT_LEN);
    assert!(made, "the room was counted before");
    let off = open_slot(edit, at, len, suffix);
    write_entry(edit, off, suffix, old.tail, payload);
    true
}

/// Removes row `at`.
pub(crate) fn remove(edit: &mut PageEdit<'_>, at: usize) {
    let len = row(edit.view(), at).len;
    close_slot(edit, at, len);
}
