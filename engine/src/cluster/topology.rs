//! The topology of a cluster in one process: a row for each shard, in a database of its own.
//!
//! ```text
//! swap   one transaction: the row's version is the one that was read -> version + 1, new record
//! read   a snapshot, which holds what is durable and nothing else
//! lock   a lease in memory: gone with the process, as its holders are
//! ```
//!
//! Invariants:
//! * I1. A version is replaced once, and is on disk when the swap returns: what two transactions
//!   want of one row, one of them gets.
//! * A row that does not decode is an error for whoever asks, never an empty record: that would
//!   give out terms again from the first.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use terrane_shard::ShardId;
use terrane_shard::policy::MemberId;
use terrane_shard::topology::{Fencing, ShardRecord, Topology, TopologyError, Version};
use terrane_wal::env::Env;
use terrane_wal::sync::Mutex;

use crate::database::{Database, Durability};
use crate::error::{Error, ErrorKind, Result};
use crate::table::Table;
use crate::table::def::TableDef;

/// The name of a shard, and the version and bytes of its record.
const RECORDS: TableDef<String, Vec<u8>> = TableDef::new("topology");

/// Bytes of the version before a record.
const VERSION_BYTES: usize = size_of::<u64>();

/// A topology in a database. Clones share their locks; another one over the same database does
/// not, and is as safe.
#[derive(Clone, Debug)]
pub(crate) struct Embedded {
    db: Database,
    env: Env,
    records: Table<String, Vec<u8>>,
    locks: Arc<Mutex<Locks>>,
}

/// The leases of this process.
#[derive(Debug, Default)]
struct Locks {
    held: BTreeMap<ShardId, Lease>,
    /// Grants so far.
    granted: u64,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    holder: MemberId,
    fencing: Fencing,
    /// When it is over, by the monotonic clock.
    end: Duration,
}

impl Embedded {
    /// The topology in a database that is kept for it.
    ///
    /// # Errors
    /// `Invalid` if commits of the database are not durable when they return: a snapshot of it
    /// would show what a crash takes back. Those of a commit, which makes the table.
    pub(crate) fn open(db: Database) -> Result<Self> {
        let local = db.leader(0)?;
        let durability = local.core().options.durability;
        if durability < Durability::Local {
            let what = "a topology needs a database whose commits are durable";
            return Err(Error::new(ErrorKind::Invalid, what)
                .with("durability", format!("{durability:?}"))
                .with("allowed", "Local"));
        }
        Ok(Self {
            records: db.table(RECORDS)?,
            env: local.core().env.clone(),
            db,
            locks: Arc::default(),
        })
    }

    /// Replaces the record if it is of this version; the version that it was found with.
    fn try_swap(&self, key: &str, expected: Version, record: &ShardRecord) -> Result<Version> {
        self.db.write(|tx| {
            // Locked before it is read: who comes second waits here, and does not run again.
            let row = self.records.get_for_update(tx, key)?;
            let (found, _) = decode(row.as_deref())?;
            if found == expected {
                let mut bytes = next(found)?.0.to_le_bytes().to_vec();
                bytes.extend(record.encode());
                self.records.put(tx, key, &bytes)?;
            }
            Ok(found)
        })
    }
}

impl Topology for Embedded {
    fn read(&self, shard: &ShardId) -> Result<(Version, ShardRecord), TopologyError> {
        let key = shard.to_string();
        let row = self.records.get(&self.db.snapshot(), &*key);
        row.and_then(|row| decode(row.as_deref()))
            .map_err(|error| unavailable(&error, shard))
    }

    fn swap(
        &self,
        shard: &ShardId,
        version: Version,
        record: &ShardRecord,
    ) -> Result<Version, TopologyError> {
        let swapped = self.try_swap(&shard.to_string(), version, record);
        let found = swapped.map_err(|error| unavailable(&error, shard))?;
        if found != version {
            return Err(TopologyError::Changed {
                shard: shard.clone(),
                expected: version,
                found,
            });
        }
        next(found).map_err(|error| unavailable(&error, shard))
    }

    fn lock(
        &self,
        shard: &ShardId,
        holder: MemberId,
        ttl_ms: u64,
    ) -> Result<Option<Fencing>, TopologyError> {
        let now = self.env.clock.now_mono();
        let mut locks = self.locks.lock();
        let held = locks.held.get(shard).filter(|lease| now < lease.end);
        if held.is_some_and(|lease| lease.holder != holder) {
            return Ok(None);
        }
        locks.granted += 1;
        let lease = Lease {
            holder,
            fencing: Fencing(locks.granted),
            end: now.saturating_add(Duration::from_millis(ttl_ms)),
        };
        locks.held.insert(shard.clone(), lease);
        Ok(Some(lease.fencing))
    }

    fn unlock(&self, shard: &ShardId, fencing: Fencing) -> Result<(), TopologyError> {
        let mut locks = self.locks.lock();
        let held = locks.held.get(shard);
        if held.is_some_and(|lease| lease.fencing == fencing) {
            locks.held.remove(shard);
        }
        Ok(())
    }
}

/// What stands in a row; an empty record of version 0 if there is none.
fn decode(row: Option<&[u8]>) -> Result<(Version, ShardRecord)> {
    let Some(row) = row else {
        return Ok(Default::default());
    };
    let Some((version, record)) = row.split_first_chunk::<VERSION_BYTES>() else {
        return Err(damaged()
            .with("expected_bytes", VERSION_BYTES)
            .with("found_bytes", row.len()));
    };
    let record = ShardRecord::decode(record).map_err(|error| damaged().with("cause", error))?;
    Ok((Version(u64::from_le_bytes(*version)), record))
}

fn damaged() -> Error {
    Error::new(ErrorKind::Corrupt, "a row of the topology cannot be read")
}

/// The version after this one. None comes after the last, which no number of changes reaches.
fn next(version: Version) -> Result<Version> {
    let next = version.0.checked_add(1).map(Version);
    next.ok_or_else(|| damaged().with("version", version.0))
}

/// The text of an error and of what caused it: who hears of it has no more than the text.
fn unavailable(error: &Error, shard: &ShardId) -> TopologyError {
    let mut reason = format!("shard {shard}: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        reason.push_str(&format!(": {error}"));
        cause = error.source();
    }
    TopologyError::Unavailable { reason }
}

#[cfg(test)]
mod tests;
