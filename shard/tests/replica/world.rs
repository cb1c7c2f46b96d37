//! Hosts of a shard's members with their disks, the network between them, and what must hold.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use terrane_shard::failover::{Failover, Step};
use terrane_shard::log::{Config, Entry, Head, Incarnation, Kind, Term};
use terrane_shard::message::Message;
use terrane_shard::policy::{DurabilityPolicy, Member, MemberId, Quorums, Role};
use terrane_shard::replica::{Effect, Event, Replica, Saved, Time};
use terrane_shard::topology::{Run, ShardRecord};
use terrane_wal::lsn::Lsn;

use crate::chance::Chance;
use crate::entries::Entries;

#[derive(Debug)]
struct Host {
    id: MemberId,
    zone: String,
    /// `None` while it is down.
    replica: Option<Replica>,
    log: Entries,
    /// What a crash leaves.
    disk: Vec<Entry>,
    saved: Saved,
    /// A promise on its way to the disk.
    promise: Option<Term>,
    cut_off: bool,
    failover: Option<Failover>,
    /// A copy of its disk, of some time ago.
    old: Option<(Vec<Entry>, Saved)>,
    /// Where its clock began, and how fast it goes, in thousandths.
    clock: (u64, u64),
}

impl Host {
    fn time(&self, now: u64) -> Time {
        Time(self.clock.0 + now * self.clock.1 / 1000)
    }
}

/// A read without a lease.
#[derive(Debug)]
struct Read {
    at: usize,
    boot: u64,
    since: Time,
    /// What its snapshot has, and what it must have.
    seen: Lsn,
    shown: Lsn,
}

#[derive(Debug)]
struct Letter {
    from: MemberId,
    to: MemberId,
    message: Message,
}

/// What a run has seen.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) committed: u64,
    pub(crate) leaders: u64,
    pub(crate) wiped: u64,
    pub(crate) readmitted: u64,
    pub(crate) changed: u64,
    pub(crate) reads: u64,
    pub(crate) copied: u64,
    pub(crate) put_back: u64,
    pub(crate) asked: u64,
    pub(crate) cut: u64,
    trace: u64,
}

pub(crate) struct World {
    seed: u64,
    chance: Chance,
    policy: Box<dyn DurabilityPolicy>,
    first: Arc<Config>,
    hosts: Vec<Host>,
    /// Milliseconds that passed.
    now: u64,
    /// What a serving leader has committed: a read may depend on it.
    shown: Lsn,
    /// Reads that wait to hear that their host led after they began.
    reads: Vec<Read>,
    network: VecDeque<Letter>,
    /// What the topology has of the shard, and the highest term that a failover met.
    topology: ShardRecord,
    heard: Term,
    /// All that was ever committed.
    committed: Vec<Entry>,
    leaders: BTreeMap<Term, MemberId>,
    done: Done,
}

impl World {
    /// Members in these zones, and as many hosts in further ones that may become some.
    pub(crate) fn new(
        seed: u64,
        policy: Box<dyn DurabilityPolicy>,
        zones: &str,
        spare: &str,
    ) -> Self {
        let all = zones.split(' ').chain(spare.split_whitespace()).enumerate();
        // "r:a" is a reader in zone a.
        let all: Vec<Member> = all
            .map(|(id, zone)| match zone.strip_prefix("r:") {
                Some(zone) => Member::reader(id as u32, zone),
                None => Member::voter(id as u32, zone),
            })
            .collect();
        let members = &all[..zones.split(' ').count()];
        let incarnation = |id: u32| Incarnation(u64::from(id) + 100);
        let quorums = Quorums::new(&*policy, members).unwrap();
        let incarnations = members.iter().map(|m| incarnation(m.id.0)).collect();
        let first = Arc::new(Config::new(quorums, incarnations).unwrap());
        let mut chance = Chance(seed);
        let hosts = all.iter().map(|member| Host {
            id: member.id,
            zone: member.zone.clone(),
            replica: None,
            log: Entries::default(),
            disk: Vec::new(),
            saved: Saved {
                promised: Term(0),
                incarnation: incarnation(member.id.0),
                boot: 0,
                commit: Lsn::ZERO,
            },
            promise: None,
            cut_off: false,
            failover: None,
            old: None,
            clock: (chance.next() >> 30, 990 + chance.below(21) as u64),
        });
        let hosts = hosts.collect();
        let mut world = Self {
            seed,
            chance,
            policy,
            hosts,
            now: 0,
            shown: Lsn::ZERO,
            reads: Vec::new(),
            first,
            network: VecDeque::new(),
            topology: ShardRecord::default(),
            heard: Term(0),
            committed: Vec::new(),
            leaders: BTreeMap::new(),
            done: Done::default(),
        };
        (0..world.hosts.len()).for_each(|at| world.start(at));
        world
    }

