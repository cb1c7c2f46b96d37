//! Looking at a database directory from outside: is all of it sound, and what is in its log.
//!
//! ```text
//! check  META copies, maps of both images -> log from the older redo point -> recovery over a
//!        shadow -> every page, slot and tree -> catalog, rows, index entries both ways
//! log    segments -> frames -> entries -> records
//! ```
//! Nothing of the directory changes: recovery runs over a disk that keeps its writes in memory
//! (`shadow`). The directory's lock is taken, since what changes under a check would be reported as
//! damage. `terrane check` and `terrane log` (feature `cli`) are these two functions and a printer.
//! What needs no directory, where rows lie and what a policy survives, is in `placing`.

mod log;
mod placing;
mod rows;
pub(crate) mod shadow;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use terrane_btree::{StoreError, Surveyed};
use terrane_wal::env::Env;
use terrane_wal::io::{BackendChoice, Kind, Lock};

use crate::builder::{Builder, Create, check_path};
use crate::error::{Error, ErrorKind, Result};
use crate::recovery::{self, directory};
use crate::runtime::Core;

pub use log::{LogQuery, log};
pub use placing::{PlaceQuery, Placement, Shards, place, policy, shard_map};

/// Something that is not as it must be: where, and what stands there instead of what.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The structure: `META`, `map`, `page 12 of tree 256`, `wal`, `index entry`, ...
    pub structure: String,
    /// The file, where one is concerned.
    pub file: Option<PathBuf>,
    /// Byte offset in the file.
    pub offset: Option<u64>,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.structure)?;
        if let Some(file) = &self.file {
            write!(f, " in {}", file.display())?;
        }
        if let Some(offset) = self.offset {
            write!(f, " at offset {offset}")?;
        }
        write!(f, ": expected {}, found {}", self.expected, self.found)
    }
}

/// What a check went through, and what it found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// Everything that is wrong; empty for a sound database.
    pub findings: Vec<Finding>,
    /// Generation of the newest image.
    pub generation: u64,
    /// Trees, the directory and the system trees included.
    pub trees: u64,
    /// Pages that trees reach.
    pub pages: u64,
    /// Tables of the catalog.
    pub tables: u64,
    /// Rows of all tables.
    pub rows: u64,
    /// Entries of all indexes.
    pub index_entries: u64,
    /// Bytes of log entries from the older image's redo point on.
    pub log_bytes: u64,
    /// Those entries.
    pub log_entries: u64,
    /// Frames behind the end of the log; never acknowledged, so not a finding.
    pub discarded_frames: u64,
}

