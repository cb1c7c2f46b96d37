//! Encoded keys as text, by their stored type: for errors, tools and the `Debug` of filters.

use super::key::{Desc, Key};
use super::{DataType, malformed};
use crate::error::Result;

impl DataType {
    /// An encoded key in lone form, as it would be written in Rust.
    ///
    /// # Errors
    /// `Codec` when the bytes are no key of this type.
    pub fn show_key(&self, key: &[u8]) -> Result<String> {
        match self {
            DataType::String => Ok(format!("{:?}", String::decode_key(key)?)),
            DataType::Bytes => Ok(show_bytes(key)),
            DataType::Option(inner) => match key.split_first() {
                Some((1, rest)) => Ok(format!("Some({})", inner.show_key(rest)?)),
                Some((0, [])) => Ok("None".into()),
                _ => Err(malformed("an option is neither 0 nor 1 and a key")),
            },
            _ => {
                let mut rest = key;
                let text = self.show_part(&mut rest)?;
                if rest.is_empty() {
                    Ok(text)
                } else {
                    Err(malformed("bytes are left after a key"))
                }
            }
        }
    }

    /// Takes one part form off the front of `input` and shows it.
    ///
    /// # Errors
    /// `Codec` when no key of this type stands there, or the type is no key.
    pub fn show_part(&self, input: &mut &[u8]) -> Result<String> {
        fn shown<K: Key + std::fmt::Debug>(input: &mut &[u8]) -> Result<String> {
            K::decode_part(input).map(|key| format!("{key:?}"))
        }
        match self {
            DataType::Unit => shown::<()>(input),
            DataType::Bool => shown::<bool>(input),
            DataType::Char => shown::<char>(input),
            DataType::U8 => shown::<u8>(input),
            DataType::U16 => shown::<u16>(input),
            DataType::U32 => shown::<u32>(input),
            DataType::U64 => shown::<u64>(input),
            DataType::U128 => shown::<u128>(input),
            DataType::I8 => shown::<i8>(input),
            DataType::I16 => shown::<i16>(input),
            DataType::I32 => shown::<i32>(input),
            DataType::I64 => shown::<i64>(input),
            DataType::I128 => shown::<i128>(input),
            DataType::F32 => shown::<f32>(input),
            DataType::F64 => shown::<f64>(input),
            DataType::String => shown::<String>(input),
            DataType::Bytes => Vec::<u8>::decode_part(input).map(|bytes| show_bytes(&bytes)),
            DataType::FixedBytes(len) => {
                let (bytes, rest) = input
                    .split_at_checked(*len as usize)
                    .ok_or_else(|| malformed("the bytes end inside a key"))?;
                *input = rest;
                Ok(show_bytes(bytes))
            }
            DataType::Option(inner) => Ok(if bool::decode_part(input)? {
                format!("Some({})", inner.show_part(input)?)
            } else {
                "None".into()
            }),
            DataType::Desc(inner) => {
                let mut turned = input.to_vec();
                super::key::invert(&mut turned);
                let mut rest = turned.as_slice();
                let text = inner.show_part(&mut rest)?;
                *input = &input[input.len() - rest.len()..];
                Ok(format!("{:?}", Desc(format_args!("{text}"))))
            }
            DataType::Tuple(parts) => {
                let shown: Result<Vec<String>> =
                    parts.iter().map(|part| part.show_part(input)).collect();
                Ok(format!("({})", shown?.join(", ")))
            }
            DataType::List(_) | DataType::Vector(_) | DataType::Custom(_) | DataType::Record => {
                Err(malformed("a type is no key").with("type", self))
            }
        }
    }
}

/// `b"ada\x00"`
fn show_bytes(bytes: &[u8]) -> String {
    format!("b\"{}\"", bytes.escape_ascii())
}
