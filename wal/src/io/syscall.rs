//! One file of the operating system: lone calls by `preadv2` and `pwritev2`, below every backend
//! but the simulated one.
//!
//! Rules kept here: EINTR and EAGAIN are repeated; a short read goes on until the end of the file;
//! a short durable write makes nothing durable by itself, so its remainder is written plainly and
//! one `fdatasync` covers the whole; without `O_DIRECT` a durable write is a plain one and an
//! `fdatasync`. A failed sync is reported and never repeated.

use std::fs::File as StdFile;
use std::io::{IoSlice, IoSliceMut};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, StatxFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::{
    BLOCK, Buf, Completion, File, IoError, IoStats, Op, Open, Purpose, REQUEST_MAX, Request,
    request_fault,
};

/// An open file of the operating system.
#[derive(Debug)]
pub(super) struct SysFile {
    /// Closed when the last request that names the file has ended.
    pub(super) fd: StdFile,
    path: PathBuf,
    /// Opened with `O_DIRECT`; if not, writes stop in the page cache until a sync.
    pub(super) direct: bool,
    pub(super) stats: Arc<IoStats>,
}

/// An error of one call on `path`.
pub(super) fn failed(op: &'static str, path: &Path, source: impl Into<std::io::Error>) -> IoError {
    failed_at(op, path, 0, 0, source)
}

/// An error of one call on a range of `path`.
pub(super) fn failed_at(
    op: &'static str,
    path: &Path,
    offset: u64,
    len: usize,
    source: impl Into<std::io::Error>,
) -> IoError {
    IoError {
        op,
        path: path.to_owned(),
        offset,
        len,
        source: Arc::new(source.into()),
    }
}

/// Repeats a call that a signal interrupted or that found no room for the moment.
pub(super) fn repeat<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => crate::sync::yield_thread(),
            other => return other,
        }
    }
}

impl SysFile {
    /// Opens `path`; unless `buffered` past the page cache, where the file system offers that for
    /// blocks of [`BLOCK`] bytes.
    pub(super) fn open(
        path: &Path,
        how: Open,
        buffered: bool,
        stats: Arc<IoStats>,
    ) -> Result<SysFile, IoError> {
        let access = match how {
            Open::Read => OFlags::RDONLY,
            Open::Write => OFlags::RDWR,
            Open::CreateNew => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
        };
        let fail = |errno: Errno| failed("open", path, errno);
        let mode = Mode::from_raw_mode(0o644);
        let fd = repeat(|| rustix::fs::open(path, access | OFlags::CLOEXEC, mode));
        let fd = fd.map_err(fail)?;
        // Asked for on the open file, because a refused open may already have created it.
        let flag = OFlags::DIRECT;
        let direct = !buffered && direct_fits(&fd) && rustix::fs::fcntl_setfl(&fd, flag).is_ok();
        Ok(SysFile {
            fd: StdFile::from(fd),
            path: path.to_owned(),
            direct,
            stats,
        })
    }

    /// An error of this file.
    pub(super) fn failed(
        &self,
        op: &'static str,
        offset: u64,
        len: usize,
        source: impl Into<std::io::Error>,
    ) -> IoError {
        failed_at(op, &self.path, offset, len, source)
    }

    /// Reads until the buffer is full or the file ends.
    pub(super) fn read_at(&self, offset: u64, buf: &mut Buf) -> Result<usize, IoError> {
        let whole = buf.len();
        let mut done = 0;
        while done < whole {
            let at = offset + done as u64;
            let n = repeat(|| {
                let slice = IoSliceMut::new(&mut buf[done..]);
                rustix::io::preadv2(&self.fd, &mut [slice], at, ReadWriteFlags::empty())
            });
            let n = n.map_err(|errno| self.failed("read", offset, whole, errno))?;
            done += n;
            // A transfer that ends inside a block has met the end of the file; going on there
            // would not be aligned.
            if n == 0 || !done.is_multiple_of(BLOCK) {
                break;
            }
        }
        self.stats
            .bytes_read
            .fetch_add(done as u64, Ordering::Relaxed);
        Ok(done)
    }

