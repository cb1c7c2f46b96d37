//! The log of a shard's member: what replication asks of it beside commits.
//!
//! ```text
//! leader      sequence (a barrier first) -> read: entries for the others -> commit_to
//! follower    seal -> append_copy: a leader's entries, byte for byte -> cut where logs differ
//! ```
//!
//! A cut is not written down by itself. The log goes on in a fresh segment at the cut, whose first
//! frame chains to the frame where the cut lies; until that frame is on disk, a crash brings back
//! what was cut, which nobody has been told is gone (`recovery.rs` follows the newest successor).
//!
//! Invariants: a copy has the bytes, the place and the term that it has in every log (G2); while
//! entries of another log are taken, none of this member's own is (I10).

use std::sync::Arc;
use std::time::Duration;

use crate::entry::decode_entry;
use crate::epochs::{Epochs, Head, Point};
use crate::error::WalError;
use crate::frame::{FrameHeader, frame_bytes};
use crate::group_commit::{Content, Origin};
use crate::io::{BLOCK, Purpose};
use crate::log::{Log, ReplayEntry};
use crate::lsn::{Lsn, Term, Ts};
use crate::reader::Reader;
use crate::recent::Kept;
use crate::segment::{FIRST_FRAME, FrameWindow, Segment};

/// Bytes read ahead where frames are looked through.
const READ_AHEAD: usize = 256 << 10;

/// An entry as it stands in every log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryCopy {
    /// Where it lies.
    pub head: Head,
    /// Its records and trailer.
    pub bytes: Arc<Vec<u8>>,
}

impl Log {
    /// The terms of the log, up to the last sequenced entry.
    pub fn epochs(&self) -> Epochs {
        self.board.epochs()
    }

    /// The entry that ends at `lsn` or reaches beyond, by its term.
    pub fn point_at(&self, lsn: Lsn) -> Point {
        let term = self.board.term_at(lsn);
        Point { term, lsn }
    }

    /// Everything up to here is committed, as far as is known; without replicas, all of the log.
    pub fn commit_lsn(&self) -> Lsn {
        self.board.commit_lsn()
    }

    /// From here on frames name `commit` as the committed position, or the durable one if that is
    /// less. Wakes who waits for that ([`Log::wait_committed`]). It does not go back.
    pub fn commit_to(&self, commit: Lsn) {
        self.board.commit_to(commit);
    }

    /// Waits until this member's own entry that ends at `at` is committed, as far as `within`
    /// allows. Leads no flush: [`Log::wait`] does that.
    ///
    /// # Errors
    /// In each case the entry may still come to be committed: Deposed if this member led its term
    /// and leads no more ([`Log::seal`]), TimedOut, Poisoned.
    pub fn wait_committed(&self, at: Point, within: Duration) -> Result<(), WalError> {
        let waiter = self.env.park.waiter();
        let until = self.env.clock.now_mono().saturating_add(within);
        while let Some(awaited) = self.board.committed(at, &waiter)? {
            let left = until.saturating_sub(self.env.clock.now_mono());
            if !left.is_zero() {
                waiter.park_timeout(left);
            }
            self.board.forget(&awaited);
            if left.is_zero() {
                let lsn = at.lsn;
                return Err(WalError::TimedOut { lsn, within });
            }
        }
        Ok(())
    }

    /// Refuses entries of this member's own (`admit` says Deposed) until [`Log::unseal`]; waits
    /// until those before are filled, and makes them durable. Must not be called by a thread that
    /// holds an admission or an unfilled reservation.
    pub fn seal(&self) -> Result<(), WalError> {
        self.board.seal(&*self.env.park);
        self.flush()
    }

    /// Takes this member's own entries again: it leads.
    pub fn unseal(&self) {
        self.board.unseal();
    }

