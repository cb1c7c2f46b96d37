//! The checkpoint: a cut through all changes, written while writers go on.
//!
//! ```text
//! Begin   redo_lsn is read, THEN the epoch moves from e to e+1
//! Drain   until nobody of e is in the gate
//! Scan    image_hi is read; which pages hold content <= e that is not on disk?
//! Write   those pages, to new slots, by rising id; copies that writers left behind; evictors help
//! Sync    the data files
//! Map     the delta lists <= e behind the map (or a new base), synced
//! Safe    until the log can no longer lose image_hi (M1)
//! Meta    both copies of the older generation; the image is published
//! ```
//! Each step is bounded and never waits. An error before Meta abandons the checkpoint: pages stay
//! dirty, lists stay in memory, and the next checkpoint, of a later epoch, covers them (M2). The
//! image of e is the newest content <= e of every page, so nothing else needs to be carried.
//!
//! The one who drops it waits for what is in flight: the end of a sync must be known.
//!
//! A failed data sync or META write poisons: pages that an earlier eviction wrote may be lost
//! although nobody has them in memory any more, or the superblock may be either of two.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use terrane_wal::io::{Batch, Completion, File, Op, Purpose, Request};
use terrane_wal::lsn::{Lsn, Term, Ts};
use terrane_wal::sync::Mutex;

use crate::error::StoreError;
use crate::ids::{Epoch, PageId};
use crate::pool::Pool;
use crate::pool::writeout::{Victim, WriteOut};
use crate::space::map::Deltas;
use crate::space::{DeltaList, SpaceDisk};

use super::mapfile::{MapFiles, MapWrite, MapWritten};
use super::meta::{self, Base, Meta};
use super::open::{base_path, delta_path};
use super::{LogView, Published, Step};

/// Requests in flight while pages are written.
const DEPTH: usize = 16;
/// Pages offered to the disk at once.
const OFFER: usize = 128;
/// Granules looked at in one step.
const SCAN: usize = 1 << 16;

/// The images of a store and the one checkpoint that may be under way.
#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) pool: Arc<Pool>,
    pub(crate) dir: PathBuf,
    pub(crate) meta: Arc<dyn File>,
    pub(crate) state: Mutex<Retained>,
}

/// What is published.
#[derive(Debug)]
pub(crate) struct Retained {
    pub(crate) newest: Meta,
    pub(crate) older: Option<Meta>,
    pub(crate) files: MapFiles,
    /// An attempt to write behind the delta file failed or was given up: its end is not to be
    /// trusted.
    pub(crate) force_base: bool,
    pub(crate) poisoned: Option<StoreError>,
    pub(crate) running: bool,
    pub(crate) published: u64,
    pub(crate) abandoned: u64,
}

/// A checkpoint under way. Dropped before it is done, it is abandoned; in its last phase, "meta",
/// it is finished, because the image may be found by an open already. Dropping may wait for I/O.
pub struct Checkpoint {
    publisher: Arc<Publisher>,
    log: Arc<dyn LogView>,
    phase: Phase,
    /// The epoch that it cuts off.
    epoch: Epoch,
    redo_lsn: Lsn,
    image_hi: (Lsn, Ts, Term),
    clock_bound: u64,
    page_id_hi: PageId,
    /// Delta lists taken out of the pool's; given back if the checkpoint is abandoned.
    lists: Vec<(Epoch, DeltaList)>,
    map: Option<MapWritten>,
}

enum Phase {
    Begin,
    Drain,
    Scan {
        at: usize,
        found: Vec<Victim>,
    },
    Write {
        work: Vec<Victim>,
        next: usize,
        out: WriteOut,
    },
    Sync(Option<Box<dyn Batch>>),
    Map(Box<MapWrite>),
    Safe,
    Meta {
        copy: usize,
        batch: Box<dyn Batch>,
    },
    Ended,
}

impl Publisher {
    /// Starts a checkpoint, if none is under way and none has poisoned the store.
    pub(crate) fn begin(self: &Arc<Self>, log: Arc<dyn LogView>) -> Result<Checkpoint, StoreError> {
        let mut state = self.state.lock();
        if let Some(cause) = &state.poisoned {
            return Err(StoreError::Poisoned {
                cause: Box::new(cause.clone()),
            });
        }
        if std::mem::replace(&mut state.running, true) {
            return Err(StoreError::Invalid {
                what: "a second checkpoint while one is under way".into(),
            });
        }
        Ok(Checkpoint {
            publisher: Arc::clone(self),
            log,
            phase: Phase::Begin,
            epoch: Epoch(0),
            redo_lsn: Lsn::ZERO,
            image_hi: (Lsn::ZERO, Ts::ZERO, Term::FIRST),
            clock_bound: 0,
            page_id_hi: PageId::NONE,
            lists: Vec::new(),
            map: None,
        })
    }

