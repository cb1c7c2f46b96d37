//! The suite's lines and those of its peers as Markdown: search by goal of recall, filters, loads,
//! drift, churn, commits, and what the project set out to reach.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::targets;
use crate::Failure;
use crate::table::{grouped, median};

/// The lines of one run.
pub(crate) struct Lines {
    run: String,
    lines: Vec<Value>,
}

/// What tells one row of a table from another: texts and numbers of a line, as text.
pub(crate) type Key = Vec<String>;

impl Lines {
    /// The vector lines of a run; of the last one in the file if none is named.
    pub(crate) fn read(text: &str, run: Option<&str>, name: &str) -> Result<Lines, Failure> {
        let mut lines: Vec<Value> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let value = serde_json::from_str(line)
                .map_err(|e| format!("{name}:{}: not a JSON object: {e}", number + 1))?;
            lines.push(value);
        }
        let last = lines
            .last()
            .map(|line| text_of(line, "run"))
            .unwrap_or_default();
        let run = run.map_or(last, str::to_string);
        lines.retain(|line| text_of(line, "run") == run && text_of(line, "suite") == "vector");
        Ok(Lines { run, lines })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(crate) fn of<'a>(&'a self, workload: &str) -> impl Iterator<Item = &'a Value> {
        let all = self.lines.iter();
        all.filter(move |line| text_of(line, "workload") == workload)
    }

    /// The lines of a workload by what `key` tells of them, each with its repeats.
    pub(crate) fn groups<'a>(
        &'a self,
        workload: &str,
        key: impl Fn(&Value) -> Key,
    ) -> Vec<(Key, Vec<&'a Value>)> {
        let mut groups: Vec<(Key, Vec<&'a Value>)> = Vec::new();
        for line in self.of(workload) {
            let key = key(line);
            match groups.iter_mut().find(|(known, _)| *known == key) {
                Some((_, lines)) => lines.push(line),
                None => groups.push((key, vec![line])),
            }
        }
        groups
    }

    /// A figure of an engine's search at a goal.
    pub(crate) fn search(&self, engine: &str, goal: f64, threads: u64, key: &str) -> Option<f64> {
        let lines = self.of("query").filter(|line| {
            text_of(line, "engine") == engine
                && line["recall_target"].as_f64() == Some(goal)
                && line["threads"].as_u64() == Some(threads)
        });
        middle(lines, key)
    }
}

pub(crate) fn text_of(line: &Value, key: &str) -> String {
    match &line[key] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

pub(crate) fn keys(line: &Value, names: &[&str]) -> Key {
    names.iter().map(|name| text_of(line, name)).collect()
}

/// The median of a figure.
pub(crate) fn middle<'a>(lines: impl IntoIterator<Item = &'a Value>, key: &str) -> Option<f64> {
    let figures = lines.into_iter().filter_map(|line| line[key].as_f64());
    median(figures.collect()).map(|median| median.value)
}

fn shown(figure: Option<f64>) -> String {
    figure.map(grouped).unwrap_or_default()
}

pub(crate) fn recall(figure: Option<f64>) -> String {
    figure
        .map(|share| format!("{share:.3}"))
        .unwrap_or_default()
}

/// Bytes as MiB.
fn mib(bytes: Option<f64>) -> String {
    shown(bytes.map(|bytes| bytes / 1_048_576.0))
}

/// A table under a heading; empty without rows.
pub(crate) fn table(heading: &str, columns: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut out = format!("\n{heading}\n\n| {} |\n|", columns.join(" | "));
    out.push_str(&"---|".repeat(columns.len()));
    out.push('\n');
    for row in rows {
        let _ = writeln!(out, "| {} |", row.join(" | "));
    }
    out
}

/// All tables of a run.
pub(crate) fn render(lines: &Lines) -> String {
    let mut out = String::new();
    let data: BTreeMap<String, &Value> = lines
        .lines
        .iter()
        .map(|l| (text_of(l, "data"), l))
        .collect();
    for (name, line) in data {
        let (rows, dim) = (shown(line["rows"].as_f64()), text_of(line, "dim"));
        let _ = writeln!(out, "`{name}`: {rows} vectors of {dim} dimensions.");
    }
    for part in [searches, filters, loads, drift, churn, commits] {
        out.push_str(&part(lines));
    }
    out.push_str(&targets::render(lines));
    let _ = writeln!(out, "\nMedians of the repeats; run `{}`.", lines.run);
    out
}

