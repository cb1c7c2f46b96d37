//! The name of a type in a stored schema.
//!
//! Every key and value type says its [`DataType`]; the schema stores it, and a table opened with
//! another is refused with both names (`catalog/schema.rs`).
//!
//! Invariants:
//! - D1: codes are never reused; code 0 is no type, so zeroed bytes never name one.
//! - D2: types nest at most [`MAX_TYPE_DEPTH`] deep and a tuple has at most 8 parts, so that
//!   decoding is bounded.

use std::fmt;

use super::{malformed, varint};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{MAX_DIMENSIONS, MAX_TUPLE_PARTS, MAX_TYPE_DEPTH, MAX_TYPE_NAME_BYTES};

/// A type as a schema names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DataType {
    /// `()`
    Unit,
    /// `bool`
    Bool,
    /// `char`
    Char,
    /// `u8`
    U8,
    /// `u16`
    U16,
    /// `u32`
    U32,
    /// `u64`
    U64,
    /// `u128`
    U128,
    /// `i8`
    I8,
    /// `i16`
    I16,
    /// `i32`
    I32,
    /// `i64`
    I64,
    /// `i128`
    I128,
    /// `f32`
    F32,
    /// `f64`
    F64,
    /// `String`
    String,
    /// `Vec<u8>`
    Bytes,
    /// `[u8; N]`
    FixedBytes(u32),
    /// `Option<T>`
    Option(Box<DataType>),
    /// `Desc<T>`, keys only
    Desc(Box<DataType>),
    /// `Vec<T>`, values only
    List(Box<DataType>),
    /// `(A, B, ..)`
    Tuple(Vec<DataType>),
    /// `Vector<D>`, or `DynVector` with 0, values only
    Vector(u32),
    /// A format of its own, by name; values only
    Custom(String),
    /// A record; its fields stand in the schema. Only as the value of a table.
    Record,
}

impl DataType {
    /// Appends code and parameters.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.code());
        match self {
            DataType::FixedBytes(len) => varint::write(u64::from(*len), out),
            DataType::Vector(dim) => varint::write(u64::from(*dim), out),
            DataType::Option(inner) | DataType::Desc(inner) | DataType::List(inner) => {
                inner.encode(out);
            }
            DataType::Tuple(parts) => {
                out.push(parts.len() as u8);
                parts.iter().for_each(|part| part.encode(out));
            }
            DataType::Custom(name) => {
                varint::write(name.len() as u64, out);
                out.extend_from_slice(name.as_bytes());
            }
            _ => {}
        }
    }

    /// Takes one type off the front of `input`.
    ///
    /// # Errors
    /// `Schema` for an unknown code or a parameter out of range, `Codec` for bytes that end early.
    pub fn decode(input: &mut &[u8]) -> Result<DataType> {
        DataType::decode_at(input, 0)
    }

    fn decode_at(input: &mut &[u8], depth: usize) -> Result<DataType> {
        if depth > MAX_TYPE_DEPTH {
            return Err(Error::new(ErrorKind::Schema, "a type nests too deep")
                .with("limit", MAX_TYPE_DEPTH)); // D2
        }
        let (&code, rest) = input
            .split_first()
            .ok_or_else(|| malformed("the bytes end inside a type"))?;
        *input = rest;
        let inner = |input: &mut &[u8]| DataType::decode_at(input, depth + 1).map(Box::new);
        Ok(match code {
            18 => DataType::FixedBytes(parameter(input, u32::MAX)?),
            19 => DataType::Option(inner(input)?),
            20 => DataType::Desc(inner(input)?),
            21 => DataType::List(inner(input)?),
            22 => {
                let (&n, rest) = input
                    .split_first()
                    .ok_or_else(|| malformed("the bytes end inside a type"))?;
                *input = rest;
                if n == 0 || usize::from(n) > MAX_TUPLE_PARTS {
                    return Err(
                        Error::new(ErrorKind::Schema, "a tuple has too few or many parts")
                            .with("parts", n)
                            .with("limit", MAX_TUPLE_PARTS),
                    );
                }
                let parts = (0..n).map(|_| DataType::decode_at(input, depth + 1));
                DataType::Tuple(parts.collect::<Result<Vec<_>>>()?)
            }
            23 => DataType::Vector(parameter(input, MAX_DIMENSIONS)?),
            24 => DataType::Custom(name(input)?),
            _ => SIMPLE
                .iter()
                .find(|simple| simple.code() == code)
                .cloned()
                .ok_or_else(|| {
                    Error::new(ErrorKind::Schema, "an unknown type code").with("code", code)
                })?,
        })
    }

    fn code(&self) -> u8 {
        match self {
            DataType::Unit => 1,
            DataType::Bool => 2,
            DataType::Char => 3,
            DataType::U8 => 4,
            DataType::U16 => 5,
            DataType::U32 => 6,
            DataType::U64 => 7,
            DataType::U128 => 8,
            DataType::I8 => 9,
            DataType::I16 => 10,
            DataType::I32 => 11,
            DataType::I64 => 12,
            DataType::I128 => 13,
            DataType::F32 => 14,
            DataType::F64 => 15,
            DataType::String => 16,
            DataType::Bytes => 17,
            DataType::FixedBytes(_) => 18,
            DataType::Option(_) => 19,
            DataType::Desc(_) => 20,
            DataType::List(_) => 21,
            DataType::Tuple(_) => 22,
            DataType::Vector(_) => 23,
            DataType::Custom(_) => 24,
            DataType::Record => 25,
        }
    }

    /// Whether the type can be a key.
    #[must_use]
    pub fn is_key(&self) -> bool {
        match self {
            DataType::List(_) | DataType::Vector(_) | DataType::Custom(_) | DataType::Record => {
                false
            }
            DataType::Option(inner) | DataType::Desc(inner) => inner.is_key(),
            DataType::Tuple(parts) => parts.iter().all(DataType::is_key),
            _ => true,
        }
    }

    /// Whether the type names a record anywhere, which only the value of a table itself may be.
    pub(crate) fn has_record(&self) -> bool {
        match self {
            DataType::Record => true,
            DataType::Option(inner) | DataType::Desc(inner) | DataType::List(inner) => {
                inner.has_record()
            }
            DataType::Tuple(parts) => parts.iter().any(DataType::has_record),
            _ => false,
        }
    }

    /// The row id that an encoded key of this type stands for: integers up to 64 bits are their
    /// own row id (by their order-preserving bits), every other key has none.
    ///
    /// # Errors
    /// `Codec` when an integer key has another width than its type.
    pub fn row_id(&self, key: &[u8]) -> Result<Option<u64>> {
        let width = match self {
            DataType::U8 | DataType::I8 => 1,
            DataType::U16 | DataType::I16 => 2,
            DataType::U32 | DataType::I32 => 4,
            DataType::U64 | DataType::I64 => 8,
            _ => return Ok(None),
        };
        if key.len() != width {
            return Err(malformed("an integer key has another width than its type")
                .with("type", self)
                .with("expected_bytes", width)
                .with("found_bytes", key.len()));
        }
        Ok(Some(
            key.iter().fold(0, |id, &byte| id << 8 | u64::from(byte)),
        ))
    }
}

