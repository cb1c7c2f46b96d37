//! Real processes on the real disk: a child writes from several threads and says on a pipe what was
//! acknowledged, the parent kills it at a random moment, sometimes kills the recovery as well, and
//! then looks at what is there.
//!
//! Each commit writes one row in either of two tables, with one number: what was acknowledged must
//! be there, whole (in both tables, with the bytes that it names), and of each thread the rows are
//! a prefix of what it wrote: a commit of a thread begins after its last one was acknowledged.
//!
//! It also writes a few rows with vectors and deletes an older one. Their index is in upkeep while
//! the child is killed: all rows are found in it, its records are sound, and after every second
//! kill upkeep comes to its end, with postings of even size.
//!
//! Seen to fail with a commit that is acknowledged without the wait for its flush, and with a split
//! that no open goes on with.
#![allow(clippy::unwrap_used)] // a test ends at its first surprise

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use terrane::{Database, Record, Table, TableDef, Vector};

/// Tells this binary that it is the child, and in which folder.
const CHILD: &str = "TERRANE_KILL9_CHILD";
/// Where the child's threads go on counting.
const FROM: &str = "TERRANE_KILL9_FROM";
const THREADS: u64 = 3;

const LEFT: TableDef<(u64, u64), Vec<u8>> = TableDef::new("left");
const RIGHT: TableDef<(u64, u64), Vec<u8>> = TableDef::new("right");

/// Rows with vectors of one commit; the first of them is deleted so many numbers later.
const NEAR_ROWS: u64 = 6;
const NEAR_KEPT: u64 = 30;

#[derive(Record)]
struct Near {
    #[terrane(id = 1, vector(metric = "l2"))]
    place: Vector<16>,
}

/// Thread, number, and which of the commit's rows.
type NearKey = (u64, u64, u64);

const NEAR: TableDef<NearKey, Near> = TableDef::new("near");

struct Tables {
    left: Table<(u64, u64), Vec<u8>>,
    right: Table<(u64, u64), Vec<u8>>,
    near: Table<NearKey, Near>,
}

fn open(folder: &Path, background: bool) -> terrane::Result<(Database, Tables)> {
    // Small segments, so that their change and their recycling are met.
    let builder = Database::builder()
        .segment_bytes(256 << 10)
        .background(background)
        .memory_bytes(8 << 20);
    let db = builder.open(folder.join("db"))?;
    let tables = Tables {
        left: db.table(LEFT)?,
        right: db.table(RIGHT)?,
        near: db.table(NEAR)?,
    };
    Ok((db, tables))
}

/// The vector of a row: around a place that wanders with the number.
fn near(key: NearKey) -> Near {
    let mut state = key.0 << 40 | key.1 << 8 | key.2 | 1;
    let place = std::array::from_fn(|at| {
        let noise = (draw(&mut state) % 1000) as f32 / 1000.0;
        ((key.1 / 40 + at as u64 * key.2) % 7) as f32 + noise
    });
    Near {
        place: Vector::from(place),
    }
}

/// Bytes of a row, from its number: now and then longer than a page.
fn value(thread: u64, number: u64) -> Vec<u8> {
    let len = match number % 50 {
        7 => 20_000,
        n => 20 + n as usize * 9,
    };
    let mut value = format!("{thread}/{number}/").into_bytes();
    value.resize(len.max(value.len()), b'a' + (number % 26) as u8);
    value
}

/// The child: opens, says so, writes until it is killed.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(CHILD) else {
        return;
    };
    let from: u64 = std::env::var(FROM).unwrap().parse().unwrap();
    let (db, tables) = open(Path::new(&folder), true).unwrap();
    say("open".to_owned());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (db, tables) = (&db, &tables);
            scope.spawn(move || {
                for number in from.. {
                    let value = value(thread, number);
                    db.write(|tx| {
                        tables.left.put(tx, (thread, number), &value)?;
                        for row in 0..NEAR_ROWS {
                            let key = (thread, number, row);
                            tables.near.put(tx, key, &near(key))?;
                        }
                        if number >= from + NEAR_KEPT {
                            tables.near.delete(tx, (thread, number - NEAR_KEPT, 0))?;
                        }
                        tables.right.put(tx, (thread, number), &value)
                    })
                    .unwrap();
                    say(format!("ack {thread} {number}"));
                    if number % 40 == 39 && thread == 0 {
                        db.checkpoint().unwrap();
                    }
                }
            });
        }
    });
}

