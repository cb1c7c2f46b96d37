//! A commit in several shards: all of them prepare, one decides, all do as it decided.
//!
//! ```text
//! coordinator                          others
//! lock the row of the decision
//!                                      PREPARE: intents, reads that hold, `terrane.prepared`
//! DECIDE: rows, and the decision
//! (answered)                           DECIDE: rows at the decision's timestamp
//! forget the decision (resolver)
//! ```
//!
//! Two flushes to the answer. The timestamp of the coordinator's entry is that of the transaction:
//! it lies above that of every PREPARE, so whoever reads at a moment below it sees nothing of the
//! transaction, and whoever reads above waits where a shard has not yet heard (`prepared.rs`). What
//! the coordinator read is validated as it decides, while what the others read is kept as it was:
//! all of it holds at that moment.
//!
//! Invariants:
//! - D2: a prepared transaction is given up by nobody but its coordinator's shard.
//! - D3: the decision is one row in one shard. Who finds none while nobody holds its lock writes
//!   there that it is abandoned, so that it cannot be made any more (presumed abort).

use std::sync::Arc;

use terrane_wal::lsn::{TreeId, Ts};

use crate::catalog;
use crate::error::{Error, ErrorKind, Result};
use crate::local::Local;
use crate::txn::commit::{self, Ticket};
use crate::txn::intents::Intents;
use crate::txn::leg::Leg;
use crate::txn::prepared::{Dtid, Part, Pending};
use crate::txn::raw::RawRead;
use crate::txn::records::Record;
use crate::txn::snapshot::read_row;
use crate::txn::write_set::Write;

/// Bytes of a part in one row.
const CHUNK: usize = 48 << 10;
/// First byte of the keys of prepared parts, and of decisions.
const PART: u8 = 1;
const DECISION: u8 = 2;

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Committed then, in these shards beside the coordinator's.
    Commit(Ts, Vec<u32>),
    /// Abandoned, as this shard was told.
    Abort(u32),
}

impl Decision {
    /// As a row; of a commit without its timestamp, which is stamped.
    fn encode(&self) -> Vec<u8> {
        let mut row = Vec::new();
        let shards = match self {
            Decision::Commit(_, shards) => {
                row.push(1);
                &shards[..]
            }
            Decision::Abort(shard) => {
                row.push(2);
                std::slice::from_ref(shard)
            }
        };
        row.extend(shards.iter().flat_map(|shard| shard.to_le_bytes()));
        if let Decision::Commit(ts, _) = self {
            row.extend(ts.0.to_le_bytes());
        }
        row
    }

    fn decode(row: &[u8]) -> Result<Decision> {
        let broken = || Error::new(ErrorKind::Corrupt, "a decision does not decode");
        let shards = |bytes: &[u8]| -> Result<Vec<u32>> {
            let (words, rest) = bytes.as_chunks();
            let shards = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
            rest.is_empty().then_some(shards).ok_or_else(broken)
        };
        match row.split_first() {
            Some((1, rest)) => {
                let (bytes, ts) = rest.split_last_chunk().ok_or_else(broken)?;
                Ok(Decision::Commit(
                    Ts(u64::from_le_bytes(*ts)),
                    shards(bytes)?,
                ))
            }
            Some((2, rest)) => match shards(rest)?[..] {
                [shard] => Ok(Decision::Abort(shard)),
                _ => Err(broken()),
            },
            _ => Err(broken()),
        }
    }

    /// Who is to have heard before it may be forgotten.
    pub(crate) fn told(&self) -> &[u32] {
        match self {
            Decision::Commit(_, shards) => shards,
            Decision::Abort(shard) => std::slice::from_ref(shard),
        }
    }
}

fn part_key(dtid: Dtid, chunk: u32) -> Vec<u8> {
    [&[PART][..], &dtid.encode(), &chunk.to_be_bytes()].concat()
}

fn decision_key(dtid: Dtid) -> Vec<u8> {
    [&[DECISION][..], &dtid.encode()].concat()
}

