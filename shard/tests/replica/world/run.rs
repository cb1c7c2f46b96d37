//! What happens by chance, and what must hold once nothing goes wrong any more.

use terrane_shard::replica::Replica;

use super::{Admission, Host, Letter, World};

/// Quarters of a second in which a shard must go on once nothing goes wrong any more.
const ROUNDS: usize = 100;

impl World {
    /// So many steps with everything that may go wrong.
    pub(crate) fn faults(&mut self, steps: usize) {
        let wipes = self.chance.once_in(2);
        // In every third seed only members that agree change the leader, and switchovers.
        let alone = self.patience.is_some() && self.seed.is_multiple_of(3);
        for _ in 0..steps {
            let at = self.chance.below(self.hosts.len());
            self.now += self.chance.next() % 12;
            self.read(at);
            match self.chance.below(1000) {
                0..560 => self.deliver_one(),
                560..680 => self.sync(at),
                680..690 => self.apply(at),
                690..750 => self.save_promise(at),
                750..760 => self.drain(at),
                760..857 => self.propose(at),
                857..859 => self.switch_over_by_chance(at),
                859..860 => self.fail_to_apply(at),
                860..930 => {
                    self.hosts[at].log.more = self.chance.below(4);
                    self.tick(at);
                }
                930..936 => self.crash(at),
                936..970 => {
                    if self.hosts[at].replica.is_none() {
                        self.start(at);
                    }
                }
                970..978 => {
                    if !alone || self.topology.leader.is_none() {
                        self.fail_over(at);
                    }
                }
                978..981 => self.hosts[at].cut_off = true,
                981..990 => self.hosts[at].cut_off = false,
                990..998 => {
                    let serving = self.serving();
                    self.change(serving.unwrap_or(at));
                }
                _ => {
                    if wipes {
                        self.wipe(at);
                    }
                }
            }
        }
    }

    /// Delivers, drops or repeats a message, mostly one of the oldest.
    fn deliver_one(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let among = if self.chance.once_in(3) {
            self.network.len()
        } else {
            self.network.len().min(4)
        };
        let at = self.chance.below(among);
        if self.chance.once_in(25) {
            self.network.remove(at);
            return;
        }
        let letter = if self.chance.once_in(12) {
            let Letter { from, to, said } = &self.network[at];
            Letter {
                from: *from,
                to: *to,
                said: said.clone(),
            }
        } else {
            self.network.remove(at).unwrap()
        };
        self.deliver(letter);
    }

    /// An operator wishes another leader.
    fn switch_over_by_chance(&mut self, at: usize) {
        let to = self.chance.below(self.hosts.len());
        let patience_ms = [200, 1_000, 3_000][self.chance.below(3)];
        if self.hosts[at].replica.is_some() && self.hosts[at].switchover.is_none() {
            // Refusals have tests of their own.
            let _ = self.switch_over(at, to, patience_ms);
        }
    }

    /// One host at a time, so that another can lead.
    fn fail_to_apply(&mut self, at: usize) {
        if self.hosts.iter().all(|host| host.able) {
            self.apply_fails(at);
        }
    }

    /// A quarter of a second in which every host does what it has to, and all messages that are not
    /// dropped come, but those to hosts that are down.
    fn round(&mut self, drops: bool) {
        let count = self.hosts.len();
        self.now += 250;
        for at in 0..count {
            self.read(at);
            self.hosts[at].log.more = 3;
            self.tick(at);
            self.work(at);
        }
        while let Some(letter) = self.network.pop_front() {
            if !(drops && self.chance.once_in(25)) {
                self.deliver(letter);
            }
            let at = self.chance.below(count);
            self.work(at);
        }
    }

    fn work(&mut self, at: usize) {
        self.save_promise(at);
        self.sync(at);
        self.apply(at);
        self.drain(at);
    }

    /// The leader of the highest term that serves.
    fn serving(&self) -> Option<usize> {
        let leads = |at: &usize| {
            let replica = self.hosts[*at].replica.as_ref();
            replica.and_then(Replica::leads).filter(|lead| lead.1)
        };
        let hosts = (0..self.hosts.len()).filter(|at| leads(at).is_some());
        hosts.max_by_key(leads)
    }

    /// With all members up and connected a leader is found and what it writes is committed by all.
    /// If members decide, by them alone, unless there never was a leader.
    pub(crate) fn heal(&mut self) {
        for at in 0..self.hosts.len() {
            self.hosts[at].cut_off = false;
            if !self.hosts[at].able {
                self.crash(at);
            }
            if self.hosts[at].replica.is_none() {
                self.start(at);
            }
        }
        self.goes_on();
    }

