//! The disk of this machine: names and locks by plain system calls, batches by the machinery that
//! was chosen when it was opened (a pool of threads, or rings).
//!
//! `BackendChoice::Auto` takes rings and falls back to the pool where the kernel refuses them; the
//! notice then says why. Network file systems are refused at `lock`, the first thing that is done
//! to a database directory, because their locks and flushes do not keep the promises of [`Disk`].

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, getpid};

use super::syscall::{SysFile, failed, repeat};
use super::{
    Backend, Batch, Disk, File, IoError, IoStats, Kind, Lock, Open, PoolDisk, Purpose, Stat,
};
use crate::env::{Park, Spawn};

/// Which backend the caller asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// Rings where the kernel grants them, else the pool.
    #[default]
    Auto,
    /// Rings, or an error.
    Ring,
    /// The pool of threads.
    Pool,
}

/// How the disk of this machine is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskOptions {
    /// The backend.
    pub choice: BackendChoice,
    /// Opens a database on NFS or CIFS all the same. Its durability then is the server's word.
    pub network_forced: bool,
    /// Goes through the page cache also where the file system offers `O_DIRECT`: the way that file
    /// systems without it are served.
    pub buffered: bool,
    /// Answers the set-up of a ring with this error number instead of asking the kernel: the
    /// fall-back can be tested on a machine that grants rings.
    pub ring_refusal: Option<i32>,
}

impl DiskOptions {
    /// Options with `choice` and the rest as by default.
    #[must_use]
    pub fn new(choice: BackendChoice) -> DiskOptions {
        DiskOptions {
            choice,
            ..DiskOptions::default()
        }
    }
}

/// Something that the user should know, but that is no error.
#[derive(Clone, Debug)]
pub struct Notice(pub String);

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Threads of the pool. Eight keep the queue of one NVMe device busy enough for a fall-back.
pub(super) const POOL_THREADS: usize = 8;

/// A disk, and a notice if it is not the one that was asked for.
pub type Opened = (Arc<dyn Disk>, Option<Notice>);

/// Opens the disk of this machine with the backend of `choice`.
pub fn open_system_disk(
    spawn: Arc<dyn Spawn>,
    park: Arc<dyn Park>,
    choice: BackendChoice,
) -> Result<Opened, IoError> {
    open_disk(&spawn, &park, &DiskOptions::new(choice))
}

/// Opens the disk of this machine.
pub fn open_disk(
    spawn: &Arc<dyn Spawn>,
    park: &Arc<dyn Park>,
    options: &DiskOptions,
) -> Result<Opened, IoError> {
    let pool = || PoolDisk::with_options(spawn, park, POOL_THREADS, options);
    if options.choice == BackendChoice::Pool {
        return Ok((Arc::new(pool()?), None));
    }
    match open_ring(options) {
        Ok(disk) => Ok((disk, None)),
        Err(error) if options.choice == BackendChoice::Auto => {
            let text = format!("io_uring refused ({error}); using {POOL_THREADS} threads instead");
            Ok((Arc::new(pool()?), Some(Notice(text))))
        }
        Err(error) => Err(error),
    }
}

#[cfg(feature = "uring")]
fn open_ring(options: &DiskOptions) -> Result<Arc<dyn Disk>, IoError> {
    Ok(Arc::new(super::RingDisk::open(options)?))
}

#[cfg(not(feature = "uring"))]
fn open_ring(_options: &DiskOptions) -> Result<Arc<dyn Disk>, IoError> {
    Err(failed("io_uring_setup", Path::new(""), Errno::NOSYS))
}

/// What serves batches.
pub trait Machinery: Send + Sync + fmt::Debug {
    /// Its name.
    fn backend(&self) -> Backend;

    /// A new, empty batch that counts in `stats`.
    fn batch(&self, purpose: Purpose, stats: Arc<IoStats>) -> Box<dyn Batch>;
}

/// Files of the operating system, with batches by `M`.
#[derive(Debug)]
pub struct SystemDisk<M> {
    machinery: M,
    options: DiskOptions,
    stats: Arc<IoStats>,
}

impl<M: Machinery> SystemDisk<M> {
    pub(super) fn over(machinery: M, options: &DiskOptions) -> SystemDisk<M> {
        SystemDisk {
            machinery,
            options: *options,
            stats: Arc::new(IoStats::default()),
        }
    }

    /// What serves batches.
    #[cfg(all(test, feature = "uring", not(loom)))]
    pub(super) fn machinery(&self) -> &M {
        &self.machinery
    }
}

impl<M: Machinery> Disk for SystemDisk<M> {
    fn backend(&self) -> Backend {
        self.machinery.backend()
    }

    fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn File>, IoError> {
        let file = SysFile::open(path, how, self.options.buffered, Arc::clone(&self.stats))?;
        Ok(Arc::new(file))
    }

    fn create_dir(&self, path: &Path) -> Result<(), IoError> {
        rustix::fs::mkdir(path, Mode::from_raw_mode(0o755))
            .map_err(|errno| failed("create_dir", path, errno))
    }

