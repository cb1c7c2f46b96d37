//! What a newer map changes: which shards go, which come, which stay.
//!
//! A shard is its range (S2), so a split shows as one that goes and two that come.
//!
//! Invariants:
//! - F1: those that go and those that stay are the old map, those that come and those that stay the
//!   new one; the ids of those that go are the ids of those that come.

use std::cmp::Ordering;

use super::shards::ShardId;

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
    pub(super) fn between(old: &[ShardId], new: &[ShardId]) -> MapDiff {
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
