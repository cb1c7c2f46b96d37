//! Whole clusters from one seed: the real engine on simulated disks, a network that delays, loses,
//! repeats and reorders, nodes that are cut off and lose their power. Callers move money between
//! accounts meanwhile and look at the sum. Then all is healed: what was acknowledged is there,
//! once, what is there was asked for, and all members hold the same rows.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::error::Outcome;
use crate::txn::Transaction;
use crate::{Table, TableDef};

/// By group and number: the accounts of a group share a shard.
const ACCOUNTS: TableDef<(u64, u64), i64> = TableDef::new("accounts");
/// By group and number of the call.
const MOVES: TableDef<(u64, u64), u64> = TableDef::new("moves");
const GROUPS: u64 = 6;
const IN_GROUP: u64 = 3;
pub(super) const COUNT: u64 = GROUPS * IN_GROUP;
const EACH: i64 = 100;

/// What callers were told.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) acknowledged: BTreeSet<u64>,
    pub(super) unknown: BTreeSet<u64>,
    /// What was read.
    seen: BTreeSet<u64>,
    pub(super) refused: u64,
    pub(super) sums: u64,
}

pub(super) struct World {
    pub(super) network: LocalNetwork,
    pub(super) cluster: Cluster,
    disks: BTreeMap<NodeId, SimDisk>,
    nodes: BTreeMap<NodeId, Node>,
    pub(super) told: Arc<Mutex<Told>>,
    stop: Arc<AtomicBool>,
    /// Dropped last: what runs in it ends before.
    sim: SimEnv,
}

pub(super) fn layout() -> Topology {
    Topology::new()
        .suspect_after(Duration::from_millis(600))
        .calm_after_failover(Duration::ZERO)
        .commit_within(Duration::from_secs(3))
        .wait_for_leader(Duration::from_secs(5))
        .memory_bytes(8 << 20)
}

fn faults() -> Faults {
    Faults {
        lose_percent: 2,
        repeat_percent: 2,
        delay_max: Duration::from_millis(20),
    }
}

type Tables = (Table<(u64, u64), i64>, Table<(u64, u64), u64>);

pub(super) fn tables(db: &Database) -> Result<Tables> {
    Ok((db.table(ACCOUNTS)?, db.table(MOVES)?))
}

/// The row of a call.
pub(super) fn key_of(number: u64) -> (u64, u64) {
    (number % GROUPS, number)
}

impl World {
    pub(super) fn new(seed: u64, faults: Faults) -> World {
        World::of(seed, faults, 1)
    }

    /// With so many shards.
    pub(super) fn of(seed: u64, faults: Faults, shards: usize) -> World {
        World::laid_out(seed, faults, layout().shards(shards))
    }

    pub(super) fn laid_out(seed: u64, faults: Faults, layout: Topology) -> World {
        let sim = SimEnv::new(seed);
        sim.set_steps_max(40_000_000);
        let network = LocalNetwork::chaotic(&sim.env(), faults);
        let mut disks = BTreeMap::new();
        let mut nodes = BTreeMap::new();
        for id in (1..=3).map(NodeId) {
            let disk = SimDisk::new();
            nodes.insert(id, node(&sim, &network, &disk, id));
            disks.insert(id, disk);
        }
        let all: Vec<Node> = nodes.values().cloned().collect();
        // The topology has a disk that nothing happens to.
        let dir = Path::new("/topology");
        let cluster = Cluster::create_in(&sim.env(), dir, &all, layout);
        World {
            network,
            cluster: cluster.unwrap(),
            disks,
            nodes,
            told: Arc::default(),
            stop: Arc::default(),
            sim,
        }
    }

    pub(super) fn env(&self) -> Env {
        self.sim.env()
    }

    fn random(&self, stream: &'static str, below: u64) -> u64 {
        self.sim.env().rng.next_u64(stream) % below
    }

    /// Another member comes to lead a shard.
    pub(super) fn depose(&mut self, shard: u32) {
        let shard = self.cluster.shards()[shard as usize].clone();
        let old = self.leader_of(&shard);
        self.network.isolate(old);
        assert_ne!(self.leader_of(&shard), old);
        self.network.heal();
    }

    pub(super) fn sleep(&self, time: Duration) {
        self.sim.env().park.waiter().park_timeout(time);
    }

    pub(super) fn shard(&self) -> ShardId {
        self.cluster.shards()[0].clone()
    }

    /// Who leads the first shard, once somebody does.
    pub(super) fn leader(&self) -> NodeId {
        self.leader_of(&self.shard())
    }

