//! What the vector index set out to reach, beside what a run measured; a line per target whose
//! figures are there.

use super::table::{Lines, keys, middle, recall, table, text_of};
use crate::table::grouped;

/// The goal of recall at which engines are compared.
const GOAL: f64 = 0.95;
const RABITQ: &str = "faiss-ivf-rabitq";

/// Where no more of the rows match, the matches are to be scanned exactly: `sec05` of the text has
/// 0.51 %.
const FEW: f64 = 0.0052;

/// Lines of the table.
#[derive(Default)]
struct List(Vec<Vec<String>>);

impl List {
    fn add(&mut self, what: impl Into<String>, needed: String, found: String, reached: bool) {
        let mark = if reached { "yes" } else { "no" };
        self.0.push(vec![what.into(), needed, found, mark.into()]);
    }

    fn at_least(&mut self, what: impl Into<String>, needed: f64, found: f64) {
        let told = (found.min(needed) <= 1.0).then(|| recall(Some(found)));
        let told = told.unwrap_or_else(|| grouped(found));
        self.add(what, format!(">= {needed}"), told, found >= needed);
    }
}

/// The targets as Markdown.
pub(crate) fn render(lines: &Lines) -> String {
    let mut list = List::default();
    beside_peers(lines, &mut list);
    for (key, found) in lines.groups("query", |line| keys(line, &["recall_target", "engine"])) {
        let goal = key[0].parse().unwrap_or(1.0);
        if let (true, Some(share)) = (key[1] == "terrane", middle(found, "recall_at_10")) {
            list.at_least(format!("recall@10 for a goal of {goal}"), goal, share);
        }
    }
    filters(lines, &mut list);
    if let Some(rate) = ours(lines, "load", "ops_per_s") {
        list.at_least("vectors loaded/s, durable", 8000.0, rate);
    }
    memory(lines, &mut list);
    if let Some(ratio) = ours(lines, "commit_beside_vectors", "p99_ratio") {
        let what = "p99 of commits beside vectors, of alone";
        list.add(what, "<= 3".into(), grouped(ratio), ratio <= 3.0);
    }
    let columns = ["target", "needed", "measured", "reached"];
    table("Targets:", &columns, &list.0)
}

fn ours(lines: &Lines, workload: &str, figure: &str) -> Option<f64> {
    let all = lines.of(workload);
    middle(
        all.filter(|line| text_of(line, "engine") == "terrane"),
        figure,
    )
}

/// Speed: on text by the median, on generated vectors by the rate.
fn beside_peers(lines: &Lines, list: &mut List) {
    let figure = |engine, key| lines.search(engine, GOAL, 1, key);
    let mut all = lines.of("query");
    if all.any(|line| line["dim"].as_u64() == Some(384)) {
        for (peer, share) in [(RABITQ, 0.5), ("hnswlib", 1.0)] {
            let pair = figure("terrane", "p50_us").zip(figure(peer, "p50_us"));
            if let Some((own, theirs)) = pair {
                let found = format!("{:.2} of {} us", own / theirs, grouped(theirs));
                let what = format!("p50 at {GOAL}, of {peer}'s");
                list.add(what, format!("<= {share}"), found, own <= share * theirs);
            }
        }
        return;
    }
    for (peer, times) in [(RABITQ, 1.0), ("lancedb", 10.0)] {
        let pair = figure("terrane", "ops_per_s").zip(figure(peer, "ops_per_s"));
        if let Some((own, theirs)) = pair {
            let found = format!("{:.2} x {}/s", own / theirs, grouped(theirs));
            let what = format!("queries/s at {GOAL}, 1 thread, of {peer}'s");
            list.add(what, format!(">= {times} x"), found, own >= times * theirs);
        }
    }
}