    /// Writes all of `buf`; if `durable`, in one call where the kernel takes it as one.
    pub(super) fn write_at(&self, offset: u64, buf: &[u8], durable: bool) -> Result<(), IoError> {
        let in_one = durable && self.direct;
        let flags = match in_one {
            true => ReadWriteFlags::DSYNC,
            false => ReadWriteFlags::empty(),
        };
        let mut done = 0;
        let mut flags_now = flags;
        let mut pieces = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let n = repeat(|| {
                let slice = IoSlice::new(&buf[done..]);
                rustix::io::pwritev2(&self.fd, &[slice], at, flags_now)
            });
            match n {
                Ok(0) => {
                    let zero = std::io::ErrorKind::WriteZero;
                    return Err(self.failed("write", offset, buf.len(), zero));
                }
                Ok(n) => done = next_start(done, n, buf.len()),
                // A file system without per-call flags: fall back to the sync at the end.
                Err(Errno::OPNOTSUPP) if flags_now == ReadWriteFlags::DSYNC => {}
                Err(errno) => return Err(self.failed("write", offset, buf.len(), errno)),
            }
            pieces += 1;
            flags_now = ReadWriteFlags::empty();
        }
        let written = buf.len() as u64;
        self.stats
            .bytes_written
            .fetch_add(written, Ordering::Relaxed);
        if durable && !(in_one && pieces == 1) {
            self.sync_data("write", offset, buf.len())?;
        } else if durable {
            self.stats.flushes.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// One `fdatasync`, counted, its error reported for `op`.
    pub(super) fn sync_data(
        &self,
        op: &'static str,
        offset: u64,
        len: usize,
    ) -> Result<(), IoError> {
        self.stats.flushes.fetch_add(1, Ordering::Relaxed);
        loop {
            match rustix::fs::fdatasync(&self.fd) {
                // Interrupted before it began: nothing was asked of the device yet.
                Err(Errno::INTR) => {}
                other => return other.map_err(|errno| self.failed(op, offset, len, errno)),
            }
        }
    }

    /// Zeros over a range, for file systems that cannot punch holes.
    fn zero(&self, offset: u64, len: u64) -> Result<(), IoError> {
        let end = (offset + len).min(self.len()?);
        let zeros = Buf::zeroed(REQUEST_MAX);
        let mut at = offset;
        while at < end {
            let piece = (end - at).min(REQUEST_MAX as u64) as usize;
            self.write_at(at, &zeros[..piece], false)?;
            at += piece as u64;
        }
        Ok(())
    }

    fn count(&self, purpose: Purpose) {
        self.stats.lone[purpose as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// Serves one request of a batch by blocking calls.
pub(super) fn serve(request: Request) -> Completion {
    let Request {
        token,
        file,
        offset,
        mut op,
    } = request;
    let result = match sys_file(&*file, offset, &op) {
        Err(error) => Err(error),
        Ok(file) => match &mut op {
            Op::Read(buf) => file.read_at(offset, buf),
            Op::Write(buf) => file.write_at(offset, buf, false).map(|()| buf.len()),
            Op::WriteDurable(buf) => file.write_at(offset, buf, true).map(|()| buf.len()),
            Op::Sync => file.sync().map(|()| 0),
        },
    };
    let buf = op.into_buf();
    Completion { token, result, buf }
}

/// The file behind a request, if the request is one that a backend can serve.
pub(super) fn sys_file<'a>(
    file: &'a dyn File,
    offset: u64,
    op: &Op,
) -> Result<&'a SysFile, IoError> {
    if let Some(error) = request_fault(file, offset, op) {
        return Err(error);
    }
    file.as_any().downcast_ref::<SysFile>().ok_or_else(|| {
        let text = "the file belongs to another disk";
        let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, text);
        failed_at(op.name(), file.path(), offset, 0, source)
    })
}

/// Where a write goes on after `n` bytes from `done`: at a block's start, so that the rest stays
/// aligned; the bytes of a block written in part are written again.
pub(super) fn next_start(done: usize, n: usize, len: usize) -> usize {
    let end = done + n;
    if end >= len { len } else { end - end % BLOCK }
}

/// True if direct I/O on `fd` takes blocks of [`BLOCK`] bytes at their multiples. Kernels before
/// 6.1 do not tell; there every block device in use takes 4096.
fn direct_fits(fd: &impl std::os::fd::AsFd) -> bool {
    let facts = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN);
    match facts {
        Ok(facts) if facts.stx_mask & StatxFlags::DIOALIGN.bits() != 0 => {
            let (memory, offset) = (facts.stx_dio_mem_align, facts.stx_dio_offset_align);
            memory != 0 && offset != 0 && memory as usize <= BLOCK && offset as usize <= BLOCK
        }
        _ => true,
    }
}

impl File for SysFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64, IoError> {
        let stat = rustix::fs::fstat(&self.fd).map_err(|e| self.failed("stat", 0, 0, e))?;
        Ok(u64::try_from(stat.st_size).unwrap_or(0))
    }

    fn set_len(&self, len: u64) -> Result<(), IoError> {
        repeat(|| rustix::fs::ftruncate(&self.fd, len))
            .map_err(|errno| self.failed("set_len", len, 0, errno))
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<(), IoError> {
        let done = repeat(|| rustix::fs::fallocate(&self.fd, FallocateFlags::empty(), offset, len));
        match done {
            // Without reservation the space is found missing by the write that needs it.
            Err(Errno::OPNOTSUPP) if self.len()? < offset + len => self.set_len(offset + len),
            Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
            Err(errno) => {
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                Err(self.failed("allocate", offset, len, errno))
            }
        }
    }

    fn punch(&self, offset: u64, len: u64) -> Result<(), IoError> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match repeat(|| rustix::fs::fallocate(&self.fd, flags, offset, len)) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP) => self.zero(offset, len),
            Err(errno) => {
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                Err(self.failed("punch", offset, len, errno))
            }
        }
    }

    fn sync(&self) -> Result<(), IoError> {
        self.sync_data("sync", 0, 0)
    }

    fn read(&self, purpose: Purpose, offset: u64, buf: &mut Buf) -> Result<usize, IoError> {
        self.count(purpose);
        self.read_at(offset, buf)
    }

    fn write(
        &self,
        purpose: Purpose,
        offset: u64,
        buf: &Buf,
        durable: bool,
    ) -> Result<(), IoError> {
        self.count(purpose);
        self.write_at(offset, buf, durable)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
