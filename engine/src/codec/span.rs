//! Ranges and prefixes of keys, as the byte bounds that a cursor walks.
//!
//! Invariants:
//! - P1: a span is a start, included, and an end, excluded or absent; `start <= end` always.
//! - P2: a prefix of whole parts finds exactly the keys with these parts, since part forms are
//!   prefix-free (C2).

use std::ops::{Bound, Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

use super::as_key::AsKey;
use super::key::{Composite, Key};
use crate::error::{Error, ErrorKind, Result};

/// A run of keys: from `start`, included, to `end`, excluded; without `end` to the last key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    start: Vec<u8>,
    end: Option<Vec<u8>>,
}

impl Span {
    /// Every key.
    #[must_use]
    pub fn all() -> Span {
        Span {
            start: Vec::new(),
            end: None,
        }
    }

    /// Every key that begins with `prefix`.
    #[must_use]
    pub fn prefix(prefix: Vec<u8>) -> Span {
        let end = after_prefix(prefix.clone());
        Span { start: prefix, end }
    }

    /// Between two whole keys.
    ///
    /// # Errors
    /// `Invalid` when the start is above the end. Equal bounds are an empty span.
    pub fn of_keys(start: Bound<Vec<u8>>, end: Bound<Vec<u8>>) -> Result<Span> {
        check_order(&start, &end)?;
        let next = |mut key: Vec<u8>| {
            key.push(0); // no key lies between a key and itself with a zero byte
            key
        };
        let start = match start {
            Bound::Included(key) => key,
            Bound::Excluded(key) => next(key),
            Bound::Unbounded => Vec::new(),
        };
        let end = match end {
            Bound::Included(key) => Some(next(key)),
            Bound::Excluded(key) => Some(key),
            Bound::Unbounded => None,
        };
        Ok(Span::ordered(start, end))
    }

    /// Between two leading parts of keys, which stand for every key that begins with them.
    ///
    /// # Errors
    /// `Invalid` when the start is above the end. Equal bounds are an empty span.
    pub fn of_parts(start: Bound<Vec<u8>>, end: Bound<Vec<u8>>) -> Result<Span> {
        check_order(&start, &end)?;
        let start = match start {
            Bound::Included(part) => Some(part),
            Bound::Excluded(part) => after_prefix(part),
            Bound::Unbounded => Some(Vec::new()),
        };
        let end = match end {
            Bound::Included(part) => after_prefix(part),
            Bound::Excluded(part) => Some(part),
            Bound::Unbounded => None,
        };
        // Nothing lies above a part of ff bytes only: an empty span at its place.
        Ok(start.map_or_else(
            || Span {
                start: vec![0xff],
                end: Some(vec![0xff]),
            },
            |start| Span::ordered(start, end),
        ))
    }

    /// `(Excluded(a), Excluded(a))` would put the start one key above the end: P1.
    fn ordered(start: Vec<u8>, end: Option<Vec<u8>>) -> Span {
        match end {
            Some(end) if end < start => Span {
                start: end.clone(),
                end: Some(end),
            },
            end => Span { start, end },
        }
    }

    /// The first key that may be in the span.
    #[must_use]
    pub fn start(&self) -> &[u8] {
        &self.start
    }

    /// The first key above the span; `None` when it is open.
    #[must_use]
    pub fn end(&self) -> Option<&[u8]> {
        self.end.as_deref()
    }

    /// Whether `key` lies in the span.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_slice() && self.end.as_deref().is_none_or(|end| key < end)
    }

    /// Whether no key can lie in the span.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end.as_ref() == Some(&self.start)
    }
}

/// The lowest bytes above everything that begins with `prefix`; `None` when there are none.
fn after_prefix(mut prefix: Vec<u8>) -> Option<Vec<u8>> {
    while let Some(last) = prefix.last_mut() {
        if *last < 0xff {
            *last += 1;
            return Some(prefix);
        }
        prefix.pop();
    }
    None
}

