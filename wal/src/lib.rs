//! Durable storage for Terrane: disk, clock, log. Imports nothing of ours; knows no page.
//!
//! Reading order: [`io`] (what a disk promises), [`env`] (how the world enters), [`clock`]
//! (time and commit timestamps), [`lsn`] (positions).

pub mod clock;
pub mod entry;
pub mod env;
pub mod error;
pub mod frame;
pub mod io;
pub mod limits;
pub mod log;
pub mod lsn;
pub mod record;
pub mod segment;
pub mod stats;
pub mod sync;
pub mod varint;

pub use entry::{DecodedEntry, Entry, EntryBuilder, decode_entry};
pub use error::WalError;
pub use log::{
    Admission, Consumer, Level, Log, LogOptions, LogRecovery, Positions, Reader, ReplayEntry,
    Reservation, Sequenced,
};
pub use record::{BlobId, Body, DdlKind, DdlOp, Record, RecordKind};
pub use stats::LogStats;
