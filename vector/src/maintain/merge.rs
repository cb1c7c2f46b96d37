//! The beginning of a merge: a posting that is too small to keep drains into those around it.
//!
//! Each entry goes to its own nearest posting, not all to one neighbour. The rest is in `drain.rs`.

use super::board::Board;
use super::contents::Contents;
use super::drain::Drain;
use super::host::MaintenanceHost;
use super::split::{read_centroid, start};
use super::txn::{Txn, read_meta};
use crate::code::query::CodeQuery;
use crate::record::{Job, JobKind, PostingId, State};

/// Makes a posting drain without children; `None` if it should stay.
///
/// A posting that a split made a while ago stays while its nearest neighbour has no room: the merge
/// would lead to the next split.
pub(crate) fn begin<H: MaintenanceHost>(
    board: &mut Board,
    host: &mut H,
    id: PostingId,
) -> Result<Option<Drain>, H::Error> {
    let dim = board.index.space().code_dim();
    let contents = Contents::read(host, id, dim)?;
    let counts = contents.counts();
    board.count(id, counts, contents.tail_len());
    let (max, min) = board.bounds();
    let live = i64::from(counts.0);
    let Some(load) = board.loads.get(&id).copied() else {
        return Ok(None);
    };
    if load.state != State::Ready || live >= min {
        board.consider(id);
        return Ok(None);
    }
    let centre = read_centroid(host, id, dim)?.centre;
    let query = CodeQuery::of_rotated(board.index.metric(), centre);
    let other = |other, state| state != State::Draining && other != id;
    let near = board.index.nearest(&host.centroids(), &query, 1, &other);
    let Some(target) = near.first().and_then(|probe| board.loads.get(&probe.id)) else {
        return Ok(None);
    };
    if board.clock < load.held_until && target.live + live > max {
        return Ok(None);
    }
    let mut txn = Txn::default();
    let meta = read_meta(host)?;
    txn.writes.push(board.next_epoch(meta, 0)?);
    let job = Job {
        kind: JobKind::Merge,
        depth: load.depth,
        children: [PostingId(0); 2],
        pivot: 0,
        centre: Vec::new(),
    };
    let drain = start(board, host, id, job, txn)?;
    board.stats.merges += 1;
    Ok(Some(drain))
}
