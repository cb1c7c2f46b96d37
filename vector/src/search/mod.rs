//! The search: postings nearest first, codes by their bounds, rows by what is left.
//!
//! ```text
//! centres in order (centroid.rs) -> stop.rs -> scan.rs: blocks and tails: 1-bit bound -> filter
//!   columns (filter.rs) -> marks -> extra bits of the likely ones -> candidates by lower bound
//!   -> rows.rs: 16 at a time: extra bits of the others -> rows of the snapshot -> k nearest
//! few rows match the filter -> matches.rs: columns of all postings -> rows.rs: every match
//! ```
//!
//! Extra bits cost a look into another leaf. While postings are read, only an entry whose
//! estimate is below the threshold gets that look, for it may lower the threshold; most others are
//! told off by later postings, and what is left at the end has it then.
//!
//! While postings are read, the threshold is the k-th smallest *upper* bound of entries that the
//! filter is known to accept: no row is read for it. If a row behind such a bound turns out to be
//! stale, the threshold was too low; then the search runs once more with thresholds from rows
//! alone. Entries that only their row can tell about are measured with their posting, and count
//! once they were accepted.
//!
//! Invariants:
//! * V1. A hit is a row that the store shows with the version that its entry names (hint rule),
//!   once, with its exact distance. A store with a filter shows accepted rows only.
//! * V2. An entry is skipped only if its lower bound is above a threshold that `k` accepted rows
//!   meet, or that `k` rows will be checked to meet.
//! * V3. `k` hits are returned whenever as many rows match: postings are read to the last before
//!   fewer are, unless the caller set a limit, and then [`Found::partial`] says so.

mod matches;
mod rows;
mod scan;

use std::collections::BTreeSet;

use crate::centroid::{CentroidSet, OrderRoom, Probe};
use crate::code::query::{CodeQuery, Scanned};
use crate::error::VectorError;
use crate::exact::ExactScan;
use crate::filter::{Admit, POSTINGS_MIN, few_match, idle_weight};
use crate::index::VectorIndex;
use crate::limits::MAX_K;
use crate::metric::Metric;
use crate::prepared::Prepared;
use crate::record::{Mark, PostingId, RowId, State as PostingState, Vver};
use crate::stop::StopRule;
use crate::store::{IndexError, PostingStore};
use crate::topk::{Neighbour, TopK, Uppers};

/// Searches that start again because a posting changed, before the exact scan serves.
const RESTARTS_MAX: u32 = 2;

/// What is wanted, and when a search ends besides when all postings are read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SearchParams {
    /// Neighbours wanted, at most [`MAX_K`].
    pub k: usize,
    /// A posting is left out if it is more than `1 + ratio` times as far as the first. 0 or more.
    /// Not used with [`crate::Metric::Dot`], where distances have no ratio, and not with a filter.
    pub ratio: f32,
    /// Postings in a row that improve nothing, after which the search ends.
    pub patience: usize,
    /// Postings read at most, whatever is missing; 1 or more.
    pub postings_max: usize,
    /// Tables of fewer rows are scanned exactly.
    pub exact_below: u64,
    /// Reads exactly this many postings instead of stopping by ratio and patience; 1 or more, and
    /// all if there are fewer. For comparisons with other indexes.
    pub probes: Option<usize>,
    /// Measures every row of the table: the oracle.
    pub exact: bool,
}

impl SearchParams {
    /// The defaults before any calibration: ratio 0.6, patience 96, exact below 2,000 rows, no
    /// limits. On real text they find about 96 of 100 nearest neighbours.
    #[must_use]
    pub fn new(k: usize) -> Self {
        Self {
            k,
            ratio: 0.6,
            patience: 96,
            postings_max: usize::MAX,
            exact_below: 2_000,
            probes: None,
            exact: false,
        }
    }

    fn check(&self) -> Result<(), IndexError> {
        if self.k > MAX_K {
            return Err(VectorError::TooMany { found: self.k }.into());
        }
        let checks = [
            ("ratio", self.ratio >= 0.0, "0 or more"),
            ("postings_max", self.postings_max > 0, "1 or more"),
            ("probes", self.probes != Some(0), "1 or more"),
        ];
        match checks.iter().find(|(_, fits, _)| !fits) {
            Some(&(name, _, expected)) => Err(IndexError::Parameter { name, expected }),
            None => Ok(()),
        }
    }
}

