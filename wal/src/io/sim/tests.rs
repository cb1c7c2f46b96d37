//! The simulated disk keeps what was synced, may lose what was not, and never invents.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::io::Buf;

fn filled(byte: u8) -> Buf {
    let mut buf = Buf::zeroed(4096);
    buf.fill(byte);
    buf
}

fn byte_at(disk: &SimDisk, path: &str, offset: u64) -> Option<u8> {
    let file = disk.open(path.as_ref(), Open::Read).ok()?;
    let mut buf = Buf::zeroed(4096);
    let n = file.read(Purpose::Other, offset, &mut buf).unwrap();
    (n > 0).then(|| buf[0])
}

#[test]
fn what_was_synced_survives_every_crash_and_what_was_not_does_not_always() {
    let disk = SimDisk::new();
    let file = disk.open("/a".as_ref(), Open::CreateNew).unwrap();
    file.write(Purpose::Other, 0, &filled(1), false).unwrap();
    file.sync().unwrap();
    disk.sync_dir("/".as_ref()).unwrap();
    file.write(Purpose::Other, 4096, &filled(2), false).unwrap();
    let mut seen = [0; 2];
    for seed in 0..64 {
        let after = disk.crash(seed);
        assert_eq!(byte_at(&after, "/a", 0), Some(1));
        seen[usize::from(byte_at(&after, "/a", 4096) == Some(2))] += 1;
    }
    assert!(seen[0] > 8 && seen[1] > 8, "{seen:?}");
}

#[test]
fn a_name_needs_the_sync_of_its_directory() {
    let disk = SimDisk::new();
    let file = disk.open("/a".as_ref(), Open::CreateNew).unwrap();
    file.write(Purpose::Other, 0, &filled(1), true).unwrap();
    let kept = |disk: &SimDisk| {
        let crashes = (0..32).map(|seed| disk.crash(seed));
        crashes.filter(|d| byte_at(d, "/a", 0) == Some(1)).count()
    };
    assert!((4..28).contains(&kept(&disk)));
    disk.sync_dir("/".as_ref()).unwrap();
    assert_eq!(kept(&disk), 32);
}

#[test]
fn a_durable_write_covers_itself_and_not_its_neighbours() {
    let disk = SimDisk::new();
    let file = disk.open("/a".as_ref(), Open::CreateNew).unwrap();
    disk.sync_dir("/".as_ref()).unwrap();
    file.write(Purpose::Other, 0, &filled(1), false).unwrap();
    file.write(Purpose::Other, 4096, &filled(2), true).unwrap();
    let mut lost = 0;
    for seed in 0..32 {
        let after = disk.crash(seed);
        assert_eq!(byte_at(&after, "/a", 4096), Some(2));
        lost += usize::from(byte_at(&after, "/a", 0) != Some(1));
    }
    assert!(lost > 4);
}

#[test]
fn an_older_unsynced_write_does_not_come_back_over_a_newer_durable_one() {
    let disk = SimDisk::new();
    let file = disk.open("/a".as_ref(), Open::CreateNew).unwrap();
    disk.sync_dir("/".as_ref()).unwrap();
    file.write(Purpose::Other, 0, &filled(1), false).unwrap();
    file.write(Purpose::Other, 0, &filled(2), true).unwrap();
    for seed in 0..32 {
        assert_eq!(byte_at(&disk.crash(seed), "/a", 0), Some(2));
    }
}

/// A file of one block, durable with its name, and a second block that is not synced.
fn half_synced() -> (SimDisk, Arc<dyn File>) {
    let disk = SimDisk::new();
    let file = disk.open("/a".as_ref(), Open::CreateNew).unwrap();
    file.write(Purpose::Other, 0, &filled(1), true).unwrap();
    disk.sync_dir("/".as_ref()).unwrap();
    file.write(Purpose::Other, 4096, &filled(2), false).unwrap();
    (disk, file)
}

fn images(disk: &SimDisk) -> Vec<(ImageKind, Image)> {
    disk.crash_images(1, &CrashCaps::default()).collect()
}

