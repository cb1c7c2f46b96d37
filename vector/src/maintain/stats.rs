//! What maintenance has done and has before it.

use crate::record::State;

/// Counters of a [`crate::Maintainer`], since it was made, and the state of its postings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MaintenanceStats {
    /// Postings that became two.
    pub splits: u64,
    /// Of these, postings of (nearly) equal vectors, cut by row id.
    pub equal_splits: u64,
    /// Postings whose entries went to others.
    pub merges: u64,
    /// Tails packed, or dead entries dropped.
    pub folds: u64,
    /// Postings that got a new centre.
    pub recentred: u64,
    /// Rows that left the unassigned posting.
    pub assigned: u64,
    /// Entries that a reassign looked at.
    pub evaluated: u64,
    /// Of these, entries whose rows were read.
    pub undecided: u64,
    /// Entries that a sweep compared with all centres.
    pub swept: u64,
    /// Entries that moved after one or the other.
    pub moved: u64,
    /// Rows left for a later slice because somebody used them (S7).
    pub skipped: u64,
    /// Entries dropped because no snapshot needs them.
    pub dropped: u64,
    /// System transactions.
    pub commits: u64,
    /// Work in the queue, reassigns among it.
    pub queue: usize,
    /// Postings that take entries of one that drains.
    pub receiving: usize,
    /// Ordinary postings.
    pub ready: usize,
    /// Postings whose entries go elsewhere.
    pub draining: usize,
    /// Live entries in all postings, about; each copy counts.
    pub live: u64,
    /// Marked entries, about.
    pub dead: u64,
    /// Entries in tails, about.
    pub tail: u64,
}

impl MaintenanceStats {
    /// Counts a posting.
    pub(crate) fn count(&mut self, state: State) {
        match state {
            State::Receiving => self.receiving += 1,
            State::Ready => self.ready += 1,
            State::Draining => self.draining += 1,
        }
    }
}
