//! The rest of a split or a merge: the entries of a draining posting go where they belong.
//!
//! Waits (is polled, never waits) until no commit can bind to the posting any more, then gives its
//! entries away in slices of 64 rows: copy and locator, for a dead entry that a snapshot needs copy
//! and mark. The old copies stay until the end, so a search that read the other posting before
//! misses nothing. When all are dealt with, one transaction drops the posting.
//!
//! A crash leaves records of which every entry tells whether it was dealt with: a live one by its
//! locator, which lists the posting or does not; a marked one by its mark, which becomes
//! [`Mark::DONE`]. So a slice may be done again from anywhere.
//!
//! Invariants: S2, S7 (`txn.rs`); P3 nothing is dropped while an entry is not dealt with.

use std::collections::BTreeSet;

use super::board::Board;
use super::contents::Contents;
use super::host::{MaintenanceHost, Publish};
use super::look::Misplaced;
use super::reassign::{NEIGHBOURS, Reassign};
use super::split::{Vectors, distance_squared, fetch, fetch_into, is_nearer, read_centroid};
use super::txn::{SLICE, Txn, read_head, read_mark, read_meta};
use super::{Task, Turn};
use crate::centroid::CentroidSet;
use crate::code::query::CodeQuery;
use crate::record::{Centroid, Job, JobKind, Key, Mark, PostingId, RowId, State, Vver};
use crate::store::{IndexError, Write};

/// A posting that is being emptied.
#[derive(Debug)]
pub(crate) struct Drain {
    id: PostingId,
    job: Job,
    /// That of the posting, with the epoch since which it drains.
    record: Centroid,
    /// Centres of the children; read when first needed.
    centres: Vec<(PostingId, Vec<f32>)>,
    /// Vectors in rotated space, read before.
    vectors: Vectors,
    done: BTreeSet<(RowId, Vver)>,
    /// Entries that are farther from their child than they were from the posting.
    misplaced: Vec<Misplaced>,
    /// Centres around the posting; read when first needed.
    around: Vec<Vec<f32>>,
    /// Squared distances of entries from the children that took them, and their number: a child's
    /// radius once all are there.
    squares: [(f64, f64); 2],
    /// Where entries of a merge went.
    targets: BTreeSet<PostingId>,
    /// Whether this began before the maintainer did: then what is misplaced is not known.
    resumed: bool,
}

impl Drain {
    pub(crate) fn new(id: PostingId, job: Job, record: Centroid) -> Self {
        Self {
            id,
            job,
            record,
            centres: Vec::new(),
            vectors: Vectors::new(),
            done: BTreeSet::new(),
            misplaced: Vec::new(),
            around: Vec::new(),
            squares: [(0.0, 0.0); 2],
            targets: BTreeSet::new(),
            resumed: false,
        }
    }

    /// A drain that its records tell of.
    pub(crate) fn resume<H: MaintenanceHost>(
        board: &Board,
        host: &H,
        id: PostingId,
        job: Job,
    ) -> Result<Self, H::Error> {
        let record = read_centroid(host, id, board.index.space().code_dim())?;
        let resumed = true;
        Ok(Self {
            resumed,
            ..Self::new(id, job, record)
        })
    }

    /// Keeps a vector that was read for the clustering: a version has one vector for ever.
    pub(crate) fn know(&mut self, member: (RowId, Vver), vector: &[f32]) {
        self.vectors.insert(member, vector.to_vec());
    }

