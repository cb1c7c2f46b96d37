//! A planned change of leader, as its coordinator sees it: from an operator's wish to a term that
//! is won with the leader's consent.
//!
//! ```text
//! HandOver -> the leader closes admission -> what it admitted is in its log, committed, on the
//!   target's disk and applied there -> Ready -> a term is won -> Failover that wants the target
//! before that: Refused, or patience ends -> Resume -> the leader admits, nothing has happened
//! ```
//!
//! Until the term is won the leader leads: it closes admission for a time that the request names,
//! longer than the coordinator's patience, and admits again by itself once that is over. So whoever
//! dies meanwhile, and whatever is lost, the shard is where it was. After that it is a failover:
//! the old leader answers the fence like any other member, so no lease has to be waited out, and
//! since nothing was admitted the target has all of the log. Somebody else's failover goes before:
//! the term is won only right behind that of the leader that was asked.

use std::fmt;

use crate::log::Term;
use crate::message::Message;
use crate::policy::MemberId;
use crate::replica::Time;
use crate::topology::ShardRecord;

/// Milliseconds for which a coordinator waits for the leader, unless an operator says otherwise.
pub const SWITCH_MS: u64 = 5_000;

/// Milliseconds for which a leader closes admission at most, whatever it is asked.
pub const CLOSED_MS_MAX: u64 = 30_000;

/// One attempt to hand over. A later one of the same coordinator was asked at another time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// The leader's term.
    pub term: Term,
    /// Who is to take over.
    pub to: MemberId,
    /// When it was begun, by the coordinator's clock.
    pub asked: Time,
}

/// Why the leader stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SwitchError {
    /// No member is known to lead, or the one that was asked does not.
    NotLeading,
    /// A failover, a change of members or another switchover is under way: try again.
    Pending,
    /// It leads already.
    Leads {
        /// Who.
        member: MemberId,
    },
    /// It is no member, or one that may not lead.
    MayNotLead {
        /// Who.
        member: MemberId,
    },
    /// It stands there with other data than the shard trusts.
    Incarnation {
        /// Who.
        member: MemberId,
    },
    /// It cannot apply what the log says.
    CannotApply {
        /// Who.
        member: MemberId,
    },
    /// It was not heard lately, or has too much of the log still to come.
    Behind {
        /// Who.
        member: MemberId,
    },
    /// It did not get and apply the rest in time.
    TooSlow {
        /// Who.
        member: MemberId,
    },
}

impl fmt::Display for SwitchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "switchover: expected ")?;
        match self {
            Self::NotLeading => write!(f, "the leader, found another, or none known"),
            Self::Pending => write!(f, "no other change under way, found one"),
            Self::Leads { member } => write!(f, "another member, found {member}, which leads"),
            Self::MayNotLead { member } => {
                write!(f, "a member that may lead, found {member}, which may not")
            }
            Self::Incarnation { member } => write!(
                f,
                "{member} with the data that the shard trusts, found other data"
            ),
            Self::CannotApply { member } => write!(
                f,
                "{member} to apply what is committed, found that it cannot"
            ),
            Self::Behind { member } => write!(
                f,
                "{member} to answer and to have nearly all of the log, found it silent or behind"
            ),
            Self::TooSlow { member } => write!(
                f,
                "{member} to have and to apply all of the log in time, found that it had not"
            ),
        }
    }
}

impl std::error::Error for SwitchError {}

/// What the coordinator's host is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwitchStep {
    /// Sends a message to a member.
    Send {
        /// To whom.
        to: MemberId,
        /// What.
        message: Message,
    },
    /// Wins the term behind this one ([`ShardRecord::next_term_behind`]) and begins a
    /// [`Failover`](crate::failover::Failover) that wants this member. If the term is not won, says
    /// so by [`Switchover::give_up`].
    TakeOver {
        /// The term of the leader that is ready.
        behind: Term,
        /// Who takes over.
        wanted: MemberId,
    },
    /// It is over, and the leader stays.
    Fail(SwitchError),
}

/// A switchover at work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switchover {
    leader: MemberId,
    attempt: Attempt,
    patience_ms: u64,
    over: bool,
}

impl Switchover {
    /// Begins, with the record of the shard: its leader is asked to hand over to a member within so
    /// many milliseconds, [`SWITCH_MS`] by default.
    ///
    /// # Errors
    /// [`SwitchError`] if the record alone speaks against it.
    pub fn new(
        record: &ShardRecord,
        to: MemberId,
        patience_ms: u64,
        now: Time,
        out: &mut Vec<SwitchStep>,
    ) -> Result<Self, SwitchError> {
        let (term, leader) = record.leader.ok_or(SwitchError::NotLeading)?;
        if term != record.term {
            return Err(SwitchError::Pending);
        }
        if leader == to {
            return Err(SwitchError::Leads { member: to });
        }
        let asked = now;
        let mut switchover = Self {
            leader,
            attempt: Attempt { term, to, asked },
            patience_ms: patience_ms.min(CLOSED_MS_MAX / 2),
            over: false,
        };
        switchover.tick(now, out);
        Ok(switchover)
    }

    /// Whether a term is to be won, or nothing came of it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Asks again, or gives up.
    pub fn tick(&mut self, now: Time, out: &mut Vec<SwitchStep>) {
        if self.over {
            return;
        }
        if self.is_late(now) {
            let member = self.attempt.to;
            self.give_up(SwitchError::TooSlow { member }, out);
            return;
        }
        let message = Message::HandOver {
            attempt: self.attempt,
            // Time for the fence after the last moment at which the term may be won.
            closed_ms: 2 * self.patience_ms,
        };
        out.push(SwitchStep::Send {
            to: self.leader,
            message,
        });
    }

    /// Takes the leader's answer.
    pub fn receive(
        &mut self,
        from: MemberId,
        message: &Message,
        now: Time,
        out: &mut Vec<SwitchStep>,
    ) {
        if self.over || from != self.leader {
            return;
        }
        match message {
            Message::Ready(attempt) if *attempt == self.attempt && !self.is_late(now) => {
                self.over = true;
                out.push(SwitchStep::TakeOver {
                    behind: attempt.term,
                    wanted: attempt.to,
                });
            }
            Message::Refused { attempt, error } if *attempt == self.attempt => {
                self.over = true;
                out.push(SwitchStep::Fail(*error));
            }
            Message::Stale { term } if *term > self.attempt.term => {
                self.over = true;
                out.push(SwitchStep::Fail(SwitchError::NotLeading));
            }
            _ => {}
        }
    }

    /// Nothing comes of it: an operator wants it no more, or the term was not won. Not for one
    /// whose term was won.
    pub fn give_up(&mut self, error: SwitchError, out: &mut Vec<SwitchStep>) {
        self.over = true;
        out.push(SwitchStep::Send {
            to: self.leader,
            message: Message::Resume(self.attempt),
        });
        out.push(SwitchStep::Fail(error));
    }

    /// The leader may admit again before a fence of a term won now reaches it.
    fn is_late(&self, now: Time) -> bool {
        let asked = self.attempt.asked;
        asked.until(now) >= self.patience_ms && !planted!("the_coordinator_waits_for_ever")
    }
}
