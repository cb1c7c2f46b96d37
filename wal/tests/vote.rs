//! The VOTE file: what was promised stays so, whatever a power cut or one damaged slot does.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use rustix::io::Errno;
use terrane_wal::io::sim::{CrashCaps, CrashPlan, Fault, Image, OpKind, Phase, SimDisk};
use terrane_wal::lsn::Term;
use terrane_wal::{Vote, VoteFile, WalError};

const UUID: [u8; 16] = *b"test-of-the-vote";
const SLOT: usize = 4096;

fn path() -> &'static Path {
    Path::new("/VOTE")
}

fn vote(promised: u64, incarnation: u64, boot: u64) -> Vote {
    Vote {
        promised: Term(promised),
        incarnation,
        boot,
    }
}

fn create(disk: &SimDisk, first: Vote) -> Result<VoteFile, WalError> {
    VoteFile::create(disk, path(), UUID, first)
}

fn open(disk: &SimDisk) -> Result<VoteFile, WalError> {
    VoteFile::open(disk, path(), UUID)
}

fn opened(disk: &SimDisk) -> Vote {
    open(disk).unwrap().vote()
}

/// Votes as they follow each other: starts, promises, other data.
fn votes() -> [Vote; 5] {
    [
        vote(0, 7, 1),
        vote(3, 7, 1),
        vote(3, 7, 2),
        vote(1, 8, 1),
        vote(9, 8, 2),
    ]
}

/// A disk on which so many of the votes were saved, as an image.
fn saved(count: usize) -> Image {
    let disk = SimDisk::new();
    let mut file = create(&disk, votes()[0]).unwrap();
    for vote in &votes()[1..count] {
        file.save(*vote).unwrap();
    }
    disk.image()
}

/// The disk of an image, with other bytes in the file.
fn edited(image: &Image, edit: impl FnOnce(&mut Vec<u8>)) -> SimDisk {
    let mut image = image.clone();
    let mut bytes = image.read(path()).unwrap();
    edit(&mut bytes);
    assert!(image.replace(path(), &bytes));
    SimDisk::from_image(&image)
}

fn bytes_of(disk: &SimDisk) -> Vec<u8> {
    disk.image().read(path()).unwrap()
}

/// The file as another one would be: bytes of both slots changed, with crcs that are right.
fn sealed(image: &Image, at: usize, to: u8) -> SimDisk {
    edited(image, |bytes| {
        for slot in bytes.chunks_mut(SLOT) {
            slot[at] = to;
            let crc = crc32fast::hash(&slot[8..64]);
            slot[4..8].copy_from_slice(&crc.to_le_bytes());
        }
    })
}

// Seen to fail with the vote of the handle left as it was by a save.
#[test]
fn a_saved_vote_is_there_after_an_open() {
    let disk = SimDisk::new();
    let mut file = create(&disk, votes()[0]).unwrap();
    assert_eq!(file.vote(), votes()[0]);
    for vote in votes() {
        file.save(vote).unwrap();
        assert_eq!(file.vote(), vote);
        assert_eq!(opened(&disk), vote);
    }
    let names = disk.image().files();
    assert_eq!(names, [path()], "nothing else is left");
    let again = create(&disk, votes()[0]);
    assert!(matches!(again, Err(WalError::Invalid { .. })), "{again:?}");
    assert_eq!(opened(&disk), votes()[4]);
}

// Frozen with format 1. Seen to fail with two fields exchanged.
#[test]
fn golden_bytes() {
    let disk = SimDisk::new();
    let mut file = create(&disk, vote(1, 0x1122_3344_5566_7788, 2)).unwrap();
    file.save(vote(5, 0x1122_3344_5566_7788, 3)).unwrap();
    let bytes = bytes_of(&disk);
    assert_eq!(bytes.len(), 2 * SLOT);
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
    let expected = "54564f54\
                    9e975878\
                    746573742d6f662d7468652d766f7465\
                    0500000000000000\
                    8877665544332211\
                    0300000000000000\
                    0200000000000000\
                    0000000000000000";
    for slot in bytes.chunks(SLOT) {
        assert_eq!(hex(&slot[..64]), expected);
        assert!(slot[64..].iter().all(|byte| *byte == 0));
    }
}

