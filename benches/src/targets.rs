//! What the project set out to reach in the same run as its peers, and what the default level of
//! isolation costs; each as a Markdown table beside what was needed.

use std::fmt::Write as _;

use crate::table::{Figures, grouped};

const RATE: &str = "ops_per_s";

/// Workloads whose cost depends on the level of isolation.
const ISOLATED: [&str; 3] = ["ycsb_a", "ycsb_f", "scan_100_tx"];

/// Serializable against snapshot isolation, both Terrane's; empty if one of them did not run.
pub(crate) fn isolation(figures: &Figures) -> String {
    let mut rows = String::new();
    for workload in ISOLATED {
        let of = |engine| figures.median(workload, 2, engine, RATE);
        let (Some(default), Some(weaker)) = (of("terrane"), of("terrane-si")) else {
            continue;
        };
        let cost = 100.0 * (1.0 - default.value / weaker.value);
        let _ = writeln!(
            rows,
            "| {workload} | {} | {} | {} | {cost:.1} % |",
            default.runs.min(weaker.runs),
            grouped(default.value),
            grouped(weaker.value)
        );
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "\n| workload, 2 threads | n | serializable | snapshot isolation | cost of the default |\n\
         |---|---|---|---|---|\n{rows}"
    )
}

/// Peers whose trees or tables are read in place.
const READERS: &[&str] = &["redb", "fjall", "sqlite"];

/// What is held against peers: the words, workload, threads, the peers, and how many times their
/// best rate is needed.
const RELATIVE: [(&str, &str, u64, &[&str], f64); 6] = [
    (
        "durable commits",
        "commit",
        64,
        &["redb", "fjall", "lmdb", "sqlite"],
        10.0,
    ),
    ("uniform gets", "get_uniform", 1, READERS, 1.0),
    ("uniform gets", "get_uniform", 2, READERS, 1.0),
    ("zipfian gets", "get_zipf", 1, READERS, 1.0),
    ("zipfian gets", "get_zipf", 2, READERS, 1.0),
    ("random load", "load_random", 1, &["redb", "sqlite"], 1.0),
];

/// One line per target whose figures are there.
pub(crate) fn list(figures: &Figures) -> String {
    let mut rows = String::new();
    let mut add = |what: &str, needed: &str, found: String, reached: bool| {
        let mark = if reached { "yes" } else { "no" };
        let _ = writeln!(rows, "| {what} | {needed} | {found} | {mark} |");
    };
    let rate = |workload, threads, engine| {
        let median = figures.median(workload, threads, engine, RATE);
        median.map(|m| m.value)
    };
    if let (Some(ours), Some(device)) = (
        rate("commit", 1, "terrane"),
        rate("synced_write_4k", 1, "device"),
    ) {
        let share = ours / device;
        let found = format!("{share:.2} of {}/s", grouped(device));
        let what = "durable commits, 1 thread, of the device's synced writes";
        add(what, ">= 0.8", found, share >= 0.8);
    }
    for (what, workload, threads, peers, needed) in RELATIVE {
        let ours = rate(workload, threads, "terrane");
        let best = figures.best(workload, threads, peers, RATE);
        let (Some(ours), Some((peer, best))) = (ours, best) else {
            continue;
        };
        let times = ours / best.value;
        let what = format!("{what}, {threads} threads, best of {}", peers.join(", "));
        let found = format!("{times:.2} x {peer}");
        add(&what, &format!(">= {needed} x"), found, times >= needed);
    }
    if let Some(slowest) = figures
        .all("reopen", 1, "terrane", "secs")
        .into_iter()
        .max_by(f64::total_cmp)
    {
        let what = "reopen after a kill with a tail of 64 MiB, slowest";
        add(what, "<= 5 s", format!("{slowest:.2} s"), slowest <= 5.0);
    }
    if let Some(peak) = figures.highest("terrane", "peak_rss_mib") {
        let budget = figures.budget_mib("terrane").unwrap_or(0.0);
        let needed = format!("<= {budget:.0} + 64 MiB");
        let what = "resident memory, highest of all runs";
        add(
            what,
            &needed,
            format!("{peak:.0} MiB"),
            peak <= budget + 64.0,
        );
    }
    if rows.is_empty() {
        return rows;
    }
    format!("\n| target | needed | measured | reached |\n|---|---|---|---|\n{rows}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::line;

    #[test]
    fn targets_compare_with_the_peers_that_they_name() {
        let text = line("get_uniform", 1, "terrane", 90.0)
            + &line("get_uniform", 1, "redb", 100.0)
            + &line("get_uniform", 1, "lmdb", 200.0)
            + &line("commit", 64, "terrane", 1000.0)
            + &line("commit", 64, "fjall", 100.0)
            + &line("commit", 64, "rocksdb", 900.0);
        let list = list(&Figures::read(&text, None, "x").unwrap());
        assert!(list.contains(">= 1 x | 0.90 x redb | no |"), "{list}");
        assert!(list.contains(">= 10 x | 10.00 x fjall | yes |"), "{list}");
    }

    #[test]
    fn the_default_costs_what_it_is_slower() {
        let text = line("ycsb_f", 2, "terrane", 90.0) + &line("ycsb_f", 2, "terrane-si", 100.0);
        let table = isolation(&Figures::read(&text, None, "x").unwrap());
        assert!(
            table.contains("| ycsb_f | 1 | 90.0 | 100 | 10.0 % |"),
            "{table}"
        );
    }
}
