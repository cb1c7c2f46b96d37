//! Whether a leader is gone. No member decides that alone: one that hears nothing asks the others.
//!
//! ```text
//! heard() by every append; nothing for suspect_ms -> asks(): Ask to the members
//!   -> word(): an Opinion, unheard as long there too -> enough for a failover -> verdict()
//! the leader says that its disk stalls, or it was started again (I10) -> certain() -> verdict()
//! fenced() by every promise of a term: a failover is under way, and is given time
//! ```
//!
//! A wrong suspicion costs a failover and never an entry: terms do the fencing. So this is about
//! calm. A failover is begun by so many members that agree as can end it among themselves
//! ([`Quorums::can_fail_over`](crate::policy::Quorums::can_fail_over)): a member whose own link is
//! broken, or two that a change left out and that did not hear of it, end no leader that works. And
//! a shard that has just changed its leader does not change it again for [`Patience::flap_ms`],
//! unless an operator says so.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::log::{Config, Term};
use crate::policy::{MemberId, MemberSet};
use crate::replica::Time;

/// How long is waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Milliseconds without a word of the leader after which it is suspected; several heartbeats.
    pub suspect_ms: u64,
    /// Milliseconds after a change of leader in which no other is begun.
    pub flap_ms: u64,
    /// Milliseconds that a failover is given, whoever began it, before another is begun.
    pub failover_ms: u64,
}

impl Default for Patience {
    /// 1.5 s, six heartbeats; one minute; and 5 s, in which a failover ends if it can.
    fn default() -> Self {
        Self {
            suspect_ms: 1_500,
            flap_ms: 60_000,
            failover_ms: 5_000,
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
    /// This member and enough others have not heard it for so long.
    Unheard {
        /// Milliseconds here.
        here_ms: u64,
        /// How many others.
        others: usize,
    },
    /// It says that its disk does not answer.
    Stalled,
    /// It was started again, and leads no more.
    Restarted,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unheard { here_ms, others } => write!(
                f,
                "not heard for {here_ms} ms here, nor lately by {others} more"
            ),
            Self::Stalled => write!(f, "its disk does not answer"),
            Self::Restarted => write!(f, "it was started again"),
        }
    }
}

/// What a member thinks of its leader.
#[derive(Debug, Clone)]
pub struct Suspicion {
    me: MemberId,
    config: Arc<Config>,
    patience: Patience,
    term: Term,
    leader: Option<MemberId>,
    /// When it came to lead after another, as far as was heard.
    since: Option<Time>,
    heard: Time,
    /// When a term above the leader's was promised last.
    fenced: Option<Time>,
    asked: Option<Time>,
    /// Members who have not heard it as long, and when they said so.
    agree: BTreeMap<MemberId, Time>,
    /// Known without asking anybody.
    certain: Option<Reason>,
}

impl Suspicion {
    /// Of a member that knows no leader yet. Without one nothing is suspected.
    #[must_use]
    pub fn new(me: MemberId, config: Arc<Config>, patience: Patience, now: Time) -> Self {
        Self {
            me,
            config,
            patience,
            term: Term(0),
            leader: None,
            since: None,
            heard: now,
            fenced: None,
            asked: None,
            agree: BTreeMap::new(),
            certain: None,
        }
    }

    /// The members changed, or the policy: the newest configuration of this member's log counts.
    pub fn set_config(&mut self, config: Arc<Config>) {
        self.config = config;
    }

    /// The leader of a term was heard, or read in the topology. One of a lower term is not. A
    /// leader hears itself, at every heartbeat that it sends: once it leads no more it is as silent
    /// as any other, and nobody knows that better.
    pub fn heard(&mut self, term: Term, leader: MemberId, now: Time) {
        if term < self.term {
            return;
        }
        if term > self.term {
            // The first one is no change of leader.
            self.since = self.leader.map(|_| now);
            (self.term, self.leader) = (term, Some(leader));
            (self.certain, self.fenced) = (None, None);
        }
        self.heard = now;
        self.asked = None;
        self.agree.clear();
    }

    /// This member promised a term: somebody has begun a failover. Two at once end each other.
    pub fn fenced(&mut self, term: Term, now: Time) {
        if term > self.term {
            self.fenced = Some(now);
        }
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
                // Of a lower term this member knows nothing that helps. Of a higher one it knows
                // that it heard nothing since it last heard a leader, or was started.
                let unheard_ms = self.heard.until(now);
                let silent = match planted!("no_opinion_of_a_term_not_heard_of") {
                    true => term != self.term,
                    false => term < self.term,
                };
                (!silent).then_some(Word::Opinion { term, unheard_ms })
            }
            Word::Opinion { term, unheard_ms } => {
                let member = self.config.quorums().place(from).is_some() && from != self.me;
                let counts = term == self.term && member;
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
        let suspect = self.heard.until(now) >= self.patience.suspect_ms;
        let due = self
            .asked
            .is_none_or(|asked| asked.until(now) >= OPINION_MS);
        if self.leader.is_none() || !suspect || !due {
            return Vec::new();
        }
        self.asked = Some(now);
        let members = self.config.quorums().members().iter();
        let others = members.map(|member| member.id);
        let others = others.filter(|id| *id != self.me);
        let term = self.term;
        others.map(|id| (id, Word::Ask { term })).collect()
    }

    /// Why the leader of the term is gone, so that a failover may begin.
    #[must_use]
    pub fn verdict(&self, now: Time) -> Option<(Term, Reason)> {
        let flap_ms = self.patience.flap_ms;
        let calm = self.since.is_some_and(|since| since.until(now) < flap_ms);
        if calm && !planted!("no_calm_after_a_failover") {
            return None;
        }
        let patience = self.patience.failover_ms;
        let under_way = self.fenced.is_some_and(|at| at.until(now) < patience);
        if under_way && !planted!("failovers_end_each_other") {
            return None;
        }
        self.gone(now).map(|reason| (self.term, reason))
    }

    /// The same for an operator, who does not wait for calm.
    #[must_use]
    pub fn gone(&self, now: Time) -> Option<Reason> {
        self.leader?;
        if self.certain.is_some() {
            return self.certain;
        }
        let here_ms = self.heard.until(now);
        if here_ms < self.patience.suspect_ms {
            return None;
        }
        let quorums = self.config.quorums();
        let fresh = self.agree.iter();
        let fresh = fresh.filter(|(_, at)| at.until(now) < OPINION_MS);
        let others = fresh.filter_map(|(id, _)| quorums.place(*id));
        let others: MemberSet = others.collect();
        let mut agreed = others;
        agreed.insert(quorums.place(self.me)?);
        let enough = quorums.can_fail_over(agreed)
            || planted!("one_opinion_suffices")
            || !others.is_empty() && planted!("two_are_always_enough");
        enough.then_some(Reason::Unheard {
            here_ms,
            others: others.len(),
        })
    }
}
