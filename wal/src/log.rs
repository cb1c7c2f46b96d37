//! The log: one stream of entries in a folder of segments.
//!
//! ```text
//! admit -> sequence -> fill -> wait ----------------> reader, replay
//! append.rs            |       group_commit.rs
//!                      +-----> flush.rs -> segment files <- shelf.rs, retention.rs
//! ```
//!
//! Invariants: L1 frames chain by crc and salt; L2 an acknowledged byte is never rewritten; L3
//! durable <= filled <= sequenced; L4 trimmed only below what the caller and consumers allow; L5 no
//! waiter waits for a flush that nobody leads.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clock::{SaneClock, TS_MAX};
use crate::entry::DecodedEntry;
use crate::env::Env;
use crate::error::WalError;
use crate::flush::Tail;
use crate::group_commit::{Board, Flusher};
use crate::io::BLOCK;
use crate::limits::{
    BUFFER_BYTES_DEFAULT, FLUSHES_IN_FLIGHT_MAX, SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MAX,
    SEGMENT_BYTES_MIN,
};
use crate::lsn::{Lsn, Ts};
use crate::reader::Reader;
use crate::recovery::{Found, find_end};
use crate::retention::ConsumerId;
use crate::shelf::Shelf;
use crate::stats::LogStats;
use crate::sync::{AtomicU64, Mutex, Ordering};

/// Settings of a log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Length of a full-grown segment, a multiple of 4096 from 16 KiB to 1 GiB. Default 64 MiB.
    pub segment_bytes: u64,
    /// Bytes of entries admitted and not yet taken by a flush; above it, `admit` waits. Default
    /// 32 MiB.
    pub buffer_bytes: usize,
    /// Most flushes in flight, 1 to 4. Default 2.
    pub max_flushes_in_flight: usize,
    /// Write an empty frame at the first idle tick, so that the last frame is vouched for too.
    pub vouch: bool,
    /// Bytes of the newest entries to keep in memory for [`Log::read`], beside all that are not
    /// durable. Default 0: none are kept.
    pub recent_bytes: usize,
    /// The log of a shard's member: what is durable is committed only when [`Log::commit_to`] says
    /// so, and no entry of its own is taken before [`Log::unseal`], for it leads nothing yet (I10).
    pub replicated: bool,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            buffer_bytes: BUFFER_BYTES_DEFAULT,
            max_flushes_in_flight: 2,
            vouch: true,
            recent_bytes: 0,
            replicated: false,
        }
    }
}

impl LogOptions {
    fn check(&self) -> Result<(), WalError> {
        let invalid = |what: String| Err(WalError::Invalid { what });
        let bytes = self.segment_bytes;
        if !bytes.is_multiple_of(BLOCK as u64)
            || !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes)
        {
            return invalid(format!(
                "segment_bytes is {bytes}, allowed are multiples of {BLOCK} from \
                 {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}"
            ));
        }
        let flights = self.max_flushes_in_flight;
        if !(1..=FLUSHES_IN_FLIGHT_MAX).contains(&flights) {
            return invalid(format!(
                "max_flushes_in_flight is {flights}, allowed are 1 to {FLUSHES_IN_FLIGHT_MAX}"
            ));
        }
        Ok(())
    }
}

/// What a waiter waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Every entry up to the position is filled or void.
    Filled,
    /// Every entry up to the position is on disk.
    Durable,
}

/// The log's three positions (L3): durable <= filled <= sequenced. Each is the end and the
/// timestamp of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    /// Last entry that has a place.
    pub sequenced: (Lsn, Ts),
    /// Last entry before which nothing is unfilled.
    pub filled: (Lsn, Ts),
    /// Last entry before which everything is on disk.
    pub durable: (Lsn, Ts),
}