fn of_kind(all: &[(ImageKind, Image)], kind: ImageKind) -> Vec<Vec<u8>> {
    let mine = all.iter().filter(|(k, _)| *k == kind);
    mine.map(|(_, image)| image.read("/a".as_ref()).unwrap_or_default())
        .collect()
}

#[test]
fn images_of_every_kind_come_and_none_comes_twice() {
    let (disk, file) = half_synced();
    disk.open("/b".as_ref(), Open::CreateNew).unwrap();
    file.write(Purpose::Other, 0, &filled(3), false).unwrap();
    let all = images(&disk);
    for kind in ImageKind::ALL {
        let count = all.iter().filter(|(k, _)| *k == kind).count();
        assert!(count > 0, "no image of kind {}", kind.name());
    }
    let mut hashes: Vec<u64> = all.iter().map(|(_, image)| image.hash()).collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), all.len());
    for (_, image) in &all {
        let bytes = image.read("/a".as_ref()).unwrap();
        assert!(bytes.len() >= 4096, "what was synced is never lost");
    }
}

#[test]
fn a_torn_write_keeps_front_back_or_middle_by_sectors() {
    let (disk, _file) = half_synced();
    let torn = of_kind(&images(&disk), ImageKind::Torn);
    let pattern =
        |bytes: &[u8]| -> Vec<bool> { bytes[4096..].chunks(SECTOR).map(|s| s[0] == 2).collect() };
    // With the length lost nothing of the write is visible; here it always was kept.
    let whole: Vec<_> = torn.iter().filter(|bytes| bytes.len() == 8192).collect();
    let patterns: Vec<Vec<bool>> = whole.iter().map(|bytes| pattern(bytes)).collect();
    for cut in 1..8 {
        let front: Vec<bool> = (0..8).map(|i| i < cut).collect();
        let back: Vec<bool> = (0..8).map(|i| i >= cut).collect();
        assert!(patterns.contains(&front), "front {cut}");
        assert!(patterns.contains(&back), "back {cut}");
    }
    let middle: Vec<bool> = (0..8).map(|i| (3..7).contains(&i)).collect();
    assert!(patterns.contains(&middle));
}

#[test]
fn lengths_and_data_are_lost_apart() {
    let (disk, _file) = half_synced();
    let lens: Vec<(usize, bool)> = of_kind(&images(&disk), ImageKind::Length)
        .iter()
        .map(|bytes| (bytes.len(), bytes.get(4096) == Some(&2)))
        .collect();
    assert!(
        lens.contains(&(8192, false)),
        "length kept, data lost: {lens:?}"
    );
    let all = images(&disk);
    let short = all
        .iter()
        .any(|(_, i)| i.read("/a".as_ref()).unwrap().len() == 4096);
    assert!(short, "length lost");
}

#[test]
fn a_rename_is_kept_or_lost_whole_and_its_target_stays_until_then() {
    let (disk, file) = half_synced();
    file.sync().unwrap();
    let tmp = disk.open("/tmp".as_ref(), Open::CreateNew).unwrap();
    tmp.write(Purpose::Other, 0, &filled(9), true).unwrap();
    disk.rename("/tmp".as_ref(), "/a".as_ref()).unwrap();
    let all = images(&disk);
    let firsts: Vec<u8> = all
        .iter()
        .map(|(_, image)| image.read("/a".as_ref()).unwrap()[0])
        .collect();
    assert!(firsts.contains(&1) && firsts.contains(&9), "{firsts:?}");
    assert!(firsts.iter().all(|byte| [1, 9].contains(byte)));
    assert!(all.iter().any(|(kind, _)| *kind == ImageKind::Rename));
    disk.sync_dir("/".as_ref()).unwrap();
    let all = images(&disk);
    assert_eq!(all.len(), 1, "nothing is unsynced, so there is one image");
    assert_eq!(all[0].1.read("/a".as_ref()).unwrap()[0], 9);
}

