//! fjall: LSM tree. A journal synced by `PersistMode::SyncAll` per commit, or left to the system.
//! Workloads that read and write in one transaction run on its optimistic transactions, the others
//! on the plain form, which is faster.

use std::path::Path;

use fjall::{
    Database, Keyspace, KeyspaceCreateOptions, OptimisticTxDatabase, OptimisticTxKeyspace,
    OptimisticWriteTx, PersistMode, Readable, Snapshot,
};

use super::engine::{Audit, Durability, Engine, ReadBody, Reader, Setting};
use crate::Failure;
use crate::rows::VALUE_LEN;

struct Fjall {
    db: Database,
    rows: Keyspace,
    persist: Option<PersistMode>,
    optimistic: Option<(OptimisticTxDatabase, OptimisticTxKeyspace)>,
}

fn persist(setting: Setting) -> Option<PersistMode> {
    (setting.durability == Durability::Synced).then_some(PersistMode::SyncAll)
}

/// The plain form.
pub(crate) fn open(dir: &Path, setting: Setting) -> Result<Box<dyn Engine>, Failure> {
    let db = Database::builder(dir.join("fjall"))
        .cache_size(setting.cache_mib << 20)
        .open()?;
    let rows = db.keyspace("rows", KeyspaceCreateOptions::default)?;
    Ok(Box::new(Fjall {
        db,
        rows,
        persist: persist(setting),
        optimistic: None,
    }))
}

/// The form with transactions.
pub(crate) fn open_transactions(dir: &Path, setting: Setting) -> Result<Box<dyn Engine>, Failure> {
    let outer = OptimisticTxDatabase::builder(dir.join("fjall"))
        .cache_size(setting.cache_mib << 20)
        .open()?;
    let rows = outer.keyspace("rows", KeyspaceCreateOptions::default)?;
    Ok(Box::new(Fjall {
        db: outer.inner().clone(),
        rows: rows.inner().clone(),
        persist: persist(setting),
        optimistic: Some((outer, rows)),
    }))
}

impl Fjall {
    /// Runs `body` in an optimistic transaction until it commits.
    fn write<T>(
        &self,
        mut body: impl FnMut(&mut OptimisticWriteTx, &OptimisticTxKeyspace) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let (db, rows) = self
            .optimistic
            .as_ref()
            .ok_or("opened without transactions")?;
        loop {
            let mut write = db.write_tx()?.durability(self.persist);
            let out = body(&mut write, rows)?;
            if write.commit()?.is_ok() {
                return Ok(out);
            }
        }
    }
}

impl Engine for Fjall {
    fn options(&self) -> String {
        let form = if self.optimistic.is_some() {
            "OptimisticTxDatabase"
        } else {
            "Database"
        };
        format!("{form}, persist {:?}", self.persist)
    }

    fn load(&self, rows: &[(u64, [u8; VALUE_LEN])]) -> Result<(), Failure> {
        let mut batch = self.db.batch().durability(self.persist);
        for (key, value) in rows {
            batch.insert(&self.rows, key.to_be_bytes(), &value[..]);
        }
        Ok(batch.commit()?)
    }

    fn put(&self, key: u64, value: &[u8]) -> Result<(), Failure> {
        self.rows.insert(key.to_be_bytes(), value)?;
        if let Some(mode) = self.persist {
            self.db.persist(mode)?;
        }
        Ok(())
    }

    fn modify(&self, key: u64, value: &[u8]) -> Result<bool, Failure> {
        let key = key.to_be_bytes();
        self.write(|tx, rows| {
            let found = tx.get(rows, key)?.is_some();
            tx.insert(rows, key, value);
            Ok(found)
        })
    }

    fn scan_and_put(
        &self,
        from: u64,
        limit: usize,
        audit: &mut Audit,
        fresh: &dyn Fn(u64) -> [u8; VALUE_LEN],
    ) -> Result<(), Failure> {
        self.write(|tx, rows| {
            audit.begin();
            for row in tx.range(rows, from.to_be_bytes()..).take(limit) {
                let (key, value) = row.into_inner()?;
                audit.row(u64::from_be_bytes((*key).try_into()?), &value);
            }
            if let Some(first) = audit.first {
                tx.insert(rows, first.to_be_bytes(), fresh(first).as_slice());
            }
            Ok(())
        })
    }

    fn read(&self, body: ReadBody<'_>) -> Result<(), Failure> {
        body(&mut Rows {
            snapshot: self.db.snapshot(),
            rows: &self.rows,
        })
    }

    fn get(&self, key: u64, out: &mut Vec<u8>) -> Result<bool, Failure> {
        let Some(value) = self.rows.get(key.to_be_bytes())? else {
            return Ok(false);
        };
        out.clear();
        out.extend_from_slice(&value);
        Ok(true)
    }
}

struct Rows<'a> {
    snapshot: Snapshot,
    rows: &'a Keyspace,
}

impl Reader for Rows<'_> {
    fn get(&mut self, key: u64, out: &mut Vec<u8>) -> Result<bool, Failure> {
        let Some(value) = self.snapshot.get(self.rows, key.to_be_bytes())? else {
            return Ok(false);
        };
        out.clear();
        out.extend_from_slice(&value);
        Ok(true)
    }

    fn scan(
        &mut self,
        from: u64,
        limit: u64,
        visit: &mut dyn FnMut(u64, &[u8]),
    ) -> Result<u64, Failure> {
        let mut seen = 0;
        let rows = self.snapshot.range(self.rows, from.to_be_bytes()..);
        for row in rows.take(usize::try_from(limit)?) {
            let (key, value) = row.into_inner()?;
            visit(u64::from_be_bytes((*key).try_into()?), &value);
            seen += 1;
        }
        Ok(seen)
    }
}