    pub(crate) fn start(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        host.saved.boot += 1;
        let run = Run {
            incarnation: host.saved.incarnation,
            boot: host.saved.boot,
        };
        if self.topology.begin(host.id, run).is_err() {
            // What an old disk has is other data (I13).
            host.saved.incarnation = Incarnation(self.chance.next());
            let run = Run {
                incarnation: host.saved.incarnation,
                ..run
            };
            self.topology.begin(host.id, run).unwrap();
        }
        host.log = Entries::of(host.disk.clone());
        let configs = host.log.configs(&self.first, host.saved.commit);
        let now = host.time(self.now);
        let replica = Replica::open(host.id, host.saved, configs, &host.log, now);
        host.replica = Some(replica);
    }

    /// A crash keeps what was synced and, by chance, some of what was on its way.
    pub(crate) fn crash(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        (host.replica, host.promise, host.failover) = (None, None, None);
        let synced = host.disk.len();
        if host.log.entries.starts_with(&host.disk) {
            let more = self.chance.below(host.log.entries.len() - synced + 1);
            host.disk = host.log.entries[..synced + more].to_vec();
        }
    }

    /// The newest configuration that is committed anywhere, and where its entry ends.
    fn config(&self) -> (Arc<Config>, Lsn) {
        let mut committed = self.committed.iter().rev();
        let config = committed.find_map(|entry| match &entry.kind {
            Kind::Config(config) => Some((config.clone(), entry.head.end)),
            _ => None,
        });
        config.unwrap_or_else(|| (self.first.clone(), Lsn::ZERO))
    }

    fn saved(&self, id: MemberId) -> Saved {
        let host = self.hosts.iter().find(|host| host.id == id);
        host.unwrap().saved
    }

    /// A change of members by the leader, if this host is one: one joins as a reader, votes, votes
    /// no more, or leaves.
    fn change(&mut self, at: usize) {
        let Some(replica) = &self.hosts[at].replica else {
            return;
        };
        let before = replica.config().clone();
        let other = self.chance.below(self.hosts.len());
        let (id, zone) = (self.hosts[other].id, self.hosts[other].zone.clone());
        let mut members = before.quorums().members().to_vec();
        match members.iter().position(|member| member.id == id) {
            None => members.push(Member::reader(id.0, zone)),
            Some(place) => match (members[place].role, self.chance.below(3)) {
                (Role::Reader, 0) => drop(members.remove(place)),
                (Role::Reader, _) => members[place].role = Role::Voter,
                (Role::Voter, _) => members[place].role = Role::Reader,
            },
        }
        let incarnation = |member: &Member| match before.quorums().place(member.id) {
            Some(place) => before.incarnations()[place],
            None => self.saved(member.id).incarnation,
        };
        let incarnations = members.iter().map(incarnation).collect();
        let Ok(quorums) = Quorums::new(&*self.policy, &members) else {
            return;
        };
        // A shard that no loss of a disk can stop, and none was lost.
        let mut now = self.hosts.iter().filter_map(|host| {
            let place = before.quorums().place(host.id)?;
            Some(before.incarnations()[place] == host.saved.incarnation)
        });
        if quorums.report().failover_with_down < Some(1) || !now.all(|trusted| trusted) {
            return;
        }
        let config = Config::new(quorums, incarnations).unwrap();
        let replica = self.hosts[at].replica.as_mut().unwrap();
        if let Ok(effect) = replica.change(config) {
            self.done.changed += 1;
            self.effect(at, effect);
        }
    }

