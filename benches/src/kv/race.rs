//! Threads that do one thing until the time is over, with their operations counted and some of
//! them timed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::Failure;
use crate::device::{Counters, Device};
use crate::report::peak_rss_mib;

/// Operations of a thread and the latencies of one in so many, so that reading the clock does not
/// slow down what takes less than a microsecond.
pub(crate) struct Tally {
    pub(crate) ops: u64,
    pub(crate) latencies_ns: Vec<u32>,
    calls: u64,
    every: u64,
}

impl Tally {
    /// Times every `every`-th call.
    pub(crate) fn every(every: u64) -> Tally {
        Tally {
            ops: 0,
            latencies_ns: Vec::new(),
            calls: 0,
            every,
        }
    }

    /// Runs one call that counts for as many operations as it returns.
    #[inline]
    pub(crate) fn time(
        &mut self,
        call: impl FnOnce() -> Result<u64, Failure>,
    ) -> Result<(), Failure> {
        self.calls += 1;
        if !self.calls.is_multiple_of(self.every) {
            self.ops += call()?;
            return Ok(());
        }
        let begin = Instant::now();
        self.ops += call()?;
        let ns = u32::try_from(begin.elapsed().as_nanos()).unwrap_or(u32::MAX);
        self.latencies_ns.push(ns);
        Ok(())
    }
}

/// What came of a race.
pub(crate) struct Outcome {
    pub(crate) ops: u64,
    pub(crate) secs: f64,
    pub(crate) latencies_ns: Vec<u32>,
    pub(crate) device: Counters,
    pub(crate) peak_rss_mib: f64,
}

/// What one thread does: its number, whether there is time left, its tally.
pub(crate) type Runner<'a> =
    &'a (dyn Fn(usize, &dyn Fn() -> bool, &mut Tally) -> Result<(), Failure> + Sync);

/// Runs `body` on `threads` threads until `time` is over, after a tenth of it that does not count.
pub(crate) fn race(
    threads: usize,
    time: Duration,
    every: u64,
    device: &Device,
    body: Runner<'_>,
) -> Result<Outcome, Failure> {
    lap(threads, time / 10, every, body)?;
    let before = device.read();
    let (tallies, secs) = lap(threads, time, every, body)?;
    let device = device.since(before);
    let mut out = Outcome {
        ops: 0,
        secs,
        latencies_ns: Vec::new(),
        device,
        peak_rss_mib: peak_rss_mib(),
    };
    for tally in tallies {
        out.ops += tally.ops;
        out.latencies_ns.extend(tally.latencies_ns);
    }
    Ok(out)
}

/// Runs `body` on `threads` threads until `time` is over: their tallies, and the seconds it took.
pub(crate) fn lap(
    threads: usize,
    time: Duration,
    every: u64,
    body: Runner<'_>,
) -> Result<(Vec<Tally>, f64), Failure> {
    let stop = AtomicBool::new(false);
    let go = || !stop.load(Ordering::Relaxed);
    let begin = Instant::now();
    let run = |n| {
        let mut tally = Tally::every(every);
        let done = body(n, &go, &mut tally);
        done.map(|()| tally)
    };
    let run = &run;
    let tallies = std::thread::scope(|scope| {
        let runners: Vec<_> = (0..threads).map(|n| scope.spawn(move || run(n))).collect();
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for runner in runners {
            all.push(runner.join().map_err(|_| "a bench thread panicked")??);
        }
        Ok::<_, Failure>(all)
    })?;
    Ok((tallies, begin.elapsed().as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_counts_all_and_times_some() {
        let mut tally = Tally::every(16);
        for _ in 0..160 {
            tally.time(|| Ok(3)).unwrap();
        }
        assert_eq!((tally.ops, tally.latencies_ns.len()), (480, 10));
    }
}