impl CheckReport {
    /// True if nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Verifies the whole database in the directory `path` without changing it: all copies of META, the
/// maps of both images, every page of every tree and its slot, the log from the older image's redo
/// point on, the catalog against the trees, each row against its schema, and the entries of each
/// index against its table's rows, both ways. What is verified is what the next open would serve.
///
/// Reads every page twice; takes 64 MiB of memory, and that of what recovery would write.
///
/// # Errors
/// Those that are no damage: `NotFound`, `Locked` (the database is open), `Invalid` (no database),
/// `Version`, `Io`, `Full`. Damage is in the report.
pub fn check(path: impl AsRef<Path>) -> Result<CheckReport> {
    check_in(&system()?, path.as_ref())
}

/// As [`check`], over the caller's disk.
///
/// # Errors
/// As [`check`].
#[cfg(feature = "sim")]
pub fn check_with(env: &Env, path: impl AsRef<Path>) -> Result<CheckReport> {
    check_in(env, path.as_ref())
}

fn check_in(env: &Env, path: &Path) -> Result<CheckReport> {
    let shadow = shadow_of(env, path)?;
    // Held over all steps; each gets a shadow of its own, so that none sees what another wrote.
    let held = lock(env, path)?;
    let mut findings = Vec::new();
    let disk = Arc::clone(&shadow.disk);
    let generations = terrane_btree::survey(&disk, path, &mut |error| {
        findings.push(Finding::of(error.into()));
    })
    .or_else(|error| damage(error.into(), &mut findings).map(|()| Vec::new()))?;
    let mut report = CheckReport {
        generation: generations.first().map_or(0, |newest| newest.generation),
        ..CheckReport::default()
    };
    if let Some(oldest) = generations.iter().rfind(|generation| generation.is_whole) {
        check_log(env, path, oldest, &generations, &mut report, &mut findings)?;
    }
    drop(held);
    match recover(&shadow_of(env, path)?, path) {
        Ok(core) => check_open(&core, &mut report, &mut findings)?,
        Err(error) => damage(error, &mut findings)?,
    }
    report.findings = findings;
    Ok(report)
}

/// The outside as it is.
fn system() -> Result<Env> {
    Ok(Env::system(BackendChoice::Auto)?.0)
}

/// An environment in which the directory can be written to without changing.
fn shadow_of(env: &Env, path: &Path) -> Result<Env> {
    check_path(path)?;
    match env.disk.stat(path)? {
        Some(stat) if stat.kind == Kind::Directory => {}
        Some(_) => {
            let error = Error::new(ErrorKind::Invalid, "a database is a directory");
            return Err(error.with("path", path.display()));
        }
        None => {
            let error = Error::new(ErrorKind::NotFound, "there is no database");
            return Err(error.with("path", path.display()));
        }
    }
    Ok(Env {
        disk: shadow::Shadow::over(Arc::clone(&env.disk)),
        ..env.clone()
    })
}

/// The directory's lock, if there is a database.
fn lock(env: &Env, path: &Path) -> Result<Option<Box<dyn Lock>>> {
    if env.disk.stat(&path.join("META"))?.is_none() {
        let error = Error::new(ErrorKind::NotFound, "there is no database");
        return Err(error.with("path", path.display()));
    }
    directory::take(env, path, true)
}

/// Opens the database as the next open would.
fn recover(env: &Env, path: &Path) -> Result<Arc<Core>> {
    let mut options = Builder::new()
        .memory_bytes(64 << 20)
        .create(Create::Never)
        .resolve()?;
    options.background = false;
    recovery::open(env.clone(), path, options)
}

/// Puts an error that is damage among the findings; any other ends the check.
fn damage(error: Error, findings: &mut Vec<Finding>) -> Result<()> {
    match error.kind() {
        ErrorKind::Corrupt | ErrorKind::Codec | ErrorKind::Schema => {
            let finding = Finding::of(error);
            if !findings.contains(&finding) {
                findings.push(finding);
            }
            Ok(())
        }
        _ => Err(error),
    }
}

/// The log from the older image on: it must hold together also where only that one would need it.
fn check_log(
    env: &Env,
    path: &Path,
    oldest: &Surveyed,
    generations: &[Surveyed],
    report: &mut CheckReport,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let reach = generations
        .iter()
        .map(|generation| generation.image_hi_lsn)
        .max();
    let env = shadow_of(env, path)?;
    let mut last = None;
    let mut falling = Vec::new();
    let opened = terrane_wal::Log::open(
        &env,
        &path.join("log"),
        oldest.uuid,
        oldest.redo_lsn,
        reach.unwrap_or_default(),
        terrane_wal::LogOptions::default(),
        &mut |entry| {
            if let Some(before) = last
                && entry.ts <= before
            {
                falling.push((entry.begin, before, entry.ts));
            }
            last = Some(entry.ts);
            Ok(())
        },
    );
    for (begin, before, ts) in falling {
        findings.push(Finding {
            structure: format!("wal entry at {begin}"),
            file: Some(path.join("log")),
            offset: None,
            expected: format!("a timestamp above {before}"),
            found: ts.to_string(),
        });
    }
    match opened {
        Ok((_, found)) => {
            report.log_bytes = found.bytes;
            report.log_entries = found.entries;
            report.discarded_frames = found.discarded_frames;
            Ok(())
        }
        Err(error) => damage(error.into(), findings),
    }
}

/// Pages, trees and rows of the database as recovery made it.
fn check_open(core: &Core, report: &mut CheckReport, findings: &mut Vec<Finding>) -> Result<()> {
    let mut found = |error: StoreError| findings.push(Finding::of(error.into()));
    let checked = core.store.check(&mut |finding| found(finding.error))?;
    report.trees = checked.trees.len() as u64;
    report.pages = checked.pages;
    // Rows of a damaged tree would only say the same again, or could not be had.
    if checked.findings == 0 {
        rows::check(core, report, findings)?;
    }
    Ok(())
}

impl Finding {
    /// A finding from an error: its context pairs say where.
    fn of(error: Error) -> Finding {
        let pair = |wanted: &str| {
            let mut pairs = error.context().iter();
            pairs
                .find(|(key, _)| *key == wanted)
                .map(|(_, value)| value.clone())
        };
        let mut structure = pair("structure").unwrap_or_else(|| error.kind().to_string());
        for key in ["page", "tree", "table"] {
            if let Some(value) = pair(key) {
                structure.push_str(&format!(", {key} {value}"));
            }
        }
        Finding {
            structure,
            file: pair("file").map(PathBuf::from),
            offset: pair("offset").and_then(|offset| offset.parse().ok()),
            expected: pair("expected").unwrap_or_else(|| "bytes that pass their check".into()),
            found: pair("found").unwrap_or_else(|| error.to_string()),
        }
    }
}
