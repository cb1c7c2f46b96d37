//! Splitting a page in two, and growing a root.
//!
//! A split latches the parent and the page, reserves the right page (and, for a very long
//! separator, its chain), all in one epoch (T2), and only then writes. The left half keeps the
//! page's id. A full parent is split first, as a change of its own. A root has no parent: its
//! content moves down into one new child, which is then split as any other page, so the root's id
//! never changes.

use crate::error::StoreError;
use crate::page::branch;
use crate::page::header::{BRANCH, LEAF, SLOT_LEN, counts, inline_key_max, level};
use crate::page::image::{Builder, Entry, Frame, PageCopy, StoredKey, common};
use crate::page::leaf::{capacity, live_bytes};
use crate::page::overflow::REF_LEN;
use crate::page::view::{PageEdit, PageView};
use crate::pool::{Excl, GateGuard, Opt, Stall};

use super::search::{Path, Target};
use super::{Tree, header_of};
use crate::ids::PageId;

/// How an attempt ended.
enum Outcome {
    /// There is room now, or there was.
    Done,
    /// The root grew: again.
    Grew,
    /// The parent needs so many bytes first.
    ParentFull(usize),
}

/// Where to cut a page and what stands between the halves.
struct Cut {
    /// Entries `..at` go left. In a branch entry `at` itself goes up.
    at: usize,
    /// The first key of the right half or shorter: whole, without its chain written yet.
    separator: Vec<u8>,
}

impl Tree {
    /// Makes room for `need` bytes in the page at `level_wanted` that covers `key`, by splitting it
    /// unless it has that room. Pages above are split first where they must.
    pub(super) fn split(
        &self,
        key: &[u8],
        level_wanted: u8,
        need: usize,
    ) -> Result<(), StoreError> {
        // One entry a level: bounded by the tree's height.
        let mut work = vec![(level_wanted, need)];
        while let Some(&(level, need)) = work.last() {
            match self.try_split(key, level, need) {
                Ok(Outcome::Done) => {
                    work.pop();
                }
                Ok(Outcome::Grew) => {}
                Ok(Outcome::ParentFull(bytes)) => work.push((level + 1, bytes)),
                Err(stall) => self.settle(stall)?,
            }
        }
        Ok(())
    }

    fn try_split(&self, key: &[u8], target: u8, need: usize) -> Result<Outcome, Stall> {
        let guard = self.pool.enter();
        let Path { parent, page } = self.locate(Target::Key(key), target)?;
        if level(PageView::new(page.words())) != target {
            // The tree became lower meanwhile: whoever asked looks again.
            return if page.validate() {
                Ok(Outcome::Done)
            } else {
                Err(Stall::Latched)
            };
        }
        let Some((parent, place)) = parent else {
            return self.grow(&guard, page, need);
        };
        let parent = parent.upgrade_structure(&guard)?;
        let page = page.upgrade_structure(&guard)?;
        let copy = PageCopy::of(PageView::new(page.words()));
        if live_bytes(PageView::new(page.words())) + need <= capacity(copy.bytes().len()) {
            return Ok(Outcome::Done);
        }
        let cut = self.choose(&copy, key)?;
        let inline_max = inline_key_max(copy.bytes().len());
        let (inline, tail) = cut.separator.split_at(cut.separator.len().min(inline_max));
        let moved_up = (copy.header().kind == BRANCH)
            .then(|| copy.entry(cut.at).tail)
            .flatten();
        let mut separator = StoredKey {
            inline: inline.to_vec(),
            tail: moved_up,
        };
        let view = PageView::new(parent.words());
        let tail_len = if tail.is_empty() { 0 } else { REF_LEN };
        let wanted = SLOT_LEN + 9 + inline.len() + tail_len - counts(view).prefix_len;
        if live_bytes(view) + wanted > capacity(view.size()) {
            return Ok(Outcome::ParentFull(wanted));
        }
        // A branch's separator takes its chain along; a leaf's is new.
        let chain_len = if moved_up.is_some() { 0 } else { tail.len() };
        let chain = self.reserve_chain(&guard, chain_len)?;
        let right = match self
            .pool
            .allocate(&guard, self.class, self.id, copy.header().kind)
        {
            Ok(right) => right,
            Err(stall) => {
                self.abandon_chain(&guard, chain);
                return Err(stall);
            }
        };
        let one = guard.epoch();
        assert!(
            parent.epoch() == one && page.epoch() == one,
            "T2: a split within one epoch"
        );
        if chain_len > 0 {
            separator.tail = chain.write(tail);
        }
        let (left_image, right_image) = halves(&copy, &header_of(&right), cut.at, &separator);
        PageEdit::new(right.words()).write_page(&right_image);
        PageEdit::new(page.words()).write_page(&left_image);
        let mut edit = PageEdit::new(parent.words());
        let linked = branch::split_child(&mut edit, place, &separator, right.id());
        assert!(linked, "T1: the parent had room for the separator");
        Ok(Outcome::Done)
    }

