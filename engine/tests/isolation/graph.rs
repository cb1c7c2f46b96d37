//! Our own checker: a history of list-append transactions to a graph of who must come before whom.
//!
//! Adya's dependencies: ww from an append to the next one of its list, wr from an append to who
//! read it as the last element, rw from who read a list to who appended next; and real time, from a
//! transaction to those that began after it had ended. Serializable: no cycle at all. Snapshot
//! isolation: no cycle without two rw edges in a row (Fekete et al. 2005).
//!
//! A read shows the order of all appends before it, so the order of each list is known; reads that
//! do not agree on it, or show what was aborted, are faults by themselves.

use std::collections::{BTreeMap, BTreeSet};

/// One operation of a transaction, as it was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// The list as it was read.
    Read(u64, Vec<u64>),
    /// An element, unique in the whole history.
    Append(u64, u64),
}

/// How a transaction ended for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Committed,
    Aborted,
    Unknown,
}

/// One transaction: when it began and ended on one line of time, and what it did.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) thread: u64,
    pub(crate) began: usize,
    pub(crate) ended: usize,
    pub(crate) end: End,
    pub(crate) ops: Vec<Op>,
}

/// What a cycle must be made of to be forbidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Serializable,
    Snapshot,
}

/// Share of the committed transactions that ran at the same time as another one with which they
/// conflict: a list that both touched and one of them appended to. In percent.
pub(crate) fn overlap(history: &[Recorded]) -> usize {
    let touched = |tx: &Recorded| -> (BTreeSet<u64>, BTreeSet<u64>) {
        let key = |op: &Op| match op {
            Op::Read(key, _) | Op::Append(key, _) => *key,
        };
        let appends = tx.ops.iter().filter(|op| matches!(op, Op::Append(..)));
        (tx.ops.iter().map(key).collect(), appends.map(key).collect())
    };
    let keys: Vec<_> = history.iter().map(touched).collect();
    let conflicts = |a: usize, b: usize| {
        let ((all, appended), (others, theirs)) = (&keys[a], &keys[b]);
        !appended.is_disjoint(others) || !theirs.is_disjoint(all)
    };
    let together = |a: &Recorded, b: &Recorded| a.began < b.ended && b.began < a.ended;
    let committed: Vec<usize> = (0..history.len())
        .filter(|at| history[*at].end == End::Committed)
        .collect();
    let overlaps = |at: &&usize| {
        (0..history.len()).any(|other| {
            other != **at && together(&history[**at], &history[other]) && conflicts(**at, other)
        })
    };
    committed.iter().filter(overlaps).count() * 100 / committed.len().max(1)
}

/// Everything that is wrong with the history at this level.
pub(crate) fn faults(history: &[Recorded], level: Level) -> Vec<String> {
    let mut lists = Lists::new(history);
    lists.read_all(history);
    let mut faults = std::mem::take(&mut lists.faults);
    let graph = lists.graph(history);
    let cycle = match level {
        Level::Serializable => graph.cycle(|_, _| true),
        Level::Snapshot => graph.cycle(|was_rw, is_rw| !(was_rw && is_rw)),
    };
    if !cycle.is_empty() {
        let show = |tx: &usize| format!("{:?}", history[*tx]);
        let shown: Vec<String> = cycle.iter().take(6).map(show).collect();
        faults.push(format!(
            "{} transactions on cycles:\n{}",
            cycle.len(),
            shown.join("\n")
        ));
    }
    faults
}

/// The lists and who appended what.
struct Lists {
    /// The longest read of each list.
    order: BTreeMap<u64, Vec<u64>>,
    /// Element to transaction.
    writer: BTreeMap<u64, usize>,
    faults: Vec<String>,
}

impl Lists {
    fn new(history: &[Recorded]) -> Lists {
        let mut writer = BTreeMap::new();
        for (at, tx) in history.iter().enumerate() {
            for op in &tx.ops {
                if let Op::Append(_, element) = op {
                    assert!(writer.insert(*element, at).is_none(), "elements are unique");
                }
            }
        }
        Lists {
            order: BTreeMap::new(),
            writer,
            faults: Vec::new(),
        }
    }