/// Prepares what a leg is about to do in its shard. The ticket waits until that is safe.
///
/// # Errors
/// `Conflict` and the others of a commit: nothing has happened then.
pub(crate) fn prepare(leg: &mut Leg, dtid: Dtid) -> Result<(Arc<Pending>, Ticket)> {
    let local = leg.local()?.clone();
    let core = local.core();
    let tree = catalog::prepared_table(&local)?;
    commit::ready(leg)?;
    let part = leg.part();
    let bytes = part.encode();
    let chunks = bytes.chunks(CHUNK);
    let count = chunks.len() as u32;
    let intents = leg.take_intents();
    let pending = core
        .prepared
        .enter(dtid, part, count, (intents, core.now()));
    let log = || -> Result<Ticket> {
        // D1: what it has read stands there by now.
        commit::hold_reads(core, leg, pending.owner())?;
        let mut system = catalog::system_transaction(&local);
        for (chunk, bytes) in (0..).zip(chunks) {
            let key = part_key(dtid, chunk);
            system.put_raw(tree.tree, tree.schema_version, 0, key, bytes.to_vec())?;
        }
        system.commit_ticket()
    };
    match log() {
        Ok(ticket) => {
            if let Ticket::At(_, _, place) = &ticket {
                pending.at_least(place.ts);
            }
            Ok((pending, ticket))
        }
        Err(error) => {
            core.prepared.leave(&pending);
            Err(error)
        }
    }
}

/// Does in a shard what was decided: the rows of a commit at its timestamp, or nothing. None if
/// somebody else is about to.
///
/// # Errors
/// Those of a commit: it is to be done again.
pub(crate) fn decide(
    local: &Local,
    pending: &Arc<Pending>,
    commit: Option<Ts>,
) -> Result<Option<Ticket>> {
    let Some(intents) = pending.take() else {
        return Ok(None);
    };
    let core = local.core();
    let mut leg = catalog::system_transaction(local);
    leg.go_on(intents, commit);
    let mut log = || -> Result<Ticket> {
        let table = catalog::prepared_table(local)?;
        if commit.is_some() {
            for ((tree, key), write) in &pending.part.writes {
                leg.put_write(*tree, key.to_vec(), write.clone());
            }
        }
        for chunk in 0..pending.chunks {
            let write = Write {
                value: None,
                schema: table.schema_version,
                flags: 0,
            };
            leg.put_write(table.tree, part_key(pending.dtid, chunk), write);
        }
        leg.commit_ticket()
    };
    match log() {
        Ok(ticket) => {
            core.prepared.leave(pending);
            Ok(Some(ticket))
        }
        Err(error) => {
            pending.put_back(leg.take_intents());
            Err(error)
        }
    }
}

/// The row of the decision is the coordinator's from now on.
///
/// # Errors
/// Those of a lock.
pub(crate) fn lock_decision(leg: &mut Leg, dtid: Dtid) -> Result<()> {
    let table = catalog::prepared_table(&leg.local()?.clone())?;
    if terrane_wal::planted!("a_decision_without_its_lock") {
        return Ok(());
    }
    leg.lock(table.tree, &decision_key(dtid).into())
}

/// The coordinator's commit decides, for these shards too.
///
/// # Errors
/// Those of a look at the catalog.
pub(crate) fn decides(leg: &mut Leg, dtid: Dtid, shards: Vec<u32>) -> Result<()> {
    let table = catalog::prepared_table(&leg.local()?.clone())?;
    let record = Record {
        value: Some(Decision::Commit(Ts::ZERO, shards).encode()),
        stamped: true,
    };
    if !terrane_wal::planted!("a_decision_that_is_not_logged") {
        leg.records.put(table.tree, decision_key(dtid), record);
    }
    Ok(())
}

/// What was decided, asked by a shard at the coordinator's leader. If nothing was, and nobody is
/// about to, it is abandoned now. None: somebody is about to.
///
/// # Errors
/// Those of a commit.
pub(crate) fn ask(local: &Local, dtid: Dtid, by: u32) -> Result<Option<Decision>> {
    let core = local.core();
    let table = catalog::prepared_table(local)?;
    let key = decision_key(dtid);
    let mut leg = catalog::system_transaction(local);
    if !leg.try_lock(table.tree, &key.clone().into()) {
        return Ok(None);
    }
    if let Some(row) = read_row(core, table.tree, &key, Ts(u64::MAX))?.value {
        // It may be here and nowhere else yet.
        core.wait_read(core.prefix.applied().0)?;
        return Decision::decode(&row).map(Some);
    }
    let abandoned = Decision::Abort(by);
    leg.put_raw(table.tree, table.schema_version, 0, key, abandoned.encode())?;
    leg.commit_ticket()?.wait()?;
    Ok(Some(abandoned))
}

