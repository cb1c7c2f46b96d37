//! Shards on several nodes: replicas, failover, and one database over all of it.
//!
//! ```text
//! layout.rs       Topology, Acks: what a cluster is made with
//! node.rs         Node: a directory, a way to the others, two threads
//! host.rs         a member of a shard: protocol and trees; seat.rs and tending.rs drive it
//! router.rs       a program's calls find who leads
//! resolver.rs     no transaction of several shards stays undecided
//! coordinator.rs  who sees to it that a shard has a leader
//! topology.rs     Embedded: records of shards in a database of their own    (`Topology` of shard)
//! network.rs      Transport: packets between nodes; LocalNetwork: all of them in one process
//! ```
//!
//! Neither topology nor network is trusted with more than it says: a lock may be held by two, a
//! packet may be lost, repeated and overtaken. What safety needs stands in the swap of a record and
//! on members' disks.

mod coordinator;
mod host;
mod layout;
mod network;
mod node;
mod resolver;
mod router;
mod seat;
mod tending;
#[cfg(test)]
mod tests;
mod topology;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use terrane_shard::log::{Config, Incarnation, Term};
use terrane_shard::topology::Topology as Records;
use terrane_shard::{RoutingEpoch, even_ranges};
use terrane_wal::env::Env;
use terrane_wal::lsn::Lsn;
use terrane_wal::sync::Mutex;
use terrane_wal::vote::{Vote, VoteFile};

pub use crate::table::place::Route;
pub use layout::{Acks, Topology};
pub use network::{Body, Endpoint, Faults, LocalNetwork, NodeId, Packet, Transport};
pub use node::Node;
pub use terrane_shard::{KeyspaceId, ShardId, ShardMap};

use crate::builder::{Builder, Options};
use crate::database::{Database, Durability};
use crate::error::{Error, ErrorKind, Result};
use crate::local::Local;
use crate::recovery;
use crate::replica::config_file;
use crate::txn::moments::Moments;
use host::{Home, Host};
use resolver::Resolver;
use router::Router;
use topology::Embedded;

/// Shards on nodes, for those who run them. Programs work with [`Cluster::database`]. Clones are
/// handles of the same one.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    layout: Topology,
    map: Arc<ShardMap>,
    uuids: Vec<[u8; 16]>,
    /// What is read in all shards, where there are several.
    moments: Option<Arc<Moments>>,
    records: Arc<dyn Records>,
    /// Ended before the nodes.
    resolver: Mutex<Option<Resolver>>,
    places: Arc<Places>,
    env: Env,
}

/// Where members are.
#[derive(Default)]
struct Places {
    nodes: Mutex<BTreeMap<NodeId, Node>>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("shards", &self.inner.map.shards())
            .finish_non_exhaustive()
    }
}

/// How a member of a shard stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberStatus {
    /// Where it is.
    pub node: NodeId,
    /// The term that it leads, and takes commits in.
    pub leads: Option<u64>,
    /// Its log ends there.
    pub log_end: u64,
    /// Everything up to there is committed, as far as it knows.
    pub committed: u64,
    /// Everything up to there is in its trees.
    pub applied: u64,
    /// Why it takes no part, if it does not.
    pub failure: Option<String>,
}

impl Cluster {
    /// Makes a cluster on nodes that hold none yet, and begins to serve.
    ///
    /// # Errors
    /// `Invalid` for a layout that cannot be kept on these nodes, or nodes that take part already;
    /// `Exists` if one of them holds a cluster; those of opens.
    pub fn create(nodes: &[Node], layout: Topology) -> Result<Cluster> {
        let Some(first) = nodes.first() else {
            return Err(Error::new(ErrorKind::Invalid, "a cluster has nodes"));
        };
        let (env, dir) = (first.env().clone(), first.dir().join("topology"));
        Cluster::create_in(&env, &dir, nodes, layout)
    }

