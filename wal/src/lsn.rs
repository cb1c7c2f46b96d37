//! Positions in the log and the other numbers that have a meaning of their own.
//!
//! An [`Lsn`] is the byte offset of an entry's END in the record stream: records only, no padding,
//! no frame headers. So members that batch differently agree on it, and "the previous entry" is the
//! one that ends where this one begins.

use std::fmt;

/// A position in the record stream, in bytes. An entry is named by the position of its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The start of the stream: nothing ends here.
    pub const ZERO: Lsn = Lsn(0);

    /// The position `len` bytes further on. Panics on overflow: 2^64 bytes are never written.
    #[must_use]
    pub fn advance(self, len: u64) -> Lsn {
        match self.0.checked_add(len) {
            Some(sum) => Lsn(sum),
            None => panic!("log position overflow at {self}"),
        }
    }

    /// Bytes from `earlier` to `self`. Panics if `earlier` lies behind `self`.
    #[must_use]
    pub fn since(self, earlier: Lsn) -> u64 {
        assert!(earlier <= self, "{earlier} lies after {self}");
        self.0 - earlier.0
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lsn {}", self.0)
    }
}

/// A commit timestamp of the hybrid logical clock: 48 bit milliseconds since 1970, 16 bit counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ts(pub u64);

impl Ts {
    /// Before every commit.
    pub const ZERO: Ts = Ts(0);

    /// The smallest timestamp of a millisecond.
    #[must_use]
    pub fn from_ms(ms: u64) -> Ts {
        Ts(ms << 16)
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn ms(self) -> u64 {
        self.0 >> 16
    }

    /// The next timestamp.
    #[must_use]
    pub fn next(self) -> Ts {
        Ts(self.0 + 1)
    }
}

impl fmt::Display for Ts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ts {}.{}", self.ms(), self.0 & 0xffff)
    }
}

/// The number of a leadership. A standalone database stays in term 1; term 0 is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

impl Term {
    /// The term of a standalone database.
    pub const FIRST: Term = Term(1);
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "term {}", self.0)
    }
}

/// LSN of a transaction's first run: of its own entry, or of its first chunk. Never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxnId(pub u64);

/// Id of a tree (a table, an index, a system tree). Logged, never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreeId(pub u32);

impl fmt::Display for TreeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tree {}", self.0)
    }
}
