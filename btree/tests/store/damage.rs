//! Bad bytes on disk (rows 64 to 69, 73, 77, 78): typed errors that say where, the previous image
//! where there is one, never a panic.

use std::path::Path;

use terrane_btree::{Store, StoreError};
use terrane_wal::io::sim::{Image, SimDisk};

use crate::rig::{self, Dice, ModelLog, Rows};

/// A store with two images of different rows; what each holds.
fn two_images() -> (Image, Rows, Rows) {
    let disk = SimDisk::seeded(1);
    let (store, tree) = rig::create(&disk, &rig::plain_env(&disk)).expect("create");
    let log = ModelLog::eager();
    let mut dice = Dice(1);
    let mut states = Vec::new();
    // Enough checkpoints for a folded base.
    for _ in 0..20 {
        for _ in 0..40 {
            log.run(&tree, dice.op(400, 10)).expect("update");
        }
        rig::checkpoint(&store, &log).expect("checkpoint");
        states.push(log.rows_at(log.len()));
    }
    let newest = states.pop().expect("state");
    (disk.image(), states.pop().expect("state"), newest)
}

fn path(name: &str) -> std::path::PathBuf {
    rig::root().join(name)
}

/// The image with a file's bytes changed.
fn with(image: &Image, file: &Path, edit: impl FnOnce(&mut Vec<u8>)) -> SimDisk {
    let mut image = image.clone();
    let mut bytes = image.read(file).expect("file");
    edit(&mut bytes);
    assert!(image.replace(file, &bytes));
    SimDisk::from_image(&image)
}

fn corrupt_what(error: &StoreError) -> &'static str {
    match error {
        StoreError::Corrupt(corruption) => corruption.what,
        other => panic!("not Corrupt: {other}"),
    }
}

fn generation_at(meta: &[u8], copy: usize) -> u64 {
    let at = copy * 65536 + 48;
    u64::from_le_bytes(meta[at..at + 8].try_into().expect("8 bytes"))
}

fn newest_copies(meta: &[u8]) -> [usize; 2] {
    if generation_at(meta, 0) > generation_at(meta, 2) {
        [0, 1]
    } else {
        [2, 3]
    }
}

/// Rows 64 to 67.
#[test]
fn bad_superblocks() {
    let (image, older, newest) = two_images();
    let meta = path("META");
    for len in [0, 1, 4096 - 1] {
        let disk = with(&image, &meta, |bytes| bytes.truncate(len));
        let error = rig::open(&disk).expect_err("a cut META");
        assert_eq!(corrupt_what(&error), "META", "{len} bytes: {error}");
    }
    let disk = with(&image, &meta, |bytes| {
        for copy in 0..4 {
            bytes[copy * 65536..][..8].copy_from_slice(b"SQLite f");
        }
    });
    let error = rig::open(&disk).expect_err("a foreign file");
    assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
    let disk = with(&image, &meta, |bytes| {
        for copy in 0..4 {
            let at = copy * 65536;
            bytes[at + 12] = 9;
            let crc = crc32fast::hash(&bytes[at + 12..at + 4096]);
            bytes[at + 8..at + 12].copy_from_slice(&crc.to_le_bytes());
        }
    });
    let error = rig::open(&disk).expect_err("a newer format");
    assert!(
        matches!(error, StoreError::Version { found: 9, .. }),
        "{error}"
    );
    // One copy of a generation: the other serves. Both: the generation before. All: Corrupt.
    let bytes = image.read(&meta).expect("META");
    let [first, second] = newest_copies(&bytes);
    let spoil = |copies: &[usize]| {
        with(&image, &meta, |bytes| {
            for copy in copies {
                bytes[copy * 65536 + 77] ^= 0x40;
            }
        })
    };
    for (copies, rows) in [
        (vec![first], &newest),
        (vec![second], &newest),
        (vec![first, second], &older),
    ] {
        let (store, _) = rig::open(&spoil(&copies)).expect("a good copy is left");
        assert!(rig::content(&store).expect("rows") == *rows, "{copies:?}");
        rig::assert_clean(&store, "a good copy");
        // It goes on, and both generations are good again.
        for _ in 0..2 {
            rig::checkpoint(&store, &ModelLog::eager()).expect("checkpoint");
        }
    }
    let error = rig::open(&spoil(&[0, 1, 2, 3])).expect_err("no copy");
    assert_eq!(corrupt_what(&error), "META");
}

