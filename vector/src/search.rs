//! The search: postings nearest first, codes by their bounds, rows by what is left.
//!
//! ```text
//! centres in order -> blocks and tails: 1-bit bound -> marks -> extra bits: tighter bound
//!   -> candidates by lower bound -> rows of the snapshot, 16 at a time -> k nearest
//! ```
//!
//! While postings are read, the threshold is the k-th smallest *upper* bound: no row is read for
//! it. If a row behind such a bound turns out to be stale, or a filter refuses it, the threshold
//! was too low; then the search runs once more with thresholds from rows alone.
//!
//! Invariants:
//! * V1. A hit is a row that the snapshot holds with the version that its entry names (hint rule),
//!   once, with its exact distance.
//! * V2. An entry is skipped only if its lower bound is above a threshold that `k` accepted rows
//!   meet, or that `k` rows will be checked to meet.
//! * V3. `k` hits are returned whenever as many rows match: postings are read to the last before
//!   fewer are.

use std::collections::{BTreeSet, BinaryHeap};

use crate::centroid::{CentroidSet, Probe};
use crate::code::Factors;
use crate::code::query::{CodeQuery, Estimate};
use crate::error::VectorError;
use crate::exact::ExactScan;
use crate::index::VectorIndex;
use crate::limits::{BLOCK_SLOTS, MAX_K};
use crate::prepared::Prepared;
use crate::record::{Block, Extra, Head, Key, Mark, PostingId, RowId, State, TailEntry, Vver};
use crate::store::{IndexError, PostingStore};
use crate::topk::{Neighbour, TopK};

/// Rows that are read at once.
const ROW_BATCH: usize = 16;
/// Searches that start again because a posting changed, before the exact scan serves.
const RESTARTS_MAX: u32 = 2;

/// When a search ends, besides when all postings are read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SearchParams {
    /// Neighbours wanted, at most [`MAX_K`].
    pub k: usize,
    /// A posting is left out if its centre is more than `1 + ratio` times as far as the nearest.
    /// Not used with [`crate::Metric::Dot`], where distances have no ratio.
    pub ratio: f32,
    /// Postings in a row that improve nothing, after which the search ends.
    pub patience: usize,
    /// Postings read at most, whatever is missing.
    pub postings_max: usize,
    /// Tables of fewer rows are scanned exactly.
    pub exact_below: u64,
}

impl SearchParams {
    /// The defaults before any calibration: ratio 0.6, patience 32, exact below 2,000 rows.
    #[must_use]
    pub fn new(k: usize) -> Self {
        Self {
            k,
            ratio: 0.6,
            patience: 32,
            postings_max: usize::MAX,
            exact_below: 2_000,
        }
    }
}

/// Why a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Every posting was read, or every row.
    Complete,
    /// The other centres are too far.
    Ratio,
    /// Nothing improved for too long.
    Patience,
    /// The limit of postings was reached: more neighbours may exist.
    Budget,
}

/// The neighbours, and what they cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Nearest first, equal distances by row.
    pub hits: Vec<Neighbour<RowId>>,
    /// Why the search ended.
    pub stop: Stop,
    /// Postings read.
    pub postings: usize,
    /// Entries whose one-bit code was looked at.
    pub scanned: usize,
    /// Entries whose extra bits were looked at.
    pub second_stage: usize,
    /// Rows read.
    pub rows: usize,
    /// Times the search started again.
    pub restarts: u32,
}

/// Decides at the row whether it may be a hit.
pub type RowFilter<'f> = dyn FnMut(RowId) -> bool + 'f;