/// The types without parameters.
const SIMPLE: [DataType; 18] = [
    DataType::Unit,
    DataType::Bool,
    DataType::Char,
    DataType::U8,
    DataType::U16,
    DataType::U32,
    DataType::U64,
    DataType::U128,
    DataType::I8,
    DataType::I16,
    DataType::I32,
    DataType::I64,
    DataType::I128,
    DataType::F32,
    DataType::F64,
    DataType::String,
    DataType::Bytes,
    DataType::Record,
];

fn parameter(input: &mut &[u8], limit: u32) -> Result<u32> {
    let number = varint::read(input)?;
    u32::try_from(number)
        .ok()
        .filter(|&number| number <= limit)
        .ok_or_else(|| {
            Error::new(ErrorKind::Schema, "a type's parameter is out of range")
                .with("found", number)
                .with("limit", limit)
        })
}

fn name(input: &mut &[u8]) -> Result<String> {
    let len = varint::read(input)?;
    let len = usize::try_from(len)
        .ok()
        .filter(|&len| len <= MAX_TYPE_NAME_BYTES && len > 0);
    let len = len.ok_or_else(|| {
        Error::new(ErrorKind::Schema, "a type's name is empty or too long")
            .with("limit_bytes", MAX_TYPE_NAME_BYTES)
    })?;
    let (bytes, rest) = input
        .split_at_checked(len)
        .ok_or_else(|| malformed("the bytes end inside a type"))?;
    *input = rest;
    let name = std::str::from_utf8(bytes);
    Ok(name
        .map_err(|error| malformed("a type's name is not UTF-8").caused_by(error))?
        .to_owned())
}

/// The type as it is written in Rust.
impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DataType::Unit => f.write_str("()"),
            DataType::Bytes => f.write_str("Vec<u8>"),
            DataType::String => f.write_str("String"),
            DataType::FixedBytes(len) => write!(f, "[u8; {len}]"),
            DataType::Option(inner) => write!(f, "Option<{inner}>"),
            DataType::Desc(inner) => write!(f, "Desc<{inner}>"),
            DataType::List(inner) => write!(f, "Vec<{inner}>"),
            DataType::Vector(0) => f.write_str("DynVector"),
            DataType::Vector(dim) => write!(f, "Vector<{dim}>"),
            DataType::Custom(name) => f.write_str(name),
            DataType::Record => f.write_str("record"),
            DataType::Tuple(parts) => {
                f.write_str("(")?;
                for (i, part) in parts.iter().enumerate() {
                    write!(f, "{}{part}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str(if parts.len() == 1 { ",)" } else { ")" })
            }
            simple => f.write_str(&format!("{simple:?}").to_lowercase()),
        }
    }
}
