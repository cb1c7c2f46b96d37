//! Tests of the log on the simulated disk.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod calls;
mod corrupt;
mod crash;
mod format;
mod member;
mod support;
mod tail;
