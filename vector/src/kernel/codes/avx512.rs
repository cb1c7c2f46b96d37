//! AVX-512 code kernels: four groups of digits to a shuffle, 64 query bytes to a multiplication,
//! eight words to a bit count.

use std::arch::x86_64::{
    __m512i, _CMP_NGT_UQ, _mm256_add_epi16, _mm512_add_epi16, _mm512_add_epi32, _mm512_add_epi64,
    _mm512_and_si512, _mm512_castsi512_si256, _mm512_cmp_ps_mask, _mm512_extracti64x4_epi64,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_madd_epi16, _mm512_maddubs_epi16,
    _mm512_maskz_loadu_epi64, _mm512_maskz_mov_epi8, _mm512_or_si512, _mm512_popcnt_epi64,
    _mm512_reduce_add_epi32, _mm512_reduce_add_epi64, _mm512_set1_epi8, _mm512_set1_epi16,
    _mm512_set1_ps, _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_slli_epi16,
    _mm512_srli_epi16, _mm512_sub_epi16, _mm512_unpackhi_epi16, _mm512_unpacklo_epi16,
};

use super::GROUPS_PER_FLUSH;
use super::avx2::add_halves;
use crate::code::half::bf16_to;
use crate::limits::{BLOCK_SLOTS, GROUP_BYTES};

/// Bytes of a register.
const WIDTH: usize = 64;
/// Words of a register.
const WORDS: usize = 8;

