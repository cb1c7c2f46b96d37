//! One snapshot of a table beside the newest records of its vector index: what a search reads.
//!
//! Rows come through the read rule of every reader (leaf, then recent-writes index), records of
//! the index straight from their tree: they are single versions (S3). A posting is read leaf by
//! leaf; if it lies in more than one, the head must have stood until the last was read, or the
//! posting is read again (S4). Commits install records by rising keys, leaf by leaf, so what a
//! reader sees of a fold is then its first part or all of it, never its last part alone.
//!
//! A transaction's own rows are not in the index yet. They are left out here and measured one by
//! one by who searches.

use std::cell::RefCell;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use terrane_btree::{Direction, LeafHint, LeafRows, Span, SpanRows};
use terrane_vector::{
    Admit, CentroidSet, Key, PostingId, PostingStore, RecordStore, RowId, VisitRecord, VisitRow,
    Vver,
};
use terrane_wal::lsn::Ts;

use super::{Hosted, VectorTable, source};
use crate::codec::vector::VectorView;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::Core;
use crate::txn::snapshot::{check_floor, read_row, read_row_at};
use crate::txn::write_set::WriteSet;

/// How often a posting that changes under a reader is read again.
const REREADS_MAX: u32 = 64;

/// What is told of rows until it has enough: a row, the version of its vector, the vector.
pub(crate) type VisitWhile<'v> = dyn FnMut(RowId, Vver, &[f32]) -> ControlFlow<()> + 'v;
/// As [`VisitWhile`], of a row's whole record.
type VisitRecordWhile<'v> = dyn FnMut(RowId, &[u8]) -> Result<ControlFlow<()>> + 'v;

/// A condition on the rows that a search may find.
pub(crate) trait RowFilter {
    /// What the columns beside a code say; None: the row must be asked.
    fn judge(&self, columns: &[u8]) -> Option<bool>;

    /// What the record says.
    fn matches(&self, record: &[u8]) -> Result<bool>;
}

/// A snapshot of a table and its index.
pub(crate) struct View<'a> {
    pub(crate) core: &'a Core,
    pub(crate) table: &'a VectorTable,
    pub(crate) hosted: &'a Hosted,
    /// The snapshot.
    pub(crate) at: Ts,
    /// Rows that the reader itself has written.
    pub(crate) own: Option<&'a WriteSet>,
    pub(crate) filter: Option<&'a dyn RowFilter>,
    /// Postings are read without their filter columns.
    pub(crate) bare: bool,
    scratch: RefCell<Scratch>,
}

/// Room that is used again for every posting and row.
#[derive(Default)]
struct Scratch {
    posting: SpanRows,
    extra: SpanRows,
    value: Vec<u8>,
    elements: Vec<f32>,
    leaves: Vec<LeafHint>,
}

