//! Hosts of a shard's members with their disks, the network between them, and what must hold.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use terrane_shard::failover::Failover;
use terrane_shard::log::{Config, Entry, Head, Incarnation, Kind, Term};
use terrane_shard::message::Message;
use terrane_shard::policy::{DurabilityPolicy, Member, MemberId, Quorums};
use terrane_shard::replica::{Effect, Event, Replica, Saved, Time};
use terrane_shard::suspicion::{Patience, Suspicion, Word};
use terrane_shard::switchover::{SwitchError, Switchover};
use terrane_shard::topology::{Run, ShardRecord};
use terrane_wal::lsn::Lsn;

use crate::chance::Chance;
use crate::entries::Entries;

mod by_hand;
mod leaders;
mod members;
mod reads;
mod run;

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
    switchover: Option<Switchover>,
    /// Whom its failover makes the leader with the old one's consent.
    wanted: Option<MemberId>,
    /// What its last switchover failed by.
    refused: Option<SwitchError>,
    /// What it thinks of the leader, if the members decide who leads.
    suspicion: Option<Suspicion>,
    admission: Admission,
    /// What it has applied, and whether it can.
    applied: Lsn,
    able: bool,
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

/// Whether a leader's host takes what its callers write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    Open,
    /// Closed, with so many admitted before that are not in the log yet.
    Closed(usize),
    Drained,
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
    said: Said,
}

