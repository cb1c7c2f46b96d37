//! The centres of all postings at one epoch: immutable, shared, replaced as a whole.
//!
//! A search pins one set and keeps it; a change makes the next. What most changes share is the
//! base: centres in binary16 and one-bit codes of them in blocks of 32, so that ordering thousands
//! of postings costs about a nanosecond each; of more than that only near cells (`router.rs`).
//! Centres that came or changed since stand in a short list that is compared exactly.
//!
//! Two orders are given. A row goes to the posting whose centre is *nearest*. A search asks more of
//! an order: which posting is likely to hold near rows. Rows of a posting lie around its centre at
//! about the distance `R` (its *spread* is `R^2`), so their squared distances from a query at `d`
//! from the centre are about `d^2 + R^2 - 2 R d x`, where `x`, the cosine between two directions,
//! is near zero but for the few rows that lie towards the query. The search takes postings by that
//! with `x` = [`TOWARDS`]: on real text it finds nine of ten neighbours in a fifth fewer codes than
//! the plain distance does, because a tight posting at the same distance holds less that is near.
//!
//! Invariants: C1 a posting stands in the base, not gone, or in the list, never in both; C2 base
//! changes are at most [`DELTA_MAX`] before the base is made anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::code::half::{f16_finite_to, f16_from};
use crate::code::query::{Centred, CodeQuery, Scanned};
use crate::kernel::Bounding;
use crate::limits::BLOCK_SLOTS;
use crate::maintain::MaintenanceStats;
use crate::metric::Metric;
use crate::record::{Block, Centroid, PostingId, RecordError, State};
use crate::router::{Cell, Cells, FLAT_MAX, OPEN_MIN, OPEN_TIMES};

/// Changes against the base at most (C2).
const DELTA_MAX: usize = 64;
/// Centres that are compared exactly at once, in the order of their estimates.
const RERANK: usize = 64;
/// How far towards the query the rows of a posting are taken to lie when a search orders postings:
/// the cosine between their direction from the centre and the query's. Between 0.2 and 0.5 it made
/// no difference beyond 3 % on real text of 384 dimensions; in few dimensions cosines are larger,
/// and postings few.
const TOWARDS: f32 = 0.35;

/// The centres of an index at one epoch.
#[derive(Debug, Clone)]
pub struct CentroidSet {
    metric: Metric,
    code_dim: usize,
    epoch: u64,
    base: Arc<Base>,
    /// Postings that differ from the base: new ones, changed ones, and `None` for gone ones.
    delta: BTreeMap<PostingId, Option<Arc<Changed>>>,
    /// Centres in one cell at most.
    flat_max: usize,
}

/// What sets share. Positions are those of `ids`, which are in rising order.
#[derive(Debug, Default)]
struct Base {
    ids: Vec<PostingId>,
    metas: Vec<Meta>,
    centres: Vec<u16>,
    /// Codes of the centres.
    cells: Cells,
}

/// A centroid without its centre.
#[derive(Debug, Clone, Copy)]
struct Meta {
    state: State,
    /// The mean squared distance of the posting's rows from its centre; 0 if it is not known.
    spread: f32,
}

/// A centroid of the list of changes.
#[derive(Debug)]
struct Changed {
    meta: Meta,
    centre: Vec<f32>,
}

impl Changed {
    fn decode(metric: Metric, value: &[u8], code_dim: usize) -> Result<Arc<Self>, RecordError> {
        let centroid = Centroid::decode(value, code_dim)?;
        let norm_squared: f32 = centroid.centre.iter().map(|x| x * x).sum();
        let spread = match metric {
            // The mean of unit vectors is the shorter, the further they lie apart.
            Metric::Cosine => (1.0 - norm_squared).max(0.0),
            Metric::L2 | Metric::Dot => centroid.radius * centroid.radius,
        };
        let (state, centre) = (centroid.state, centroid.centre);
        let meta = Meta { state, spread };
        Ok(Arc::new(Self { meta, centre }))
    }
}

