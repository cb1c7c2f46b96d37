//! One contract, three disks: the same checks run on rings and on the pool, both past the page
//! cache and through it, and on the simulated disk.

#![allow(
    clippy::unwrap_used,
    reason = "a test stops where an answer is missing"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use terrane_wal::env::{Park, Spawn, SystemPark, SystemSpawn};
use terrane_wal::io::sim::SimDisk;
use terrane_wal::io::{
    BLOCK, Backend, BackendChoice, Batch, Buf, Completion, Disk, DiskOptions, File, Kind, Op, Open,
    Purpose, REQUEST_MAX, Request, open_disk, open_system_disk,
};

const STEP: u64 = BLOCK as u64;

/// A disk and an empty directory on it.
struct Place {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    _keep: Option<tempfile::TempDir>,
}

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn create(&self, name: &str) -> Arc<dyn File> {
        self.disk.open(&self.path(name), Open::CreateNew).unwrap()
    }
}

fn system(options: &DiskOptions) -> Arc<dyn Disk> {
    let spawn: Arc<dyn Spawn> = Arc::new(SystemSpawn);
    let park: Arc<dyn Park> = Arc::new(SystemPark);
    open_disk(&spawn, &park, options).unwrap().0
}

fn real(choice: BackendChoice, buffered: bool) -> Place {
    // In the build folder, which lies on a real file system; a temporary folder may be memory.
    let keep = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    Place {
        disk: system(&DiskOptions {
            buffered,
            ..DiskOptions::new(choice)
        }),
        dir: keep.path().to_owned(),
        _keep: Some(keep),
    }
}

/// Runs a check on each disk. A kernel that refuses rings leaves them out, aloud.
fn on_each(check: impl Fn(&Place)) {
    check(&Place {
        disk: Arc::new(SimDisk::new()),
        dir: PathBuf::from("/"),
        _keep: None,
    });
    for buffered in [false, true] {
        let pool = real(BackendChoice::Pool, buffered);
        assert_eq!(pool.disk.backend(), Backend::Pool);
        check(&pool);
        let auto = real(BackendChoice::Auto, buffered);
        if auto.disk.backend() == Backend::Uring {
            check(&auto);
        } else {
            eprintln!("SKIPPED on rings: the kernel refuses them");
        }
    }
}

fn filled(len: usize, seed: u8) -> Buf {
    let mut buf = Buf::zeroed(len);
    for (index, byte) in buf.iter_mut().enumerate() {
        *byte = (index / 7) as u8 ^ seed;
    }
    buf
}

fn request(token: u64, file: &Arc<dyn File>, offset: u64, op: Op) -> Request {
    Request {
        token,
        file: Arc::clone(file),
        offset,
        op,
    }
}

/// Waits for everything, sorted by token.
fn drain(batch: &mut dyn Batch) -> Vec<Completion> {
    let mut all = Vec::new();
    while batch.in_flight() > 0 {
        let some = batch.wait();
        assert!(!some.is_empty(), "wait returned nothing");
        all.extend(some);
    }
    assert!(
        batch.wait().is_empty(),
        "an idle batch has nothing to wait for"
    );
    all.sort_by_key(|completion| completion.token);
    all
}

#[test]
fn lone_writes_are_read_back_and_reads_end_at_the_end_of_the_file() {
    on_each(|place| {
        let file = place.create("a");
        let written = filled(3 * BLOCK, 1);
        file.write(Purpose::Other, STEP, &written, false).unwrap();
        assert_eq!(file.len().unwrap(), 4 * STEP);
        let mut buf = Buf::zeroed(8 * BLOCK);
        assert_eq!(
            file.read(Purpose::Other, STEP, &mut buf).unwrap(),
            3 * BLOCK
        );
        assert_eq!(buf[..3 * BLOCK], written[..]);
        assert_eq!(file.read(Purpose::Other, 0, &mut buf).unwrap(), 4 * BLOCK);
        assert!(
            buf[..BLOCK].iter().all(|byte| *byte == 0),
            "a hole reads as zeros"
        );
        assert_eq!(file.read(Purpose::Other, 4 * STEP, &mut buf).unwrap(), 0);
        assert_eq!(file.read(Purpose::Other, 99 * STEP, &mut buf).unwrap(), 0);
    });
}

