//! Rows of several shards in the order of their keys, from both ends.
//!
//! Each part gives its rows in order; the least (or greatest) of the next ones comes first. Of each
//! part one row is held for each end: where one end of a part is used up, what the other holds of
//! it is its last row.

use crate::error::Result;
use crate::table::scan::{LentRow, RawEnds, RawRow};

/// The rows of one shard.
#[derive(Debug)]
struct Part {
    ends: RawEnds,
    front: Option<RawRow>,
    back: Option<RawRow>,
}

impl Part {
    /// The next row at one end.
    fn peek(&mut self, from_back: bool) -> Result<Option<&RawRow>> {
        let held = match from_back {
            false => &mut self.front,
            true => &mut self.back,
        };
        if held.is_none() {
            *held = match from_back {
                false => self.ends.next(),
                true => self.ends.next_back(),
            }
            .transpose()?;
        }
        Ok(match from_back {
            false => self.front.as_ref().or(self.back.as_ref()),
            true => self.back.as_ref().or(self.front.as_ref()),
        })
    }

    /// Takes the row that was peeked.
    fn take(&mut self, from_back: bool) -> Option<RawRow> {
        let (near, far) = match from_back {
            false => (&mut self.front, &mut self.back),
            true => (&mut self.back, &mut self.front),
        };
        let last = || match terrane_wal::planted!("a_merge_forgets_the_other_end") {
            true => None,
            false => far.take(),
        };
        near.take().or_else(last)
    }
}

/// Several scans as one.
#[derive(Debug)]
pub(crate) struct Merge {
    parts: Vec<Part>,
    current: RawRow,
    part: usize,
}

impl Merge {
    pub(crate) fn new(parts: Vec<RawEnds>) -> Merge {
        let part = |ends| Part {
            ends,
            front: None,
            back: None,
        };
        Merge {
            parts: parts.into_iter().map(part).collect(),
            current: RawRow::default(),
            part: 0,
        }
    }

    /// Goes to the next row at one end; false if there is none. O(parts).
    pub(crate) fn advance(&mut self, from_back: bool) -> Result<bool> {
        let mut best: Option<(usize, &[u8])> = None;
        for (at, part) in self.parts.iter_mut().enumerate() {
            let Some((key, _)) = part.peek(from_back)? else {
                continue;
            };
            let better = best.is_none_or(|(_, best)| match from_back {
                false => **key < *best,
                true => **key >= *best,
            });
            if better {
                best = Some((at, key));
            }
        }
        let Some((at, _)) = best else {
            return Ok(false);
        };
        let Some(row) = self.parts[at].take(from_back) else {
            return Ok(false);
        };
        (self.current, self.part) = (row, at);
        Ok(true)
    }

    /// The row that it stands on.
    pub(crate) fn row(&self) -> LentRow<'_> {
        (&self.current.0, &self.current.1)
    }

    /// Which part that comes from.
    pub(crate) fn part(&self) -> usize {
        self.part
    }
}
