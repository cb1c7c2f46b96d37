//! Who leads: failovers that somebody wishes or that members agree on, and switchovers.

use terrane_shard::failover::{Failover, Step};
use terrane_shard::log::Term;
use terrane_shard::message::Message;
use terrane_shard::policy::MemberId;
use terrane_shard::suspicion::{Patience, Suspicion, Word};
use terrane_shard::switchover::{Attempt, SwitchError, SwitchStep, Switchover};

use super::{Admission, Said, World};

impl World {
    pub(crate) fn fail_over(&mut self, at: usize) {
        self.fail_over_to(at, None);
    }

    /// A failover that one host coordinates and another should win.
    pub(crate) fn fail_over_to(&mut self, at: usize, wanted: Option<usize>) {
        if self.hosts[at].replica.is_none() {
            return;
        }
        self.topology.next_term(self.heard);
        let wanted = wanted.map(|wanted| self.hosts[wanted].id);
        self.hosts[at].wanted = None;
        self.begin_failover(at, wanted);
    }

    /// A term was won.
    fn begin_failover(&mut self, at: usize, wanted: Option<MemberId>) {
        let (record, mut out) = (self.topology.clone(), Vec::new());
        self.hosts[at].failover = Some(Failover::new(record, wanted, &mut out));
        self.steps(at, out);
    }

