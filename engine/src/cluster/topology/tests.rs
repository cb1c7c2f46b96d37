//! Records in a database: given out once, kept, refused when damaged; leases by a simulated clock.

use terrane_shard::log::{Incarnation, Term};
use terrane_shard::topology::{Run, update};
use terrane_wal::env::SimEnv;

use super::*;

fn open(sim: &SimEnv, durability: Durability) -> Database {
    let builder = Database::builder().memory_bytes(8 << 20);
    let builder = builder.durability(durability).segment_bytes(1 << 20);
    let builder = builder.env(sim.env()).background(false);
    builder.open("/topology").unwrap()
}

fn shard() -> ShardId {
    "-80".parse().unwrap()
}

// I1. Seen to fail with a swap that does not compare the version, and with a row that is read in a
// snapshot and written in a transaction after it.
#[test]
fn two_handles_give_out_each_term_once() {
    for seed in 0..20 {
        let sim = SimEnv::new(seed);
        let db = open(&sim, Durability::Local);
        let taken: Arc<Mutex<Vec<Term>>> = Arc::default();
        let takers: Vec<_> = (0..4)
            .map(|_| {
                // Each with locks of its own.
                let topology = Embedded::open(db.clone()).unwrap();
                let taken = taken.clone();
                let body = move || {
                    for _ in 0..5 {
                        let term = update(&topology, &shard(), |r| Some(r.next_term(Term(0))));
                        taken.lock().push(term.unwrap().unwrap());
                    }
                };
                sim.env().spawn.spawn("taker", Box::new(body)).unwrap()
            })
            .collect();
        for taker in takers {
            taker.join().unwrap();
        }
        let mut taken = std::mem::take(&mut *taken.lock());
        taken.sort_unstable();
        let all: Vec<Term> = (1..=20).map(Term).collect();
        assert_eq!(taken, all, "seed {seed}");
        let (version, record) = Embedded::open(db).unwrap().read(&shard()).unwrap();
        assert_eq!((version, record.term), (Version(20), Term(20)));
    }
}

// Seen to fail with a version that the record's bytes are not put behind, and with one key for all
// shards.
#[test]
fn records_are_there_after_the_next_open() {
    let sim = SimEnv::new(1);
    let topology = Embedded::open(open(&sim, Durability::Local)).unwrap();
    let other: ShardId = "80-".parse().unwrap();
    assert_eq!(topology.read(&shard()), Ok(Default::default()));
    let enter = |record: &mut ShardRecord| {
        let term = record.next_term(Term(6));
        let incarnation = Incarnation(9);
        let run = Run {
            incarnation,
            boot: 2,
        };
        record.begin(MemberId(3), run).unwrap();
        record.publish(term, MemberId(3)).then(|| record.clone())
    };
    let kept = update(&topology, &shard(), enter).unwrap().unwrap();
    let first = topology.swap(&other, Version(0), &ShardRecord::default());
    assert_eq!(first, Ok(Version(1)));
    // Nothing is written at the end: what a swap has returned is on disk.
    let image = sim.disk().crash(0);
    drop(topology);
    drop(sim);
    let sim = SimEnv::with_disk(2, image);
    let topology = Embedded::open(open(&sim, Durability::Local)).unwrap();
    assert_eq!(topology.read(&shard()), Ok((Version(1), kept.clone())));
    let stale = topology.swap(&shard(), Version(0), &kept).unwrap_err();
    let text = "topology of shard -80: expected version 0, found 1";
    assert_eq!(stale.to_string(), text);
    assert_eq!(topology.watch(&shard(), Version(1)), Ok(None));
    let seen = topology.watch(&shard(), Version(0)).unwrap();
    assert_eq!(seen, Some((Version(1), kept)));
}