impl VectorIndex {
    /// The nearest rows of the store's snapshot that `filter` accepts.
    ///
    /// Approximate in which postings are read, exact in what is returned (V1). O(postings +
    /// entries read + rows read x dimension).
    ///
    /// # Errors
    /// [`IndexError::Vector`] for a query or `k` that cannot be served, [`IndexError::Record`] for
    /// a record that cannot be read, [`IndexError::SnapshotTooOld`]; and the host's own.
    pub fn search<S: PostingStore>(
        &self,
        store: &S,
        query: &[f32],
        params: &SearchParams,
        mut filter: Option<&mut RowFilter<'_>>,
    ) -> Result<Found, S::Error> {
        if params.k > MAX_K {
            return Err(IndexError::from(VectorError::TooMany { found: params.k }).into());
        }
        if params.ratio.is_nan() || params.ratio < 0.0 {
            return Err(IndexError::Parameter {
                name: "ratio",
                expected: "0 or more",
            }
            .into());
        }
        let code = CodeQuery::new(self.space(), query).map_err(IndexError::from)?;
        let prepared = Prepared::new(self.metric(), query).map_err(IndexError::from)?;
        let mut restarts = 0;
        let mut eager = filter.is_some();
        while restarts <= RESTARTS_MAX && store.row_count()? >= params.exact_below {
            let set = store.centroids();
            let mut search = Search::new(self, store, &prepared, &code, params, eager);
            match search.run(&set, &mut filter)? {
                Outcome::Done(stop) => return Ok(search.found(stop, restarts)),
                Outcome::Restart => restarts += 1,
                Outcome::TooTight => eager = true,
            }
        }
        exact(store, &prepared, params.k, restarts, filter)
    }
}

/// Every row of the snapshot.
fn exact<S: PostingStore>(
    store: &S,
    prepared: &Prepared,
    k: usize,
    restarts: u32,
    mut filter: Option<&mut RowFilter<'_>>,
) -> Result<Found, S::Error> {
    let mut scan = ExactScan::new(prepared, k).map_err(IndexError::from)?;
    let mut rows = 0;
    store.all_rows(&mut |row, _, vector| {
        rows += 1;
        if filter.as_mut().is_none_or(|accept| accept(row)) {
            scan.offer(row, vector)?;
        }
        Ok(())
    })?;
    let hits = scan.finish().map_err(IndexError::from)?;
    let (postings, scanned, second_stage) = (0, 0, 0);
    let stop = Stop::Complete;
    Ok(Found {
        hits,
        stop,
        postings,
        scanned,
        second_stage,
        rows,
        restarts,
    })
}

/// Whether a lower bound lets an entry be a hit. One that cannot be compared does (Q2).
#[inline]
fn may_hit(lower: f32, threshold: f32) -> bool {
    lower <= threshold || lower.is_nan()
}

enum Outcome {
    Done(Stop),
    /// A posting lacks entries of the pinned epoch (S4).
    Restart,
    /// The threshold was lower than the rows bear out (V2).
    TooTight,
}

/// An entry that may be a hit.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    lower: f32,
    upper: f32,
    row: RowId,
    vver: Vver,
    /// Block, slot and product of the first stage, where a second may follow.
    place: Option<(u32, usize, f32)>,
}

/// The k smallest upper bounds of different rows.
#[derive(Debug)]
struct Uppers {
    k: usize,
    rows: BTreeSet<RowId>,
    heap: BinaryHeap<Neighbour<RowId>>,
}

impl Uppers {
    fn new(k: usize) -> Self {
        let (rows, heap) = (BTreeSet::new(), BinaryHeap::new());
        Self { k, rows, heap }
    }

    fn threshold(&self) -> f32 {
        match self.heap.peek() {
            Some(worst) if self.heap.len() == self.k => worst.distance,
            _ => f32::INFINITY,
        }
    }

    /// A copy of a row that is there already changes nothing, which keeps the threshold valid.
    fn push(&mut self, upper: f32, row: RowId) -> bool {
        if upper.is_nan() || upper >= self.threshold() || !self.rows.insert(row) {
            return false;
        }
        self.heap.push(Neighbour {
            distance: upper,
            id: row,
        });
        if self.heap.len() > self.k
            && let Some(worst) = self.heap.pop()
        {
            self.rows.remove(&worst.id);
        }
        true
    }
}

