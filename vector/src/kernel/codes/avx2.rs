//! AVX2 code kernels: two groups of digits to a shuffle, 32 query bytes to a multiplication.

use std::arch::x86_64::{
    __m128i, __m256i, _CMP_NGT_UQ, _mm_add_epi16, _mm_add_epi32, _mm_cvtsi128_si32,
    _mm_shuffle_epi32, _mm256_add_epi16, _mm256_add_epi32, _mm256_and_si256,
    _mm256_castsi256_si128, _mm256_cmp_ps, _mm256_cmpeq_epi8, _mm256_cvtepu16_epi32,
    _mm256_extracti128_si256, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_maddubs_epi16, _mm256_movemask_ps, _mm256_or_si256, _mm256_set1_epi8, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_set1_epi64x, _mm256_set1_ps, _mm256_setr_epi64x,
    _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi16, _mm256_srli_epi16,
    _mm256_storeu_si256, _mm256_sub_epi16, _mm256_unpackhi_epi16, _mm256_unpacklo_epi16,
};

use super::GROUPS_PER_FLUSH;
use crate::code::half::bf16_to;
use crate::limits::{BLOCK_SLOTS, GROUP_BYTES};

/// Bytes of a register.
const WIDTH: usize = 32;

hadamard_kernel!(#[target_feature(enable = "avx2")]);
bounds_kernel!(#[target_feature(enable = "avx2")]);

/// A bit for each bound that is not above the threshold.
#[inline]
#[target_feature(enable = "avx2")]
fn not_above(lowers: &[f32; BLOCK_SLOTS], threshold: f32) -> u32 {
    let threshold = _mm256_set1_ps(threshold);
    let mut mask = 0;
    for (at, eight) in lowers.as_chunks::<8>().0.iter().enumerate() {
        // SAFETY: `eight` is a live reference to exactly the 32 bytes that the load reads, and
        // `loadu` asks for no alignment.
        let lower = unsafe { _mm256_loadu_ps(eight.as_ptr()) };
        let kept = _mm256_cmp_ps::<_CMP_NGT_UQ>(lower, threshold);
        mask |= _mm256_movemask_ps(kept).cast_unsigned() << (8 * at);
    }
    mask
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(from: &[u8; WIDTH]) -> __m256i {
    // SAFETY: `from` is a live reference to exactly the 32 bytes that the load reads, and `loadu`
    // asks for no alignment.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

/// Adds the two 128-bit halves, eight 16-bit sums each, to eight 32-bit sums.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn add_halves(sums: __m256i, out: &mut [u32; 8]) {
    let low = _mm256_castsi256_si128(sums);
    add_sums(_mm_add_epi16(low, _mm256_extracti128_si256::<1>(sums)), out);
}

/// Adds eight 16-bit sums to eight 32-bit sums.
#[inline]
#[target_feature(enable = "avx2")]
fn add_sums(sums: __m128i, out: &mut [u32; 8]) {
    // SAFETY: `out` is exactly the 32 bytes that the load reads; `loadu` asks for no alignment.
    let old = unsafe { _mm256_loadu_si256(out.as_ptr().cast()) };
    let new = _mm256_add_epi32(old, _mm256_cvtepu16_epi32(sums));
    // SAFETY: `out` is exactly the 32 bytes that the store writes, held exclusively here, and
    // `storeu` asks for no alignment.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), new) };
}

/// Sums of table entries. Entries of even and of odd slots lie side by side in a 16-bit lane: the
/// lane as a whole is summed, and the odd ones by themselves, which in the end tell the even ones.
#[target_feature(enable = "avx2")]
pub(in crate::kernel) fn scan(table: &[u8], codes: &[u8], out: &mut [u32; BLOCK_SLOTS]) {
    *out = [0; BLOCK_SLOTS];
    let digit = _mm256_set1_epi8(15);
    let span = GROUPS_PER_FLUSH * GROUP_BYTES;
    for (table, codes) in table.chunks(span).zip(codes.chunks(span)) {
        let mut low = [_mm256_setzero_si256(); 2];
        let mut high = low;
        let lines = table.as_chunks::<WIDTH>().0;
        for (table, code) in lines.iter().zip(codes.as_chunks::<WIDTH>().0) {
            let (table, code) = (load(table), load(code));
            let entries = _mm256_shuffle_epi8(table, _mm256_and_si256(code, digit));
            low[0] = _mm256_add_epi16(low[0], entries);
            low[1] = _mm256_add_epi16(low[1], _mm256_srli_epi16::<8>(entries));
            let digits = _mm256_and_si256(_mm256_srli_epi16::<4>(code), digit);
            let entries = _mm256_shuffle_epi8(table, digits);
            high[0] = _mm256_add_epi16(high[0], entries);
            high[1] = _mm256_add_epi16(high[1], _mm256_srli_epi16::<8>(entries));
        }
        let [first, second, third, fourth] = out.as_chunks_mut::<8>().0 else {
            unreachable!("32 slots are four eights")
        };
        for ([both, odd], first, second) in [(low, first, second), (high, third, fourth)] {
            let even = _mm256_sub_epi16(both, _mm256_slli_epi16::<8>(odd));
            add_halves(_mm256_unpacklo_epi16(even, odd), first);
            add_halves(_mm256_unpackhi_epi16(even, odd), second);
        }
    }
}

/// The sum of 4-bit numbers at set bits, with the processor's instruction for counting.
#[target_feature(enable = "avx2,popcnt")]
pub(in crate::kernel) fn bits(planes: &[u64], code: &[u8]) -> u32 {
    super::scalar::bits_of(planes, code)
}

/// The product of bytes with 3-bit numbers, 32 at a time.
#[target_feature(enable = "avx2")]
pub(in crate::kernel) fn extra(query: &[i8], planes: &[u8]) -> i32 {
    let (first, rest) = planes.split_at(query.len() / 8);
    let (second, third) = rest.split_at(query.len() / 8);
    let (first, second) = (first.as_chunks::<4>().0, second.as_chunks::<4>().0);
    let third = third.as_chunks::<4>().0;
    let ones = _mm256_set1_epi16(1);
    let mut sum = _mm256_setzero_si256();
    for (at, query) in query.as_chunks::<WIDTH>().0.iter().enumerate() {
        let low = _mm256_or_si256(spread(first[at], 1), spread(second[at], 2));
        let numbers = _mm256_or_si256(low, spread(third[at], 4));
        // SAFETY: `query` is a live reference to exactly the 32 bytes that the load reads, and
        // `loadu` asks for no alignment.
        let query = unsafe { _mm256_loadu_si256(query.as_ptr().cast()) };
        let products = _mm256_maddubs_epi16(numbers, query);
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(products, ones));
    }
    let low = _mm256_castsi256_si128(sum);
    let four = _mm_add_epi32(low, _mm256_extracti128_si256::<1>(sum));
    let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
    let one = _mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two));
    _mm_cvtsi128_si32(one)
}

/// `weight` in every byte whose bit is set, 0 in the others.
#[inline]
#[target_feature(enable = "avx2")]
fn spread(bits: [u8; 4], weight: i8) -> __m256i {
    let all = _mm256_set1_epi32(i32::from_le_bytes(bits));
    let ones = 0x0101_0101_0101_0101;
    let byte_of = _mm256_setr_epi64x(0, ones, 2 * ones, 3 * ones);
    let bit_of = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed());
    let there = _mm256_and_si256(_mm256_shuffle_epi8(all, byte_of), bit_of);
    _mm256_and_si256(_mm256_cmpeq_epi8(there, bit_of), _mm256_set1_epi8(weight))
}
