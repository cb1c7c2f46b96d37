//! `multicol`: several columns, each giving the first bytes of its own id.
//!
//! Columns share eight bytes. A row of which only the first columns are known goes to the range of
//! ids that begin with theirs:
//!
//! ```text
//! column_count 3       3 bytes     3 bytes     2 bytes
//! (1, 1, 1)            16 6b 40    16 6b 40    16 6b       an id
//! (1, 1)               16 6b 40    16 6b 40                the range 166b40166b40-166b40166b41
//! ```
//!
//! Parameters: `column_count`, 1 to 8; `column_bytes`, how many bytes each column has, separated by
//! commas, an empty one or a missing one shares what is left (rounded up, earlier columns first);
//! `column_vindex`, the vindex of each column, `hash` where none is named; and the parameters of
//! these. A column whose id is shorter than its bytes is filled up with zeros, so that the next one
//! begins where it must. If one column has no place, the row has none.
//!
//! Ids are those of Vitess (`go/vt/vtgate/vindexes/multicol.go`). The range of known columns is at
//! times narrower: all bytes of the last of them count, the zeros too.
//!
//! Invariants:
//! - Q1: the bytes of all columns are 1 to 8 in sum, and each column has at least one.
//! - Q2: the id of a row is in the range of any number of its first columns.

use super::column::{Column, Raw};
use super::error::VindexError;
use super::params::Params;
use super::static_map::StaticMap;
use super::value::Value;
use super::{Vindex, begin_with};
use crate::limits::MULTICOL_COLUMNS_MAX;
use crate::map::{Destination, KeyspaceId};

/// Bytes that all columns share.
const BYTES: usize = size_of::<u64>();

const _: () = assert!(MULTICOL_COLUMNS_MAX <= BYTES);

/// The vindex of one column.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Column(Column),
    StaticMap(StaticMap),
}

impl Part {
    fn raw(&self, value: &Value<'_>) -> Option<Raw> {
        match self {
            Part::Column(column) => column.raw(value),
            Part::StaticMap(map) => map.raw(value),
        }
    }

    fn cost(&self) -> u32 {
        match self {
            Part::Column(column) => column.cost(),
            Part::StaticMap(map) => map.cost(),
        }
    }
}

/// The vindex `multicol`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Multicol {
    /// Each column's vindex and the bytes that it gives (Q1).
    parts: Vec<(Part, usize)>,
}

impl Multicol {
    /// The name that a schema knows it by.
    pub const NAME: &'static str = "multicol";