/// An entry handed to replay, or read from the log.
#[derive(Clone, Copy, Debug)]
pub struct ReplayEntry<'a> {
    /// Where it begins.
    pub begin: Lsn,
    /// Where it ends: its LSN.
    pub end: Lsn,
    /// Timestamp of its terminal record; zero for a chunk.
    pub ts: Ts,
    /// Its records.
    pub entry: DecodedEntry<'a>,
}

/// What opening a log found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogRecovery {
    /// End of the last complete entry; new ones begin here.
    pub end: Lsn,
    /// Highest timestamp of a terminal record that was read; zero if none was.
    pub last_ts: Ts,
    /// Highest committed position that a frame names. Without replicas what is durable is
    /// committed.
    pub commit: Lsn,
    /// Bytes of entries replayed.
    pub bytes: u64,
    /// Entries replayed.
    pub entries: u64,
    /// Frames after the end, never acknowledged, discarded.
    pub discarded_frames: u64,
}

#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) voids: AtomicU64,
    pub(crate) flushes: AtomicU64,
    pub(crate) bytes_written: AtomicU64,
    pub(crate) vouching_frames: AtomicU64,
    pub(crate) segments_created: AtomicU64,
    pub(crate) segments_recycled: AtomicU64,
    pub(crate) segments_trimmed: AtomicU64,
    pub(crate) discarded_frames: u64,
}

impl Counters {
    fn new(discarded_frames: u64) -> Counters {
        Counters {
            voids: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
            vouching_frames: AtomicU64::new(0),
            segments_created: AtomicU64::new(0),
            segments_recycled: AtomicU64::new(0),
            segments_trimmed: AtomicU64::new(0),
            discarded_frames,
        }
    }
}

/// The log of one database. Shared as `Arc<Log>`; every call may be made from any thread.
#[derive(Debug)]
pub struct Log {
    pub(crate) env: Env,
    pub(crate) dir: PathBuf,
    pub(crate) uuid: [u8; 16],
    pub(crate) board: Board,
    /// Taken before the board's and the shelf's lock, never after.
    pub(crate) tail: Mutex<Tail>,
    pub(crate) shelf: Mutex<Shelf>,
    pub(crate) counters: Counters,
    pub(crate) clock: SaneClock,
    vouch: bool,
}

impl Log {
    /// Makes the folder `dir` (its parent exists) and an empty log in it.
    pub fn create(
        env: &Env,
        dir: &Path,
        uuid: [u8; 16],
        options: LogOptions,
    ) -> Result<Arc<Log>, WalError> {
        options.check()?;
        // A creation that crashed may have left the folder; its files are the caller's to remove.
        if env.disk.stat(dir)?.is_none() {
            env.disk.create_dir(dir)?;
        }
        if let Some(parent) = dir.parent() {
            env.disk.sync_dir(parent)?;
        }
        Log::start(env, dir, uuid, &options, Found::nothing())
    }

