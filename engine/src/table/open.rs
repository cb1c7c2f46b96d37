//! Opening a table: the definition against the catalog.
//!
//! A table that the catalog does not know is created with its indexes in one DDL transaction; one
//! that it knows is compared, and its schema replaced when the definition only adds what old rows
//! read as defaults (`catalog/schema.rs`, G3).

use terrane_btree::Class;

use crate::catalog::schema::Schema;
use crate::catalog::{RowIds, TableSpec};
use crate::codec::vector::VECTOR_HEADER_BYTES;
use crate::codec::{DataType, FieldDef, Key, Value};
use crate::database::Database;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::MAX_DIMENSIONS;
use crate::table::def::TableDef;
use crate::table::place::{self, Rooms};
use crate::table::{Shape, Table};
use crate::txn::retry;

/// Room that a record is given beside its vectors when the page size is chosen.
const ROOM_BESIDE_VECTORS_BYTES: usize = 256;

impl Database {
    /// Opens a table, creating it and its indexes if it does not exist. Keep the handle: opening
    /// asks the catalog.
    ///
    /// A definition may add fields that have a default or are options, and rename fields; the
    /// stored schema then becomes its own, and handles of the older one give `Schema` when they
    /// write. It cannot add an index to a table that exists.
    ///
    /// # Errors
    /// `Invalid` for a name that is empty, longer than 255 bytes, holds a NUL or begins with
    /// `terrane.`, or when the builder's page size is another than the table's; `Schema` when the
    /// stored types, fields or indexes are others, naming both sides, or when the declared ones
    /// contradict themselves; in a database of several shards `Invalid` for a unique field, which
    /// is not kept there yet; `ReadOnly` when the table is not there and cannot be made; those of a
    /// commit.
    pub fn table<K: Key, V: Value>(&self, def: TableDef<K, V>) -> Result<Table<K, V>> {
        check_dimensions(V::fields()).map_err(|error| error.with("table", def.name()))?;
        let schema = Schema::of::<K, V>().map_err(|error| error.with("table", def.name()))?;
        let fields = V::fields();
        let searched = fields
            .iter()
            .filter(|def| def.vector.is_some() && !def.exact);
        let vectors: Vec<u16> = searched.map(|def| def.id).collect();
        let open = |shard: u32| {
            let (info, home) = retry::at_leader(self, shard, |local| {
                let spec = TableSpec {
                    class: page_class(local.page_class(), fields),
                    row_ids: row_ids(&schema.key, fields),
                    vectors: &vectors,
                    schema: &schema,
                };
                Ok((local.open_table(def.name(), &spec)?, local.core().home))
            })?;
            Ok(Shape {
                info,
                home,
                fields,
                key_type: K::key_type,
            })
        };
        let map = self.spread().map(|(routes, _)| routes.map());
        if map.is_some() {
            place::check(def.name(), &schema.key, fields)?;
        }
        let shapes = (0..self.shards()).map(open).collect::<Result<_>>()?;
        Ok(Table::new(Rooms::new(map, shapes)?))
    }
}

/// Row 40 of the bad-input catalogue: what a derived record cannot say, one written by hand can.
fn check_dimensions(fields: &[FieldDef]) -> Result<()> {
    for def in fields {
        if let Some(vector) = &def.vector
            && !(1..=MAX_DIMENSIONS).contains(&vector.dim)
        {
            let error = Error::new(ErrorKind::Invalid, "a dimension is out of range");
            return Err(error
                .with("field", def.name)
                .with("given", vector.dim)
                .with("allowed", format!("1 to {MAX_DIMENSIONS}")));
        }
    }
    Ok(())
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

/// The smallest page of class `least` or above in which a row lies inline with its vectors: a
/// quarter of the page holds it.
fn page_class(least: Class, fields: &[FieldDef]) -> Class {
    let vectors = fields.iter().filter_map(|def| def.vector);
    let vector_bytes: usize = vectors
        .map(|vector| VECTOR_HEADER_BYTES + vector.dim as usize * size_of::<f32>())
        .sum();
    if vector_bytes == 0 {
        return least;
    }
    let row_bytes = vector_bytes + ROOM_BESIDE_VECTORS_BYTES;
    let holds = |class: &Class| *class >= least && row_bytes <= class.bytes() / 4;
    Class::ALL.into_iter().find(holds).unwrap_or(Class::K32)
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
        let (small, middle, large) = (Class::K8, Class::K16, Class::K32);
        assert_eq!(page_class(small, &[]), small);
        assert_eq!(page_class(middle, &[]), middle);
        assert_eq!(page_class(large, &with_vector(384)), large);
        for (dim, class) in [
            (1, small),
            (384, small),
            (768, middle),
            (1024, large),
            (1536, large),
            (16_000, large),
        ] {
            assert_eq!(page_class(small, &with_vector(dim)), class, "{dim}");
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
