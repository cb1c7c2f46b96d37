//! A failover, as its coordinator sees it: from a term that it won in the topology to a leader
//! whose barrier is committed.
//!
//! ```text
//! Fence all -> reports -> by the configurations of the greatest log: revoked, establishable (I6)
//!   -> Copy, if who can lead lacks something -> Establish with the greatest log (I7)
//!   -> Established -> Publish
//! ```
//!
//! The coordinator may be any process; nothing of it is on disk. If it dies, another wins a higher
//! term: promises only rise.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use terrane_wal::lsn::Lsn;

use crate::log::{Config, Incarnation, Point, Term};
use crate::message::{Establish, Message, Report};
use crate::policy::{MemberId, MemberSet};
use crate::replica::wait_ms;
use crate::topology::ShardRecord;

/// What the coordinator's host is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Sends a message to a member.
    Send {
        /// To whom.
        to: MemberId,
        /// What.
        message: Message,
    },
    /// Writes the leader of the term to the topology: the failover is over.
    Publish {
        /// The term.
        term: Term,
        /// Who leads.
        leader: MemberId,
    },
    /// The failover is over, without a leader: a higher term exists, or who was asked to lead does
    /// not. In this term nobody else may; the next one is to be above.
    GiveUp {
        /// The highest term that was heard of.
        term: Term,
    },
}

/// Ticks after which nobody is waited for any more.
const PATIENCE_TICKS: u32 = 40;

/// Ticks for which the member that should lead is waited for, and the one that led.
const WANTED_TICKS: u32 = 2;

/// What the coordinator asked a member to do.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    member: MemberId,
    message: Message,
}

/// A failover at work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failover {
    members: Vec<MemberId>,
    record: ShardRecord,
    /// Who should lead if it can, all else being equal.
    wanted: Option<MemberId>,
    reports: BTreeMap<MemberId, Report>,
    asked: Option<Asked>,
    ticks: u32,
    over: bool,
}

impl Failover {
    /// Begins, with the record by which the term was won in the topology (I1). `wanted` leads if it
    /// can, all else being equal; the leader of the record is waited for then as well, for if it
    /// answers no lease of it is left.
    #[must_use]
    pub fn new(record: ShardRecord, wanted: Option<MemberId>, out: &mut Vec<Step>) -> Self {
        let mut failover = Self {
            members: record.members().map(|(id, _)| id).collect(),
            record,
            wanted,
            reports: BTreeMap::new(),
            asked: None,
            ticks: 0,
            over: false,
        };
        failover.tick(out);
        failover
    }

    /// The term that it was begun with.
    #[must_use]
    pub fn term(&self) -> Term {
        self.record.term
    }

    /// Whether a leader was published or the term is stale.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Says again what was not answered.
    pub fn tick(&mut self, out: &mut Vec<Step>) {
        if self.over {
            return;
        }
        let term = self.term();
        let silent = self
            .members
            .iter()
            .filter(|id| !self.reports.contains_key(id));
        out.extend(silent.map(|to| Step::Send {
            to: *to,
            message: Message::Fence { term },
        }));
        self.ticks += 1;
        if self.ticks > PATIENCE_TICKS {
            self.over = true;
            out.push(Step::GiveUp { term });
            return;
        }
        self.decide(out);
    }

    /// Takes a member's answer.
    pub fn receive(&mut self, from: MemberId, message: Message, out: &mut Vec<Step>) {
        if self.over {
            return;
        }
        match message {
            Message::Fenced { term, report }
                if term == self.term()
                    && self.record.counts(from, report.run)
                    && !report.configs.is_empty() =>
            {
                // Members that the topology does not name yet.
                for (_, config) in &report.configs {
                    for member in config.quorums().members() {
                        if !self.members.contains(&member.id) {
                            self.members.push(member.id);
                            let message = Message::Fence { term };
                            let to = member.id;
                            out.push(Step::Send { to, message });
                        }
                    }
                }
                self.reports.insert(from, report);
                self.decide(out);
            }
            Message::Established { term } if term == self.term() => {
                self.over = true;
                out.push(Step::Publish { term, leader: from });
            }
            Message::Stale { term } if term > self.term() => {
                self.over = true;
                out.push(Step::GiveUp { term });
            }
            _ => {}
        }
    }

