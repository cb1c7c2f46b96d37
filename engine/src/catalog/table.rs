//! One table as it is declared and as it is stored, and its catalog row (guide/format.md).

use terrane_btree::Class;
use terrane_wal::lsn::TreeId;
use terrane_wal::varint::{put_varint, take_varint};
use terrane_wal::{DdlKind, DdlOp};

use crate::catalog::schema::{Evolution, FieldSchema, Schema, check};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::Core;

const VERSION: u8 = 1;

/// How the rows of a table are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowIds {
    /// The key is an integer of at most 64 bits and its own row id.
    Key,
    /// A hidden number from [`crate::Database::next_row_id`].
    Hidden,
}

/// A table as the program declares it. Its indexes follow from the schema's fields.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableSpec<'a> {
    /// Page size class of the table's own tree, for a table that does not exist yet.
    pub(crate) class: Class,
    /// Row numbering, for a table that does not exist yet.
    pub(crate) row_ids: RowIds,
    /// The schema.
    pub(crate) schema: &'a Schema,
}

/// An index as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexInfo {
    /// Field id of the record.
    pub(crate) field: u16,
    /// True if no two rows may hold one value.
    pub(crate) unique: bool,
    /// The tree of its rows.
    pub(crate) tree: TreeId,
}

/// A table as it is stored. Shared: every handle of one schema version holds the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableInfo {
    /// Its name.
    pub(crate) name: String,
    /// The tree of its rows.
    pub(crate) tree: TreeId,
    /// Page size class of that tree.
    pub(crate) class: Class,
    /// Schema version: what `put_raw` wants as `schema`, for index rows too.
    pub(crate) schema_version: u32,
    /// Row numbering.
    pub(crate) row_ids: RowIds,
    /// Indexes, by rising field id.
    pub(crate) indexes: Vec<IndexInfo>,
    /// The schema.
    pub(crate) schema: Schema,
}

/// A tree that is made or dropped by a commit.
#[derive(Clone, Debug)]
pub(crate) struct TreeOp {
    kind: DdlKind,
    tree: TreeId,
    class: Class,
    name: String,
}

impl TreeOp {
    /// The log record.
    pub(crate) fn record(&self) -> DdlOp<'_> {
        DdlOp {
            kind: self.kind,
            class: self.class.number(),
            tree: self.tree,
            name: &self.name,
            options: &[],
        }
    }

    /// Makes the tree before the commit has its place, where it can still fail softly (X2). A tree
    /// that no catalog row names is dropped at open.
    pub(crate) fn prepare(&self, core: &Core) -> Result<()> {
        if self.kind == DdlKind::CreateTree {
            let tree = core.store.create_tree(self.tree, self.class)?;
            core.trees.set(self.tree, tree)?;
        }
        Ok(())
    }
}

impl TableInfo {
    /// A new table, its trees numbered from `first` on.
    pub(super) fn new(name: &str, spec: &TableSpec<'_>, first: TreeId) -> TableInfo {
        let indexed = |field: &&FieldSchema| field.unique || field.index;
        let fields = spec.schema.fields().iter().filter(indexed);
        let numbers = first.0 + 1..;
        let indexes = fields.zip(numbers).map(|(field, tree)| IndexInfo {
            field: field.id,
            unique: field.unique,
            tree: TreeId(tree),
        });
        TableInfo {
            name: name.to_owned(),
            tree: first,
            class: spec.class,
            schema_version: 1,
            row_ids: spec.row_ids,
            indexes: indexes.collect(),
            schema: spec.schema.clone(),
        }
    }

    /// The next version of the table, under a schema that [`check`] has allowed.
    pub(super) fn with_schema(&self, schema: &Schema) -> TableInfo {
        let (schema, schema_version) = (schema.clone(), self.schema_version + 1);
        TableInfo {
            schema,
            schema_version,
            ..self.clone()
        }
    }

    /// Compares what is stored with what is declared.
    pub(super) fn matches(&self, spec: &TableSpec<'_>) -> Result<Evolution> {
        check(&self.schema, spec.schema).map_err(|error| error.with("table", &self.name))
    }

