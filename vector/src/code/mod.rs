//! Codes: a vector as one bit for each dimension, or four, with factors that turn a product of
//! codes into an estimate of a distance and a bound of its error (RaBitQ; Gao and Long, SIGMOD
//! 2024, and its extension to more bits, SIGMOD 2025).
//!
//! All in rotated space (`rotate.rs`), relative to the centre `c` of a posting. For a vector `o`
//! with residual `r = o - c`, code signs `s` and a query `q`:
//!
//! ```text
//! <r, q - c>  ~  ip * sum(s * (q - c)),   ip = |r|^2 / sum|r|
//! |o - q|^2   =  |r|^2 + |q - c|^2 - 2 <r, q - c>
//! - <o, q>    =  - <c, q> - <r, c> - <r, q - c>
//! ```
//!
//! Both are `score = add + add(q, c) - ip' * sum(s * q)`, where `add` gathers what depends on the
//! vector and the centre alone. So the query is never centred: one table serves every posting. A
//! *score* is the squared distance for [`Metric::L2`], twice the distance for
//! [`Metric::Cosine`] (vectors are made unit vectors), the distance for [`Metric::Dot`].
//!
//! Invariants:
//! * Q1. `ip` is rounded first and `add` computed with the rounded one, so that the rounding
//!   multiplies a product of residuals only; what is left of it is part of `err`.
//! * Q2. A bound that cannot be computed (a number overflowed) is no bound: candidates are kept
//!   unless a bound is *above* the threshold, and no comparison with a NaN is.

pub(crate) mod half;
pub(crate) mod query;
pub(crate) mod rotate;
#[cfg(test)]
mod tests;

use crate::error::VectorError;
use crate::kernel::FACTOR_BYTES;
use crate::limits::{BLOCK_SLOTS, EXTRA_BITS};
use crate::metric::Metric;
use crate::wide;
use half::{bf16_above, bf16_from, bf16_to};
use rotate::Rotation;

/// Standard deviations of an estimate's error that a bound covers. The error of a random pair is
/// close to normal: 1.9 of the RaBitQ paper leave 2.9 % of lower bounds above the true score, 2.5
/// leave 0.6 %.
pub(crate) const BOUND_SIGMAS: f32 = 2.5;

/// What an index does to every vector before it is clustered or coded.
#[derive(Debug, Clone)]
pub(crate) struct Space {
    metric: Metric,
    rotation: Rotation,
}

impl Space {
    /// The space of an index with this seed.
    pub(crate) fn new(metric: Metric, dim: usize, seed: u64) -> Self {
        Self {
            metric,
            rotation: Rotation::new(dim, seed),
        }
    }

    pub(crate) fn metric(&self) -> Metric {
        self.metric
    }

    /// Dimensions of a code.
    pub(crate) fn code_dim(&self) -> usize {
        self.rotation.code_dim()
    }

    /// The vector in rotated space; with [`Metric::Cosine`] that of its unit vector.
    ///
    /// # Errors
    /// What [`Metric::check`] says of the vector.
    pub(crate) fn rotate(&self, vector: &[f32]) -> Result<Vec<f32>, VectorError> {
        self.metric.check(vector)?;
        if vector.len() != self.rotation.dim() {
            return Err(VectorError::Dimension {
                expected: self.rotation.dim(),
                found: vector.len(),
            });
        }
        Ok(match self.metric {
            Metric::L2 | Metric::Dot => self.rotation.apply(vector),
            Metric::Cosine => {
                let norm = wide::norm_squared(vector).sqrt();
                let unit = vector.iter().map(|&x| (f64::from(x) / norm) as f32);
                self.rotation.apply(&unit.collect::<Vec<_>>())
            }
        })
    }

    /// The score of an exact distance.
    pub(crate) fn score(&self, distance: f32) -> f32 {
        match self.metric {
            Metric::L2 => distance * distance,
            Metric::Cosine => 2.0 * distance,
            Metric::Dot => distance,
        }
    }
}

