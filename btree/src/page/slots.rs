//! The slot array: sorted, one word a slot, searched by key heads.
//!
//! A slot holds the first four key bytes after the page's prefix, as a number that compares as the
//! bytes do, so most steps of a search touch no heap. Sixteen hints in the header are heads sampled
//! at even steps: they narrow the search to a seventeenth of the slots before it touches any.
//!
//! The search trusts nothing (V1, V2): on a page that changes under it, or on garbage, it ends
//! after a bounded number of steps with some answer, which the caller's validation throws away.

use std::cmp::Ordering;

use super::header::{HEADER_LEN, HINTS, OFF_HINTS, SLOT_LEN, counts, inline_key_max};
use super::overflow::OverflowRef;
use super::view::{PageEdit, PageView};

/// Flag of an entry, leaf or branch: the key's tail is in overflow pages.
pub(crate) const ENTRY_LONG: u8 = 32;

/// A slot, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The first four key bytes after the prefix, big-endian, zero padded.
    pub(crate) head: u32,
    /// Where the entry lies.
    pub(crate) off: usize,
    /// Inline key bytes after the prefix.
    pub(crate) klen: usize,
}

impl Slot {
    /// From the word in the page.
    #[inline]
    pub(crate) fn unpack(word: u64) -> Slot {
        Slot {
            head: word as u32,
            off: usize::from((word >> 32) as u16),
            klen: usize::from((word >> 48) as u16),
        }
    }

    /// The word in the page.
    pub(crate) fn pack(&self) -> u64 {
        debug_assert!(self.off <= 0xffff && self.klen <= 0xffff);
        u64::from(self.head) | (self.off as u64) << 32 | (self.klen as u64) << 48
    }

    /// Slot `i` of a page.
    #[inline]
    pub(crate) fn read(view: PageView<'_>, i: usize) -> Slot {
        Slot::unpack(view.u64_at(HEADER_LEN + i * SLOT_LEN))
    }
}

/// The head of a key without its prefix.
#[inline]
pub(crate) fn head_of(suffix: &[u8]) -> u32 {
    match suffix.first_chunk::<4>() {
        Some(chunk) => u32::from_be_bytes(*chunk),
        None => {
            let mut padded = [0; 4];
            padded[..suffix.len()].copy_from_slice(suffix);
            u32::from_be_bytes(padded)
        }
    }
}

/// Slots between two hints in a page of `n` slots; below 2 there are none.
#[inline]
pub(crate) fn hint_step(n: usize) -> usize {
    n / (HINTS + 1)
}

/// Compares tails of long keys, which lie in other pages.
pub(crate) trait Tails {
    /// Why a tail could not be had.
    type Error;

    /// The stored tail against the rest of the key searched for.
    fn compare(&self, tail: OverflowRef, rest: &[u8]) -> Result<Ordering, Self::Error>;
}

/// Where an entry's key bytes lie, and whether a tail follows them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntryKey {
    pub(crate) off: usize,
    pub(crate) long: bool,
}

/// Finds `key` among the slots: `Ok(i)` if slot i holds it, `Err(i)` if it belongs before slot i.
/// `entry` finds the key bytes of the entry at an offset. O(log n) steps.
#[inline]
pub(crate) fn search<T: Tails>(
    view: PageView<'_>,
    key: &[u8],
    entry: impl Fn(PageView<'_>, usize) -> EntryKey,
    tails: &T,
) -> Result<Result<usize, usize>, T::Error> {
    let counts = counts(view);
    let inline_max = inline_key_max(view.size());
    let inline = &key[..key.len().min(inline_max)];
    // A key shorter than the prefix is possible only on garbage: any answer will do.
    let suffix = inline.get(counts.prefix_len..).unwrap_or(&[]);
    let head = head_of(suffix);
    let n = counts.n.min((view.size() - HEADER_LEN) / SLOT_LEN);
    let (lo, hi) = narrow(view, n, head);
    let lo = first_at_least(view, lo, hi, head);
    // Mostly the head tells all: no slot has it, or just one, whose entry is looked at.
    let mut hi = lo;
    if lo < n && Slot::read(view, lo).head == head {
        hi = lo + 1;
        if hi < n && Slot::read(view, hi).head == head {
            hi = match head.checked_add(1) {
                Some(next) => first_at_least(view, hi, n, next),
                None => n,
            };
        }
    }
    let mut lo = lo;
    while lo < hi {
        let mid = (lo + hi) / 2;
        match compare_entry(view, mid, suffix, key.get(inline_max..), &entry, tails)? {
            Ordering::Less => lo = mid + 1,
            Ordering::Greater => hi = mid,
            Ordering::Equal => return Ok(Ok(mid)),
        }
    }
    Ok(Err(lo))
}

/// The first slot of `lo..hi` whose head is at least `head`, or `hi`. No step depends on a guess of
/// the processor: where a key lies is what no branch predictor knows.
#[inline]
fn first_at_least(view: PageView<'_>, lo: usize, hi: usize, head: u32) -> usize {
    let (mut base, mut len) = (lo, hi.saturating_sub(lo));
    while len > 0 {
        let half = len.div_ceil(2);
        let below = Slot::read(view, base + half - 1).head < head;
        base += if below { half } else { 0 };
        len -= half;
    }
    base
}

/// Compares the key of slot `i` with the one searched for: `suffix` is that one's inline part
/// without the prefix, `rest` what comes after the inline part.
#[inline]
fn compare_entry<T: Tails>(
    view: PageView<'_>,
    i: usize,
    suffix: &[u8],
    rest: Option<&[u8]>,
    entry: &impl Fn(PageView<'_>, usize) -> EntryKey,
    tails: &T,
) -> Result<Ordering, T::Error> {
    let slot = Slot::read(view, i);
    let at = entry(view, slot.off);
    let order = view.compare(at.off, slot.klen, suffix);
    if order != Ordering::Equal {
        return Ok(order);
    }
    match (at.long, rest.filter(|rest| !rest.is_empty())) {
        (false, Some(_)) => Ok(Ordering::Less),
        (false, None) => Ok(Ordering::Equal),
        (true, Some(rest)) => tails.compare(OverflowRef::read(view, at.off + slot.klen), rest),
        (true, None) => Ok(Ordering::Greater),
    }
}

/// The range of slots that the hints leave for `head`.
#[inline]
fn narrow(view: PageView<'_>, n: usize, head: u32) -> (usize, usize) {
    let step = hint_step(n);
    if step < 2 {
        return (0, n);
    }
    let (mut below, mut not_above) = (0, 0);
    for i in 0..HINTS / 2 {
        let word = view.u64_at(OFF_HINTS + i * 8);
        let (first, second) = (word as u32, (word >> 32) as u32);
        below += usize::from(first < head) + usize::from(second < head);
        not_above += usize::from(first <= head) + usize::from(second <= head);
    }
    let lo = if below == 0 { 0 } else { below * step + 1 };
    let hi = if not_above >= HINTS {
        n
    } else {
        (not_above + 1) * step
    };
    (lo.min(n), hi.min(n))
}

/// Samples the hints anew. Call after every change of the slot array.
pub(crate) fn refresh_hints(edit: &mut PageEdit<'_>, n: usize) {
    let view = edit.view();
    let step = hint_step(n);
    for pair in 0..HINTS / 2 {
        let word = if step < 2 {
            0
        } else {
            let first = Slot::read(view, (2 * pair + 1) * step).head;
            let second = Slot::read(view, (2 * pair + 2) * step).head;
            u64::from(first) | u64::from(second) << 32
        };
        edit.put_u64(OFF_HINTS + pair * 8, word);
    }
}
