//! One owned, aligned copy of an encoded value: what `get_ref` lends.
//!
//! Frames of the buffer pool change under a reader, so no value is ever lent out of one
//! (`storage.md` 5); the copy is the price, and decoding is saved.

use std::fmt;
use std::marker::PhantomData;

use super::record::Record;
use super::value::{Column, Value};
use crate::error::Result;
use crate::field::Field;

/// An encoded value of type `V`, owned, aligned to [`Value::ALIGN`].
///
/// ```
/// # use terrane::{Ref, Value};
/// let encoded = Ref::<String>::new(b"ada");
/// assert_eq!(encoded.bytes(), b"ada");
/// assert_eq!(encoded.decode()?, "ada");
/// # Ok::<(), terrane::Error>(())
/// ```
pub struct Ref<V> {
    /// The value, with up to `ALIGN - 1` bytes in front of it.
    buffer: Box<[u8]>,
    start: usize,
    value: PhantomData<fn() -> V>,
}

impl<V: Value> Ref<V> {
    /// Copies `bytes`, which are the whole form of a value. Nothing is decoded or checked yet.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Ref<V> {
        const { assert!(V::ALIGN.is_power_of_two()) };
        if V::ALIGN == 1 {
            return Ref {
                buffer: bytes.into(),
                start: 0,
                value: PhantomData,
            };
        }
        let mut buffer = vec![0; bytes.len() + V::ALIGN - 1].into_boxed_slice();
        let start = buffer.as_ptr().align_offset(V::ALIGN).min(V::ALIGN - 1);
        buffer[start..start + bytes.len()].copy_from_slice(bytes);
        Ref {
            buffer,
            start,
            value: PhantomData,
        }
    }

    /// As [`Ref::new`], without a copy where the type needs no alignment.
    pub(crate) fn of(bytes: Vec<u8>) -> Ref<V> {
        if V::ALIGN == 1 {
            return Ref {
                buffer: bytes.into_boxed_slice(),
                start: 0,
                value: PhantomData,
            };
        }
        Ref::new(&bytes)
    }

    /// The encoded value, aligned to [`Value::ALIGN`].
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let padding = V::ALIGN - 1;
        &self.buffer[self.start..self.buffer.len() - (padding - self.start)]
    }

    /// Decodes the value.
    ///
    /// # Errors
    /// `Codec` when the bytes are no value of this type.
    pub fn decode(&self) -> Result<V> {
        V::decode_value(self.bytes())
    }
}

impl<R: Record> Ref<R> {
    /// Decodes one field of a record and passes over the others.
    ///
    /// # Errors
    /// `Codec` when the bytes are no record of this type.
    pub fn field<T: Column>(&self, field: Field<R, T>) -> Result<T> {
        field.read(self.bytes())
    }
}

impl<V: Value> Clone for Ref<V> {
    fn clone(&self) -> Self {
        Ref::new(self.bytes()) // a copied buffer lies elsewhere, so it is aligned anew
    }
}

impl<V: Value> fmt::Debug for Ref<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ref<{}>({} bytes)", V::value_type(), self.bytes().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{DataType, Wire};

    /// Raw bytes that must lie at a multiple of 64.
    #[derive(Debug, PartialEq)]
    struct Aligned(Vec<u8>);

    impl Value for Aligned {
        const WIRE: Wire = Wire::Bytes;
        const ALIGN: usize = 64;

        fn value_type() -> DataType {
            DataType::Custom("aligned".into())
        }

        fn encode_value(&self, out: &mut Vec<u8>) {
            out.extend_from_slice(&self.0);
        }

        fn decode_value(bytes: &[u8]) -> Result<Self> {
            assert_eq!(bytes.as_ptr().align_offset(64), 0);
            Ok(Aligned(bytes.to_vec()))
        }
    }

    #[test]
    fn copies_are_aligned_and_whole() {
        for len in [0, 1, 63, 64, 65, 1000] {
            let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let copy = Ref::<Aligned>::new(&bytes).clone();
            assert_eq!(copy.bytes(), bytes);
            assert_eq!(copy.decode().unwrap(), Aligned(bytes));
        }
    }
}
