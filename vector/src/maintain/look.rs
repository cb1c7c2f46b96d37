//! A look at the entries of one posting: which of them may belong to the children of a split,
//! judged by their codes.
//!
//! For `reassign.rs`. Two centres are compared by the difference of two estimates: the part of the
//! error that the code makes grows with the distance of the centres from each other, not with that
//! from the entry's own, so neighbours are told apart well.
//!
//! Invariant: P5. An entry is ruled out only if the bounds of its code do: what cannot be compared,
//! for a number overflowed, is left to the row.

use super::split::distance_squared;
use crate::code::query::{Centred, CodeQuery};
use crate::code::{BOUND_SIGMAS, Factors};
use crate::index::VectorIndex;
use crate::limits::BLOCK_SLOTS;
use crate::metric::Metric;
use crate::record::{Block, Extra, Key, PostingId, RowId, TailEntry, Vver};
use crate::store::PostingStore;

/// An entry that may belong elsewhere, and the posting that it stands in.
pub(super) type Misplaced = (PostingId, RowId, Vver);

/// A centre as a query against codes.
#[derive(Debug)]
pub(super) struct Centre {
    id: PostingId,
    pub(super) query: CodeQuery,
    /// Squared length.
    square: f32,
}

impl Centre {
    pub(super) fn new(metric: Metric, id: PostingId, centre: Vec<f32>) -> Self {
        let square = distance_squared(&centre, &vec![0.0; centre.len()]);
        let query = CodeQuery::of_rotated(metric, centre);
        Self { id, query, square }
    }

    fn vector(&self) -> &[f32] {
        self.query.rotated()
    }
}

/// Whether a difference is above its error. One that cannot be compared is not: the row decides.
fn is_above(difference: f32, error: f32) -> bool {
    difference > error
}

/// A look at one posting.
pub(super) struct Look<'l> {
    index: &'l VectorIndex,
    old: &'l Centre,
    children: &'l [Centre],
    /// Which child the posting is, if it is one.
    own: Option<usize>,
}

/// What the centres have to do with a posting's centre.
struct Around {
    /// For the old centre and each child: how it lies to the posting's centre, and how far from
    /// the old centre it is.
    old: Centred,
    children: Vec<(Centred, f32)>,
    square: f32,
}

/// An entry that the first bit does not rule out.
struct Survivor {
    row: RowId,
    vver: Vver,
    /// Where the extra bits are, and what they need of the first stage: products with the old
    /// centre and the children, the squared distance from the posting's centre.
    block: Option<(u32, usize)>,
    products: Vec<f32>,
    own: f32,
}

impl<'l> Look<'l> {
    /// A look at this posting, after `old` became `children`.
    pub(super) fn new(
        index: &'l VectorIndex,
        old: &'l Centre,
        children: &'l [Centre],
        id: PostingId,
    ) -> Self {
        let own = children.iter().position(|child| child.id == id);
        Self {
            index,
            old,
            children,
            own,
        }
    }

    /// Live entries of a posting that may belong elsewhere; how many were looked at.
    pub(super) fn posting<H: PostingStore>(
        &self,
        host: &H,
        id: PostingId,
        centre: &[f32],
        found: &mut Vec<Misplaced>,
    ) -> Result<u64, H::Error> {
        let dim = centre.len();
        let around = self.around(centre);
        let (mut survivors, mut marked, mut looked) = (Vec::new(), Vec::new(), 0);
        host.posting(id, &mut |key, value| {
            match key {
                Key::Block(_, number) => {
                    let block = Block::decode(value, dim)?;
                    looked += block.used() as u64;
                    self.block(number, &block, &around, centre, &mut survivors);
                }
                Key::Tail(_, row, vver) => {
                    looked += 1;
                    let entry = TailEntry::decode(value, dim)?;
                    self.tail(row, vver, &entry, &around, centre, &mut survivors);
                }
                Key::Mark(_, row, vver) => marked.push((row, vver)),
                _ => {}
            }
            Ok(())
        })?;
        survivors.retain(|one: &Survivor| marked.binary_search(&(one.row, one.vver)).is_err());
        self.refine(host, id, &around, &mut survivors)?;
        found.extend(survivors.iter().map(|one| (id, one.row, one.vver)));
        Ok(looked)
    }