    /// Moves the root's content down into a new child, if it lacks the room.
    fn grow(&self, guard: &GateGuard<'_>, root: Opt<'_>, need: usize) -> Result<Outcome, Stall> {
        let root = root.upgrade_structure(guard)?;
        let copy = PageCopy::of(PageView::new(root.words()));
        if live_bytes(PageView::new(root.words())) + need <= capacity(copy.bytes().len()) {
            return Ok(Outcome::Done);
        }
        let child = self
            .pool
            .allocate(guard, self.class, self.id, copy.header().kind)?;
        assert!(
            root.epoch() == guard.epoch(),
            "T2: a root grows within one epoch"
        );
        transplant(&copy, &child);
        let identity = header_of(&root);
        let frame = Frame {
            identity: &identity,
            kind: BRANCH,
            level: copy.header().level() + 1,
            lower: None,
            upper: None,
        };
        let image = Builder::new(copy.bytes().len(), frame).finish(child.id());
        PageEdit::new(root.words()).write_page(&image);
        Ok(Outcome::Grew)
    }

    /// Where to cut. Among the cuts near the middle of the bytes the one with the shortest
    /// separator (Bayer and Unterauer, "Prefix B-trees", 1977); at the open end of the key space,
    /// when a row is added beyond all others, there, so that rising keys leave full pages.
    fn choose(&self, copy: &PageCopy, key: &[u8]) -> Result<Cut, Stall> {
        let n = copy.n();
        if copy.header().kind == BRANCH {
            assert!(n >= 3, "a full branch holds at least three separators");
            let at = middle(copy, 1, n - 1).1;
            return Ok(Cut {
                at,
                separator: self.whole_key(&copy.entry(at))?,
            });
        }
        assert!(n >= 2, "a full leaf holds at least two rows");
        if let Some(cut) = self.open_end(copy, key)? {
            return Ok(cut);
        }
        let (from, best, to) = middle(copy, 1, n);
        let mut cut = Cut {
            at: best,
            separator: self.separator(copy, best)?,
        };
        for at in from..to {
            let inline = shortest_inline(&copy.entry(at - 1), &copy.entry(at));
            if inline.is_some_and(|len| len < cut.separator.len()) {
                cut = Cut {
                    at,
                    separator: self.separator(copy, at)?,
                };
            }
        }
        Ok(cut)
    }

    /// The cut for a key beyond all rows of the first or last leaf. The half that stays full gets a
    /// fence; if it has no room for that, its outermost row goes to the other half.
    fn open_end(&self, copy: &PageCopy, key: &[u8]) -> Result<Option<Cut>, Stall> {
        let n = copy.n();
        let size = copy.bytes().len();
        let room = capacity(size) - copy.live_bytes();
        let fence = |separator: &[u8]| match separator.len() {
            len if len <= inline_key_max(size) => len,
            _ => inline_key_max(size) + REF_LEN,
        };
        let row = |i: usize| {
            copy.entry(i)
                .heap_len(LEAF, usize::from(copy.header().prefix_len))
        };
        if copy.upper().is_none() {
            let last = self.whole_key(&copy.entry(n - 1))?;
            if last.as_slice() < key {
                let separator = shortest(&last, key);
                if fence(&separator) <= room {
                    return Ok(Some(Cut { at: n, separator }));
                }
                let separator = self.separator(copy, n - 1)?;
                if fence(&separator) <= room + row(n - 1) {
                    return Ok(Some(Cut {
                        at: n - 1,
                        separator,
                    }));
                }
            }
        }
        if copy.lower().is_none() {
            let first = self.whole_key(&copy.entry(0))?;
            if key < first.as_slice() {
                let separator = shortest(key, &first);
                if fence(&separator) <= room {
                    return Ok(Some(Cut { at: 0, separator }));
                }
                let separator = self.separator(copy, 1)?;
                if fence(&separator) <= room + row(0) {
                    return Ok(Some(Cut { at: 1, separator }));
                }
            }
        }
        Ok(None)
    }

    fn separator(&self, copy: &PageCopy, at: usize) -> Result<Vec<u8>, Stall> {
        let (left, right) = (copy.entry(at - 1), copy.entry(at));
        if let Some(len) = shortest_inline(&left, &right) {
            return Ok(right.inline()[..len].to_vec());
        }
        Ok(shortest(&self.whole_key(&left)?, &self.whole_key(&right)?))
    }