/// Row 67: the good copy is opened, and repairs the other. Seen to fail without the repair: the
/// second open gives the rows of the generation before.
#[test]
fn a_bad_copy_is_repaired_at_open() {
    let (image, _, newest) = two_images();
    let meta = path("META");
    let copies = newest_copies(&image.read(&meta).expect("META"));
    for (bad, other) in [(copies[0], copies[1]), (copies[1], copies[0])] {
        let disk = with(&image, &meta, |bytes| bytes[bad * 65536 + 100] ^= 1);
        let (store, opened) = rig::open(&disk).expect("the good copy");
        assert_eq!(opened.fell_back, None);
        drop(store);
        let again = with(&disk.image(), &meta, |bytes| {
            bytes[other * 65536 + 100] ^= 1
        });
        let (store, opened) = rig::open(&again).expect("the repaired copy");
        assert_eq!(opened.fell_back, None);
        assert!(rig::content(&store).expect("rows") == newest, "older rows");
    }
}

/// Row 73: every block of the map, changed, falls back to the image before; changed in both, it is
/// Corrupt. (A base chunk has its own crc and one over all chunks' crcs behind it.)
#[test]
fn bad_maps_fall_back() {
    let (image, older, newest) = two_images();
    let maps: Vec<_> = image
        .files()
        .into_iter()
        .filter(|path| path.to_string_lossy().contains("map."))
        .collect();
    assert!(maps.len() >= 2, "{maps:?}");
    let (mut fell_back, mut unharmed, mut refused) = (0, 0, 0);
    for map in &maps {
        let len = image.read(map).expect("map").len();
        for at in (0..len).step_by(97) {
            let disk = with(&image, map, |bytes| bytes[at] ^= 0x20);
            match rig::open(&disk) {
                Ok((store, opened)) => {
                    let rows = rig::content(&store).expect("rows");
                    match &opened.fell_back {
                        Some(why) => {
                            assert!(why.contains("corrupt map"), "{why}");
                            assert!(rows == older, "{map:?} byte {at}");
                            fell_back += 1;
                        }
                        None => {
                            assert!(rows == newest, "{map:?} byte {at}");
                            unharmed += 1;
                        }
                    }
                }
                Err(error) => {
                    assert_eq!(corrupt_what(&error), "map", "{error}");
                    refused += 1;
                }
            }
        }
    }
    println!("{fell_back} fell back, {unharmed} in bytes of no image, {refused} refused");
    assert!(fell_back > 0 && refused > 0);
    // A map file that is gone.
    for map in &maps {
        let disk = SimDisk::from_image(&image);
        terrane_wal::io::Disk::remove(&disk, map).expect("remove");
        match rig::open(&disk) {
            Ok((_, opened)) => assert!(opened.fell_back.is_some()),
            Err(StoreError::Io(error)) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
            Err(error) => panic!("{error}"),
        }
    }
}

/// A generation that did not verify never comes back, also not when what it lacked is there again.
///
/// Seen failing without `silence`: the second open takes the newer generation, whose data file was
/// cut and then grown again.
#[test]
fn a_generation_that_was_given_up_stays_given_up() {
    let (image, older, _) = two_images();
    let bytes = image.read(&path("META")).expect("META");
    let [first, _] = newest_copies(&bytes);
    let base = u32::from_le_bytes(
        bytes[first * 65536 + 96..][..4]
            .try_into()
            .expect("4 bytes"),
    );
    let delta = path(&format!("map.{base}.delta"));
    let at = u64::from_le_bytes(
        bytes[first * 65536 + 112..][..8]
            .try_into()
            .expect("8 bytes"),
    );
    let good = image.read(&delta).expect("delta");
    let disk = with(&image, &delta, |bytes| bytes[at as usize - 5] ^= 1);
    let (store, opened) = rig::open(&disk).expect("open");
    assert!(opened.fell_back.is_some());
    drop(store);
    let mut healed = disk.image();
    assert!(healed.replace(&delta, &good));
    let (store, opened) = rig::open(&SimDisk::from_image(&healed)).expect("open");
    assert_eq!(opened.fell_back, None);
    assert!(rig::content(&store).expect("rows") == older);
}

