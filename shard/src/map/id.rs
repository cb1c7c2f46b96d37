//! Keyspace ids: byte strings that say where a row lies, compared without zero bytes at their end.
//!
//! A vindex makes ids from column values, a range holds ids, a shard serves a range. `80`, `8000`
//! and `80000000` are one id, and so are the empty string and `00`: an id is a binary fraction, and
//! zeros behind it change nothing (the rule is that of Vitess, `go/vt/key/key.go`).
//!
//! Invariants:
//! - N1: an id keeps no zero byte at its end, so equal ids are equal bit by bit, and the derived
//!   comparisons and hash are the right ones.
//! - N2: the first eight bytes lie in a word, big-endian and filled up with zeros, the others in
//!   `rest`, without zeros at their end. Comparing the pair is comparing the strings, because
//!   filling up with zeros changes no id. An id of at most eight bytes allocates nothing.

use std::fmt;
use std::str::FromStr;

use super::error::MapError;
use crate::limits::KEYSPACE_ID_BYTES_MAX;

/// Bytes that lie in the word.
const WORD: usize = size_of::<u64>();

/// Where a row lies: a byte string without zero bytes at its end.
///
/// At most [`KEYSPACE_ID_BYTES_MAX`] bytes. Shown and read as lower-case hex, the least id as the
/// empty text.
///
/// ```
/// use terrane_shard::{KeyspaceId, MapError};
///
/// # fn main() -> Result<(), MapError> {
/// let id = KeyspaceId::new(&[0x80, 0, 0])?;
/// assert_eq!(id, "8000".parse()?);
/// assert_eq!(id.to_string(), "80");
/// assert!(KeyspaceId::MIN < id);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyspaceId {
    // The order of the fields is the order of ids (N2).
    word: u64,
    rest: Vec<u8>,
}

impl KeyspaceId {
    /// The least id: no bytes, or zeros only.
    pub const MIN: KeyspaceId = KeyspaceId {
        word: 0,
        rest: Vec::new(),
    };

    /// The id of these bytes.
    ///
    /// # Errors
    /// [`MapError::IdTooLong`] where more than [`KEYSPACE_ID_BYTES_MAX`] bytes are left without the
    /// zeros at the end.
    pub fn new(bytes: &[u8]) -> Result<KeyspaceId, MapError> {
        let kept = bytes.iter().rposition(|&byte| byte != 0);
        let bytes = &bytes[..kept.map_or(0, |last| last + 1)]; // N1
        if bytes.len() > KEYSPACE_ID_BYTES_MAX {
            return Err(MapError::IdTooLong { found: bytes.len() });
        }
        let (head, rest) = bytes.split_at(bytes.len().min(WORD));
        let mut word = [0; WORD];
        word[..head.len()].copy_from_slice(head);
        Ok(KeyspaceId {
            word: u64::from_be_bytes(word),
            rest: rest.to_vec(),
        })
    }

    /// The id of the eight bytes of `word`, the highest first. Allocates nothing.
    #[must_use]
    pub const fn from_word(word: u64) -> KeyspaceId {
        KeyspaceId {
            word,
            rest: Vec::new(),
        }
    }

    /// The first eight bytes, filled up with zeros, the highest first.
    #[must_use]
    pub const fn word(&self) -> u64 {
        self.word
    }

    /// All eight bytes or fewer, as a word; none where the id is longer.
    #[must_use]
    pub fn to_word(&self) -> Option<u64> {
        self.rest.is_empty().then_some(self.word)
    }

    /// The bytes, without zeros at the end.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.word.to_be_bytes().to_vec();
        bytes.truncate(self.len() - self.rest.len());
        bytes.extend_from_slice(&self.rest);
        bytes
    }

    /// Bytes of the id, without zeros at the end.
    #[must_use]
    pub fn len(&self) -> usize {
        if self.rest.is_empty() {
            WORD - (self.word.trailing_zeros() / 8) as usize
        } else {
            WORD + self.rest.len()
        }
    }

    /// Whether this is the least id.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads one side of a range that stands in `text`, from byte `at` on.
    pub(super) fn parse_side(text: &str, at: usize, side: &str) -> Result<KeyspaceId, MapError> {
        for (i, found) in side.char_indices() {
            if !found.is_ascii_hexdigit() {
                let position = at + i;
                let text = MapError::quote(text);
                return Err(MapError::NotHex {
                    text,
                    position,
                    found,
                });
            }
        }
        if !side.len().is_multiple_of(2) {
            return Err(MapError::OddHex {
                text: MapError::quote(text),
                position: at,
                digits: side.len(),
            });
        }
        // Digits were checked, so nothing is left out here.
        let nibble = |digit: u8| char::from(digit).to_digit(16).unwrap_or(0) as u8;
        let digits = side.trim_end_matches('0').len().next_multiple_of(2);
        if digits / 2 > KEYSPACE_ID_BYTES_MAX {
            return Err(MapError::IdTooLong { found: digits / 2 });
        }
        let pairs = side.as_bytes()[..digits].chunks_exact(2);
        let bytes: Vec<u8> = pairs
            .map(|pair| nibble(pair[0]) << 4 | nibble(pair[1]))
            .collect();
        KeyspaceId::new(&bytes)
    }
}

