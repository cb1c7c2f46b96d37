//! The log: one stream of entries in a folder of segments.

use std::path::Path;
use std::sync::Arc;

use crate::entry::{DecodedEntry, Entry};
use crate::env::Env;
use crate::error::WalError;
use crate::limits::{BUFFER_BYTES_DEFAULT, SEGMENT_BYTES_DEFAULT};
use crate::lsn::{Lsn, Ts};
use crate::stats::LogStats;

/// Settings of a log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Length of a full-grown segment, a multiple of 4096 from 16 KiB to 1 GiB. Default 64 MiB.
    pub segment_bytes: u64,
    /// Bytes of entries admitted and not yet taken by a flush; above it, `admit` waits. Default 32 MiB.
    pub buffer_bytes: usize,
    /// Most flushes in flight, 1 to 4. Default 2.
    pub max_flushes_in_flight: usize,
    /// Write an empty frame at the first idle tick, so that the last frame is vouched for too.
    pub vouch: bool,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            buffer_bytes: BUFFER_BYTES_DEFAULT,
            max_flushes_in_flight: 2,
            vouch: true,
        }
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

/// Where an entry was put, as seen inside the sequencer's section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequenced {
    /// Where the entry begins; the transaction's id unless it has chunks.
    pub begin: Lsn,
    /// Where it ends: its LSN.
    pub end: Lsn,
    /// Its commit timestamp.
    pub ts: Ts,
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
    /// Bytes of entries replayed.
    pub bytes: u64,
    /// Entries replayed.
    pub entries: u64,
    /// Frames after the end, never acknowledged, discarded.
    pub discarded_frames: u64,
}

/// The right to sequence one entry of the admitted length. Dropped unused, it gives its share back.
#[derive(Debug)]
pub struct Admission<'a> {
    log: &'a Log,
    len: usize,
}

/// A sequenced entry's place. Must be filled or voided; dropped without either it becomes VOID.
#[derive(Debug)]
pub struct Reservation {
    log: Arc<Log>,
    place: Sequenced,
}

impl Reservation {
    /// Where the entry begins.
    #[must_use]
    pub fn begin(&self) -> Lsn {
        self.place.begin
    }
    /// Where the entry ends: its LSN.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.place.end
    }
    /// The entry's commit timestamp.
    #[must_use]
    pub fn ts(&self) -> Ts {
        self.place.ts
    }
    /// Stamps the entry and hands it to the next flush (X2). Does nothing if it was filled inside
    /// the sequencer.
    pub fn fill(self) {
        todo!()
    }
    /// Makes the place a VOID: the transaction failed validation.
    pub fn void(self) {
        todo!()
    }
}

/// The log of one database. Shared as `Arc<Log>`.
#[derive(Debug)]
pub struct Log {}

impl Log {
    /// Makes the folder `dir` (its parent exists) and an empty log in it.
    pub fn create(
        env: &Env,
        dir: &Path,
        uuid: [u8; 16],
        options: LogOptions,
    ) -> Result<Arc<Log>, WalError> {
        let _ = (env, dir, uuid, options);
        todo!()
    }

    /// Finds the end of the log (L2), hands every complete entry from `redo` (an entry's end) on to
    /// `replay` in order, and goes on in a fresh segment. The log must reach `must_reach`, else it
    /// is Corrupt.
    pub fn open(
        env: &Env,
        dir: &Path,
        uuid: [u8; 16],
        redo: Lsn,
        must_reach: Lsn,
        options: LogOptions,
        replay: &mut dyn FnMut(ReplayEntry<'_>) -> Result<(), WalError>,
    ) -> Result<(Arc<Log>, LogRecovery), WalError> {
        let _ = (env, dir, uuid, redo, must_reach, options, replay);
        todo!()
    }

    /// Everything that can fail softly happens here: buffer budget and segment space. Waits for
    /// budget; fails with Full, TooLarge, Poisoned or Closed. Hold one admission at a time.
    pub fn admit(&self, entry_len: usize) -> Result<Admission<'_>, WalError> {
        let _ = entry_len;
        todo!()
    }