#[test]
fn a_batch_answers_every_request_once_with_its_own_buffer() {
    on_each(|place| {
        let file = place.create("a");
        let mut batch = place.disk.batch(Purpose::Checkpoint);
        // More than a ring has entries, so that the queue in front of it is used.
        let count = 300;
        for token in 0..count {
            let buf = filled(BLOCK, token as u8);
            batch.push(request(token, &file, token * STEP, Op::Write(buf)));
        }
        assert_eq!(batch.in_flight(), count as usize);
        let written = drain(&mut *batch);
        assert_eq!(written.len(), count as usize);
        for (token, completion) in written.into_iter().enumerate() {
            assert_eq!(completion.token, token as u64);
            assert_eq!(completion.result.unwrap(), BLOCK);
            assert_eq!(completion.buf.unwrap()[..], filled(BLOCK, token as u8)[..]);
        }
        batch.push(request(0, &file, 0, Op::Sync));
        assert_eq!(drain(&mut *batch)[0].result.clone().unwrap(), 0);
        let mut reads = place.disk.batch(Purpose::Prefetch);
        for token in (0..count).rev() {
            let op = Op::Read(Buf::zeroed(BLOCK));
            reads.push(request(token, &file, token * STEP, op));
        }
        reads.submit();
        for (token, completion) in drain(&mut *reads).into_iter().enumerate() {
            assert_eq!(completion.result.unwrap(), BLOCK);
            assert_eq!(completion.buf.unwrap()[..], filled(BLOCK, token as u8)[..]);
        }
    });
}

#[test]
fn a_batch_reads_short_at_the_end_and_takes_the_longest_request() {
    on_each(|place| {
        let file = place.create("a");
        let mut batch = place.disk.batch(Purpose::Replay);
        let whole = filled(REQUEST_MAX, 9);
        batch.push(request(
            1,
            &file,
            STEP,
            Op::WriteDurable(filled(REQUEST_MAX, 9)),
        ));
        assert_eq!(drain(&mut *batch)[0].result.clone().unwrap(), REQUEST_MAX);
        let size = REQUEST_MAX as u64 + STEP;
        assert_eq!(file.len().unwrap(), size);
        for (token, offset) in [(1, STEP), (2, size - STEP), (3, size), (4, size + 7 * STEP)] {
            let op = Op::Read(Buf::zeroed(REQUEST_MAX));
            batch.push(request(token, &file, offset, op));
        }
        let done = drain(&mut *batch);
        let lens: Vec<usize> = done.iter().map(|c| c.result.clone().unwrap()).collect();
        assert_eq!(lens, [REQUEST_MAX, BLOCK, 0, 0]);
        assert_eq!(done[0].buf.as_ref().unwrap()[..], whole[..]);
    });
}

#[test]
fn a_wrong_request_is_a_completion_with_an_error_and_harms_no_other() {
    on_each(|place| {
        let file = place.create("a");
        let mut batch = place.disk.batch(Purpose::Other);
        batch.push(request(1, &file, 17, Op::Write(Buf::zeroed(BLOCK))));
        batch.push(request(
            2,
            &file,
            0,
            Op::Read(Buf::zeroed(REQUEST_MAX + BLOCK)),
        ));
        batch.push(request(3, &file, 0, Op::Write(filled(BLOCK, 3))));
        let done = drain(&mut *batch);
        let error = done[0].result.as_ref().unwrap_err();
        assert_eq!((error.op, error.offset), ("write", 17));
        assert_eq!(error.path, place.path("a"));
        assert!(error.to_string().contains("at offset 17"), "{error}");
        assert!(done[1].result.is_err());
        assert_eq!(done[1].buf.as_ref().unwrap().len(), REQUEST_MAX + BLOCK);
        assert_eq!(*done[2].result.as_ref().unwrap(), BLOCK);
    });
}

