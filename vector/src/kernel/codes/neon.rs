//! NEON code kernels: one group of digits to a table look-up, 16 query bytes to a multiplication.

use std::arch::aarch64::{
    int8x16_t, uint8x16_t, uint16x8_t, vaddlvq_u8, vaddq_s32, vaddq_u16, vaddvq_s32, vaddw_high_u8,
    vaddw_u8, vandq_u8, vcntq_u8, vcombine_u8, vdup_n_u8, vdupq_n_s32, vdupq_n_u8, vdupq_n_u16,
    vget_high_s8, vget_low_s8, vget_low_u8, vld1q_s8, vld1q_u8, vmull_s8, vorrq_u8, vpaddlq_s16,
    vqtbl1q_u8, vreinterpretq_s8_u8, vshrq_n_u8, vst1q_u16, vtstq_u8,
};

use super::GROUPS_PER_FLUSH;
use super::scalar::not_above;
use crate::code::half::bf16_to;
use crate::limits::{BLOCK_SLOTS, GROUP_BYTES};

/// Bytes of a register.
const WIDTH: usize = 16;

hadamard_kernel!(#[target_feature(enable = "neon")]);
bounds_kernel!(#[target_feature(enable = "neon")]);

#[inline]
#[target_feature(enable = "neon")]
fn load(from: &[u8; WIDTH]) -> uint8x16_t {
    // SAFETY: `from` is a live reference to exactly the 16 bytes that the load reads.
    unsafe { vld1q_u8(from.as_ptr()) }
}

/// Adds eight 16-bit sums to eight 32-bit sums.
#[inline]
#[target_feature(enable = "neon")]
fn add_sums(sums: uint16x8_t, out: &mut [u32; 8]) {
    let mut eight = [0_u16; 8];
    // SAFETY: `eight` is exactly the 16 bytes that the store writes, held exclusively here and
    // aligned for an element.
    unsafe { vst1q_u16(eight.as_mut_ptr(), sums) };
    for (out, sum) in out.iter_mut().zip(eight) {
        *out += u32::from(sum);
    }
}

/// Sums of table entries.
#[target_feature(enable = "neon")]
pub(in crate::kernel) fn scan(table: &[u8], codes: &[u8], out: &mut [u32; BLOCK_SLOTS]) {
    *out = [0; BLOCK_SLOTS];
    let digit = vdupq_n_u8(15);
    let span = GROUPS_PER_FLUSH * GROUP_BYTES;
    for (table, codes) in table.chunks(span).zip(codes.chunks(span)) {
        let mut sums = [vdupq_n_u16(0); 4];
        let lines = table.as_chunks::<WIDTH>().0;
        for (table, code) in lines.iter().zip(codes.as_chunks::<WIDTH>().0) {
            let (table, code) = (load(table), load(code));
            let low = vqtbl1q_u8(table, vandq_u8(code, digit));
            sums[0] = vaddw_u8(sums[0], vget_low_u8(low));
            sums[1] = vaddw_high_u8(sums[1], low);
            let high = vqtbl1q_u8(table, vshrq_n_u8::<4>(code));
            sums[2] = vaddw_u8(sums[2], vget_low_u8(high));
            sums[3] = vaddw_high_u8(sums[3], high);
        }
        for (sums, out) in sums.into_iter().zip(out.as_chunks_mut::<8>().0) {
            add_sums(vaddq_u16(sums, vdupq_n_u16(0)), out);
        }
    }
}

/// The sum of 4-bit numbers at set bits.
#[target_feature(enable = "neon")]
pub(in crate::kernel) fn bits(planes: &[u64], code: &[u8]) -> u32 {
    let words = code.as_chunks::<8>().0;
    let mut sum = 0;
    for (plane, numbers) in planes.chunks_exact(words.len()).enumerate() {
        let mut count = 0;
        let pairs = numbers.as_chunks::<2>();
        for (at, pair) in pairs.0.iter().enumerate() {
            let both = [0, 1].map(|w| pair[w] & u64::from_le_bytes(words[2 * at + w]));
            let mut bytes = [0; WIDTH];
            bytes[..8].copy_from_slice(&both[0].to_le_bytes());
            bytes[8..].copy_from_slice(&both[1].to_le_bytes());
            count += u32::from(vaddlvq_u8(vcntq_u8(load(&bytes))));
        }
        if let ([number], Some(word)) = (pairs.1, words.last()) {
            count += (number & u64::from_le_bytes(*word)).count_ones();
        }
        sum += count << plane;
    }
    sum
}

/// The product of bytes with 3-bit numbers, 16 at a time.
#[target_feature(enable = "neon")]
pub(in crate::kernel) fn extra(query: &[i8], planes: &[u8]) -> i32 {
    let (first, rest) = planes.split_at(query.len() / 8);
    let (second, third) = rest.split_at(query.len() / 8);
    let (first, second) = (first.as_chunks::<2>().0, second.as_chunks::<2>().0);
    let third = third.as_chunks::<2>().0;
    let mut sum = vdupq_n_s32(0);
    for (at, query) in query.as_chunks::<WIDTH>().0.iter().enumerate() {
        let low = vorrq_u8(spread(first[at], 1), spread(second[at], 2));
        let numbers = vreinterpretq_s8_u8(vorrq_u8(low, spread(third[at], 4)));
        let query = load_query(query);
        let products = vmull_s8(vget_low_s8(numbers), vget_low_s8(query));
        sum = vaddq_s32(sum, vpaddlq_s16(products));
        let products = vmull_s8(vget_high_s8(numbers), vget_high_s8(query));
        sum = vaddq_s32(sum, vpaddlq_s16(products));
    }
    vaddvq_s32(sum)
}

#[inline]
#[target_feature(enable = "neon")]
fn load_query(from: &[i8; WIDTH]) -> int8x16_t {
    // SAFETY: `from` is a live reference to exactly the 16 bytes that the load reads.
    unsafe { vld1q_s8(from.as_ptr()) }
}

/// `weight` in every byte whose bit is set, 0 in the others.
#[inline]
#[target_feature(enable = "neon")]
fn spread(bits: [u8; 2], weight: u8) -> uint8x16_t {
    let all = vcombine_u8(vdup_n_u8(bits[0]), vdup_n_u8(bits[1]));
    let bit_of = load(&[1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128]);
    vandq_u8(vtstq_u8(all, bit_of), vdupq_n_u8(weight))
}
