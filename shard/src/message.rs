//! What members of a shard say to one another.
//!
//! ```text
//! leader -> member       Append (also the heartbeat: no entries)   -> Ack | Mismatch | Stale
//! coordinator -> member  Fence                                     -> Fenced | Stale
//! coordinator -> member  Copy: Fetch to who has more -> Suffix     -> Fenced
//! coordinator -> member  Establish                                 -> Established, by its barrier
//! coordinator -> leader  HandOver                                  -> Ready | Refused | Stale
//! coordinator -> leader  Resume, if nothing comes of that
//! ```
//!
//! Messages may be lost, repeated and overtaken: each says all that its receiver needs, and an
//! answer is cumulative.

use std::collections::BTreeMap;
use std::sync::Arc;

use terrane_wal::lsn::Lsn;

use crate::log::{Config, Entry, Epochs, Incarnation, Point, Term};
use crate::policy::MemberId;
use crate::replica::{Grant, Time};
use crate::switchover::{Attempt, SwitchError};
use crate::topology::Run;

/// A message about one shard.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Message {
    /// Entries of the leader's log behind `prev`, none in a heartbeat.
    Append(Append),
    /// All that the leader sent up to here is on this member's disk.
    Ack(Ack),
    /// The entry before those that the leader sent is not in this member's log.
    Mismatch(Mismatch),
    /// The sender has promised a higher term than that of the message.
    Stale {
        /// What it has promised.
        term: Term,
    },
    /// Asks to promise this term: nothing of a lower one is acknowledged from then on.
    Fence {
        /// The new term, won in the topology.
        term: Term,
    },
    /// Promised, on disk.
    Fenced {
        /// What was promised.
        term: Term,
        /// What the log holds.
        report: Report,
    },
    /// Asks to lead.
    Establish(Establish),
    /// Asks to copy what the greatest log has more, from the member that has it, and to report
    /// then.
    Copy {
        /// The term that was promised.
        term: Term,
        /// Who has it.
        from: MemberId,
        /// Its last entry.
        chosen: Point,
        /// The run that promised. Another one does not copy.
        run: Run,
    },
    /// Asks for the entries behind what both logs have.
    Fetch {
        /// The term that both promised.
        term: Term,
        /// The log of the one who asks.
        epochs: Epochs,
    },
    /// What was asked for.
    Suffix {
        /// The term that both promised.
        term: Term,
        /// What the log has before the entries.
        prev: Point,
        /// The next entries, in order, without gaps.
        entries: Vec<Entry>,
    },
    /// The barrier of the term is committed.
    Established {
        /// The term.
        term: Term,
    },
    /// Asks the leader to admit nothing more, and to say when another may take over.
    HandOver {
        /// Which attempt; asked again, it is the same.
        attempt: Attempt,
        /// Milliseconds after which the leader, if it still leads, admits again.
        closed_ms: u64,
    },
    /// The leader admits nothing. All of its log is committed, and on the disk and in the trees of
    /// the member that is to take over.
    Ready(Attempt),
    /// The leader does not hand over, and admits.
    Refused {
        /// Which attempt.
        attempt: Attempt,
        /// Why.
        error: SwitchError,
    },
    /// Nothing comes of the attempt: the leader is to admit again.
    Resume(Attempt),
}

impl Message {
    /// The term that it is of.
    #[must_use]
    pub fn term(&self) -> Term {
        match self {
            Self::Append(append) => append.term,
            Self::Ack(ack) => ack.term,
            Self::Mismatch(mismatch) => mismatch.term,
            Self::Establish(establish) => establish.term,
            Self::HandOver { attempt, .. }
            | Self::Ready(attempt)
            | Self::Refused { attempt, .. }
            | Self::Resume(attempt) => attempt.term,
            Self::Stale { term }
            | Self::Fence { term }
            | Self::Fenced { term, .. }
            | Self::Copy { term, .. }
            | Self::Fetch { term, .. }
            | Self::Suffix { term, .. }
            | Self::Established { term } => *term,
        }
    }
}

/// Entries of a leader's log, or a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Append {
    /// The leader's.
    pub term: Term,
    /// What its log has before the entries.
    pub prev: Point,
    /// The next entries, in order, without gaps.
    pub entries: Vec<Entry>,
    /// All up to here is committed.
    pub commit: Lsn,
    /// When it was sent, by the leader's clock.
    pub sent: Time,
}

/// What a member's disk has of a leader's log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ack {
    /// The leader's.
    pub term: Term,
    /// The end of the last such entry.
    pub durable: Lsn,
    /// What the disk has in all, known to be the leader's or not.
    pub held: Lsn,
    /// All up to here is applied.
    pub applied: Lsn,
    /// Whether it could lead: what it applied is right.
    pub able: bool,
    /// Whose disk it is on.
    pub incarnation: Incarnation,
    /// Starts of this member, and answers since: what is less was overtaken.
    pub count: (u64, u64),
    /// The newest [`Message::Append`] of the leader that was heard, by when it was sent: until
    /// a lease after that no higher term is promised without being told of it.
    pub echo: Time,
}

/// That a member's log lacks what an append follows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mismatch {
    /// The leader's.
    pub term: Term,
    /// The member's log: the leader goes back to what both have.
    pub epochs: Epochs,
    /// Whose log it is.
    pub incarnation: Incarnation,
    /// Starts of this member, and answers since: what is less was overtaken.
    pub count: (u64, u64),
}

/// With which log to lead, and from when on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Establish {
    /// The term to lead in.
    pub term: Term,
    /// The log to lead with: the greatest among those that promised.
    pub chosen: Point,
    /// All up to here is committed, as far as any of them knows.
    pub commit: Lsn,
    /// The run that promised: its incarnation and start. Another one does not lead (I10).
    pub run: Run,
    /// Milliseconds before it may serve: leases of others are not over.
    pub wait_ms: u64,
    /// Who has promised the term, each with the data that it has (I6): for the barrier.
    pub reached: BTreeMap<MemberId, Incarnation>,
}

/// What a member that promised says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Report {
    /// The last entry of its log.
    pub last: Point,
    /// All up to here is committed.
    pub commit: Lsn,
    /// All up to here is applied: the less is left to apply, the sooner it can serve.
    pub applied: Lsn,
    /// Whose data it is, and which start of it.
    pub run: Run,
    /// Whether it could lead: what it applied is right.
    pub able: bool,
    /// What it has granted.
    pub grant: Grant,
    /// The last term that it led and leads no more.
    pub led: Option<Term>,
    /// The configurations in its log that may count.
    pub configs: Vec<(Lsn, Arc<Config>)>,
}
