//! Maintenance: system transactions that keep postings packed, of even size and around their
//! centres, while commits and searches go on.
//!
//! ```text
//! commits -> observe: loads of postings -> queue, one entry for a posting
//! step -> a slice of one job: read, take intents, one transaction
//!   assign   rows that no posting has taken      split    too many entries: two postings
//!   fold     tail into blocks, dead ones out     merge    too few: into those around
//!   recentre the mean has moved: a new posting   reassign after a split: the neighbours' entries
//!   sweep    at rest: entries to the nearest of all centres
//! ```
//!
//! Pure and stepped: no thread, no clock, nothing waits. A step writes at most one transaction, and
//! between any two transactions records are such that another maintainer can go on: what is under
//! way stands in job and centroid records, the rest is found again by a survey of the postings.
//!
//! Invariants (the S rules are those of snapshots):
//! * S2, S5, S7 as in `fold.rs`, `reassign.rs`, `txn.rs`: commits order with maintenance through
//!   the intents of rows alone.
//! * M1. A posting's centre never changes; a new centre is a new posting.
//! * M2. A draining posting receives nothing after the epoch since which it drains is quiesced.

mod assign;
mod board;
mod contents;
mod delta;
mod drain;
mod fold;
mod host;
mod look;
mod merge;
mod moves;
mod reassign;
mod split;
mod stats;
mod sweep;
mod txn;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub(crate) use contents::Contents;
pub use delta::Delta;
pub use host::{MaintenanceHost, Publish, RecordStore};
pub use stats::MaintenanceStats;

use crate::index::VectorIndex;
use crate::record::{Centroid, Job, JobKind, Key, PostingId};
use assign::Assign;
use board::{Board, Work};
use drain::Drain;
use reassign::Reassign;
use split::{Gather, Why};
use sweep::Sweep;

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Something; there is more.
    More,
    /// Nothing: what is left waits for commits, searches or rows in use. Try again later.
    Waiting,
    /// Nothing is left to do.
    Idle,
}

/// A job under way.
#[derive(Debug)]
enum Task {
    Gather(Gather),
    Drain(Drain),
    Assign(Assign),
    Reassign(Reassign),
    Sweep(Sweep),
    Fold(PostingId),
}

/// How a job goes on.
#[derive(Debug)]
enum Turn {
    /// At once.
    More,
    /// Later: it waits for something.
    Wait,
    Done,
    Then(Box<Task>),
}

/// Maintenance of one index, step by step.
///
/// Made when the index is opened, fed by [`Maintainer::observe`], driven by [`Maintainer::step`].
/// Nothing is lost when it is dropped: the next one goes on from the records.
#[derive(Debug)]
pub struct Maintainer {
    index: VectorIndex,
    /// `None` until the records were read, and after an error.
    board: Option<Board>,
    /// The counters as they were before an error.
    before: MaintenanceStats,
    active: Option<Task>,
    /// Jobs that wait for something.
    parked: VecDeque<Task>,
    /// Splits whose neighbourhoods wait to be looked at, by the posting that was split.
    reassigns: BTreeMap<PostingId, Reassign>,
    /// Postings that are small but grow.
    warm: BTreeSet<PostingId>,
    /// The board's clock when there was last nothing to do.
    quiet_since: Option<u64>,
    /// Postings that the survey has not read yet.
    survey: Vec<PostingId>,
    steps: u64,
}

/// One posting of the survey is read every so many steps, while there is other work.
const SURVEY_EVERY: u64 = 4;

impl Maintainer {
    /// Maintenance of an index. The first step reads centroids and jobs.
    #[must_use]
    pub fn new(index: VectorIndex) -> Self {
        Self {
            index,
            board: None,
            before: MaintenanceStats::default(),
            active: None,
            parked: VecDeque::new(),
            reassigns: BTreeMap::new(),
            warm: BTreeSet::new(),
            quiet_since: None,
            survey: Vec::new(),
            steps: 0,
        }
    }

    /// Counts in what a commit did ([`Delta::of`] its records), after it was applied. What is not
    /// told, a later survey finds. O(deltas x log postings).
    pub fn observe(&mut self, deltas: &[Delta]) {
        if let Some(board) = &mut self.board {
            for delta in deltas {
                board.observe(delta);
            }
        }
    }

