//! What "near" means: the metrics, their stored codes and names, and which vectors each accepts.
//!
//! A metric is a property of a column or an index and never changes there; its code is stored in
//! the schema. Vectors are checked once, when they enter (a row at `put`, a query at `nearest`),
//! so that a search over stored rows needs no checks and cannot meet a NaN.

use std::fmt;
use std::str::FromStr;

use crate::error::VectorError;
use crate::limits::MAX_DIM;
use crate::wide;

/// How the distance of two vectors is measured. Smaller is nearer for all.
///
/// The discriminant is the code in the schema: it never changes. 0 stays free for "none".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Metric {
    /// Euclidean distance: the root of the sum of squared differences, 0 and up.
    L2 = 1,
    /// One minus the cosine of the angle between the vectors, 0 to 2. A zero vector is refused.
    Cosine = 2,
    /// The negative inner product, so that the largest product is the nearest.
    Dot = 3,
}

impl Metric {
    /// Every metric, by code.
    pub const ALL: [Self; 3] = [Self::L2, Self::Cosine, Self::Dot];

    /// The code that the schema stores.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The metric of a stored code.
    ///
    /// # Errors
    /// [`VectorError::MetricCode`] if no metric has the code.
    pub fn from_code(code: u8) -> Result<Self, VectorError> {
        let found = Self::ALL.into_iter().find(|metric| metric.code() == code);
        found.ok_or(VectorError::MetricCode { found: code })
    }

    /// The name in a schema's text form.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::L2 => "l2",
            Self::Cosine => "cosine",
            Self::Dot => "dot",
        }
    }

    /// Whether `vector` may be stored or searched for under this metric. O(dimension).
    ///
    /// Subnormal numbers, zeros of either sign and huge numbers are accepted as long as the sum of
    /// squares is at most `f32::MAX`. It is summed in `f64` in a fixed order, where the square of
    /// an `f32` is exact: every machine accepts the same vectors.
    ///
    /// # Errors
    /// * [`VectorError::DimensionRange`]: no element, or more than [`MAX_DIM`].
    /// * [`VectorError::NotFinite`]: a NaN or an infinity.
    /// * [`VectorError::NormOverflow`]: a sum of squares above `f32::MAX`.
    /// * [`VectorError::ZeroNorm`]: all elements zero and the metric is [`Metric::Cosine`].
    pub fn check(self, vector: &[f32]) -> Result<(), VectorError> {
        if vector.is_empty() || vector.len() > MAX_DIM {
            return Err(VectorError::DimensionRange {
                found: vector.len(),
            });
        }
        let sum_of_squares = wide::norm_squared(vector);
        if sum_of_squares > f64::from(f32::MAX) || sum_of_squares.is_nan() {
            return Err(self.refusal(vector, sum_of_squares));
        }
        if sum_of_squares == 0.0 && self == Self::Cosine {
            return Err(VectorError::ZeroNorm {
                metric: self,
                dim: vector.len(),
            });
        }
        Ok(())
    }

    /// Names the element because of which the sum of squares is out of range.
    #[cold]
    fn refusal(self, vector: &[f32], sum_of_squares: f64) -> VectorError {
        let (mut position, mut value) = (0, 0.0_f32);
        for (at, &element) in vector.iter().enumerate() {
            if !element.is_finite() {
                return VectorError::NotFinite {
                    metric: self,
                    position: at,
                    value: element,
                };
            }
            if element.abs() > value.abs() {
                (position, value) = (at, element);
            }
        }
        VectorError::NormOverflow {
            metric: self,
            position,
            value,
            sum_of_squares,
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Metric {
    type Err = VectorError;

    /// Parses the exact name: `l2`, `cosine` or `dot`.
    fn from_str(name: &str) -> Result<Self, VectorError> {
        let found = Self::ALL.into_iter().find(|metric| metric.name() == name);
        found.ok_or_else(|| VectorError::MetricName {
            found: name.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_are_stable() {
        let stored = [(1, "l2"), (2, "cosine"), (3, "dot")];
        for (metric, (code, name)) in Metric::ALL.into_iter().zip(stored) {
            assert_eq!(metric.code(), code);
            assert_eq!(metric.to_string(), name);
            assert_eq!(Metric::from_code(code), Ok(metric));
            assert_eq!(name.parse(), Ok(metric));
        }
        for code in [0, 4, 255] {
            assert_eq!(
                Metric::from_code(code),
                Err(VectorError::MetricCode { found: code })
            );
        }
        for name in ["", "L2", "cos", "dot "] {
            let found = name.to_owned();
            assert_eq!(
                name.parse::<Metric>(),
                Err(VectorError::MetricName { found })
            );
        }
    }

    #[test]
    fn dimension_is_one_to_the_limit() {
        for metric in Metric::ALL {
            assert_eq!(metric.check(&[1.0]), Ok(()));
            assert_eq!(metric.check(&vec![1.0; MAX_DIM]), Ok(()));
            for found in [0, MAX_DIM + 1] {
                let refused = VectorError::DimensionRange { found };
                assert_eq!(metric.check(&vec![1.0; found]), Err(refused));
            }
        }
    }

    #[test]
    fn nan_and_infinity_are_named_wherever_they_stand() {
        for metric in Metric::ALL {
            for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for position in 0..70 {
                    let mut vector = [1e18; 70];
                    vector[position] = bad;
                    match metric.check(&vector) {
                        Err(VectorError::NotFinite {
                            metric: m,
                            position: p,
                            value,
                        }) => {
                            assert_eq!((m, p), (metric, position));
                            assert_eq!(value.to_bits(), bad.to_bits());
                        }
                        other => panic!("{bad} at {position}: {other:?}"),
                    }
                }
            }
        }
    }

    #[test]
    fn the_sum_of_squares_must_fit() {
        // 2^63 squared is 2^126: three of them fit below 2^128, four do not.
        let big = 2f32.powi(63);
        for metric in Metric::ALL {
            assert_eq!(metric.check(&[0.0, big, -big, big]), Ok(()));
            let refused = VectorError::NormOverflow {
                metric,
                position: 1,
                value: big,
                sum_of_squares: 2f64.powi(128),
            };
            assert_eq!(metric.check(&[0.0, big, -big, big, big]), Err(refused));
        }
    }

    #[test]
    fn only_an_angle_needs_a_direction() {
        let zero = [0.0, -0.0, 0.0];
        assert_eq!(Metric::L2.check(&zero), Ok(()));
        assert_eq!(Metric::Dot.check(&zero), Ok(()));
        let refused = VectorError::ZeroNorm {
            metric: Metric::Cosine,
            dim: 3,
        };
        assert_eq!(Metric::Cosine.check(&zero), Err(refused));
        assert_eq!(Metric::Cosine.check(&[0.0, f32::from_bits(1)]), Ok(()));
    }
}
