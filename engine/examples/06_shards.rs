//! A shard map, and transactions routed by it: four shards, each on three replicas, in one process.
//!
//! `cargo run --example 06_shards [FOLDER]`; without a folder a fresh temporary one is used and
//! removed at the end. The folder must hold no cluster yet.

use std::path::{Path, PathBuf};

use terrane::cluster::{Acks, Cluster, LocalNetwork, Node, NodeId, Topology};
use terrane::{Database, Result, TableDef};

// Rows are placed by the hash of the key's first part: a tenant's orders share a shard.
const ORDERS: TableDef<(u64, u64), u64> = TableDef::new("orders");

/// The same code as over one directory.
fn move_an_order(db: &Database) -> Result<()> {
    let orders = db.table(ORDERS)?;
    let (alice, bob) = (17_u64, 42_u64);
    let (from, to) = (orders.route((alice, 1))?, orders.route((bob, 1))?);
    println!("alice: {from}\nbob: {to}"); // shard, keyspace id, and the rule that chose them

    // Keys choose the shard. One tenant is one shard, and its commit needs nobody else.
    db.write(|tx| orders.put(tx, (alice, 1), &990))?;

    // Two tenants may be two shards: the same calls, committed in two phases, and counted.
    let mut tx = db.begin();
    let sum = orders.get(&tx, (alice, 1))?.unwrap_or(0);
    orders.delete(&mut tx, (alice, 1))?;
    orders.put(&mut tx, (bob, 1), &sum)?;
    let commit = tx.commit()?;
    println!("{} shards took part", commit.shards);
    assert_eq!(commit.shards, if from.shard == to.shard { 1 } else { 2 });

    let now = db.snapshot(); // one moment of all shards
    println!("bob has {} orders", orders.prefix(&now, bob).count());
    assert_eq!(orders.get(&now, (bob, 1))?, Some(990));
    assert_eq!(orders.count(&now)?, 1);
    Ok(())
}

fn run(folder: &Path) -> Result<()> {
    let network = LocalNetwork::new();
    let open = |id| {
        let dir = folder.join(format!("node-{id}"));
        Node::open(NodeId(id), dir, network.endpoint(NodeId(id)))
    };
    let nodes = [open(1)?, open(2)?, open(3)?];
    let layout = Topology::new().shards(4).replicas(3).acks(Acks::Any(1));
    let cluster = Cluster::create(&nodes, layout.memory_bytes(16 << 20))?;
    for shard in cluster.map().shards() {
        println!("shard {shard}");
    }
    move_an_order(&cluster.database())
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let given = std::env::args_os().nth(1).map(PathBuf::from);
    let temporary = std::env::temp_dir().join(format!("terrane-06-{}", std::process::id()));
    let folder = given.as_ref().unwrap_or(&temporary);
    std::fs::create_dir_all(folder)?;

    run(folder)?;

    if given.is_none() {
        std::fs::remove_dir_all(&temporary)?;
    }
    Ok(())
}
