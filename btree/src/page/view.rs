//! Looking into a page and writing to it, one whole word at a time.
//!
//! A frame is `&[AtomicU64]`. An optimistic reader looks at a page that somebody may be changing,
//! so every load is a relaxed load of a whole word (racing atomics must have one size), and what it
//! sees may be any mixture of bytes. Therefore:
//!
//! - V1: no read panics, whatever offset or length it is given: beyond the page there are zeros.
//! - V2: nothing that was read means anything before the page's version was validated.
//! - V3: a write is made only under the page's exclusive latch, on a page that was verified when it
//!   was loaded; so a write outside the page is a broken invariant and panics.
//!
//! Bytes lie in a word in little-endian order, so a page copied word by word is the page on disk.

use std::cmp::Ordering;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::pool::frame::{copy_line, expect};

/// A page that may change while it is looked at.
#[derive(Clone, Copy, Debug)]
pub struct PageView<'a> {
    words: &'a [AtomicU64],
}

impl<'a> PageView<'a> {
    /// A view of the page in `words`.
    #[must_use]
    pub fn new(words: &'a [AtomicU64]) -> PageView<'a> {
        PageView { words }
    }

    /// Bytes of the page.
    #[inline]
    #[must_use]
    pub fn size(&self) -> usize {
        self.words.len() * 8
    }

    /// The words themselves, for whoever copies whole pages.
    #[must_use]
    pub fn words(&self) -> &'a [AtomicU64] {
        self.words
    }

    #[inline]
    fn word(&self, index: usize) -> u64 {
        match self.words.get(index) {
            Some(word) => word.load(Relaxed),
            None => 0,
        }
    }

    /// The eight bytes at `off`, at any alignment.
    #[inline]
    #[must_use]
    pub fn u64_at(&self, off: usize) -> u64 {
        let index = off / 8;
        let shift = (off % 8) * 8;
        let low = self.word(index) >> shift;
        if shift == 0 {
            low
        } else {
            low | self.word(index + 1) << (64 - shift)
        }
    }

    /// The four bytes at `off`, at any alignment.
    #[inline]
    #[must_use]
    pub fn u32_at(&self, off: usize) -> u32 {
        if off % 8 <= 4 {
            (self.word(off / 8) >> (off % 8 * 8)) as u32
        } else {
            self.u64_at(off) as u32
        }
    }

    /// The two bytes at `off`, at any alignment.
    #[inline]
    #[must_use]
    pub fn u16_at(&self, off: usize) -> u16 {
        if off % 8 <= 6 {
            (self.word(off / 8) >> (off % 8 * 8)) as u16
        } else {
            self.u64_at(off) as u16
        }
    }

    /// The byte at `off`.
    #[inline]
    #[must_use]
    pub fn u8_at(&self, off: usize) -> u8 {
        (self.word(off / 8) >> (off % 8 * 8)) as u8
    }

    /// Appends the bytes `off..off + len` to `out`. False, and nothing appended, if they do not lie
    /// inside the page.
    #[must_use]
    pub fn append_to(&self, off: usize, len: usize, out: &mut Vec<u8>) -> bool {
        if off > self.size() || len > self.size() - off {
            return false;
        }
        let start = out.len();
        out.resize(start + len, 0);
        let (chunks, rest) = out[start..].as_chunks_mut::<8>();
        let mut at = off;
        for chunk in chunks {
            *chunk = self.u64_at(at).to_le_bytes();
            at += 8;
        }
        if !rest.is_empty() {
            rest.copy_from_slice(&self.u64_at(at).to_le_bytes()[..rest.len()]);
        }
        true
    }

    /// Has the two cache lines from `off` on on their way from memory.
    #[inline]
    pub(crate) fn expect(&self, off: usize) {
        let from = self.words.get(off / 8..).unwrap_or(&[]);
        expect(&from[..from.len().min(16)]);
    }