fn searches(lines: &Lines) -> String {
    let names = ["recall_target", "engine"];
    let mut rows = Vec::new();
    for (key, found) in lines.groups("query", |line| keys(line, &names)) {
        let on = |threads: u64, figure: &str| {
            let some = found
                .iter()
                .filter(|l| l["threads"].as_u64() == Some(threads));
            middle(some.copied(), figure)
        };
        let p50 = on(1, "p50_us");
        let row = vec![
            key[0].clone(),
            key[1].clone(),
            recall(middle(found.iter().copied(), "recall_at_10")),
            shown(p50),
            shown(on(1, "p99_us")),
            shown(on(1, "ops_per_s")),
            shown(on(2, "ops_per_s")),
            text_of(found[0], "options"),
        ];
        rows.push((key[0].clone(), p50.unwrap_or(f64::MAX), row));
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let rows: Vec<_> = rows.into_iter().map(|(_, _, row)| row).collect();
    table(
        "Search, one query at a time on each thread, fastest first:",
        &[
            "goal",
            "engine",
            "recall@10",
            "p50 us",
            "p99 us",
            "queries/s, 1 thread",
            "2 threads",
            "settings",
        ],
        &rows,
    )
}

fn filters(lines: &Lines) -> String {
    let names = ["filter", "engine"];
    let of_one = |line: &Value| {
        let mut key = keys(line, &names);
        key.push(text_of(line, "threads"));
        // A peer was built in several ways: each is a row of its own.
        let options = text_of(line, "options");
        key.push(options.split(';').next().unwrap_or_default().to_string());
        key
    };
    let mut rows: Vec<_> = lines
        .groups("query_filter", of_one)
        .into_iter()
        .filter(|(key, _)| key[2] == "1")
        .map(|(key, found)| {
            let of = |figure| middle(found.iter().copied(), figure);
            vec![
                key[0].clone(),
                key[1].clone(),
                recall(of("recall_at_10")),
                shown(of("p50_us")),
                shown(of("p99_us")),
                of("short").map(|n| format!("{n:.0}")).unwrap_or_default(),
                text_of(found[0], "options"),
            ]
        })
        .collect();
    rows.sort();
    table(
        "With a filter, 1 thread; `short` counts queries with fewer answers than matches:",
        &[
            "filter",
            "engine",
            "recall@10",
            "p50 us",
            "p99 us",
            "short",
            "settings",
        ],
        &rows,
    )
}

fn loads(lines: &Lines) -> String {
    let memory = |engine: &str, figure: &str| {
        let found = lines
            .of("memory")
            .filter(|l| text_of(l, "engine") == engine);
        middle(found, figure)
    };
    let rows: Vec<_> = lines
        .groups("load", |line| keys(line, &["engine", "options"]))
        .into_iter()
        .map(|(key, found)| {
            let of = |figure| middle(found.iter().copied(), figure);
            vec![
                key[0].clone(),
                shown(of("secs")),
                shown(of("ops_per_s")),
                shown(of("idle_s")),
                mib(of("index_bytes").or(memory(&key[0], "index_bytes"))),
                shown(of("index_rss_mib").or(memory(&key[0], "beyond_pool_mib"))),
                shown(of("peak_rss_mib")),
                key[1].clone(),
            ]
        })
        .collect();
    table(
        "Load. Terrane commits durable transactions of 100 and then works on until it rests; the \
         peers build in memory. Index: Terrane's bytes on disk beside the rows, a peer's with the \
         vectors in it. Resident: Terrane's beyond the pages of its cache.",
        &[
            "engine",
            "s",
            "vectors/s",
            "to rest s",
            "index MiB",
            "resident MiB",
            "peak MiB",
            "settings",
        ],
        &rows,
    )
}

fn drift(lines: &Lines) -> String {
    let rows: Vec<_> = lines
        .groups("load_drift", |line| keys(line, &["checkpoint"]))
        .into_iter()
        .map(|(key, found)| {
            let of = |figure| middle(found.iter().copied(), figure);
            vec![
                key[0].clone(),
                recall(of("recall_at_10")),
                shown(of("query_p50_us")),
                shown(of("vectors_scanned")),
                shown(of("ops_per_s")),
                shown(of("idle_s")),
            ]
        })
        .collect();
    table(
        "In the order of ids, whose sections drift:",
        &[
            "loaded",
            "recall@10",
            "query p50 us",
            "vectors scanned",
            "vectors/s",
            "to rest s",
        ],
        &rows,
    )
}

fn churn(lines: &Lines) -> String {
    let mut rows = Vec::new();
    for workload in ["churn", "churn_query"] {
        for (_, found) in lines.groups(workload, |_| Vec::new()) {
            let of = |figure| middle(found.iter().copied(), figure);
            rows.push(vec![
                text_of(found[0], "unit"),
                shown(of("ops_per_s")),
                shown(of("p50_us")),
                shown(of("p99_us")),
                recall(of("recall_at_10")),
            ]);
        }
    }
    table(
        "All rows replaced in random order while one thread queries:",
        &[
            "what",
            "per second",
            "p50 us",
            "p99 us",
            "recall@10 at the end",
        ],
        &rows,
    )
}

fn commits(lines: &Lines) -> String {
    let mut rows = Vec::new();
    for (workload, what) in [
        ("commit_alone", "alone"),
        (
            "commit_beside_plain_rows",
            "beside inserts of the rows without an index",
        ),
        ("commit_beside_vectors", "beside inserts of vectors"),
    ] {
        for (_, found) in lines.groups(workload, |_| Vec::new()) {
            let of = |figure| middle(found.iter().copied(), figure);
            rows.push(vec![
                what.to_string(),
                shown(of("ops_per_s")),
                shown(of("p50_us")),
                shown(of("p99_us")),
                shown(of("p99_ratio")),
                shown(of("vectors_per_s").filter(|rate| *rate > 0.0)),
            ]);
        }
    }
    table(
        "Durable commits of one row of a plain table, 1 thread:",
        &[
            "",
            "commits/s",
            "p50 us",
            "p99 us",
            "p99 / alone",
            "rows inserted/s",
        ],
        &rows,
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn line(engine: &str, workload: &str, more: &str) -> String {
        format!(
            "{{\"run\":\"a\",\"suite\":\"vector\",\"data\":\"d\",\"rows\":60000,\"dim\":384,\
             \"engine\":\"{engine}\",\"workload\":\"{workload}\",{more}}}\n"
        )
    }

    pub(crate) fn query(engine: &str, threads: u64, p50: f64) -> String {
        let more = format!(
            "\"threads\":{threads},\"recall_target\":0.95,\"recall_at_10\":0.9612,\
             \"p50_us\":{p50},\"ops_per_s\":1000.0,\"options\":\"ef=40\""
        );
        line(engine, "query", &more)
    }

    #[test]
    fn engines_stand_side_by_side_fastest_first() {
        let text = query("faiss-ivf-rabitq", 1, 300.0)
            + &query("terrane", 1, 100.0)
            + &query("terrane", 1, 120.0)
            + &query("terrane", 2, 130.0)
            + &query("hnswlib", 1, 90.0);
        let out = render(&Lines::read(&text, None, "x").unwrap());
        let at = |words: &str| {
            out.find(words)
                .unwrap_or_else(|| panic!("{words} in {out}"))
        };
        let ours = at("| 0.95 | terrane | 0.961 | 110 |  | 1,000 | 1,000 |");
        assert!(at("| 0.95 | hnswlib |") < ours && ours < at("| 0.95 | faiss-ivf-rabitq |"));
        at("`d`: 60,000 vectors of 384 dimensions.");
    }

    #[test]
    fn each_workload_has_its_table() {
        let text = line(
            "terrane",
            "load",
            "\"secs\":6.0,\"ops_per_s\":10000.0,\"idle_s\":1.5",
        ) + &line(
            "terrane",
            "memory",
            "\"index_bytes\":2097152,\"beyond_pool_mib\":12.0",
        ) + &line(
            "hnswlib",
            "load",
            "\"secs\":30.0,\"index_bytes\":1048576,\"index_rss_mib\":99.0",
        ) + &line(
            "terrane",
            "load_drift",
            "\"checkpoint\":\"25 %\",\"recall_at_10\":0.97",
        ) + &line(
            "terrane",
            "commit_beside_vectors",
            "\"p99_ratio\":4.0,\"ops_per_s\":500.0",
        ) + &line(
            "terrane",
            "churn",
            "\"unit\":\"upserts\",\"recall_at_10\":0.95",
        ) + &line(
            "terrane",
            "query_filter",
            "\"filter\":\"sec05\",\"threads\":1,\"recall_at_10\":0.9,\"short\":0",
        );
        let out = render(&Lines::read(&text, None, "x").unwrap());
        for words in [
            "| terrane | 6.0 | 10,000 | 1.5 | 2.0 | 12.0 |",
            "| hnswlib | 30.0 |  |  | 1.0 | 99.0 |",
            "| 25 % | 0.970 |",
            "| beside inserts of vectors | 500 |  |  | 4.0 |",
            "| upserts |",
            "| sec05 | terrane | 0.900 |  |  | 0 |",
        ] {
            assert!(out.contains(words), "{words:?} in {out}");
        }
    }

    #[test]
    fn lines_of_other_suites_and_runs_are_left_out() {
        let kv = "{\"run\":\"a\",\"workload\":\"commit\"}\n".to_string();
        assert!(Lines::read(&kv, None, "x").unwrap().is_empty());
        let both = query("terrane", 1, 100.0) + &kv;
        assert_eq!(Lines::read(&both, None, "x").unwrap().lines.len(), 1);
        assert!(Lines::read(&both, Some("b"), "x").unwrap().is_empty());
        assert!(Lines::read("nonsense", None, "x").is_err());
    }
}