    /// Finds the end of the log (L2), hands every complete entry from `redo` (an entry's end) on to
    /// `replay` in order, and goes on in a fresh segment. The log must reach `must_reach`, else it
    /// is Corrupt. Reads the log from `redo` on once.
    pub fn open(
        env: &Env,
        dir: &Path,
        uuid: [u8; 16],
        redo: Lsn,
        must_reach: Lsn,
        options: LogOptions,
        replay: &mut dyn FnMut(ReplayEntry<'_>) -> Result<(), WalError>,
    ) -> Result<(Arc<Log>, LogRecovery), WalError> {
        options.check()?;
        let found = find_end(&*env.disk, dir, uuid, redo, must_reach, replay)?;
        let recovery = found.recovery;
        if recovery.last_ts > TS_MAX {
            let found = recovery.last_ts.to_string();
            let expected = format!("timestamps up to {TS_MAX}");
            return Err(WalError::corrupt(0, expected, found).in_file(dir, 0));
        }
        let log = Log::start(env, dir, uuid, &options, found)?;
        Ok((log, recovery))
    }

    /// Whether the log reaches `must_reach` from `redo` on, as [`Log::open`] would find. Changes
    /// nothing.
    pub fn check_reach(
        env: &Env,
        dir: &Path,
        uuid: [u8; 16],
        redo: Lsn,
        must_reach: Lsn,
    ) -> Result<(), WalError> {
        find_end(&*env.disk, dir, uuid, redo, must_reach, &mut |_| Ok(())).map(|_| ())
    }

    fn start(
        env: &Env,
        dir: &Path,
        uuid: [u8; 16],
        options: &LogOptions,
        found: Found,
    ) -> Result<Arc<Log>, WalError> {
        let (end, last_ts) = (found.recovery.end, found.recovery.last_ts);
        for path in &found.removed {
            env.disk.remove(path)?;
        }
        let oldest = match options.replicated {
            true => found.oldest_in_order()?,
            false => found.oldest,
        };
        let last_len = found.live.back().map(|last| last.len);
        let mut shelf = Shelf::new(options.segment_bytes, found.next_seq, last_len, oldest);
        shelf.live = found.live;
        shelf.spares = found.spares;
        let log = Log {
            env: env.clone(),
            dir: dir.to_path_buf(),
            uuid,
            board: Board::new(found.epochs, last_ts, options),
            tail: Mutex::new(Tail {
                segment: None,
                offset: 0,
                prev_crc: found.prev_crc,
                vouched: end,
            }),
            shelf: Mutex::new(shelf),
            counters: Counters::new(found.recovery.discarded_frames),
            clock: SaneClock::new(Arc::clone(&env.clock)),
            vouch: options.vouch,
        };
        log.board.commit_to(found.recovery.commit);
        // The first segment is there before the first commit asks for it.
        assert!(log.board.begin_prepare(1));
        log.board.prepared(log.prepare_segment())?;
        Ok(Arc::new(log))
    }

    /// The three positions at one moment.
    pub fn positions(&self) -> Positions {
        self.board.positions()
    }

    /// Timestamp of the last durable entry; no lock.
    pub fn durable_ts(&self) -> Ts {
        self.board.durable_ts()
    }

    /// End of the last durable entry; no lock.
    pub fn durable_lsn(&self) -> Lsn {
        self.board.durable_lsn()
    }

    /// Timestamp of the last filled entry; no lock.
    pub fn filled_ts(&self) -> Ts {
        self.board.filled_ts()
    }

    /// Highest timestamp given out or observed; no lock.
    pub fn last_ts(&self) -> Ts {
        self.board.last_ts()
    }

    /// The wall clock that timestamps follow.
    pub fn clock(&self) -> &SaneClock {
        &self.clock
    }

    /// Raises the last timestamp to `ts`, so that nothing is sequenced at or below it: a snapshot
    /// taken at the clock of an idle log stays what it is.
    pub fn observe(&self, ts: Ts) {
        self.board.observe(ts);
    }

    /// Waits until `level` covers `lsn` (an entry's end), leading a flush or parking (L5). Fails
    /// with Poisoned if a log write failed before `lsn` was durable: the outcome is unknown.
    pub fn wait(&self, level: Level, lsn: Lsn) -> Result<(), WalError> {
        self.board.wait(level, lsn, &*self.env.park, self)
    }

    /// Makes everything that is sequenced now durable.
    pub fn flush(&self) -> Result<(), WalError> {
        self.wait(Level::Durable, self.positions().sequenced.0)
    }

    /// A step of the background thread: flushes what nobody waits for, writes the vouching frame of
    /// an idle log, makes the next segment ahead of need. Errors surface at the next call that
    /// needs what failed.
    pub fn tick(&self) {
        while self.board.can_take() {
            self.flush_once();
        }
        if self.vouch {
            self.vouch();
        }
        let ahead = self.shelf.lock().next_len / 4 / BLOCK as u64;
        if self.board.begin_prepare(ahead) {
            // Nobody waits for this one; whoever needs it later asks again and gets the error.
            let _ = self.board.prepared(self.prepare_segment());
        }
    }

    /// Gives up the log below `below` (an entry's end), as far as consumers allow (L4). Files are
    /// kept for reuse or removed.
    pub fn trim(&self, below: Lsn) -> Result<(), WalError> {
        let durable = self.durable_lsn();
        let (trimmed, surplus) = self.shelf.lock().trim(&self.dir, below, durable);
        self.counters
            .segments_trimmed
            .fetch_add(trimmed, Ordering::Relaxed);
        let mut outcome = Ok(());
        for spare in surplus {
            outcome = outcome.and(self.env.disk.remove(&spare.path));
        }
        Ok(outcome?)
    }

    /// The oldest position that can still be read.
    pub fn oldest(&self) -> Lsn {
        self.shelf.lock().oldest
    }

    /// Keeps the log from `from` (an entry's end) on for a consumer, as long as it is at most
    /// `lease_bytes` behind the durable position.
    pub fn register(self: &Arc<Self>, from: Lsn, lease_bytes: u64) -> Result<Consumer, WalError> {
        let mut shelf = self.shelf.lock();
        if from < shelf.oldest {
            return Err(WalError::CursorLost {
                position: from,
                oldest: shelf.oldest,
            });
        }
        let id = shelf.consumers.register(from, lease_bytes);
        drop(shelf);
        Ok(Consumer {
            log: Arc::clone(self),
            id,
        })
    }

    /// An ordered, tailing reader from `from` (an entry's end) on. It holds nothing back: register
    /// a consumer for that.
    pub fn read_from(self: &Arc<Self>, from: Lsn) -> Result<Reader, WalError> {
        Reader::new(Arc::clone(self), from)
    }

    /// The failure that poisoned the log, if any.
    pub fn poisoned(&self) -> Option<Arc<WalError>> {
        self.board.poison()
    }

    /// Refuses new entries, waits until every admission is sequenced or dropped and every entry is
    /// filled, makes them durable and vouches for the last frame. Must not be called by a thread
    /// that holds an admission or an unfilled reservation: it would wait for itself.
    pub fn close(&self) -> Result<(), WalError> {
        self.board.close(&*self.env.park);
        self.flush()?;
        if self.vouch {
            self.vouch();
        }
        match self.poisoned() {
            Some(cause) => Err(WalError::Poisoned { cause }),
            None => Ok(()),
        }
    }

    /// Counters.
    pub fn stats(&self) -> LogStats {
        let board = self.board.stats();
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogStats {
            entries: board.entries,
            voids: load(&self.counters.voids),
            entry_bytes: board.entry_bytes,
            flushes: load(&self.counters.flushes),
            bytes_written: load(&self.counters.bytes_written),
            vouching_frames: load(&self.counters.vouching_frames),
            parks: board.parks,
            handoffs: board.handoffs,
            flushes_in_flight_peak: board.flights_peak,
            out_of_order: board.out_of_order,
            admission_waits: board.admission_waits,
            segments_created: load(&self.counters.segments_created),
            segments_recycled: load(&self.counters.segments_recycled),
            segments_trimmed: load(&self.counters.segments_trimmed),
            discarded_frames: self.counters.discarded_frames,
            clock_jumps_refused: self.clock.jumps_refused(),
        }
    }
}

/// A registered consumer. Dropping it ends the registration.
#[derive(Debug)]
pub struct Consumer {
    log: Arc<Log>,
    id: ConsumerId,
}

impl Consumer {
    /// Where it stands.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.log.shelf.lock().consumers.position(self.id)
    }

    /// It needs nothing below `lsn` any more.
    pub fn advance(&self, lsn: Lsn) {
        self.log.shelf.lock().consumers.advance(self.id, lsn);
    }

    /// True if its lease ran out at a trim that gave up what it needed.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.log.shelf.lock().consumers.is_lost(self.id)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.log.shelf.lock().consumers.unregister(self.id);
    }
}
