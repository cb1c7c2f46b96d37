//! What the log's tests share: an environment on a simulated disk, entries that name themselves,
//! and a reopening that checks what it finds.

use std::path::Path;
use std::sync::Arc;

use terrane_wal::clock::SystemClock;
use terrane_wal::env::{Env, SystemPark, SystemRng, SystemSpawn};
use terrane_wal::io::Disk;
use terrane_wal::lsn::{Lsn, TreeId, Ts};
use terrane_wal::{
    Body, Entry, EntryBuilder, Level, Log, LogOptions, LogRecovery, ReplayEntry, Sequenced,
    WalError,
};

pub(crate) const UUID: [u8; 16] = *b"test-of-the-log!";

pub(crate) fn dir() -> &'static Path {
    Path::new("/log")
}

/// An environment around `disk`.
pub(crate) fn env(disk: Arc<dyn Disk>, seed: u64) -> Env {
    Env {
        disk,
        clock: Arc::new(SystemClock::new()),
        rng: Arc::new(SystemRng::seeded(seed)),
        spawn: Arc::new(SystemSpawn),
        park: Arc::new(SystemPark),
    }
}

/// Small segments, so that tests switch and recycle often.
pub(crate) fn small() -> LogOptions {
    LogOptions {
        segment_bytes: 32 << 10,
        ..LogOptions::default()
    }
}

/// An entry that puts `n` as key, with a value of `len` bytes.
pub(crate) fn entry(n: u64, len: usize) -> Entry {
    let mut builder = EntryBuilder::new();
    let value = vec![n as u8; len];
    builder.put(TreeId(256), 1, 0, &n.to_be_bytes(), &value);
    builder.commit(b"")
}

/// The number that `entry` put in; None for a VOID.
pub(crate) fn number(entry: &ReplayEntry<'_>) -> Option<u64> {
    let first = entry.entry.records().next().unwrap();
    match first.body {
        Body::Put { key, .. } => Some(u64::from_be_bytes(key.try_into().unwrap())),
        _ => None,
    }
}

/// Sequences and fills, without waiting.
pub(crate) fn append(log: &Arc<Log>, entry: Entry) -> Result<Sequenced, WalError> {
    let admission = log.admit(entry.len())?;
    let reservation = log.sequence(admission, entry, false, &mut |_| {});
    let place = reservation.place();
    reservation.fill();
    Ok(place)
}

/// Sequences, fills and waits until it is durable.
pub(crate) fn commit(log: &Arc<Log>, entry: Entry) -> Result<Lsn, WalError> {
    let place = append(log, entry)?;
    log.wait(Level::Durable, place.end)?;
    Ok(place.end)
}

/// What an open found.
pub(crate) struct Opened {
    pub(crate) log: Arc<Log>,
    pub(crate) recovery: LogRecovery,
    pub(crate) numbers: Vec<u64>,
}

/// Opens the log and checks that positions and timestamps rise without a gap.
pub(crate) fn open_at(env: &Env, redo: Lsn, options: LogOptions) -> Result<Opened, WalError> {
    let mut numbers = Vec::new();
    let mut at = redo;
    let mut last = Ts::ZERO;
    let (log, recovery) = Log::open(env, dir(), UUID, redo, redo, options, &mut |entry| {
        assert_eq!(entry.begin, at, "entries follow each other");
        assert!(entry.ts > last, "timestamps rise");
        at = entry.end;
        last = entry.ts;
        numbers.extend(number(&entry));
        Ok(())
    })?;
    assert_eq!(recovery.end, at);
    assert_eq!(recovery.last_ts, last);
    Ok(Opened {
        log,
        recovery,
        numbers,
    })
}

/// Opens the whole log.
pub(crate) fn open(env: &Env) -> Result<Opened, WalError> {
    open_at(env, Lsn::ZERO, small())
}
