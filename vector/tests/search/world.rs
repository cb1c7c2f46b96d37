//! A table, its index with columns, and a host that filters.

use std::cell::Cell;
use std::sync::Arc;

use terrane_vector::{
    Admit, CentroidSet, IndexError, IndexParams, Key, MemoryStore, Metric, NewRow, PostingId,
    PostingStore, Prepared, RowId, VectorIndex, VisitRecord, VisitRow, Vver, nearest,
};

/// A seeded stream of numbers around zero, about normal.
pub(crate) struct Stream(pub(crate) u64);

impl Stream {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        self.0 ^ self.0 >> 33
    }

    pub(crate) fn normal(&mut self) -> f32 {
        let one = |word: u64| (word >> 40) as f32 / (1_u64 << 24) as f32 - 0.5;
        (0..6).map(|_| one(self.next())).sum::<f32>() * 1.4
    }

    /// A vector near one of 40 topics.
    pub(crate) fn vector(&mut self, dim: usize) -> Vec<f32> {
        let mut topic = Stream(self.next() % 40 + 1);
        (0..dim)
            .map(|_| topic.normal() + 0.7 * self.normal())
            .collect()
    }
}

/// A table whose entries carry their row's id as filter column, and its rows once more.
pub(crate) struct World {
    pub(crate) index: VectorIndex,
    pub(crate) store: MemoryStore,
    pub(crate) rows: Vec<Vec<f32>>,
}

impl World {
    pub(crate) fn new(metric: Metric, dim: usize, count: usize) -> Self {
        let mut stream = Stream(9);
        let rows: Vec<Vec<f32>> = (0..count).map(|_| stream.vector(dim)).collect();
        let params = IndexParams {
            columns: true,
            ..IndexParams::new(metric, dim, 3)
        };
        let index = VectorIndex::new(params).unwrap();
        let mut store = MemoryStore::new(CentroidSet::empty(metric, dim));
        let columns: Vec<[u8; 8]> = (0..count as u64).map(u64::to_le_bytes).collect();
        let new = |at: usize| NewRow {
            id: RowId(at as u64),
            vector: &rows[at],
            key: None,
            columns: Some(&columns[at]),
        };
        store
            .apply(1, index.build(1, (0..count).map(new)).unwrap())
            .unwrap();
        for (id, row) in (0..).map(RowId).zip(&rows) {
            store.put_row(1, id, Some((Vver(0), row.clone())));
        }
        Self { index, store, rows }
    }

    pub(crate) fn brute(
        &self,
        query: &[f32],
        k: usize,
        accept: impl Fn(RowId) -> bool,
    ) -> Vec<RowId> {
        let query = Prepared::new(self.index.metric(), query).unwrap();
        let rows = (0..).map(RowId).zip(self.rows.iter().map(Vec::as_slice));
        let hits = nearest(&query, k, rows, |id| accept(*id)).unwrap();
        hits.into_iter().map(|hit| hit.id).collect()
    }
}

/// The table with a filter, which is told columns or must be told rows.
pub(crate) struct Filtered<'s> {
    store: &'s MemoryStore,
    accept: &'s dyn Fn(RowId) -> bool,
    by_columns: bool,
    /// What lies beside a block is of a later fold than the block.
    pub(crate) folded: bool,
    pub(crate) rows_read: Cell<usize>,
}

/// A record beside a block as another fold left it: another seal, other slots.
pub(crate) fn of_another_fold(key: Key, value: &[u8]) -> Vec<u8> {
    let mut value = value.to_vec();
    match key {
        Key::Columns(..) => value[72..].rotate_left(8),
        Key::Extra(..) => value[8..].rotate_left(8),
        _ => return value,
    }
    value[4] ^= 1;
    value
}

impl<'s> Filtered<'s> {
    pub(crate) fn new(
        world: &'s World,
        accept: &'s dyn Fn(RowId) -> bool,
        by_columns: bool,
    ) -> Self {
        let (store, rows_read) = (&world.store, Cell::new(0));
        Self {
            store,
            accept,
            by_columns,
            folded: false,
            rows_read,
        }
    }
}

impl PostingStore for Filtered<'_> {
    type Error = IndexError;

    fn centroids(&self) -> Arc<CentroidSet> {
        self.store.centroids()
    }

    fn snapshot(&self) -> u64 {
        self.store.snapshot()
    }

    fn filtered(&self) -> bool {
        true
    }

    fn admits(&self, columns: Option<&[u8]>) -> Admit {
        match columns.and_then(|columns| columns.as_array()) {
            Some(&id) if self.by_columns => {
                if (self.accept)(RowId(u64::from_le_bytes(id))) {
                    Admit::Yes
                } else {
                    Admit::No
                }
            }
            _ => Admit::AskRow,
        }
    }

    fn posting(&self, id: PostingId, visit: &mut VisitRecord<'_>) -> Result<(), IndexError> {
        if !self.folded {
            return self.store.posting(id, visit);
        }
        let mut other = |key, value: &[u8]| visit(key, &of_another_fold(key, value));
        self.store.posting(id, &mut other)
    }

    fn extra(
        &self,
        id: PostingId,
        group: u32,
        visit: &mut VisitRecord<'_>,
    ) -> Result<(), IndexError> {
        if !self.folded {
            return self.store.extra(id, group, visit);
        }
        let mut other = |key, value: &[u8]| visit(key, &of_another_fold(key, value));
        self.store.extra(id, group, &mut other)
    }

    fn locator(&self, row: RowId, visit: &mut VisitRecord<'_>) -> Result<(), IndexError> {
        self.store.locator(row, visit)
    }

    fn rows(&self, rows: &[RowId], visit: &mut VisitRow<'_>) -> Result<(), IndexError> {
        self.rows_read.set(self.rows_read.get() + rows.len());
        self.store.rows(rows, &mut |row, vver, vector| {
            if (self.accept)(row) {
                visit(row, vver, vector)?;
            }
            Ok(())
        })
    }

    fn row_count(&self) -> Result<u64, IndexError> {
        self.store.row_count()
    }

    fn all_rows(&self, visit: &mut VisitRow<'_>) -> Result<(), IndexError> {
        self.store.all_rows(&mut |row, vver, vector| {
            if (self.accept)(row) {
                visit(row, vver, vector)?;
            }
            Ok(())
        })
    }
}

pub(crate) fn overlap(a: &[RowId], b: &[RowId]) -> usize {
    a.iter().filter(|id| b.contains(id)).count()
}