#[test]
fn a_file_opened_for_reading_refuses_writes_by_name_and_offset() {
    on_each(|place| {
        place.create("a").set_len(STEP).unwrap();
        let file = place.disk.open(&place.path("a"), Open::Read).unwrap();
        let error = file.write(Purpose::Other, STEP, &filled(BLOCK, 1), true);
        let error = error.unwrap_err();
        assert_eq!((error.op, error.offset, error.len), ("write", STEP, BLOCK));
        assert_eq!(error.path, place.path("a"));
        let mut batch = place.disk.batch(Purpose::Other);
        batch.push(request(5, &file, STEP, Op::WriteDurable(filled(BLOCK, 1))));
        let error = drain(&mut *batch).remove(0).result.unwrap_err();
        assert_eq!((error.op, error.offset), ("write", STEP));
        assert_eq!(error.path, place.path("a"));
    });
}

#[test]
fn lengths_change_allocation_extends_and_punched_ranges_are_zeros() {
    on_each(|place| {
        let file = place.create("a");
        file.allocate(0, 4 * STEP).unwrap();
        assert_eq!(file.len().unwrap(), 4 * STEP);
        file.write(Purpose::Other, 0, &filled(4 * BLOCK, 0x55), true)
            .unwrap();
        file.punch(STEP, STEP).unwrap();
        assert_eq!(file.len().unwrap(), 4 * STEP);
        let mut buf = Buf::zeroed(4 * BLOCK);
        file.read(Purpose::Other, 0, &mut buf).unwrap();
        let expected = filled(4 * BLOCK, 0x55);
        assert_eq!(buf[..BLOCK], expected[..BLOCK]);
        assert!(buf[BLOCK..2 * BLOCK].iter().all(|byte| *byte == 0));
        assert_eq!(buf[2 * BLOCK..], expected[2 * BLOCK..]);
        file.set_len(2 * STEP).unwrap();
        file.set_len(4 * STEP).unwrap();
        file.read(Purpose::Other, 0, &mut buf).unwrap();
        assert!(
            buf[2 * BLOCK..].iter().all(|byte| *byte == 0),
            "cut bytes stay away"
        );
    });
}

#[test]
fn names_are_created_listed_renamed_and_removed() {
    on_each(|place| {
        let disk = &place.disk;
        let sub = place.path("sub");
        disk.create_dir(&sub).unwrap();
        for name in ["b", "a", "c"] {
            disk.open(&sub.join(name), Open::CreateNew).unwrap();
        }
        assert_eq!(disk.list(&sub).unwrap(), ["a", "b", "c"]);
        assert_eq!(disk.list(&place.dir).unwrap(), ["sub"]);
        let moved = disk.open(&sub.join("a"), Open::Write).unwrap();
        moved.set_len(STEP).unwrap();
        disk.rename(&sub.join("a"), &sub.join("b")).unwrap();
        disk.remove(&sub.join("c")).unwrap();
        disk.sync_dir(&sub).unwrap();
        assert_eq!(disk.list(&sub).unwrap(), ["b"]);
        let stat = disk.stat(&sub.join("b")).unwrap().unwrap();
        assert_eq!((stat.kind, stat.len), (Kind::File, STEP));
        let stat = disk.stat(&sub).unwrap().unwrap();
        assert_eq!(stat.kind, Kind::Directory);
        assert_eq!(disk.stat(&sub.join("a")).unwrap(), None);
    });
}

#[test]
fn a_missing_or_existing_name_is_an_error_that_names_it() {
    on_each(|place| {
        let disk = &place.disk;
        let path = place.path("a");
        disk.open(&path, Open::CreateNew).unwrap();
        let missing = place.path("none");
        let no_dir = missing.join("x");
        let kinds = [
            (disk.open(&missing, Open::Write).map(drop), "open", &missing),
            (disk.open(&missing, Open::Read).map(drop), "open", &missing),
            (
                disk.open(&no_dir, Open::CreateNew).map(drop),
                "open",
                &no_dir,
            ),
            (disk.list(&missing).map(drop), "list", &missing),
            (disk.remove(&missing), "remove", &missing),
            (disk.rename(&missing, &path), "rename", &missing),
            (disk.sync_dir(&missing), "sync_dir", &missing),
            (disk.create_dir(&no_dir), "create_dir", &no_dir),
            (disk.lock(&no_dir).map(drop), "lock", &no_dir),
        ];
        for (result, op, at) in kinds {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
            assert_eq!((error.op, &error.path), (op, at));
        }
        let twice = disk.open(&path, Open::CreateNew).unwrap_err();
        assert_eq!(twice.kind(), std::io::ErrorKind::AlreadyExists);
        let twice = disk.create_dir(&path).unwrap_err();
        assert_eq!(twice.kind(), std::io::ErrorKind::AlreadyExists);
    });
}

