//! What may be opened, what may be created, and who holds it (testing.md e, rows 2 to 10).

use std::io::ErrorKind as Os;
use std::path::Path;
use std::time::Duration;

use terrane_wal::env::Env;
use terrane_wal::io::{Backend, IoError, Kind, Lock};

use crate::builder::{Create, Options};
use crate::error::{Error, ErrorKind, Result};

/// How often a lock is tried: the kernel may hold a killed process's file open for a moment.
const LOCK_ATTEMPTS: u32 = 5;
/// The pause between two attempts.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// What stands at the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing; the parent is there.
    Missing,
    /// A directory without a database: empty, or a creation that did not get to its end.
    Empty,
    /// A database.
    Database,
}

/// Looks without changing anything, and refuses what the options do not allow.
pub(super) fn inspect(env: &Env, dir: &Path, options: &Options) -> Result<State> {
    let state = look(env, dir)?;
    let wrong = |kind, what: &'static str| Error::new(kind, what).with("path", dir.display());
    match (state, options.create) {
        (State::Database, Create::New) => {
            Err(wrong(ErrorKind::Exists, "there is a database already"))
        }
        (State::Missing | State::Empty, Create::Never) => {
            Err(wrong(ErrorKind::NotFound, "there is no database"))
        }
        (State::Missing | State::Empty, _) if options.read_only => {
            Err(wrong(ErrorKind::NotFound, "there is no database to read"))
        }
        _ => Ok(state),
    }
}

fn look(env: &Env, dir: &Path) -> Result<State> {
    let invalid = |what: &'static str| Error::new(ErrorKind::Invalid, what);
    match env.disk.stat(dir)? {
        None => {
            let parent = match dir.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            match env.disk.stat(parent)? {
                Some(stat) if stat.kind == Kind::Directory => return Ok(State::Missing),
                Some(_) => return Err(invalid("the parent is no directory")),
                None => {
                    let error = Error::new(ErrorKind::NotFound, "the parent is missing");
                    return Err(error.with("path", parent.display()));
                }
            }
        }
        Some(stat) if stat.kind != Kind::Directory => {
            let error = invalid("a database is a directory, and this is something else");
            return Err(error.with("path", dir.display()));
        }
        Some(_) => {}
    }
    let names = env.disk.list(dir)?;
    if names.iter().any(|name| name == "META") {
        return Ok(State::Database);
    }
    match names.iter().find(|name| !is_ours(name)) {
        None => Ok(State::Empty),
        Some(name) => {
            let error = invalid("the directory holds other files and no database");
            Err(error.with("path", dir.display()).with("found", name))
        }
    }
}

/// True for what a creation may leave behind before META stands.
fn is_ours(name: &str) -> bool {
    matches!(name, "LOCK" | "log") || is_part(name)
}

/// True for the files that a creation makes anew: META is written aside and renamed last.
fn is_part(name: &str) -> bool {
    name == "META.tmp" || name.starts_with("data.") || name.starts_with("map.")
}

/// Removes what a creation left behind that did not get to its end.
pub(super) fn clear_remnants(env: &Env, dir: &Path) -> Result<()> {
    let log = dir.join("log");
    if env.disk.stat(&log)?.is_some() {
        for name in env.disk.list(&log)? {
            env.disk.remove(&log.join(name))?;
        }
    }
    for name in env.disk.list(dir)? {
        if is_part(&name) {
            env.disk.remove(&dir.join(name))?;
        }
    }
    Ok(())
}

/// Makes the directory if it is to be made, and takes its lock as [`take`] does.
pub(super) fn lock(env: &Env, dir: &Path, options: &Options) -> Result<Option<Box<dyn Lock>>> {
    make(env, dir)?;
    take(env, dir, options.read_only)
}

/// Makes a directory that is missing, for good. Its parent must exist.
pub(crate) fn make(env: &Env, dir: &Path) -> Result<()> {
    if env.disk.stat(dir)?.is_none() {
        env.disk
            .create_dir(dir)
            .map_err(|error| of_directory(env, dir, error))?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            env.disk.sync_dir(parent)?;
        }
    }
    Ok(())
}

/// Takes the lock of the directory. None where the file system takes no lock file and the caller
/// only reads: nobody can be writing there.
pub(crate) fn take(env: &Env, dir: &Path, read_only: bool) -> Result<Option<Box<dyn Lock>>> {
    let path = dir.join("LOCK");
    for attempt in 0..LOCK_ATTEMPTS {
        if attempt > 0 {
            env.park.waiter().park_timeout(LOCK_PAUSE);
        }
        match env.disk.lock(&path) {
            Ok(Some(lock)) => return Ok(Some(lock)),
            Ok(None) => {}
            Err(error) if read_only && is_refused(&error) => return Ok(None),
            Err(error) => return Err(of_directory(env, dir, error)),
        }
    }
    let error = Error::new(
        ErrorKind::Locked,
        "the database is open in this process or another",
    )
    .with("path", dir.display());
    Err(match owner_of(env, &path) {
        Some(pid) => error.with("owner_pid", pid),
        None => error,
    })
}

/// The process that holds the lock of a file, if the kernel says so (proc_locks(5)): known also
/// when the owner was killed and could not have written anything.
fn owner_of(env: &Env, path: &Path) -> Option<u32> {
    if env.disk.backend() == Backend::Sim {
        return None;
    }
    let stat = env.disk.stat(path).ok()??;
    let major = stat.device >> 8 & 0xfff | stat.device >> 32 & !0xfff;
    let minor = stat.device & 0xff | stat.device >> 12 & !0xff;
    let file = format!("{major:02x}:{minor:02x}:{}", stat.inode);
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let holder = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let is_lock = words.next() == Some("FLOCK");
        let pid = words.nth(2)?.parse().ok()?;
        (is_lock && words.next() == Some(&file)).then_some(pid)
    };
    locks.lines().find_map(holder)
}

fn is_refused(error: &IoError) -> bool {
    matches!(error.kind(), Os::PermissionDenied | Os::ReadOnlyFilesystem)
}

/// A directory that can be read but not written is read-only; one that cannot be read is an error
/// of the system.
fn of_directory(env: &Env, dir: &Path, error: IoError) -> Error {
    if is_refused(&error) && env.disk.list(dir).is_ok() {
        let read_only = Error::new(ErrorKind::ReadOnly, "the directory takes no writes");
        return read_only.with("path", dir.display()).caused_by(error);
    }
    error.into()
}
