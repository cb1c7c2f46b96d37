//! What the suite asks of an engine; each adapter is one file.

use std::path::Path;

use crate::Failure;
use crate::rows::{VALUE_LEN, belongs};

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

/// How an engine is opened.
#[derive(Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) durability: Durability,
    /// Cache in MiB; with Terrane the budget of everything.
    pub(crate) cache_mib: u64,
}

/// An opened engine. Keys are u64 in numeric order, values bytes.
pub(crate) trait Engine: Send + Sync {
    /// Options that differ from the defaults, and what else a reader of the figures must know.
    fn options(&self) -> String;

    /// One transaction with all of `rows`.
    fn load(&self, rows: &[(u64, [u8; VALUE_LEN])]) -> Result<(), Failure>;

    /// One transaction with one row.
    fn put(&self, key: u64, value: &[u8]) -> Result<(), Failure>;

    /// Reads a row and writes it back changed, in one transaction; true if it was there. Needs
    /// [`Kind::open_transactions`].
    fn modify(&self, key: u64, value: &[u8]) -> Result<bool, Failure>;

    /// One transaction that scans `limit` rows from `from` and writes the first of them anew with
    /// the value that `fresh` makes of its key; the rows are in `audit`, none if there was none.
    /// Needs [`Kind::open_transactions`].
    fn scan_and_put(
        &self,
        from: u64,
        limit: usize,
        audit: &mut Audit,
        fresh: &dyn Fn(u64) -> [u8; VALUE_LEN],
    ) -> Result<(), Failure>;

    /// Runs `body` with a reader: a snapshot, a read transaction, a statement.
    fn read(&self, body: ReadBody<'_>) -> Result<(), Failure>;

    /// One get on its own, by the shortest way that the engine has.
    fn get(&self, key: u64, out: &mut Vec<u8>) -> Result<bool, Failure> {
        let mut found = false;
        self.read(&mut |reader| {
            found = reader.get(key, out)?;
            Ok(())
        })?;
        Ok(found)
    }
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

/// Rows of a scan as they come: counted, and checked for order and for belonging to their key.
#[derive(Default)]
pub(crate) struct Audit {
    pub(crate) seen: u64,
    pub(crate) wrong: u64,
    pub(crate) first: Option<u64>,
    last: Option<u64>,
}

impl Audit {
    /// Forgets what an attempt saw that did not commit.
    pub(crate) fn begin(&mut self) {
        *self = Audit::default();
    }

    /// The next row.
    pub(crate) fn row(&mut self, key: u64, value: &[u8]) {
        let ordered = self.last.is_none_or(|last| last < key);
        self.wrong += u64::from(!ordered || !belongs(key, value));
        self.seen += 1;
        self.first.get_or_insert(key);
        self.last = Some(key);
    }

    /// An error unless `expected` rows came and all were right.
    pub(crate) fn passed(&self, expected: u64) -> Result<(), Failure> {
        if self.seen == expected && self.wrong == 0 {
            return Ok(());
        }
        let (seen, wrong) = (self.seen, self.wrong);
        Err(format!("a scan of {expected} rows gave {seen}, {wrong} of them wrong").into())
    }
}

/// Opens an engine in a folder.
pub(crate) type OpenFn = fn(&Path, Setting) -> Result<Box<dyn Engine>, Failure>;

/// What a thread does with a reader.
pub(crate) type ReadBody<'a> = &'a mut dyn FnMut(&mut dyn Reader) -> Result<(), Failure>;

/// An engine that this build knows.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// Package whose locked version is the engine's.
    pub(crate) package: &'static str,
    pub(crate) open: OpenFn,
    /// For workloads that read and write in one transaction: an engine whose plain form has none
    /// opens the form that has.
    pub(crate) open_transactions: OpenFn,
    /// The same engine at another level of isolation: it runs only what differs with that, on the
    /// rows of the engine named here.
    pub(crate) variant_of: Option<&'static str>,
}

impl Kind {
    const fn new(name: &'static str, package: &'static str, open: OpenFn) -> Kind {
        Kind {
            name,
            package,
            open,
            open_transactions: open,
            variant_of: None,
        }
    }

    /// With another form for transactions.
    #[cfg(feature = "compare")]
    const fn or(self, open_transactions: OpenFn) -> Kind {
        Kind {
            open_transactions,
            ..self
        }
    }

    /// The engine whose rows this one uses.
    pub(crate) fn rows_of(self) -> &'static str {
        self.variant_of.unwrap_or(self.name)
    }

    /// Version of the package in the lock file of this build.
    pub(crate) fn version(self) -> String {
        let lock = include_str!("../../../Cargo.lock");
        let entry = format!("name = \"{}\"\nversion = \"", self.package);
        let version = lock
            .split_once(&entry)
            .and_then(|(_, rest)| rest.split_once('"'))
            .map_or("unknown", |(version, _)| version);
        format!("{} {version}", self.package)
    }
}

/// All engines of this build; Terrane first.
pub(crate) const ENGINES: &[Kind] = &[
    Kind::new("terrane", "terrane", super::terrane::open),
    Kind {
        name: "terrane-si",
        package: "terrane",
        open: super::terrane::open_snapshot_isolation,
        open_transactions: super::terrane::open_snapshot_isolation,
        variant_of: Some("terrane"),
    },
    #[cfg(feature = "compare")]
    Kind::new("redb", "redb", super::redb::open),
    #[cfg(feature = "compare")]
    Kind::new("fjall", "fjall", super::fjall::open).or(super::fjall::open_transactions),
    #[cfg(feature = "compare")]
    Kind::new("lmdb", "heed", super::lmdb::open),
    #[cfg(feature = "compare")]
    Kind::new("sqlite", "rusqlite", super::sqlite::open),
    #[cfg(feature = "compare-cpp")]
    Kind::new("rocksdb", "librocksdb-sys", super::rocksdb::open)
        .or(super::rocksdb::open_transactions),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_lock_file() {
        for kind in ENGINES {
            let version = kind.version();
            assert!(
                version.chars().any(|c| c.is_ascii_digit()),
                "{}: {version}",
                kind.name
            );
        }
    }

    #[test]
    fn an_audit_sees_disorder_and_foreign_values() {
        let mut audit = Audit::default();
        audit.row(2, &crate::rows::value(2, 0));
        audit.row(1, &crate::rows::value(1, 0));
        audit.row(3, &crate::rows::value(4, 0));
        assert_eq!((audit.seen, audit.wrong, audit.first), (3, 2, Some(2)));
    }
}
