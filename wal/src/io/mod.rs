//! What a disk promises, whatever stands behind it: a ring, a pool of threads, or a simulation.
//!
//! A write is durable only after a later `sync` of its file, or when it was asked to be `durable`
//! itself (one device flush: `RWF_DSYNC`). Files and names are durable after `sync_dir` of their
//! directory. A failed sync is final: nobody may retry it and report success.
//!
//! Lone reads and lone durable writes are blocking calls on [`File`]; everything that has company
//! goes through a [`Batch`]: submit, then collect completions in any order. Buffers belong to the
//! batch from `push` to their completion, so nobody can free or reuse memory that the kernel owns.

pub mod buffer;
mod pool;
#[cfg(all(feature = "sim", not(loom)))]
pub mod sim;
mod syscall;
mod system;
#[cfg(feature = "uring")]
#[allow(unsafe_code, reason = "hands memory to the kernel")]
mod uring;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

pub use buffer::Buf;
pub use pool::{Pool, PoolDisk};
pub use system::{
    BackendChoice, DiskOptions, Machinery, Notice, Opened, SystemDisk, open_disk, open_system_disk,
};
#[cfg(feature = "uring")]
pub use uring::{RingDisk, Rings};

/// Everything on disk is read and written in multiples of this many bytes, at such offsets.
pub const BLOCK: usize = 4096;

/// Longest single request of a batch, in bytes.
pub const REQUEST_MAX: usize = 1 << 20;

/// Which machinery serves the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// io_uring for batches, `preadv2`/`pwritev2` for lone requests.
    Uring,
    /// `preadv2`/`pwritev2` on a pool of threads.
    Pool,
    /// The simulated disk.
    Sim,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// Existing file, for reading.
    Read,
    /// Existing file, for reading and writing.
    Write,
    /// A new file for reading and writing; an error if the name exists.
    CreateNew,
}

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Anything else: device, socket, FIFO.
    Other,
}

/// Facts about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// What it is, after following symbolic links.
    pub kind: Kind,
    /// Length in bytes.
    pub len: u64,
    /// Device number: with `inode` the identity of a file whatever its path.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

/// A failed operation: what was asked of which path at which offset, and what the system said.
#[derive(Clone, Debug)]
pub struct IoError {
    /// The call that failed: "open", "read", "write", "sync", "set_len", ...
    pub op: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// Byte offset, where the operation has one.
    pub offset: u64,
    /// Bytes asked for, where the operation has a length.
    pub len: usize,
    /// What the operating system answered.
    pub source: Arc<std::io::Error>,
}

impl IoError {
    /// The operating system's error kind.
    #[must_use]
    pub fn kind(&self) -> std::io::ErrorKind {
        self.source.kind()
    }

    /// True if space ran out: no space on the device, quota, or file size limit.
    #[must_use]
    pub fn is_full(&self) -> bool {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        matches!(
            self.source.kind(),
            StorageFull | QuotaExceeded | FileTooLarge
        )
    }
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let IoError {
            op,
            path,
            offset,
            len,
            source,
        } = self;
        write!(
            f,
            "{op} of {} at offset {offset}, {len} bytes: {source}",
            path.display()
        )
    }
}

impl std::error::Error for IoError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}

/// What a caller wants the I/O for; counted apart in [`IoStats`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A flush of the log.
    Log,
    /// A page read because somebody waits for it.
    Miss,
    /// Pages read ahead of need.
    Prefetch,
    /// Pages and maps written by a checkpoint.
    Checkpoint,
    /// Dirty pages written to make room.
    Evict,
    /// Reads of recovery.
    Replay,
    /// Everything else: META, headers, checks.
    Other,
}

/// Counters of one disk, by machinery and purpose. All are totals since the disk was made.
#[derive(Debug, Default)]
pub struct IoStats {
    /// Operations completed through the ring or the pool's queue, by [`Purpose`] as index.
    pub batched: [AtomicU64; 7],
    /// Operations done by a lone blocking call, by [`Purpose`] as index.
    pub lone: [AtomicU64; 7],
    /// Bytes read.
    pub bytes_read: AtomicU64,
    /// Bytes written.
    pub bytes_written: AtomicU64,
    /// Device flushes asked for: durable writes and syncs.
    pub flushes: AtomicU64,
}

/// One operation of a batch. Offsets and lengths are multiples of [`BLOCK`].
#[derive(Debug)]
pub enum Op {
    /// Fills the buffer from the file; fewer bytes only at the end of the file.
    Read(Buf),
    /// Writes the whole buffer.
    Write(Buf),
    /// Writes the whole buffer and makes it durable with one device flush.
    WriteDurable(Buf),
    /// Makes all earlier completed writes of the file durable.
    Sync,
}

impl Op {
    /// The operation's name in an error.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Op::Read(_) => "read",
            Op::Write(_) | Op::WriteDurable(_) => "write",
            Op::Sync => "sync",
        }
    }

    /// The operation's buffer, if it has one.
    #[must_use]
    pub fn buf(&self) -> Option<&Buf> {
        match self {
            Op::Read(buf) | Op::Write(buf) | Op::WriteDurable(buf) => Some(buf),
            Op::Sync => None,
        }
    }

    /// Gives the buffer back.
    #[must_use]
    pub fn into_buf(self) -> Option<Buf> {
        match self {
            Op::Read(buf) | Op::Write(buf) | Op::WriteDurable(buf) => Some(buf),
            Op::Sync => None,
        }
    }
}