/// Why a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// Every posting was read, or every row.
    Complete,
    /// The other postings are too far.
    Ratio,
    /// Nothing improved for too long.
    Patience,
    /// A quarter of the postings of a large table was read.
    Net,
    /// As many postings as asked for were read.
    Probes,
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
    /// A limit of the caller ended the search before it had what it looked for.
    pub partial: bool,
    /// So few rows seemed to match the filter that every posting was read. The hits are exact then
    /// if columns left 1,500 entries or fewer, for each of their rows was measured.
    pub all_matches: bool,
    /// Postings read.
    pub postings: usize,
    /// Entries whose one-bit code was looked at.
    pub scanned: usize,
    /// Entries whose filter columns were looked at.
    pub asked: usize,
    /// Entries whose extra bits were looked at.
    pub second_stage: usize,
    /// Rows asked for.
    pub rows: usize,
    /// Times the search started again.
    pub restarts: u32,
}

/// Memory that searches work in, kept from one to the next: a few hundred KiB at most. One for each
/// thread that searches.
#[derive(Debug, Default)]
pub struct Scratch {
    order: OrderRoom,
    /// Entries that may be hits, of all postings so far.
    candidates: Vec<Candidate>,
    /// Those of the posting that is being read.
    fresh: Vec<Candidate>,
    /// Those that only their rows can tell about.
    unsure: Vec<Candidate>,
    /// Entries of blocks whose columns are still to come.
    waiting: Vec<matches::Waiting>,
    /// Those whose extra bits and rows are read together.
    batch: Vec<Candidate>,
    /// The postings that were read, by the rank of their candidates.
    probes: Vec<Probe>,
    marks: Vec<(RowId, Vver, Mark)>,
    scanned: Scanned,
}

impl Scratch {
    /// Forgets what the search before left.
    pub(crate) fn clear(&mut self) {
        self.candidates.clear();
        self.probes.clear();
    }
}

impl VectorIndex {
    /// The nearest rows that the store shows: of its snapshot, and accepted by its filter.
    ///
    /// Approximate in which postings are read, exact in what is returned (V1). O(postings +
    /// entries read + rows read x dimension).
    ///
    /// # Errors
    /// [`IndexError::Vector`] for a query or `k` that cannot be served, [`IndexError::Parameter`]
    /// for another parameter outside its range, [`IndexError::Record`] for a record that cannot be
    /// read, [`IndexError::SnapshotTooOld`]; and the host's own.
    pub fn search<S: PostingStore>(
        &self,
        store: &S,
        query: &[f32],
        params: &SearchParams,
    ) -> Result<Found, S::Error> {
        self.search_in(&mut Scratch::default(), store, query, params)
    }

    /// As [`VectorIndex::search`], in memory that the caller keeps for the next one.
    ///
    /// # Errors
    /// As [`VectorIndex::search`].
    pub fn search_in<S: PostingStore>(
        &self,
        scratch: &mut Scratch,
        store: &S,
        query: &[f32],
        params: &SearchParams,
    ) -> Result<Found, S::Error> {
        params.check()?;
        let prepared = Prepared::new(self.metric(), query).map_err(IndexError::from)?;
        let code = CodeQuery::new(self.space(), query).map_err(IndexError::from)?;
        let rows = store.row_count()?;
        let (mut restarts, mut eager) = (0, false);
        let mut plan = Plan::Nearest;
        while !params.exact && rows >= params.exact_below && restarts <= RESTARTS_MAX {
            let set = store.centroids();
            scratch.clear();
            let mut state = State::new(params.k, None);
            state.eager = eager;
            let mut search = Search {
                index: self,
                store,
                prepared: &prepared,
                code: &code,
                k: params.k,
                filtered: store.filtered(),
                scratch: &mut *scratch,
                state,
            };
            let outcome = match plan {
                Plan::Matches => search.every_match(&set)?,
                Plan::Nearest | Plan::Bounds => search.run(params, &set, rows, plan)?,
            };
            match outcome {
                Outcome::Done(stop) => return Ok(search.found(stop, restarts)),
                Outcome::Restart => restarts += 1,
                Outcome::TooTight => eager = true,
                Outcome::FewMatch => plan = Plan::Matches,
                Outcome::ManyMatch => plan = Plan::Bounds,
            }
        }
        exact(store, &prepared, params.k, restarts)
    }
}

