//! Three replicas in one process, and a failover.
//!
//! `cargo run --example 05_replicas [FOLDER]`; without a folder a fresh temporary one is used and
//! removed at the end. The folder must hold no cluster yet.

use std::path::{Path, PathBuf};
use std::time::Duration;

use terrane::cluster::{Acks, Cluster, LocalNetwork, Node, NodeId, Topology};
use terrane::{Result, TableDef};

const NOTES: TableDef<u64, String> = TableDef::new("notes");

fn run(folder: &Path) -> Result<()> {
    let network = LocalNetwork::new();
    let open = |id| {
        let dir = folder.join(format!("node-{id}"));
        Node::open(NodeId(id), dir, network.endpoint(NodeId(id)))
    };
    let nodes = [open(1)?, open(2)?, open(3)?];
    // Semi-synchronous: a commit returns when the leader and any one follower have it on disk.
    let layout = Topology::new().shards(1).replicas(3).acks(Acks::Any(1));
    let cluster = Cluster::create(&nodes, layout)?;
    let db = cluster.database(); // Cluster is for operators, Database for programs
    let notes = db.table(NOTES)?;
    db.write(|tx| notes.put(tx, 1, &"before".to_string()))?;

    let shard = &cluster.shards()[0];
    let old = cluster.wait_leader(shard, Duration::from_secs(5))?;
    network.isolate(old);
    let new = cluster.wait_leader(shard, Duration::from_secs(5))?;
    assert_ne!(new, old);
    println!("{old} led, then {new}");
    assert_eq!(
        notes.get(&db.snapshot(), 1)?.as_deref(),
        Some("before"),
        "what was acknowledged is there"
    );
    db.write(|tx| notes.put(tx, 2, &"after".to_string()))?;
    network.heal(); // the old leader meets a higher term, drops what nobody acknowledged, follows
    assert_eq!(notes.get(&db.snapshot(), 2)?.as_deref(), Some("after"));
    Ok(())
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let given = std::env::args_os().nth(1).map(PathBuf::from);
    let temporary = std::env::temp_dir().join(format!("terrane-05-{}", std::process::id()));
    let folder = given.as_ref().unwrap_or(&temporary);
    std::fs::create_dir_all(folder)?;

    run(folder)?;

    if given.is_none() {
        std::fs::remove_dir_all(&temporary)?;
    }
    Ok(())
}
