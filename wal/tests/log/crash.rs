//! Power cuts, failing calls and a full disk: what was acknowledged is there, what is there is a
//! prefix of what was sequenced.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rustix::io::Errno;
use terrane_wal::env::SimEnv;
use terrane_wal::io::sim::{CrashCaps, Fault, Image, ImageKind, OpKind, SimDisk};
use terrane_wal::lsn::Lsn;
use terrane_wal::{Level, Log, LogOptions, WalError};

use crate::support::*;

/// What the workload knows at a moment.
#[derive(Clone, Debug, Default)]
struct Known {
    acked: BTreeSet<u64>,
    /// Position and number of every sequenced entry.
    order: BTreeMap<Lsn, u64>,
    /// The log was trimmed below this at most.
    redo: Lsn,
}

/// An image, and what was known when it was taken.
struct Cut {
    kind: ImageKind,
    image: Image,
    known: Known,
}

/// Opens the image and compares with what was known; `order` is the final order of entries.
fn check(cut: &Cut, order: &BTreeMap<Lsn, u64>, seed: u64) -> (SimDisk, Vec<u64>) {
    let disk = SimDisk::from_image(&cut.image);
    let env = env(Arc::new(disk.clone()), seed);
    let how = cut.image.how();
    let opened = match open_at(&env, cut.known.redo, small()) {
        Ok(opened) => opened,
        Err(error) => panic!("{how}: {error}"),
    };
    let sequenced: Vec<u64> = order
        .range(next(cut.known.redo)..)
        .map(|(_, &n)| n)
        .collect();
    let n = opened.numbers.len();
    assert_eq!(opened.numbers, sequenced[..n], "{how}: not a prefix");
    for (lsn, number) in order.range(next(cut.known.redo)..) {
        let acked = cut.known.acked.contains(number);
        assert!(
            !acked || *lsn <= opened.recovery.end,
            "{how}: lost {number}"
        );
    }
    (disk, opened.numbers)
}

fn next(lsn: Lsn) -> Lsn {
    lsn.advance(1)
}

/// Committers in groups, a switch of segments every few commits, trims and recycling, idle ticks.
fn workload(seed: u64, caps: CrashCaps) -> (Vec<Cut>, BTreeMap<Lsn, u64>, terrane_wal::LogStats) {
    let sim = SimEnv::new(seed);
    sim.preempt_at_locks(seed == 2);
    let env = sim.env();
    let options = LogOptions {
        max_flushes_in_flight: 4,
        ..small()
    };
    let log = Log::create(&env, dir(), UUID, options).unwrap();
    let known = Arc::new(Mutex::new(Known::default()));
    let cuts = Arc::new(Mutex::new(Vec::new()));
    {
        let (known, cuts) = (Arc::clone(&known), Arc::clone(&cuts));
        sim.disk().on_io(move |disk, event| {
            let known = known.lock().unwrap().clone();
            let mut cuts = cuts.lock().unwrap();
            for (kind, image) in disk.crash_images(seed ^ event.boundary, &caps) {
                cuts.push(Cut {
                    kind,
                    image,
                    known: known.clone(),
                });
            }
        });
    }
    let committers: Vec<_> = (0..6u64)
        .map(|t| {
            let (log, known) = (Arc::clone(&log), Arc::clone(&known));
            let body = move || {
                for i in 0..6 {
                    let number = t * 100 + i;
                    let len = [90, 300, 5000, 700][((t + i) % 4) as usize];
                    let place = append(&log, entry(number, len)).unwrap();
                    known.lock().unwrap().order.insert(place.end, number);
                    log.wait(Level::Durable, place.end).unwrap();
                    known.lock().unwrap().acked.insert(number);
                    if t == 0 && i % 3 == 2 {
                        known.lock().unwrap().redo = place.end;
                        log.trim(place.end).unwrap();
                        log.tick();
                    }
                }
            };
            env.spawn.spawn("committer", Box::new(body)).unwrap()
        })
        .collect();
    for committer in committers {
        committer.join().unwrap();
    }
    log.tick();
    let stats = log.stats();
    sim.disk().off_io();
    let order = known.lock().unwrap().order.clone();
    let cuts = std::mem::take(&mut *cuts.lock().unwrap());
    (cuts, order, stats)
}

