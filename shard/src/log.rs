//! What a replica must know of a shard's log: entries, the terms they are of, the configurations
//! among them. The bytes stay with the host, behind [`Log`].

use std::sync::Arc;

pub use terrane_wal::epochs::{Epochs, Head, Point};
use terrane_wal::lsn::Lsn;
pub use terrane_wal::lsn::Term;

use crate::policy::{MemberId, MemberSet, PolicyError, Quorums};

/// What an entry means to the protocol.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Nothing: rows and whatever else the engine logs.
    Data,
    /// A term begins.
    Barrier,
    /// Members and policy change.
    Config(Arc<Config>),
}

/// An entry on its way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Where it lies.
    pub head: Head,
    /// What it means here.
    pub kind: Kind,
    /// Its records and trailer as they stand in every log.
    pub bytes: Arc<Vec<u8>>,
}

/// A member's data: made anew whenever a disk is formatted, so that a member that lost its data is
/// another one (I9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Incarnation(pub u64);

/// The members of a shard, the data that each is trusted with, and the rule among them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Config {
    quorums: Quorums,
    /// By place: the incarnation whose acknowledgements and promises count.
    incarnations: Vec<Incarnation>,
}

impl Config {
    /// Members and what the policy says of them, and by place the incarnations that count.
    ///
    /// # Errors
    /// [`PolicyError::Incarnations`] if there are not as many as members.
    pub fn new(quorums: Quorums, incarnations: Vec<Incarnation>) -> Result<Self, PolicyError> {
        let (expected, found) = (quorums.members().len(), incarnations.len());
        if expected != found {
            return Err(PolicyError::Incarnations { expected, found });
        }
        Ok(Self {
            quorums,
            incarnations,
        })
    }

    /// Members and what the policy says of them.
    #[must_use]
    pub fn quorums(&self) -> &Quorums {
        &self.quorums
    }

    /// By place: the incarnation whose acknowledgements and promises count.
    #[must_use]
    pub fn incarnations(&self) -> &[Incarnation] {
        &self.incarnations
    }

    /// The place of a member if it is this incarnation that counts.
    #[must_use]
    pub fn trusted(&self, id: MemberId, incarnation: Incarnation) -> Option<usize> {
        let place = self.quorums.place(id)?;
        (self.incarnations[place] == incarnation).then_some(place)
    }

    /// Those of some members, with their incarnations, that count.
    pub fn trusted_of(
        &self,
        members: impl IntoIterator<Item = (MemberId, Incarnation)>,
    ) -> MemberSet {
        let places = members.into_iter();
        places
            .filter_map(|(id, incarnation)| self.trusted(id, incarnation))
            .collect()
    }

    /// The same members, one of them with other data.
    #[must_use]
    pub fn with_incarnation(&self, id: MemberId, incarnation: Incarnation) -> Self {
        let mut config = self.clone();
        if let Some(place) = config.quorums.place(id) {
            config.incarnations[place] = incarnation;
        }
        config
    }
}

/// The configurations in a log that may still count: the last committed one, and all behind it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Configs {
    /// With the end of their entries, rising; never empty.
    held: Vec<(Lsn, Arc<Config>)>,
}

impl Configs {
    /// What the shard was made with.
    #[must_use]
    pub fn new(first: Arc<Config>) -> Self {
        Self {
            held: vec![(Lsn::ZERO, first)],
        }
    }

    /// Takes note of an entry behind all others.
    pub fn push(&mut self, end: Lsn, config: Arc<Config>) {
        self.held.push((end, config));
    }

    /// Forgets those behind the end of an entry.
    pub fn truncate(&mut self, to: Lsn) {
        self.held.retain(|(end, _)| *end <= to || *end == Lsn::ZERO);
    }

    /// Forgets those before the last committed one.
    pub fn commit(&mut self, commit: Lsn) {
        let committed = self.held.partition_point(|(end, _)| *end <= commit);
        self.held.drain(..committed.saturating_sub(1));
    }

    /// Those that all must agree: the last committed one and the ones behind it.
    pub fn active(&self) -> impl Iterator<Item = &Arc<Config>> {
        self.held.iter().map(|(_, config)| config)
    }

    /// As [`Configs::active`], with the ends of their entries.
    #[must_use]
    pub fn to_vec(&self) -> Vec<(Lsn, Arc<Config>)> {
        self.held.clone()
    }

    /// The newest, committed or not.
    #[must_use]
    pub fn newest(&self) -> &Arc<Config> {
        &self.held[self.held.len() - 1].1
    }

    /// The last committed one, with the end of its entry.
    #[must_use]
    pub fn committed(&self) -> (Lsn, &Arc<Config>) {
        let (end, config) = &self.held[0];
        (*end, config)
    }

    /// Where the newest one's entry ends.
    #[must_use]
    pub fn newest_end(&self) -> Lsn {
        self.held[self.held.len() - 1].0
    }
}

/// What is wrong with entries that a peer sent, if they cannot stand behind `prev` in any log of at
/// most this term.
pub(crate) fn malformed(prev: Point, entries: &[Entry], term: Term) -> Option<&'static str> {
    let mut before = prev;
    for entry in entries {
        let head = &entry.head;
        if head.start != before.lsn {
            return Some("an entry does not begin where the one before ends");
        }
        if head.end <= head.start {
            return Some("an entry ends where it begins, or before");
        }
        if head.term < before.term || head.term > term {
            return Some("an entry is of a term below the one before, or above the sender's");
        }
        before = head.point();
    }
    (prev.term > term).then_some("the entry before is of a term above the sender's")
}

/// A shard's log on this member, as it is in memory: what was written but not yet synced as well.
pub trait Log {
    /// The terms of its entries.
    fn epochs(&self) -> &Epochs;

    /// Where the first entry begins that can still be looked at. What lies before was trimmed, so
    /// it is committed.
    fn oldest(&self) -> Lsn;

    /// The entry that ends here, if one does; not asked about what was trimmed.
    fn ending(&self, end: Lsn) -> Option<Head>;

    /// Entries from the one that begins here, at least one if there is one, of about so many bytes.
    fn read(&self, from: Lsn, bytes: usize) -> Vec<Entry>;
}