    const PARAMS: [&'static str; 3] = ["column_count", "column_bytes", "column_vindex"];

    /// Builds it from its parameters and those of its columns' vindexes.
    ///
    /// # Errors
    /// [`VindexError::ParamMissing`] without `column_count`; [`VindexError::ParamValue`] for a
    /// count outside of 1 to 8, for bytes that are no numbers, are 0 or are more than 8 in sum, for
    /// a list that is longer than the count, and for a column's vindex that is not of one column
    /// and hashing; [`VindexError::UnknownParam`] for a parameter that is neither its own nor one
    /// of its columns' vindexes; the errors of those.
    pub fn new(params: &Params<'_>) -> Result<Multicol, VindexError> {
        let count = column_count(params)?;
        let names = list(params, "column_vindex", count)?;
        let bytes = column_bytes(params, count)?;
        let has_map = names.contains(&StaticMap::NAME);
        let of_map: &[&str] = if has_map { &StaticMap::PARAMS } else { &[] };
        params.accept(&[&Multicol::PARAMS, of_map].concat())?;
        let part = |name: &&str| match *name {
            "" => Ok(Part::Column(Column::Hash)),
            StaticMap::NAME => {
                let params = params.part(StaticMap::NAME, &StaticMap::PARAMS);
                Ok(Part::StaticMap(StaticMap::new(&params)?))
            }
            name => match Column::named(name) {
                Some(column) if column != Column::Null => Ok(Part::Column(column)),
                _ => {
                    let expected = "vindexes of one column that hash: xxhash, hash, numeric, \
                                    binary, binary_md5, reverse_bits or numeric_static_map";
                    Err(params.bad("column_vindex", expected, name))
                }
            },
        };
        let parts = names.iter().map(part).collect::<Result<Vec<_>, _>>()?;
        let parts = parts.into_iter().zip(bytes).collect();
        Ok(Multicol { parts })
    }
}

fn column_count(params: &Params<'_>) -> Result<usize, VindexError> {
    let expected = "a number from 1 to 8";
    let Some(text) = params.get("column_count") else {
        return Err(params.missing("column_count", expected));
    };
    match text.parse() {
        Ok(count @ 1..=MULTICOL_COLUMNS_MAX) => Ok(count),
        _ => Err(params.bad("column_count", expected, text)),
    }
}

/// The entries of a list, one for each column, empty ones where it is too short.
fn list<'a>(
    params: &Params<'a>,
    param: &'static str,
    count: usize,
) -> Result<Vec<&'a str>, VindexError> {
    let text = params.get(param).unwrap_or("");
    let mut entries: Vec<&str> = text.split(',').map(str::trim).take(count + 1).collect();
    if entries.len() > count {
        let expected = format!("at most {count} entries, as `column_count` says");
        return Err(params.bad(param, &expected, text));
    }
    entries.resize(count, "");
    Ok(entries)
}

/// The bytes of each column (Q1).
fn column_bytes(params: &Params<'_>, count: usize) -> Result<Vec<usize>, VindexError> {
    let param = "column_bytes";
    let text = params.get(param).unwrap_or("");
    let mut given = Vec::with_capacity(count);
    for entry in list(params, param, count)? {
        given.push(match (entry, entry.parse()) {
            ("", _) => None,
            (_, Ok(bytes @ 1..=BYTES)) => Some(bytes),
            _ => return Err(params.bad(param, "numbers from 1 to 8", text)),
        });
    }
    let used: usize = given.iter().flatten().sum();
    let mut open = given.iter().filter(|bytes| bytes.is_none()).count();
    if used + open > BYTES {
        let expected = "at most 8 bytes in sum, and one for each column";
        return Err(params.bad(param, expected, text));
    }
    let mut left = BYTES - used;
    let share = |given: Option<usize>| {
        given.unwrap_or_else(|| {
            let share = left.div_ceil(open);
            left -= share;
            open -= 1;
            share
        })
    };
    Ok(given.into_iter().map(share).collect())
}

impl Vindex for Multicol {
    fn kind(&self) -> &str {
        Multicol::NAME
    }

    fn cost(&self) -> u32 {
        self.parts.iter().map(|(part, _)| part.cost()).sum()
    }

    fn columns(&self) -> usize {
        self.parts.len()
    }

    /// The id of a row, or the range of the ids that begin with its first columns.
    fn map(&self, values: &[Value<'_>]) -> Result<Destination, VindexError> {
        if values.len() > self.parts.len() {
            return Err(VindexError::ColumnCount {
                vindex: Multicol::NAME.to_owned(),
                expected: self.parts.len(),
                found: values.len(),
            });
        }
        let mut raw = Vec::with_capacity(BYTES);
        let mut width = 0;
        for (value, (part, bytes)) in values.iter().zip(&self.parts) {
            let Some(own) = part.raw(value) else {
                return Ok(Destination::None);
            };
            own.append_to(&mut raw, *bytes);
            width += bytes;
            raw.resize(width, 0);
        }
        debug_assert!(width <= BYTES, "Q1");
        if values.len() < self.parts.len() {
            return begin_with(Multicol::NAME, &raw);
        }
        let id = KeyspaceId::new(&raw).map_err(VindexError::id(Multicol::NAME))?;
        Ok(Destination::Id(id))
    }
}