    /// The words in which the bytes `off..off + len` lie; the first of these is byte `off % 8` of
    /// them. None if they do not lie inside the page.
    #[inline]
    pub(crate) fn enclosing(&self, off: usize, len: usize) -> Option<&'a [AtomicU64]> {
        if off > self.size() || len > self.size() - off {
            return None;
        }
        self.words.get(off / 8..(off + len).div_ceil(8))
    }

    /// Copies the bytes from `off` on to `out`: a few, at any alignment.
    #[inline]
    pub(crate) fn copy_few(&self, off: usize, out: &mut [u8]) {
        let mut at = off;
        for chunk in out.chunks_mut(8) {
            let len = chunk.len();
            chunk.copy_from_slice(&self.u64_at(at).to_le_bytes()[..len]);
            at += 8;
        }
    }

    /// Compares the bytes `off..off + len` with `key`, as byte strings.
    #[inline]
    #[must_use]
    pub fn compare(&self, off: usize, len: usize, key: &[u8]) -> Ordering {
        let common = len.min(key.len());
        let (chunks, rest) = key[..common].as_chunks::<8>();
        let mut at = off;
        for chunk in chunks {
            let here = self.u64_at(at).swap_bytes();
            let there = u64::from_be_bytes(*chunk);
            if here != there {
                return here.cmp(&there);
            }
            at += 8;
        }
        if !rest.is_empty() {
            let here = self.u64_at(at).swap_bytes() >> (64 - 8 * rest.len());
            let there = rest.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
            if here != there {
                return here.cmp(&there);
            }
        }
        len.cmp(&key.len())
    }

    /// Makes `out` a copy of the whole page. Handing in the same buffer for every page saves its
    /// allocation.
    pub fn copy_to(&self, out: &mut Vec<u8>) {
        out.resize(self.size(), 0);
        // The two halves side by side: a miss of the one is waited for during that of the other.
        let (lines, _) = self.words.as_chunks::<8>();
        let (copies, _) = out.as_chunks_mut::<8>().0.as_chunks_mut::<8>();
        let half = lines.len() / 2;
        let (front, back) = lines.split_at(half);
        let (front_copy, back_copy) = copies.split_at_mut(half);
        let mut back = back.iter().zip(back_copy);
        for (line, copy) in front.iter().zip(front_copy) {
            copy_line(line, copy);
            if let Some((line, copy)) = back.next() {
                copy_line(line, copy);
            }
        }
        for (line, copy) in back {
            copy_line(line, copy);
        }
    }
}

/// Copies whole words, as far as `out` has room for them.
pub(crate) fn copy_words(words: &[AtomicU64], out: &mut [u8]) {
    let (chunks, _) = out.as_chunks_mut::<8>();
    let (lines, words) = words.as_chunks::<8>();
    let (copies, rest) = chunks.as_chunks_mut::<8>();
    for (line, copy) in lines.iter().zip(copies) {
        copy_line(line, copy);
    }
    for (word, bytes) in words.iter().zip(rest) {
        *bytes = word.load(Relaxed).to_le_bytes();
    }
}

/// A page under its exclusive latch.
#[derive(Debug)]
pub struct PageEdit<'a> {
    words: &'a [AtomicU64],
}

impl<'a> PageEdit<'a> {
    /// The page in `words`, whose exclusive latch the caller holds (V3).
    #[must_use]
    pub fn new(words: &'a [AtomicU64]) -> PageEdit<'a> {
        PageEdit { words }
    }

    /// The same page to look at.
    #[inline]
    #[must_use]
    pub fn view(&self) -> PageView<'a> {
        PageView { words: self.words }
    }

    /// Writes the low `len` bytes (1 to 8) of `value` at `off`, at any alignment.
    fn put_low(&mut self, off: usize, len: usize, value: u64) {
        debug_assert!((1..=8).contains(&len));
        let index = off / 8;
        let shift = off % 8 * 8;
        let mask = if len == 8 {
            u64::MAX
        } else {
            (1 << (len * 8)) - 1
        };
        let value = value & mask;
        self.merge(index, mask << shift, value << shift);
        if shift + len * 8 > 64 {
            self.merge(index + 1, mask >> (64 - shift), value >> (64 - shift));
        }
    }

    /// Replaces the bits of word `index` that are set in `mask`.
    fn merge(&mut self, index: usize, mask: u64, bits: u64) {
        let word = &self.words[index]; // V3
        if mask == u64::MAX {
            word.store(bits, Relaxed);
        } else {
            word.store(word.load(Relaxed) & !mask | bits, Relaxed);
        }
    }

    /// Writes eight bytes.
    pub fn put_u64(&mut self, off: usize, value: u64) {
        self.put_low(off, 8, value);
    }

    /// Writes four bytes.
    pub fn put_u32(&mut self, off: usize, value: u32) {
        self.put_low(off, 4, u64::from(value));
    }

    /// Writes two bytes.
    pub fn put_u16(&mut self, off: usize, value: u16) {
        self.put_low(off, 2, u64::from(value));
    }

    /// Writes one byte.
    pub fn put_u8(&mut self, off: usize, value: u8) {
        self.put_low(off, 1, u64::from(value));
    }