    /// One slice, or the end.
    pub(crate) fn step<H: MaintenanceHost>(
        &mut self,
        board: &mut Board,
        host: &mut H,
    ) -> Result<Turn, H::Error> {
        if !host.quiesced(self.record.epoch) && !planted!("drain_does_not_wait") {
            return Ok(Turn::Wait);
        }
        let dim = board.index.space().code_dim();
        if self.centres.is_empty() {
            for child in self.job.children.into_iter().filter(|child| child.0 != 0) {
                let centre = read_centroid(host, child, dim)?.centre;
                self.centres.push((child, centre));
            }
        }
        let contents = Contents::read(host, self.id, dim)?;
        board.count(self.id, contents.counts(), contents.tail_len());
        let mut todo = Vec::new();
        for (at, entry) in contents.entries.iter().enumerate() {
            let pair = (entry.row, entry.vver);
            if !self.done.contains(&pair) {
                todo.push((at, pair));
            }
        }
        if todo.is_empty() || planted!("dropped_after_a_slice") && !self.done.is_empty() {
            return self.finish(board, host, &contents);
        }
        let unknown = |(_, pair): &&(usize, (RowId, Vver))| {
            contents.mark(pair.0, pair.1).is_none() && !self.vectors.contains_key(pair)
        };
        let wanted: Vec<(RowId, Vver)> = todo
            .iter()
            .filter(unknown)
            .take(SLICE)
            .map(|(_, pair)| *pair)
            .collect();
        fetch_into(host, board.index.space(), &wanted, &mut self.vectors)?;
        let set = host.centroids();
        let (mut txn, mut dealt, mut in_use) = (Txn::default(), Vec::new(), 0);
        for (at, pair) in todo {
            if txn.rows() == SLICE {
                break;
            }
            if !txn.take(host, pair.0)? {
                match is_gone(host, &contents, pair)? {
                    true => dealt.push(pair),
                    false => in_use += 1,
                }
                continue;
            }
            let columns = contents.entry(at).columns;
            let old = planted!("mark_of_before_the_intent");
            if old && contents.mark(pair.0, pair.1).is_none() && !txn.lists(self.id, pair.0, pair.1)
            {
                dealt.push(pair);
                continue;
            }
            self.deal(board, host, &set, &mut txn, pair, columns)?;
            dealt.push(pair);
        }
        board.stats.skipped += in_use;
        txn.commit(board, host, Publish::Nothing)?;
        let any = !dealt.is_empty();
        self.done.extend(dealt);
        Ok(if any { Turn::More } else { Turn::Wait })
    }

    /// One entry, under its row's intent.
    fn deal<H: MaintenanceHost>(
        &mut self,
        board: &Board,
        host: &H,
        set: &CentroidSet,
        txn: &mut Txn,
        (row, vver): (RowId, Vver),
        columns: Option<&[u8]>,
    ) -> Result<(), H::Error> {
        // Read again: a commit may have marked the entry since the posting was read.
        let mark = read_mark(host, self.id, row, vver)?;
        let ts = match mark {
            Some(Mark::DONE) => return Ok(()),
            Some(Mark::Moved(_)) => 0,
            Some(Mark::Dead(ts)) => ts,
            None if txn.lists(self.id, row, vver) || planted!("drain_gives_unlisted") => {
                return self.give(board, host, set, txn, (row, vver), columns);
            }
            None => return Ok(()),
        };
        let done = Write::put(Key::Mark(self.id, row, vver), Mark::DONE.encode());
        txn.writes.push(done);
        if ts > host.horizon() && !planted!("drain_drops_the_dead") {
            let mut vector = self.vectors.remove(&(row, vver));
            if vector.is_none() {
                host.row_at(row, ts - 1, &mut |found, version, elements| {
                    if (found, version) == (row, vver) {
                        vector = Some(board.index.space().rotate(elements)?);
                    }
                    Ok(())
                })?;
            }
            if let Some(vector) = vector {
                return self.give_dead(board, host, set, txn, (row, vver, ts), &vector, columns);
            }
        }
        txn.count_off(row);
        Ok(())
    }

