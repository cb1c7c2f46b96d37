//! One row changed under its leaf's exclusive latch.
//!
//! Most changes stay inside the leaf. Those that write or end an overflow chain are changes of
//! structure (T2): the first attempt finds out, the second latches and reserves everything before
//! it changes anything. A row that does not fit is told to [`super::split`], a leaf that became too
//! empty to [`super::merge`], each its own change, and the row is tried again.

use crate::error::StoreError;
use crate::page::header::{SLOT_LEN, counts, entry_max, inline_key_max, inline_value_max};
use crate::page::image::varint_len;
use crate::page::leaf::{
    self, Payload, ROW_GHOST, ROW_OVERFLOW, ROW_VERSIONED, RowSpan, capacity, live_bytes,
};
use crate::page::overflow::{OverflowRef, REF_LEN};
use crate::page::view::{PageEdit, PageView};
use crate::pool::{Excl, GateGuard, Stall};

use super::chain::{ChainTails, NewChain};
use super::search::{Target, row_flags};
use super::{Edit, KEY_MAX, Row, RowValue, Tree, VALUE_MAX};

/// The caller's answer to what is there.
type Decide<'f, 'v> = dyn FnMut(Option<Row<'_>>) -> Edit<'v> + 'f;

/// How an attempt ended.
enum Outcome {
    /// Done, and nothing else is to do.
    Done,
    /// Done, and the leaf is so empty that it should be merged.
    Sparse,
    /// Nothing done: the row needs so many more bytes in the leaf.
    NeedsRoom(usize),
    /// Nothing done: chains are involved, so all pages must be of one epoch.
    NeedsStructure,
    /// Nothing done: the value is longer than any may be.
    TooLarge(usize),
}

/// A change that was decided, with all that it needs.
struct Change<'v> {
    /// Place of the row, or where it belongs.
    found: Result<usize, usize>,
    /// The row that is there.
    old: Option<RowSpan>,
    /// Chains that end: of the old value, of a removed key.
    ending: [Option<OverflowRef>; 2],
    /// What is stored: `None` removes.
    put: Option<(u8, &'v [u8])>,
}

impl Tree {
    /// Changes the row with `key` as `decide` says. `decide` is told what is there (a ghost
    /// included) and runs under the leaf's exclusive latch, so it must be short and must not wait
    /// or touch a tree (T4); after a restart it runs again, and only its last answer counts.
    ///
    /// `TooLarge` for a key above 32 KiB or a value above 64 KiB; `Full` only if no memory can be
    /// freed. O(height).
    pub fn update<'v>(
        &self,
        key: &[u8],
        decide: &mut dyn FnMut(Option<Row<'_>>) -> Edit<'v>,
    ) -> Result<(), StoreError> {
        if key.len() > KEY_MAX {
            return Err(StoreError::TooLarge {
                what: "key",
                len: key.len(),
                limit: KEY_MAX,
            });
        }
        let mut structure = false;
        loop {
            match self.try_update(key, decide, structure) {
                Ok(Outcome::Done) => return Ok(()),
                Ok(Outcome::Sparse) => {
                    self.merge_around(key);
                    return Ok(());
                }
                Ok(Outcome::NeedsRoom(bytes)) => self.split(key, 0, bytes)?,
                Ok(Outcome::NeedsStructure) => structure = true,
                Ok(Outcome::TooLarge(len)) => {
                    return Err(StoreError::TooLarge {
                        what: "value",
                        len,
                        limit: VALUE_MAX,
                    });
                }
                Err(stall) => self.settle(stall)?,
            }
        }
    }

    fn try_update<'v>(
        &self,
        key: &[u8],
        decide: &mut Decide<'_, 'v>,
        structure: bool,
    ) -> Result<Outcome, Stall> {
        let guard = self.pool.enter();
        let page = self.locate(Target::Key(key), 0)?.page;
        let page = if structure {
            page.upgrade_structure(&guard)?
        } else {
            page.upgrade(&guard)?
        };
        let Some(change) = self.decide(&page, key, decide)? else {
            return Ok(Outcome::Done);
        };
        if let Some((_, value)) = change.put
            && value.len() > VALUE_MAX
        {
            return Ok(Outcome::TooLarge(value.len()));
        }
        let size = self.class.bytes();
        let tail = &key[key.len().min(inline_key_max(size))..];
        let new_tail = if change.found.is_err() { tail } else { &[] };
        let new_value = change.put.map_or(&[][..], |(_, value)| {
            if value_is_inline(size, key.len(), value.len()) {
                &[]
            } else {
                value
            }
        });
        let needs = need(&page, key, &change, !new_value.is_empty());
        if let Some(bytes) = needs {
            return Ok(Outcome::NeedsRoom(bytes));
        }
        let chains = !new_tail.is_empty() || !new_value.is_empty();
        if !structure && (chains || change.ending.iter().any(Option::is_some)) {
            return Ok(Outcome::NeedsStructure);
        }
        let mut ending = Vec::new();
        for chain in change.ending {
            self.latch_chain(&guard, chain, &mut ending)?;
        }
        let (key_chain, value_chain) = self.reserve_both(&guard, new_tail, new_value)?;
        // From here on nothing fails: everything is latched, in one epoch (T2).
        assert!(
            !structure || page.epoch() == guard.epoch(),
            "T2: a page of a newer epoch"
        );
        let tail = key_chain.write(new_tail);
        let chain = value_chain.write(new_value);
        let sparse = apply(&page, key, &change, tail, chain);
        self.abandon(&guard, ending);
        Ok(if sparse && page.id() != self.root {
            Outcome::Sparse
        } else {
            Outcome::Done
        })
    }

    /// Asks the caller. `None` if nothing is to be done.
    fn decide<'v>(
        &self,
        page: &Excl<'_>,
        key: &[u8],
        decide: &mut Decide<'_, 'v>,
    ) -> Result<Option<Change<'v>>, Stall> {
        let view = PageView::new(page.words());
        let found = leaf::find(view, key, &ChainTails(self))?;
        let old = found.ok().map(|place| leaf::row(view, place));
        let old_chain = old.and_then(|row| row.overflow(view));
        let answer = match &old {
            None => decide(None),
            Some(row) => {
                let mut inline = Vec::new();
                let value = match old_chain {
                    Some(chain) => RowValue::Overflow {
                        len: chain.len as usize,
                    },
                    None => {
                        if !view.append_to(row.value_off, row.value_len, &mut inline) {
                            return Err(self.bad_page(page.id(), "a value inside the page", row));
                        }
                        RowValue::Inline(&inline)
                    }
                };
                decide(Some(Row {
                    flags: row_flags(row.flags),
                    value,
                }))
            }
        };
        let put = match answer {
            Edit::Keep => return Ok(None),
            Edit::Remove if old.is_none() => return Ok(None),
            Edit::Remove => None,
            Edit::Ghost => Some((ROW_GHOST | ROW_VERSIONED, &[][..])),
            Edit::Put { value, versioned } => {
                Some((if versioned { ROW_VERSIONED } else { 0 }, value))
            }
        };
        let old_tail = if put.is_none() {
            old.and_then(|row| row.tail)
        } else {
            None
        };
        Ok(Some(Change {
            found,
            old,
            ending: [old_chain, old_tail],
            put,
        }))
    }

    fn reserve_both(
        &self,
        guard: &GateGuard<'_>,
        tail: &[u8],
        value: &[u8],
    ) -> Result<(NewChain<'_>, NewChain<'_>), Stall> {
        let first = self.reserve_chain(guard, tail.len())?;
        match self.reserve_chain(guard, value.len()) {
            Ok(second) => Ok((first, second)),
            Err(stall) => {
                self.abandon_chain(guard, first);
                Err(stall)
            }
        }
    }
}

