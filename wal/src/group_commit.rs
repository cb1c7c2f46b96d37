//! Group commit without a log thread: who flushes, who waits, who wakes whom.
//!
//! ```text
//!        durable          taken            filled         sequenced
//!  --------|----------------|----------------|---------------|----->  record stream
//!   on disk    in flight       may be taken     has holes
//! ```
//!
//! The board keeps the queue of ranges and the flights; it does no I/O. A waiter whose position is
//! not covered leads a flush if one can be taken, else it parks. Flights complete in any order;
//! `durable` passes only over those from which nothing earlier is missing.
//!
//! Invariants:
//! - L3: durable <= filled <= sequenced, all monotone.
//! - L5: after every step that can make a flush possible (fill, void, take, completion), if one is
//!   possible and a waiter wants it, a waiter that nobody else will wake is woken to lead it. No
//!   liveness rests on a timer.
//! - A failed flight poisons: `durable` never passes it, everybody is woken, nothing is retried.
//!
//! Flights: at most two together by default, a fixed number. On 2 cores, 64 committers of 150 B
//! entries made 46k commits/s with one flight, 50-54k with two and 9k with four while little else
//! ran; with five other processes per core (medians of four interleaved rounds) 72k with one in
//! groups of 29, 53k with two (14), 41k with three (10), 46k with four (8.6; one round 11k). Eight
//! committers under that load (two rounds): 7k, 17k, 18k, 17k, because with a single flight the
//! disk idles while the next leader is woken. One and four are far from the best in one of the
//! cases, two in none so far. A rule by the size of groups has two stable states, since
//! fewer flights make larger groups; one by the number of waiters would choose between one flight
//! and two, whose order at many waiters turns with the load.
//!
//! The loom models in `tests/loom.rs` run this file.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::append::Sequenced;
use crate::budget::{Budget, Verdict, segment_capacity};
use crate::env::{Park, Waiter};
use crate::epochs::{Epochs, Point};
use crate::error::WalError;
use crate::frame::frame_bytes;
use crate::io::BLOCK;
use crate::log::{Level, LogOptions, Positions};
use crate::lsn::{Lsn, Term, Ts};
use crate::recent::Recent;
use crate::sync::{AtomicU64, Mutex, Ordering};

mod member;
mod state;

use state::{Flying, Queue, Range, State, drain_covered};

/// An entry's bytes as they go to disk, and what its frame says about them.
#[derive(Clone, Debug)]
pub struct Content {
    /// The stamped bytes.
    pub bytes: Arc<Vec<u8>>,
    /// Records in them.
    pub n_rec: u32,
    /// Timestamp in the terminal record: zero in a chunk.
    pub ts: Ts,
}

/// Part of an entry in a flight.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The entry.
    pub content: Content,
    /// First byte taken.
    pub from: usize,
    /// Behind the last byte taken.
    pub to: usize,
}

/// What a leader writes: one frame.
#[derive(Debug)]
pub struct Flight {
    /// Names the flight in `complete`.
    pub id: u64,
    /// Where its payload begins.
    pub base: Lsn,
    /// The durable position when it was taken: what its frame vouches for.
    pub durable: Lsn,
    /// The term of all that is in it.
    pub term: Term,
    /// Parts of entries in stream order; none in a frame that only vouches.
    pub pieces: Vec<Piece>,
    /// Bytes of payload.
    pub payload_len: usize,
}

/// Waiters to be woken after the lock was left.
#[derive(Debug, Default)]
#[must_use]
pub struct Wakes(Vec<Arc<dyn Waiter>>);

impl Wakes {
    /// Wakes them.
    pub fn wake(self) {
        for waiter in self.0 {
            waiter.unpark();
        }
    }
}

/// Takes one flight, writes it, completes it. Whoever leads calls it.
pub trait Flusher {
    /// Does nothing if somebody else took what was there.
    fn flush_once(&self);
}

