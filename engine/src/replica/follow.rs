//! A member that follows: what is committed goes from the log into its trees.
//!
//! Each transaction passes as a commit does (`txn/commit.rs`, steps 3 and 7): intents, ring,
//! prefix, rows with their older versions, records, prefix again. So whoever reads here meanwhile
//! sees all of a transaction or nothing, and a member that comes to lead goes on from there.
//!
//! Invariant I5: nothing beyond the committed position is applied.

use std::sync::Arc;

use terrane_shard::log::Head;
use terrane_wal::lsn::Lsn;
use terrane_wal::{Sequenced, decode_entry};

use crate::apply;
use crate::catalog::{CATALOG, OUTCOMES, TableInfo};
use crate::error::{Error, ErrorKind, Result};
use crate::recovery::assemble::{Assembly, Op, Transaction};
use crate::recovery::member::check_whole;
use crate::runtime::Core;
use crate::txn::intents::Intents;
use crate::txn::records::{Record, Records};
use crate::txn::ring::RowKey;
use crate::txn::write_set::{Write, WriteSet};

/// Bytes of entries that are applied in one step, about.
const STEP_BYTES: usize = 256 << 10;

/// The way from the log into the trees of a member that follows.
#[derive(Debug)]
pub(crate) struct Follower {
    core: Arc<Core>,
    assembly: Assembly,
    /// Everything up to here is applied.
    applied: Lsn,
}

impl Follower {
    /// Goes on where the trees of a core end.
    pub(crate) fn of(core: &Arc<Core>) -> Follower {
        Follower {
            core: Arc::clone(core),
            assembly: Assembly::default(),
            applied: core.prefix.applied().0,
        }
    }

    /// Everything up to here is applied.
    pub(crate) fn applied(&self) -> Lsn {
        self.applied
    }

    /// Applies some of what is committed. True if there is more.
    ///
    /// # Errors
    /// `Full`: to be tried again. Others: this member cannot go on with these trees.
    pub(crate) fn step(&mut self) -> Result<bool> {
        let core = Arc::clone(&self.core);
        let log = core.log()?;
        let mut commit = log.commit_lsn();
        if terrane_wal::planted!("a_follower_does_not_wait_for_the_commit") {
            commit = log.positions().filled.0;
        }
        if self.applied >= commit {
            return Ok(false);
        }
        core.prefix.commit_to(commit);
        let copies = log.read(self.applied, STEP_BYTES)?;
        for copy in copies.iter().take_while(|copy| copy.head.end <= commit) {
            let entry = decode_entry(&copy.bytes)?;
            if let Some(transaction) = self.assembly.take(&entry)? {
                let Head {
                    start, end, term, ..
                } = copy.head;
                let place = Sequenced {
                    begin: start,
                    end,
                    ts: entry.ts(),
                    term,
                };
                self.commit(transaction, place)?;
            }
            check_whole(&self.assembly)?;
            self.applied = copy.head.end;
        }
        Ok(copies.last().is_some_and(|copy| copy.head.end < commit))
    }

    fn commit(&self, transaction: Transaction<'_>, place: Sequenced) -> Result<()> {
        let core = &self.core;
        let (mut writes, mut records) = (WriteSet::default(), Records::default());
        for op in transaction.ops {
            match op {
                Op::Row {
                    tree,
                    key,
                    value,
                    hint,
                } => {
                    let (key, value) = (key.into_owned(), value.map(|value| value.into_owned()));
                    if hint {
                        let stamped = false;
                        records.put(tree, key, Record { value, stamped });
                    } else {
                        writes.put(tree, key, write(value));
                    }
                }
                Op::Tree {
                    create: Some(class),
                    tree,
                } => {
                    let made = core.store.create_tree(tree, class)?;
                    core.trees.set(tree, made)?;
                }
                // The next open drops what no table names.
                Op::Tree { create: None, .. } => {}
                Op::Range { tree, .. } => {
                    let error = Error::new(ErrorKind::Version, "a range that a commit deletes");
                    return Err(error.with("tree", tree.0));
                }
            }
        }
        if !transaction.idempotency.is_empty() {
            let key = transaction.idempotency.to_vec();
            writes.put(OUTCOMES, key, write(Some(Vec::new())));
        }
        core.store.admit(apply::pages_wanted(&writes, &records))?;
        self.install(&writes, &records, place)
    }

    fn install(&self, writes: &WriteSet, records: &Records, place: Sequenced) -> Result<()> {
        let core = &self.core;
        let keys: Arc<[RowKey]> = writes
            .iter()
            .map(|(tree, key, _)| (tree, Arc::clone(key)))
            .collect();
        let mut intents = Intents::new(core, core.next_age());
        intents.owner().set_committing();
        for (tree, key) in &*keys {
            intents.place(*tree, key, None)?;
        }
        intents.owner().set_stamp(place.ts);
        core.ring.push(place.ts, &keys);
        core.prefix.enter(place.begin, place.end, place.ts);
        apply::rows(core, writes, &mut intents, (place, None))?;
        apply::records(core, records, place)?;
        for (_, key, write) in writes.iter().filter(|(tree, ..)| *tree == CATALOG) {
            let value = write.value.as_deref().unwrap_or_default();
            let table = TableInfo::decode(key, value)?;
            core.catalog.insert(Arc::new(table));
        }
        intents.release();
        core.prefix.mark(place.ts);
        Ok(())
    }
}

fn write(value: Option<Vec<u8>>) -> Write {
    Write {
        value,
        schema: 0,
        flags: 0,
    }
}
