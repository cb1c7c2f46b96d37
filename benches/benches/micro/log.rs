//! The log: an entry encoded and read back, a frame sealed and verified, an append that waits for
//! nothing, and one that waits for the device.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use terrane_wal::env::Env;
use terrane_wal::frame::{FrameHeader, decode_frame, frame_bytes, seal_frame};
use terrane_wal::io::BackendChoice;
use terrane_wal::limits::FRAME_HEADER_BYTES;
use terrane_wal::lsn::{Lsn, TreeId, Ts, TxnId};
use terrane_wal::{Entry, EntryBuilder, Level, Log, LogOptions, decode_entry};

const VALUE: [u8; 100] = [7; 100];

/// A commit of one row.
fn entry(number: u64) -> Entry {
    let mut builder = EntryBuilder::new();
    builder.put(TreeId(256), 1, 0, &number.to_be_bytes(), &VALUE);
    builder.commit(b"")
}

pub(crate) fn all(c: &mut Criterion) {
    entries(c);
    frames(c);
    appends(c);
}

fn entries(c: &mut Criterion) {
    let mut group = c.benchmark_group("log/entry");
    group.bench_function("encode_and_stamp_108_bytes", |b| {
        let mut number = 0;
        b.iter(|| {
            number += 1;
            let mut entry = entry(number);
            entry.stamp(Ts(number), TxnId(number));
            entry
        });
    });
    let mut stamped = entry(9);
    stamped.stamp(Ts(5), TxnId(1));
    group.bench_function("decode_108_bytes", |b| {
        b.iter(|| {
            let decoded = decode_entry(black_box(stamped.bytes())).expect("valid");
            assert_eq!((decoded.n_rec(), decoded.ts()), (2, Ts(5)));
        });
    });
    group.finish();
}

fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("log/frame");
    for payload in [200usize, 16 << 10] {
        let mut frame = vec![0; frame_bytes(payload)];
        for (i, byte) in frame[FRAME_HEADER_BYTES..][..payload]
            .iter_mut()
            .enumerate()
        {
            *byte = i as u8;
        }
        let header = FrameHeader {
            salt: 77,
            payload_len: payload as u32,
            ..bytemuck::Zeroable::zeroed()
        };
        group.throughput(Throughput::Bytes(payload as u64));
        group.bench_function(format!("seal_{payload}_bytes"), |b| {
            b.iter(|| seal_frame(black_box(&mut frame), header));
        });
        group.bench_function(format!("verify_{payload}_bytes"), |b| {
            b.iter(|| {
                let (_, found) = decode_frame(black_box(&frame), 77).expect("sealed");
                assert_eq!(found.len(), payload);
            });
        });
    }
    group.finish();
}

/// Appends `count` entries and returns the end of the last.
fn append(log: &Arc<Log>, count: u64) -> Lsn {
    let mut end = Lsn(0);
    for number in 0..count {
        let entry = entry(number);
        let admission = log.admit(entry.len()).expect("room");
        let place = log.sequence(admission, entry, true, &mut |_| {});
        end = place.end();
        place.fill();
    }
    end
}

fn appends(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let (env, _) = Env::system(BackendChoice::Auto).expect("a disk");
    let log = Log::create(
        &env,
        &folder.path().join("log"),
        [1; 16],
        LogOptions::default(),
    );
    let log = log.expect("a log");
    let mut group = c.benchmark_group("log/append");
    // Appending fills the buffer, which a flush empties outside the measured time.
    group.bench_function("one_row_no_wait", |b| {
        b.iter_custom(|count| {
            let mut spent = Duration::ZERO;
            for first in (0..count).step_by(10_000) {
                let some = (count - first).min(10_000);
                let begin = Instant::now();
                let end = append(&log, some);
                spent += begin.elapsed();
                log.wait(Level::Durable, end).expect("flushed");
                log.trim(end).expect("trimmed");
            }
            spent
        });
    });
    group.bench_function("one_row_durable", |b| {
        b.iter(|| {
            let end = append(&log, 1);
            log.wait(Level::Durable, end).expect("flushed");
            assert!(log.durable_lsn() >= end);
        });
    });
    group.finish();
    log.close().expect("closed");
}
