//! Images: what a checkpoint publishes and what open starts from.
//!
//! [`gate`] says which epoch a change belongs to; `writer` is the checkpoint in polled steps,
//! `mapfile` how it writes the map, `meta` the superblock; `open` reads it all back.

pub mod gate;
pub(crate) mod mapfile;
pub(crate) mod meta;
pub(crate) mod open;
pub mod survey;
pub(crate) mod writer;

use terrane_wal::lsn::{Lsn, Term, Ts};

use crate::ids::Epoch;
pub use writer::Checkpoint;

/// What a checkpoint asks of the log. Every answer is immediate.
pub trait LogView: Send + Sync {
    /// Start of the lowest entry that is not fully applied to the trees.
    fn redo_lsn(&self) -> Lsn;

    /// The highest sequenced entry: its end, timestamp and term.
    fn image_hi(&self) -> (Lsn, Ts, Term);

    /// Up to where the log can no longer be lost: min(durable, commit).
    fn safe_lsn(&self) -> Lsn;

    /// Makes `safe_lsn` move if something sequenced is not flushed yet. Does not wait.
    fn nudge(&self);

    /// No timestamp above this one was given out.
    fn clock_bound(&self) -> u64;

    /// True if this is the last checkpoint of an orderly close.
    fn clean_shutdown(&self) -> bool {
        false
    }
}

/// What a step of a checkpoint did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Some of the work; call again.
    Working,
    /// Something else must move first (a writer, the device, the log); call again soon.
    Waiting,
    /// The image is published.
    Done(Published),
}

/// A published image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its generation.
    pub generation: u64,
    /// Redo point of the OLDER of the two retained images: the log may be trimmed below it (L4).
    pub older_redo_lsn: Lsn,
}
