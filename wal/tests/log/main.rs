//! Tests of the log on the simulated disk.

mod calls;
mod corrupt;
mod crash;
mod format;
mod support;
mod tail;
