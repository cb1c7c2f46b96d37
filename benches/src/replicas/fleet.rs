//! Three nodes in this process, on one disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use terrane::cluster::{Acks, Cluster, LocalNetwork, Node, NodeId, Topology};

use crate::Failure;

const NODES: u32 = 3;
/// What takes this long never comes.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The nodes and the cluster that is made of them.
pub(super) struct Fleet {
    dir: PathBuf,
    network: LocalNetwork,
    pub(super) cluster: Cluster,
    nodes: BTreeMap<NodeId, Node>,
}

/// Three replicas, semi-synchronous.
pub(super) fn layout() -> Topology {
    Topology::new().shards(1).replicas(3).acks(Acks::Any(1))
}

impl Fleet {
    /// Makes a cluster in a fresh folder, and waits for its first leader.
    pub(super) fn make(dir: &Path, layout: Topology) -> Result<Fleet, Failure> {
        fs::create_dir_all(dir)?;
        let network = LocalNetwork::new();
        let mut nodes = BTreeMap::new();
        for id in (1..=NODES).map(NodeId) {
            nodes.insert(id, open(dir, &network, id)?);
        }
        let all: Vec<Node> = nodes.values().cloned().collect();
        let fleet = Fleet {
            dir: dir.to_path_buf(),
            network,
            cluster: Cluster::create(&all, layout)?,
            nodes,
        };
        fleet.leader()?;
        Ok(fleet)
    }

    /// The node that leads, once one does.
    pub(super) fn leader(&self) -> Result<NodeId, Failure> {
        Ok(self
            .cluster
            .wait_leader(&self.cluster.shards()[0], PATIENCE)?)
    }

    /// Ends a node.
    pub(super) fn stop(&self, id: NodeId) {
        self.nodes[&id].stop();
    }

    /// Opens a node again that was ended.
    pub(super) fn reopen(&mut self, id: NodeId) -> Result<(), Failure> {
        let node = open(&self.dir, &self.network, id)?;
        self.cluster.join(&node)?;
        self.nodes.insert(id, node);
        Ok(())
    }

    /// Moves the leadership to the node behind the one that has it.
    pub(super) fn switch(&self) -> Result<(), Failure> {
        let old = self.leader()?;
        let to = NodeId(old.0 % NODES + 1);
        Ok(self.cluster.switchover(&self.cluster.shards()[0], to)?)
    }

    /// Waits until all members have applied what is committed now.
    pub(super) fn level(&self) -> Result<(), Failure> {
        let status = || self.cluster.status(&self.cluster.shards()[0]);
        self.leader()?;
        let goal = status()?.iter().map(|member| member.committed).max();
        let begin = Instant::now();
        loop {
            let members = status()?;
            if members.iter().any(|member| member.failure.is_some()) {
                return Err(format!("a member has failed: {members:#?}").into());
            }
            let level = members.iter().filter(|member| Some(member.applied) >= goal);
            if level.count() == NODES as usize {
                return Ok(());
            }
            if begin.elapsed() > PATIENCE {
                return Err(format!("members do not reach {goal:?}: {members:#?}").into());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends all nodes and removes their files.
    pub(super) fn end(self) -> Result<(), Failure> {
        self.nodes.values().for_each(Node::stop);
        Ok(fs::remove_dir_all(&self.dir)?)
    }
}

fn open(dir: &Path, network: &LocalNetwork, id: NodeId) -> Result<Node, Failure> {
    let folder = dir.join(format!("node-{}", id.0));
    Ok(Node::open(id, folder, network.endpoint(id))?)
}