/// What is wrong with a request before any backend sees it; None if nothing is.
fn request_fault(file: &dyn File, offset: u64, op: &Op) -> Option<IoError> {
    let len = op.buf().map_or(0, |buf| buf.len());
    let fault = if !offset.is_multiple_of(BLOCK as u64) {
        format!("offset {offset} is not a multiple of {BLOCK}")
    } else if len > REQUEST_MAX {
        format!("{len} bytes in one request, at most {REQUEST_MAX}")
    } else {
        return None;
    };
    let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, fault);
    Some(syscall::failed_at(
        op.name(),
        file.path(),
        offset,
        len,
        source,
    ))
}

/// A request of a batch.
#[derive(Debug)]
pub struct Request {
    /// Chosen by the caller, comes back in the completion.
    pub token: u64,
    /// The file.
    pub file: Arc<dyn File>,
    /// Byte offset in the file.
    pub offset: u64,
    /// What to do.
    pub op: Op,
}

/// The end of a request. Short transfers, EINTR and EAGAIN were resubmitted below this line.
#[derive(Debug)]
pub struct Completion {
    /// The request's token.
    pub token: u64,
    /// Bytes transferred, or why not.
    pub result: Result<usize, IoError>,
    /// The request's buffer, if it had one.
    pub buf: Option<Buf>,
}

/// Requests in flight together. Dropping a batch waits for what the kernel still owns, and forgets
/// what was pushed but never submitted.
pub trait Batch: Send + fmt::Debug {
    /// Takes a request. It may start at once or at the next `submit`.
    fn push(&mut self, request: Request);

    /// Starts everything that was pushed.
    fn submit(&mut self);

    /// Requests pushed whose completion was not handed out yet.
    fn in_flight(&self) -> usize;

    /// Completions that are there, without waiting. Never blocks.
    fn poll(&mut self) -> Vec<Completion>;

    /// Submits what was pushed, waits until at least one completion is there (if any request is in
    /// flight) and returns all that are. Must not be called inside the epoch gate or under a latch
    /// (T4).
    fn wait(&mut self) -> Vec<Completion>;
}

/// An open file.
pub trait File: Send + Sync + fmt::Debug {
    /// The path under which it was opened.
    fn path(&self) -> &Path;

    /// Length in bytes.
    fn len(&self) -> Result<u64, IoError>;

    /// True if the file has no bytes.
    fn is_empty(&self) -> Result<bool, IoError> {
        Ok(self.len()? == 0)
    }

    /// Cuts or extends (with zeros, sparse) to `len` bytes.
    fn set_len(&self, len: u64) -> Result<(), IoError>;

    /// Reserves blocks for the range and extends the file to its end if needed.
    fn allocate(&self, offset: u64, len: u64) -> Result<(), IoError>;

    /// Gives the blocks of the range back; it reads as zeros.
    fn punch(&self, offset: u64, len: u64) -> Result<(), IoError>;

    /// `fdatasync`. An error is final.
    fn sync(&self) -> Result<(), IoError>;

    /// Fills `buf` from `offset`; returns fewer bytes only at the end of the file.
    fn read(&self, purpose: Purpose, offset: u64, buf: &mut Buf) -> Result<usize, IoError>;

    /// Writes all of `buf` at `offset`; if `durable`, with one device flush. An error of a durable
    /// write is final and says nothing about which bytes are on disk.
    fn write(&self, purpose: Purpose, offset: u64, buf: &Buf, durable: bool)
    -> Result<(), IoError>;

    /// For a backend to find its own file again.
    fn as_any(&self) -> &dyn std::any::Any;
}

/// An exclusive lock on a file, given back when dropped.
pub trait Lock: Send + Sync + fmt::Debug {}

/// Files, names and batches.
pub trait Disk: Send + Sync + fmt::Debug {
    /// The machinery.
    fn backend(&self) -> Backend;

    /// Opens a file. `O_DIRECT` where the file system offers it.
    fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn File>, IoError>;

    /// Makes a directory; its parent must exist.
    fn create_dir(&self, path: &Path) -> Result<(), IoError>;

    /// Names in a directory, in byte order.
    fn list(&self, path: &Path) -> Result<Vec<String>, IoError>;

    /// Facts about a path; None if nothing is there.
    fn stat(&self, path: &Path) -> Result<Option<Stat>, IoError>;

    /// Renames a file, replacing what was there.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> Result<(), IoError>;

    /// Makes creations, renames and removals in a directory durable.
    fn sync_dir(&self, path: &Path) -> Result<(), IoError>;

    /// Takes the exclusive lock of a file, creating it if needed; None if somebody holds it, in
    /// this process or another.
    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Lock>>, IoError>;

    /// A new, empty batch whose requests serve `purpose`.
    fn batch(&self, purpose: Purpose) -> Box<dyn Batch>;

    /// Counters.
    fn stats(&self) -> &IoStats;
}