#[test]
fn stale_sectors_and_flipped_bits_hit_only_what_was_not_synced() {
    let (disk, _file) = half_synced();
    let all = images(&disk);
    let stale = of_kind(&all, ImageKind::Stale);
    let flips = of_kind(&all, ImageKind::Flip);
    // A block of zeros where the file grew is the image "length kept, data lost" as well.
    let zeros = |image: &Image| {
        image.read("/a".as_ref()).unwrap()[4096..]
            .iter()
            .all(|x| *x == 0)
    };
    assert!(all.iter().any(|(_, image)| zeros(image)));
    assert!(
        stale
            .iter()
            .any(|b| b[4096..].iter().any(|x| ![0, 2].contains(x)))
    );
    for bytes in &flips {
        let wrong: u32 = bytes[4096..].iter().map(|x| (x ^ 2).count_ones()).sum();
        assert_eq!(wrong, 1);
    }
    assert_eq!(flips.len(), 3);
    for bytes in stale.iter().chain(&flips) {
        assert!(
            bytes[..4096].iter().all(|x| *x == 1),
            "the synced block is whole"
        );
    }
}

#[test]
fn many_changes_give_a_sample_of_subsets_within_the_caps() {
    let disk = SimDisk::new();
    let file = disk.open("/a".as_ref(), Open::CreateNew).unwrap();
    for index in 0..40 {
        file.write(Purpose::Other, index * 4096, &filled(index as u8), false)
            .unwrap();
    }
    let caps = CrashCaps::at_most(50);
    let all: Vec<_> = disk.crash_images(3, &caps).collect();
    for kind in ImageKind::ALL {
        let count = all.iter().filter(|(k, _)| *k == kind).count();
        assert!(count <= 50, "{} images of kind {}", count, kind.name());
    }
    let again: Vec<_> = disk.crash_images(3, &caps).map(|(_, i)| i.hash()).collect();
    let hashes: Vec<_> = all.iter().map(|(_, i)| i.hash()).collect();
    assert_eq!(again, hashes, "one seed, one list");
}

#[test]
fn a_workload_stopped_at_each_boundary_is_enumerated_to_its_end() {
    let workload = |disk: &SimDisk| -> Result<(), IoError> {
        let file = disk.open("/a".as_ref(), Open::CreateNew)?;
        disk.sync_dir("/".as_ref())?;
        file.write(Purpose::Other, 0, &filled(1), true)?;
        file.write(Purpose::Other, 4096, &filled(2), false)?;
        file.sync()
    };
    let clean = SimDisk::new();
    workload(&clean).unwrap();
    // Create, sync_dir, write and sync have two boundaries each, the durable write has three.
    assert_eq!(clean.boundaries(), 11);
    let mut durable = Vec::new();
    for boundary in 0..clean.boundaries() {
        let disk = SimDisk::new();
        disk.crash_at(boundary);
        let error = workload(&disk).unwrap_err();
        assert!(is_crash(&error), "{error}");
        assert!(disk.has_crashed());
        assert!(is_crash(&disk.list("/".as_ref()).unwrap_err()));
        let none = images(&disk).remove(0);
        assert_eq!(none.0, ImageKind::None);
        let bytes = none.1.read("/a".as_ref());
        durable.push(bytes.map(|bytes| bytes.len()));
    }
    let (no, yes) = (None, Some(0));
    let expected = [
        no,
        no,
        no,
        yes,
        yes,
        yes,
        Some(4096),
        Some(4096),
        Some(4096),
        Some(4096),
        Some(8192),
    ];
    assert_eq!(durable, expected);
}

#[test]
fn the_callback_sees_every_boundary_with_the_state_before_it() {
    let disk = SimDisk::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let inner = Arc::clone(&seen);
    disk.on_io(move |disk, event| {
        let images = disk.crash_images(0, &CrashCaps::default()).count();
        inner.lock().push((event.op, event.phase, images));
    });
    let file = disk.open("/a".as_ref(), Open::CreateNew).unwrap();
    disk.sync_dir("/".as_ref()).unwrap();
    file.write(Purpose::Other, 0, &filled(1), true).unwrap();
    disk.off_io();
    file.sync().unwrap();
    let seen = seen.lock();
    let phases: Vec<(OpKind, Phase)> = seen.iter().map(|(op, phase, _)| (*op, *phase)).collect();
    assert_eq!(
        phases,
        [
            (OpKind::Create, Phase::Before),
            (OpKind::Create, Phase::After),
            (OpKind::SyncDir, Phase::Before),
            (OpKind::SyncDir, Phase::After),
            (OpKind::Write, Phase::Before),
            (OpKind::Write, Phase::Pending),
            (OpKind::Write, Phase::After),
        ]
    );
    assert_eq!((seen[0].2, seen[1].2, seen[3].2), (1, 2, 1));
    assert!(seen[5].2 > 20, "a pending write has many images");
    assert_eq!(seen[6].2, 1);
}

