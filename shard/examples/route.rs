//! What a look-up of a shard takes: ids of random numbers against maps of 1, 64 and 4,096 shards.
//!
//! `cargo run --release -p terrane-shard --example route` prints nanoseconds per id, of the routing
//! alone and with the default vindex before it. Nothing is asserted about time; the answers are
//! checked against the ranges.

// A measurement: the clock is what it is about.
#![allow(clippy::disallowed_methods)]

use std::hint::black_box;
use std::time::Instant;

use terrane_shard::{
    Column, Destination, KeyspaceId, MapError, RoutingEpoch, ShardMap, Value, Vindex, even_ranges,
};

/// Ids of each round: 16 MiB of them would be memory traffic, these stay near.
const IDS: u64 = 1 << 14;
const ROUNDS: u32 = 200;

fn main() -> Result<(), MapError> {
    println!(
        "{:>6}  {:>8}  {:>14}",
        "shards", "route ns", "xxhash+route ns"
    );
    for n in [1, 64, 4096] {
        let map = ShardMap::new(RoutingEpoch(0), even_ranges(n)?)?;
        let ids: Vec<KeyspaceId> = (0..IDS).filter_map(id).collect();
        assert_eq!(ids.len() as u64, IDS);
        for id in &ids {
            assert!(map.route(id).range().contains(id));
        }
        let route = time(|| {
            for id in &ids {
                black_box(map.route(black_box(id)));
            }
        });
        let both = time(|| {
            for number in 0..IDS {
                let id = id(black_box(number));
                black_box(id.as_ref().map(|id| map.route(id)));
            }
        });
        println!("{n:>6}  {route:>8.1}  {both:>14.1}");
    }
    Ok(())
}

/// The id of a number by the default vindex.
fn id(number: u64) -> Option<KeyspaceId> {
    match Column::default().map(&[Value::Uint(number)]) {
        Ok(Destination::Id(id)) => Some(id),
        _ => None,
    }
}

/// Nanoseconds an id, of the fastest of all rounds.
fn time(mut round: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        round();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best * 1e9 / IDS as f64
}
