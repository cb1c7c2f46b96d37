//! Writing a row: its bytes, its hidden number, and its entries in the indexes.
//!
//! Everything that can be refused is found out before the first byte is written to the
//! transaction, and what is written is taken back if the transaction takes no more of it (B1).

use crate::catalog::{RowIds, TableInfo};
use crate::codec::hidden::Hidden;
use crate::error::{Error, Result};
use crate::index::secondary::{self, Change};
use crate::limits::check_value;
use crate::table::Shape;
use crate::table::vectors::check_vectors;
use crate::txn::leg::Leg;
use crate::txn::raw::RawRead;

/// Log record flag of a row that belongs to an index.
const INDEX_ROW: u8 = 1;

/// Writes the row `key`, `value`, replacing the one that is there.
pub(crate) fn put(shape: &Shape, tx: &mut Leg, key: Vec<u8>, mut value: Vec<u8>) -> Result<()> {
    shape.check_read(tx)?;
    let info = &shape.info;
    let in_row = |error: Error| {
        let error = error.with("table", &info.name);
        error.with("key", shape.show_key(&key))
    };
    check_vectors(shape.fields, &value).map_err(in_row)?;
    check_value(&value).map_err(in_row)?;
    if info.indexes.is_empty() && info.row_ids == RowIds::Key {
        return tx.put_raw(info.tree, info.schema_version, 0, key, value);
    }
    let old = tx.get_raw(info.tree, &key)?;
    let changes = secondary::changes(shape, &key, old.as_deref(), Some(&value))?;
    secondary::check_unique(shape, tx, &key, &changes)?;
    if info.row_ids == RowIds::Hidden {
        value = numbered(info, tx, old.as_deref(), &value)?;
        check_value(&value).map_err(in_row)?;
    }
    write_all(tx, info, changes, |tx| {
        tx.put_raw(info.tree, info.schema_version, 0, key, value)
    })
}

/// Deletes the row `key` and its index entries; false when there is none.
pub(crate) fn delete(shape: &Shape, tx: &mut Leg, key: Vec<u8>) -> Result<bool> {
    shape.check_read(tx)?;
    let info = &shape.info;
    let Some(old) = tx.get_raw(info.tree, &key)? else {
        return Ok(false);
    };
    let changes = secondary::changes(shape, &key, Some(&old), None)?;
    write_all(tx, info, changes, |tx| {
        tx.delete_raw(info.tree, info.schema_version, 0, key)
    })?;
    Ok(true)
}

/// Writes a row by `row` and the entries of its indexes, or none of them.
fn write_all(
    tx: &mut Leg,
    info: &TableInfo,
    changes: Vec<Change>,
    row: impl FnOnce(&mut Leg) -> Result<()>,
) -> Result<()> {
    let before = tx.mark();
    let write = || -> Result<()> {
        row(tx)?;
        for Change { tree, key, entry } in changes {
            match entry {
                Some(entry) => tx.put_raw(tree, info.schema_version, INDEX_ROW, key, entry)?,
                None => tx.delete_raw(tree, info.schema_version, INDEX_ROW, key)?,
            }
        }
        Ok(())
    };
    let written = write();
    if written.is_err() {
        tx.back_to(before);
    }
    written
}

/// `value` with the row's number: that of the row it replaces, or a new one (B2).
fn numbered(info: &TableInfo, tx: &Leg, old: Option<&[u8]>, value: &[u8]) -> Result<Vec<u8>> {
    let kept = old
        .map(Hidden::read)
        .transpose()?
        .and_then(|hidden| hidden.row_id);
    let row_id = match kept {
        Some(row_id) => row_id,
        None => tx.local()?.next_row_id(info.tree)?,
    };
    let hidden = Hidden {
        row_id: Some(row_id),
        expires_ms: None,
    };
    hidden.write(value)
}
