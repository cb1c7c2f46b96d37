//! A new index over rows that are there already: lists, then the records of each.
//!
//! Halving gives lists of even length quickly, but the first cuts bind all later ones. Rounds of
//! k-means over the finished lists mend that: each row goes to its nearest centre, lists that
//! became too long are halved again, empty ones vanish.

use crate::centroid::CentroidSet;
use crate::cluster::{Rows, lists, split_down};
use crate::code::encode_signs;
use crate::code::query::CodeQuery;
use crate::index::{VectorIndex, check_columns};
use crate::kernel::Kernels;
use crate::metric::Metric;
use crate::record::{
    BlockBuilder, Centroid, Extra, Head, IndexState, Key, Locator, Meta, PostingId, RowId, State,
    TailEntry, Vver, narrow,
};
use crate::store::{IndexError, Write};

/// Rounds of k-means over the lists.
const ROUNDS: usize = 4;

/// A row for a new index.
#[derive(Debug, Clone, Copy)]
pub struct NewRow<'r> {
    /// Its id.
    pub id: RowId,
    /// Its vector, whose version is 0.
    pub vector: &'r [f32],
    /// As in [`crate::Change::with_key`].
    pub key: Option<&'r [u8]>,
    /// As in [`crate::Change::with_columns`].
    pub columns: Option<&'r [u8]>,
}

impl<'r> From<(RowId, &'r [f32])> for NewRow<'r> {
    fn from((id, vector): (RowId, &'r [f32])) -> Self {
        let (key, columns) = (None, None);
        Self {
            id,
            vector,
            key,
            columns,
        }
    }
}

impl VectorIndex {
    /// The records of a new index over these rows, which all have version 0: meta, centroids,
    /// heads, sealed blocks. Implied locators (live, version 0) are written out.
    ///
    /// All in memory: 4 bytes for each element. O(rows x dimension x log(postings)).
    ///
    /// # Errors
    /// [`IndexError::Vector`] for a row that the metric does not accept,
    /// [`IndexError::Parameter`] for columns above their limit.
    pub fn build<'r, R: Into<NewRow<'r>>>(
        &self,
        epoch: u64,
        rows: impl IntoIterator<Item = R>,
    ) -> Result<Vec<Write>, IndexError> {
        let (mut given, mut elements) = (Vec::new(), Vec::new());
        for row in rows {
            let row: NewRow<'r> = row.into();
            check_columns(row.columns)?;
            elements.extend(self.space().rotate(row.vector)?);
            given.push(row);
        }
        let rows = Rows {
            dim: self.space().code_dim(),
            elements: &elements,
        };
        // Filled to nine tenths, so that the first inserts split nothing.
        let most = self.params().posting_max * 9 / 10;
        let mut writes = Vec::new();
        let mut next = 1;
        for list in self.lists(rows, most.max(2))? {
            let posting = PostingId(next);
            next += 1;
            self.seal_new(epoch, posting, rows, &list, &given, &mut writes);
            for &member in &list {
                let locator = Locator {
                    vver: Vver(0),
                    live: true,
                    stale: 0,
                    postings: vec![posting],
                    key: given[member].key.map(<[u8]>::to_vec),
                };
                let key = Key::Locator(given[member].id);
                writes.push(Write::put(key, locator.encode()));
            }
        }
        let meta = Meta {
            epoch,
            next_posting: next,
            centroids: next - 1,
            ..Meta::new(*self.params(), IndexState::Ready)
        };
        writes.push(Write::put(Key::Meta, meta.encode()));
        Ok(writes)
    }

