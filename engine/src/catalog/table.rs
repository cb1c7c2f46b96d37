//! One table as it is declared and as it is stored, and its catalog row (guide/format.md).

use terrane_btree::Class;
use terrane_wal::lsn::TreeId;
use terrane_wal::varint::{put_varint, take_varint};
use terrane_wal::{DdlKind, DdlOp};

use crate::catalog::schema::{Evolution, FieldSchema, Schema, check};
use crate::codec::vector::VectorDef;
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
    /// Fields that get a vector index, for a table that does not exist yet.
    pub(crate) vectors: &'a [u16],
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

/// A vector index as it is stored: what it is made with stands in its own meta record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VectorInfo {
    /// Field id of the record.
    pub(crate) field: u16,
    /// The tree of its records.
    pub(crate) tree: TreeId,
}

/// Kinds of indexes in a catalog row.
const SECONDARY: u8 = 1;
const UNIQUE: u8 = 2;
const VECTOR: u8 = 3;

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
    /// Secondary and unique indexes, by rising field id.
    pub(crate) indexes: Vec<IndexInfo>,
    /// Vector indexes, by rising field id.
    pub(crate) vectors: Vec<VectorInfo>,
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
        let fields = || spec.schema.fields().iter();
        let mut numbers = (first.0 + 1..).map(TreeId);
        let indexes = fields().filter(indexed).zip(&mut numbers);
        let indexes: Vec<IndexInfo> = indexes
            .map(|(field, tree)| IndexInfo {
                field: field.id,
                unique: field.unique,
                tree,
            })
            .collect();
        let searched = |field: &&FieldSchema| spec.vectors.contains(&field.id);
        let vectors = fields().filter(searched).zip(&mut numbers);
        let vectors: Vec<VectorInfo> = vectors
            .map(|(field, tree)| VectorInfo {
                field: field.id,
                tree,
            })
            .collect();
        TableInfo {
            name: name.to_owned(),
            tree: first,
            class: spec.class,
            schema_version: 1,
            row_ids: spec.row_ids,
            indexes,
            vectors,
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
        let indexes = self.indexes.iter().map(|index| index.tree);
        let vectors = self.vectors.iter().map(|index| index.tree);
        std::iter::once(self.tree).chain(indexes).chain(vectors)
    }

    /// What makes the trees. Rows of secondary indexes are small: their pages have the default
    /// size.
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
        let vectors = self.vectors.iter().map(|vector| self.vector_op(vector));
        std::iter::once(own)
            .chain(self.indexes.iter().map(index))
            .chain(vectors)
            .collect()
    }

    /// What makes the tree of a vector index: in pages where its blocks of codes lie inline.
    pub(super) fn vector_op(&self, vector: &VectorInfo) -> TreeOp {
        let dim = self.vector_def(vector).map_or(1, |def| def.dim as usize);
        let block_bytes = terrane_vector::largest_record_bytes(dim);
        let holds = |class: &Class| block_bytes <= class.bytes() / 4;
        TreeOp {
            kind: DdlKind::CreateTree,
            tree: vector.tree,
            class: Class::ALL.into_iter().find(holds).unwrap_or(Class::K32),
            name: format!("{}.{}", self.name, vector.field),
        }
    }

    /// Metric and dimension of an indexed field.
    pub(crate) fn vector_def(&self, vector: &VectorInfo) -> Option<VectorDef> {
        let mut fields = self.schema.fields().iter();
        fields.find(|field| field.id == vector.field)?.vector
    }

    /// The value of the catalog row.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut row = vec![VERSION, 0, self.class.number(), 0];
        row.extend(self.tree.0.to_le_bytes());
        row.extend(self.schema_version.to_le_bytes());
        row.push(u8::from(self.row_ids == RowIds::Hidden));
        put_varint(&mut row, (self.indexes.len() + self.vectors.len()) as u64);
        let mut put = |field: u16, kind: u8, tree: TreeId| {
            put_varint(&mut row, u64::from(field));
            row.push(kind);
            row.extend(tree.0.to_le_bytes());
        };
        for index in &self.indexes {
            let kind = if index.unique { UNIQUE } else { SECONDARY };
            put(index.field, kind, index.tree);
        }
        for vector in &self.vectors {
            put(vector.field, VECTOR, vector.tree);
        }
        row.extend(self.schema.encode());
        row
    }

    /// Reads a catalog row.
    pub(crate) fn decode(key: &[u8], row: &[u8]) -> Result<TableInfo> {
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
    let (mut indexes, mut vectors) = (Vec::new(), Vec::new());
    for _ in 0..n_index {
        let (field, after) = take_varint(rest)?;
        let Some((index, after)) = after.split_first_chunk::<5>() else {
            return Err(corrupt("an index of 5 bytes or more", after.len()));
        };
        let tree = TreeId(word(&index[1..]));
        match (u16::try_from(field), index[0]) {
            (Ok(field), kind @ (SECONDARY | UNIQUE)) => indexes.push(IndexInfo {
                field,
                unique: kind == UNIQUE,
                tree,
            }),
            (Ok(field), VECTOR) => vectors.push(VectorInfo { field, tree }),
            (_, kind) => {
                return Err(corrupt(
                    "a field id and kind 1, 2 or 3",
                    format!("{field}, {kind}"),
                ));
            }
        }
        rest = after;
    }
    let table = TableInfo {
        name: name.to_owned(),
        tree: TreeId(tree),
        class,
        schema_version,
        row_ids,
        indexes,
        vectors,
        schema: Schema::decode(rest)?,
    };
    for vector in &table.vectors {
        if table.vector_def(vector).is_none() {
            return Err(corrupt(
                "a vector field behind a vector index",
                vector.field,
            ));
        }
    }
    Ok(table)
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
