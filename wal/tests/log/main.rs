//! Tests of the log on the simulated disk.

mod calls;
mod support;
