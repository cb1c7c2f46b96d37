//! Time: the [`Clock`] trait, the system's clock, and the wall clock that timestamps follow.
//!
//! This file is the only one that asks the operating system for the time.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::lsn::Ts;
use crate::sync::{AtomicBool, AtomicU64, Ordering};

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

/// Most that the wall clock may run ahead of where it stood at open plus the monotonic time since:
/// steps of a time service are far smaller, a date set by hand far larger.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);

/// Highest timestamp that a log may hold at open: it leaves more above it than anybody can use up.
pub const TS_MAX: Ts = Ts(3 << 62);

/// The wall clock as far as it is believed: what timestamps follow.
///
/// A timestamp is max(last + 1, wall), the rule of the hybrid logical clock (Kulkarni et al. 2014),
/// which the log's sequencer applies. So a wall clock that goes back does no harm, but one that
/// jumps ahead would drag all later timestamps with it, also after it was set right. A reading more
/// than [`CLOCK_SKEW_MAX`] ahead of the wall time at open plus the monotonic time since is
/// therefore refused, until the wall clock is back or the log is opened anew: time then goes on at
/// the pace of the monotonic clock. Monotonic time stands still while a machine sleeps, so a long
/// sleep is refused too; timestamps lag behind the wall by it, and nothing else depends on them.
#[derive(Debug)]
pub struct SaneClock {
    clock: Arc<dyn Clock>,
    wall_at_open: Duration,
    mono_at_open: Duration,
    is_ahead: AtomicBool,
    jumps_refused: AtomicU64,
}

impl SaneClock {
    /// Believes what `clock` says now.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> SaneClock {
        SaneClock {
            wall_at_open: clock.now_wall(),
            mono_at_open: clock.now_mono(),
            clock,
            is_ahead: AtomicBool::new(false),
            jumps_refused: AtomicU64::new(0),
        }
    }

    /// Wall time since 1970, without refused jumps. May go back.
    pub fn now(&self) -> Duration {
        let wall = self.clock.now_wall();
        let passed = self.clock.now_mono().saturating_sub(self.mono_at_open);
        let expected = self.wall_at_open.saturating_add(passed);
        let ahead = wall > expected.saturating_add(CLOCK_SKEW_MAX);
        // A jump is counted once, however often the clock is read while it lasts.
        if ahead != self.is_ahead.load(Ordering::Relaxed)
            && self.is_ahead.swap(ahead, Ordering::Relaxed) != ahead
            && ahead
        {
            self.jumps_refused.fetch_add(1, Ordering::Relaxed);
        }
        if ahead { expected } else { wall }
    }

    /// The smallest timestamp of now.
    pub fn now_ts(&self) -> Ts {
        wall_ts(self.now())
    }

    /// By how much `ts` lies ahead of now, if that is more than a wall clock may.
    pub fn behind(&self, ts: Ts) -> Option<Duration> {
        let ahead = Duration::from_millis(ts.ms()).checked_sub(self.now())?;
        (ahead > CLOCK_SKEW_MAX).then_some(ahead)
    }

    /// Jumps of the wall clock that were refused.
    pub fn jumps_refused(&self) -> u64 {
        self.jumps_refused.load(Ordering::Relaxed)
    }
}

/// The smallest timestamp of the wall clock's millisecond. 47 bits of milliseconds last until the
/// year 6429; a clock beyond that is held there, far below [`TS_MAX`].
fn wall_ts(wall: Duration) -> Ts {
    let ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
    Ts::from_ms(ms.min((1 << 47) - 1))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// A clock set by hand: wall and monotonic milliseconds.
    #[derive(Debug, Default)]
    struct Hand(AtomicU64, AtomicU64);

    impl Hand {
        fn set(&self, wall_ms: u64, mono_ms: u64) {
            self.0.store(wall_ms, Ordering::Relaxed);
            self.1.store(mono_ms, Ordering::Relaxed);
        }
    }

    impl Clock for Hand {
        fn now_wall(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::Relaxed))
        }

        fn now_mono(&self) -> Duration {
            Duration::from_millis(self.1.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn the_wall_is_believed_up_to_the_skew_and_then_time_goes_on_without_it() {
        let hand = Arc::new(Hand::default());
        hand.set(1_000_000, 500);
        let clock = SaneClock::new(hand.clone());
        let at = |wall_ms, mono_ms| {
            hand.set(wall_ms, mono_ms);
            (clock.now_ts().ms(), clock.jumps_refused())
        };
        assert_eq!(at(1_000_000, 500), (1_000_000, 0));
        // Back, to 1970, and ahead by what is allowed.
        assert_eq!(at(900_000, 600), (900_000, 0));
        assert_eq!(at(0, 600), (0, 0));
        assert_eq!(at(1_060_100, 600), (1_060_100, 0));
        // A millisecond more; far more; time passes; set right; wrong again.
        assert_eq!(at(1_060_101, 600), (1_000_100, 1));
        assert_eq!(at(u64::MAX, 700), (1_000_200, 1));
        assert_eq!(at(1_002_000, 2_500), (1_002_000, 1));
        assert_eq!(at(9_000_000, 2_600), (1_002_100, 2));
    }

    #[test]
    fn a_timestamp_far_ahead_is_told_by_how_much() {
        let hand = Arc::new(Hand::default());
        hand.set(1_000, 0);
        let clock = SaneClock::new(hand);
        assert_eq!(clock.behind(Ts::from_ms(61_000)), None);
        let ahead = Duration::from_millis(60_001);
        assert_eq!(clock.behind(Ts::from_ms(61_001)), Some(ahead));
        assert_eq!(clock.behind(Ts::ZERO), None);
    }

    #[test]
    fn a_wall_clock_beyond_all_years_leaves_timestamps_above_it() {
        assert!(wall_ts(Duration::MAX) < TS_MAX);
    }

    #[test]
    fn the_system_clock_moves() {
        let clock = SystemClock::new();
        let first = clock.now_mono();
        assert!(clock.now_mono() >= first);
        assert!(clock.now_wall() > Duration::from_secs(1_700_000_000));
    }
}
