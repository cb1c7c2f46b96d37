//! Plain values: numbers, text, bytes, options, lists and tuples.
//!
//! A value has two forms. The *whole* form is a value whose extent is known: the value of a row,
//! or what lies behind a length. The *payload* form says its own extent, by the [`Wire`] type
//! alone: a varint by its last byte, a fixed number by its width, everything else by a length in
//! front of the whole form. So one rule skips a field of any type.
//!
//! ```text
//! 300_u32         whole AC 02                  payload AC 02
//! -2_i32          whole 03                     payload 03 (zigzag)
//! "hi"            whole 68 69                  payload 02 68 69
//! vec![1_u16, 2]  whole 01 02                  payload 02 01 02
//! (7_u8, "a")     whole 07 01 61               payload 03 07 01 61
//! Some(7_u8)      whole 01 07                  payload 02 01 07     (None: 00, 01 00)
//! ()              whole nothing                payload 00
//! ```
//!
//! Invariants: C1 and C3 of the codec; a payload is at least one byte long, so that a list has at
//! most as many items as bytes.

use super::key::{Desc, text};
use super::record::FieldDef;
use super::{DataType, malformed, varint};
use crate::error::Result;

/// How a payload says where it ends. The number is the low three bits of a field's tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Wire {
    /// LEB128: `bool`, `char`, unsigned integers to 64 bits; zigzag first for signed ones.
    Varint = 0,
    /// Four bytes: `f32`.
    Fixed32 = 1,
    /// Eight bytes: `f64`.
    Fixed64 = 2,
    /// Sixteen bytes: `u128`, `i128`.
    Fixed128 = 3,
    /// A length, then bytes: text, bytes and formats of their own.
    Bytes = 4,
    /// A length, then payloads: lists, tuples, nested options, hidden columns.
    List = 5,
    /// A length, then a vector.
    Vector = 6,
}

impl Wire {
    /// The wire type with this number.
    ///
    /// # Errors
    /// `Codec` for 7 and above.
    pub fn of(number: u8) -> Result<Wire> {
        Ok(match number {
            0 => Wire::Varint,
            1 => Wire::Fixed32,
            2 => Wire::Fixed64,
            3 => Wire::Fixed128,
            4 => Wire::Bytes,
            5 => Wire::List,
            6 => Wire::Vector,
            _ => return Err(malformed("an unknown wire type").with("found", number)),
        })
    }

    /// Whether a length stands in front of the whole form.
    #[must_use]
    pub const fn has_length(self) -> bool {
        matches!(self, Wire::Bytes | Wire::List | Wire::Vector)
    }

    /// Takes one payload off the front of `input` and returns its whole form.
    ///
    /// # Errors
    /// `Codec` when the bytes end inside it.
    pub fn take<'a>(self, input: &mut &'a [u8]) -> Result<&'a [u8]> {
        let len = match self {
            Wire::Varint => {
                let mut rest = *input;
                varint::read(&mut rest)?;
                (input.len() - rest.len()) as u64
            }
            Wire::Fixed32 => 4,
            Wire::Fixed64 => 8,
            Wire::Fixed128 => 16,
            Wire::Bytes | Wire::List | Wire::Vector => varint::read(input)?,
        };
        let split = usize::try_from(len)
            .ok()
            .and_then(|len| input.split_at_checked(len));
        let (whole, rest) = split.ok_or_else(|| {
            malformed("the bytes end inside a value")
                .with("expected_bytes", len)
                .with("found_bytes", input.len())
        })?;
        *input = rest;
        Ok(whole)
    }
}

