//! Searches with a filter, with limits and by the oracle, against brute force.
//!
//! Where a mistake was put in and made a test fail, the test names it.

// A helper of a test ends the test on the spot.
#![allow(clippy::unwrap_used)]

mod filters;
mod limits;
mod world;
