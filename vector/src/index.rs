//! An index: what is fixed when it is made, and how a change of a row becomes records.
//!
//! Nothing is stored here: records are returned for the host to put into its trees with the row.
//!
//! Invariants: a live row has exactly the live entries that its locator lists (V4); its `vver`
//! rises for ever, by one at each change (V5).

use crate::centroid::{CentroidSet, Probe};
use crate::code::query::CodeQuery;
use crate::code::{Factors, Space, encode_extra, encode_signs};
use crate::error::VectorError;
use crate::kernel::Kernels;
use crate::limits::COLUMNS_MAX;
use crate::metric::Metric;
use crate::params::IndexParams;
use crate::record::{Key, Locator, Mark, PostingId, RowId, State, TailEntry, Vver};
use crate::store::{IndexError, Write};

/// Centres by product of which the nearest in space are taken.
const SPREAD: usize = 64;

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
    key: Option<Vec<u8>>,
    columns: Option<Vec<u8>>,
}

impl Change {
    /// Gives the row's key, for a host that does not find a row by its id: it stands in the
    /// locator from then on. A change without it keeps the key that the locator has.
    #[must_use]
    pub fn with_key(mut self, key: &[u8]) -> Self {
        self.key = Some(key.to_vec());
        self
    }

    /// Gives the entry's filter columns, which filters are told instead of the row; `None`, as
    /// without a call, where they must be told the row. An index without columns ignores them.
    ///
    /// # Errors
    /// [`IndexError::Parameter`] for more than [`COLUMNS_MAX`] bytes.
    pub fn with_columns(mut self, columns: Option<&[u8]>) -> Result<Self, IndexError> {
        check_columns(columns)?;
        self.columns = columns.map(<[u8]>::to_vec);
        Ok(self)
    }
}

pub(crate) fn check_columns(columns: Option<&[u8]>) -> Result<(), IndexError> {
    match columns {
        Some(bytes) if bytes.len() > COLUMNS_MAX => Err(IndexError::Parameter {
            name: "columns",
            expected: "at most 255 bytes",
        }),
        _ => Ok(()),
    }
}