    /// Poisons if one of these syncs or superblock writes failed.
    fn believe(&self, ended: Vec<Completion>) -> Result<(), StoreError> {
        for completion in ended {
            if let Err(error) = completion.result {
                let cause = StoreError::from(error);
                self.state.lock().poisoned = Some(cause.clone());
                return Err(StoreError::Poisoned {
                    cause: Box::new(cause),
                });
            }
        }
        Ok(())
    }
}

impl Checkpoint {
    /// Does a bounded piece of work. No writer ever waits for it. An error abandons the checkpoint:
    /// the older images stay, and the next checkpoint covers what this one would have (M2).
    pub fn step(&mut self) -> Result<Step, StoreError> {
        let publisher = Arc::clone(&self.publisher);
        let pool = &*publisher.pool;
        let stepped = match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Begin => Ok(self.begin(pool)),
            Phase::Drain => Ok(self.drain(pool)),
            Phase::Scan { at, found } => self.scan(pool, at, found),
            Phase::Write { work, next, out } => self.write(pool, work, next, out),
            Phase::Sync(batch) => self.sync(pool, batch),
            Phase::Map(map) => self.map(map),
            Phase::Safe => self.safe(pool),
            Phase::Meta { copy, mut batch } => {
                let ended = batch.poll();
                self.meta(pool, copy, batch, ended)
            }
            Phase::Ended => Err(StoreError::Invalid {
                what: "a step of a checkpoint that has ended".into(),
            }),
        };
        if stepped.is_err() {
            self.abandon();
        }
        stepped
    }

    /// The epoch that the checkpoint cuts off; epoch 0 before its first step.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The name of the phase that the next step works in: "begin", "drain", "scan", "write",
    /// "sync", "map", "safe", "meta" or "ended".
    #[must_use]
    pub fn phase(&self) -> &'static str {
        match self.phase {
            Phase::Begin => "begin",
            Phase::Drain => "drain",
            Phase::Scan { .. } => "scan",
            Phase::Write { .. } => "write",
            Phase::Sync(_) => "sync",
            Phase::Map(_) => "map",
            Phase::Safe => "safe",
            Phase::Meta { .. } => "meta",
            Phase::Ended => "ended",
        }
    }

    fn begin(&mut self, pool: &Pool) -> Step {
        let closing = pool.gate.current();
        if !pool.gate.drained(Epoch(closing.0 - 1)) {
            // Threads of an epoch whose checkpoint was abandoned at once.
            self.phase = Phase::Begin;
            return Step::Waiting;
        }
        // Before the epoch moves: whatever is found in e+1 later was not applied here, so redo
        // covers it.
        self.redo_lsn = self.log.redo_lsn();
        self.epoch = closing;
        // Before the epoch moves: a writer of e+1 must know what to copy.
        pool.set_cut(closing);
        pool.gate.advance();
        self.phase = Phase::Drain;
        Step::Working
    }

    fn drain(&mut self, pool: &Pool) -> Step {
        if !pool.gate.drained(self.epoch) {
            self.phase = Phase::Drain;
            return Step::Waiting;
        }
        self.image_hi = self.log.image_hi();
        self.clock_bound = self.log.clock_bound();
        self.page_id_hi = pool.page_id_hi();
        self.phase = Phase::Scan {
            at: 0,
            found: Vec::new(),
        };
        Step::Working
    }

    fn scan(&mut self, pool: &Pool, at: usize, mut found: Vec<Victim>) -> Result<Step, StoreError> {
        let next = pool.find_dirty(self.epoch, at, SCAN, &mut found);
        self.phase = match next {
            Some(at) => Phase::Scan { at, found },
            None => {
                found.sort_unstable_by_key(|victim| (victim.class, victim.id));
                Phase::Write {
                    work: found,
                    next: 0,
                    out: WriteOut::new(pool, Purpose::Checkpoint)?,
                }
            }
        };
        Ok(Step::Working)
    }

    fn write(
        &mut self,
        pool: &Pool,
        mut work: Vec<Victim>,
        mut next: usize,
        mut out: WriteOut,
    ) -> Result<Step, StoreError> {
        let offered = next;
        let polled = out.poll(pool, false);
        let mut started = Ok(());
        while polled.is_ok() && started.is_ok() && out.in_flight() < DEPTH && next < work.len() {
            let class = work[next].class;
            let same = work[next..].iter().take(OFFER);
            let many = same.take_while(|victim| victim.class == class).count();
            started = out.start(pool, &work[next..next + many]);
            next += many;
        }
        let written = polled.as_ref().map_or(0, |settled| settled.written);
        let counter = &pool.counters.checkpointed;
        counter.fetch_add(written, Ordering::Relaxed);
        if let Err(error) = polled.map(|_| ()).and(started) {
            // What is still in flight ends with its flags and slots set right.
            let _ = out.finish(pool, false);
            return Err(error);
        }
        // Whoever steps on at once while the disk works does nothing but ask it.
        let moved = next > offered || written > 0;
        let mut step = if moved { Step::Working } else { Step::Waiting };
        if next == work.len() && out.in_flight() == 0 {
            step = Step::Working;
            // Pages that were latched or on an evictor's way are still there, and copies that
            // writers left behind meanwhile. Scan again only what is left.
            work.retain(|victim| {
                victim.frozen.is_none() && pool.needs_write(victim.id, self.epoch)
            });
            let before = work.len();
            work.extend(pool.frozen_victims(usize::MAX));
            if work.is_empty() && !pool.has_frozen(self.epoch) {
                self.phase = Phase::Sync(None);
                return Ok(Step::Working);
            }
            if before == work.len() {
                step = Step::Waiting;
            }
            work.sort_unstable_by_key(|victim| (victim.class, victim.id));
            next = 0;
        }
        self.phase = Phase::Write { work, next, out };
        Ok(step)
    }

    fn sync(&mut self, pool: &Pool, batch: Option<Box<dyn Batch>>) -> Result<Step, StoreError> {
        let disk = pool.space.disk()?;
        let Some(mut batch) = batch else {
            let mut batch = disk.env.disk.batch(Purpose::Checkpoint);
            for (token, file) in disk.files.take_unsynced().into_iter().enumerate() {
                batch.push(Request {
                    token: token as u64,
                    file,
                    offset: 0,
                    op: Op::Sync,
                });
            }
            batch.submit();
            self.phase = Phase::Sync(Some(batch));
            return Ok(Step::Working);
        };
        let ended = batch.poll();
        self.publisher.believe(ended)?;
        if batch.in_flight() > 0 {
            self.phase = Phase::Sync(Some(batch));
            return Ok(Step::Waiting);
        }
        self.start_map(pool, disk)?;
        Ok(Step::Working)
    }

    fn start_map(&mut self, pool: &Pool, disk: &SpaceDisk) -> Result<(), StoreError> {
        self.lists = pool.space.take_lists(self.epoch);
        // Rising epochs, and within one the order of publication: the last word counts.
        let changes: Deltas = self
            .lists
            .iter()
            .flat_map(|(_, list)| list.iter().copied())
            .collect();
        let (newest, files, force_base) = {
            let state = self.publisher.state.lock();
            (state.newest.clone(), state.files.clone(), state.force_base)
        };
        let map = MapWrite::start(
            &disk.env.disk,
            &self.publisher.dir,
            &newest,
            &files,
            &changes,
            self.epoch,
            force_base,
        )?;
        self.phase = Phase::Map(Box::new(map));
        Ok(())
    }

    fn map(&mut self, mut map: Box<MapWrite>) -> Result<Step, StoreError> {
        match map.step() {
            Ok(Some(written)) => {
                self.map = Some(written);
                self.phase = Phase::Safe;
                Ok(Step::Working)
            }
            Ok(None) => {
                self.phase = Phase::Map(map);
                Ok(Step::Waiting)
            }
            Err(error) => {
                self.publisher.state.lock().force_base = true;
                Err(error)
            }
        }
    }

    fn safe(&mut self, pool: &Pool) -> Result<Step, StoreError> {
        if self.log.safe_lsn() < self.image_hi.0 {
            self.log.nudge();
            self.phase = Phase::Safe;
            return Ok(Step::Waiting);
        }
        self.write_meta(pool, 0)?;
        Ok(Step::Working)
    }

    fn next_meta(&self) -> Result<Meta, StoreError> {
        let Some(map) = &self.map else {
            return Err(StoreError::Invalid {
                what: "a superblock before its map".into(),
            });
        };
        let newest = &self.publisher.state.lock().newest;
        Ok(Meta {
            uuid: newest.uuid,
            generation: newest.generation + 1,
            epoch: self.epoch,
            clean_shutdown: self.log.clean_shutdown(),
            redo_lsn: self.redo_lsn,
            image_hi: self.image_hi,
            base: map.base,
            delta_len: map.delta_len,
            delta_crc: map.delta_crc,
            dir_root: newest.dir_root,
            page_id_hi: self.page_id_hi,
            clock_bound: self.clock_bound,
            limbo_n: 0,
        })
    }

    fn write_meta(&mut self, pool: &Pool, copy: usize) -> Result<(), StoreError> {
        let meta = self.next_meta()?;
        let mut batch = pool.space.disk()?.env.disk.batch(Purpose::Checkpoint);
        batch.push(Request {
            token: copy as u64,
            file: Arc::clone(&self.publisher.meta),
            offset: meta::offsets(meta.generation)[copy],
            op: Op::WriteDurable(meta.encode()),
        });
        batch.submit();
        self.phase = Phase::Meta { copy, batch };
        Ok(())
    }

    fn meta(
        &mut self,
        pool: &Pool,
        copy: usize,
        batch: Box<dyn Batch>,
        ended: Vec<Completion>,
    ) -> Result<Step, StoreError> {
        self.publisher.believe(ended)?;
        if batch.in_flight() > 0 {
            self.phase = Phase::Meta { copy, batch };
            return Ok(Step::Waiting);
        }
        if copy == 0 {
            self.write_meta(pool, 1)?;
            return Ok(Step::Working);
        }
        self.publish(pool).map(Step::Done)
    }

    /// The image is on disk: what only older images needed goes.
    fn publish(&mut self, pool: &Pool) -> Result<Published, StoreError> {
        let meta = self.next_meta()?;
        let Some(map) = self.map.take() else {
            return Err(StoreError::Invalid {
                what: "a superblock before its map".into(),
            });
        };
        let disk = pool.space.disk()?;
        // Before another checkpoint may begin: this cut would be taken for that one's.
        pool.set_cut(Epoch(0));
        *disk.base.lock() = map.files.base.clone().map(|file| (file, map.base));
        let published;
        let unneeded;
        {
            let mut state = self.publisher.state.lock();
            let previous = std::mem::replace(&mut state.newest, meta);
            let gone = state.older.replace(previous);
            let kept = [&state.newest, state.older.as_ref().unwrap_or(&state.newest)];
            let kept_bases = kept.map(|meta| meta.base.epoch);
            let oldest = kept[1];
            published = Published {
                epoch: state.newest.epoch,
                generation: state.newest.generation,
                older_redo_lsn: oldest.redo_lsn,
            };
            // M2: the OLDEST retained image decides, as a fact.
            pool.space.release(oldest.epoch);
            unneeded = gone
                .map(|meta| meta.base)
                .filter(|base| !kept_bases.contains(&base.epoch));
            state.files = map.files;
            state.force_base = false;
            state.running = false;
            state.published += 1;
        }
        if let Some(Base { epoch, .. }) = unneeded {
            // A file that cannot be removed costs space until the next open, nothing else.
            let _ = disk.env.disk.remove(&base_path(&self.publisher.dir, epoch));
            let _ = disk
                .env
                .disk
                .remove(&delta_path(&self.publisher.dir, epoch));
        }
        self.lists.clear();
        self.epoch = Epoch(0);
        Ok(published)
    }

    /// Everything goes back to where the next checkpoint finds it.
    fn abandon(&mut self) {
        let publisher = Arc::clone(&self.publisher);
        let pool = &*publisher.pool;
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Write { mut out, .. } => {
                let _ = out.finish(pool, false);
            }
            // Its files do not count as unsynced any more, so its end must be known: a failure
            // that nobody saw would be followed by a sync that is believed.
            Phase::Sync(Some(mut batch)) => {
                while batch.in_flight() > 0 {
                    let _ = publisher.believe(batch.wait());
                }
            }
            // Nobody saw how writing behind the delta file ended.
            Phase::Map(_) => publisher.state.lock().force_base = true,
            _ => {}
        }
        pool.set_cut(Epoch(0));
        pool.drop_frozen();
        pool.space.put_back(std::mem::take(&mut self.lists));
        let mut state = publisher.state.lock();
        if std::mem::replace(&mut state.running, false) {
            state.abandoned += 1;
        }
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        let publisher = Arc::clone(&self.publisher);
        // With a superblock on its way the image may be the one that opens next: too late to
        // abandon it, so it is published.
        while matches!(self.phase, Phase::Meta { .. })
            && let Phase::Meta { copy, mut batch } =
                std::mem::replace(&mut self.phase, Phase::Ended)
        {
            let ended = batch.wait();
            if self.meta(&publisher.pool, copy, batch, ended).is_err() {
                self.abandon();
            }
        }
        if !matches!(self.phase, Phase::Ended) {
            self.abandon();
        }
    }
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Checkpoint({})", self.epoch)
    }
}
