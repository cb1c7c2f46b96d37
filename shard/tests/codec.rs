//! Bytes of configurations, barriers and shard records: what is written comes back, and nothing
//! else is taken.

// A helper of a test ends the test on the spot.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use terrane_shard::codec::{Barrier, CodecError};
use terrane_shard::log::{Config, Incarnation, Point, Term};
use terrane_shard::policy::*;
use terrane_shard::topology::{Run, ShardRecord};
use terrane_wal::lsn::Lsn;

/// A rule that nobody built in: member 1 leads, with the help of those above it.
#[derive(Debug)]
struct OneLeads;

impl DurabilityPolicy for OneLeads {
    fn name(&self) -> String {
        "one leads \u{2713}".into()
    }

    fn may_lead(&self, member: &Member) -> bool {
        member.id == MemberId(1)
    }

    fn acks_needed(&self, leader: &Member) -> usize {
        if self.may_lead(leader) { 1 } else { usize::MAX }
    }

    fn may_ack(&self, leader: &Member, acker: &Member) -> bool {
        acker.id > leader.id
    }
}

fn config(policy: &dyn DurabilityPolicy, members: &[Member]) -> Option<Config> {
    let quorums = Quorums::new(policy, members).ok()?;
    let incarnations = members
        .iter()
        .map(|m| Incarnation(u64::from(m.id.0) << 40 | 7));
    Some(Config::new(quorums, incarnations.collect()).unwrap())
}

fn small() -> Config {
    let members = [
        Member::voter(1, "a"),
        Member::voter(0x0102_0304, "bc"),
        Member::reader(9, ""),
    ];
    config(&OneLeads, &members).unwrap()
}

fn barrier() -> Barrier {
    Barrier {
        chosen: Point {
            term: Term(3),
            lsn: Lsn(0x0102_0304_0506_0708),
        },
        reached: [
            (MemberId(1), Incarnation(7)),
            (MemberId(300), Incarnation(u64::MAX)),
        ]
        .into(),
        policy: "semi_sync(1)".into(),
    }
}

/// What became of these starts, those that are refused left out.
fn record(term: u64, leader: Option<(Term, MemberId)>, starts: &[(u32, u64, u64)]) -> ShardRecord {
    let mut record = ShardRecord::default();
    (record.term, record.leader) = (Term(term), leader);
    for (member, incarnation, boot) in starts {
        let run = Run {
            incarnation: Incarnation(*incarnation),
            boot: *boot,
        };
        let _ = record.begin(MemberId(*member), run);
    }
    record
}

