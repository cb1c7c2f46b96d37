//! Terrane.
#![forbid(unsafe_code)]

// The derive macro names this crate; inside of it the name must be there too.
extern crate self as terrane;

#[doc(hidden)]
pub mod catalog;
#[doc(hidden)]
pub mod codec;
mod error;
mod field;
pub mod limits;
mod query;
mod vector;

pub use codec::{AsKey, Desc, Key, KeyPrefix, KeyRange, Record, Ref, Value};
pub use error::{Error, ErrorKind, Outcome, Result};
pub use field::Field;
pub use query::filter::Filter;
#[cfg(feature = "derive")]
pub use terrane_derive::Record;
pub use vector::{DynVector, Vector};
