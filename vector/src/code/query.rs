//! A query against codes: made once, used with every posting.
//!
//! Three forms of the rotated query, by what they meet: a table of 8-bit sums for blocks of 32
//! codes, four planes of bits for a single code, bytes for extra bits. Each is a rounding of the
//! query; what was rounded away is measured here and widens the bounds (a product of the rounding
//! with code signs is a sum of terms of random sign: its deviation is the rounding's length).

use super::{BOUND_SIGMAS, Factors, Space};
use crate::error::VectorError;
use crate::kernel::Kernels;
use crate::limits::{BLOCK_SLOTS, EXTRA_BITS, GROUP_BYTES};
use crate::metric::Metric;

/// A query made ready for codes.
#[derive(Debug, Clone)]
pub(crate) struct CodeQuery {
    kernels: Kernels,
    metric: Metric,
    /// In rotated space.
    rotated: Vec<f32>,
    /// The sum of its elements.
    sum: f32,
    table: Vec<u8>,
    /// A sum of table entries times `table_step` plus `table_base` is the product with code bits.
    table_step: f32,
    table_base: f32,
    /// Deviation of twice that product.
    table_error: f32,
    planes: Vec<u64>,
    plane_step: f32,
    plane_least: f32,
    /// The sum of the rounded elements: with the exact one what rounding adds up to would count
    /// as part of every product.
    plane_sum: f32,
    plane_error: f32,
    bytes: Vec<i8>,
    byte_step: f32,
    byte_error: f32,
}

/// What a query has to do with one centre.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Centred {
    /// Added to every score of the posting.
    pub(crate) add: f32,
    /// Distance of the query from the centre.
    pub(crate) far: f32,
}

/// An estimated score.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) score: f32,
    /// What the true score differs by at most, but for the tails of a normal distribution.
    pub(crate) error: f32,
}

impl Estimate {
    pub(crate) fn lower(self) -> f32 {
        self.score - self.error
    }

    pub(crate) fn upper(self) -> f32 {
        self.score + self.error
    }
}

impl CodeQuery {
    /// # Errors
    /// As [`Space::rotate`].
    pub(crate) fn new(space: &Space, query: &[f32]) -> Result<Self, VectorError> {
        Ok(Self::of_rotated(space.metric(), space.rotate(query)?))
    }

    /// A query that is already in rotated space. O(4 dim).
    pub(crate) fn of_rotated(metric: Metric, rotated: Vec<f32>) -> Self {
        let mut query = Self {
            kernels: Kernels::detect(),
            metric,
            sum: rotated.iter().sum(),
            table: Vec::new(),
            table_step: 0.0,
            table_base: 0.0,
            table_error: 0.0,
            planes: vec![0; 4 * rotated.len() / 64],
            plane_step: 0.0,
            plane_least: 0.0,
            plane_sum: 0.0,
            plane_error: 0.0,
            bytes: Vec::new(),
            byte_step: 0.0,
            byte_error: 0.0,
            rotated,
        };
        query.fill_table();
        query.fill_planes();
        query.fill_bytes();
        query
    }

    pub(crate) fn rotated(&self) -> &[f32] {
        &self.rotated
    }

    /// Sums of four elements for each digit, less the least, in steps that 255 holds.
    fn fill_table(&mut self) {
        let groups = self.rotated.as_chunks::<4>().0;
        let range = |group: &[f32; 4]| group.iter().map(|x| x.abs()).sum::<f32>();
        let step = groups.iter().map(range).fold(0.0, f32::max) / 255.0;
        self.table_step = if step.is_normal() { step } else { 1.0 };
        let mut lost = 0.0_f64;
        self.table.reserve(groups.len() * GROUP_BYTES);
        for group in groups {
            let least = group.iter().map(|x| x.min(0.0)).sum::<f32>();
            self.table_base += least;
            let mut lost_here = 0.0;
            for digit in 0..GROUP_BYTES {
                let set = group
                    .iter()
                    .enumerate()
                    .filter(|(bit, _)| digit >> bit & 1 == 1);
                let exact = (set.map(|(_, x)| x).sum::<f32>() - least) / self.table_step;
                let entry = rounded(exact, 255.0);
                self.table.push(entry as u8);
                lost_here += f64::from((exact - entry) * (exact - entry));
            }
            lost += lost_here / GROUP_BYTES as f64;
        }
        self.table_error = 2.0 * self.table_step * lost.sqrt() as f32;
    }