/// Counters kept under the board's lock.
#[derive(Clone, Copy, Debug, Default)]
pub struct BoardStats {
    /// Ranges reserved.
    pub entries: u64,
    /// Their bytes.
    pub entry_bytes: u64,
    /// Times a waiter parked.
    pub parks: u64,
    /// Times a waiter was woken to lead.
    pub handoffs: u64,
    /// Most flights together.
    pub flights_peak: u64,
    /// Flights that completed before an earlier one.
    pub out_of_order: u64,
    /// Times an admission had to wait.
    pub admission_waits: u64,
}

/// Queue of ranges, flights and waiters of one log.
#[derive(Debug)]
pub struct Board {
    state: Mutex<State>,
    flights_max: usize,
    durable_lsn: AtomicU64,
    durable_ts: AtomicU64,
    filled_ts: AtomicU64,
    last_ts: AtomicU64,
    /// What a replica was told to be committed; all of the log without replicas.
    commit: AtomicU64,
}

/// Whose entry is to be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// One of this member: a place is drawn for it.
    Own,
    /// One of another log, which has its place.
    Copy,
}

/// What a caller of `wait` or `admit` does next.
enum Step {
    Ready,
    Lead,
    Park,
    Prepare,
}

/// A waiter's registration across the turns of its loop.
#[derive(Default)]
struct Ticket {
    waiter: Option<Arc<dyn Waiter>>,
    key: Option<(Lsn, u64)>,
}

impl Ticket {
    fn waiter(&mut self, park: &dyn Park) -> Arc<dyn Waiter> {
        Arc::clone(self.waiter.get_or_insert_with(|| park.waiter()))
    }

    fn park(&self) {
        if let Some(waiter) = &self.waiter {
            waiter.park();
        }
    }
}

impl Board {
    /// A board of a log of these terms, whose last entry has `last_ts`; by the options at most so
    /// many flights, entries waiting and entries kept. Of a replica's, what is committed is not
    /// known yet, and nothing of its own is taken. No segment is prepared yet.
    pub fn new(epochs: Epochs, last_ts: Ts, options: &LogOptions) -> Board {
        let Point { lsn: end, term } = epochs.last();
        let at = (end, last_ts);
        let flights_max = options.max_flushes_in_flight;
        Board {
            state: Mutex::new(State {
                last_ts,
                sequenced: at,
                filled: at,
                durable: at,
                taken: end,
                taken_entry: at,
                epochs,
                recent: Recent::new(options.recent_bytes),
                ranges: VecDeque::new(),
                head_filled: 0,
                flights: VecDeque::new(),
                next_flight: 0,
                want_durable: Queue::new(),
                want_filled: Queue::new(),
                want_committed: Queue::new(),
                want_room: Vec::new(),
                want_quiet: Vec::new(),
                admitted: 0,
                next_waiter: 0,
                budget: Budget::new(options.buffer_bytes),
                closed: false,
                sealed: options.replicated,
                ended: term,
                poison: None,
                stats: BoardStats::default(),
            }),
            flights_max,
            durable_lsn: AtomicU64::new(end.0),
            durable_ts: AtomicU64::new(last_ts.0),
            filled_ts: AtomicU64::new(last_ts.0),
            last_ts: AtomicU64::new(last_ts.0),
            commit: AtomicU64::new(if options.replicated { 0 } else { u64::MAX }),
        }
    }

    /// Publishes the positions for readers without the lock, and passes the lead (L5).
    fn settle(&self, state: &mut State, wakes: &mut Wakes) {
        self.durable_ts.store(state.durable.1.0, Ordering::Release);
        self.filled_ts.store(state.filled.1.0, Ordering::Release);
        self.last_ts.store(state.last_ts.0, Ordering::Release);
        self.durable_lsn.store(state.durable.0.0, Ordering::Release);
        state.pass_lead(self.flights_max, wakes);
    }

