//! The shard map: every id has exactly one shard, or there is no map.
//!
//! A host holds the newest map, asks it for the shard of an id or for the shards of a range, and
//! replaces it by one of a higher epoch. A map never changes; a split or a merge makes a new one.
//!
//! Invariants:
//! - S1: the ranges of a map are a partition. They are sorted, the first begins at the least id,
//!   each begins where the one before ends, and the last is open. [`ShardMap::new`] proves it.
//! - K1: a shard is its range. Its name is the text of the range, and there is one such text, so
//!   two maps name the same shard exactly if they give it the same ids.
//! - K2: a map is only replaced by one of a higher epoch, or by itself.
//! - K3: in a difference, those that go and those that stay are the old map, those that come and
//!   those that stay the new one. By K1 a split shows as one that goes and two that come.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use super::error::MapError;
use super::id::KeyspaceId;
use super::range::KeyRange;
use super::router::Router;
use crate::limits::{SHARD_BOUND_BYTES_MAX, SHARDS_MAX};

/// The number of a shard map: rises with every change.
///
/// A request carries the epoch of the map that routed it; a shard that knows a newer map answers
/// with that instead of serving it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RoutingEpoch(
    /// The number. 0 is the first.
    pub u64,
);

impl fmt::Display for RoutingEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where rows may lie, as far as a condition tells: the answer of a vindex, the question to a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Nowhere: no row can have these values. Whoever writes such a row gets an error.
    None,
    /// At this id.
    Id(KeyspaceId),
    /// At ids of this range.
    Range(KeyRange),
    /// Anywhere.
    All,
}

/// A range that holds every id is [`Destination::All`].
impl From<KeyRange> for Destination {
    fn from(range: KeyRange) -> Destination {
        if range.is_all() {
            Destination::All
        } else {
            Destination::Range(range)
        }
    }
}

/// A shard, known by the range that it serves; its text is its name in folders, messages and logs.
///
/// The text has at most 129 characters (two bounds of [`SHARD_BOUND_BYTES_MAX`] bytes).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId {
    range: KeyRange,
}

impl ShardId {
    /// The shard of this range.
    ///
    /// # Errors
    /// [`MapError::BoundTooLong`] where a bound has more than [`SHARD_BOUND_BYTES_MAX`] bytes.
    pub fn new(range: KeyRange) -> Result<ShardId, MapError> {
        let end = range.end().map_or(0, KeyspaceId::len);
        let found = range.start().len().max(end);
        if found > SHARD_BOUND_BYTES_MAX {
            return Err(MapError::BoundTooLong { range, found });
        }
        Ok(ShardId { range })
    }

    /// The ids that the shard serves.
    #[must_use]
    pub fn range(&self) -> &KeyRange {
        &self.range
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.range.fmt(f)
    }
}

impl fmt::Debug for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShardId({self})")
    }
}

impl FromStr for ShardId {
    type Err = MapError;

    /// Reads a range; `8000-` and `80-` are one shard.
    ///
    /// # Errors
    /// As [`KeyRange`] and [`ShardId::new`].
    fn from_str(text: &str) -> Result<ShardId, MapError> {
        ShardId::new(text.parse()?)
    }
}

/// Which shard serves which ids, as of an epoch.
///
/// Shown as a table: each shard with its share of all ids, in thousandths.
///
/// ```
/// use terrane_shard::{MapError, RoutingEpoch, ShardMap, parse_ranges};
///
/// # fn main() -> Result<(), MapError> {
/// let map = ShardMap::new(RoutingEpoch(1), parse_ranges("-40-80-")?)?;
/// assert_eq!(map.route(&"4a17".parse()?).to_string(), "40-80");
/// let error = ShardMap::new(RoutingEpoch(1), parse_ranges("-40-80")?).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "shard map: expected every id in one shard, found none for 80-"
/// );
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ShardMap {
    epoch: RoutingEpoch,
    shards: Vec<ShardId>,
    router: Router,
}

