//! fjall: LSM tree. A journal synced by `PersistMode::SyncAll` per commit, or left to the system.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};

use super::engine::{Durability, Engine, ReadBody, Reader};
use crate::Failure;
use crate::rows::VALUE_LEN;

struct Fjall {
    db: Database,
    rows: Keyspace,
    persist: Option<PersistMode>,
}

pub(crate) fn open(
    dir: &Path,
    durability: Durability,
    cache_mib: u64,
) -> Result<Box<dyn Engine>, Failure> {
    let db = Database::builder(dir.join("fjall"))
        .cache_size(cache_mib << 20)
        .open()?;
    let rows = db.keyspace("rows", KeyspaceCreateOptions::default)?;
    let persist = (durability == Durability::Synced).then_some(PersistMode::SyncAll);
    Ok(Box::new(Fjall { db, rows, persist }))
}

impl Engine for Fjall {
    fn options(&self) -> String {
        format!("persist {:?}", self.persist)
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
        let found = self.rows.get(key.to_be_bytes())?.is_some();
        self.put(key, value)?;
        Ok(found)
    }

    fn read(&self, body: ReadBody<'_>) -> Result<(), Failure> {
        body(&mut Rows {
            snapshot: self.db.snapshot(),
            rows: &self.rows,
        })
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
