//! Rows of the log reduced to the last operation of each key, and applied in order of (tree, key).
//!
//! The bytes of all rows lie one behind the other in the order of the log; beside them stand places
//! that are sorted by tree, key, and newest first. So a row costs no allocation, and applying it is
//! a step to the right in a leaf that is at hand. A row whose leaf cannot be read stops nobody: it
//! is put aside, and the database opens with it as unapplied (X2).

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;

use rayon::prelude::*;
use terrane_btree::{Edit, RunRow, StoreError, Tree};
use terrane_wal::io::Purpose;
use terrane_wal::lsn::TreeId;
use terrane_wal::sync::Mutex;

use crate::error::Result;

/// Rows that one thread applies at a time.
const PART: usize = 2048;

/// Rows put aside at most: beyond that the disk is broken, not a page.
const UNREAD_MAX: usize = 10_000;

/// Rows whose leaf cannot be read: their values, None if they go, and why.
pub(super) type Unread = BTreeMap<(TreeId, Vec<u8>), (Option<Vec<u8>>, StoreError)>;

/// A row in the arena: its key, then its value.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// The first eight bytes of the key, in the order of keys: most comparisons end here.
    head: u64,
    at: usize,
    tree: TreeId,
    key_len: u32,
    /// None: the row is removed.
    value_len: Option<u32>,
}

impl Place {
    fn key<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.at..self.at + self.key_len as usize]
    }

    fn row<'a>(&self, bytes: &'a [u8]) -> RunRow<'a> {
        let from = self.at + self.key_len as usize;
        let value = self.value_len.map(|len| &bytes[from..from + len as usize]);
        (self.key(bytes), value)
    }

    fn order(&self, other: &Place, bytes: &[u8]) -> Ordering {
        let coarse = (self.tree, self.head).cmp(&(other.tree, other.head));
        coarse.then_with(|| self.key(bytes).cmp(other.key(bytes)))
    }
}

/// The net of a part of the log.
#[derive(Debug, Default)]
pub(super) struct Net {
    bytes: Vec<u8>,
    places: Vec<Place>,
}

impl Net {
    /// Takes the next operation; operations come in the order of their timestamps.
    pub(super) fn put(&mut self, tree: TreeId, key: &[u8], value: Option<&[u8]>) {
        let mut head = [0; 8];
        let len = key.len().min(8);
        head[..len].copy_from_slice(&key[..len]);
        self.places.push(Place {
            head: u64::from_be_bytes(head),
            at: self.bytes.len(),
            tree,
            key_len: key.len() as u32,
            value_len: value.map(|value| value.len() as u32),
        });
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value.unwrap_or_default());
        if self
            .places
            .last()
            .is_some_and(|place| place.at == self.bytes.len())
        {
            // An empty key without a value: places tell older from newer, so no two are the same.
            self.bytes.push(0);
        }
    }

    /// Bytes held, operations that were overwritten included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len() + self.places.len() * size_of::<Place>()
    }

    /// Applies everything, by key range on the threads of `pool` if there is one, and is empty.
    /// Rows of trees that `tree` does not know any more are skipped; those whose leaf cannot be
    /// read go to `unread`.
    pub(super) fn drain(
        &mut self,
        tree: &dyn Fn(TreeId) -> Result<Option<Tree>>,
        pool: Option<&rayon::ThreadPool>,
        unread: &Mutex<Unread>,
    ) -> Result<()> {
        let Net { bytes, places } = self;
        let newest_first = |a: &Place, b: &Place| {
            let order = a.order(b, bytes);
            order.then_with(|| Reverse(a.at).cmp(&Reverse(b.at)))
        };
        match pool {
            None => places.sort_unstable_by(newest_first),
            Some(pool) => pool.install(|| places.par_sort_unstable_by(newest_first)),
        }
        places.dedup_by(|next, kept| next.order(kept, bytes) == Ordering::Equal);
        for rows in places.chunk_by(|a, b| a.tree == b.tree) {
            let Some(tree) = tree(rows[0].tree)? else {
                continue;
            };
            let part = |rows: &[Place]| {
                let rows: Vec<RunRow<'_>> = rows.iter().map(|place| place.row(bytes)).collect();
                // What was put aside must not come after a newer value.
                if !unread.lock().is_empty() {
                    return one_by_one(&tree, &rows, unread);
                }
                match tree.apply_run(&rows, Purpose::Replay) {
                    Err(StoreError::Corrupt(_) | StoreError::Io(_)) => {
                        one_by_one(&tree, &rows, unread)
                    }
                    other => other,
                }
            };
            match pool {
                None => rows.chunks(PART).try_for_each(part)?,
                Some(pool) => pool.install(|| rows.par_chunks(PART).try_for_each(part))?,
            }
        }
        bytes.clear();
        places.clear();
        Ok(())
    }
}

/// Applies rows around the leaves that cannot be read. Doing some of them again changes nothing.
fn one_by_one(
    tree: &Tree,
    rows: &[RunRow<'_>],
    unread: &Mutex<Unread>,
) -> std::result::Result<(), StoreError> {
    for &(key, value) in rows {
        let done = tree.update(key, &mut |_| match value {
            Some(value) => Edit::Put {
                value,
                versioned: false,
            },
            None => Edit::Remove,
        });
        let mut unread = unread.lock();
        let row = (tree.id(), key.to_vec());
        match done {
            Ok(()) => {
                unread.remove(&row);
            }
            Err(error @ (StoreError::Corrupt(_) | StoreError::Io(_)))
                if unread.len() < UNREAD_MAX =>
            {
                unread.insert(row, (value.map(<[u8]>::to_vec), error));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
