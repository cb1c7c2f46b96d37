//! Random scripts of operations, with power cuts, reopens and planned I/O failures, against a map
//! of versions (the model of `terrane-fuzz`).
//!
//! Every answer is predicted: values, order of scans in both directions, which commit conflicts,
//! what a snapshot goes on showing, what survives a crash. A failure prints the shrunk script as
//! prose and as bytes; the bytes belong into `fuzz/corpus/ops/` for ever.
//!
//! Seen to fail with a commit that is acknowledged without the wait for its flush, with replay that
//! keeps the oldest change of a row, and with a newer version never refused to a writer; of scans
//! with gaps or the end not counted, with the requested range counted for what was reached, and
//! with a reach that stays ahead of a scan that was dropped.
#![allow(clippy::unwrap_used)] // a test ends at its first surprise

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use terrane_fuzz::check::{self, Report};
use terrane_fuzz::ops::Script;

/// Scripts of one run; more for a long run by the environment.
fn scripts(default: u32) -> u32 {
    let asked = std::env::var("TERRANE_SCRIPTS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Bytes of a script, drawn from a seed (SplitMix64).
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn seeded_scripts_agree_with_the_model() {
    let mut sum = Report::default();
    let count = scripts(120);
    for seed in 0..u64::from(count) {
        let script = Script::decode(&noise(seed, 100 + (seed as usize * 37) % 900));
        sum.add(&check::expect(&script, seed));
        if std::env::var_os("TERRANE_TRACE").is_some() {
            println!("seed {seed} done: {sum}");
        }
    }
    println!("model: {count} seeded scripts, {sum}");
    // A run that never crashed, conflicted or checkpointed would prove nothing about those.
    assert!(sum.crashes > 0 && sum.conflicts > 0 && sum.checkpoints > 0 && sum.reopened > 0);
    assert!(
        sum.unknown > 0 && sum.troubles > 0,
        "no planned failure has struck: {sum}"
    );
}

#[test]
fn drawn_scripts_agree_with_the_model() {
    // Scripts shrink themselves, by operations; the runner need not shrink bytes.
    let config = Config {
        cases: scripts(60),
        failure_persistence: None,
        max_shrink_iters: 0,
        ..Config::default()
    };
    // The gate's scripts are the same in every run, so that a change is judged by itself; a long
    // run, by TERRANE_SCRIPTS, draws others each time.
    let mut runner = match std::env::var_os("TERRANE_SCRIPTS") {
        None => {
            let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
            TestRunner::new_with_rng(config, rng)
        }
        Some(_) => TestRunner::new(config),
    };
    let bytes = proptest::collection::vec(any::<u8>(), 0..800);
    let sum = RefCell::new(Report::default());
    let outcome = runner.run(&(bytes, any::<u64>()), |(bytes, seed)| {
        let report = check::expect(&Script::decode(&bytes), seed);
        sum.borrow_mut().add(&report);
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    println!("model: drawn scripts, {}", sum.borrow());
}
