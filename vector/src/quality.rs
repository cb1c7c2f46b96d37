//! How well the postings fit the rows: what recall at a given effort rests on.

use std::collections::BTreeMap;

use crate::code::query::CodeQuery;
use crate::index::VectorIndex;
use crate::record::{Locator, PostingId, State};
use crate::store::PostingStore;

/// The fit of postings and rows; see [`VectorIndex::quality`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Quality {
    /// Rows looked at.
    pub rows: u64,
    /// Rows with a nearer centre than those that they stand with ("nearest posting assignment").
    pub violations: u64,
    /// Of these, rows more than 2 % nearer to it.
    pub far_violations: u64,
    /// Mean of the squared distances from the centre, relative to that from the nearest one.
    pub stretch: f64,
    /// Root of the mean square of distances from the centre.
    pub radius: f64,
    /// Root of the mean square of how far a posting's mean is from its centre, each in units of
    /// its radius.
    pub drift: f64,
}

impl VectorIndex {
    /// Compares each `every`-th row of the store with all centres, by exact distances. Codes are
    /// not looked at. O(rows / every x postings x dimension).
    ///
    /// # Errors
    /// [`crate::IndexError::Record`] for a locator that cannot be read; and the host's own.
    pub fn quality<S: PostingStore>(&self, store: &S, every: usize) -> Result<Quality, S::Error> {
        let set = store.centroids();
        let mut quality = Quality::default();
        let (mut here, mut best, mut at) = (0.0, 0.0, 0);
        // Sum of vectors, of squared distances, and their number, by posting.
        let mut sums: BTreeMap<PostingId, (Vec<f32>, f64, f64)> = BTreeMap::new();
        let mut listed = Vec::new();
        store.all_rows(&mut |row, _, vector| {
            at += 1;
            if at % every.max(1) == 0 {
                listed.push((row, self.space().rotate(vector)?));
            }
            Ok(())
        })?;
        for (row, vector) in listed {
            let mut postings = Vec::new();
            store.locator(row, &mut |_, value| {
                postings = Locator::decode(value)?.postings;
                Ok(())
            })?;
            let query = CodeQuery::of_rotated(self.metric(), vector);
            let near = self.nearest(&set, &query, 1, &|_, state| state != State::Draining);
            let far = |id: &PostingId| {
                let centre = set.centre(*id)?;
                Some((query.centred(&centre).far, *id, centre))
            };
            let own = postings
                .iter()
                .filter_map(far)
                .min_by(|a, b| a.0.total_cmp(&b.0));
            let (Some(near), Some((far, id, centre))) = (near.first(), own) else {
                continue;
            };
            let nearest = near.centred.far;
            quality.rows += 1;
            quality.violations += u64::from(nearest < far);
            quality.far_violations += u64::from(1.02 * nearest < far);
            let square = f64::from(far * far);
            here += square;
            best += f64::from(nearest * nearest);
            let sum = sums
                .entry(id)
                .or_insert((vec![0.0; centre.len()], 0.0, 0.0));
            for ((sum, x), c) in sum.0.iter_mut().zip(query.rotated()).zip(&centre) {
                *sum += x - c;
            }
            (sum.1, sum.2) = (sum.1 + square, sum.2 + 1.0);
        }
        let mut drift = 0.0;
        for (sum, square, count) in sums.values() {
            let mean: f64 = sum.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            drift += mean / count / square.max(f64::MIN_POSITIVE);
        }
        quality.stretch = here / best;
        quality.radius = (here / quality.rows.max(1) as f64).sqrt();
        quality.drift = (drift / sums.len().max(1) as f64).sqrt();
        Ok(quality)
    }
}
