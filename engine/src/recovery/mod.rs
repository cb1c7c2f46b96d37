//! Open: from a directory to a running database (storage.md 7).
//!
//! ```text
//! directory rules -> LOCK -> newest valid image -> log from its redo point -> net rows -> trees
//!                 -> catalog -> checkpoint -> serve
//! ```
//! Replay is blind and idempotent (M3): a crash anywhere in it only means that the next open does
//! it again. Nothing is served before all of it is done.

pub(crate) mod assemble;
pub(crate) mod directory;
pub(crate) mod member;
mod net;
mod replay;

use std::path::Path;
use std::sync::Arc;

use terrane_btree::{Class, Opened, Store};
use terrane_wal::clock::TS_MAX;
use terrane_wal::env::Env;
use terrane_wal::io::{Backend, Lock};
use terrane_wal::lsn::{Lsn, TreeId, Ts};
use terrane_wal::{EntryBuilder, Log, WalError};

use crate::builder::Options;
use crate::catalog::{self, CATALOG, Catalog, FIRST_TREE, SYSTEM_TREES};
use crate::checkpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::inspect::shadow::Shadow;
use crate::local::Local;
use crate::runtime::trees::Trees;
use crate::runtime::{Core, Parts};
use crate::txn::two_phase;

use assemble::Assembly;
use directory::State;
use net::Unread;
use replay::{Replay, Rest};

/// How far a recovery has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryProgress {
    /// Bytes of log read.
    pub log_bytes: u64,
    /// Transactions found complete.
    pub transactions: u64,
    /// Rows applied to the trees.
    pub rows: u64,
    /// All of it is done.
    pub done: bool,
}

/// Opens or makes the database in `dir`.
pub(crate) fn open(mut env: Env, dir: &Path, options: Options) -> Result<Arc<Core>> {
    if options.read_only {
        // Not a byte changes, also where opening an image would clean up after a crash.
        env.disk = Shadow::over(env.disk);
    }
    let state = directory::inspect(&env, dir, &options)?;
    let lock = directory::lock(&env, dir, &options)?;
    // Looked at again under the lock: another process may have made it meanwhile.
    let state = match state {
        State::Missing | State::Empty => directory::inspect(&env, dir, &options)?,
        State::Database => state,
    };
    let ready = match state {
        State::Missing | State::Empty => create(env, dir, options, lock)?,
        State::Database => {
            let found = Store::open(&env, dir, options.store.clone())?;
            check_reach(&env, dir, found.opened())?;
            let (store, opened) = found.settle()?;
            if options.read_only {
                return read_only(
                    Source {
                        env,
                        uuid: opened.uuid,
                        dir,
                        options,
                        store,
                        lock,
                    },
                    &opened,
                );
            }
            recover(
                Source {
                    env,
                    uuid: opened.uuid,
                    dir,
                    options,
                    store,
                    lock,
                },
                &opened,
            )?
        }
    };
    let Ready {
        parts,
        replayed,
        unread,
        redo,
    } = ready;
    let core = Core::new(parts);
    open_vectors(&core);
    for ((tree, key), (value, cause)) in unread {
        core.unapplied
            .restore(&core, (tree, key.into()), value, redo, cause);
    }
    if replayed {
        // What was replayed is not replayed again; without space the old image and log remain.
        match checkpoint::now(&core, false) {
            Err(error) if error.kind() != ErrorKind::Full => return Err(error),
            _ => {}
        }
    }
    Ok(core)
}

/// What is in memory beside the trees is derived from them again: they followed another member's
/// log until now, and lead from now on.
///
/// # Errors
/// Those of a read; `Corrupt`.
pub(crate) fn lead(core: &Arc<Core>) -> Result<()> {
    core.catalog.forget_row_ids();
    core.vectors.clear();
    open_vectors(core);
    // From when on a row is read that other shards decided, only the leader of then knew.
    core.recent.raise_floor(core.prefix.newest());
    two_phase::restore(&Local::detached(core))
}

