//! The enumeration finds planted mistakes of a small log, also those that need a second crash.

use super::*;
use crate::io::Buf;
use std::sync::atomic::{AtomicU64, Ordering};

const MAGIC: u8 = 0xc3;

/// A record: one block with a magic byte, a number, and a sum over a body of that number.
fn record(number: u8) -> Buf {
    let mut buf = Buf::zeroed(4096);
    buf.fill(number);
    buf[0] = MAGIC;
    let sum = crc32fast::hash(&buf[8..]);
    buf[4..8].copy_from_slice(&sum.to_le_bytes());
    buf
}

fn is_whole(buf: &Buf) -> bool {
    let sum = crc32fast::hash(&buf[8..]);
    buf[0] == MAGIC && buf[4..8] == sum.to_le_bytes()
}

/// What the small log does wrong.
#[derive(Clone, Copy, PartialEq)]
enum Mistake {
    Nothing,
    /// The write is not durable when it is acknowledged.
    NotDurable,
    /// The name is not made durable.
    NoDirectorySync,
    /// Recovery trusts the magic byte.
    NoSum,
    /// Recovery cuts the file before it has copied it: harmless unless it is crashed itself.
    CutInRecovery,
}

fn read(file: &dyn File, at: u64) -> Option<Buf> {
    let mut buf = Buf::zeroed(4096);
    let n = file.read(Purpose::Replay, at * 4096, &mut buf).unwrap();
    (n == 4096).then_some(buf)
}

/// Appends three records; each is acknowledged when its write has returned.
fn workload(disk: &SimDisk, acknowledged: &AtomicU64, mistake: Mistake) {
    let file = disk.open("/log".as_ref(), Open::CreateNew).unwrap();
    if mistake != Mistake::NoDirectorySync {
        disk.sync_dir("/".as_ref()).unwrap();
    }
    for number in 0..3 {
        let durable = mistake != Mistake::NotDurable;
        let at = u64::from(number) * 4096;
        file.write(Purpose::Log, at, &record(number), durable)
            .unwrap();
        acknowledged.fetch_add(1, Ordering::SeqCst);
    }
}

/// Copies what is whole into a new file and puts it in the place of the old one.
fn recover(disk: &SimDisk, mistake: Mistake) -> Result<Vec<u8>, IoError> {
    let Ok(old) = disk.open("/log".as_ref(), Open::Write) else {
        return Ok(Vec::new());
    };
    if disk.stat("/new".as_ref())?.is_some() {
        disk.remove("/new".as_ref())?;
    }
    let mut found = Vec::new();
    while let Some(buf) = read(&*old, found.len() as u64) {
        let whole = is_whole(&buf) || (mistake == Mistake::NoSum && buf[0] == MAGIC);
        if !whole {
            break;
        }
        assert!(buf[8..].iter().all(|byte| *byte == buf[8]), "a torn record");
        found.push(buf[8]);
    }
    let new = disk.open("/new".as_ref(), Open::CreateNew)?;
    if mistake == Mistake::CutInRecovery {
        old.set_len(0)?;
    }
    for (at, number) in found.iter().enumerate() {
        new.write(Purpose::Replay, at as u64 * 4096, &record(*number), true)?;
    }
    disk.rename("/new".as_ref(), "/log".as_ref())?;
    disk.sync_dir("/".as_ref())?;
    Ok(found)
}

fn run(mistake: Mistake, second: usize) -> Arc<CrashCounts> {
    let disk = SimDisk::new();
    let plan = CrashPlan::new(5, CrashCaps::default(), second);
    let acknowledged = Arc::clone(&plan.acknowledged);
    let allowed = Arc::clone(&acknowledged);
    let counts = disk.enumerate_crashes(plan, move |crashed| {
        let found = recover(crashed, mistake).unwrap();
        assert!(found.iter().copied().eq(0..found.len() as u8), "{found:?}");
        let least = allowed.load(Ordering::SeqCst);
        assert!(found.len() as u64 >= least, "{} of {least}", found.len());
    });
    workload(&disk, &acknowledged, mistake);
    disk.off_io();
    counts
}

#[test]
fn a_right_log_passes_with_images_of_every_kind_and_depth() {
    let counts = run(Mistake::Nothing, 20);
    counts.assert_clean();
    for kind in [
        ImageKind::None,
        ImageKind::All,
        ImageKind::Torn,
        ImageKind::Length,
    ] {
        assert!(counts.of(kind) > 0, "{}: {counts}", kind.name());
    }
    assert!(counts.depth_two() > 200, "{counts}");
    assert_eq!(counts.boundaries(), 2 + 2 + 3 * 3);
}

#[test]
fn each_mistake_is_found_and_told_with_its_place() {
    let lost = run(Mistake::NotDurable, 0).failures().remove(0);
    assert!(
        lost.contains("crash at boundary") && lost.contains("of 1"),
        "{lost}"
    );
    assert!(!run(Mistake::NoDirectorySync, 0).failures().is_empty());
    let torn = run(Mistake::NoSum, 0).failures().remove(0);
    assert!(torn.contains("a torn record"), "{torn}");
}

#[test]
fn a_mistake_of_recovery_needs_the_second_crash() {
    run(Mistake::CutInRecovery, 0).assert_clean();
    let found = run(Mistake::CutInRecovery, 20).failures().remove(0);
    assert!(found.contains("and in its recovery crash"), "{found}");
}

#[test]
#[should_panic(expected = "no image was checked")]
fn an_enumeration_that_checked_nothing_is_not_clean() {
    let plan = CrashPlan::new(1, CrashCaps::default(), 0);
    SimDisk::new()
        .enumerate_crashes(plan, |_| ())
        .assert_clean();
}