hadamard_kernel!(#[target_feature(enable = "avx512f")]);
bounds_kernel!(#[target_feature(enable = "avx512f")]);

/// A bit for each bound that is not above the threshold.
#[inline]
#[target_feature(enable = "avx512f")]
fn not_above(lowers: &[f32; BLOCK_SLOTS], threshold: f32) -> u32 {
    let threshold = _mm512_set1_ps(threshold);
    let mut mask = 0;
    for (at, sixteen) in lowers.as_chunks::<16>().0.iter().enumerate() {
        // SAFETY: `sixteen` is a live reference to exactly the 64 bytes that the load reads, and
        // `loadu` asks for no alignment.
        let lower = unsafe { _mm512_loadu_ps(sixteen.as_ptr()) };
        let kept = _mm512_cmp_ps_mask::<_CMP_NGT_UQ>(lower, threshold);
        mask |= u32::from(kept) << (16 * at);
    }
    mask
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(from: &[u8; WIDTH]) -> __m512i {
    // SAFETY: `from` is a live reference to exactly the 64 bytes that the load reads, and `loadu`
    // asks for no alignment.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

/// Adds the four 128-bit quarters, eight 16-bit sums each, to eight 32-bit sums.
#[inline]
#[target_feature(enable = "avx512f,avx2")]
fn add_quarters(sums: __m512i, out: &mut [u32; 8]) {
    let low = _mm512_castsi512_si256(sums);
    add_halves(
        _mm256_add_epi16(low, _mm512_extracti64x4_epi64::<1>(sums)),
        out,
    );
}

/// Sums of table entries, as in the AVX2 tier with registers twice as wide.
#[target_feature(enable = "avx512bw,avx2")]
pub(in crate::kernel) fn scan(table: &[u8], codes: &[u8], out: &mut [u32; BLOCK_SLOTS]) {
    *out = [0; BLOCK_SLOTS];
    let digit = _mm512_set1_epi8(15);
    let span = GROUPS_PER_FLUSH * GROUP_BYTES;
    for (table, codes) in table.chunks(span).zip(codes.chunks(span)) {
        let mut low = [_mm512_setzero_si512(); 2];
        let mut high = low;
        let lines = table.as_chunks::<WIDTH>().0;
        for (table, code) in lines.iter().zip(codes.as_chunks::<WIDTH>().0) {
            let (table, code) = (load(table), load(code));
            let entries = _mm512_shuffle_epi8(table, _mm512_and_si512(code, digit));
            low[0] = _mm512_add_epi16(low[0], entries);
            low[1] = _mm512_add_epi16(low[1], _mm512_srli_epi16::<8>(entries));
            let digits = _mm512_and_si512(_mm512_srli_epi16::<4>(code), digit);
            let entries = _mm512_shuffle_epi8(table, digits);
            high[0] = _mm512_add_epi16(high[0], entries);
            high[1] = _mm512_add_epi16(high[1], _mm512_srli_epi16::<8>(entries));
        }
        let [first, second, third, fourth] = out.as_chunks_mut::<8>().0 else {
            unreachable!("32 slots are four eights")
        };
        for ([both, odd], first, second) in [(low, first, second), (high, third, fourth)] {
            let even = _mm512_sub_epi16(both, _mm512_slli_epi16::<8>(odd));
            add_quarters(_mm512_unpacklo_epi16(even, odd), first);
            add_quarters(_mm512_unpackhi_epi16(even, odd), second);
        }
    }
}

/// Up to eight words, 0 above them.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_words(from: &[u64]) -> __m512i {
    debug_assert!(from.len() <= WORDS);
    let there = 0xff_u8 >> (WORDS - from.len().min(WORDS));
    // SAFETY: the mask keeps the load to the words of `from`, a live slice; masked-off words are
    // not touched, and `loadu` asks for no alignment.
    unsafe { _mm512_maskz_loadu_epi64(there, from.as_ptr().cast()) }
}

/// Up to eight words of code bytes, 0 above them.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_code(from: &[u8]) -> __m512i {
    debug_assert!(from.len() <= WIDTH && from.len().is_multiple_of(8));
    let there = 0xff_u8 >> (WORDS - (from.len() / 8).min(WORDS));
    // SAFETY: the mask keeps the load to whole words inside `from`, a live slice; masked-off words
    // are not touched, and `loadu` asks for no alignment.
    unsafe { _mm512_maskz_loadu_epi64(there, from.as_ptr().cast()) }
}

/// The sum of 4-bit numbers at set bits, eight words at a time.
#[target_feature(enable = "avx512f,avx512vpopcntdq")]
pub(in crate::kernel) fn bits(planes: &[u64], code: &[u8]) -> u32 {
    let words = code.len() / 8;
    let mut sum = 0;
    for (plane, numbers) in planes.chunks_exact(words).enumerate() {
        let mut counts = _mm512_setzero_si512();
        for (numbers, code) in numbers.chunks(WORDS).zip(code.chunks(WIDTH)) {
            let both = _mm512_and_si512(load_words(numbers), load_code(code));
            counts = _mm512_add_epi64(counts, _mm512_popcnt_epi64(both));
        }
        sum += (_mm512_reduce_add_epi64(counts) as u32) << plane;
    }
    sum
}

/// The product of bytes with 3-bit numbers, 64 at a time.
#[target_feature(enable = "avx512bw")]
pub(in crate::kernel) fn extra(query: &[i8], planes: &[u8]) -> i32 {
    let (first, rest) = planes.split_at(query.len() / 8);
    let (second, third) = rest.split_at(query.len() / 8);
    let (first, second) = (first.as_chunks::<8>().0, second.as_chunks::<8>().0);
    let third = third.as_chunks::<8>().0;
    let ones = _mm512_set1_epi16(1);
    let mut sum = _mm512_setzero_si512();
    for (at, query) in query.as_chunks::<WIDTH>().0.iter().enumerate() {
        let low = _mm512_or_si512(spread(first[at], 1), spread(second[at], 2));
        let numbers = _mm512_or_si512(low, spread(third[at], 4));
        // SAFETY: `query` is a live reference to exactly the 64 bytes that the load reads, and
        // `loadu` asks for no alignment.
        let query = unsafe { _mm512_loadu_si512(query.as_ptr().cast()) };
        let products = _mm512_maddubs_epi16(numbers, query);
        sum = _mm512_add_epi32(sum, _mm512_madd_epi16(products, ones));
    }
    _mm512_reduce_add_epi32(sum)
}

/// `weight` in every byte whose bit is set, 0 in the others.
#[inline]
#[target_feature(enable = "avx512bw")]
fn spread(bits: [u8; 8], weight: i8) -> __m512i {
    _mm512_maskz_mov_epi8(u64::from_le_bytes(bits), _mm512_set1_epi8(weight))
}
