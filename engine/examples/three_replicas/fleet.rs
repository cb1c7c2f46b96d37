//! Three nodes in this process, and what is done to them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use terrane::cluster::{Acks, Cluster, LocalNetwork, Node, NodeId, Topology};

use crate::clock::Stopwatch;
use crate::clock_pause;
use crate::failure::Failure;

/// The members.
const NODES: u32 = 3;
/// What takes this long never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What is done to a leader.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Harm {
    /// Nobody hears it any more.
    Isolate,
    /// Its node ends, and is opened again once another leads.
    Stop,
    /// Its node ends, and is opened again at once.
    Restart,
}

impl Harm {
    /// All of them, in the order of rounds.
    pub(crate) const ALL: [Harm; 3] = [Harm::Isolate, Harm::Stop, Harm::Restart];

    /// Its name in figures.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Harm::Isolate => "isolate",
            Harm::Stop => "stop",
            Harm::Restart => "restart",
        }
    }
}

/// The nodes and the cluster that is made of them.
pub(crate) struct Fleet {
    folder: PathBuf,
    network: LocalNetwork,
    cluster: Cluster,
    nodes: BTreeMap<NodeId, Node>,
}

impl Fleet {
    /// Makes a cluster of three nodes in a folder.
    pub(crate) fn make(folder: &Path) -> Result<Fleet, Failure> {
        let network = LocalNetwork::new();
        let mut nodes = BTreeMap::new();
        for id in (1..=NODES).map(NodeId) {
            nodes.insert(id, open(folder, &network, id)?);
        }
        // A leader that is silent for long is missed early, and as often as it happens here.
        let layout = Topology::new()
            .shards(1)
            .replicas(NODES as usize)
            .acks(Acks::Any(1))
            .suspect_after(Duration::from_millis(600))
            .calm_after_failover(Duration::ZERO)
            // A call that an isolated leader took waits so long before it is told `Unknown`.
            .commit_within(Duration::from_secs(3));
        let all: Vec<Node> = nodes.values().cloned().collect();
        Ok(Fleet {
            folder: folder.to_path_buf(),
            network,
            cluster: Cluster::create(&all, layout)?,
            nodes,
        })
    }

    /// The cluster.
    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The node that leads, once one does.
    pub(crate) fn leader(&self) -> Result<NodeId, Failure> {
        let shard = &self.cluster.shards()[0];
        Ok(self.cluster.wait_leader(shard, PATIENCE)?)
    }

    /// The node behind this one.
    pub(crate) fn other_than(&self, id: NodeId) -> NodeId {
        NodeId(id.0 % NODES + 1)
    }

    /// Does it to a node.
    pub(crate) fn harm(&mut self, harm: Harm, id: NodeId) -> Result<(), Failure> {
        match harm {
            Harm::Isolate => self.network.isolate(id),
            Harm::Stop => self.nodes[&id].stop(),
            Harm::Restart => {
                self.nodes[&id].stop();
                self.reopen(id)?;
            }
        }
        Ok(())
    }

    /// Makes it good again.
    pub(crate) fn undo(&mut self, harm: Harm, id: NodeId) -> Result<(), Failure> {
        match harm {
            Harm::Isolate => self.network.heal(),
            Harm::Stop => self.reopen(id)?,
            Harm::Restart => {}
        }
        Ok(())
    }

    fn reopen(&mut self, id: NodeId) -> Result<(), Failure> {
        let node = open(&self.folder, &self.network, id)?;
        self.cluster.join(&node)?;
        self.nodes.insert(id, node);
        Ok(())
    }

    /// Moves the leadership.
    pub(crate) fn switchover(&self, to: NodeId) -> Result<(), Failure> {
        Ok(self.cluster.switchover(&self.cluster.shards()[0], to)?)
    }

    /// Waits until all members have applied what is committed now.
    pub(crate) fn level(&self) -> Result<(), Failure> {
        self.leader()?;
        let shard = &self.cluster.shards()[0];
        let status = || self.cluster.status(shard);
        let goal = status()?.iter().map(|member| member.committed).max();
        let watch = Stopwatch::start();
        loop {
            let members = status()?;
            if let Some(failed) = members.iter().find(|member| member.failure.is_some()) {
                return Err(Failure::new(format!(
                    "{}: expected a member that takes part, found {:?}",
                    failed.node, failed.failure
                )));
            }
            let level = members.iter().filter(|member| Some(member.applied) >= goal);
            if level.count() == NODES as usize {
                return Ok(());
            }
            if watch.elapsed() > PATIENCE {
                return Err(Failure::new(format!(
                    "members do not catch up to {goal:?}: {members:#?}"
                )));
            }
            clock_pause(Duration::from_millis(5));
        }
    }
}

fn open(folder: &Path, network: &LocalNetwork, id: NodeId) -> Result<Node, Failure> {
    let dir = folder.join(format!("node-{}", id.0));
    Ok(Node::open(id, dir, network.endpoint(id))?)
}