/// Rows 68, 69 and 78: each page, flipped, zeroed, replaced by another page or by its own past, is
/// Corrupt with its place; other pages are read as before.
///
#[test]
fn bad_pages_are_named() {
    let (image, _, newest) = two_images();
    let data = path("data.0");
    let len = image.read(&data).expect("data").len();
    let mut named = 0;
    for at in (0..len).step_by(8192) {
        for kind in ["flip", "zero", "other"] {
            let disk = with(&image, &data, |bytes| match kind {
                "flip" => bytes[at + 4000] ^= 1,
                "zero" => bytes[at..at + 8192].fill(0),
                _ => {
                    let from = (at + 3 * 8192) % (len - 8192);
                    bytes.copy_within(from..from + 8192, at);
                }
            });
            let Ok((store, _)) = rig::open(&disk) else {
                // The directory's own page.
                continue;
            };
            let mut findings = Vec::new();
            let checked = store.check(&mut |finding| findings.push(finding.error));
            if let Err(error) = checked {
                assert_eq!(corrupt_what(&error), "page");
            }
            match rig::content(&store) {
                Ok(rows) => assert!(rows == newest, "wrong rows after {kind} at {at}"),
                Err(error) => {
                    assert_eq!(corrupt_what(&error), "page", "{kind} at {at}: {error}");
                    assert!(error.to_string().contains("data.0"), "{error}");
                    assert!(!findings.is_empty());
                    named += 1;
                }
            }
        }
    }
    assert!(named > 30, "{named}");
}

/// Rows 69 and 78: the past of a page; a data file that is too short.
///
/// Seen failing with the comparison with the map's crc left out (the stale page passes).
#[test]
fn stale_pages_and_short_files() {
    let disk = SimDisk::seeded(3);
    let (store, tree) = rig::create(&disk, &rig::plain_env(&disk)).expect("create");
    let log = ModelLog::eager();
    for n in 0..100u32 {
        let key = n.to_be_bytes().to_vec();
        log.run(&tree, (key, Some(vec![1; 100]))).expect("update");
    }
    rig::checkpoint(&store, &log).expect("checkpoint");
    let before = disk.image().read(&path("data.0")).expect("data");
    for n in 0..100u32 {
        let key = n.to_be_bytes().to_vec();
        log.run(&tree, (key, Some(vec![2; 100]))).expect("update");
    }
    rig::checkpoint(&store, &log).expect("checkpoint");
    drop((tree, store));
    // Each slot gets each page's bytes of before: a lost write, and a misdirected one.
    let mut stale = 0;
    for to in (0..before.len()).step_by(8192) {
        for from in (0..before.len()).step_by(8192) {
            let disk = with(&disk.image(), &path("data.0"), |bytes| {
                bytes[to..to + 8192].copy_from_slice(&before[from..from + 8192]);
            });
            let content = rig::open(&disk).and_then(|(store, _)| rig::content(&store));
            match content {
                Ok(rows) => assert!(rows == log.rows_at(log.len())),
                Err(error) => {
                    assert_eq!(corrupt_what(&error), "page");
                    stale += u64::from(error.to_string().contains("stale"));
                }
            }
        }
    }
    assert!(stale > 0);
    for len in [0, 8192, 100_000] {
        let disk = with(&disk.image(), &path("data.0"), |bytes| bytes.truncate(len));
        let error = rig::open(&disk).expect_err("a short file");
        assert_eq!(corrupt_what(&error), "length", "{error}");
    }
}

/// A directory that holds a store is not made again, nor one with data but no META.
#[test]
fn create_refuses_what_is_not_its_own_leftover() {
    let (image, ..) = two_images();
    let disk = SimDisk::from_image(&image);
    let made = rig::create(&disk, &rig::plain_env(&disk));
    assert!(matches!(made, Err(StoreError::Invalid { .. })));
    terrane_wal::io::Disk::remove(&disk, &path("META")).expect("remove");
    let made = rig::create(&disk, &rig::plain_env(&disk));
    assert!(
        matches!(made, Err(StoreError::Invalid { .. })),
        "data without META"
    );
    let small = terrane_btree::StoreOptions {
        memory_bytes: 8192,
        ..rig::options(&disk)
    };
    let made = Store::create(&rig::plain_env(&disk), rig::root(), [0; 16], small);
    assert!(matches!(made, Err(StoreError::Invalid { .. })));
}
