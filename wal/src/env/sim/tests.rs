//! Interleavings replay from their seed, planted races are found, and deadlocks are named.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::io::sim::{CrashCaps, CrashCounts, CrashPlan};
use crate::io::{Buf, Open, Purpose};
use crate::sync::{AtomicU64 as Word, Mutex as ShortMutex};

/// Two threads add one each, twice, by load, yield and store: a planted lost update.
fn racy_sum(seed: u64) -> (u64, u64) {
    let sim = SimEnv::new(seed);
    let env = sim.env();
    let sum = Arc::new(Word::new(0));
    let threads: Vec<_> = ["a", "b"]
        .map(|name| {
            let (sum, park) = (Arc::clone(&sum), Arc::clone(&env.park));
            let body = move || {
                for _ in 0..2 {
                    let seen = sum.load(Ordering::Relaxed);
                    park.yield_now();
                    sum.store(seen + 1, Ordering::Relaxed);
                }
            };
            env.spawn.spawn(name, Box::new(body)).unwrap()
        })
        .into();
    for thread in threads {
        thread.join().unwrap();
    }
    (sum.load(Ordering::Relaxed), sim.trace_hash())
}

#[test]
fn a_planted_lost_update_is_found_by_some_seed_and_replays() {
    let runs: Vec<_> = (0..40).map(racy_sum).collect();
    let lost = runs.iter().position(|(sum, _)| *sum < 4).unwrap();
    assert!(runs.iter().any(|(sum, _)| *sum == 4), "some seeds get by");
    for _ in 0..3 {
        assert_eq!(racy_sum(lost as u64), runs[lost], "seed {lost} replays");
    }
    let mut traces: Vec<u64> = runs.iter().map(|(_, trace)| *trace).collect();
    traces.sort_unstable();
    traces.dedup();
    assert!(traces.len() > 10, "seeds differ: {}", traces.len());
}

/// Threads write to one file and count in a mutex that is held over an I/O.
fn busy_run(seed: u64, preempt: bool) -> (u64, u64, Vec<u64>) {
    let sim = SimEnv::new(seed);
    sim.preempt_at_locks(preempt);
    let env = sim.env();
    let file = env.disk.open("/a".as_ref(), Open::CreateNew).unwrap();
    let order = Arc::new(ShortMutex::new(Vec::new()));
    let mut threads = Vec::new();
    for id in 0..3_u64 {
        let (file, order, env) = (Arc::clone(&file), Arc::clone(&order), env.clone());
        let body = move || {
            for step in 0..4 {
                let pause = Duration::from_micros(env.rng.next_u64("pause") % 50);
                env.park.waiter().park_timeout(pause);
                let mut order = order.lock();
                let at = (id * 4 + step) * 4096;
                file.write(Purpose::Other, at, &Buf::zeroed(4096), true)
                    .unwrap();
                order.push(id);
            }
        };
        let name = format!("writer-{id}");
        threads.push(env.spawn.spawn(&name, Box::new(body)).unwrap());
    }
    for thread in threads {
        thread.join().unwrap();
    }
    let order = order.lock().clone();
    (sim.trace_hash(), sim.steps(), order)
}

#[test]
fn one_seed_gives_one_trace_and_other_seeds_give_others() {
    for preempt in [false, true] {
        let first = busy_run(7, preempt);
        assert_eq!(first, busy_run(7, preempt));
        assert_eq!(first.2.len(), 12);
        assert!((8..20).any(|seed| busy_run(seed, preempt).2 != first.2));
    }
}

#[test]
fn a_mutex_held_over_an_io_passes_the_baton_instead_of_blocking() {
    // With a blocking lock this would never end: the holder waits for the baton.
    for seed in 0..20 {
        assert_eq!(busy_run(seed, true).2.len(), 12);
    }
}

#[test]
fn simulated_time_jumps_to_the_next_deadline() {
    let sim = SimEnv::new(1);
    let env = sim.env();
    let waiter = env.park.waiter();
    let start = env.clock.now_mono();
    let wall = env.clock.now_wall();
    assert!(!waiter.park_timeout(Duration::from_secs(3600)));
    let waited = env.clock.now_mono() - start;
    assert!(waited >= Duration::from_secs(3600) && waited < Duration::from_secs(3601));
    sim.clock().jump_wall(wall - Duration::from_secs(60));
    assert!(env.clock.now_wall() < wall, "the wall goes back");
    assert!(
        env.clock.now_mono() - start >= waited,
        "the monotonic clock does not"
    );
    waiter.unpark();
    assert!(
        waiter.park_timeout(Duration::ZERO),
        "an early unpark is not lost"
    );
}

fn panic_text(body: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(body)).unwrap_err();
    panic.downcast_ref::<String>().unwrap().clone()
}

#[test]
fn a_deadlock_is_a_panic_that_names_every_thread() {
    let text = panic_text(|| {
        let sim = SimEnv::new(3);
        let env = sim.env();
        let waiter = env.park.waiter();
        let inner = env.park.waiter();
        env.spawn
            .spawn("sleeper", Box::new(move || inner.park()))
            .unwrap();
        waiter.park();
    });
    assert!(text.contains("deadlock"), "{text}");
    assert!(text.contains("thread 0 'main' is parked"), "{text}");
    assert!(text.contains("thread 1 'sleeper' is parked"), "{text}");
}