    /// Counters, and what is in the queue. O(postings).
    #[must_use]
    pub fn stats(&self) -> MaintenanceStats {
        let mut stats = self.counters();
        for (&id, load) in self.board.iter().flat_map(|board| &board.loads) {
            if id != PostingId::UNASSIGNED {
                stats.count(load.state);
            }
        }
        stats
    }

    /// As [`Maintainer::stats`] without the numbers of postings, which the host's newest set of
    /// centres has too ([`crate::CentroidSet::count_postings`]). O(1).
    #[must_use]
    pub fn counters(&self) -> MaintenanceStats {
        let counted = match &self.board {
            Some(board) => board.counters(),
            None => self.before,
        };
        MaintenanceStats {
            queue: self.backlog(),
            ..counted
        }
    }

    /// Jobs that wait or are under way. O(1).
    #[must_use]
    pub fn backlog(&self) -> usize {
        let queue = self.board.as_ref().map_or(0, Board::queue_len);
        queue + self.reassigns.len() + self.parked.len() + usize::from(self.active.is_some())
    }

    /// How far it is behind commits, in jobs: those of [`Maintainer::backlog`], and for entries
    /// that tails have beyond what they should as many folds as would seal them. A posting is in
    /// the queue once, so with few postings the queue alone is short, however long they are. O(1).
    #[must_use]
    pub fn behind(&self) -> usize {
        self.backlog() + self.board.as_ref().map_or(0, Board::folds_behind)
    }

    /// Does one slice: at most 64 rows and one system transaction, or a look at a few postings.
    ///
    /// # Errors
    /// The host's, [`crate::IndexError::Record`] for a record that cannot be read, and
    /// [`crate::IndexError::Missing`] or [`crate::IndexError::Row`] for records that contradict
    /// each other. The next step begins with the records again.
    pub fn step<H: MaintenanceHost>(&mut self, host: &mut H) -> Result<Progress, H::Error> {
        let result = self.slice(host);
        if result.is_err() {
            host.release();
            if !planted!("counters_lost") {
                self.before = self.counters();
            }
            self.board = None;
        }
        result
    }

    fn slice<H: MaintenanceHost>(&mut self, host: &mut H) -> Result<Progress, H::Error> {
        let Some(mut board) = self.board.take() else {
            self.open(host)?;
            return Ok(Progress::More);
        };
        let progress = self.work(&mut board, host);
        self.board = Some(board);
        progress
    }

    /// Reads centroids and jobs.
    fn open<H: MaintenanceHost>(&mut self, host: &mut H) -> Result<(), H::Error> {
        let meta = txn::read_meta(host)?;
        let mut board = Board::new(self.index.clone(), meta);
        board.stats = self.before;
        let dim = self.index.space().code_dim();
        let (first, last) = (Key::Centroid(PostingId(0)), Key::Head(PostingId(0)));
        host.scan(first, Some(last), &mut |key, value| {
            if let Key::Centroid(id) = key {
                board.find(id, Centroid::decode(value, dim)?.state);
            }
            Ok(())
        })?;
        let mut jobs = Vec::new();
        let (first, last) = (Key::Job(PostingId(0)), Key::Extra(PostingId(0), 0));
        host.scan(first, Some(last), &mut |key, value| {
            if let Key::Job(id) = key {
                jobs.push((id, Job::decode(value, dim)?));
            }
            Ok(())
        })?;
        (self.active, self.parked, self.reassigns) = Default::default();
        let set = host.centroids();
        for (id, job) in jobs {
            if job.kind == JobKind::Reassign {
                let known = |id: PostingId| set.centre(id).map(|centre| (id, centre));
                let there = job.children.into_iter().filter(|child| child.0 != 0);
                let children = there.filter_map(known).collect();
                self.reassigns
                    .insert(id, Reassign::new(id, job, children, None));
                board.enqueue(Work::Reassign, 0, id);
            } else {
                let drain = Drain::resume(&board, host, id, job)?;
                self.parked.push_back(Task::Drain(drain));
            }
        }
        if !planted!("no_survey") {
            self.survey = board.loads.keys().rev().copied().collect();
        }
        self.board = Some(board);
        Ok(())
    }