/// The numbers beside a code. Eight bytes on disk: `add` in 32 bits, the others in 16.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Factors {
    /// What the vector and its centre add to the score.
    pub(crate) add: f32,
    /// What one unit of the product of code and query takes from it.
    pub(crate) ip: f32,
    /// One standard deviation of the estimate for each unit of the query's distance from the
    /// centre. Infinite where the vector could not be coded.
    pub(crate) err: f32,
}

impl Factors {
    /// Bytes on disk.
    pub(crate) const BYTES: usize = 8;

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        out[..4].copy_from_slice(&self.add.to_le_bytes());
        out[4..6].copy_from_slice(&bf16_from(self.ip).to_le_bytes());
        out[6..].copy_from_slice(&bf16_from(self.err).to_le_bytes());
        out
    }

    pub(crate) fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h] = bytes;
        Self {
            add: f32::from_le_bytes([a, b, c, d]),
            ip: bf16_to(u16::from_le_bytes([e, f])),
            err: bf16_to(u16::from_le_bytes([g, h])),
        }
    }

    /// Those of one slot in the factors of a block, which lie kind by kind: `add`, `ip`, `err`.
    #[inline]
    pub(crate) fn of_block(bytes: &[u8; FACTOR_BYTES], slot: usize) -> Self {
        let narrow = |start: usize| {
            let at = start + 2 * slot;
            bf16_to(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
        };
        let at = 4 * slot;
        Self {
            add: f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]),
            ip: narrow(4 * BLOCK_SLOTS),
            err: narrow(6 * BLOCK_SLOTS),
        }
    }

    /// A vector that no code describes: its bound is below everything, so its row is read.
    const UNBOUNDED: Self = Self {
        add: 0.0,
        ip: 0.0,
        err: f32::INFINITY,
    };
}

/// Sums over residual `r` and code values `x` (signs, or numbers - 7.5), and the factors of them.
struct Sums {
    /// |r|^2, <x, r>, |x|^2, <x, c>, <r, c>.
    rr: f64,
    xr: f64,
    xx: f64,
    xc: f64,
    rc: f64,
}

impl Sums {
    fn new(vector: &[f32], centre: &[f32], value: impl Fn(usize, f32) -> f32) -> Self {
        let mut sums = [0.0_f64; 5];
        for (at, (&o, &c)) in vector.iter().zip(centre).enumerate() {
            let (r, c) = (f64::from(o) - f64::from(c), f64::from(c));
            let x = f64::from(value(at, r as f32));
            for (sum, term) in sums.iter_mut().zip([r * r, x * r, x * x, x * c, r * c]) {
                *sum += term;
            }
        }
        let [rr, xr, xx, xc, rc] = sums;
        Self { rr, xr, xx, xc, rc }
    }

    fn factors(&self, metric: Metric, dim: usize) -> Factors {
        if self.rr == 0.0 || self.xr <= 0.0 {
            // The vector is its centre.
            return Factors {
                add: 0.0,
                ip: 0.0,
                err: 0.0,
            };
        }
        let weight = match metric {
            Metric::L2 | Metric::Cosine => 2.0,
            Metric::Dot => 1.0,
        };
        let exact_ip = weight * self.rr / self.xr;
        let ip = f64::from(bf16_to(bf16_from(exact_ip as f32)));
        let add = match metric {
            Metric::L2 | Metric::Cosine => self.rr + ip * self.xc,
            Metric::Dot => ip * self.xc - self.rc,
        };
        let cosine_squared = (self.xr * self.xr / (self.rr * self.xx)).min(1.0);
        let spread = ((1.0 - cosine_squared) / cosine_squared).sqrt() / (dim as f64 - 1.0).sqrt();
        let flat = planted!("one_error_for_all_codes");
        let spread = if flat {
            0.5 / (dim as f64).sqrt()
        } else {
            spread
        };
        let rounding = (ip / exact_ip - 1.0).abs();
        // `add` is stored in 32 bits: its rounding too, spread over a query as far as the vector.
        let narrow = (add - f64::from(add as f32)).abs() / self.rr.sqrt();
        let err = weight * self.rr.sqrt() * (spread + rounding / 2.0) + narrow;
        let factors = Factors {
            add: add as f32,
            ip: ip as f32,
            err: bf16_to(bf16_above(err as f32)),
        };
        let all = [factors.add, factors.ip, factors.err];
        if all.iter().all(|factor| factor.is_finite()) {
            factors
        } else {
            Factors::UNBOUNDED
        }
    }
}