/// A type that can be the value of a table.
///
/// Built in: integers to 128 bits, `f32`, `f64`, `bool`, `char`, `String`, `Vec<u8>`, `[u8; N]`,
/// `()`, `Option`, `Vec`, tuples of one to eight of them, vectors, and every
/// `#[derive(Record)]` struct. A format of its own implements this trait with
/// [`DataType::Custom`] and [`Wire::Bytes`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the value of a table",
    note = "derive `Record` for a struct with named fields, or implement `Value` for a wrapper"
)]
pub trait Value: Sized + 'static {
    /// How the payload form says where it ends.
    const WIRE: Wire;

    /// Alignment in bytes of the copy that a [`Ref`](super::Ref) lends; a power of two.
    const ALIGN: usize = 1;

    /// The name of the type in a stored schema.
    fn value_type() -> DataType;

    /// Appends the whole form.
    fn encode_value(&self, out: &mut Vec<u8>);

    /// Reads the whole form, which is all of `bytes`.
    ///
    /// # Errors
    /// `Codec` for bytes that [`Value::encode_value`] never writes.
    fn decode_value(bytes: &[u8]) -> Result<Self>;

    /// The fields of a record in rising id; empty for every other type.
    #[must_use]
    fn fields() -> &'static [FieldDef] {
        &[]
    }
}

/// A type that can be a field of a record, an item of a list or a part of a tuple.
///
/// A format of its own needs no more than the empty implementation.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a field of a record",
    note = "fields are integers, floats, bool, char, String, Vec<u8>, [u8; N], Option, Vec, \
            tuples, Vector and DynVector; a record does not nest"
)]
pub trait Column: Value {
    /// The wire type in a record's tag. That of an option is that of what it holds.
    const FIELD_WIRE: Wire = Self::WIRE;

    /// Whether a field of this type may be left out of its record ([`Column::absent`]).
    const OPTIONAL: bool = false;

    /// The wire type of a list of this type.
    const LIST_WIRE: Wire = Wire::List;

    /// Appends the payload of the field, unless the field is left out (`None`).
    fn encode_field(&self, tag: u64, out: &mut Vec<u8>) {
        varint::write(tag, out);
        write_payload(self, out);
    }

    /// Reads a field from the whole form behind its tag.
    ///
    /// # Errors
    /// `Codec` for bytes that are no value of this type.
    fn decode_field(whole: &[u8]) -> Result<Self> {
        Self::decode_value(whole)
    }

    /// What a field that was left out reads as, where the type says so (`None`).
    #[must_use]
    fn absent() -> Option<Self> {
        None
    }

    /// The name of a list of this type.
    #[must_use]
    fn list_type() -> DataType {
        DataType::List(Box::new(Self::value_type()))
    }

    /// Appends the whole form of a list.
    fn encode_list(items: &[Self], out: &mut Vec<u8>) {
        items.iter().for_each(|item| write_payload(item, out));
    }

    /// Reads the whole form of a list.
    ///
    /// # Errors
    /// `Codec` for bytes that are no list of this type.
    fn decode_list(mut bytes: &[u8]) -> Result<Vec<Self>> {
        let mut items = Vec::new();
        while !bytes.is_empty() {
            items.push(read_payload(&mut bytes)?);
        }
        Ok(items)
    }
}

/// Appends the payload form.
pub(crate) fn write_payload<V: Value>(value: &V, out: &mut Vec<u8>) {
    if !V::WIRE.has_length() {
        value.encode_value(out);
        return;
    }
    // The length is known afterwards. Most values are short and it fits into the byte kept for it;
    // a longer one moves the value up.
    let start = out.len();
    out.push(0);
    value.encode_value(out);
    let len = out.len() - start - 1;
    if len < 0x80 {
        out[start] = len as u8;
        return;
    }
    let mut prefix = Vec::with_capacity(varint::MAX_VARINT_BYTES);
    varint::write(len as u64, &mut prefix);
    out.splice(start..=start, prefix);
}

/// Takes one payload off the front of `input` and decodes it.
pub(crate) fn read_payload<V: Value>(input: &mut &[u8]) -> Result<V> {
    V::decode_value(V::WIRE.take(input)?)
}

/// All of `bytes` as one varint.
fn whole_varint(mut bytes: &[u8]) -> Result<u64> {
    let number = varint::read(&mut bytes)?;
    if bytes.is_empty() {
        Ok(number)
    } else {
        Err(left_over(bytes))
    }
}