    /// Asks a member to lead once enough have answered, and the wanted one or nobody for it.
    fn decide(&mut self, out: &mut Vec<Step>) {
        let old = self.record.leader.map(|(_, leader)| leader);
        let old = old.filter(|_| !planted!("the_old_leader_is_not_waited_for"));
        let planned = self.wanted.is_some() && self.ticks <= WANTED_TICKS;
        let mut awaited = self.wanted.into_iter().chain(old);
        let missing = planned && awaited.any(|id| !self.reports.contains_key(&id));
        let leads = |asked: &Asked| matches!(asked.message, Message::Establish(_));
        if !missing && !self.asked.as_ref().is_some_and(leads) {
            self.asked = self.choose();
        }
        self.ask(out);
    }

    fn ask(&self, out: &mut Vec<Step>) {
        if let Some(Asked { member, message }) = &self.asked {
            out.push(Step::Send {
                to: *member,
                message: message.clone(),
            });
        }
    }

    /// Who has promised the term, with the data that it has.
    fn promised(&self) -> impl Iterator<Item = (MemberId, Incarnation)> {
        let reports = self.reports.iter();
        reports.map(|(id, report)| (*id, report.run.incarnation))
    }

    /// Who is to lead with which log, or to copy what it lacks of that before; `None` while too few
    /// have answered (I6).
    fn choose(&self) -> Option<Asked> {
        // Of all, also of those that count no more: it has whatever was committed.
        let all = self.reports.iter();
        let all = all.filter(|(id, report)| {
            let newest = report.configs.last().map(|(_, config)| config);
            let named = newest.is_some_and(|config| config.quorums().place(**id).is_some());
            named || !planted!("who_leaves_is_not_asked")
        });
        let (holder, greatest) = if planted!("the_least_log_leads") {
            all.min_by_key(|(_, report)| report.last)?
        } else {
            all.max_by_key(|(_, report)| report.last)?
        };
        let commit = self.reports.values().map(|report| report.commit).max()?;
        let committed = greatest.configs.partition_point(|(end, _)| *end <= commit);
        let mut active = &greatest.configs[committed.saturating_sub(1)..];
        if planted!("the_newest_configuration_alone") {
            active = active.last_chunk::<1>()?;
        }
        let configs: Vec<&Config> = active.iter().map(|(_, config)| &**config).collect();
        let reached = |config: &Config| -> MemberSet {
            if planted!("fenced_of_any_incarnation") {
                let ids = self.reports.keys();
                return ids.filter_map(|id| config.quorums().place(*id)).collect();
            }
            config.trusted_of(self.promised())
        };
        let revoked = |config: &&Config| config.quorums().revoked(reached(config));
        if !configs.iter().all(revoked) && !planted!("establish_without_revoking") {
            return None;
        }
        let could_lead = |id: MemberId| {
            let mut all = configs.iter();
            all.all(|config| {
                let place = config.quorums().place(id);
                place.is_some_and(|at| config.quorums().establishable(at, reached(config)))
            })
        };
        let able = self.reports.iter();
        let able = able.filter(|(_, report)| report.able || planted!("who_cannot_apply_leads"));
        let leaders = able.filter(|(id, _)| could_lead(**id));
        let (leader, report) =
            leaders.max_by_key(|(id, report)| self.rank(**id, report, greatest.last))?;
        let (term, chosen) = (self.term(), greatest.last);
        let message = if report.last == chosen || planted!("lead_with_a_lesser_log") {
            let led: Vec<Term> = self.reports.values().filter_map(|r| r.led).collect();
            Message::Establish(Establish {
                term,
                chosen,
                commit,
                run: report.run,
                wait_ms: wait_ms(self.reports.values().map(|r| &r.grant), &led),
                reached: self.promised().collect(),
            })
        } else {
            Message::Copy {
                term,
                from: *holder,
                chosen,
                run: report.run,
            }
        };
        Some(Asked {
            member: *leader,
            message,
        })
    }

    /// Of those that could lead the one that ranks highest does: with the greatest log nothing is
    /// to be copied, and what is applied is not to be applied first.
    fn rank(&self, id: MemberId, report: &Report, greatest: Point) -> impl Ord + use<> {
        let applied = match planted!("what_is_applied_is_not_compared") {
            true => Lsn::ZERO,
            false => report.applied,
        };
        let wanted = self.wanted == Some(id);
        (
            report.last == greatest,
            wanted,
            report.last,
            applied,
            Reverse(id),
        )
    }
}
