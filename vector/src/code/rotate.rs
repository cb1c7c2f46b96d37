//! The rotation that every vector of an index goes through before it is coded.
//!
//! A fixed vector may have all its length in few elements; after a random rotation every element
//! carries about as much, which is what one bit for each needs, and the error of an estimate is
//! that of a random direction whatever the data. Four rounds of random signs, a Walsh-Hadamard
//! transform over the largest power of two that fits (at the front and at the back in turn), and
//! one butterfly between the halves ("Kac's walk") make a rotation of any dimension in
//! O(d log d) (after the "FhtKac" rotator of the RaBitQ library; Ailon and Chazelle, SIAM J.
//! Comput. 39(1), 2009, for the signs and the transform).
//!
//! Invariants:
//! * R1. The same seed and vector give the same bits on every machine: sums and differences of
//!   fixed pairs, products with powers of two and one constant, nothing fused.
//! * R2. The map is linear and keeps lengths and angles up to rounding.

use crate::kernel::Kernels;
use crate::limits::CODE_DIM_STEP;

/// Rounds of signs and transform.
const ROUNDS: usize = 4;

/// A rotation of vectors of one dimension, from a seed.
#[derive(Debug, Clone)]
pub(crate) struct Rotation {
    /// Elements of a vector as it comes.
    dim: usize,
    /// Elements after the rotation: `dim` padded with zeros to whole words of bits.
    code_dim: usize,
    /// +1 or -1 for each round and element.
    signs: Vec<f32>,
    kernels: Kernels,
}

impl Rotation {
    /// The rotation that belongs to `seed`. Takes 16 bytes for each element.
    pub(crate) fn new(dim: usize, seed: u64) -> Self {
        let code_dim = code_dim(dim);
        let mut bits = Sequence::new(seed);
        let mut signs = Vec::with_capacity(ROUNDS * code_dim);
        for _ in 0..ROUNDS * code_dim / 64 {
            let word = bits.next_u64();
            signs.extend((0..64).map(|bit| if word >> bit & 1 == 0 { 1.0 } else { -1.0 }));
        }
        Self {
            dim,
            code_dim,
            signs,
            kernels: Kernels::detect(),
        }
    }

    /// Elements of a vector as it comes.
    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    /// Elements after the rotation.
    pub(crate) fn code_dim(&self) -> usize {
        self.code_dim
    }

    /// The rotated vector. O(d log d).
    ///
    /// # Panics
    /// If the vector has another dimension.
    pub(crate) fn apply(&self, vector: &[f32]) -> Vec<f32> {
        assert_eq!(vector.len(), self.dim, "the dimension of the rotation");
        let mut out = vec![0.0; self.code_dim];
        out[..self.dim].copy_from_slice(vector);
        let power = 1 << self.code_dim.ilog2();
        let scale = (1.0 / f64::from(power as u32).sqrt()) as f32;
        let whole = power == self.code_dim;
        for (round, signs) in self.signs.chunks_exact(self.code_dim).enumerate() {
            for (element, sign) in out.iter_mut().zip(signs) {
                *element *= sign;
            }
            let start = if round % 2 == 0 {
                0
            } else {
                self.code_dim - power
            };
            let part = &mut out[start..start + power];
            self.kernels.hadamard(part);
            for element in part {
                *element *= scale;
            }
            if !whole {
                let (low, high) = out.split_at_mut(self.code_dim / 2);
                for (low, high) in low.iter_mut().zip(high) {
                    (*low, *high) = (*low + *high, *low - *high);
                }
            }
        }
        if !whole {
            // Each butterfly made everything longer by the root of two.
            for element in &mut out {
                *element *= 0.25;
            }
        }
        out
    }
}

/// Elements of the code of a vector of `dim` elements.
pub(crate) const fn code_dim(dim: usize) -> usize {
    dim.next_multiple_of(CODE_DIM_STEP)
}

/// A seeded sequence of numbers (splitmix64; Steele, Lea and Flood, OOPSLA 2014). Not for secrets.
#[derive(Debug, Clone)]
pub(crate) struct Sequence(u64);

impl Sequence {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `bound`, which is not 0. The bias is below 2^-32 for bounds that fit in 32
    /// bits.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// Uniform in [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A standard normal number, for tests (Box and Muller, 1958).
    #[cfg(test)]
    pub(crate) fn normal(&mut self) -> f32 {
        let (radius, angle) = (1.0 - self.unit(), self.unit());
        ((-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wide;

    fn vectors(dim: usize, count: usize) -> Vec<Vec<f32>> {
        let mut sequence = Sequence::new(dim as u64);
        let mut one = || (0..dim).map(|_| sequence.normal()).collect();
        (0..count).map(|_| one()).collect()
    }

    // Seen to fail with the final factor 0.25 left out.
    #[test]
    fn lengths_and_angles_are_kept_at_any_dimension() {
        for dim in [1, 2, 3, 63, 64, 65, 100, 129, 384, 768, 1000, 1536, 4096] {
            let rotation = Rotation::new(dim, 7);
            let plain = vectors(dim, 4);
            let rotated: Vec<_> = plain.iter().map(|v| rotation.apply(v)).collect();
            for (a, ra) in plain.iter().zip(&rotated) {
                for (b, rb) in plain.iter().zip(&rotated) {
                    let scale = (wide::norm_squared(a) * wide::norm_squared(b)).sqrt();
                    let error = (wide::dot(a, b) - wide::dot(ra, rb)).abs();
                    assert!(error <= 3e-6 * scale, "dimension {dim}: {error} of {scale}");
                }
            }
        }
    }

    // Seen to fail with one round instead of four, and without signs.
    #[test]
    fn a_single_element_is_spread_over_all() {
        for dim in [64, 384, 1000, 1536] {
            let rotation = Rotation::new(dim, 9);
            for at in [0, dim / 2, dim - 1] {
                let mut basis = vec![0.0; dim];
                basis[at] = 1.0;
                let rotated = rotation.apply(&basis);
                let even = 1.0 / (rotation.code_dim() as f32).sqrt();
                let largest = rotated.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
                assert!(largest < 6.0 * even, "dimension {dim}: {largest}");
                let tiny = rotated.iter().filter(|x| x.abs() < even / 100.0).count();
                assert!(
                    tiny < rotated.len() / 8,
                    "dimension {dim}: {tiny} near zero"
                );
            }
        }
    }

    #[test]
    fn the_bits_are_fixed_by_the_seed() {
        let vector: Vec<f32> = (0..100_u16).map(|i| f32::from(i).sin_free()).collect();
        let bits = |seed| {
            let rotated = Rotation::new(100, seed).apply(&vector);
            rotated.iter().fold(0_u64, |hash, x| {
                (hash ^ u64::from(x.to_bits())).wrapping_mul(0x100_0000_01b3)
            })
        };
        // Written down once: a change here is a change of the format of every index.
        assert_eq!(bits(42), 2_888_312_329_255_381_477);
        assert_ne!(bits(42), bits(43));
    }

    /// A number without the functions that differ between machines.
    trait SinFree {
        fn sin_free(self) -> f32;
    }

    impl SinFree for f32 {
        fn sin_free(self) -> f32 {
            (self * 37.0) % 11.0 - 5.0
        }
    }
}
