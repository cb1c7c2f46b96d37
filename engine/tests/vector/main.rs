//! The vector index inside transactions: against brute force over the same state.
//!
//! Where a mistake was put in and made a test fail, the test names it.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may panic wherever it stands

mod build;
mod building;
mod commits;
mod crash;
mod damage;
mod film;
mod filters;
mod goals;
mod long;
mod options;
mod sizes;
mod stage;
mod threads;
mod world;
