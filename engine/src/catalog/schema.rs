//! The schema of a table: types of key and value, fields of a record; stored, declared, compared.
//!
//! A schema is declared by the types of a `TableDef`, stored in the catalog when the table is
//! created, and compared at every open. What rows mean is fixed by the stored schema; the code
//! may add fields that old rows lack, and rename what it likes.
//!
//! ```text
//! version u8 = 1 | key type | 0, value type
//!                           | 1, fields varint, field ..
//! field = id varint | name | type | flags u8 | default, if flag 8 | metric u8, dim varint, if 16
//! name, default = length varint, bytes
//! ```
//!
//! Invariants:
//! - G1: a schema has one encoding, so equal schemas are equal bytes.
//! - G2: every schema in memory is valid: ids rise from 1, types exist, a default is a value of
//!   its field, flags do not contradict each other. Decoding and declaring both check it.
//! - G3: an open never changes the meaning of a stored byte: [`check`] allows what old rows
//!   survive and nothing else.

use std::fmt;

use crate::codec::vector::{Metric, VectorDef};
use crate::codec::{DataType, FieldDef, Key, Value, varint};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{
    MAX_DIMENSIONS, MAX_FIELD_ID, MAX_FIELD_NAME_BYTES, MAX_FIELDS, MAX_SCHEMA_BYTES,
    MAX_VALUE_BYTES,
};

/// The encoding that this code writes, and the highest that it reads.
pub const SCHEMA_VERSION: u8 = 1;

const UNIQUE: u8 = 1;
const INDEX: u8 = 2;
const FILTER: u8 = 4;
const DEFAULT: u8 = 8;
const VECTOR: u8 = 16;

/// The types of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// Type of the keys.
    pub key: DataType,
    /// Type of the values.
    pub value: ValueSchema,
}

/// The type of a table's values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueSchema {
    /// One value without fields.
    Plain(DataType),
    /// A record, its fields in rising id.
    Record(Vec<FieldSchema>),
}

/// A field of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldSchema {
    /// Its identity, 1 to `MAX_FIELD_ID`.
    pub id: u16,
    /// Its name when the schema was stored.
    pub name: String,
    /// Its type.
    pub data_type: DataType,
    /// Whether it has a unique index.
    pub unique: bool,
    /// Whether it has a secondary index.
    pub index: bool,
    /// Whether it is stored beside vector codes.
    pub filter: bool,
    /// The whole form of what rows without it read as.
    pub default: Option<Vec<u8>>,
    /// How it is searched.
    pub vector: Option<VectorDef>,
}

/// What a declared schema asks of a stored one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evolution {
    /// Nothing: they mean the same.
    Same,
    /// To be stored in its place, as a new version; rows stay as they are.
    Replace {
        /// Ids that are new; old rows read as the default.
        added: Vec<u16>,
        /// Ids whose name has changed.
        renamed: Vec<u16>,
    },
}

impl Schema {
    /// The schema that a table of these types declares.
    ///
    /// # Errors
    /// `Schema` when the types make none (G2).
    pub fn of<K: Key, V: Value>() -> Result<Schema> {
        let value = match V::value_type() {
            DataType::Record => {
                ValueSchema::Record(V::fields().iter().map(FieldSchema::of).collect())
            }
            plain => ValueSchema::Plain(plain),
        };
        let schema = Schema {
            key: K::key_type(),
            value,
        };
        schema.validate()?;
        Ok(schema)
    }