    fn steps(&mut self, at: usize, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Send { to, message } => {
                    self.send(self.hosts[at].id, to, Said::Message(message));
                }
                Step::Publish { term, leader } => {
                    let newest = self.topology.publish(term, leader);
                    assert_eq!(newest, term == self.topology.term);
                    assert_eq!(self.leaders.get(&term), Some(&leader), "seed {}", self.seed);
                    self.hosts[at].failover = None;
                    let wanted = self.hosts[at].wanted.take();
                    self.done.switched += u64::from(wanted == Some(leader));
                }
                Step::GiveUp { term } => {
                    self.heard = self.heard.max(term);
                    (self.hosts[at].failover, self.hosts[at].wanted) = (None, None);
                }
            }
        }
    }

    /// A switchover that one host coordinates.
    pub(crate) fn switch_over(
        &mut self,
        at: usize,
        to: usize,
        patience_ms: u64,
    ) -> Result<(), SwitchError> {
        let (now, to) = (self.time(at), self.hosts[to].id);
        let mut out = Vec::new();
        let switchover = Switchover::new(&self.topology, to, patience_ms, now, &mut out)?;
        self.hosts[at].switchover = Some(switchover);
        self.done.switching += 1;
        self.switch_steps(at, out);
        Ok(())
    }

    fn switch_steps(&mut self, at: usize, steps: Vec<SwitchStep>) {
        for step in steps {
            match step {
                SwitchStep::Send { to, message } => {
                    self.send(self.hosts[at].id, to, Said::Message(message));
                }
                SwitchStep::TakeOver { behind, wanted } => {
                    let mut out = Vec::new();
                    self.is_closed(behind);
                    if self.topology.next_term_behind(behind).is_some() {
                        self.hosts[at].wanted = Some(wanted);
                        self.begin_failover(at, Some(wanted));
                    } else if let Some(switchover) = &mut self.hosts[at].switchover {
                        switchover.give_up(SwitchError::Pending, &mut out);
                    }
                    self.hosts[at].switchover = None;
                    self.switch_steps(at, out);
                }
                SwitchStep::Fail(error) => {
                    self.hosts[at].switchover = None;
                    self.hosts[at].refused = Some(error);
                }
            }
        }
    }

    /// What a leader says when it is ready: it admits nothing, all that it admitted is committed,
    /// and the one that takes over has it on its disk, if that is still the disk that it had.
    pub(super) fn is_ready(&mut self, at: usize, attempt: Attempt) {
        self.done.ready += 1;
        let (seed, host) = (self.seed, &self.hosts[at]);
        assert_eq!(host.admission, Admission::Drained, "seed {seed}: admits");
        let end = host.log.epochs.last().lsn;
        let commit = host.replica.as_ref().map(|replica| replica.commit());
        assert_eq!(commit, Some(end), "seed {seed}: a caller is left behind");
        let config = self.config().0;
        let mut hosts = self.hosts.iter();
        let target = hosts.find(|host| host.id == attempt.to).unwrap();
        if config
            .trusted(target.id, target.saved.incarnation)
            .is_some()
        {
            let has = target.disk.starts_with(&host.log.entries);
            assert!(has, "seed {seed}: {} lacks something", target.id);
        }
    }

    /// A leader whose term is to end by a switchover admits nothing, and no caller of it waits, if
    /// it still leads.
    fn is_closed(&self, term: Term) {
        for host in &self.hosts {
            let Some(replica) = &host.replica else {
                continue;
            };
            if replica.leads().is_some_and(|lead| lead.0 == term) {
                let closed = host.admission == Admission::Drained;
                assert!(closed, "seed {}: {term} admits again", self.seed);
                assert_eq!(replica.commit(), host.log.epochs.last().lsn);
            }
        }
    }

    /// A message for the coordinator that this host may be.
    pub(super) fn coordinate(&mut self, at: usize, from: MemberId, message: &Message) {
        let mut steps = Vec::new();
        if let Some(failover) = &mut self.hosts[at].failover {
            failover.receive(from, message.clone(), &mut steps);
        }
        self.steps(at, steps);
        let (now, mut steps) = (self.time(at), Vec::new());
        if let Some(switchover) = &mut self.hosts[at].switchover {
            switchover.receive(from, message, now, &mut steps);
        }
        self.switch_steps(at, steps);
    }

    pub(super) fn tick_coordinator(&mut self, at: usize) {
        let mut steps = Vec::new();
        if let Some(failover) = &mut self.hosts[at].failover {
            failover.tick(&mut steps);
        }
        self.steps(at, steps);
        let (now, mut steps) = (self.time(at), Vec::new());
        if let Some(switchover) = &mut self.hosts[at].switchover {
            switchover.tick(now, &mut steps);
        }
        self.switch_steps(at, steps);
    }

    /// From now on members that hear no leader look for another.
    pub(crate) fn let_members_decide(&mut self, patience: Patience) {
        self.patience = Some(patience);
        (0..self.hosts.len()).for_each(|at| self.begin_suspicion(at));
    }

    /// A host that starts knows the leader that stands in the topology.
    pub(super) fn begin_suspicion(&mut self, at: usize) {
        let now = self.time(at);
        let host = &mut self.hosts[at];
        let (Some(patience), Some(replica)) = (self.patience, &host.replica) else {
            return;
        };
        let mut suspicion = Suspicion::new(host.id, replica.config().clone(), patience, now);
        if let Some((term, leader)) = self.topology.leader {
            suspicion.heard(term, leader, now);
        }
        host.suspicion = Some(suspicion);
    }

    /// An append of a leader that this host follows, or its own leadership.
    pub(super) fn heard_leader(&mut self, at: usize, leader: MemberId, term: Term) {
        let now = self.time(at);
        let host = &mut self.hosts[at];
        let Some(replica) = &host.replica else {
            return;
        };
        let heard = leader == host.id || replica.follows() == Some(leader);
        if let Some(suspicion) = host.suspicion.as_mut().filter(|_| heard) {
            suspicion.heard(term, leader, now);
        }
    }

    /// A word about the leader.
    pub(super) fn word(&mut self, at: usize, from: MemberId, word: Word) {
        let now = self.time(at);
        let host = &mut self.hosts[at];
        let answer = host
            .suspicion
            .as_mut()
            .and_then(|s| s.word(from, word, now));
        let id = host.id;
        if let Some(answer) = answer {
            self.send(id, from, Said::Word(answer));
        }
    }

    /// Asks others about a leader that is not heard, and begins a failover if it is gone.
    pub(super) fn suspect(&mut self, at: usize) {
        let now = self.time(at);
        let host = &mut self.hosts[at];
        let (Some(suspicion), Some(replica)) = (&mut host.suspicion, &host.replica) else {
            return;
        };
        if let Some((term, _)) = replica.leads() {
            suspicion.heard(term, host.id, now);
        }
        suspicion.set_config(replica.config().clone());
        let asks = suspicion.asks(now);
        let gone = suspicion.verdict(now).is_some();
        let (id, busy) = (host.id, host.failover.is_some());
        for (to, word) in asks {
            self.send(id, to, Said::Word(word));
        }
        if gone && !busy {
            self.done.suspected += 1;
            self.fail_over(at);
        }
    }
}
