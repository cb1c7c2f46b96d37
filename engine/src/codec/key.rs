//! Keys: bytes that sort as their values do (C2).
//!
//! A key has two forms. The *lone* form is the whole key of a row: its extent is known, so text
//! and bytes stand as they are. The *part* form stands inside a tuple, an index row or a
//! [`Desc`]: it is prefix-free, so text and bytes escape 00 as 00 FF and end with 00 00. The two
//! differ for `String`, `Vec<u8>` and an `Option` of them only.
//!
//! ```text
//! u32       7          00 00 00 07             big-endian
//! i32      -1          7f ff ff ff             sign bit flipped
//! f64       1.0        bf f0 ..                sign flipped; negative: all bits (totalOrder)
//! String    "a\0b"     61 00 62                lone
//!                      61 00 FF 62 00 00       part
//! Option    Some(7u8)  01 07                   None: 00
//! (u8, String)         07 61 00 00             parts in order
//! Desc(7u8)            f8                      the part form, every bit inverted
//! ```

use std::cmp::Ordering;

use super::value::Column;
use super::{DataType, malformed};
use crate::error::Result;

/// A type that can be the key of a table or of an index.
///
/// Built in: integers to 128 bits, `f32` and `f64` (by IEEE 754 totalOrder: `-0.0` is below
/// `0.0`, a NaN above or below all numbers by its sign), `bool`, `char`, `String`, `Vec<u8>`,
/// `[u8; N]`, `()`, `Option` (`None` first), [`Desc`] and tuples of one to eight of them.
///
/// The order of the bytes is the order of the values, as `Ord` has it (`total_cmp` for floats).
/// An own type implements it by delegating to one of these.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a key or an indexed or filtered field",
    note = "keys are integers, floats, bool, char, String, Vec<u8>, [u8; N], Option, Desc, tuples"
)]
pub trait Key: Sized + 'static {
    /// The name of the type in a stored schema.
    fn key_type() -> DataType;

    /// Appends the part form: prefix-free, so that it can stand before other parts.
    fn encode_part(&self, out: &mut Vec<u8>);

    /// Takes one part form off the front of `input`.
    ///
    /// # Errors
    /// `Codec` for bytes that [`Key::encode_part`] never writes.
    fn decode_part(input: &mut &[u8]) -> Result<Self>;

    /// Appends the lone form.
    fn encode_key(&self, out: &mut Vec<u8>) {
        self.encode_part(out);
    }

    /// Reads the lone form, which is all of `bytes`.
    ///
    /// # Errors
    /// `Codec` for bytes that [`Key::encode_key`] never writes.
    fn decode_key(mut bytes: &[u8]) -> Result<Self> {
        let key = Self::decode_part(&mut bytes)?;
        if bytes.is_empty() {
            return Ok(key);
        }
        Err(malformed("bytes are left after a key").with("left_bytes", bytes.len()))
    }

    /// Takes one part form off the front of `input` without decoding it, where that is cheaper.
    ///
    /// # Errors
    /// `Codec` when no part form stands there.
    fn skip_part(input: &mut &[u8]) -> Result<()> {
        Self::decode_part(input).map(drop)
    }

    /// Appends the part form of a field that is given as its record holds it (the whole form
    /// behind the tag): how indexes and filters look at a field without decoding its record.
    ///
    /// # Errors
    /// `Codec` when `whole` is no field of this type.
    fn part_of_field(whole: &[u8], out: &mut Vec<u8>) -> Result<()>
    where
        Self: Column,
    {
        Self::decode_field(whole)?.encode_part(out);
        Ok(())
    }
}

/// A key of several parts: what [`KeyPrefix`](super::KeyPrefix) can stand before.
pub trait Composite: Key {
    /// The first part.
    type Head: Key;
}

/// A part of a key in descending order: the bits of its part form, inverted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Desc<T>(pub T);

impl<T: PartialOrd> PartialOrd for Desc<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        other.0.partial_cmp(&self.0)
    }
}

impl<T: Ord> Ord for Desc<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.cmp(&self.0)
    }
}

impl<T: Key> Key for Desc<T> {
    fn key_type() -> DataType {
        DataType::Desc(Box::new(T::key_type()))
    }

    fn encode_part(&self, out: &mut Vec<u8>) {
        let start = out.len();
        self.0.encode_part(out);
        invert(&mut out[start..]);
    }

