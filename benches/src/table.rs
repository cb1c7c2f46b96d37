//! Medians of one run as Markdown: workloads down, engines across, Terrane's ratio to the best
//! peer; then the cost of the default level of isolation, and the targets.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::Failure;
use crate::targets;
use crate::vector;
use crate::vector::table::Lines;

/// Figures of one run: by workload and threads, in the order in which they first came, then by
/// engine.
pub(crate) struct Figures {
    pub(crate) run: String,
    order: Vec<(String, u64)>,
    engines: Vec<String>,
    cells: BTreeMap<(String, u64), BTreeMap<String, Vec<Value>>>,
}

/// A figure and how many runs it is the median of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Median {
    pub(crate) value: f64,
    pub(crate) runs: usize,
}

/// The middle of the figures; of an even number the mean of the two in the middle.
pub(crate) fn median(mut figures: Vec<f64>) -> Option<Median> {
    figures.sort_by(f64::total_cmp);
    let runs = figures.len();
    let upper = *figures.get(runs / 2)?;
    let value = if runs.is_multiple_of(2) {
        f64::midpoint(figures[runs / 2 - 1], upper)
    } else {
        upper
    };
    Some(Median { value, runs })
}

impl Figures {
    /// The lines of one run of a file; the last run in it if none is named.
    pub(crate) fn read(text: &str, run: Option<&str>, name: &str) -> Result<Figures, Failure> {
        let mut lines = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let value: Value = serde_json::from_str(line)
                .map_err(|e| format!("{name}:{}: not a JSON object: {e}", number + 1))?;
            lines.push(value);
        }
        let text_of = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_string();
        let last = lines.last().map(|l| text_of(l, "run")).unwrap_or_default();
        let mut figures = Figures {
            run: run.unwrap_or(&last).to_string(),
            order: Vec::new(),
            engines: Vec::new(),
            cells: BTreeMap::new(),
        };
        for line in lines {
            if text_of(&line, "run") != figures.run {
                continue;
            }
            let engine = text_of(&line, "engine");
            let row = (
                text_of(&line, "workload"),
                line["threads"].as_u64().unwrap_or(1),
            );
            if !figures.engines.contains(&engine) {
                figures.engines.push(engine.clone());
            }
            if !figures.order.contains(&row) {
                figures.order.push(row.clone());
            }
            let cell = figures.cells.entry(row).or_default();
            cell.entry(engine).or_default().push(line);
        }
        if figures.order.is_empty() {
            return Err(format!("{name}: no line of run {}", figures.run).into());
        }
        // The table reads the same whichever engine a round began with.
        let known = [
            "device",
            "terrane",
            "terrane-si",
            "redb",
            "fjall",
            "lmdb",
            "sqlite",
            "rocksdb",
        ];
        figures
            .engines
            .sort_by_key(|engine| known.iter().position(|name| name == engine));
        Ok(figures)
    }

    /// One figure of every run of a workload on an engine.
    pub(crate) fn all(&self, workload: &str, threads: u64, engine: &str, key: &str) -> Vec<f64> {
        let row = self.cells.get(&(workload.to_string(), threads));
        let lines = row.and_then(|row| row.get(engine)).into_iter().flatten();
        lines.filter_map(|line| line[key].as_f64()).collect()
    }

    /// Its median.
    pub(crate) fn median(
        &self,
        workload: &str,
        threads: u64,
        engine: &str,
        key: &str,
    ) -> Option<Median> {
        median(self.all(workload, threads, engine, key))
    }

    /// The highest of a figure over all runs of an engine.
    pub(crate) fn highest(&self, engine: &str, key: &str) -> Option<f64> {
        let lines = self.cells.values().filter_map(|row| row.get(engine));
        let figures = lines.flatten().filter_map(|line| line[key].as_f64());
        figures.max_by(f64::total_cmp)
    }

    /// Memory that an engine was given.
    pub(crate) fn budget_mib(&self, engine: &str) -> Option<f64> {
        self.highest(engine, "cache_mib")
    }

    /// Best median of `engines`, and whose it is.
    pub(crate) fn best<'e>(
        &self,
        workload: &str,
        threads: u64,
        engines: &[&'e str],
        key: &str,
    ) -> Option<(&'e str, Median)> {
        let found = engines.iter().filter_map(|engine| {
            let median = self.median(workload, threads, engine, key)?;
            Some((*engine, median))
        });
        found.max_by(|a, b| a.1.value.total_cmp(&b.1.value))
    }
}

/// Prints the tables of one run.
pub(crate) fn print(file: &Path, run: Option<&str>, column: &str) -> Result<(), Failure> {
    let text = fs::read_to_string(file)?;
    let name = file.display().to_string();
    let vectors = Lines::read(&text, run, &name)?;
    if !vectors.is_empty() {
        print!("{}", vector::table::render(&vectors));
        return Ok(());
    }
    let figures = Figures::read(&text, run, &name)?;
    print!("{}", render(&figures, column)?);
    if column == "ops_per_s" {
        print!(
            "{}{}",
            targets::isolation(&figures),
            targets::list(&figures)
        );
    }
    Ok(())
}

