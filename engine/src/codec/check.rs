//! Whether bytes are a value of a stored type, without the Rust type.
//!
//! A check of a database, and of the defaults in a schema, has only the schema's names. What is
//! accepted here is exactly what [`Value::decode_value`](super::Value::decode_value) of the type
//! accepts; a property test holds the two together.

use super::key::text;
use super::value::Wire;
use super::vector::VectorView;
use super::{DataType, malformed, varint};
use crate::error::{Error, ErrorKind, Result};

impl DataType {
    /// How the payload of a value of this type says where it ends.
    #[must_use]
    pub fn wire(&self) -> Wire {
        match self {
            DataType::Bool
            | DataType::Char
            | DataType::U8
            | DataType::U16
            | DataType::U32
            | DataType::U64
            | DataType::I8
            | DataType::I16
            | DataType::I32
            | DataType::I64 => Wire::Varint,
            DataType::F32 => Wire::Fixed32,
            DataType::F64 => Wire::Fixed64,
            DataType::U128 | DataType::I128 => Wire::Fixed128,
            DataType::String | DataType::Bytes | DataType::FixedBytes(_) | DataType::Custom(_) => {
                Wire::Bytes
            }
            DataType::Unit
            | DataType::Option(_)
            | DataType::List(_)
            | DataType::Tuple(_)
            | DataType::Record => Wire::List,
            DataType::Desc(inner) => inner.wire(),
            DataType::Vector(_) => Wire::Vector,
        }
    }

    /// The wire type of a field of this type: that of an option is that of what it holds.
    #[must_use]
    pub fn field_wire(&self) -> Wire {
        match self {
            DataType::Option(inner) => inner.wire(),
            other => other.wire(),
        }
    }

    /// Whether `bytes` are the whole form of a value of this type.
    ///
    /// # Errors
    /// `Codec` when they are not; `Schema` for a record, whose fields the type does not say.
    pub fn check_value(&self, bytes: &[u8]) -> Result<()> {
        match self {
            DataType::Bool => at_most(bytes, 1),
            DataType::U8 => at_most(bytes, u64::from(u8::MAX)),
            DataType::U16 => at_most(bytes, u64::from(u16::MAX)),
            DataType::U32 => at_most(bytes, u64::from(u32::MAX)),
            // Zigzag fills the unsigned range of the same width.
            DataType::I8 => at_most(bytes, u64::from(u8::MAX)),
            DataType::I16 => at_most(bytes, u64::from(u16::MAX)),
            DataType::I32 => at_most(bytes, u64::from(u32::MAX)),
            DataType::U64 | DataType::I64 => at_most(bytes, u64::MAX),
            DataType::Char => {
                let scalar = u32::try_from(number(bytes)?).ok().and_then(char::from_u32);
                scalar.map(drop).ok_or_else(|| self.refuse(bytes))
            }
            DataType::F32 => self.width(bytes, 4),
            DataType::F64 => self.width(bytes, 8),
            DataType::U128 | DataType::I128 => self.width(bytes, 16),
            DataType::Unit => self.width(bytes, 0),
            DataType::FixedBytes(len) => self.width(bytes, *len as usize),
            DataType::String => text(bytes).map(drop),
            DataType::Bytes | DataType::Custom(_) => Ok(()),
            DataType::Desc(inner) => inner.check_value(bytes),
            DataType::Option(inner) => match bytes.split_first() {
                Some((0, [])) => Ok(()),
                Some((1, rest)) => inner.check_value(rest),
                _ => Err(self.refuse(bytes)),
            },
            DataType::List(item) => {
                let mut rest = bytes;
                while !rest.is_empty() {
                    item.check_value(item.wire().take(&mut rest)?)?;
                }
                Ok(())
            }
            DataType::Tuple(parts) => {
                let mut rest = bytes;
                for part in parts {
                    part.check_value(part.wire().take(&mut rest)?)?;
                }
                if rest.is_empty() {
                    Ok(())
                } else {
                    Err(self.refuse(rest))
                }
            }
            DataType::Vector(dim) => {
                let found = VectorView::of_whole(bytes)?.dim();
                if *dim == 0 || *dim == found {
                    Ok(())
                } else {
                    Err(self.refuse(bytes))
                }
            }
            DataType::Record => Err(Error::new(
                ErrorKind::Schema,
                "a record's fields stand in its schema",
            )),
        }
    }

    /// Whether `whole` is a field of this type as a record holds it.
    ///
    /// # Errors
    /// `Codec` when it is not.
    pub fn check_field(&self, whole: &[u8]) -> Result<()> {
        match self {
            DataType::Option(inner) => inner.check_value(whole),
            other => other.check_value(whole),
        }
    }

    fn width(&self, bytes: &[u8], width: usize) -> Result<()> {
        if bytes.len() == width {
            Ok(())
        } else {
            Err(self.refuse(bytes))
        }
    }

    fn refuse(&self, bytes: &[u8]) -> Error {
        malformed("bytes are no value of their type")
            .with("type", self)
            .with("found_bytes", bytes.len())
    }
}

fn number(mut bytes: &[u8]) -> Result<u64> {
    let number = varint::read(&mut bytes)?;
    if bytes.is_empty() {
        return Ok(number);
    }
    Err(malformed("bytes are left after a value").with("left_bytes", bytes.len()))
}

fn at_most(bytes: &[u8], limit: u64) -> Result<()> {
    let number = number(bytes)?;
    if number <= limit {
        return Ok(());
    }
    Err(malformed("a number is out of range of its type").with("found", number))
}