    /// The bytes of the catalog.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![SCHEMA_VERSION];
        self.key.encode(&mut out);
        match &self.value {
            ValueSchema::Plain(data_type) => {
                out.push(0);
                data_type.encode(&mut out);
            }
            ValueSchema::Record(fields) => {
                out.push(1);
                varint::write(fields.len() as u64, &mut out);
                fields.iter().for_each(|field| field.encode(&mut out));
            }
        }
        out
    }

    /// Reads the bytes of the catalog.
    ///
    /// # Errors
    /// `Version` when a newer version wrote them, `Corrupt` when they are cut or followed by
    /// others, `Schema` when they name what there is not or contradict themselves (G2).
    pub fn decode(bytes: &[u8]) -> Result<Schema> {
        let mut input = bytes;
        match byte(&mut input)? {
            SCHEMA_VERSION => {}
            0 => return Err(corrupt("a schema has no version")),
            newer => {
                return Err(
                    Error::new(ErrorKind::Version, "a newer version wrote this schema")
                        .with("expected", SCHEMA_VERSION)
                        .with("found", newer),
                );
            }
        }
        if bytes.len() > MAX_SCHEMA_BYTES {
            return Err(invalid("a schema is too long").with("bytes", bytes.len()));
        }
        let key = data_type(&mut input)?;
        let value = match byte(&mut input)? {
            0 => ValueSchema::Plain(data_type(&mut input)?),
            1 => {
                let count = number(&mut input, MAX_FIELDS as u64)?;
                let fields = (0..count).map(|_| FieldSchema::decode(&mut input));
                ValueSchema::Record(fields.collect::<Result<Vec<_>>>()?)
            }
            kind => return Err(invalid("an unknown kind of value").with("found", kind)),
        };
        if !input.is_empty() {
            return Err(corrupt("bytes are left after a schema").with("left_bytes", input.len()));
        }
        let schema = Schema { key, value };
        schema.validate()?;
        Ok(schema)
    }

    /// Whether the schema means something (G2).
    ///
    /// # Errors
    /// `Schema`, naming the field.
    pub fn validate(&self) -> Result<()> {
        check_type(&self.key)?;
        if !self.key.is_key() {
            return Err(invalid("a type cannot be a key").with("type", &self.key));
        }
        let fields = match &self.value {
            ValueSchema::Plain(plain) if plain.has_record() => {
                return Err(invalid("a record stands inside of another type").with("type", plain));
            }
            ValueSchema::Plain(plain) => return check_type(plain),
            ValueSchema::Record(fields) => fields,
        };
        if fields.is_empty() || fields.len() > MAX_FIELDS {
            return Err(invalid("a record has no fields, or too many")
                .with("fields", fields.len())
                .with("limit", MAX_FIELDS));
        }
        let mut last = 0;
        for field in fields {
            if field.id <= last {
                return Err(field.invalid(if field.id == 0 {
                    "id 0 belongs to the hidden columns"
                } else {
                    "the ids of the fields do not rise, or one stands twice"
                }));
            }
            last = field.id;
            field.validate()?;
        }
        Ok(())
    }

    /// The fields of a record; none for a plain value.
    #[must_use]
    pub fn fields(&self) -> &[FieldSchema] {
        match &self.value {
            ValueSchema::Plain(_) => &[],
            ValueSchema::Record(fields) => fields,
        }
    }

    /// Whether `value` is what a row of this table can hold, by the stored schema alone.
    ///
    /// # Errors
    /// `Codec` when it is not.
    pub fn check_value(&self, value: &[u8]) -> Result<()> {
        match &self.value {
            ValueSchema::Plain(plain) => plain.check_value(value),
            ValueSchema::Record(fields) => super::rows::check_record(fields, value),
        }
    }
}

impl FieldSchema {
    /// The field as the code declares it.
    fn of(def: &FieldDef) -> FieldSchema {
        FieldSchema {
            id: def.id,
            name: def.name.to_owned(),
            data_type: (def.data_type)(),
            unique: def.unique,
            index: def.index,
            filter: def.filter,
            default: def.default.map(|write| {
                let mut whole = Vec::new();
                write(&mut whole);
                whole
            }),
            vector: def.vector,
        }
    }

    /// Whether rows may lack the field.
    #[must_use]
    pub fn may_be_missing(&self) -> bool {
        self.default.is_some() || matches!(self.data_type, DataType::Option(_))
    }

    fn flags(&self) -> u8 {
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        flag(self.unique, UNIQUE)
            | flag(self.index, INDEX)
            | flag(self.filter, FILTER)
            | flag(self.default.is_some(), DEFAULT)
            | flag(self.vector.is_some(), VECTOR)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        varint::write(u64::from(self.id), out);
        write_bytes(self.name.as_bytes(), out);
        self.data_type.encode(out);
        out.push(self.flags());
        if let Some(default) = &self.default {
            write_bytes(default, out);
        }
        if let Some(vector) = &self.vector {
            out.push(vector.metric.code());
            varint::write(u64::from(vector.dim), out);
        }
    }