    /// Loses a disk: only while every disk is trusted and says that it is, for two losses at once
    /// are more than most policies here survive.
    pub(crate) fn wipe(&mut self, at: usize) {
        let (config, end) = self.config();
        let members = config.quorums().members().iter();
        let mut members = members.map(|member| (member.id, self.saved(member.id)));
        let trusted = |(id, saved): (MemberId, Saved)| {
            config.trusted(id, saved.incarnation).is_some() && saved.commit >= end
        };
        let spare = config.quorums().report().failover_with_down >= Some(1);
        let changing = self.hosts.iter().any(|host| {
            let configs = host.log.configs(&self.first, host.saved.commit);
            configs.newest_end() > end
        });
        if !members.all(trusted) || !spare || changing {
            return;
        }
        self.crash(at);
        let incarnation = Incarnation(self.chance.next());
        let host = &mut self.hosts[at];
        match host.old.take() {
            // A copy of a run before is put back. One of this run would not be noticed.
            Some((disk, saved))
                if saved.incarnation == host.saved.incarnation && saved.boot < host.saved.boot =>
            {
                (host.disk, host.saved) = (disk, saved);
                self.done.put_back += 1;
            }
            _ => {
                host.disk.clear();
                host.saved = Saved {
                    promised: Term(0),
                    incarnation,
                    boot: 0,
                    commit: Lsn::ZERO,
                };
            }
        }
        self.done.wiped += 1;
        self.start(at);
    }

    fn event(&mut self, at: usize, event: Event) {
        let mut out = Vec::new();
        let host = &mut self.hosts[at];
        let now = host.time(self.now);
        if let Some(replica) = &mut host.replica {
            replica.step(&host.log, now, event, &mut out);
        }
        for effect in out {
            self.effect(at, effect);
        }
        self.show(at);
    }

    /// What a serving leader has committed can be seen; a lease of an older one is over by then.
    fn show(&mut self, at: usize) {
        let host = &self.hosts[at];
        if let Some(replica) = &host.replica
            && replica.leads().is_some_and(|lead| lead.1)
        {
            self.shown = self.shown.max(replica.commit());
        }
    }

    /// Whoever has a lease, or led after all that was shown, shows no less.
    fn read(&mut self, at: usize) {
        let host = &self.hosts[at];
        let now = host.time(self.now);
        let Some(replica) = &host.replica else {
            return;
        };
        if replica.has_lease(now) {
            self.done.reads += 1;
            let (seed, seen) = (self.seed, replica.commit());
            let shown = self.shown;
            assert!(
                seen >= shown,
                "seed {seed}: a read at {} sees {seen}, not {shown}",
                host.id
            );
        }
        let (boot, seen, shown) = (host.saved.boot, replica.commit(), self.shown);
        self.reads.retain(|read| {
            if read.at != at || read.boot != boot || replica.leads().is_none() {
                return read.at != at;
            }
            let answered = replica.led_after(read.since);
            if answered {
                assert!(read.seen >= read.shown, "seed {}: a stale read", self.seed);
                self.done.asked += 1;
            }
            !answered
        });
        if replica.leads().is_some() && self.reads.len() < 10 {
            self.reads.push(Read {
                at,
                boot,
                since: now,
                seen,
                shown,
            });
        }
    }

    fn effect(&mut self, at: usize, effect: Effect) {
        let seed = self.seed;
        let host = &mut self.hosts[at];
        let from = host.id;
        match effect {
            Effect::SavePromise(term) => host.promise = Some(term),
            Effect::Truncate(to) => {
                host.log.truncate(to);
                self.done.cut += 1;
            }
            Effect::Append(entries) => entries.into_iter().for_each(|e| host.log.push(e)),
            Effect::Send { to, message } => self.send(from, to, message),
            Effect::Commit(lsn) => self.committed(at, lsn),
            Effect::WriteBarrier(term) => self.write(at, term, Kind::Barrier),
            Effect::WriteConfig(config) => {
                let (term, _) = host.replica.as_ref().unwrap().leads().unwrap();
                self.write(at, term, Kind::Config(config));
            }
            Effect::Serve(term) => {
                let before = self.leaders.insert(term, from);
                assert!(before.is_none(), "seed {seed}: {term} has two leaders");
                self.done.leaders += 1;
            }
            Effect::Demote => {}
            Effect::Refuse { from, reason } => panic!("seed {seed}: of {from}: {reason}"),
            Effect::Quarantine(fault) => panic!("seed {seed}: {from}: {fault}"),
        }
    }

