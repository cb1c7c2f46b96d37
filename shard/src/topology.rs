//! What the topology keeps of a shard: the terms given out, who leads, which runs of which data its
//! members have begun. A record changes by compare-and-swap; the rules of a change are here, the
//! store is the host's.
//!
//! ```text
//! a member starts   boot + 1 on its disk -> ShardRecord::begin -> Topology::swap -> it takes part
//! a failover        ShardRecord::next_term -> swap -> Failover -> ShardRecord::publish -> swap
//! a switchover      Switchover -> ShardRecord::next_term_behind the leader's -> the same
//! ```
//!
//! Invariants:
//! * I1. A term is given out once: whoever loses the swap reads again.
//! * I13. A member takes part only in a run whose start stands here. A disk with fewer starts than
//!   stand here is an old one put back: what it promised and acknowledged since is not on it, so
//!   its data counts as other data, with an incarnation of its own. A copy of the same run does not
//!   show here; a leader that got more from it notices (`replica/leader.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::log::{Incarnation, Term};
use crate::map::ShardId;
use crate::policy::MemberId;

/// A start of a member: whose data it has, and how often that was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run {
    /// Made when the disk was formatted.
    pub incarnation: Incarnation,
    /// Starts on this disk, this one included.
    pub boot: u64,
}

/// What the topology keeps of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ShardRecord {
    /// The highest term given out.
    pub term: Term,
    /// Who leads, and since which term.
    pub leader: Option<(Term, MemberId)>,
    /// The newest run of each member; these are who is fenced.
    pub(crate) runs: BTreeMap<MemberId, Run>,
    /// Data that a member had before: it never counts again.
    pub(crate) retired: BTreeSet<(MemberId, Incarnation)>,
}

/// An old disk was put back: it has forgotten what it promised and acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amnesia {
    /// Whose disk.
    pub member: MemberId,
    /// Starts that stand in the topology; `None` if the member has had other data since.
    pub expected: Option<u64>,
    /// Starts that stand on the disk, this one included.
    pub found: u64,
}

impl fmt::Display for Amnesia {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "disk of {}: expected ", self.member)?;
        match self.expected {
            Some(starts) => write!(f, "more than {starts} starts, found {}", self.found)?,
            None => write!(f, "the data that it had last, found older one")?,
        }
        write!(
            f,
            ": an old copy was put back, and counts as other data from now on"
        )
    }
}

impl std::error::Error for Amnesia {}

impl ShardRecord {
    /// Enters the start of a member.
    ///
    /// # Errors
    /// [`Amnesia`] if this data was started as often before (I13): the host gives it another
    /// incarnation, on the disk first, and asks again.
    pub fn begin(&mut self, member: MemberId, run: Run) -> Result<(), Amnesia> {
        let amnesia = |expected| Amnesia {
            member,
            expected,
            found: run.boot,
        };
        if self.retired.contains(&(member, run.incarnation)) {
            return Err(amnesia(None));
        }
        if let Some(known) = self.runs.get(&member).copied() {
            if known.incarnation != run.incarnation {
                self.retired.insert((member, known.incarnation));
            } else if run.boot <= known.boot && !planted!("starts_not_compared") {
                return Err(amnesia(Some(known.boot)));
            }
        }
        self.runs.insert(member, run);
        Ok(())
    }

    /// The members, each with its newest run.
    pub fn members(&self) -> impl Iterator<Item = (MemberId, Run)> {
        self.runs.iter().map(|(id, run)| (*id, *run))
    }

    /// Gives out the next term, above one that somebody was found to have promised.
    pub fn next_term(&mut self, above: Term) -> Term {
        self.term = Term(self.term.max(above).0.saturating_add(1));
        self.term
    }

    /// Gives out the next term, unless one was given out since this one.
    pub fn next_term_behind(&mut self, term: Term) -> Option<Term> {
        (self.term == term || planted!("a_switchover_ends_a_failover"))
            .then(|| self.next_term(term))
    }

    /// Enters the leader of a term, unless a higher one was given out since.
    #[must_use]
    pub fn publish(&mut self, term: Term, leader: MemberId) -> bool {
        let newest = term == self.term;
        if newest {
            self.leader = Some((term, leader));
        }
        newest
    }

