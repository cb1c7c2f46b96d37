//! Clusters in one process.

mod world;

use std::time::Instant;

use super::*;
use crate::TableDef;

const NOTES: TableDef<u64, String> = TableDef::new("notes");

struct Trio {
    network: LocalNetwork,
    cluster: Cluster,
    nodes: Vec<Node>,
    dir: tempfile::TempDir,
}

impl Trio {
    fn new(layout: Topology) -> Trio {
        let dir = tempfile::tempdir().unwrap();
        let network = LocalNetwork::new();
        let nodes: Vec<Node> = (1..=3)
            .map(|id| open(&network, dir.path(), NodeId(id)))
            .collect();
        let cluster = Cluster::create(&nodes, layout).unwrap();
        Trio {
            network,
            cluster,
            nodes,
            dir,
        }
    }

    fn shard(&self) -> ShardId {
        self.cluster.shards()[0].clone()
    }

    fn leader(&self) -> NodeId {
        let within = Duration::from_secs(10);
        let found = self.cluster.wait_leader(&self.shard(), within);
        found.unwrap_or_else(|error| {
            let status = self.cluster.status(&self.shard()).unwrap();
            let record = self.cluster.inner.records.read(&self.shard()).unwrap();
            let hosts = self.cluster.inner.hosts(0);
            let members: Vec<String> = hosts
                .iter()
                .map(|(id, host)| {
                    let seen = host.peek(|member| {
                        let replica = member.replica();
                        let (leads, follows) = (replica.leads(), replica.follows());
                        format!("{leads:?} {follows:?} {}", replica.promised())
                    });
                    format!("{id}: {seen:?}")
                })
                .collect();
            panic!("{error}\n{status:#?}\n{record:?}\n{members:#?}")
        })
    }

    /// The trees of the leader.
    fn db(&self) -> Database {
        self.leader();
        let (_, host) = self.cluster.inner.leader_of(0).unwrap();
        Database::detached(&host.core().unwrap())
    }
}

fn open(network: &LocalNetwork, dir: &Path, id: NodeId) -> Node {
    let path = dir.join(format!("node-{}", id.0));
    Node::open(id, path, network.endpoint(id)).unwrap()
}

fn fast() -> Topology {
    Topology::new()
        .suspect_after(Duration::from_millis(600))
        .calm_after_failover(Duration::ZERO)
        .memory_bytes(16 << 20)
}

#[test]
fn an_isolated_leader_is_replaced_and_follows() {
    let trio = Trio::new(fast());
    let old = trio.leader();
    let db = trio.db();
    let notes = db.table(NOTES).unwrap();
    for n in 0..100 {
        db.write(|tx| notes.put(tx, n, &format!("before {n}")))
            .unwrap();
    }
    trio.network.isolate(old);
    let began = Instant::now();
    let new = trio.leader();
    println!("pause {:?}", began.elapsed());
    assert_ne!(new, old);
    let db = trio.db();
    let notes = db.table(NOTES).unwrap();
    let found = notes.get(&db.snapshot(), 99).unwrap();
    assert_eq!(found.as_deref(), Some("before 99"));
    db.write(|tx| notes.put(tx, 100, &"after".into())).unwrap();
    trio.network.heal();
    let began = Instant::now();
    loop {
        let status = trio.cluster.status(&trio.shard()).unwrap();
        let ends: Vec<u64> = status.iter().map(|s| s.applied).collect();
        let leaders = status.iter().filter(|s| s.leads.is_some()).count();
        if leaders == 1 && ends.iter().all(|end| *end == ends[0]) {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{status:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    for node in &trio.nodes {
        let core = node.host(0).unwrap().core().unwrap();
        let db = Database::detached(&core);
        let notes = db.table(NOTES).unwrap();
        assert_eq!(notes.count(&db.snapshot()).unwrap(), 101, "{}", node.id());
    }
    assert!(trio.dir.path().exists());
}
