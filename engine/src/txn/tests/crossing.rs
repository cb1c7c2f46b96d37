//! The rule of serializable commits on the shipped code: pairs of transactions and a reader of the
//! prefix, switched at every lock as a seed draws, against all serial orders.

use std::ops::Bound;
use std::sync::{Arc, Mutex};

use terrane_wal::env::SimEnv;

use super::{Rows, sim_open};
use crate::ErrorKind;
use crate::Read;
use crate::txn::raw::{Legged, RawRead};

/// A transaction of two rows: from what it reads, the row that it writes and its value.
type Step = fn(&dyn Fn(&str) -> i64) -> (&'static str, i64);
/// The rows `x` and `y`.
type State = [i64; 2];

fn place(key: &str) -> usize {
    usize::from(key == "y")
}

/// Two transactions and a reader of the prefix, each on a thread of its own, switched at every lock
/// as the seed draws: which of the two committed, what the reader saw in one snapshot after the
/// other, how it ended, and how many were voided after they had been sequenced.
fn crossing(seed: u64, steps: [Step; 2]) -> ([bool; 2], Vec<State>, State, u64) {
    let sim = SimEnv::new(seed);
    let db = sim_open(&sim);
    let rows = Rows::open(&db, "t");
    db.write(|tx| ["x", "y"].iter().try_for_each(|key| rows.put(tx, key, "0")))
        .unwrap();
    sim.preempt_at_locks(true);
    let done = Arc::new(Mutex::new(([false; 2], Vec::new())));
    let mut bodies: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
    for (me, step) in steps.into_iter().enumerate() {
        let (db, rows, done) = (db.clone(), rows.clone(), done.clone());
        bodies.push(Box::new(move || {
            let mut tx = db.begin();
            let (key, value) = step(&|key| number(&rows, &tx, key));
            rows.put(&mut tx, key, &value.to_string()).unwrap();
            match tx.commit() {
                Ok(_) => done.lock().unwrap().0[me] = true,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
            }
        }));
    }
    let (reader, seen, read) = (db.clone(), done.clone(), rows.clone());
    bodies.push(Box::new(move || {
        for _ in 0..12 {
            for _ in 0..seed % 7 {
                reader.core().env.park.yield_now();
            }
            let now = reader.snapshot();
            let state = ["x", "y"].map(|key| number(&read, &now, key));
            seen.lock().unwrap().1.push(state);
        }
    }));
    let spawn = |body| sim.env().spawn.spawn("crossing", body).unwrap();
    let threads: Vec<_> = bodies.into_iter().map(spawn).collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    let now = db.snapshot();
    let end = ["x", "y"].map(|key| number(&rows, &now, key));
    // X2: what was voided does not stop the next commit.
    db.write(|tx| rows.put(tx, "next", "1")).unwrap();
    let (committed, seen) = done.lock().unwrap().clone();
    (committed, seen, end, db.stats().log.voids)
}

fn number(rows: &Rows, read: &impl Read, key: &str) -> i64 {
    // By range and by key in turns of what is read.
    let text = match key {
        "x" => rows.range(read, "x", "y", false).unwrap().replace("x=", ""),
        key => rows.get(read, key).unwrap().unwrap(),
    };
    text.parse().unwrap()
}

/// What reader and end may be in some serial order of those that committed (the reader is 2).
fn serial(steps: [Step; 2], committed: [bool; 2]) -> Vec<(State, State)> {
    let orders = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ];
    let run = |order: [usize; 3]| {
        let (mut state, mut seen) = ([0; 2], [0; 2]);
        for who in order {
            match steps.get(who) {
                Some(step) if committed[who] => {
                    let (key, value) = step(&|key| state[place(key)]);
                    state[place(key)] = value;
                }
                Some(_) => {}
                None => seen = state,
            }
        }
        (seen, state)
    };
    orders.map(run).to_vec()
}

