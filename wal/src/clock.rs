//! Time: the [`Clock`] trait, the system's clock, and the hybrid logical clock of commits.
//!
//! This file is the only one that asks the operating system for the time.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::lsn::Ts;
use crate::sync::{AtomicU64, Ordering};

/// Where time comes from. Monotonic time orders leases and timings, wall time feeds timestamps.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Time since some fixed moment of this process; never goes back.
    fn now_mono(&self) -> Duration;

    /// Time since 1970-01-01 UTC; may jump either way.
    fn now_wall(&self) -> Duration;
}

/// The clocks of the operating system.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "the file that owns the time")]
    pub fn new() -> SystemClock {
        SystemClock {
            start: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn now_mono(&self) -> Duration {
        self.start.elapsed()
    }

    #[allow(clippy::disallowed_methods, reason = "the file that owns the time")]
    fn now_wall(&self) -> Duration {
        // A clock set before 1970 counts as 1970: timestamps then rise by their counter alone.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
    }
}

/// A timestamp that lies further ahead of the wall clock than the caller allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SkewError {
    /// The timestamp that was offered.
    pub ts: Ts,
    /// Milliseconds since 1970 by this member's wall clock.
    pub wall_ms: u64,
    /// Milliseconds that a timestamp may lie ahead.
    pub skew_ms_max: u64,
}

impl fmt::Display for SkewError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} lies {} ms ahead of the wall clock, at most {} ms are allowed",
            self.ts,
            self.ts.ms().saturating_sub(self.wall_ms),
            self.skew_ms_max
        )
    }
}

impl std::error::Error for SkewError {}

/// The hybrid logical clock (Kulkarni et al. 2014): 48 bit wall milliseconds, 16 bit counter.
///
/// Every timestamp it gives is larger than all it gave or observed before; it follows the wall
/// clock when that runs ahead and counts up while the wall clock stands still or goes back.
#[derive(Debug)]
pub struct HybridClock {
    last: AtomicU64,
}

impl HybridClock {
    /// A clock that gives only timestamps above `last`.
    #[must_use]
    pub fn new(last: Ts) -> HybridClock {
        HybridClock {
            last: AtomicU64::new(last.0),
        }
    }

    /// The next timestamp: max(last + 1, `wall`).
    pub fn next(&self, wall: Duration) -> Ts {
        let wall = wall_ts(wall);
        let mut last = self.last.load(Ordering::Acquire);
        loop {
            let next = Ts(last).next().max(wall);
            let swap =
                self.last
                    .compare_exchange_weak(last, next.0, Ordering::AcqRel, Ordering::Acquire);
            match swap {
                Ok(_) => return next,
                Err(seen) => last = seen,
            }
        }
    }

    /// The largest timestamp given or observed.
    pub fn last(&self) -> Ts {
        Ts(self.last.load(Ordering::Acquire))
    }

    /// Raises the clock to `ts`, so that nothing at or below it is given afterwards.
    pub fn observe(&self, ts: Ts) {
        self.last.fetch_max(ts.0, Ordering::AcqRel);
    }

    /// As [`HybridClock::observe`] for a timestamp from outside (a log, another member). Refuses
    /// one that lies more than `skew_ms_max` ahead of `wall`: taking it would stretch every later
    /// timestamp into the future.
    pub fn observe_within(
        &self,
        ts: Ts,
        wall: Duration,
        skew_ms_max: u64,
    ) -> Result<(), SkewError> {
        let wall_ms = wall_ts(wall).ms();
        if ts.ms() > wall_ms.saturating_add(skew_ms_max) {
            return Err(SkewError {
                ts,
                wall_ms,
                skew_ms_max,
            });
        }
        self.observe(ts);
        Ok(())
    }
}

/// The smallest timestamp of the wall clock's millisecond. 48 bits of milliseconds last until the
/// year 10889; a clock beyond that is held there.
fn wall_ts(wall: Duration) -> Ts {
    let ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
    Ts::from_ms(ms.min((1 << 48) - 1))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn it_follows_the_wall_and_counts_while_the_wall_stands_or_goes_back() {
        let clock = HybridClock::new(Ts::ZERO);
        assert_eq!(clock.next(5 * MS), Ts::from_ms(5));
        assert_eq!(clock.next(5 * MS), Ts::from_ms(5).next());
        assert_eq!(clock.next(3 * MS), Ts::from_ms(5).next().next());
        assert_eq!(clock.next(9 * MS), Ts::from_ms(9));
        assert_eq!(clock.last(), Ts::from_ms(9));
    }

    #[test]
    fn nothing_is_given_at_or_below_an_observed_timestamp() {
        let clock = HybridClock::new(Ts::from_ms(10));
        clock.observe(Ts::from_ms(20));
        clock.observe(Ts::from_ms(15));
        assert_eq!(clock.next(MS), Ts::from_ms(20).next());
    }

    #[test]
    fn a_timestamp_from_the_future_is_refused_and_leaves_no_trace() {
        let clock = HybridClock::new(Ts::from_ms(10));
        let far = Ts::from_ms(10 + 501);
        let error = clock.observe_within(far, 10 * MS, 500).unwrap_err();
        assert_eq!((error.ts, error.wall_ms, error.skew_ms_max), (far, 10, 500));
        assert!(error.to_string().contains("501 ms ahead"), "{error}");
        assert_eq!(clock.last(), Ts::from_ms(10));
        clock
            .observe_within(Ts::from_ms(510), 10 * MS, 500)
            .unwrap();
        assert_eq!(clock.last(), Ts::from_ms(510));
    }

    #[test]
    fn the_counter_of_a_millisecond_runs_over_into_the_next() {
        let clock = HybridClock::new(Ts(Ts::from_ms(7).0 + 0xffff));
        assert_eq!(clock.next(7 * MS), Ts::from_ms(8));
    }

    #[test]
    fn the_system_clock_moves() {
        let clock = SystemClock::new();
        let first = clock.now_mono();
        assert!(clock.now_mono() >= first);
        assert!(clock.now_wall() > Duration::from_secs(1_700_000_000));
    }
}