struct Search<'s, S> {
    index: &'s VectorIndex,
    store: &'s S,
    prepared: &'s Prepared,
    code: &'s CodeQuery,
    params: &'s SearchParams,
    /// Thresholds come from rows alone.
    eager: bool,
    uppers: Uppers,
    /// The least threshold that bounds of the first stage gave.
    tightest: f32,
    nearest: TopK<RowId>,
    /// Rows that were measured as hits.
    measured: BTreeSet<RowId>,
    candidates: Vec<Candidate>,
    postings: usize,
    scanned: usize,
    second_stage: usize,
    rows: usize,
}

impl<'s, S: PostingStore> Search<'s, S> {
    fn new(
        index: &'s VectorIndex,
        store: &'s S,
        prepared: &'s Prepared,
        code: &'s CodeQuery,
        params: &'s SearchParams,
        eager: bool,
    ) -> Self {
        Self {
            index,
            store,
            prepared,
            code,
            params,
            eager,
            uppers: Uppers::new(params.k),
            tightest: f32::INFINITY,
            nearest: TopK::new(params.k),
            measured: BTreeSet::new(),
            candidates: Vec::new(),
            postings: 0,
            scanned: 0,
            second_stage: 0,
            rows: 0,
        }
    }

    fn found(self, stop: Stop, restarts: u32) -> Found {
        Found {
            hits: self.nearest.into_sorted_vec(),
            stop,
            postings: self.postings,
            scanned: self.scanned,
            second_stage: self.second_stage,
            rows: self.rows,
            restarts,
        }
    }

    /// The score above which an entry is of no use.
    fn threshold(&self) -> f32 {
        if self.eager {
            self.exact_threshold()
        } else {
            self.uppers.threshold()
        }
    }

    fn exact_threshold(&self) -> f32 {
        self.index.space().score(self.nearest.threshold())
    }

    fn run(
        &mut self,
        set: &CentroidSet,
        filter: &mut Option<&mut RowFilter<'_>>,
    ) -> Result<Outcome, S::Error> {
        if self.params.k == 0 {
            return Ok(Outcome::Done(Stop::Complete));
        }
        let zeros = vec![0.0; self.index.space().code_dim()];
        let unassigned = Probe {
            id: PostingId::UNASSIGNED,
            state: State::Ready,
            centred: self.code.centred(&zeros),
        };
        if !self.posting(unassigned, set, filter)? {
            return Ok(Outcome::Restart);
        }
        let mut stop = Stop::Complete;
        let (mut idle, mut nearest) = (0, None);
        for probe in set.order(self.code) {
            let before = self.threshold();
            let first: f32 = *nearest.get_or_insert(probe.centred.far);
            if before.is_finite() {
                let angle = self.index.metric() == crate::metric::Metric::Dot;
                if !angle && probe.centred.far > first * (1.0 + self.params.ratio) {
                    stop = Stop::Ratio;
                    break;
                }
                if idle >= self.params.patience {
                    stop = Stop::Patience;
                    break;
                }
            }
            if self.postings > self.params.postings_max {
                stop = Stop::Budget;
                break;
            }
            if !self.posting(probe, set, filter)? {
                return Ok(Outcome::Restart);
            }
            idle = if self.threshold() < before {
                0
            } else {
                idle + 1
            };
        }
        self.measure(filter)?;
        let relied_on = self.tightest.min(self.uppers.threshold());
        let borne_out = self.exact_threshold() <= relied_on;
        if !self.eager && !borne_out && relied_on.is_finite() {
            return Ok(Outcome::TooTight);
        }
        Ok(Outcome::Done(stop))
    }

