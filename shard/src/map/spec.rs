//! Where the ranges of a new map come from: a list of bounds, or a number of shards.
//!
//! `-40-80-` names three ranges by their bounds. [`even_ranges`] cuts all ids into `n` ranges of
//! nearly the same size: bound `i` is `floor(i * 16^w / n)` in `w` hex digits, two up to 256 shards
//! and four above (the rule of Vitess, `GenerateShardRanges`). It is computed in integers, so the
//! last bound cannot be off by one and leave ids unserved, as happened there with 103 and 107
//! shards (its issues 16033 and 18641).
//!
//! Invariants:
//! - G1: the ranges of [`even_ranges`] are a partition of all ids, for every `n`.

use super::error::MapError;
use super::id::KeyspaceId;
use super::range::KeyRange;
use crate::limits::SHARDS_MAX;

/// Most shards that two hex digits can tell apart.
const TWO_DIGITS_MAX: usize = 256;

/// Reads ranges from a list of their bounds: `-40-80-` is `-40`, `40-80` and `80-`.
///
/// An open side is an empty first or last bound; `0` and `-` are all ids. Whether the ranges cover
/// all ids is for [`ShardMap::new`](crate::ShardMap::new) to say. Linear in the text.
///
/// # Errors
/// [`MapError::SpecText`] where a bound is missing, [`MapError::ShardCount`] above [`SHARDS_MAX`]
/// ranges, and what [`KeyRange`] refuses: half bytes, other characters, bounds that do not rise.
pub fn parse_ranges(spec: &str) -> Result<Vec<KeyRange>, MapError> {
    if spec == "0" {
        return Ok(vec![KeyRange::ALL]);
    }
    let count = spec.matches('-').count();
    if count > SHARDS_MAX {
        return Err(MapError::ShardCount { found: count });
    }
    let missing = |position| MapError::SpecText {
        text: MapError::quote(spec),
        position,
    };
    let mut bounds = spec.split('-').scan(0, |at, side| {
        let here = *at;
        *at += side.len() + 1;
        Some((here, side))
    });
    let mut start = bounds.next().ok_or_else(|| missing(0))?;
    let mut ranges = Vec::with_capacity(count);
    for end in bounds {
        let is_last = ranges.len() + 1 == count;
        if end.1.is_empty() && !is_last {
            return Err(missing(end.0));
        }
        ranges.push(KeyRange::parse_sides(spec, start, end)?);
        start = end;
    }
    if ranges.is_empty() {
        return Err(missing(spec.len()));
    }
    Ok(ranges)
}

/// Bound `i` of `n` shards, and the bytes of every bound.
fn bound(i: usize, n: usize) -> (u64, usize) {
    let bytes = if n <= TWO_DIGITS_MAX { 1 } else { 2 };
    let space = 1_u128 << (8 * bytes);
    // Below `space`, so it fits.
    (((i as u128 * space) / n as u128) as u64, bytes)
}

fn check_count(n: usize) -> Result<(), MapError> {
    match n {
        1..=SHARDS_MAX => Ok(()),
        found => Err(MapError::ShardCount { found }),
    }
}

/// `n` ranges of nearly the same size that cover all ids, in order. Linear in `n`.
///
/// ```
/// let ranges = terrane_shard::even_ranges(7)?;
/// let names: Vec<String> = ranges.iter().map(ToString::to_string).collect();
/// assert_eq!(names.join(" "), "-24 24-49 49-6d 6d-92 92-b6 b6-db db-");
/// # Ok::<(), terrane_shard::MapError>(())
/// ```
///
/// # Errors
/// [`MapError::ShardCount`] where `n` is 0 or above [`SHARDS_MAX`].
pub fn even_ranges(n: usize) -> Result<Vec<KeyRange>, MapError> {
    check_count(n)?;
    let id = |i| {
        let (bound, bytes) = bound(i, n);
        KeyspaceId::from_word(bound << (64 - 8 * bytes))
    };
    (0..n)
        .map(|i| KeyRange::new(id(i), (i + 1 < n).then(|| id(i + 1))))
        .collect()
}

/// The names that Vitess gives to the shards of [`even_ranges`]: all bounds in the same number of
/// digits.
///
/// Up to 256 shards these are the names of the ranges; above, a bound such as `0100` keeps its
/// zeros here, while the range is called `0080-01`. Both texts read as the same range.
///
/// # Errors
/// [`MapError::ShardCount`] where `n` is 0 or above [`SHARDS_MAX`].
pub fn even_names(n: usize) -> Result<Vec<String>, MapError> {
    check_count(n)?;
    let side = |i| {
        let (bound, bytes) = bound(i, n);
        match i {
            0 => String::new(),
            i if i == n => String::new(),
            _ => format!("{bound:0width$x}", width = 2 * bytes),
        }
    };
    Ok((0..n)
        .map(|i| format!("{}-{}", side(i), side(i + 1)))
        .collect())
}
