//! RocksDB: LSM tree. `sync` per write for durable commits, otherwise its log is left to the
//! system; block cache and write buffers as given, two background threads, bloom filters of 10
//! bits.

use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, DB, Direction, IteratorMode, Options, ReadOptions, WriteBatch,
    WriteOptions,
};

use super::engine::{Durability, Engine, ReadBody, Reader};
use crate::Failure;
use crate::rows::VALUE_LEN;

struct Rocks {
    db: DB,
    synced: bool,
}

pub(crate) fn open(
    dir: &Path,
    durability: Durability,
    cache_mib: u64,
) -> Result<Box<dyn Engine>, Failure> {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(usize::try_from(cache_mib << 20)?));
    table.set_bloom_filter(10.0, false);
    table.set_cache_index_and_filter_blocks(true);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.increase_parallelism(2);
    options.set_block_based_table_factory(&table);
    let db = DB::open(&options, dir.join("rocksdb"))?;
    Ok(Box::new(Rocks {
        db,
        synced: durability == Durability::Synced,
    }))
}

impl Rocks {
    fn write_options(&self) -> WriteOptions {
        let mut options = WriteOptions::default();
        options.set_sync(self.synced);
        options
    }
}

impl Engine for Rocks {
    fn options(&self) -> String {
        format!("sync={}, bloom 10 bits, parallelism 2", self.synced)
    }

    fn load(&self, rows: &[(u64, [u8; VALUE_LEN])]) -> Result<(), Failure> {
        let mut batch = WriteBatch::default();
        for (key, value) in rows {
            batch.put(key.to_be_bytes(), value);
        }
        Ok(self.db.write_opt(batch, &self.write_options())?)
    }

    fn put(&self, key: u64, value: &[u8]) -> Result<(), Failure> {
        Ok(self
            .db
            .put_opt(key.to_be_bytes(), value, &self.write_options())?)
    }

    fn modify(&self, key: u64, value: &[u8]) -> Result<bool, Failure> {
        let found = self.db.get_pinned(key.to_be_bytes())?.is_some();
        self.put(key, value)?;
        Ok(found)
    }

    fn read(&self, body: ReadBody<'_>) -> Result<(), Failure> {
        body(&mut Rows(self.db.snapshot()))
    }
}

struct Rows<'a>(rocksdb::Snapshot<'a>);

impl Reader for Rows<'_> {
    fn get(&mut self, key: u64, out: &mut Vec<u8>) -> Result<bool, Failure> {
        let Some(value) = self.0.get_pinned(key.to_be_bytes())? else {
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
        let from = from.to_be_bytes();
        let mode = IteratorMode::From(&from, Direction::Forward);
        let mut seen = 0;
        for row in self.0.iterator_opt(mode, ReadOptions::default()) {
            if seen == limit {
                break;
            }
            let (key, value) = row?;
            visit(u64::from_be_bytes((*key).try_into()?), &value);
            seen += 1;
        }
        Ok(seen)
    }
}
