//! Kernels over codes: what a search spends its time in, in whole numbers but for bounds and
//! transform.
//!
//! * `scan`: sums of table entries for 32 codes at once ("FastScan", Andre, Kermarrec and Le
//!   Scouarnec, VLDB 2015): a byte shuffle looks up sixteen 4-bit digits in one instruction.
//! * `bits`: a 4-bit query against one 1-bit code, by counting bits.
//! * `bounds`: what the sums of 32 codes and their factors say of scores: lower bounds, and which
//!   of them are not above a threshold. In `f32`.
//! * `extra`: an 8-bit query against the three further bits of one code.
//! * `hadamard`: the fast Walsh-Hadamard transform of the rotation, in `f32`.
//!
//! Invariants:
//! * K4. Every tier gives the same result: sums are exact in whole numbers, whatever their order;
//!   a bound is one expression, rounded after each operation; the transform is sums and differences
//!   of fixed pairs in a fixed order.
//! * K5. No sum overflows at any dimension up to `MAX_CODE_DIM`: 16-bit sums are emptied into 32
//!   bits every `GROUPS_PER_FLUSH` groups, and 32 bits hold all of them.

use crate::limits::{BLOCK_SLOTS, EXTRA_BITS, GROUP_BYTES, MAX_CODE_DIM};

/// Groups of four dimensions whose 8-bit table entries a 16-bit sum holds, over all lanes of a
/// register together (K5).
const GROUPS_PER_FLUSH: usize = 256;

const _: () = assert!(GROUPS_PER_FLUSH * u8::MAX as usize <= u16::MAX as usize);
const _: () = assert!(MAX_CODE_DIM / 4 * (u8::MAX as usize) < u32::MAX as usize);
// 15 = the largest 4-bit digit; 7 = the largest number of the extra bits; 127 = largest query byte.
const _: () = assert!(MAX_CODE_DIM * 15 < u32::MAX as usize);
const _: () = assert!(MAX_CODE_DIM * 7 * 127 < i32::MAX as usize);
// Two products of a byte-wise multiplication fit in 16 bits.
const _: () = assert!(2 * 7 * 127 <= i16::MAX as i32);

