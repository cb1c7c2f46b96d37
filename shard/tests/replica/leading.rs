//! One leader by itself, told what the others say.

use std::collections::BTreeMap;
use std::sync::Arc;

use terrane_shard::log::{Configs, Entry, Epochs, Head, Incarnation, Kind, Log, Point, Term};
use terrane_shard::message::{Ack, Establish, Message, Mismatch};
use terrane_shard::policy::MemberId;
use terrane_shard::replica::{Effect, Event, IN_FLIGHT_BYTES, Replica, Saved, Time};
use terrane_shard::topology::Run;
use terrane_wal::lsn::Lsn;

use crate::entries::{Entries, three};

/// One leader by itself.
pub(crate) struct Leader {
    pub(crate) replica: Replica,
    log: Entries,
    pub(crate) now: u64,
}

impl Leader {
    /// Member 0 of three leads term 2 by the word of the others; its barrier ends at 3.
    pub(crate) fn new() -> Self {
        let saved = Saved {
            promised: Term(1),
            incarnation: Incarnation(7),
            boot: 1,
            commit: Lsn(0),
        };
        let log = Entries::default();
        let configs = Configs::new(Arc::new(three()));
        let mut leader = Self {
            replica: Replica::open(MemberId(0), saved, configs, &log, Time(0)),
            log,
            now: 5_000,
        };
        let term = Term(2);
        leader.says(1, Message::Fence { term });
        leader.step(Event::PromiseSaved { term });
        let establish = Establish {
            term,
            chosen: Point::default(),
            commit: Lsn(0),
            run: Run {
                incarnation: Incarnation(7),
                boot: 1,
            },
            wait_ms: 0,
            reached: BTreeMap::new(),
        };
        leader.says(1, Message::Establish(establish));
        leader.step(Event::Synced { lsn: Lsn(3) });
        leader.acks(1, 3, 7, 1);
        leader.acks(2, 3, 7, 1);
        assert_eq!(leader.replica.leads(), Some((term, true)));
        leader
    }

    pub(crate) fn step(&mut self, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        self.now += 1;
        self.replica
            .step(&self.log, Time(self.now), event, &mut out);
        for at in 0..out.len() {
            match out[at].clone() {
                Effect::WriteBarrier { .. } => out.extend(self.write(Kind::Barrier, 3)),
                Effect::WriteConfig(config) => out.extend(self.write(Kind::Config(config), 3)),
                _ => {}
            }
        }
        out
    }

    pub(crate) fn write(&mut self, kind: Kind, len: u64) -> Vec<Effect> {
        let start = self.log.epochs().last().lsn;
        let head = Head {
            term: Term(2),
            start,
            end: start.advance(len),
            crc: 0,
        };
        self.log.push(Entry {
            head,
            kind: kind.clone(),
            bytes: Arc::default(),
        });
        self.step(Event::Appended { head, kind })
    }

    pub(crate) fn says(&mut self, from: u32, message: Message) -> Vec<Effect> {
        let from = MemberId(from);
        self.step(Event::Receive { from, message })
    }

    pub(crate) fn acks(
        &mut self,
        from: u32,
        durable: u64,
        incarnation: u64,
        count: u64,
    ) -> Vec<Effect> {
        let ack = self.ack(durable, incarnation, count);
        self.says(from, Message::Ack(ack))
    }

    /// An answer to what was sent just now; all that is on the disk is applied.
    pub(crate) fn ack(&self, durable: u64, incarnation: u64, count: u64) -> Ack {
        Ack {
            term: Term(2),
            durable: Lsn(durable),
            held: Lsn(durable),
            applied: Lsn(durable),
            able: true,
            incarnation: Incarnation(incarnation),
            count: (1, count),
            echo: Time(self.now),
        }
    }
}

/// The ends of the entries that are sent to a member.
fn sent_to(out: &[Effect], id: u32) -> Vec<Lsn> {
    let sent = out.iter().filter_map(|effect| match effect {
        Effect::Send {
            to,
            message: Message::Append(append),
        } if *to == MemberId(id) => Some(append.entries.iter().map(|entry| entry.head.end)),
        _ => None,
    });
    sent.flatten().collect()
}

// Planted: `no_end_of_what_is_in_flight`.
#[test]
fn no_more_is_on_its_way_to_a_member_than_fits() {
    let mut leader = Leader::new();
    let part = IN_FLIGHT_BYTES * 2 / 3;
    for sent in [1, 1, 0, 0] {
        let out = leader.write(Kind::Data, part);
        assert_eq!(sent_to(&out, 1).len(), sent);
    }
    // A heartbeat: again what was not acknowledged, one message of it.
    leader.step(Event::Tick);
    let out = leader.step(Event::Tick);
    assert_eq!(sent_to(&out, 1), [Lsn(3 + part)]);
    // What it has makes room.
    let out = leader.acks(1, 3 + part, 7, 2);
    assert_eq!(sent_to(&out, 1), [Lsn(3 + 2 * part)]);
    let out = leader.acks(1, 3 + 2 * part, 7, 3);
    assert_eq!(sent_to(&out, 1), [Lsn(3 + 3 * part)]);
}

// Seen to fail with what a member forgot kept when it comes with other data.
#[test]
fn a_member_that_forgot_is_trusted_with_other_data() {
    let mut leader = Leader::new();
    // It was set back, is wiped, and says so.
    leader.acks(1, 0, 7, 2);
    let mismatch = Mismatch {
        term: Term(2),
        epochs: Epochs::default(),
        incarnation: Incarnation(9),
        count: (1, 1),
    };
    let out = leader.says(1, Message::Mismatch(mismatch));
    assert_eq!(sent_to(&out, 1), [Lsn(3)], "all from the start");
    let out = leader.acks(1, 3, 9, 2);
    let named = out.iter().any(|effect| match effect {
        Effect::WriteConfig(config) => config.incarnations()[1] == Incarnation(9),
        _ => false,
    });
    assert!(named, "{out:?}");
}

// Seen to fail with older ones taken.
#[test]
fn an_answer_that_was_overtaken_says_nothing() {
    let mut leader = Leader::new();
    leader.write(Kind::Data, 10);
    leader.acks(1, 13, 7, 5);
    let old = Mismatch {
        term: Term(2),
        epochs: Epochs::default(),
        incarnation: Incarnation(7),
        count: (1, 4),
    };
    assert_eq!(leader.says(1, Message::Mismatch(old)), []);
    assert_eq!(sent_to(&leader.step(Event::Tick), 1), []);
}
