//! Rows of unique and secondary indexes.
//!
//! ```text
//! index      key = part(field), lone(primary key)   value = nothing
//! unique     key = part(field)                      value = lone(primary key)
//!            `None`: key = 00, lone(primary key)    value = lone(primary key)
//! ```
//!
//! The order is that of the field, then of the primary key. `None` is first and may stand in a
//! unique index any number of times, as in SQL.
//!
//! Invariants:
//! - K1: a row has exactly one entry in each index, a function of its primary key and its bytes.
//! - K2: a unique index has two rows of equal key never: an entry whose key is there already with
//!   another primary key is a `Constraint` error, found by one look-up.

use super::malformed;
use super::record::FieldDef;
use crate::error::Result;

/// Appends the entry of a row to `key` and `value`, both cleared first.
///
/// `def` is a field with an index, `record` the encoded row, `primary` its lone key.
///
/// # Errors
/// `Codec` when `record` is no record, `Invalid` when the field is no key.
pub fn write_entry(
    def: &FieldDef,
    record: &[u8],
    primary: &[u8],
    key: &mut Vec<u8>,
    value: &mut Vec<u8>,
) -> Result<()> {
    key.clear();
    value.clear();
    def.write_part(record, key)?;
    if def.unique {
        value.extend_from_slice(primary);
    }
    if !def.unique || is_none(def, key) {
        key.extend_from_slice(primary);
    }
    Ok(())
}

/// The lone primary key in an entry of an index.
///
/// # Errors
/// `Codec` when `key` and `value` are no entry of this index.
pub fn primary_key<'a>(def: &FieldDef, key: &'a [u8], value: &'a [u8]) -> Result<&'a [u8]> {
    if def.unique {
        return Ok(value);
    }
    let skip = def
        .skip
        .ok_or_else(|| malformed("a field has no order").with("field", def.name))?;
    let mut rest = key;
    skip(&mut rest).map_err(|error| error.with("index", def.name))?;
    Ok(rest)
}

/// Whether the part form of a field is that of `None`.
fn is_none(def: &FieldDef, part: &[u8]) -> bool {
    def.optional && part == [0]
}
