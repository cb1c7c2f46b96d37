//! The beginning of a split: which two centres, and from when on they take what P took.
//!
//! ```text
//! gather: rows of P's live entries, 64 a step, outside any intent
//! begin:  one transaction: centroids of A and B (receiving), P draining with its children, the
//!         job; then the epoch: from here commits bind to A or B, searches read P, A and B
//! drain.rs: entries of P to A and B; P goes
//! ```
//!
//! Clustering is on exact vectors from rows, never on codes. A posting whose mean has moved is
//! emptied the same way into one child with the right centre: a posting's own centre never changes,
//! because codes of any age are read against it by searches of any epoch.
//!
//! Invariant: P2. A split makes progress: each side gets an eighth of the entries or more. Where
//! nearness gives less, as with equal vectors, both children have the centre of all and entries go
//! by row id.

use std::collections::BTreeMap;

use super::board::Board;
use super::contents::Contents;
use super::drain::Drain;
use super::host::{MaintenanceHost, Publish, RecordStore};
use super::txn::{SLICE, Txn, read_head, read_meta};
use super::{Task, Turn};
use crate::build::centroid;
use crate::cluster::{Rows, halve};
use crate::code::Space;
use crate::code::query::CodeQuery;
use crate::kernel::Kernels;
use crate::record::{Centroid, Head, Job, JobKind, Key, Mark, PostingId, RowId, State, Vver};
use crate::store::{PostingStore, Write};

/// Rows that a host reads side by side.
const ROW_BATCH: usize = 16;
/// A posting gets a new centre when its mean is this part of its radius away from it: while there
/// is other work, and when there is none.
const DRIFT: f32 = 0.125;
const DRIFT_QUIET: f32 = 0.04;
/// A smaller side of a split than this part of the members is none.
const SIDE_MIN: usize = 8;

fn drift(board: &Board) -> f32 {
    if board.quiet { DRIFT_QUIET } else { DRIFT }
}

/// Whether another posting has the very same centre: a cut by row id made both (P2).
///
/// Such a one keeps its centre. With one of its own it would draw what its twins hold, if few of
/// their rows are far from the many, and be cut again; and so for ever.
fn has_twin<H: MaintenanceHost>(board: &Board, host: &H, id: PostingId, centre: &[f32]) -> bool {
    let set = host.centroids();
    let query = CodeQuery::of_rotated(board.index.metric(), centre.to_vec());
    let other = |other, state| state != State::Draining && other != id;
    let near = board.index.nearest(&set, &query, 1, &other);
    let twin = near.first().and_then(|probe| set.centre(probe.id));
    twin.is_some_and(|twin| twin == centre)
}

/// What the rows of a posting are gathered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    Split,
    Recentre,
}

/// Rows of a posting that is about to be split.
#[derive(Debug)]
pub(crate) struct Gather {
    id: PostingId,
    why: Why,
    todo: Vec<(RowId, Vver)>,
    members: Vec<(RowId, Vver)>,
    elements: Vec<f32>,
}

impl Gather {
    /// Counts the posting; `None` if there is nothing to do after all.
    pub(crate) fn new<H: MaintenanceHost>(
        board: &mut Board,
        host: &H,
        id: PostingId,
        why: Why,
    ) -> Result<Option<Self>, H::Error> {
        let contents = Contents::read(host, id, board.index.space().code_dim())?;
        board.count(id, contents.counts(), contents.tail_len());
        let todo = contents.live();
        let (max, _) = board.bounds();
        let ready = board.loads.get(&id).map(|load| load.state) == Some(State::Ready);
        let worth = match why {
            Why::Split => todo.len() as i64 > max,
            Why::Recentre => !todo.is_empty() && todo.len() as i64 <= max,
        };
        if !ready || !worth {
            board.consider(id);
            return Ok(None);
        }
        if why == Why::Recentre {
            if let Some(load) = board.loads.get_mut(&id) {
                load.changed = 0;
            }
            let record = read_centroid(host, id, board.index.space().code_dim())?;
            if !contents.has_drifted(&board.index, &record, drift(board))
                || has_twin(board, host, id, &record.centre)
            {
                return Ok(None);
            }
        }
        Ok(Some(Self {
            id,
            why,
            members: Vec::with_capacity(todo.len()),
            elements: Vec::with_capacity(todo.len() * board.index.space().code_dim()),
            todo,
        }))
    }

