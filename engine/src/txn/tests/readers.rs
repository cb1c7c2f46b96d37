//! Readers beside commits and the collector of old versions, switched at every lock as a seed
//! draws.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use terrane_wal::env::SimEnv;

use super::{Rows, sim_open};
use crate::txn::sweep;

/// X3 and X6, row 8 of the likeliest mistakes: what a snapshot showed it shows again, whole,
/// whatever is applied, made durable and collected meanwhile. Seen to fail with the index asked
/// before the leaf in `read_row`, with the collector's horizon at the applied position instead of
/// the visible one, with read positions left out of it, and with no pre-image while nobody reads.
#[test]
fn a_snapshot_stays_beside_apply_and_collector() {
    let (moved, collected) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    for seed in 0..60 {
        let sim = SimEnv::new(seed);
        let db = sim_open(&sim);
        let rows = Rows::open(&db, "t");
        let state = |n: u32| format!("x={} y={}", 100 - n, 100 + n);
        let put = move |rows: &Rows, tx: &mut _, n: u32| {
            rows.put(tx, "x", &(100 - n).to_string())?;
            rows.put(tx, "y", &(100 + n).to_string())
        };
        db.write(|tx| put(&rows, tx, 0)).unwrap();
        sim.preempt_at_locks(true);
        let mut bodies: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
        let (writer, table) = (db.clone(), rows.clone());
        bodies.push(Box::new(move || {
            for n in 1..=8 {
                writer.write(|tx| put(&table, tx, n)).unwrap();
            }
        }));
        let (collector, count) = (db.clone(), collected.clone());
        bodies.push(Box::new(move || {
            for _ in 0..40 {
                let before = collector.core().recent.entries();
                sweep::step(collector.core());
                let after = collector.core().recent.entries();
                count.fetch_add(u32::from(after < before), Ordering::Relaxed);
                collector.core().env.park.yield_now();
            }
        }));
        for _ in 0..2 {
            let (db, rows, moved) = (db.clone(), rows.clone(), moved.clone());
            bodies.push(Box::new(move || {
                for _ in 0..6 {
                    let now = db.snapshot();
                    let first = rows.all(&now);
                    assert!((0..=8).any(|n| first == state(n)), "seed {seed}: {first}");
                    for _ in 0..4 {
                        db.core().env.park.yield_now();
                        let [x, y] = ["x", "y"].map(|key| rows.get(&now, key).unwrap().unwrap());
                        assert_eq!(format!("x={x} y={y}"), first, "X3, seed {seed}");
                        assert_eq!(rows.all(&now), first, "X3, seed {seed}");
                    }
                    let newer = rows.all(&db.snapshot()) != first;
                    moved.fetch_add(u32::from(newer), Ordering::Relaxed);
                }
            }));
        }
        let spawn = |body| sim.env().spawn.spawn("reader", body).unwrap();
        let threads: Vec<_> = bodies.into_iter().map(spawn).collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(rows.all(&db.snapshot()), state(8));
    }
    let [moved, collected] = [moved, collected].map(|count| count.load(Ordering::Relaxed));
    assert!(moved > 50, "{moved} snapshots were passed by a commit");
    assert!(collected > 50, "{collected} steps collected something");
}