impl ShardMap {
    /// A map of these ranges, in any order. `O(n log n)`.
    ///
    /// # Errors
    /// [`MapError::ShardCount`] for no range or more than [`SHARDS_MAX`],
    /// [`MapError::BoundTooLong`], and what keeps the ranges from being a partition (S1):
    /// [`MapError::Duplicate`], [`MapError::Overlap`], [`MapError::Gap`], of which the one at the
    /// least id is named.
    pub fn new(
        epoch: RoutingEpoch,
        ranges: impl IntoIterator<Item = KeyRange>,
    ) -> Result<ShardMap, MapError> {
        // One more than allowed is enough to know.
        let ranges = ranges.into_iter().take(SHARDS_MAX + 1);
        let mut shards = ranges.map(ShardId::new).collect::<Result<Vec<_>, _>>()?;
        if shards.is_empty() || shards.len() > SHARDS_MAX {
            return Err(MapError::ShardCount {
                found: shards.len(),
            });
        }
        shards.sort_unstable();
        check_partition(&shards)?;
        let router = Router::new(shards.iter().map(|shard| shard.range.start()));
        Ok(ShardMap {
            epoch,
            shards,
            router,
        })
    }

    /// The map of one shard that serves everything.
    #[must_use]
    pub fn unsharded(epoch: RoutingEpoch) -> ShardMap {
        let shards = vec![ShardId {
            range: KeyRange::ALL,
        }];
        let router = Router::new(shards.iter().map(|shard| shard.range.start()));
        ShardMap {
            epoch,
            shards,
            router,
        }
    }

    /// The number of the map.
    #[must_use]
    pub fn epoch(&self) -> RoutingEpoch {
        self.epoch
    }

    /// All shards, by rising ids.
    #[must_use]
    pub fn shards(&self) -> &[ShardId] {
        &self.shards
    }

    /// The shard that serves an id. `O(log n)`, without an allocation.
    #[must_use]
    pub fn route(&self, id: &KeyspaceId) -> &ShardId {
        &self.shards[self.position(id)]
    }

    /// The shards that serve some id of a range, by rising ids. `O(log n)`.
    #[must_use]
    pub fn route_range(&self, range: &KeyRange) -> &[ShardId] {
        let first = self.position(range.start());
        let last = match range.end() {
            None => self.shards.len() - 1,
            // A shard that begins at the end has no id below it.
            Some(end) => {
                let at_end = self.position(end);
                at_end - usize::from(self.shards[at_end].range.start() == end)
            }
        };
        &self.shards[first..=last]
    }

    /// The shards that together serve exactly a range, by rising ids. `O(log n)`.
    ///
    /// # Errors
    /// [`MapError::NotAligned`] where the range cuts a shard.
    pub fn route_exactly(&self, range: &KeyRange) -> Result<&[ShardId], MapError> {
        let shards = self.route_range(range);
        let cut = shards
            .iter()
            .find(|shard| !range.contains_range(&shard.range));
        match cut {
            None => Ok(shards),
            Some(shard) => Err(MapError::NotAligned {
                range: Box::new(range.clone()),
                shard: Box::new(shard.range.clone()),
            }),
        }
    }

    /// The shards that a vindex's answer names: none, one, those of a range, or all. `O(log n)`.
    #[must_use]
    pub fn resolve(&self, destination: &Destination) -> &[ShardId] {
        match destination {
            Destination::None => &[],
            Destination::Id(id) => std::slice::from_ref(self.route(id)),
            Destination::Range(range) => self.route_range(range),
            Destination::All => &self.shards,
        }
    }