/// All of `bytes` as `N` bytes.
fn whole_fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| {
        malformed("a value has another width than its type")
            .with("expected_bytes", N)
            .with("found_bytes", bytes.len())
    })
}

fn left_over(bytes: &[u8]) -> crate::Error {
    malformed("bytes are left after a value").with("left_bytes", bytes.len())
}

fn out_of_range(number: impl std::fmt::Display, data_type: DataType) -> crate::Error {
    malformed("a number is out of range of its type")
        .with("found", number)
        .with("type", data_type)
}

macro_rules! integer_values {
    ($($type:ident $data:ident |$given:ident| $write:expr, $read:expr;)*) => {$(
        impl Value for $type {
            const WIRE: Wire = Wire::Varint;

            fn value_type() -> DataType {
                DataType::$data
            }

            fn encode_value(&self, out: &mut Vec<u8>) {
                let $given = *self;
                varint::write($write, out);
            }

            fn decode_value(bytes: &[u8]) -> Result<Self> {
                let $given = whole_varint(bytes)?;
                let number = $read;
                $type::try_from(number).map_err(|_| out_of_range(number, DataType::$data))
            }
        }
    )*};
}

integer_values! {
    u8 U8 |number| u64::from(number), number;
    u16 U16 |number| u64::from(number), number;
    u32 U32 |number| u64::from(number), number;
    u64 U64 |number| number, number;
    i8 I8 |number| varint::zigzag(i64::from(number)), varint::unzigzag(number);
    i16 I16 |number| varint::zigzag(i64::from(number)), varint::unzigzag(number);
    i32 I32 |number| varint::zigzag(i64::from(number)), varint::unzigzag(number);
    i64 I64 |number| varint::zigzag(number), varint::unzigzag(number);
}