    /// Orders of all lists; faults of reads that no order explains.
    fn read_all(&mut self, history: &[Recorded]) {
        for tx in history.iter().filter(|tx| tx.end == End::Committed) {
            let mut own: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
            for op in &tx.ops {
                match op {
                    Op::Append(key, element) => own.entry(*key).or_default().push(*element),
                    Op::Read(key, list) => {
                        let mine = own.get(key).cloned().unwrap_or_default();
                        let Some(before) = list.strip_suffix(&*mine) else {
                            self.faults
                                .push(format!("own appends are missing in {tx:?}"));
                            continue;
                        };
                        // Appends of its own stand behind what others had committed; whether they
                        // stay there, the reads of others tell.
                        self.read(history, *key, before, tx);
                    }
                }
            }
        }
        for (at, tx) in history.iter().enumerate() {
            self.check_whole(at, tx);
        }
    }

    fn read(&mut self, history: &[Recorded], key: u64, list: &[u64], tx: &Recorded) {
        for element in list {
            let writer = self.writer.get(element).map(|at| &history[*at]);
            if writer.is_none_or(|writer| writer.end == End::Aborted) {
                self.faults.push(format!(
                    "{element} of nobody or of an aborted one in {tx:?}"
                ));
            }
        }
        let longest = self.order.entry(key).or_default();
        let shared = longest.len().min(list.len());
        if longest[..shared] != list[..shared] {
            self.faults
                .push(format!("two orders of list {key}: {longest:?} and {tx:?}"));
        } else if list.len() > longest.len() {
            *longest = list.to_vec();
        }
    }

    /// What one transaction appended to one list stands together, in its order: nobody saw half.
    fn check_whole(&mut self, at: usize, tx: &Recorded) {
        let mut own: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for op in &tx.ops {
            if let Op::Append(key, element) = op {
                own.entry(*key).or_default().push(*element);
            }
        }
        for (key, mine) in own {
            let order = self.order.get(&key).map(Vec::as_slice).unwrap_or_default();
            let seen: Vec<usize> = mine
                .iter()
                .filter_map(|element| order.iter().position(|other| other == element))
                .collect();
            let rising = seen.windows(2).all(|pair| pair[1] == pair[0] + 1);
            if !rising || !(seen.is_empty() || seen.len() == mine.len()) {
                self.faults.push(format!(
                    "appends of transaction {at} were seen in part: {tx:?}"
                ));
            }
        }
    }

    fn graph(&self, history: &[Recorded]) -> Graph {
        let mut graph = Graph::new(history);
        for order in self.order.values() {
            for pair in order.windows(2) {
                graph.link(self.writer[&pair[0]], self.writer[&pair[1]], false);
            }
        }
        for (at, tx) in history.iter().enumerate() {
            if tx.end != End::Committed {
                continue;
            }
            for op in &tx.ops {
                let Op::Read(key, list) = op else { continue };
                let others = list.iter().rev();
                let last = others.clone().find(|element| self.writer[element] != at);
                if let Some(last) = last {
                    graph.link(self.writer[last], at, false);
                }
                let order = self.order.get(key).map(Vec::as_slice).unwrap_or_default();
                let seen = list.iter().filter(|e| self.writer[e] != at).count();
                if let Some(next) = order.get(seen) {
                    graph.link(at, self.writer[next], true);
                }
            }
        }
        graph
    }
}

/// Transactions first, then the points of the line of time.
struct Graph {
    transactions: usize,
    /// (to, is rw).
    edges: Vec<Vec<(usize, bool)>>,
}

impl Graph {
    /// Real time as a chain of points: linear, where edges between all pairs would be quadratic.
    fn new(history: &[Recorded]) -> Graph {
        let n = history.len();
        let points = history.iter().map(|tx| tx.ended + 1).max().unwrap_or(0);
        let mut graph = Graph {
            transactions: n,
            edges: vec![Vec::new(); n + points + 1],
        };
        for point in 0..points {
            graph.edges[n + point].push((n + point + 1, false));
        }
        for (at, tx) in history.iter().enumerate() {
            // What was not acknowledged may take its place later.
            if tx.end == End::Committed {
                graph.edges[at].push((n + tx.ended, false));
            }
            graph.edges[n + tx.began].push((at, false));
        }
        graph
    }

    fn link(&mut self, from: usize, to: usize, rw: bool) {
        if from != to {
            self.edges[from].push((to, rw));
        }
    }

