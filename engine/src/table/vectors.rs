//! What a vector is checked for when it is stored or asked for, and how a refusal is told.
//!
//! Both checks are one: a search over stored rows then needs none and cannot meet a NaN. What is
//! accepted is `terrane_vector`'s to say, since its kernels rest on it.

use terrane_vector::VectorError;

use crate::codec::FieldDef;
use crate::codec::vector::{VectorDef, VectorView};
use crate::error::{Error, ErrorKind, Result};

/// Whether every vector of the record may be stored and searched for.
pub(crate) fn check_vectors(fields: &[FieldDef], record: &[u8]) -> Result<()> {
    let mut elements = Vec::new();
    for def in fields {
        let Some(vector) = &def.vector else { continue };
        let Some(whole) = def.find(record)? else {
            continue;
        };
        elements.clear();
        elements.extend(VectorView::of_whole(&whole)?.iter());
        check_vector(vector, &elements).map_err(|error| error.with("field", def.name))?;
    }
    Ok(())
}

/// Whether `elements` can be stored in a field, or asked for.
///
/// # Errors
/// `Invalid`, naming what was wanted and what was given, or the element and its value.
pub(crate) fn check_vector(vector: &VectorDef, elements: &[f32]) -> Result<()> {
    if elements.len() != vector.dim as usize {
        return Err(refusal(&VectorError::Dimension {
            expected: vector.dim as usize,
            found: elements.len(),
        }));
    }
    let checked = vector.metric.check(elements);
    checked.map_err(|error| refusal(&error))
}

/// What a vector or a query is refused for.
pub(crate) fn refusal(error: &VectorError) -> Error {
    let told = |what: &'static str| Error::new(ErrorKind::Invalid, what);
    match error {
        VectorError::Dimension { expected, found } => told("a vector has another dimension")
            .with("wanted", expected)
            .with("given", found),
        VectorError::NotFinite {
            position, value, ..
        } => told("an element of a vector is not finite")
            .with("position", position)
            .with("given", value),
        VectorError::NormOverflow {
            position,
            value,
            sum_of_squares,
            ..
        } => told("the sum of squares of a vector is too large")
            .with("position", position)
            .with("given", value)
            .with("sum", sum_of_squares)
            .with("limit", f32::MAX),
        VectorError::ZeroNorm { metric, .. } => {
            told("a vector of zeros has no direction").with("metric", metric)
        }
        other => Error::new(ErrorKind::Invalid, other.to_string()),
    }
}