    fn list(&self, path: &Path) -> Result<Vec<String>, IoError> {
        let fail = |error| failed("list", path, error);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path).map_err(fail)? {
            // No name of ours is outside UTF-8, so a foreign one may come back changed.
            let name = entry.map_err(fail)?.file_name();
            names.push(name.to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn stat(&self, path: &Path) -> Result<Option<Stat>, IoError> {
        let stat = match repeat(|| rustix::fs::stat(path)) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(failed("stat", path, errno)),
        };
        let kind = match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
            rustix::fs::FileType::RegularFile => Kind::File,
            rustix::fs::FileType::Directory => Kind::Directory,
            _ => Kind::Other,
        };
        Ok(Some(Stat {
            kind,
            len: u64::try_from(stat.st_size).unwrap_or(0),
            device: stat.st_dev,
            inode: stat.st_ino,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        rustix::fs::rename(from, to).map_err(|errno| failed("rename", from, errno))
    }

    fn remove(&self, path: &Path) -> Result<(), IoError> {
        rustix::fs::unlink(path).map_err(|errno| failed("remove", path, errno))
    }

    fn sync_dir(&self, path: &Path) -> Result<(), IoError> {
        let fail = |errno| failed("sync_dir", path, errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = repeat(|| rustix::fs::open(path, flags, Mode::empty())).map_err(fail)?;
        self.stats.flushes.fetch_add(1, Ordering::Relaxed);
        loop {
            match rustix::fs::fsync(&directory) {
                Err(Errno::INTR) => {}
                other => return other.map_err(fail),
            }
        }
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Lock>>, IoError> {
        let lock = FileLock::take(path, self.options.network_forced)?;
        Ok(lock.map(|lock| Box::new(lock) as Box<dyn Lock>))
    }

    fn batch(&self, purpose: Purpose) -> Box<dyn Batch> {
        self.machinery.batch(purpose, Arc::clone(&self.stats))
    }

    fn stats(&self) -> &IoStats {
        &self.stats
    }
}

/// Locks held by this process, by device and inode. `flock` alone would do on local file systems;
/// where it is emulated by record locks, a second lock of the same process would be granted.
static HELD: Mutex<BTreeSet<(u64, u64)>> = Mutex::new(BTreeSet::new());

/// A file locked by `flock`. The lock belongs to the open file, not to this descriptor: a process
/// forked by another thread holds a copy until it runs its program, and closing ours alone would
/// leave the file locked for that long.
#[derive(Debug)]
struct FileLock {
    identity: (u64, u64),
    fd: std::os::fd::OwnedFd,
    /// Who took it. A forked child that drops its copy must not unlock its parent.
    owner: Pid,
}

impl FileLock {
    fn take(path: &Path, network_forced: bool) -> Result<Option<FileLock>, IoError> {
        let fail = |errno: Errno| failed("lock", path, errno);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        let fd = repeat(|| rustix::fs::open(path, flags, mode)).map_err(fail)?;
        let system = rustix::fs::fstatfs(&fd).map_err(fail)?;
        // The magic is 32 bits wide; the field that holds it has the size of a machine word.
        if let Some(name) = network_name(system.f_type as u32)
            && !network_forced
        {
            let text = format!("{name} is a network file system; force it to open all the same");
            let source = std::io::Error::new(std::io::ErrorKind::Unsupported, text);
            return Err(failed("lock", path, source));
        }
        let stat = rustix::fs::fstat(&fd).map_err(fail)?;
        let identity = (stat.st_dev, stat.st_ino);
        let mut held = HELD.lock();
        if held.contains(&identity) {
            return Ok(None);
        }
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(fail(errno)),
        }
        held.insert(identity);
        Ok(Some(FileLock {
            identity,
            fd,
            owner: getpid(),
        }))
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        let mut held = HELD.lock();
        if self.owner == getpid() {
            // Should it fail, closing the descriptor still unlocks, if later.
            let _ = rustix::fs::flock(&self.fd, FlockOperation::Unlock);
        }
        held.remove(&self.identity);
    }
}

impl Lock for FileLock {}

/// The name of a network file system by its magic number (statfs(2)); None for a local one.
fn network_name(magic: u32) -> Option<&'static str> {
    match magic {
        0x6969 => Some("NFS"),
        0xff53_4d42 => Some("CIFS"),
        0xfe53_4d42 => Some("SMB2"),
        0x517b => Some("SMB"),
        0x564c => Some("NCP"),
        0x7375_7245 => Some("Coda"),
        0x5346_414f => Some("AFS"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_their_magic_and_local_ones_are_let_in() {
        let local = [0xef53, 0x0102_1994, 0x5846_5342, 0x9123_683e, 0x794c_7630];
        assert!(local.iter().all(|magic| network_name(*magic).is_none()));
        assert_eq!(network_name(0x6969), Some("NFS"));
        assert_eq!(network_name(0xff53_4d42), Some("CIFS"));
    }

    /// Without the explicit unlock in `drop` the last assertion failed.
    #[test]
    fn a_dropped_lock_is_free_though_another_process_holds_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let lock = FileLock::take(&path, false).unwrap().unwrap();
        let copy = rustix::io::dup(&lock.fd).unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .stdin(copy)
            .spawn()
            .unwrap();
        assert!(FileLock::take(&path, false).unwrap().is_none());
        drop(lock);
        let again = FileLock::take(&path, false).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(again.is_some());
    }

    /// Without the comparison of process ids in `drop` the first assertion failed.
    #[test]
    fn a_forked_copy_that_is_dropped_leaves_the_lock_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let lock = FileLock::take(&path, false).unwrap().unwrap();
        drop(FileLock {
            identity: lock.identity,
            fd: rustix::io::dup(&lock.fd).unwrap(),
            owner: Pid::INIT,
        });
        assert!(FileLock::take(&path, false).unwrap().is_none());
        drop(lock);
        assert!(FileLock::take(&path, false).unwrap().is_some());
    }
}
