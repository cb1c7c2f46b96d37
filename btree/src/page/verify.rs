//! What a valid page is.
//!
//! A page passes here once, when it comes from disk, and from then on its offsets are believed; so
//! everything that reading or changing a page relies on is checked: every slot, entry and fence
//! lies inside the heap and overlaps no other, keys rise and lie between the fences (T1), heads and
//! hints say what the keys say, and the garbage counter is exact. Identity (which page of which
//! tree) and the crc against the map are the pool's matter (T3).
//!
//! Work is bounded by the page: O(n log n) in its slots, no recursion, no reference followed.

use std::fmt;

use super::header::{
    BRANCH, FENCE_LONG, FLAGS_KNOWN, FenceSpan, HEADER_LEN, HINTS, LEAF, LEVEL_MAX, MAGIC,
    OFF_COUNTS, OFF_FLAGS, OFF_GARBAGE, OFF_HEAP_TOP, OFF_HINTS, OFF_LOWER, OFF_UPPER,
    OFF_UPPER_CHILD, OVERFLOW, PageHeader, SLOT_LEN, TRAILER_LEN, inline_key_max, inline_value_max,
    page_crc,
};
use super::image::{common, varint, varint_len};
use super::leaf::{ROW_FLAGS, ROW_GHOST, ROW_OVERFLOW};
use super::overflow::{CHAIN_MAX, OverflowRef, REF_LEN, capacity};
use super::slots::{ENTRY_LONG, Slot, head_of, hint_step};
use crate::error::{Corruption, StoreError};
use crate::ids::{Class, PageId};

/// What is wrong with a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Byte offset in the page.
    pub offset: usize,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

impl Damage {
    /// As an error that names the page.
    #[must_use]
    pub fn of_page(self, page: PageId) -> StoreError {
        StoreError::Corrupt(Box::new(Corruption {
            what: "page",
            page: Some(page),
            expected: format!("{} at byte {} of the page", self.expected, self.offset),
            found: self.found,
            ..Corruption::default()
        }))
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "byte {}: expected {}, found {}",
            self.offset, self.expected, self.found
        )
    }
}

fn damage(offset: usize, expected: impl fmt::Display, found: impl fmt::Display) -> Damage {
    Damage {
        offset,
        expected: expected.to_string(),
        found: found.to_string(),
    }
}

/// Errors unless `holds`.
fn ensure(
    holds: bool,
    offset: usize,
    expected: impl fmt::Display,
    found: impl fmt::Display,
) -> Result<(), Damage> {
    if holds {
        Ok(())
    } else {
        Err(damage(offset, expected, found))
    }
}

/// Checks the crc that the page itself carries.
pub fn verify_crc(page: &[u8]) -> Result<(), Damage> {
    let header = PageHeader::of(page).ok_or_else(|| {
        damage(
            0,
            "at least a page header",
            format_args!("{} bytes", page.len()),
        )
    })?;
    let crc = page_crc(page);
    ensure(
        header.crc == crc,
        0,
        format_args!("crc {crc:#010x}"),
        format!("{:#010x}", header.crc),
    )
}

/// Checks everything in a page but its crc. Any bytes may be given.
pub fn verify(page: &[u8]) -> Result<PageHeader, Damage> {
    let header = PageHeader::of(page).ok_or_else(|| {
        damage(
            0,
            "at least a page header",
            format_args!("{} bytes", page.len()),
        )
    })?;
    ensure(
        header.magic == MAGIC,
        4,
        "magic TP",
        format_args!("{:#06x}", header.magic),
    )?;
    let class =
        Class::new(header.class).ok_or_else(|| damage(7, "class 1, 2 or 3", header.class))?;
    ensure(
        page.len() == class.bytes(),
        7,
        format_args!("the class of {} bytes", page.len()),
        class,
    )?;
    let id = PageId(header.page_id);
    ensure(
        !id.is_none() && id < PageId::LIMIT,
        8,
        "a page id",
        header.page_id,
    )?;
    let unknown = header.flags & !FLAGS_KNOWN;
    ensure(
        unknown == 0,
        OFF_FLAGS,
        "known flags",
        format_args!("{unknown:#x}"),
    )?;
    let trailer = page.len() - TRAILER_LEN;
    ensure(
        page[trailer..].iter().all(|b| *b == 0),
        trailer,
        "a zero trailer",
        "other bytes",
    )?;
    match header.kind {
        LEAF | BRANCH => Slotted {
            page,
            header,
            spans: Vec::new(),
        }
        .verify()?,
        OVERFLOW => verify_overflow(page, &header)?,
        other => return Err(damage(6, "kind 1, 2 or 3", other)),
    }
    Ok(header)
}