/// Opens the vector indexes of all tables: their centres come into memory.
fn open_vectors(core: &Core) {
    for table in core.catalog.tables() {
        core.vectors.install(core, &table);
    }
}

/// What an open works on.
struct Source<'a> {
    env: Env,
    uuid: [u8; 16],
    dir: &'a Path,
    options: Options,
    store: Store,
    lock: Option<Box<dyn Lock>>,
}

/// A database ready to run, and whether its image lags behind.
struct Ready {
    parts: Parts,
    replayed: bool,
    /// Rows of the log whose leaf could not be read, and where the log has them.
    unread: Unread,
    redo: Lsn,
}

impl Source<'_> {
    /// Everything is in the trees up to `base`.
    fn ready(self, log: Option<Arc<Log>>, base: (Lsn, Ts), replayed: bool) -> Result<Ready> {
        let trees = Trees::new();
        for (id, _) in self.store.trees()? {
            if let Some(tree) = self.store.tree(id)? {
                trees.set(id, tree)?;
            }
        }
        let tables = catalog::load(trees.get(CATALOG)?)?;
        for tree in tables.iter().flat_map(|table| table.trees()) {
            trees.get(tree).map_err(|error| {
                Error::new(ErrorKind::Corrupt, "a table's tree is missing").caused_by(error)
            })?;
        }
        let parts = Parts {
            uuid: self.uuid,
            env: self.env,
            options: self.options,
            store: self.store,
            log,
            standing: None,
            lock: self.lock,
            trees,
            catalog: Catalog::of(tables),
            base,
        };
        Ok(Ready {
            parts,
            replayed,
            unread: Unread::new(),
            redo: base.0,
        })
    }
}

/// Makes a database in an empty directory. Until META stands, which comes last, there is none.
fn create(env: Env, dir: &Path, options: Options, lock: Option<Box<dyn Lock>>) -> Result<Ready> {
    directory::clear_remnants(&env, dir)?;
    let uuid = new_uuid(&env);
    let log = Log::create(&env, &dir.join("log"), uuid, options.log.clone())?;
    let store = Store::create(&env, dir, uuid, options.store.clone())?;
    make_system_trees(&store)?;
    env.disk.sync_dir(dir)?;
    let source = Source {
        env,
        uuid,
        dir,
        options,
        store,
        lock,
    };
    // The first image says that the log is empty and has no system trees: the next one replaces it
    // before the first commit.
    source.ready(Some(log), (Lsn::ZERO, Ts::ZERO), true)
}

/// What tells a database, or a shard, from all others.
pub(crate) fn new_uuid(env: &Env) -> [u8; 16] {
    let mut uuid = [0; 16];
    for half in uuid.chunks_mut(8) {
        half.copy_from_slice(&env.rng.next_u64("uuid").to_le_bytes());
    }
    uuid
}

fn make_system_trees(store: &Store) -> Result<()> {
    for tree in SYSTEM_TREES {
        store.create_tree(tree, Class::K8)?;
    }
    Ok(())
}

/// Image plus log.
fn recover(mut source: Source<'_>, opened: &Opened) -> Result<Ready> {
    let Source {
        env,
        dir,
        options,
        store,
        ..
    } = &source;
    let newest = newest_ts(dir, opened)?;
    make_system_trees(store)?;
    // In simulation one thread runs at a time, and a replay must repeat.
    let threads = if env.disk.backend() == Backend::Sim {
        1
    } else {
        replay::threads()
    };
    let mut replay = Replay::new(store, threads, options.on_recovery.clone())?;
    let outcome = Log::open(
        env,
        &dir.join("log"),
        opened.uuid,
        opened.redo_lsn,
        opened.reach_lsn,
        options.log.clone(),
        &mut |entry| replay.entry(entry),
    );
    let (log, found) = match (outcome, replay.failure()) {
        (_, Some(error)) => return Err(error),
        (outcome, None) => outcome?,
    };
    let Rest { assembly, unread } = replay.finish()?;
    drop_orphans(store)?;
    let last = found.last_ts.max(newest);
    log.observe(last);
    if let Some(ahead) = log.clock().behind(last) {
        source.options.notices.push(format!(
            "the newest timestamp lies {} s ahead of the wall clock; commits count on from there",
            ahead.as_secs()
        ));
    }
    close_runs(&log, &assembly)?;
    // Everything that was ever committed lies at or below `last`, also where the log has nothing
    // left to say so: a snapshot of what was found reads there.
    let base = (log.positions().durable.0, last);
    // A clean image says that the log has nothing beyond it, which ends with the first commit.
    let replayed = found.entries > 0 || opened.clean_shutdown || opened.fell_back.is_some();
    source.options.notices.extend(opened.fell_back.clone());
    Ok(Ready {
        unread,
        redo: opened.redo_lsn,
        ..source.ready(Some(log), base, replayed)?
    })
}

