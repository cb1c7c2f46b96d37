//! The small universe of rows that scripts write: keys of nasty shapes, values that name
//! themselves.
//!
//! A [`KeyId`] is the rank of its key in byte order, so that ranges over ids are ranges over keys
//! and a model needs no key bytes. A value carries its key, its version and its length class and is
//! filled from them: a row that was mixed up, torn or served from elsewhere does not read back.

use std::fmt;
use std::sync::OnceLock;

/// Number of tables that a script uses.
pub const TABLES: u8 = 2;
/// Keys that only single operations touch: odd shapes.
const ODD: usize = 40;
/// How many of the odd ones are asked for most often.
const HOT: usize = 5;
/// Keys that bulk operations touch: short, dense, enough for splits and merges.
const BULK: usize = 984;
/// Keys of a table.
pub const KEYS: usize = ODD + BULK;

/// Rank of a key in byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(pub u16);

/// A table and a key in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowId {
    /// Number of the table.
    pub table: u8,
    /// The key.
    pub key: KeyId,
}

struct Universe {
    /// All keys, sorted.
    keys: Vec<Vec<u8>>,
    /// Ranks of the odd ones and of the bulk ones.
    odd: Vec<KeyId>,
    bulk: Vec<KeyId>,
}

fn odd_keys() -> Vec<Vec<u8>> {
    let mut keys = vec![
        Vec::new(),
        vec![0],
        vec![0, 0],
        vec![0, 0xff],
        vec![0xff],
        vec![0xff, 0xff],
        b"a".to_vec(),
        b"aa".to_vec(),
        b"ab".to_vec(),
        b"z".to_vec(),
    ];
    let family =
        |stem: Vec<u8>, count: u8| (0..count).map(move |n| [stem.clone(), vec![b'0' + n]].concat());
    keys.extend(family(b"user/000000000000".to_vec(), 10));
    keys.extend(family([vec![b'm'; 200], b"/".to_vec()].concat(), 8));
    keys.extend(family(vec![b'p'; 1023], 6));
    keys.extend(family([vec![b'p'; 1023], vec![b'5'; 1024]].concat(), 4));
    // The longest key that is allowed, and its neighbour that differs in the last byte.
    keys.extend(family(vec![b'q'; (32 << 10) - 1], 2));
    keys
}

fn universe() -> &'static Universe {
    static UNIVERSE: OnceLock<Universe> = OnceLock::new();
    UNIVERSE.get_or_init(|| {
        let odd = odd_keys();
        assert_eq!(odd.len(), ODD);
        let bulk: Vec<Vec<u8>> = (0..BULK)
            .map(|n| format!("row/{n:05}").into_bytes())
            .collect();
        let mut keys: Vec<Vec<u8>> = odd.iter().chain(&bulk).cloned().collect();
        keys.sort();
        let rank = |key: &Vec<u8>| match keys.binary_search(key) {
            Ok(at) => KeyId(at as u16),
            Err(_) => unreachable!("every key is in the sorted list"),
        };
        let (odd, bulk) = (
            odd.iter().map(rank).collect(),
            bulk.iter().map(rank).collect(),
        );
        Universe { keys, odd, bulk }
    })
}

impl KeyId {
    /// Any number becomes a key: two in four choose among a few odd ones, one among all of them.
    #[must_use]
    pub fn pick(number: u16) -> KeyId {
        let universe = universe();
        let rest = (number / 4) as usize;
        match number % 4 {
            3 => universe.bulk[rest % BULK],
            2 => universe.odd[rest % ODD],
            _ => universe.odd[rest % HOT * (ODD / HOT)],
        }
    }

    /// The number of which [`KeyId::pick`] makes this key.
    #[must_use]
    pub fn number(self) -> u16 {
        let universe = universe();
        let place = |keys: &[KeyId]| keys.iter().position(|key| *key == self);
        match (place(&universe.odd), place(&universe.bulk)) {
            (Some(at), _) => at as u16 * 4 + 2,
            (None, Some(at)) => at as u16 * 4 + 3,
            (None, None) => unreachable!("every key is odd or bulk"),
        }
    }

    /// The `n`-th bulk key, counted around.
    #[must_use]
    pub fn bulk(n: usize) -> KeyId {
        universe().bulk[n % BULK]
    }

    /// The key's bytes.
    #[must_use]
    pub fn bytes(self) -> &'static [u8] {
        &universe().keys[self.0 as usize]
    }

    /// The id of a key's bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<KeyId> {
        let found = universe()
            .keys
            .binary_search_by(|key| key.as_slice().cmp(bytes));
        found.ok().map(|at| KeyId(at as u16))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes();
        match bytes.len() {
            0 => f.write_str("(empty)"),
            1..=24 => write!(f, "{}", bytes.escape_ascii()),
            len => {
                let (head, tail) = (&bytes[..4], &bytes[len - 1..]);
                write!(
                    f,
                    "{}..{} ({len} B)",
                    head.escape_ascii(),
                    tail.escape_ascii()
                )
            }
        }
    }
}

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}[{}]", self.table, self.key)
    }
}

