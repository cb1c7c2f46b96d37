//! RocksDB: LSM tree. `sync` per write for durable commits, otherwise its log is left to the
//! system. Options as its tuning guide advises: bloom filters of 10 bits, index and filter blocks
//! in the block cache and pinned at level 0, levels sized from the last, files synced as they are
//! written, two background threads on a machine of two cores. Workloads that read and write in one
//! transaction run on its optimistic transactions, the others on the plain form.

use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBAccess, DBRawIteratorWithThreadMode, OptimisticTransactionDB,
    OptimisticTransactionOptions, Options, SnapshotWithThreadMode, Transaction, WriteBatch,
    WriteOptions,
};

use super::engine::{Audit, Durability, Engine, ReadBody, Reader, Setting};
use crate::Failure;
use crate::rows::VALUE_LEN;

enum Form {
    Plain(DB),
    Optimistic(OptimisticTransactionDB),
}

struct Rocks {
    form: Form,
    synced: bool,
}

fn options(setting: Setting) -> Result<Options, Failure> {
    let cache = usize::try_from(setting.cache_mib << 20)?;
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(cache));
    table.set_bloom_filter(10.0, false);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.increase_parallelism(2);
    options.set_bytes_per_sync(1 << 20);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_block_based_table_factory(&table);
    Ok(options)
}

/// The plain form.
pub(crate) fn open(dir: &Path, setting: Setting) -> Result<Box<dyn Engine>, Failure> {
    let db = DB::open(&options(setting)?, dir.join("rocksdb"))?;
    Ok(Box::new(Rocks {
        form: Form::Plain(db),
        synced: setting.durability == Durability::Synced,
    }))
}

/// The form with transactions.
pub(crate) fn open_transactions(dir: &Path, setting: Setting) -> Result<Box<dyn Engine>, Failure> {
    let db = OptimisticTransactionDB::open(&options(setting)?, dir.join("rocksdb"))?;
    Ok(Box::new(Rocks {
        form: Form::Optimistic(db),
        synced: setting.durability == Durability::Synced,
    }))
}

impl Rocks {
    fn write_options(&self) -> WriteOptions {
        let mut options = WriteOptions::default();
        options.set_sync(self.synced);
        options
    }

    fn plain(&self) -> Result<&DB, Failure> {
        match &self.form {
            Form::Plain(db) => Ok(db),
            Form::Optimistic(_) => Err("opened for transactions".into()),
        }
    }

    /// Runs `body` in an optimistic transaction on a snapshot until it commits.
    fn write<T>(
        &self,
        mut body: impl FnMut(&Transaction<'_, OptimisticTransactionDB>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let Form::Optimistic(db) = &self.form else {
            return Err("opened without transactions".into());
        };
        let mut options = OptimisticTransactionOptions::default();
        options.set_snapshot(true);
        loop {
            let write = db.transaction_opt(&self.write_options(), &options);
            let out = body(&write)?;
            match write.commit() {
                Ok(()) => return Ok(out),
                Err(e) if e.kind() == rocksdb::ErrorKind::Busy => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// Visits up to `limit` rows from `from` upwards; no row is copied on the way.
fn walk<D: DBAccess>(
    mut rows: DBRawIteratorWithThreadMode<'_, D>,
    from: u64,
    limit: u64,
    visit: &mut dyn FnMut(u64, &[u8]),
) -> Result<u64, Failure> {
    let mut seen = 0;
    rows.seek(from.to_be_bytes());
    while let (true, Some((key, value))) = (seen < limit, rows.item()) {
        visit(u64::from_be_bytes(key.try_into()?), value);
        seen += 1;
        rows.next();
    }
    rows.status()?;
    Ok(seen)
}

impl Engine for Rocks {
    fn options(&self) -> String {
        let form = match self.form {
            Form::Plain(_) => "DB",
            Form::Optimistic(_) => "OptimisticTransactionDB",
        };
        format!(
            "{form}, sync={}, bloom 10 bits, blocks of 4 KiB, parallelism 2, no compression, \
             memtables of 64 MiB beside the cache",
            self.synced
        )
    }

    fn load(&self, rows: &[(u64, [u8; VALUE_LEN])]) -> Result<(), Failure> {
        let mut batch = WriteBatch::default();
        for (key, value) in rows {
            batch.put(key.to_be_bytes(), value);
        }
        Ok(self.plain()?.write_opt(batch, &self.write_options())?)
    }

    fn put(&self, key: u64, value: &[u8]) -> Result<(), Failure> {
        let options = self.write_options();
        Ok(self.plain()?.put_opt(key.to_be_bytes(), value, &options)?)
    }

    fn modify(&self, key: u64, value: &[u8]) -> Result<bool, Failure> {
        let key = key.to_be_bytes();
        self.write(|tx| {
            let found = tx.get_pinned_for_update(key, true)?.is_some();
            tx.put(key, value)?;
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
        self.write(|tx| {
            audit.begin();
            let visit = &mut |key, value: &[u8]| audit.row(key, value);
            walk(tx.raw_iterator(), from, limit as u64, visit)?;
            if let Some(first) = audit.first {
                tx.put(first.to_be_bytes(), fresh(first))?;
            }
            Ok(())
        })
    }

    fn read(&self, body: ReadBody<'_>) -> Result<(), Failure> {
        match &self.form {
            Form::Plain(db) => body(&mut Rows(db.snapshot())),
            Form::Optimistic(db) => body(&mut Rows(db.snapshot())),
        }
    }

    fn get(&self, key: u64, out: &mut Vec<u8>) -> Result<bool, Failure> {
        let key = key.to_be_bytes();
        let value = match &self.form {
            Form::Plain(db) => db.get_pinned(key)?,
            Form::Optimistic(db) => db.get_pinned(key)?,
        };
        let Some(value) = value else {
            return Ok(false);
        };
        out.clear();
        out.extend_from_slice(&value);
        Ok(true)
    }
}

struct Rows<'a, D: DBAccess>(SnapshotWithThreadMode<'a, D>);

impl<D: DBAccess> Reader for Rows<'_, D> {
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
        walk(self.0.raw_iterator(), from, limit, visit)
    }
}