// V3. Seen to fail with the boot counter not compared, and with the check after the write.
#[test]
fn a_promise_and_a_start_are_not_taken_back() {
    let disk = SimDisk::new();
    let mut file = create(&disk, vote(5, 7, 3)).unwrap();
    for (refused, text) in [
        (
            vote(4, 7, 3),
            "promised term of a vote: expected at least 5, found 4",
        ),
        (
            vote(9, 7, 2),
            "boot counter of a vote: expected at least 3, found 2",
        ),
    ] {
        let before = bytes_of(&disk);
        let error = file.save(refused).unwrap_err();
        assert!(matches!(error, WalError::Invalid { .. }));
        assert_eq!(error.to_string(), text);
        assert_eq!(bytes_of(&disk), before, "nothing was written");
        assert_eq!(file.vote(), vote(5, 7, 3));
    }
    file.save(vote(5, 7, 3)).unwrap();
    file.save(vote(0, 8, 0)).unwrap();
    assert_eq!(opened(&disk), vote(0, 8, 0));
}

// Seen to fail with the zeros behind the fields not looked at, with the crc not compared, and with
// the slots not written again by an open.
#[test]
fn every_flipped_byte_of_a_slot_is_noticed() {
    let image = saved(3);
    let whole = image.read(path()).unwrap();
    for at in 0..SLOT {
        let bit = 1 << (at % 8);
        for slot in [0, SLOT] {
            let disk = edited(&image, |bytes| bytes[slot + at] ^= bit);
            assert_eq!(opened(&disk), votes()[2], "slot {slot}, byte {at}");
            assert!(bytes_of(&disk) == whole, "slot {slot}, byte {at}: mended");
        }
        let disk = edited(&image, |bytes| {
            bytes[at] ^= bit;
            bytes[SLOT + at] ^= bit;
        });
        match open(&disk) {
            Err(WalError::Corrupt {
                segment, offset, ..
            }) => {
                assert_eq!(segment, path());
                // A damaged field shows in its crc.
                let expected = if (8..64).contains(&at) { 4 } else { at as u64 };
                assert_eq!(offset & !3, expected & !3, "byte {at}");
            }
            other => panic!("byte {at}: {other:?}"),
        }
    }
}

/// Opens what a crash left and, if a vote is there, has each slot of it rot by turns.
fn check_crashed(disk: &SimDisk, acknowledged: usize) {
    let now = match open(disk) {
        Ok(file) => file.vote(),
        Err(WalError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            assert_eq!(acknowledged, 0, "the file is gone");
            create(disk, votes()[0]).unwrap().vote()
        }
        Err(error) => panic!("{error}"),
    };
    let allowed = &votes()[acknowledged.saturating_sub(1)..votes().len().min(acknowledged + 1)];
    assert!(allowed.contains(&now), "{now:?}, not one of {allowed:?}");
    // Twice: what the open left, and what the one after the damage left.
    for slots in [[0, SLOT], [SLOT, 0]] {
        let image = disk.crash(1).image();
        let disk = edited(&image, |bytes| bytes[slots[0] + 30] ^= 1);
        assert_eq!(opened(&disk), now, "rot in slot {}", slots[0]);
        let disk = edited(&disk.crash(2).image(), |bytes| bytes[slots[1] + 30] ^= 1);
        assert_eq!(opened(&disk), now, "and then in slot {}", slots[1]);
    }
}

// Every image of a crash at every boundary of a create and of saves; then rot; then a second crash
// inside the open. Seen to fail with writes that are not durable, with one slot written, with the
// slots not written again by an open, without the rename and without the sync of the directory.
#[test]
fn after_a_crash_the_vote_is_the_last_saved_or_the_one_being_saved() {
    let disk = SimDisk::new();
    let plan = CrashPlan::new(5, CrashCaps::default(), 64);
    let acknowledged = Arc::clone(&plan.acknowledged);
    let counts = {
        let acknowledged: Arc<AtomicU64> = Arc::clone(&acknowledged);
        disk.enumerate_crashes(plan, move |disk| {
            check_crashed(disk, acknowledged.load(Ordering::SeqCst) as usize);
        })
    };
    let mut file = create(&disk, votes()[0]).unwrap();
    acknowledged.fetch_add(1, Ordering::SeqCst);
    for vote in &votes()[1..] {
        file.save(*vote).unwrap();
        acknowledged.fetch_add(1, Ordering::SeqCst);
    }
    disk.off_io();
    println!("crash images: {counts}");
    counts.assert_clean();
    assert!(counts.depth_two() > 100, "{counts}");
}