    /// The sequencer: draws timestamp and place for `len` admitted bytes. `inside` runs in the
    /// section and may fill the range at once. `begins` with the barrier of a term, which must be
    /// above the last one.
    pub fn reserve(
        &self,
        len: usize,
        wall: Ts,
        begins: Option<Term>,
        inside: &mut dyn FnMut(Sequenced) -> Option<Content>,
    ) -> (Sequenced, Wakes) {
        let mut wakes = Wakes::default();
        let mut state = self.state.lock();
        let ts = state.last_ts.next().max(wall);
        let begin = state.sequenced.0;
        let end = begin.advance(len as u64);
        let last = state.epochs.last().term;
        assert!(begins.is_none_or(|term| term > last), "G1: terms rise");
        let term = begins.unwrap_or(last.max(Term::FIRST));
        let place = Sequenced {
            begin,
            end,
            ts,
            term,
        };
        let content = inside(place);
        self.place(&mut state, place, content, &mut wakes);
        (place, wakes)
    }

    fn place(
        &self,
        state: &mut State,
        place: Sequenced,
        content: Option<Content>,
        wakes: &mut Wakes,
    ) {
        let Sequenced {
            begin,
            end,
            ts,
            term,
        } = place;
        state.last_ts = state.last_ts.max(ts);
        state.sequenced = (end, ts);
        state.epochs.extend(term, begin, end);
        state.stats.entries += 1;
        state.stats.entry_bytes += end.since(begin);
        state.ranges.push_back(Range {
            begin,
            end,
            ts,
            content,
        });
        state.leave(wakes);
        state.advance_filled(wakes);
        self.settle(state, wakes);
    }

    /// Fills the range that begins at `begin` (with its entry, or with a VOID).
    pub fn publish(&self, begin: Lsn, content: Content) -> Wakes {
        let mut wakes = Wakes::default();
        let mut state = self.state.lock();
        let at = state.ranges.partition_point(|range| range.begin < begin);
        let Some(range) = state.ranges.get_mut(at) else {
            panic!("no range begins at {begin}");
        };
        assert!(range.begin == begin && range.content.is_none());
        assert_eq!(content.bytes.len() as u64, range.end.since(begin));
        range.content = Some(content);
        if at == state.head_filled {
            state.advance_filled(&mut wakes);
            self.settle(&mut state, &mut wakes);
        }
        wakes
    }

    /// Takes up to `room` bytes of the filled prefix as the next flight; None if nothing can be
    /// taken. `blocks_left` are left in the segment where its frame goes. The caller holds the lock
    /// that orders frames.
    pub fn take(&self, room: usize, blocks_left: u64) -> (Option<Flight>, Wakes) {
        let mut wakes = Wakes::default();
        let mut state = self.state.lock();
        if !state.can_take(self.flights_max) {
            return (None, wakes);
        }
        let (base, term) = (state.taken, state.next_term());
        let (pieces, payload_len) = state.take_pieces(room);
        let blocks = (frame_bytes(payload_len) / BLOCK) as u64;
        state.budget.spend(blocks, blocks == blocks_left);
        wakes.0.append(&mut state.want_room);
        let flight = Self::fly(&mut state, base, term, pieces);
        self.settle(&mut state, &mut wakes);
        (Some(flight), wakes)
    }

    /// A flight without payload, if the log is idle and has a block to spare.
    pub fn take_empty(&self, blocks_left: u64) -> Option<Flight> {
        let mut state = self.state.lock();
        let idle = state.ranges.is_empty() && state.flights.is_empty();
        if !idle || state.poison.is_some() || !state.budget.has_spare_block() {
            return None;
        }
        state.budget.spend(1, blocks_left == 1);
        let (base, term) = (state.taken, state.next_term());
        Some(Self::fly(&mut state, base, term, Vec::new()))
    }

    fn fly(state: &mut State, base: Lsn, term: Term, pieces: Vec<Piece>) -> Flight {
        let id = state.next_flight;
        state.next_flight += 1;
        let entry = state.taken_entry;
        state.flights.push_back(Flying {
            id,
            entry,
            done: false,
        });
        state.stats.flights_peak = state.stats.flights_peak.max(state.flights.len() as u64);
        Flight {
            id,
            base,
            durable: state.durable.0,
            term,
            payload_len: pieces.iter().map(|piece| piece.to - piece.from).sum(),
            pieces,
        }
    }

