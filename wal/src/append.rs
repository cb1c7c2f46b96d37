//! Putting an entry into the log: admit, sequence, fill.
//!
//! ```text
//! admit (may wait, may fail) -> sequence (short, never fails) -> validate -> fill or void
//! ```
//!
//! Invariants: after `sequence` nothing fails (X2): the bytes are counted in the budget and the
//! blocks are on disk. Every reservation ends filled or void, also when its owner unwinds; else the
//! log would stand still behind it.

use std::sync::Arc;

use crate::entry::{ENTRY_BYTES_MIN, Entry, void_entry};
use crate::error::WalError;
use crate::group_commit::{Content, Origin};
use crate::limits::{ENTRY_BYTES_MAX, FILL_INSIDE_BYTES_MAX};
use crate::log::Log;
use crate::lsn::{Lsn, Term, Ts, TxnId};
use crate::shelf::carry_out;
use crate::sync::Ordering;

/// Where an entry was put, as seen inside the sequencer's section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequenced {
    /// Where the entry begins; the transaction's id unless it has chunks.
    pub begin: Lsn,
    /// Where it ends: its LSN.
    pub end: Lsn,
    /// Its commit timestamp.
    pub ts: Ts,
    /// The term that it is an entry of.
    pub term: Term,
}

/// The right to sequence one entry of the admitted length. Dropped unused, it gives its share back.
#[derive(Debug)]
pub struct Admission<'a> {
    log: &'a Log,
    /// Bytes to give back; 0 once sequenced.
    len: usize,
}

impl Admission<'_> {
    /// The admitted length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: an entry has bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// It was used: nothing is given back.
    pub(crate) fn spend(mut self) {
        self.len = 0;
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        if self.len > 0 {
            self.log.board.release(self.len);
        }
    }
}

/// A sequenced entry's place. Must be filled or voided; dropped without either it becomes VOID.
#[derive(Debug)]
pub struct Reservation {
    log: Arc<Log>,
    place: Sequenced,
    txn: TxnId,
    /// The entry, until it was filled or voided.
    entry: Option<Entry>,
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

    /// All of it.
    #[must_use]
    pub fn place(&self) -> Sequenced {
        self.place
    }

    /// Stamps the entry and hands it to the next flush: from here on the transaction is committed
    /// (X2). Does nothing if it was filled inside the sequencer.
    pub fn fill(mut self) {
        if let Some(entry) = self.entry.take() {
            let content = stamped(entry, self.place.ts, self.txn);
            self.log.board.publish(self.place.begin, content).wake();
        }
    }

    /// Makes the place a VOID: the transaction failed validation. One that was filled inside the
    /// sequencer cannot be voided: it is committed.
    pub fn void(self) {
        assert!(self.entry.is_some(), "X2: a filled entry is committed");
        drop(self);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            let bytes = void_entry(entry.len(), self.place.ts, self.txn);
            let content = Content {
                bytes: Arc::new(bytes),
                n_rec: 1,
                ts: self.place.ts,
            };
            self.log.counters.voids.fetch_add(1, Ordering::Relaxed);
            self.log.board.publish(self.place.begin, content).wake();
        }
    }
}

fn stamped(mut entry: Entry, ts: Ts, txn: TxnId) -> Content {
    entry.stamp(ts, txn);
    Content {
        n_rec: entry.n_rec(),
        ts: entry.terminal_ts(ts),
        bytes: Arc::new(entry.into_bytes()),
    }
}

impl Log {
    /// Everything that can fail softly happens here: buffer budget and segment space. Waits for
    /// budget (leading flushes itself if it can); fails with Full, TooLarge, Poisoned, Closed or
    /// Io, and then nothing happened. Hold one admission at a time.
    pub fn admit(&self, entry_len: usize) -> Result<Admission<'_>, WalError> {
        self.admit_from(entry_len, Origin::Own)
    }

    pub(crate) fn admit_from(
        &self,
        entry_len: usize,
        origin: Origin,
    ) -> Result<Admission<'_>, WalError> {
        if entry_len > ENTRY_BYTES_MAX {
            return Err(WalError::TooLarge {
                what: "a log entry",
                len: entry_len as u64,
                max: ENTRY_BYTES_MAX as u64,
            });
        }
        if entry_len < ENTRY_BYTES_MIN {
            return Err(WalError::Invalid {
                what: format!("an entry of {entry_len} bytes, the shortest has {ENTRY_BYTES_MIN}"),
            });
        }
        let park = &*self.env.park;
        self.board.admit(entry_len, origin, park, self, &mut || {
            self.prepare_segment()
        })?;
        Ok(Admission {
            log: self,
            len: entry_len,
        })
    }

    /// The sequencer: a short section that draws the timestamp and the place. `inside` runs in it,
    /// must not block and must not call the log. If `fill_now`, an entry of at most 512 bytes is
    /// filled inside, so that a preempted thread leaves no hole. Never fails (X2); panics if the
    /// entry has not the admitted length.
    pub fn sequence(
        self: &Arc<Self>,
        mut admission: Admission<'_>,
        entry: Entry,
        fill_now: bool,
        inside: &mut dyn FnMut(Sequenced),
    ) -> Reservation {
        assert!(
            admission.len == entry.len() && std::ptr::eq(admission.log, &raw const **self),
            "an admission of {} bytes for an entry of {}",
            admission.len,
            entry.len()
        );
        admission.len = 0;
        let len = entry.len();
        let (run, begins) = (entry.run(), entry.begins());
        let fill_now = fill_now && len <= FILL_INSIDE_BYTES_MAX;
        let mut entry = Some(entry);
        let wall = self.clock.now_ts();
        let (place, wakes) = self.board.reserve(len, wall, begins, &mut |place| {
            inside(place);
            let entry = if fill_now { entry.take() } else { None };
            let txn = run.unwrap_or(TxnId(place.begin.0));
            entry.map(|entry| stamped(entry, place.ts, txn))
        });
        wakes.wake();
        Reservation {
            log: Arc::clone(self),
            place,
            txn: run.unwrap_or(TxnId(place.begin.0)),
            entry,
        }
    }

    /// Makes the next segment ready and returns its length. One caller at a time. After a failure
    /// the file is given up, and the next attempt makes another one.
    pub(crate) fn prepare_segment(&self) -> Result<u64, WalError> {
        let plan = self.shelf.lock().plan();
        let prepared = carry_out(&*self.env.disk, &self.dir, &plan)?;
        let made = match plan.spare {
            Some(_) => &self.counters.segments_recycled,
            None => &self.counters.segments_created,
        };
        made.fetch_add(1, Ordering::Relaxed);
        let len = prepared.len;
        self.shelf.lock().stock(prepared);
        Ok(len)
    }
}
