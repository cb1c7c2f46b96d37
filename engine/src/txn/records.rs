//! Records of vector indexes on their way into a commit.
//!
//! They are logged in the entry and installed before its timestamp becomes visible, like rows, but
//! they are hints: one version each, no intent, nothing in the recent-writes index.

use std::collections::BTreeMap;

use terrane_wal::lsn::{TreeId, Ts};
use terrane_wal::record::FLAG_VECTOR;
use terrane_wal::{EntryBuilder, entry::STAMP_BYTES};

/// A record to be put, or with None to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) value: Option<Vec<u8>>,
    /// Its last eight bytes become the commit's timestamp.
    pub(crate) stamped: bool,
}

/// The records of one commit, by tree and key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records {
    trees: BTreeMap<TreeId, BTreeMap<Vec<u8>, Record>>,
    bytes: usize,
    len: usize,
}

impl Records {
    /// True if there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of keys and values.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a record; of several with one key the last one counts.
    pub(crate) fn put(&mut self, tree: TreeId, key: Vec<u8>, record: Record) {
        self.len += 1;
        self.bytes += key.len() + record.value.as_ref().map_or(0, Vec::len);
        let before = self.trees.entry(tree).or_default().insert(key, record);
        self.len -= usize::from(before.is_some());
    }

    /// The trees that change.
    pub(crate) fn trees(&self) -> impl Iterator<Item = (TreeId, &BTreeMap<Vec<u8>, Record>)> {
        self.trees.iter().map(|(tree, records)| (*tree, records))
    }

    /// Adds them to a log entry.
    pub(crate) fn encode(&self, entry: &mut EntryBuilder) {
        for (tree, records) in self.trees() {
            for (key, record) in records {
                match &record.value {
                    Some(value) if record.stamped => {
                        entry.put_stamped(tree, 0, FLAG_VECTOR, key, value);
                    }
                    Some(value) => entry.put(tree, 0, FLAG_VECTOR, key, value),
                    None => entry.del(tree, 0, FLAG_VECTOR, key),
                }
            }
        }
    }

    /// Writes the commit's timestamp where it belongs, as the log entry has it.
    pub(crate) fn stamp(&mut self, ts: Ts) {
        let records = self.trees.values_mut().flat_map(BTreeMap::values_mut);
        for record in records.filter(|record| record.stamped) {
            if let Some(value) = &mut record.value {
                let at = value.len() - STAMP_BYTES;
                value[at..].copy_from_slice(&ts.0.to_le_bytes());
            }
        }
    }
}