/// Before an image that does not verify is given up for the one before it: the log must reach what
/// it held, or commits that were acknowledged would be gone and nobody would know.
fn check_reach(env: &Env, dir: &Path, opened: &Opened) -> Result<()> {
    if opened.fell_back.is_none() {
        return Ok(());
    }
    let (log, redo) = (dir.join("log"), opened.redo_lsn);
    Ok(Log::check_reach(
        env,
        &log,
        opened.uuid,
        redo,
        opened.reach_lsn,
    )?)
}

/// The newest timestamp that META names. Commits count on from there, so there must be some above.
fn newest_ts(dir: &Path, opened: &Opened) -> Result<Ts> {
    check_ts(dir, opened.image_hi_ts.max(Ts(opened.clock_bound)))
}

fn check_ts(dir: &Path, newest: Ts) -> Result<Ts> {
    if newest <= TS_MAX {
        return Ok(newest);
    }
    let error = Error::new(ErrorKind::Corrupt, "META names a time after all times");
    Err(error
        .with("structure", "META")
        .with("file", dir.join("META").display())
        .with("expected", format!("timestamps up to {TS_MAX}"))
        .with("found", newest))
}

/// Ends by ABORT what transactions have logged ahead of a COMMIT that never came. Without space
/// that is left to the next open: until then the runs stay open, and have no effect either.
fn close_runs(log: &Arc<Log>, assembly: &Assembly) -> Result<()> {
    for (txn, chunks) in assembly.open_runs() {
        let mut entry = EntryBuilder::new();
        entry.continue_run(txn, chunks);
        let entry = entry.abort(txn);
        let admission = match log.admit(entry.len()) {
            Err(WalError::Full { .. }) => break,
            other => other?,
        };
        log.sequence(admission, entry, true, &mut |_| {}).fill();
    }
    Ok(log.flush()?)
}

/// Drops trees that were made for a table whose commit never happened.
fn drop_orphans(store: &Store) -> Result<()> {
    let Some(tree) = store.tree(CATALOG)? else {
        return Err(Error::new(
            ErrorKind::Corrupt,
            "the catalog's tree is missing",
        ));
    };
    let tables = catalog::load(&tree)?;
    let named: Vec<TreeId> = tables.iter().flat_map(|table| table.trees()).collect();
    for (id, _) in store.trees()? {
        if id >= FIRST_TREE && !named.contains(&id) {
            store.drop_tree(id)?;
        }
    }
    Ok(())
}

/// An image that says it holds everything, without its log.
fn read_only(source: Source<'_>, opened: &Opened) -> Result<Arc<Core>> {
    if !opened.clean_shutdown || opened.redo_lsn < opened.reach_lsn {
        let error = Error::new(
            ErrorKind::ReadOnly,
            "recovery is needed; open for writing once",
        );
        return Err(error.with("directory", source.dir.display()));
    }
    let base = (opened.image_hi_lsn, newest_ts(source.dir, opened)?);
    let core = Core::new(source.ready(None, base, false)?.parts);
    open_vectors(&core);
    Ok(core)
}
