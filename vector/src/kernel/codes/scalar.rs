//! Scalar code kernels: the definition, and the fallback. The others are tested against these.

use crate::code::half::bf16_to;
use crate::limits::{BLOCK_SLOTS, GROUP_BYTES};

hadamard_kernel!();
bounds_kernel!();

/// A bit for each bound that is not above the threshold.
#[inline(always)]
pub(super) fn not_above(lowers: &[f32; BLOCK_SLOTS], threshold: f32) -> u32 {
    let mut mask = 0;
    for (slot, &lower) in lowers.iter().enumerate() {
        let above = lower > threshold;
        mask |= u32::from(!above) << slot;
    }
    mask
}

/// Sums of table entries.
pub(in crate::kernel) fn scan(table: &[u8], codes: &[u8], out: &mut [u32; BLOCK_SLOTS]) {
    *out = [0; BLOCK_SLOTS];
    let groups = table.as_chunks::<GROUP_BYTES>().0;
    for (table, codes) in groups.iter().zip(codes.as_chunks::<GROUP_BYTES>().0) {
        let (low, high) = out.split_at_mut(GROUP_BYTES);
        for ((low, high), &code) in low.iter_mut().zip(high).zip(codes) {
            *low += u32::from(table[usize::from(code & 15)]);
            *high += u32::from(table[usize::from(code >> 4)]);
        }
    }
}

/// The sum of 4-bit numbers at set bits.
pub(in crate::kernel) fn bits(planes: &[u64], code: &[u8]) -> u32 {
    bits_of(planes, code)
}

/// The body of [`bits`], also for a tier that only counts bits faster.
#[inline(always)]
pub(super) fn bits_of(planes: &[u64], code: &[u8]) -> u32 {
    let words = code.as_chunks::<8>().0;
    let mut sum = 0;
    for (plane, numbers) in planes.chunks_exact(words.len()).enumerate() {
        let mut count = 0;
        for (number, word) in numbers.iter().zip(words) {
            count += (number & u64::from_le_bytes(*word)).count_ones();
        }
        sum += count << plane;
    }
    sum
}

/// The product of bytes with 3-bit numbers.
pub(in crate::kernel) fn extra(query: &[i8], planes: &[u8]) -> i32 {
    let mut sum = 0;
    for (plane, bits) in planes.chunks_exact(query.len() / 8).enumerate() {
        let mut at_set = 0;
        for (query, &bits) in query.as_chunks::<8>().0.iter().zip(bits) {
            for (bit, &query) in query.iter().enumerate() {
                at_set += i32::from(query) * i32::from(bits >> bit & 1);
            }
        }
        sum += at_set << plane;
    }
    sum
}