impl CentroidSet {
    /// A set of no postings at epoch 0.
    #[must_use]
    pub fn empty(metric: Metric, dim: usize) -> Self {
        Self {
            metric,
            code_dim: crate::code::rotate::code_dim(dim),
            epoch: 0,
            base: Arc::default(),
            delta: BTreeMap::new(),
            flat_max: FLAT_MAX,
        }
    }

    /// The set of all centroid records, given as posting and value. O(postings x dimension).
    ///
    /// # Errors
    /// [`RecordError`] for a value that is no centroid of this dimension.
    pub fn load<'r>(
        metric: Metric,
        dim: usize,
        epoch: u64,
        records: impl IntoIterator<Item = (PostingId, &'r [u8])>,
    ) -> Result<Self, RecordError> {
        let mut set = Self::empty(metric, dim);
        set.epoch = epoch;
        for (id, value) in records {
            let changed = Changed::decode(metric, value, set.code_dim)?;
            set.delta.insert(id, Some(changed));
        }
        set.rebase();
        Ok(set)
    }

    /// The set after changes of centroid records: a value, or `None` for a record that is gone.
    ///
    /// # Errors
    /// As [`CentroidSet::load`].
    pub fn with<'r>(
        &self,
        epoch: u64,
        changes: impl IntoIterator<Item = (PostingId, Option<&'r [u8]>)>,
    ) -> Result<Self, RecordError> {
        let mut next = self.clone();
        next.epoch = epoch;
        for (id, value) in changes {
            let changed = value.map(|value| Changed::decode(self.metric, value, self.code_dim));
            next.delta.insert(id, changed.transpose()?);
        }
        if next.delta.len() > DELTA_MAX {
            next.rebase();
        }
        Ok(next)
    }

    /// The epoch of the set.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Number of postings with a centre. O(changes since the base x log postings).
    #[must_use]
    pub fn len(&self) -> usize {
        let base = &self.base.ids;
        let known = |id: &&PostingId| base.binary_search(id).is_ok();
        let changed = self.delta.keys().filter(known).count();
        base.len() - changed + self.delta.values().flatten().count()
    }

    /// Writes the numbers of receiving, ready and draining postings into a reading of counters.
    /// O(postings).
    pub fn count_postings(&self, stats: &mut MaintenanceStats) {
        (stats.receiving, stats.ready, stats.draining) = (0, 0, 0);
        let base = self.base.ids.iter().zip(&self.base.metas);
        for (_, meta) in base.filter(|(id, _)| !self.delta.contains_key(id)) {
            stats.count(meta.state);
        }
        for changed in self.delta.values().flatten() {
            stats.count(changed.meta.state);
        }
    }

    /// Whether no posting has a centre.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a posting has a centre.
    #[must_use]
    pub fn contains(&self, id: PostingId) -> bool {
        match self.delta.get(&id) {
            Some(changed) => changed.is_some(),
            None => self.base.ids.binary_search(&id).is_ok(),
        }
    }

    /// Whether commits may bind to a posting: it is there and does not drain.
    #[must_use]
    pub fn is_open(&self, id: PostingId) -> bool {
        if id == PostingId::UNASSIGNED {
            return true;
        }
        let state = match self.delta.get(&id) {
            Some(changed) => changed.as_ref().map(|changed| changed.meta.state),
            None => {
                let at = self.base.ids.binary_search(&id).ok();
                at.map(|at| self.base.metas[at].state)
            }
        };
        state.is_some_and(|state| state != State::Draining)
    }

    /// The centre of a posting in rotated space; zeros for the unassigned one.
    pub(crate) fn centre(&self, id: PostingId) -> Option<Vec<f32>> {
        if id == PostingId::UNASSIGNED {
            return Some(vec![0.0; self.code_dim]);
        }
        match self.delta.get(&id) {
            Some(changed) => changed.as_ref().map(|changed| changed.centre.clone()),
            None => {
                let at = self.base.ids.binary_search(&id).ok()?;
                Some(self.base.centre(at, self.code_dim))
            }
        }
    }