    pub(crate) fn step<H: MaintenanceHost>(
        &mut self,
        board: &mut Board,
        host: &mut H,
    ) -> Result<Turn, H::Error> {
        if !self.todo.is_empty() {
            let rest = self.todo.len().saturating_sub(SLICE);
            let wanted = self.todo.split_off(rest);
            let (members, elements) = (&mut self.members, &mut self.elements);
            fetch(
                host,
                board.index.space(),
                &wanted,
                &mut |row, vver, vector| {
                    members.push((row, vver));
                    elements.extend_from_slice(vector);
                },
            )?;
            return Ok(Turn::More);
        }
        let dim = board.index.space().code_dim();
        if self.members.len() < 2 {
            board.consider(self.id);
            return Ok(Turn::Done);
        }
        let elements = std::mem::take(&mut self.elements);
        let rows = Rows {
            dim,
            elements: &elements,
        };
        let drain = match self.why {
            Why::Split => Some(self.begin_split(board, host, rows)?),
            Why::Recentre => self.begin_recentre(board, host, rows)?,
        };
        let Some(mut drain) = drain else {
            return Ok(Turn::Done);
        };
        for (&member, vector) in self.members.iter().zip(elements.chunks_exact(dim)) {
            drain.know(member, vector);
        }
        Ok(Turn::Then(Box::new(Task::Drain(drain))))
    }

    fn begin_split<H: MaintenanceHost>(
        &self,
        board: &mut Board,
        host: &mut H,
        rows: Rows<'_>,
    ) -> Result<Drain, H::Error> {
        let meta = read_meta(host)?;
        let all: Vec<usize> = (0..rows.len()).collect();
        let seed = board.index.params().seed ^ u64::from(self.id.0) << 20;
        let sides = halve(board.index.metric(), rows, &all, seed);
        let epoch = meta.epoch + 1;
        let child = |members: &[usize]| centroid(State::Receiving, epoch, rows, members);
        let (mut first, mut second) = (child(&sides.0), child(&sides.1));
        let mut to_first = 0;
        for &at in &all {
            to_first += usize::from(is_nearer(rows.row(at), &first.centre, &second.centre));
        }
        let least = rows.len() / SIDE_MIN;
        let mut pivot = 0;
        let uneven = to_first.min(rows.len() - to_first) <= least;
        if (first.centre == second.centre || uneven) && !planted!("equal_vectors_not_flagged") {
            first = child(&all);
            second = first.clone();
            let mut ids: Vec<RowId> = self.members.iter().map(|member| member.0).collect();
            ids.sort_unstable();
            pivot = ids[ids.len() / 2].0;
            board.stats.equal_splits += 1;
        }
        board.stats.splits += 1;
        let depth = board.loads.get(&self.id).map_or(0, |load| load.depth);
        self.begin(board, host, vec![first, second], pivot, depth)
    }

    /// The drain into one child; `None` if the mean has not moved far after all.
    fn begin_recentre<H: MaintenanceHost>(
        &self,
        board: &mut Board,
        host: &mut H,
        rows: Rows<'_>,
    ) -> Result<Option<Drain>, H::Error> {
        let meta = read_meta(host)?;
        let all: Vec<usize> = (0..rows.len()).collect();
        let child = centroid(State::Receiving, meta.epoch + 1, rows, &all);
        let old = read_centroid(host, self.id, rows.dim)?;
        let far = distance_squared(&old.centre, &child.centre).sqrt();
        if far <= drift(board) * child.radius {
            return Ok(None);
        }
        board.stats.recentred += 1;
        Ok(Some(self.begin(board, host, vec![child], 0, 0)?))
    }