macro_rules! fixed_values {
    ($($type:ident $data:ident $wire:ident;)*) => {$(
        impl Value for $type {
            const WIRE: Wire = Wire::$wire;

            fn value_type() -> DataType {
                DataType::$data
            }

            fn encode_value(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn decode_value(bytes: &[u8]) -> Result<Self> {
                Ok($type::from_le_bytes(whole_fixed(bytes)?))
            }
        }
    )*};
}

fixed_values! {
    f32 F32 Fixed32;
    f64 F64 Fixed64;
    u128 U128 Fixed128;
    i128 I128 Fixed128;
}

macro_rules! plain_columns {
    ($($type:ty)*) => {$(
        impl Column for $type {}
    )*};
}

plain_columns! { u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64 bool char String }

impl Column for () {}

/// A list of bytes is bytes.
impl Column for u8 {
    const LIST_WIRE: Wire = Wire::Bytes;

    fn list_type() -> DataType {
        DataType::Bytes
    }

    fn encode_list(items: &[Self], out: &mut Vec<u8>) {
        out.extend_from_slice(items);
    }

    fn decode_list(bytes: &[u8]) -> Result<Vec<Self>> {
        Ok(bytes.to_vec())
    }
}

impl Value for () {
    const WIRE: Wire = Wire::List;

    fn value_type() -> DataType {
        DataType::Unit
    }

    fn encode_value(&self, _: &mut Vec<u8>) {}

    fn decode_value(bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() {
            Ok(())
        } else {
            Err(left_over(bytes))
        }
    }
}

impl Value for bool {
    const WIRE: Wire = Wire::Varint;

    fn value_type() -> DataType {
        DataType::Bool
    }

    fn encode_value(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn decode_value(bytes: &[u8]) -> Result<Self> {
        match bytes {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(malformed("a bool is neither 0 nor 1")),
        }
    }
}

impl Value for char {
    const WIRE: Wire = Wire::Varint;

    fn value_type() -> DataType {
        DataType::Char
    }

    fn encode_value(&self, out: &mut Vec<u8>) {
        varint::write(u64::from(*self), out);
    }

    fn decode_value(bytes: &[u8]) -> Result<Self> {
        let number = whole_varint(bytes)?;
        let scalar = u32::try_from(number).ok().and_then(char::from_u32);
        scalar.ok_or_else(|| out_of_range(number, DataType::Char))
    }
}

impl Value for String {
    const WIRE: Wire = Wire::Bytes;

    fn value_type() -> DataType {
        DataType::String
    }

    fn encode_value(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn decode_value(bytes: &[u8]) -> Result<Self> {
        text(bytes).map(str::to_owned)
    }
}

impl<const N: usize> Value for [u8; N] {
    const WIRE: Wire = Wire::Bytes;

    fn value_type() -> DataType {
        DataType::FixedBytes(N as u32)
    }

    fn encode_value(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn decode_value(bytes: &[u8]) -> Result<Self> {
        whole_fixed(bytes)
    }
}

impl<const N: usize> Column for [u8; N] {}

impl<T: Column> Value for Vec<T> {
    const WIRE: Wire = T::LIST_WIRE;

    fn value_type() -> DataType {
        T::list_type()
    }

    fn encode_value(&self, out: &mut Vec<u8>) {
        T::encode_list(self, out);
    }

    fn decode_value(bytes: &[u8]) -> Result<Self> {
        T::decode_list(bytes)
    }
}

impl<T: Column> Column for Vec<T> {}

impl<T: Column> Value for Option<T> {
    const WIRE: Wire = Wire::List;

    fn value_type() -> DataType {
        DataType::Option(Box::new(T::value_type()))
    }

    fn encode_value(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_some()));
        if let Some(value) = self {
            value.encode_value(out);
        }
    }

    fn decode_value(bytes: &[u8]) -> Result<Self> {
        match bytes.split_first() {
            Some((0, [])) => Ok(None),
            Some((0, rest)) => Err(left_over(rest)),
            Some((1, rest)) => T::decode_value(rest).map(Some),
            _ => Err(malformed("an option is neither 0 nor 1 and a value")),
        }
    }
}

/// A field that is `None` is left out of its record.
impl<T: Column> Column for Option<T> {
    const FIELD_WIRE: Wire = T::WIRE;
    const OPTIONAL: bool = true;

    fn encode_field(&self, tag: u64, out: &mut Vec<u8>) {
        if let Some(value) = self {
            varint::write(tag, out);
            write_payload(value, out);
        }
    }

    fn decode_field(whole: &[u8]) -> Result<Self> {
        T::decode_value(whole).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

/// The order is the key's affair: as a value it is what it holds.
impl<T: Column> Value for Desc<T> {
    const WIRE: Wire = T::WIRE;

    fn value_type() -> DataType {
        DataType::Desc(Box::new(T::value_type()))
    }

    fn encode_value(&self, out: &mut Vec<u8>) {
        self.0.encode_value(out);
    }

    fn decode_value(bytes: &[u8]) -> Result<Self> {
        T::decode_value(bytes).map(Desc)
    }
}

impl<T: Column> Column for Desc<T> {}

macro_rules! tuple_values {
    ($(($($part:ident)*))*) => {$(
        impl<$($part: Column),*> Value for ($($part,)*) {
            const WIRE: Wire = Wire::List;

            fn value_type() -> DataType {
                DataType::Tuple(vec![$($part::value_type()),*])
            }

            #[allow(non_snake_case)] // the parts are named as their types
            fn encode_value(&self, out: &mut Vec<u8>) {
                let ($($part,)*) = self;
                $(write_payload($part, out);)*
            }

            fn decode_value(mut bytes: &[u8]) -> Result<Self> {
                let parts = ($(read_payload::<$part>(&mut bytes)?,)*);
                if bytes.is_empty() { Ok(parts) } else { Err(left_over(bytes)) }
            }
        }

        impl<$($part: Column),*> Column for ($($part,)*) {}
    )*};
}

tuple_values! {
    (A)
    (A B)
    (A B C)
    (A B C D)
    (A B C D E)
    (A B C D E F)
    (A B C D E F G)
    (A B C D E F G H)
}
