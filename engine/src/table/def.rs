//! The definition of a table: its name and its two types, as a constant of the program.
//!
//! Nothing is checked here, so that a definition can be a `const`; `Database::table` checks the
//! name and compares the types with the stored schema.
//!
//! Invariants:
//! - D1: a stored name is 1 to 255 bytes long and does not begin with [`RESERVED_PREFIX`], which
//!   belongs to tables of the engine itself.

use std::fmt;
use std::marker::PhantomData;

use crate::codec::{Key, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::MAX_TABLE_NAME_BYTES;

/// What names of the engine's own tables begin with.
pub(crate) const RESERVED_PREFIX: &str = "terrane.";

/// A table's name and types.
///
/// ```
/// use terrane::TableDef;
///
/// const SCORES: TableDef<String, u64> = TableDef::new("scores");
/// assert_eq!(SCORES.name(), "scores");
/// ```
pub struct TableDef<K, V> {
    name: &'static str,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: Key, V: Value> TableDef<K, V> {
    /// A table called `name`: 1 to 255 bytes, not beginning with `terrane.`.
    ///
    /// The name is checked when the table is opened.
    #[must_use]
    pub const fn new(name: &'static str) -> TableDef<K, V> {
        TableDef {
            name,
            types: PhantomData,
        }
    }
}

impl<K, V> TableDef<K, V> {
    /// The name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Whether the name can be stored.
    ///
    /// # Errors
    /// `Invalid` when it is empty, longer than 255 bytes or reserved (D1).
    pub(crate) fn check_name(&self) -> Result<()> {
        let error = if self.name.is_empty() {
            Error::new(ErrorKind::Invalid, "the name of a table is empty")
        } else if self.name.len() > MAX_TABLE_NAME_BYTES {
            Error::new(ErrorKind::Invalid, "the name of a table is too long")
                .with("given_bytes", self.name.len())
        } else if self.name.starts_with(RESERVED_PREFIX) {
            Error::new(ErrorKind::Invalid, "the name of a table is reserved")
                .with("given", self.name)
                .with("reserved_prefix", RESERVED_PREFIX)
        } else {
            return Ok(());
        };
        Err(error.with("limit_bytes", MAX_TABLE_NAME_BYTES))
    }
}

impl<K, V> Clone for TableDef<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for TableDef<K, V> {}

impl<K, V> fmt::Debug for TableDef<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TableDef({:?})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(name: &'static str) -> Option<ErrorKind> {
        let def: TableDef<u64, u64> = TableDef::new(name);
        def.check_name().err().map(|error| error.kind())
    }

    #[test]
    fn names_are_one_to_255_bytes_and_not_reserved() {
        let long: &'static str = "x".repeat(256).leak();
        assert_eq!(refusal("a"), None);
        assert_eq!(refusal(&long[..255]), None);
        assert_eq!(refusal("terrane"), None);
        assert_eq!(refusal("\u{e9}t\u{e9}"), None);
        for name in ["", long, "terrane.", "terrane.prepared"] {
            assert_eq!(refusal(name), Some(ErrorKind::Invalid), "{name}");
        }
    }
}
