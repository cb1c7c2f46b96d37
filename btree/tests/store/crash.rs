//! A crash at every I/O of create, checkpoint, abandoned and good checkpoints, growth of zones and
//! of the map: what opens is exactly a published image (or the one that was being published).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use terrane_btree::{Step, Store};
use terrane_wal::io::sim::{CrashCaps, Fault, Image, IoEvent, OpKind, SimDisk};

use crate::rig::{self, Dice, ModelLog, Rows};

/// Of so many images one is also opened by its older generation.
const OLDER_STRIDE: usize = 5;

/// What may be found after a crash.
#[derive(Debug, Default)]
struct Allowed {
    /// Rows of each image by its epoch.
    images: BTreeMap<u32, Rows>,
    newest: u32,
    older: u32,
    /// Being published.
    coming: Option<u32>,
}

#[derive(Debug, Default)]
struct Seen {
    kinds: BTreeMap<&'static str, u64>,
    opened: u64,
    older_opened: u64,
    not_created: u64,
    boundaries: u64,
    /// Images judged, by what they are and what was published then: an equal one is not judged
    /// again.
    judged: BTreeSet<(u64, u32, Option<u32>)>,
}

fn judge(allowed: &Allowed, image: &Image, how: &str, seen: &mut Seen) {
    let disk = SimDisk::from_image(image);
    let (store, opened) = match rig::open(&disk) {
        Ok(opened) => opened,
        Err(error) if allowed.newest == 0 => {
            // Not created yet: then it can be created now.
            let again = rig::create(&disk, &rig::plain_env(&disk));
            assert!(again.is_ok(), "{how}: {error}, then {again:?}");
            seen.not_created += 1;
            return;
        }
        Err(error) => panic!("{how}: {error}"),
    };
    seen.opened += 1;
    let epoch = opened.epoch.0;
    assert_eq!(opened.fell_back, None, "{how}");
    assert!(
        epoch == allowed.newest || Some(epoch) == allowed.coming,
        "{how}: image {epoch} was opened, {} or {:?} is published",
        allowed.newest,
        allowed.coming
    );
    let rows = rig::content(&store).unwrap_or_else(|error| panic!("{how}: {error}"));
    assert!(
        rows == allowed.images[&epoch],
        "{how}: rows of image {epoch} differ"
    );
    rig::assert_clean(&store, how);
}

/// M2: with the newest generation gone from META, the one before it opens, whole.
fn judge_older(allowed: &Allowed, image: &Image, how: &str, seen: &mut Seen) {
    let mut image = image.clone();
    let path = rig::root().join("META");
    let Some(mut meta) = image.read(&path) else {
        return;
    };
    let generation_at = |copy: usize| {
        let at = copy * 65536 + 48;
        u64::from_le_bytes(meta[at..at + 8].try_into().unwrap())
    };
    let first = if generation_at(0) > generation_at(2) {
        0
    } else {
        2
    };
    for copy in [first, first + 1] {
        meta[copy * 65536 + 100] ^= 1;
    }
    assert!(image.replace(&path, &meta));
    let disk = SimDisk::from_image(&image);
    let (store, opened) = rig::open(&disk).unwrap_or_else(|error| panic!("{how}: older: {error}"));
    // Behind the superblock of a coming image, what was the newest is the older one.
    let epoch = opened.epoch.0;
    assert!(epoch == allowed.older || epoch == allowed.newest, "{how}");
    let rows = rig::content(&store).unwrap_or_else(|error| panic!("{how}: older: {error}"));
    assert!(
        rows == allowed.images[&epoch],
        "{how}: rows of the older image differ"
    );
    rig::assert_clean(&store, how);
    seen.older_opened += 1;
}

struct Run {
    disk: SimDisk,
    allowed: Arc<Mutex<Allowed>>,
    seen: Arc<Mutex<Seen>>,
}

impl Run {
    /// Looks at every boundary from now on, `images` images of a kind.
    fn watch(images: usize) -> Run {
        let run = Run {
            disk: SimDisk::seeded(5),
            allowed: Arc::default(),
            seen: Arc::default(),
        };
        {
            // `create` publishes images 1 and 2 and then gives them their name.
            let mut allowed = run.allowed.lock().unwrap();
            allowed.coming = Some(2);
            allowed.images.insert(1, Rows::new());
            allowed.images.insert(2, Rows::new());
        }
        let (allowed, seen) = (run.allowed.clone(), run.seen.clone());
        run.disk.on_io(move |disk: &SimDisk, event: &IoEvent| {
            let allowed = allowed.lock().unwrap();
            let mut seen = seen.lock().unwrap();
            seen.boundaries += 1;
            let caps = CrashCaps::at_most(images);
            for (kind, image) in disk.crash_images(event.boundary, &caps) {
                *seen.kinds.entry(kind.name()).or_default() += 1;
                let state = (image.hash(), allowed.newest, allowed.coming);
                if !seen.judged.insert(state) {
                    continue;
                }
                let how = format!("{event:?}, {}", image.how());
                judge(&allowed, &image, &how, &mut seen);
                let meta = event.path.ends_with("META");
                let judged = seen.judged.len();
                if allowed.older != 0 && !meta && judged.is_multiple_of(OLDER_STRIDE) {
                    judge_older(&allowed, &image, &how, &mut seen);
                }
            }
        });
        run
    }

