//! What can go wrong in the log, sorted by what the caller can do about it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::io::IoError;
use crate::lsn::{Lsn, Term};

/// An error of the log.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WalError {
    /// No space for the next segment; nothing was sequenced. Clears itself when space returns.
    Full {
        /// Bytes of the segment that could not be made.
        needed: u64,
        /// What the disk said.
        source: IoError,
    },
    /// An entry over a documented limit; nothing was sequenced.
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its length in bytes.
        len: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// A log write failed earlier. Nothing more is accepted until the log is opened again.
    Poisoned {
        /// The failure.
        cause: Arc<WalError>,
    },
    /// Bytes that should be there and are not as they were written.
    Corrupt {
        /// The segment file, or the folder; empty if the bytes came from memory.
        segment: PathBuf,
        /// Byte offset in the file, or in the given bytes.
        offset: u64,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// Written by a later format.
    Version {
        /// The segment file; empty if the bytes came from memory.
        segment: PathBuf,
        /// What this build understands.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A failed operation of the disk.
    Io(IoError),
    /// The log was closed.
    Closed,
    /// A reader's position was trimmed away after its lease had run out.
    CursorLost {
        /// Where the reader stood.
        position: Lsn,
        /// The oldest position that is still there.
        oldest: Lsn,
    },
    /// A reader of a shard's member was beyond what is committed, and the log was cut there: it
    /// goes on with other entries.
    Cut {
        /// Where the reader stood.
        position: Lsn,
        /// Where the log was cut.
        cut: Lsn,
    },
    /// The member led the term of an entry and leads no more: whether the entry is committed,
    /// another decides.
    Deposed {
        /// The entry's term.
        term: Term,
    },
    /// An entry was not committed in time. It may be later.
    TimedOut {
        /// The entry's end.
        lsn: Lsn,
        /// How long it was waited for.
        within: Duration,
    },
    /// The log ends before what its caller knows to be in it: a checkpoint is newer than the log.
    Short {
        /// The folder.
        dir: PathBuf,
        /// The log must reach so far.
        reach: Lsn,
        /// Its end.
        end: Lsn,
    },
    /// An argument outside its documented range.
    Invalid {
        /// Which argument, its value and its range.
        what: String,
    },
}

impl WalError {
    /// Corruption in bytes that have no file (yet).
    pub(crate) fn corrupt(
        offset: usize,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> WalError {
        WalError::Corrupt {
            segment: PathBuf::new(),
            offset: offset as u64,
            expected: expected.into(),
            found: found.into(),
        }
    }

    /// Names the file (and moves the offset by `base`) of an error that has none yet.
    #[must_use]
    pub(crate) fn in_file(self, path: &std::path::Path, base: u64) -> WalError {
        match self {
            WalError::Corrupt {
                segment,
                offset,
                expected,
                found,
            } if segment.as_os_str().is_empty() => WalError::Corrupt {
                segment: path.to_path_buf(),
                offset: base.saturating_add(offset),
                expected,
                found,
            },
            WalError::Version {
                segment,
                expected,
                found,
            } if segment.as_os_str().is_empty() => WalError::Version {
                segment: path.to_path_buf(),
                expected,
                found,
            },
            other => other,
        }
    }
}

impl From<IoError> for WalError {
    fn from(error: IoError) -> WalError {
        WalError::Io(error)
    }
}

impl fmt::Display for WalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalError::Full { needed, source } => {
                write!(f, "no space for a log segment of {needed} bytes: {source}")
            }
            WalError::TooLarge { what, len, max } => {
                write!(f, "{what} has {len} bytes, at most {max} are allowed")
            }
            WalError::Poisoned { cause } => write!(f, "an earlier log write failed: {cause}"),
            WalError::Corrupt {
                segment,
                offset,
                expected,
                found,
            } => write!(
                f,
                "corrupt log {} at offset {offset}: expected {expected}, found {found}",
                segment.display()
            ),
            WalError::Version {
                segment,
                expected,
                found,
            } => write!(
                f,
                "log {} has another format: expected {expected}, found {found}",
                segment.display()
            ),
            WalError::Io(source) => write!(f, "{source}"),
            WalError::Closed => f.write_str("the log is closed"),
            WalError::Cut { position, cut } => write!(
                f,
                "a reader at {position}: expected that part of the log to stay, found it cut at \
                 {cut}"
            ),
            WalError::CursorLost { position, oldest } => write!(
                f,
                "cursor lost: {position} was trimmed, the log begins at {oldest}"
            ),
            WalError::Deposed { term } => write!(
                f,
                "expected this member to lead {term}, found that it leads no more"
            ),
            WalError::TimedOut { lsn, within } => write!(
                f,
                "the entry that ends at {lsn}: expected it to be committed within {within:?}, \
                 found that it is not yet"
            ),
            WalError::Short { dir, reach, end } => write!(
                f,
                "the log in {} must reach {reach} and ends at {end}",
                dir.display()
            ),
            WalError::Invalid { what } => f.write_str(what),
        }
    }
}

impl std::error::Error for WalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            WalError::Full { source, .. } | WalError::Io(source) => Some(source),
            WalError::Poisoned { cause } => Some(&**cause),
            _ => None,
        }
    }
}
