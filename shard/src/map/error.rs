//! What can be wrong with an id, a range or a map: one small enum for the host to map.
//!
//! Every variant names what, where, expected and found. Texts come from people and from stored
//! configurations, so nothing here is a panic.

use std::fmt;

use super::id::KeyspaceId;
use super::range::KeyRange;
use super::shards::RoutingEpoch;
use crate::limits::{KEYSPACE_ID_BYTES_MAX, SHARD_BOUND_BYTES_MAX, SHARDS_MAX};

/// Characters of a bad text that an error repeats.
const QUOTED: usize = 64;

/// An id, a range or a map that cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MapError {
    /// An id of more than [`KEYSPACE_ID_BYTES_MAX`] bytes.
    IdTooLong {
        /// Bytes without zeros at the end.
        found: usize,
    },
    /// A character in an id that is no hex digit.
    NotHex {
        /// The text, cut short.
        text: String,
        /// Byte of the text at which the character stands.
        position: usize,
        /// The character.
        found: char,
    },
    /// An id with half a byte.
    OddHex {
        /// The text, cut short.
        text: String,
        /// Byte of the text at which the id begins.
        position: usize,
        /// Digits of the id.
        digits: usize,
    },
    /// A text that is not two sides of one dash.
    RangeText {
        /// The text, cut short.
        text: String,
        /// Dashes in it.
        dashes: usize,
    },
    /// A list of bounds (`-40-80-`) with nothing between two dashes, or without a dash.
    SpecText {
        /// The text, cut short.
        text: String,
        /// Byte of the text at which a bound is missing.
        position: usize,
    },
    /// A range that ends below its start.
    Reversed {
        /// Start of the range.
        start: KeyspaceId,
        /// End of the range.
        end: KeyspaceId,
    },
    /// A range that ends at its start: no id is in it.
    EmptyRange {
        /// Both bounds.
        bound: KeyspaceId,
    },
    /// A split at an id that does not lie inside of the range.
    SplitOutside {
        /// The range.
        range: KeyRange,
        /// The id.
        at: KeyspaceId,
    },
    /// A number of shards that no map can have.
    ShardCount {
        /// The number that was given.
        found: usize,
    },
    /// A bound between shards that is too long for a name.
    BoundTooLong {
        /// The range that has the bound.
        range: KeyRange,
        /// Bytes of the bound.
        found: usize,
    },
    /// Ids that no shard serves.
    Gap {
        /// Where the gap begins.
        start: KeyspaceId,
        /// Where it ends; none where it is open.
        end: Option<KeyspaceId>,
    },
    /// Two shards that serve the same ids.
    Overlap {
        /// The shard that begins first.
        first: Box<KeyRange>,
        /// The other.
        second: Box<KeyRange>,
    },
    /// One shard that is named twice.
    Duplicate {
        /// The range of both.
        range: KeyRange,
    },
    /// A range whose bound does not lie between two shards of the map.
    NotAligned {
        /// The range.
        range: Box<KeyRange>,
        /// The shard that it cuts.
        shard: Box<KeyRange>,
    },
    /// A map that is older than the one it would replace.
    EpochBack {
        /// Epoch of the map in use.
        current: RoutingEpoch,
        /// Epoch of the map that was given.
        found: RoutingEpoch,
    },
    /// Two different maps of one epoch.
    EpochReused {
        /// The epoch of both.
        epoch: RoutingEpoch,
    },
}

impl MapError {
    /// What an error repeats of a bad text.
    pub(super) fn quote(text: &str) -> String {
        let mut quoted: String = text.chars().take(QUOTED).collect();
        if quoted.len() < text.len() {
            quoted.push_str("..");
        }
        quoted
    }

    fn fmt_text(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHex {
                text,
                position,
                found,
            } => write!(
                f,
                "\"{}\" at byte {position}: expected a hex digit, found '{}'",
                text.escape_default(),
                found.escape_default()
            ),
            Self::OddHex {
                text,
                position,
                digits,
            } => write!(
                f,
                "\"{}\" at byte {position}: expected two hex digits a byte, found {digits} digits",
                text.escape_default()
            ),
            Self::RangeText { text, dashes } => write!(
                f,
                "key range \"{}\": expected `start-end`, found {dashes} dashes",
                text.escape_default()
            ),
            Self::SpecText { text, position } => write!(
                f,
                "bounds of shards \"{}\" at byte {position}: expected a bound between two dashes, \
                 as in `-40-80-`, found none",
                text.escape_default()
            ),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHex { .. }
            | Self::OddHex { .. }
            | Self::RangeText { .. }
            | Self::SpecText { .. } => self.fmt_text(f),
            Self::IdTooLong { found } => write!(
                f,
                "keyspace id: expected at most {KEYSPACE_ID_BYTES_MAX} bytes, found {found}"
            ),
            Self::Reversed { start, end } => write!(
                f,
                "key range: expected an end above its start {start}, found {end}"
            ),
            Self::EmptyRange { bound } => write!(
                f,
                "key range: expected an end above its start, found both at \"{bound}\""
            ),
            Self::SplitOutside { range, at } => {
                write!(f, "split of {range}: expected an id inside, found \"{at}\"")
            }
            Self::ShardCount { found } => {
                write!(f, "shards: expected 1 to {SHARDS_MAX}, found {found}")
            }
            Self::BoundTooLong { range, found } => write!(
                f,
                "shard {range}: expected bounds of at most {SHARD_BOUND_BYTES_MAX} bytes, found \
                 {found}"
            ),
            Self::Gap { start, end } => {
                let end = end.as_ref().map(KeyspaceId::to_string).unwrap_or_default();
                write!(
                    f,
                    "shard map: expected every id in one shard, found none for {start}-{end}"
                )
            }
            Self::Overlap { first, second } => write!(
                f,
                "shard map: expected every id in one shard, found {first} and {second} overlapping"
            ),
            Self::Duplicate { range } => {
                write!(
                    f,
                    "shard map: expected every shard once, found {range} twice"
                )
            }
            Self::NotAligned { range, shard } => write!(
                f,
                "key range {range}: expected bounds between shards, found shard {shard} cut"
            ),
            Self::EpochBack { current, found } => write!(
                f,
                "shard map: expected an epoch above {current}, found {found}"
            ),
            Self::EpochReused { epoch } => write!(
                f,
                "shard map: expected one map of epoch {epoch}, found two that differ"
            ),
        }
    }
}

impl std::error::Error for MapError {}