    /// Elements as 4-bit numbers from the least to the greatest.
    fn fill_planes(&mut self) {
        let words = self.rotated.len() / 64;
        let least = self.rotated.iter().copied().fold(f32::INFINITY, f32::min);
        let greatest = self
            .rotated
            .iter()
            .copied()
            .fold(f32::NEG_INFINITY, f32::max);
        let step = (greatest - least) / 15.0;
        self.plane_least = least;
        self.plane_step = if step.is_normal() { step } else { 1.0 };
        let mut lost = 0.0_f64;
        for (at, x) in self.rotated.iter().enumerate() {
            let exact = (x - least) / self.plane_step;
            let number = rounded(exact, 15.0);
            lost += f64::from((exact - number) * (exact - number));
            self.plane_sum += number * self.plane_step + least;
            for plane in 0..4 {
                let bit = u64::from(number as u8 >> plane & 1);
                self.planes[plane * words + at / 64] |= bit << (at % 64);
            }
        }
        self.plane_error = self.plane_step * lost.sqrt() as f32;
    }

    /// Elements as bytes from -127 to 127.
    fn fill_bytes(&mut self) {
        let step = self.rotated.iter().fold(0.0_f32, |m, x| m.max(x.abs())) / 127.0;
        self.byte_step = if step.is_normal() { step } else { 1.0 };
        let mut lost = 0.0_f64;
        for x in &self.rotated {
            let exact = x / self.byte_step;
            let number = rounded(exact.abs(), 127.0).copysign(exact);
            lost += f64::from((exact - number) * (exact - number));
            self.bytes.push(number as i8);
        }
        self.byte_error = self.byte_step * lost.sqrt() as f32;
    }

    /// What the query has to do with a centre. O(dim).
    pub(crate) fn centred(&self, centre: &[f32]) -> Centred {
        let mut out = [0.0];
        self.kernels.l2_squared(&self.rotated, centre, &mut out);
        let squared = out[0];
        let add = match self.metric {
            Metric::L2 | Metric::Cosine => squared,
            Metric::Dot => {
                self.kernels.dot(&self.rotated, centre, &mut out);
                -out[0]
            }
        };
        Centred {
            add,
            far: squared.sqrt(),
        }
    }

    /// The products of the query with the bits of 32 codes, digits side by side as in a block.
    pub(crate) fn scan(&self, codes: &[u8], out: &mut [f32; BLOCK_SLOTS]) {
        let mut sums = [0; BLOCK_SLOTS];
        self.kernels.scan(&self.table, codes, &mut sums);
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = sum as f32 * self.table_step + self.table_base;
        }
    }

    /// The estimate from a product of [`CodeQuery::scan`].
    #[inline]
    pub(crate) fn of_scan(&self, product: f32, factors: Factors, centred: Centred) -> Estimate {
        let signed = 2.0 * product - self.sum;
        Estimate {
            score: factors.add + centred.add - factors.ip * signed,
            error: BOUND_SIGMAS * (factors.err * centred.far + factors.ip * self.table_error),
        }
    }

    /// The product with the bits of one code, and its estimate.
    pub(crate) fn single(
        &self,
        code: &[u8],
        factors: Factors,
        centred: Centred,
    ) -> (f32, Estimate) {
        let set: u32 = code.iter().map(|byte| byte.count_ones()).sum();
        let sum = self.kernels.bits(&self.planes, code) as f32;
        let rounded = sum * self.plane_step + set as f32 * self.plane_least;
        let signed = 2.0 * rounded - self.plane_sum;
        let product = (signed + self.sum) / 2.0;
        // Rounding adds to the error as an independent one does: squares add up.
        let (code_error, rounding) = (factors.err * centred.far, factors.ip * self.plane_error);
        let error = (code_error * code_error + rounding * rounding).sqrt();
        let estimate = Estimate {
            score: factors.add + centred.add - factors.ip * signed,
            error: BOUND_SIGMAS * error,
        };
        (product, estimate)
    }

    /// The estimate with the extra bits, given the product with the signs' bits.
    pub(crate) fn extra(
        &self,
        product: f32,
        planes: &[u8],
        factors: Factors,
        centred: Centred,
        single: bool,
    ) -> Estimate {
        debug_assert_eq!(planes.len() * 8, EXTRA_BITS * self.bytes.len());
        let extra = self.kernels.extra(&self.bytes, planes) as f32 * self.byte_step;
        let signed = 8.0 * product + extra - 7.5 * self.sum;
        // The product of the signs was rounded too, and counts eightfold (its error is that of
        // twice the product for a table; of +-1 signs for planes).
        let first = if single {
            self.plane_error
        } else {
            self.table_error
        };
        let rounding = factors.ip * (4.0 * first + 2.3 * self.byte_error);
        let code_error = factors.err * centred.far;
        Estimate {
            score: factors.add + centred.add - factors.ip * signed,
            error: BOUND_SIGMAS * (code_error * code_error + rounding * rounding).sqrt(),
        }
    }
}

/// The whole number nearest to `exact`, which is not negative, and at most `most`. A cast cuts; the
/// function of the standard library is a call where the target has no instruction for it.
#[inline]
fn rounded(exact: f32, most: f32) -> f32 {
    ((exact + 0.5) as i32 as f32).min(most)
}
