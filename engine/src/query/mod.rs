//! What can be asked of a table beside its keys.

pub(crate) mod filter;
