//! Calibration: what patience and ratio it takes, on these rows, to find a given share of the true
//! neighbours.
//!
//! ```text
//! a row as query -> every posting read, in the order of a search -> where its k nearest were, and
//!   where a search would have stopped -> enough of them: Tuning -> record -> SearchParams
//! ```
//!
//! No default fits two tables: how many postings hold a query's neighbours depends on how the rows
//! lie. So the rule is fitted to the rows. A row is taken as the query, without itself being a hit;
//! one search reads every posting, and notes after which of them its threshold fell, how far each
//! was, and which one had each of the true nearest. From these notes alone any patience and any
//! ratio can be replayed: what it would have read, and what it would have found. The cheapest pair,
//! in codes, that reaches a target is the answer for it.
//!
//! A target is aimed at a little above, for two reasons. The sample errs: its mean recall is off by
//! about a standard error (0.004 at 0.95 with 384 samples, 0.002 with 1,536), so one is taken off.
//! And rows are easier queries than those to come: their postings were made with them. What a row
//! itself gives to its centre is taken out ([`leave_out`]); what its neighbours' share of postings
//! and borders gives is not. On real text rows found 0.960 of their neighbours where held-out
//! queries found 0.950 (freshly built), and 0.962 where those found 0.957 (after a load with
//! upkeep): about a sixth of what is missing, and so much is added. Queries of the host's own need
//! no such addition.
//!
//! A query that cannot tell its neighbours apart, because thousands of rows are as near as its k-th
//! (equal vectors, say), has nothing to teach: its trace is given up when more candidates than
//! [`CANDIDATES_MAX`] are left, instead of measuring them all.
//!
//! Work is cut into slices for a host that runs them between others' requests:
//! [`Calibration::step`] reads at most [`SLICE_POSTINGS`] postings. A new calibration is due after
//! a tenth of the rows has changed ([`Tuning::is_due`]).
//!
//! Invariants: B1 a replay of a parameter pair reads exactly the postings that a search with it
//! reads, as the rule of `stop.rs` has it; B2 patience rises with the target.

use std::sync::Arc;

use crate::centroid::{CentroidSet, OrderRoom, Probe};
use crate::code::query::CodeQuery;
use crate::code::rotate::Sequence;
use crate::index::VectorIndex;
use crate::limits::MAX_K;
use crate::metric::Metric;
use crate::prepared::Prepared;
use crate::record::{Block, Key, Point, PostingId, RowId, TARGETS, Tuning, Vver};
use crate::search::{Scratch, Search, State};
use crate::store::{IndexError, PostingStore};

/// Samples that a calibration takes, unless the host gives its own queries: as many as read so
/// many postings in all (seconds of work), within these bounds.
const SAMPLES: std::ops::RangeInclusive<usize> = 384..=1536;
const READS: usize = 1 << 21;
/// Postings that a step reads at most: about a quarter of a millisecond when they are in memory.
const SLICE_POSTINGS: usize = 256;
/// Candidates of a trace at most: above, what is told off by now is dropped, and if that is not
/// half of them, the trace is lost. Real text leaves some hundred.
const CANDIDATES_MAX: usize = 1 << 12;
/// Rows that a step tries to draw at most, and traces that may be lost to splits.
const TRIES: usize = 32;
/// Ratios that are tried; the last one is none.
const RATIOS: [f32; 8] = [0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, f32::INFINITY];
/// The share of what is missing to a target that is added to it, since rows are easier queries.
const ROWS_ARE_EASIER: f64 = 0.15;

/// A calibration at work.
#[derive(Debug)]
pub struct Calibration {
    k: usize,
    sequence: Sequence,
    /// Queries of the host that are still to be traced; `None` where rows are drawn.
    given: Option<Vec<Vec<f32>>>,
    wanted: usize,
    lost: usize,
    trace: Option<Trace>,
    samples: Vec<Sample>,
    /// What was found for the first targets.
    fitted: Vec<Point>,
    /// The best for the next one, with its codes, and how many ratios are still to be tried for it.
    best: Option<(f64, Point)>,
    ratio: usize,
    scratch: Scratch,
}