impl fmt::Display for KeyspaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word.to_be_bytes();
        let head = &word[..self.len().min(WORD)];
        head.iter()
            .chain(&self.rest)
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyspaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyspaceId({self})")
    }
}

impl FromStr for KeyspaceId {
    type Err = MapError;

    /// Reads hex of either case, two digits a byte.
    ///
    /// # Errors
    /// [`MapError::NotHex`], [`MapError::OddHex`], [`MapError::IdTooLong`].
    fn from_str(text: &str) -> Result<KeyspaceId, MapError> {
        KeyspaceId::parse_side(text, 0, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Values: vitess go/vt/key/key_test.go, TestNormalize.
    // Seen to fail with zeros kept.
    #[test]
    fn zeros_at_the_end_are_no_part_of_an_id() {
        let long = [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa];
        let with_zero: Vec<u8> = long.iter().copied().chain([0]).collect();
        let cases: [(&[u8], &[u8]); 9] = [
            (&[], &[]),
            (&[0], &[]),
            (&[0, 0, 0], &[]),
            (&[0x11], &[0x11]),
            (&[0x11, 0x22, 0x33], &[0x11, 0x22, 0x33]),
            (&[0x11, 0, 0x22, 0, 0x33, 0], &[0x11, 0, 0x22, 0, 0x33]),
            (&[0x11, 0, 0, 0, 0, 0, 0, 0], &[0x11]),
            (&[0x11, 0x22, 0, 0, 0], &[0x11, 0x22]),
            (&with_zero, &long),
        ];
        for (bytes, kept) in cases {
            let id = KeyspaceId::new(bytes).unwrap();
            assert_eq!(id.to_bytes(), kept, "{bytes:?}");
            assert_eq!(id.len(), kept.len(), "{bytes:?}");
            assert_eq!(id.is_empty(), kept.is_empty());
        }
    }

    #[test]
    fn the_limit_counts_what_is_left() {
        let mut bytes = vec![1; KEYSPACE_ID_BYTES_MAX];
        bytes.resize(10_000, 0);
        let longest = KeyspaceId::new(&bytes).unwrap();
        assert_eq!(longest.len(), KEYSPACE_ID_BYTES_MAX);
        assert_eq!(longest.to_string().parse(), Ok(longest));
        bytes[KEYSPACE_ID_BYTES_MAX] = 1;
        let error = KeyspaceId::new(&bytes).unwrap_err();
        assert_eq!(
            error.to_string(),
            "keyspace id: expected at most 255 bytes, found 256"
        );
        let text = "01".repeat(256);
        assert_eq!(text.parse::<KeyspaceId>(), Err(error));
        assert_eq!(
            format!("80{}", "0".repeat(1000)).parse(),
            Ok(KeyspaceId::from_word(0x80 << 56))
        );
    }

    // Seen to fail with zeros taken off digit by digit.
    #[test]
    fn text_is_hex_of_either_case() {
        for (text, shown) in [
            ("", ""),
            ("00", ""),
            ("10", "10"),
            ("A0", "a0"),
            ("0a00", "0a"),
            ("0011223344556677889900", "00112233445566778899"),
        ] {
            let id: KeyspaceId = text.parse().unwrap();
            assert_eq!(id.to_string(), shown, "{text}");
        }
        let odd = "123".parse::<KeyspaceId>().unwrap_err();
        assert_eq!(
            odd.to_string(),
            "\"123\" at byte 0: expected two hex digits a byte, found 3 digits"
        );
        let stray = "12\u{e9}4".parse::<KeyspaceId>().unwrap_err();
        assert_eq!(
            stray.to_string(),
            "\"12\\u{e9}4\" at byte 2: expected a hex digit, found '\\u{e9}'"
        );
    }
}