impl<'a> View<'a> {
    /// Reads at the snapshot `at`, which somebody holds pinned.
    pub(crate) fn new(
        core: &'a Core,
        table: &'a VectorTable,
        hosted: &'a Hosted,
        at: Ts,
    ) -> View<'a> {
        View {
            core,
            table,
            hosted,
            at,
            own: None,
            filter: None,
            bare: false,
            scratch: RefCell::default(),
        }
    }

    /// The key of a row; None if the index knows of no such row.
    pub(crate) fn key_of(&self, row: RowId) -> Result<Option<Vec<u8>>> {
        if let Some(key) = self.table.source.key_of(row) {
            return Ok(Some(key));
        }
        let mut value = Vec::new();
        if !self.hosted.get(self.core, Key::Locator(row), &mut value)? {
            return Ok(None);
        }
        let key = terrane_vector::locator_key(&value).map_err(|e| self.hosted.broken(e))?;
        Ok(key)
    }

    /// The keys of those rows that the reader has not written itself.
    fn keys_of(&self, rows: &[RowId], leaves: &mut Vec<LeafHint>) -> Result<Vec<(RowId, Vec<u8>)>> {
        if self.table.source.has_hidden_ids() {
            let locators: Vec<_> = rows.iter().map(|row| Key::Locator(*row).encode()).collect();
            let asked = locators.iter().map(Vec::as_slice);
            self.core
                .tree(self.hosted.tree)?
                .find_leaves(asked, leaves)?;
        }
        let mut keys = Vec::with_capacity(rows.len());
        for &row in rows {
            let key = self.key_of(row)?;
            let own = |key: &Vec<u8>| {
                let tree = self.table.source.tree;
                self.own.is_some_and(|own| own.get(tree, key).is_some())
            };
            keys.extend(key.filter(|key| !own(key)).map(|key| (row, key)));
        }
        Ok(keys)
    }

    /// Shows the vector of a record, if it has one and `filter` lets it pass.
    fn show(
        &self,
        row: RowId,
        record: &[u8],
        elements: &mut Vec<f32>,
        visit: &mut VisitRow<'_>,
    ) -> Result<()> {
        if let Some(filter) = self.filter
            && !filter.matches(record)?
        {
            return Ok(());
        }
        self.show_any(row, record, elements, visit)
    }

    fn show_any(
        &self,
        row: RowId,
        record: &[u8],
        elements: &mut Vec<f32>,
        visit: &mut VisitRow<'_>,
    ) -> Result<()> {
        let Some(vector) = source::vector(&self.hosted.field, record)? else {
            return Ok(());
        };
        fill(elements, &vector);
        visit(row, Vver(vector.vver), elements).map_err(|error| {
            Error::new(ErrorKind::Corrupt, "a stored vector fails its check")
                .with("table", &self.table.source.name)
                .with("field", &self.hosted.field.name)
                .with("row_id", row.0)
                .caused_by(error)
        })
    }

    /// The row as it was at `ts`, or nothing if that is not known any more.
    pub(crate) fn row_at(&self, row: RowId, ts: u64, visit: &mut VisitRow<'_>) -> Result<()> {
        let Some(key) = self.key_of(row)? else {
            return Ok(());
        };
        let found = match read_row(self.core, self.table.source.tree, &key, Ts(ts)) {
            Err(error) if error.kind() == ErrorKind::SnapshotTooOld => return Ok(()),
            other => other?,
        };
        match found.value {
            Some(record) if self.is_row(row, &key, &record)? => {
                self.show_any(row, &record, &mut Vec::new(), visit)
            }
            _ => Ok(()),
        }
    }

    /// Whether the row at a key is the one with this number: a key that was deleted and written
    /// anew may have another.
    fn is_row(&self, row: RowId, key: &[u8], record: &[u8]) -> Result<bool> {
        let hidden = self.table.source.has_hidden_ids();
        Ok(!hidden || self.table.source.row_id(key, record)? == row)
    }

    /// Shows the vectors of all rows that pass the filter, until one is enough.
    pub(crate) fn rows_while(&self, visit: &mut VisitWhile<'_>) -> Result<()> {
        let mut elements = Vec::new();
        self.records_while(&mut |id, record| {
            let mut go_on = ControlFlow::Continue(());
            self.show(id, record, &mut elements, &mut |id, vver, vector| {
                go_on = visit(id, vver, vector);
                Ok(())
            })?;
            Ok(go_on)
        })
    }

    /// Shows the records of all rows but the reader's own, in the order of their keys, until one is
    /// enough.
    fn records_while(&self, visit: &mut VisitRecordWhile<'_>) -> Result<()> {
        let tree = self.table.source.tree;
        let all = (Bound::Unbounded, Bound::Unbounded);
        self.core.unapplied.check_range(tree, all.0, all.1)?;
        let mut leaf = LeafRows::default();
        let mut cursor = self
            .core
            .tree(tree)?
            .cursor(all.0, all.1, Direction::Forward);
        while cursor.next_leaf(&mut leaf)? {
            for row in leaf.iter() {
                if self.own.is_some_and(|own| own.get(tree, row.key).is_some()) {
                    continue;
                }
                // A row without its bit is visible to all; another is read as any reader would.
                let judged = row.flags.versioned || row.flags.ghost;
                let found = match judged {
                    true => read_row(self.core, tree, row.key, self.at)?.value,
                    false => None,
                };
                let record = if judged {
                    found.as_deref()
                } else {
                    Some(row.value)
                };
                if let Some(record) = record
                    && visit(self.table.source.row_id(row.key, record)?, record)?.is_break()
                {
                    return Ok(());
                }
            }
        }
        check_floor(self.core, self.at)
    }

    /// Reads the records of a posting.
    fn read_posting(&self, id: PostingId, out: &mut SpanRows) -> Result<()> {
        let (lower, upper) = Key::posting_range(id);
        let range = Span {
            lower: &lower,
            upper: &upper,
            wanted: &|key| !self.bare || !Key::is_columns(key),
        };
        let hints = self.hosted.hints.leaves(id);
        for _ in 0..REREADS_MAX {
            self.span(range, hints, out)?;
            if out.first_stood() || self.head_stands(id, out)? {
                return Ok(());
            }
        }
        Err(Error::new(
            ErrorKind::TimedOut,
            "a posting changed whenever it was read",
        )
        .with("table", &self.table.source.name)
        .with("posting", id.0))
    }

    /// Reads the records of a range.
    fn span(&self, range: Span<'_>, hints: &[LeafHint], out: &mut SpanRows) -> Result<()> {
        let (core, tree) = (self.core, self.hosted.tree);
        let (from, to) = (Bound::Included(range.lower), Bound::Excluded(range.upper));
        core.unapplied.check_range(tree, from, to)?;
        Ok(core.tree(tree)?.read_span(range, hints, out)?)
    }

    fn expect_leaves(&self, hints: &[LeafHint]) {
        if let Ok(tree) = self.core.tree(self.hosted.tree) {
            hints.iter().for_each(|hint| tree.expect(hint));
        }
    }

    fn show_rows(&self, rows: &SpanRows, visit: &mut VisitRecord<'_>) -> Result<()> {
        let rows = rows.iter().filter(|row| !row.flags.ghost);
        for row in rows {
            self.hosted.show(row.key, row.value, visit)?;
        }
        Ok(())
    }

    /// Whether the head of a posting is still the one that was read.
    fn head_stands(&self, id: PostingId, read: &SpanRows) -> Result<bool> {
        let key = Key::Head(id).encode();
        let seen = read.iter().next().filter(|row| row.key == key);
        let mut value = Vec::new();
        let found = self.hosted.get(self.core, Key::Head(id), &mut value)?;
        Ok(match seen {
            Some(row) => found && row.value == value,
            None => !found,
        })
    }
}

