//! Terrane: one table of u64 to bytes, `Local` or `Buffered` durability, budget as given, at its
//! default level of isolation or at snapshot isolation.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use terrane::{Database, Durability as Level, Isolation, Snapshot, Table, TableDef};

use super::engine::{Audit, Durability, Engine, ReadBody, Reader, Setting};
use crate::Failure;
use crate::rows::VALUE_LEN;

const ROWS: TableDef<u64, Vec<u8>> = TableDef::new("rows");

struct Terrane {
    db: Database,
    rows: Table<u64, Vec<u8>>,
    level: Level,
    isolation: Isolation,
    /// Bytes of log that the open read, and rows that it applied.
    replayed: (u64, u64),
}

/// At the default level of isolation.
pub(crate) fn open(dir: &Path, setting: Setting) -> Result<Box<dyn Engine>, Failure> {
    open_at(dir, setting, Isolation::default())
}

/// At snapshot isolation.
pub(crate) fn open_snapshot_isolation(
    dir: &Path,
    setting: Setting,
) -> Result<Box<dyn Engine>, Failure> {
    open_at(dir, setting, Isolation::Snapshot)
}

fn open_at(dir: &Path, setting: Setting, isolation: Isolation) -> Result<Box<dyn Engine>, Failure> {
    let level = match setting.durability {
        Durability::Synced => Level::Local,
        Durability::Buffered => Level::Buffered,
    };
    let replayed = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
    let told = replayed.clone();
    let db = Database::builder()
        .durability(level)
        .isolation(isolation)
        .memory_bytes(usize::try_from(setting.cache_mib << 20)?)
        .on_recovery(move |progress| {
            told.0.store(progress.log_bytes, Ordering::Relaxed);
            told.1.store(progress.rows, Ordering::Relaxed);
        })
        .open(dir.join("terrane"))?;
    let rows = db.table(ROWS)?;
    let replayed = (
        replayed.0.load(Ordering::Relaxed),
        replayed.1.load(Ordering::Relaxed),
    );
    Ok(Box::new(Terrane {
        db,
        rows,
        level,
        isolation,
        replayed,
    }))
}

impl Drop for Terrane {
    fn drop(&mut self) {
        // The next process opens the same rows; what was not synced must not depend on luck.
        if let Err(failure) = self.db.close() {
            eprintln!("terrane-bench: closing: {failure}");
        }
    }
}

impl Engine for Terrane {
    fn options(&self) -> String {
        let (bytes, rows) = self.replayed;
        let mut out = format!("{:?}, {:?}", self.level, self.isolation);
        if bytes > 0 {
            out += &format!(
                ", replayed {rows} rows from {:.1} MiB of log",
                bytes as f64 / 1_048_576.0
            );
        }
        out
    }

    fn load(&self, rows: &[(u64, [u8; VALUE_LEN])]) -> Result<(), Failure> {
        Ok(self.db.write(|tx| {
            for (key, value) in rows {
                self.rows.put(tx, key, &value.to_vec())?;
            }
            Ok(())
        })?)
    }

    fn put(&self, key: u64, value: &[u8]) -> Result<(), Failure> {
        Ok(self
            .db
            .write(|tx| self.rows.put(tx, key, &value.to_vec()))?)
    }

    fn modify(&self, key: u64, value: &[u8]) -> Result<bool, Failure> {
        Ok(self.db.write(|tx| {
            let found = self.rows.get_ref(tx, key)?.is_some();
            self.rows.put(tx, key, &value.to_vec())?;
            Ok(found)
        })?)
    }

    fn scan_and_put(
        &self,
        from: u64,
        limit: usize,
        audit: &mut Audit,
        fresh: &dyn Fn(u64) -> [u8; VALUE_LEN],
    ) -> Result<(), Failure> {
        Ok(self.db.write(|tx| {
            audit.begin();
            for row in self.rows.range(tx, from..).refs().take(limit) {
                let (key, value) = row?;
                audit.row(key, value.bytes());
            }
            match audit.first {
                Some(first) => self.rows.put(tx, first, &fresh(first).to_vec()),
                None => Ok(()),
            }
        })?)
    }

    fn read(&self, body: ReadBody<'_>) -> Result<(), Failure> {
        body(&mut Rows {
            now: self.db.snapshot(),
            rows: &self.rows,
        })
    }
}

struct Rows<'a> {
    now: Snapshot,
    rows: &'a Table<u64, Vec<u8>>,
}

impl Reader for Rows<'_> {
    fn get(&mut self, key: u64, out: &mut Vec<u8>) -> Result<bool, Failure> {
        let Some(value) = self.rows.get_ref(&self.now, key)? else {
            return Ok(false);
        };
        out.clear();
        out.extend_from_slice(value.bytes());
        Ok(true)
    }

    fn scan(
        &mut self,
        from: u64,
        limit: u64,
        visit: &mut dyn FnMut(u64, &[u8]),
    ) -> Result<u64, Failure> {
        let mut seen = 0;
        let rows = self.rows.range(&self.now, from..).refs();
        for row in rows.take(usize::try_from(limit)?) {
            let (key, value) = row?;
            visit(key, value.bytes());
            seen += 1;
        }
        Ok(seen)
    }
}