fn verify_overflow(page: &[u8], header: &PageHeader) -> Result<(), Damage> {
    let size = page.len();
    let none = FenceSpan::default();
    ensure(
        header.n == 0 && header.prefix_len == 0,
        OFF_COUNTS,
        "no slots",
        header.n,
    )?;
    ensure(
        header.garbage == 0,
        OFF_GARBAGE,
        "no garbage",
        header.garbage,
    )?;
    ensure(
        header.lower_fence == none,
        OFF_LOWER,
        "no fence",
        header.lower_fence.off,
    )?;
    ensure(
        header.upper_fence == none,
        OFF_UPPER,
        "no fence",
        header.upper_fence.off,
    )?;
    ensure(
        header.level() == 0,
        OFF_FLAGS + 1,
        "level 0",
        header.level(),
    )?;
    ensure(
        header.upper_child < PageId::LIMIT.0,
        OFF_UPPER_CHILD,
        "a page",
        header.upper_child,
    )?;
    let (index, total) = (header.hints[0] as usize, header.hints[1] as usize);
    ensure(
        (1..=CHAIN_MAX).contains(&total),
        OFF_HINTS + 4,
        format_args!("a chain of 1 to {CHAIN_MAX} bytes"),
        total,
    )?;
    let done = index.saturating_mul(capacity(size));
    ensure(
        done < total,
        OFF_HINTS,
        format_args!("a place in a chain of {total} bytes"),
        index,
    )?;
    let len = (total - done).min(capacity(size));
    ensure(
        header.heap_top as usize == HEADER_LEN + len,
        OFF_HEAP_TOP,
        HEADER_LEN + len,
        header.heap_top,
    )?;
    ensure(
        (header.upper_child == 0) == (done + len == total),
        OFF_UPPER_CHILD,
        "a next page in all but the last",
        header.upper_child,
    )?;
    let rest = header.hints[2..].iter().all(|hint| *hint == 0);
    ensure(rest, OFF_HINTS + 8, "zeros", "other hints")
}

/// A key as the order checks see it: inline bytes, and whether a tail follows.
#[derive(Clone, Copy)]
struct Key<'a> {
    parts: [&'a [u8]; 2],
    long: bool,
}

impl Key<'_> {
    /// Whether `self` may be below `other` as far as inline bytes tell. Two long keys with equal
    /// inline bytes are ordered by their tails, which lie in other pages.
    fn may_precede(&self, other: &Key<'_>) -> bool {
        let mine = self.parts[0].iter().chain(self.parts[1]);
        let theirs = other.parts[0].iter().chain(other.parts[1]);
        match mine.cmp(theirs) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal => other.long,
            std::cmp::Ordering::Greater => false,
        }
    }
}

/// Checks of leaves and branches.
struct Slotted<'a> {
    page: &'a [u8],
    header: PageHeader,
    /// (offset, length) of every entry and fence.
    spans: Vec<(usize, usize)>,
}

impl<'a> Slotted<'a> {
    fn verify(mut self) -> Result<(), Damage> {
        self.verify_counts()?;
        let lower = self.fence(self.header.lower_fence, OFF_LOWER)?;
        let upper = self.fence(self.header.upper_fence, OFF_UPPER)?;
        let prefix = self.verify_prefix(lower, upper)?;
        let mut before = lower;
        for i in 0..usize::from(self.header.n) {
            let at = HEADER_LEN + i * SLOT_LEN;
            let key = self.verify_entry(i, prefix)?;
            if let Some(before) = &before {
                // The lower fence is inclusive.
                let equal_fence = i == 0 && !before.may_precede(&key) && !key.may_precede(before);
                let rises = before.may_precede(&key) || equal_fence;
                ensure(
                    rises,
                    at,
                    "a key above the one before (T1)",
                    format_args!("slot {i}"),
                )?;
            }
            before = Some(key);
        }
        if let (Some(last), Some(upper)) = (&before, &upper) {
            let at = HEADER_LEN + usize::from(self.header.n) * SLOT_LEN;
            ensure(
                last.may_precede(upper),
                at,
                "keys below the upper fence (T1)",
                "one above",
            )?;
        }
        self.verify_spans()?;
        self.verify_hints()
    }