    fn leader_of(&self, shard: &ShardId) -> NodeId {
        let found = self.cluster.wait_leader(shard, Duration::from_secs(30));
        found.unwrap_or_else(|error| panic!("{error}\n{}", dump(&self.cluster)))
    }

    /// Waits until every shard has a leader.
    fn all_led(&self) {
        let shards = self.cluster.shards().iter();
        shards.for_each(|shard| {
            self.leader_of(shard);
        });
    }

    pub(super) fn fill(&self) {
        self.all_led();
        let db = self.cluster.database();
        let (accounts, _) = tables(&db).unwrap();
        for group in 0..GROUPS {
            let fill = |tx: &mut Transaction| {
                (0..IN_GROUP).try_for_each(|at| accounts.put(tx, (group, at), &EACH))
            };
            db.write(fill).unwrap();
        }
    }

    /// Calls that go on until they are stopped.
    pub(super) fn callers(&self) -> Vec<Box<dyn Joiner>> {
        (0..3)
            .map(|caller| {
                let (cluster, env) = (self.cluster.clone(), self.sim.env());
                let (told, stop) = (Arc::clone(&self.told), Arc::clone(&self.stop));
                let body = move || {
                    let mut number = caller << 32;
                    let mut db = cluster.database();
                    while !stop.load(Ordering::Relaxed) {
                        number += 1;
                        // Another handle may know of another leader.
                        if env.rng.next_u64("handle").is_multiple_of(8) {
                            db = cluster.database();
                        }
                        call(&db, &env, &told, number);
                        let pause = env.rng.next_u64("pause") % 20;
                        let waiter = env.park.waiter();
                        waiter.park_timeout(Duration::from_millis(pause));
                    }
                };
                let spawn = self.sim.env().spawn;
                spawn.spawn("caller", Box::new(body)).unwrap()
            })
            .collect()
    }

    /// Something bad happens.
    fn harm(&mut self) {
        let any = NodeId(1 + self.random("victim", 3) as u32);
        let other = NodeId(1 + self.random("other", 3) as u32);
        let shard = self.random("shard", self.cluster.shards().len() as u64);
        let leader = self.cluster.inner.leader_of(shard as u32);
        let leader = leader.map(|(leader, _)| leader);
        let id = leader
            .filter(|_| self.random("leader", 2) == 0)
            .unwrap_or(any);
        match self.random("harm", 6) {
            0 => self.network.isolate(id),
            1 => self.network.cut_link(id, other),
            2..4 => self.network.heal(),
            _ => self.lose_power(id),
        }
    }

    /// A power cut: what was not synced is there, in part or not at all.
    fn lose_power(&mut self, id: NodeId) {
        // Nobody hears it any more, so what it does from here on counts for nothing.
        let endpoint = self.network.endpoint(id);
        let seed = self.random("cut", u64::MAX);
        let image = self.disks[&id].crash(seed);
        self.nodes[&id].stop();
        drop(endpoint);
        let node = node(&self.sim, &self.network, &image, id);
        self.cluster.join(&node).unwrap();
        self.nodes.insert(id, node);
        self.disks.insert(id, image);
    }

    /// Nothing bad happens any more, callers end, and all must agree.
    pub(super) fn end(&mut self, callers: Vec<Box<dyn Joiner>>) {
        self.network.heal();
        self.network.set_faults(Faults::default());
        self.stop.store(true, Ordering::Relaxed);
        for caller in callers {
            caller.join().unwrap();
        }
        self.check();
    }

    pub(super) fn check(&self) {
        self.all_led();
        let db = self.cluster.database();
        let (accounts, moves) = tables(&db).unwrap();
        let at = db.snapshot();
        let sum: i64 = accounts.iter(&at).map(|row| row.unwrap().1).sum();
        assert_eq!(sum, EACH * COUNT as i64);
        let found: BTreeSet<u64> = moves.iter(&at).map(|row| row.unwrap().0.1).collect();
        let told = self.told.lock();
        let lost: Vec<_> = told.acknowledged.difference(&found).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        let gone: Vec<_> = told.seen.difference(&found).collect();
        assert!(gone.is_empty(), "I5: read and gone: {gone:?}");
        let asked: BTreeSet<u64> = told.acknowledged.union(&told.unknown).copied().collect();
        let never: Vec<_> = found.difference(&asked).collect();
        assert!(
            never.is_empty(),
            "told to have failed, and there: {never:?}"
        );
        drop(told);
        for number in 0..self.cluster.shards().len() {
            self.check_members(number);
        }
    }

