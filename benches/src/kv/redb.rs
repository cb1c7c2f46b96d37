//! redb: copy-on-write B-tree, one writer. `Durability::Immediate` or `None`, cache as given.

use std::path::Path;

use redb::{Database, Durability as Level, ReadableDatabase, ReadableTable, TableDefinition};

use super::engine::{Audit, Durability, Engine, ReadBody, Reader, Setting};
use crate::Failure;
use crate::rows::VALUE_LEN;

const ROWS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("rows");

struct Redb {
    db: Database,
    level: Level,
}

pub(crate) fn open(dir: &Path, setting: Setting) -> Result<Box<dyn Engine>, Failure> {
    let cache = usize::try_from(setting.cache_mib << 20)?;
    let db = Database::builder()
        .set_cache_size(cache)
        .create(dir.join("redb"))?;
    let level = match setting.durability {
        Durability::Synced => Level::Immediate,
        Durability::Buffered => Level::None,
    };
    let write = db.begin_write()?;
    write.open_table(ROWS)?;
    write.commit()?;
    Ok(Box::new(Redb { db, level }))
}

impl Redb {
    fn write<T>(
        &self,
        body: impl FnOnce(&mut redb::Table<'_, u64, &'static [u8]>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut write = self.db.begin_write()?;
        write.set_durability(self.level)?;
        let out = {
            let mut table = write.open_table(ROWS)?;
            body(&mut table)?
        };
        write.commit()?;
        Ok(out)
    }
}

impl Engine for Redb {
    fn options(&self) -> String {
        format!("durability {:?}", self.level)
    }

    fn load(&self, rows: &[(u64, [u8; VALUE_LEN])]) -> Result<(), Failure> {
        self.write(|table| {
            for (key, value) in rows {
                table.insert(key, &value[..])?;
            }
            Ok(())
        })
    }

    fn put(&self, key: u64, value: &[u8]) -> Result<(), Failure> {
        self.write(|table| Ok(table.insert(key, value).map(|_| ())?))
    }

    fn modify(&self, key: u64, value: &[u8]) -> Result<bool, Failure> {
        self.write(|table| {
            let found = table.get(key)?.is_some();
            table.insert(key, value)?;
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
        self.write(|table| {
            audit.begin();
            for row in table.range(from..)?.take(limit) {
                let (key, value) = row?;
                audit.row(key.value(), value.value());
            }
            if let Some(first) = audit.first {
                table.insert(first, &fresh(first)[..])?;
            }
            Ok(())
        })
    }

    fn read(&self, body: ReadBody<'_>) -> Result<(), Failure> {
        body(&mut Rows(self.db.begin_read()?.open_table(ROWS)?))
    }
}

struct Rows(redb::ReadOnlyTable<u64, &'static [u8]>);

impl Reader for Rows {
    fn get(&mut self, key: u64, out: &mut Vec<u8>) -> Result<bool, Failure> {
        let Some(value) = self.0.get(key)? else {
            return Ok(false);
        };
        out.clear();
        out.extend_from_slice(value.value());
        Ok(true)
    }

    fn scan(
        &mut self,
        from: u64,
        limit: u64,
        visit: &mut dyn FnMut(u64, &[u8]),
    ) -> Result<u64, Failure> {
        let mut seen = 0;
        for row in self.0.range(from..)?.take(usize::try_from(limit)?) {
            let (key, value) = row?;
            visit(key.value(), value.value());
            seen += 1;
        }
        Ok(seen)
    }
}
