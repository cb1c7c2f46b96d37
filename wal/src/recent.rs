//! The newest entries, kept in memory for those who follow the log.
//!
//! A replica's entries go to the others before they are on this disk, so they must be found
//! somewhere else until they are; and most of what is sent again was sent a moment ago.
//!
//! Invariant: what is filled and not durable is here, if anything is kept at all.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::group_commit::Content;
use crate::lsn::Lsn;

/// An entry that was filled.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) begin: Lsn,
    pub(crate) end: Lsn,
    pub(crate) bytes: Arc<Vec<u8>>,
}

/// Entries without a gap, the last one filled at the end.
#[derive(Debug)]
pub(crate) struct Recent {
    /// Bytes to keep; 0: nothing is kept.
    most: usize,
    bytes: usize,
    kept: VecDeque<Kept>,
}

impl Recent {
    pub(crate) fn new(most: usize) -> Recent {
        Recent {
            most,
            bytes: 0,
            kept: VecDeque::new(),
        }
    }

    /// The next entry was filled; those up to `durable` may go.
    pub(crate) fn push(&mut self, begin: Lsn, content: &Content, durable: Lsn) {
        if self.most == 0 {
            return;
        }
        self.bytes += content.bytes.len();
        self.kept.push_back(Kept {
            begin,
            end: begin.advance(content.bytes.len() as u64),
            bytes: Arc::clone(&content.bytes),
        });
        while self.bytes > self.most
            && let Some(first) = self.kept.front()
            && first.end <= durable
        {
            self.bytes -= first.bytes.len();
            self.kept.pop_front();
        }
    }

    /// Where the first entry begins that is here.
    pub(crate) fn begin(&self) -> Option<Lsn> {
        self.kept.front().map(|first| first.begin)
    }

    /// Entries from the one that begins at `from` on, of about `bytes` bytes; `None` if that one is
    /// not here.
    pub(crate) fn read(&self, from: Lsn, bytes: usize) -> Option<Vec<Kept>> {
        let at = self.kept.partition_point(|kept| kept.begin < from);
        let first = self.kept.get(at).filter(|kept| kept.begin == from)?;
        let mut room = bytes.saturating_sub(first.bytes.len());
        let fits = |kept: &&Kept| {
            let fits = kept.bytes.len() <= room;
            room = room.saturating_sub(kept.bytes.len());
            fits
        };
        let rest = self.kept.range(at + 1..).take_while(fits).cloned();
        Some(std::iter::once(first.clone()).chain(rest).collect())
    }

    /// The entry that ends at `end`, if it is here.
    pub(crate) fn ending(&self, end: Lsn) -> Option<&Kept> {
        let at = self.kept.partition_point(|kept| kept.end < end);
        self.kept.get(at).filter(|kept| kept.end == end)
    }

    /// Forgets what lies behind the end of an entry.
    pub(crate) fn cut(&mut self, to: Lsn) {
        while let Some(last) = self.kept.back()
            && last.end > to
        {
            self.bytes -= last.bytes.len();
            self.kept.pop_back();
        }
    }
}
