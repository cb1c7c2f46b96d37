//! A host in memory, for tests and documentation: ordered maps instead of trees.
//!
//! Rows keep every version with its commit timestamp, so that old snapshots can be searched;
//! records of the index are single versions, as on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::centroid::CentroidSet;
use crate::maintain::{MaintenanceHost, Publish, RecordStore};
use crate::record::{Key, PostingId, RecordError, RowId, Vver};
use crate::store::{IndexError, PostingStore, VisitRecord, VisitRow, Write};

/// A version of a row: commit timestamp, then its vector or `None` for a delete.
type Version = (u64, Option<(Vver, Vec<f32>)>);

/// A table with one vector field and the records of its index.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    rows: BTreeMap<RowId, Vec<Version>>,
    centroids: Arc<CentroidSet>,
    snapshot: u64,
    horizon: u64,
    /// Rows that commits have under way, and those that maintenance holds.
    in_use: BTreeSet<RowId>,
    held: BTreeSet<RowId>,
    /// Epochs under which commits have bound that are not applied.
    bound: Vec<u64>,
}

impl MemoryStore {
    /// An empty table whose index begins with this set.
    #[must_use]
    pub fn new(centroids: CentroidSet) -> Self {
        Self {
            records: BTreeMap::new(),
            rows: BTreeMap::new(),
            centroids: Arc::new(centroids),
            snapshot: u64::MAX,
            horizon: 0,
            in_use: BTreeSet::new(),
            held: BTreeSet::new(),
            bound: Vec::new(),
        }
    }

    /// Puts and deletes records of the index, and publishes the centroids among them as `epoch`.
    ///
    /// # Errors
    /// [`RecordError`] if a centroid record cannot be decoded; then nothing is published.
    pub fn apply(&mut self, epoch: u64, writes: Vec<Write>) -> Result<(), RecordError> {
        let centroid = |write: &Write| match write.key {
            Key::Centroid(id) => Some((id, write.value.clone())),
            _ => None,
        };
        let changed: Vec<_> = writes.iter().filter_map(centroid).collect();
        if !changed.is_empty() {
            let changes = changed.iter().map(|(id, value)| (*id, value.as_deref()));
            self.centroids = Arc::new(self.centroids.with(epoch, changes)?);
        }
        for write in writes {
            assert!(
                !write.stamp,
                "a mark has its timestamp before it is applied"
            );
            match write.value {
                Some(value) => self.records.insert(write.key.encode(), value),
                None => self.records.remove(&write.key.encode()),
            };
        }
        Ok(())
    }

    /// Applies what a commit with this timestamp bound. The row is put by
    /// [`MemoryStore::put_row`].
    ///
    /// # Errors
    /// As [`MemoryStore::apply`].
    pub fn apply_commit(&mut self, ts: u64, mut writes: Vec<Write>) -> Result<(), RecordError> {
        for write in &mut writes {
            write.stamp(ts);
        }
        self.apply(self.centroids.epoch(), writes)
    }

    /// Commits a row, or with `None` its delete, at a timestamp above all before.
    pub fn put_row(&mut self, ts: u64, row: RowId, vector: Option<(Vver, Vec<f32>)>) {
        self.rows.entry(row).or_default().push((ts, vector));
    }

    /// Searches from here on see the rows of commits up to `ts`.
    pub fn set_snapshot(&mut self, ts: u64) {
        self.snapshot = ts;
    }

    /// No snapshot below `ts` will be searched any more: maintenance may drop what only such need.
    pub fn set_horizon(&mut self, ts: u64) {
        self.horizon = ts;
    }

    /// A commit takes the intent of a row and binds under the newest epoch. Panics if it has it
    /// already, or maintenance does, which never lasts beyond its step.
    pub fn begin_commit(&mut self, row: RowId) {
        assert!(
            self.held.is_empty(),
            "maintenance holds no intent between steps"
        );
        assert!(
            self.in_use.insert(row),
            "one commit has the intent of a row"
        );
        self.bound.push(self.centroids.epoch());
    }

    /// The commit that bound under `epoch` is applied, or was abandoned.
    pub fn end_commit(&mut self, row: RowId, epoch: u64) {
        assert!(self.in_use.remove(&row), "the commit has the intent");
        let at = self.bound.iter().position(|&bound| bound == epoch);
        self.bound.swap_remove(at.unwrap_or(0));
    }

    /// The value of a record.
    #[must_use]
    pub fn record(&self, key: Key) -> Option<&[u8]> {
        self.records.get(&key.encode()).map(Vec::as_slice)
    }

    /// Bytes of all records, keys included.
    #[must_use]
    pub fn record_bytes(&self) -> usize {
        self.records
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum()
    }

    /// The row as the snapshot sees it.
    fn visible(&self, row: RowId) -> Option<&(Vver, Vec<f32>)> {
        self.visible_at(row, self.snapshot)
    }