#[test]
fn a_lock_is_given_once_and_again_after_it_was_dropped() {
    on_each(|place| {
        let path = place.path("LOCK");
        let lock = place.disk.lock(&path).unwrap();
        assert!(lock.is_some());
        assert!(place.disk.lock(&path).unwrap().is_none());
        drop(lock);
        assert!(place.disk.lock(&path).unwrap().is_some());
        assert_eq!(place.disk.list(&place.dir).unwrap(), ["LOCK"]);
    });
}

#[test]
fn a_lock_holds_under_another_name_of_the_same_file() {
    let place = real(BackendChoice::Pool, false);
    let held = place.disk.lock(&place.path("LOCK")).unwrap();
    std::os::unix::fs::symlink(place.path("LOCK"), place.path("again")).unwrap();
    assert!(place.disk.lock(&place.path("again")).unwrap().is_none());
    drop(held);
    assert!(place.disk.lock(&place.path("again")).unwrap().is_some());
}

#[test]
fn operations_are_counted_by_way_and_purpose() {
    on_each(|place| {
        let file = place.create("a");
        let stats = place.disk.stats();
        let get = |counter: &std::sync::atomic::AtomicU64| {
            counter.load(std::sync::atomic::Ordering::Relaxed)
        };
        file.write(Purpose::Log, 0, &filled(BLOCK, 1), true)
            .unwrap();
        file.read(Purpose::Miss, 0, &mut Buf::zeroed(BLOCK))
            .unwrap();
        let mut batch = place.disk.batch(Purpose::Checkpoint);
        batch.push(request(1, &file, STEP, Op::Write(filled(BLOCK, 1))));
        batch.push(request(
            2,
            &file,
            2 * STEP,
            Op::WriteDurable(filled(BLOCK, 1)),
        ));
        drain(&mut *batch);
        batch.push(request(3, &file, 0, Op::Sync));
        batch.push(request(4, &file, 0, Op::Read(Buf::zeroed(4 * BLOCK))));
        drain(&mut *batch);
        assert_eq!(get(&stats.lone[Purpose::Log as usize]), 1);
        assert_eq!(get(&stats.lone[Purpose::Miss as usize]), 1);
        assert_eq!(get(&stats.batched[Purpose::Checkpoint as usize]), 4);
        assert_eq!(get(&stats.batched[Purpose::Log as usize]), 0);
        assert_eq!(get(&stats.bytes_written), 3 * STEP);
        assert_eq!(get(&stats.bytes_read), 4 * STEP);
        assert_eq!(get(&stats.flushes), 3);
    });
}

#[test]
fn a_batch_dropped_in_flight_ends_what_was_submitted() {
    on_each(|place| {
        let file = place.create("a");
        let mut batch = place.disk.batch(Purpose::Other);
        for token in 0..200 {
            let op = Op::Write(filled(BLOCK, token as u8));
            batch.push(request(token, &file, 0, op));
        }
        batch.submit();
        drop(batch);
        // No write of the dropped batch, all to this block, may arrive behind this one.
        let last = filled(BLOCK, 0xee);
        file.write(Purpose::Other, 0, &last, false).unwrap();
        let moment = std::time::Duration::from_millis(20);
        SystemPark.waiter().park_timeout(moment);
        let mut buf = Buf::zeroed(BLOCK);
        file.read(Purpose::Other, 0, &mut buf).unwrap();
        assert_eq!(buf[..], last[..]);
    });
}

