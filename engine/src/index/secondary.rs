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
use crate::table::{Shape, shown};
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
                .with("value", shown(value))
                .with("key", shape.show_key(primary))
                .with("holder", shape.show_key(&holder)));
        }
    }
    Ok(())
}

/// The declared field of a stored index.
fn field_of<'a>(shape: &'a Shape, index: &IndexInfo) -> Result<&'a FieldDef> {
    let id = |def: &&FieldDef| def.id == index.field;
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use terrane_btree::Class;

    use super::*;
    use crate::Record;
    use crate::catalog::schema::Schema;
    use crate::catalog::{IndexInfo, RowIds, TableInfo};
    use crate::codec::{Key, Value};
    use crate::runtime::home::Home;

    #[derive(Record)]
    struct Row {
        #[terrane(id = 1, unique)]
        name: Option<u8>,
        #[terrane(id = 2, index)]
        day: u16,
        #[terrane(id = 3)]
        text: String,
    }

    const UNIQUE: TreeId = TreeId(301);
    const SECONDARY: TreeId = TreeId(302);

    fn shape() -> Shape {
        let index = |field, unique, tree| IndexInfo {
            field,
            unique,
            tree,
        };
        let info = TableInfo {
            name: "rows".into(),
            tree: TreeId(300),
            class: Class::K8,
            schema_version: 1,
            row_ids: RowIds::Key,
            indexes: vec![index(1, true, UNIQUE), index(2, false, SECONDARY)],
            vectors: Vec::new(),
            schema: Schema::of::<u64, Row>().unwrap(),
        };
        Shape {
            info: Arc::new(info),
            home: Home::default(),
            fields: Row::FIELDS,
            key_type: u64::key_type,
        }
    }

    fn row(name: Option<u8>, day: u16, text: &str) -> Vec<u8> {
        let text = text.to_owned();
        let mut out = Vec::new();
        Row { name, day, text }.encode_value(&mut out);
        out
    }

    fn change(tree: TreeId, key: &[u8], entry: Option<&[u8]>) -> Change {
        let (key, entry) = (key.to_vec(), entry.map(<[u8]>::to_vec));
        Change { tree, key, entry }
    }

    #[test]
    fn only_what_differs_is_written() {
        let (shape, key) = (shape(), [9_u8]);
        let all = |old: Option<&[u8]>, new: Option<&[u8]>| changes(&shape, &key, old, new).unwrap();
        let (first, moved) = (row(Some(7), 0x102, "a"), row(Some(7), 0x103, "b"));

        let written = all(None, Some(&first));
        let unique = change(UNIQUE, &[1, 7], Some(&key));
        let secondary = change(SECONDARY, &[1, 2, 9], Some(&[]));
        assert_eq!(written, [unique, secondary]);
        assert_eq!(
            all(Some(&first), Some(&row(Some(7), 0x102, "other text"))),
            []
        );

        let gone = change(SECONDARY, &[1, 2, 9], None);
        let there = change(SECONDARY, &[1, 3, 9], Some(&[]));
        assert_eq!(all(Some(&first), Some(&moved)), [gone, there]);

        let deleted = all(Some(&moved), None);
        let wanted = [
            change(UNIQUE, &[1, 7], None),
            change(SECONDARY, &[1, 3, 9], None),
        ];
        assert_eq!(deleted, wanted);

        // `None` stands beside the primary key, so that it never collides.
        let nameless = all(None, Some(&row(None, 0, "")));
        assert_eq!(nameless[0], change(UNIQUE, &[0, 9], Some(&key)));
    }

    #[test]
    fn a_stored_index_without_a_field_is_refused() {
        let shape = Shape {
            fields: &Row::FIELDS[1..],
            ..shape()
        };
        let error = changes(&shape, &[9], None, Some(&row(None, 1, ""))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Schema);
    }
}
