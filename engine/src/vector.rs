//! Vectors as fields: `Vector<D>` where the type says the dimension, `DynVector` where the schema
//! does.
//!
//! Both own their elements in one box, since 16,000 of them would be 64 KiB of stack. What may be
//! stored in a searchable field is checked when it is stored (`codec/vector.rs`), not here: a
//! vector may hold a NaN until then.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::codec::vector::{VectorColumn, VectorView, write};
use crate::codec::{Column, DataType, Value, Wire, malformed};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::MAX_DIMENSIONS;

/// A vector of `D` elements, 1 to 16,000.
///
/// ```
/// use terrane::Vector;
///
/// let a = Vector::from([0.5, -0.5, 0.0]);
/// let b = Vector::<3>::try_from(&[0.5, -0.5, 0.0][..])?;
/// assert_eq!(a, b);
/// assert_eq!(a[1], -0.5);
/// # Ok::<(), terrane::Error>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Vector<const D: usize>(Box<[f32; D]>);

impl<const D: usize> Vector<D> {
    /// `D` as a schema has it; a dimension out of range does not compile.
    const CHECKED: u32 = {
        assert!(
            D > 0 && D <= MAX_DIMENSIONS as usize,
            "a vector has 1 to 16,000 dimensions"
        );
        D as u32
    };

    fn of_box(elements: Box<[f32]>) -> Result<Vector<D>, usize> {
        let given = elements.len();
        let _: u32 = Self::CHECKED;
        elements.try_into().map(Vector).map_err(|_| given)
    }
}

impl<const D: usize> From<[f32; D]> for Vector<D> {
    fn from(elements: [f32; D]) -> Self {
        let _: u32 = Self::CHECKED;
        Vector(Box::new(elements))
    }
}

impl<const D: usize> TryFrom<&[f32]> for Vector<D> {
    type Error = Error;

    /// # Errors
    /// `Invalid` when the slice has another length than `D`.
    fn try_from(elements: &[f32]) -> Result<Self> {
        Vector::of_box(elements.into()).map_err(other_dimension::<D>)
    }
}

impl<const D: usize> TryFrom<Vec<f32>> for Vector<D> {
    type Error = Error;

    /// # Errors
    /// `Invalid` when the vector has another length than `D`.
    fn try_from(elements: Vec<f32>) -> Result<Self> {
        Vector::of_box(elements.into()).map_err(other_dimension::<D>)
    }
}

fn other_dimension<const D: usize>(given: usize) -> Error {
    Error::new(ErrorKind::Invalid, "a vector has another dimension")
        .with("wanted", D)
        .with("given", given)
}

impl<const D: usize> Deref for Vector<D> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.0.as_slice()
    }
}

impl<const D: usize> DerefMut for Vector<D> {
    fn deref_mut(&mut self) -> &mut [f32] {
        self.0.as_mut_slice()
    }
}

impl<const D: usize> fmt::Debug for Vector<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(self, f)
    }
}

impl<const D: usize> Value for Vector<D> {
    const WIRE: Wire = Wire::Vector;

    fn value_type() -> DataType {
        DataType::Vector(Self::CHECKED)
    }

    fn encode_value(&self, out: &mut Vec<u8>) {
        write(self, out);
    }

    fn decode_value(bytes: &[u8]) -> Result<Self> {
        let view = VectorView::of_whole(bytes)?;
        Vector::of_box(view.iter().collect()).map_err(|found| {
            malformed("a vector has another dimension than its type")
                .with("expected", D)
                .with("found", found)
        })
    }
}

impl<const D: usize> Column for Vector<D> {}

impl<const D: usize> VectorColumn for Vector<D> {
    const DIM: u32 = Self::CHECKED;
}

/// A vector whose dimension the schema says: `#[terrane(id = 4, vector(metric = "l2", dim = 64))]`.
///
/// ```
/// use terrane::DynVector;
///
/// let vector = DynVector::try_from(vec![1.0, 2.0])?;
/// assert_eq!(vector.len(), 2);
/// assert!(DynVector::try_from(vec![]).is_err());
/// # Ok::<(), terrane::Error>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct DynVector(Box<[f32]>);