/// The signs of the residual, a bit for each dimension (the lowest bit of a byte first), set where
/// it is not negative; and the factors. O(dim).
pub(crate) fn encode_signs(metric: Metric, vector: &[f32], centre: &[f32]) -> (Vec<u8>, Factors) {
    let mut code = vec![0_u8; vector.len() / 8];
    for (at, (o, c)) in vector.iter().zip(centre).enumerate() {
        code[at / 8] |= u8::from(o - c >= 0.0) << (at % 8);
    }
    let sums = Sums::new(vector, centre, |_, r| if r >= 0.0 { 1.0 } else { -1.0 });
    (code, sums.factors(metric, vector.len()))
}

/// The three further bits of each dimension, in planes one after the other, and their factors.
///
/// Sign and extra bits are one number 0 to 15 whose value is the number - 7.5: with the sign bit
/// `b` it is `8 b + extra`. Magnitudes are `floor(t * |r|)`, at most 7, for the best of some `t`.
/// O(32 dim).
pub(crate) fn encode_extra(metric: Metric, vector: &[f32], centre: &[f32]) -> (Vec<u8>, Factors) {
    let residual: Vec<f32> = vector.iter().zip(centre).map(|(o, c)| o - c).collect();
    let scale = best_scale(&residual);
    let magnitude = |r: f32| (r.abs() * scale).min(7.0) as u8;
    let plane = vector.len() / 8;
    let mut planes = vec![0_u8; EXTRA_BITS * plane];
    for (at, &r) in residual.iter().enumerate() {
        let number = if r >= 0.0 {
            magnitude(r)
        } else {
            7 - magnitude(r)
        };
        for bit in 0..EXTRA_BITS {
            planes[bit * plane + at / 8] |= (number >> bit & 1) << (at % 8);
        }
    }
    let sums = Sums::new(vector, centre, |at, _| {
        let value = f32::from(magnitude(residual[at])) + 0.5;
        if residual[at] >= 0.0 { value } else { -value }
    });
    (planes, sums.factors(metric, vector.len()))
}

/// The factor from elements to magnitudes whose code is nearest to the residual in angle.
fn best_scale(residual: &[f32]) -> f32 {
    const TRIES: usize = 16;
    let mean = residual.iter().map(|r| r.abs()).sum::<f32>() / residual.len() as f32;
    if !(mean.is_normal()) {
        return 0.0;
    }
    let quality = |scale: f32| {
        let (mut product, mut square) = (0.0_f32, 0.0_f32);
        for r in residual {
            let value = ((r.abs() * scale).min(7.0) as u8 as f32) + 0.5;
            product += value * r.abs();
            square += value * value;
        }
        product / square.sqrt()
    };
    // For normal elements the best magnitude of an average one is about 2.4.
    let tries = (0..TRIES).map(|at| (1.6 + 0.15 * at as f32) / mean);
    let best = tries.map(|scale| (quality(scale), scale));
    best.fold(
        (f32::NEG_INFINITY, 0.0),
        |a, b| if b.0 > a.0 { b } else { a },
    )
    .1
}

/// The 4-bit digit of a group of four dimensions in a code.
#[inline]
pub(crate) fn digit(code: &[u8], group: usize) -> u8 {
    code[group / 2] >> (4 * (group % 2)) & 15
}