    fn decode(input: &mut &[u8]) -> Result<FieldSchema> {
        let id = number(input, u64::from(MAX_FIELD_ID))? as u16;
        let name = bytes(input, MAX_FIELD_NAME_BYTES)?.to_vec();
        let name = String::from_utf8(name)
            .map_err(|error| corrupt("a field's name is not UTF-8").caused_by(error))?;
        let data_type = data_type(input)?;
        let flags = byte(input)?;
        if flags & !(UNIQUE | INDEX | FILTER | DEFAULT | VECTOR) != 0 {
            return Err(invalid("unknown flags of a field")
                .with("id", id)
                .with("found", flags));
        }
        let default = (flags & DEFAULT != 0).then(|| bytes(input, MAX_VALUE_BYTES));
        let default = default.transpose()?.map(<[u8]>::to_vec);
        let vector = (flags & VECTOR != 0).then(|| -> Result<VectorDef> {
            let metric = Metric::from_code(byte(input)?)
                .map_err(|cause| invalid("an unknown metric").with("id", id).caused_by(cause))?;
            Ok(VectorDef {
                metric,
                dim: number(input, u64::from(MAX_DIMENSIONS))? as u32,
            })
        });
        let (unique, index) = (flags & UNIQUE != 0, flags & INDEX != 0);
        let (filter, vector) = (flags & FILTER != 0, vector.transpose()?);
        Ok(FieldSchema {
            id,
            name,
            data_type,
            unique,
            index,
            filter,
            default,
            vector,
        })
    }

    fn validate(&self) -> Result<()> {
        if self.id > MAX_FIELD_ID {
            return Err(self
                .invalid("an id is above its limit")
                .with("limit", MAX_FIELD_ID));
        }
        if self.name.is_empty() || self.name.len() > MAX_FIELD_NAME_BYTES {
            return Err(self.invalid("a field's name is empty or too long"));
        }
        check_type(&self.data_type)?;
        if self.data_type.has_record() {
            return Err(self.invalid("a record does not nest"));
        }
        if self.unique && self.index {
            return Err(self.invalid("a unique field is an index already"));
        }
        if (self.unique || self.index || self.filter) && !self.data_type.is_key() {
            return Err(self
                .invalid("a type has no order")
                .with("type", &self.data_type));
        }
        if let Some(vector) = &self.vector {
            let found = match &self.data_type {
                DataType::Vector(dim) => Some(*dim),
                DataType::Option(inner) => match **inner {
                    DataType::Vector(dim) => Some(dim),
                    _ => None,
                },
                _ => None,
            };
            let fits = found.is_some_and(|dim| dim == 0 || dim == vector.dim);
            if !fits || vector.dim == 0 || vector.dim > MAX_DIMENSIONS {
                return Err(self
                    .invalid("a metric stands at no vector of its dimension")
                    .with("type", &self.data_type)
                    .with("dim", vector.dim));
            }
        }
        self.default.as_ref().map_or(Ok(()), |default| {
            if matches!(self.data_type, DataType::Option(_)) {
                return Err(self.invalid("the default of an option is `None`, and not stored"));
            }
            self.data_type.check_value(default).map_err(|cause| {
                self.invalid("a default is no value of its field")
                    .with("type", &self.data_type)
                    .caused_by(cause)
            })
        })
    }

    fn invalid(&self, what: &'static str) -> Error {
        invalid(what).with("field", &self.name).with("id", self.id)
    }
}

