//! Who serves which ids: keyspace ids, ranges of them, and the map that gives every id one shard.
//!
//! Reading order: `id.rs` (byte strings and their order), `range.rs` (what a shard serves),
//! `spec.rs` (where ranges come from), `shards.rs` (the map, which is a partition, and what a newer
//! one changes), `router.rs` (from an id to its shard).

mod error;
mod id;
mod range;
mod router;
mod shards;
mod spec;

pub use error::MapError;
pub use id::KeyspaceId;
pub use range::KeyRange;
pub use shards::{Destination, MapDiff, RoutingEpoch, ShardId, ShardMap};
pub use spec::{even_names, even_ranges, parse_ranges};