    /// Whether a report of this run of a member counts: of the data that it has now, and not of a
    /// start before the known one, whose disk may have been replaced since.
    #[must_use]
    pub fn counts(&self, member: MemberId, run: Run) -> bool {
        self.runs
            .get(&member)
            .is_some_and(|known| known.incarnation == run.incarnation && run.boot >= known.boot)
    }
}

/// A change of a record, by the number of changes before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version(pub u64);

/// A lock that was granted: the number of the grant, above those of all before it that the store
/// remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fencing(pub u64);

/// Where records are kept, linearizable: rows of a small local database, or etcd.
///
/// Safety rests on the swap alone: of two who want to change a record, one wins. A lock keeps them
/// from trying at once, as a rule, and a watch tells the others what came of it, sooner or later.
pub trait Topology: Send + Sync + fmt::Debug {
    /// The record of a shard, with its version; an empty one of version 0 if there is none.
    ///
    /// # Errors
    /// [`TopologyError::Unavailable`].
    fn read(&self, shard: &ShardId) -> Result<(Version, ShardRecord), TopologyError>;

    /// Replaces the record if it is still of this version.
    ///
    /// # Errors
    /// [`TopologyError::Changed`] if it is not; [`TopologyError::Unavailable`], after which it may
    /// or may not be replaced: a term is given out, at worst for nobody.
    fn swap(
        &self,
        shard: &ShardId,
        version: Version,
        record: &ShardRecord,
    ) -> Result<Version, TopologyError>;

    /// Locks a shard for so long, so that two coordinators do not run at once; `None` if somebody
    /// else holds it. Whoever holds it and asks again has it anew, from now on, by another number.
    ///
    /// This is advice. A holder that was asleep does not know that its time is over, and a store
    /// may forget its locks when it is started again: then two run at once, and end each other by
    /// their terms (I1), at the cost of time and of no entry.
    ///
    /// # Errors
    /// [`TopologyError::Unavailable`].
    fn lock(
        &self,
        shard: &ShardId,
        holder: MemberId,
        ttl_ms: u64,
    ) -> Result<Option<Fencing>, TopologyError>;

    /// Gives a lock back before its time. One that is over, or was granted again since, is left as
    /// it is.
    ///
    /// # Errors
    /// [`TopologyError::Unavailable`]; it then ends with its time.
    fn unlock(&self, shard: &ShardId, fencing: Fencing) -> Result<(), TopologyError>;

    /// The record if it is of another version than the known one. Polled: it answers at once, and
    /// of several changes it gives the last.
    ///
    /// # Errors
    /// [`TopologyError::Unavailable`].
    fn watch(
        &self,
        shard: &ShardId,
        known: Version,
    ) -> Result<Option<(Version, ShardRecord)>, TopologyError> {
        let (version, record) = self.read(shard)?;
        Ok((version != known).then_some((version, record)))
    }
}

/// Why a record was not read or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopologyError {
    /// Another has changed it: read it again.
    Changed {
        /// Of which shard.
        shard: ShardId,
        /// The version that was read.
        expected: Version,
        /// The version that it has.
        found: Version,
    },
    /// The store does not answer.
    Unavailable {
        /// What it says of it.
        reason: String,
    },
}

impl fmt::Display for TopologyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed {
                shard,
                expected,
                found,
            } => write!(
                f,
                "topology of shard {shard}: expected version {}, found {}",
                expected.0, found.0
            ),
            Self::Unavailable { reason } => {
                write!(f, "topology: expected an answer, found none: {reason}")
            }
        }
    }
}

impl std::error::Error for TopologyError {}

/// Changes a record until no other change comes between. `change` may run several times; `None` of
/// it leaves the record as it is.
///
/// # Errors
/// [`TopologyError::Unavailable`].
pub fn update<T>(
    topology: &dyn Topology,
    shard: &ShardId,
    mut change: impl FnMut(&mut ShardRecord) -> Option<T>,
) -> Result<Option<T>, TopologyError> {
    loop {
        let (version, mut record) = topology.read(shard)?;
        let Some(done) = change(&mut record) else {
            return Ok(None);
        };
        match topology.swap(shard, version, &record) {
            Ok(_) => return Ok(Some(done)),
            Err(TopologyError::Changed { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}