    /// All members of a shard come to hold the same rows.
    fn check_members(&self, number: usize) {
        let shard = &self.cluster.shards()[number];
        for round in 0.. {
            let status = self.cluster.status(shard).unwrap();
            let applied: Vec<u64> = status.iter().map(|status| status.applied).collect();
            let failures: Vec<_> = status.iter().filter_map(|s| s.failure.clone()).collect();
            assert!(failures.is_empty(), "{failures:?}");
            if applied.len() == 3 && applied.iter().all(|at| *at == applied[0]) {
                break;
            }
            assert!(round < 300, "members do not catch up: {status:?}");
            self.sleep(Duration::from_millis(100));
        }
        let rows = |node: &Node| {
            let core = node.host(number as u32).unwrap().core().unwrap();
            let db = Database::alone(Local::detached(&core));
            let ((accounts, moves), at) = (tables(&db).unwrap(), db.snapshot());
            let accounts: Vec<_> = accounts.iter(&at).map(Result::unwrap).collect();
            let moves: Vec<_> = moves.iter(&at).map(Result::unwrap).collect();
            (accounts, moves)
        };
        let all: Vec<_> = self.nodes.values().map(rows).collect();
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{shard}");
        let foreign = all[0].0.iter().find(|((group, _), _)| {
            let db = self.cluster.database();
            let (accounts, _) = tables(&db).unwrap();
            accounts.route((*group, 0)).unwrap().shard != *shard
        });
        assert_eq!(foreign, None, "a row in a shard that is not its own");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.nodes.values().for_each(Node::stop);
    }
}

pub(super) fn node(sim: &SimEnv, network: &LocalNetwork, disk: &SimDisk, id: NodeId) -> Node {
    let endpoint = Arc::new(network.endpoint(id));
    Node::open_in(sim.env_on(disk), id, Path::new("/node"), endpoint).unwrap()
}

/// One call: money moves, or the sum is looked at.
fn call(db: &Database, env: &Env, told: &Mutex<Told>, number: u64) {
    let Ok((accounts, moves)) = tables(db) else {
        return;
    };
    if env.rng.next_u64("read").is_multiple_of(4) {
        let before = told.lock().acknowledged.clone();
        let at = db.snapshot();
        let rows: Result<Vec<_>> = accounts.iter(&at).collect();
        let seen: Result<BTreeSet<u64>> = moves.iter(&at).map(|row| Ok(row?.0.1)).collect();
        if let (Ok(rows), Ok(seen)) = (rows, seen) {
            let sum: i64 = rows.iter().map(|row| row.1).sum();
            assert_eq!(sum, EACH * COUNT as i64, "a snapshot that is torn");
            assert!(before.is_subset(&seen), "a snapshot that is stale");
            let mut told = told.lock();
            told.seen.extend(seen);
            told.sums += 1;
        }
        return;
    }
    if env.rng.next_u64("checkpoint").is_multiple_of(16) {
        // Fails where the leader changes meanwhile.
        let _ = db.checkpoint();
    }
    let draw = |below: u64| env.rng.next_u64("move") % below;
    let group = number % GROUPS;
    // Half of them within a group, which is one shard.
    let other = [group, draw(GROUPS)][draw(2) as usize];
    let (from, to) = ((group, draw(IN_GROUP)), (other, draw(IN_GROUP)));
    let amount = draw(10) as i64;
    let outcome = db.write(|tx| {
        let have = accounts.get(tx, from)?.unwrap_or(0);
        accounts.put(tx, from, &(have - amount))?;
        let have = accounts.get(tx, to)?.unwrap_or(0);
        accounts.put(tx, to, &(have + amount))?;
        moves.put(tx, key_of(number), &from.1)
    });
    let mut told = told.lock();
    match outcome {
        Ok(()) => drop(told.acknowledged.insert(number)),
        Err(error) if error.outcome() == Outcome::Unknown => drop(told.unknown.insert(number)),
        Err(_) => told.refused += 1,
    }
}

/// What became of a seed.
pub(super) struct Done {
    pub(super) told: Told,
    /// The last term that was given out.
    pub(super) term: u64,
    pub(super) trace: u64,
}

/// Of a cluster of so many shards.
pub(super) fn run(seed: u64, shards: usize) -> Done {
    let mut world = World::of(seed, faults(), shards);
    world.fill();
    let callers = world.callers();
    for _ in 0..12 {
        let pause = 100 + world.random("calm", 1_500);
        world.sleep(Duration::from_millis(pause));
        world.harm();
    }
    world.end(callers);
    let record = world.cluster.inner.records.read(&world.shard());
    let told = std::mem::take(&mut *world.told.lock());
    Done {
        told,
        term: record.unwrap().1.term.0,
        trace: world.sim.trace_hash(),
    }
}