    /// Transactions on a cycle all of whose neighbouring edges `may_follow` each other. Empty if
    /// there is none. Every node is doubled: reached by an rw edge or by another.
    fn cycle(&self, may_follow: impl Fn(bool, bool) -> bool) -> Vec<usize> {
        let n = self.edges.len();
        let next = |state: usize| {
            let (node, was_rw) = (state / 2, state % 2 == 1);
            self.edges[node]
                .iter()
                .filter(|(_, rw)| may_follow(was_rw, *rw))
                .map(|(to, rw)| 2 * to + usize::from(*rw))
                .collect::<Vec<_>>()
        };
        let mut incoming = vec![0_usize; 2 * n];
        for state in 0..2 * n {
            next(state).into_iter().for_each(|to| incoming[to] += 1);
        }
        // Taking away what nothing points to leaves the cycles and what they lead to.
        let mut free: Vec<usize> = (0..2 * n).filter(|state| incoming[*state] == 0).collect();
        let mut gone = vec![false; 2 * n];
        while let Some(state) = free.pop() {
            gone[state] = true;
            for to in next(state) {
                incoming[to] -= 1;
                if incoming[to] == 0 {
                    free.push(to);
                }
            }
        }
        let left: BTreeSet<usize> = (0..2 * n)
            .filter(|state| !gone[*state])
            .map(|state| state / 2)
            .filter(|node| *node < self.transactions)
            .collect();
        left.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tx(thread: u64, span: (usize, usize), ops: &[Op]) -> Recorded {
        Recorded {
            thread,
            began: span.0,
            ended: span.1,
            end: End::Committed,
            ops: ops.to_vec(),
        }
    }

    /// Each anomaly is seen by the checker, and only by the level that forbids it.
    #[test]
    fn the_checker_knows_the_anomalies() {
        let read = |key, list: &[u64]| Op::Read(key, list.to_vec());
        let skew = [
            tx(0, (0, 3), &[read(1, &[]), read(2, &[]), Op::Append(1, 1)]),
            tx(1, (1, 2), &[read(1, &[]), read(2, &[]), Op::Append(2, 2)]),
            tx(0, (4, 5), &[read(1, &[1]), read(2, &[2])]),
        ];
        assert!(!faults(&skew, Level::Serializable).is_empty());
        assert_eq!(faults(&skew, Level::Snapshot), [""; 0]);
        assert_eq!(overlap(&skew), 66);

        let lost = [
            tx(0, (0, 3), &[read(1, &[]), Op::Append(1, 1)]),
            tx(1, (1, 2), &[read(1, &[]), Op::Append(1, 2)]),
            tx(0, (4, 5), &[read(1, &[1, 2])]),
        ];
        assert!(!faults(&lost, Level::Snapshot).is_empty(), "lost update");

        let fork = [
            tx(0, (0, 7), &[Op::Append(1, 1)]),
            tx(1, (1, 6), &[Op::Append(2, 2)]),
            tx(2, (2, 5), &[read(1, &[1]), read(2, &[])]),
            tx(3, (3, 4), &[read(1, &[]), read(2, &[2])]),
            tx(0, (8, 9), &[read(1, &[1]), read(2, &[2])]),
        ];
        assert!(!faults(&fork, Level::Snapshot).is_empty(), "long fork");

        let stale = [
            tx(0, (0, 1), &[Op::Append(1, 1)]),
            tx(1, (2, 3), &[read(1, &[])]),
            tx(1, (4, 5), &[read(1, &[1])]),
        ];
        assert!(!faults(&stale, Level::Snapshot).is_empty(), "a stale read");

        let half = [
            tx(0, (0, 3), &[Op::Append(1, 1), Op::Append(1, 2)]),
            tx(1, (1, 2), &[read(1, &[1])]),
        ];
        assert!(!faults(&half, Level::Snapshot).is_empty(), "half of one");

        let fine = [
            tx(0, (0, 1), &[read(1, &[]), Op::Append(1, 1), read(1, &[1])]),
            tx(1, (2, 3), &[read(1, &[1]), Op::Append(1, 2)]),
            tx(0, (4, 5), &[read(1, &[1, 2])]),
        ];
        assert_eq!(faults(&fine, Level::Serializable), [""; 0]);
        assert_eq!(overlap(&fine), 0);

        let mut aborted = fine.to_vec();
        aborted[0].end = End::Aborted;
        assert!(!faults(&aborted, Level::Snapshot).is_empty(), "G1a");
    }
}