/// The recall with each filter, and the rate beside that of the same search without one.
fn filters(lines: &Lines, list: &mut List) {
    let whole = lines.search("terrane", GOAL, 1, "ops_per_s");
    let names = ["filter", "engine", "threads"];
    for (key, found) in lines.groups("query_filter", |line| keys(line, &names)) {
        if key[1] != "terrane" || key[2] != "1" {
            continue;
        }
        let of = |figure| middle(found.iter().copied(), figure);
        let few = of("matching").zip(of("rows"));
        let few = few.is_some_and(|(matching, rows)| matching <= rows * FEW);
        if let Some(share) = of("recall_at_10") {
            let needed = if few { 0.99 } else { GOAL };
            list.at_least(format!("recall@10 with {}", key[0]), needed, share);
        }
        if let Some((rate, whole)) = of("ops_per_s").zip(whole) {
            let (what, share) = (
                format!("queries/s with {}, of all rows'", key[0]),
                rate / whole,
            );
            let found = format!("{share:.2}");
            list.add(what, ">= 1/3".into(), found, share >= 1.0 / 3.0);
        }
    }
}

/// All of the index in the cache, and what is held beside the cache.
fn memory(lines: &Lines, list: &mut List) {
    let bytes = ours(lines, "memory", "index_bytes").filter(|bytes| *bytes > 0.0);
    let graph = lines.of("load");
    let graph = graph.filter(|line| text_of(line, "engine") == "hnswlib");
    let Some((bytes, graph)) = bytes.zip(middle(graph, "index_rss_mib")) else {
        return;
    };
    let beside = ours(lines, "memory", "beyond_pool_mib").unwrap_or(0.0);
    let held = bytes / 1_048_576.0 + beside;
    let found = format!("{:.3} of {} MiB", held / graph, grouped(graph));
    let what = "memory of the index when all of it is cached, of hnswlib's";
    list.add(what, "<= 1/8".into(), found, held <= graph / 8.0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::table::tests::{line, query};

    fn filter(name: &str, matching: u32) -> String {
        let more = format!(
            "\"filter\":\"{name}\",\"matching\":{matching},\"threads\":1,\
             \"recall_at_10\":0.98,\"ops_per_s\":250.0"
        );
        line("terrane", "query_filter", &more)
    }

    #[test]
    fn targets_compare_with_the_peers_that_they_name() {
        let memory = "\"index_bytes\":2097152,\"beyond_pool_mib\":12.0";
        let text = query("faiss-ivf-rabitq", 1, 300.0)
            + &query("terrane", 1, 110.0)
            + &query("hnswlib", 1, 90.0)
            + &filter("sec05", 306)
            + &filter("size50", 30_005)
            + &line("terrane", "load", "\"ops_per_s\":10000.0")
            + &line("terrane", "memory", memory)
            + &line("hnswlib", "load", "\"index_rss_mib\":99.0")
            + &line("terrane", "commit_beside_vectors", "\"p99_ratio\":4.0");
        let out = render(&Lines::read(&text, None, "x").unwrap());
        for words in [
            "| p50 at 0.95, of faiss-ivf-rabitq's | <= 0.5 | 0.37 of 300 us | yes |",
            "| p50 at 0.95, of hnswlib's | <= 1 | 1.22 of 90.0 us | no |",
            "| recall@10 for a goal of 0.95 | >= 0.95 | 0.961 | yes |",
            "| recall@10 with sec05 | >= 0.99 | 0.980 | no |",
            "| recall@10 with size50 | >= 0.95 | 0.980 | yes |",
            "| queries/s with size50, of all rows' | >= 1/3 | 0.25 | no |",
            "| vectors loaded/s, durable | >= 8000 | 10,000 | yes |",
            "of hnswlib's | <= 1/8 | 0.141 of 99.0 MiB | no |",
            "| p99 of commits beside vectors, of alone | <= 3 | 4.0 | no |",
        ] {
            assert!(out.contains(words), "{words:?} in {out}");
        }
    }

    #[test]
    fn without_figures_there_are_no_targets() {
        let text = line("hnswlib", "load", "\"index_rss_mib\":99.0");
        assert_eq!(render(&Lines::read(&text, None, "x").unwrap()), "");
    }
}