#[test]
fn the_nth_call_fails_once_or_for_ever() {
    let (disk, file) = half_synced();
    disk.inject(Fault::nth(OpKind::Write, 1).with_errno(Errno::NOSPC.raw_os_error()));
    let write = || file.write(Purpose::Other, 0, &filled(7), false);
    write().unwrap();
    let error = write().unwrap_err();
    assert!(error.is_full());
    assert_eq!((error.op, error.offset, error.len), ("write", 0, 4096));
    write().unwrap();
    disk.inject(Fault::nth_call(0).on("/a").sticky());
    assert!(write().is_err() && file.len().is_err() && file.sync().is_err());
    assert!(disk.list("/".as_ref()).is_ok(), "another path");
    disk.clear_faults();
    write().unwrap();
}

#[test]
fn a_failed_sync_is_final() {
    let (disk, file) = half_synced();
    disk.inject(Fault::nth(OpKind::Sync, 0));
    file.sync().unwrap_err();
    file.sync().unwrap();
    let lost = (0..32).filter(|seed| byte_at(&disk.crash(*seed), "/a", 4096) != Some(2));
    assert!(
        lost.count() > 4,
        "a later sync does not cover what the failed one lost"
    );
}

#[test]
fn a_full_disk_says_so_and_recovers_when_space_returns() {
    let (disk, file) = half_synced();
    assert_eq!(disk.used_bytes(), 8192);
    disk.set_capacity(Some(12288));
    file.write(Purpose::Other, 8192, &filled(1), true).unwrap();
    let error = file.write(Purpose::Other, 12288, &filled(1), true);
    assert!(error.unwrap_err().is_full());
    assert!(file.allocate(12288, 4096).unwrap_err().is_full());
    assert_eq!(file.len().unwrap(), 12288, "a refused write grows nothing");
    file.write(Purpose::Other, 0, &filled(5), true).unwrap();
    file.punch(4096, 4096).unwrap();
    assert_eq!(disk.used_bytes(), 8192);
    file.write(Purpose::Other, 12288, &filled(1), true).unwrap();
    drop(file);
    disk.remove("/a".as_ref()).unwrap();
    assert_eq!(disk.used_bytes(), 0);
    disk.set_capacity(Some(0));
    let file = disk.open("/b".as_ref(), Open::CreateNew).unwrap();
    assert!(file.write(Purpose::Other, 0, &filled(1), false).is_err());
    disk.set_capacity(None);
    file.write(Purpose::Other, 0, &filled(1), false).unwrap();
}

#[test]
fn a_rotten_sector_is_read_as_it_is_also_after_a_crash() {
    let (disk, _file) = half_synced();
    assert!(disk.corrupt("/a".as_ref(), 512, 1, |bytes| bytes[0] ^= 0x80));
    let read = |disk: &SimDisk| disk.image().read("/a".as_ref()).unwrap()[512];
    assert_eq!((read(&disk), read(&disk.crash(0))), (0x81, 0x81));
    assert!(!disk.corrupt("/none".as_ref(), 0, 1, |_| ()));
}

#[test]
#[should_panic(expected = "L2")]
fn writing_over_an_acknowledged_range_panics() {
    let (disk, file) = half_synced();
    disk.protect("/a".as_ref(), 0, 4096);
    file.write(Purpose::Other, 4096, &filled(3), true).unwrap();
    file.write(Purpose::Other, 0, &filled(3), true).unwrap();
}

#[test]
fn protection_ends_with_a_rename() {
    let (disk, file) = half_synced();
    disk.protect("/a".as_ref(), 0, 4096);
    disk.rename("/a".as_ref(), "/b".as_ref()).unwrap();
    file.write(Purpose::Other, 0, &filled(3), true).unwrap();
}

