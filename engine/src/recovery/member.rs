//! A member of a shard, from its directory: the newest image, and the log up to what is known to be
//! committed.
//!
//! ```text
//! start    image -> log (its end, tentative) -> committed part into the trees -> core that follows
//! deposed  the log stays open; image -> committed part into the trees -> another core (I15)
//! ```
//!
//! What lies behind the committed part waits in the log: the rules of terms decide about it
//! (`terrane_shard::replica`), and who follows applies it then (`replica/follow.rs`).

use std::path::Path;
use std::sync::Arc;

use terrane_btree::{Opened, Store};
use terrane_wal::env::Env;
use terrane_wal::io::{Backend, Disk};
use terrane_wal::lsn::{Lsn, Ts};
use terrane_wal::{Log, LogOptions, ReplayEntry, decode_entry};

use super::assemble::Assembly;
use super::replay::{self, Replay, Rest};
use super::{
    Source, check_ts, directory, drop_orphans, make_system_trees, newest_ts, open_vectors,
};
use crate::builder::Options;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::Core;
use crate::runtime::standing::Standing;

/// Bytes of entries that are read at once.
const READ_BYTES: usize = 1 << 20;

/// Options of the log of a member.
fn log_options(options: &Options) -> LogOptions {
    LogOptions {
        replicated: true,
        recent_bytes: options.log.buffer_bytes,
        ..options.log.clone()
    }
}

/// Makes the files of a member in an empty directory whose lock is held: an empty log and an image
/// of nothing.
///
/// # Errors
/// Of the disk.
pub(crate) fn create(env: &Env, dir: &Path, uuid: [u8; 16], options: &Options) -> Result<()> {
    directory::clear_remnants(env, dir)?;
    let log = Log::create(env, &dir.join("log"), uuid, log_options(options))?;
    log.close()?;
    let store = Store::create(env, dir, uuid, options.store.clone())?;
    drop(store);
    env.disk.sync_dir(dir)?;
    Ok(())
}

/// A member's trees and log.
#[derive(Debug)]
pub(crate) struct Opening<'a> {
    /// The real disk: what the log is on.
    pub(crate) env: &'a Env,
    /// What the trees are on.
    pub(crate) trees: Arc<dyn Disk>,
    pub(crate) dir: &'a Path,
    pub(crate) options: Options,
    pub(crate) standing: Standing,
}

impl Opening<'_> {
    /// Opens image and log, at a start.
    ///
    /// # Errors
    /// Those of an open.
    pub(crate) fn start(self) -> Result<(Arc<Core>, Arc<Log>)> {
        let (store, opened) = self.store()?;
        let (log, found) = Log::open(
            self.env,
            &self.dir.join("log"),
            opened.uuid,
            opened.redo_lsn,
            opened.reach_lsn,
            log_options(&self.options),
            &mut |_| Ok(()),
        )?;
        log.observe(found.last_ts);
        let core = self.core(store, &opened, Arc::clone(&log))?;
        Ok((core, log))
    }

    /// Opens the image again, below a log that was open all the time.
    ///
    /// # Errors
    /// Those of an open.
    pub(crate) fn again(self, log: &Arc<Log>) -> Result<Arc<Core>> {
        let (store, opened) = self.store()?;
        self.core(store, &opened, Arc::clone(log))
    }

    fn store(&self) -> Result<(Store, Opened)> {
        let env = self.trees_env();
        let found = Store::open(&env, self.dir, self.options.store.clone())?;
        Ok(found.settle()?)
    }

    fn trees_env(&self) -> Env {
        Env {
            disk: Arc::clone(&self.trees),
            ..self.env.clone()
        }
    }

    fn core(mut self, store: Store, opened: &Opened, log: Arc<Log>) -> Result<Arc<Core>> {
        // I5: an image holds nothing that is not committed.
        log.commit_to(opened.image_hi_lsn);
        make_system_trees(&store)?;
        // How far this member's clock was says nothing of entries that another one leads.
        let newest = match terrane_wal::planted!("a_members_clock_is_its_base") {
            true => newest_ts(self.dir, opened)?,
            false => check_ts(self.dir, opened.image_hi_ts)?,
        };
        let threads = match self.env.disk.backend() {
            Backend::Sim => 1,
            _ => replay::threads(),
        };
        let mut replay = Replay::new(&store, threads, self.options.on_recovery.clone())?;
        let (commit, last) = committed(&log, opened.redo_lsn, &mut replay)?;
        let Rest { assembly, unread } = replay.finish()?;
        check_whole(&assembly)?;
        drop_orphans(&store)?;
        self.options.notices.extend(opened.fell_back.clone());
        let env = self.trees_env();
        let source = Source {
            env,
            uuid: opened.uuid,
            dir: self.dir,
            options: self.options,
            store,
            lock: None,
        };
        let mut parts = source
            .ready(Some(log), (commit, last.max(newest)), true)?
            .parts;
        parts.standing = Some(self.standing);
        let core = Core::new(parts);
        open_vectors(&core);
        for ((tree, key), (value, cause)) in unread {
            let redo = opened.redo_lsn;
            core.unapplied
                .restore(&core, (tree, key.into()), value, redo, cause);
        }
        Ok(core)
    }
}

/// Hands the committed entries from `redo` on to a replay. Where they end, and the newest timestamp
/// among them.
fn committed(log: &Arc<Log>, redo: Lsn, replay: &mut Replay<'_>) -> Result<(Lsn, Ts)> {
    let commit = log.commit_lsn();
    let (mut at, mut last) = (redo, Ts::ZERO);
    while at < commit {
        let copies = log.read(at, READ_BYTES)?;
        if copies.is_empty() {
            break;
        }
        for copy in copies.iter().take_while(|copy| copy.head.end <= commit) {
            let entry = decode_entry(&copy.bytes)?;
            let (begin, end, ts) = (copy.head.start, copy.head.end, entry.ts());
            let entry = ReplayEntry {
                begin,
                end,
                ts,
                entry,
            };
            if let (Err(error), cause) = (replay.entry(entry), replay.failure()) {
                return Err(cause.unwrap_or_else(|| error.into()));
            }
            (at, last) = (end, last.max(ts));
        }
        let more = copies.last().is_some_and(|copy| copy.head.end < commit);
        if !more {
            break;
        }
    }
    Ok((at.max(commit), last))
}

/// Transactions in chunks are of a later version of members.
pub(crate) fn check_whole(assembly: &Assembly) -> Result<()> {
    match assembly.open_runs().next() {
        None => Ok(()),
        Some((txn, chunks)) => Err(Error::new(
            ErrorKind::Version,
            "a shard's log has a transaction in chunks",
        )
        .with("transaction", txn.0)
        .with("chunks", chunks)),
    }
}