impl DynVector {
    fn of_box(elements: Box<[f32]>) -> Result<DynVector> {
        if elements.is_empty() || elements.len() > MAX_DIMENSIONS as usize {
            return Err(
                Error::new(ErrorKind::Invalid, "a dimension is out of range")
                    .with("given", elements.len())
                    .with("limit", MAX_DIMENSIONS),
            );
        }
        Ok(DynVector(elements))
    }
}

impl TryFrom<&[f32]> for DynVector {
    type Error = Error;

    /// # Errors
    /// `Invalid` when the slice is empty or longer than 16,000.
    fn try_from(elements: &[f32]) -> Result<Self> {
        DynVector::of_box(elements.into())
    }
}

impl TryFrom<Vec<f32>> for DynVector {
    type Error = Error;

    /// # Errors
    /// `Invalid` when the vector is empty or longer than 16,000.
    fn try_from(elements: Vec<f32>) -> Result<Self> {
        DynVector::of_box(elements.into())
    }
}

impl Deref for DynVector {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for DynVector {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

impl fmt::Debug for DynVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(self, f)
    }
}

impl Value for DynVector {
    const WIRE: Wire = Wire::Vector;

    fn value_type() -> DataType {
        DataType::Vector(0)
    }

    fn encode_value(&self, out: &mut Vec<u8>) {
        write(self, out);
    }

    fn decode_value(bytes: &[u8]) -> Result<Self> {
        Ok(DynVector(VectorView::of_whole(bytes)?.iter().collect()))
    }
}

impl Column for DynVector {}

impl VectorColumn for DynVector {
    const DIM: u32 = 0;
}

/// The first few elements: a vector is too long for a line.
fn show(elements: &[f32], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    const SHOWN: usize = 4;
    write!(f, "Vector<{}>[", elements.len())?;
    for (i, element) in elements.iter().take(SHOWN).enumerate() {
        write!(f, "{}{element}", if i == 0 { "" } else { ", " })?;
    }
    f.write_str(if elements.len() > SHOWN { ", ..]" } else { "]" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_round_trip_and_keep_every_bit() {
        let vector = Vector::from([1.5, -0.0, f32::MIN_POSITIVE / 2.0, f32::MAX, f32::NAN]);
        let mut bytes = Vec::new();
        vector.encode_value(&mut bytes);
        assert_eq!(bytes.len(), 9 + 20);
        let back = Vector::<5>::decode_value(&bytes).unwrap();
        assert_eq!(back.map_bits(), vector.map_bits());
        let dynamic = DynVector::decode_value(&bytes).unwrap();
        assert_eq!(dynamic[..4], vector[..4]);
        assert_eq!(
            Vector::<4>::decode_value(&bytes).unwrap_err().kind(),
            ErrorKind::Codec
        );
    }

    impl Vector<5> {
        fn map_bits(&self) -> Vec<u32> {
            self.iter().map(|element| element.to_bits()).collect()
        }
    }

    #[test]
    fn dimensions_out_of_range_are_invalid() {
        let error = Vector::<3>::try_from(&[1.0, 2.0][..]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("wanted=3, given=2"));
        assert!(DynVector::try_from(vec![0.0; MAX_DIMENSIONS as usize]).is_ok());
        let error = DynVector::try_from(vec![0.0; MAX_DIMENSIONS as usize + 1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }

    #[test]
    fn debug_shows_the_first_elements() {
        assert_eq!(
            format!("{:?}", Vector::from([1.0, 2.5])),
            "Vector<2>[1, 2.5]"
        );
        let long = DynVector::try_from(vec![0.0; 5]).unwrap();
        assert_eq!(format!("{long:?}"), "Vector<5>[0, 0, 0, 0, ..]");
    }
}
