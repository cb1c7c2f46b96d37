//! The real environment: threads, waiting and randomness of the operating system.
//!
//! The only file that starts a thread and the only one (with the [`Token`] it rests on) that
//! blocks one. A waiter is a token under a mutex with a condition variable: `unpark` before `park`
//! is not lost, because the token stays set until it is taken.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Joiner, Park, Rng, Spawn, Waiter};
use crate::sync::{Mutex, Token};
use crate::waits::assert_may_wait;

/// Starts threads of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemSpawn;

struct SystemJoiner(std::thread::JoinHandle<()>);

impl Joiner for SystemJoiner {
    fn join(self: Box<Self>) -> Result<(), String> {
        self.0.join().map_err(|panic| panic_message(&*panic))
    }
}

/// The text of a panic's payload.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a message".to_owned()
    }
}

/// How far a thread of ours stands behind those of the application where cores are short, in nice
/// levels: a third of the time of each of them. Commits beside upkeep, p99 on two cores, against
/// alone: 2.0 times with 0, 1.6 with 5, 1.5 with 10; beside loads as well 8.8, 5.0, 5.5.
const GIVES_WAY: i32 = 5;

impl Spawn for SystemSpawn {
    fn spawn(
        &self,
        name: &str,
        body: Box<dyn FnOnce() + Send + 'static>,
    ) -> std::io::Result<Box<dyn Joiner>> {
        let work = move || {
            // A thread that cannot give way works as well. Elsewhere it would be the whole process.
            #[cfg(target_os = "linux")]
            let _ = rustix::process::nice(GIVES_WAY);
            body();
        };
        let handle = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(work)?;
        Ok(Box::new(SystemJoiner(handle)))
    }
}

/// Parks threads of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemPark;

#[derive(Debug, Default)]
struct SystemWaiter(Token);

impl Waiter for SystemWaiter {
    fn park(&self) {
        assert_may_wait();
        self.0.take();
    }

    fn park_timeout(&self, timeout: Duration) -> bool {
        assert_may_wait();
        self.0.take_timeout(timeout)
    }

    fn unpark(&self) {
        self.0.set();
    }
}

impl Park for SystemPark {
    fn waiter(&self) -> Arc<dyn Waiter> {
        Arc::new(SystemWaiter::default())
    }

    fn yield_now(&self) {
        crate::sync::yield_thread();
    }
}

/// Randomness by named sub-streams: each stream is a xoshiro256++ generator (Blackman, Vigna 2019)
/// whose state is SplitMix64 of the seed mixed with FNV-1a of the stream's name. So the numbers of
/// one stream depend on the seed and on how many were drawn from that stream, and on nothing else.
#[derive(Debug)]
pub struct SystemRng {
    seed: u64,
    streams: Mutex<BTreeMap<&'static str, Xoshiro>>,
}

impl SystemRng {
    /// The generator of `seed`: the same draws for the same seed, on every machine.
    #[must_use]
    pub fn seeded(seed: u64) -> SystemRng {
        SystemRng {
            seed,
            streams: Mutex::new(BTreeMap::new()),
        }
    }

    /// A generator seeded by the kernel's entropy (`getrandom`).
    #[must_use]
    pub fn from_kernel() -> SystemRng {
        let mut seed = [0u8; 8];
        let mut filled = 0;
        while filled < seed.len() {
            let flags = rustix::rand::GetRandomFlags::empty();
            match rustix::rand::getrandom(&mut seed[filled..], flags) {
                Ok(n) => filled += n,
                Err(rustix::io::Errno::INTR) => {}
                // Kernels from 5.15 on have the call; a sandbox that forbids it leaves the address
                // of a local, which the loader randomised: enough for ids that need not be secret.
                Err(_) => {
                    let place = std::ptr::from_ref(&filled).addr() as u64;
                    return SystemRng::seeded(place ^ u64::from(std::process::id()) << 32);
                }
            }
        }
        SystemRng::seeded(u64::from_le_bytes(seed))
    }

    /// The seed that all streams derive from: print it where a failure must replay.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

impl Rng for SystemRng {
    fn next_u64(&self, stream: &'static str) -> u64 {
        let mut streams = self.streams.lock();
        streams
            .entry(stream)
            .or_insert_with(|| Xoshiro::named(self.seed, stream))
            .next_u64()
    }
}

/// xoshiro256++: 32 bytes of state, period 2^256 - 1.
#[derive(Clone, Debug)]
pub(crate) struct Xoshiro([u64; 4]);

impl Xoshiro {
    /// The generator of one seed.
    pub(crate) fn new(seed: u64) -> Xoshiro {
        let mut state = seed;
        Xoshiro(std::array::from_fn(|_| split_mix(&mut state)))
    }

    /// The generator of one named stream of a seed.
    pub(crate) fn named(seed: u64, stream: &str) -> Xoshiro {
        let name = stream
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        let mut mixed = seed;
        Xoshiro::new(split_mix(&mut mixed) ^ name)
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        let Xoshiro(s) = self;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }
}

#[cfg(all(feature = "sim", not(loom)))]
impl Xoshiro {
    /// A number below `bound`, which is not zero. The bias of the multiply-shift is below
    /// `bound / 2^64`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        assert!(bound > 0, "no number lies below zero");
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): the step that spreads a seed over a state.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_draw_in_one_stream_shifts_no_other() {
        let plain = SystemRng::seeded(7);
        let first: Vec<u64> = (0..4).map(|_| plain.next_u64("disk")).collect();
        let mixed = SystemRng::seeded(7);
        let second: Vec<u64> = (0..4)
            .map(|_| {
                mixed.next_u64("net");
                mixed.next_u64("disk")
            })
            .collect();
        assert_eq!(first, second);
        assert_ne!(plain.next_u64("net"), plain.next_u64("disk"));
        assert_ne!(SystemRng::seeded(8).next_u64("disk"), first[0]);
    }

    #[test]
    fn the_generator_is_xoshiro256_plus_plus() {
        // First outputs of the reference implementation for the state 1, 2, 3, 4.
        let mut rng = Xoshiro([1, 2, 3, 4]);
        assert_eq!(rng.next_u64(), 41_943_041);
        assert_eq!(rng.next_u64(), 58_720_359);
        assert_eq!(rng.next_u64(), 3_588_806_011_781_223);
    }

    #[test]
    fn an_early_unpark_is_not_lost_and_counts_once() {
        let waiter = SystemPark.waiter();
        waiter.unpark();
        waiter.unpark();
        waiter.park();
        assert!(!waiter.park_timeout(Duration::from_millis(1)));
    }

    #[test]
    fn a_parked_thread_is_woken_and_a_panic_comes_back_from_join() {
        let waiter = SystemPark.waiter();
        let inner = Arc::clone(&waiter);
        let joiner = SystemSpawn.spawn("parked", Box::new(move || inner.park()));
        waiter.unpark();
        joiner.unwrap().join().unwrap();
        let joiner = SystemSpawn.spawn("panics", Box::new(|| panic!("on purpose")));
        assert_eq!(joiner.unwrap().join().unwrap_err(), "on purpose");
    }
}
