//! LMDB through heed: copy-on-write B-tree in a memory map, one writer.

use std::path::Path;

use heed::types::{Bytes, U64};
use heed::{Database, Env, EnvFlags, EnvOpenOptions, RoTxn, WithoutTls};

use super::engine::{Audit, Durability, Engine, ReadBody, Reader, Setting};
use crate::Failure;
use crate::rows::VALUE_LEN;

type Rows = Database<U64<heed::byteorder::BE>, Bytes>;

struct Lmdb {
    env: Env<WithoutTls>,
    rows: Rows,
    synced: bool,
}

pub(crate) fn open(dir: &Path, setting: Setting) -> Result<Box<dyn Engine>, Failure> {
    let path = dir.join("lmdb");
    std::fs::create_dir_all(&path)?;
    let synced = setting.durability == Durability::Synced;
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(64 << 30).max_readers(256);
    if !synced {
        // SAFETY: NO_SYNC risks only this bench's own data after a power cut.
        #[allow(unsafe_code)]
        unsafe {
            options.flags(EnvFlags::NO_SYNC);
        }
    }
    // SAFETY: the folder is this process's own; nobody else maps or changes its files.
    #[allow(unsafe_code)]
    let env = unsafe { options.open(&path)? };
    let mut write = env.write_txn()?;
    let rows = env.create_database(&mut write, None)?;
    write.commit()?;
    Ok(Box::new(Lmdb { env, rows, synced }))
}

impl Engine for Lmdb {
    fn options(&self) -> String {
        let flags = if self.synced { "" } else { ", MDB_NOSYNC" };
        let version = heed::lmdb_version().string;
        format!("{version}; map 64 GiB (resident memory counts the pages of it){flags}")
    }

    fn load(&self, rows: &[(u64, [u8; VALUE_LEN])]) -> Result<(), Failure> {
        let mut write = self.env.write_txn()?;
        for (key, value) in rows {
            self.rows.put(&mut write, key, value)?;
        }
        Ok(write.commit()?)
    }

    fn put(&self, key: u64, value: &[u8]) -> Result<(), Failure> {
        let mut write = self.env.write_txn()?;
        self.rows.put(&mut write, &key, value)?;
        Ok(write.commit()?)
    }

    fn modify(&self, key: u64, value: &[u8]) -> Result<bool, Failure> {
        let mut write = self.env.write_txn()?;
        let found = self.rows.get(&write, &key)?.is_some();
        self.rows.put(&mut write, &key, value)?;
        write.commit()?;
        Ok(found)
    }

    fn scan_and_put(
        &self,
        from: u64,
        limit: usize,
        audit: &mut Audit,
        fresh: &dyn Fn(u64) -> [u8; VALUE_LEN],
    ) -> Result<(), Failure> {
        let mut write = self.env.write_txn()?;
        audit.begin();
        for row in self.rows.range(&write, &(from..))?.take(limit) {
            let (key, value) = row?;
            audit.row(key, value);
        }
        if let Some(first) = audit.first {
            self.rows.put(&mut write, &first, &fresh(first))?;
        }
        Ok(write.commit()?)
    }

    fn read(&self, body: ReadBody<'_>) -> Result<(), Failure> {
        body(&mut View {
            read: self.env.read_txn()?,
            rows: self.rows,
        })
    }
}

struct View<'a> {
    read: RoTxn<'a, WithoutTls>,
    rows: Rows,
}

impl Reader for View<'_> {
    fn get(&mut self, key: u64, out: &mut Vec<u8>) -> Result<bool, Failure> {
        let Some(value) = self.rows.get(&self.read, &key)? else {
            return Ok(false);
        };
        out.clear();
        out.extend_from_slice(value);
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
            .range(&self.read, &(from..))?
            .take(usize::try_from(limit)?)
        {
            let (key, value) = row?;
            visit(key, value);
            seen += 1;
        }
        Ok(seen)
    }
}