#[test]
fn many_batches_are_in_flight_together_and_move_between_threads() {
    on_each(|place| {
        let file = place.create("a");
        let mut batches: Vec<Box<dyn Batch>> = (0..12)
            .map(|number| {
                let mut batch = place.disk.batch(Purpose::Evict);
                for token in 0..8 {
                    let at = (number * 8 + token) * STEP;
                    batch.push(request(
                        token,
                        &file,
                        at,
                        Op::Write(filled(BLOCK, at as u8)),
                    ));
                }
                batch.submit();
                batch
            })
            .collect();
        std::thread::scope(|scope| {
            for batch in &mut batches {
                scope.spawn(move || {
                    let done = drain(&mut **batch);
                    assert!(done.iter().all(|c| *c.result.as_ref().unwrap() == BLOCK));
                    assert_eq!(done.len(), 8);
                });
            }
        });
        assert_eq!(file.len().unwrap(), 96 * STEP);
    });
}

#[test]
fn a_refused_ring_is_replaced_by_the_pool_with_a_notice_unless_it_was_demanded() {
    let spawn: Arc<dyn Spawn> = Arc::new(SystemSpawn);
    let park: Arc<dyn Park> = Arc::new(SystemPark);
    // EPERM, ENOSYS, ENOMEM.
    for errno in [1, 38, 12] {
        let mut options = DiskOptions::new(BackendChoice::Auto);
        options.ring_refusal = Some(errno);
        let (disk, notice) = open_disk(&spawn, &park, &options).unwrap();
        assert_eq!(disk.backend(), Backend::Pool);
        let text = notice.unwrap().to_string();
        assert!(text.contains("io_uring refused"), "{text}");
        options.choice = BackendChoice::Ring;
        let error = open_disk(&spawn, &park, &options).unwrap_err();
        assert_eq!(error.source.raw_os_error(), Some(errno));
        assert_eq!(error.op, "io_uring_setup");
    }
}

/// The child of the test below: says which backend it got.
#[test]
fn child_says_its_backend() {
    if std::env::var_os("TERRANE_TEST_SAY_BACKEND").is_none() {
        return;
    }
    let spawn: Arc<dyn Spawn> = Arc::new(SystemSpawn);
    let park: Arc<dyn Park> = Arc::new(SystemPark);
    let (disk, notice) = open_system_disk(spawn, park, BackendChoice::Auto).unwrap();
    println!("backend {:?}, notice {}", disk.backend(), notice.is_some());
}

#[test]
fn a_kernel_that_refuses_the_ring_gets_the_pool() {
    let Ok(exe) = std::env::current_exe() else {
        panic!("a test knows its own program");
    };
    for errno in ["EPERM", "ENOSYS", "ENOMEM"] {
        let child = std::process::Command::new("strace")
            .arg("-f")
            .args(["-e", "trace=io_uring_setup"])
            .args(["-e", &format!("inject=io_uring_setup:error={errno}")])
            .args(["-o", "/dev/null"])
            .arg(&exe)
            .args(["--exact", "child_says_its_backend", "--nocapture"])
            .env("TERRANE_TEST_SAY_BACKEND", "1")
            .output();
        let output = match child {
            Ok(output) => output,
            Err(error) => {
                eprintln!("SKIPPED with a refusing kernel: strace does not start ({error})");
                return;
            }
        };
        let said = String::from_utf8_lossy(&output.stdout);
        if said.is_empty() {
            let why = String::from_utf8_lossy(&output.stderr);
            eprintln!("SKIPPED with a refusing kernel: strace may not trace here ({why})");
            return;
        }
        assert!(
            said.contains("backend Pool, notice true"),
            "{errno}: {said}"
        );
    }
}

#[test]
fn a_full_disk_is_told_apart_from_other_errors() {
    // A file size limit of the process would need a signal handler, so the largest file that the
    // file system takes stands in for it: its error is EFBIG as well.
    let place = real(BackendChoice::Pool, false);
    let file = place.create("a");
    let far = (1_u64 << 62) - STEP;
    let error = file.set_len(far).unwrap_err();
    assert!(error.is_full(), "{error}");
    assert_eq!((error.op, error.offset), ("set_len", far));
    let missing = place.disk.open(Path::new("/none/such"), Open::Read);
    assert!(!missing.unwrap_err().is_full());
}