/// Compares the schema that is stored with the one that the code declares.
///
/// # Errors
/// `Schema`, naming both sides, unless they are the same but for names and for added fields that
/// old rows may lack. An added field cannot be unique or indexed: its index would have to be built.
pub fn check(stored: &Schema, declared: &Schema) -> Result<Evolution> {
    if stored.key != declared.key {
        return Err(differ(
            "the key has another type",
            &stored.key,
            &declared.key,
        ));
    }
    let (old, new) = match (&stored.value, &declared.value) {
        (ValueSchema::Record(old), ValueSchema::Record(new)) => (old, new),
        (ValueSchema::Plain(old), ValueSchema::Plain(new)) if old == new => {
            return Ok(Evolution::Same);
        }
        (old, new) => return Err(differ("the value has another type", old, new)),
    };
    let (mut added, mut renamed) = (Vec::new(), Vec::new());
    let mut before = old.iter().peekable();
    for field in new {
        match before.next_if(|old| old.id <= field.id) {
            Some(old) if old.id == field.id => {
                let same_but_name = FieldSchema {
                    name: field.name.clone(),
                    ..old.clone()
                };
                if same_but_name != *field {
                    return Err(differ("a field is declared otherwise", old, field));
                }
                if old.name != field.name {
                    renamed.push(field.id);
                }
            }
            Some(gone) => return Err(differ("a field is no longer declared", gone, &"nothing")),
            None if !field.may_be_missing() => {
                return Err(differ("an added field has no default", &"nothing", field));
            }
            None if field.unique || field.index => {
                return Err(differ("an added field has an index", &"nothing", field));
            }
            None => added.push(field.id),
        }
    }
    if let Some(gone) = before.next() {
        return Err(differ("a field is no longer declared", gone, &"nothing"));
    }
    if added.is_empty() && renamed.is_empty() {
        return Ok(Evolution::Same);
    }
    Ok(Evolution::Replace { added, renamed })
}

fn differ(what: &'static str, stored: &dyn fmt::Display, declared: &dyn fmt::Display) -> Error {
    invalid(what)
        .with("stored", stored)
        .with("declared", declared)
}

impl fmt::Display for ValueSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueSchema::Plain(data_type) => data_type.fmt(f),
            ValueSchema::Record(fields) => {
                f.write_str("record {")?;
                for (i, field) in fields.iter().enumerate() {
                    write!(
                        f,
                        "{}{}: {}",
                        if i == 0 { " " } else { ", " },
                        field.name,
                        field.data_type
                    )?;
                }
                f.write_str(" }")
            }
        }
    }
}

/// `email: String #1 unique`
impl fmt::Display for FieldSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} #{}", self.name, self.data_type, self.id)?;
        for (on, word) in [
            (self.unique, "unique"),
            (self.index, "index"),
            (self.filter, "filter"),
        ] {
            if on {
                write!(f, " {word}")?;
            }
        }
        if let Some(default) = &self.default {
            write!(f, " default {}", default.escape_ascii())?;
        }
        if let Some(VectorDef { metric, dim }) = &self.vector {
            write!(f, " vector({}, {dim})", metric.name())?;
        }
        Ok(())
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.key, self.value)
    }
}

/// Types nest no deeper than they can be read back.
fn check_type(data_type: &DataType) -> Result<()> {
    let mut bytes = Vec::new();
    data_type.encode(&mut bytes);
    let back = DataType::decode(&mut bytes.as_slice())?;
    debug_assert_eq!(back, *data_type);
    Ok(())
}

fn invalid(what: &'static str) -> Error {
    Error::new(ErrorKind::Schema, what)
}

fn corrupt(what: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, what)
}

/// What the codec calls malformed is, in the catalog, corrupt.
fn in_catalog(error: Error) -> Error {
    if error.kind() == ErrorKind::Codec {
        return corrupt("a schema's bytes are malformed").caused_by(error);
    }
    error
}

fn byte(input: &mut &[u8]) -> Result<u8> {
    let (&byte, rest) = input
        .split_first()
        .ok_or_else(|| corrupt("a schema is cut"))?;
    *input = rest;
    Ok(byte)
}

fn number(input: &mut &[u8], limit: u64) -> Result<u64> {
    let number = varint::read(input).map_err(in_catalog)?;
    if number <= limit {
        return Ok(number);
    }
    Err(invalid("a number of a schema is out of range")
        .with("found", number)
        .with("limit", limit))
}

fn bytes<'a>(input: &mut &'a [u8], limit: usize) -> Result<&'a [u8]> {
    let len = number(input, limit as u64)? as usize;
    let (bytes, rest) = input
        .split_at_checked(len)
        .ok_or_else(|| corrupt("a schema is cut"))?;
    *input = rest;
    Ok(bytes)
}

fn data_type(input: &mut &[u8]) -> Result<DataType> {
    DataType::decode(input).map_err(in_catalog)
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    varint::write(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}
