//! The store on the simulated disk: images against models, crashes, damage, pressure.
//!
//! One binary, because each costs a link. `rig` is the world that the others stand in.
#![cfg(not(loom))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and runs threads of its own"
)]

mod crash;
mod cut;
mod damage;
mod faults;
mod pressure;
mod rig;
mod trees;
