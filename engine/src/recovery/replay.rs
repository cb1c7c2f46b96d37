//! Replay: entries of the log to net rows in the trees.
//!
//! Rows are assembled by transaction until its COMMIT, reduced to the last operation of each key,
//! and applied in order of (tree, key), on several threads by key range. Order of all effects is
//! the order of COMMIT records, so a net may be applied in parts: whenever it has grown large, and
//! before each change of the tree directory.

use std::ops::Bound;

use terrane_btree::{Direction, Edit, LeafRows, Store};
use terrane_wal::lsn::TreeId;
use terrane_wal::sync::Mutex;
use terrane_wal::{ReplayEntry, WalError};

use crate::builder::OnRecovery;
use crate::catalog::{OUTCOMES, Remembered};
use crate::error::{Error, ErrorKind, Result};
use crate::recovery::RecoveryProgress;
use crate::recovery::assemble::{Assembly, Op, Transaction};
use crate::recovery::net::{Net, Unread};

/// Bytes of net rows that are gathered before they are applied.
const NET_BYTES_MAX: usize = 48 << 20;

/// A replay under way.
pub(super) struct Replay<'a> {
    store: &'a Store,
    pool: Option<rayon::ThreadPool>,
    assembly: Assembly,
    net: Net,
    unread: Mutex<Unread>,
    progress: RecoveryProgress,
    on_progress: Option<OnRecovery>,
    failure: Option<Error>,
}

/// What a replay leaves to others.
pub(super) struct Rest {
    /// Runs that have not ended.
    pub(super) assembly: Assembly,
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
            assembly: Assembly::default(),
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
        Ok(Rest {
            assembly: self.assembly,
            unread: std::mem::take(&mut *self.unread.lock()),
        })
    }

    fn take(&mut self, entry: &ReplayEntry<'_>) -> Result<()> {
        let complete = self.assembly.take(&entry.entry)?;
        self.progress.log_bytes += entry.end.since(entry.begin);
        let Some(Transaction { ops, idempotency }) = complete else {
            return Ok(());
        };
        self.commit(ops)?;
        if !idempotency.is_empty() {
            let row = Remembered {
                ts: entry.ts,
                begin: entry.begin,
            };
            self.net.put(OUTCOMES, idempotency, Some(&row.encode()));
        }
        Ok(())
    }

    /// The operations of a complete transaction, in their order.
    fn commit(&mut self, ops: Vec<Op<'_>>) -> Result<()> {
        self.progress.transactions += 1;
        for op in ops {
            match op {
                Op::Row {
                    tree, key, value, ..
                } => {
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
