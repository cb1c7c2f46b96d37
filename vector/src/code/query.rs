//! A query against codes: made once, used with every posting.
//!
//! Three forms of the rotated query, by what they meet: a table of 8-bit sums for blocks of 32
//! codes, four planes of bits for a single code, bytes for extra bits. Each is a rounding of the
//! query; what was rounded away is measured here and widens the bounds (a product of the rounding
//! with code signs is a sum of terms of random sign: its deviation is the rounding's length).

use super::{BOUND_SIGMAS, Factors, Space};
use crate::error::VectorError;
use crate::kernel::{Bounding, FACTOR_BYTES, Kernels};
use crate::limits::{BLOCK_SLOTS, EXTRA_BITS, GROUP_BYTES};
use crate::metric::Metric;

/// Deviations that a bound covers.
#[inline]
fn deviations() -> f32 {
    if planted!("bounds_of_half_the_width") {
        BOUND_SIGMAS / 2.0
    } else {
        BOUND_SIGMAS
    }
}

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

/// What a scan of a block leaves: sums of the table, and lower bounds of scores.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scanned {
    pub(crate) sums: [u32; BLOCK_SLOTS],
    pub(crate) lowers: [f32; BLOCK_SLOTS],
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

    /// The length of the query.
    pub(crate) fn norm(&self) -> f32 {
        let mut out = [0.0];
        let dim = self.rotated.len();
        self.kernels.norm_squared(dim, &self.rotated, &mut out);
        out[0].sqrt()
    }

    /// Sums of four elements for each digit, less the least, in steps that 255 holds.
    fn fill_table(&mut self) {
        let groups = self.rotated.as_chunks::<4>().0;
        let range = |group: &[f32; 4]| group.iter().map(|x| x.abs()).sum::<f32>();
        let step = groups.iter().map(range).fold(0.0, f32::max) / 255.0;
        self.table_step = if step.is_normal() { step } else { 1.0 };
        let scale = 1.0 / self.table_step;
        // What was rounded away, a sum for each digit so that a compiler may add side by side.
        let mut lost = [0.0_f32; GROUP_BYTES];
        self.table.resize(groups.len() * GROUP_BYTES, 0);
        let rows = self.table.as_chunks_mut::<GROUP_BYTES>().0;
        for (group, row) in groups.iter().zip(rows) {
            let least = group.iter().map(|x| x.min(0.0)).sum::<f32>();
            self.table_base += least;
            let mut sums = [-least; GROUP_BYTES];
            for (bit, x) in group.iter().enumerate() {
                for (digit, sum) in sums.iter_mut().enumerate() {
                    *sum += if digit >> bit & 1 == 1 { *x } else { 0.0 };
                }
            }
            for ((sum, lost), entry) in sums.iter().zip(&mut lost).zip(row) {
                let exact = (sum * scale).clamp(0.0, 255.0);
                let number = rounded(exact);
                *entry = number.0 as u8;
                *lost += (exact - number.1) * (exact - number.1);
            }
        }
        let lost = lost.iter().sum::<f32>() / GROUP_BYTES as f32;
        self.table_error = 2.0 * self.table_step * lost.sqrt();
    }

    /// Elements as 4-bit numbers from the least to the greatest.
    fn fill_planes(&mut self) {
        let (mut least, mut greatest) = ([f32::INFINITY; 8], [f32::NEG_INFINITY; 8]);
        for eight in self.rotated.as_chunks::<8>().0 {
            for (at, &x) in eight.iter().enumerate() {
                least[at] = least[at].min(x);
                greatest[at] = greatest[at].max(x);
            }
        }
        let least = least.into_iter().fold(f32::INFINITY, f32::min);
        let greatest = greatest.into_iter().fold(f32::NEG_INFINITY, f32::max);
        let step = (greatest - least) / 15.0;
        self.plane_least = least;
        self.plane_step = if step.is_normal() { step } else { 1.0 };
        let scale = 1.0 / self.plane_step;
        let (mut lost, mut total) = ([0.0_f32; 8], [0.0_f32; 8]);
        let plane_bytes = self.rotated.len() / 8;
        for (at, eight) in self.rotated.as_chunks::<8>().0.iter().enumerate() {
            let mut numbers = [0; 8];
            for (place, &x) in eight.iter().enumerate() {
                let exact = ((x - least) * scale).clamp(0.0, 15.0);
                let number = rounded(exact);
                numbers[place] = number.0 as u8;
                lost[place] += (exact - number.1) * (exact - number.1);
                total[place] += number.1;
            }
            let numbers = u64::from_le_bytes(numbers);
            for plane in 0..4 {
                // The lowest bits of eight bytes, moved side by side into the highest byte: each
                // partial product has a place of its own there.
                let bits = (numbers >> plane & 0x0101_0101_0101_0101)
                    .wrapping_mul(0x0102_0408_1020_4080)
                    >> 56;
                let place = plane * plane_bytes + at;
                self.planes[place / 8] |= bits << (8 * (place % 8));
            }
        }
        let count = self.rotated.len() as f32;
        self.plane_sum = total.iter().sum::<f32>() * self.plane_step + count * least;
        self.plane_error = self.plane_step * lost.iter().sum::<f32>().sqrt();
    }

    /// Elements as bytes from -127 to 127.
    fn fill_bytes(&mut self) {
        let mut greatest = [0.0_f32; 8];
        for eight in self.rotated.as_chunks::<8>().0 {
            for (greatest, x) in greatest.iter_mut().zip(eight) {
                *greatest = greatest.max(x.abs());
            }
        }
        let step = greatest.into_iter().fold(0.0, f32::max) / 127.0;
        self.byte_step = if step.is_normal() { step } else { 1.0 };
        let scale = 1.0 / self.byte_step;
        let mut lost = [0.0_f32; 8];
        self.bytes.resize(self.rotated.len(), 0);
        let bytes = self.bytes.as_chunks_mut::<8>().0;
        for (eight, bytes) in self.rotated.as_chunks::<8>().0.iter().zip(bytes) {
            for (place, &x) in eight.iter().enumerate() {
                let exact = (x * scale).clamp(-127.0, 127.0);
                let number = rounded(exact);
                bytes[place] = number.0 as i8;
                lost[place] += (exact - number.1) * (exact - number.1);
            }
        }
        self.byte_error = self.byte_step * lost.iter().sum::<f32>().sqrt();
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

    /// What a centre of binary16 numbers has to do with the query. O(dim).
    pub(crate) fn centred_half(&self, centre: &[u16]) -> Centred {
        let squared = self.kernels.l2_squared_half(&self.rotated, centre);
        let add = match self.metric {
            Metric::L2 | Metric::Cosine => squared,
            Metric::Dot => -self.kernels.dot_half(&self.rotated, centre),
        };
        Centred {
            add,
            far: squared.sqrt(),
        }
    }

    /// What the sums of a block are turned into bounds with.
    pub(crate) fn bounding(&self, centred: Centred, threshold: f32) -> Bounding {
        Bounding {
            step: self.table_step,
            base: self.table_base,
            sum: self.sum,
            add: centred.add,
            far: deviations() * centred.far,
            rounding: deviations() * self.table_error,
            threshold,
        }
    }

    /// The products of the query with the bits of 32 codes, digits side by side as in a block.
    pub(crate) fn scan(&self, codes: &[u8], out: &mut [f32; BLOCK_SLOTS]) {
        let mut sums = [0; BLOCK_SLOTS];
        self.kernels.scan(&self.table, codes, &mut sums);
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = self.product(sum);
        }
    }

    /// The sums of 32 codes, their lower bounds, and in bit `s` whether that of slot `s` is not
    /// above the threshold.
    #[inline]
    pub(crate) fn judge(
        &self,
        codes: &[u8],
        factors: &[u8; FACTOR_BYTES],
        with: &Bounding,
        out: &mut Scanned,
    ) -> u32 {
        self.kernels.scan(&self.table, codes, &mut out.sums);
        self.kernels
            .bounds(&out.sums, factors, with, &mut out.lowers)
    }

    /// The product with the bits of a code, from its sum.
    #[inline]
    pub(crate) fn product(&self, sum: u32) -> f32 {
        let sum = if planted!("sums_of_16_bits") {
            sum & 0xffff
        } else {
            sum
        };
        sum as f32 * self.table_step + self.table_base
    }

    /// The estimate from a product of a scan.
    #[inline]
    pub(crate) fn of_scan(&self, product: f32, factors: Factors, centred: Centred) -> Estimate {
        let signed = 2.0 * product - self.sum;
        Estimate {
            score: factors.add + centred.add - factors.ip * signed,
            error: deviations() * (factors.err * centred.far + factors.ip * self.table_error),
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
            error: deviations() * error,
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
            error: deviations() * (code_error * code_error + rounding * rounding).sqrt(),
        }
    }
}

/// The whole number nearest to `exact`, ties to the even one, of a magnitude below 2^21: as the low
/// bits of a word, and as a number. Adding 1.5 * 2^23 leaves no bit for what comes after the point;
/// a cast would do the same in more instructions, since it has to mind what does not fit.
#[inline]
fn rounded(exact: f32) -> (u32, f32) {
    const SHIFT: f32 = 12_582_912.0;
    let shifted = exact + SHIFT;
    (shifted.to_bits(), shifted - SHIFT)
}
