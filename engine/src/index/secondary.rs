//! The entries of a row in its secondary and unique indexes: what a write changes of them.
//!
//! Entries are a function of the row's bytes (`codec/index.rs`, K1), so what a `put` has to take
//! back is computed from the row that it replaces, never searched for.
//!
//! Invariants:
//! - N1: after every transaction the entries of an index are exactly those of the table's rows.
//! - N2: an entry that stays the same is not written again.
//! - N3: a unique value is one key of one tree, so that two transactions which give it to two rows
//!   write the same key: one of them conflicts, and finds the holder when it runs again.

use terrane_wal::lsn::TreeId;

use crate::catalog::IndexInfo;
use crate::codec::FieldDef;
use crate::codec::index::write_entry;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::check_key;
use crate::table::Shape;
use crate::txn::raw::RawRead;

/// A row of an index tree to be written, or deleted where there is no entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) tree: TreeId,
    pub(crate) key: Vec<u8>,
    pub(crate) entry: Option<Vec<u8>>,
}

/// What changes when the row `primary` goes from `old` to `new`; either may be absent.
///
/// # Errors
/// `TooLarge` when a field and the key make an index key above its limit; `Codec` when a stored
/// row is no record.
pub(crate) fn changes(
    shape: &Shape,
    primary: &[u8],
    old: Option<&[u8]>,
    new: Option<&[u8]>,
) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    for index in &shape.info.indexes {
        let def = field_of(shape, index)?;
        let tree = index.tree;
        let entry = |record: Option<&[u8]>| -> Result<Option<(Vec<u8>, Vec<u8>)>> {
            let Some(record) = record else {
                return Ok(None);
            };
            let (mut key, mut value) = (Vec::new(), Vec::new());
            write_entry(def, record, primary, &mut key, &mut value)?;
            Ok(Some((key, value)))
        };
        let (old, new) = (entry(old)?, entry(new)?);
        if old == new {
            continue; // N2
        }
        if let Some((key, _)) = old
            && new.as_ref().is_none_or(|(new, _)| *new != key)
        {
            let entry = None;
            changes.push(Change { tree, key, entry });
        }
        if let Some((key, value)) = new {
            check_key(&key).map_err(|error| at_field(error, shape, def))?;
            let entry = Some(value);
            changes.push(Change { tree, key, entry });
        }
    }
    Ok(changes)
}

/// Whether no other row holds a unique value that `changes` give to the row `primary`.
///
/// # Errors
/// `Constraint`, naming table, field, value and the key of the row that holds it; those of a read.
pub(crate) fn check_unique(
    shape: &Shape,
    read: &impl RawRead,
    primary: &[u8],
    changes: &[Change],
) -> Result<()> {
    for change in changes.iter().filter(|change| change.entry.is_some()) {
        let index = shape
            .info
            .indexes
            .iter()
            .find(|index| index.tree == change.tree);
        let Some(index) = index.filter(|index| index.unique) else {
            continue;
        };
        let Some(holder) = read.get_raw(change.tree, &change.key)? else {
            continue;
        };
        if holder != primary {
            let def = field_of(shape, index)?;
            let value = (def.data_type)().show_part(&mut change.key.as_slice());
            let error = Error::new(ErrorKind::Constraint, "another row holds this unique value");
            return Err(at_field(error, shape, def)
                .with("value", value.unwrap_or_else(|_| "?".into()))
                .with("key", shape.show_key(primary))
                .with("holder", shape.show_key(&holder)));
        }
    }
    Ok(())
}

/// The declared field of a stored index.
fn field_of<'a>(shape: &'a Shape, index: &IndexInfo) -> Result<&'a FieldDef> {
    let id = |def: &&FieldDef| u32::from(def.id) == index.field;
    shape.fields.iter().find(id).ok_or_else(|| {
        Error::new(ErrorKind::Schema, "a stored index has no declared field")
            .with("table", &shape.info.name)
            .with("id", index.field)
    })
}

fn at_field(error: Error, shape: &Shape, def: &FieldDef) -> Error {
    error
        .with("table", &shape.info.name)
        .with("field", def.name)
}