    /// A live entry: copy and locator.
    fn give<H: MaintenanceHost>(
        &mut self,
        board: &Board,
        host: &H,
        set: &CentroidSet,
        txn: &mut Txn,
        (row, vver): (RowId, Vver),
        columns: Option<&[u8]>,
    ) -> Result<(), H::Error> {
        let mut vector = self.vectors.remove(&(row, vver));
        if vector.is_none() {
            let found = &mut |_, _, elements: &[f32]| vector = Some(elements.to_vec());
            fetch(host, board.index.space(), &[(row, vver)], found)?;
        }
        let vector = vector.ok_or(IndexError::Row { row, vver })?;
        txn.unlist(self.id, row);
        let listed = txn
            .locator(row)
            .map_or(Vec::new(), |found| found.postings.clone());
        let Some((to, centre)) = self.place(board, set, row, &vector, &listed) else {
            if !listed.is_empty() {
                // Its other copies are the nearest already.
                return Ok(());
            }
            return Err(IndexError::Missing {
                record: "posting to merge into",
            }
            .into());
        };
        let old_centre = planted!("coded_against_the_old_centre");
        let against = if old_centre {
            &self.record.centre
        } else {
            &centre
        };
        let entry = || board.index.entry(&vector, against, columns);
        txn.add_copy(host, to, row, vver, entry)?;
        self.targets.insert(to);
        if self.job.kind == JobKind::Split {
            let before = distance_squared(&vector, &self.record.centre);
            let after = distance_squared(&vector, &centre);
            let second = usize::from(to == self.job.children[1]);
            self.squares[second].0 += f64::from(after);
            self.squares[second].1 += 1.0;
            if before < after && self.may_be_nearer(board, set, &vector, after) {
                self.misplaced.push((to, row, vver));
            }
        }
        Ok(())
    }

    /// Whether a posting around is nearer than the child. With copies that is not the question:
    /// then the reassign looks at all of them.
    fn may_be_nearer(
        &mut self,
        board: &Board,
        set: &CentroidSet,
        vector: &[f32],
        than: f32,
    ) -> bool {
        if board.index.params().replicas > 1 {
            return true;
        }
        if self.around.is_empty() {
            let query = CodeQuery::of_rotated(board.index.metric(), self.record.centre.clone());
            let open = |_, state| state != State::Draining;
            let near = board.index.nearest(set, &query, NEIGHBOURS, &open);
            self.around = near
                .iter()
                .filter_map(|probe| set.centre(probe.id))
                .collect();
        }
        self.around
            .iter()
            .any(|centre| distance_squared(vector, centre) < than)
    }

    /// A dead entry that a snapshot needs: copy and mark. The count in `stale` goes over from the
    /// old copy to the new one.
    #[allow(clippy::too_many_arguments)]
    fn give_dead<H: MaintenanceHost>(
        &mut self,
        board: &Board,
        host: &H,
        set: &CentroidSet,
        txn: &mut Txn,
        (row, vver, ts): (RowId, Vver, u64),
        vector: &[f32],
        columns: Option<&[u8]>,
    ) -> Result<(), H::Error> {
        let Some((to, centre)) = self.place(board, set, row, vector, &[]) else {
            return Err(IndexError::Missing {
                record: "posting to merge into",
            }
            .into());
        };
        let key = Key::Mark(to, row, vver);
        if read_mark(host, to, row, vver)?.is_some() {
            // A copy that moved away from there, or another copy of the row: both were counted.
            txn.count_off(row);
        } else {
            let entry = board.index.entry(vector, &centre, columns);
            txn.writes.push(Write::put(Key::Tail(to, row, vver), entry));
            txn.change(to, [0, 1, 1]);
        }
        txn.writes.push(Write::put(key, Mark::Dead(ts).encode()));
        self.targets.insert(to);
        Ok(())
    }

    /// The posting that takes an entry, and its centre: the nearer child, or for a merge the
    /// nearest posting that the row does not stand in.
    fn place(
        &self,
        board: &Board,
        set: &CentroidSet,
        row: RowId,
        vector: &[f32],
        listed: &[PostingId],
    ) -> Option<(PostingId, Vec<f32>)> {
        if let [(only, centre)] = &self.centres[..] {
            return Some((*only, centre.clone()));
        }
        if let [first, second] = &self.centres[..] {
            let to_first = if first.1 == second.1 {
                row.0 < self.job.pivot
            } else {
                is_nearer(vector, &first.1, &second.1)
            };
            return Some(if to_first { first } else { second }.clone());
        }
        let query = CodeQuery::of_rotated(board.index.metric(), vector.to_vec());
        let near = board.index.nearest(set, &query, 1, &|id, state| {
            state != State::Draining && !listed.contains(&id)
        });
        let to = near.first()?.id;
        Some((to, set.centre(to)?))
    }

