//! Transactions on raw rows, on real folders and on the simulated disk.

mod ahead;
mod basics;
mod crash;
mod crossing;
mod damage;
mod faults;
mod images;
mod isolation;
mod readers;

use std::ops::Bound;
use std::sync::Arc;

use terrane_wal::env::SimEnv;
use terrane_wal::lsn::Lsn;
use terrane_wal::{Entry, Sequenced};

use crate::catalog::schema::Schema;
use crate::catalog::{RowIds, TableInfo, TableSpec};
use crate::txn::raw::RawRead;
use crate::{Builder, Database, Read, Result, Transaction};

/// A table of bytes, and short names for what tests do with it.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    pub(crate) info: Arc<TableInfo>,
}

impl Rows {
    pub(crate) fn open(db: &Database, name: &str) -> Rows {
        Rows::try_open(db, name).unwrap()
    }

    pub(crate) fn try_open(db: &Database, name: &str) -> Result<Rows> {
        let schema = Schema::of::<Vec<u8>, Vec<u8>>().unwrap();
        let spec = TableSpec {
            class: db.local().page_class(),
            row_ids: RowIds::Hidden,
            vectors: &[],
            schema: &schema,
        };
        Ok(Rows {
            info: db.local().open_table(name, &spec)?,
        })
    }

    pub(crate) fn put(&self, tx: &mut Transaction, key: &str, value: &str) -> Result<()> {
        let version = self.info.schema_version;
        tx.leg_mut(0)?
            .put_raw(self.info.tree, version, 0, key.into(), value.into())
    }

    pub(crate) fn delete(&self, tx: &mut Transaction, key: &str) -> Result<()> {
        tx.leg_mut(0)?
            .delete_raw(self.info.tree, self.info.schema_version, 0, key.into())
    }

    pub(crate) fn get(&self, read: &impl Read, key: &str) -> Result<Option<String>> {
        let value = read.leg(0)?.get_raw(self.info.tree, key.as_bytes())?;
        Ok(value.map(|value| String::from_utf8(value).unwrap()))
    }

    pub(crate) fn lock(&self, tx: &mut Transaction, key: &str) -> Result<Option<String>> {
        let value = tx
            .leg_mut(0)?
            .get_for_update_raw(self.info.tree, key.as_bytes())?;
        Ok(value.map(|value| String::from_utf8(value).unwrap()))
    }

    /// Rows from `lower` up to and without `upper` as "key=value", joined by spaces.
    pub(crate) fn range(
        &self,
        read: &impl Read,
        lower: &str,
        upper: &str,
        reverse: bool,
    ) -> Result<String> {
        let (lower, upper) = (Bound::Included(lower.into()), Bound::Excluded(upper.into()));
        let rows = read
            .leg(0)?
            .scan_raw(self.info.tree, lower, upper, reverse)?;
        let text = rows.map(|row| {
            let (key, value) = row?;
            let text = |bytes| String::from_utf8(bytes).unwrap();
            Ok(format!("{}={}", text(key), text(value)))
        });
        Ok(text.collect::<Result<Vec<_>>>()?.join(" "))
    }

    /// All rows.
    pub(crate) fn all(&self, read: &impl Read) -> String {
        self.range(read, "", "\u{7f}", false).unwrap()
    }
}

/// A small database on a simulated disk, without background thread.
pub(crate) fn sim_builder(sim: &SimEnv) -> Builder {
    Database::builder()
        .env(sim.env())
        .memory_bytes(8 << 20)
        .segment_bytes(256 << 10)
        .background(false)
}

/// Opens (or makes) the database of a simulated world.
pub(crate) fn sim_open(sim: &SimEnv) -> Database {
    sim_builder(sim).open("/db").unwrap()
}

/// A world whose disk is what a power cut now may leave: of what was not synced, a selection that
/// the seed draws.
pub(crate) fn after_power_cut(sim: &SimEnv, seed: u64) -> SimEnv {
    SimEnv::with_disk(seed, sim.disk().crash(seed))
}

/// Whether the applied prefix goes over an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applied {
    Now,
    Never,
}

/// Puts an entry into the log as a commit does, without its rows in the trees: replay brings them.
/// Returns where it begins.
pub(crate) fn log_entry(db: &Database, entry: Entry, applied: Applied) -> Lsn {
    let core = db.core();
    let log = core.log().unwrap();
    let admission = log.admit(entry.len()).unwrap();
    let mut enter = |at: Sequenced| core.prefix.enter(at.begin, at.end, at.ts);
    let place = log.sequence(admission, entry, false, &mut enter);
    if applied == Applied::Now {
        core.prefix.mark(place.ts());
    }
    let begin = place.begin();
    place.fill();
    begin
}