    /// As [`Cluster::create`], with the topology's records in a directory of the caller's.
    fn create_in(env: &Env, dir: &Path, nodes: &[Node], layout: Topology) -> Result<Cluster> {
        let ids: Vec<NodeId> = nodes.iter().map(Node::id).collect();
        let quorums = layout.quorums(&ids)?;
        let placed = &nodes[..layout.replicas];
        for node in placed {
            if node.env().disk.stat(&shard_dir(node, 0))?.is_some() {
                let error = Error::new(ErrorKind::Exists, "a node holds a cluster already");
                return Err(error.with("node", node.id()));
            }
        }
        let options = member_options(&layout)?;
        let records = open_records(env, dir)?;
        let mut uuids = Vec::with_capacity(layout.shards);
        for number in 0..layout.shards {
            let uuid = recovery::new_uuid(env);
            create_shard(placed, number as u32, uuid, &options, &quorums)?;
            uuids.push(uuid);
        }
        Cluster::run(env, records, uuids, placed, layout)
    }

    /// Opens a cluster that was made on these nodes before: the first of them is the one that was
    /// first then. Members and acknowledgements are those of then, whatever `layout` says; the
    /// rest of it may be another.
    ///
    /// # Errors
    /// `Invalid` if there is no node, or one takes part already; `NotFound` if a node holds no
    /// member; those of opens.
    pub fn open(nodes: &[Node], layout: Topology) -> Result<Cluster> {
        let Some(first) = nodes.first() else {
            return Err(Error::new(ErrorKind::Invalid, "a cluster has nodes"));
        };
        let (env, dir) = (first.env().clone(), first.dir().join("topology"));
        Cluster::open_in(&env, &dir, nodes, layout)
    }

    /// As [`Cluster::open`], with the topology's records in a directory of the caller's.
    fn open_in(env: &Env, dir: &Path, nodes: &[Node], layout: Topology) -> Result<Cluster> {
        let mut uuids = Vec::new();
        for number in 0.. {
            let shard = shard_dir(&nodes[0], number);
            let disk = &nodes[0].env().disk;
            if disk.stat(&shard)?.is_none() {
                break;
            }
            uuids.push(config_file::load_any(&**disk, &shard.join("CONFIG"))?.uuid);
        }
        if uuids.is_empty() {
            let error = Error::new(ErrorKind::NotFound, "the node holds no cluster");
            return Err(error.with("node", nodes[0].id()));
        }
        Cluster::run(env, open_records(env, dir)?, uuids, nodes, layout)
    }

    /// Begins to serve.
    fn run(
        env: &Env,
        records: Arc<dyn Records>,
        uuids: Vec<[u8; 16]>,
        nodes: &[Node],
        layout: Topology,
    ) -> Result<Cluster> {
        let ranges = even_ranges(uuids.len()).map_err(internal)?;
        let map = ShardMap::new(RoutingEpoch(1), ranges).map_err(internal)?;
        let cluster = Cluster {
            inner: Arc::new(Inner {
                layout,
                map: Arc::new(map),
                moments: (uuids.len() > 1).then(|| Moments::new(env)),
                uuids,
                records,
                resolver: Mutex::default(),
                places: Arc::default(),
                env: env.clone(),
            }),
        };
        for node in nodes {
            cluster.join(node)?;
        }
        let inner = &cluster.inner;
        if inner.moments.is_some() {
            let shards = inner.map.shards().len() as u32;
            let resolver = Resolver::start(env, &inner.places, shards)?;
            *inner.resolver.lock() = Some(resolver);
        }
        Ok(cluster)
    }

