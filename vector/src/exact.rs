//! Exact search: every row is measured, so the answer is the definition of "nearest".
//!
//! The host walks its rows in any order and offers those that its filter lets through; they are
//! gathered in an aligned block, and a full block goes through the kernels at once. No row is
//! allocated for. This is the search of a table without a vector index, and the oracle that every
//! approximate search is compared with.
//!
//! Invariants: E1 every offered row is measured exactly once, by `finish` at the latest; E2 the
//! result is the `k` smallest of all offered rows by (distance, id), whatever the order of offers.

use crate::error::VectorError;
use crate::limits::{BLOCK_ALIGN, MAX_K, block_rows};
use crate::prepared::Prepared;
use crate::topk::{Neighbour, TopK};

/// A scan in progress: offer rows, then finish.
///
/// ```
/// use terrane_vector::{ExactScan, Metric, Prepared};
///
/// # fn main() -> Result<(), terrane_vector::VectorError> {
/// let query = Prepared::new(Metric::Dot, &[1.0, 1.0])?;
/// let mut scan = ExactScan::new(&query, 1)?;
/// scan.offer(7_u64, &[1.0, 2.0])?;
/// scan.offer_bytes(8, &[0, 0, 128, 64, 0, 0, 128, 64])?; // 4.0 twice, as stored
/// let hits = scan.finish()?;
/// assert_eq!((hits[0].id, hits[0].distance), (8, -8.0));
/// # Ok(())
/// # }
/// ```
///
/// After an error the scan has lost rows and is of no further use.
#[derive(Debug)]
pub struct ExactScan<'q, T> {
    query: &'q Prepared,
    nearest: TopK<T>,
    block: Block,
    /// Of the rows in the block, in their order.
    ids: Vec<T>,
    /// Room for the distances of a full block.
    distances: Vec<f32>,
}

impl<'q, T: Ord> ExactScan<'q, T> {
    /// A scan for the `k` nearest rows; `k` = 0 finds none. Its block takes 6 KiB, or one row.
    ///
    /// # Errors
    /// [`VectorError::TooMany`] if `k` is above [`MAX_K`].
    pub fn new(query: &'q Prepared, k: usize) -> Result<Self, VectorError> {
        if k > MAX_K {
            return Err(VectorError::TooMany { found: k });
        }
        let rows = block_rows(query.dim());
        Ok(Self {
            query,
            nearest: TopK::new(k),
            block: Block::new(rows * query.dim()),
            ids: Vec::with_capacity(rows),
            distances: vec![0.0; rows],
        })
    }

    /// Offers a row. O(dimension).
    ///
    /// # Errors
    /// [`VectorError::Dimension`] if the row has another dimension than the query; what
    /// [`crate::Metric::check`] says of a row offered up to now whose distance is not finite.
    pub fn offer(&mut self, id: T, row: &[f32]) -> Result<(), VectorError> {
        let expected = self.query.dim();
        if row.len() != expected {
            return Err(VectorError::Dimension {
                expected,
                found: row.len(),
            });
        }
        self.next_row().copy_from_slice(row);
        self.accept(id)
    }

    /// Offers a row as it is stored: elements as little-endian `f32`, at any alignment.
    ///
    /// # Errors
    /// [`VectorError::ByteLength`] if these are not four bytes for every element of the query;
    /// otherwise as [`ExactScan::offer`].
    pub fn offer_bytes(&mut self, id: T, row: &[u8]) -> Result<(), VectorError> {
        let expected = self.query.dim() * size_of::<f32>();
        if row.len() != expected {
            return Err(VectorError::ByteLength {
                expected,
                found: row.len(),
            });
        }
        for (element, bytes) in self.next_row().iter_mut().zip(row.as_chunks().0) {
            *element = f32::from_le_bytes(*bytes);
        }
        self.accept(id)
    }

    /// Measures what is left and returns the nearest rows, nearest first, equal distances by id.
    ///
    /// Fewer than `k` only if fewer rows were offered.
    ///
    /// # Errors
    /// What [`crate::Metric::check`] says of a row whose distance is not finite.
    pub fn finish(mut self) -> Result<Vec<Neighbour<T>>, VectorError> {
        self.measure()?;
        Ok(self.nearest.into_sorted_vec())
    }

    /// The distance above which no further row can be among the nearest. It lags behind the
    /// offers by at most a block.
    #[must_use]
    pub fn threshold(&self) -> f32 {
        self.nearest.threshold()
    }

    /// Where the next row goes. The block is never full between calls.
    fn next_row(&mut self) -> &mut [f32] {
        let dim = self.query.dim();
        let start = self.ids.len() * dim;
        &mut self.block.elements_mut()[start..start + dim]
    }

    /// Counts in the row that was just written and measures the block if it is full.
    fn accept(&mut self, id: T) -> Result<(), VectorError> {
        self.ids.push(id);
        if self.ids.len() == self.distances.len() {
            self.measure()?;
        }
        debug_assert!(
            self.ids.len() < self.distances.len(),
            "room for the next row (E1)"
        );
        Ok(())
    }