    fn around(&self, centre: &[f32]) -> Around {
        let lie = |from: &Centre| from.query.centred(centre);
        let apart = |child: &Centre| distance_squared(child.vector(), self.old.vector()).sqrt();
        Around {
            old: lie(self.old),
            children: self
                .children
                .iter()
                .map(|child| (lie(child), apart(child)))
                .collect(),
            square: distance_squared(centre, &vec![0.0; centre.len()]),
        }
    }

    /// A score as a squared distance, but for what all scores of the entry have in common.
    fn distance(&self, score: f32, square: f32) -> f32 {
        if self.index.metric() == Metric::Dot {
            square + 2.0 * score
        } else {
            score
        }
    }

    /// Whether the bounds leave it open that the entry belongs elsewhere. `of` gives for each
    /// centre the score and the part of its error that rounding of the centre makes.
    fn may_belong(
        &self,
        around: &Around,
        factors: Factors,
        own: f32,
        of: &dyn Fn(usize) -> (f32, f32),
    ) -> bool {
        let weight = if self.index.metric() == Metric::Dot {
            2.0
        } else {
            1.0
        };
        let (old_score, old_rounding) = of(0);
        let old = self.distance(old_score, self.old.square);
        let spread = BOUND_SIGMAS * factors.err;
        if self.own.is_some() {
            // In a child: nearer to the old centre than to its own.
            let error = weight * (spread * around.old.far + old_rounding);
            return !is_above(old - own, error);
        }
        (0..self.children.len()).any(|at| {
            let (score, rounding) = of(at + 1);
            let (centred, apart) = &around.children[at];
            let new = self.distance(score, self.children[at].square);
            let than_old = weight * (spread * apart + rounding + old_rounding);
            let than_own = weight * (spread * centred.far + rounding);
            let farther = if planted!("old_and_new_centre_exchanged") {
                old - new
            } else {
                new - old
            };
            !is_above(farther, than_old) && !is_above(new - own, than_own)
        })
    }

    /// The distance of an entry from its own centre, as [`Look::distance`] gives others, from the
    /// signs of its code: of these it is known without an error.
    fn own_distance(&self, factors: Factors, code: &[u8], centre: &[f32], around: &Around) -> f32 {
        let mut product = 0.0;
        for (byte, eight) in code.iter().zip(centre.as_chunks::<8>().0) {
            for (bit, x) in eight.iter().enumerate() {
                product += if byte >> bit & 1 == 1 { *x } else { -*x };
            }
        }
        let add = if self.index.metric() == Metric::Dot {
            -around.square
        } else {
            0.0
        };
        self.distance(factors.add + add - factors.ip * product, around.square)
    }

    /// A bound of that distance from the factors alone: with residual `r`, its cosine `a` with its
    /// signs and their number `D`, `ip = 2 |r| / (a sqrt(D))` and
    /// `err >= 2 |r| sqrt(1 / a^2 - 1) / sqrt(D - 1)`. Both are rounded, hence the slack.
    fn own_at_most(&self, factors: Factors, dim: usize) -> f32 {
        if self.index.metric() == Metric::Dot || !factors.err.is_finite() {
            return f32::INFINITY;
        }
        let (ip, err) = (1.005 * factors.ip / 2.0, 0.95 * factors.err / 2.0);
        ip * ip * dim as f32 - err * err * (dim as f32 - 1.0)
    }

