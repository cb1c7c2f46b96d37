//! A host in memory, for tests and documentation: ordered maps instead of trees.
//!
//! Rows keep every version with its commit timestamp, so that old snapshots can be searched;
//! records of the index are single versions, as on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::centroid::CentroidSet;
use crate::record::{Key, PostingId, RecordError, RowId, Vver};
use crate::store::{IndexError, PostingStore, VisitRecord, VisitRow, Write};

/// A version of a row: commit timestamp, then its vector or `None` for a delete.
type Version = (u64, Option<(Vver, Vec<f32>)>);

/// A table with one vector field and the records of its index.
#[derive(Debug)]
pub struct MemoryStore {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    rows: BTreeMap<RowId, Vec<Version>>,
    centroids: Arc<CentroidSet>,
    snapshot: u64,
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
        }
    }

    /// Puts and deletes records of the index, and publishes the centroids among them as `epoch`.
    ///
    /// # Errors
    /// [`RecordError`] if a centroid record cannot be decoded; then nothing is published.
    pub fn apply(&mut self, epoch: u64, writes: Vec<Write>) -> Result<(), RecordError> {
        let centroid = |(key, value): &Write| match key {
            Key::Centroid(id) => Some((*id, value.clone())),
            _ => None,
        };
        let changed: Vec<_> = writes.iter().filter_map(centroid).collect();
        if !changed.is_empty() {
            let changes = changed.iter().map(|(id, value)| (*id, value.as_deref()));
            self.centroids = Arc::new(self.centroids.with(epoch, changes)?);
        }
        for (key, value) in writes {
            match value {
                Some(value) => self.records.insert(key.encode(), value),
                None => self.records.remove(&key.encode()),
            };
        }
        Ok(())
    }

    /// Commits a row, or with `None` its delete, at a timestamp above all before.
    pub fn put_row(&mut self, ts: u64, row: RowId, vector: Option<(Vver, Vec<f32>)>) {
        self.rows.entry(row).or_default().push((ts, vector));
    }

    /// Searches from here on see the rows of commits up to `ts`.
    pub fn set_snapshot(&mut self, ts: u64) {
        self.snapshot = ts;
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
        let versions = self.rows.get(&row)?;
        let at = versions.partition_point(|(ts, _)| *ts <= self.snapshot);
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
        self.range(Key::Head(id), Key::Extra(id, 0), visit)?;
        let tail = Key::Tail(id, RowId(0), Vver(0));
        match id.0.checked_add(1) {
            Some(next) => self.range(tail, Key::Head(PostingId(next)), visit)?,
            None => self.range(tail, Key::Locator(RowId(0)), visit)?,
        }
        Ok(())
    }

    fn extra(
        &self,
        id: PostingId,
        block: u32,
        visit: &mut VisitRecord<'_>,
    ) -> Result<(), IndexError> {
        let key = Key::Extra(id, block);
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
