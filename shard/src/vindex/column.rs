//! The vindexes of one column that take no parameters, and what they have in common.
//!
//! Each is a function from a value to raw bytes, the id before its zeros are taken off:
//!
//! | kind | cost | bytes | NULL | back | ordered |
//! |---|---|---|---|---|---|
//! | `binary` | 0 | the value's text | the least id | yes | bytes only |
//! | `numeric` | 0 | the number in 8 bytes, highest first | none | yes | integers only |
//! | `xxhash` | 1 | XXH64 of the value's text, seed 0, lowest byte first | as no bytes | | |
//! | `hash` | 1 | DES of the number in 8 bytes, with a key of zeros | none | yes | |
//! | `binary_md5` | 1 | MD5 of the value's text | as no bytes | | |
//! | `reverse_bits` | 1 | the number with its bits reversed | none | yes | |
//! | `null` | 100 | one zero | the same | | |
//!
//! "Number" is a value that is one, see `value.rs`; other values have no place. `hash` alone takes
//! negative integers, as their two's complement. The rules and the ids are those of Vitess
//! (`go/vt/vtgate/vindexes/`), so rows can be brought over shard by shard.
//!
//! Invariants:
//! - C1: where a kind is ordered, a value between two others has an id in the range of `between`;
//!   no shard is left out, a neighbour may be asked in vain.

use std::borrow::Cow;
use std::ops::Bound;
use std::sync::LazyLock;

use des::Des;
use des::cipher::{BlockCipherEncrypt, KeyInit};
use md5::{Digest, Md5};
use xxhash_rust::xxh64::xxh64;

use super::error::VindexError;
use super::value::Value;
use super::{Vindex, begin_with};
use crate::limits::KEYSPACE_ID_BYTES_MAX;
use crate::map::{Destination, KeyRange, KeyspaceId};

/// DES with a key of zeros: a fixed mixing of 64 bits, no secret.
static MIXER: LazyLock<Des> = LazyLock::new(|| Des::new(&[0; 8].into()));

/// Mixes a number, or undoes it: the key of zeros is one of the weak keys of DES (FIPS 74), with
/// which enciphering twice gives back what there was.
fn mix(number: u64) -> u64 {
    let mut block = number.to_be_bytes().into();
    MIXER.encrypt_block(&mut block);
    u64::from_be_bytes(block.into())
}

/// What a vindex of one column makes of a value, before zeros at the end are taken off.
pub(super) enum Raw {
    /// Eight bytes, the highest first.
    Word(u64),
    /// Any other number of bytes.
    Bytes(Vec<u8>),
}

impl Raw {
    /// Appends the first `max` bytes.
    pub(super) fn append_to(&self, out: &mut Vec<u8>, max: usize) {
        let word;
        let bytes: &[u8] = match self {
            Raw::Word(number) => {
                word = number.to_be_bytes();
                &word
            }
            Raw::Bytes(bytes) => bytes,
        };
        out.extend_from_slice(&bytes[..bytes.len().min(max)]);
    }

    /// The id of these bytes.
    pub(super) fn into_destination(self, vindex: &str) -> Result<Destination, VindexError> {
        match self {
            Raw::Word(word) => Ok(Destination::Id(KeyspaceId::from_word(word))),
            Raw::Bytes(bytes) => {
                let id = KeyspaceId::new(&bytes).map_err(VindexError::id(vindex))?;
                Ok(Destination::Id(id))
            }
        }
    }
}

/// A vindex of one column without parameters.
///
/// ```
/// use terrane_shard::{Column, Destination, Value, Vindex, VindexError};
///
/// # fn main() -> Result<(), VindexError> {
/// let Destination::Id(id) = Column::Hash.map(&[Value::Int(1)])? else {
///     unreachable!("an integer has a place")
/// };
/// assert_eq!(id.to_string(), "166b40b44aba4bd6");
/// assert_eq!(Column::Hash.invert(&id)?, Value::Uint(1));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Column {
    /// XXH64 of the value's text: the default.
    #[default]
    Xxhash,
    /// DES of the number.
    Hash,
    /// The number itself.
    Numeric,
    /// The value's text itself.
    Binary,
    /// MD5 of the value's text.
    BinaryMd5,
    /// The number with its bits reversed: rising numbers are spread over all shards.
    ReverseBits,
    /// The first shard, whatever the value.
    Null,
}

impl Column {
    /// All of them.
    pub const ALL: [Column; 7] = [
        Column::Xxhash,
        Column::Hash,
        Column::Numeric,
        Column::Binary,
        Column::BinaryMd5,
        Column::ReverseBits,
        Column::Null,
    ];

