//! The unassigned posting is emptied: into postings made of its own rows where there are none yet,
//! else into the nearest.
//!
//! Every search reads the unassigned posting, and first. So what leaves it goes at once, in the
//! transaction that copies it: a search that comes later knows the other posting, or its epoch is
//! older than `lacks_since` and it starts again.

use super::Turn;
use super::board::Board;
use super::contents::Contents;
use super::host::{MaintenanceHost, Publish};
use super::split::{Vectors, fetch, fetch_into};
use super::txn::{SLICE, Txn, read_head, read_mark, read_meta};
use crate::build::centroid;
use crate::cluster::{Rows, lists};
use crate::code::query::CodeQuery;
use crate::record::{Head, Key, PostingId, RowId, State, Vver};
use crate::store::{IndexError, Write};

/// Rows that the first postings are made of, at most.
const SAMPLE: usize = 1024;

/// The unassigned posting while it is emptied.
#[derive(Debug, Default)]
pub(crate) struct Assign {
    /// Rows still to be read for the first postings.
    todo: Vec<(RowId, Vver)>,
    elements: Vec<f32>,
    gathered: bool,
}

impl Assign {
    pub(crate) fn step<H: MaintenanceHost>(
        &mut self,
        board: &mut Board,
        host: &mut H,
    ) -> Result<Turn, H::Error> {
        let zero = PostingId::UNASSIGNED;
        let dim = board.index.space().code_dim();
        if !self.todo.is_empty() {
            let rest = self.todo.len().saturating_sub(SLICE);
            let wanted = self.todo.split_off(rest);
            let elements = &mut self.elements;
            fetch(host, board.index.space(), &wanted, &mut |_, _, vector| {
                elements.extend_from_slice(vector);
            })?;
            return Ok(Turn::More);
        }
        let none_open = board.open_postings() == 0;
        if none_open && self.gathered && !self.elements.is_empty() {
            self.make(board, host)?;
            return Ok(Turn::More);
        }
        let mut contents = Contents::read(host, zero, dim)?;
        board.count(zero, contents.counts(), contents.tail_len());
        let live = contents.live();
        let (max, _) = board.bounds();
        if live.is_empty() || none_open && (self.gathered || live.len() as i64 <= max) {
            board.consider(zero);
            return Ok(Turn::Done);
        }
        if none_open {
            // Spread over the posting: rows that came together may be alike.
            let stride = live.len().div_ceil(SAMPLE);
            self.todo = live.into_iter().step_by(stride).collect();
            self.gathered = true;
            return Ok(Turn::More);
        }
        self.slice(board, host, &mut contents)
    }

    /// The first postings, without entries.
    fn make<H: MaintenanceHost>(
        &mut self,
        board: &mut Board,
        host: &mut H,
    ) -> Result<(), H::Error> {
        let meta = read_meta(host)?;
        let params = *board.index.params();
        let rows = Rows {
            dim: board.index.space().code_dim(),
            elements: &self.elements,
        };
        let found = lists(params.metric, rows, params.posting_max * 3 / 4, params.seed);
        let mut txn = Txn::default();
        let first = meta.next_posting;
        txn.writes.push(board.next_epoch(meta, found.len() as u32)?);
        let epoch = board.meta.epoch;
        let mut made = Vec::new();
        for (id, members) in (first..).map(PostingId).zip(&found) {
            let record = centroid(State::Ready, epoch, rows, members);
            txn.writes
                .push(Write::put(Key::Centroid(id), record.encode()));
            txn.writes
                .push(Write::put(Key::Head(id), Head::default().encode()));
            made.push(id);
        }
        txn.commit(board, host, Publish::After(epoch))?;
        for id in made {
            board.add(id, State::Ready);
        }
        self.elements = Vec::new();
        Ok(())
    }

    /// Up to 64 live entries to their nearest postings.
    fn slice<H: MaintenanceHost>(
        &mut self,
        board: &mut Board,
        host: &mut H,
        contents: &mut Contents,
    ) -> Result<Turn, H::Error> {
        let zero = PostingId::UNASSIGNED;
        let live = contents.live();
        let mut vectors = Vectors::new();
        let (mut txn, mut dropped, mut in_use) = (Txn::default(), Vec::new(), 0);
        let set = host.centroids();
        // Rows in use are passed over: the next ones are looked at.
        for wanted in live.chunks(SLICE) {
            fetch_into(host, board.index.space(), wanted, &mut vectors)?;
            for &(row, vver) in wanted {
                if !txn.take(host, row)? {
                    in_use += 1;
                    continue;
                }
                // A commit may have marked it meanwhile.
                let gone =
                    !txn.lists(zero, row, vver) || read_mark(host, zero, row, vver)?.is_some();
                if gone && !planted!("assign_of_what_was_read") {
                    continue;
                }
                let vector = vectors.remove(&(row, vver));
                let vector = vector.ok_or(IndexError::Row { row, vver })?;
                let at = contents.find(row, vver);
                let at = at.ok_or(IndexError::Row { row, vver })?;
                let query = CodeQuery::of_rotated(board.index.metric(), vector);
                txn.unlist(zero, row);
                for to in board.index.place(&set, &query) {
                    let Some(centre) = set.centre(to) else {
                        continue;
                    };
                    let columns = contents.entry(at).columns;
                    let entry = || board.index.entry(query.rotated(), &centre, columns);
                    txn.add_copy(host, to, row, vver, entry)?;
                }
                dropped.push(at);
            }
            if !dropped.is_empty() {
                break;
            }
        }
        board.stats.skipped += in_use;
        if dropped.is_empty() {
            host.release();
            return Ok(Turn::Wait);
        }
        board.stats.assigned += dropped.len() as u64;
        dropped.sort_unstable();
        let mut head = read_head(host, zero)?;
        head.lacks_since = head.lacks_since.max(set.epoch());
        contents.remove(&board.index, host, &dropped, &mut head, &mut txn.writes)?;
        txn.writes.push(Write::put(Key::Head(zero), head.encode()));
        let tail = contents.tail_of(&dropped) as i64;
        txn.change(zero, [-(dropped.len() as i64), 0, -tail]);
        txn.commit(board, host, Publish::Nothing)?;
        Ok(Turn::More)
    }
}