    /// Measures the rows of the block and empties it.
    fn measure(&mut self) -> Result<(), VectorError> {
        let dim = self.query.dim();
        let rows = &self.block.elements()[..self.ids.len() * dim];
        let distances = &mut self.distances[..self.ids.len()];
        self.query.distances(rows, distances);
        for ((id, &distance), row) in self.ids.drain(..).zip(&*distances).zip(rows.chunks(dim)) {
            if !distance.is_finite() {
                // The heap keeps no NaN: a row that should never have been stored is reported
                // here rather than lost.
                self.query.metric().check(row)?;
            }
            self.nearest.push(distance, id);
        }
        Ok(())
    }
}

/// The `k` nearest of `rows` whose id `accept` lets through, nearest first, equal distances by id.
///
/// O(rows x dimension).
///
/// # Errors
/// As [`ExactScan::new`] and [`ExactScan::offer`].
pub fn nearest<'r, T: Ord>(
    query: &Prepared,
    k: usize,
    rows: impl IntoIterator<Item = (T, &'r [f32])>,
    mut accept: impl FnMut(&T) -> bool,
) -> Result<Vec<Neighbour<T>>, VectorError> {
    let mut scan = ExactScan::new(query, k)?;
    for (id, row) in rows {
        if accept(&id) {
            scan.offer(id, row)?;
        }
    }
    scan.finish()
}

/// Elements that start on a cache line: with rows of whole lines no load straddles two.
#[derive(Debug)]
struct Block {
    /// The elements, and before them what alignment takes.
    memory: Vec<f32>,
    start: usize,
    len: usize,
}

impl Block {
    /// A block of `len` zeros.
    fn new(len: usize) -> Self {
        let slack = BLOCK_ALIGN / size_of::<f32>() - 1;
        let memory = vec![0.0_f32; len + slack];
        // The vector never grows, so its memory stays where it is.
        let start = memory.as_ptr().align_offset(BLOCK_ALIGN);
        assert!(start <= slack, "a cache line begins within a cache line");
        Self { memory, start, len }
    }

    fn elements(&self) -> &[f32] {
        &self.memory[self.start..self.start + self.len]
    }

    fn elements_mut(&mut self) -> &mut [f32] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Metric;

    #[test]
    fn a_block_is_aligned_and_as_long_as_asked() {
        for len in [1, 15, 16, 384] {
            let mut block = Block::new(len);
            assert_eq!(block.elements().as_ptr().align_offset(BLOCK_ALIGN), 0);
            assert_eq!(block.elements_mut().len(), len);
        }
    }

    #[test]
    fn rows_of_another_shape_are_refused_and_not_counted() {
        let query = Prepared::new(Metric::L2, &[0.0; 3]).unwrap();
        let mut scan = ExactScan::new(&query, 5).unwrap();
        let refused = scan.offer(1, &[0.0; 2]);
        assert_eq!(
            refused,
            Err(VectorError::Dimension {
                expected: 3,
                found: 2
            })
        );
        let refused = scan.offer_bytes(1, &[0; 13]);
        assert_eq!(
            refused,
            Err(VectorError::ByteLength {
                expected: 12,
                found: 13
            })
        );
        assert!(scan.finish().unwrap().is_empty());
    }

    #[test]
    fn k_has_a_limit() {
        let query = Prepared::new(Metric::L2, &[0.0]).unwrap();
        assert!(ExactScan::<u64>::new(&query, MAX_K).is_ok());
        let refused = ExactScan::<u64>::new(&query, MAX_K + 1).err();
        assert_eq!(refused, Some(VectorError::TooMany { found: MAX_K + 1 }));
    }

    #[test]
    fn a_row_that_should_not_be_stored_is_reported_not_lost() {
        for metric in Metric::ALL {
            for bad in [f32::NAN, f32::INFINITY] {
                let query = Prepared::new(metric, &[1.0, 2.0]).unwrap();
                let mut scan = ExactScan::new(&query, 5).unwrap();
                scan.offer(1, &[1.0, 1.0]).unwrap();
                scan.offer(2, &[1.0, bad]).unwrap();
                let found = scan.finish().err();
                assert!(
                    matches!(found, Some(VectorError::NotFinite { position: 1, .. })),
                    "{metric}, {bad}: {found:?}"
                );
            }
        }
        let query = Prepared::new(Metric::Cosine, &[1.0, 2.0]).unwrap();
        let found = nearest(&query, 1, [(1, &[0.0, 0.0][..])], |_| true).err();
        assert_eq!(
            found,
            Some(VectorError::ZeroNorm {
                metric: Metric::Cosine,
                dim: 2
            })
        );
    }

    #[test]
    fn the_threshold_is_that_of_whole_blocks() {
        let query = Prepared::new(Metric::L2, &[0.0; 384]).unwrap();
        let mut scan = ExactScan::new(&query, 1).unwrap();
        for id in 0..4 {
            assert_eq!(scan.threshold(), f32::INFINITY);
            let mut row = [0.0; 384];
            row[383] = (id + 1) as f32;
            scan.offer(id, &row).unwrap();
        }
        assert_eq!(scan.threshold(), 1.0);
    }
}
