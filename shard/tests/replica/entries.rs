//! A log in memory, as a member's host holds it.

use std::sync::Arc;

use terrane_shard::log::{Config, Configs, Entry, Epochs, Head, Incarnation, Kind, Log};
use terrane_shard::policy::{Member, Quorums, SemiSync};
use terrane_wal::lsn::Lsn;

/// A log in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entries {
    pub(crate) entries: Vec<Entry>,
    pub(crate) epochs: Epochs,
    /// Entries before are not looked up any more.
    pub(crate) oldest: Lsn,
    /// Entries in one message, less one.
    pub(crate) more: usize,
}

impl Entries {
    pub(crate) fn of(entries: Vec<Entry>) -> Self {
        let mut epochs = Epochs::default();
        entries.iter().for_each(|entry| epochs.push(&entry.head));
        Self {
            entries,
            epochs,
            ..Self::default()
        }
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        self.epochs.push(&entry.head);
        self.entries.push(entry);
    }

    pub(crate) fn truncate(&mut self, to: Lsn) {
        self.entries.retain(|entry| entry.head.end <= to);
        self.epochs.truncate(to);
    }

    pub(crate) fn configs(&self, first: &Arc<Config>, commit: Lsn) -> Configs {
        let mut configs = Configs::new(first.clone());
        for entry in &self.entries {
            if let Kind::Config(config) = &entry.kind {
                configs.push(entry.head.end, config.clone());
            }
        }
        configs.commit(commit);
        configs
    }
}

/// Three voters, one of whose acknowledgements a leader needs; each with data of incarnation 7.
pub(crate) fn three() -> Config {
    let members: Vec<Member> = (0..3).map(|id| Member::voter(id, "a")).collect();
    let quorums = Quorums::new(&SemiSync::new(1), &members).unwrap();
    Config::new(quorums, vec![Incarnation(7); 3]).unwrap()
}

impl Log for Entries {
    fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    fn oldest(&self) -> Lsn {
        self.oldest
    }

    fn ending(&self, end: Lsn) -> Option<Head> {
        if end <= self.oldest {
            return None;
        }
        let at = self.entries.binary_search_by_key(&end, |e| e.head.end);
        at.ok().map(|at| self.entries[at].head)
    }

    fn read(&self, from: Lsn, _: usize) -> Vec<Entry> {
        let at = self.entries.partition_point(|e| e.head.start < from);
        let entries = self.entries[at..].iter().take(1 + self.more);
        entries.cloned().collect()
    }
}
