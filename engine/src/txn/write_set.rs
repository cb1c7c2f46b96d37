//! What a transaction has written and nobody else can see yet.
//!
//! An ordered map per tree, so that commit places intents in ascending order and a scan can merge
//! it row by row. Shared with open scans; a write after a scan has begun copies it once.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use terrane_wal::lsn::TreeId;

use crate::txn::range::crossed;

/// One buffered write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    /// The new value; None deletes the row.
    pub(crate) value: Option<Vec<u8>>,
    /// Schema version of the row's encoding; 0 in system trees.
    pub(crate) schema: u32,
    /// Flags of the log record.
    pub(crate) flags: u8,
}

/// What an undo puts back.
#[derive(Clone, Debug)]
struct Undo {
    tree: TreeId,
    key: Arc<[u8]>,
    before: Option<Write>,
}

/// The buffered writes of one transaction.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteSet {
    trees: BTreeMap<TreeId, BTreeMap<Arc<[u8]>, Write>>,
    undo: Vec<Undo>,
    /// Undo is kept from the first savepoint on.
    savepoints: bool,
    keys: usize,
    bytes: usize,
}

impl WriteSet {
    /// Keys written.
    pub(crate) fn len(&self) -> usize {
        self.keys
    }

    /// True if nothing was written.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys == 0
    }

    /// Bytes of keys and values.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The write of `key`, if there is one.
    pub(crate) fn get(&self, tree: TreeId, key: &[u8]) -> Option<&Write> {
        self.trees.get(&tree)?.get(key)
    }

    /// Buffers a write, replacing an earlier one of the same key.
    pub(crate) fn put(&mut self, tree: TreeId, key: Vec<u8>, write: Write) {
        let key: Arc<[u8]> = key.into();
        let before = self.set(tree, key.clone(), Some(write));
        if self.savepoints {
            self.undo.push(Undo { tree, key, before });
        }
    }

    /// Sets or takes away one write and keeps the sums right.
    fn set(&mut self, tree: TreeId, key: Arc<[u8]>, write: Option<Write>) -> Option<Write> {
        let size = |write: &Write| write.value.as_ref().map_or(0, Vec::len);
        let key_len = key.len();
        let rows = self.trees.entry(tree).or_default();
        let before = match write {
            Some(write) => {
                self.keys += 1;
                self.bytes += key_len + size(&write);
                rows.insert(key, write)
            }
            None => rows.remove(&key),
        };
        if let Some(before) = &before {
            self.keys -= 1;
            self.bytes -= key_len + size(before);
        }
        before
    }

    /// A mark to roll back to.
    pub(crate) fn savepoint(&mut self) -> usize {
        self.savepoints = true;
        self.undo.len()
    }

    /// Takes back what was written after the mark. A mark beyond the present does nothing.
    pub(crate) fn rollback_to(&mut self, mark: usize) {
        while self.undo.len() > mark {
            let Some(undo) = self.undo.pop() else { break };
            self.set(undo.tree, undo.key, undo.before);
        }
    }

    /// The first write of `tree` between the bounds, or the last one.
    pub(crate) fn next(
        &self,
        tree: TreeId,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
        reverse: bool,
    ) -> Option<(&Arc<[u8]>, &Write)> {
        if crossed(lower, upper) {
            return None;
        }
        let mut range = self.trees.get(&tree)?.range::<[u8], _>((lower, upper));
        if reverse {
            range.next_back()
        } else {
            range.next()
        }
    }

    /// All writes in ascending order of (tree, key).
    pub(crate) fn iter(&self) -> impl Iterator<Item = (TreeId, &Arc<[u8]>, &Write)> {
        self.trees
            .iter()
            .flat_map(|(tree, rows)| rows.iter().map(|(key, write)| (*tree, key, write)))
    }

    /// The trees written, each with its writes in ascending order of keys.
    pub(crate) fn trees(&self) -> impl Iterator<Item = (TreeId, &BTreeMap<Arc<[u8]>, Write>)> {
        self.trees.iter().map(|(tree, rows)| (*tree, rows))
    }

    /// The writes of one tree in ascending order of keys.
    pub(crate) fn of_tree(&self, tree: TreeId) -> impl Iterator<Item = (&Arc<[u8]>, &Write)> {
        self.trees.get(&tree).into_iter().flatten()
    }

    /// The value that is written at `key`, to be changed in place.
    pub(crate) fn value_mut(&mut self, tree: TreeId, key: &[u8]) -> Option<&mut [u8]> {
        let write = self.trees.get_mut(&tree)?.get_mut(key)?;
        write.value.as_deref_mut()
    }

    /// The schema version that each tree was written under; a tree has one.
    pub(crate) fn schemas(&self) -> impl Iterator<Item = (TreeId, u32)> {
        self.trees
            .iter()
            .filter_map(|(tree, rows)| rows.values().next().map(|write| (*tree, write.schema)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(value: &str) -> Write {
        Write {
            value: Some(value.into()),
            schema: 1,
            flags: 0,
        }
    }

    #[test]
    fn rollback_restores_values_and_sums() {
        let (mut set, tree) = (WriteSet::default(), TreeId(256));
        set.put(tree, b"a".to_vec(), put("1"));
        let outer = set.savepoint();
        set.put(tree, b"a".to_vec(), put("22"));
        let inner = set.savepoint();
        set.put(tree, b"b".to_vec(), put("3"));
        set.put(
            tree,
            b"a".to_vec(),
            Write {
                value: None,
                schema: 1,
                flags: 0,
            },
        );
        assert_eq!((set.len(), set.bytes()), (2, 3));
        set.rollback_to(inner);
        assert_eq!(set.get(tree, b"a"), Some(&put("22")));
        assert_eq!(set.get(tree, b"b"), None);
        set.rollback_to(outer);
        assert_eq!(set.get(tree, b"a"), Some(&put("1")));
        assert_eq!((set.len(), set.bytes()), (1, 2));
    }

    #[test]
    fn the_next_write_respects_bounds_and_direction() {
        let (mut set, tree) = (WriteSet::default(), TreeId(256));
        for key in ["a", "c", "e"] {
            set.put(tree, key.into(), put(key));
        }
        let key = |lower, upper, reverse| {
            set.next(tree, lower, upper, reverse)
                .map(|(key, _)| key.to_vec())
        };
        let (a, e) = (b"a".as_slice(), b"e".as_slice());
        assert_eq!(
            key(Bound::Excluded(a), Bound::Unbounded, false),
            Some(b"c".to_vec())
        );
        assert_eq!(
            key(Bound::Unbounded, Bound::Excluded(e), true),
            Some(b"c".to_vec())
        );
        assert_eq!(key(Bound::Excluded(a), Bound::Excluded(a), false), None);
        assert_eq!(key(Bound::Included(e), Bound::Excluded(a), false), None);
        assert_eq!(
            set.next(TreeId(257), Bound::Unbounded, Bound::Unbounded, false),
            None
        );
    }
}