/// A query, and for one that is a row of the table: which, in which posting, of how many entries.
struct Drawn {
    query: Vec<f32>,
    row: Option<(RowId, PostingId, usize)>,
}

/// Puts the posting of a drawn row where it would be in the order if the row had no part in its
/// centre, the mean of its entries: without one of `n`, that is `n / (n - 1)` times as far.
fn leave_out(probes: &mut [Probe], posting: PostingId, n: usize) {
    if let Some(at) = probes.iter().position(|probe| probe.id == posting) {
        let times = n as f32 / (n.max(2) - 1) as f32;
        let key = probes[at].key * times * times;
        let nearer = probes[at + 1..].partition_point(|probe| probe.key < key);
        probes[at..=at + nearer].rotate_left(1);
        probes[at + nearer].key = key;
    }
}

/// How far a calibration has come.
#[derive(Debug, Clone, PartialEq)]
pub enum CalibrationStep {
    /// More steps are needed.
    Working,
    /// This is what it found.
    Done(Tuning),
    /// There is nothing to calibrate: too few rows for an index to be searched.
    Nothing,
}

/// A search of every posting, between two steps.
#[derive(Debug)]
struct Trace {
    prepared: Prepared,
    code: CodeQuery,
    set: Arc<CentroidSet>,
    probes: Vec<Probe>,
    /// Postings read so far.
    read: usize,
    state: State,
    sample: Sample,
    least: f32,
}

/// What is kept of a trace. Positions count postings from 0 in the order of reading.
#[derive(Debug, Default)]
struct Sample {
    /// Postings after which the threshold had fallen, in rising order.
    improved: Vec<u32>,
    /// For each true neighbour how many postings must be read to have it.
    hits: Vec<u32>,
    /// Postings to be read before there are k neighbours.
    enough: u32,
    /// The first posting beyond each ratio.
    cuts: [u32; RATIOS.len()],
    read: u32,
    codes: u32,
}

impl Sample {
    /// Postings that a search with this patience and ratio reads (B1).
    fn stop(&self, patience: u32, ratio: usize) -> u32 {
        let cut = self.cuts[ratio].max(self.enough).min(self.read);
        let mut last = 0_u32;
        for &at in &self.improved {
            let idle = last.saturating_add(patience).max(self.enough);
            if idle <= at {
                return idle.min(cut);
            }
            last = at + 1;
        }
        last.saturating_add(patience).max(self.enough).min(cut)
    }

    /// The share of the true neighbours found after `read` postings.
    fn recall(&self, read: u32) -> f64 {
        let found = self.hits.iter().filter(|&&needed| needed <= read).count();
        found as f64 / self.hits.len().max(1) as f64
    }

    /// Codes in the first `read` postings, about.
    fn cost(&self, read: u32) -> f64 {
        f64::from(self.codes) * f64::from(read) / f64::from(self.read.max(1))
    }
}

impl Calibration {
    /// A calibration for `k` neighbours that draws rows by `seed`. `k` around that of the searches
    /// to come: a rule fitted for 10 serves 1 to 100.
    ///
    /// # Errors
    /// [`IndexError::Parameter`] if `k` is 0 or above [`MAX_K`].
    pub fn new(k: usize, seed: u64) -> Result<Self, IndexError> {
        if !(1..=MAX_K).contains(&k) {
            let (name, expected) = ("k", "1 to 10,000");
            return Err(IndexError::Parameter { name, expected });
        }
        Ok(Self {
            k,
            sequence: Sequence::new(seed),
            given: None,
            wanted: *SAMPLES.end(),
            lost: 0,
            trace: None,
            samples: Vec::new(),
            fitted: Vec::new(),
            best: None,
            ratio: RATIOS.len(),
            scratch: Scratch::default(),
        })
    }

    /// Takes these queries instead of rows: those that users asked lately, 100 or more.
    #[must_use]
    pub fn with_queries(mut self, queries: Vec<Vec<f32>>) -> Self {
        self.wanted = queries.len();
        self.given = Some(queries);
        self
    }