    /// A node that held members of the cluster, and was stopped, takes part again.
    ///
    /// # Errors
    /// `NotFound` if it holds no member; `Invalid` if it takes part already; those of opens.
    pub fn join(&self, node: &Node) -> Result<()> {
        let inner = &self.inner;
        let mut options = member_options(&inner.layout)?;
        options.moments.clone_from(&inner.moments);
        let shards = inner.map.shards();
        let mut homes = Vec::with_capacity(shards.len());
        for (number, shard) in shards.iter().enumerate() {
            let dir = shard_dir(node, number as u32);
            if node.env().disk.stat(&dir)?.is_none() {
                let error =
                    Error::new(ErrorKind::NotFound, "the node holds no member of the shard");
                return Err(error.with("node", node.id()).with("shard", shard));
            }
            homes.push(Home {
                id: node.id().into(),
                number: number as u32,
                shard: shard.clone(),
                uuid: inner.uuids[number],
                dir,
                env: node.env().clone(),
                options: options.clone(),
                transport: Arc::clone(node.transport()),
                topology: Arc::clone(&inner.records),
                patience: inner.layout.patience,
                within: inner.layout.within,
            });
        }
        node.start(homes)?;
        let mut nodes = inner.places.nodes.lock();
        nodes.insert(node.id(), node.clone());
        Ok(())
    }

    /// The database that programs work with. Its calls go to whoever leads, and wait for a leader
    /// where there is none ([`Topology::wait_for_leader`]).
    #[must_use]
    pub fn database(&self) -> Database {
        Database::routed(Arc::new(Router::new(&self.inner)))
    }

    /// The shards, in the order of their ranges.
    #[must_use]
    pub fn shards(&self) -> &[ShardId] {
        self.inner.map.shards()
    }

    /// Which shard has which ids.
    #[must_use]
    pub fn map(&self) -> &ShardMap {
        &self.inner.map
    }

    /// How the members of a shard stand.
    ///
    /// # Errors
    /// `NotFound` if there is no such shard.
    pub fn status(&self, shard: &ShardId) -> Result<Vec<MemberStatus>> {
        let hosts = self.inner.hosts(self.inner.number_of(shard)?);
        let status = |(node, host): (NodeId, Arc<Host>)| MemberStatus {
            node,
            leads: host.leads().map(|term| term.0),
            log_end: host.log.positions().sequenced.0.0,
            committed: host.log.commit_lsn().0,
            applied: host.applied().0,
            failure: host.failure(),
        };
        Ok(hosts.into_iter().map(status).collect())
    }

    /// The node that leads a shard, once one is known to lead at some moment after the call.
    ///
    /// # Errors
    /// `NotFound` if there is no such shard, `Unavailable` if nobody came to lead in time.
    pub fn wait_leader(&self, shard: &ShardId, within: Duration) -> Result<NodeId> {
        let number = self.inner.number_of(shard)?;
        let mut seen = BTreeMap::new();
        self.inner.wait_for(within, || {
            let (node, host) = self.inner.leader_of(number)?;
            // Behind the moment in which it began to serve.
            let now = host.home.now().after(1);
            let since = *seen.entry((node, host.leads())).or_insert(now);
            let led = host.peek(|member| member.replica().led_after(since));
            led.unwrap_or(false).then_some(node)
        })
    }

    /// Moves the leadership of a shard to another node, without an error to callers: the leader
    /// admits nothing more, the other has and applies all, and takes over.
    ///
    /// # Errors
    /// `NotFound` if there is no such shard; `Invalid` with why the leader stays; `TimedOut`.
    pub fn switchover(&self, shard: &ShardId, to: NodeId) -> Result<()> {
        let number = self.inner.number_of(shard)?;
        let within = Duration::from_secs(10);
        let asked = self.inner.wait_for(within, || {
            let (leader, _) = self.inner.leader_of(number)?;
            self.inner.places.nodes.lock().get(&leader).cloned()
        })?;
        let reply = asked.switch(number, to);
        match reply.wait(within) {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                let what = "the leader stays where it is";
                return Err(Error::new(ErrorKind::Invalid, what).caused_by(error));
            }
            None => {
                let what = "the leader has not handed over in time";
                return Err(Error::new(ErrorKind::TimedOut, what).with("shard", shard));
            }
        }
        self.inner.wait_for(within, || {
            let (leader, _) = self.inner.leader_of(number)?;
            (leader != asked.id()).then_some(())
        })
    }
}

