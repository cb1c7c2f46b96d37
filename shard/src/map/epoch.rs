//! The number of a shard map: rises with every change, so that an old map is known as such.
//!
//! A request carries the epoch of the map that routed it; a shard that knows a newer one answers
//! with that instead of serving it.

use std::fmt;

/// The number of a shard map.
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