// Every I/O boundary of commits in groups, of segment switches and of trim and recycling, all
// kinds of images; then a second crash inside the recovery. Seen failing with: completion before
// the write, `durable` passing over flights that are not done, and frames written without the
// durable flag.
#[test]
fn every_boundary_recovers_a_prefix_with_all_acknowledged() {
    let mut kinds: BTreeMap<ImageKind, u64> = BTreeMap::new();
    let mut second = 0u64;
    let mut grouped = false;
    let (mut recycled, mut overtaken) = (0, 0);
    for seed in 1..=3 {
        let (cuts, order, stats) = workload(seed, CrashCaps::at_most(12));
        assert_eq!(order.len(), 36);
        grouped |= stats.flushes < 36;
        println!("seed {seed}: {stats:?}");
        recycled += stats.segments_recycled;
        overtaken += stats.out_of_order;
        assert!(stats.segments_trimmed > 1, "{stats:?}");
        for (at, cut) in cuts.iter().enumerate() {
            *kinds.entry(cut.kind).or_default() += 1;
            let seed = seed * 1_000_000 + at as u64;
            let (disk, numbers) = check(cut, &order, seed);
            if at % 101 == 0 {
                second += crash_again(cut, &disk, &numbers, seed);
            }
        }
    }
    println!("crash images: {kinds:?}, second crashes: {second}");
    assert!(recycled > 0);
    assert!(
        overtaken > 10,
        "{overtaken} flights ended before earlier ones"
    );
    assert!(grouped, "no two commits shared a flush");
    assert!(second > 100);
    for kind in ImageKind::ALL {
        assert!(
            kinds.contains_key(&kind),
            "no image of kind {}",
            kind.name()
        );
    }
}

/// Crashes inside the recovery of `cut` and in the first commits after it, and recovers again.
fn crash_again(cut: &Cut, recovered: &SimDisk, numbers: &[u64], seed: u64) -> u64 {
    drop(recovered.image());
    let disk = SimDisk::from_image(&cut.image);
    let cuts = Arc::new(Mutex::new(Vec::new()));
    let acked = Arc::new(Mutex::new(0usize));
    {
        let (cuts, acked) = (Arc::clone(&cuts), Arc::clone(&acked));
        disk.on_io(move |disk, event| {
            let acked = *acked.lock().unwrap();
            let images = disk.crash_images(seed ^ event.boundary, &CrashCaps::at_most(4));
            cuts.lock()
                .unwrap()
                .extend(images.map(|(_, image)| (image, acked)));
        });
    }
    let env1 = env(Arc::new(disk.clone()), seed);
    let opened = open_at(&env1, cut.known.redo, small()).unwrap();
    assert_eq!(opened.numbers, numbers, "recovered twice, differently");
    for n in 0..3 {
        commit(&opened.log, entry(1000 + n, 4000)).unwrap();
        *acked.lock().unwrap() += 1;
    }
    disk.off_io();
    let cuts = std::mem::take(&mut *cuts.lock().unwrap());
    for (image, acked) in &cuts {
        let env2 = env(Arc::new(SimDisk::from_image(image)), seed + 1);
        let again = open_at(&env2, cut.known.redo, small()).unwrap();
        let (old, new) = again.numbers.split_at(numbers.len());
        assert_eq!(old, numbers, "{}", image.how());
        assert!(new.len() >= *acked, "{}: lost a commit", image.how());
        assert_eq!(new, &[1000, 1001, 1002][..new.len()]);
    }
    cuts.len() as u64
}

/// A run in which one call fails.
struct Failed {
    /// Acknowledged since `redo`.
    acked: Vec<u64>,
    /// Sequenced since `redo`, acknowledged or not.
    tried: Vec<u64>,
    redo: Lsn,
    poisoned: u64,
    soft: u64,
}

/// Commits over several segments, made and recycled, on a disk where a call fails.
fn run_with_failure(log: &Arc<Log>) -> Failed {
    let mut run = Failed {
        acked: Vec::new(),
        tried: Vec::new(),
        redo: Lsn::ZERO,
        poisoned: 0,
        soft: 0,
    };
    for n in 0..16 {
        run.tried.push(n);
        match commit(log, entry(n, 5000)) {
            Ok(end) => {
                assert!(log.poisoned().is_none());
                run.acked.push(n);
                if n % 5 == 4 {
                    run.redo = end;
                    run.acked.clear();
                    run.tried.clear();
                    // A file that could not be removed is only in the way.
                    let _ = log.trim(end);
                    log.tick();
                }
            }
            Err(WalError::Poisoned { cause }) => {
                assert!(matches!(&*cause, WalError::Io(_)));
                assert!(matches!(log.admit(100), Err(WalError::Poisoned { .. })));
                let at = log.positions();
                assert!(log.flush().is_err() || at.durable == at.sequenced);
                assert!(log.close().is_err());
                run.poisoned += 1;
                break;
            }
            Err(_) => {
                // Nothing was sequenced: the same entry may be tried again.
                run.soft += 1;
                run.tried.pop();
            }
        }
    }
    run
}