    /// Reads a posting. False if it lacks entries that the pinned epoch may need.
    fn posting(
        &mut self,
        probe: Probe,
        set: &CentroidSet,
        filter: &mut Option<&mut RowFilter<'_>>,
    ) -> Result<bool, S::Error> {
        let start = self.candidates.len();
        let mut head = None;
        let mut marks: Vec<(RowId, Vver, Mark)> = Vec::new();
        let (store, dim) = (self.store, self.index.space().code_dim());
        store.posting(probe.id, &mut |key, value| {
            match key {
                Key::Head(_) => head = Some(Head::decode(value)?),
                Key::Block(_, number) => self.block(number, Block::decode(value, dim)?, probe),
                Key::Tail(_, row, vver) => {
                    self.tail(row, vver, TailEntry::decode(value, dim)?, probe);
                }
                Key::Mark(_, row, vver) => marks.push((row, vver, Mark::decode(value)?)),
                _ => {}
            }
            Ok(())
        })?;
        self.postings += 1;
        let Some(head) = head else {
            // The unassigned posting has a head only once it had entries.
            return Ok(probe.id == PostingId::UNASSIGNED);
        };
        if head.lacks_since > set.epoch() {
            return Ok(false);
        }
        if store.snapshot() < head.fold_horizon {
            let (snapshot, horizon) = (store.snapshot(), head.fold_horizon);
            let posting = probe.id;
            return Err(IndexError::SnapshotTooOld {
                posting,
                snapshot,
                horizon,
            }
            .into());
        }
        // Marks are sorted by key. A dead entry of an older snapshot counts there; a moved one
        // counts for the epochs before the move.
        let gone = |row: RowId, vver: Vver| {
            marks
                .binary_search_by_key(&(row, vver), |mark| (mark.0, mark.1))
                .is_ok_and(|at| match marks[at].2 {
                    Mark::Dead(ts) => ts <= store.snapshot(),
                    Mark::Moved(epoch) => epoch <= set.epoch(),
                })
        };
        let mut fresh = self.candidates.split_off(start);
        fresh.retain(|candidate| !gone(candidate.row, candidate.vver));
        self.refine(probe, fresh)?;
        if self.eager {
            self.measure(filter)?;
        }
        Ok(true)
    }

    fn block(&mut self, number: u32, block: Block<'_>, probe: Probe) {
        let mut products = [0.0; BLOCK_SLOTS];
        self.code.scan(block.codes(), &mut products);
        let threshold = self.threshold();
        self.scanned += block.used();
        let [adds, ips, errs] = block.all_factors();
        let mut estimates = [Estimate::default(); BLOCK_SLOTS];
        let mut lowers = [0.0; BLOCK_SLOTS];
        for slot in 0..BLOCK_SLOTS {
            let (add, ip, err) = (adds[slot], ips[slot], errs[slot]);
            let factors = Factors { add, ip, err };
            estimates[slot] = self.code.of_scan(products[slot], factors, probe.centred);
            lowers[slot] = estimates[slot].lower();
        }
        for slot in 0..block.used() {
            if may_hit(lowers[slot], threshold) {
                self.candidates.push(Candidate {
                    lower: lowers[slot],
                    upper: estimates[slot].upper(),
                    row: block.row(slot),
                    vver: block.vver(slot),
                    place: Some((number, slot, products[slot])),
                });
            }
        }
    }

    fn tail(&mut self, row: RowId, vver: Vver, entry: TailEntry<'_>, probe: Probe) {
        self.scanned += 1;
        let (product, mut estimate) = self.code.single(entry.code, entry.factors, probe.centred);
        let threshold = self.threshold();
        if let Some((factors, planes)) = entry.extra
            && may_hit(estimate.lower(), threshold)
        {
            self.second_stage += 1;
            estimate = self
                .code
                .extra(product, planes, factors, probe.centred, true);
        }
        if may_hit(estimate.lower(), threshold) {
            let (lower, upper) = (estimate.lower(), estimate.upper());
            self.candidates.push(Candidate {
                lower,
                upper,
                row,
                vver,
                place: None,
            });
        }
    }