/// Every row that the store shows.
fn exact<S: PostingStore>(
    store: &S,
    prepared: &Prepared,
    k: usize,
    restarts: u32,
) -> Result<Found, S::Error> {
    let mut scan = ExactScan::new(prepared, k).map_err(IndexError::from)?;
    let mut rows = 0;
    store.all_rows(&mut |row, _, vector| {
        rows += 1;
        scan.offer(row, vector)
    })?;
    Ok(Found {
        hits: scan.finish().map_err(IndexError::from)?,
        stop: Stop::Complete,
        partial: false,
        all_matches: false,
        postings: 0,
        scanned: 0,
        asked: 0,
        second_stage: 0,
        rows,
        restarts,
    })
}

/// Whether a lower bound lets an entry be a hit. One that cannot be compared does (Q2).
#[inline]
fn may_hit(lower: f32, threshold: f32) -> bool {
    lower <= threshold || lower.is_nan()
}

/// How a search goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    /// The nearest postings, until they suffice.
    Nearest,
    /// Every row that matches.
    Matches,
    /// As [`Plan::Nearest`], and every posting if few rows seem to match: more may than that.
    Bounds,
}

enum Outcome {
    Done(Stop),
    /// A posting lacks entries of the pinned epoch (S4).
    Restart,
    /// The threshold was lower than the rows bear out (V2).
    TooTight,
    /// Few rows seem to match the filter: each is to be measured.
    FewMatch,
    /// More may match than are worth a look at each.
    ManyMatch,
}

/// An entry that may be a hit.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    lower: f32,
    upper: f32,
    row: RowId,
    vver: Vver,
    /// Where a second stage may follow.
    place: Option<Place>,
    /// What the filter said of its columns.
    asked: Admit,
    /// The posting's place in the order of reading.
    rank: u32,
}

/// Where an entry lies in a sealed block, and the product of its first stage.
#[derive(Debug, Clone, Copy)]
struct Place {
    block: u32,
    slot: u8,
    /// That of the block: records beside it with another one tell of other entries.
    seal: u32,
    product: f32,
}

/// What a search has found out so far.
#[derive(Debug)]
pub(crate) struct State {
    /// Thresholds come from rows alone.
    eager: bool,
    /// A row that is no hit: the one that a calibration took its query from.
    except: Option<RowId>,
    uppers: Uppers,
    nearest: TopK<RowId>,
    /// Rows that were measured as hits.
    measured: BTreeSet<RowId>,
    /// Entries that the filter accepted or refused, by their columns or at their row.
    judged: usize,
    /// Those accepted.
    admitted: usize,
    found: Found,
}

impl State {
    pub(crate) fn new(k: usize, except: Option<RowId>) -> Self {
        Self {
            eager: false,
            except,
            uppers: Uppers::new(k),
            nearest: TopK::new(k),
            measured: BTreeSet::new(),
            judged: 0,
            admitted: 0,
            found: Found {
                hits: Vec::new(),
                stop: Stop::Complete,
                partial: false,
                all_matches: false,
                postings: 0,
                scanned: 0,
                asked: 0,
                second_stage: 0,
                rows: 0,
                restarts: 0,
            },
        }
    }
}

/// A search at work: what it reads, what it reads with, what it has so far.
pub(crate) struct Search<'s, S> {
    pub(crate) index: &'s VectorIndex,
    pub(crate) store: &'s S,
    pub(crate) prepared: &'s Prepared,
    pub(crate) code: &'s CodeQuery,
    pub(crate) k: usize,
    /// The store shows accepted rows only.
    pub(crate) filtered: bool,
    pub(crate) scratch: &'s mut Scratch,
    pub(crate) state: State,
}