impl Failed {
    fn check(&self, disk: SimDisk, seed: u64, how: &str) {
        let env = env(Arc::new(disk), seed);
        let opened = match open_at(&env, self.redo, small()) {
            Ok(opened) => opened,
            Err(error) => panic!("{how}: {error}"),
        };
        assert!(opened.numbers.starts_with(&self.acked), "{how}");
        assert!(self.tried.starts_with(&opened.numbers), "{how}");
        commit(&opened.log, entry(99, 10)).unwrap();
    }
}

// Mistakes 10 and 11: any call fails once, whatever it does. Commits that were acknowledged are
// there after a reopen and after a power cut at the end; after a failed log write everything is
// refused with the same cause, also though the disk would work again. Seen failing with a failed
// flight counted as done, and with the name of a segment whose directory could not be synced given
// to the next one; with a failed log write, or a failed sync of a new segment, tried again and
// believed.
#[test]
fn any_failing_call_loses_nothing_acknowledged() {
    for errno in [Errno::IO, Errno::NOSPC] {
        let (mut poisoned, mut soft) = (0, 0);
        for after in 0.. {
            let disk = SimDisk::seeded(after);
            let env = env(Arc::new(disk.clone()), after);
            disk.inject(Fault::nth_call(after).with_errno(errno.raw_os_error()));
            let Ok(log) = Log::create(&env, dir(), UUID, small()) else {
                continue;
            };
            let run = run_with_failure(&log);
            poisoned += run.poisoned;
            soft += run.soft;
            let fired = disk.calls() > after;
            if !fired {
                assert!(log.stats().segments_recycled > 2, "renames failed too");
            }
            disk.clear_faults();
            for (_, image) in disk.crash_images(after, &CrashCaps::at_most(12)) {
                let how = format!("call {after}, {}", image.how());
                run.check(SimDisk::from_image(&image), after, &how);
            }
            run.check(disk, after, &format!("call {after}"));
            if !fired {
                break;
            }
        }
        let counts = format!("{poisoned} poisoned, {soft} soft");
        assert!(poisoned > 10 && soft > 3, "{counts}");
    }
}

// Opening is safe to fail at every call: an error, and the next attempt finds everything.
#[test]
fn any_failing_call_of_an_open_is_only_an_error() {
    let disk = SimDisk::seeded(9);
    let env1 = env(Arc::new(disk.clone()), 9);
    let log = Log::create(&env1, dir(), UUID, small()).unwrap();
    for n in 0..12 {
        commit(&log, entry(n, 5000)).unwrap();
    }
    drop(log);
    let image = disk.image();
    let mut errors = 0;
    for after in 0.. {
        let disk = SimDisk::from_image(&image);
        let env = env(Arc::new(disk.clone()), after);
        disk.inject(Fault::nth_call(after));
        let first = open(&env);
        disk.clear_faults();
        match first {
            Ok(opened) if disk.calls() < after => {
                assert_eq!(opened.numbers.len(), 12);
                break;
            }
            Ok(opened) => assert_eq!(opened.numbers.len(), 12),
            Err(WalError::Io(_)) => errors += 1,
            Err(other) => panic!("call {after}: {other}"),
        }
        assert_eq!(open(&env).unwrap().numbers.len(), 12, "call {after}");
    }
    assert!(errors > 10);
}

