//! Variable-length integers: LEB128, least significant group first, and zigzag for signed ones.
//!
//! Used by values, records and schemas, never by keys (its bytes do not sort).
//!
//! Invariants:
//! - C1: a number has one encoding, the shortest; any other is a `Codec` error, as is a number
//!   above 64 bits.

use crate::error::{Error, ErrorKind, Result};

/// Bytes of the longest varint: ten groups of seven bits hold 64.
pub(crate) const MAX_VARINT_BYTES: usize = 10;

/// Appends `number` in 1 to 10 bytes.
pub(crate) fn write(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes one varint off the front of `input`.
///
/// # Errors
/// `Codec` when the bytes end inside the number, or the number is overlong or above 64 bits (C1).
#[inline]
pub(crate) fn read(input: &mut &[u8]) -> Result<u64> {
    // Most are of one byte: tags, lengths, small numbers.
    if let [byte @ ..0x80, rest @ ..] = input {
        let number = u64::from(*byte);
        *input = rest;
        return Ok(number);
    }
    read_long(input)
}

fn read_long(input: &mut &[u8]) -> Result<u64> {
    let mut number = 0_u64;
    for (i, &byte) in input.iter().take(MAX_VARINT_BYTES).enumerate() {
        if i == MAX_VARINT_BYTES - 1 && byte > 1 {
            break;
        }
        number |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            if byte == 0 && i > 0 {
                return Err(
                    Error::new(ErrorKind::Codec, "a varint is longer than it needs to be")
                        .with("bytes", i + 1),
                );
            }
            *input = &input[i + 1..];
            return Ok(number);
        }
    }
    Err(if input.len() < MAX_VARINT_BYTES {
        Error::new(ErrorKind::Codec, "the bytes end inside a varint").with("bytes", input.len())
    } else {
        Error::new(ErrorKind::Codec, "a varint is above 64 bits")
    })
}

/// Maps small negative and positive numbers to small unsigned ones: 0, -1, 1, -2, .. to 0, 1, 2, 3.
pub(crate) fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

/// The inverse of [`zigzag`].
pub(crate) fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_in_their_shortest_form() {
        let mut out = Vec::new();
        for shift in 0..64 {
            for number in [1_u64 << shift, (1_u64 << shift) - 1, u64::MAX >> shift] {
                out.clear();
                write(number, &mut out);
                let bits = 64 - (number | 1).leading_zeros() as usize;
                assert_eq!(out.len(), bits.div_ceil(7), "{number}");
                let mut input = out.as_slice();
                assert_eq!(read(&mut input).unwrap(), number);
                assert!(input.is_empty());
            }
        }
    }

    #[test]
    fn bad_varints_are_refused() {
        for bytes in [&[][..], &[0x80], &[0x80, 0x00], &[0xff; 10], &[0xff; 11]] {
            let error = read(&mut &bytes[..]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Codec, "{bytes:?}");
        }
        let mut above = vec![0xff; 9];
        above.push(2);
        assert!(
            read(&mut above.as_slice())
                .unwrap_err()
                .message()
                .contains("above 64 bits")
        );
    }

    #[test]
    fn zigzag_is_its_own_mirror() {
        for number in [0, 1, -1, 2, -2, i64::MAX, i64::MIN, 12_345, -12_345] {
            assert_eq!(unzigzag(zigzag(number)), number);
        }
        assert_eq!((zigzag(-1), zigzag(1), zigzag(-2)), (1, 2, 3));
    }
}
