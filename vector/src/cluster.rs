//! Balanced k-means: two centres for a split, halving again and again for a whole index.
//!
//! Between rows in rotated space and postings. Deterministic by seed. With [`Metric::Dot`] rows
//! are compared by direction (spherical k-means), since what decides a product is the angle; the
//! centre of a posting is the mean of its rows all the same, because codes are made against it.
//!
//! Invariant: G1. A split ends and loses nothing: each side gets at least a third of the rows, also
//! when all are equal. Rows are ordered by how much nearer they are to one centre, ties by
//! position, and cut at the point of equal distance or at a third.

use crate::code::rotate::Sequence;
use crate::kernel::Kernels;
use crate::metric::Metric;

/// Rounds of a split at most.
const ROUNDS: usize = 16;
/// Rows that the rounds of a split look at; the last assignment looks at all.
const SAMPLE: usize = 4096;

/// Rows of one length that lie one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) dim: usize,
    pub(crate) elements: &'a [f32],
}

impl<'a> Rows<'a> {
    pub(crate) fn row(&self, at: usize) -> &'a [f32] {
        &self.elements[at * self.dim..][..self.dim]
    }

    pub(crate) fn len(&self) -> usize {
        self.elements.len() / self.dim
    }

    /// The mean of some rows, summed in `f64` in the given order; zeros for none.
    pub(crate) fn mean(&self, members: &[usize]) -> Vec<f32> {
        let mut sums = vec![0.0_f64; self.dim];
        for &member in members {
            for (sum, &x) in sums.iter_mut().zip(self.row(member)) {
                *sum += f64::from(x);
            }
        }
        let count = members.len().max(1) as f64;
        sums.iter().map(|sum| (sum / count) as f32).collect()
    }
}

/// Splits `members` into two sides of at least a third each (G1). O(rounds x members x dim).
pub(crate) fn halve(
    metric: Metric,
    rows: Rows<'_>,
    members: &[usize],
    seed: u64,
) -> (Vec<usize>, Vec<usize>) {
    let mut sequence = Sequence::new(seed);
    let sample: Vec<usize> = if members.len() <= SAMPLE {
        members.to_vec()
    } else {
        (0..SAMPLE)
            .map(|_| members[sequence.below(members.len())])
            .collect()
    };
    let first = rows.row(sample[sequence.below(sample.len())]).to_vec();
    // The second start is far from the first with a probability that grows with the square of the
    // distance (k-means++; Arthur and Vassilvitskii, SODA 2007).
    let weights = distances(metric, rows, &sample, &first);
    let mut left = sequence.unit() * weights.iter().map(|&w| f64::from(w)).sum::<f64>();
    let second = weights.iter().position(|&weight| {
        left -= f64::from(weight);
        left < 0.0
    });
    let mut centres = [
        first,
        rows.row(sample[second.unwrap_or(sample.len() - 1)])
            .to_vec(),
    ];
    let mut sides = cut(metric, rows, &sample, &centres);
    for _ in 1..ROUNDS {
        centres = [rows.mean(&sides.0), rows.mean(&sides.1)];
        let next = cut(metric, rows, &sample, &centres);
        if next == sides {
            break;
        }
        sides = next;
    }
    if members.len() <= SAMPLE {
        sides
    } else {
        cut(metric, rows, members, &centres)
    }
}

/// Members by nearer centre, at least a third on each side.
fn cut(
    metric: Metric,
    rows: Rows<'_>,
    members: &[usize],
    centres: &[Vec<f32>; 2],
) -> (Vec<usize>, Vec<usize>) {
    let first = distances(metric, rows, members, &centres[0]);
    let second = distances(metric, rows, members, &centres[1]);
    let lead = first.iter().zip(&second).map(|(a, b)| a - b);
    let mut order: Vec<(f32, usize)> = lead.zip(0..).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let nearer = order.partition_point(|&(lead, _)| lead < 0.0);
    let third = members.len() / 3;
    let at = nearer.clamp(third, members.len() - third);
    let side = |part: &[(f32, usize)]| {
        let mut side: Vec<usize> = part.iter().map(|&(_, place)| members[place]).collect();
        side.sort_unstable();
        side
    };
    (side(&order[..at]), side(&order[at..]))
}

