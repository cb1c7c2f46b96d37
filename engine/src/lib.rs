//! Terrane: an embedded transactional storage engine.
//!
//! Under `--cfg loom` only the parts exist that the models of `txn` run.
#![forbid(unsafe_code)]

// The derive macro names this crate; inside of it the name must be there too.
extern crate self as terrane;

#[cfg(not(loom))]
mod apply;
#[cfg(not(loom))]
mod builder;
#[cfg(not(loom))]
#[doc(hidden)]
pub mod catalog;
#[cfg(not(loom))]
mod checkpoint;
#[cfg(not(loom))]
#[doc(hidden)]
pub mod codec;
#[cfg(not(loom))]
mod database;
mod error;
#[cfg(not(loom))]
mod field;
#[cfg(not(loom))]
mod index;
#[cfg(not(loom))]
pub mod inspect;
pub mod limits;
#[cfg(not(loom))]
mod metrics;
#[cfg(not(loom))]
mod query;
#[cfg(not(loom))]
mod recovery;
#[cfg(not(loom))]
mod runtime;
#[cfg(not(loom))]
mod table;
mod txn;
#[cfg(not(loom))]
mod vector;

#[cfg(not(loom))]
pub use builder::{Builder, Create, Io};
#[cfg(not(loom))]
pub use codec::{AsKey, Desc, Key, KeyPrefix, KeyRange, Record, Ref, Value};
#[cfg(not(loom))]
pub use database::{Commit, Database, Durability, Position, Writer};
pub use error::{Error, ErrorKind, Outcome, Result};
#[cfg(not(loom))]
pub use field::Field;
#[cfg(not(loom))]
pub use index::{Index, IndexScan};
#[cfg(not(loom))]
pub use inspect::{CheckReport, Finding, check};
#[cfg(not(loom))]
pub use metrics::{IoCounts, Stats};
#[cfg(not(loom))]
pub use query::filter::Filter;
#[cfg(not(loom))]
pub use query::{hit::Hit, nearest::Nearest};
#[cfg(not(loom))]
pub use recovery::RecoveryProgress;
#[cfg(not(loom))]
pub use table::{Table, def::TableDef, scan::Scan};
#[cfg(all(feature = "derive", not(loom)))]
pub use terrane_derive::Record;
#[cfg(not(loom))]
pub use txn::{Isolation, Read, Savepoint, Snapshot, Transaction};
#[cfg(not(loom))]
pub use vector::{DynVector, Vector};
