//! Terrane.
#![forbid(unsafe_code)]

// The derive macro names this crate; inside of it the name must be there too.
extern crate self as terrane;

#[doc(hidden)]
pub mod codec;
mod error;
pub mod limits;

pub use codec::{AsKey, Desc, Key, KeyPrefix, KeyRange, Record, Value};
pub use error::{Error, ErrorKind, Outcome, Result};