    /// The name that a schema knows it by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Column::Xxhash => "xxhash",
            Column::Hash => "hash",
            Column::Numeric => "numeric",
            Column::Binary => "binary",
            Column::BinaryMd5 => "binary_md5",
            Column::ReverseBits => "reverse_bits",
            Column::Null => "null",
        }
    }

    /// The vindex of this name.
    pub(super) fn named(name: &str) -> Option<Column> {
        Column::ALL.into_iter().find(|column| column.name() == name)
    }

    /// The bytes of a value; none where it has no place.
    pub(super) fn raw(self, value: &Value<'_>) -> Option<Raw> {
        match self {
            Column::Xxhash => Some(Raw::Word(value.with_text(xxhash))),
            Column::Hash => {
                let number = match value {
                    Value::Int(number) => number.cast_unsigned(), // -1 is 2^64 - 1
                    other => other.to_number()?,
                };
                Some(Raw::Word(mix(number)))
            }
            Column::Numeric => value.to_number().map(Raw::Word),
            Column::Binary => Some(Raw::Bytes(value.with_text(<[u8]>::to_vec))),
            Column::BinaryMd5 => Some(Raw::Bytes(value.with_text(md5).to_vec())),
            Column::ReverseBits => value.to_number().map(|n| Raw::Word(n.reverse_bits())),
            Column::Null => Some(Raw::Word(0)),
        }
    }
}

/// XXH64 without a seed, as the word whose highest byte comes first.
pub(super) fn xxhash(text: &[u8]) -> u64 {
    xxh64(text, 0).swap_bytes()
}

/// MD5: a mixing function, here no proof of anything.
pub(super) fn md5(text: &[u8]) -> [u8; 16] {
    Md5::digest(text).into()
}

impl Vindex for Column {
    fn kind(&self) -> &str {
        self.name()
    }

    fn cost(&self) -> u32 {
        match self {
            Column::Binary | Column::Numeric => 0,
            Column::Null => 100,
            _ => 1,
        }
    }

    fn map(&self, values: &[Value<'_>]) -> Result<Destination, VindexError> {
        let [value] = values else {
            return Err(VindexError::ColumnCount {
                vindex: self.name().to_owned(),
                expected: 1,
                found: values.len(),
            });
        };
        self.raw(value).map_or(Ok(Destination::None), |raw| {
            raw.into_destination(self.name())
        })
    }

    fn is_reversible(&self) -> bool {
        use Column::{Binary, Hash, Numeric, ReverseBits};
        matches!(self, Binary | Hash | Numeric | ReverseBits)
    }

    fn invert(&self, id: &KeyspaceId) -> Result<Value<'static>, VindexError> {
        let vindex = || self.name().to_owned();
        if !self.is_reversible() {
            return Err(VindexError::NotReversible { vindex: vindex() });
        }
        if *self == Column::Binary {
            return Ok(Value::Bytes(Cow::Owned(id.to_bytes())));
        }
        let Some(word) = id.to_word() else {
            return Err(VindexError::ForeignId {
                vindex: vindex(),
                expected: size_of::<u64>(),
                found: id.len(),
            });
        };
        Ok(Value::Uint(match self {
            Column::Hash => mix(word),
            Column::ReverseBits => word.reverse_bits(),
            _ => word,
        }))
    }

    fn is_ordered(&self) -> bool {
        matches!(self, Column::Binary | Column::Numeric)
    }

    fn between(
        &self,
        from: Bound<&Value<'_>>,
        to: Bound<&Value<'_>>,
    ) -> Result<Destination, VindexError> {
        match self {
            Column::Numeric => Ok(numbers_between(from, to)),
            Column::Binary => bytes_between(from, to),
            _ => Ok(Destination::All),
        }
    }

    fn prefix_cost(&self) -> Option<u32> {
        (*self == Column::Binary).then_some(2)
    }

    fn prefix(&self, prefix: &[u8]) -> Result<Destination, VindexError> {
        match self {
            Column::Binary => begin_with(self.name(), prefix),
            _ => Ok(Destination::All),
        }
    }
}

/// What a bound of a scan over numbers means.
enum Limit {
    Open,
    Number(u64),
    /// A negative integer: below every number that has a place.
    Below,
    /// NULL: nothing lies between it and anything.
    Nothing,
    /// A text: its order is not that of numbers.
    Unordered,
}