/// One line to the parent, in one write.
fn say(line: String) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n@{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

fn start(folder: &Path, from: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, folder)
        .env(FROM, from.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Sleeps without asking the clock: a timeout on a channel that nobody sends to.
fn pause(time: Duration) {
    let (_sender, receiver) = std::sync::mpsc::channel::<()>();
    let _ = receiver.recv_timeout(time);
}

/// Lets the child run for a while, kills it, and returns what it said: whether it came to be open,
/// and the last acknowledged number of each thread.
fn run_and_kill(mut child: Child, after_open: Option<Duration>, at_once: Duration) -> Acks {
    let out = BufReader::new(child.stdout.take().unwrap());
    let (sender, opened) = std::sync::mpsc::channel();
    let reader = std::thread::Builder::new();
    let reader = reader.spawn(move || {
        let mut acks = Acks::default();
        // What was in the pipe when the child died still counts.
        for line in out.lines().map_while(Result::ok) {
            match line
                .strip_prefix('@')
                .map(|line| line.split(' ').collect::<Vec<_>>())
            {
                Some(words) if words == ["open"] => {
                    acks.open = true;
                    let _ = sender.send(());
                }
                Some(words) if words.len() == 3 => {
                    let (thread, number) = (words[1].parse().unwrap(), words[2].parse().unwrap());
                    acks.last.insert(thread, number);
                    acks.count += 1;
                }
                _ => {}
            }
        }
        acks
    });
    let reader = reader.unwrap();
    match after_open {
        Some(time) => {
            let _ = opened.recv_timeout(Duration::from_secs(60));
            pause(time);
        }
        None => pause(at_once),
    }
    // SIGKILL.
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

#[derive(Default)]
struct Acks {
    open: bool,
    count: u64,
    last: BTreeMap<u64, u64>,
}

/// The folder's database against what was acknowledged, and against the first numbers of all runs;
/// returns the next unused number.
fn look(folder: &Path, acknowledged: &BTreeMap<u64, u64>, starts: &[u64], cycle: u64) -> u64 {
    let opened = open(folder, false);
    let (db, tables) = opened.unwrap_or_else(|error| panic!("cycle {cycle}: {error}"));
    let now = db.snapshot();
    let rows: Vec<((u64, u64), Vec<u8>)> = tables.left.iter(&now).map(Result::unwrap).collect();
    let others: Vec<((u64, u64), Vec<u8>)> = tables.right.iter(&now).map(Result::unwrap).collect();
    assert_eq!(rows.len(), others.len(), "cycle {cycle}: half a commit");
    let mut highest: BTreeMap<u64, u64> = BTreeMap::new();
    let mut runs: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for (row, other) in rows.iter().zip(&others) {
        assert!(
            row == other,
            "cycle {cycle}: tables differ at {:?} and {:?}",
            row.0,
            other.0
        );
        let (thread, number) = row.0;
        assert!(
            row.1 == value(thread, number),
            "cycle {cycle}: bytes of {:?}",
            row.0
        );
        highest.insert(thread, number);
        runs.entry(thread).or_default().push(number);
    }
    for (thread, last) in acknowledged {
        let found = highest.get(thread).copied();
        assert!(
            found >= Some(*last),
            "cycle {cycle}: thread {thread} lost {last}, has {found:?}"
        );
    }
    for (thread, numbers) in runs {
        for start in starts {
            let end = starts.iter().filter(|other| *other > start).min().copied();
            let end = end.unwrap_or(u64::MAX);
            let run = numbers
                .iter()
                .filter(|number| (*start..end).contains(number));
            let holes = run
                .zip(*start..)
                .find(|(number, wanted)| **number != *wanted);
            assert!(
                holes.is_none(),
                "cycle {cycle}: thread {thread} has a hole: {holes:?}"
            );
        }
    }
    drop(now);
    let numbers: BTreeSet<(u64, u64)> = rows.iter().map(|row| row.0).collect();
    look_near(&db, &tables.near, &numbers, starts, cycle);
    drop((tables, db));
    let report = terrane::check(folder.join("db")).unwrap();
    assert!(report.is_sound(), "cycle {cycle}: {:?}", report.findings);
    highest.values().max().map_or(0, |number| number + 1)
}

/// Rows with vectors are those of the numbers that are there; the index finds all of them.
fn look_near(
    db: &Database,
    table: &Table<NearKey, Near>,
    numbers: &BTreeSet<(u64, u64)>,
    starts: &[u64],
    cycle: u64,
) {
    // The commit that deletes a row is of the same run as the one that wrote it.
    let is_gone = |thread: u64, number: u64| {
        let later = number + NEAR_KEPT;
        let apart = starts
            .iter()
            .any(|start| (number + 1..=later).contains(start));
        !apart && numbers.contains(&(thread, later))
    };
    let all = numbers.iter().flat_map(|(thread, number)| {
        let rows = u64::from(is_gone(*thread, *number))..NEAR_ROWS;
        rows.map(|row| (*thread, *number, row))
    });
    let wanted: BTreeSet<NearKey> = all.collect();
    if cycle % 2 == 1 {
        let ends = (0..20).all(|_| (0..100_000).any(|_| !db.background_step()));
        let upkeep = db.stats().vectors[0].upkeep;
        let under_way = [upkeep.queue, upkeep.draining, upkeep.receiving];
        assert!(ends && under_way == [0; 3], "cycle {cycle}: {upkeep:?}");
        // As far as sums tell: none but a lone posting is below its least, none above its most.
        let (live, ready) = (upkeep.live, upkeep.ready as u64);
        assert_eq!(live, wanted.len() as u64, "cycle {cycle}");
        assert!(live <= ready * 224, "cycle {cycle}: {upkeep:?}");
        assert!(ready < 2 || live >= ready * 28, "cycle {cycle}: {upkeep:?}");
    }
    let now = db.snapshot();
    let found: Vec<(NearKey, Near)> = table.iter(&now).map(Result::unwrap).collect();
    let keys: BTreeSet<NearKey> = found.iter().map(|row| row.0).collect();
    assert!(keys == wanted, "cycle {cycle}: rows with vectors");
    for (key, row) in &found {
        assert!(row.place == near(*key).place, "cycle {cycle}: {key:?}");
    }
    let k = wanted.len().min(10_000);
    let search = table.nearest(Near::PLACE, &near((0, 0, 0)).place, k);
    let hits = search.advanced().probes(1 << 20).run(&now).unwrap();
    let hit: BTreeSet<NearKey> = hits.iter().map(|hit| hit.key).collect();
    assert_eq!(hit.len(), k, "cycle {cycle}: the index has other rows");
    assert!(hit.is_subset(&wanted), "cycle {cycle}");
    println!(
        "cycle {cycle}: {} rows with vectors in {} postings",
        wanted.len(),
        db.stats().vectors[0].upkeep.ready
    );
}

/// Numbers that need not be good: moments of kills.
fn draw(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let cycles: u64 = std::env::var("TERRANE_KILLS").map_or(8, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mut state = u64::from(std::process::id()) | 1 << 40;
    println!("kill -9: seed {state}");
    let (mut from, mut acks, mut recoveries) = (0, 0, 0);
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    let mut starts = Vec::new();
    for cycle in 1..=cycles {
        let run = Duration::from_millis(20 + draw(&mut state) % 400);
        starts.push(from);
        let said = run_and_kill(start(folder.path(), from), Some(run), Duration::ZERO);
        assert!(
            said.open,
            "cycle {cycle}: the child never opened its database"
        );
        acks += said.count;
        last.extend(said.last);
        if cycle % 2 == 0 {
            // The recovery of what was left, killed as well, as far as it may be.
            let early = Duration::from_micros(draw(&mut state) % 60_000);
            let far = from + 1_000_000;
            starts.push(far);
            let said = run_and_kill(start(folder.path(), far), None, early);
            recoveries += 1;
            acks += said.count;
            last.extend(said.last);
        }
        // A number is used once, so that a lost row cannot hide behind a newer one.
        from = look(folder.path(), &last, &starts, cycle);
    }
    println!("kill cycles {cycles}: {acks} acknowledged, {recoveries} recoveries killed, 0 lost");
    assert!(acks > 0, "nothing was ever acknowledged");
}
