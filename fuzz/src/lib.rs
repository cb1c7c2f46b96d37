//! Operation language, model and checks shared by tests, benches and fuzzers.
//!
//! Flow: bytes become a script ([`ops`]) over a small universe of rows ([`keys`]); the script runs
//! against a database on the simulated disk, beside a [`model`].
#![forbid(unsafe_code)]

pub mod keys;
pub mod model;
pub mod ops;