fn check_order(start: &Bound<Vec<u8>>, end: &Bound<Vec<u8>>) -> Result<()> {
    let (Bound::Included(low) | Bound::Excluded(low)) = start else {
        return Ok(());
    };
    let (Bound::Included(high) | Bound::Excluded(high)) = end else {
        return Ok(());
    };
    if low <= high {
        return Ok(());
    }
    let error = Error::new(ErrorKind::Invalid, "a range starts above its end");
    Err(error.with("start", hex(low)).with("end", hex(high)))
}

/// The first bytes of an encoded key, for the text of an error.
fn hex(key: &[u8]) -> String {
    let mut text: String = key
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if key.len() > 16 {
        text.push_str("..");
    }
    text
}

/// A range of keys of type `K`: `a..b`, `a..=b`, `a..`, `..b`, `..=b`, `..`, or a pair of
/// [`Bound`]s, of anything that stands for a key.
#[diagnostic::on_unimplemented(message = "`{Self}` is no range of keys of type `{K}`")]
pub trait KeyRange<K: Key> {
    /// The bounds, each in lone form.
    fn key_bounds(&self) -> (Bound<Vec<u8>>, Bound<Vec<u8>>);

    /// The bounds, each in part form.
    fn part_bounds(&self) -> (Bound<Vec<u8>>, Bound<Vec<u8>>);

    /// The span of a table's keys in the range.
    ///
    /// # Errors
    /// `Invalid` when the start is above the end. Equal bounds are an empty span.
    fn key_span(&self) -> Result<Span> {
        let (start, end) = self.key_bounds();
        Span::of_keys(start, end)
    }

    /// The span of an index's keys, which begin with a part in the range.
    ///
    /// # Errors
    /// `Invalid` when the start is above the end. Equal bounds are an empty span.
    fn part_span(&self) -> Result<Span> {
        let (start, end) = self.part_bounds();
        Span::of_parts(start, end)
    }
}

fn lone<K: Key>(key: &impl AsKey<K>) -> Vec<u8> {
    let mut out = Vec::new();
    key.write_key(&mut out);
    out
}

fn part<K: Key>(key: &impl AsKey<K>) -> Vec<u8> {
    let mut out = Vec::new();
    key.write_part(&mut out);
    out
}

macro_rules! ranges {
    ($($range:ty, |$self:ident, $form:ident| $start:expr, $end:expr;)*) => {$(
        impl<K: Key, Q: AsKey<K>> KeyRange<K> for $range {
            fn key_bounds(&self) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
                let ($self, $form) = (self, lone::<K>);
                ($start, $end)
            }

            fn part_bounds(&self) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
                let ($self, $form) = (self, part::<K>);
                ($start, $end)
            }
        }
    )*};
}

ranges! {
    Range<Q>, |range, form| Bound::Included(form(&range.start)), Bound::Excluded(form(&range.end));
    RangeInclusive<Q>, |range, form|
        Bound::Included(form(range.start())), Bound::Included(form(range.end()));
    RangeFrom<Q>, |range, form| Bound::Included(form(&range.start)), Bound::Unbounded;
    RangeTo<Q>, |range, form| Bound::Unbounded, Bound::Excluded(form(&range.end));
    RangeToInclusive<Q>, |range, form| Bound::Unbounded, Bound::Included(form(&range.end));
    (Bound<Q>, Bound<Q>), |range, form| range.0.as_ref().map(form), range.1.as_ref().map(form);
}

impl<K: Key> KeyRange<K> for RangeFull {
    fn key_bounds(&self) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
        (Bound::Unbounded, Bound::Unbounded)
    }

    fn part_bounds(&self) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
        (Bound::Unbounded, Bound::Unbounded)
    }
}

