//! What the person sees: a progress bar, a table of timings, and the JSON line at the end.
//!
//! Timings and findings go to standard output as they come; the bar goes to standard error and is
//! drawn in place on a terminal only, so that a log file gets one line per load.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use crate::clock::Stopwatch;

/// Width of the bar in characters.
const BAR_WIDTH: usize = 30;
/// The bar is drawn anew at most this often.
const BAR_EVERY: Duration = Duration::from_millis(50);

/// A bar that fills while rows are loaded.
pub(crate) struct Progress {
    total: usize,
    watch: Stopwatch,
    drawn: Duration,
    in_place: bool,
}

impl Progress {
    /// A bar for `total` rows.
    pub(crate) fn start(total: usize) -> Progress {
        let in_place = std::io::stderr().is_terminal();
        Progress {
            total,
            watch: Stopwatch::start(),
            drawn: Duration::ZERO,
            in_place,
        }
    }

    /// `done` rows are durable.
    pub(crate) fn advance(&mut self, done: usize) {
        let elapsed = self.watch.elapsed();
        let last = done == self.total;
        if !last && (!self.in_place || elapsed - self.drawn < BAR_EVERY) {
            return;
        }
        self.drawn = elapsed;
        let line = bar(done, self.total, elapsed);
        let (start, end) = if self.in_place {
            ("\r", "")
        } else {
            ("", "\n")
        };
        let end = if last { "\n" } else { end };
        // A bar that cannot be drawn is no reason to stop loading.
        let _ = write!(std::io::stderr(), "{start}{line}{end}");
    }
}

/// `loading [#####.....]  50 %  4000 of 8000 rows, 12345 rows/s`
fn bar(done: usize, total: usize, elapsed: Duration) -> String {
    let filled = BAR_WIDTH * done / total.max(1);
    let percent = 100 * done / total.max(1);
    let rate = per_second(done, elapsed);
    let (full, empty) = ("#".repeat(filled), ".".repeat(BAR_WIDTH - filled));
    format!("loading [{full}{empty}] {percent:>3} %  {done} of {total} rows, {rate:.0} rows/s")
}

/// Rate in events per second.
pub(crate) fn per_second(events: usize, elapsed: Duration) -> f64 {
    events as f64 / elapsed.as_secs_f64().max(1e-9)
}

/// One line of the table: what was done, how long it took, what came of it.
pub(crate) fn line(what: &str, elapsed: Duration, outcome: &str) {
    println!("{what:<38} {:>12}  {outcome}", human(elapsed));
}

/// A heading between the lines.
pub(crate) fn heading(text: &str) {
    println!("\n{text}");
}

/// Three to four digits and a unit.
fn human(elapsed: Duration) -> String {
    let us = elapsed.as_secs_f64() * 1e6;
    match us {
        _ if us < 1e3 => format!("{us:.1} us"),
        _ if us < 1e6 => format!("{:.2} ms", us / 1e3),
        _ => format!("{:.2} s", us / 1e6),
    }
}

/// The smallest sample that at least `percent` of the samples do not exceed (nearest rank). Sorts
/// the samples; there must be one.
pub(crate) fn percentile(samples: &mut [Duration], percent: usize) -> Duration {
    assert!(!samples.is_empty() && (1..=100).contains(&percent));
    samples.sort_unstable();
    samples[(samples.len() * percent).div_ceil(100) - 1]
}

/// The figures of one run.
pub(crate) struct Figures {
    pub(crate) rows: usize,
    pub(crate) load_rows_per_s: f64,
    /// Share of the exact answers' first ten that were found, over all queries.
    pub(crate) recall_at_10: f64,
    /// The same, as the mean over the filters of the data set.
    pub(crate) filtered_recall_at_10: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// Recall and median of the same searches when every row is measured.
    pub(crate) exact_recall_at_10: f64,
    pub(crate) exact_p50: Duration,
    /// Rows whose commit the child reported before it was killed.
    pub(crate) acknowledged: u64,
    /// Acknowledged rows found again, byte for byte.
    pub(crate) recovered: u64,
    /// Rows of whole transactions found though not acknowledged.
    pub(crate) extra: u64,
    /// Transactions of which only a part was found.
    pub(crate) half: u64,
    pub(crate) reopen: Duration,
    pub(crate) seed: u64,
}

