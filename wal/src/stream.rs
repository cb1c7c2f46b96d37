//! From slices of the record stream back to entries.
//!
//! Frames and segments cut entries anywhere; this puts the pieces together again. Memory grows only
//! with bytes that were really read, never by a length that was claimed.

use crate::entry::{EntryWalk, decode_entry};
use crate::error::WalError;
use crate::log::ReplayEntry;
use crate::lsn::Lsn;

/// Entries in a stream that arrives in slices.
#[derive(Debug)]
pub(crate) struct EntryStream {
    /// Where the next entry begins.
    next: Lsn,
    /// Bytes of the stream from `next - used` on.
    carry: Vec<u8>,
    used: usize,
    walk: EntryWalk,
}

impl EntryStream {
    /// A stream whose next entry begins at `next`.
    pub(crate) fn new(next: Lsn) -> EntryStream {
        EntryStream {
            next,
            carry: Vec::new(),
            used: 0,
            walk: EntryWalk::default(),
        }
    }

    /// Where the next entry begins: the end of the last complete one.
    pub(crate) fn position(&self) -> Lsn {
        self.next
    }

    /// Takes the slice that begins at `base`. What lies before the first entry wanted is skipped.
    pub(crate) fn feed(&mut self, base: Lsn, slice: &[u8]) {
        self.carry.drain(..self.used);
        self.used = 0;
        let have = self.next.advance(self.carry.len() as u64);
        let skip = have.0.saturating_sub(base.0) as usize;
        self.carry
            .extend_from_slice(slice.get(skip..).unwrap_or(&[]));
    }

    /// True if `take` has an entry.
    pub(crate) fn is_ready(&mut self) -> Result<bool, WalError> {
        Ok(self.walk.advance(&self.carry[self.used..])?.is_some())
    }

    /// The next complete entry.
    pub(crate) fn take(&mut self) -> Result<Option<ReplayEntry<'_>>, WalError> {
        let rest = &self.carry[self.used..];
        let Some(len) = self.walk.advance(rest)? else {
            return Ok(None);
        };
        let entry = decode_entry(&rest[..len])?;
        let begin = self.next;
        self.used += len;
        self.walk = EntryWalk::default();
        self.next = begin.advance(len as u64);
        Ok(Some(ReplayEntry {
            begin,
            end: self.next,
            ts: entry.ts(),
            entry,
        }))
    }
}