#[test]
fn two_mutexes_taken_crosswise_are_found_by_some_seed() {
    let cross = |seed| {
        let sim = SimEnv::new(seed);
        let env = sim.env();
        let locks = Arc::new([ShortMutex::new(()), ShortMutex::new(())]);
        let mut threads = Vec::new();
        for first in [0, 1] {
            let (locks, park) = (Arc::clone(&locks), Arc::clone(&env.park));
            let body = move || {
                let _outer = locks[first].lock();
                park.yield_now();
                let _inner = locks[1 - first].lock();
            };
            threads.push(env.spawn.spawn("cross", Box::new(body)).unwrap());
        }
        threads.into_iter().for_each(|t| t.join().unwrap());
    };
    let texts: Vec<String> = (0..20)
        .filter_map(|seed| {
            let run = catch_unwind(|| cross(seed));
            run.err()?.downcast_ref::<String>().cloned()
        })
        .collect();
    assert!(!texts.is_empty(), "some seed deadlocks");
    assert!(texts.len() < 20, "some seed does not");
    assert!(texts[0].contains("waits for a mutex"), "{}", texts[0]);
}

#[test]
fn a_livelock_ends_at_the_limit_of_steps() {
    let text = panic_text(|| {
        let sim = SimEnv::new(3);
        sim.set_steps_max(1000);
        loop {
            sim.env().park.yield_now();
        }
    });
    assert!(text.contains("no end after 1000"), "{text}");
}

#[test]
fn a_panic_of_a_logical_thread_comes_back_from_join() {
    let sim = SimEnv::new(5);
    let env = sim.env();
    let thread = env.spawn.spawn("bad", Box::new(|| panic!("on purpose")));
    assert_eq!(thread.unwrap().join().unwrap_err(), "on purpose");
    env.park.yield_now();
}

#[test]
fn dropping_the_environment_ends_threads_that_wait() {
    struct Tell(Arc<Word>);
    impl Drop for Tell {
        fn drop(&mut self) {
            self.0.store(1, Ordering::Release);
        }
    }
    let ended = Arc::new(Word::new(0));
    let sim = SimEnv::new(9);
    let env = sim.env();
    let (waiter, tell) = (env.park.waiter(), Tell(Arc::clone(&ended)));
    let body = move || {
        let _tell = tell;
        waiter.park();
    };
    env.spawn.spawn("waits", Box::new(body)).unwrap();
    sim.settle();
    assert_eq!(ended.load(Ordering::Acquire), 0);
    drop(sim);
    while ended.load(Ordering::Acquire) == 0 {
        std::thread::yield_now();
    }
}

#[test]
fn environments_nest_and_the_outer_one_goes_on() {
    let outer = SimEnv::new(1);
    let outer_env = outer.env();
    outer_env.disk.create_dir("/outer".as_ref()).unwrap();
    for seed in 0..3 {
        let inner = SimEnv::with_disk(seed, outer.disk().crash(seed));
        let thread = inner.env().spawn.spawn("inner", Box::new(|| ())).unwrap();
        thread.join().unwrap();
    }
    let thread = outer_env.spawn.spawn("outer", Box::new(|| ())).unwrap();
    thread.join().unwrap();
    assert_eq!(outer_env.disk.list("/".as_ref()).unwrap(), ["outer"]);
}

/// Three threads append durable blocks of their own; each crash, at each boundary, at each
/// interleaving that the seed gives, keeps what was acknowledged.
fn group_crashes(seed: u64, durable: bool) -> (Arc<CrashCounts>, u64) {
    let sim = SimEnv::new(seed);
    let env = sim.env();
    let file = env.disk.open("/a".as_ref(), Open::CreateNew).unwrap();
    env.disk.sync_dir("/".as_ref()).unwrap();
    let plan = CrashPlan::new(seed, CrashCaps::at_most(12), 0);
    let acknowledged = Arc::clone(&plan.acknowledged);
    let done = Arc::new(ShortMutex::new(Vec::new()));
    let expected = Arc::clone(&done);
    let counts = sim.disk().enumerate_crashes(plan, move |crashed| {
        let inner = SimEnv::with_disk(0, crashed.clone());
        let file = inner.env().disk.open("/a".as_ref(), Open::Read).unwrap();
        for block in expected.lock().iter() {
            let mut buf = Buf::zeroed(4096);
            file.read(Purpose::Other, block * 4096, &mut buf).unwrap();
            assert!(buf.iter().all(|byte| *byte == 7), "block {block} is lost");
        }
    });
    let mut threads = Vec::new();
    for id in 0..3_u64 {
        let (file, done) = (Arc::clone(&file), Arc::clone(&done));
        let acknowledged = Arc::clone(&acknowledged);
        let body = move || {
            for step in 0..2 {
                let mut buf = Buf::zeroed(4096);
                buf.fill(7);
                let block = step * 3 + id;
                file.write(Purpose::Log, block * 4096, &buf, durable)
                    .unwrap();
                done.lock().push(block);
                acknowledged.fetch_add(1, Ordering::SeqCst);
            }
        };
        threads.push(env.spawn.spawn("writer", Box::new(body)).unwrap());
    }
    threads.into_iter().for_each(|t| t.join().unwrap());
    sim.disk().off_io();
    (counts, sim.trace_hash())
}

#[test]
fn crashes_are_enumerated_while_several_threads_commit() {
    for seed in 0..4 {
        let (counts, trace) = group_crashes(seed, true);
        counts.assert_clean();
        assert_eq!(counts.boundaries(), 6 * 3);
        assert_eq!(group_crashes(seed, true).1, trace, "seed {seed} replays");
    }
    let (counts, _) = group_crashes(0, false);
    assert!(counts.failures()[0].contains("is lost"), "{counts}");
}
