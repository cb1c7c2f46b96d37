//! What can be wrong with a vector, a query or a search: one small enum for the host to map.
//!
//! Every variant names what was expected and what was found. Nothing here is a panic: vectors
//! come from callers and from disk. The host adds the place (table, field, row) when it wraps.

use std::fmt;

use crate::limits::{MAX_DIM, MAX_K};
use crate::metric::Metric;

/// A vector, a query or a search that cannot be served.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum VectorError {
    /// A row or a query whose dimension differs from that of the search.
    Dimension {
        /// Dimension of the search or of the column.
        expected: usize,
        /// Dimension of the vector that was given.
        found: usize,
    },
    /// A dimension outside `1..=MAX_DIM`.
    DimensionRange {
        /// Dimension that was given.
        found: usize,
    },
    /// Encoded elements whose length is not four bytes an element.
    ByteLength {
        /// Bytes that the dimension asks for.
        expected: usize,
        /// Bytes that were given.
        found: usize,
    },
    /// An element that is NaN or infinite.
    NotFinite {
        /// Metric of the search or of the column.
        metric: Metric,
        /// Index of the first such element.
        position: usize,
        /// The element.
        value: f32,
    },
    /// The sum of squares is above `f32::MAX`, so a distance could not be represented.
    NormOverflow {
        /// Metric of the search or of the column.
        metric: Metric,
        /// Index of the element of greatest magnitude (the first of equals).
        position: usize,
        /// That element.
        value: f32,
        /// The sum of squares of all elements.
        sum_of_squares: f64,
    },
    /// All elements are zero and the metric is an angle: the vector has no direction.
    ZeroNorm {
        /// Metric of the search or of the column.
        metric: Metric,
        /// Dimension of the vector.
        dim: usize,
    },
    /// More neighbours asked for than one search returns.
    TooMany {
        /// The `k` that was given.
        found: usize,
    },
    /// A metric name that is none of `l2`, `cosine`, `dot`.
    MetricName {
        /// The name that was given.
        found: String,
    },
    /// A stored metric code that no metric has.
    MetricCode {
        /// The code that was found.
        found: u8,
    },
}

impl fmt::Display for VectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dimension { expected, found } => {
                write!(f, "vector dimension: expected {expected}, found {found}")
            }
            Self::DimensionRange { found } => {
                write!(
                    f,
                    "vector dimension: expected 1 to {MAX_DIM}, found {found}"
                )
            }
            Self::ByteLength { expected, found } => {
                write!(
                    f,
                    "vector elements: expected {expected} bytes, found {found}"
                )
            }
            Self::NotFinite {
                metric,
                position,
                value,
            } => write!(
                f,
                "vector element {position} ({metric}): expected a finite number, found {value}"
            ),
            Self::NormOverflow {
                metric,
                position,
                value,
                sum_of_squares,
            } => write!(
                f,
                "vector ({metric}): expected a sum of squares of at most {:e}, found \
                 {sum_of_squares:e}; the greatest element is {value:e} at {position}",
                f32::MAX
            ),
            Self::ZeroNorm { metric, dim } => write!(
                f,
                "vector ({metric}): expected a non-zero element, found {dim} elements 0"
            ),
            Self::TooMany { found } => {
                write!(
                    f,
                    "neighbours asked for: expected at most {MAX_K}, found {found}"
                )
            }
            Self::MetricName { found } => {
                write!(f, "metric: expected l2, cosine or dot, found {found:?}")
            }
            Self::MetricCode { found } => {
                write!(f, "metric code: expected 1, 2 or 3, found {found}")
            }
        }
    }
}

impl std::error::Error for VectorError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_what_was_expected_and_found() {
        let cases = [
            (
                VectorError::Dimension {
                    expected: 384,
                    found: 3,
                },
                "vector dimension: expected 384, found 3",
            ),
            (
                VectorError::NotFinite {
                    metric: Metric::Cosine,
                    position: 7,
                    value: f32::NEG_INFINITY,
                },
                "vector element 7 (cosine): expected a finite number, found -inf",
            ),
            (
                VectorError::TooMany { found: 10_001 },
                "neighbours asked for: expected at most 10000, found 10001",
            ),
            (
                VectorError::MetricName {
                    found: "l1".to_owned(),
                },
                "metric: expected l2, cosine or dot, found \"l1\"",
            ),
        ];
        for (error, message) in cases {
            assert_eq!(error.to_string(), message);
        }
    }
}