    /// Does a slice of the work: reads at most 256 postings and a few rows, or replays the samples
    /// with one ratio, a millisecond or two either way. The store has no filter; it may be another
    /// snapshot each time.
    ///
    /// # Errors
    /// [`IndexError::Vector`] for a given query that cannot be served, [`IndexError::Record`] for a
    /// record that cannot be read; and the host's own.
    pub fn step<S: PostingStore>(
        &mut self,
        index: &VectorIndex,
        store: &S,
    ) -> Result<CalibrationStep, S::Error> {
        if self.samples.len() >= self.wanted || self.lost >= self.wanted {
            let rows = store.row_count()?;
            return Ok(self.fit(rows).unwrap_or(CalibrationStep::Nothing));
        }
        let Some(trace) = self.trace.take() else {
            return self.start(index, store);
        };
        match self.read(index, store, trace)? {
            Some(trace) if trace.read < trace.probes.len() => self.trace = Some(trace),
            Some(trace) => {
                if !trace.sample.hits.is_empty() {
                    self.samples.push(trace.sample);
                } else {
                    self.lost += 1;
                }
            }
            None => self.lost += 1,
        }
        Ok(CalibrationStep::Working)
    }

    /// Chooses the next query.
    fn start<S: PostingStore>(
        &mut self,
        index: &VectorIndex,
        store: &S,
    ) -> Result<CalibrationStep, S::Error> {
        let set = store.centroids();
        let chosen = match &mut self.given {
            Some(given) => given.pop().map(|query| Drawn { query, row: None }),
            None => {
                let affordable = READS / set.len().max(1);
                self.wanted = affordable.clamp(*SAMPLES.start(), *SAMPLES.end());
                self.draw(index, store, &set)?
            }
        };
        let Some(Drawn { query, row }) = chosen else {
            if set.is_empty() {
                self.wanted = 0;
            }
            self.lost += 1;
            return Ok(CalibrationStep::Working);
        };
        let prepared = Prepared::new(index.metric(), &query).map_err(IndexError::from)?;
        let code = CodeQuery::new(index.space(), &query).map_err(IndexError::from)?;
        let mut probes: Vec<Probe> = set.probes(&code, OrderRoom::default()).collect();
        if let Some((_, posting, beside)) = row
            && index.metric() != Metric::Dot
        {
            leave_out(&mut probes, posting, beside);
        }
        let read = probes.len() as u32;
        self.trace = Some(Trace {
            prepared,
            code,
            set,
            probes,
            read: 0,
            state: State::new(self.k, row.map(|(row, ..)| row)),
            sample: Sample {
                cuts: [read; RATIOS.len()],
                enough: read,
                read,
                ..Sample::default()
            },
            least: f32::INFINITY,
        });
        self.scratch.clear();
        Ok(CalibrationStep::Working)
    }

    /// A row of the table, each as likely: a posting, then a place in it, again where it is empty.
    fn draw<S: PostingStore>(
        &mut self,
        index: &VectorIndex,
        store: &S,
        set: &CentroidSet,
    ) -> Result<Option<Drawn>, S::Error> {
        let ids = set.ids();
        let dim = index.space().code_dim();
        for _ in 0..TRIES {
            let Some(&posting) = ids.get(self.sequence.below(ids.len().max(1))) else {
                return Ok(None);
            };
            let mut entries: Vec<(RowId, Vver)> = Vec::new();
            store.posting(posting, &mut |key, value| {
                match key {
                    Key::Block(..) => {
                        let block = Block::decode(value, dim)?;
                        let slots = 0..block.used();
                        entries.extend(slots.map(|slot| (block.row(slot), block.vver(slot))));
                    }
                    Key::Tail(_, row, vver) => entries.push((row, vver)),
                    _ => {}
                }
                Ok(())
            })?;
            let place = self.sequence.below(index.params().posting_max);
            let Some(&(wanted, version)) = entries.get(place) else {
                continue;
            };
            let mut drawn = None;
            store.rows(&[wanted], &mut |row, vver, vector| {
                if (row, vver) == (wanted, version) {
                    drawn = Some(Drawn {
                        query: vector.to_vec(),
                        row: Some((row, posting, entries.len())),
                    });
                }
                Ok(())
            })?;
            if drawn.is_some() {
                return Ok(drawn);
            }
        }
        Ok(None)
    }

