//! After a split: entries around it that are now nearer to another posting go there (LIRE; SPFresh,
//! Xu and others, SOSP 2023, section 3.3, `CheckIsNeedReassign`).
//!
//! Of a posting with centre `o` that became `c1` and `c2`, an entry `v` is a candidate
//! * in a child, if it is nearer to `o` than to the child: something else may be nearer still;
//! * in one of the 64 postings around, if it is nearer to `c1` or `c2` than to `o` and than to its
//!   own centre.
//!
//! Judged on codes, one bit first, then four where there are more, with their error bounds: only
//! what these cannot rule out costs a row. The row then decides: the nearest of the centres around
//! takes it, if that is really nearer than its own.
//!
//! Invariants: S5, P4 (`moves.rs`).

use super::Turn;
use super::board::Board;
use super::host::{MaintenanceHost, Publish};
use super::look::{Centre, Look, Misplaced};
use super::moves::move_batch;
use super::split::distance_squared;
use super::txn::{SLICE, Txn};
use crate::centroid::CentroidSet;
use crate::code::query::CodeQuery;
use crate::record::{Job, Key, PostingId, State};
use crate::store::Write;

/// Postings around a split that are looked at; under backlog, and where a centre moved, fewer.
pub(crate) const NEIGHBOURS: usize = 64;
const NEIGHBOURS_FEW: usize = 16;
/// Splits that wait from which on there is a backlog.
const BACKLOG: usize = 8;
/// Postings that a step looks at.
const SCANS: usize = 8;

/// The neighbourhood of a split while it is looked at.
#[derive(Debug)]
pub(crate) struct Reassign {
    /// The posting that was split: the job's key.
    parent: PostingId,
    job: Job,
    children: Vec<(PostingId, Vec<f32>)>,
    /// Made when the first posting is looked at.
    centres: Option<(Centre, Vec<Centre>)>,
    /// Postings around, children among them: the nearest of these takes what moves.
    near: Vec<(PostingId, Vec<f32>)>,
    /// Postings still to look at.
    todo: Vec<PostingId>,
    found: Vec<Misplaced>,
    /// Whether `found` had what is misplaced in the children from the start.
    children_known: bool,
}

impl Reassign {
    /// The children's centres come along, for they may be split again before this begins. `known`:
    /// what is misplaced in the children, if the drain saw it.
    pub(crate) fn new(
        parent: PostingId,
        job: Job,
        children: Vec<(PostingId, Vec<f32>)>,
        known: Option<Vec<Misplaced>>,
    ) -> Self {
        Self {
            parent,
            job,
            children,
            centres: None,
            near: Vec::new(),
            todo: Vec::new(),
            children_known: known.is_some(),
            found: known.unwrap_or_default(),
        }
    }

    pub(crate) fn job(&self) -> &Job {
        &self.job
    }

    pub(crate) fn parent(&self) -> PostingId {
        self.parent
    }

    pub(crate) fn step<H: MaintenanceHost>(
        &mut self,
        board: &mut Board,
        host: &mut H,
    ) -> Result<Turn, H::Error> {
        if self.centres.is_none() {
            self.begin(board, host);
            return Ok(Turn::More);
        }
        if self.found.len() >= SLICE || self.todo.is_empty() && !self.found.is_empty() {
            return self.move_some(board, host);
        }
        if self.todo.is_empty() {
            let mut txn = Txn::default();
            if !planted!("a_job_without_end") {
                txn.writes.push(Write::delete(Key::Job(self.parent)));
            }
            txn.commit(board, host, Publish::Nothing)?;
            return Ok(Turn::Done);
        }
        for _ in 0..SCANS {
            if let Some(id) = self.todo.pop()
                && let Some((old, children)) = &self.centres
            {
                let look = Look::new(&board.index, old, children, id);
                let centre = host.centroids().centre(id);
                if let Some(centre) = centre {
                    board.stats.evaluated += look.posting(host, id, &centre, &mut self.found)?;
                }
            }
        }
        Ok(Turn::More)
    }

    fn begin<H: MaintenanceHost>(&mut self, board: &Board, host: &H) {
        let metric = board.index.metric();
        let old = Centre::new(metric, self.parent, self.job.centre.clone());
        // A centre that moved a little concerns those beside it only.
        let few = board.backlog() > BACKLOG || self.children.len() < 2;
        let most = if few { NEIGHBOURS_FEW } else { NEIGHBOURS };
        let is_child = |id| self.children.iter().any(|child| child.0 == id);
        let set = host.centroids();
        let near = board.index.nearest(&set, &old.query, most, &|id, state| {
            state != State::Draining && !is_child(id)
        });
        self.todo = near.iter().rev().map(|probe| probe.id).collect();
        if !self.children_known {
            self.todo.extend(self.children.iter().map(|child| child.0));
        }
        let around = near
            .iter()
            .map(|probe| probe.id)
            .chain(self.children.iter().map(|c| c.0));
        self.near = around
            .filter_map(|id| Some((id, set.centre(id)?)))
            .collect();
        let children = std::mem::take(&mut self.children);
        let children = children
            .into_iter()
            .map(|(id, centre)| Centre::new(metric, id, centre));
        self.centres = Some((old, children.collect()));
    }

    /// Up to 64 candidates: their rows decide.
    fn move_some<H: MaintenanceHost>(
        &mut self,
        board: &mut Board,
        host: &mut H,
    ) -> Result<Turn, H::Error> {
        let rest = self.found.len().saturating_sub(SLICE);
        let batch = self.found.split_off(rest);
        board.stats.undecided += batch.len() as u64;
        let ideal =
            |board: &Board, set: &CentroidSet, vector: &[f32]| self.ideal(board, set, vector);
        move_batch(board, host, batch, self.job.depth + 1, &ideal)?;
        Ok(Turn::More)
    }

    /// The postings that should hold a vector. Copies depend on all centres; a single one goes to
    /// the nearest of those around, which is nearer than its own or nothing is done.
    fn ideal(&self, board: &Board, set: &CentroidSet, vector: &[f32]) -> Vec<PostingId> {
        if board.index.params().replicas > 1 {
            let query = CodeQuery::of_rotated(board.index.metric(), vector.to_vec());
            return board.index.place(set, &query);
        }
        let state = |id: PostingId| board.loads.get(&id).map(|load| load.state);
        let open = self
            .near
            .iter()
            .filter(|near| state(near.0).is_some_and(|state| state != State::Draining));
        let far = open.map(|near| (distance_squared(vector, &near.1), near.0));
        let nearest = far.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        nearest.map(|nearest| nearest.1).into_iter().collect()
    }
}