    /// Puts a leader's entry behind the last one, where it lies there, and hands it to the next
    /// flush. Waits for room as `admit` does. One caller at a time, and the log is sealed.
    ///
    /// # Errors
    /// Invalid if it does not begin at the end of the log, Corrupt if its bytes are not those of an
    /// entry of this head, or its timestamp does not rise (I16); and those of `admit`. Nothing
    /// happened then.
    pub fn append_copy(&self, copy: &EntryCopy) -> Result<(), WalError> {
        let head = &copy.head;
        let entry = decode_entry(&copy.bytes)?;
        let (last, last_ts) = self.board.last();
        if head.start != last.lsn || head.end != head.start.advance(copy.bytes.len() as u64) {
            return Err(WalError::Invalid {
                what: format!(
                    "a copy of {} bytes from {} to {}, the log ends at {}",
                    copy.bytes.len(),
                    head.start,
                    head.end,
                    last.lsn
                ),
            });
        }
        let begins = entry.begins();
        let expected = begins.unwrap_or(last.term.max(Term::FIRST));
        let wrong =
            |at, expected: String, found: String| Err(WalError::corrupt(at, expected, found));
        if head.term != expected || begins.is_some_and(|term| term <= last.term) {
            return wrong(
                0,
                format!("an entry of {expected} behind {last}"),
                head.term.to_string(),
            );
        }
        if entry.crc() != head.crc {
            let at = copy.bytes.len() - 4;
            let found = format!("{:08x}", entry.crc());
            return wrong(at, format!("entry crc {:08x}", head.crc), found);
        }
        let ts = entry.ts();
        if ts > Ts::ZERO && ts <= last_ts {
            return wrong(16, format!("a timestamp above {last_ts}"), ts.to_string());
        }
        let content = Content {
            bytes: Arc::clone(&copy.bytes),
            n_rec: entry.n_rec(),
            ts,
        };
        self.admit_from(copy.bytes.len(), Origin::Copy)?.spend();
        let wakes = self.board.place_copy(head.term, head.start, content);
        wakes.wake();
        Ok(())
    }

    /// Entries from the one that begins at `from`, at least one if one is filled, of about `bytes`
    /// bytes. Those that are not in memory come from segments: a look through one of them.
    ///
    /// # Errors
    /// `CursorLost` if they were trimmed, Invalid if `from` lies behind the end; Io, Corrupt.
    pub fn read(self: &Arc<Self>, from: Lsn, bytes: usize) -> Result<Vec<EntryCopy>, WalError> {
        // Before memory is asked: what is filled in between would be looked for on the disk, where
        // it is not yet.
        let filled = self.positions().filled.0;
        let epochs = self.board.epochs();
        let copy = |kept: Kept| head_of(&epochs, kept.begin, kept.bytes);
        if let Some(kept) = self.board.recent(from, bytes) {
            return Ok(kept.into_iter().map(copy).collect());
        }
        // Nothing was filled behind what memory ended with.
        if from == filled {
            return Ok(Vec::new());
        }
        let mut reader = Reader::new(Arc::clone(self), from)?;
        let (mut copies, mut room) = (Vec::new(), bytes);
        while room > 0
            && let Some(entry) = reader.next_entry()?
        {
            let whole = entry.entry.bytes();
            room = room.saturating_sub(whole.len());
            copies.push(head_of(&epochs, entry.begin, Arc::new(whole.to_vec())));
        }
        Ok(copies)
    }

    /// Where the first entry begins that is there as a whole: at or behind the oldest position.
    ///
    /// # Errors
    /// Io.
    pub fn oldest_entry(&self) -> Result<Lsn, WalError> {
        for segment in &self.readable() {
            if segment.first_lsn == Lsn::ZERO {
                return Ok(Lsn::ZERO);
            }
            if let Some(end) = self.look(segment, FrameHeader::entry_end)? {
                return Ok(end);
            }
        }
        Ok(self.oldest())
    }

    /// The entry that ends at `end`; `None` if none does, or it was trimmed. From memory, or a look
    /// through a segment.
    ///
    /// # Errors
    /// Io, Corrupt.
    pub fn ending(self: &Arc<Self>, end: Lsn) -> Result<Option<Head>, WalError> {
        let epochs = self.board.epochs();
        let (kept, begin) = self.board.recent_ending(end);
        if let Some(kept) = kept {
            return Ok(Some(head_of(&epochs, kept.begin, kept.bytes).head));
        }
        if begin.is_some_and(|begin| end > begin) || end > self.durable_lsn() {
            return Ok(None);
        }
        let mut found = None;
        self.entry_at(end, &mut |entry| {
            found = Some(Head {
                term: epochs.term_at(end),
                start: entry.begin,
                end,
                crc: entry.entry.crc(),
            });
        })?;
        Ok(found)
    }

