//! Each tier's code kernels against the scalar ones, and those against the plainest sums.
//!
//! Seen to fail when: the odd entries are not taken out of the even sums; high and low digits are
//! swapped; 16-bit sums are emptied every 512 groups; the third plane weighs 2.

use super::super::tests::{Stream, others};
use super::super::{Kernels, Tier};
use super::*;
use crate::code::half::bf16_from;

fn bytes(stream: &mut Stream, len: usize) -> Vec<u8> {
    (0..len).map(|_| (stream.next() >> 32) as u8).collect()
}

/// Dimensions of codes: whole words, among them the first that 16 bits do not hold, and the last.
const DIMS: [usize; 10] = [64, 128, 192, 384, 768, 1024, 1088, 1536, 4160, MAX_CODE_DIM];

fn all() -> Vec<Kernels> {
    let mut all = others();
    all.extend(Kernels::forced(Tier::Scalar));
    all
}

#[test]
fn a_scan_sums_the_entries_of_every_slot() {
    let mut stream = Stream(11);
    for dim in DIMS {
        let table = bytes(&mut stream, dim / 4 * GROUP_BYTES);
        let codes = bytes(&mut stream, dim / 4 * GROUP_BYTES);
        let mut expected = [0_u32; BLOCK_SLOTS];
        for (slot, sum) in expected.iter_mut().enumerate() {
            for group in 0..dim / 4 {
                let byte = codes[group * GROUP_BYTES + slot % 16];
                let digit = if slot < 16 { byte & 15 } else { byte >> 4 };
                *sum += u32::from(table[group * GROUP_BYTES + usize::from(digit)]);
            }
        }
        for kernels in all() {
            let mut found = [u32::MAX; BLOCK_SLOTS];
            kernels.scan(&table, &codes, &mut found);
            assert_eq!(found, expected, "{} at {dim}", kernels.tier());
        }
    }
}

#[test]
fn the_largest_entries_do_not_overflow() {
    for dim in DIMS {
        let table = vec![255; dim / 4 * GROUP_BYTES];
        let codes = bytes(&mut Stream(12), table.len());
        for kernels in all() {
            let mut found = [0; BLOCK_SLOTS];
            kernels.scan(&table, &codes, &mut found);
            let expected = [dim as u32 / 4 * 255; BLOCK_SLOTS];
            assert_eq!(found, expected, "{} at {dim}", kernels.tier());
        }
    }
}

#[test]
fn bits_sum_the_numbers_at_set_bits() {
    let mut stream = Stream(13);
    for dim in DIMS {
        let numbers: Vec<u8> = (0..dim).map(|_| (stream.next() >> 60) as u8).collect();
        let mut planes = vec![0_u64; 4 * dim / 64];
        for (at, number) in numbers.iter().enumerate() {
            for plane in 0..4 {
                let bit = u64::from(number >> plane & 1);
                planes[plane * dim / 64 + at / 64] |= bit << (at % 64);
            }
        }
        let code = bytes(&mut stream, dim / 8);
        let set = |at: usize| u32::from(code[at / 8] >> (at % 8) & 1);
        let sum = |(at, &number): (usize, &u8)| u32::from(number) * set(at);
        let expected: u32 = numbers.iter().enumerate().map(sum).sum();
        for kernels in all() {
            let found = kernels.bits(&planes, &code);
            assert_eq!(found, expected, "{} at {dim}", kernels.tier());
        }
    }
}

