//! The definition of a table: its name and its two types, as a constant of the program.
//!
//! Nothing is checked here, so that a definition can be a `const`; `Database::table` checks the
//! name and compares the types with the stored schema.

use std::fmt;
use std::marker::PhantomData;

use crate::codec::{Key, Value};

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
    /// A table called `name`: 1 to 255 bytes without a NUL, not beginning with `terrane.`.
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