    /// Hands out the entry that ends at `end`, if one does.
    fn entry_at(
        self: &Arc<Self>,
        end: Lsn,
        visit: &mut dyn FnMut(&ReplayEntry<'_>),
    ) -> Result<(), WalError> {
        let Some(from) = self.boundary_below(end)? else {
            return Ok(());
        };
        let mut reader = Reader::new(Arc::clone(self), from)?;
        while let Some(entry) = reader.next_entry()? {
            if entry.end == end {
                visit(&entry);
            }
            if entry.end >= end {
                break;
            }
        }
        Ok(())
    }

    /// The segments from the oldest position on. A log that was opened keeps others before the one
    /// that it was read from, which no reader is given.
    fn readable(&self) -> Vec<Arc<Segment>> {
        let shelf = self.shelf.lock();
        let live = shelf.live.iter();
        let readable = live.filter(|segment| segment.first_lsn >= shelf.oldest);
        readable.cloned().collect()
    }

    /// The beginning of some entry below `end`, in the last segment that has one.
    fn boundary_below(&self, end: Lsn) -> Result<Option<Lsn>, WalError> {
        for segment in self.readable().iter().rev().filter(|s| s.first_lsn < end) {
            if segment.first_lsn == Lsn::ZERO {
                return Ok(Some(Lsn::ZERO));
            }
            let first = self.look(segment, |header| {
                header.entry_end().filter(|boundary| *boundary < end)
            })?;
            if first.is_some() {
                return Ok(first);
            }
        }
        Ok(None)
    }

    /// Asks the frames of a segment in order, until one gives an answer.
    fn look<T>(
        &self,
        segment: &Arc<Segment>,
        mut ask: impl FnMut(&FrameHeader) -> Option<T>,
    ) -> Result<Option<T>, WalError> {
        let mut window = FrameWindow::new(Arc::clone(&segment.file), Purpose::Other, READ_AHEAD);
        let mut offset = FIRST_FRAME;
        while offset < segment.len {
            // Behind the last frame lies what the file was before.
            let Ok(header) = window.header(offset, segment.salt)? else {
                break;
            };
            if let Some(answer) = ask(&header) {
                return Ok(Some(answer));
            }
            offset += frame_bytes(header.payload_len as usize) as u64;
        }
        Ok(None)
    }

    /// Cuts off what lies behind `to`, the end of an entry: a leader's log differs there. What is
    /// cut was not committed. The log is sealed; what was handed to it is made durable first. Files
    /// that lie behind the cut are removed.
    ///
    /// # Errors
    /// Invalid if no entry ends at `to`, or that is committed; Poisoned, Io, Corrupt.
    pub fn cut(self: &Arc<Self>, to: Lsn) -> Result<(), WalError> {
        self.flush()?;
        let commit = self.commit_lsn();
        let mut ts = (to == Lsn::ZERO).then_some(Ts::ZERO);
        self.entry_at(to, &mut |entry| ts = Some(entry.ts))?;
        let (Some(ts), true) = (ts, to >= commit) else {
            return Err(WalError::Invalid {
                what: format!("a cut at {to}: the end of an entry, at {commit} or behind it"),
            });
        };
        if to == self.durable_lsn() {
            return Ok(());
        }
        let mut tail = self.tail.lock();
        let mut prev_crc = self.crc_before(to)?;
        if crate::planted!("a_cut_chains_to_the_last_frame") {
            prev_crc = tail.prev_crc;
        }
        let left = tail.segment.as_ref().map_or(0, |s| s.len - tail.offset);
        self.board.cut(to, ts, left / BLOCK as u64)?;
        (tail.segment, tail.offset, tail.prev_crc) = (None, 0, prev_crc);
        tail.vouched = to;
        let gone = self.shelf.lock().cut(&self.dir, to);
        drop(tail);
        // The last one first, and each for good: one without those before it would vouch for more
        // than the log has.
        for path in gone.iter().rev() {
            self.env.disk.remove(path)?;
            self.env.disk.sync_dir(&self.dir)?;
        }
        Ok(())
    }

    /// The header crc of the frame where `to` lies, which the next frame chains to.
    fn crc_before(&self, to: Lsn) -> Result<u32, WalError> {
        let segments: Vec<Arc<Segment>> = self.shelf.lock().live.iter().cloned().collect();
        let holder = segments.iter().rev().find(|s| s.first_lsn < to);
        let found = match holder {
            Some(segment) => self.look(segment, |header| {
                let end = header.base_lsn + u64::from(header.payload_len);
                (end >= to.0).then_some(header.hdr_crc)
            })?,
            // What lies before was trimmed, or is nothing.
            None => match segments.first() {
                Some(segment) => self.look(segment, |header| Some(header.prev_crc))?,
                None => Some(0),
            },
        };
        found.ok_or_else(|| {
            WalError::corrupt(0, format!("a frame that holds {to}"), "none").in_file(&self.dir, 0)
        })
    }
}

/// An entry of these bytes that begins at `begin`.
fn head_of(epochs: &Epochs, begin: Lsn, bytes: Arc<Vec<u8>>) -> EntryCopy {
    let end = begin.advance(bytes.len() as u64);
    let crc = bytes.last_chunk().map_or(0, |crc| u32::from_le_bytes(*crc));
    EntryCopy {
        head: Head {
            term: epochs.term_at(end),
            start: begin,
            end,
            crc,
        },
        bytes,
    }
}