// Seen to fail with: the mask of the second half shifted by 8, a NaN taken for above.
#[test]
fn bounds_are_the_same_bits_in_every_tier_and_the_mask_tells_them() {
    let mut stream = Stream(16);
    for round in 0..200 {
        let sums: [u32; BLOCK_SLOTS] = std::array::from_fn(|_| (stream.next() >> 48) as u32);
        let mut factors = [0; FACTOR_BYTES];
        factors.copy_from_slice(&bytes(&mut stream, FACTOR_BYTES));
        for (slot, add) in factors[..4 * BLOCK_SLOTS]
            .as_chunks_mut::<4>()
            .0
            .iter_mut()
            .enumerate()
        {
            // Every eighth slot keeps random bits: infinities and NaN among them.
            if !slot.is_multiple_of(8) {
                *add = stream.unit().to_le_bytes();
            }
        }
        if round % 2 == 0 {
            // Factors of the usual size, so that the threshold decides.
            for narrow in factors[4 * BLOCK_SLOTS..].as_chunks_mut::<2>().0 {
                *narrow = bf16_from(stream.unit().abs() * 0.1).to_le_bytes();
            }
        }
        let with = Bounding {
            step: 1.0 / 65_536.0,
            base: stream.unit(),
            sum: stream.unit(),
            add: stream.unit(),
            far: 2.0,
            rounding: 0.01,
            threshold: 0.5 * stream.unit(),
        };
        let mut expected = [0.0; BLOCK_SLOTS];
        let mask = Kernels::scalar().bounds(&sums, &factors, &with, &mut expected);
        for (slot, &lower) in expected.iter().enumerate() {
            let kept = lower <= with.threshold || lower.is_nan();
            assert_eq!(mask >> slot & 1 == 1, kept, "{lower} in slot {slot}");
        }
        for kernels in all() {
            let mut found = [f32::NAN; BLOCK_SLOTS];
            let tier = kernels.tier();
            assert_eq!(
                kernels.bounds(&sums, &factors, &with, &mut found),
                mask,
                "{tier}"
            );
            let same =
                |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
            assert!(found.iter().zip(&expected).all(same), "{tier}");
        }
    }
}

#[test]
fn extra_sums_the_products() {
    let mut stream = Stream(14);
    for dim in DIMS {
        for extreme in [false, true] {
            let query: Vec<i8> = (0..dim)
                .map(|_| ((stream.next() >> 32) as i8).max(-127))
                .map(|number| if extreme { -127 } else { number })
                .collect();
            let mut planes = bytes(&mut stream, 3 * dim / 8);
            if extreme {
                planes.fill(255);
            }
            let bit = |plane: usize, at: usize| {
                i32::from(planes[plane * dim / 8 + at / 8] >> (at % 8) & 1) << plane
            };
            let expected: i32 = (0..dim)
                .map(|at| i32::from(query[at]) * (bit(0, at) + bit(1, at) + bit(2, at)))
                .sum();
            for kernels in all() {
                let found = kernels.extra(&query, &planes);
                assert_eq!(found, expected, "{} at {dim}", kernels.tier());
            }
        }
    }
}

#[test]
fn the_transform_is_that_of_hadamard_in_every_tier() {
    let mut stream = Stream(15);
    for len in [8, 16, 64, 256, 1024] {
        let data: Vec<f32> = (0..len).map(|_| stream.unit()).collect();
        let sign = |row: usize, at: usize| {
            if (row & at).count_ones().is_multiple_of(2) {
                1.0
            } else {
                -1.0
            }
        };
        let mut scalar = data.clone();
        scalar::hadamard(&mut scalar);
        for (row, &found) in scalar.iter().enumerate() {
            let term = |(at, &x): (usize, &f32)| sign(row, at) * f64::from(x);
            let expected: f64 = data.iter().enumerate().map(term).sum();
            assert!(
                (f64::from(found) - expected).abs() < 1e-4,
                "row {row} of {len}"
            );
        }
        for kernels in all() {
            let mut found = data.clone();
            kernels.hadamard(&mut found);
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&found), bits(&scalar), "{} at {len}", kernels.tier());
        }
    }
}

#[test]
#[should_panic(expected = "a table entry for every digit")]
fn a_short_table_is_refused() {
    Kernels::detect().scan(&[0; 256], &[0; 320], &mut [0; BLOCK_SLOTS]);
}
