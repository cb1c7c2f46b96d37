//! Operation language, model and checks shared by tests, benches and fuzzers.
//!
//! Flow: bytes become a script ([`ops`]) over a small universe of rows ([`keys`]); the script runs
//! against a database on the simulated disk ([`rig`]), beside a [`model`], and [`check`] says
//! whether they agreed. [`targets`] are the bodies of the fuzz targets.
#![forbid(unsafe_code)]
// The models of loom see the shipped code alone; the simulated world is not there under them.
#![cfg(not(loom))]

pub mod check;
pub mod keys;
pub mod model;
pub mod ops;
pub mod rig;
pub mod targets;
