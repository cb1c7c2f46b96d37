//! Placement and replication for Terrane: which shard a row lies on, and how the members of a shard
//! agree on its log, without I/O.
//!
//! # Placement
//! ```text
//! column values --vindex--> keyspace id --shard map--> shard
//!   customer 1              166b40b4...                -40 | 40-80 | 80-
//! ```
//!
//! A *vindex* is a function from column values to a *keyspace id*, a byte string. A *key range* is
//! a run of ids, a *shard* serves one, and a *shard map* is a set of ranges in which every id lies
//! exactly once. Adding shards cuts ranges; no row changes its id. The model, the text forms and
//! the ids are those of Vitess, so data can come from there shard by shard.
//!
//! ```
//! use terrane_shard::{Registry, RoutingEpoch, ShardMap, Value, even_ranges, parse_ranges};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Customers are placed by the hash of their number.
//! let vindex = Registry::new().build("hash", &[])?;
//! let place = vindex.map(&[Value::Uint(1)])?;
//!
//! let two = ShardMap::new(RoutingEpoch(1), even_ranges(2)?)?;
//! assert_eq!(two.resolve(&place)[0].to_string(), "-80");
//!
//! // The first shard is split. Row and id stay as they are, the answer changes.
//! let three = ShardMap::new(RoutingEpoch(2), parse_ranges("-40-80-")?)?;
//! assert_eq!(three.resolve(&place)[0].to_string(), "-40");
//!
//! let change = three.replaces(&two)?; // refused if the epoch went back
//! assert_eq!(format!("{:?} -> {:?}", change.gone, change.come),
//!     "[ShardId(-80)] -> [ShardId(-40), ShardId(40-80)]");
//!
//! // A condition on a column that no vindex knows asks every shard.
//! assert_eq!(three.resolve(&vindex.prefix(b"1")?).len(), 3);
//! # Ok(())
//! # }
//! ```
//!
//! # Replication
//!
//! ```text
//! leader's log -> Append -> members' logs, synced -> Ack -> committed by the policy -> visible
//! topology: term + 1 -> Failover: Fence all -> reports -> Establish -> barrier committed -> serves
//! planned: Switchover -> HandOver -> admission closed, the log is there -> Ready -> the same
//! ```
//!
//! A shard is a log that several *members* hold. One of them leads in a *term*; an entry is
//! *committed* once it is on the leader's disk and on those of as many others as the
//! [policy](policy::DurabilityPolicy) wants. Another leads after a
//! [`Failover`](failover::Failover): it reaches so many members that the old leader can commit
//! nothing without one of them, and takes the greatest of their logs. A
//! [`Switchover`](switchover::Switchover) does so with the leader's consent, and
//! [`Suspicion`](suspicion::Suspicion) says when it is done without.
//! [`Replica`](replica::Replica) and the others are state machines: the host gives them events,
//! time, and a view of its log, and does what they say.
//!
//! # What holds everywhere
//! * S1: the ranges of a map are a partition, or there is no map (`map/shards.rs`).
//! * W1: a vindex is a function, and W2: it names a shard too many rather than one too few
//!   (`vindex/mod.rs`).
//! * What was committed stays: I1 to I11 (`replica/mod.rs`), P1 (`policy.rs`).
//! * Input that cannot be served is a [`MapError`] or a [`VindexError`] that names what, where,
//!   expected and found. Nothing here panics on it, opens a file, or reads a clock.
//!
//! # Where to start reading
//! `map/mod.rs` (ids, ranges, the map), `vindex/mod.rs` (values to ids), `limits.rs`; then
//! `policy.rs`, `log.rs`, `message.rs`, `replica/mod.rs`, `failover.rs`, `switchover.rs`.

#![forbid(unsafe_code)]

#[macro_use]
extern crate terrane_wal;

pub mod codec;
pub mod failover;
mod limits;
pub mod log;
mod map;
pub mod message;
pub mod policy;
pub mod replica;
pub mod suspicion;
pub mod switchover;
pub mod topology;
mod vindex;

pub use limits::{
    CFC_OFFSETS_MAX, KEYSPACE_ID_BYTES_MAX, MULTICOL_COLUMNS_MAX, SHARD_BOUND_BYTES_MAX, SHARDS_MAX,
};
pub use map::{
    Destination, KeyRange, KeyspaceId, MapDiff, MapError, RoutingEpoch, ShardId, ShardMap,
    even_names, even_ranges, parse_ranges,
};
pub use vindex::{Cfc, Column, Multicol, Params, Registry, StaticMap, Value, Vindex, VindexError};
