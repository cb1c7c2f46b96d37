//! Time: the [`Clock`] trait, the system's clock, and the hybrid logical clock of commits.
//!
//! This file is the only one that asks the operating system for the time.

use std::time::Duration;

/// Where time comes from. Monotonic time orders leases and timings, wall time feeds timestamps.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Time since some fixed moment of this process; never goes back.
    fn now_mono(&self) -> Duration;

    /// Time since 1970-01-01 UTC; may jump either way.
    fn now_wall(&self) -> Duration;
}