    fn verify_counts(&self) -> Result<(), Damage> {
        let header = &self.header;
        let heap_end = self.page.len() - TRAILER_LEN;
        let slots_end = HEADER_LEN + usize::from(header.n) * SLOT_LEN;
        ensure(
            (slots_end..=heap_end).contains(&(header.heap_top as usize)),
            OFF_HEAP_TOP,
            format_args!("a heap between {slots_end} and {heap_end}"),
            header.heap_top,
        )?;
        let level = header.level();
        if header.kind == LEAF {
            ensure(level == 0, OFF_FLAGS + 1, "level 0", level)?;
            return ensure(
                header.upper_child == 0,
                OFF_UPPER_CHILD,
                "no child",
                header.upper_child,
            );
        }
        ensure(
            (1..=LEVEL_MAX).contains(&level),
            OFF_FLAGS + 1,
            "a branch's level",
            level,
        )?;
        self.verify_child(OFF_UPPER_CHILD, header.upper_child)
    }

    fn verify_child(&self, offset: usize, child: u64) -> Result<(), Damage> {
        let fine = child != 0 && child < PageId::LIMIT.0 && child != self.header.page_id;
        ensure(fine, offset, "a child other than the page itself", child)
    }

    /// The bytes `off..off + len` if they lie in the heap.
    fn heap(&self, off: usize, len: usize, at: usize) -> Result<&'a [u8], Damage> {
        let heap = self.header.heap_top as usize..self.page.len() - TRAILER_LEN;
        if off < heap.start || off + len > heap.end {
            let bounds = format!("bytes inside the heap {}..{}", heap.start, heap.end);
            return Err(damage(at, bounds, format_args!("{off}..{}", off + len)));
        }
        Ok(&self.page[off..off + len])
    }

    fn fence(&mut self, span: FenceSpan, at: usize) -> Result<Option<Key<'a>>, Damage> {
        if span.off == 0 {
            ensure(span.len == 0, at, "no length without a fence", span.len)?;
            return Ok(None);
        }
        let (off, len) = (usize::from(span.off), usize::from(span.len & !FENCE_LONG));
        let long = span.len & FENCE_LONG != 0;
        let inline = self.heap(off, len, at)?;
        ensure(len > 0, at, "a fence of at least a byte", len)?;
        let limit = inline_key_max(self.page.len());
        ensure(
            len == limit || (len < limit && !long),
            at,
            format_args!("{limit} inline bytes"),
            len,
        )?;
        if long {
            self.reference(off + len, at)?;
        }
        self.spans.push((off, len + if long { REF_LEN } else { 0 }));
        Ok(Some(Key {
            parts: [&[], inline],
            long,
        }))
    }

    /// A reference at `off` that could be one.
    fn reference(&self, off: usize, at: usize) -> Result<OverflowRef, Damage> {
        let bytes = self.heap(off, REF_LEN, at)?;
        let reference =
            OverflowRef::parse(bytes).ok_or_else(|| damage(at, "a reference", "less"))?;
        let fine = !reference.first.is_none()
            && reference.first < PageId::LIMIT
            && (1..=CHAIN_MAX).contains(&(reference.len as usize));
        ensure(
            fine,
            off,
            "an overflow reference",
            format_args!("{reference:?}"),
        )?;
        Ok(reference)
    }

    fn verify_prefix(
        &self,
        lower: Option<Key<'a>>,
        upper: Option<Key<'a>>,
    ) -> Result<&'a [u8], Damage> {
        let (len, expected) = match (&lower, &upper) {
            (Some(lower), Some(upper)) => {
                let fine = lower.may_precede(upper);
                ensure(
                    fine,
                    OFF_LOWER,
                    "fences in order (T1)",
                    "the upper one below",
                )?;
                let expected = common(lower.parts[1], upper.parts[1]);
                (usize::from(self.header.prefix_len), expected)
            }
            _ => (usize::from(self.header.prefix_len), 0),
        };
        ensure(
            len == expected,
            OFF_COUNTS + 2,
            format_args!("a prefix of {expected}"),
            len,
        )?;
        Ok(lower.map_or(&[], |lower| &lower.parts[1][..len]))
    }

    /// Checks slot `i` and its entry, and returns its key.
    fn verify_entry(&mut self, i: usize, prefix: &'a [u8]) -> Result<Key<'a>, Damage> {
        let at = HEADER_LEN + i * SLOT_LEN;
        let word = self.page[at..]
            .first_chunk::<8>()
            .copied()
            .unwrap_or_default();
        let slot = Slot::unpack(u64::from_le_bytes(word));
        let first = self.heap(slot.off, 2, at)?;
        let flags = first[0];
        let (key_off, value_len) = if self.header.kind == BRANCH {
            self.verify_branch_prologue(slot.off, flags, at)?
        } else {
            self.verify_leaf_prologue(slot.off, flags, at)?
        };
        let suffix = self.heap(key_off, slot.klen, at)?;
        let long = flags & ENTRY_LONG != 0;
        let limit = inline_key_max(self.page.len());
        let len = prefix.len() + slot.klen;
        ensure(
            len == limit || (len < limit && !long),
            at + 6,
            format_args!("{limit} inline"),
            len,
        )?;
        let head = head_of(suffix);
        ensure(
            slot.head == head,
            at,
            format_args!("head {head:#x}"),
            format!("{:#x}", slot.head),
        )?;
        let mut end = key_off + slot.klen;
        if long {
            self.reference(end, at)?;
            end += REF_LEN;
        }
        self.heap(end, value_len, at)?;
        if self.header.kind == LEAF && flags & ROW_OVERFLOW != 0 {
            self.reference(end, at)?;
        }
        self.spans.push((slot.off, end + value_len - slot.off));
        Ok(Key {
            parts: [prefix, suffix],
            long,
        })
    }

    /// Where the key of a branch entry begins; it has no value.
    fn verify_branch_prologue(
        &self,
        off: usize,
        flags: u8,
        at: usize,
    ) -> Result<(usize, usize), Damage> {
        let bytes = self.heap(off, 9, at)?;
        ensure(flags & !ENTRY_LONG == 0, off, "flags of a separator", flags)?;
        let child = bytes[1..].first_chunk::<8>().copied().unwrap_or_default();
        self.verify_child(off + 1, u64::from_le_bytes(child))?;
        Ok((off + 9, 0))
    }

    /// Where the key of a row begins, and the length of its value.
    fn verify_leaf_prologue(
        &self,
        off: usize,
        flags: u8,
        at: usize,
    ) -> Result<(usize, usize), Damage> {
        ensure(flags & !ROW_FLAGS == 0, off, "flags of a row", flags)?;
        // A varint near the heap's end reads into the trailer, which is there in every page.
        let bytes = self.page[off + 1..]
            .first_chunk::<3>()
            .copied()
            .unwrap_or_default();
        let (len, used) = varint(bytes);
        self.heap(off, 1 + used, at)?;
        ensure(
            used == varint_len(len),
            off + 1,
            "a value length in its shortest form",
            used,
        )?;
        let limit = inline_value_max(self.page.len());
        ensure(
            len <= limit,
            off + 1,
            format_args!("at most {limit} value bytes"),
            len,
        )?;
        let ghost = flags & ROW_GHOST != 0;
        ensure(!ghost || len == 0, off + 1, "a ghost without a value", len)?;
        let overflow = flags & ROW_OVERFLOW != 0;
        ensure(
            !overflow || len == REF_LEN,
            off + 1,
            "a reference as value",
            len,
        )?;
        Ok((off + 1 + used, len))
    }

    /// No two spans overlap, and what they leave of the heap is the garbage.
    fn verify_spans(&mut self) -> Result<(), Damage> {
        self.spans.sort_unstable();
        let mut end = self.header.heap_top as usize;
        let mut live = 0;
        for &(off, len) in &self.spans {
            ensure(
                off >= end,
                off,
                format_args!("no entry below byte {end}"),
                "an overlap",
            )?;
            end = off + len;
            live += len;
        }
        let heap = self.page.len() - TRAILER_LEN - self.header.heap_top as usize;
        let garbage = heap - live;
        let found = self.header.garbage as usize;
        ensure(
            found == garbage,
            OFF_GARBAGE,
            format_args!("{garbage} dead bytes"),
            found,
        )
    }

    fn verify_hints(&self) -> Result<(), Damage> {
        let step = hint_step(usize::from(self.header.n));
        for i in 0..HINTS {
            let mut expected = 0;
            if step >= 2 {
                let at = HEADER_LEN + (i + 1) * step * SLOT_LEN;
                let head = self.page[at..]
                    .first_chunk::<4>()
                    .copied()
                    .unwrap_or_default();
                expected = u32::from_le_bytes(head);
            }
            let found = self.header.hints[i];
            ensure(
                found == expected,
                OFF_HINTS + i * 4,
                format_args!("hint {expected:#x}"),
                found,
            )?;
        }
        Ok(())
    }
}
