//! What a vector index reads of its table's rows: row id, vector, filter columns.
//!
//! By the stored schema alone, without the types of the program, since maintenance reads rows when
//! no handle is open.
//!
//! Columns: for every `filter` field, in rising id, `id varint, length u8, part form of the key`.
//! What does not fit into 255 bytes is not stored beside the code; the row is asked then.

use terrane_vector::RowId;
use terrane_wal::lsn::TreeId;

use crate::catalog::schema::FieldSchema;
use crate::catalog::{RowIds, TableInfo};
use crate::codec::hidden::Hidden;
use crate::codec::record::find_field;
use crate::codec::vector::VectorView;
use crate::codec::{DataType, varint};
use crate::error::{Error, ErrorKind, Result};

/// Bytes of the columns of one entry at most.
const COLUMNS_BYTES_MAX: usize = 255;

/// The table of an index, as its rows are read.
#[derive(Debug)]
pub(crate) struct Source {
    /// The table's name, for errors.
    pub(crate) name: String,
    /// The tree of its rows.
    pub(crate) tree: TreeId,
    /// Bytes of an integer key that is its own row id; None: row ids are hidden columns.
    key_bytes: Option<usize>,
    /// Fields that are stored beside codes, by rising id.
    filters: Vec<FieldSchema>,
}

impl Source {
    /// The source of this table.
    pub(crate) fn of(table: &TableInfo) -> Source {
        let key_bytes = match (table.row_ids, &table.schema.key) {
            (RowIds::Hidden, _) => None,
            (_, DataType::U8 | DataType::I8) => Some(1),
            (_, DataType::U16 | DataType::I16) => Some(2),
            (_, DataType::U32 | DataType::I32) => Some(4),
            (_, _) => Some(8),
        };
        let filters = table.schema.fields().iter().filter(|field| field.filter);
        Source {
            name: table.name.clone(),
            tree: table.tree,
            key_bytes,
            filters: filters.cloned().collect(),
        }
    }

    /// Whether the key does not follow from the row id, so that the index has to store it.
    pub(crate) fn has_hidden_ids(&self) -> bool {
        self.key_bytes.is_none()
    }

    /// The row id of the row `key`, `record`.
    ///
    /// # Errors
    /// `Codec` when a numbered record has no number; `Corrupt` for a key that is no integer.
    pub(crate) fn row_id(&self, key: &[u8], record: &[u8]) -> Result<RowId> {
        match self.key_bytes {
            Some(len) if key.len() == len => {
                let id = key.iter().fold(0, |id, byte| id << 8 | u64::from(*byte));
                Ok(RowId(id))
            }
            Some(len) => Err(self.corrupt(format!("a key of {len} bytes"), key.len())),
            None => match Hidden::read(record)?.row_id {
                Some(id) => Ok(RowId(id)),
                None => Err(self.corrupt("a numbered row", "none")),
            },
        }
    }

    /// The key of a row of a table whose keys are row ids.
    pub(crate) fn key_of(&self, row: RowId) -> Option<Vec<u8>> {
        let len = self.key_bytes?;
        Some(row.0.to_be_bytes()[8 - len..].to_vec())
    }

    /// Appends the columns of a record to `out`; false, and nothing, when they are too long.
    ///
    /// # Errors
    /// `Codec` when the bytes are no record.
    pub(crate) fn columns(&self, record: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        let start = out.len();
        let mut part = Vec::new();
        for field in &self.filters {
            part.clear();
            let stored = find_field(record, field.id)?.map(|raw| raw.whole);
            let whole = stored.or(field.default.as_deref());
            field.data_type.write_part_of_field(whole, &mut part)?;
            let Ok(len) = u8::try_from(part.len()) else {
                out.truncate(start);
                return Ok(false);
            };
            varint::write(u64::from(field.id), out);
            out.push(len);
            out.extend_from_slice(&part);
        }
        if out.len() - start > COLUMNS_BYTES_MAX {
            out.truncate(start);
            return Ok(false);
        }
        Ok(true)
    }

    fn corrupt(&self, expected: impl std::fmt::Display, found: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Corrupt, "a row cannot be numbered")
            .with("table", &self.name)
            .with("expected", expected)
            .with("found", found)
    }
}

/// The part form of a field in the columns of an entry; None if they do not have it.
pub(crate) fn column(columns: &[u8], id: u16) -> Option<&[u8]> {
    let mut rest = columns;
    while !rest.is_empty() {
        let found = varint::read(&mut rest).ok()?;
        let (len, after) = rest.split_first()?;
        let (part, after) = after.split_at_checked(usize::from(*len))?;
        if found == u64::from(id) {
            return Some(part);
        }
        rest = after;
    }
    None
}

/// The vector in a field of a record, or the field's default.
///
/// # Errors
/// `Codec` when the bytes are no record or the field is no vector.
pub(crate) fn vector<'a>(
    field: &'a FieldSchema,
    record: &'a [u8],
) -> Result<Option<VectorView<'a>>> {
    match find_field(record, field.id)? {
        Some(raw) => VectorView::of_field(&raw).map(Some),
        None => field
            .default
            .as_deref()
            .map(VectorView::of_whole)
            .transpose(),
    }
}