impl VectorIndex {
    /// An index with these parameters. O(dimension).
    ///
    /// # Errors
    /// [`IndexError::Parameter`] for one outside its range, and as [`Kernels::asked`].
    pub fn new(params: IndexParams) -> Result<Self, IndexError> {
        params.check()?;
        Kernels::asked()?;
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

    /// Elements of a vector in rotated space, where it takes part in codes and centres: a multiple
    /// of 64.
    #[must_use]
    pub fn code_dim(&self) -> usize {
        self.space().code_dim()
    }

    /// Rows from which on postings are worth their centres: fewer stay unassigned.
    #[must_use]
    pub fn least_rows(&self) -> u64 {
        2 * self.params.posting_max as u64
    }

    pub(crate) fn space(&self) -> &Space {
        &self.space
    }

    /// What it was made with.
    #[must_use]
    pub fn params(&self) -> &IndexParams {
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
        let (key, columns) = (None, None);
        Ok(Change {
            row,
            query,
            key,
            columns,
        })
    }

    /// Binds a change to postings of `set` and returns its records: tail entries and locator, and
    /// marks for the version before. The new version comes back for the row. `locator` is the
    /// row's locator record. Read under the row's intent and the epoch guard.
    ///
    /// The commit's timestamp is not known here: marks wait for it ([`Write::stamp`]). Heads are
    /// not written; what the change does to counters, [`crate::Delta::of`] tells the maintainer.
    /// O(postings + replicas x dimension).
    ///
    /// # Errors
    /// [`IndexError::Record`] for a locator that cannot be decoded.
    pub fn bind(
        &self,
        set: &CentroidSet,
        change: &Change,
        locator: Option<&[u8]>,
    ) -> Result<(Vver, Vec<Write>), IndexError> {
        let old = locator.map(Locator::decode).transpose()?;
        let (mut stale, mut writes) = (0, Vec::new());
        let (mut vver, mut key) = (Vver(1), change.key.clone());
        if let Some(old) = old {
            if !old.live && change.query.is_none() {
                return Ok((old.vver, writes));
            }
            let raised = u32::from(old.live || !planted!("version_given_out_twice"));
            (stale, vver) = (old.stale, Vver(old.vver.0 + raised));
            key = key.or_else(|| old.key.clone());
            if old.live {
                for &posting in &old.postings {
                    let mark = Mark::Dead(0).encode();
                    let key = Key::Mark(posting, change.row, old.vver);
                    writes.push(Write::stamped(key, mark));
                }
                stale = stale.saturating_add(old.postings.len() as u16);
            }
            if change.query.is_none() {
                // The locator of a deleted row keeps its last version, for what comes after it.
                let live = false;
                let vver = old.vver;
                let locator = Locator {
                    live,
                    stale,
                    key,
                    ..old
                };
                writes.push(Write::put(Key::Locator(change.row), locator.encode()));
                return Ok((vver, writes));
            }
        }
        let Some(query) = &change.query else {
            return Ok((Vver(0), writes));
        };
        self.install(set, change, query, (vver, stale, key), &mut writes);
        Ok((vver, writes))
    }

    /// Binds a row that was there before the index and has no locator yet, under the version that
    /// its stored vector carries: the row itself is not written. Under the row's intent and the
    /// epoch guard, like [`VectorIndex::bind`]. O(postings + replicas x dimension).
    #[must_use]
    pub fn adopt(&self, set: &CentroidSet, change: &Change, vver: Vver) -> Vec<Write> {
        let mut writes = Vec::new();
        if let Some(query) = &change.query {
            let fresh = (vver, 0, change.key.clone());
            self.install(set, change, query, fresh, &mut writes);
        }
        writes
    }

    /// Entries and locator of a vector.
    fn install(
        &self,
        set: &CentroidSet,
        change: &Change,
        query: &CodeQuery,
        (vver, stale, key): (Vver, u16, Option<Vec<u8>>),
        writes: &mut Vec<Write>,
    ) {
        let postings = self.place(set, query);
        for &posting in &postings {
            if let Some(centre) = set.centre(posting) {
                let columns = change.columns.as_deref();
                let entry = self.entry(query.rotated(), &centre, columns);
                writes.push(Write::put(Key::Tail(posting, change.row, vver), entry));
            }
        }
        let locator = Locator {
            vver,
            live: true,
            stale,
            postings,
            key,
        };
        writes.push(Write::put(Key::Locator(change.row), locator.encode()));
    }

    /// The tail entry of a vector in rotated space. O(32 dim).
    pub(crate) fn entry(&self, rotated: &[f32], centre: &[f32], columns: Option<&[u8]>) -> Vec<u8> {
        let (code, factors) = encode_signs(self.params.metric, rotated, centre);
        let (planes, more) = self.further(rotated, centre);
        TailEntry {
            factors,
            code: &code,
            extra: self.params.extra_bits.then_some((more, &planes[..])),
            columns: columns.filter(|_| self.params.columns),
        }
        .encode()
    }

    /// The postings that take a vector: the nearest that do not drain, up to `replicas` of them
    /// within 20 % of the nearest; the unassigned one where there is none.
    pub(crate) fn place(&self, set: &CentroidSet, query: &CodeQuery) -> Vec<PostingId> {
        let open = |_, state| state != State::Draining;
        let near = self.nearest(set, query, self.params.replicas, &open);
        let Some(first) = near.first() else {
            return vec![PostingId::UNASSIGNED];
        };
        let most = 1.2 * first.centred.far;
        let within = near.iter().take_while(|probe| probe.centred.far <= most);
        within.map(|probe| probe.id).collect()
    }

    /// The postings whose centres are the nearest, of those that `accept` takes. Near is meant in
    /// the space, also with [`Metric::Dot`]: a code is the better the nearer its centre, while the
    /// greatest product would gather everything around the longest centres; there the nearest of
    /// the [`SPREAD`] greatest products are taken. O(postings + count x dimension).
    pub(crate) fn nearest(
        &self,
        set: &CentroidSet,
        query: &CodeQuery,
        count: usize,
        accept: &dyn Fn(PostingId, State) -> bool,
    ) -> Vec<Probe> {
        let open = set
            .order(query)
            .filter(|probe| accept(probe.id, probe.state));
        if self.params.metric != Metric::Dot {
            return open.take(count).collect();
        }
        let mut near: Vec<Probe> = open.take(SPREAD.max(count)).collect();
        near.sort_by(|a, b| {
            a.centred
                .far
                .total_cmp(&b.centred.far)
                .then(a.id.cmp(&b.id))
        });
        near.truncate(count);
        near
    }
}
