//! Micro-benches of each layer, lowest first: what one operation costs with nothing around it.
//!
//! `cargo bench -p terrane-bench --bench micro`, or with a part of a name behind it. Every bench
//! checks its answers, in the timed part where that costs next to nothing, else beside it. Figures
//! against peers and the device are the business of `terrane-bench kv`.

// Criterion's macros make a public function without a word; a bench that cannot go on stops, and
// reading the clock is its business.
#![allow(missing_docs, clippy::expect_used, clippy::disallowed_methods)]

mod codec;
mod commit;
mod log;
mod tree;
mod vector;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

/// Some thirty benches in less than three minutes.
fn settings() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

/// A bijection of u64: consecutive numbers become keys in random order (splitmix64's finaliser).
fn scatter(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

criterion_group! {
    name = micro;
    config = settings();
    targets = log::all, tree::all, codec::all, vector::all, commit::all
}
criterion_main!(micro);
