//! Optimistic latches on the state word of a page.
//!
//! ```text
//! bit 63                 24 23      16 15               0
//!     | version (40 bits)  | latch    | flags           |
//! ```
//!
//! A reader takes a copy of the word ([`look`]), reads the page with relaxed loads, and then asks
//! whether the word still says the same ([`unchanged`]). A writer sets the latch by compare and
//! swap ([`try_upgrade`], [`try_latch`]), stores, and gives the latch back with a new version
//! ([`release_changed`]). Flags that say nothing about the content (marked, io) may change at any
//! time. This is optimistic lock coupling (Leis et al., DaMoN 2016) on a sequence lock whose
//! fences are those of Boehm, "Can seqlocks get along with programming language memory models?"
//! (MSPC 2012). Nobody waits here: every function answers at once (T4).
//!
//! The words come in as `&AtomicU64`, so that loom runs this very code.

use terrane_wal::sync::{AtomicU64, Ordering, fence};

/// Flag: the page is in memory.
pub const RESIDENT: u64 = 1;
/// Flag: the frame differs from the page's slot.
pub const DIRTY: u64 = 1 << 1;
/// Flag: looked at since the clock's hand last passed.
pub const MARKED: u64 = 1 << 2;
/// Flag: a copy of the page is on its way to disk.
pub const IO: u64 = 1 << 3;

const LATCHED: u64 = 0xff << 16;
const VERSION_ONE: u64 = 1 << 24;
/// Bits that must not differ between two looks at the same content.
const CONTENT: u64 = !(MARKED | IO | DIRTY | 0xfff0);

/// Why a look failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// Somebody holds the latch.
    Latched,
    /// The page is not in memory.
    Absent,
}

/// A copy of the word for a later [`unchanged`], marking the page as used.
#[inline]
pub fn look(word: &AtomicU64) -> Result<u64, Blocked> {
    let seen = word.load(Ordering::Acquire);
    if seen & LATCHED != 0 {
        return Err(Blocked::Latched);
    }
    if seen & RESIDENT == 0 {
        return Err(Blocked::Absent);
    }
    if seen & MARKED == 0 {
        word.fetch_or(MARKED, Ordering::Relaxed);
    }
    Ok(seen)
}

/// True if everything read since `seen` was taken belongs to one state of the page.
#[inline]
pub fn unchanged(word: &AtomicU64, seen: u64) -> bool {
    // Pairs with the release fence of the writer: who saw one of its stores sees its latch here.
    fence(Ordering::Acquire);
    (word.load(Ordering::Relaxed) ^ seen) & CONTENT == 0
}

/// Latches the page if its content is still that of `seen`.
#[inline]
pub fn try_upgrade(word: &AtomicU64, seen: u64) -> bool {
    let mut now = word.load(Ordering::Relaxed);
    while (now ^ seen) & CONTENT == 0 {
        match word.compare_exchange_weak(now, now | LATCHED, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => {
                fence(Ordering::Release);
                return true;
            }
            Err(other) => now = other,
        }
    }
    false
}

/// Latches the page in whatever state it is. Returns the word before, or None if it is latched.
#[inline]
pub fn try_latch(word: &AtomicU64) -> Option<u64> {
    let mut now = word.load(Ordering::Relaxed);
    while now & LATCHED == 0 {
        match word.compare_exchange_weak(now, now | LATCHED, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => {
                fence(Ordering::Release);
                return Some(now);
            }
            Err(other) => now = other,
        }
    }
    None
}

/// Gives the latch back after a change: readers of the old content learn of it.
#[inline]
pub fn release_changed(word: &AtomicU64) {
    // Flags may change beside the latch, so this is an addition and not a store. The version's
    // carry leaves the word at the top.
    word.fetch_add(VERSION_ONE - LATCHED, Ordering::Release);
}

/// Gives the latch back; the content is what it was.
#[inline]
pub fn release_unchanged(word: &AtomicU64) {
    word.fetch_sub(LATCHED, Ordering::Release);
}

/// Sets flags.
#[inline]
pub fn set(word: &AtomicU64, flags: u64) {
    word.fetch_or(flags, Ordering::Relaxed);
}

/// Clears flags.
#[inline]
pub fn clear(word: &AtomicU64, flags: u64) {
    word.fetch_and(!flags, Ordering::Relaxed);
}

/// True if nobody holds the latch in this copy of the word.
#[inline]
pub fn is_free(seen: u64) -> bool {
    seen & LATCHED == 0
}

/// The part of a copy of the word that changes with the content, for comparing two moments at
/// which the caller held the latch.
#[inline]
pub fn version(seen: u64) -> u64 {
    seen >> 24
}
