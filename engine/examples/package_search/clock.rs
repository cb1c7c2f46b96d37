//! Time and chance for this program: the only file that reads a clock.
//!
//! Below it, times are [`Duration`]s and randomness is a [`Dice`] with a seed that is printed, so
//! that a run can be asked for again (the operating system's scheduling excepted).

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Measures how long something took.
#[derive(Clone, Copy)]
pub(crate) struct Stopwatch {
    started: Instant,
}

impl Stopwatch {
    /// Starts measuring.
    #[expect(
        clippy::disallowed_methods,
        reason = "a program outside the engine measures itself"
    )]
    pub(crate) fn start() -> Stopwatch {
        Stopwatch {
            started: Instant::now(),
        }
    }

    /// Time since the start.
    pub(crate) fn elapsed(self) -> Duration {
        self.started.elapsed()
    }
}

/// A seed for a run that names none.
#[expect(
    clippy::disallowed_methods,
    reason = "a seed that differs from run to run is wanted here"
)]
pub(crate) fn fresh_seed() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    // Kept below 2^53, so that every reader of the JSON line sees the same number.
    (now.as_nanos() as u64 ^ u64::from(std::process::id()) << 20) & ((1 << 53) - 1)
}

/// Seeded random numbers: SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
/// generators, 2014).
pub(crate) struct Dice {
    state: u64,
}

impl Dice {
    /// Dice that fall the same way for the same seed.
    pub(crate) fn new(seed: u64) -> Dice {
        Dice { state: seed }
    }

    /// The next 64 random bits.
    pub(crate) fn roll(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number in `low..high` (`low < high`); the bias of the remainder does not matter here.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low < high, "an empty range has no member to draw");
        low + self.roll() % (high - low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dice_give_the_published_sequence() {
        // First outputs of SplitMix64 with seed 1234567, from its reference implementation.
        let mut dice = Dice::new(1_234_567);
        assert_eq!(dice.roll(), 6_457_827_717_110_365_317);
        assert_eq!(dice.roll(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn draws_stay_in_range() {
        let mut dice = Dice::new(7);
        let drawn: Vec<u64> = (0..1_000).map(|_| dice.between(10, 13)).collect();
        assert!((10..13).all(|n| drawn.contains(&n)));
        assert!(drawn.iter().all(|n| (10..13).contains(n)));
    }
}
