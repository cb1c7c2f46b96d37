//! Separators and children of a branch.
//!
//! ```text
//! entries:   (s0, c0)  (s1, c1)  ...  (sn-1, cn-1)   upper_child
//! keys in:    < s0     s0 <= k < s1    ... < sn-1       >= sn-1
//! ```
//!
//! A branch with no entry and one child is legal: a root that just grew, or is about to shrink.

use super::header::{BRANCH, OFF_UPPER_CHILD, SLOT_LEN, counts};
use super::image::{Entry, StoredKey};
use super::leaf::{close_slot, make_room, open_slot, put_counts};
use super::overflow::{OverflowRef, REF_LEN};
use super::slots::{ENTRY_LONG, EntryKey, Slot, Tails, search};
use super::view::{PageEdit, PageView};
use crate::ids::PageId;

#[inline]
fn entry_key(view: PageView<'_>, off: usize) -> EntryKey {
    EntryKey {
        off: off + 9,
        long: view.u8_at(off) & ENTRY_LONG != 0,
    }
}

/// Which child to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toward {
    /// To the leaf that holds a key equal to the one searched.
    Key,
    /// To the leaf that holds the keys just below the one searched.
    Below,
}

/// The child to follow for `key`: its place (n is the upper child) and its id.
#[inline]
pub(crate) fn child_for<T: Tails>(
    view: PageView<'_>,
    key: &[u8],
    toward: Toward,
    tails: &T,
) -> Result<(usize, PageId), T::Error> {
    let at = match search(view, key, entry_key, tails)? {
        Ok(i) if toward == Toward::Key => i + 1,
        Ok(i) | Err(i) => i,
    };
    Ok((at, child(view, at)))
}

/// The child at place `i`; at n and beyond, the upper child.
#[inline]
pub(crate) fn child(view: PageView<'_>, i: usize) -> PageId {
    if i < counts(view).n {
        PageId(view.u64_at(Slot::read(view, i).off + 1))
    } else {
        PageId(view.u64_at(OFF_UPPER_CHILD))
    }
}

/// Makes `id` the child at place `i`.
pub(crate) fn set_child(edit: &mut PageEdit<'_>, i: usize, id: PageId) {
    let view = edit.view();
    let now = counts(view);
    if i < now.n {
        edit.put_u64(Slot::read(view, i).off + 1, id.0);
    } else {
        edit.put_u64(OFF_UPPER_CHILD, id.0);
    }
    put_counts(edit, now);
}

fn as_entry(separator: &StoredKey, child: PageId, prefix_len: usize) -> Entry<'_> {
    let (prefix, suffix) = separator.inline.split_at(prefix_len);
    Entry {
        flags: 0,
        prefix,
        suffix,
        tail: separator.tail,
        value: &[],
        child,
    }
}

/// Puts `separator` at place `i` when the child there was split: the old child stays below it, and
/// `right` becomes the child above it. False, and nothing changed, if there is no room.
#[must_use]
pub(crate) fn split_child(
    edit: &mut PageEdit<'_>,
    i: usize,
    separator: &StoredKey,
    right: PageId,
) -> bool {
    let prefix_len = counts(edit.view()).prefix_len;
    let left = child(edit.view(), i);
    let entry = as_entry(separator, left, prefix_len);
    let len = entry.heap_len(BRANCH, prefix_len);
    if !make_room(edit, len + SLOT_LEN) {
        return false;
    }
    set_child(edit, i, right);
    let off = open_slot(edit, i, len, entry.suffix);
    edit.put_u8(off, separator.tail.map_or(0, |_| ENTRY_LONG));
    edit.put_u64(off + 1, left.0);
    edit.put_bytes(off + 9, entry.suffix);
    if let Some(tail) = separator.tail {
        edit.put_bytes(off + 9 + entry.suffix.len(), &tail.to_bytes());
    }
    true
}

/// Takes entry `i` away when its child was merged into the next one. The chain of its separator's
/// tail, if any, is returned: its owner is gone.
pub(crate) fn remove(edit: &mut PageEdit<'_>, i: usize) -> Option<OverflowRef> {
    let view = edit.view();
    let slot = Slot::read(view, i);
    let key = entry_key(view, slot.off);
    let tail = key
        .long
        .then(|| OverflowRef::read(view, key.off + slot.klen));
    close_slot(edit, i, 9 + slot.klen + tail.map_or(0, |_| REF_LEN));
    tail
}
