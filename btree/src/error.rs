//! What can go wrong in a store: one small enum whose variants say what the caller can do.

use std::fmt;
use std::path::PathBuf;

use terrane_wal::io::IoError;
use terrane_wal::lsn::TreeId;

use crate::ids::PageId;

/// A failed operation of a store or a tree. Cheap to clone.
#[derive(Clone, Debug)]
pub enum StoreError {
    /// No space on the device, or no memory left in the budget for `what`. Clears itself when space
    /// returns.
    Full {
        /// What there was no room for.
        what: &'static str,
        /// Bytes asked for.
        wanted: u64,
        /// Bytes that were there.
        available: u64,
    },
    /// A key or value above its limit.
    TooLarge {
        /// "key" or "value".
        what: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Bytes on disk are not what was written.
    Corrupt(Box<Corruption>),
    /// The device failed.
    Io(IoError),
    /// An argument that no state of the store allows.
    Invalid {
        /// What is wrong with it.
        what: String,
    },
    /// Written by a newer or an unsupported format.
    Version {
        /// The file.
        file: PathBuf,
        /// Format or feature bits that this build knows.
        supported: u64,
        /// What the file has.
        found: u64,
    },
    /// A sync or a superblock write failed before: nothing more is published until reopen.
    Poisoned {
        /// The first failure.
        cause: Box<StoreError>,
    },
}

/// Where bytes were bad, and how.
#[derive(Clone, Debug, Default)]
pub struct Corruption {
    /// The structure: "page", "map", "META", "overflow", "checkpoint", "length".
    pub what: &'static str,
    /// The page, if one is concerned.
    pub page: Option<PageId>,
    /// The tree, if known.
    pub tree: Option<TreeId>,
    /// The file, if known.
    pub file: Option<PathBuf>,
    /// Byte offset in the file.
    pub offset: u64,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

impl StoreError {
    /// A bad page.
    pub fn corrupt_page(
        page: PageId,
        expected: impl fmt::Display,
        found: impl fmt::Display,
    ) -> StoreError {
        StoreError::Corrupt(Box::new(Corruption {
            what: "page",
            page: Some(page),
            expected: expected.to_string(),
            found: found.to_string(),
            ..Corruption::default()
        }))
    }

    /// A bad structure other than a page.
    pub fn corrupt(
        what: &'static str,
        expected: impl fmt::Display,
        found: impl fmt::Display,
    ) -> StoreError {
        StoreError::Corrupt(Box::new(Corruption {
            what,
            expected: expected.to_string(),
            found: found.to_string(),
            ..Corruption::default()
        }))
    }

    /// The same error, its place added if it is a corruption that does not name one yet.
    #[must_use]
    pub fn at(mut self, file: &std::path::Path, offset: u64) -> StoreError {
        if let StoreError::Corrupt(corruption) = &mut self
            && corruption.file.is_none()
        {
            corruption.file = Some(file.to_owned());
            corruption.offset = offset;
        }
        self
    }

    /// The same error, its tree added if it is a corruption that does not name one yet.
    #[must_use]
    pub fn in_tree(mut self, tree: TreeId) -> StoreError {
        if let StoreError::Corrupt(corruption) = &mut self {
            corruption.tree.get_or_insert(tree);
        }
        self
    }
}

impl From<IoError> for StoreError {
    fn from(error: IoError) -> StoreError {
        if error.is_full() {
            StoreError::Full {
                what: "data on the device",
                wanted: error.len as u64,
                available: 0,
            }
        } else {
            StoreError::Io(error)
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Full {
                what,
                wanted,
                available,
            } => write!(
                f,
                "no room for {what}: {wanted} bytes wanted, {available} there"
            ),
            StoreError::TooLarge { what, len, limit } => {
                write!(f, "{what} of {len} bytes; the limit is {limit}")
            }
            StoreError::Corrupt(corruption) => corruption.fmt(f),
            StoreError::Io(error) => error.fmt(f),
            StoreError::Invalid { what } => write!(f, "invalid: {what}"),
            StoreError::Version {
                file,
                supported,
                found,
            } => write!(
                f,
                "{}: format {found:#x}, this build supports {supported:#x}",
                file.display()
            ),
            StoreError::Poisoned { cause } => write!(f, "poisoned by an earlier failure: {cause}"),
        }
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "corrupt {}", self.what)?;
        if let Some(page) = self.page {
            write!(f, " ({page})")?;
        }
        if let Some(tree) = self.tree {
            write!(f, " of {tree}")?;
        }
        if let Some(file) = &self.file {
            write!(f, " in {} at offset {}", file.display(), self.offset)?;
        }
        write!(f, ": expected {}, found {}", self.expected, self.found)
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StoreError::Io(error) => Some(error),
            StoreError::Poisoned { cause } => Some(cause),
            _ => None,
        }
    }
}