#[derive(Debug, Clone)]
enum Said {
    Message(Message),
    Word(Word),
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
    /// Failovers that members began because they agreed.
    pub(crate) suspected: u64,
    /// Switchovers that were begun, that the leader was ready for, and that made the leader that
    /// was wanted.
    pub(crate) switching: u64,
    pub(crate) ready: u64,
    pub(crate) switched: u64,
    /// Times that admission was opened again.
    pub(crate) reopened: u64,
    pub(crate) apply_errors: u64,
    /// Leaders that died for good and were replaced by members that agreed.
    pub(crate) replaced: u64,
    /// The most quarters of a second until a healed shard went on, and a switchover was done.
    pub(crate) rounds: u64,
    pub(crate) slowest: u64,
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
    /// With which members decide who leads; without, only the tests do.
    patience: Option<Patience>,
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
            switchover: None,
            wanted: None,
            refused: None,
            suspicion: None,
            admission: Admission::Open,
            applied: Lsn::ZERO,
            able: true,
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
            patience: None,
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
        (host.applied, host.able) = (Lsn::ZERO, true);
        self.begin_suspicion(at);
    }

    /// A crash keeps what was synced and, by chance, some of what was on its way.
    pub(crate) fn crash(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        (host.replica, host.promise, host.failover) = (None, None, None);
        (host.switchover, host.wanted, host.suspicion) = (None, None, None);
        host.admission = Admission::Open;
        let synced = host.disk.len();
        if host.log.entries.starts_with(&host.disk) {
            let more = self.chance.below(host.log.entries.len() - synced + 1);
            host.disk = host.log.entries[..synced + more].to_vec();
        }
    }

    fn event(&mut self, at: usize, event: Event) {
        let mut out = Vec::new();
        let host = &mut self.hosts[at];
        let now = host.time(self.now);
        let append = match &event {
            Event::Receive {
                from,
                message: Message::Append(append),
            } => Some((*from, append.term)),
            _ => None,
        };
        if let Some(replica) = &mut host.replica {
            replica.step(&host.log, now, event, &mut out);
        }
        for effect in out {
            self.effect(at, effect);
        }
        if let Some((from, term)) = append {
            self.heard_leader(at, from, term);
        }
        self.show(at);
    }

    fn effect(&mut self, at: usize, effect: Effect) {
        let seed = self.seed;
        let host = &mut self.hosts[at];
        let from = host.id;
        match effect {
            Effect::SavePromise(term) => {
                host.promise = Some(term);
                let now = host.time(self.now);
                if let Some(suspicion) = &mut host.suspicion {
                    suspicion.fenced(term, now);
                }
            }
            Effect::Truncate(to) => {
                host.log.truncate(to);
                self.done.cut += 1;
            }
            Effect::Append(entries) => entries.into_iter().for_each(|e| host.log.push(e)),
            Effect::Send { to, message } => {
                if let Message::Ready(attempt) = message {
                    self.is_ready(at, attempt);
                }
                self.send(from, to, Said::Message(message));
            }
            Effect::Commit(lsn) => {
                // Some trim their log as soon as they may.
                if host.id.0 % 2 == 1 {
                    host.log.oldest = lsn;
                }
                self.committed(at, lsn);
            }
            Effect::WriteBarrier { term, .. } => {
                assert!(host.able, "seed {seed}: {from} leads and cannot apply");
                self.write(at, term, Kind::Barrier);
            }
            Effect::WriteConfig(config) => {
                let (term, _) = host.replica.as_ref().unwrap().leads().unwrap();
                self.write(at, term, Kind::Config(config));
            }
            Effect::Serve(term) => {
                let before = self.leaders.insert(term, from);
                assert!(before.is_none(), "seed {seed}: {term} has two leaders");
                self.done.leaders += 1;
                self.heard_leader(at, from, term);
            }
            Effect::CloseAdmission => {
                assert_eq!(host.admission, Admission::Open, "seed {seed}: {from}");
                host.admission = Admission::Closed(self.chance.below(3));
            }
            Effect::OpenAdmission => {
                assert_ne!(host.admission, Admission::Open, "seed {seed}: {from}");
                host.admission = Admission::Open;
                self.done.reopened += 1;
            }
            Effect::Demote => {
                host.admission = Admission::Open;
                // Its trees are made again.
                host.applied = Lsn::ZERO;
            }
            Effect::Refuse { from, reason } => panic!("seed {seed}: of {from}: {reason}"),
            Effect::Quarantine(fault) => panic!("seed {seed}: {from}: {fault}"),
        }
    }

    fn send(&mut self, from: MemberId, to: MemberId, said: Said) {
        if self.network.len() >= 300 {
            self.network.pop_front();
        }
        self.network.push_back(Letter { from, to, said });
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
            bytes: Arc::new(bytes.to_vec()),
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

    fn deliver(&mut self, letter: Letter) {
        let at_of = |id: MemberId| self.hosts.iter().position(|host| host.id == id).unwrap();
        let (from, to) = (at_of(letter.from), at_of(letter.to));
        let away = self.hosts[from].cut_off || self.hosts[to].cut_off;
        if self.hosts[to].replica.is_none() || away && from != to {
            return;
        }
        let Letter { from, said, .. } = letter;
        let message = match said {
            Said::Message(message) => message,
            Said::Word(word) => return self.word(to, from, word),
        };
        self.done.trace = self.done.trace.rotate_left(7)
            ^ message.term().0
            ^ self.hosts[to].log.epochs.last().lsn.0;
        self.done.copied += u64::from(matches!(message, Message::Suffix { .. }));
        self.coordinate(to, from, &message);
        self.event(to, Event::Receive { from, message });
    }

    pub(crate) fn tick(&mut self, at: usize) {
        self.event(at, Event::Tick);
        self.tick_coordinator(at);
        self.suspect(at);
    }

    pub(crate) fn propose(&mut self, at: usize) {
        let host = &self.hosts[at];
        let leads = host.replica.as_ref().and_then(Replica::leads);
        if let Some((term, true)) = leads
            && host.admission == Admission::Open
        {
            self.write(at, term, Kind::Data);
        }
    }

    /// What was admitted before admission was closed gets into the log, one by one.
    pub(crate) fn drain(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        let leads = host.replica.as_ref().and_then(Replica::leads);
        let (Some((term, _)), Admission::Closed(left)) = (leads, host.admission) else {
            return;
        };
        match left.checked_sub(1) {
            Some(left) => {
                host.admission = Admission::Closed(left);
                self.write(at, term, Kind::Data);
            }
            None => {
                host.admission = Admission::Drained;
                self.event(at, Event::Drained);
            }
        }
    }

    /// A host applies what it knows to be committed.
    pub(crate) fn apply(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        let Some(replica) = host.replica.as_ref().filter(|_| host.able) else {
            return;
        };
        let lsn = replica.commit();
        if lsn != host.applied {
            host.applied = lsn;
            self.event(at, Event::Applied { lsn });
        }
    }

    /// What is committed cannot be applied here.
    pub(crate) fn apply_fails(&mut self, at: usize) {
        if self.hosts[at].replica.is_some() {
            self.hosts[at].able = false;
            self.event(at, Event::ApplyFailed);
            self.done.apply_errors += 1;
        }
    }

    /// What a host's clock says.
    pub(crate) fn time(&self, at: usize) -> Time {
        self.hosts[at].time(self.now)
    }

    pub(crate) fn done(self) -> Done {
        self.done
    }
}