    /// A flight's write ended. A failure poisons the log.
    pub fn complete(&self, id: u64, result: Result<(), WalError>) -> Wakes {
        let mut wakes = Wakes::default();
        let mut state = self.state.lock();
        match result {
            Ok(()) => {
                let at = state.flights.partition_point(|flight| flight.id < id);
                if let Some(flight) = state.flights.get_mut(at) {
                    flight.done = true;
                }
                state.stats.out_of_order += u64::from(at > 0);
                state.advance_durable(&mut wakes);
            }
            Err(error) => {
                state.poison.get_or_insert_with(|| Arc::new(error));
                drain_covered(&mut state.want_durable, Lsn(u64::MAX), &mut wakes);
                drain_covered(&mut state.want_filled, Lsn(u64::MAX), &mut wakes);
                drain_covered(&mut state.want_committed, Lsn(u64::MAX), &mut wakes);
                wakes.0.append(&mut state.want_room);
            }
        }
        self.settle(&mut state, &mut wakes);
        wakes
    }

    /// Waits until `level` covers `lsn`: leads flushes while one can be taken, else parks.
    pub fn wait(
        &self,
        level: Level,
        lsn: Lsn,
        park: &dyn Park,
        flusher: &dyn Flusher,
    ) -> Result<(), WalError> {
        if level == Level::Durable && self.durable_lsn.load(Ordering::Acquire) >= lsn.0 {
            return Ok(());
        }
        let mut ticket = Ticket::default();
        loop {
            match self.wait_step(level, lsn, park, &mut ticket)? {
                Step::Ready => return Ok(()),
                Step::Lead => flusher.flush_once(),
                Step::Park | Step::Prepare => ticket.park(),
            }
        }
    }

    fn wait_step(
        &self,
        level: Level,
        lsn: Lsn,
        park: &dyn Park,
        ticket: &mut Ticket,
    ) -> Result<Step, WalError> {
        let mut state = self.state.lock();
        if let Some(key) = ticket.key.take() {
            state.queue(level).remove(&key);
        }
        if lsn > state.sequenced.0 {
            return Err(WalError::Invalid {
                what: format!(
                    "{lsn} was never given out, the last is {}",
                    state.sequenced.0
                ),
            });
        }
        // What is on disk stays on disk, also after a later flight failed.
        if level == Level::Durable && state.durable.0 >= lsn {
            return Ok(Step::Ready);
        }
        state.poisoned()?;
        if level == Level::Filled && state.filled.0 >= lsn {
            return Ok(Step::Ready);
        }
        // A position inside a flight waits for its end; another flush would not help.
        if level == Level::Durable && lsn > state.taken && state.can_take(self.flights_max) {
            return Ok(Step::Lead);
        }
        let key = (lsn, state.next_waiter);
        state.next_waiter += 1;
        state.stats.parks += 1;
        ticket.key = Some(key);
        let waiter = ticket.waiter(park);
        state.queue(level).insert(key, waiter);
        Ok(Step::Park)
    }

    /// Admits `len` bytes: waits for buffer room, leading flushes, and has segments made by
    /// `prepare` (which returns the new segment's length) when those on disk cannot promise room.
    pub fn admit(
        &self,
        len: usize,
        origin: Origin,
        park: &dyn Park,
        flusher: &dyn Flusher,
        prepare: &mut dyn FnMut() -> Result<u64, WalError>,
    ) -> Result<(), WalError> {
        let mut ticket = Ticket::default();
        loop {
            match self.admit_step(len, origin, park, &mut ticket)? {
                Step::Ready => return Ok(()),
                Step::Lead => flusher.flush_once(),
                Step::Park => ticket.park(),
                Step::Prepare => self.prepared(prepare())?,
            }
        }
    }

    fn admit_step(
        &self,
        len: usize,
        origin: Origin,
        park: &dyn Park,
        ticket: &mut Ticket,
    ) -> Result<Step, WalError> {
        let mut state = self.state.lock();
        state.poisoned()?;
        if state.closed {
            return Err(WalError::Closed);
        }
        if state.sealed && origin == Origin::Own {
            return Err(WalError::Deposed { term: state.ended });
        }
        let verdict = state.budget.admit(len);
        match verdict {
            Verdict::Admitted => {
                state.admitted += 1;
                return Ok(Step::Ready);
            }
            Verdict::NeedSegment if !state.budget.preparing => {
                state.budget.preparing = true;
                return Ok(Step::Prepare);
            }
            // Also one who waits for a segment may have been woken to lead.
            _ if state.can_take(self.flights_max) => return Ok(Step::Lead),
            Verdict::NeedSegment | Verdict::BufferFull => {}
        }
        state.stats.admission_waits += 1;
        // A fresh token for each turn: the old one may still be in a list of wakes.
        ticket.waiter = None;
        let waiter = ticket.waiter(park);
        state.want_room.push(waiter);
        Ok(Step::Park)
    }

