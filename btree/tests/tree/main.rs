//! The tree from outside: against a map, and under many threads, in memory and beyond it.
#![cfg(not(loom))]
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper that fails fails the test"
)]

mod concurrent;
mod model;
mod world;