/// Decisions of a shard.
///
/// # Errors
/// Those of a read.
pub(crate) fn decisions(local: &Local) -> Result<Vec<(Dtid, Decision)>> {
    let Some(tree) = catalog::find_prepared(local.core()) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    rows(local, tree, DECISION, &mut |key, row| {
        if let Some(dtid) = Dtid::decode(key) {
            found.push((dtid, Decision::decode(row)?));
        }
        Ok(())
    })?;
    Ok(found)
}

/// A decision that everybody has heard is forgotten.
///
/// # Errors
/// Those of a commit.
pub(crate) fn forget(local: &Local, dtid: Dtid) -> Result<()> {
    let table = catalog::prepared_table(local)?;
    let mut leg = catalog::system_transaction(local);
    let version = table.schema_version;
    leg.delete_raw(table.tree, version, 0, decision_key(dtid))?;
    leg.commit_ticket()?.wait().map(|_| ())
}

/// Whether a shard has nothing of a transaction any more, and cannot come to have it.
///
/// # Errors
/// Those of a read.
pub(crate) fn is_through(local: &Local, dtid: Dtid) -> Result<bool> {
    let core = local.core();
    if core.prepared.get(dtid).is_some() {
        return Ok(false);
    }
    let Some(tree) = catalog::find_prepared(core) else {
        return Ok(true);
    };
    let found = read_row(core, tree, &part_key(dtid, 0), Ts(u64::MAX))?;
    core.wait_read(core.prefix.applied().0)?;
    Ok(found.value.is_none())
}

/// Makes what is prepared again from its rows, before the first commit of a leader.
///
/// # Errors
/// Those of a read; `Corrupt`.
pub(crate) fn restore(local: &Local) -> Result<()> {
    let core = local.core();
    core.prepared.clear();
    if terrane_wal::planted!("the_next_leader_forgets_what_is_prepared") {
        return Ok(());
    }
    let Some(tree) = catalog::find_prepared(core) else {
        return Ok(());
    };
    let mut parts: Vec<(Dtid, u32, Vec<u8>)> = Vec::new();
    rows(local, tree, PART, &mut |key, row| {
        let Some(dtid) = Dtid::decode(key) else {
            return Ok(());
        };
        match parts.last_mut() {
            Some((last, chunks, bytes)) if *last == dtid => {
                *chunks += 1;
                bytes.extend_from_slice(row);
            }
            _ => parts.push((dtid, 1, row.to_vec())),
        }
        Ok(())
    })?;
    for (dtid, chunks, bytes) in parts {
        let part = Part::decode(&bytes)?;
        let mut intents = Intents::new(core, part.age);
        for ((tree, key), _) in &part.writes {
            intents.place(*tree, key, None)?;
        }
        core.prepared
            .enter(dtid, part, chunks, (intents, core.now()));
    }
    Ok(())
}

/// Takes a key and a row.
type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> Result<()> + 'v;

/// The newest rows of `terrane.prepared` whose keys begin with a byte, without it.
fn rows(local: &Local, tree: TreeId, first: u8, visit: &mut Visit<'_>) -> Result<()> {
    use std::ops::Bound::{Excluded, Included};
    let leg = catalog::system_transaction(local);
    let bounds = (Included(vec![first]), Excluded(vec![first + 1]));
    let scan = leg.scan_raw(tree, bounds.0, bounds.1, false)?;
    scan.visit(|key, row| visit(&key[1..], row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_survives_its_bytes_and_no_others_do() {
        for decision in [
            Decision::Commit(Ts(77), vec![1, 300]),
            Decision::Commit(Ts(1), vec![]),
            Decision::Abort(4),
        ] {
            let row = decision.encode();
            assert_eq!(Decision::decode(&row).unwrap(), decision);
            assert!(Decision::decode(&row[..row.len() - 1]).is_err());
        }
        assert!(Decision::decode(&[]).is_err() && Decision::decode(&[3]).is_err());
    }
}