/// What leading part of a key of type `K` a scan can be asked for: the first part or parts of a
/// tuple, each whole, or the first bytes of a `String` or `Vec<u8>` that is the whole key.
///
/// An own type as the first part is given by reference.
#[diagnostic::on_unimplemented(message = "`{Self}` is no prefix of keys of type `{K}`")]
pub trait KeyPrefix<K: Key> {
    /// The span of the keys with this prefix.
    fn prefix_span(&self) -> Span;
}

impl<H: Key, K: Composite<Head = H>> KeyPrefix<K> for &H {
    fn prefix_span(&self) -> Span {
        Span::prefix(part::<H>(self))
    }
}

macro_rules! first_part {
    ($([$($generic:tt)*] $given:ty => $head:ty;)*) => {$(
        impl<$($generic)* K: Composite<Head = $head>> KeyPrefix<K> for $given {
            fn prefix_span(&self) -> Span {
                Span::prefix(part::<$head>(self))
            }
        }
    )*};
}

first_part! {
    [] u8 => u8;
    [] u16 => u16;
    [] u32 => u32;
    [] u64 => u64;
    [] u128 => u128;
    [] i8 => i8;
    [] i16 => i16;
    [] i32 => i32;
    [] i64 => i64;
    [] i128 => i128;
    [] f32 => f32;
    [] f64 => f64;
    [] bool => bool;
    [] char => char;
    [] String => String;
    [] &str => String;
    [] &&str => String;
    [] Vec<u8> => Vec<u8>;
    [] &[u8] => Vec<u8>;
}

macro_rules! leading_bytes {
    ($([$($generic:tt)*] $given:ty => $key:ty;)*) => {$(
        impl<$($generic)*> KeyPrefix<$key> for $given {
            fn prefix_span(&self) -> Span {
                let bytes: &[u8] = self.as_ref();
                Span::prefix(bytes.to_vec())
            }
        }
    )*};
}

leading_bytes! {
    [] &str => String;
    [] &&str => String;
    [] &String => String;
    [] String => String;
    [] &[u8] => Vec<u8>;
    [] &Vec<u8> => Vec<u8>;
    [] Vec<u8> => Vec<u8>;
    [const N: usize] &[u8; N] => Vec<u8>;
}

macro_rules! leading_parts {
    ($(($($key:ident $part:ident $at:tt),*) $($rest:ident)*;)*) => {$(
        impl<$($key: Key,)* $($rest: Key,)* $($part: AsKey<$key>),*>
            KeyPrefix<($($key,)* $($rest,)*)> for ($($part,)*)
        {
            fn prefix_span(&self) -> Span {
                let mut parts = Vec::new();
                $(self.$at.write_part(&mut parts);)*
                Span::prefix(parts)
            }
        }
    )*};
}

leading_parts! {
    (A P 0, B Q 1) C;
    (A P 0, B Q 1) C D;
    (A P 0, B Q 1) C D E;
    (A P 0, B Q 1) C D E F;
    (A P 0, B Q 1) C D E F G;
    (A P 0, B Q 1) C D E F G H;
    (A P 0, B Q 1, C R 2) D;
    (A P 0, B Q 1, C R 2) D E;
    (A P 0, B Q 1, C R 2) D E F;
    (A P 0, B Q 1, C R 2) D E F G;
    (A P 0, B Q 1, C R 2) D E F G H;
    (A P 0, B Q 1, C R 2, D S 3) E;
    (A P 0, B Q 1, C R 2, D S 3) E F;
    (A P 0, B Q 1, C R 2, D S 3) E F G;
    (A P 0, B Q 1, C R 2, D S 3) E F G H;
    (A P 0, B Q 1, C R 2, D S 3, E T 4) F;
    (A P 0, B Q 1, C R 2, D S 3, E T 4) F G;
    (A P 0, B Q 1, C R 2, D S 3, E T 4) F G H;
    (A P 0, B Q 1, C R 2, D S 3, E T 4, F U 5) G;
    (A P 0, B Q 1, C R 2, D S 3, E T 4, F U 5) G H;
    (A P 0, B Q 1, C R 2, D S 3, E T 4, F U 5, G V 6) H;
}
