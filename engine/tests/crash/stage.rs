//! A workload on a stage: every commit goes into the model before it goes into the database, and
//! every I/O boundary is photographed.
//!
//! The pictures are taken inside of the call (the disk goes on unharmed) and developed later: a
//! job is an image and the states that it may be recovered to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use terrane::Position;
use terrane_fuzz::keys::{KeyId, Length, RowId, Val};
use terrane_fuzz::model::{Model, State, Writes};
use terrane_fuzz::ops::Setup;
use terrane_fuzz::rig::{self, Rig};
use terrane_wal::io::sim::{CrashCaps, Image, ImageKind, IoEvent, SimDisk};

/// An image and what may be found in it.
pub(crate) struct Job {
    /// The kinds that it is an image of: one disk can come about in several ways.
    pub(crate) kinds: BTreeSet<ImageKind>,
    pub(crate) image: Image,
    /// Commits that must be there.
    pub(crate) acknowledged: State,
    /// Commits that may be there.
    pub(crate) issued: State,
    /// The boundary, for the report of a failure.
    pub(crate) at: String,
}

/// What the hook writes to.
#[derive(Default)]
struct Film {
    acknowledged: AtomicUsize,
    issued: AtomicUsize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    jobs: Vec<Job>,
    /// Where the job of an image is that was seen before.
    seen: BTreeMap<(u64, State, State), usize>,
    boundaries: u64,
}

/// What came out of a workload.
pub(crate) struct Played {
    pub(crate) model: Model,
    pub(crate) jobs: Vec<Job>,
    pub(crate) boundaries: u64,
}

/// A database, its model, and the camera.
pub(crate) struct Stage {
    pub(crate) rig: Rig,
    pub(crate) model: Model,
    film: Arc<Film>,
    version: u32,
}

/// Photographs a boundary: all images that a crash here could leave, of each kind a few.
fn look(film: &Film, disk: &SimDisk, event: &IoEvent, caps: &CrashCaps) {
    let acknowledged = film.acknowledged.load(Ordering::Relaxed);
    let issued = film.issued.load(Ordering::Relaxed);
    let mut taken = film.taken.lock().unwrap();
    taken.boundaries += 1;
    // Within one call equal images come once, as the first kind; other draws show other kinds.
    let draws = [*caps, CrashCaps::at_most(2), CrashCaps::at_most(1)];
    let images = draws
        .iter()
        .zip(0..)
        .flat_map(|(caps, draw)| disk.crash_images(event.boundary * 3 + draw, caps));
    for (kind, image) in images {
        let next = taken.jobs.len();
        let key = (image.hash(), acknowledged, issued);
        let at = *taken.seen.entry(key).or_insert(next);
        if at < next {
            taken.jobs[at].kinds.insert(kind);
            continue;
        }
        let IoEvent {
            op,
            phase,
            path,
            offset,
            len,
            boundary,
            ..
        } = event;
        let (path, how) = (path.display(), image.how());
        let at = format!("{boundary}: {phase:?} {op:?} {path} {offset}+{len}; {how}");
        let kinds = BTreeSet::from([kind]);
        taken.jobs.push(Job {
            kinds,
            image,
            acknowledged,
            issued,
            at,
        });
    }
}

impl Stage {
    /// A new database with its two tables.
    pub(crate) fn new(seed: u64, setup: Setup) -> Stage {
        Stage::on(seed, SimDisk::seeded(seed), setup, Model::default())
    }

    /// The database of a disk that holds the newest state of `model`.
    pub(crate) fn on(seed: u64, disk: SimDisk, setup: Setup, model: Model) -> Stage {
        let rig = Rig::over(seed, disk, setup).unwrap();
        Stage {
            rig,
            model,
            film: Arc::default(),
            version: 1,
        }
    }

    /// Begins to photograph.
    pub(crate) fn roll(&mut self, caps: CrashCaps) {
        self.film
            .acknowledged
            .store(self.model.acknowledged(), Ordering::Relaxed);
        self.film
            .issued
            .store(self.model.newest(), Ordering::Relaxed);
        let film = self.film.clone();
        self.rig
            .sim
            .disk()
            .on_io(move |disk, event| look(&film, disk, event, &caps));
    }

    /// Ends photographing and the world.
    pub(crate) fn cut(self) -> Played {
        self.rig.sim.disk().off_io();
        self.rig.stop();
        let taken = std::mem::take(&mut *self.film.taken.lock().unwrap());
        Played {
            model: self.model,
            jobs: taken.jobs,
            boundaries: taken.boundaries,
        }
    }

    pub(crate) fn val(&mut self, length: Length) -> Val {
        self.version += 1;
        Val::new(self.version, length)
    }

    /// A commit that must succeed.
    pub(crate) fn commit(&mut self, writes: Writes) {
        let outcome = self.try_commit(&writes);
        outcome.unwrap();
    }

    /// A commit; acknowledged if it succeeds.
    pub(crate) fn try_commit(&mut self, writes: &Writes) -> terrane::Result<()> {
        let state = self.model.commit(writes.clone());
        self.film.issued.store(state, Ordering::Relaxed);
        let tables = &self.rig.tables;
        self.rig.db.write(|tx| {
            for (row, val) in writes {
                let table = &tables[row.table as usize];
                match val {
                    Some(val) => table.put(tx, row.key.bytes(), &val.bytes(*row))?,
                    None => table.delete(tx, row.key.bytes()).map(drop)?,
                }
            }
            Ok(())
        })?;
        self.model.acknowledge(state);
        self.film.acknowledged.store(state, Ordering::Relaxed);
        Ok(())
    }

