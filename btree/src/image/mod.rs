//! Images: what a checkpoint publishes and what open starts from.

pub mod gate;
pub(crate) mod meta;

use terrane_wal::lsn::{Lsn, Term, Ts};

use crate::error::StoreError;
use crate::ids::Epoch;

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

/// A checkpoint under way.
#[derive(Debug)]
pub struct Checkpoint {
    nothing: (),
}

impl Checkpoint {
    /// Does a bounded piece of work. No writer ever waits for it. An error abandons the checkpoint:
    /// the older images stay, and the next checkpoint covers what this one would have (M2).
    pub fn step(&mut self) -> Result<Step, StoreError> {
        todo!()
    }
}
