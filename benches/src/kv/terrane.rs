//! Terrane: one table of u64 to bytes, `Local` or `Buffered` durability, budget as given.

use std::path::Path;

use terrane::{Database, Durability as Level, Snapshot, Table, TableDef};

use super::engine::{Durability, Engine, ReadBody, Reader};
use crate::Failure;
use crate::rows::VALUE_LEN;

const ROWS: TableDef<u64, Vec<u8>> = TableDef::new("rows");

struct Terrane {
    db: Database,
    rows: Table<u64, Vec<u8>>,
    level: Level,
}

pub(crate) fn open(
    dir: &Path,
    durability: Durability,
    cache_mib: u64,
) -> Result<Box<dyn Engine>, Failure> {
    let level = match durability {
        Durability::Synced => Level::Local,
        Durability::Buffered => Level::Buffered,
    };
    let db = Database::builder()
        .durability(level)
        .memory_bytes(usize::try_from(cache_mib << 20)?)
        .open(dir.join("terrane"))?;
    let rows = db.table(ROWS)?;
    Ok(Box::new(Terrane { db, rows, level }))
}

impl Engine for Terrane {
    fn options(&self) -> String {
        format!("durability {:?}", self.level)
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
        for row in self
            .rows
            .range(&self.now, from..)
            .take(usize::try_from(limit)?)
        {
            let (key, value) = row?;
            visit(key, &value);
            seen += 1;
        }
        Ok(seen)
    }
}