    fn decode_part(input: &mut &[u8]) -> Result<Self> {
        // Where the part ends shows only once its bits are turned back.
        let mut turned = input.to_vec();
        invert(&mut turned);
        let mut rest = turned.as_slice();
        let key = T::decode_part(&mut rest)?;
        *input = &input[input.len() - rest.len()..];
        Ok(Desc(key))
    }
}

/// Inverts every bit, which turns the order of prefix-free bytes round.
pub(crate) fn invert(bytes: &mut [u8]) {
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
}

/// Takes `N` bytes off the front of `input`.
pub(crate) fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N]> {
    let (bytes, rest) = input.split_first_chunk::<N>().ok_or_else(|| {
        malformed("the bytes end inside a key")
            .with("expected_bytes", N)
            .with("found_bytes", input.len())
    })?;
    *input = rest;
    Ok(*bytes)
}

macro_rules! integer_keys {
    ($($type:ident $data:ident $flip:expr;)*) => {$(
        impl Key for $type {
            fn key_type() -> DataType {
                DataType::$data
            }

            fn encode_part(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&(*self ^ $flip).to_be_bytes());
            }

            fn decode_part(input: &mut &[u8]) -> Result<Self> {
                Ok($type::from_be_bytes(take(input)?) ^ $flip)
            }
        }
    )*};
}

// Flipping the sign bit puts the negative numbers first.
integer_keys! {
    u8 U8 0;
    u16 U16 0;
    u32 U32 0;
    u64 U64 0;
    u128 U128 0;
    i8 I8 i8::MIN;
    i16 I16 i16::MIN;
    i32 I32 i32::MIN;
    i64 I64 i64::MIN;
    i128 I128 i128::MIN;
}

macro_rules! float_keys {
    ($($type:ident $bits:ident $data:ident;)*) => {$(
        impl Key for $type {
            fn key_type() -> DataType {
                DataType::$data
            }

            fn encode_part(&self, out: &mut Vec<u8>) {
                // Positive: only the sign is flipped. Negative: larger magnitudes come first.
                const SIGN: $bits = 1 << ($bits::BITS - 1);
                let bits = self.to_bits();
                let sorted = if bits & SIGN == 0 { bits | SIGN } else { !bits };
                out.extend_from_slice(&sorted.to_be_bytes());
            }

            fn decode_part(input: &mut &[u8]) -> Result<Self> {
                const SIGN: $bits = 1 << ($bits::BITS - 1);
                let sorted = $bits::from_be_bytes(take(input)?);
                let bits = if sorted & SIGN != 0 { sorted ^ SIGN } else { !sorted };
                Ok($type::from_bits(bits))
            }
        }
    )*};
}

float_keys! {
    f32 u32 F32;
    f64 u64 F64;
}

impl Key for () {
    fn key_type() -> DataType {
        DataType::Unit
    }

    fn encode_part(&self, _: &mut Vec<u8>) {}

    fn decode_part(_: &mut &[u8]) -> Result<Self> {
        Ok(())
    }
}

impl Key for bool {
    fn key_type() -> DataType {
        DataType::Bool
    }

    fn encode_part(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn decode_part(input: &mut &[u8]) -> Result<Self> {
        match take::<1>(input)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [byte] => Err(malformed("a bool is neither 0 nor 1").with("found", byte)),
        }
    }
}

impl Key for char {
    fn key_type() -> DataType {
        DataType::Char
    }

    fn encode_part(&self, out: &mut Vec<u8>) {
        u32::from(*self).encode_part(out);
    }

    fn decode_part(input: &mut &[u8]) -> Result<Self> {
        let number = u32::decode_part(input)?;
        char::from_u32(number)
            .ok_or_else(|| malformed("a char is no Unicode scalar value").with("found", number))
    }
}

impl<const N: usize> Key for [u8; N] {
    fn key_type() -> DataType {
        DataType::FixedBytes(N as u32)
    }

    fn encode_part(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn decode_part(input: &mut &[u8]) -> Result<Self> {
        take(input)
    }
}

/// Appends `bytes` in part form: 00 as 00 FF, then 00 00.
pub(crate) fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    for (i, run) in bytes.split(|&byte| byte == 0).enumerate() {
        if i > 0 {
            out.extend_from_slice(&[0, 0xff]);
        }
        out.extend_from_slice(run);
    }
    out.extend_from_slice(&[0, 0]);
}

/// Takes one escaped run off the front of `input`.
fn skip_escaped(input: &mut &[u8]) -> Result<()> {
    let mut at = 0;
    while let Some(zero) = input[at..].iter().position(|&byte| byte == 0) {
        at += zero + 2;
        if input.get(at - 1) != Some(&0xff) {
            break;
        }
    }
    if at < 2 || input.get(at - 1) != Some(&0) {
        return Err(malformed("text or bytes in a key have no end"));
    }
    *input = &input[at..];
    Ok(())
}

