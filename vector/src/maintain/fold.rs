//! The fold: a posting's tail becomes sealed blocks, and what no snapshot needs is dropped.
//!
//! The most frequent maintenance, and the cheapest: it stays inside one posting and copies codes as
//! they are. The unassigned posting keeps its tail: what stands there is soon elsewhere.
//!
//! Invariants:
//! * S2. A dead entry is dropped only if its version was dead at the horizon.
//! * S5. An entry that moved is dropped only after the epoch was published from which searches
//!   skip it, and the head then says since when the posting lacks it.
//! * S7. An entry is dropped only under the intent of its row, and only if the locator, read again
//!   under that intent, does not list it as live; a row in use is left for the next fold.

use super::Turn;
use super::board::{Board, DRIFT_LIVE, TAIL_MAX, TAIL_REST};
use super::contents::Contents;
use super::host::{MaintenanceHost, Publish};
use super::txn::{SLICE, Txn, read_mark, read_meta};
use crate::index::VectorIndex;
use crate::metric::Metric;
use crate::record::{Centroid, Head, Key, Mark, PostingId, State};
use crate::store::{PostingStore, Write};

/// Folds a posting once. O(entries x dimension).
pub(crate) fn step<H: MaintenanceHost>(
    board: &mut Board,
    host: &mut H,
    id: PostingId,
) -> Result<Turn, H::Error> {
    let mut contents = Contents::read(host, id, board.index.space().code_dim())?;
    let (live, dead) = contents.counts();
    board.count(id, (live, dead), contents.tail_len());
    let state = board.loads.get(&id).map(|load| load.state);
    if contents.entries.is_empty() || state.is_none_or(|state| state == State::Draining) {
        return Ok(Turn::Done);
    }
    let epoch = host.centroids().epoch();
    let newest = contents.newest_move().filter(|&moved| moved > epoch);
    if newest.is_some() && (board.quiet || 4 * dead >= live + dead) {
        // No later epoch came by itself: an empty one is published, then the copies may go.
        let meta = read_meta(host)?;
        let mut txn = Txn::default();
        txn.writes.push(board.next_epoch(meta, 0)?);
        let next = board.meta.epoch;
        txn.commit(board, host, Publish::After(next))?;
        return Ok(Turn::More);
    }
    let mut head = contents.head.unwrap_or_default();
    let mut txn = Txn::default();
    let Choice {
        dropped,
        in_use,
        more,
        drop_at,
    } = choose(host, &mut txn, &contents, epoch, &mut head)?;
    board.stats.skipped += in_use;
    if let Some(load) = board.loads.get_mut(&id) {
        load.drop_at = if in_use == 0 && !more && drop_at != u64::MAX {
            drop_at
        } else {
            0
        };
    }
    let long = if board.quiet { TAIL_REST } else { TAIL_MAX };
    let seals = id != PostingId::UNASSIGNED && contents.tail_len() as i64 >= long;
    if dropped.is_empty() && !seals {
        host.release();
        board.consider_blocked(id);
        return Ok(if in_use > 0 { Turn::Wait } else { Turn::Done });
    }
    board.stats.folds += 1;
    board.stats.dropped += dropped.len() as u64;
    let gone = dropped.len() as u32;
    let tail = contents.remove(&board.index, host, &dropped, &mut head, &mut txn.writes)?;
    txn.writes.push(Write::put(Key::Head(id), head.encode()));
    txn.commit(board, host, Publish::Nothing)?;
    board.count(id, (live, dead - gone), tail);
    if more {
        return Ok(Turn::More);
    }
    board.consider_blocked(id);
    Ok(if in_use > 0 { Turn::Wait } else { Turn::Done })
}

/// What a fold drops.
#[derive(Debug)]
struct Choice {
    /// Places of entries, in rising order.
    dropped: Vec<usize>,
    /// Entries whose rows somebody uses.
    in_use: u64,
    /// There are more than one transaction takes.
    more: bool,
    /// The least horizon at which another entry can be dropped.
    drop_at: u64,
}