    /// Drops the posting. What it dropped because no snapshot reads it, its heirs answer for.
    fn finish<H: MaintenanceHost>(
        &mut self,
        board: &mut Board,
        host: &mut H,
        contents: &Contents,
    ) -> Result<Turn, H::Error> {
        let meta = read_meta(host)?;
        let dim = board.index.space().code_dim();
        let mut txn = Txn::default();
        contents.delete_all(&board.index, &mut txn.writes);
        txn.writes.push(Write::delete(Key::Centroid(self.id)));
        txn.writes.push(board.next_epoch(meta, 0)?);
        let epoch = board.meta.epoch;
        let mut horizon = contents.head.map_or(0, |head| head.fold_horizon);
        if contents.any_done() {
            horizon = horizon.max(host.horizon());
        }
        let children: Vec<PostingId> = self.centres.iter().map(|child| child.0).collect();
        for (&child, &(square, count)) in children.iter().zip(&self.squares) {
            let mut record = read_centroid(host, child, dim)?;
            (record.state, record.epoch) = (State::Ready, epoch);
            let radius = (square / count).sqrt() as f32;
            if radius.is_finite() && !self.resumed {
                record.radius = radius;
            }
            txn.writes
                .push(Write::put(Key::Centroid(child), record.encode()));
        }
        if children.is_empty() && horizon > 0 {
            let query = CodeQuery::of_rotated(board.index.metric(), self.record.centre.clone());
            let open = |_, state| state != State::Draining;
            let near = board.index.nearest(&host.centroids(), &query, 1, &open);
            self.targets.extend(near.iter().map(|probe| probe.id));
        }
        for &heir in self
            .targets
            .iter()
            .chain(&children)
            .collect::<BTreeSet<_>>()
        {
            let mut head = read_head(host, heir)?;
            if head.fold_horizon < horizon && board.loads.contains_key(&heir) {
                head.fold_horizon = horizon;
                txn.writes.push(Write::put(Key::Head(heir), head.encode()));
            }
        }
        let reassign = self.reassign();
        txn.writes.push(match &reassign {
            Some(task) => Write::put(Key::Job(self.id), task.job().encode()),
            None => Write::delete(Key::Job(self.id)),
        });
        txn.commit(board, host, Publish::Before(epoch))?;
        board.forget(self.id);
        for &child in &children {
            board.set_state(child, State::Ready);
            board.hold(child);
            board.consider(child);
        }
        Ok(match reassign {
            Some(task) => Turn::Then(Box::new(Task::Reassign(task))),
            None => Turn::Done,
        })
    }

    /// What is to be looked at after a split into two centres, or after a centre moved.
    fn reassign(&mut self) -> Option<Reassign> {
        match &self.centres[..] {
            [first, second] if first.1 != second.1 => {}
            [_] => {}
            _ => return None,
        }
        if planted!("no_reassign") {
            return None;
        }
        let job = Job {
            kind: JobKind::Reassign,
            centre: self.record.centre.clone(),
            ..self.job.clone()
        };
        let known = (!self.resumed).then(|| std::mem::take(&mut self.misplaced));
        Some(Reassign::new(self.id, job, self.centres.clone(), known))
    }
}

/// Whether an entry was dealt with and its row is gone since, locator and all: a host that reads
/// the keys of rows from locators has no intent to give for it. Nothing binds to the posting any
/// more, so it stays that way.
fn is_gone<H: MaintenanceHost>(
    host: &H,
    contents: &Contents,
    (row, vver): (RowId, Vver),
) -> Result<bool, H::Error> {
    if !matches!(contents.mark(row, vver), None | Some(Mark::DONE)) {
        return Ok(false);
    }
    let mut found = false;
    host.locator(row, &mut |_, _| {
        found = true;
        Ok(())
    })?;
    Ok(!found)
}