    /// All postings that have a centre, in rising order. O(postings).
    pub(crate) fn ids(&self) -> Vec<PostingId> {
        let base = self.base.ids.iter();
        let base = base.filter(|id| !self.delta.contains_key(id)).copied();
        let changed = self.delta.iter().filter(|(_, changed)| changed.is_some());
        let mut ids: Vec<PostingId> = base.chain(changed.map(|(id, _)| *id)).collect();
        ids.sort_unstable();
        ids
    }

    /// Makes the base anew from everything.
    fn rebase(&mut self) {
        let mut all = BTreeMap::new();
        for (at, &id) in self.base.ids.iter().enumerate() {
            let centre = self.base.centre(at, self.code_dim);
            all.insert(id, (self.base.metas[at], centre));
        }
        for (id, changed) in std::mem::take(&mut self.delta) {
            match changed {
                Some(changed) => {
                    all.insert(id, (changed.meta, changed.centre.clone()));
                }
                None => {
                    all.remove(&id);
                }
            }
        }
        let mut base = Base::default();
        for (id, (meta, centre)) in all {
            base.ids.push(id);
            base.metas.push(meta);
            base.centres.extend(centre.iter().map(|&x| f16_from(x)));
        }
        let old = &self.base.cells;
        let mut cell_of = BTreeMap::new();
        for (at, cell) in old.cells.iter().enumerate() {
            let ids = cell
                .members
                .iter()
                .map(|&member| self.base.ids[member as usize]);
            cell_of.extend(ids.map(|id| (id, at)));
        }
        let before: Vec<Option<usize>> =
            base.ids.iter().map(|id| cell_of.get(id).copied()).collect();
        let (dim, most) = (self.code_dim, self.flat_max);
        base.cells = Cells::new(self.metric, dim, &base.centres, most, old, &before);
        self.base = Arc::new(base);
    }