    fn block(
        &self,
        number: u32,
        block: &Block<'_>,
        around: &Around,
        centre: &[f32],
        survivors: &mut Vec<Survivor>,
    ) {
        let centres = || std::iter::once(self.old).chain(self.children);
        let mut products = vec![[0.0; BLOCK_SLOTS]; 1 + self.children.len()];
        for (products, one) in products.iter_mut().zip(centres()) {
            one.query.scan(block.codes(), products);
        }
        let mut code = Vec::new();
        for slot in 0..block.used() {
            let factors = block.factors(slot);
            let of = |at: usize| {
                let (one, add) = self.centre_at(around, at);
                let estimate = one.query.of_scan(products[at][slot], factors, add);
                (estimate.score, estimate.error)
            };
            // The distance from its own centre costs a pass over the code: only where a bound of
            // it does not rule the entry out.
            if !self.may_belong(
                around,
                factors,
                self.own_at_most(factors, centre.len()),
                &of,
            ) {
                continue;
            }
            code.clear();
            block.code(slot, &mut code);
            let own = self.own_distance(factors, &code, centre, around);
            if self.may_belong(around, factors, own, &of) {
                survivors.push(Survivor {
                    row: block.row(slot),
                    vver: block.vver(slot),
                    block: Some((number, slot)),
                    products: products.iter().map(|products| products[slot]).collect(),
                    own,
                });
            }
        }
    }

    /// A centre, and how it lies to the posting's without the part of the error that its distance
    /// makes: that is counted for the difference of two.
    fn centre_at(&self, around: &Around, at: usize) -> (&Centre, Centred) {
        let (one, centred) = match at.checked_sub(1) {
            None => (self.old, around.old),
            Some(at) => (&self.children[at], around.children[at].0),
        };
        let add = centred.add;
        (one, Centred { add, far: 0.0 })
    }

    fn tail(
        &self,
        row: RowId,
        vver: Vver,
        entry: &TailEntry<'_>,
        around: &Around,
        centre: &[f32],
        survivors: &mut Vec<Survivor>,
    ) {
        let of = |at: usize| {
            let (one, add) = self.centre_at(around, at);
            let (_, estimate) = one.query.single(entry.code, entry.factors, add);
            (estimate.score, estimate.error)
        };
        let most = self.own_at_most(entry.factors, centre.len());
        if !self.may_belong(around, entry.factors, most, &of) {
            return;
        }
        let own = self.own_distance(entry.factors, entry.code, centre, around);
        let of = |at: usize| {
            let (one, add) = self.centre_at(around, at);
            let (product, estimate) = one.query.single(entry.code, entry.factors, add);
            let estimate = match entry.extra {
                Some((factors, planes)) => one.query.extra(product, planes, factors, add, true),
                None => estimate,
            };
            (estimate.score, estimate.error)
        };
        let factors = entry.extra.map_or(entry.factors, |extra| extra.0);
        if self.may_belong(around, factors, own, &of) {
            survivors.push(Survivor {
                row,
                vver,
                block: None,
                products: Vec::new(),
                own,
            });
        }
    }

    /// The second stage for entries of blocks.
    fn refine<H: PostingStore>(
        &self,
        host: &H,
        id: PostingId,
        around: &Around,
        survivors: &mut Vec<Survivor>,
    ) -> Result<(), H::Error> {
        if !self.index.has_extra() {
            return Ok(());
        }
        let dim = self.index.space().code_dim();
        let group = |one: &Survivor| one.block.map(|(block, slot)| Extra::group(block, slot));
        let groups: std::collections::BTreeSet<u32> = survivors.iter().filter_map(group).collect();
        for number in groups {
            host.extra(id, number, &mut |_, value| {
                let extra = Extra::decode(value, dim)?;
                survivors.retain(|one| {
                    let Some((block, slot)) = one.block else {
                        return true;
                    };
                    if Extra::group(block, slot) != number {
                        return true;
                    }
                    let Some((factors, planes)) = extra.slot(slot) else {
                        return true;
                    };
                    let of = |at: usize| {
                        let (centre, add) = self.centre_at(around, at);
                        let product = one.products[at];
                        let query = &centre.query;
                        let estimate = query.extra(product, planes, factors, add, false);
                        (estimate.score, estimate.error)
                    };
                    self.may_belong(around, factors, one.own, &of)
                });
                Ok(())
            })?;
        }
        Ok(())
    }
}