/// Whether a value lies in the leaf: at most a quarter of a page, and small enough beside its key
/// that any page holds two such rows.
fn value_is_inline(size: usize, key_len: usize, value_len: usize) -> bool {
    value_len <= inline_value_max(size) && entry_len(size, key_len, value_len) <= entry_max(size)
}

/// Bytes of a row with its slot when the page has no prefix.
fn entry_len(size: usize, key_len: usize, value_len: usize) -> usize {
    let inline = key_len.min(inline_key_max(size));
    let tail = if key_len > inline { REF_LEN } else { 0 };
    SLOT_LEN + 1 + varint_len(value_len) + inline + tail + value_len
}

/// Bytes that the leaf lacks for the change, if it lacks any: the number to split by.
fn need(page: &Excl<'_>, key: &[u8], change: &Change<'_>, chained: bool) -> Option<usize> {
    let (_, value) = change.put?;
    let view = PageView::new(page.words());
    let value_len = if chained { REF_LEN } else { value.len() };
    let new = entry_len(view.size(), key.len(), value_len) - counts(view).prefix_len;
    let old = change.old.map_or(0, |row| row.len + SLOT_LEN);
    let more = new.saturating_sub(old);
    (live_bytes(view) + more > capacity(view.size())).then_some(more)
}

/// Changes the leaf. True if it became sparse by a removal.
fn apply(
    page: &Excl<'_>,
    key: &[u8],
    change: &Change<'_>,
    tail: Option<OverflowRef>,
    chain: Option<OverflowRef>,
) -> bool {
    let mut edit = PageEdit::new(page.words());
    let inline = &key[..key.len().min(inline_key_max(edit.view().size()))];
    let Some((flags, value)) = change.put else {
        if let Ok(place) = change.found {
            leaf::remove(&mut edit, place);
        }
        return super::merge::is_sparse(edit.view());
    };
    let reference = chain.map(OverflowRef::to_bytes);
    let payload = match &reference {
        Some(bytes) => Payload {
            flags: flags | ROW_OVERFLOW,
            value: bytes,
        },
        None => Payload { flags, value },
    };
    let done = match change.found {
        Ok(place) => leaf::replace(&mut edit, place, inline, payload),
        Err(place) => leaf::insert(&mut edit, place, inline, tail, payload),
    };
    assert!(done, "the room was counted before");
    false
}
