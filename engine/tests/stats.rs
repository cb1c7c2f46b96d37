//! What a database counts, and what it holds to: which way its I/O goes, how much memory old
//! versions take, and that no commit waits for a checkpoint.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something unexpected happens"
)]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use terrane::{Database, ErrorKind, Io, Stats, TableDef};

const ROWS: TableDef<u64, Vec<u8>> = TableDef::new("rows");

/// Purposes as `IoCounts` numbers them.
const LOG: usize = 0;
const MISS: usize = 1;
const PREFETCH: usize = 2;
const CHECKPOINT: usize = 3;
const EVICT: usize = 4;
const REPLAY: usize = 5;

fn builder() -> terrane::Builder {
    Database::builder()
        .memory_bytes(4 << 20)
        .segment_bytes(256 << 10)
        .background(false)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, target).unwrap();
        }
    }
}

/// Loads more than memory holds, with checkpoints, then reopens as after a kill: what the first
/// database counted, and the second one.
fn run(io: Io) -> (Stats, Stats) {
    let folder = tempfile::tempdir().unwrap();
    let (dir, killed) = (folder.path().join("db"), folder.path().join("killed"));
    let db = builder().io(io).open(&dir).unwrap();
    let rows = db.table(ROWS).unwrap();
    for batch in 0..40 {
        db.write(|tx| {
            (0..200).try_for_each(|n| {
                let key = (n * 40 + batch) * 0x9e37 % 10_007;
                rows.put(tx, key, &vec![batch as u8; 900])
            })
        })
        .unwrap();
        if batch % 10 == 5 {
            db.checkpoint().unwrap();
        }
    }
    let first = db.stats();
    copy(&dir, &killed);
    let again = builder().io(io).open(&killed).unwrap();
    let table = again.table(ROWS).unwrap();
    assert_eq!(
        table.count(&again.snapshot()).unwrap(),
        rows.count(&db.snapshot()).unwrap()
    );
    (first, again.stats())
}

/// Seen failing with the batch of the checkpoint replaced by lone writes, with the leaves of a
/// commit not read ahead, and with the reads of replay counted as misses.
#[test]
fn operations_are_counted_by_backend_and_path() {
    let (first, again) = run(Io::Pool);
    assert_eq!(format!("{:?}", first.backend), "Pool");
    let mut runs = vec![(first, again)];
    let (first, again) = run(Io::Auto);
    if format!("{:?}", first.backend) == "Uring" {
        runs.push((first, again));
    } else {
        // Past the harness, which would keep a `println` for itself.
        let _ = writeln!(std::io::stdout(), "\nSKIPPED: ring: the kernel gives none");
    }
    for (first, again) in &runs {
        let (batched, lone) = (first.io.batched, first.io.lone);
        // Pages of a checkpoint and of eviction go in batches, whatever serves them.
        assert!(batched[CHECKPOINT] > 20, "{batched:?}");
        assert!(batched[EVICT] > 100, "{batched:?}");
        // So do the leaves that a commit of many rows or a scan is about to need.
        assert!(batched[PREFETCH] > 100, "{batched:?}");
        assert_eq!(lone[PREFETCH], 0, "{lone:?}");
        assert_eq!((lone[EVICT], batched[LOG]), (0, 0), "{lone:?}");
        // A flush of the log is one lone durable write, and so is a read that somebody waits for.
        let flushes = first.log.flushes + first.log.vouching_frames;
        assert!(lone[LOG] >= flushes, "{lone:?} for {flushes} flushes");
        assert_eq!(batched[MISS], 0, "{batched:?}");
        assert!(first.io.flushes >= flushes);
        assert!(first.io.bytes_written > first.log.bytes_written);
        // Replay reads log and maps alone, the leaves that the log names in batches.
        let (batched, lone) = (again.io.batched, again.io.lone);
        assert!(lone[REPLAY] > 3, "{lone:?}");
        assert!(batched[REPLAY] > 20, "{batched:?}");
        assert!(
            again.io.batched[CHECKPOINT] > 0,
            "the checkpoint after replay"
        );
    }
    if let [pool, ring] = &runs[..] {
        same_work(pool, ring);
    }
}

