//! Vector fields: where their elements lie in an encoded record, and the checks on them.

use super::value::Column;

/// How distances between vectors are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Metric {
    /// Squared Euclidean distance.
    L2 = 1,
    /// One minus the cosine of the angle.
    Cosine = 2,
    /// The negative inner product.
    Dot = 3,
}

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
