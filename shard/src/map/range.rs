//! Key ranges: what a shard serves, from an id up to another one that is no longer part of it.
//!
//! A range is made by a parse, by the generator or by a vindex, and is asked by the shard map.
//! Bounds are normalised ids, and an open end is a value of its own instead of an empty string, so
//! that the two meanings of "empty" (least start, greatest end) cannot be mixed up:
//!
//! ```text
//!   -40         40-80         80-
//! |-----------|-------------|----------------->   ids
//! start MIN    [40, 80)      end Open
//! ```
//!
//! Invariants:
//! - R1: the start is below the end, so no range is empty.
//! - R2: ranges are equal exactly if they hold the same ids: bounds are normal (N1), and an end is
//!   never the least id.
//! - R3: the derived order is by start, then by end, the open end last.

use std::fmt;
use std::str::FromStr;

use super::error::MapError;
use super::id::KeyspaceId;

/// Where a range ends. The order of the variants is the order of ends (R3).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum End {
    /// Below this id, which is never the least one.
    Below(KeyspaceId),
    /// Nowhere: every id from the start on.
    Open,
}

/// The ids from a start up to an end that is no part of it, or without an end.
///
/// Shown as `start-end` in lower-case hex, an open side as nothing. Reading accepts that, upper
/// case, zeros at the end of a bound, and `0` for all ids.
///
/// ```
/// use terrane_shard::{KeyRange, MapError};
///
/// # fn main() -> Result<(), MapError> {
/// let range: KeyRange = "4000-8000".parse()?;
/// assert_eq!(range.to_string(), "40-80");
/// assert!(range.contains(&"40".parse()?) && !range.contains(&"80".parse()?));
/// let error = "80-8000".parse::<KeyRange>().unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "key range: expected an end above its start, found both at \"80\""
/// );
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyRange {
    start: KeyspaceId,
    end: End,
}

impl KeyRange {
    /// All ids.
    pub const ALL: KeyRange = KeyRange {
        start: KeyspaceId::MIN,
        end: End::Open,
    };

    /// The ids from `start` on and below `end`, or all from `start` on.
    ///
    /// # Errors
    /// [`MapError::EmptyRange`] or [`MapError::Reversed`] where no id would be left.
    pub fn new(start: KeyspaceId, end: Option<KeyspaceId>) -> Result<KeyRange, MapError> {
        let end = match end {
            None => End::Open,
            Some(end) if end > start => End::Below(end), // R1
            Some(end) if end == start => return Err(MapError::EmptyRange { bound: start }),
            Some(end) => return Err(MapError::Reversed { start, end }),
        };
        Ok(KeyRange { start, end })
    }

    /// The ids that begin with these bytes, zeros at their end counted.
    ///
    /// The end is the prefix plus one, with carry (`01ff` ends at `02`). It is open where every
    /// byte is `ff`, and an empty prefix gives all ids (the rule of Vitess,
    /// `NewKeyRangeFromPrefix`). An id shorter than the prefix begins with it if it does so once
    /// filled up with zeros.
    ///
    /// # Errors
    /// [`MapError::IdTooLong`] where the prefix is longer than an id can be.
    pub fn of_prefix(prefix: &[u8]) -> Result<KeyRange, MapError> {
        let start = KeyspaceId::new(prefix)?;
        let Some(last) = prefix.iter().rposition(|&byte| byte != 0xff) else {
            return KeyRange::new(start, None);
        };
        let mut end = prefix[..=last].to_vec();
        end[last] += 1;
        KeyRange::new(start, Some(KeyspaceId::new(&end)?))
    }

    /// The least id.
    #[must_use]
    pub fn start(&self) -> &KeyspaceId {
        &self.start
    }

    /// The first id above, or none where the range is open.
    #[must_use]
    pub fn end(&self) -> Option<&KeyspaceId> {
        match &self.end {
            End::Below(end) => Some(end),
            End::Open => None,
        }
    }

    /// Whether the range holds every id.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == KeyRange::ALL
    }

    /// Whether the id is in the range.
    #[must_use]
    pub fn contains(&self, id: &KeyspaceId) -> bool {
        self.start <= *id && self.end().is_none_or(|end| id < end)
    }

    /// Whether every id of `other` is in the range.
    #[must_use]
    pub fn contains_range(&self, other: &KeyRange) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// Whether some id is in both.
    #[must_use]
    pub fn intersects(&self, other: &KeyRange) -> bool {
        self.end().is_none_or(|end| other.start < *end)
            && other.end().is_none_or(|end| self.start < *end)
    }

    /// The ids that are in both, or none.
    #[must_use]
    pub fn intersection(&self, other: &KeyRange) -> Option<KeyRange> {
        self.intersects(other).then(|| KeyRange {
            start: self.start.clone().max(other.start.clone()),
            end: self.end.clone().min(other.end.clone()),
        })
    }

    /// Whether `next` begins where this range ends. Never so where this one is open.
    #[must_use]
    pub fn is_followed_by(&self, next: &KeyRange) -> bool {
        self.end() == Some(&next.start)
    }

    /// The ids of two neighbours, in either order, or none where they are not neighbours.
    #[must_use]
    pub fn join(&self, other: &KeyRange) -> Option<KeyRange> {
        let (first, second) = match (self.is_followed_by(other), other.is_followed_by(self)) {
            (true, _) => (self, other),
            (_, true) => (other, self),
            _ => return None,
        };
        Some(KeyRange {
            start: first.start.clone(),
            end: second.end.clone(),
        })
    }

    /// The ids below `at` and those from `at` on.
    ///
    /// # Errors
    /// [`MapError::SplitOutside`] where one part would be empty.
    pub fn split_at(&self, at: &KeyspaceId) -> Result<(KeyRange, KeyRange), MapError> {
        if !self.contains(at) || self.start == *at {
            return Err(MapError::SplitOutside {
                range: self.clone(),
                at: at.clone(),
            });
        }
        let below = KeyRange {
            start: self.start.clone(),
            end: End::Below(at.clone()),
        };
        let above = KeyRange {
            start: at.clone(),
            end: self.end.clone(),
        };
        debug_assert!(below.is_followed_by(&above));
        Ok((below, above))
    }

    /// A range from two sides of a text, where an empty side is open.
    pub(super) fn parse_sides(
        text: &str,
        (start_at, start): (usize, &str),
        (end_at, end): (usize, &str),
    ) -> Result<KeyRange, MapError> {
        let start = KeyspaceId::parse_side(text, start_at, start)?;
        let end = match end {
            "" => None,
            end => Some(KeyspaceId::parse_side(text, end_at, end)?),
        };
        KeyRange::new(start, end)
    }
}

impl fmt::Display for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-", self.start)?;
        self.end().map_or(Ok(()), |end| end.fmt(f))
    }
}

impl fmt::Debug for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRange({self})")
    }
}

impl FromStr for KeyRange {
    type Err = MapError;

    /// Reads `start-end`, or `0` for all ids.
    ///
    /// # Errors
    /// [`MapError::RangeText`] where there is not one dash; what [`KeyspaceId`] and
    /// [`KeyRange::new`] refuse. Bounds are compared as bytes: `80-8000` is empty.
    fn from_str(text: &str) -> Result<KeyRange, MapError> {
        if text == "0" {
            return Ok(KeyRange::ALL);
        }
        let dashes = text.matches('-').count();
        match text.split_once('-') {
            Some((start, end)) if dashes == 1 => {
                KeyRange::parse_sides(text, (0, start), (start.len() + 1, end))
            }
            _ => Err(MapError::RangeText {
                text: MapError::quote(text),
                dashes,
            }),
        }
    }
}
