//! A column value as a vindex sees it: nothing, an integer, or bytes.
//!
//! Vitess places by what a value looks like in SQL text, so the integer 1 and the text `1` have one
//! place. The two views that this takes are here: the text bytes, and the number.

use std::borrow::Cow;
use std::fmt;
use std::io::Write;

/// A column value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// SQL's NULL: no value.
    Null,
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    Uint(u64),
    /// Text or bytes.
    Bytes(Cow<'a, [u8]>),
}

/// Characters of the longest 64-bit integer, sign included.
const DIGITS_MAX: usize = 20;

impl Value<'_> {
    /// Calls `with` with the value's text: decimal digits of an integer, bytes as they are, nothing
    /// for NULL.
    pub(super) fn with_text<R>(&self, with: impl FnOnce(&[u8]) -> R) -> R {
        fn digits<R>(number: impl fmt::Display, with: impl FnOnce(&[u8]) -> R) -> R {
            let mut buffer = [0; DIGITS_MAX];
            let mut free = &mut buffer[..];
            let written = write!(free, "{number}");
            debug_assert!(written.is_ok(), "an integer has at most 20 characters");
            let used = DIGITS_MAX - free.len();
            with(&buffer[..used])
        }
        match self {
            Value::Null => with(&[]),
            Value::Int(number) => digits(number, with),
            Value::Uint(number) => digits(number, with),
            Value::Bytes(bytes) => with(bytes),
        }
    }

    /// The value as a number of 64 bits, or none: NULL, a negative integer, a text that is not all
    /// decimal digits but for blanks and tabs around them.
    pub(super) fn to_number(&self) -> Option<u64> {
        match self {
            Value::Null => None,
            Value::Int(number) => u64::try_from(*number).ok(),
            Value::Uint(number) => Some(*number),
            Value::Bytes(bytes) => {
                let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
                let first = bytes.iter().position(|byte| !is_blank(byte))?;
                let last = bytes.iter().rposition(|byte| !is_blank(byte))?;
                parse_digits(&bytes[first..=last])
            }
        }
    }
}

/// A number of decimal digits alone: no sign, no blank.
pub(super) fn parse_digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, &digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Value::Int(number)
    }
}

impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Value::Uint(number)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::Bytes(Cow::Borrowed(text.as_bytes()))
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Value::Bytes(Cow::Borrowed(bytes))
    }
}

impl From<Vec<u8>> for Value<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Value::Bytes(Cow::Owned(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Seen to fail with blanks refused, and with an overflow that wraps.
    #[test]
    fn a_text_is_a_number_if_it_is_all_digits() {
        let cases = [
            ("0", Some(0)),
            ("007", Some(7)),
            (" \t12 ", Some(12)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("99999999999999999999", None),
            ("", None),
            ("  ", None),
            ("-1", None),
            ("+1", None),
            ("1.1", None),
            ("1 2", None),
            ("aa", None),
        ];
        for (text, number) in cases {
            assert_eq!(Value::from(text).to_number(), number, "{text:?}");
        }
        assert_eq!(Value::Null.to_number(), None);
        assert_eq!(Value::Int(-1).to_number(), None);
        assert_eq!(Value::Uint(u64::MAX).to_number(), Some(u64::MAX));
    }

    #[test]
    fn an_integer_has_its_decimal_text() {
        let text = |value: Value<'_>| value.with_text(<[u8]>::to_vec);
        assert_eq!(text(Value::Int(i64::MIN)), b"-9223372036854775808");
        assert_eq!(text(Value::Uint(u64::MAX)), b"18446744073709551615");
        assert_eq!(text(Value::Int(0)), b"0");
        assert_eq!(text(Value::from("a b")), b"a b");
        assert_eq!(text(Value::Null), b"");
    }
}