    /// Reads a slice of a trace's postings; after the last one its rows. `None` if it is lost,
    /// because a posting changed meanwhile, a bound was broken, or too many rows are as near.
    fn read<S: PostingStore>(
        &mut self,
        index: &VectorIndex,
        store: &S,
        mut trace: Trace,
    ) -> Result<Option<Trace>, S::Error> {
        let mut search = Search {
            index,
            store,
            prepared: &trace.prepared,
            code: &trace.code,
            k: self.k,
            filtered: false,
            scratch: &mut self.scratch,
            state: trace.state,
        };
        if trace.read == 0 && !search.unassigned(&trace.set)? {
            return Ok(None);
        }
        let squares = index.metric() != Metric::Dot;
        let most = CANDIDATES_MAX.max(64 * self.k);
        let end = (trace.read + SLICE_POSTINGS).min(trace.probes.len());
        for at in trace.read..end {
            let (probe, before) = (trace.probes[at], search.threshold());
            let place = at as u32;
            trace.least = trace.least.min(probe.key);
            for (ratio, cut) in RATIOS.iter().zip(&mut trace.sample.cuts) {
                let times = (1.0 + ratio) * (1.0 + ratio);
                if squares && probe.key > trace.least.max(0.0) * times {
                    *cut = place.min(*cut);
                }
            }
            if before.is_finite() {
                trace.sample.enough = place.min(trace.sample.enough);
            }
            if !search.posting(probe, &trace.set)? || !search.tells_apart(most) {
                return Ok(None);
            }
            if search.threshold() < before {
                trace.sample.improved.push(place);
            }
        }
        trace.read = end;
        if end == trace.probes.len() {
            let Some((ranks, codes)) = search.trace()? else {
                return Ok(None);
            };
            (trace.sample.hits, trace.sample.codes) = (ranks, codes as u32);
        }
        trace.state = search.state;
        Ok(Some(trace))
    }

    /// Tries one ratio for one target; the pairs for all targets after the last. `None` without a
    /// sample.
    fn fit(&mut self, rows: u64) -> Option<CalibrationStep> {
        if self.samples.is_empty() {
            return None;
        }
        let easier = if self.given.is_some() {
            0.0
        } else {
            ROWS_ARE_EASIER
        };
        let target = f64::from(TARGETS[self.fitted.len()]);
        let aim = target + (1.0 - target) * easier;
        self.ratio -= 1;
        self.offer(aim);
        if self.ratio == 0 {
            let best = self.best.take().map(|(_, point)| point);
            self.fitted.push(best.unwrap_or_default());
            self.ratio = RATIOS.len();
        }
        let Ok(points) = self.fitted[..].try_into() else {
            return Some(CalibrationStep::Working);
        };
        Some(CalibrationStep::Done(Tuning {
            k: self.k as u16,
            samples: self.samples.len() as u32,
            rows,
            points,
        }))
    }