// Seen to fail with a default record for a damaged one, and with a swap that does not look at the
// record that it replaces.
#[test]
fn a_damaged_row_is_an_error() {
    let sim = SimEnv::new(3);
    let db = open(&sim, Durability::Local);
    let topology = Embedded::open(db.clone()).unwrap();
    let record = ShardRecord::default();
    let mut row = 1_u64.to_le_bytes().to_vec();
    row.extend(record.encode());
    let (mut format, mut last) = (row.clone(), row.clone());
    format[8] = 7;
    last[..8].fill(0xff);
    let broken = "topology: expected an answer, found none: shard -80: corrupt: a row of the \
                  topology cannot be read";
    let rows = [
        (&row[..5], "(expected_bytes=8, found_bytes=5)"),
        (
            &row[..18],
            "(cause=shard record, byte 10: expected the end of a varint, found no byte below 128)",
        ),
        (
            &format,
            "(cause=shard record, byte 0: expected format 1, found 7)",
        ),
    ];
    for (bytes, text) in rows {
        db.write(|tx| topology.records.put(tx, "-80", &bytes.to_vec()))
            .unwrap();
        let text = format!("{broken} {text}");
        assert_eq!(topology.read(&shard()).unwrap_err().to_string(), text);
        let swapped = topology.swap(&shard(), Version(1), &record).unwrap_err();
        assert_eq!(swapped.to_string(), text);
        assert!(topology.watch(&shard(), Version(1)).is_err());
    }
    db.write(|tx| topology.records.put(tx, "-80", &last))
        .unwrap();
    let found = topology.read(&shard()).unwrap().0;
    let swapped = topology.swap(&shard(), found, &record).unwrap_err();
    let text = format!("{broken} (version={})", u64::MAX);
    assert_eq!(swapped.to_string(), text, "nothing comes after the last");
}

// Seen to fail with the check left out, and with causes left out of the text.
#[test]
fn a_database_that_cannot_keep_records_is_refused() {
    let sim = SimEnv::new(4);
    let error = Embedded::open(open(&sim, Durability::Buffered)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let topology = Embedded::open(open(&sim, Durability::Local)).unwrap();
    topology.db.close().unwrap();
    let swapped = topology.swap(&shard(), Version(0), &ShardRecord::default());
    let text =
        "topology: expected an answer, found none: shard -80: closed: the database is closed";
    assert_eq!(swapped.unwrap_err().to_string(), text);
    assert!(topology.read(&shard()).is_err());
    let caused = Error::new(ErrorKind::Io, "no").caused_by(std::io::Error::other("why"));
    let TopologyError::Unavailable { reason } = unavailable(&caused, &shard()) else {
        panic!("another error");
    };
    assert_eq!(reason, "shard -80: io: no: why");
}

// Seen to fail with a lease that never ends, with one that others may take, with an old grant that
// ends a new one, and with locks that clones do not share.
#[test]
fn a_lock_is_held_by_one_until_its_time_is_over() {
    let sim = SimEnv::new(5);
    let topology = Embedded::open(open(&sim, Durability::Local)).unwrap();
    let clone = topology.clone();
    let lock = |member| topology.lock(&shard(), MemberId(member), 100).unwrap();
    let pass = |ms| sim.clock().advance(Duration::from_millis(ms));
    let first = lock(1).unwrap();
    assert_eq!(clone.lock(&shard(), MemberId(2), 100), Ok(None));
    let other: ShardId = "80-".parse().unwrap();
    assert!(clone.lock(&other, MemberId(2), 100).unwrap().is_some());
    pass(60);
    let again = lock(1).unwrap();
    assert!(again > first);
    topology.unlock(&shard(), first).unwrap();
    pass(60);
    assert_eq!(lock(2), None, "it was asked for again");
    pass(40);
    let second = lock(2).unwrap();
    topology.unlock(&shard(), again).unwrap();
    assert_eq!(lock(1), None, "another's");
    clone.unlock(&shard(), second).unwrap();
    assert!(lock(1).unwrap() > second);
    // Longer than any clock goes.
    assert!(topology.lock(&shard(), MemberId(1), u64::MAX).unwrap() > Some(second));
}
