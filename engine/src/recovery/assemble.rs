//! Entries of the log to transactions: chunks wait for their COMMIT, and a barrier ends them.
//!
//! The one reader of entries for recovery, for members that follow, and for all else that learns
//! from the log what was committed.

use std::borrow::Cow;
use std::collections::BTreeMap;

use terrane_btree::Class;
use terrane_wal::lsn::TreeId;
use terrane_wal::lsn::TxnId;
use terrane_wal::record::FLAG_VECTOR;
use terrane_wal::{Body, DdlKind, DdlOp, DecodedEntry, Record};

use crate::error::{Error, ErrorKind, Result};

/// An operation of a transaction.
#[derive(Debug)]
pub(crate) enum Op<'a> {
    Row {
        tree: TreeId,
        key: Cow<'a, [u8]>,
        value: Option<Cow<'a, [u8]>>,
        /// A record of a vector index, which has no versions.
        hint: bool,
    },
    Range {
        tree: TreeId,
        lo: Cow<'a, [u8]>,
        hi: Option<Cow<'a, [u8]>>,
    },
    Tree {
        create: Option<Class>,
        tree: TreeId,
    },
}

/// What the chunks of a transaction have brought.
#[derive(Debug, Default)]
struct Run {
    ops: Vec<Op<'static>>,
    chunks: u32,
}

impl Op<'_> {
    /// Keeps the operation until its transaction is complete.
    fn into_owned(self) -> Op<'static> {
        let owned = |bytes: Cow<'_, [u8]>| Cow::Owned(bytes.into_owned());
        match self {
            Op::Row {
                tree,
                key,
                value,
                hint,
            } => Op::Row {
                tree,
                key: owned(key),
                value: value.map(owned),
                hint,
            },
            Op::Range { tree, lo, hi } => Op::Range {
                tree,
                lo: owned(lo),
                hi: hi.map(owned),
            },
            Op::Tree { create, tree } => Op::Tree { create, tree },
        }
    }
}

/// What an entry completes.
#[derive(Debug)]
pub(crate) struct Transaction<'a> {
    /// Its operations, in their order.
    pub(crate) ops: Vec<Op<'a>>,
    /// The idempotency key that it came with; empty if with none.
    pub(crate) idempotency: &'a [u8],
}

/// Transactions that are not complete.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    runs: BTreeMap<TxnId, Run>,
}

impl Assembly {
    /// Takes the next entry: the transaction that it completes, if it does.
    ///
    /// # Errors
    /// `Version`, `Corrupt` for records that cannot be.
    pub(crate) fn take<'a>(&mut self, entry: &DecodedEntry<'a>) -> Result<Option<Transaction<'a>>> {
        let txn = entry.txn();
        let mut run = self.runs.remove(&txn).unwrap_or_default();
        let mut ops = Vec::with_capacity(entry.records().size_hint().0);
        let mut end = None;
        for record in entry.records() {
            match op_of(&record)? {
                Some(op) => ops.push(op),
                None => end = Some(record),
            }
        }
        match end.map(|record| record.body) {
            Some(Body::Chunk) => {
                run.chunks += 1;
                run.ops.extend(ops.into_iter().map(Op::into_owned));
                self.runs.insert(txn, run);
            }
            Some(Body::Commit { idempotency }) => {
                if !run.ops.is_empty() {
                    let mut all: Vec<Op<'a>> = run.ops;
                    all.append(&mut ops);
                    ops = all;
                }
                return Ok(Some(Transaction { ops, idempotency }));
            }
            Some(Body::Abort { txn }) => {
                self.runs.remove(&txn);
            }
            // I14: no run crosses a term.
            Some(Body::Barrier { .. }) if !terrane_wal::planted!("runs_cross_a_term") => {
                self.runs.clear();
            }
            // A VOID ends its own run, which was taken out above.
            _ => {}
        }
        Ok(None)
    }

    /// Runs that have not ended, each with the number of its chunks.
    pub(crate) fn open_runs(&self) -> impl Iterator<Item = (TxnId, u32)> {
        self.runs.iter().map(|(txn, run)| (*txn, run.chunks))
    }
}

/// The operation of a row or DDL record; None for what ends an entry or has no effect here.
fn op_of<'a>(record: &Record<'a>) -> Result<Option<Op<'a>>> {
    let tree = record.tree;
    let hint = record.flags & FLAG_VECTOR != 0;
    let op = match record.body {
        Body::Put { key, value } => Op::Row {
            tree,
            key: Cow::Borrowed(key),
            value: Some(Cow::Borrowed(value)),
            hint,
        },
        Body::Del { key } => Op::Row {
            tree,
            key: Cow::Borrowed(key),
            value: None,
            hint,
        },
        Body::DelRange { lo, hi } => Op::Range {
            tree,
            lo: Cow::Borrowed(lo),
            hi: hi.map(Cow::Borrowed),
        },
        Body::Ddl(DdlOp {
            kind: DdlKind::CreateTree,
            class,
            tree,
            ..
        }) => {
            let Some(class) = Class::new(class) else {
                let error = Error::new(ErrorKind::Corrupt, "a tree of unknown page size");
                return Err(error.with("structure", "wal").with("class", class));
            };
            Op::Tree {
                create: Some(class),
                tree,
            }
        }
        Body::Ddl(DdlOp {
            kind: DdlKind::DropTree,
            tree,
            ..
        }) => Op::Tree { create: None, tree },
        Body::BlobRef { .. } | Body::Ingest { .. } => {
            let error = Error::new(ErrorKind::Version, "the log has records of a later version");
            return Err(error.with("tree", tree.0));
        }
        _ => return Ok(None),
    };
    Ok(Some(op))
}