    /// Bytes that the set takes in memory, about: 2 for each dimension of a centre, a bit of its
    /// code, and some twenty.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let base = &self.base;
        let metas = base.metas.len() * (size_of::<Meta>() + size_of::<PostingId>());
        let delta = self.delta.len() * (4 * self.code_dim + 64);
        metas + 2 * base.centres.len() + base.cells.memory_bytes() + delta
    }

    /// Postings by the distance of their centres from the query, nearest first. The first
    /// [`RERANK`] are in exact order, as is each further batch; batches follow estimates.
    /// O(postings) for all that are asked for, O(dimension) for each.
    pub(crate) fn order<'q>(&'q self, query: &'q CodeQuery) -> Order<'q> {
        self.order_by(query, 0.0, false, OrderRoom::default())
    }

    /// Postings in the order in which a search reads them, in the given room.
    pub(crate) fn probes<'q>(&'q self, query: &'q CodeQuery, room: OrderRoom) -> Order<'q> {
        self.order_by(query, TOWARDS, true, room)
    }

    fn order_by<'q>(
        &'q self,
        query: &'q CodeQuery,
        towards: f32,
        spread: bool,
        mut room: OrderRoom,
    ) -> Order<'q> {
        let norm = match self.metric {
            Metric::Dot => query.norm(),
            Metric::L2 | Metric::Cosine => 0.0,
        };
        let rank = Rank {
            norm,
            towards,
            spread,
        };
        room.keys.clear();
        room.ready.clear();
        room.changed.clear();
        room.cells.clear();
        self.cells(query, rank, &mut room.cells);
        for (&id, changed) in &self.delta {
            let unseen = rank.spread && planted!("new_centres_not_searched");
            if let Some(changed) = changed
                && !unseen
            {
                let centred = query.centred(&changed.centre);
                let Meta { state, spread } = changed.meta;
                let key = rank.key(self.metric, centred.add, spread);
                room.changed.push(Probe {
                    id,
                    state,
                    centred,
                    key,
                });
            }
        }
        room.changed.sort_unstable_by(nearest_last);
        Order {
            set: self,
            query,
            rank,
            room,
            compared: None,
            opened: 0,
        }
    }

    /// Cells by distance, the nearest last; a single one needs no distance.
    fn cells(&self, query: &CodeQuery, rank: Rank, cells: &mut Vec<(f32, u32)>) {
        let all = &self.base.cells.cells;
        if let [_] = all[..] {
            cells.push((0.0, 0));
            return;
        }
        // A cell is opened by what it may hold, as postings are read.
        let rank = Rank {
            towards: TOWARDS,
            spread: true,
            ..rank
        };
        for (at, cell) in (0..).zip(all) {
            let centred = query.centred(&cell.centre);
            cells.push((rank.key(self.metric, centred.add, cell.spread), at));
        }
        cells.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
    }

    /// A key for each centre of a cell, from its code. How many there are.
    fn open(&self, cell: &Cell, query: &CodeQuery, rank: Rank, keys: &mut Vec<u64>) -> usize {
        let centred = query.centred(&cell.centre);
        // Estimates, not bounds: nothing is taken off.
        let with = Bounding {
            far: 0.0,
            rounding: 0.0,
            ..query.bounding(centred, f32::INFINITY)
        };
        let mut scanned = Scanned::default();
        for (bytes, members) in cell.blocks.iter().zip(cell.members.chunks(BLOCK_SLOTS)) {
            // The block is our own; a decode is how its parts are found.
            let Ok(block) = Block::decode(bytes, self.code_dim) else {
                continue;
            };
            query.judge(block.codes(), block.factor_bytes(), &with, &mut scanned);
            for (&at, &score) in members.iter().zip(&scanned.lowers) {
                let spread = self.base.metas[at as usize].spread;
                let key = rank.key(self.metric, score, spread);
                keys.push(u64::from(rising(key)) << 32 | u64::from(at));
            }
        }
        cell.members.len()
    }
}

/// The order in which probes wait: the next one is the last.
fn nearest_last(a: &Probe, b: &Probe) -> std::cmp::Ordering {
    b.key.total_cmp(&a.key).then(b.id.cmp(&a.id))
}

/// How postings are ordered.
#[derive(Debug, Clone, Copy)]
struct Rank {
    /// Length of the query, for [`Metric::Dot`].
    norm: f32,
    towards: f32,
    /// Whether the spread counts.
    spread: bool,
}

impl Rank {
    /// What a posting is ordered by, from the score of its centre.
    #[inline]
    fn key(&self, metric: Metric, score: f32, spread: f32) -> f32 {
        if !self.spread {
            return score;
        }
        match metric {
            Metric::L2 | Metric::Cosine => {
                score + spread - 2.0 * self.towards * (score.max(0.0) * spread).sqrt()
            }
            Metric::Dot => score - self.towards * self.norm * spread.sqrt(),
        }
    }
}

/// A word that rises with the number, as [`f32::total_cmp`] has it.
#[inline]
fn rising(number: f32) -> u32 {
    let bits = number.to_bits();
    bits ^ if bits >> 31 == 1 { u32::MAX } else { 1 << 31 }
}

impl Base {
    fn centre(&self, at: usize, code_dim: usize) -> Vec<f32> {
        let mut out = vec![0.0; code_dim];
        self.read(at, &mut out);
        out
    }

    /// Writes a centre to `out`, which has its length.
    fn read(&self, at: usize, out: &mut [f32]) {
        let centre = &self.centres[at * out.len()..][..out.len()];
        for (out, &bits) in out.iter_mut().zip(centre) {
            *out = f16_finite_to(bits);
        }
    }
}

