//! Maintenance beside commits, old snapshots, rows in use and crashes: after every system
//! transaction the records agree, and what a search finds is what brute force finds.
//!
//! Where a mistake was put in and made a test fail, the test names it.

// A helper of a test ends the test on the spot.
#![allow(clippy::unwrap_used)]

mod between;
mod geometry;
mod jobs;
mod mistakes;
mod replica;
mod schedules;
mod world;