    fn work<H: MaintenanceHost>(
        &mut self,
        board: &mut Board,
        host: &mut H,
    ) -> Result<Progress, H::Error> {
        self.steps += 1;
        if !self.survey.is_empty() && self.steps.is_multiple_of(SURVEY_EVERY) {
            return self.survey_one(board, host);
        }
        if let Some(task) = self.active.take() {
            return self.run(board, host, task);
        }
        // Jobs that wait are looked at once each time that the queue has nothing under way.
        if let Some(task) = self.parked.pop_front()
            && self.run(board, host, task)? == Progress::More
        {
            return Ok(Progress::More);
        }
        let horizon = host.horizon();
        while let Some((work, id)) = board.pop(horizon) {
            if let Some(task) = self.start(board, host, work, id)? {
                return self.run(board, host, task);
            }
        }
        if !self.survey.is_empty() {
            return self.survey_one(board, host);
        }
        // No commit since there was last nothing to do: what is small now stays small.
        board.quiet = self.quiet_since == Some(board.clock);
        self.quiet_since = Some(board.clock);
        if let Some(id) = self.warm.pop_first() {
            board.consider(id);
            return Ok(Progress::More);
        }
        if board.quiet && board.tidy() {
            return Ok(Progress::More);
        }
        let rest = self.parked.is_empty();
        Ok(if rest {
            Progress::Idle
        } else {
            Progress::Waiting
        })
    }

    /// Begins work from the queue; `None` if there is nothing to do after all.
    fn start<H: MaintenanceHost>(
        &mut self,
        board: &mut Board,
        host: &mut H,
        work: Work,
        id: PostingId,
    ) -> Result<Option<Task>, H::Error> {
        Ok(match work {
            Work::Assign => Some(Task::Assign(Assign::default())),
            Work::Split | Work::DeepSplit => {
                Gather::new(board, host, id, Why::Split)?.map(Task::Gather)
            }
            Work::Recentre => Gather::new(board, host, id, Why::Recentre)?.map(Task::Gather),
            Work::Fold => Some(Task::Fold(id)),
            Work::Merge if !board.is_cold(id) => {
                self.warm.insert(id);
                None
            }
            Work::Merge => merge::begin(board, host, id)?.map(Task::Drain),
            Work::Sweep => Sweep::new(board, host, id)?.map(Task::Sweep),
            Work::Reassign => self.reassigns.remove(&id).map(Task::Reassign),
        })
    }

    /// One turn of a job.
    fn run<H: MaintenanceHost>(
        &mut self,
        board: &mut Board,
        host: &mut H,
        mut task: Task,
    ) -> Result<Progress, H::Error> {
        let turn = match &mut task {
            Task::Gather(gather) => gather.step(board, host)?,
            Task::Drain(drain) => drain.step(board, host)?,
            Task::Assign(assign) => assign.step(board, host)?,
            Task::Reassign(reassign) => reassign.step(board, host)?,
            Task::Sweep(sweep) => sweep.step(board, host)?,
            Task::Fold(id) => fold::step(board, host, *id)?,
        };
        match turn {
            Turn::More => self.active = Some(task),
            Turn::Wait => {
                self.parked.push_back(task);
                return Ok(Progress::Waiting);
            }
            Turn::Then(next) => match *next {
                Task::Reassign(reassign) => {
                    let id = reassign.parent();
                    self.reassigns.insert(id, reassign);
                    board.enqueue(Work::Reassign, 0, id);
                }
                next => self.active = Some(next),
            },
            Turn::Done => {}
        }
        Ok(Progress::More)
    }

    /// Counts one posting, as its records are.
    fn survey_one<H: MaintenanceHost>(
        &mut self,
        board: &mut Board,
        host: &mut H,
    ) -> Result<Progress, H::Error> {
        if let Some(id) = self.survey.pop()
            && board.loads.contains_key(&id)
        {
            let contents = Contents::read(host, id, board.index.space().code_dim())?;
            board.count(id, contents.counts(), contents.tail_len());
            board.consider(id);
        }
        Ok(Progress::More)
    }
}
