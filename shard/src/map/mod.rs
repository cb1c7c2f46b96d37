//! Who serves which ids: keyspace ids, ranges of them, and the map that gives every id one shard.
//!
//! Reading order: `id.rs` (byte strings and their order), `range.rs` (what a shard serves),
//! `spec.rs` (where ranges come from), `shards.rs` (the map, which is a partition), `router.rs`
//! (from an id to its shard), `diff.rs` (what a newer map changes).

mod diff;
mod epoch;
mod error;
mod id;
mod range;
mod router;
mod shards;
mod spec;

pub use diff::MapDiff;
pub use epoch::RoutingEpoch;
pub use error::MapError;
pub use id::KeyspaceId;
pub use range::KeyRange;
pub use shards::{ShardId, ShardMap};
pub use spec::{even_names, even_ranges, parse_ranges};
