//! Terrane: an embedded transactional storage engine.
#![forbid(unsafe_code)]

mod catalog;
mod database;
mod error;
mod txn;

pub use database::{Commit, Database, Durability, Position, Writer};
pub use error::{Error, ErrorKind, Outcome, Result};
pub use txn::{Isolation, Read, Snapshot, Transaction};