    fn send(&mut self, from: MemberId, to: MemberId, message: Message) {
        if self.network.len() >= 300 {
            self.network.pop_front();
        }
        self.network.push_back(Letter { from, to, message });
    }

    /// The leading host's own entry.
    fn write(&mut self, at: usize, term: Term, kind: Kind) {
        let bytes = [self.chance.next(), self.seed]
            .map(u64::to_le_bytes)
            .concat();
        let host = &mut self.hosts[at];
        let start = host.log.epochs.last().lsn;
        let head = Head {
            term,
            start,
            // Of a few lengths only, so that histories meet at the same places.
            end: start.advance(1 + u64::from(bytes[0]) % 3),
            crc: u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        };
        host.log.push(Entry {
            head,
            kind: kind.clone(),
            bytes: bytes.into(),
        });
        self.event(at, Event::Appended { head, kind });
    }

    /// What a member calls committed is what every other ever did, and lies on its own log.
    fn committed(&mut self, at: usize, lsn: Lsn) {
        let (seed, host) = (self.seed, &self.hosts[at]);
        let own = host.log.entries.iter().take_while(|e| e.head.end <= lsn);
        let own: Vec<&Entry> = own.collect();
        assert_eq!(
            own.last().unwrap().head.end,
            lsn,
            "seed {seed}: {}",
            host.id
        );
        for (entry, before) in own.iter().zip(&self.committed) {
            assert_eq!(*entry, before, "seed {seed}: {} committed another", host.id);
        }
        for entry in own.into_iter().skip(self.committed.len()) {
            self.done.committed += 1;
            let before = self.config().0;
            if let Kind::Config(config) = &entry.kind
                && config.quorums() == before.quorums()
            {
                self.done.readmitted += 1;
            }
            self.committed.push(entry.clone());
        }
    }

    pub(crate) fn sync(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        let Some(replica) = &host.replica else {
            return;
        };
        let new = host.disk != host.log.entries;
        host.disk.clone_from(&host.log.entries);
        host.saved.commit = replica.commit();
        if self.chance.once_in(40) {
            host.old = Some((host.disk.clone(), host.saved));
        }
        let lsn = host.log.epochs.last().lsn;
        if new {
            self.event(at, Event::Synced { lsn });
        }
    }

    fn save_promise(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        if let Some(term) = host.promise.take() {
            host.saved.promised = term;
            self.event(at, Event::PromiseSaved { term });
        }
    }

    pub(crate) fn fail_over(&mut self, at: usize) {
        self.fail_over_to(at, None);
    }

    /// A failover that one host coordinates and another should win.
    pub(crate) fn fail_over_to(&mut self, at: usize, wanted: Option<usize>) {
        if self.hosts[at].replica.is_none() {
            return;
        }
        self.topology.next_term(self.heard);
        let (record, mut out) = (self.topology.clone(), Vec::new());
        let wanted = wanted.map(|wanted| self.hosts[wanted].id);
        self.hosts[at].failover = Some(Failover::new(record, wanted, &mut out));
        self.steps(at, out);
    }