/// X4, row 7 of the likeliest mistakes: a crossing pair, and the read-only anomaly of Fekete and
/// others (2004), beside a reader of the prefix. Seen to fail with `changed_between` answering
/// false (validation before sequencing alone), with `check_before` finding nothing, with ranges not
/// noted, and (it hangs, which the world names) with a VOID that is not marked in the prefix.
#[test]
fn crossing_pair_and_prefix_reader() {
    let pairs: [[Step; 2]; 2] = [
        [|get| ("x", get("y") + 1), |get| ("y", get("x") + 1)],
        [
            |get| ("x", get("x") + 20),
            |get| ("y", -10 - i64::from(get("x") + get("y") < 10)),
        ],
    ];
    let (mut voids, mut conflicts, mut between) = (0, 0, 0);
    for seed in 0..400 {
        let steps = pairs[seed as usize % 2];
        let (committed, seen, end, voided) = crossing(seed, steps);
        let possible = serial(steps, committed);
        for seen in seen {
            assert!(
                possible.contains(&(seen, end)),
                "seed {seed}: {committed:?}, seen {seen:?}, end {end:?}; possible {possible:?}"
            );
            between += u32::from(seen != [0; 2] && seen != end);
        }
        voids += voided;
        conflicts += committed.iter().filter(|done| !**done).count();
    }
    println!("crossing pairs: {conflicts} conflicts, {voids} voids, {between} reads between");
    assert!(voids > 0 && conflicts > 20 && between > 20);
}

/// A scan goes on in one thread while its transaction commits in another, and a third inserts a row
/// that the scan does not see. Who inserts reads what the transaction writes: if it saw the row of
/// before and both commit, then the scan has not passed the inserted row. How many rows the scan
/// gave out, whether it was told that the transaction is over, who committed.
fn scan_beside_commit(seed: u64) -> (usize, bool, [bool; 2]) {
    let sim = SimEnv::new(seed);
    let db = sim_open(&sim);
    let rows = Rows::open(&db, "t");
    let there = ["a", "c", "e", "g", "z"];
    db.write(|tx| there.iter().try_for_each(|key| rows.put(tx, key, "0")))
        .unwrap();
    let mut tx = db.begin();
    let (lower, upper) = (Bound::Unbounded, Bound::Excluded(b"y".to_vec()));
    let scan = tx
        .leg(0)
        .unwrap()
        .scan_raw(rows.info.tree, lower, upper, false)
        .unwrap();
    rows.put(&mut tx, "z", "1").unwrap();
    sim.preempt_at_locks(true);
    let env = sim.env();
    let spawn = |body: Box<dyn FnOnce() + Send>| env.spawn.spawn("beside", body).unwrap();
    let given = Arc::new(Mutex::new((Vec::new(), false)));
    let ended = Arc::new(Mutex::new([false; 2]));
    let threads = [
        spawn({
            let given = given.clone();
            Box::new(move || {
                for row in scan {
                    match row {
                        Ok((key, _)) => given.lock().unwrap().0.push(key),
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
                            given.lock().unwrap().1 = true;
                        }
                    }
                }
            })
        }),
        spawn({
            let ended = ended.clone();
            Box::new(move || ended.lock().unwrap()[0] = tx.commit().is_ok())
        }),
        spawn({
            let (db, rows, ended) = (db.clone(), rows.clone(), ended.clone());
            Box::new(move || {
                let mut tx = db.begin();
                let before = rows.get(&tx, "z").unwrap().as_deref() == Some("0");
                rows.put(&mut tx, "d", "1").unwrap();
                let committed = tx.commit().is_ok();
                ended.lock().unwrap()[1] = committed && before;
            })
        }),
    ];
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    let (keys, over) = given.lock().unwrap().clone();
    let ended = *ended.lock().unwrap();
    // The end of the scan is something that it says, too.
    let passed = keys.len() > 2 || !over;
    assert!(!(passed && ended == [true; 2]), "seed {seed}: {keys:?}");
    (keys.len(), over, ended)
}

/// H2. Seen to fail with a scan that looks for the end only before it sets its reach, and with a
/// commit that does not count a scan which is still there.
#[test]
fn a_scan_beside_its_commit_gives_out_nothing_that_is_not_validated() {
    let (mut cut, mut whole, mut both, mut one) = (0, 0, 0, 0);
    for seed in 0..300 {
        let (rows, over, committed) = scan_beside_commit(seed);
        cut += u32::from(over && rows > 0);
        whole += u32::from(!over);
        both += u32::from(committed == [true; 2]);
        one += u32::from(committed[0] != committed[1]);
    }
    println!("scans beside commits: {cut} cut, {whole} whole; {both} both committed, {one} one");
    assert!(cut > 10 && whole > 10 && both > 10 && one > 10);
}
