//! `numeric_static_map`: numbers that a table places by hand, the others by themselves or a hash.
//!
//! Parameters: `json`, an object such as `{"1": 2, "3": 4}` from numbers to the numbers that take
//! their place as eight bytes, the highest first; `fallback_type`, a vindex of one column for
//! numbers that are not in the table (without it they are placed as `numeric` does). A value that
//! is no number has no place, whatever the fallback. `json_path` is refused: this crate opens no
//! file, so whoever has a path reads the file and gives its text.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::Vindex;
use super::column::{Column, Raw};
use super::error::VindexError;
use super::params::Params;
use super::value::{Value, parse_digits};
use crate::map::Destination;

/// The vindex `numeric_static_map`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticMap {
    table: BTreeMap<u64, u64>,
    fallback: Column,
}

impl StaticMap {
    /// The name that a schema knows it by.
    pub const NAME: &'static str = "numeric_static_map";

    /// Its parameters.
    pub(super) const PARAMS: [&'static str; 3] = ["json", "json_path", "fallback_type"];

    /// Builds it from its parameters.
    ///
    /// # Errors
    /// [`VindexError::ParamMissing`] without `json`, [`VindexError::ParamConflict`] with
    /// `json_path` beside it, [`VindexError::ParamValue`] for `json_path` alone, for a table that
    /// is not JSON, has a key twice or holds anything but whole numbers from 0 to 2^64 - 1, and for
    /// a fallback that is no vindex of one column; [`VindexError::UnknownParam`].
    pub fn new(params: &Params<'_>) -> Result<StaticMap, VindexError> {
        params.accept(&StaticMap::PARAMS)?;
        let json = match (params.get("json"), params.get("json_path")) {
            (Some(json), None) => json,
            (Some(_), Some(_)) => {
                return Err(VindexError::ParamConflict {
                    vindex: params.kind().to_owned(),
                    first: "json",
                    second: "json_path",
                });
            }
            (None, Some(path)) => {
                let expected = "the text of the file in `json` (no file is opened here)";
                return Err(params.bad("json_path", expected, path));
            }
            (None, None) => {
                return Err(params.missing("json", "an object of numbers, as in {\"1\": 2}"));
            }
        };
        let table = parse_table(json).map_err(|error| {
            let expected = "a JSON object of whole numbers, as in {\"1\": 2}";
            params.fault("json", expected, error.to_string())
        })?;
        let fallback = match params.get("fallback_type") {
            None => Column::Numeric,
            Some(name) => match Column::named(name) {
                Some(column) if column != Column::Null => column,
                _ => {
                    let expected = "xxhash, hash, numeric, binary, binary_md5 or reverse_bits";
                    return Err(params.bad("fallback_type", expected, name));
                }
            },
        };
        Ok(StaticMap { table, fallback })
    }

    /// The bytes of a value; none where it is no number.
    pub(super) fn raw(&self, value: &Value<'_>) -> Option<Raw> {
        match self.table.get(&value.to_number()?) {
            Some(place) => Some(Raw::Word(*place)),
            None => self.fallback.raw(value),
        }
    }
}

impl Vindex for StaticMap {
    fn kind(&self) -> &str {
        StaticMap::NAME
    }

    fn cost(&self) -> u32 {
        1
    }

    fn map(&self, values: &[Value<'_>]) -> Result<Destination, VindexError> {
        let [value] = values else {
            return Err(VindexError::ColumnCount {
                vindex: StaticMap::NAME.to_owned(),
                expected: 1,
                found: values.len(),
            });
        };
        self.raw(value).map_or(Ok(Destination::None), |raw| {
            raw.into_destination(StaticMap::NAME)
        })
    }
}

/// Reads the table entry by entry, so that a key that stands twice is found.
fn parse_table(json: &str) -> Result<BTreeMap<u64, u64>, serde_json::Error> {
    struct Table;
    impl<'de> Visitor<'de> for Table {
        type Value = BTreeMap<u64, u64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of whole numbers")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut table = BTreeMap::new();
            while let Some((key, place)) = entries.next_entry::<String, u64>()? {
                let number = parse_digits(key.as_bytes())
                    .ok_or_else(|| A::Error::custom(format_args!("key {key:?} is no number")))?;
                if table.insert(number, place).is_some() {
                    return Err(A::Error::custom(format_args!("key {number} stands twice")));
                }
            }
            Ok(table)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(json);
    let table = reader.deserialize_map(Table)?;
    reader.end()?;
    Ok(table)
}