    fn checkpoint(&self, store: &Store, log: &Arc<ModelLog>) -> bool {
        let mut checkpoint = store.begin_checkpoint(log.clone()).expect("begin");
        let rows = rig::content(store).expect("rows");
        loop {
            match checkpoint.step() {
                Ok(Step::Done(published)) => {
                    let mut allowed = self.allowed.lock().unwrap();
                    allowed.coming = None;
                    allowed.older = allowed.newest;
                    allowed.newest = published.epoch.0;
                    return true;
                }
                Ok(_) => {
                    let mut allowed = self.allowed.lock().unwrap();
                    let epoch = checkpoint.epoch().0;
                    allowed.images.insert(epoch, rows.clone());
                    allowed.coming = Some(epoch);
                }
                Err(_) => {
                    self.allowed.lock().unwrap().coming = None;
                    return false;
                }
            }
        }
    }
}

/// Seen to fail with slots released by the newest image's epoch instead of the oldest's, with a map
/// that is not synced before META is written, with a delta run written over the published tail of
/// the file, and with META always written to the same two copies.
#[test]
fn every_crash_opens_a_published_image() {
    let run = Run::watch(1);
    let env = rig::plain_env(&run.disk);
    let (store, tree) = rig::create(&run.disk, &env).expect("create");
    {
        let mut allowed = run.allowed.lock().unwrap();
        (allowed.older, allowed.newest, allowed.coming) = (1, 2, None);
    }
    let log = ModelLog::eager();
    let mut dice = Dice(9);
    for round in 0..24 {
        for _ in 0..if round == 0 { 900 } else { 40 } {
            let deletes = if round % 6 == 5 { 70 } else { 5 };
            log.run(&tree, dice.op(1000, deletes)).expect("update");
        }
        if round % 4 == 1 {
            // Abandoned in the middle of its pages, of its map, of the data sync or before META.
            let part = ["data.", "map."][round / 4 % 2];
            let fault = Fault::nth(OpKind::Write, 0).on(part).sticky();
            run.disk.inject(fault);
            assert!(!run.checkpoint(&store, &log), "the fault was not met");
            run.disk.clear_faults();
            for _ in 0..20 {
                log.run(&tree, dice.op(1000, 10)).expect("update");
            }
        }
        assert!(run.checkpoint(&store, &log), "round {round}");
    }
    run.disk.off_io();
    rig::assert_clean(&store, "at the end");
    let stats = store.stats();
    assert!(stats.pages_evicted > 20, "{stats:?}");
    assert!(
        !rig::files_with(&run.disk, ".base").is_empty(),
        "the map was never folded"
    );
    let seen = run.seen.lock().unwrap();
    println!(
        "crashes of a store: {} images judged at {} boundaries, {} older ones; by kind {:?}",
        seen.opened + seen.not_created,
        seen.boundaries,
        seen.older_opened,
        seen.kinds
    );
    for kind in [
        "none", "all", "prefix", "single", "subset", "torn", "length", "rename",
    ] {
        assert!(
            seen.kinds.get(kind).is_some_and(|&n| n > 0),
            "no image of kind {kind}"
        );
    }
    assert!(seen.opened > 3000 && seen.older_opened > 400 && seen.not_created > 20);
}

/// A crash inside the recovery of a crash changes nothing.
#[test]
fn a_second_crash_in_the_first_open_changes_nothing() {
    let disk = SimDisk::seeded(6);
    let env = rig::plain_env(&disk);
    let (store, tree) = rig::create(&disk, &env).expect("create");
    let log = ModelLog::eager();
    let mut dice = Dice(4);
    for _ in 0..2 {
        for _ in 0..150 {
            log.run(&tree, dice.op(200, 20)).expect("update");
        }
        rig::checkpoint(&store, &log).expect("checkpoint");
    }
    // An abandoned checkpoint leaves a map file behind, which open removes.
    disk.inject(Fault::nth(OpKind::Write, 0).on("META").sticky());
    assert!(rig::checkpoint(&store, &log).is_err());
    let expected = log.rows_at(300);
    let first = disk.crash(3);
    drop((tree, store));
    let depth = Arc::new(Mutex::new(0));
    let (count, rows) = (depth.clone(), expected.clone());
    first.on_io(move |disk: &SimDisk, event: &IoEvent| {
        for (_, image) in disk.crash_images(event.boundary, &CrashCaps::at_most(1)) {
            let second = SimDisk::from_image(&image);
            let (store, _) = rig::open(&second).expect("second open");
            assert!(rig::content(&store).expect("rows") == rows, "{event:?}");
            *count.lock().unwrap() += 1;
        }
    });
    let (store, _) = rig::open(&first).expect("open");
    assert!(rig::content(&store).expect("rows") == expected);
    rig::checkpoint(&store, &ModelLog::eager()).expect("checkpoint");
    first.off_io();
    assert!(*depth.lock().unwrap() > 10, "no second crash was tried");
}