/// Member 1 has new data for the third time.
fn small_record() -> ShardRecord {
    let leader = Some((Term(4), MemberId(300)));
    let starts = [(1, 7, 3), (300, u64::MAX, 1), (1, 9, 2), (1, 8, 0x0102)];
    record(0x0506, leader, &starts)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

// Frozen with format 1. Seen to fail with big-endian numbers, and with a member's fields in another
// order.
#[test]
fn golden_bytes() {
    let golden = [
        "01",
        "0d6f6e65206c6561647320e29c93",
        "03",
        "01000000 0700000000010000 02 01 0600 0161",
        "04030201 0700000000040302 00 ffffffffffffffffff01 0000 026263",
        "09000000 0700000000090000 01 ffffffffffffffffff01 0200 00",
    ];
    assert_eq!(hex(&small().encode()), golden.concat().replace(' ', ""));
    let golden = [
        "01",
        "0300000000000000 0807060504030201",
        "0c73656d695f73796e63283129",
        "02",
        "01000000 0700000000000000",
        "2c010000 ffffffffffffffff",
    ];
    assert_eq!(hex(&barrier().encode()), golden.concat().replace(' ', ""));
    let golden = [
        "01",
        "0605000000000000",
        "01 0400000000000000 2c010000",
        "02",
        "01000000 0800000000000000 0201000000000000",
        "2c010000 ffffffffffffffff 0100000000000000",
        "02",
        "01000000 0700000000000000",
        "01000000 0900000000000000",
    ];
    assert_eq!(
        hex(&small_record().encode()),
        golden.concat().replace(' ', "")
    );
    let empty = ShardRecord::default().encode();
    assert_eq!(hex(&empty), "0100000000000000000000 00".replace(' ', ""));
}

// Seen to fail with the name left out, and with the policy asked who never was.
#[test]
fn a_policy_of_ones_own_comes_back() {
    let config = small();
    let back = Config::decode(&config.encode()).unwrap();
    assert_eq!(back, config);
    assert_eq!(back.quorums().report(), config.quorums().report());
    assert_eq!(back.quorums().policy(), "one leads \u{2713}");
    let leads: Vec<bool> = (0..3).map(|place| back.quorums().may_lead(place)).collect();
    assert_eq!(leads, [true, false, false]);
}

/// An error of a config with other bytes in some place.
fn error(at: usize, bytes: &[u8]) -> String {
    let mut config = small().encode();
    config.splice(at..at + bytes.len(), bytes.iter().copied());
    Config::decode(&config).unwrap_err().to_string()
}

// Each check by itself. Seen to fail with each left out.
#[test]
fn what_no_encoder_writes_is_refused() {
    let texts = [
        (0, &[2][..], "byte 0: expected format 1, found 2"),
        (12, &[0xff], "byte 12: expected UTF-8, found ff"),
        (15, &[0], "byte 15: expected 1 to 16 members, found 0"),
        (15, &[17], "byte 15: expected 1 to 16 members, found 17"),
        (15, &[4], "byte 88: expected 4 bytes, found 0 to the end"),
        (28, &[4], "byte 28: expected flags 0 to 3, found 4"),
        (
            29,
            &[0x80, 0],
            "byte 30: expected a varint in its shortest form, found a trailing zero byte",
        ),
        (
            30,
            &[7, 0],
            "byte 30: expected places below 3, without 0, found bits 0x0007",
        ),
        (
            30,
            &[8, 0],
            "byte 30: expected places below 3, without 0, found bits 0x0008",
        ),
        (
            28,
            &[0],
            "policy one leads \u{2713}: expected a member that may lead, found none",
        ),
        (
            29,
            &[3],
            "expected 3 members that may acknowledge for member 1, found 2",
        ),
        (34, &[1, 0, 0, 0], "expected member 1 once, found it twice"),
        (
            46,
            &[2],
            "expected at most 9223372036854775807 acknowledgements, found 18446744073709551615",
        ),
    ];
    for (at, bytes, text) in texts {
        let found = error(at, bytes);
        assert!(found.starts_with("config, byte "), "{found}");
        assert!(found.ends_with(text), "{found}");
    }
    let mut bytes = barrier().encode();
    bytes[31..35].copy_from_slice(&300_u32.to_le_bytes());
    let twice = CodecError {
        what: "barrier",
        offset: 43,
        expected: "a member above member 300".into(),
        found: "member 300".into(),
    };
    assert_eq!(Barrier::decode(&bytes), Err(twice));
    // A length of all memory, of nothing.
    let long = [&[1][..], &[0xff; 9], &[1]].concat();
    let text = Config::decode(&long).unwrap_err().to_string();
    assert_eq!(
        text,
        "config, byte 11: expected 18446744073709551615 bytes, found 0 to the end"
    );
}

// Each check by itself. Seen to fail with each left out.
#[test]
fn a_record_that_no_encoder_writes_is_refused() {
    let bytes = small_record().encode();
    let texts = [
        (0, &[2][..], "byte 0: expected format 1, found 2"),
        (9, &[2], "byte 9: expected 0 or 1 leaders, found 2"),
        (63, &[3], "byte 88: expected 4 bytes, found 0 to the end"),
        (
            43,
            &[1, 0],
            "byte 43: expected a member above member 1, found member 1",
        ),
        (63, &[1], "byte 76: expected the end, found 12 bytes more"),
        (
            68,
            &[9],
            "byte 76: expected data above data 0x9 of member 1, found data 0x9 of member 1",
        ),
        (
            80,
            &[8],
            "byte 76: expected data that member 1 has no more, found data 0x8 of member 1",
        ),
    ];
    for (at, part, text) in texts {
        let mut bytes = bytes.clone();
        bytes.splice(at..at + part.len(), part.iter().copied());
        let found = ShardRecord::decode(&bytes).unwrap_err().to_string();
        assert_eq!(found, format!("shard record, {text}"));
    }
    // Lengths of all memory, of nothing.
    for at in [22, 63] {
        let long = [&bytes[..at], &[0xff; 9], &[1]].concat();
        let found = ShardRecord::decode(&long).unwrap_err().to_string();
        let text = format!("byte {}: expected 4 bytes, found 0 to the end", at + 10);
        assert_eq!(found, format!("shard record, {text}"));
    }
}

fn members() -> impl Strategy<Value = Vec<Member>> {
    let zone = prop_oneof![Just("a"), Just("b"), Just("zone \u{e9}"), Just("")];
    let member = (any::<u32>(), zone, prop::bool::weighted(0.3));
    prop::collection::vec(member, 1..=9).prop_map(|members| {
        let member = |(id, zone, reader)| match reader {
            true => Member::reader(id, zone),
            false => Member::voter(id, zone),
        };
        members.into_iter().map(member).collect()
    })
}

fn policy() -> impl Strategy<Value = Box<dyn DurabilityPolicy>> {
    let semi = (0_usize..4, any::<bool>(), any::<bool>());
    prop_oneof![
        1 => Just(()).prop_map(|()| Box::new(NoAcks) as Box<dyn DurabilityPolicy>),
        6 => semi.prop_map(|(acks, cross, readers)| {
            let policy = if cross { SemiSync::cross_zone(acks) } else { SemiSync::new(acks) };
            let policy = if readers { policy.with_readers() } else { policy };
            Box::new(policy) as Box<dyn DurabilityPolicy>
        }),
    ]
}

fn configs() -> impl Strategy<Value = Config> {
    let fits = (policy(), members()).prop_filter_map("no such quorums", |(policy, members)| {
        Some((Quorums::new(&*policy, &members).ok()?, members.len()))
    });
    fits.prop_flat_map(|(quorums, count)| {
        let incarnations = prop::collection::vec(any::<u64>().prop_map(Incarnation), count);
        incarnations.prop_map(move |inc| Config::new(quorums.clone(), inc).unwrap())
    })
}

fn barriers() -> impl Strategy<Value = Barrier> {
    let reached = prop::collection::btree_map(any::<u32>(), any::<u64>(), 0..20);
    (any::<(u64, u64)>(), reached, ".{0,20}").prop_map(|((term, lsn), reached, policy)| Barrier {
        chosen: Point {
            term: Term(term),
            lsn: Lsn(lsn),
        },
        reached: reached
            .into_iter()
            .map(|(id, incarnation)| (MemberId(id), Incarnation(incarnation)))
            .collect(),
        policy,
    })
}

fn records() -> impl Strategy<Value = ShardRecord> {
    // Few members and little data, so that old data is put back.
    let start = (0_u32..5, prop_oneof![0_u64..4, any::<u64>()], any::<u64>());
    let starts = prop::collection::vec(start, 0..12);
    let leader = prop::option::of(any::<(u64, u32)>());
    (any::<u64>(), leader, starts).prop_map(|(term, leader, starts)| {
        let leader = leader.map(|(term, member)| (Term(term), MemberId(member)));
        record(term, leader, &starts)
    })
}

/// B1: what is taken encodes to what was taken.
fn refused_or_the_same(bytes: &[u8]) {
    if let Ok(config) = Config::decode(bytes) {
        assert_eq!(config.encode(), bytes);
    }
    if let Ok(barrier) = Barrier::decode(bytes) {
        assert_eq!(barrier.encode(), bytes);
    }
    if let Ok(record) = ShardRecord::decode(bytes) {
        assert_eq!(record.encode(), bytes);
    }
}

/// Every part from the front is refused, so is a byte more, and every change is or means another.
fn check_changes<T: PartialEq>(bytes: &[u8], decode: impl Fn(&[u8]) -> Result<T, CodecError>) {
    let value = decode(bytes).ok();
    for len in 0..bytes.len() {
        assert!(decode(&bytes[..len]).is_err(), "{len} bytes");
    }
    assert!(decode(&[bytes, &[0]].concat()).is_err(), "one more");
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut other = bytes.to_vec();
            other[at] ^= 1 << bit;
            refused_or_the_same(&other);
            assert!(decode(&other).ok() != value, "byte {at}, bit {bit}");
        }
    }
}

proptest! {
    // Seen to fail with roles exchanged, and with the incarnations in another order.
    #[test]
    fn configs_come_back(config in configs()) {
        let bytes = config.encode();
        prop_assert_eq!(Config::decode(&bytes).unwrap(), config);
        check_changes(&bytes, Config::decode);
    }

    #[test]
    fn barriers_come_back(barrier in barriers()) {
        let bytes = barrier.encode();
        prop_assert_eq!(Barrier::decode(&bytes).unwrap(), barrier);
        check_changes(&bytes, Barrier::decode);
    }

    // Seen to fail with incarnation and start exchanged, and with what is retired left out.
    #[test]
    fn records_come_back(record in records()) {
        let bytes = record.encode();
        prop_assert_eq!(ShardRecord::decode(&bytes).unwrap(), record);
        check_changes(&bytes, ShardRecord::decode);
    }

    #[test]
    fn any_bytes_are_refused_or_the_same(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        refused_or_the_same(&bytes);
        bytes.insert(0, 1);
        refused_or_the_same(&bytes);
    }
}