#[test]
fn a_sync_in_a_batch_covers_what_had_ended_and_nothing_in_flight() {
    let (disk, file) = half_synced();
    disk.set_completion_order(CompletionOrder::Submitted);
    let request = |token, offset, op| crate::io::Request {
        token,
        file: Arc::clone(&file),
        offset,
        op,
    };
    let mut batch = disk.batch(Purpose::Other);
    batch.push(request(1, 8192, crate::io::Op::Write(filled(3))));
    batch.push(request(2, 0, crate::io::Op::Sync));
    while batch.in_flight() > 0 {
        batch.wait();
    }
    let crashes: Vec<SimDisk> = (0..32).map(|seed| disk.crash(seed)).collect();
    assert!(crashes.iter().all(|d| byte_at(d, "/a", 4096) == Some(2)));
    assert!(crashes.iter().any(|d| byte_at(d, "/a", 8192) != Some(3)));
}

#[test]
fn seeded_completions_come_in_many_orders_and_replay() {
    let order = |seed| {
        let disk = SimDisk::seeded(seed);
        disk.set_completion_order(CompletionOrder::Seeded);
        let file = disk.open("/a".as_ref(), Open::CreateNew).unwrap();
        let mut batch = disk.batch(Purpose::Other);
        for token in 0..6 {
            batch.push(crate::io::Request {
                token,
                file: Arc::clone(&file),
                offset: token * 4096,
                op: crate::io::Op::Write(filled(1)),
            });
        }
        let mut tokens = Vec::new();
        while batch.in_flight() > 0 {
            let some = batch.wait();
            assert!(!some.is_empty());
            tokens.extend(some.iter().map(|c| c.token));
        }
        assert_eq!(tokens.len(), 6);
        tokens
    };
    assert_eq!(order(4), order(4));
    assert!((5..20).any(|seed| order(seed) != order(4)));
}

#[test]
fn a_file_removed_while_open_lives_until_it_is_closed_and_is_forgotten_then() {
    let (disk, file) = half_synced();
    disk.remove("/a".as_ref()).unwrap();
    let mut buf = Buf::zeroed(4096);
    assert_eq!(file.read(Purpose::Other, 0, &mut buf).unwrap(), 4096);
    let back = (0..32).filter(|seed| byte_at(&disk.crash(*seed), "/a", 0) == Some(1));
    assert!(back.count() > 4, "an unsynced removal may be lost");
    drop(file);
    disk.sync_dir("/".as_ref()).unwrap();
    assert_eq!(disk.0.state.lock().durable.contents.len(), 0);
    assert_eq!(disk.0.state.lock().live.contents.len(), 0);
}

#[test]
fn an_image_becomes_a_disk_again() {
    let (disk, _file) = half_synced();
    let (_, image) = images(&disk).remove(1);
    assert_eq!(image.files(), [Path::new("/a")]);
    let again = SimDisk::from_image(&image);
    assert_eq!(again.image().hash(), image.hash());
    let file = again.open("/a".as_ref(), Open::Write).unwrap();
    file.write(Purpose::Other, 0, &filled(8), true).unwrap();
    assert_ne!(again.image().hash(), image.hash());
    let mut broken = image.clone();
    assert!(broken.replace("/a".as_ref(), &[1, 2, 3]));
    assert_eq!(broken.read("/a".as_ref()).unwrap(), [1, 2, 3]);
    assert!(!broken.replace("/none".as_ref(), &[]));
}

#[test]
fn a_freed_range_is_readable_again_where_it_was_written() {
    let (disk, file) = half_synced();
    assert!(disk.forbid_reads("/a".as_ref(), 0, 8192));
    file.write(Purpose::Other, 0, &filled(4), false).unwrap();
    assert_eq!(byte_at(&disk, "/a", 0), Some(4));
    let read = catch_unwind(AssertUnwindSafe(|| byte_at(&disk, "/a", 4096)));
    let text = read.unwrap_err().downcast::<String>().unwrap();
    assert!(text.contains("T5") && text.contains("4096..8192"), "{text}");
}
