//! The `k` nearest of a stream of candidates, with ties broken the same way every time.
//!
//! A max-heap of at most `k` neighbours (Williams, Algorithm 232, CACM 1964): the worst one kept
//! is on top, and its distance is the threshold that most candidates fail at the cost of one
//! comparison.
//!
//! Invariants: H1 the neighbours kept are the `k` smallest pushed so far by (distance, id), so the
//! result does not depend on the order of pushes; H2 a NaN is never kept.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A candidate and its distance. Ordered by distance, then by id.
///
/// The order is total ([`f32::total_cmp`]), and equality is that of the order.
#[derive(Debug, Clone, Copy)]
pub struct Neighbour<T> {
    /// Distance to the query; smaller is nearer.
    pub distance: f32,
    /// What the host calls the candidate: a row id, a key.
    pub id: T,
}

impl<T: Ord> Ord for Neighbour<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.distance
            .total_cmp(&other.distance)
            .then_with(|| self.id.cmp(&other.id))
    }
}

impl<T: Ord> PartialOrd for Neighbour<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Ord> PartialEq for Neighbour<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T: Ord> Eq for Neighbour<T> {}

/// The `k` nearest candidates so far.
///
/// ```
/// use terrane_vector::TopK;
///
/// let mut nearest = TopK::new(2);
/// for (distance, id) in [(0.5, 'a'), (0.25, 'c'), (0.25, 'b'), (0.75, 'd')] {
///     nearest.push(distance, id);
/// }
/// let ids: Vec<char> = nearest.into_sorted_vec().into_iter().map(|hit| hit.id).collect();
/// assert_eq!(ids, ['b', 'c']);
/// ```
#[derive(Debug, Clone)]
pub struct TopK<T> {
    k: usize,
    /// Above this a candidate cannot be kept: +infinity until `k` are there.
    threshold: f32,
    kept: BinaryHeap<Neighbour<T>>,
}

impl<T: Ord> TopK<T> {
    /// Room for this many neighbours is taken at once; more grows as they come.
    const ROOM: usize = 256;

    /// An empty list of at most `k` neighbours.
    #[must_use]
    pub fn new(k: usize) -> Self {
        let threshold = if k == 0 {
            f32::NEG_INFINITY
        } else {
            f32::INFINITY
        };
        Self {
            k,
            threshold,
            kept: BinaryHeap::with_capacity(k.min(Self::ROOM)),
        }
    }

    /// Offers a candidate; true if it is kept for now. A NaN is not (H2).
    ///
    /// O(log k) if kept, one comparison if its distance is above the threshold.
    #[inline]
    pub fn push(&mut self, distance: f32, id: T) -> bool {
        // Not `distance > threshold`: a NaN must fail too.
        if distance <= self.threshold {
            self.keep(Neighbour { distance, id })
        } else {
            false
        }
    }

    /// Keeps a candidate that is not above the threshold, unless it loses a tie.
    fn keep(&mut self, candidate: Neighbour<T>) -> bool {
        if self.kept.len() < self.k {
            self.kept.push(candidate);
        } else {
            match self.kept.peek_mut() {
                // The heap is put in order when `worst` goes out of scope.
                Some(mut worst) if candidate < *worst => *worst = candidate,
                _ => return false,
            }
        }
        if self.kept.len() == self.k
            && let Some(worst) = self.kept.peek()
        {
            self.threshold = worst.distance;
        }
        true
    }

    /// The distance above which no candidate is kept: that of the worst neighbour once `k` are
    /// there, +infinity before, -infinity if `k` is 0. A candidate at exactly this distance is
    /// kept if its id is smaller than the worst neighbour's.
    #[must_use]
    pub fn threshold(&self) -> f32 {
        self.threshold
    }

    /// Neighbours so far, at most `k`.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether there is no neighbour yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The neighbours, nearest first, equal distances by id. O(k log k).
    #[must_use]
    pub fn into_sorted_vec(self) -> Vec<Neighbour<T>> {
        self.kept.into_sorted_vec()
    }
}
