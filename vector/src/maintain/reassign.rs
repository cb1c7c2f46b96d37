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
//! Invariants:
//! * S5. A move writes new copy, locator and mark in one transaction; row and vver are untouched.
//!   The mark names the next epoch: searches of this one may have read the new posting already.
//! * P4. Moves end: each makes a copy strictly nearer to its centre, and centres never change.

use std::collections::BTreeMap;

use super::Turn;
use super::board::Board;
use super::contents::Contents;
use super::host::{MaintenanceHost, Publish};
use super::look::{Centre, Look, Misplaced};
use super::split::{distance_squared, fetch};
use super::txn::{SLICE, Txn, read_mark};
use crate::centroid::CentroidSet;
use crate::code::query::CodeQuery;
use crate::record::{Job, Key, Mark, PostingId, RowId, State, Vver};
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
            txn.writes.push(Write::delete(Key::Job(self.parent)));
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
        let mut vectors: BTreeMap<(RowId, Vver), Vec<f32>> = BTreeMap::new();
        let wanted: Vec<(RowId, Vver)> = batch.iter().map(|found| (found.1, found.2)).collect();
        fetch(
            host,
            board.index.space(),
            &wanted,
            &mut |row, vver, vector| {
                vectors.insert((row, vver), vector.to_vec());
            },
        )?;
        let (mut txn, mut moved) = (Txn::default(), 0);
        for (from, row, vver) in batch {
            // A version that the row has no more is dead: nothing to move.
            if let Some(vector) = vectors.get(&(row, vver)) {
                moved +=
                    u64::from(self.move_one(board, host, &mut txn, from, (row, vver), vector)?);
            }
        }
        board.stats.moved += moved;
        let gained = txn.gained();
        txn.commit(board, host, Publish::Nothing)?;
        for id in gained {
            if let Some(load) = board.loads.get_mut(&id) {
                load.depth = load.depth.max(self.job.depth + 1);
            }
            board.consider(id);
        }
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

    /// Moves a copy to where it is nearer; true if it did.
    fn move_one<H: MaintenanceHost>(
        &self,
        board: &mut Board,
        host: &mut H,
        txn: &mut Txn,
        from: PostingId,
        (row, vver): (RowId, Vver),
        vector: &[f32],
    ) -> Result<bool, H::Error> {
        let set = host.centroids();
        let ideal = self.ideal(board, &set, vector);
        if ideal.is_empty() || ideal.contains(&from) {
            return Ok(false);
        }
        if !txn.take(host, row)? {
            // Left where it is, which is no more than a little farther than it could be; the
            // commit that uses it binds anew.
            board.stats.skipped += 1;
            return Ok(false);
        }
        let draining = |id| {
            board
                .loads
                .get(&id)
                .is_none_or(|load| load.state == State::Draining)
        };
        if !txn.lists(from, row, vver) || draining(from) {
            return Ok(false);
        }
        let listed = txn
            .locator(row)
            .map_or(Vec::new(), |found| found.postings.clone());
        let to = ideal.into_iter().find(|id| !listed.contains(id));
        let far = |id: PostingId| {
            set.centre(id)
                .map(|centre| (distance_squared(vector, &centre), centre))
        };
        let Some((before, _)) = far(from) else {
            return Ok(false);
        };
        match to.and_then(|to| Some((to, far(to)?))) {
            Some((to, (after, centre))) => {
                if after >= before {
                    return Ok(false);
                }
                let columns = read_columns(board, host, from, row, vver)?;
                txn.unlist(from, row);
                let entry = || board.index.entry(vector, &centre, columns.as_deref());
                txn.add_copy(host, to, row, vver, entry)?;
            }
            // All the nearest hold a copy: this one is a copy too many.
            None if listed.len() > 1 => txn.unlist(from, row),
            None => return Ok(false),
        }
        debug_assert!(read_mark(host, from, row, vver)?.is_none());
        let mark = Mark::Moved(set.epoch() + 1).encode();
        txn.writes
            .push(Write::put(Key::Mark(from, row, vver), mark));
        txn.count_on(row);
        txn.change(from, [-1, 1, 0]);
        Ok(true)
    }
}

/// The filter columns of an entry.
fn read_columns<H: MaintenanceHost>(
    board: &Board,
    host: &H,
    id: PostingId,
    row: RowId,
    vver: Vver,
) -> Result<Option<Vec<u8>>, H::Error> {
    if !board.index.params().columns {
        return Ok(None);
    }
    let contents = Contents::read(host, id, board.index.space().code_dim())?;
    let columns = contents
        .find(row, vver)
        .and_then(|at| contents.entry(at).columns);
    Ok(columns.map(<[u8]>::to_vec))
}