/// Entries that no snapshot and no search needs, under the intents of their rows. The head says
/// from then on who would miss them.
fn choose<H: MaintenanceHost>(
    host: &mut H,
    txn: &mut Txn,
    contents: &Contents,
    epoch: u64,
    head: &mut Head,
) -> Result<Choice, H::Error> {
    let horizon = host.horizon();
    let mut choice = Choice {
        dropped: Vec::new(),
        in_use: 0,
        more: false,
        drop_at: u64::MAX,
    };
    for (at, entry) in contents.entries.iter().enumerate() {
        let (row, vver) = (entry.row, entry.vver);
        match contents.mark(row, vver) {
            None => continue,
            Some(Mark::Dead(ts)) if ts > horizon && !planted!("fold_drops_early") => {
                choice.drop_at = choice.drop_at.min(ts);
                continue;
            }
            Some(Mark::Moved(since)) if since > epoch => continue,
            Some(_) => {}
        }
        if txn.rows() == SLICE {
            choice.more = true;
            break;
        }
        if !txn.take(host, row)? {
            choice.in_use += 1;
            continue;
        }
        // Only maintenance takes a mark away, and a commit marks live entries only.
        debug_assert!(read_mark(host, contents.id(), row, vver)?.is_some());
        if txn.lists(contents.id(), row, vver) {
            continue;
        }
        txn.count_off(row);
        match contents.mark(row, vver) {
            Some(Mark::Moved(since)) => head.lacks_since = head.lacks_since.max(since),
            _ => head.fold_horizon = head.fold_horizon.max(horizon),
        }
        choice.dropped.push(at);
    }
    Ok(choice)
}

impl Contents {
    /// The latest epoch from which searches skip an entry that moved.
    fn newest_move(&self) -> Option<u64> {
        let epoch = |mark: Mark| match mark {
            Mark::Moved(epoch) => Some(epoch),
            Mark::Dead(_) => None,
        };
        self.marks().filter_map(epoch).max()
    }

    /// Takes entries out, in rising order, and seals the tail; entries left in the tail come back.
    /// The head gets generation and counts.
    pub(crate) fn remove<S: PostingStore>(
        &mut self,
        index: &VectorIndex,
        store: &S,
        dropped: &[usize],
        head: &mut Head,
        writes: &mut Vec<Write>,
    ) -> Result<usize, S::Error> {
        let unassigned = self.id() == PostingId::UNASSIGNED;
        if unassigned && dropped.iter().all(|&at| at >= self.sealed) {
            for &at in dropped {
                let entry = self.entries[at];
                writes.push(Write::delete(Key::Tail(self.id(), entry.row, entry.vver)));
                if self.mark(entry.row, entry.vver).is_some() {
                    let mark = Key::Mark(self.id(), entry.row, entry.vver);
                    writes.push(Write::delete(mark));
                }
            }
            return Ok(self.tail_len() - dropped.len());
        }
        head.generation += 1;
        self.repack(index, store, head.generation, dropped, writes)?;
        (head.live, head.dead, head.tail) = (0, 0, 0);
        for (at, entry) in self.entries.iter().enumerate() {
            if dropped.binary_search(&at).is_err() {
                let marked = self.mark(entry.row, entry.vver).is_some();
                *(if marked {
                    &mut head.dead
                } else {
                    &mut head.live
                }) += 1;
            }
        }
        Ok(0)
    }

    /// Whether the mean of the live entries is more than this part of the radius away from the
    /// centre, judged by the signs of their codes.
    ///
    /// A code gives its residual `r` as `ip * signs`, which is right on average; what it is off by,
    /// `ip^2 * D - |r|^2`, adds up over the entries and is taken from the square of the mean.
    pub(crate) fn has_drifted(&self, index: &VectorIndex, record: &Centroid, part: f32) -> bool {
        let metric = index.metric();
        if metric == Metric::Dot {
            // There the factors do not give |r|^2.
            return false;
        }
        let dim = record.centre.len();
        let (mut sum, mut noise, mut count) = (vec![0.0_f32; dim], 0.0_f64, 0_u32);
        for (at, entry) in self.entries.iter().enumerate() {
            if self.mark(entry.row, entry.vver).is_some() {
                continue;
            }
            let entry = self.entry(at);
            let unit = entry.factors.ip / 2.0;
            let mut product = 0.0;
            for ((sum, &c), bit) in sum.iter_mut().zip(&record.centre).zip(0..) {
                let set = entry.code[bit / 8] >> (bit % 8) & 1 == 1;
                let sign = if set { 1.0 } else { -1.0 };
                *sum += unit * sign;
                product += sign * c;
            }
            let square = entry.factors.add - entry.factors.ip * product;
            noise += f64::from(unit * unit * dim as f32 - square);
            count += 1;
        }
        let count = f64::from(count);
        let mean: f64 = sum.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        let far = (mean - noise) / (count * count);
        let limit = f64::from(part * record.radius);
        count >= DRIFT_LIVE as f64 && record.radius > 0.0 && far > limit * limit
    }
}
