//! A new index over rows that are there already: lists, then the records of each.
//!
//! Halving gives lists of even length quickly, but the first cuts bind all later ones. Rounds of
//! k-means over the finished lists mend that: each row goes to its nearest centre, lists that
//! became too long are halved again, empty ones vanish.

use crate::centroid::CentroidSet;
use crate::cluster::{Rows, lists, split_down};
use crate::code::encode_signs;
use crate::code::query::CodeQuery;
use crate::index::VectorIndex;
use crate::metric::Metric;
use crate::record::{
    BlockBuilder, Centroid, Head, Key, Locator, Meta, PostingId, RowId, State, TailEntry, Vver,
    narrow,
};
use crate::store::{IndexError, Write};

/// Rounds of k-means over the lists.
const ROUNDS: usize = 4;

impl VectorIndex {
    /// The records of a new index over these rows, which all have version 0: meta, centroids,
    /// heads, sealed blocks. Implied locators (live, version 0) are written out.
    ///
    /// All in memory: 4 bytes for each element. O(rows x dimension x log(postings)).
    ///
    /// # Errors
    /// [`IndexError::Vector`] for a row that the metric does not accept.
    pub fn build<'r>(
        &self,
        epoch: u64,
        rows: impl IntoIterator<Item = (RowId, &'r [f32])>,
    ) -> Result<Vec<Write>, IndexError> {
        let (mut ids, mut elements) = (Vec::new(), Vec::new());
        for (id, row) in rows {
            ids.push(id);
            elements.extend(self.space().rotate(row)?);
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
            self.seal(epoch, posting, rows, &list, &ids, &mut writes);
            for &member in &list {
                let locator = Locator {
                    vver: Vver(0),
                    live: true,
                    stale: 0,
                    postings: vec![posting],
                };
                writes.push((Key::Locator(ids[member]), Some(locator.encode())));
            }
        }
        let meta = Meta {
            metric: self.params().metric,
            dim: self.params().dim as u16,
            seed: self.params().seed,
            bits: if self.params().extra_bits { 4 } else { 1 },
            replicas: self.params().replicas as u8,
            posting_max: self.params().posting_max as u32,
            epoch,
            next_posting: next,
        };
        writes.push((Key::Meta, Some(meta.encode())));
        Ok(writes)
    }

    /// Centroid, head and blocks of a new posting with these members of `rows`.
    fn seal(
        &self,
        epoch: u64,
        posting: PostingId,
        rows: Rows<'_>,
        members: &[usize],
        ids: &[RowId],
        writes: &mut Vec<Write>,
    ) {
        let centroid = centroid(epoch, rows.mean(members));
        let centre = &centroid.centre;
        let mut block = BlockBuilder::new(rows.dim);
        let mut number = 0;
        for (place, &member) in members.iter().enumerate() {
            let row = rows.row(member);
            let (code, factors) = encode_signs(self.params().metric, row, centre);
            let (planes, more) = self.further(row, centre);
            let extra = self.params().extra_bits.then_some((more, &planes[..]));
            block.push(
                ids[member],
                Vver(0),
                &TailEntry {
                    factors,
                    code: &code,
                    extra,
                },
            );
            if block.is_full() || place + 1 == members.len() {
                let full = std::mem::replace(&mut block, BlockBuilder::new(rows.dim));
                let (value, extra) = full.finish();
                writes.push((Key::Block(posting, number), Some(value)));
                if let Some(extra) = extra {
                    writes.push((Key::Extra(posting, number), Some(extra)));
                }
                number += 1;
            }
        }
        let head = Head {
            live: members.len() as u32,
            ..Head::default()
        };
        writes.push((Key::Head(posting), Some(head.encode())));
        writes.push((Key::Centroid(posting), Some(centroid.encode())));
    }

    /// Rows by posting, none longer than `most`.
    fn lists(&self, rows: Rows<'_>, most: usize) -> Result<Vec<Vec<usize>>, IndexError> {
        let (metric, seed) = (self.params().metric, self.params().seed);
        let mut found = lists(metric, rows, most, seed);
        if metric == Metric::Dot {
            // Halves by direction are not mended by distance.
            return Ok(found);
        }
        for round in 0..ROUNDS {
            let records: Vec<(PostingId, Vec<u8>)> = (0..)
                .zip(&found)
                .map(|(place, list)| (PostingId(place), centroid(0, rows.mean(list)).encode()))
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

/// A ready centroid with this centre.
fn centroid(epoch: u64, mut centre: Vec<f32>) -> Centroid {
    narrow(&mut centre);
    let children = [PostingId(0); 2];
    Centroid {
        state: State::Ready,
        epoch,
        radius: 0.0,
        children,
        centre,
    }
}