impl Places {
    fn hosts(&self, shard: u32) -> Vec<(NodeId, Arc<Host>)> {
        let nodes = self.nodes.lock();
        let host = |(id, node): (&NodeId, &Node)| Some((*id, node.host(shard)?));
        nodes.iter().filter_map(host).collect()
    }

    /// The member that takes commits, of several the one in the highest term.
    fn leader_of(&self, shard: u32) -> Option<(NodeId, Arc<Host>)> {
        let leads = |(node, host): (NodeId, Arc<Host>)| Some((host.leads()?, node, host));
        let all = self.hosts(shard).into_iter().filter_map(leads);
        let leader = all.max_by_key(|(term, ..): &(Term, NodeId, Arc<Host>)| *term)?;
        Some((leader.1, leader.2))
    }
}

impl Inner {
    fn number_of(&self, shard: &ShardId) -> Result<u32> {
        let mut known = self.map.shards().iter();
        let at = known.position(|known| known == shard);
        at.map(|at| at as u32).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "there is no such shard").with("shard", shard)
        })
    }

    fn hosts(&self, shard: u32) -> Vec<(NodeId, Arc<Host>)> {
        self.places.hosts(shard)
    }

    fn leader_of(&self, shard: u32) -> Option<(NodeId, Arc<Host>)> {
        self.places.leader_of(shard)
    }

    /// Waits until `found` finds something.
    fn wait_for<T>(&self, within: Duration, mut found: impl FnMut() -> Option<T>) -> Result<T> {
        let waiter = self.env.park.waiter();
        let until = self.env.clock.now_mono().saturating_add(within);
        loop {
            if let Some(found) = found() {
                return Ok(found);
            }
            if self.env.clock.now_mono() >= until {
                let what = "no member leads the shard";
                let error = Error::new(ErrorKind::Unavailable, what);
                return Err(error.with("waited_ms", within.as_millis()));
            }
            waiter.park_timeout(Duration::from_millis(2));
        }
    }
}

fn shard_dir(node: &Node, number: u32) -> std::path::PathBuf {
    node.dir().join(format!("shard-{number}"))
}

/// What cannot be refused, for it was made here.
fn internal(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Invalid, "a shard cannot be named").caused_by(error)
}

fn member_options(layout: &Topology) -> Result<Options> {
    let mut options = Builder::new().memory_bytes(layout.memory_bytes).resolve()?;
    options.durability = Durability::Replicated;
    Ok(options)
}

/// The topology's records, in a small database.
fn open_records(env: &Env, dir: &Path) -> Result<Arc<dyn Records>> {
    let options = Builder::new().memory_bytes(4 << 20).resolve()?;
    let core = recovery::open(env.clone(), dir, options)?;
    let records = Embedded::open(Database::alone(Local::over(core, true)?))?;
    Ok(Arc::new(records))
}

/// Makes the files of a shard's members. CONFIG comes last, when all are known.
fn create_shard(
    nodes: &[Node],
    number: u32,
    uuid: [u8; 16],
    options: &Options,
    quorums: &terrane_shard::policy::Quorums,
) -> Result<()> {
    let mut incarnations = Vec::with_capacity(nodes.len());
    for node in nodes {
        let (env, dir) = (node.env(), shard_dir(node, number));
        recovery::directory::make(env, &dir)?;
        recovery::member::create(env, &dir, uuid, options)?;
        let vote = Vote {
            promised: Term(0),
            incarnation: env.rng.next_u64("incarnation"),
            boot: 0,
        };
        VoteFile::create(&*env.disk, &dir.join("VOTE"), uuid, vote)?;
        incarnations.push(Incarnation(vote.incarnation));
    }
    let config = Config::new(quorums.clone(), incarnations).map_err(internal)?;
    for node in nodes {
        let path = shard_dir(node, number).join("CONFIG");
        config_file::save(&*node.env().disk, &path, uuid, (Lsn::ZERO, &config))?;
    }
    Ok(())
}