    /// The sequencer: a short section that draws the timestamp and the place. `inside` runs in it,
    /// must not block and must not call the log. If `fill_now`, an entry of at most 512 bytes is
    /// filled inside, so that a preempted thread leaves no hole. Never fails (X2).
    pub fn sequence(
        self: &Arc<Self>,
        admission: Admission<'_>,
        entry: Entry,
        fill_now: bool,
        inside: &mut dyn FnMut(Sequenced),
    ) -> Reservation {
        let _ = (admission, entry, fill_now, inside);
        todo!()
    }

    /// The three positions at one moment.
    pub fn positions(&self) -> Positions {
        todo!()
    }

    /// Timestamp of the last durable entry; no lock.
    pub fn durable_ts(&self) -> Ts {
        todo!()
    }

    /// Timestamp of the last filled entry; no lock.
    pub fn filled_ts(&self) -> Ts {
        todo!()
    }

    /// Highest timestamp given out or observed; no lock.
    pub fn last_ts(&self) -> Ts {
        todo!()
    }

    /// Raises the last timestamp to `ts`, so that nothing is sequenced at or below it.
    pub fn observe(&self, ts: Ts) {
        let _ = ts;
        todo!()
    }

    /// Waits until `level` covers `lsn` (an entry's end), leading a flush or parking (L5).
    pub fn wait(&self, level: Level, lsn: Lsn) -> Result<(), WalError> {
        let _ = (level, lsn);
        todo!()
    }

    /// Makes everything that is sequenced now durable.
    pub fn flush(&self) -> Result<(), WalError> {
        todo!()
    }

    /// A step of the background thread: flushes what nobody waits for, writes the vouching frame of
    /// an idle log, prepares the next segment ahead of need. Errors surface at the next call.
    pub fn tick(&self) {
        todo!()
    }

    /// Gives up the log below `below` (an entry's end), as far as consumers allow (L4).
    pub fn trim(&self, below: Lsn) -> Result<(), WalError> {
        let _ = below;
        todo!()
    }

    /// Keeps the log from `from` (an entry's end) on for a consumer, up to `lease_bytes`.
    pub fn register(
        self: &Arc<Self>,
        name: &str,
        from: Lsn,
        lease_bytes: u64,
    ) -> Result<Consumer, WalError> {
        let _ = (name, from, lease_bytes);
        todo!()
    }

    /// An ordered, tailing reader from `from` (an entry's end) on.
    pub fn read_from(self: &Arc<Self>, from: Lsn) -> Result<Reader, WalError> {
        let _ = from;
        todo!()
    }

    /// The failure that poisoned the log, if any.
    pub fn poisoned(&self) -> Option<Arc<WalError>> {
        todo!()
    }

    /// Refuses new entries, waits for those in flight and makes them durable.
    pub fn close(&self) -> Result<(), WalError> {
        todo!()
    }

    /// Counters.
    pub fn stats(&self) -> LogStats {
        todo!()
    }
}

/// A registered consumer. Dropping it ends the registration.
#[derive(Debug)]
pub struct Consumer {}

impl Consumer {
    /// Where it stands.
    pub fn position(&self) -> Lsn {
        todo!()
    }
    /// It needs nothing below `lsn` any more.
    pub fn advance(&self, lsn: Lsn) {
        let _ = lsn;
        todo!()
    }
    /// True if its lease ran out and what it needed was trimmed.
    pub fn is_lost(&self) -> bool {
        todo!()
    }
}

/// Reads entries in order, up to the durable position.
#[derive(Debug)]
pub struct Reader {}

impl Reader {
    /// Where the next entry begins.
    pub fn position(&self) -> Lsn {
        todo!()
    }
    /// The next entry, or None at the durable position; call again later to go on.
    pub fn next_entry(&mut self) -> Result<Option<ReplayEntry<'_>>, WalError> {
        todo!()
    }
}