impl Figures {
    /// One JSON object on one line.
    pub(crate) fn json(&self) -> String {
        let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
        format!(
            "{{\"rows\": {}, \"load_rows_per_s\": {:.1}, \"recall_at_10\": {:.5}, \
             \"filtered_recall_at_10\": {:.5}, \"p50_us\": {:.1}, \"p99_us\": {:.1}, \
             \"exact_recall_at_10\": {:.5}, \"exact_p50_us\": {:.1}, \
             \"acknowledged\": {}, \"recovered\": {}, \"extra\": {}, \"half\": {}, \
             \"reopen_ms\": {:.3}, \"seed\": {}}}",
            self.rows,
            self.load_rows_per_s,
            self.recall_at_10,
            self.filtered_recall_at_10,
            micros(self.p50),
            micros(self.p99),
            self.exact_recall_at_10,
            micros(self.exact_p50),
            self.acknowledged,
            self.recovered,
            self.extra,
            self.half,
            self.reopen.as_secs_f64() * 1e3,
            self.seed,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let ms = |n| Duration::from_millis(n);
        let mut hundred: Vec<Duration> = (1..=100).rev().map(ms).collect();
        assert_eq!(percentile(&mut hundred, 50), ms(50));
        assert_eq!(percentile(&mut hundred, 99), ms(99));
        assert_eq!(percentile(&mut hundred, 100), ms(100));
        let mut three = [ms(3), ms(1), ms(2)];
        assert_eq!(percentile(&mut three, 50), ms(2));
        assert_eq!(percentile(&mut three, 99), ms(3));
        assert_eq!(percentile(&mut [ms(7)], 1), ms(7));
    }

    #[test]
    fn the_bar_fills() {
        let second = Duration::from_secs(1);
        let empty = bar(0, 8_000, Duration::ZERO);
        assert!(
            empty.contains(&format!("[{}]   0 %", ".".repeat(30))),
            "{empty}"
        );
        let half = bar(4_000, 8_000, second);
        assert!(
            half.contains(&format!("[{}{}]  50 %", "#".repeat(15), ".".repeat(15))),
            "{half}"
        );
        assert!(half.ends_with("4000 of 8000 rows, 4000 rows/s"), "{half}");
        assert!(bar(8_000, 8_000, second).contains(&"#".repeat(30)));
    }

    #[test]
    fn durations_have_a_fitting_unit() {
        assert_eq!(human(Duration::from_nanos(12_340)), "12.3 us");
        assert_eq!(human(Duration::from_micros(12_340)), "12.34 ms");
        assert_eq!(human(Duration::from_millis(12_340)), "12.34 s");
    }

    #[test]
    fn the_line_is_json_with_every_figure() {
        let figures = Figures {
            rows: 8_000,
            load_rows_per_s: 12_345.67,
            recall_at_10: 1.0,
            filtered_recall_at_10: 0.9995,
            p50: Duration::from_micros(1_500),
            p99: Duration::from_micros(2_500),
            exact_recall_at_10: 1.0,
            exact_p50: Duration::from_micros(4_500),
            acknowledged: 10,
            recovered: 10,
            extra: 3,
            half: 0,
            reopen: Duration::from_micros(12_500),
            seed: 7,
        };
        let line = figures.json();
        assert!(!line.contains('\n'));
        let json = json::parse(std::path::Path::new("line"), 0, &line).unwrap();
        for (key, value) in [
            ("rows", 8_000),
            ("p50_us", 1_500),
            ("extra", 3),
            ("half", 0),
        ] {
            assert_eq!(
                json.member(key).and_then(json::Json::whole),
                Some(value),
                "{key}"
            );
        }
        for key in [
            "load_rows_per_s",
            "recall_at_10",
            "filtered_recall_at_10",
            "p99_us",
            "exact_recall_at_10",
            "exact_p50_us",
        ] {
            assert!(json.member(key).is_some(), "{key}");
        }
        assert_eq!(json.member("reopen_ms"), Some(&json::Json::Number(12.5)));
        assert_eq!(json.member("seed").and_then(json::Json::whole), Some(7));
    }
}