// Full at every growth: nothing was sequenced, the log goes on where it was once there is space.
// Seen failing with `Budget::admit` promising eight blocks more than there are.
#[test]
fn a_full_disk_is_full_at_admit_and_clears_itself() {
    let disk = SimDisk::seeded(3);
    let env = env(Arc::new(disk.clone()), 3);
    let log = Log::create(&env, dir(), UUID, small()).unwrap();
    let mut done = Vec::new();
    let mut refused = 0;
    for n in 0..60 {
        disk.set_capacity(Some(disk.used_bytes() + 4096 * (n % 8)));
        match commit(&log, entry(n, 3000)) {
            Ok(_) => done.push(n),
            Err(WalError::Full { needed, .. }) => {
                refused += 1;
                assert_eq!(needed, 32 << 10);
                assert!(log.poisoned().is_none());
                let at = log.positions();
                assert_eq!(at.sequenced, at.durable, "nothing was sequenced");
                disk.set_capacity(None);
                commit(&log, entry(n, 3000)).unwrap();
                done.push(n);
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused >= 8, "{refused} growths");
    disk.set_capacity(None);
    drop(log);
    assert_eq!(open(&env).unwrap().numbers, done);
}

// Mistake 5, first part: three uses of each segment in one run, the last frame torn at each 512 B
// with the old bytes of the file behind the tear: stale frames of the use before are never taken.
// Seen failing with one salt for all uses and the checks of chain and base left out; each of the
// three alone is enough here.
#[test]
fn torn_tails_of_recycled_segments_are_cut_exactly() {
    let disk = SimDisk::seeded(5);
    let env1 = env(Arc::new(disk.clone()), 5);
    let log = Log::create(&env1, dir(), UUID, small()).unwrap();
    let mut torn = 0;
    let mut redo = Lsn::ZERO;
    let mut kept = Vec::new();
    // Equal lengths, so that frames of all uses lie at equal offsets.
    for n in 0..60u64 {
        let before: BTreeMap<PathBuf, Vec<u8>> = contents(&disk.image());
        let end = commit(&log, entry(n, 5000)).unwrap();
        let image = disk.image();
        for (path, new) in contents(&image) {
            let Some(old) = before.get(&path).filter(|old| **old != new) else {
                continue;
            };
            let differs = |at: &usize| old[*at..*at + 512] != new[*at..*at + 512];
            let sectors: Vec<usize> = (0..new.len()).step_by(512).filter(differs).collect();
            for &cut in &sectors {
                let mut mixed = new.clone();
                mixed[cut..].copy_from_slice(&old[cut..]);
                let mut image = image.clone();
                assert!(image.replace(&path, &mixed));
                let env = env(Arc::new(SimDisk::from_image(&image)), 100 + n);
                let numbers = open_at(&env, redo, small()).unwrap().numbers;
                assert_eq!(numbers, kept, "commit {n} torn at {cut}");
                torn += 1;
            }
        }
        kept.push(n);
        if n % 4 == 3 {
            redo = end;
            kept.clear();
            log.trim(end).unwrap();
        }
    }
    let stats = log.stats();
    assert!(stats.segments_recycled >= 9, "{stats:?}");
    assert!(torn > 500, "{torn} tears");
}

fn contents(image: &Image) -> BTreeMap<PathBuf, Vec<u8>> {
    let read = |path: PathBuf| image.read(&path).map(|bytes| (path, bytes));
    image.files().into_iter().filter_map(read).collect()
}

// L2: acknowledged blocks are never written again while they are part of the log.
// Seen failing (panic of the disk) with the tail's offset not moved on in `build`.
#[test]
fn acknowledged_blocks_are_never_rewritten() {
    let disk = SimDisk::seeded(6);
    let env = env(Arc::new(disk.clone()), 6);
    let log = Log::create(&env, dir(), UUID, small()).unwrap();
    for n in 0..40 {
        let before = contents(&disk.image());
        let end = commit(&log, entry(n, (n as usize * 613) % 9000)).unwrap();
        for (path, new) in contents(&disk.image()) {
            let old = before.get(&path).filter(|old| old.len() == new.len());
            let Some(old) = old else { continue };
            for at in (0..new.len()).step_by(4096) {
                if old[at..at + 4096] != new[at..at + 4096] {
                    assert!(disk.protect(&path, at as u64, 4096));
                }
            }
        }
        log.tick();
        if n % 7 == 6 {
            log.trim(end).unwrap();
        }
    }
    assert!(log.stats().segments_recycled > 0);
    log.close().unwrap();
}

// The last entry is cut by a crash after its first frame is on disk: it is dropped, and what is
// committed after the open is found by the next one, and read in order.
// Seen failing with the successor looked for only at the end of a frame, not inside it; with the
// chain going on from the last good frame; and with the segments behind the end kept.
#[test]
fn an_entry_without_its_end_is_dropped_for_good() {
    let disk = SimDisk::seeded(8);
    let env1 = env(Arc::new(disk.clone()), 8);
    let options = LogOptions {
        max_flushes_in_flight: 1,
        ..small()
    };
    let log = Log::create(&env1, dir(), UUID, options).unwrap();
    commit(&log, entry(1, 100)).unwrap();
    // A frame that holds the whole of one entry and the beginning of the next.
    append(&log, entry(2, 100)).unwrap();
    append(&log, entry(3, 150_000)).unwrap();
    disk.inject(Fault::nth(OpKind::Write, 2).sticky().on("/log"));
    assert!(log.flush().is_err());
    disk.clear_faults();
    drop(log);
    for round in 0..3u64 {
        let opened = open(&env1).unwrap();
        let expected: Vec<u64> = [1, 2].into_iter().chain(10..10 + round).collect();
        assert_eq!(opened.numbers, expected);
        commit(&opened.log, entry(10 + round, 100)).unwrap();
        let mut reader = opened.log.read_from(opened.log.oldest()).unwrap();
        let mut read = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            read.extend(number(&entry));
        }
        assert_eq!(read.len() as u64, 3 + round);
    }
}
