//! What the suite asks of an engine; each adapter is one file.

use std::path::Path;

use crate::Failure;

/// How durable a commit is when it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// On the device: one flush at least.
    Synced,
    /// In the operating system or the process: lost with power.
    Buffered,
}

impl Durability {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Durability::Synced => "synced",
            Durability::Buffered => "buffered",
        }
    }
}

/// An opened engine. Keys are u64 in numeric order, values bytes.
pub(crate) trait Engine: Send + Sync {
    /// Options that differ from the defaults, and why they are what the engine's docs advise.
    fn options(&self) -> String;

    /// One transaction with all of `rows`.
    fn load(&self, rows: &[(u64, [u8; crate::rows::VALUE_LEN])]) -> Result<(), Failure>;

    /// One transaction with one row.
    fn put(&self, key: u64, value: &[u8]) -> Result<(), Failure>;

    /// Reads a row and writes it back changed, in one transaction; true if it was there.
    fn modify(&self, key: u64, value: &[u8]) -> Result<bool, Failure>;

    /// Runs `body` with a reader: a snapshot, a read transaction, a statement.
    fn read(&self, body: ReadBody<'_>) -> Result<(), Failure>;
}

/// Reads of one thread.
pub(crate) trait Reader {
    /// Copies the value of a key out; false if there is none.
    fn get(&mut self, key: u64, out: &mut Vec<u8>) -> Result<bool, Failure>;

    /// Visits up to `limit` rows from `from` upwards and returns how many there were.
    fn scan(
        &mut self,
        from: u64,
        limit: u64,
        visit: &mut dyn FnMut(u64, &[u8]),
    ) -> Result<u64, Failure>;
}

/// Opens an engine in a folder with a durability and a cache in MiB.
pub(crate) type OpenFn = fn(&Path, Durability, u64) -> Result<Box<dyn Engine>, Failure>;

/// What a thread does with a reader.
pub(crate) type ReadBody<'a> = &'a mut dyn FnMut(&mut dyn Reader) -> Result<(), Failure>;

/// An engine that this build knows.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) open: OpenFn,
}

/// All engines of this build; Terrane first.
pub(crate) const ENGINES: &[Kind] = &[
    Kind {
        name: "terrane",
        version: env!("CARGO_PKG_VERSION"),
        open: super::terrane::open,
    },
    #[cfg(feature = "compare")]
    Kind {
        name: "redb",
        version: "4",
        open: super::redb::open,
    },
    #[cfg(feature = "compare")]
    Kind {
        name: "fjall",
        version: "3",
        open: super::fjall::open,
    },
    #[cfg(feature = "compare")]
    Kind {
        name: "lmdb",
        version: "0.9 (heed 0.22)",
        open: super::lmdb::open,
    },
    #[cfg(feature = "compare")]
    Kind {
        name: "sqlite",
        version: "3 (rusqlite 0.37)",
        open: super::sqlite::open,
    },
    #[cfg(feature = "compare-cpp")]
    Kind {
        name: "rocksdb",
        version: "rust-rocksdb 0.24",
        open: super::rocksdb::open,
    },
];