    /// Writes `bytes` at `off`.
    pub fn put_bytes(&mut self, off: usize, bytes: &[u8]) {
        let mut at = off;
        let head = bytes.len().min((8 - off % 8) % 8);
        let (first, rest) = bytes.split_at(head);
        if !first.is_empty() {
            self.put_low(at, first.len(), little(first));
            at += first.len();
        }
        let mut chunks = rest.chunks_exact(8);
        for chunk in &mut chunks {
            self.merge(at / 8, u64::MAX, little(chunk));
            at += 8;
        }
        if !chunks.remainder().is_empty() {
            self.put_low(at, chunks.remainder().len(), little(chunks.remainder()));
        }
    }

    /// Moves `count` whole words from word `from` to word `to`; the ranges may overlap.
    pub fn move_words(&mut self, from: usize, to: usize, count: usize) {
        if from < to {
            for i in (0..count).rev() {
                self.words[to + i].store(self.words[from + i].load(Relaxed), Relaxed);
            }
        } else {
            for i in 0..count {
                self.words[to + i].store(self.words[from + i].load(Relaxed), Relaxed);
            }
        }
    }

    /// Writes a whole page. `image` has the page's size.
    pub fn write_page(&mut self, image: &[u8]) {
        assert_eq!(
            image.len(),
            self.words.len() * 8,
            "a page image of the wrong size"
        );
        for (word, chunk) in self.words.iter().zip(image.chunks_exact(8)) {
            word.store(little(chunk), Relaxed);
        }
    }
}

/// Up to eight bytes as a little-endian number.
#[inline]
fn little(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(bytes: &[u8]) -> Vec<AtomicU64> {
        bytes
            .chunks_exact(8)
            .map(|c| AtomicU64::new(little(c)))
            .collect()
    }

    #[test]
    fn reads_agree_with_the_bytes_at_every_offset() {
        let bytes: Vec<u8> = (0..64u8).map(|i| i.wrapping_mul(37) ^ 0x5a).collect();
        let words = page(&bytes);
        let view = PageView::new(&words);
        let at = |off: usize, len: usize| {
            let mut sum = 0u64;
            for i in (0..len).rev() {
                sum = sum << 8 | u64::from(*bytes.get(off + i).unwrap_or(&0));
            }
            sum
        };
        for off in 0..80 {
            assert_eq!(view.u64_at(off), at(off, 8));
            assert_eq!(u64::from(view.u32_at(off)), at(off, 4));
            assert_eq!(u64::from(view.u16_at(off)), at(off, 2));
            assert_eq!(u64::from(view.u8_at(off)), at(off, 1));
        }
        let _ = (
            view.u64_at(usize::MAX),
            view.u32_at(usize::MAX - 1),
            view.u16_at(usize::MAX),
        );
    }

    #[test]
    fn writes_touch_their_bytes_and_no_others() {
        for off in 0..24 {
            for len in 0..40 {
                let mut expect = vec![0xa5u8; 64];
                let words = page(&expect);
                let data: Vec<u8> = (0..len).map(|i| i as u8).collect();
                PageEdit::new(&words).put_bytes(off, &data);
                expect[off..off + len].copy_from_slice(&data);
                let mut got = Vec::new();
                PageView::new(&words).copy_to(&mut got);
                assert_eq!(got, expect, "off {off} len {len}");
                let mut part = Vec::new();
                assert!(PageView::new(&words).append_to(off, len, &mut part));
                assert_eq!(part, data);
            }
        }
    }

    #[test]
    fn comparison_is_that_of_byte_strings() {
        let bytes: Vec<u8> = (0..64u8).collect();
        let words = page(&bytes);
        let view = PageView::new(&words);
        for off in 0..16 {
            for len in 0..20 {
                let here = &bytes[off..off + len];
                for cut in 0..=len {
                    assert_eq!(view.compare(off, len, &here[..cut]), here.cmp(&here[..cut]));
                }
                let mut other = here.to_vec();
                other.push(0);
                assert_eq!(view.compare(off, len, &other), Ordering::Less);
                for flip in 0..len {
                    let mut other = here.to_vec();
                    other[flip] ^= 0x80;
                    assert_eq!(view.compare(off, len, &other), here.cmp(&other[..]));
                }
            }
        }
    }

    #[test]
    fn a_range_outside_the_page_is_refused() {
        let words = page(&[7; 64]);
        let view = PageView::new(&words);
        let mut out = Vec::new();
        assert!(!view.append_to(60, 5, &mut out));
        assert!(!view.append_to(65, 0, &mut out));
        assert!(!view.append_to(usize::MAX, 2, &mut out));
        assert!(out.is_empty());
    }
}