/// Squared distances of members to a centre; with [`Metric::Dot`] one minus the cosine.
fn distances(metric: Metric, rows: Rows<'_>, members: &[usize], centre: &[f32]) -> Vec<f32> {
    let kernels = Kernels::detect();
    let mut out = Vec::with_capacity(members.len());
    let mut one = [0.0];
    for &member in members {
        let row = rows.row(member);
        if metric == Metric::Dot {
            let mut norms = [0.0; 2];
            kernels.dot(centre, row, &mut one);
            kernels.norm_squared(rows.dim, row, &mut norms[..1]);
            kernels.norm_squared(rows.dim, centre, &mut norms[1..]);
            let length = norms[0].sqrt() * norms[1].sqrt();
            out.push(if length > 0.0 {
                1.0 - one[0] / length
            } else {
                1.0
            });
        } else {
            kernels.l2_squared(centre, row, &mut one);
            out.push(one[0]);
        }
    }
    out
}

/// Halves rows until no list is longer than `most`. O(rows x dim x log(rows / most)).
pub(crate) fn lists(metric: Metric, rows: Rows<'_>, most: usize, seed: u64) -> Vec<Vec<usize>> {
    split_down(metric, rows, (0..rows.len()).collect(), most, seed)
}

/// Halves one list until no part is longer than `most`.
pub(crate) fn split_down(
    metric: Metric,
    rows: Rows<'_>,
    members: Vec<usize>,
    most: usize,
    seed: u64,
) -> Vec<Vec<usize>> {
    assert!(most >= 2, "a list of one row cannot be halved");
    let mut done = Vec::new();
    let mut open = vec![members];
    let mut seeds = Sequence::new(seed);
    while let Some(members) = open.pop() {
        if members.len() <= most {
            done.push(members);
        } else {
            let (first, second) = halve(metric, rows, &members, seeds.next_u64());
            open.extend([second, first]);
        }
    }
    done.retain(|list| !list.is_empty());
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cloud(count: usize, dim: usize, one: impl Fn(usize, &mut Sequence) -> f32) -> Vec<f32> {
        let mut sequence = Sequence::new(3);
        (0..count * dim)
            .map(|at| one(at / dim, &mut sequence))
            .collect()
    }

    // Seen to fail with the clamp to a third left out: all equal rows stay on one side, and
    // `lists` does not end.
    #[test]
    fn equal_rows_are_split_evenly_and_none_is_lost() {
        for metric in Metric::ALL {
            for value in [0.0, 0.5] {
                let elements = cloud(1000, 64, |_, _| value);
                let rows = Rows {
                    dim: 64,
                    elements: &elements,
                };
                let lists = lists(metric, rows, 96, 1);
                let mut all: Vec<usize> = lists.concat();
                all.sort_unstable();
                assert_eq!(all, (0..1000).collect::<Vec<_>>());
                assert!(lists.iter().all(|list| (22..=96).contains(&list.len())));
            }
        }
    }

    #[test]
    fn two_clouds_are_told_apart() {
        for metric in Metric::ALL {
            let side = |row: usize| if row.is_multiple_of(2) { 1.0 } else { -1.0 };
            let elements = cloud(6000, 64, |row, s| side(row) + s.normal() / 4.0);
            let rows = Rows {
                dim: 64,
                elements: &elements,
            };
            let all: Vec<usize> = (0..6000).collect();
            let (a, b) = halve(metric, rows, &all, 5);
            assert_eq!(a.len() + b.len(), 6000);
            assert!(a.iter().all(|row| row % 2 == a[0] % 2), "{metric}");
            assert!(b.iter().all(|row| row % 2 == b[0] % 2), "{metric}");
            assert_eq!(
                halve(metric, rows, &all, 5),
                (a, b),
                "the same seed, the same split"
            );
        }
    }
}
