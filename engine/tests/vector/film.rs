//! Photographs of a disk at every I/O boundary, and which of them are recovered.
//!
//! `TERRANE_CRASH=full` recovers every image that was taken, of more images at each boundary.
//! Otherwise a seed draws: the images of a boundary, and of all of them as many as a gate has time
//! for, of each kind alike. The seed is another one in every run, is printed, and
//! `TERRANE_CRASH_SEED` sets it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use terrane_wal::io::sim::{CrashCaps, Image, ImageKind, IoEvent, SimDisk};

use crate::world::Random;

/// How much of it all is done.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// Images of one kind at one boundary.
    per_boundary: usize,
    /// Images of one workload that are recovered.
    pub(crate) images: usize,
    /// Of these, images whose recovery is crashed as well.
    pub(crate) deeper: usize,
    /// Images of one such recovery.
    pub(crate) per_recovery: usize,
    /// What is drawn follows it.
    pub(crate) seed: u64,
}

/// What the environment asks for.
pub(crate) fn effort() -> Effort {
    let seed = std::env::var("TERRANE_CRASH_SEED");
    let seed = seed.map_or(u64::from(std::process::id()), |text| text.parse().unwrap());
    match std::env::var("TERRANE_CRASH").as_deref() {
        Ok("full") => Effort {
            per_boundary: 4,
            images: usize::MAX,
            deeper: 20,
            per_recovery: 40,
            seed,
        },
        _ => Effort {
            per_boundary: 2,
            images: 70,
            deeper: 2,
            per_recovery: 8,
            seed,
        },
    }
}

/// What was acknowledged of an index that is made or dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Promise {
    /// There may be one.
    Nothing,
    /// Searches use it.
    Ready,
    /// There is none.
    Gone,
}

const PROMISES: [Promise; 3] = [Promise::Nothing, Promise::Ready, Promise::Gone];

/// An image, and what may be found in it.
pub(crate) struct Shot {
    pub(crate) image: Image,
    pub(crate) kind: ImageKind,
    /// The first and the last state that its rows may be those of.
    pub(crate) acknowledged: usize,
    pub(crate) issued: usize,
    pub(crate) promise: Promise,
    /// The boundary, for the report of a failure.
    pub(crate) at: String,
}

/// What the camera writes to.
#[derive(Default)]
pub(crate) struct Film {
    acknowledged: AtomicUsize,
    issued: AtomicUsize,
    promise: AtomicUsize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    seen: BTreeSet<(u64, usize, usize, Promise)>,
    shots: Vec<Shot>,
}

impl Film {
    /// A commit is on its way to this state.
    pub(crate) fn issue(&self, state: usize) {
        self.issued.store(state, Ordering::Relaxed);
    }

    /// The commit to this state has returned.
    pub(crate) fn acknowledge(&self, state: usize) {
        self.acknowledged.store(state, Ordering::Relaxed);
    }

    pub(crate) fn promise(&self, promise: Promise) {
        let at = PROMISES.iter().position(|other| *other == promise);
        self.promise.store(at.unwrap(), Ordering::Relaxed);
    }

    /// Photographs every boundary that the disk passes from now on.
    pub(crate) fn roll(self: &Arc<Film>, disk: &SimDisk, effort: Effort) {
        let film = Arc::clone(self);
        disk.on_io(move |disk, event| film.look(disk, event, effort));
    }

    fn look(&self, disk: &SimDisk, event: &IoEvent, effort: Effort) {
        let load = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        let (acknowledged, issued) = (load(&self.acknowledged), load(&self.issued));
        let promise = PROMISES[load(&self.promise)];
        let seed = Random(effort.seed ^ event.boundary << 20).next();
        let images = disk.crash_images(seed, &CrashCaps::at_most(effort.per_boundary));
        let mut taken = self.taken.lock().unwrap();
        for (kind, image) in images {
            if !taken
                .seen
                .insert((image.hash(), acknowledged, issued, promise))
            {
                continue;
            }
            let (how, path) = (image.how(), event.path.display());
            let (phase, op) = (event.phase, event.op);
            taken.shots.push(Shot {
                at: format!(
                    "boundary {}: {phase:?} {op:?} {path}; {how}",
                    event.boundary
                ),
                image,
                kind,
                acknowledged,
                issued,
                promise,
            });
        }
    }

    /// Ends it, and gives out what was taken.
    pub(crate) fn cut(&self, disk: &SimDisk) -> Vec<Shot> {
        disk.off_io();
        std::mem::take(&mut self.taken.lock().unwrap().shots)
    }
}

/// At most so many, of each kind alike as far as there are, in the order in which they were taken.
pub(crate) fn choose(shots: Vec<Shot>, most: usize, seed: u64) -> Vec<Shot> {
    let mut random = Random(seed);
    let mut order: Vec<usize> = (0..shots.len()).collect();
    for at in (1..order.len()).rev() {
        order.swap(at, random.below(at as u64 + 1) as usize);
    }
    let mut of_kind: BTreeMap<ImageKind, usize> = BTreeMap::new();
    let rank = |at: usize| {
        let rank = of_kind.entry(shots[at].kind).or_default();
        *rank += 1;
        (*rank, at)
    };
    let mut ranked: Vec<(usize, usize)> = order.into_iter().map(rank).collect();
    ranked.sort_unstable();
    let chosen: BTreeSet<usize> = ranked.into_iter().take(most).map(|(_, at)| at).collect();
    let shots = shots.into_iter().enumerate();
    let kept = shots.filter(|(at, _)| chosen.contains(at));
    kept.map(|(_, shot)| shot).collect()
}
