//! The token under every wait, in all interleavings: a wake-up is never lost, early or late.

use std::sync::Arc;

use loom::sync::atomic::{AtomicU64, Ordering};
use terrane_wal::env::{Park, SystemPark};

#[test]
fn a_parked_thread_sees_what_was_done_before_its_wake_up() {
    loom::model(|| {
        let waiter = SystemPark.waiter();
        let done = loom::sync::Arc::new(AtomicU64::new(0));
        let (inner, wake) = (done.clone(), Arc::clone(&waiter));
        let thread = loom::thread::spawn(move || {
            inner.store(1, Ordering::Relaxed);
            wake.unpark();
        });
        waiter.park();
        assert_eq!(done.load(Ordering::Relaxed), 1);
        thread.join().unwrap();
    });
}

#[test]
fn two_wake_ups_serve_a_loop_that_waits_for_both() {
    loom::model(|| {
        let waiter = SystemPark.waiter();
        let count = loom::sync::Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (count, waiter) = (count.clone(), Arc::clone(&waiter));
                loom::thread::spawn(move || {
                    count.fetch_add(1, Ordering::Release);
                    waiter.unpark();
                })
            })
            .collect();
        // Two wake-ups may arrive as one, so the condition is looked at after each.
        while count.load(Ordering::Acquire) < 2 {
            waiter.park();
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
}