    /// Says what changes if this map takes the place of `old`. Linear in both.
    ///
    /// The same map again is no change, so a map may be sent twice.
    ///
    /// # Errors
    /// [`MapError::EpochBack`] where this one is older, [`MapError::EpochReused`] where it differs
    /// but has the same epoch (K2).
    pub fn replaces(&self, old: &ShardMap) -> Result<MapDiff, MapError> {
        if self.epoch < old.epoch {
            return Err(MapError::EpochBack {
                current: old.epoch,
                found: self.epoch,
            });
        }
        if self.epoch == old.epoch && self.shards != old.shards {
            return Err(MapError::EpochReused { epoch: self.epoch });
        }
        Ok(MapDiff::between(&old.shards, &self.shards))
    }

    /// The place of the shard that serves an id among all of them. `O(log n)`, without an
    /// allocation.
    #[must_use]
    pub fn position(&self, id: &KeyspaceId) -> usize {
        let found = self.router.find(id, |i| self.shards[i].range.start());
        debug_assert!(self.shards[found].range.contains(id), "S1");
        found
    }
}

/// S1, for shards that are sorted and at least one.
fn check_partition(shards: &[ShardId]) -> Result<(), MapError> {
    let mut next = Some(&KeyspaceId::MIN);
    let mut before: Option<&KeyRange> = None;
    for shard in shards {
        let range = &shard.range;
        match (before, next) {
            (Some(before), _) if before == range => {
                let range = range.clone();
                return Err(MapError::Duplicate { range });
            }
            (Some(before), next) if next.is_none_or(|next| range.start() < next) => {
                let (first, second) = (Box::new(before.clone()), Box::new(range.clone()));
                return Err(MapError::Overlap { first, second });
            }
            (_, Some(next)) if next < range.start() => {
                let end = Some(range.start().clone());
                let start = next.clone();
                return Err(MapError::Gap { start, end });
            }
            _ => {}
        }
        next = range.end();
        before = Some(range);
    }
    match next {
        None => Ok(()),
        Some(start) => Err(MapError::Gap {
            start: start.clone(),
            end: None,
        }),
    }
}

/// Two maps are equal if they have one epoch and the same shards.
impl PartialEq for ShardMap {
    fn eq(&self, other: &ShardMap) -> bool {
        self.epoch == other.epoch && self.shards == other.shards
    }
}

impl Eq for ShardMap {}

impl fmt::Debug for ShardMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.shards.iter().map(ShardId::to_string);
        let names: Vec<String> = names.collect();
        write!(f, "ShardMap({}: {})", self.epoch, names.join(" "))
    }
}

impl fmt::Display for ShardMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.shards.iter().map(ShardId::to_string).collect();
        let width = names.iter().map(String::len).max().unwrap_or(0).max(5);
        write!(f, "epoch {}\n{:width$}  share", self.epoch, "shard")?;
        for (shard, name) in self.shards.iter().zip(&names) {
            let start = u128::from(shard.range.start().word());
            let end = shard
                .range
                .end()
                .map_or(1 << 64, |end| u128::from(end.word()));
            let share = ((end - start) * 1000) >> 64;
            write!(f, "\n{name:width$}  {share:>5}")?;
        }
        Ok(())
    }
}

/// The difference between two maps, each part by rising ids.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MapDiff {
    /// Shards of the old map only.
    pub gone: Vec<ShardId>,
    /// Shards of the new map only.
    pub come: Vec<ShardId>,
    /// Shards of both.
    pub stay: Vec<ShardId>,
}

impl MapDiff {
    /// Walks two sorted lists once.
    fn between(old: &[ShardId], new: &[ShardId]) -> MapDiff {
        let mut diff = MapDiff::default();
        let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return diff,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.cmp(new),
            };
            match order {
                Ordering::Less => diff.gone.extend(old.next().cloned()),
                Ordering::Greater => diff.come.extend(new.next().cloned()),
                Ordering::Equal => {
                    diff.stay.extend(old.next().cloned());
                    new.next();
                }
            }
        }
    }

    /// Whether the maps have the same shards.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.come.is_empty()
    }
}
