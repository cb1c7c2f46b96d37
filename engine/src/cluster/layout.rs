//! How a cluster is laid out: what it is made with.

use std::time::Duration;

use terrane_shard::policy::{Member, Quorums, SemiSync};
use terrane_shard::suspicion::Patience;

use super::network::NodeId;
use crate::database::CrossShard;
use crate::error::{Error, ErrorKind, Result};

/// How many members must have a commit on disk before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Acks {
    /// The leader, and so many others, whichever they are: semi-synchronous replication. 1 keeps
    /// every acknowledged commit through the loss of any one of three members.
    Any(usize),
}

/// Most shards of a cluster: each of its members has files and memory from the first moment on.
const SHARDS_MAX: usize = 256;

/// How a cluster is laid out. What is not said has its default.
#[derive(Clone, Debug)]
pub struct Topology {
    pub(super) shards: usize,
    pub(super) replicas: usize,
    pub(super) acks: Acks,
    pub(super) patience: Patience,
    pub(super) within: Duration,
    pub(super) window: Duration,
    pub(super) cross_shard: CrossShard,
    pub(super) memory_bytes: usize,
}

impl Default for Topology {
    fn default() -> Self {
        Self::new()
    }
}

impl Topology {
    /// One shard on three members, of which one must acknowledge beside the leader.
    #[must_use]
    pub fn new() -> Topology {
        Topology {
            shards: 1,
            replicas: 3,
            acks: Acks::Any(1),
            patience: Patience::default(),
            within: Duration::from_secs(10),
            window: Duration::from_secs(10),
            cross_shard: CrossShard::default(),
            memory_bytes: 64 << 20,
        }
    }

    /// How many shards, 1 to 256, each with an equal part of the ids. Default 1.
    #[must_use]
    pub fn shards(mut self, shards: usize) -> Topology {
        self.shards = shards;
        self
    }

    /// How many members each shard has, on as many nodes. Default 3.
    #[must_use]
    pub fn replicas(mut self, replicas: usize) -> Topology {
        self.replicas = replicas;
        self
    }

    /// How many must have a commit. Default `Acks::Any(1)`.
    #[must_use]
    pub fn acks(mut self, acks: Acks) -> Topology {
        self.acks = acks;
        self
    }

    /// How long a leader may be silent before its members ask one another whether it is gone.
    /// Default 1.5 s. The lease of a leader is 1 s: a new one waits it out where the old one does
    /// not answer.
    #[must_use]
    pub fn suspect_after(mut self, silence: Duration) -> Topology {
        self.patience.suspect_ms = silence.as_millis() as u64;
        self
    }

    /// How long after a change of leader no other is begun. Default 60 s.
    #[must_use]
    pub fn calm_after_failover(mut self, calm: Duration) -> Topology {
        self.patience.flap_ms = calm.as_millis() as u64;
        self
    }

    /// How long a commit waits for acknowledgements; then its outcome is unknown. Default 10 s.
    #[must_use]
    pub fn commit_within(mut self, within: Duration) -> Topology {
        self.within = within;
        self
    }

    /// How long calls wait for a leader to come. Default 10 s.
    #[must_use]
    pub fn wait_for_leader(mut self, window: Duration) -> Topology {
        self.window = window;
        self
    }

    /// What becomes of a transaction that several shards take part in. Default
    /// `CrossShard::Atomic`.
    #[must_use]
    pub fn cross_shard(mut self, cross_shard: CrossShard) -> Topology {
        self.cross_shard = cross_shard;
        self
    }

    /// Memory of each member, as in `Builder::memory_bytes`. Default 64 MiB.
    #[must_use]
    pub fn memory_bytes(mut self, bytes: usize) -> Topology {
        self.memory_bytes = bytes;
        self
    }

    /// What the shards' members are to each other, on these nodes.
    ///
    /// # Errors
    /// `Invalid` for a layout that cannot be kept on them.
    pub(super) fn quorums(&self, nodes: &[NodeId]) -> Result<Quorums> {
        let invalid = |what: &'static str, given: usize, allowed: String| {
            Error::new(ErrorKind::Invalid, "a cluster cannot be laid out so")
                .with("option", what)
                .with("given", given)
                .with("allowed", allowed)
        };
        if !(1..=SHARDS_MAX).contains(&self.shards) {
            return Err(invalid("shards", self.shards, format!("1 to {SHARDS_MAX}")));
        }
        if self.replicas == 0 || self.replicas > nodes.len() {
            let allowed = format!("1 to {}, as many as there are nodes", nodes.len());
            return Err(invalid("replicas", self.replicas, allowed));
        }
        let Acks::Any(acks) = self.acks;
        let members: Vec<Member> = nodes[..self.replicas]
            .iter()
            .map(|node| Member::voter(node.0, format!("node-{}", node.0)))
            .collect();
        Quorums::new(&SemiSync::new(acks), &members).map_err(|error| {
            let allowed = format!("fewer than {} members", self.replicas);
            invalid("acks", acks, allowed).caused_by(error)
        })
    }
}