    /// Postings without entries for a table of `rows` rows, placed by a sample of them: how an
    /// index over a table in use begins, whose rows then come in slices. The new meta record and
    /// the records of one system transaction, which is to be published as the new meta's epoch.
    ///
    /// All of the sample in memory: 4 bytes for each element. O(sample x dimension x
    /// log(postings)).
    ///
    /// # Errors
    /// [`IndexError::Vector`] for a row that the metric does not accept.
    pub fn seed<'r>(
        &self,
        meta: &Meta,
        sample: impl IntoIterator<Item = &'r [f32]>,
        rows: u64,
    ) -> Result<(Meta, Vec<Write>), IndexError> {
        let mut elements = Vec::new();
        for row in sample {
            elements.extend(self.space().rotate(row)?);
        }
        let sample = Rows {
            dim: self.space().code_dim(),
            elements: &elements,
        };
        let share = sample.len() as f64 / (rows.max(1) as f64);
        let most = (self.params().posting_max as f64 * 0.7 * share.min(1.0)) as usize;
        let mut meta = meta.clone();
        meta.epoch += 1;
        let mut writes = Vec::new();
        for list in self.lists(sample, most.max(2))? {
            let posting = PostingId(meta.next_posting);
            meta.next_posting += 1;
            meta.centroids += 1;
            let centroid = centroid(State::Ready, meta.epoch, sample, &list);
            writes.push(Write::put(Key::Head(posting), Head::default().encode()));
            writes.push(Write::put(Key::Centroid(posting), centroid.encode()));
        }
        writes.push(Write::put(Key::Meta, meta.encode()));
        Ok((meta, writes))
    }

    /// Centroid, head and blocks of a new posting with these members of `rows`.
    fn seal_new(
        &self,
        epoch: u64,
        posting: PostingId,
        rows: Rows<'_>,
        members: &[usize],
        given: &[NewRow<'_>],
        writes: &mut Vec<Write>,
    ) {
        let centroid = centroid(State::Ready, epoch, rows, members);
        let centre = &centroid.centre;
        let head = Head {
            live: members.len() as u32,
            ..Head::default()
        };
        let mut block = BlockBuilder::new(rows.dim, head.generation);
        let mut number = 0;
        for (place, &member) in members.iter().enumerate() {
            let row = rows.row(member);
            let (code, factors) = encode_signs(self.params().metric, row, centre);
            let (planes, more) = self.further(row, centre);
            let entry = TailEntry {
                factors,
                code: &code,
                extra: self.params().extra_bits.then_some((more, &planes[..])),
                columns: given[member].columns.filter(|_| self.params().columns),
            };
            block.push(given[member].id, Vver(0), &entry);
            if block.is_full() || place + 1 == members.len() {
                let full =
                    std::mem::replace(&mut block, BlockBuilder::new(rows.dim, head.generation));
                put_sealed(posting, number, full, writes);
                number += 1;
            }
        }
        writes.push(Write::put(Key::Head(posting), head.encode()));
        writes.push(Write::put(Key::Centroid(posting), centroid.encode()));
    }

    /// Rows by posting, none longer than `most`.
    fn lists(&self, rows: Rows<'_>, most: usize) -> Result<Vec<Vec<usize>>, IndexError> {
        let (metric, seed) = (self.params().metric, self.params().seed);
        // The rounds cut what is too long: lists that begin a third longer end near the middle of
        // what a posting may hold, and not at its half.
        let mut found = lists(metric, rows, most * 4 / 3, seed);
        if metric == Metric::Dot {
            // Halves by direction are not mended by distance.
            return Ok(found);
        }
        for round in 0..ROUNDS {
            let records: Vec<(PostingId, Vec<u8>)> = (0..)
                .zip(&found)
                .map(|(place, list)| {
                    let record = centroid(State::Ready, 0, rows, list);
                    (PostingId(place), record.encode())
                })
                .collect();
            let values = records.iter().map(|(id, value)| (*id, &value[..]));
            let set = CentroidSet::load(metric, rows.dim, 0, values)?;
            let mut moved = vec![Vec::new(); found.len()];
            for member in 0..rows.len() {
                let query = CodeQuery::of_rotated(metric, rows.row(member).to_vec());
                if let Some(probe) = set.order(&query).next() {
                    moved[probe.id.0 as usize].push(member);
                }
            }
            let whole = moved.into_iter().filter(|list| !list.is_empty());
            let parts = whole
                .map(|list| split_down(metric, rows, list, most, seed.wrapping_add(round as u64)));
            found = parts.flatten().collect();
        }
        Ok(found)
    }
}

/// The records of a block and of what lies beside it.
pub(crate) fn put_sealed(
    posting: PostingId,
    number: u32,
    block: BlockBuilder,
    writes: &mut Vec<Write>,
) {
    let (value, extra, columns) = block.finish();
    writes.push(Write::put(Key::Block(posting, number), value));
    for (group, value) in (Extra::group(number, 0)..).zip(extra) {
        writes.push(Write::put(Key::Extra(posting, group), value));
    }
    if let Some(value) = columns {
        writes.push(Write::put(Key::Columns(posting, number), value));
    }
}

/// The centroid of some rows: their mean, as binary16 holds it, and their spread around it.
pub(crate) fn centroid(state: State, epoch: u64, rows: Rows<'_>, members: &[usize]) -> Centroid {
    let mut centre = rows.mean(members);
    narrow(&mut centre);
    let mut square = 0.0;
    for &member in members {
        let mut one = [0.0];
        Kernels::detect().l2_squared(&centre, rows.row(member), &mut one);
        square += f64::from(one[0]);
    }
    let radius = (square / members.len().max(1) as f64).sqrt() as f32;
    Centroid {
        state,
        epoch,
        // Squares of huge elements overflow; then the spread is as good as unknown.
        radius: if radius.is_finite() { radius } else { 0.0 },
        children: [PostingId(0); 2],
        centre,
    }
}
