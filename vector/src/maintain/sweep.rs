//! At rest: each entry of a posting goes to the nearest of all centres, wherever that is.
//!
//! A reassign looks at what a split concerns, and around it only. In text any posting may hold the
//! entry that a new centre is nearest to, so some are left behind, and recall at the same effort
//! falls by two or three points as an index grows. A sweep and a new centre afterwards are a round
//! of k-means; it is one search of the centres for each row, which is for times with nothing else
//! to do.
//!
//! Invariants: S5, P4 (`moves.rs`).

use super::Turn;
use super::board::{Board, Work};
use super::contents::Contents;
use super::host::MaintenanceHost;
use super::look::Misplaced;
use super::moves::move_batch;
use super::txn::SLICE;
use crate::centroid::CentroidSet;
use crate::code::query::CodeQuery;
use crate::record::{PostingId, State};

/// A posting whose entries are compared with all centres.
#[derive(Debug)]
pub(crate) struct Sweep {
    id: PostingId,
    todo: Vec<Misplaced>,
}

impl Sweep {
    /// `None` if there is nothing to compare.
    pub(crate) fn new<H: MaintenanceHost>(
        board: &mut Board,
        host: &H,
        id: PostingId,
    ) -> Result<Option<Self>, H::Error> {
        let contents = Contents::read(host, id, board.index.space().code_dim())?;
        board.count(id, contents.counts(), contents.tail_len());
        let live = contents.live().into_iter();
        let todo = live.map(|(row, vver)| (id, row, vver)).collect();
        let ready = board.loads.get(&id).map(|load| load.state) == Some(State::Ready);
        Ok(ready.then_some(Self { id, todo }))
    }

    pub(crate) fn step<H: MaintenanceHost>(
        &mut self,
        board: &mut Board,
        host: &mut H,
    ) -> Result<Turn, H::Error> {
        if self.todo.is_empty() {
            board.enqueue(Work::Recentre, 0, self.id);
            return Ok(Turn::Done);
        }
        let rest = self.todo.len().saturating_sub(SLICE);
        let batch = self.todo.split_off(rest);
        board.stats.swept += batch.len() as u64;
        move_batch(board, host, batch, 0, &nearest)?;
        Ok(Turn::More)
    }
}

/// The postings that a commit would bind a vector to.
fn nearest(board: &Board, set: &CentroidSet, vector: &[f32]) -> Vec<PostingId> {
    let query = CodeQuery::of_rotated(board.index.metric(), vector.to_vec());
    board.index.place(set, &query)
}
