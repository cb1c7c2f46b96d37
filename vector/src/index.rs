//! An index: what is fixed when it is made, and how a change of a row becomes records.
//!
//! Nothing is stored here: records are returned for the host to put into its trees with the row.
//!
//! Invariants: a live row has exactly the live entries that its locator lists (V4); its `vver`
//! rises for ever, by one at each change (V5).

use crate::centroid::CentroidSet;
use crate::code::query::CodeQuery;
use crate::code::{Factors, Space, encode_extra, encode_signs};
use crate::error::VectorError;
use crate::limits::MAX_DIM;
use crate::metric::Metric;
use crate::record::{Key, Locator, Mark, PostingId, RowId, State, TailEntry, Vver};
use crate::store::{IndexError, Write};

/// What an index is made with; stored in its meta record and never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexParams {
    /// How near is measured.
    pub metric: Metric,
    /// Elements of a vector.
    pub dim: usize,
    /// Seed of the rotation and of clustering.
    pub seed: u64,
    /// Three further bits for each dimension as a second stage, besides the first.
    pub extra_bits: bool,
    /// Postings that a row stands in, 1 to 4.
    pub replicas: usize,
    /// Entries of a posting at most, 8 or more.
    pub posting_max: usize,
}

impl IndexParams {
    /// The defaults: second stage, one posting for a row, postings of at most 112 entries.
    #[must_use]
    pub fn new(metric: Metric, dim: usize, seed: u64) -> Self {
        Self {
            metric,
            dim,
            seed,
            extra_bits: true,
            replicas: 1,
            posting_max: 112,
        }
    }
}

/// An index over rows that a host keeps.
#[derive(Debug, Clone)]
pub struct VectorIndex {
    params: IndexParams,
    space: Space,
}

/// A change of a row, ready to be bound: rotated, its posting still open.
#[derive(Debug, Clone)]
pub struct Change {
    row: RowId,
    /// `None` deletes.
    query: Option<CodeQuery>,
}

impl VectorIndex {
    /// An index with these parameters. O(dimension).
    ///
    /// # Errors
    /// [`IndexError::Parameter`] for one outside its range.
    pub fn new(params: IndexParams) -> Result<Self, IndexError> {
        let checks = [
            ("dim", (1..=MAX_DIM).contains(&params.dim), "1 to 16,384"),
            ("replicas", (1..=4).contains(&params.replicas), "1 to 4"),
            (
                "posting_max",
                (8..=1 << 20).contains(&params.posting_max),
                "8 to 2^20",
            ),
        ];
        if let Some(&(name, _, expected)) = checks.iter().find(|(_, fits, _)| !fits) {
            return Err(IndexError::Parameter { name, expected });
        }
        let space = Space::new(params.metric, params.dim, params.seed);
        Ok(Self { params, space })
    }

    /// How near is measured.
    #[must_use]
    pub fn metric(&self) -> Metric {
        self.params.metric
    }

    /// Elements of a vector.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.params.dim
    }

    pub(crate) fn space(&self) -> &Space {
        &self.space
    }

    pub(crate) fn params(&self) -> &IndexParams {
        &self.params
    }

    pub(crate) fn has_extra(&self) -> bool {
        self.params.extra_bits
    }

    pub(crate) fn further(&self, row: &[f32], centre: &[f32]) -> (Vec<u8>, Factors) {
        if self.params.extra_bits {
            encode_extra(self.params.metric, row, centre)
        } else {
            (Vec::new(), Factors::from_bytes([0; 8]))
        }
    }

    /// Makes a change ready: checks and rotates the vector, `None` deletes. Needs no guard.
    ///
    /// # Errors
    /// What [`Metric::check`] says of the vector.
    pub fn prepare(&self, row: RowId, vector: Option<&[f32]>) -> Result<Change, VectorError> {
        let query = vector
            .map(|vector| CodeQuery::new(&self.space, vector))
            .transpose()?;
        Ok(Change { row, query })
    }

    /// Binds a change to postings of `set` and returns its records: tail entries and locator, and
    /// marks for the version before. The new version comes back for the row. `locator` is the
    /// row's locator record, `ts` the commit's timestamp. Read under the row's intent and the
    /// epoch guard.
    ///
    /// Heads are not written: their counters are the host's to keep and are made right by a fold.
    ///
    /// # Errors
    /// [`IndexError::Record`] for a locator that cannot be decoded.
    pub fn bind(
        &self,
        set: &CentroidSet,
        change: &Change,
        locator: Option<&[u8]>,
        ts: u64,
    ) -> Result<(Vver, Vec<Write>), IndexError> {
        let old = locator.map(Locator::decode).transpose()?;
        let vver = Vver(old.as_ref().map_or(1, |old| old.vver.0 + 1));
        let (mut stale, mut writes) = (0, Vec::new());
        if let Some(old) = &old {
            stale = old.stale;
            if old.live {
                for &posting in &old.postings {
                    let mark = Mark::Dead(ts).encode();
                    writes.push((Key::Mark(posting, change.row, old.vver), Some(mark)));
                }
                stale = stale.saturating_add(old.postings.len() as u16);
            } else if change.query.is_none() {
                return Ok((old.vver, Vec::new()));
            }
        }
        let Some(query) = &change.query else {
            // The locator of a deleted row keeps its last version, for what comes after it.
            if let Some(old) = old {
                let locator = Locator {
                    live: false,
                    stale,
                    ..old
                };
                writes.push((Key::Locator(change.row), Some(locator.encode())));
                return Ok((locator.vver, writes));
            }
            return Ok((Vver(0), writes));
        };
        let postings = self.place(set, query);
        for &posting in &postings {
            let Some(centre) = set.centre(posting) else {
                continue;
            };
            let (code, factors) = encode_signs(self.params.metric, query.rotated(), &centre);
            let (planes, more) = self.further(query.rotated(), &centre);
            let extra = self.params.extra_bits.then_some((more, &planes[..]));
            let entry = TailEntry {
                factors,
                code: &code,
                extra,
            }
            .encode();
            writes.push((Key::Tail(posting, change.row, vver), Some(entry)));
        }
        let locator = Locator {
            vver,
            live: true,
            stale,
            postings,
        };
        writes.push((Key::Locator(change.row), Some(locator.encode())));
        Ok((vver, writes))
    }

    /// The postings that take a vector: the nearest that do not drain, up to `replicas` of them
    /// within 20 % of the nearest; the unassigned one where there is none.
    fn place(&self, set: &CentroidSet, query: &CodeQuery) -> Vec<PostingId> {
        let mut open = set
            .order(query)
            .filter(|probe| probe.state != State::Draining);
        let Some(first) = open.next() else {
            return vec![PostingId::UNASSIGNED];
        };
        let mut postings = vec![first.id];
        let near = open.take(self.params.replicas - 1);
        let within = near.take_while(|probe| probe.centred.far <= 1.2 * first.centred.far);
        postings.extend(within.map(|probe| probe.id));
        postings
    }
}
