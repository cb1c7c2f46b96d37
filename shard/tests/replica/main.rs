//! Shards of several members under a seeded scheduler that crashes, wipes, delays, repeats and
//! drops; schedules with a name; and what a member refuses.

// A helper of a test ends the test on the spot.
#![allow(clippy::unwrap_used)]

mod chance;
mod entries;
mod faults;
mod handing;
mod leading;
mod schedules;
mod switching;
mod world;

use terrane_shard::policy::{DurabilityPolicy, SemiSync};

use terrane_shard::suspicion::Patience;
use world::World;

/// Shorter than what is usual, for a run is.
const PATIENCE: Patience = Patience {
    suspect_ms: 1_500,
    flap_ms: 3_000,
    failover_ms: 5_000,
};

/// The shards that are tried: a policy, the zones of the members, those of hosts that may join.
fn shape(seed: u64) -> (Box<dyn DurabilityPolicy>, &'static str, &'static str) {
    let semi = |acks| -> Box<dyn DurabilityPolicy> { Box::new(SemiSync::new(acks)) };
    match seed % 10 {
        0 | 1 => (semi(1), "a b c", ""),
        2 => (semi(2), "a b c d e", ""),
        3 => (semi(2), "a b c", ""),
        4 => (semi(1), "a b c d", ""),
        5 => (Box::new(SemiSync::cross_zone(1)), "a a b b c", ""),
        6 => (semi(1), "a b c", "d e"),
        7 => (semi(2), "a b c d", "e"),
        _ => (Box::new(SemiSync::new(1).with_readers()), "a b r:c r:d", ""),
    }
}

fn run(seed: u64, steps: usize) -> world::Done {
    let (policy, zones, spare) = shape(seed);
    let mut world = World::new(seed, policy, zones, spare);
    world.let_members_decide(PATIENCE);
    world.faults(steps);
    world.heal();
    world.live();
    world.done()
}

/// Seeds from the environment, or the ones of every run.
fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok());
    let first = number("TERRANE_REPLICA_SEED").unwrap_or(0);
    first..first + number("TERRANE_REPLICA_SEEDS").unwrap_or(2_000)
}

#[test]
fn what_was_committed_stays_and_a_healed_shard_goes_on() {
    let mut all = world::Done::default();
    for seed in seeds() {
        let done = run(seed, 3_000);
        all.committed += done.committed;
        all.leaders += done.leaders;
        all.wiped += done.wiped;
        all.readmitted += done.readmitted;
        all.changed += done.changed;
        all.reads += done.reads;
        all.asked += done.asked;
        all.copied += done.copied;
        all.put_back += done.put_back;
        all.cut += done.cut;
        all.suspected += done.suspected;
        all.switching += done.switching;
        all.ready += done.ready;
        all.switched += done.switched;
        all.reopened += done.reopened;
        all.apply_errors += done.apply_errors;
        all.replaced += done.replaced;
        all.rounds = all.rounds.max(done.rounds);
        all.slowest = all.slowest.max(done.slowest);
    }
    println!("replica seeds: {:?}: {all:?}", seeds());
    // The schedules reach what they are for.
    let seeds = seeds().count() as u64;
    if seeds >= 1_000 {
        assert!(all.committed > 10 * seeds && all.leaders > 2 * seeds);
        assert!(all.cut > seeds / 8 && all.wiped > seeds / 8 && all.readmitted > seeds / 16);
        assert!(all.changed > seeds / 4 && all.copied > seeds / 50);
        assert!(all.put_back > seeds / 20);
        assert!(all.reads > 50 * seeds && all.asked > 2 * seeds);
        assert!(all.suspected > seeds && all.replaced > seeds / 2);
        assert!(all.ready > seeds / 2 && all.switched > seeds / 2);
        assert!(all.reopened > seeds / 50 && all.apply_errors > seeds / 2);
    }
}

#[test]
fn a_seed_replays() {
    for seed in 0..7 {
        assert_eq!(run(seed, 1_500), run(seed, 1_500));
    }
}
