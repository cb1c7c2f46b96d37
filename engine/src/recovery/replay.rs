//! Replay: entries of the log to net rows in the trees.
//!
//! Rows are assembled by transaction until its COMMIT, reduced to the last operation of each key,
//! and applied in order of (tree, key), on several threads by key range. Order of all effects is
//! the order of COMMIT records, so a net may be applied in parts: whenever it has grown large, and
//! before each change of the tree directory.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;

use terrane_btree::{Class, Direction, Edit, LeafRows, Store};
use terrane_wal::lsn::{TreeId, TxnId};
use terrane_wal::sync::Mutex;
use terrane_wal::{Body, DdlKind, DdlOp, Record, ReplayEntry, WalError};

use crate::builder::OnRecovery;
use crate::catalog::{OUTCOMES, Remembered};
use crate::error::{Error, ErrorKind, Result};
use crate::recovery::RecoveryProgress;
use crate::recovery::net::{Net, Unread};

/// Bytes of net rows that are gathered before they are applied.
const NET_BYTES_MAX: usize = 48 << 20;

/// An operation of a transaction.
#[derive(Debug)]
enum Op<'a> {
    Row {
        tree: TreeId,
        key: Cow<'a, [u8]>,
        value: Option<Cow<'a, [u8]>>,
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
            Op::Row { tree, key, value } => Op::Row {
                tree,
                key: owned(key),
                value: value.map(owned),
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

/// A replay under way.
pub(super) struct Replay<'a> {
    store: &'a Store,
    pool: Option<rayon::ThreadPool>,
    /// Chunk runs whose COMMIT has not come yet.
    runs: BTreeMap<TxnId, Run>,
    net: Net,
    unread: Mutex<Unread>,
    progress: RecoveryProgress,
    on_progress: Option<OnRecovery>,
    failure: Option<Error>,
}

/// What a replay leaves to others.
pub(super) struct Rest {
    /// Runs that never ended, each with the number of its chunks.
    pub(super) open_runs: Vec<(TxnId, u32)>,
    /// Rows whose leaf could not be read.
    pub(super) unread: Unread,
}

/// Threads that apply the net: all cores, as the one that reads the log waits meanwhile.
pub(super) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

impl<'a> Replay<'a> {
    /// A replay into the store's trees.
    pub(super) fn new(
        store: &'a Store,
        threads: usize,
        on_progress: Option<OnRecovery>,
    ) -> Result<Replay<'a>> {
        let build = || rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = (threads > 1).then(build).transpose().map_err(|error| {
            Error::new(ErrorKind::Io, "no threads can be started for recovery").caused_by(error)
        })?;
        Ok(Replay {
            store,
            pool,
            runs: BTreeMap::new(),
            net: Net::default(),
            unread: Mutex::default(),
            progress: RecoveryProgress::default(),
            on_progress,
            failure: None,
        })
    }

    /// Takes the next entry of the log.
    pub(super) fn entry(&mut self, entry: ReplayEntry<'_>) -> Result<(), WalError> {
        self.take(&entry).map_err(|error| {
            self.failure = Some(error);
            WalError::Invalid {
                what: "replay has stopped".into(),
            }
        })
    }

    /// What stopped the replay, if something did.
    pub(super) fn failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// The entries are over: runs that never ended have no effect.
    pub(super) fn finish(mut self) -> Result<Rest> {
        self.flush()?;
        self.progress.done = true;
        self.report();
        let runs = self.runs.iter().map(|(txn, run)| (*txn, run.chunks));
        Ok(Rest {
            open_runs: runs.collect(),
            unread: std::mem::take(&mut *self.unread.lock()),
        })
    }

    fn take(&mut self, entry: &ReplayEntry<'_>) -> Result<()> {
        let txn = entry.entry.txn();
        let mut run = self.runs.remove(&txn).unwrap_or_default();
        let mut ops = Vec::with_capacity(entry.entry.records().size_hint().0);
        let mut end = None;
        for record in entry.entry.records() {
            match op_of(&record)? {
                Some(op) => ops.push(op),
                None => end = Some(record),
            }
        }
        self.progress.log_bytes += entry.end.since(entry.begin);
        match end.map(|record| record.body) {
            Some(Body::Chunk) => {
                run.chunks += 1;
                run.ops.extend(ops.into_iter().map(Op::into_owned));
                self.runs.insert(txn, run);
            }
            Some(Body::Commit { idempotency }) => {
                self.commit(run.ops.into_iter().chain(ops))?;
                if !idempotency.is_empty() {
                    let row = Remembered {
                        ts: entry.ts,
                        begin: entry.begin,
                    };
                    self.net.put(OUTCOMES, idempotency, Some(&row.encode()));
                }
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
        Ok(())
    }

    /// The operations of a complete transaction, in their order.
    fn commit<'o>(&mut self, ops: impl Iterator<Item = Op<'o>>) -> Result<()> {
        self.progress.transactions += 1;
        for op in ops {
            match op {
                Op::Row { tree, key, value } => {
                    self.progress.rows += 1;
                    self.net.put(tree, &key, value.as_deref());
                }
                Op::Range { tree, lo, hi } => {
                    self.flush()?;
                    self.delete_range(tree, &lo, hi.as_deref())?;
                }
                Op::Tree {
                    create: Some(class),
                    tree,
                } => {
                    self.flush()?;
                    self.store.create_tree(tree, class)?;
                }
                Op::Tree { create: None, tree } => {
                    self.flush()?;
                    self.store.drop_tree(tree)?;
                }
            }
        }
        if self.net.bytes() > NET_BYTES_MAX {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let store = self.store;
        // A tree that the image no longer has was dropped later in this log.
        let tree = |id| Ok(store.tree(id)?);
        self.net.drain(&tree, self.pool.as_ref(), &self.unread)?;
        self.report();
        Ok(())
    }

    fn delete_range(&self, tree: TreeId, lo: &[u8], hi: Option<&[u8]>) -> Result<()> {
        let Some(tree) = self.store.tree(tree)? else {
            return Ok(());
        };
        let upper = hi.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rows = LeafRows::default();
        let mut cursor = tree.cursor(Bound::Included(lo), upper, Direction::Forward);
        while cursor.next_leaf(&mut rows)? {
            for row in rows.iter() {
                tree.update(row.key, &mut |_| Edit::Remove)?;
            }
        }
        Ok(())
    }

    fn report(&self) {
        if let Some(call) = &self.on_progress {
            call(self.progress);
        }
    }
}

/// The operation of a row or DDL record; None for what ends an entry or has no effect here.
fn op_of<'a>(record: &Record<'a>) -> Result<Option<Op<'a>>> {
    let tree = record.tree;
    let op = match record.body {
        Body::Put { key, value } => Op::Row {
            tree,
            key: Cow::Borrowed(key),
            value: Some(Cow::Borrowed(value)),
        },
        Body::Del { key } => Op::Row {
            tree,
            key: Cow::Borrowed(key),
            value: None,
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
