//! What the person sees: a line for each event as it comes, the figures, and the JSON line.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::callers::Told;
use crate::clock::Stopwatch;
use crate::verdict::Verdict;

/// A character of a bar is that long.
const BAR_UNIT: Duration = Duration::from_millis(50);
/// Longest bar.
const BAR_MAX: usize = 40;

/// Events, line by line.
pub(crate) struct Timeline {
    watch: Stopwatch,
}

impl Timeline {
    /// Times are since the start of this watch.
    pub(crate) fn start(watch: Stopwatch) -> Timeline {
        Timeline { watch }
    }

    /// Something happened.
    pub(crate) fn tell(&mut self, what: &str) {
        println!("{:>8.2} s  {what}", self.watch.elapsed().as_secs_f64());
    }

    /// Something happened, and acknowledgements paused for so long.
    pub(crate) fn event(&mut self, kind: &str, what: &str, pause: Duration) {
        let length = pause.as_millis().div_ceil(BAR_UNIT.as_millis()) as usize;
        let bar = "#".repeat(length.min(BAR_MAX));
        let pause = pause.as_secs_f64() * 1e3;
        self.tell(&format!("{kind:<10} {what:<26} {pause:>8.1} ms {bar}"));
    }
}

/// Pauses by what they came from.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pauses: BTreeMap<&'static str, Vec<Duration>>,
}

impl Figures {
    /// Another pause.
    pub(crate) fn add(&mut self, kind: &'static str, pause: Duration) {
        self.pauses.entry(kind).or_default().push(pause);
    }

    /// Kind, number, and p50, p99 and longest in milliseconds.
    fn summaries(&self) -> impl Iterator<Item = (&'static str, usize, [f64; 3])> {
        self.pauses.iter().map(|(kind, pauses)| {
            let mut sorted = pauses.clone();
            sorted.sort_unstable();
            let at = |percent: usize| {
                let place = (sorted.len() * percent).div_ceil(100).max(1) - 1;
                sorted[place].as_secs_f64() * 1e3
            };
            (*kind, sorted.len(), [at(50), at(99), at(100)])
        })
    }

    /// The figures for the eye.
    pub(crate) fn print(&self, told: &Told, verdict: &Verdict) {
        println!(
            "\n{:<12} {:>5} {:>10} {:>10} {:>10}",
            "pause, ms", "n", "p50", "p99", "max"
        );
        for (kind, count, [p50, p99, max]) in self.summaries() {
            println!("{kind:<12} {count:>5} {p50:>10.1} {p99:>10.1} {max:>10.1}");
        }
        println!(
            "\nacknowledged {}, lost {}, duplicated {}, uncalled {}, damaged {}",
            told.acknowledged.len(),
            verdict.lost,
            verdict.duplicated,
            verdict.uncalled,
            verdict.damaged,
        );
        println!(
            "unknown {}, refused {}; reads answered {}, of them stale {}",
            told.unknown.len(),
            told.refused.len(),
            told.reads,
            verdict.stale,
        );
        println!("errors to callers {}", told.error_count());
        for (error, count) in &told.errors {
            println!("  {count} x {error}");
        }
    }

    /// One JSON object on one line.
    pub(crate) fn json(&self, told: &Told, verdict: &Verdict, rounds: usize) -> String {
        let pauses = self.summaries().map(|(kind, count, [p50, p99, max])| {
            format!(
                "\"{kind}\": {{\"n\": {count}, \"p50_ms\": {p50:.1}, \"p99_ms\": {p99:.1}, \
                 \"max_ms\": {max:.1}}}"
            )
        });
        let pauses: Vec<String> = pauses.collect();
        format!(
            "{{\"rounds\": {rounds}, \"pauses\": {{{}}}, \"acknowledged\": {}, \"lost\": {}, \
             \"duplicated\": {}, \"uncalled\": {}, \"damaged\": {}, \"unknown\": {}, \
             \"refused\": {}, \"reads\": {}, \"stale\": {}, \"errors\": {}}}",
            pauses.join(", "),
            told.acknowledged.len(),
            verdict.lost,
            verdict.duplicated,
            verdict.uncalled,
            verdict.damaged,
            told.unknown.len(),
            told.refused.len(),
            told.reads,
            verdict.stale,
            told.error_count(),
        )
    }
}
