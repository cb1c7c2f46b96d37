//! Vector fields: where their elements lie in an encoded record.
//!
//! ```text
//! dim u32 | element kind u8 (1 = f32) | vver u32 | elements, dim x f32        little-endian
//! ```
//!
//! `vver` counts the versions of a row's vector under a vector index and is 0 while there is
//! none; it is the engine's, not the user's, and patched in place.

pub use terrane_vector::Metric;

use super::malformed;
use super::record::{RawField, find_field};
use super::value::{Column, Wire};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::MAX_DIMENSIONS;

/// Bytes before the elements.
pub const VECTOR_HEADER_BYTES: usize = 9;
/// Where `vver` lies in the whole form.
const VVER_AT: usize = 5;
/// Elements are `f32`, little-endian: the one kind of format 1.
const KIND_F32: u8 = 1;

/// How a vector field is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VectorDef {
    /// Metric of the field.
    pub metric: Metric,
    /// Elements of each vector.
    pub dim: u32,
}

/// A column that holds a vector.
pub trait VectorColumn: Column {
    /// Elements of each vector; 0 where the schema says it.
    const DIM: u32;
}

impl<T: VectorColumn> VectorColumn for Option<T> {
    const DIM: u32 = T::DIM;
}

/// A vector as it lies in an encoded record.
#[derive(Clone, Copy, Debug)]
pub struct VectorView<'a> {
    /// Its version under a vector index; 0 without one.
    pub vver: u32,
    /// Where its elements begin in the record.
    pub offset: usize,
    /// Its elements, 4 bytes each, little-endian, at no particular alignment.
    pub elements: &'a [u8],
}

impl<'a> VectorView<'a> {
    /// The vector in a field of a record.
    ///
    /// # Errors
    /// `Codec` when the field holds none.
    pub fn of_field(field: &RawField<'a>) -> Result<VectorView<'a>> {
        if field.wire != Wire::Vector {
            return Err(malformed("a field holds no vector").with("id", field.id));
        }
        let view = VectorView::of_whole(field.whole)?;
        Ok(VectorView {
            offset: field.offset + VECTOR_HEADER_BYTES,
            ..view
        })
    }

    /// The vector in its whole form, `offset` counted from there.
    ///
    /// # Errors
    /// `Codec` when the bytes are no vector.
    pub fn of_whole(whole: &'a [u8]) -> Result<VectorView<'a>> {
        let (header, elements) = whole
            .split_first_chunk::<VECTOR_HEADER_BYTES>()
            .ok_or_else(|| malformed("the bytes end inside a vector's header"))?;
        let [d0, d1, d2, d3, kind, v0, v1, v2, v3] = *header;
        let dim = u32::from_le_bytes([d0, d1, d2, d3]);
        if kind != KIND_F32 {
            return Err(malformed("an unknown kind of vector element").with("found", kind));
        }
        if dim == 0 || dim > MAX_DIMENSIONS || elements.len() != dim as usize * 4 {
            return Err(malformed("a vector's bytes are not those of its dimension")
                .with("dim", dim)
                .with("found_bytes", elements.len()));
        }
        let vver = u32::from_le_bytes([v0, v1, v2, v3]);
        Ok(VectorView {
            vver,
            offset: VECTOR_HEADER_BYTES,
            elements,
        })
    }

    /// Elements of the vector.
    #[must_use]
    pub fn dim(&self) -> u32 {
        (self.elements.len() / 4) as u32
    }

    /// The elements as numbers.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = f32> + use<'a> {
        self.elements
            .as_chunks()
            .0
            .iter()
            .map(|four| f32::from_le_bytes(*four))
    }

    /// Copies the elements into `out`, whose length is the dimension.
    ///
    /// # Errors
    /// `Invalid` when `out` has another length.
    pub fn copy_to(&self, out: &mut [f32]) -> Result<()> {
        if out.len() != self.dim() as usize {
            return Err(
                Error::new(ErrorKind::Invalid, "a vector has another dimension")
                    .with("wanted", out.len())
                    .with("given", self.dim()),
            );
        }
        for (element, four) in out.iter_mut().zip(self.elements.as_chunks().0) {
            *element = f32::from_le_bytes(*four);
        }
        Ok(())
    }
}

/// Appends the whole form of a vector without a version.
pub(crate) fn write(elements: &[f32], out: &mut Vec<u8>) {
    out.reserve(VECTOR_HEADER_BYTES + elements.len() * 4);
    out.extend_from_slice(&(elements.len() as u32).to_le_bytes());
    out.push(KIND_F32);
    out.extend_from_slice(&0_u32.to_le_bytes());
    let start = out.len();
    out.resize(start + elements.len() * 4, 0);
    for (four, element) in out[start..].as_chunks_mut().0.iter_mut().zip(elements) {
        *four = element.to_le_bytes();
    }
}

/// Sets the version of the vector in the field `id` of `record`, in place: lengths do not change.
///
/// # Errors
/// `Codec` when the record has no such field, or the field no vector.
pub fn set_vver(record: &mut [u8], id: u16, vver: u32) -> Result<()> {
    let raw = find_field(record, id)?;
    let raw = raw.ok_or_else(|| malformed("a vector is missing").with("id", id))?;
    VectorView::of_field(&raw)?;
    let at = raw.offset + VVER_AT;
    record[at..at + 4].copy_from_slice(&vver.to_le_bytes());
    Ok(())
}