/// A posting and how the query lies to its centre.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probe {
    pub(crate) id: PostingId,
    pub(crate) state: State,
    pub(crate) centred: Centred,
    /// What it is ordered by: for [`Metric::Dot`] a score, else a squared distance.
    pub(crate) key: f32,
}

/// What ordering takes room for; kept between searches.
#[derive(Debug, Default)]
pub(crate) struct OrderRoom {
    /// Estimated key and position of each centre of the base that was not compared yet. Nothing is
    /// in order but what a selection has put last.
    keys: Vec<u64>,
    /// Those of the base that were compared exactly; the last to come first.
    ready: Vec<Probe>,
    /// Those of the list of changes, likewise.
    changed: Vec<Probe>,
    /// Cells that were not opened yet, the nearest last.
    cells: Vec<(f32, u32)>,
}

/// Postings in order.
#[derive(Debug)]
pub(crate) struct Order<'q> {
    set: &'q CentroidSet,
    query: &'q CodeQuery,
    rank: Rank,
    room: OrderRoom,
    /// Centres compared exactly so far; `None` before the first batch.
    compared: Option<usize>,
    /// Centres in the cells that were opened.
    opened: usize,
}

impl Iterator for Order<'_> {
    type Item = Probe;

    fn next(&mut self) -> Option<Probe> {
        // What is left of a batch goes into the next one: the far half of it does not come before
        // the estimates' next.
        let more = !self.room.keys.is_empty() || !self.room.cells.is_empty();
        let few = self.room.ready.len() <= RERANK / 2 && more;
        if few || self.compared.is_none() {
            self.refill();
        }
        match (self.room.ready.last(), self.room.changed.last()) {
            (Some(ready), Some(changed)) if nearest_last(changed, ready).is_gt() => {
                self.room.changed.pop()
            }
            (Some(_), _) => self.room.ready.pop(),
            (None, _) => self.room.changed.pop(),
        }
    }
}

impl Order<'_> {
    /// The posting that most likely comes next.
    pub(crate) fn coming(&self) -> Option<PostingId> {
        let last = [self.room.ready.last(), self.room.changed.last()];
        let next = last.into_iter().flatten().max_by(|a, b| nearest_last(a, b));
        next.map(|probe| probe.id)
    }

    /// The room, for the next order.
    pub(crate) fn into_room(self) -> OrderRoom {
        self.room
    }

    /// Compares the least estimates exactly.
    fn refill(&mut self) {
        let (keys, ready) = (&mut self.room.keys, &mut self.room.ready);
        let base = &self.set.base;
        let compared = self.compared.unwrap_or(0);
        let open_min = if planted!("one_cell_opened") {
            1
        } else {
            OPEN_MIN
        };
        while (self.opened < open_min.max(OPEN_TIMES * compared) || keys.is_empty())
            && let Some((_, at)) = self.room.cells.pop()
        {
            let cell = &base.cells.cells[at as usize];
            self.opened += self.set.open(cell, self.query, self.rank, keys);
        }
        // Batches grow with what was asked for, so that selections stay few.
        let batch = RERANK.max(compared / 2).min(keys.len());
        self.compared = Some(compared + batch);
        let rest = keys.len() - batch;
        if rest > 0 {
            // Least last, so that taking them moves nothing.
            keys.select_nth_unstable_by(rest - 1, |a, b| b.cmp(a));
        }
        let dim = self.set.code_dim;
        for key in keys.drain(rest..) {
            let at = key as u32 as usize;
            if self.set.delta.contains_key(&base.ids[at]) {
                continue;
            }
            let centred = self.query.centred_half(&base.centres[at * dim..][..dim]);
            let (id, Meta { state, spread }) = (base.ids[at], base.metas[at]);
            let key = self.rank.key(self.set.metric, centred.add, spread);
            ready.push(Probe {
                id,
                state,
                centred,
                key,
            });
        }
        ready.sort_unstable_by(nearest_last);
    }
}

#[cfg(test)]
mod tests;
