//! Durable storage for Terrane: disk, clock, log. Imports nothing of ours; knows no page.
//!
//! Reading order: [`io`] (what a disk promises), [`mod@env`] (how the world enters), [`clock`]
//! (time and commit timestamps), [`lsn`] (positions); then the log: [`log`] (its calls), [`record`]
//! and [`entry`] (what is logged), [`append`], [`group_commit`] and `flush` (how it gets to disk),
//! [`frame`] and [`segment`] (how it lies there), `recovery` (where it ends), [`reader`]; at last
//! [`epochs`] and [`member`] (terms, copies and cuts of a shard's replicas).

pub mod append;
mod budget;
pub mod clock;
pub mod entry;
pub mod env;
pub mod epochs;
pub mod error;
mod flush;
pub mod frame;
pub mod group_commit;
pub mod io;
pub mod limits;
pub mod log;
pub mod lsn;
pub mod member;
#[doc(hidden)]
pub mod planted;
pub mod reader;
mod recent;
pub mod record;
mod recovery;
mod retention;
pub mod segment;
mod shelf;
pub mod stats;
mod stream;
pub mod sync;
pub mod varint;
pub mod vote;
pub mod waits;

pub use append::{Admission, Reservation, Sequenced};
pub use entry::{DecodedEntry, Entry, EntryBuilder, decode_entry};
pub use error::WalError;
pub use log::{Consumer, Level, Log, LogOptions, LogRecovery, Positions, ReplayEntry};
pub use member::EntryCopy;
pub use reader::Reader;
pub use record::{BlobId, Body, DdlKind, DdlOp, Record, RecordKind};
pub use stats::LogStats;
pub use vote::{Vote, VoteFile};