/// The inverse of [`escape`]: takes one escaped run off the front of `input`.
fn unescape(input: &mut &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let zero = input.iter().position(|&byte| byte == 0);
        let zero = zero.ok_or_else(|| malformed("text or bytes in a key have no end"))?;
        bytes.extend_from_slice(&input[..zero]);
        let after = input.get(zero + 1).copied();
        *input = input.get(zero + 2..).unwrap_or_default();
        match after {
            Some(0) => return Ok(bytes),
            Some(0xff) => bytes.push(0),
            Some(byte) => {
                return Err(malformed("a zero byte in a key is not escaped").with("found", byte));
            }
            None => return Err(malformed("text or bytes in a key have no end")),
        }
    }
}

impl Key for Vec<u8> {
    fn key_type() -> DataType {
        DataType::Bytes
    }

    fn encode_part(&self, out: &mut Vec<u8>) {
        escape(self, out);
    }

    fn decode_part(input: &mut &[u8]) -> Result<Self> {
        unescape(input)
    }

    fn encode_key(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn decode_key(bytes: &[u8]) -> Result<Self> {
        Ok(bytes.to_vec())
    }

    fn skip_part(input: &mut &[u8]) -> Result<()> {
        skip_escaped(input)
    }

    fn part_of_field(whole: &[u8], out: &mut Vec<u8>) -> Result<()> {
        escape(whole, out);
        Ok(())
    }
}

/// Text from bytes.
pub(crate) fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|error| malformed("text is not UTF-8").caused_by(error))
}

impl Key for String {
    fn key_type() -> DataType {
        DataType::String
    }

    fn encode_part(&self, out: &mut Vec<u8>) {
        escape(self.as_bytes(), out);
    }

    fn decode_part(input: &mut &[u8]) -> Result<Self> {
        String::from_utf8(unescape(input)?)
            .map_err(|error| malformed("text is not UTF-8").caused_by(error))
    }

    fn encode_key(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn decode_key(bytes: &[u8]) -> Result<Self> {
        text(bytes).map(str::to_owned)
    }

    fn skip_part(input: &mut &[u8]) -> Result<()> {
        skip_escaped(input)
    }

    fn part_of_field(whole: &[u8], out: &mut Vec<u8>) -> Result<()> {
        escape(text(whole)?.as_bytes(), out);
        Ok(())
    }
}

impl<T: Key> Key for Option<T> {
    fn key_type() -> DataType {
        DataType::Option(Box::new(T::key_type()))
    }

    fn encode_part(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_some()));
        if let Some(key) = self {
            key.encode_part(out);
        }
    }

    fn decode_part(input: &mut &[u8]) -> Result<Self> {
        let some = bool::decode_part(input)?;
        some.then(|| T::decode_part(input)).transpose()
    }

    fn encode_key(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_some()));
        if let Some(key) = self {
            key.encode_key(out);
        }
    }

    fn decode_key(mut bytes: &[u8]) -> Result<Self> {
        if bool::decode_part(&mut bytes)? {
            return T::decode_key(bytes).map(Some);
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        Err(malformed("bytes are left after a key").with("left_bytes", bytes.len()))
    }
}

macro_rules! tuple_keys {
    ($(($head:ident $($part:ident)*))*) => {$(
        impl<$head: Key, $($part: Key),*> Key for ($head, $($part,)*) {
            fn key_type() -> DataType {
                DataType::Tuple(vec![$head::key_type(), $($part::key_type()),*])
            }

            #[allow(non_snake_case)] // the parts are named as their types
            fn encode_part(&self, out: &mut Vec<u8>) {
                let ($head, $($part,)*) = self;
                $head.encode_part(out);
                $($part.encode_part(out);)*
            }

            fn decode_part(input: &mut &[u8]) -> Result<Self> {
                // A tuple expression evaluates its parts from left to right.
                Ok(($head::decode_part(input)?, $($part::decode_part(input)?,)*))
            }
        }

        impl<$head: Key, $($part: Key),*> Composite for ($head, $($part,)*) {
            type Head = $head;
        }
    )*};
}

tuple_keys! {
    (A)
    (A B)
    (A B C)
    (A B C D)
    (A B C D E)
    (A B C D E F)
    (A B C D E F G)
    (A B C D E F G H)
}
