//! What lies between the members of a shard and the world: where terms are given out, and what
//! carries messages.
//!
//! ```text
//! topology.rs  Embedded: records of shards in a database of their own    (`Topology` of shard)
//! network.rs   Transport: packets between nodes; LocalNetwork: all of them in one process
//! ```
//!
//! Neither is trusted with more than it says: a lock may be held by two, a packet may be lost,
//! repeated and overtaken. What safety needs stands in the swap of a record and on members' disks.

#![cfg_attr(not(test), expect(dead_code, reason = "no member is hosted yet"))]

mod network;
mod topology;
