//! Terrane: an embedded, transactional storage engine.
//!
//! ```
//! use terrane::{Database, Result, TableDef};
//!
//! const SCORES: TableDef<String, u64> = TableDef::new("scores");
//!
//! fn main() -> Result<()> {
//! # let folder = tempfile::tempdir().expect("a folder");
//! # let path = folder.path().join("game.terrane");
//! # let open = |_: &str| Database::open(&path);
//! # /*
//!     let db = Database::open("game.terrane")?;
//! # */
//! # let db = open("game.terrane")?;
//!     let scores = db.table(SCORES)?; // created, or checked against the stored schema
//!
//!     db.write(|tx| {
//!         scores.put(tx, "ada", &90)?;
//!         scores.put(tx, "grace", &97)
//!     })?;
//!
//!     let now = db.snapshot(); // owned, Send, cheap; blocks no writer
//!     assert_eq!(scores.get(&now, "ada")?, Some(90));
//!     for row in scores.range(&now, "ada".."b").rev() {
//!         let (name, score) = row?;
//!         println!("{name}: {score}");
//!     }
//!     Ok(())
//! }
//! ```
//!
//! | I want to | look at |
//! |---|---|
//! | keep rows under a key | [`TableDef`], [`Table`], example `01_table` |
//! | change several rows or none | [`Database::write`], [`Transaction`], `02_transactions` |
//! | find rows by another field | [`Record`], [`Table::index`], example `03_indexes` |
//! | find the nearest vectors | [`Vector`], [`Table::nearest`], example `04_vectors` |
//! | read one state for long | [`Database::snapshot`], [`Snapshot`] |
//! | choose memory, durability, page size | [`Builder`] |
//! | know what went wrong and what to do | [`Error`], [`ErrorKind`], [`Outcome`] |
//! | know every byte on disk | [`guide::format`] |
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
pub mod cluster;
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
mod local;
#[cfg(not(loom))]
mod metrics;
#[cfg(not(loom))]
mod query;
#[cfg(not(loom))]
mod recovery;
#[cfg(not(loom))]
mod replica;
#[cfg(not(loom))]
mod routes;
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
pub use database::{Commit, CrossShard, Database, Durability, Position, Writer};
pub use error::{Error, ErrorKind, Outcome, Result};
#[cfg(not(loom))]
pub use field::Field;
#[cfg(not(loom))]
pub use index::vector::build::{BuildProgress, Built, CreateIndex};
#[cfg(not(loom))]
pub use index::{Index, IndexScan};
#[cfg(not(loom))]
pub use inspect::{CheckReport, Finding, check};
#[cfg(not(loom))]
pub use metrics::{IoCounts, MaintenanceStats, Stats, VectorStats};
#[cfg(not(loom))]
pub use query::filter::Filter;
#[cfg(not(loom))]
pub use query::{
    hit::Hit,
    nearest::{Advanced, Nearest},
};
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

/// Guides: longer texts than a type's own page.
#[cfg(not(loom))]
pub mod guide {
    #[doc = include_str!("guide/format.md")]
    pub mod format {}
}