    /// The key of an entry with its tail.
    pub(super) fn whole_key(&self, entry: &Entry<'_>) -> Result<Vec<u8>, Stall> {
        self.resolve(&entry.stored_key())
    }

    /// A stored key with its tail.
    pub(super) fn resolve(&self, key: &StoredKey) -> Result<Vec<u8>, Stall> {
        let mut bytes = key.inline.clone();
        if let Some(tail) = key.tail {
            self.read_chain(tail, &mut bytes)?;
        }
        Ok(bytes)
    }
}

/// The shortest string above `left` and not above `right`.
fn shortest(left: &[u8], right: &[u8]) -> Vec<u8> {
    debug_assert!(left < right);
    right[..right.len().min(common(left, right) + 1)].to_vec()
}

/// Its length, if the inline parts tell it.
fn shortest_inline(left: &Entry<'_>, right: &Entry<'_>) -> Option<usize> {
    debug_assert_eq!(left.prefix.len(), right.prefix.len());
    let same = common(left.suffix, right.suffix);
    (same < right.suffix.len()).then_some(right.prefix.len() + same + 1)
}

/// The cut that halves the bytes best, between two bounds for others as good: all cuts `at` have
/// `first <= at < end`. Either half then fits beside any fences (see `entry_max`).
fn middle(copy: &PageCopy, first: usize, end: usize) -> (usize, usize, usize) {
    let kind = copy.header().kind;
    let prefix = usize::from(copy.header().prefix_len);
    let sizes: Vec<usize> = copy
        .entries()
        .map(|entry| entry.heap_len(kind, prefix) + SLOT_LEN)
        .collect();
    let total: usize = sizes.iter().sum();
    let uneven = |left: usize| left.abs_diff(total - left);
    let (mut best, mut best_left) = (first, sizes[..first].iter().sum());
    let mut left: usize = best_left;
    let (mut from, mut to) = (usize::MAX, 0);
    for (at, size) in sizes.iter().enumerate().take(end).skip(first) {
        if uneven(left) < uneven(best_left) {
            (best, best_left) = (at, left);
        }
        // A tenth to either side of the middle.
        if uneven(left) <= total / 10 {
            from = from.min(at);
            to = to.max(at + 1);
        }
        left += size;
    }
    (from.min(best), best, to.max(best + 1))
}

/// Both halves of a page that is cut. `right` is the header of the new page.
fn halves(
    copy: &PageCopy,
    right: &crate::page::header::PageHeader,
    at: usize,
    separator: &StoredKey,
) -> (Vec<u8>, Vec<u8>) {
    let size = copy.bytes().len();
    let (lower, upper) = (copy.lower(), copy.upper());
    let (kind, level) = (copy.header().kind, copy.header().level());
    let left_frame = Frame {
        identity: copy.header(),
        kind,
        level,
        lower: lower.as_ref(),
        upper: Some(separator),
    };
    let flagged = crate::page::header::PageHeader {
        flags: copy.header().flags,
        ..*right
    };
    let right_frame = Frame {
        identity: &flagged,
        kind,
        level,
        lower: Some(separator),
        upper: upper.as_ref(),
    };
    let mut left = Builder::new(size, left_frame);
    let mut right = Builder::new(size, right_frame);
    let skip = usize::from(kind == BRANCH);
    for (i, entry) in copy.entries().enumerate() {
        let fits = if i < at {
            left.push(entry)
        } else if i >= at + skip {
            right.push(entry)
        } else {
            true
        };
        assert!(fits, "T1: half a page fits into a page");
    }
    let (mut left_last, right_last) = (PageId::NONE, PageId(copy.header().upper_child));
    if kind != LEAF {
        left_last = copy.entry(at).child;
    }
    (left.finish(left_last), right.finish(right_last))
}

/// Writes the content of `copy` into the page `into`, which keeps its own identity.
pub(super) fn transplant(copy: &PageCopy, into: &Excl<'_>) {
    let identity = header_of(into);
    let flagged = crate::page::header::PageHeader {
        flags: copy.header().flags,
        ..identity
    };
    let (lower, upper) = (copy.lower(), copy.upper());
    let frame = Frame {
        identity: &flagged,
        kind: copy.header().kind,
        level: copy.header().level(),
        lower: lower.as_ref(),
        upper: upper.as_ref(),
    };
    let mut builder = Builder::new(copy.bytes().len(), frame);
    for entry in copy.entries() {
        assert!(builder.push(entry), "T1: a page's content fits into a page");
    }
    let image = builder.finish(PageId(copy.header().upper_child));
    PageEdit::new(into.words()).write_page(&image);
}
