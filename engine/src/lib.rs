//! Terrane: an embedded transactional storage engine.
#![forbid(unsafe_code)]

// The derive macro names this crate; inside of it the name must be there too.
extern crate self as terrane;

mod apply;
mod builder;
#[doc(hidden)]
pub mod catalog;
mod checkpoint;
#[doc(hidden)]
pub mod codec;
mod database;
mod error;
mod field;
pub mod limits;
mod metrics;
mod query;
mod recovery;
mod runtime;
mod txn;
mod vector;

pub use builder::{Builder, Create};
pub use codec::{AsKey, Desc, Key, KeyPrefix, KeyRange, Record, Ref, Value};
pub use database::{Commit, Database, Durability, Position, Writer};
pub use error::{Error, ErrorKind, Outcome, Result};
pub use field::Field;
pub use metrics::{IoCounts, Stats};
pub use query::filter::Filter;
pub use recovery::RecoveryProgress;
#[cfg(feature = "derive")]
pub use terrane_derive::Record;
pub use txn::{Isolation, Read, Savepoint, Snapshot, Transaction};
pub use vector::{DynVector, Vector};
