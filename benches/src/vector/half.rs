//! IEEE 754 binary16, in which the files of the data sets keep their elements.

/// The f32 that a half stands for; every half is exact in f32.
pub(crate) fn widen(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let exponent = u32::from(half >> 10) & 0x1f;
    let fraction = u32::from(half & 0x3ff);
    let magnitude = match exponent {
        // Subnormal: the fraction counts steps of 2^-24.
        0 => (fraction as f32 / 16_777_216.0).to_bits(),
        // Infinity and NaN.
        31 => 0x7f80_0000 | (fraction << 13),
        // The biases are 15 and 127.
        _ => ((exponent + 112) << 23) | (fraction << 13),
    };
    f32::from_bits(sign | magnitude)
}

/// The half nearest to a number, ties to the even one; beyond 65,504 it is infinity.
pub(crate) fn narrow(number: f32) -> u16 {
    let bits = number.to_bits();
    let sign = ((bits >> 16) & 0x8000) as u16;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return sign | 0x7e00;
    }
    // 65,520 is half-way to what would be the next number.
    if magnitude >= 0x477f_f000 {
        return sign | 0x7c00;
    }
    // Below 2^-14 the steps are of 2^-24, and the sum with 0.5 is rounded to just these.
    if magnitude < 0x3880_0000 {
        let steps = f32::from_bits(magnitude) + 0.5;
        return sign | (steps.to_bits() - 0x3f00_0000) as u16;
    }
    let odd = (magnitude >> 13) & 1;
    let rounded = magnitude + 0xfff + odd;
    sign | ((rounded >> 13) - (112 << 10)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_comes_back() {
        for half in 0..=u16::MAX {
            let number = widen(half);
            if number.is_nan() {
                assert!(widen(narrow(number)).is_nan(), "{half:#06x}");
            } else {
                assert_eq!(narrow(number), half, "{half:#06x}");
            }
        }
    }

    #[test]
    fn what_lies_between_goes_to_the_nearer() {
        for half in (0..0x7bff_u16).step_by(7) {
            let (low, high) = (widen(half), widen(half + 1));
            let middle = f32::midpoint(low, high);
            let even = if half % 2 == 0 { half } else { half + 1 };
            assert_eq!(narrow(middle), even, "{half:#06x}");
            assert_eq!(narrow(middle.next_down()), half, "{half:#06x}");
            assert_eq!(
                narrow(-middle.next_up()),
                (half + 1) | 0x8000,
                "{half:#06x}"
            );
        }
        assert_eq!(widen(0x3555), 0.333_251_95);
        assert_eq!(widen(narrow(65_520.0)), f32::INFINITY);
    }
}