/// How many runs a row's figures are the medians of; one run is not called a median.
fn runs(counts: &[usize]) -> String {
    match (counts.iter().min(), counts.iter().max()) {
        (Some(1), Some(1)) => "single".into(),
        (Some(low), Some(high)) if low == high => high.to_string(),
        (Some(low), Some(high)) => format!("{low}-{high}"),
        _ => String::new(),
    }
}

fn render(figures: &Figures, column: &str) -> Result<String, Failure> {
    let engines = &figures.engines;
    let peers: Vec<&str> = engines
        .iter()
        .map(String::as_str)
        .filter(|e| !e.starts_with("terrane") && *e != "device")
        .collect();
    let rates = column == "ops_per_s";
    let ratio = if rates { " terrane / best peer |" } else { "" };
    let mut out = format!(
        "| workload | threads | n | {} |{ratio}\n|---|---|---|{}{}\n",
        engines.join(" | "),
        "---|".repeat(engines.len()),
        if rates { "---|" } else { "" }
    );
    let (mut any, mut single) = (false, false);
    for (workload, threads) in &figures.order {
        let (mut cells, mut counts) = (String::new(), Vec::new());
        for engine in engines {
            match figures.median(workload, *threads, engine, column) {
                Some(median) => {
                    counts.push(median.runs);
                    let _ = write!(cells, " {} |", shown(workload, column, median.value));
                }
                None => cells.push_str(" |"),
            }
        }
        any |= !counts.is_empty();
        single |= counts.contains(&1);
        let _ = write!(out, "| {workload} | {threads} | {} |{cells}", runs(&counts));
        if rates {
            let ours = figures.median(workload, *threads, "terrane", column);
            match (ours, figures.best(workload, *threads, &peers, column)) {
                // To open without a log to replay is another promise, not a faster one.
                (Some(ours), Some((peer, best))) if workload != "reopen" => {
                    let _ = write!(out, " {:.2} ({peer}) |", ours.value / best.value);
                }
                _ => out.push_str(" |"),
            }
        }
        out.push('\n');
    }
    if !any {
        return Err(format!("no line has a figure {column}").into());
    }
    let what = if rates {
        "Operations per second (rows in loads and scans; `reopen` in seconds)"
    } else {
        column
    };
    let _ = writeln!(out, "\n{what}: medians of n runs; run `{}`.", figures.run);
    if single {
        out.push_str("A row marked `single` is one run and no median.\n");
    }
    Ok(out)
}

/// A figure as the table shows it: reopening as seconds, the rest as it is.
fn shown(workload: &str, column: &str, value: f64) -> String {
    if workload == "reopen" && column == "ops_per_s" {
        return format!("{:.2} s", 1.0 / value);
    }
    grouped(value)
}

/// 1234567.8 as "1,234,568"; below 100 with one decimal, below 1 with three.
pub(crate) fn grouped(figure: f64) -> String {
    if figure < 1.0 {
        return format!("{figure:.3}");
    }
    if figure < 100.0 {
        return format!("{figure:.1}");
    }
    let digits = format!("{figure:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn line(workload: &str, threads: u64, engine: &str, rate: f64) -> String {
        format!(
            "{{\"run\":\"a\",\"workload\":\"{workload}\",\"threads\":{threads},\
             \"engine\":\"{engine}\",\"ops_per_s\":{rate},\"secs\":2.0}}\n"
        )
    }

    #[test]
    fn medians_and_grouping() {
        let of = |figures: &[f64]| median(figures.to_vec()).map(|m| (m.value, m.runs));
        assert_eq!(of(&[3.0, 1.0, 2.0]), Some((2.0, 3)));
        assert_eq!(of(&[4.0, 1.0]), Some((2.5, 2)));
        assert_eq!(of(&[]), None);
        assert_eq!(grouped(1_234_567.8), "1,234,568");
        assert_eq!(grouped(12.34), "12.3");
    }

    #[test]
    fn one_run_is_not_called_a_median() {
        let mut text = line("commit", 1, "redb", 100.0) + &line("commit", 1, "terrane", 300.0);
        let figures = Figures::read(&text, None, "x").unwrap();
        let table = render(&figures, "ops_per_s").unwrap();
        assert!(
            table.contains("| commit | 1 | single | 300 | 100 | 3.00 (redb) |"),
            "{table}"
        );
        assert!(table.contains("no median"), "{table}");
        text += &line("commit", 1, "redb", 200.0);
        text += &line("commit", 1, "terrane", 300.0);
        let figures = Figures::read(&text, None, "x").unwrap();
        let table = render(&figures, "ops_per_s").unwrap();
        assert!(
            table.contains("| commit | 1 | 2 | 300 | 150 | 2.00 (redb) |"),
            "{table}"
        );
        assert!(!table.contains("no median"), "{table}");
    }

    #[test]
    fn another_run_is_left_out() {
        let text = line("commit", 1, "redb", 100.0);
        let other = text.replace("\"a\"", "\"b\"");
        let both = format!("{other}{text}");
        let figures = Figures::read(&both, None, "x").unwrap();
        assert_eq!(figures.all("commit", 1, "redb", "ops_per_s").len(), 1);
        assert!(Figures::read(&both, Some("c"), "x").is_err());
        assert!(Figures::read("nonsense", None, "x").is_err());
    }
}