    /// A leader is found and what it writes is committed by all members that are up.
    fn goes_on(&mut self) {
        let mut wanted = None;
        for round in 0..ROUNDS {
            self.round(false);
            let by_hand = self.patience.is_none() || self.topology.leader.is_none();
            match (self.serving(), wanted) {
                (None, _) if by_hand && round % 10 == 0 => {
                    self.fail_over(round / 10 % self.hosts.len());
                }
                (Some(at), None) if self.hosts[at].admission == Admission::Open => {
                    self.propose(at);
                    wanted = Some(self.end(at));
                }
                (Some(_), None) => {}
                (Some(_), Some(lsn)) => {
                    let commit = |host: &Host| host.replica.as_ref().map(Replica::commit);
                    let config = self.config().0;
                    let member = |host: &&Host| config.quorums().place(host.id).is_some();
                    let mut members = self.hosts.iter().filter(member);
                    if members.all(|host| commit(host).is_none_or(|commit| commit >= lsn)) {
                        self.done.rounds = self.done.rounds.max(round as u64);
                        return;
                    }
                }
                (None, _) => wanted = None,
            }
        }
        self.explain();
        panic!("seed {}: a healed shard does not go on", self.seed);
    }

    fn explain(&self) {
        for host in &self.hosts {
            let Some(replica) = &host.replica else {
                println!("{}: down", host.id);
                continue;
            };
            println!(
                "{}: {} {:?} leads {:?} follows {:?} commit {} log {} failover {:?} admission {:?} \
                 {:?}",
                host.id,
                replica.promised(),
                host.saved,
                replica.leads(),
                replica.follows(),
                replica.commit(),
                host.log.epochs.last(),
                host.failover.is_some(),
                host.admission,
                host.suspicion,
            );
        }
        println!("time {} topology {:?}", self.now, self.topology);
        println!("trusted {:?}", self.config().0.incarnations());
    }

    /// A leader that is well is left alone, though messages are lost; it hands over when it is
    /// asked to; and once it is gone for good the others find that out and go on.
    pub(crate) fn live(&mut self) {
        let seed = self.seed;
        let leader = self.serving().unwrap();
        let before = (self.topology.term, self.done.suspected);
        (0..60).for_each(|round| self.round(round < 56));
        if (self.topology.term, self.done.suspected) != before {
            self.explain();
            panic!("seed {seed}: a leader that is well is not left alone");
        }
        assert_eq!(self.serving(), Some(leader), "seed {seed}");
        let leader = self.hand_over_when_well(leader);
        // Down for good.
        let config = self.config().0;
        let mut members = config.quorums().members().iter();
        let trusted = members.all(|member| {
            let incarnation = self.saved(member.id).incarnation;
            config.trusted(member.id, incarnation).is_some()
        });
        if trusted && config.quorums().report().failover_with_down >= Some(1) {
            self.crash(leader);
            self.goes_on();
            assert!(self.serving() != Some(leader));
            self.done.replaced += 1;
        }
    }

    /// Who leads after a switchover from this leader, to somebody who can.
    fn hand_over_when_well(&mut self, leader: usize) -> usize {
        let seed = self.seed;
        let config = self.config().0;
        let could = |at: &usize| {
            let host = &self.hosts[*at];
            let place = config.trusted(host.id, host.saved.incarnation);
            *at != leader && place.is_some_and(|place| config.quorums().may_lead(place))
        };
        let published = self.topology.leader.map(|(_, id)| id) == Some(self.hosts[leader].id)
            && self.topology.leader.map(|(term, _)| term) == Some(self.topology.term);
        let targets: Vec<usize> = (0..self.hosts.len()).filter(could).collect();
        if targets.is_empty() || !published {
            return leader;
        }
        let to = targets[self.chance.below(targets.len())];
        let by = self.chance.below(self.hosts.len());
        let asked = self.switch_over(by, to, 5_000);
        assert_eq!(asked, Ok(()), "seed {seed}");
        let rounds = (0..8).take_while(|_| {
            self.round(false);
            self.serving() != Some(to)
        });
        let rounds = rounds.count();
        if self.serving() != Some(to) {
            self.explain();
            panic!("seed {seed}: no switchover: {:?}", self.hosts[by].refused);
        }
        self.done.slowest = self.done.slowest.max(rounds as u64);
        to
    }
}
