//! What a ring does with the answers that a healthy kernel seldom gives, and with itself.

#![cfg(not(loom))]

use std::io::Write as _;
use std::sync::Arc;

use super::ring::Flight;
use super::*;
use crate::env::{Park, SystemPark};
use crate::io::syscall::SysFile;
use crate::io::{BLOCK, Buf, Disk, File, Op, Open};
use rustix::io::Errno;

/// A request on a fresh file, as one transfer if the file takes it so.
fn flight(dir: &tempfile::TempDir, op: Op, direct: bool) -> Flight {
    let path = dir.path().join("a");
    let stats = Arc::new(IoStats::default());
    let file = SysFile::open(&path, Open::CreateNew, true, stats).unwrap();
    let mut flight = Flight::new(Request {
        token: 1,
        file: Arc::new(file),
        offset: 8192,
        op,
    });
    flight.in_one = direct && matches!(flight.op(), Op::WriteDurable(_));
    flight
}

fn no(errno: Errno) -> i32 {
    -errno.raw_os_error()
}

const BLOCK_I32: i32 = BLOCK as i32;

#[test]
fn a_short_durable_write_is_ended_by_a_sync_and_counts_only_then() {
    let dir = tempfile::tempdir().unwrap();
    let op = Op::WriteDurable(Buf::zeroed(3 * BLOCK));
    let mut flight = flight(&dir, op, true);
    assert!(
        flight.advance(BLOCK_I32 + 512).is_none(),
        "a block and a bit"
    );
    assert!(
        flight.advance(2 * BLOCK_I32).is_none(),
        "whole, not durable yet"
    );
    assert_eq!(flight.advance(0).unwrap().unwrap(), 3 * BLOCK);
}

#[test]
fn a_durable_write_in_one_piece_needs_no_sync_and_a_buffered_one_does() {
    let dir = tempfile::tempdir().unwrap();
    let op = || Op::WriteDurable(Buf::zeroed(BLOCK));
    let mut direct = flight(&dir, op(), true);
    assert_eq!(direct.advance(BLOCK_I32).unwrap().unwrap(), BLOCK);
    let dir = tempfile::tempdir().unwrap();
    let mut buffered = flight(&dir, op(), false);
    assert!(buffered.advance(BLOCK_I32).is_none());
    assert_eq!(buffered.advance(0).unwrap().unwrap(), BLOCK);
}

#[test]
fn a_failed_sync_of_a_durable_write_is_its_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut flight = flight(&dir, Op::WriteDurable(Buf::zeroed(BLOCK)), false);
    assert!(flight.advance(BLOCK_I32).is_none());
    let error = flight.advance(no(Errno::IO)).unwrap().unwrap_err();
    assert_eq!((error.op, error.offset, error.len), ("write", 8192, BLOCK));
    assert_eq!(error.source.raw_os_error(), Some(Errno::IO.raw_os_error()));
}

#[test]
fn interruptions_are_submitted_again_and_errors_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut read = flight(&dir, Op::Read(Buf::zeroed(2 * BLOCK)), false);
    for errno in [Errno::INTR, Errno::AGAIN, Errno::CANCELED] {
        assert!(read.advance(no(errno)).is_none(), "{errno}");
    }
    assert!(read.advance(BLOCK_I32).is_none(), "a short read goes on");
    assert_eq!(
        read.advance(0).unwrap().unwrap(),
        BLOCK,
        "until the end of the file"
    );
    let dir = tempfile::tempdir().unwrap();
    let mut write = flight(&dir, Op::Write(Buf::zeroed(BLOCK)), false);
    let error = write.advance(no(Errno::NOSPC)).unwrap().unwrap_err();
    assert!(error.is_full());
    let error = write.advance(0).unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WriteZero);
}

#[test]
fn without_flags_per_call_a_durable_write_is_written_and_synced() {
    let dir = tempfile::tempdir().unwrap();
    let mut flight = flight(&dir, Op::WriteDurable(Buf::zeroed(BLOCK)), true);
    assert!(flight.advance(no(Errno::OPNOTSUPP)).is_none());
    assert!(flight.advance(BLOCK_I32).is_none());
    assert_eq!(flight.advance(0).unwrap().unwrap(), BLOCK);
}

/// A disk with rings; None, aloud, where the kernel refuses them.
fn ring_disk() -> Option<RingDisk> {
    let disk = RingDisk::open(&DiskOptions::default());
    disk.inspect_err(|error| eprintln!("SKIPPED: the kernel refuses rings: {error}"))
        .ok()
}

#[test]
fn rings_go_back_to_the_pool_and_no_more_are_kept_than_planned() {
    let Some(disk) = ring_disk() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = disk.open(&dir.path().join("a"), Open::CreateNew).unwrap();
    let mut batches: Vec<_> = (0..10).map(|_| disk.batch(Purpose::Other)).collect();
    for batch in &mut batches {
        batch.push(Request {
            token: 0,
            file: Arc::clone(&file),
            offset: 0,
            op: Op::Write(Buf::zeroed(BLOCK)),
        });
        batch.submit();
    }
    for batch in &mut batches {
        while batch.in_flight() > 0 {
            batch.wait();
        }
    }
    let kept = disk.machinery().idle.rings.lock().len();
    assert!((1..=RINGS_KEPT_MAX).contains(&kept), "{kept} rings kept");
}

// Mistake 13: the kernel owns the buffer of a read that nothing has answered yet, so whoever drops
// the batch waits. Seen to fail with the waits left out of `RingBatch::drop` and `Ring::drop`.
#[test]
fn a_dropped_batch_waits_for_what_the_kernel_owns() {
    let Some(disk) = ring_disk() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let pipe = disk.open(&path, Open::Write).unwrap();
    let mut writer = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let mut batch = disk.batch(Purpose::Other);
    batch.push(Request {
        token: 1,
        file: pipe,
        offset: 0,
        op: Op::Read(Buf::zeroed(BLOCK)),
    });
    batch.submit();
    std::thread::scope(|scope| {
        let dropper = scope.spawn(move || drop(batch));
        let moment = std::time::Duration::from_millis(50);
        SystemPark.waiter().park_timeout(moment);
        let waits = !dropper.is_finished();
        writer.write_all(&[7; BLOCK]).unwrap();
        assert!(waits, "the kernel still owned the buffer");
    });
}

#[test]
fn a_batch_that_gets_no_ring_is_served_by_calls() {
    let dir = tempfile::tempdir().unwrap();
    let stats = Arc::new(IoStats::default());
    let path = dir.path().join("a");
    let file = SysFile::open(&path, Open::CreateNew, false, Arc::clone(&stats)).unwrap();
    let file: Arc<dyn File> = Arc::new(file);
    let rings = Rings {
        idle: Arc::new(Idle {
            rings: Mutex::new(Vec::new()),
            keep: 1,
            make: || Err(Errno::NOMEM.into()),
        }),
    };
    let mut batch = rings.batch(Purpose::Evict, Arc::clone(&stats));
    for token in 0..3 {
        batch.push(Request {
            token,
            file: Arc::clone(&file),
            offset: token * BLOCK as u64,
            op: Op::WriteDurable(Buf::zeroed(BLOCK)),
        });
    }
    let done = batch.wait();
    assert_eq!(done.len(), 3);
    assert!(done.iter().all(|c| c.result.is_ok()));
    assert_eq!(file.len().unwrap(), 3 * BLOCK as u64);
    let count = &stats.batched[Purpose::Evict as usize];
    assert_eq!(count.load(Ordering::Relaxed), 3);
}
