//! Which term each part of a log is of.
//!
//! ```text
//! term 1        term 2              term 4
//! |---|-----|---|B|------|--------|---|B|----->  entries; B: the barrier that begins a term
//!            point: (term, end of an entry)
//! ```
//!
//! A standalone database has one term, the first, without a barrier. The newest terms stand in the
//! header of every segment, so that they are known also after the log before was trimmed.
//!
//! Invariants:
//! * G1. Terms rise along a log; an entry's term is that of the last barrier at or before it.
//! * G2. Logs that have the same entry at a point are equal up to it: one leader per term (I1), and
//!   an entry is taken only behind the entry that it follows at its leader (I3).

use std::fmt;

use crate::lsn::{Lsn, Term};

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

/// The terms of a log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Epochs {
    /// Terms in rising order, each with the place where its barrier begins.
    starts: Vec<(Term, Lsn)>,
    end: Lsn,
}

impl Epochs {
    /// Terms with the places where they begin, and the end of the log. `None` if they do not rise,
    /// or begin behind the end.
    #[must_use]
    pub fn new(starts: Vec<(Term, Lsn)>, end: Lsn) -> Option<Self> {
        let rise = starts
            .windows(2)
            .all(|two| two[0].0 < two[1].0 && two[0].1 < two[1].1);
        let inside = starts.last().is_none_or(|last| last.1 <= end);
        let named = starts.first().is_none_or(|first| first.0 > Term(0));
        (rise && inside && named).then_some(Self { starts, end })
    }

    /// Terms in rising order, each with the place where it begins.
    #[must_use]
    pub fn starts(&self) -> &[(Term, Lsn)] {
        &self.starts
    }

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
        self.extend(head.term, head.start, head.end);
    }

    /// As [`Epochs::push`], of an entry of this term from `start` to `end`.
    ///
    /// # Panics
    /// As [`Epochs::push`].
    pub fn extend(&mut self, term: Term, start: Lsn, end: Lsn) {
        assert!(start == self.end && end > start, "G1: gap");
        self.begin(term, start);
        self.end = end;
    }

    /// Takes note of the term of what begins at `start`, at or behind the end.
    ///
    /// # Panics
    /// If it is below the last one's.
    pub fn begin(&mut self, term: Term, start: Lsn) {
        let last = self.last().term;
        assert!(term >= last, "G1: terms rise");
        if term > last {
            self.starts.push((term, start));
        }
        self.end = self.end.max(start);
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

    /// The first term that begins at or behind `lsn`, and where.
    #[must_use]
    pub fn next_start(&self, lsn: Lsn) -> Option<(Term, Lsn)> {
        let at = self.starts.partition_point(|(_, start)| *start < lsn);
        self.starts.get(at).copied()
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
        assert_eq!(a.next_start(Lsn(0)), Some((Term(1), Lsn(0))));
        assert_eq!(a.next_start(Lsn(1)), Some((Term(2), Lsn(5))));
        assert_eq!(a.next_start(Lsn(8)), None);
        assert_eq!(Epochs::new(a.starts().to_vec(), Lsn(12)), Some(a));
        let wrong: [&[(u64, u64)]; 4] =
            [&[(0, 0)], &[(1, 13)], &[(2, 0), (1, 5)], &[(1, 5), (2, 5)]];
        for starts in wrong {
            let starts = starts.iter().map(|s| (Term(s.0), Lsn(s.1))).collect();
            assert_eq!(Epochs::new(starts, Lsn(12)), None);
        }
    }
}
