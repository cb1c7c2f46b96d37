//! Opening a table: the definition against the catalog.
//!
//! A table that the catalog does not know is created with its indexes in one DDL transaction; one
//! that it knows is compared, and its schema replaced when the definition only adds what old rows
//! read as defaults (`catalog/schema.rs`, G3).

use crate::catalog::schema::{self, Evolution, Schema};
use crate::catalog::{IndexSpec, RowIds, SchemaMatch, TableInfo, TableSpec};
use crate::codec::vector::VECTOR_HEADER_BYTES;
use crate::codec::{DataType, FieldDef, Key, Value};
use crate::database::Database;
use crate::error::{Error, Result};
use crate::table::Table;
use crate::table::def::TableDef;

/// The page classes that are built: 8, 16 and 32 KiB.
const CLASSES: [u8; 3] = [1, 2, 3];
/// Room that a record is given beside its vectors when the page class is chosen.
const ROOM_BESIDE_VECTORS_BYTES: usize = 256;

impl Database {
    /// Opens a table, creating it and its indexes if it does not exist. Keep the handle: opening
    /// reads the catalog.
    ///
    /// A definition may add fields that have a default or are options, and rename fields; the
    /// stored schema then becomes its own, and handles of the older one give `Schema` when they
    /// write.
    ///
    /// # Errors
    /// `Invalid` for a name that is empty, longer than 255 bytes or begins with `terrane.`;
    /// `Schema` when the stored types, fields or indexes are others, naming both sides, or when
    /// the declared ones contradict themselves; `Version` when a newer version of this crate
    /// stored the schema; those of a commit.
    pub fn table<K: Key, V: Value>(&self, def: TableDef<K, V>) -> Result<Table<K, V>> {
        def.check_name()?;
        let in_table = |error: Error| error.with("table", def.name());
        let declared = Schema::of::<K, V>().map_err(in_table)?;
        let spec = spec(&declared, V::fields());
        let check = |stored: &TableInfo| -> Result<SchemaMatch> {
            let found = Schema::decode(&stored.schema).map_err(in_table)?;
            match schema::check(&found, &declared).map_err(in_table)? {
                Evolution::Same => Ok(SchemaMatch::Same),
                Evolution::Replace { .. } => Ok(SchemaMatch::Newer),
            }
        };
        Ok(Table::new(self.open_table(def.name(), &spec, &check)?))
    }
}

/// What the catalog is asked to store.
fn spec(declared: &Schema, fields: &[FieldDef]) -> TableSpec {
    let indexed = fields.iter().filter(|def| def.unique || def.index);
    TableSpec {
        class: page_class(fields),
        row_ids: row_ids(&declared.key, fields),
        indexes: indexed
            .map(|def| IndexSpec {
                field: u32::from(def.id),
                unique: def.unique,
            })
            .collect(),
        schema: declared.encode(),
    }
}

/// A row needs a number where it has a vector; an integer key of up to 64 bits is its number.
fn row_ids(key: &DataType, fields: &[FieldDef]) -> RowIds {
    let has_vector = fields.iter().any(|def| def.vector.is_some());
    let is_number = matches!(
        key,
        DataType::U8
            | DataType::U16
            | DataType::U32
            | DataType::U64
            | DataType::I8
            | DataType::I16
            | DataType::I32
            | DataType::I64
    );
    if has_vector && !is_number {
        RowIds::Hidden
    } else {
        RowIds::Key
    }
}

/// The smallest page in which a row lies inline with its vectors: a quarter of the page holds it.
fn page_class(fields: &[FieldDef]) -> u8 {
    let vectors = fields.iter().filter_map(|def| def.vector);
    let vector_bytes: usize = vectors
        .map(|vector| VECTOR_HEADER_BYTES + vector.dim as usize * size_of::<f32>())
        .sum();
    let [smallest, .., largest] = CLASSES;
    if vector_bytes == 0 {
        return smallest;
    }
    let row_bytes = vector_bytes + ROOM_BESIDE_VECTORS_BYTES;
    CLASSES
        .into_iter()
        .find(|class| row_bytes <= (4096 << class) / 4)
        .unwrap_or(largest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::vector::Metric;
    use crate::vector::DynVector;

    fn with_vector(dim: u32) -> [FieldDef; 2] {
        [
            FieldDef::of::<u64>(1, "number"),
            FieldDef::of::<DynVector>(2, "vector").vector::<DynVector>(Metric::L2, dim),
        ]
    }

    #[test]
    fn a_vector_takes_the_smallest_page_that_holds_its_row() {
        assert_eq!(page_class(&[]), 1);
        for (dim, class) in [
            (1, 1),
            (384, 1),
            (768, 2),
            (1024, 3),
            (1536, 3),
            (16_000, 3),
        ] {
            assert_eq!(page_class(&with_vector(dim)), class, "{dim}");
        }
    }

    #[test]
    fn only_rows_with_a_vector_and_no_number_are_numbered() {
        let fields = with_vector(4);
        assert_eq!(row_ids(&DataType::U64, &fields), RowIds::Key);
        assert_eq!(row_ids(&DataType::I8, &fields), RowIds::Key);
        assert_eq!(row_ids(&DataType::U128, &fields), RowIds::Hidden);
        assert_eq!(row_ids(&DataType::String, &fields), RowIds::Hidden);
        assert_eq!(row_ids(&DataType::String, &fields[..1]), RowIds::Key);
    }
}
