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
mod index;
pub mod limits;
mod metrics;
mod query;
mod recovery;
mod runtime;
mod table;
mod txn;
mod vector;

pub use builder::{Builder, Create};
pub use codec::{AsKey, Desc, Key, KeyPrefix, KeyRange, Record, Ref, Value};
pub use database::{Commit, Database, Durability, Position, Writer};
pub use error::{Error, ErrorKind, Outcome, Result};
pub use field::Field;
pub use index::{Index, IndexScan};
pub use metrics::{IoCounts, Stats};
pub use query::filter::Filter;
pub use query::hit::Hit;
pub use query::nearest::Nearest;
pub use recovery::RecoveryProgress;
pub use table::Table;
pub use table::def::TableDef;
pub use table::scan::Scan;
#[cfg(feature = "derive")]
pub use terrane_derive::Record;
pub use txn::{Isolation, Read, Savepoint, Snapshot, Transaction};
pub use vector::{DynVector, Vector};