// I2: rot is not a torn write. Seen to fail with the slots written in turn, one for each vote.
#[test]
fn rot_in_one_slot_never_gives_an_older_promise() {
    for count in 1..=votes().len() {
        for slot in [0, SLOT] {
            for (from, to) in [(0, SLOT), (0, 512), (24, 32), (48, 49)] {
                let rot = |bytes: &mut Vec<u8>| bytes[slot + from..slot + to].fill(0xa5);
                let disk = edited(&saved(count), rot);
                assert_eq!(
                    opened(&disk),
                    votes()[count - 1],
                    "vote {count}, slot {slot}"
                );
            }
            // A sector that cannot be read is rot that the disk noticed.
            let disk = SimDisk::from_image(&saved(count));
            disk.inject(Fault::nth(OpKind::Read, (slot / SLOT) as u64));
            assert_eq!(opened(&disk), votes()[count - 1]);
            assert_eq!(disk.image().read(path()), saved(count).read(path()));
        }
    }
}

// Seen to fail with a sequence, a database, reserved bytes or a length that is not looked at.
#[test]
fn a_file_of_somebody_else_is_refused() {
    let image = saved(2);
    let text = |disk: &SimDisk| open(disk).unwrap_err().to_string();
    assert_eq!(
        text(&sealed(&image, 8, b'T')),
        "corrupt log /VOTE at offset 8: \
         expected a vote of database 746573742d6f662d7468652d766f7465, \
         found one of 546573742d6f662d7468652d766f7465"
    );
    let newer = open(&sealed(&image, 56, 1)).unwrap_err();
    assert!(matches!(newer, WalError::Version { .. }), "{newer}");
    for (len, offset) in [(0, 0), (SLOT, SLOT), (2 * SLOT - 1, 2 * SLOT - 1)] {
        let disk = edited(&image, |bytes| bytes.truncate(len));
        let expected =
            format!("corrupt log /VOTE at offset {offset}: expected 8192 bytes, found {len} bytes");
        assert_eq!(text(&disk), expected);
    }
    let long = edited(&image, |bytes| bytes.resize(3 * SLOT, 0));
    assert!(text(&long).ends_with("at offset 8192: expected 8192 bytes, found 12288 bytes"));
    // Both of one number: nobody knows which is the newer one.
    let other = sealed(&image, 24, 99).image().read(path()).unwrap();
    let twins = edited(&image, |bytes| {
        bytes[SLOT..].copy_from_slice(&other[SLOT..])
    });
    let error = text(&twins);
    assert!(
        error.starts_with("corrupt log /VOTE at offset 4096"),
        "{error}"
    );
    // The last number of all.
    let mut last = sealed(&image, 55, 0x80);
    for at in 48..56 {
        last = sealed(&last.image(), at, 0xff);
    }
    let mut file = open(&last).unwrap();
    let full = file.save(votes()[4]).unwrap_err();
    assert!(matches!(full, WalError::Invalid { .. }), "{full}");
}

/// Creates and saves until a call fails: votes that were saved, and whether all were.
fn run_with_failure(disk: &SimDisk, kind: std::io::ErrorKind) -> (usize, bool) {
    let failed = |error: &WalError| matches!(error, WalError::Io(e) if e.kind() == kind);
    let mut file = match create(disk, votes()[0]) {
        Ok(file) => file,
        Err(error) => {
            assert!(failed(&error), "{error}");
            return (0, false);
        }
    };
    for (at, vote) in votes().into_iter().enumerate().skip(1) {
        if let Err(error) = file.save(vote) {
            let of_write =
                |error: &WalError| matches!(error, WalError::Poisoned { cause } if failed(cause));
            assert!(of_write(&error), "{error}");
            // Also though the disk would work again.
            let before = bytes_of(disk);
            assert!(of_write(&file.save(vote).unwrap_err()));
            assert_eq!(bytes_of(disk), before, "nothing more is written");
            assert_eq!(file.vote(), votes()[at - 1]);
            return (at, false);
        }
    }
    (votes().len(), true)
}

/// A power cut at any boundary of the open that follows a failed save: bytes of that save may be
/// read and not be on the disk.
fn check_open_cut_off(disk: &SimDisk, count: usize) {
    let plan = CrashPlan::new(1, CrashCaps::default(), 0);
    let counts = disk.enumerate_crashes(plan, move |disk| check_crashed(disk, count));
    check_crashed(disk, count);
    disk.off_io();
    assert!(counts.boundaries() > 0);
    assert!(counts.failures().is_empty(), "{:?}", counts.failures());
}