/// The elements of a vector as numbers.
fn fill(elements: &mut Vec<f32>, vector: &VectorView<'_>) {
    elements.clear();
    elements.extend(vector.iter());
}

impl PostingStore for View<'_> {
    type Error = Error;

    fn centroids(&self) -> Arc<CentroidSet> {
        self.hosted.epochs.newest()
    }

    fn snapshot(&self) -> u64 {
        self.at.0
    }

    fn posting(&self, id: PostingId, visit: &mut VisitRecord<'_>) -> Result<()> {
        let mut rows = std::mem::take(&mut self.scratch.borrow_mut().posting);
        self.read_posting(id, &mut rows)?;
        self.show_rows(&rows, visit)?;
        self.scratch.borrow_mut().posting = rows;
        Ok(())
    }

    fn expect(&self, id: PostingId) {
        self.expect_leaves(self.hosted.hints.leaves(id));
    }

    fn expect_extra(&self, id: PostingId, group: u32) {
        self.expect_leaves(self.hosted.hints.extra(id, group));
    }

    fn extra(&self, id: PostingId, group: u32, visit: &mut VisitRecord<'_>) -> Result<()> {
        let lower = Key::Extra(id, group).encode();
        let range = Span {
            lower: &lower,
            upper: &[&lower[..], &[0]].concat(),
            wanted: &|_| true,
        };
        let hints = self.hosted.hints.extra(id, group);
        let mut rows = std::mem::take(&mut self.scratch.borrow_mut().extra);
        self.span(range, hints, &mut rows)?;
        self.show_rows(&rows, visit)?;
        self.scratch.borrow_mut().extra = rows;
        Ok(())
    }

    fn locator(&self, row: RowId, visit: &mut VisitRecord<'_>) -> Result<()> {
        self.read(Key::Locator(row), visit)
    }

    fn rows(&self, rows: &[RowId], visit: &mut VisitRow<'_>) -> Result<()> {
        let tree = self.table.source.tree;
        let mut scratch = std::mem::take(&mut *self.scratch.borrow_mut());
        let (elements, leaves) = (&mut scratch.elements, &mut scratch.leaves);
        let keys = self.keys_of(rows, leaves)?;
        let asked = keys.iter().map(|(_, key)| &key[..]);
        self.core.tree(tree)?.find_leaves(asked, leaves)?;
        for ((row, key), leaf) in keys.into_iter().zip(&*leaves) {
            let found = read_row_at(self.core, tree, &key, self.at, leaf)?;
            if let Some(record) = found.value
                && self.is_row(row, &key, &record)?
            {
                self.show(row, &record, elements, visit)?;
            }
        }
        *self.scratch.borrow_mut() = scratch;
        Ok(())
    }

    fn filtered(&self) -> bool {
        self.filter.is_some()
    }

    fn admits(&self, columns: Option<&[u8]>) -> Admit {
        let judged = match (self.filter, columns) {
            (Some(filter), Some(columns)) => filter.judge(columns),
            _ => None,
        };
        match judged {
            Some(true) => Admit::Yes,
            Some(false) => Admit::No,
            None => Admit::AskRow,
        }
    }

    fn row_count(&self) -> Result<u64> {
        self.hosted.row_count(self.core)
    }

    fn all_rows(&self, visit: &mut VisitRow<'_>) -> Result<()> {
        let mut elements = Vec::new();
        self.records_while(&mut |id, record| {
            self.show(id, record, &mut elements, visit)?;
            Ok(ControlFlow::Continue(()))
        })
    }
}

impl RecordStore for View<'_> {
    fn read(&self, key: Key, visit: &mut VisitRecord<'_>) -> Result<()> {
        let mut value = std::mem::take(&mut self.scratch.borrow_mut().value);
        if self.hosted.get(self.core, key, &mut value)? {
            visit(key, &value).map_err(|error| self.hosted.broken(error))?;
        }
        self.scratch.borrow_mut().value = value;
        Ok(())
    }

    fn scan(&self, from: Key, to: Option<Key>, visit: &mut VisitRecord<'_>) -> Result<()> {
        let (lower, upper) = (from.encode(), to.map(Key::encode));
        let lower = Bound::Included(&lower[..]);
        let upper = upper.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let tree = self.hosted.tree;
        self.core.unapplied.check_range(tree, lower, upper)?;
        let mut cursor = self
            .core
            .tree(tree)?
            .cursor(lower, upper, Direction::Forward);
        let mut leaf = LeafRows::default();
        while cursor.next_leaf(&mut leaf)? {
            for row in leaf.iter().filter(|row| !row.flags.ghost) {
                self.hosted.show(row.key, row.value, visit)?;
            }
        }
        Ok(())
    }
}