    fn steps(&mut self, at: usize, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Send { to, message } => self.send(self.hosts[at].id, to, message),
                Step::Publish { term, leader } => {
                    let newest = self.topology.publish(term, leader);
                    assert_eq!(newest, term == self.topology.term);
                    self.hosts[at].failover = None;
                }
                Step::GiveUp { term } => {
                    self.heard = self.heard.max(term);
                    self.hosts[at].failover = None;
                }
            }
        }
    }

    fn deliver(&mut self, letter: Letter) {
        let at_of = |id: MemberId| self.hosts.iter().position(|host| host.id == id).unwrap();
        let (from, to) = (at_of(letter.from), at_of(letter.to));
        let away = self.hosts[from].cut_off || self.hosts[to].cut_off;
        if self.hosts[to].replica.is_none() || away && from != to {
            return;
        }
        self.done.trace = self.done.trace.rotate_left(7)
            ^ letter.message.term().0
            ^ self.hosts[to].log.epochs.last().lsn.0;
        let Letter { from, message, .. } = letter;
        self.done.copied += u64::from(matches!(message, Message::Suffix { .. }));
        let mut steps = Vec::new();
        if let Some(failover) = &mut self.hosts[to].failover {
            failover.receive(from, message.clone(), &mut steps);
        }
        self.steps(to, steps);
        self.event(to, Event::Receive { from, message });
    }

    pub(crate) fn tick(&mut self, at: usize) {
        self.event(at, Event::Tick);
        let mut steps = Vec::new();
        if let Some(failover) = &mut self.hosts[at].failover {
            failover.tick(&mut steps);
        }
        self.steps(at, steps);
    }

    pub(crate) fn propose(&mut self, at: usize) {
        let leads = self.hosts[at].replica.as_ref().and_then(Replica::leads);
        if let Some((term, true)) = leads {
            self.write(at, term, Kind::Data);
        }
    }

    /// So many steps with everything that may go wrong.
    pub(crate) fn faults(&mut self, steps: usize) {
        let wipes = self.chance.once_in(2);
        for _ in 0..steps {
            let at = self.chance.below(self.hosts.len());
            self.now += self.chance.next() % 12;
            self.read(at);
            match self.chance.below(1000) {
                0..560 => self.deliver_one(),
                560..690 => self.sync(at),
                690..760 => self.save_promise(at),
                760..860 => self.propose(at),
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
                970..978 => self.fail_over(at),
                978..981 => self.hosts[at].cut_off = true,
                981..990 => self.hosts[at].cut_off = false,
                990..998 => {
                    let serving = (0..self.hosts.len()).find(|at| {
                        let replica = self.hosts[*at].replica.as_ref();
                        replica.is_some_and(|r| r.leads().is_some_and(|lead| lead.1))
                    });
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
            let Letter { from, to, message } = &self.network[at];
            Letter {
                from: *from,
                to: *to,
                message: message.clone(),
            }
        } else {
            self.network.remove(at).unwrap()
        };
        self.deliver(letter);
    }

    /// With all members up and connected a leader is found and what it writes is committed by all.
    pub(crate) fn heal(&mut self) {
        for at in 0..self.hosts.len() {
            self.hosts[at].cut_off = false;
            if self.hosts[at].replica.is_none() {
                self.start(at);
            }
        }
        let mut wanted = None;
        for round in 0..200 {
            let count = self.hosts.len();
            self.now += 250;
            for at in 0..count {
                self.read(at);
                self.hosts[at].log.more = 3;
                self.tick(at);
                self.save_promise(at);
                self.sync(at);
            }
            while let Some(letter) = self.network.pop_front() {
                self.deliver(letter);
                let at = self.chance.below(count);
                self.save_promise(at);
                self.sync(at);
            }
            let leads = |host: &Host| host.replica.as_ref().unwrap().leads();
            let serving = |host: &Host| leads(host).is_some_and(|lead| lead.1);
            let newest = self.hosts.iter().filter(|host| serving(host));
            let newest = newest.max_by_key(|host| leads(host)).map(|host| host.id);
            let end = |host: &Host| host.log.epochs.last().lsn;
            match (newest, wanted) {
                (None, _) if round % 10 == 0 => self.fail_over(round / 10 % count),
                (Some(id), None) => {
                    let at = self.hosts.iter().position(|host| host.id == id).unwrap();
                    self.propose(at);
                    wanted = Some(end(&self.hosts[at]));
                }
                (Some(_), Some(lsn)) => {
                    let commit = |host: &Host| host.replica.as_ref().unwrap().commit();
                    let config = self.config().0;
                    let member = |host: &&Host| config.quorums().place(host.id).is_some();
                    let mut members = self.hosts.iter().filter(member);
                    if members.all(|host| commit(host) >= lsn) {
                        return;
                    }
                }
                (None, _) => wanted = None,
            }
        }
        for host in &self.hosts {
            let replica = host.replica.as_ref().unwrap();
            println!(
                "{}: {} {:?} leads {:?} follows {:?} commit {} log {} failover {:?}",
                host.id,
                replica.promised(),
                host.saved,
                replica.leads(),
                replica.follows(),
                replica.commit(),
                host.log.epochs.last(),
                host.failover.is_some(),
            );
        }
        println!("trusted {:?}", self.config().0.incarnations());
        panic!("seed {}: a healed shard does not go on", self.seed);
    }

    /// The oldest message between two of these hosts is delivered, and whoever got it syncs; false
    /// if there is none.
    pub(crate) fn deliver_among(&mut self, hosts: &[usize]) -> bool {
        let id = |at: &usize| self.hosts[*at].id;
        let ids: Vec<MemberId> = hosts.iter().map(id).collect();
        let among = |letter: &Letter| ids.contains(&letter.from) && ids.contains(&letter.to);
        let Some(at) = self.network.iter().position(among) else {
            return false;
        };
        let letter = self.network.remove(at).unwrap();
        let to = self.hosts.iter().position(|host| host.id == letter.to);
        self.deliver(letter);
        self.save_promise(to.unwrap());
        self.sync(to.unwrap());
        true
    }

    /// Delivers what one host said to another, and nothing that follows from it.
    pub(crate) fn deliver_from(&mut self, from: usize, to: usize) {
        let (from, to) = (self.hosts[from].id, self.hosts[to].id);
        let between = |letter: &Letter| letter.from == from && letter.to == to;
        while let Some(at) = self.network.iter().position(between) {
            let letter = self.network.remove(at).unwrap();
            self.deliver(letter);
        }
    }

    /// A message comes, whoever sent it when.
    pub(crate) fn deliver_again(&mut self, from: usize, to: usize, message: Message) {
        let (from, to) = (self.hosts[from].id, self.hosts[to].id);
        self.deliver(Letter { from, to, message });
    }

    /// Takes a request to copy out of the network, if there is one.
    pub(crate) fn take_copy(&mut self) -> Option<Message> {
        let copy = |letter: &Letter| matches!(letter.message, Message::Copy { .. });
        let at = self.network.iter().position(copy)?;
        self.network.remove(at).map(|letter| letter.message)
    }

    /// Delivers among these hosts until something holds, or until there is nothing to deliver.
    pub(crate) fn among(&mut self, hosts: &[usize], until: impl Fn(&World) -> bool) {
        while !until(self) && self.deliver_among(hosts) {}
    }

    /// What a host's clock says.
    pub(crate) fn time(&self, at: usize) -> Time {
        self.hosts[at].time(self.now)
    }

    pub(crate) fn has_lease(&self, at: usize) -> bool {
        self.replica(at).has_lease(self.time(at))
    }

    /// Time passes.
    pub(crate) fn pass(&mut self, ms: u64) {
        self.now += ms;
    }

    /// All messages on their way are lost.
    pub(crate) fn lose(&mut self) {
        self.network.clear();
    }

    pub(crate) fn replica_mut(&mut self, at: usize) -> &mut Replica {
        self.hosts[at].replica.as_mut().unwrap()
    }

    pub(crate) fn replica(&self, at: usize) -> &Replica {
        self.hosts[at].replica.as_ref().unwrap()
    }

    pub(crate) fn leads(&self, at: usize) -> bool {
        self.replica(at).leads().is_some()
    }

    pub(crate) fn serves(&self, at: usize) -> bool {
        self.replica(at).leads().is_some_and(|lead| lead.1)
    }

    /// What a host is to do, done.
    pub(crate) fn does(&mut self, at: usize, effect: Effect) {
        self.effect(at, effect);
    }

    /// The end of a host's log.
    pub(crate) fn end(&self, at: usize) -> Lsn {
        self.hosts[at].log.epochs.last().lsn
    }

    pub(crate) fn commit(&self, at: usize) -> Lsn {
        self.replica(at).commit()
    }

    /// A copy of a host's disk is kept.
    pub(crate) fn copy_disk(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        host.old = Some((host.disk.clone(), host.saved));
    }

    /// The copy is put in the place of the disk of a host that is down.
    pub(crate) fn put_back(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        (host.disk, host.saved) = host.old.take().unwrap();
    }

    /// The disk of a host that is down is set back to what it was at this entry's end.
    pub(crate) fn set_back(&mut self, at: usize, to: Lsn) {
        self.hosts[at].disk.retain(|entry| entry.head.end <= to);
    }

    pub(crate) fn same_log(&self, a: usize, b: usize) -> bool {
        self.hosts[a].log.entries == self.hosts[b].log.entries
    }

    pub(crate) fn done(self) -> Done {
        self.done
    }
}