// Each call fails once, by an error of the device or for want of space. Seen to fail with a handle
// that goes on after a failed write, and with a file that a failed create leaves.
#[test]
fn any_failing_call_takes_no_vote_back() {
    for (seed, errno) in (0..6).map(|seed| (seed, [Errno::IO, Errno::NOSPC][seed as usize % 2])) {
        let kind = std::io::Error::from_raw_os_error(errno.raw_os_error()).kind();
        let (mut poisoned, mut unmade) = (0, 0);
        for after in 0.. {
            let disk = SimDisk::seeded(seed);
            disk.inject(Fault::nth_call(after).with_errno(errno.raw_os_error()));
            let (count, all) = run_with_failure(&disk, kind);
            let fired = disk.calls() > after;
            disk.clear_faults();
            for (_, image) in disk.crash_images(after, &CrashCaps::default()) {
                check_crashed(&SimDisk::from_image(&image), count);
            }
            if count == 0 {
                unmade += 1;
                let again = create(&disk, votes()[1]).unwrap();
                assert_eq!(again.vote(), votes()[1], "a failed create is tried again");
                assert_eq!(opened(&disk.crash(3)), votes()[1]);
            } else {
                poisoned += u64::from(!all);
                check_open_cut_off(&disk, count);
            }
            if !fired {
                assert!(all);
                break;
            }
        }
        assert!(unmade > 5 && poisoned == 8, "{unmade} {poisoned}");
    }
}

// V2. Seen to fail with each of the four orders turned round.
#[test]
fn an_open_first_writes_the_slot_that_it_can_spare() {
    let (new, old) = (saved(3), saved(2).read(path()).unwrap());
    let rot = |slot: usize| edited(&new, |bytes| bytes[slot] ^= 1);
    let older = |slot: usize| {
        let range = slot..slot + SLOT;
        edited(&new, |bytes| {
            bytes[range.clone()].copy_from_slice(&old[range])
        })
    };
    let same = SimDisk::from_image(&new);
    for (disk, expected, what) in [
        (rot(0), [0, SLOT], "slot 0 is damaged"),
        (rot(SLOT), [SLOT, 0], "slot 1 is damaged"),
        (
            older(SLOT),
            [0, SLOT],
            "slot 0 may be torn on the disk, slot 1 counted",
        ),
        (
            older(0),
            [SLOT, 0],
            "slot 1 may be torn on the disk, slot 0 counted",
        ),
        (same, [SLOT, 0], "a save writes slot 1 last"),
    ] {
        let writes = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&writes);
        disk.on_io(move |_, event| {
            if event.op == OpKind::Write && event.phase == Phase::Pending {
                seen.lock().unwrap().push(event.offset as usize);
            }
        });
        assert_eq!(opened(&disk), votes()[2]);
        disk.off_io();
        assert_eq!(*writes.lock().unwrap(), expected, "{what}");
    }
}

// Seen to fail with a create that leaves its first file behind.
#[test]
fn a_full_disk_is_told_and_a_create_is_tried_again() {
    let disk = SimDisk::new();
    disk.set_capacity(Some(SLOT as u64));
    match create(&disk, votes()[0]) {
        Err(WalError::Io(error)) => assert!(error.is_full(), "{error}"),
        other => panic!("{other:?}"),
    }
    disk.set_capacity(None);
    assert_eq!(create(&disk, votes()[0]).unwrap().vote(), votes()[0]);
}

proptest! {
    // Any bytes: a vote or an error. Whole slots are drawn more often than chance would.
    #[test]
    fn any_bytes_give_a_vote_or_an_error(
        noise in prop::collection::vec(any::<u8>(), 0..200),
        len in prop_oneof![Just(2 * SLOT), 0..3 * SLOT],
        edits in prop::collection::vec((0..2 * SLOT, any::<u8>()), 0..4),
        whole in any::<bool>(),
    ) {
        let disk = edited(&saved(2), |bytes| {
            if !whole {
                bytes.fill(0);
                bytes[..noise.len()].copy_from_slice(&noise);
            }
            for (at, byte) in edits {
                bytes[at] = byte;
            }
            bytes.resize(len, 0);
        });
        match open(&disk) {
            Ok(mut file) => {
                prop_assert_eq!(file.vote(), votes()[1]);
                file.save(votes()[2]).unwrap();
                prop_assert_eq!(opened(&disk), votes()[2]);
            }
            Err(WalError::Corrupt { .. }) => {}
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}

// The same on this machine's disk.
#[test]
fn on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (env, _) = terrane_wal::env::Env::system(terrane_wal::io::BackendChoice::Pool).unwrap();
    let path = dir.path().join("VOTE");
    let mut file = VoteFile::create(&*env.disk, &path, UUID, votes()[0]).unwrap();
    for vote in votes() {
        file.save(vote).unwrap();
    }
    drop(file);
    let file = VoteFile::open(&*env.disk, &path, UUID).unwrap();
    assert_eq!(file.vote(), votes()[4]);
    assert_eq!(env.disk.list(dir.path()).unwrap(), ["VOTE"]);
}
