//! Unsigned LEB128 numbers in their shortest form, the only variable-length numbers of the format.
//!
//! A longer form of the same number is an error, so that equal records are equal bytes.

use crate::error::WalError;

/// Most bytes of a varint.
pub const VARINT_BYTES_MAX: usize = 10;

/// Appends `value`.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a varint at the front of `bytes`: the number, and what follows it.
pub fn take_varint(bytes: &[u8]) -> Result<(u64, &[u8]), WalError> {
    let mut value = 0u64;
    for (i, &byte) in bytes.iter().take(VARINT_BYTES_MAX).enumerate() {
        let bits = u64::from(byte & 0x7f);
        // The tenth byte holds the 64th bit alone.
        if i == VARINT_BYTES_MAX - 1 && byte > 1 {
            return Err(WalError::corrupt(i, "a varint below 2^64", "more bits"));
        }
        value |= bits << (7 * i);
        if byte & 0x80 == 0 {
            if byte == 0 && i > 0 {
                return Err(WalError::corrupt(
                    i,
                    "a varint in its shortest form",
                    "a trailing zero byte",
                ));
            }
            return Ok((value, bytes.get(i + 1..).unwrap_or(&[])));
        }
    }
    Err(WalError::corrupt(
        bytes.len().min(VARINT_BYTES_MAX),
        "the end of a varint",
        "no byte below 128",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_round_trip() {
        for value in [0, 1, 127, 128, 16383, 16384, u64::MAX >> 1, u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert!(bytes.len() <= VARINT_BYTES_MAX);
            bytes.push(0xaa);
            assert_eq!(take_varint(&bytes).unwrap(), (value, &[0xaa][..]));
        }
    }

    // Seen failing with the check of the trailing zero removed.
    #[test]
    fn long_forms_and_cut_ones_are_errors() {
        for bytes in [
            &[][..],
            &[0x80],
            &[0x80, 0x00],
            &[0xff, 0x00],
            &[0xff; 10],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
        ] {
            assert!(take_varint(bytes).is_err(), "{bytes:?}");
        }
    }
}