    /// One row in a commit of its own.
    pub(crate) fn put(&mut self, table: u8, bulk: usize, length: Length) {
        let row = RowId {
            table,
            key: KeyId::bulk(bulk),
        };
        let val = self.val(length);
        self.commit(Writes::from([(row, Some(val))]));
    }

    /// A run of rows in one commit.
    pub(crate) fn fill(&mut self, table: u8, rows: std::ops::Range<usize>, length: Length) {
        let writes = rows.map(|bulk| {
            let row = RowId {
                table,
                key: KeyId::bulk(bulk),
            };
            (row, Some(self.val(length)))
        });
        let writes = writes.collect();
        self.commit(writes);
    }

    /// Deletes a run of rows in one commit.
    pub(crate) fn clear(&mut self, table: u8, rows: std::ops::Range<usize>) {
        let writes = rows.map(|bulk| {
            (
                RowId {
                    table,
                    key: KeyId::bulk(bulk),
                },
                None,
            )
        });
        let writes = writes.collect();
        self.commit(writes);
    }

    pub(crate) fn checkpoint(&mut self) {
        self.rig.db.checkpoint().unwrap();
    }

    /// `threads` logical threads, each with `commits` commits of a row in either table. The order
    /// is what the log says, so the model learns it at the end, and the jobs with it.
    pub(crate) fn group(&mut self, threads: usize, commits: usize) {
        let before = self.model.newest();
        let done: Arc<Mutex<Vec<(Position, Writes)>>> = Arc::default();
        let env = self.rig.sim.env();
        self.film
            .issued
            .store(before + threads * commits, Ordering::Relaxed);
        let joiners: Vec<_> = (0..threads)
            .map(|thread| {
                let mine: Vec<Writes> = (0..commits)
                    .map(|commit| {
                        let key = KeyId::bulk(500 + thread * commits + commit);
                        let val = self.val(Length::Small);
                        (0..2)
                            .map(|table| (RowId { table, key }, Some(val)))
                            .collect()
                    })
                    .collect();
                let (db, tables) = (self.rig.db.clone(), self.rig.tables.clone());
                let (done, film) = (done.clone(), self.film.clone());
                let body = move || {
                    for writes in mine {
                        let write = |tx: &mut terrane::Transaction| -> terrane::Result<()> {
                            for (row, val) in &writes {
                                let bytes = val.unwrap().bytes(*row);
                                let table = &tables[row.table as usize];
                                table.put(tx, row.key.bytes(), &bytes)?;
                            }
                            Ok(())
                        };
                        let ((), commit) = db.writer().run(write).unwrap();
                        let mut done = done.lock().unwrap();
                        done.push((commit.position, writes));
                        // For now: how many are acknowledged; which they are is found out below.
                        film.acknowledged
                            .store(before + done.len(), Ordering::Relaxed);
                    }
                };
                env.spawn.spawn("committer", Box::new(body)).unwrap()
            })
            .collect();
        for joiner in joiners {
            joiner.join().unwrap();
        }
        let done = std::mem::take(&mut *done.lock().unwrap());
        let mut order: Vec<usize> = (0..done.len()).collect();
        order.sort_by_key(|at| done[*at].0);
        for at in &order {
            let state = self.model.commit(done[*at].1.clone());
            self.model.acknowledge(state);
        }
        let rank = |acknowledged: usize| {
            let first = &done[..acknowledged - before];
            let last = first.iter().map(|(position, _)| *position).max();
            let below = |last| {
                done.iter()
                    .filter(|(position, _)| *position <= last)
                    .count()
            };
            before + last.map_or(0, below)
        };
        for job in &mut self.film.taken.lock().unwrap().jobs {
            if job.issued > before {
                job.acknowledged = rank(job.acknowledged);
            }
        }
    }
}

/// Photographs what `body` does on a disk, without a model: for recovery and creation.
pub(crate) fn photograph(disk: &SimDisk, caps: CrashCaps, body: impl FnOnce()) -> Vec<Job> {
    let film: Arc<Film> = Arc::default();
    let hook = film.clone();
    disk.on_io(move |disk, event| look(&hook, disk, event, &caps));
    body();
    disk.off_io();
    std::mem::take(&mut film.taken.lock().unwrap().jobs)
}

/// Opens an image, and what is in it.
///
/// # Errors
/// Recovery failed or found something damaged, in words.
pub(crate) fn recover(image: &Image, seed: u64, setup: Setup) -> Result<Rig, String> {
    let disk = SimDisk::from_image(image);
    Rig::over(seed, disk, setup).map_err(|error| format!("recovery failed: {error}"))
}

/// All rows of a recovered database.
///
/// # Errors
/// They are not readable, or not what they say.
pub(crate) fn contents(rig: &Rig) -> Result<terrane_fuzz::model::Rows, String> {
    rig::rows(&rig.tables, &rig.db.snapshot())
}
