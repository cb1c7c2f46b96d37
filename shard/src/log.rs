//! What a replica must know of a shard's log: entries, the terms they are of, the configurations
//! among them. The bytes stay with the host, behind [`Log`].
//!
//! ```text
//! term 1        term 2              term 4
//! |---|-----|---|B|------|--------|---|B|----->  entries; B: the barrier that begins a term
//!            point: (term, end of an entry)
//! ```
//!
//! Invariants:
//! * G1. Terms rise along a log; an entry's term is that of the last barrier at or before it.
//! * G2. Logs that have the same entry at a point are equal up to it: one leader per term (I1), and
//!   an entry is taken only behind the entry that it follows at its leader (I3).

use std::fmt;
use std::sync::Arc;

use terrane_wal::lsn::Lsn;

use crate::policy::{MemberId, MemberSet, PolicyError, Quorums};

/// The number of a leadership. Term 0 is before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Term(pub u64);

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "term {}", self.0)
    }
}

/// Where an entry ends and its term. Of two logs the one whose last point is greater holds all that
/// may be committed (I7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Point {
    /// The entry's term.
    pub term: Term,
    /// Where it ends.
    pub lsn: Lsn,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.lsn, self.term)
    }
}

/// Where an entry lies and what it is, without its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Head {
    /// Its term.
    pub term: Term,
    /// Where the entry before it ends.
    pub start: Lsn,
    /// Where it ends.
    pub end: Lsn,
    /// The checksum in its trailer.
    pub crc: u32,
}

impl Head {
    /// Where it ends, with its term.
    #[must_use]
    pub fn point(&self) -> Point {
        Point {
            term: self.term,
            lsn: self.end,
        }
    }
}

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
    pub bytes: Arc<[u8]>,
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

/// Which term each part of a log is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Epochs {
    /// Terms in rising order, each with the place where its barrier begins.
    starts: Vec<(Term, Lsn)>,
    end: Lsn,
}

impl Epochs {
    /// The last entry; term 0 at 0 if there is none.
    #[must_use]
    pub fn last(&self) -> Point {
        Point {
            term: self.starts.last().map_or(Term(0), |start| start.0),
            lsn: self.end,
        }
    }

    /// Takes note of an entry behind the last one.
    ///
    /// # Panics
    /// If the entry does not begin where the last one ends, or its term is below the last one's.
    pub fn push(&mut self, head: &Head) {
        assert!(head.start == self.end && head.end > head.start, "G1: gap");
        let last = self.last().term;
        assert!(head.term >= last, "G1: terms rise");
        if head.term > last {
            self.starts.push((head.term, head.start));
        }
        self.end = head.end;
    }

    /// Forgets what lies behind the end of an entry.
    pub fn truncate(&mut self, to: Lsn) {
        self.starts.retain(|(_, start)| *start < to);
        self.end = self.end.min(to);
    }

    /// The term of the entry that ends here or reaches beyond; 0 at the start of the log.
    #[must_use]
    pub fn term_at(&self, lsn: Lsn) -> Term {
        let terms = self.starts.partition_point(|(_, start)| *start < lsn);
        let last = terms.checked_sub(1).map(|at| self.starts[at].0);
        last.unwrap_or(Term(0))
    }

    /// Where the entries of a term begin and end, if the log has some.
    fn span(&self, term: Term) -> Option<(Lsn, Lsn)> {
        let at = self.starts.binary_search_by_key(&term, |s| s.0).ok()?;
        let end = self.starts.get(at + 1).map_or(self.end, |next| next.1);
        Some((self.starts[at].1, end))
    }

    /// The last point that both logs have: up to it they are equal (G2).
    #[must_use]
    pub fn common(&self, other: &Self) -> Point {
        for (term, start) in self.starts.iter().rev() {
            let (Some((_, end)), Some((theirs, other_end))) = (self.span(*term), other.span(*term))
            else {
                continue;
            };
            if theirs == *start {
                return Point {
                    term: *term,
                    lsn: end.min(other_end),
                };
            }
        }
        Point::default()
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

    /// The entry that ends here, if one does.
    fn ending(&self, end: Lsn) -> Option<Head>;

    /// Entries from the one that begins here, at least one if there is one, of about so many bytes.
    fn read(&self, from: Lsn, bytes: usize) -> Vec<Entry>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(entries: &[(u64, u64)]) -> Epochs {
        let mut epochs = Epochs::default();
        for (term, end) in entries {
            let head = Head {
                term: Term(*term),
                start: epochs.last().lsn,
                end: Lsn(*end),
                crc: 0,
            };
            epochs.push(&head);
        }
        epochs
    }

    fn point(term: u64, lsn: u64) -> Point {
        Point {
            term: Term(term),
            lsn: Lsn(lsn),
        }
    }

    // Seen to fail with `start <= lsn`, and with the end of the log taken for that of a term.
    #[test]
    fn terms_and_common_points() {
        let a = log(&[(1, 2), (1, 5), (2, 7), (4, 9), (4, 12)]);
        assert_eq!(a.last(), point(4, 12));
        let terms: Vec<u64> = [0, 1, 2, 5, 6, 7, 8, 12]
            .map(|at| a.term_at(Lsn(at)).0)
            .into();
        assert_eq!(terms, [0, 1, 1, 1, 2, 2, 4, 4]);
        for (other, common) in [
            (log(&[]), point(0, 0)),
            (log(&[(1, 2)]), point(1, 2)),
            (log(&[(1, 2), (1, 5), (1, 8)]), point(1, 5)),
            (log(&[(1, 2), (1, 5), (3, 6), (3, 30)]), point(1, 5)),
            (log(&[(1, 2), (1, 5), (2, 7), (2, 9)]), point(2, 7)),
            (a.clone(), point(4, 12)),
        ] {
            assert_eq!(a.common(&other), common);
            assert_eq!(other.common(&a), common);
        }
        let mut cut = a.clone();
        cut.truncate(Lsn(5));
        assert_eq!(cut, log(&[(1, 2), (1, 5)]));
        cut.truncate(Lsn(0));
        assert_eq!(cut, Epochs::default());
    }
}
