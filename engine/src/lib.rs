//! Terrane: an embedded transactional storage engine.
#![forbid(unsafe_code)]

// The derive macro names this crate; inside of it the name must be there too.
extern crate self as terrane;

mod catalog;
#[doc(hidden)]
pub mod codec;
mod database;
mod error;
pub mod limits;
mod txn;

pub use codec::{AsKey, Desc, Key, KeyPrefix, KeyRange, Record, Value};
pub use database::{Commit, Database, Durability, Position, Writer};
pub use error::{Error, ErrorKind, Outcome, Result};
pub use txn::{Isolation, Read, Snapshot, Transaction};