    /// The least patience with this ratio whose recall, less its standard error, is at least `aim`:
    /// the best pair if it takes the fewest codes. Where none reaches it, the one that reads most.
    fn offer(&mut self, aim: f64) {
        let ratio = self.ratio;
        let most = self.samples.iter().map(|sample| sample.read).max();
        // B2
        let mut low = self.fitted.last().map_or(1, |point| point.patience);
        let mut high = most.unwrap_or(1).max(low);
        let reaches = |patience: u32| {
            let (recall, error, _) = self.replay(patience, ratio);
            recall - error >= aim
        };
        if !reaches(high) && self.best.is_some() {
            return;
        }
        // Recall rises with patience.
        while low < high {
            let middle = low + (high - low) / 2;
            if reaches(middle) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        let (recall, _, cost) = self.replay(low, ratio);
        if self.best.is_none_or(|(least, _)| cost < least) {
            let point = Point {
                patience: low,
                ratio: RATIOS[ratio],
                recall: recall as f32,
                scanned: cost as f32,
            };
            self.best = Some((cost, point));
        }
    }

    /// Mean recall, its standard error, and mean cost with a patience and a ratio.
    fn replay(&self, patience: u32, ratio: usize) -> (f64, f64, f64) {
        let (mut sum, mut squares, mut cost) = (0.0, 0.0, 0.0);
        for sample in &self.samples {
            let read = sample.stop(patience, ratio);
            let recall = sample.recall(read);
            sum += recall;
            squares += recall * recall;
            cost += sample.cost(read);
        }
        let count = self.samples.len() as f64;
        let mean = sum / count;
        let variance = (squares / count - mean * mean).max(0.0);
        (mean, (variance / count).sqrt(), cost / count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::SearchParams;
    use crate::stop::StopRule;

    fn sample(sequence: &mut Sequence) -> (Sample, Vec<(f32, bool)>) {
        let read = 20 + sequence.below(100);
        let enough = sequence.below(15);
        let mut key = 1.0;
        let mut postings = Vec::new();
        for at in 0..read {
            key *= 1.0 + sequence.unit() as f32 / 10.0;
            let improved = at >= enough && sequence.below(4 + at) < 3;
            postings.push((key, improved));
        }
        let improved = (0..).zip(&postings).filter(|(_, p)| p.1).map(|(at, _)| at);
        let cut = |ratio: &f32| {
            let far = |p: &(f32, bool)| p.0 > postings[0].0 * (1.0 + ratio) * (1.0 + ratio);
            postings.iter().position(far).unwrap_or(read) as u32
        };
        let sample = Sample {
            improved: improved.collect(),
            hits: Vec::new(),
            enough: enough as u32,
            cuts: std::array::from_fn(|at| cut(&RATIOS[at])),
            read: read as u32,
            codes: 0,
        };
        (sample, postings)
    }

    // Seen to fail with: a cut before k neighbours are there, patience counted from the improving
    // posting instead of after it.
    #[test]
    fn a_replay_stops_where_the_rule_stops() {
        let mut sequence = Sequence::new(5);
        for _ in 0..2000 {
            let (sample, postings) = sample(&mut sequence);
            let (patience, ratio) = (sequence.below(30), sequence.below(RATIOS.len()));
            let params = SearchParams {
                patience,
                ratio: RATIOS[ratio],
                ..SearchParams::new(10)
            };
            let mut rule = StopRule::new(&params, postings.len(), 1, true);
            let stopped = (0..postings.len()).find(|&at| {
                let (key, improved) = postings[at];
                let stop = rule.before(key, at >= sample.enough as usize);
                rule.after(improved, 1.0);
                stop.is_some()
            });
            let expected = stopped.unwrap_or(postings.len());
            let found = sample.stop(patience as u32, ratio);
            assert_eq!(found as usize, expected, "{patience} {}", RATIOS[ratio]);
        }
    }

    /// A table of 1,200 rows, its index, and a query.
    fn world() -> (VectorIndex, crate::MemoryStore, Vec<f32>) {
        let mut sequence = Sequence::new(31);
        let mut vector = || -> Vec<f32> { (0..32).map(|_| sequence.normal()).collect() };
        let rows: Vec<Vec<f32>> = (0..1200).map(|_| vector()).collect();
        let (index, store) = table(&rows);
        (index, store, vector())
    }

    fn table(rows: &[Vec<f32>]) -> (VectorIndex, crate::MemoryStore) {
        let index = VectorIndex::new(crate::IndexParams::new(Metric::L2, 32, 1)).unwrap();
        let mut store = crate::MemoryStore::new(CentroidSet::empty(Metric::L2, 32));
        let numbered = || (0..).map(RowId).zip(rows.iter().map(Vec::as_slice));
        store.apply(1, index.build(1, numbered()).unwrap()).unwrap();
        for (id, row) in numbered() {
            store.put_row(1, id, Some((Vver(0), row.to_vec())));
        }
        (index, store)
    }

    /// Steps until there is a sample.
    fn first_sample(calibration: &mut Calibration) -> Sample {
        let (index, store, _) = world();
        while calibration.samples.is_empty() {
            let step = calibration.step(&index, &store).unwrap();
            assert_eq!(step, CalibrationStep::Working);
        }
        calibration.samples.remove(0)
    }

    // Seen to fail with hits counted some postings early.
    #[test]
    fn a_trace_says_what_a_search_of_so_many_postings_finds() {
        let (index, store, query) = world();
        let given = vec![query.clone(); 2];
        let mut calibration = Calibration::new(20, 1).unwrap().with_queries(given);
        let sample = first_sample(&mut calibration);
        let base = SearchParams {
            exact_below: 0,
            ..SearchParams::new(20)
        };
        let exact = SearchParams {
            exact: true,
            ..base
        };
        let ids = |params| -> Vec<RowId> {
            let found = index.search(&store, &query, &params).unwrap();
            found.hits.iter().map(|hit| hit.id).collect()
        };
        let truth = ids(exact);
        for probes in 1..store.centroids().len() {
            let found = ids(SearchParams {
                probes: Some(probes),
                ..base
            });
            let right = found.iter().filter(|id| truth.contains(id)).count();
            assert_eq!(
                sample.recall(probes as u32),
                right as f64 / 20.0,
                "{probes}"
            );
        }
    }

    // Seen to fail with the posting left where it was, and with all keys beyond it passed.
    #[test]
    fn a_drawn_row_has_no_part_in_its_own_centre() {
        let (index, _, query) = world();
        let code = CodeQuery::new(index.space(), &query).unwrap();
        let probe = |id: u32, key: f32| Probe {
            id: PostingId(id),
            key,
            state: crate::record::State::Ready,
            centred: code.centred(&[0.0; 64]),
        };
        let mut probes = vec![probe(1, 1.0), probe(2, 2.0), probe(3, 4.1), probe(4, 5.0)];
        leave_out(&mut probes, PostingId(2), 3);
        let order = |probes: &[Probe]| probes.iter().map(|p| (p.id.0, p.key)).collect::<Vec<_>>();
        let moved = [(1, 1.0), (3, 4.1), (2, 4.5), (4, 5.0)];
        assert_eq!(order(&probes), moved);
        // Another posting, or a lone entry, whose centre it is: nothing to tell from.
        leave_out(&mut probes, PostingId(9), 3);
        assert_eq!(order(&probes), moved);
        leave_out(&mut probes, PostingId(4), 1);
        assert_eq!(order(&probes), moved);
    }

    // Seen to fail with the drawn row a hit of its own query.
    #[test]
    fn a_row_is_no_neighbour_of_its_own() {
        let mut calibration = Calibration::new(1200, 3).unwrap();
        assert_eq!(first_sample(&mut calibration).hits.len(), 1199);
    }

    #[test]
    fn rows_of_equal_vectors_teach_nothing() {
        let mut sequence = Sequence::new(5);
        let mut rows = vec![vec![0.5; 32]; 6000];
        let (index, store) = table(&rows);
        let mut calibration = Calibration::new(10, 1).unwrap();
        while calibration.step(&index, &store).unwrap() == CalibrationStep::Working {}
        assert!(calibration.samples.is_empty() && calibration.lost > 0);
        // Others do, and are not lost among them.
        rows.extend((0..6000).map(|_| (0..32).map(|_| sequence.normal()).collect()));
        let (index, store) = table(&rows);
        let mut calibration = Calibration::new(10, 1).unwrap();
        while calibration.step(&index, &store).unwrap() == CalibrationStep::Working {}
        assert!(!calibration.fitted.is_empty() && calibration.lost > 0);
    }

    #[test]
    fn a_calibration_of_nothing_ends() {
        let index = VectorIndex::new(crate::IndexParams::new(Metric::L2, 8, 1)).unwrap();
        let store = crate::MemoryStore::new(CentroidSet::empty(Metric::L2, 8));
        let mut calibration = Calibration::new(10, 1).unwrap();
        let mut steps = 0;
        while calibration.step(&index, &store).unwrap() != CalibrationStep::Nothing {
            steps += 1;
            assert!(steps < 1000);
        }
        assert!(Calibration::new(0, 1).is_err() && Calibration::new(MAX_K + 1, 1).is_err());
    }
}