fn limit(bound: Bound<&Value<'_>>) -> Limit {
    let (Bound::Included(value) | Bound::Excluded(value)) = bound else {
        return Limit::Open;
    };
    match value {
        Value::Null => Limit::Nothing,
        Value::Bytes(_) => Limit::Unordered,
        Value::Uint(number) => Limit::Number(*number),
        Value::Int(number) => u64::try_from(*number).map_or(Limit::Below, Limit::Number),
    }
}

/// The ids of numbers between two values: exact, since every number has eight bytes. Every shard
/// where a bound is text.
fn numbers_between(from: Bound<&Value<'_>>, to: Bound<&Value<'_>>) -> Destination {
    let start = match (from, limit(from)) {
        (_, Limit::Open | Limit::Below) => Some(0),
        (_, Limit::Nothing) => return Destination::None,
        (_, Limit::Unordered) => return Destination::All,
        (Bound::Excluded(_), Limit::Number(number)) => number.checked_add(1),
        (_, Limit::Number(number)) => Some(number),
    };
    let end = match (to, limit(to)) {
        (_, Limit::Open) => None,
        (_, Limit::Below | Limit::Nothing) => return Destination::None,
        (_, Limit::Unordered) => return Destination::All,
        (Bound::Excluded(_), Limit::Number(number)) => Some(number),
        (_, Limit::Number(number)) => number.checked_add(1),
    };
    // No number is above the greatest one.
    let Some(start) = start else {
        return Destination::None;
    };
    let range = KeyRange::new(KeyspaceId::from_word(start), end.map(KeyspaceId::from_word));
    range.map_or(Destination::None, Destination::from)
}

/// The ids of byte strings between two values; every shard where a value is an integer, since
/// decimal texts are not in the order of their numbers.
///
/// Values that differ only in zeros at their end have one id. So an upper bound that itself ends in
/// zeros counts as included, and an included one ends the range at itself and a byte 01, the
/// shortest id above it (C1).
fn bytes_between(
    from: Bound<&Value<'_>>,
    to: Bound<&Value<'_>>,
) -> Result<Destination, VindexError> {
    let mut bounds: [Bound<&[u8]>; 2] = [Bound::Unbounded; 2];
    for (bound, value) in bounds.iter_mut().zip([from, to]) {
        *bound = match value {
            Bound::Unbounded => Bound::Unbounded,
            Bound::Included(Value::Bytes(bytes)) => Bound::Included(&bytes[..]),
            Bound::Excluded(Value::Bytes(bytes)) => Bound::Excluded(&bytes[..]),
            Bound::Included(Value::Null) | Bound::Excluded(Value::Null) => {
                return Ok(Destination::None);
            }
            _ => return Ok(Destination::All),
        };
    }
    let [from, to] = bounds;
    let nothing = match (from, to) {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to))
        | (Bound::Excluded(from), Bound::Included(to)) => from >= to,
        (Bound::Unbounded, Bound::Excluded(to)) => to.is_empty(),
        _ => false,
    };
    if nothing {
        return Ok(Destination::None);
    }
    // What lies beyond the longest id is cut off, downwards below and upwards above.
    let cut = |bytes: &[u8]| bytes[..bytes.len().min(KEYSPACE_ID_BYTES_MAX)].to_vec();
    let error = VindexError::id(Column::Binary.name());
    let start = match from {
        Bound::Unbounded => KeyspaceId::MIN,
        Bound::Included(bytes) | Bound::Excluded(bytes) => {
            KeyspaceId::new(&cut(bytes)).map_err(&error)?
        }
    };
    let end = match to {
        Bound::Unbounded => None,
        Bound::Excluded(bytes)
            if !bytes.ends_with(&[0]) && bytes.len() <= KEYSPACE_ID_BYTES_MAX =>
        {
            Some(KeyspaceId::new(bytes).map_err(&error)?)
        }
        Bound::Excluded(bytes) | Bound::Included(bytes) => above(&cut(bytes)),
    };
    Ok(KeyRange::new(start, end).map_or(Destination::None, Destination::from))
}

/// A short id above that of `bytes`, which are at most as long as an id; none where there is none.
fn above(bytes: &[u8]) -> Option<KeyspaceId> {
    let kept = bytes.iter().rposition(|&byte| byte != 0);
    let mut bytes = bytes[..kept.map_or(0, |last| last + 1)].to_vec();
    if bytes.len() < KEYSPACE_ID_BYTES_MAX {
        bytes.push(1);
        return KeyspaceId::new(&bytes).ok();
    }
    KeyRange::of_prefix(&bytes).ok()?.end().cloned()
}