    /// The transaction from which on the children take what the posting took.
    fn begin<H: MaintenanceHost>(
        &self,
        board: &mut Board,
        host: &mut H,
        centroids: Vec<Centroid>,
        pivot: u64,
        depth: u16,
    ) -> Result<Drain, H::Error> {
        let meta = read_meta(host)?;
        let mut txn = Txn::default();
        let mut children = [PostingId(0); 2];
        let fold_horizon = read_head(host, self.id)?.fold_horizon;
        for (place, (child, record)) in children.iter_mut().zip(&centroids).enumerate() {
            *child = PostingId(meta.next_posting + place as u32);
            txn.writes
                .push(Write::put(Key::Centroid(*child), record.encode()));
            let head = Head {
                fold_horizon,
                ..Head::default()
            };
            txn.writes
                .push(Write::put(Key::Head(*child), head.encode()));
        }
        let count = centroids.len() as u32;
        let job = Job {
            kind: JobKind::Split,
            depth,
            children,
            pivot,
            centre: Vec::new(),
        };
        txn.writes.push(board.next_epoch(meta, count)?);
        let drain = start(board, host, self.id, job, txn)?;
        let rounds = if count == 1 {
            board.polish(self.id)
        } else {
            None
        };
        for &child in children.iter().filter(|child| child.0 != 0) {
            board.add(child, State::Receiving);
            if let (Some(load), Some(rounds)) = (board.loads.get_mut(&child), rounds) {
                load.polish = rounds;
            }
        }
        Ok(drain)
    }
}

/// Makes a posting drain: its centroid and the job join the transaction, which raises the epoch.
pub(crate) fn start<H: MaintenanceHost>(
    board: &mut Board,
    host: &mut H,
    id: PostingId,
    job: Job,
    mut txn: Txn,
) -> Result<Drain, H::Error> {
    let mut record = read_centroid(host, id, board.index.space().code_dim())?;
    record.state = State::Draining;
    record.epoch = board.meta.epoch;
    record.children = job.children;
    txn.writes
        .push(Write::put(Key::Centroid(id), record.encode()));
    txn.writes.push(Write::put(Key::Job(id), job.encode()));
    txn.commit(board, host, Publish::After(board.meta.epoch))?;
    board.set_state(id, State::Draining);
    Ok(Drain::new(id, job, record))
}

/// Reads the vectors of rows that have these versions now, in rotated space. The order is the
/// host's. O(rows x dimension).
pub(crate) fn fetch<H: PostingStore>(
    host: &H,
    space: &Space,
    wanted: &[(RowId, Vver)],
    found: &mut dyn FnMut(RowId, Vver, &[f32]),
) -> Result<(), H::Error> {
    let mut ids = Vec::with_capacity(ROW_BATCH);
    for batch in wanted.chunks(ROW_BATCH) {
        ids.clear();
        ids.extend(batch.iter().map(|pair| pair.0));
        host.rows(&ids, &mut |row, vver, vector| {
            if batch.contains(&(row, vver)) {
                found(row, vver, &space.rotate(vector)?);
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Vectors of rows by version, in rotated space.
pub(crate) type Vectors = BTreeMap<(RowId, Vver), Vec<f32>>;

/// As [`fetch`], added to those that are there.
pub(crate) fn fetch_into<H: PostingStore>(
    host: &H,
    space: &Space,
    wanted: &[(RowId, Vver)],
    vectors: &mut Vectors,
) -> Result<(), H::Error> {
    fetch(host, space, wanted, &mut |row, vver, vector| {
        vectors.insert((row, vver), vector.to_vec());
    })
}

pub(crate) fn read_centroid<H: RecordStore>(
    host: &H,
    id: PostingId,
    dim: usize,
) -> Result<Centroid, H::Error> {
    let mut centroid = None;
    host.read(Key::Centroid(id), &mut |_, value| {
        centroid = Some(Centroid::decode(value, dim)?);
        Ok(())
    })?;
    let missing = crate::store::IndexError::Missing { record: "centroid" };
    Ok(centroid.ok_or(missing)?)
}

pub(crate) fn distance_squared(a: &[f32], b: &[f32]) -> f32 {
    let mut out = [0.0];
    Kernels::detect().l2_squared(a, b, &mut out);
    out[0]
}

/// Whether a vector belongs to the first of two centres.
pub(crate) fn is_nearer(vector: &[f32], first: &[f32], second: &[f32]) -> bool {
    distance_squared(vector, first) <= distance_squared(vector, second)
}

impl Contents {
    /// Entries without a mark.
    pub(crate) fn live(&self) -> Vec<(RowId, Vver)> {
        let unmarked = |pair: &(RowId, Vver)| self.mark(pair.0, pair.1).is_none();
        let pairs = self.entries.iter().map(|entry| (entry.row, entry.vver));
        pairs.filter(unmarked).collect()
    }

    /// Whether some entry was dealt with although it is dead.
    pub(crate) fn any_done(&self) -> bool {
        let done =
            |entry: &super::contents::Entry| self.mark(entry.row, entry.vver) == Some(Mark::DONE);
        self.entries.iter().any(done)
    }
}
