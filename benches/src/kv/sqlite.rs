//! SQLite: WAL mode, one connection per thread, `synchronous=FULL` so that a commit is durable.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::engine::{Audit, Durability, Engine, ReadBody, Reader, Setting};
use crate::Failure;
use crate::rows::VALUE_LEN;

struct Sqlite {
    path: PathBuf,
    setup: String,
    idle: Mutex<Vec<Connection>>,
}

pub(crate) fn open(dir: &Path, setting: Setting) -> Result<Box<dyn Engine>, Failure> {
    let cache_mib = setting.cache_mib;
    let level = match setting.durability {
        Durability::Synced => "FULL",
        Durability::Buffered => "OFF",
    };
    let setup = format!(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous={level}; PRAGMA cache_size=-{}; \
         PRAGMA mmap_size={}; PRAGMA busy_timeout=60000;",
        cache_mib * 1024,
        cache_mib << 20,
    );
    let sqlite = Sqlite {
        path: dir.join("sqlite.db"),
        setup,
        idle: Mutex::new(Vec::new()),
    };
    sqlite.with(|connection| {
        let table = "CREATE TABLE IF NOT EXISTS rows (k INTEGER PRIMARY KEY, v BLOB NOT NULL)";
        Ok(connection.execute_batch(table)?)
    })?;
    Ok(Box::new(sqlite))
}

/// SQLite's integers are signed: the order of u64 is kept by flipping the sign bit.
fn signed(key: u64) -> i64 {
    (key ^ (1 << 63)).cast_signed()
}

fn unsigned(key: i64) -> u64 {
    key.cast_unsigned() ^ (1 << 63)
}

const PUT: &str = "INSERT OR REPLACE INTO rows (k, v) VALUES (?1, ?2)";
const GET: &str = "SELECT v FROM rows WHERE k = ?1";

impl Sqlite {
    fn with<T>(
        &self,
        body: impl FnOnce(&mut Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let kept = self
            .idle
            .lock()
            .map_err(|_| "a bench thread panicked")?
            .pop();
        let mut connection = match kept {
            Some(connection) => connection,
            None => {
                let connection = Connection::open(&self.path)?;
                connection.execute_batch(&self.setup)?;
                connection
            }
        };
        let out = body(&mut connection)?;
        self.idle
            .lock()
            .map_err(|_| "a bench thread panicked")?
            .push(connection);
        Ok(out)
    }
}

impl Engine for Sqlite {
    fn options(&self) -> String {
        format!("SQLite {}; {}", rusqlite::version(), self.setup)
    }

    fn load(&self, rows: &[(u64, [u8; VALUE_LEN])]) -> Result<(), Failure> {
        self.with(|connection| {
            let write = connection.transaction()?;
            {
                let mut put = write.prepare_cached(PUT)?;
                for (key, value) in rows {
                    put.execute(params![signed(*key), &value[..]])?;
                }
            }
            Ok(write.commit()?)
        })
    }

    fn put(&self, key: u64, value: &[u8]) -> Result<(), Failure> {
        self.with(|connection| {
            connection
                .prepare_cached(PUT)?
                .execute(params![signed(key), value])?;
            Ok(())
        })
    }

    fn modify(&self, key: u64, value: &[u8]) -> Result<bool, Failure> {
        self.with(|connection| {
            let write = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let found: Option<Vec<u8>> = write
                .prepare_cached(GET)?
                .query_row([signed(key)], |row| row.get(0))
                .optional()?;
            write
                .prepare_cached(PUT)?
                .execute(params![signed(key), value])?;
            write.commit()?;
            Ok(found.is_some())
        })
    }

    fn scan_and_put(
        &self,
        from: u64,
        limit: usize,
        audit: &mut Audit,
        fresh: &dyn Fn(u64) -> [u8; VALUE_LEN],
    ) -> Result<(), Failure> {
        self.with(|connection| {
            let write = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            audit.begin();
            let visit = &mut |key, value: &[u8]| audit.row(key, value);
            Rows(&write).scan(from, limit as u64, visit)?;
            if let Some(first) = audit.first {
                let put = params![signed(first), &fresh(first)[..]];
                write.prepare_cached(PUT)?.execute(put)?;
            }
            Ok(write.commit()?)
        })
    }

    fn read(&self, body: ReadBody<'_>) -> Result<(), Failure> {
        self.with(|connection| {
            let read = connection.transaction()?;
            body(&mut Rows(&read))
        })
    }

    fn get(&self, key: u64, out: &mut Vec<u8>) -> Result<bool, Failure> {
        // A statement on its own is its own transaction.
        self.with(|connection| Rows(connection).get(key, out))
    }
}

struct Rows<'a>(&'a Connection);

impl Reader for Rows<'_> {
    fn get(&mut self, key: u64, out: &mut Vec<u8>) -> Result<bool, Failure> {
        let mut statement = self.0.prepare_cached(GET)?;
        let mut rows = statement.query([signed(key)])?;
        let Some(row) = rows.next()? else {
            return Ok(false);
        };
        out.clear();
        out.extend_from_slice(row.get_ref(0)?.as_blob()?);
        Ok(true)
    }

    fn scan(
        &mut self,
        from: u64,
        limit: u64,
        visit: &mut dyn FnMut(u64, &[u8]),
    ) -> Result<u64, Failure> {
        let query = "SELECT k, v FROM rows WHERE k >= ?1 ORDER BY k LIMIT ?2";
        let mut statement = self.0.prepare_cached(query)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![signed(from), limit])?;
        let mut seen = 0;
        while let Some(row) = rows.next()? {
            visit(unsigned(row.get(0)?), row.get_ref(1)?.as_blob()?);
            seen += 1;
        }
        Ok(seen)
    }
}