/// The same work is the same operations by the same path on either backend, but for what eviction
/// chances on: it depends on when a completion comes.
fn same_work((pool, pool_again): &(Stats, Stats), (ring, ring_again): &(Stats, Stats)) {
    let fixed = |stats: &Stats| {
        let (io, log) = (&stats.io, &stats.log);
        let by_path = [io.lone[LOG], io.lone[REPLAY], io.batched[REPLAY]];
        (by_path, log.flushes, log.bytes_written)
    };
    assert_eq!(fixed(pool), fixed(ring));
    assert_eq!(fixed(pool_again), fixed(ring_again));
    let chance = |stats: &Stats| {
        let io = &stats.io;
        let written = io.batched[CHECKPOINT] + io.batched[EVICT];
        [written, io.batched[PREFETCH], io.lone[MISS]]
    };
    let near = |a: u64, b: u64| a.abs_diff(b) <= 10 + a.max(b) / 5;
    for (pool, ring) in [(pool, ring), (pool_again, ring_again)] {
        let pairs = chance(pool).into_iter().zip(chance(ring));
        for (a, b) in pairs {
            assert!(near(a, b), "{:?} {:?}", pool.io, ring.io);
        }
    }
}

/// Seen to fail with read positions left out of the collector's horizon.
#[test]
fn a_long_snapshot_stays_in_its_budget_or_ends() {
    const BUDGET: u64 = 256 << 10;
    let folder = TempDir::new().unwrap();
    let db = builder()
        .version_bytes(BUDGET as usize)
        .open(folder.path().join("db"))
        .unwrap();
    let rows = db.table(ROWS).unwrap();
    let put = |round: u8| {
        let written =
            db.write(|tx| (0..20).try_for_each(|key| rows.put(tx, key, &vec![round; 500])));
        written.unwrap();
        while db.background_step() {}
    };
    put(0);
    let old = db.snapshot();
    let mut ended = None;
    for round in 1..120 {
        put(round);
        let stats = db.stats();
        // What one commit adds may come on top before the next round of the collector.
        assert!(
            stats.recent_bytes <= BUDGET + 32_000,
            "{}",
            stats.recent_bytes
        );
        assert!(stats.store.pool_used_bytes <= stats.store.pool_bytes);
        match rows.get(&old, 7) {
            Ok(found) => assert_eq!(found, Some(vec![0; 500]), "it never moves"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::SnapshotTooOld, "{error:?}");
                ended.get_or_insert(round);
            }
        }
        assert!(
            ended.is_none() || rows.get(&old, 7).is_err(),
            "it does not come back"
        );
    }
    let ended = ended.expect("1 MiB of old versions do not fit into 256 KiB");
    assert!(
        ended > 5,
        "given up after {ended} rounds, long before its budget"
    );
    assert!(db.stats().snapshots_too_old > 0);
    drop(old);
    put(200);
    assert!(
        db.stats().recent_bytes < 64 << 10,
        "{}",
        db.stats().recent_bytes
    );
}

/// Between any two steps of a checkpoint another thread commits; it never waits for the next step.
/// Seen to fail with commits that wait until no checkpoint is under way.
#[test]
fn a_commit_goes_through_between_any_two_steps_of_a_checkpoint() {
    let folder = TempDir::new().unwrap();
    let (dir, killed) = (folder.path().join("db"), folder.path().join("killed"));
    let db = builder().open(&dir).unwrap();
    let rows = db.table(ROWS).unwrap();
    db.write(|tx| (0..1500).try_for_each(|key| rows.put(tx, key, &vec![0; 700])))
        .unwrap();
    let (ask, asked) = mpsc::channel::<u64>();
    let (answer, answered) = mpsc::channel::<terrane::Result<()>>();
    let commit = |step: u64| {
        // Rows of pages that the checkpoint has, and new ones that split pages.
        db.write(|tx| {
            rows.put(tx, step * 37 % 1500, &vec![1; 700])?;
            rows.put(tx, 10_000 + step, &vec![step as u8; 700])
        })
    };
    let mut steps = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            for step in asked {
                answer.send(commit(step)).unwrap();
            }
        });
        let mut published = 0;
        while published < 2 {
            published += u32::from(db.checkpoint_step().unwrap());
            ask.send(steps).unwrap();
            let outcome = answered.recv_timeout(Duration::from_secs(20));
            outcome.expect("a commit waits for a checkpoint").unwrap();
            steps += 1;
            assert!(steps < 50_000, "the checkpoint does not end");
        }
        drop(ask);
    });
    assert!(steps > 10, "{steps} steps");
    assert!(
        db.stats().store.pages_copied > 0,
        "no page was met that a checkpoint had"
    );
    copy(&dir, &killed);
    let report = terrane::check(&killed).unwrap();
    assert_eq!(report.findings, []);
    assert_eq!(report.rows, 1500 + steps);
}
