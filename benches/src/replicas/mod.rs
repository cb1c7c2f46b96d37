//! What three replicas cost, and how long commits pause when their leader goes.
//!
//! ```text
//! commits.rs   150-byte rows on a lone database and on three replicas, by turns; ratios of medians
//! pauses.rs    leaders that end, and leaders that hand over, under load
//! fleet.rs     three nodes in this process, on one disk
//! ```
//!
//! All nodes share the processors and the disk, so the figures are those of one machine, not of
//! three. Every row that was acknowledged is looked for at the end of each part.

mod commits;
mod fleet;
mod pauses;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::Failure;
use crate::rows::scatter;
use pauses::Detection;

/// Options of the comparison.
#[derive(Args, Clone)]
pub(crate) struct ReplicasArgs {
    /// Seconds of each timed run of commits.
    #[arg(long, default_value_t = 3.0)]
    secs: f64,
    /// Times commits are measured on each side; medians count.
    #[arg(long, default_value_t = 5)]
    repeat: usize,
    /// Leaders that are ended, at each pace of detection.
    #[arg(long, default_value_t = 20)]
    failovers: usize,
    /// Leaders that hand over.
    #[arg(long, default_value_t = 100)]
    switchovers: usize,
    /// A few of each, to see that it works.
    #[arg(long)]
    short: bool,
    /// Folder on the device to measure; a fresh one below it is used and removed.
    #[arg(long, default_value = ".")]
    data: PathBuf,
    /// One JSON object a line on standard output; without it a short line for the eye.
    #[arg(long)]
    json: bool,
}

/// Where a part works, and how it reports.
struct Ground {
    dir: PathBuf,
    secs: Duration,
    json: bool,
}

impl Ground {
    /// Reports a line.
    fn say(&self, line: &Value) {
        if self.json {
            println!("{line}");
            return;
        }
        let all = line.as_object().into_iter().flatten();
        let words: Vec<String> = all.map(|(key, value)| format!("{key}={value}")).collect();
        println!("{}", words.join(" "));
    }
}

/// Runs all parts.
pub(crate) fn run(args: &ReplicasArgs) -> Result<(), Failure> {
    let mut args = args.clone();
    if args.short {
        (args.secs, args.repeat) = (0.5, 1);
        (args.failovers, args.switchovers) = (2, 5);
    }
    let dir = args
        .data
        .join(format!("terrane-bench-replicas-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let ground = Ground {
        dir: dir.clone(),
        secs: Duration::from_secs_f64(args.secs),
        json: args.json,
    };
    commits::run(&ground, args.repeat)?;
    for detection in [Detection::Usual, Detection::Fast] {
        pauses::failovers(&ground, detection, args.failovers)?;
    }
    pauses::switchovers(&ground, args.switchovers)?;
    Ok(fs::remove_dir_all(&dir)?)
}

/// Bytes of a row's value: with its key 150.
const VALUE_LEN: usize = 142;

/// The value of a key.
fn value(key: u64) -> Vec<u8> {
    let words = (0..).flat_map(|at: u64| scatter(key ^ at.rotate_left(32)).to_le_bytes());
    words.take(VALUE_LEN).collect()
}

/// The middle one.
fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_name_their_key() {
        assert_eq!(value(7).len() + size_of::<u64>(), 150);
        assert_eq!(value(7), value(7));
        assert_ne!(value(7), value(8));
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert!(median(std::iter::empty()).is_nan());
    }
}