    /// The table's tree and those of its indexes.
    pub(crate) fn trees(&self) -> impl Iterator<Item = TreeId> {
        std::iter::once(self.tree).chain(self.indexes.iter().map(|index| index.tree))
    }

    /// What makes the trees. Index rows are small: their pages have the default size.
    pub(super) fn tree_ops(&self) -> Vec<TreeOp> {
        let op = |tree: TreeId, class: Class, name: String| TreeOp {
            kind: DdlKind::CreateTree,
            tree,
            class,
            name,
        };
        let own = op(self.tree, self.class, self.name.clone());
        let index = |index: &IndexInfo| {
            op(
                index.tree,
                Class::K8,
                format!("{}.{}", self.name, index.field),
            )
        };
        std::iter::once(own)
            .chain(self.indexes.iter().map(index))
            .collect()
    }

    /// The value of the catalog row.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut row = vec![VERSION, 0, self.class.number(), 0];
        row.extend(self.tree.0.to_le_bytes());
        row.extend(self.schema_version.to_le_bytes());
        row.push(u8::from(self.row_ids == RowIds::Hidden));
        put_varint(&mut row, self.indexes.len() as u64);
        for index in &self.indexes {
            put_varint(&mut row, u64::from(index.field));
            row.push(if index.unique { 2 } else { 1 });
            row.extend(index.tree.0.to_le_bytes());
        }
        row.extend(self.schema.encode());
        row
    }

    /// Reads a catalog row.
    pub(super) fn decode(key: &[u8], row: &[u8]) -> Result<TableInfo> {
        let Ok(name) = std::str::from_utf8(key) else {
            return Err(corrupt("a table's name in UTF-8", "other bytes"));
        };
        let decoded = decode_row(name, row);
        decoded.map_err(|error| error.with("table", name.escape_debug()))
    }
}

fn decode_row(name: &str, row: &[u8]) -> Result<TableInfo> {
    let Some((head, rest)) = row.split_first_chunk::<13>() else {
        return Err(corrupt("13 bytes or more", row.len()));
    };
    let [version, state, class, _, tree @ .., row_ids] = head;
    if *version != VERSION {
        let error = Error::new(ErrorKind::Version, "a catalog row of another version");
        return Err(error.with("expected", VERSION).with("found", version));
    }
    let Some(class) = Class::new(*class) else {
        return Err(corrupt("page size class 1, 2 or 3", class));
    };
    let row_ids = match (state, row_ids) {
        (0, 0) => RowIds::Key,
        (0, 1) => RowIds::Hidden,
        _ => {
            return Err(corrupt(
                "state 0 and row ids 0 or 1",
                format!("{state}, {row_ids}"),
            ));
        }
    };
    let (tree, schema_version) = (word(&tree[..4]), word(&tree[4..]));
    let (n_index, mut rest) = take_varint(rest)?;
    let mut indexes = Vec::new();
    for _ in 0..n_index {
        let (field, after) = take_varint(rest)?;
        let Some((index, after)) = after.split_first_chunk::<5>() else {
            return Err(corrupt("an index of 5 bytes or more", after.len()));
        };
        let (Ok(field), kind @ (1 | 2)) = (u16::try_from(field), index[0]) else {
            return Err(corrupt(
                "a field id and kind 1 or 2",
                format!("{field}, {}", index[0]),
            ));
        };
        indexes.push(IndexInfo {
            field,
            unique: kind == 2,
            tree: TreeId(word(&index[1..])),
        });
        rest = after;
    }
    Ok(TableInfo {
        name: name.to_owned(),
        tree: TreeId(tree),
        class,
        schema_version,
        row_ids,
        indexes,
        schema: Schema::decode(rest)?,
    })
}

/// A little-endian number of at most four bytes.
fn word(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, byte| word << 8 | u32::from(*byte))
}

fn corrupt(expected: impl std::fmt::Display, found: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, "a catalog row fails its check")
        .with("structure", "catalog")
        .with("expected", expected)
        .with("found", found)
}
