//! The catalog: which tables exist, which trees hold them, and under which schema.
//!
//! Rows of tree 2 (tables) and tree 3 (counters), changed only by DDL transactions.

mod rows;
pub mod schema;

use terrane_wal::lsn::TreeId;

/// How the rows of a table are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowIds {
    /// The key is an integer of at most 64 bits and its own row id.
    Key,
    /// A hidden number from [`crate::database::Database::next_row_id`].
    Hidden,
}

/// An index that a table is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexSpec {
    /// Field id of the record.
    pub(crate) field: u32,
    /// True if no two rows may hold one value.
    pub(crate) unique: bool,
}

/// A table as the program declares it.
#[derive(Clone, Debug)]
pub(crate) struct TableSpec {
    /// Page size class of the table's own tree: pages of 4096 << class bytes.
    pub(crate) class: u8,
    /// Row numbering.
    pub(crate) row_ids: RowIds,
    /// Indexes, by rising field id.
    pub(crate) indexes: Vec<IndexSpec>,
    /// The schema's encoding, kept in the catalog row.
    pub(crate) schema: Vec<u8>,
}

/// An index as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexInfo {
    /// Field id of the record.
    pub(crate) field: u32,
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
    /// Page size class.
    pub(crate) class: u8,
    /// Schema version: what `put_raw` wants as `schema`.
    pub(crate) schema_version: u32,
    /// Row numbering.
    pub(crate) row_ids: RowIds,
    /// Indexes, by rising field id.
    pub(crate) indexes: Vec<IndexInfo>,
    /// The schema's encoding.
    pub(crate) schema: Vec<u8>,
}

/// What comparing a stored schema with the declared one says, when it is not an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SchemaMatch {
    /// They agree.
    Same,
    /// The declared one adds what old rows read as defaults: it becomes the next schema version.
    Newer,
}
