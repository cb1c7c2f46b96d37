//! Numbers in 16 bits: IEEE 754 binary16 for centroids, bfloat16 for the factors of codes.
//!
//! Conversions round to nearest, ties to even, and are plain integer arithmetic: the same on every
//! machine. Widening is exact.

/// The binary16 nearest to `value`, as bits. Above 65,504 by half a unit or more: infinity.
pub(crate) fn f16_from(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return sign | 0x7e00;
    }
    if magnitude >= 0x477f_f000 {
        return sign | 0x7c00;
    }
    if magnitude < 0x3880_0000 {
        // Below the least normal number 2^-14: whole units of 2^-24. The sum puts the rounded
        // number of units into the last bits of the significand.
        let units = f32::from_bits(magnitude) + 0.5;
        return sign | (units.to_bits() - 0.5_f32.to_bits()) as u16;
    }
    let rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
    sign | ((rounded - 0x3800_0000) >> 13) as u16
}

/// The value of a binary16.
pub(crate) fn f16_to(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7fff);
    let value = match magnitude >> 10 {
        0 => return f32::from_bits(sign | (magnitude as f32 * (1.0 / 16_777_216.0)).to_bits()),
        31 => magnitude << 13 | 0x7f80_0000,
        _ => (magnitude << 13) + 0x3800_0000,
    };
    f32::from_bits(sign | value)
}

/// The value of a finite binary16, without a branch: as a binary32 of the same exponent field it
/// is too small by 2^112, and the product is exact, also where it was subnormal.
#[inline]
pub(crate) fn f16_finite_to(bits: u16) -> f32 {
    const SCALE: f32 = f32::from_bits((112 + 127) << 23);
    let value = f32::from_bits(u32::from(bits & 0x7fff) << 13) * SCALE;
    f32::from_bits(value.to_bits() | u32::from(bits & 0x8000) << 16)
}

/// The bfloat16 nearest to `value`, as bits.
pub(crate) fn bf16_from(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// The least bfloat16 that is not below `value`, a number that is not negative.
pub(crate) fn bf16_above(value: f32) -> u16 {
    debug_assert!(!value.is_sign_negative());
    (value.to_bits().div_ceil(1 << 16)) as u16
}

/// The value of a bfloat16.
#[inline]
pub(crate) fn bf16_to(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Seen to fail with the tie rounded up.
    #[test]
    fn every_binary16_returns_and_what_lies_between_rounds_to_the_even_one() {
        assert_eq!(f16_to(0x3c00), 1.0);
        assert_eq!(f16_to(0x7bff), 65_504.0);
        assert_eq!(f16_to(0x0001), 2.0_f32.powi(-24));
        assert_eq!(f16_to(0xc000), -2.0);
        for bits in 0..0x7c00_u16 {
            let (value, next) = (f16_to(bits), f16_to(bits + 1));
            assert_eq!(f16_from(value), bits);
            assert_eq!(f16_from(-value), bits | 0x8000);
            assert_eq!(f16_finite_to(bits), value);
            assert_eq!(f16_finite_to(bits | 0x8000).to_bits(), (-value).to_bits());
            let next = if next.is_finite() { next } else { 65_536.0 };
            let middle = (value + next) / 2.0;
            let even = if bits % 2 == 0 { bits } else { bits + 1 };
            assert_eq!(f16_from(middle), even, "{middle:e}");
            assert_eq!(f16_from(middle.next_down()), bits);
            assert_eq!(f16_from(middle.next_up()), bits + 1);
        }
        assert!(f16_to(f16_from(f32::NAN)).is_nan());
        assert_eq!(f16_to(f16_from(f32::INFINITY)), f32::INFINITY);
    }

    // Seen to fail with `bf16_above` cutting instead of rounding up.
    #[test]
    fn a_bfloat16_is_nearest_or_above() {
        for bits in 0..0x7f80_u16 {
            let (value, next) = (bf16_to(bits), bf16_to(bits + 1));
            assert_eq!(bf16_from(value), bits);
            assert_eq!(bf16_above(value), bits);
            assert_eq!(bf16_above(value.next_up()), bits + 1);
            if next.is_finite() {
                let middle = value + (next - value) / 2.0;
                assert_eq!(bf16_from(middle.next_up()), bits + 1);
                assert_eq!(bf16_from(middle.next_down()), bits);
            }
        }
        assert!(bf16_to(bf16_from(f32::NAN)).is_nan());
        assert_eq!(bf16_to(bf16_above(f32::INFINITY)), f32::INFINITY);
    }
}