    /// The second stage for what the first left of a posting.
    fn refine(&mut self, probe: Probe, mut fresh: Vec<Candidate>) -> Result<(), S::Error> {
        let dim = self.index.space().code_dim();
        if !self.eager && self.index.has_extra() && fresh.len() > self.params.k {
            // Most of a first posting is told off by the first stage's own bounds.
            let mut first = Uppers::new(self.params.k);
            for candidate in &fresh {
                first.push(candidate.upper, candidate.row);
            }
            let limit = first.threshold();
            self.tightest = self.tightest.min(limit);
            fresh.retain(|candidate| may_hit(candidate.lower, limit));
        }
        let mut at = 0;
        while at < fresh.len() {
            let number = fresh[at].place.map(|place| place.0);
            let same = |c: &Candidate| c.place.map(|place| place.0) == number;
            let end = at + fresh[at..].iter().take_while(|c| same(c)).count();
            if let Some(number) = number
                && self.index.has_extra()
            {
                let threshold = self.threshold();
                let group = &mut fresh[at..end];
                let mut looked = 0;
                self.store.extra(probe.id, number, &mut |_, value| {
                    let extra = Extra::decode(value, dim)?;
                    for candidate in &mut *group {
                        let Some((_, slot, product)) = candidate.place else {
                            continue;
                        };
                        if candidate.lower > threshold {
                            continue;
                        }
                        if let Some((factors, planes)) = extra.slot(slot) {
                            let centred = probe.centred;
                            let estimate =
                                self.code.extra(product, planes, factors, centred, false);
                            (candidate.lower, candidate.upper) =
                                (estimate.lower(), estimate.upper());
                            looked += 1;
                        }
                    }
                    Ok(())
                })?;
                self.second_stage += looked;
            }
            for &candidate in &fresh[at..end] {
                self.uppers.push(candidate.upper, candidate.row);
            }
            at = end;
        }
        let threshold = self.threshold();
        fresh.retain(|candidate| may_hit(candidate.lower, threshold));
        self.candidates.extend(fresh);
        Ok(())
    }

    /// Reads the rows of candidates, the least lower bound first, until none can be a hit.
    fn measure(&mut self, filter: &mut Option<&mut RowFilter<'_>>) -> Result<(), S::Error> {
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.sort_unstable_by(|a, b| {
            a.lower
                .total_cmp(&b.lower)
                .then((a.row, a.vver).cmp(&(b.row, b.vver)))
        });
        for batch in candidates.chunks(ROW_BATCH) {
            let threshold = self.exact_threshold();
            let mut wanted: Vec<(RowId, Vver)> = Vec::with_capacity(ROW_BATCH);
            for candidate in batch {
                let pair = (candidate.row, candidate.vver);
                let new = !self.measured.contains(&pair.0) && !wanted.contains(&pair);
                if new && may_hit(candidate.lower, threshold) {
                    wanted.push(pair);
                }
            }
            if wanted.is_empty() && batch.iter().all(|c| c.lower > threshold) {
                break;
            }
            let rows: Vec<RowId> = wanted.iter().map(|pair| pair.0).collect();
            self.rows += rows.len();
            let Self {
                store,
                prepared,
                nearest,
                measured,
                ..
            } = self;
            store.rows(&rows, &mut |row, vver, vector| {
                // V1: another version is another vector; its own entry leads to it.
                let accepted = wanted.contains(&(row, vver))
                    && filter.as_mut().is_none_or(|accept| accept(row));
                if accepted && measured.insert(row) {
                    if vector.len() != prepared.dim() {
                        let (expected, found) = (prepared.dim(), vector.len());
                        return Err(VectorError::Dimension { expected, found });
                    }
                    nearest.push(prepared.distance(vector), row);
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}