    fn visible_at(&self, row: RowId, ts: u64) -> Option<&(Vver, Vec<f32>)> {
        let versions = self.rows.get(&row)?;
        let at = versions.partition_point(|version| version.0 <= ts);
        versions[..at].last()?.1.as_ref()
    }

    /// Visits the records from one key up to, not including, another.
    fn range(&self, from: Key, to: Key, visit: &mut VisitRecord<'_>) -> Result<(), RecordError> {
        for (key, value) in self.records.range(from.encode()..to.encode()) {
            visit(Key::decode(key)?, value)?;
        }
        Ok(())
    }
}

impl PostingStore for MemoryStore {
    type Error = IndexError;

    fn centroids(&self) -> Arc<CentroidSet> {
        Arc::clone(&self.centroids)
    }

    fn snapshot(&self) -> u64 {
        self.snapshot
    }

    fn posting(&self, id: PostingId, visit: &mut VisitRecord<'_>) -> Result<(), IndexError> {
        let end = match id.0.checked_add(1) {
            Some(next) => Key::Head(PostingId(next)),
            None => Key::Locator(RowId(0)),
        };
        Ok(self.range(Key::Head(id), end, visit)?)
    }

    fn extra(
        &self,
        id: PostingId,
        group: u32,
        visit: &mut VisitRecord<'_>,
    ) -> Result<(), IndexError> {
        let key = Key::Extra(id, group);
        if let Some(value) = self.record(key) {
            visit(key, value)?;
        }
        Ok(())
    }

    fn locator(&self, row: RowId, visit: &mut VisitRecord<'_>) -> Result<(), IndexError> {
        let key = Key::Locator(row);
        if let Some(value) = self.record(key) {
            visit(key, value)?;
        }
        Ok(())
    }

    fn rows(&self, rows: &[RowId], visit: &mut VisitRow<'_>) -> Result<(), IndexError> {
        for &row in rows.iter().collect::<BTreeSet<_>>() {
            if let Some((vver, vector)) = self.visible(row) {
                visit(row, *vver, vector)?;
            }
        }
        Ok(())
    }

    fn row_count(&self) -> Result<u64, IndexError> {
        Ok(self.rows.len() as u64)
    }

    fn all_rows(&self, visit: &mut VisitRow<'_>) -> Result<(), IndexError> {
        for &row in self.rows.keys() {
            if let Some((vver, vector)) = self.visible(row) {
                visit(row, *vver, vector)?;
            }
        }
        Ok(())
    }
}

impl RecordStore for MemoryStore {
    fn read(&self, key: Key, visit: &mut VisitRecord<'_>) -> Result<(), IndexError> {
        if let Some(value) = self.record(key) {
            visit(key, value)?;
        }
        Ok(())
    }

    fn scan(
        &self,
        from: Key,
        to: Option<Key>,
        visit: &mut VisitRecord<'_>,
    ) -> Result<(), IndexError> {
        let end = to.map_or(Bound::Unbounded, |key| Bound::Excluded(key.encode()));
        let range = (Bound::Included(from.encode()), end);
        for (key, value) in self.records.range::<Vec<u8>, _>(range) {
            visit(Key::decode(key)?, value)?;
        }
        Ok(())
    }
}

impl MaintenanceHost for MemoryStore {
    fn horizon(&self) -> u64 {
        self.horizon
    }

    fn row_at(&self, row: RowId, ts: u64, visit: &mut VisitRow<'_>) -> Result<(), IndexError> {
        if let Some((vver, vector)) = self.visible_at(row, ts) {
            visit(row, *vver, vector)?;
        }
        Ok(())
    }

    fn try_intent(&mut self, row: RowId) -> bool {
        assert_eq!(self.snapshot, u64::MAX, "maintenance reads what is now");
        let free = !self.in_use.contains(&row);
        if free {
            self.held.insert(row);
        }
        free
    }

    fn commit(&mut self, writes: Vec<Write>, publish: Publish) -> Result<(), IndexError> {
        self.held.clear();
        let epoch = match publish {
            Publish::Nothing => {
                let changes_set = |write: &Write| matches!(write.key, Key::Centroid(_));
                assert!(
                    !writes.iter().any(changes_set),
                    "a change of the set has an epoch"
                );
                self.centroids.epoch()
            }
            Publish::After(epoch) | Publish::Before(epoch) => epoch,
        };
        self.apply(epoch, writes)?;
        if self.centroids.epoch() < epoch {
            self.centroids = Arc::new(self.centroids.with(epoch, [])?);
        }
        Ok(())
    }

    fn release(&mut self) {
        self.held.clear();
    }

    fn quiesced(&self, epoch: u64) -> bool {
        self.bound.iter().all(|&bound| bound >= epoch)
    }
}