/// Writes `hadamard` for a tier: the body is plain Rust, which a compiler turns into the vectors
/// of the instruction set that it is told to use.
macro_rules! hadamard_kernel {
    ($(#[$feature:meta])*) => {
        /// The unnormalised Walsh-Hadamard transform in place.
        $(#[$feature])*
        pub(in crate::kernel) fn hadamard(data: &mut [f32]) {
            for eight in data.as_chunks_mut::<8>().0 {
                for half in [1, 2, 4] {
                    let mut sums = [0.0; 8];
                    for at in 0..8 {
                        let (low, high) = (eight[at & !half], eight[at | half]);
                        sums[at] = if at & half == 0 { low + high } else { low - high };
                    }
                    *eight = sums;
                }
            }
            let mut half = 8;
            while half < data.len() {
                for pair in data.chunks_exact_mut(2 * half) {
                    let (low, high) = pair.split_at_mut(half);
                    for (low, high) in low.iter_mut().zip(high) {
                        (*low, *high) = (*low + *high, *low - *high);
                    }
                }
                half *= 2;
            }
        }
    };
}

/// What a block's sums are turned into bounds with: what the query and a centre have to say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounding {
    /// A sum times `step` plus `base` is the product of the query with a code's bits.
    pub(crate) step: f32,
    pub(crate) base: f32,
    /// The sum of the query's elements.
    pub(crate) sum: f32,
    /// What the centre adds to every score.
    pub(crate) add: f32,
    /// Distance of the query from the centre, times the deviations that a bound covers.
    pub(crate) far: f32,
    /// What rounding the query's table does to a product, times the same.
    pub(crate) rounding: f32,
    /// A bound above this is of no use.
    pub(crate) threshold: f32,
}

/// Bytes of the factors of a block: 32 times `add` in 32 bits, `ip` in 16, `err` in 16.
pub(crate) const FACTOR_BYTES: usize = 8 * BLOCK_SLOTS;

/// Writes `bounds` for a tier around its `not_above`, as `hadamard_kernel` does.
macro_rules! bounds_kernel {
    ($(#[$feature:meta])*) => {
        /// Lower bounds, and a bit for each that is not above the threshold.
        $(#[$feature])*
        pub(in crate::kernel) fn bounds(
            sums: &[u32; BLOCK_SLOTS],
            factors: &[u8; super::FACTOR_BYTES],
            with: &super::Bounding,
            lowers: &mut [f32; BLOCK_SLOTS],
        ) -> u32 {
            let (adds, narrow) = factors.split_at(4 * BLOCK_SLOTS);
            let (ips, errs) = narrow.split_at(2 * BLOCK_SLOTS);
            let (ips, errs) = (ips.as_chunks::<2>().0, errs.as_chunks::<2>().0);
            let wide = |narrow: [u8; 2]| bf16_to(u16::from_le_bytes(narrow));
            for (slot, add) in adds.as_chunks::<4>().0.iter().enumerate() {
                let (ip, err) = (wide(ips[slot]), wide(errs[slot]));
                let product = sums[slot] as i32 as f32 * with.step + with.base;
                let score = f32::from_le_bytes(*add) + with.add - ip * (2.0 * product - with.sum);
                lowers[slot] = score - (err * with.far + ip * with.rounding);
            }
            not_above(lowers, with.threshold)
        }
    };
}

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(super) mod neon;
pub(super) mod scalar;
#[cfg(test)]
mod tests;

/// Table and codes of one block, sums out. Unsafe to call only because of the instruction set (K2).
type Scan = unsafe fn(&[u8], &[u8], &mut [u32; BLOCK_SLOTS]);
/// Four planes of query bits one after the other, and a code. Unsafe as [`Scan`].
type Bits = unsafe fn(&[u64], &[u8]) -> u32;
/// Query bytes, and three planes of code bits one after the other. Unsafe as [`Scan`].
type Extra = unsafe fn(&[i8], &[u8]) -> i32;
/// Sums, factors and what to do with them; lower bounds out, and which are not above the threshold.
/// Unsafe as [`Scan`].
type Bounds =
    unsafe fn(&[u32; BLOCK_SLOTS], &[u8; FACTOR_BYTES], &Bounding, &mut [f32; BLOCK_SLOTS]) -> u32;
/// Elements, a power of two of them and at least eight. Unsafe as [`Scan`].
type Hadamard = unsafe fn(&mut [f32]);

/// The code kernels of one tier.
#[derive(Clone, Copy)]
pub(super) struct CodeTable {
    pub(super) scan: Scan,
    pub(super) bits: Bits,
    pub(super) extra: Extra,
    pub(super) hadamard: Hadamard,
    pub(super) bounds: Bounds,
}

impl CodeTable {
    /// The tier that every processor has.
    pub(super) const SCALAR: Self = Self {
        scan: scalar::scan,
        bits: scalar::bits,
        extra: scalar::extra,
        hadamard: scalar::hadamard,
        bounds: scalar::bounds,
    };
}

impl super::Kernels {
    /// Sums of table entries for the 32 codes of a block: `out[s]` = the sum over groups `g` of
    /// `table[16 g + digit(g, s)]`, where the digit of slot `s` is the low half of
    /// `codes[16 g + s]` for `s` < 16 and the high half of `codes[16 g + s - 16]` above.
    ///
    /// # Panics
    /// If both are not the same whole number of 64-byte lines.
    #[inline]
    pub(crate) fn scan(&self, table: &[u8], codes: &[u8], out: &mut [u32; BLOCK_SLOTS]) {
        assert_eq!(table.len(), codes.len(), "a table entry for every digit");
        assert!(codes.len().is_multiple_of(4 * GROUP_BYTES), "whole lines");
        // SAFETY: the one thing `scan` asks for is its instruction set, and `forced` makes a table
        // of a tier only after the processor was seen to have it (K2).
        unsafe { (self.codes.scan)(table, codes, out) }
    }

    /// Lower bounds of the scores of 32 codes from their sums and factors, and in bit `s` whether
    /// that of slot `s` is not above the threshold. A NaN is not (Q2).
    #[inline]
    pub(crate) fn bounds(
        &self,
        sums: &[u32; BLOCK_SLOTS],
        factors: &[u8; FACTOR_BYTES],
        with: &Bounding,
        lowers: &mut [f32; BLOCK_SLOTS],
    ) -> u32 {
        // SAFETY: as in `scan`: the table's tier is one that the processor has (K2). Shapes are
        // those of the types.
        unsafe { (self.codes.bounds)(sums, factors, with, lowers) }
    }

    /// The sum of a query's 4-bit numbers at the set bits of a code. Plane `p` of the query, bit
    /// `p` of every number, is `planes[p * words..][..words]`.
    ///
    /// # Panics
    /// If the planes are not four times the code.
    #[inline]
    pub(crate) fn bits(&self, planes: &[u64], code: &[u8]) -> u32 {
        assert_eq!(planes.len() * 8, 4 * code.len(), "four planes of a query");
        // SAFETY: as in `scan`: the table's tier is one that the processor has (K2).
        unsafe { (self.codes.bits)(planes, code) }
    }

    /// The product of a query's bytes with a code's 3-bit numbers. Plane `p`, bit `p` of every
    /// number, is `planes[p * dim / 8..][..dim / 8]`.
    ///
    /// # Panics
    /// If the planes are not three bits for every query byte, or these no multiple of 64.
    #[inline]
    pub(crate) fn extra(&self, query: &[i8], planes: &[u8]) -> i32 {
        assert_eq!(planes.len() * 8, EXTRA_BITS * query.len(), "three planes");
        assert!(query.len().is_multiple_of(64), "whole words of bits");
        // SAFETY: as in `scan`: the table's tier is one that the processor has (K2).
        unsafe { (self.codes.extra)(query, planes) }
    }

    /// The unnormalised Walsh-Hadamard transform in place. O(n log n).
    ///
    /// # Panics
    /// If the length is no power of two, or below eight.
    pub(crate) fn hadamard(&self, data: &mut [f32]) {
        assert!(data.len().is_power_of_two() && data.len() >= 8);
        // SAFETY: as in `scan`: the table's tier is one that the processor has (K2).
        unsafe { (self.codes.hadamard)(data) }
    }
}