/// How long a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Length {
    /// No bytes at all; it cannot name itself.
    Empty,
    /// Its name and little else.
    Tiny,
    /// A common row.
    Small,
    /// Several on a page.
    Medium,
    /// More than a quarter of a page: kept outside of the leaf.
    Overflow,
    /// Near the limit of a value.
    Huge,
}

impl Length {
    /// All classes.
    pub const ALL: [Length; 6] = [
        Length::Empty,
        Length::Tiny,
        Length::Small,
        Length::Medium,
        Length::Overflow,
        Length::Huge,
    ];

    /// Bytes of a value of this class.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Length::Empty => 0,
            Length::Tiny => 12,
            Length::Small => 100,
            Length::Medium => 900,
            Length::Overflow => 9_000,
            Length::Huge => 60 << 10,
        }
    }
}

/// A value: its version in the script and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Val {
    /// Unique in a script; zero for an empty value.
    pub version: u32,
    /// How long it is.
    pub length: Length,
}

/// Bytes of the name at the front of a value: table, length class, key, version.
const NAME: usize = 8;

impl Val {
    /// The value that a script writes at step `version`.
    #[must_use]
    pub fn new(version: u32, length: Length) -> Val {
        let version = if length == Length::Empty { 0 } else { version };
        Val { version, length }
    }

    /// The bytes of this value in the given row.
    #[must_use]
    pub fn bytes(self, row: RowId) -> Vec<u8> {
        let len = self.length.bytes();
        let mut bytes = Vec::with_capacity(len);
        if len == 0 {
            return bytes;
        }
        bytes.extend([row.table, self.length as u8]);
        bytes.extend(row.key.0.to_le_bytes());
        bytes.extend(self.version.to_le_bytes());
        let mut state = u64::from(self.version) << 24 | u64::from(row.key.0) << 8 | 1;
        while bytes.len() < len {
            state = state
                .wrapping_mul(0x5851_f42d_4c95_7f2d)
                .wrapping_add(0x1405_7b7e_f767_814f);
            let word = (state >> 32).to_le_bytes();
            let room = (len - bytes.len()).min(4);
            bytes.extend(&word[..room]);
        }
        bytes
    }

    /// The value whose bytes these are, if they are a whole value of that row.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(row: RowId, bytes: &[u8]) -> Result<Val, String> {
        if bytes.is_empty() {
            return Ok(Val::new(0, Length::Empty));
        }
        let Some((name, _)) = bytes.split_at_checked(NAME) else {
            return Err(format!(
                "{row}: a value of {} bytes has no name",
                bytes.len()
            ));
        };
        let version = u32::from_le_bytes([name[4], name[5], name[6], name[7]]);
        let Some(length) = Length::ALL.get(name[1] as usize) else {
            return Err(format!("{row}: a value of unknown class {}", name[1]));
        };
        let val = Val {
            version,
            length: *length,
        };
        if val.bytes(row) != bytes {
            let len = bytes.len();
            return Err(format!(
                "{row}: {len} bytes that call themselves {val} are not it"
            ));
        }
        Ok(val)
    }
}

impl fmt::Display for Val {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.length {
            Length::Empty => f.write_str("nothing"),
            length => write!(f, "v{} ({} B)", self.version, length.bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_ranked_as_their_bytes_sort_and_come_back_by_number() {
        for at in 1..KEYS as u16 {
            assert!(KeyId(at - 1).bytes() < KeyId(at).bytes());
        }
        for at in 0..KEYS as u16 {
            assert_eq!(KeyId::pick(KeyId(at).number()), KeyId(at));
            assert_eq!(KeyId::of(KeyId(at).bytes()), Some(KeyId(at)));
        }
        assert!(KeyId::of(b"nobody").is_none());
    }

    #[test]
    fn a_value_reads_back_in_its_own_row_only() {
        let row = RowId {
            table: 1,
            key: KeyId(7),
        };
        for length in Length::ALL {
            let val = Val::new(9, length);
            assert_eq!(Val::read(row, &val.bytes(row)), Ok(val));
        }
        let mut bytes = Val::new(9, Length::Overflow).bytes(row);
        assert!(
            Val::read(
                RowId {
                    table: 0,
                    key: KeyId(7)
                },
                &bytes
            )
            .is_err()
        );
        bytes[8_000] ^= 1;
        assert!(Val::read(row, &bytes).is_err());
        assert!(Val::read(row, &bytes[..5]).is_err());
    }
}