impl<S: PostingStore> Search<'_, S> {
    fn found(self, stop: Stop, restarts: u32) -> Found {
        let hits = self.state.nearest.into_sorted_vec();
        let partial = match stop {
            Stop::Budget => true,
            Stop::Probes => hits.len() < self.k,
            _ => false,
        };
        Found {
            hits,
            stop,
            partial,
            restarts,
            ..self.state.found
        }
    }

    fn run(
        &mut self,
        params: &SearchParams,
        set: &CentroidSet,
        rows: u64,
        plan: Plan,
    ) -> Result<Outcome, S::Error> {
        if self.k == 0 {
            return Ok(Outcome::Done(Stop::Complete));
        }
        if !self.unassigned(set)? {
            return Ok(Outcome::Restart);
        }
        // What matches a filter may all be far, so a posting is not too far because of that.
        let ratios = self.index.metric() != Metric::Dot && !self.filtered;
        let mut rule = StopRule::new(params, set.len(), rows, ratios);
        let limited = params.probes.is_some() || params.postings_max <= set.len();
        let mut order = set.probes(self.code, std::mem::take(&mut self.scratch.order));
        let mut stop = Stop::Complete;
        while let Some(probe) = order.next() {
            let before = self.threshold();
            let mut ends = rule.before(probe.key, before.is_finite());
            if self.filtered && self.few_match(ends, rows) {
                if plan == Plan::Nearest && !limited && !planted!("few_matches_by_bounds") {
                    return Ok(Outcome::FewMatch);
                }
                rule.read_all();
                ends = rule.before(probe.key, before.is_finite());
            }
            if let Some(reason) = ends {
                stop = reason;
                break;
            }
            let scanned = self.state.found.scanned;
            if let Some(next) = order.coming() {
                self.store.expect(next);
            }
            if !self.posting(probe, set)? {
                return Ok(Outcome::Restart);
            }
            let improved = self.threshold() < before;
            let weight = if self.filtered {
                let entries = self.state.found.scanned - scanned;
                idle_weight(entries, self.state.judged, self.state.admitted)
            } else {
                1.0
            };
            rule.after(improved, weight);
        }
        self.state.found.all_matches = rule.reads_all() && stop == Stop::Complete;
        self.scratch.order = order.into_room();
        self.measure_candidates()?;
        if self.borne_out() {
            Ok(Outcome::Done(stop))
        } else {
            Ok(Outcome::TooTight)
        }
    }

    /// Whether few rows seem to match the filter, as far as can be told now or where the search
    /// would end.
    fn few_match(&self, ends: Option<Stop>, rows: u64) -> bool {
        let read = self.state.found.postings;
        let (judged, admitted) = (self.state.judged, self.state.admitted);
        (read >= POSTINGS_MIN || ends.is_some()) && few_match(judged, admitted, rows)
    }

    /// Reads what no posting has taken yet, before everything else.
    pub(crate) fn unassigned(&mut self, set: &CentroidSet) -> Result<bool, S::Error> {
        self.posting(self.unassigned_probe(), set)
    }

    fn unassigned_probe(&self) -> Probe {
        let zeros = vec![0.0; self.index.space().code_dim()];
        Probe {
            id: PostingId::UNASSIGNED,
            state: PostingState::Ready,
            centred: self.code.centred(&zeros),
            key: f32::NEG_INFINITY,
        }
    }

    /// The score above which an entry is of no use. Those whose upper bounds made it are among the
    /// candidates: what is nearest lies below, or the check at the end finds out (V2).
    pub(crate) fn threshold(&self) -> f32 {
        self.exact_threshold().min(self.state.uppers.threshold())
    }

    /// Drops candidates that the threshold tells off by now, if there are more than `most`; false
    /// if half of `most` are left then.
    pub(crate) fn tells_apart(&mut self, most: usize) -> bool {
        let threshold = self.threshold();
        let candidates = &mut self.scratch.candidates;
        if candidates.len() <= most || planted!("every_trace_to_its_end") {
            return true;
        }
        candidates.retain(|candidate| may_hit(candidate.lower, threshold));
        candidates.len() <= most / 2
    }

    /// Ends a search of every posting for a calibration: for each hit how many postings, without
    /// the unassigned one, had to be read to have it; and the codes looked at. `None` if a bound
    /// was broken.
    pub(crate) fn trace(&mut self) -> Result<Option<(Vec<u32>, usize)>, S::Error> {
        self.measure_candidates()?;
        if !self.borne_out() {
            return Ok(None);
        }
        let hits = self.state.nearest.clone().into_sorted_vec();
        let ranks = hits.iter().map(|hit| {
            let entries = self.scratch.candidates.iter();
            let of_hit = entries.filter(|candidate| candidate.row == hit.id);
            of_hit.map(|candidate| candidate.rank).min().unwrap_or(0)
        });
        Ok(Some((ranks.collect(), self.state.found.scanned)))
    }

    /// Whether the rows bear out the thresholds that bounds gave (V2).
    fn borne_out(&self) -> bool {
        let relied_on = self.state.uppers.threshold();
        let unchecked = planted!("thresholds_not_borne_out");
        self.exact_threshold() <= relied_on || relied_on.is_infinite() || unchecked
    }
}