    /// Starts making a segment ahead of need, if fewer than `blocks` are unpromised. The caller
    /// must follow up with `prepared`.
    pub fn begin_prepare(&self, blocks: u64) -> bool {
        let mut state = self.state.lock();
        let wanted = state.budget.unpromised() < blocks && !state.budget.preparing;
        let open = !state.closed && state.poison.is_none();
        state.budget.preparing |= wanted && open;
        wanted && open
    }

    /// A segment was made, or could not be. Those who wait for room look again.
    pub fn prepared(&self, result: Result<u64, WalError>) -> Result<(), WalError> {
        let mut wakes = Wakes::default();
        let mut state = self.state.lock();
        state.budget.preparing = false;
        if let Ok(len) = &result {
            state.budget.grow(segment_capacity(*len));
        }
        wakes.0.append(&mut state.want_room);
        drop(state);
        wakes.wake();
        result.map(|_| ())
    }

    /// An admission of `len` bytes was not used.
    pub fn release(&self, len: usize) {
        let mut wakes = Wakes::default();
        let mut state = self.state.lock();
        state.budget.release(len, 0);
        state.leave(&mut wakes);
        wakes.0.append(&mut state.want_room);
        drop(state);
        wakes.wake();
    }

    /// True if a flush could be taken now, wanted or not.
    pub fn can_take(&self) -> bool {
        self.state.lock().can_take(self.flights_max)
    }

    /// Raises the last timestamp to `ts`.
    pub fn observe(&self, ts: Ts) {
        let mut state = self.state.lock();
        state.last_ts = state.last_ts.max(ts);
        self.last_ts.store(state.last_ts.0, Ordering::Release);
    }

    /// The positions at one moment.
    pub fn positions(&self) -> Positions {
        let state = self.state.lock();
        Positions {
            sequenced: state.sequenced,
            filled: state.filled,
            durable: state.durable,
        }
    }

    /// Timestamp of the last durable entry.
    pub fn durable_ts(&self) -> Ts {
        Ts(self.durable_ts.load(Ordering::Acquire))
    }

    /// The end of the last durable entry.
    pub fn durable_lsn(&self) -> Lsn {
        Lsn(self.durable_lsn.load(Ordering::Acquire))
    }

    /// Timestamp of the last filled entry.
    pub fn filled_ts(&self) -> Ts {
        Ts(self.filled_ts.load(Ordering::Acquire))
    }

    /// Highest timestamp given out or observed.
    pub fn last_ts(&self) -> Ts {
        Ts(self.last_ts.load(Ordering::Acquire))
    }

    /// Refuses admissions from now on, and waits until those before are sequenced or released.
    pub fn close(&self, park: &dyn Park) {
        self.refuse(park, &|state| state.closed = true);
    }

    fn refuse(&self, park: &dyn Park, set: &dyn Fn(&mut State)) {
        let mut ticket = Ticket::default();
        loop {
            let mut wakes = Wakes::default();
            let mut state = self.state.lock();
            set(&mut state);
            wakes.0.append(&mut state.want_room);
            let quiet = state.admitted == 0;
            if !quiet {
                state.want_quiet.push(ticket.waiter(park));
            }
            drop(state);
            wakes.wake();
            if quiet {
                return;
            }
            ticket.park();
        }
    }

    /// The failure that poisoned the log.
    pub fn poison(&self) -> Option<Arc<WalError>> {
        self.state.lock().poison.clone()
    }

    /// Counters.
    pub fn stats(&self) -> BoardStats {
        self.state.lock().stats
    }
}
