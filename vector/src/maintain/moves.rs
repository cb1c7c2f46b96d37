//! Moving entries to postings whose centres are nearer.
//!
//! Invariants:
//! * S5. A move writes new copy, locator and mark in one transaction; row and vver are untouched.
//!   The mark names the next epoch: searches of this one may have read the new posting already.
//! * P4. Moves end: each makes a copy strictly nearer to its centre, and centres never change.

use super::board::Board;
use super::contents::Contents;
use super::host::{MaintenanceHost, Publish};
use super::look::Misplaced;
use super::split::{Vectors, distance_squared, fetch_into};
use super::txn::{Txn, read_mark};
use crate::centroid::CentroidSet;
use crate::record::{Key, Mark, PostingId, RowId, State, Vver};
use crate::store::Write;

/// The postings that should hold a vector in rotated space, the best first.
pub(super) type Ideal<'i> = dyn Fn(&Board, &CentroidSet, &[f32]) -> Vec<PostingId> + 'i;

/// Up to 64 entries that may belong elsewhere: their rows decide, in one transaction. What gains
/// is `depth` splits away from a commit.
pub(super) fn move_batch<H: MaintenanceHost>(
    board: &mut Board,
    host: &mut H,
    batch: Vec<Misplaced>,
    depth: u16,
    ideal: &Ideal<'_>,
) -> Result<(), H::Error> {
    let mut vectors = Vectors::new();
    let wanted: Vec<(RowId, Vver)> = batch.iter().map(|found| (found.1, found.2)).collect();
    fetch_into(host, board.index.space(), &wanted, &mut vectors)?;
    let (mut txn, mut moved) = (Txn::default(), 0);
    for found in batch {
        // A version that the row has no more is dead: nothing to move.
        if let Some(vector) = vectors.get(&(found.1, found.2)) {
            let ideal = ideal(board, &host.centroids(), vector);
            moved += u64::from(move_one(board, host, &mut txn, found, vector, ideal)?);
        }
    }
    board.stats.moved += moved;
    let gained = txn.gained();
    txn.commit(board, host, Publish::Nothing)?;
    for id in gained {
        if let Some(load) = board.loads.get_mut(&id) {
            load.depth = load.depth.max(depth);
        }
        board.consider(id);
    }
    Ok(())
}

/// Moves a copy to the first of `ideal` that the row does not stand in, if it is nearer there; true
/// if it did.
fn move_one<H: MaintenanceHost>(
    board: &mut Board,
    host: &mut H,
    txn: &mut Txn,
    (from, row, vver): Misplaced,
    vector: &[f32],
    ideal: Vec<PostingId>,
) -> Result<bool, H::Error> {
    if ideal.is_empty() || ideal.contains(&from) {
        return Ok(false);
    }
    let set = host.centroids();
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
    let lists = txn.lists(from, row, vver) || planted!("move_of_unlisted");
    if !lists || draining(from) {
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
    let later = u64::from(!planted!("moved_in_this_epoch"));
    let mark = Mark::Moved(set.epoch() + later).encode();
    txn.writes
        .push(Write::put(Key::Mark(from, row, vver), mark));
    txn.count_on(row);
    txn.change(from, [-1, 1, 0]);
    Ok(true)
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
