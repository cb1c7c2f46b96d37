//! What can be asked of a table beside its keys: filters, and the rows nearest to a vector.

pub(crate) mod filter;
pub(crate) mod hit;
pub(crate) mod nearest;
