//! Whether a leader is gone. No member decides that alone: one that hears nothing asks the others.
//!
//! ```text
//! heard() by every append; nothing for suspect_ms -> asks(): Ask to the voters
//!   -> word(): an Opinion, unheard as long there too -> verdict() -> a failover may begin
//! the leader says that its disk stalls, or it was started again (I10) -> certain() -> verdict()
//! ```
//!
//! A wrong suspicion costs a failover and never an entry: terms do the fencing. So this is about
//! calm. A member whose own link is broken finds nobody who agrees, and a shard that has just
//! changed its leader does not change it again for [`Patience::flap_ms`], unless an operator says
//! so.

use std::collections::BTreeMap;
use std::fmt;

use crate::log::Term;
use crate::policy::MemberId;
use crate::replica::Time;

/// How long is waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Milliseconds without a word of the leader after which it is suspected; several heartbeats.
    pub suspect_ms: u64,
    /// Milliseconds after a change of leader in which no other is begun.
    pub flap_ms: u64,
}

impl Default for Patience {
    /// 1.5 s, six heartbeats; and one minute.
    fn default() -> Self {
        Self {
            suspect_ms: 1_500,
            flap_ms: 60_000,
        }
    }
}

/// Milliseconds for which an opinion counts, and between two questions to a member.
const OPINION_MS: u64 = 500;

/// What members ask one another about the leader of a term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Word {
    /// How long has it not been heard?
    Ask {
        /// Its term.
        term: Term,
    },
    /// So long.
    Opinion {
        /// Its term.
        term: Term,
        /// Milliseconds.
        unheard_ms: u64,
    },
}

/// Why a leader counts as gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// This member and another one have not heard it for so long.
    Unheard {
        /// Milliseconds here.
        here_ms: u64,
        /// The other.
        other: MemberId,
    },
    /// It says that its disk does not answer.
    Stalled,
    /// It was started again, and leads no more.
    Restarted,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unheard { here_ms, other } => {
                write!(
                    f,
                    "not heard for {here_ms} ms here, and no sooner at {other}"
                )
            }
            Self::Stalled => write!(f, "its disk does not answer"),
            Self::Restarted => write!(f, "it was started again"),
        }
    }
}

/// What a member thinks of its leader.
#[derive(Debug, Clone)]
pub struct Suspicion {
    me: MemberId,
    voters: Vec<MemberId>,
    patience: Patience,
    term: Term,
    leader: Option<MemberId>,
    /// Since when it leads, as far as was heard.
    since: Time,
    heard: Time,
    asked: Option<Time>,
    /// Those who have not heard it as long, and when they said so.
    agree: BTreeMap<MemberId, Time>,
    /// Known without asking anybody.
    certain: Option<Reason>,
}

impl Suspicion {
    /// Of a member that knows no leader yet. Without one nothing is suspected.
    #[must_use]
    pub fn new(me: MemberId, voters: Vec<MemberId>, patience: Patience, now: Time) -> Self {
        Self {
            me,
            voters,
            patience,
            term: Term(0),
            leader: None,
            since: now,
            heard: now,
            asked: None,
            agree: BTreeMap::new(),
            certain: None,
        }
    }

    /// Who may have an opinion, after a change of members.
    pub fn set_voters(&mut self, voters: Vec<MemberId>) {
        self.voters = voters;
    }

    /// The leader of a term was heard, or read in the topology. One of a lower term is not.
    pub fn heard(&mut self, term: Term, leader: MemberId, now: Time) {
        if term < self.term {
            return;
        }
        if term > self.term {
            (self.term, self.leader, self.since) = (term, Some(leader), now);
            self.certain = None;
        }
        self.heard = now;
        self.asked = None;
        self.agree.clear();
    }

    /// The leader of a term says that its disk stalls, or was found to have been started again.
    pub fn certain(&mut self, term: Term, reason: Reason) {
        if term == self.term && self.leader.is_some() {
            self.certain = Some(reason);
        }
    }

    /// Takes another member's word; what is answered goes back to it.
    pub fn word(&mut self, from: MemberId, word: Word, now: Time) -> Option<Word> {
        match word {
            Word::Ask { term } => {
                // Of another term this member knows nothing that helps.
                let unheard_ms = self.heard.until(now);
                (term == self.term).then_some(Word::Opinion { term, unheard_ms })
            }
            Word::Opinion { term, unheard_ms } => {
                let voter = self.voters.contains(&from) && from != self.me;
                let counts = term == self.term && Some(from) != self.leader && voter;
                if counts && unheard_ms >= self.patience.suspect_ms {
                    self.agree.insert(from, now);
                } else if counts {
                    self.agree.remove(&from);
                }
                None
            }
        }
    }

    /// The question that is to be asked now, and of whom.
    pub fn asks(&mut self, now: Time) -> Vec<(MemberId, Word)> {
        let leader = self.leader.filter(|leader| *leader != self.me);
        let suspect = self.heard.until(now) >= self.patience.suspect_ms;
        let due = self
            .asked
            .is_none_or(|asked| asked.until(now) >= OPINION_MS);
        if leader.is_none() || !suspect || !due {
            return Vec::new();
        }
        self.asked = Some(now);
        let others = self.voters.iter().copied();
        let others = others.filter(|id| *id != self.me && Some(*id) != leader);
        let term = self.term;
        others.map(|id| (id, Word::Ask { term })).collect()
    }

    /// Why the leader of the term is gone, so that a failover may begin.
    #[must_use]
    pub fn verdict(&self, now: Time) -> Option<(Term, Reason)> {
        let calm = self.since.until(now) < self.patience.flap_ms;
        if calm && !planted!("no_calm_after_a_failover") {
            return None;
        }
        self.gone(now).map(|reason| (self.term, reason))
    }

    /// The same for an operator, who does not wait for calm.
    #[must_use]
    pub fn gone(&self, now: Time) -> Option<Reason> {
        if self.leader.is_none_or(|leader| leader == self.me) {
            return None;
        }
        if self.certain.is_some() {
            return self.certain;
        }
        let here_ms = self.heard.until(now);
        if here_ms < self.patience.suspect_ms {
            return None;
        }
        if planted!("one_opinion_suffices") {
            return Some(Reason::Unheard {
                here_ms,
                other: self.me,
            });
        }
        let fresh = |at: &Time| at.until(now) < OPINION_MS;
        let other = self.agree.iter().find(|(_, at)| fresh(at));
        other.map(|(other, _)| Reason::Unheard {
            here_ms,
            other: *other,
        })
    }
}
