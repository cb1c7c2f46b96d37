//! A disk that reads what is there and keeps in memory what is written.
//!
//! Over it the ordinary open, with recovery and all it changes, runs on a directory of which not a
//! byte changes: what `terrane check` verifies is what the next open would serve, and a read-only
//! open needs no right to write. Memory grows with what is written, not with the database; blocks
//! of zeros take none. Reads of files that nobody has written go to the real disk as they are, in
//! batches too.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind as Os;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use terrane_wal::io::{
    BLOCK, Backend, Batch, Buf, Completion, Disk, File, IoError, IoStats, Kind, Lock, Op, Open,
    Purpose, Request, Stat,
};
use terrane_wal::sync::Mutex;

/// A disk over another one, which it never changes.
#[derive(Debug)]
pub(crate) struct Shadow {
    real: Arc<dyn Disk>,
    names: Mutex<Names>,
    stats: IoStats,
}

/// Where the names differ from those of the real disk, and every file that was opened.
#[derive(Debug, Default)]
struct Names {
    files: BTreeMap<PathBuf, Arc<ShadowFile>>,
    removed: BTreeSet<PathBuf>,
}

/// A file of which some blocks may lie in memory.
#[derive(Debug)]
struct ShadowFile {
    path: PathBuf,
    real: Option<Arc<dyn File>>,
    state: Mutex<Content>,
}

#[derive(Debug, Default)]
struct Content {
    len: u64,
    /// The real file counts up to here: less than its length once it was cut.
    real_len: u64,
    /// Blocks written, by number; None stands for zeros.
    blocks: BTreeMap<u64, Option<Box<[u8]>>>,
}

impl Shadow {
    /// A shadow of this disk.
    pub(crate) fn over(real: Arc<dyn Disk>) -> Arc<dyn Disk> {
        Arc::new(Shadow {
            real,
            names: Mutex::default(),
            stats: IoStats::default(),
        })
    }

    /// Takes a file out of the names, with its real content behind it.
    fn take(&self, names: &mut Names, path: &Path) -> Result<Arc<ShadowFile>, IoError> {
        if names.removed.contains(path) {
            return Err(failed("open", path, Os::NotFound));
        }
        if let Some(file) = names.files.remove(path) {
            return Ok(file);
        }
        let real = self.real.open(path, Open::Read)?;
        let len = real.len()?;
        Ok(ShadowFile::over(path, Some(real), len))
    }
}

fn failed(op: &'static str, path: &Path, kind: Os) -> IoError {
    IoError {
        op,
        path: path.to_path_buf(),
        offset: 0,
        len: 0,
        source: Arc::new(std::io::Error::from(kind)),
    }
}

impl Disk for Shadow {
    fn backend(&self) -> Backend {
        self.real.backend()
    }

    fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn File>, IoError> {
        let mut names = self.names.lock();
        let file = if how == Open::CreateNew {
            let there = !names.removed.contains(path) && self.real.stat(path)?.is_some();
            if there || names.files.contains_key(path) {
                return Err(failed("open", path, Os::AlreadyExists));
            }
            names.removed.remove(path);
            ShadowFile::over(path, None, 0)
        } else {
            self.take(&mut names, path)?
        };
        names.files.insert(path.to_path_buf(), Arc::clone(&file));
        Ok(file)
    }

    fn create_dir(&self, path: &Path) -> Result<(), IoError> {
        Err(failed("create_dir", path, Os::ReadOnlyFilesystem))
    }

    fn list(&self, path: &Path) -> Result<Vec<String>, IoError> {
        let names = self.names.lock();
        let real = self.real.list(path)?;
        let kept = real
            .into_iter()
            .filter(|name| !names.removed.contains(&path.join(name)));
        let mut all: BTreeSet<String> = kept.collect();
        let ours = names
            .files
            .keys()
            .filter(|file| file.parent() == Some(path));
        all.extend(ours.filter_map(|file| Some(file.file_name()?.to_str()?.to_owned())));
        Ok(all.into_iter().collect())
    }

    fn stat(&self, path: &Path) -> Result<Option<Stat>, IoError> {
        let names = self.names.lock();
        if let Some(file) = names.files.get(path) {
            return Ok(Some(Stat {
                kind: Kind::File,
                len: file.state.lock().len,
                device: 0,
                inode: 0,
            }));
        }
        if names.removed.contains(path) {
            return Ok(None);
        }
        self.real.stat(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        let mut names = self.names.lock();
        let file = self.take(&mut names, from)?;
        names.removed.insert(from.to_path_buf());
        names.removed.remove(to);
        names.files.insert(to.to_path_buf(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<(), IoError> {
        let mut names = self.names.lock();
        self.take(&mut names, path)?;
        names.removed.insert(path.to_path_buf());
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> Result<(), IoError> {
        Ok(())
    }

    /// The real lock: what changes under a check would be reported as damage.
    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Lock>>, IoError> {
        self.real.lock(path)
    }

    fn batch(&self, purpose: Purpose) -> Box<dyn Batch> {
        Box::new(ShadowBatch {
            real: self.real.batch(purpose),
            pushed: Vec::new(),
            done: Vec::new(),
        })
    }

    fn stats(&self) -> &IoStats {
        &self.stats
    }
}

impl ShadowFile {
    fn over(path: &Path, real: Option<Arc<dyn File>>, len: u64) -> Arc<ShadowFile> {
        Arc::new(ShadowFile {
            path: path.to_path_buf(),
            real,
            state: Mutex::new(Content {
                len,
                real_len: len,
                blocks: BTreeMap::new(),
            }),
        })
    }

    /// The real file, if all that is read comes from it.
    fn untouched(&self) -> Option<Arc<dyn File>> {
        let state = self.state.lock();
        let whole = state.blocks.is_empty() && state.len == state.real_len;
        self.real.clone().filter(|_| whole)
    }
}

impl File for ShadowFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64, IoError> {
        Ok(self.state.lock().len)
    }

    fn set_len(&self, len: u64) -> Result<(), IoError> {
        let mut state = self.state.lock();
        state.len = len;
        state.real_len = state.real_len.min(len);
        let _ = state.blocks.split_off(&len.div_ceil(BLOCK as u64));
        Ok(())
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<(), IoError> {
        let mut state = self.state.lock();
        state.len = state.len.max(offset + len);
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> Result<(), IoError> {
        let mut state = self.state.lock();
        for block in offset / BLOCK as u64..(offset + len) / BLOCK as u64 {
            state.blocks.insert(block, None);
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), IoError> {
        Ok(())
    }

    fn read(&self, purpose: Purpose, offset: u64, buf: &mut Buf) -> Result<usize, IoError> {
        let state = self.state.lock();
        let wanted = state.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        let real = state.real_len.saturating_sub(offset).min(wanted as u64) as usize;
        let mut read = 0;
        if let Some(file) = &self.real
            && real > 0
        {
            read = file.read(purpose, offset, buf)?.min(real);
        }
        buf[read..].fill(0);
        let first = offset / BLOCK as u64;
        let end = first + wanted.div_ceil(BLOCK) as u64;
        for (number, block) in state.blocks.range(first..end) {
            let at = ((number - first) as usize) * BLOCK;
            let piece = BLOCK.min(buf.len() - at);
            match block {
                Some(bytes) => buf[at..at + piece].copy_from_slice(&bytes[..piece]),
                None => buf[at..at + piece].fill(0),
            }
        }
        Ok(wanted)
    }

    fn write(&self, _: Purpose, offset: u64, buf: &Buf, _: bool) -> Result<(), IoError> {
        let mut state = self.state.lock();
        for (index, piece) in buf.chunks(BLOCK).enumerate() {
            let zeros = piece.iter().all(|&byte| byte == 0);
            let mut block: Option<Box<[u8]>> = None;
            if !zeros {
                let bytes = block.insert(vec![0; BLOCK].into_boxed_slice());
                bytes[..piece.len()].copy_from_slice(piece);
            }
            state
                .blocks
                .insert(offset / BLOCK as u64 + index as u64, block);
        }
        state.len = state.len.max(offset + buf.len() as u64);
        Ok(())
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// A batch: reads of untouched files go on to the real disk, the rest is done when it is submitted.
#[derive(Debug)]
struct ShadowBatch {
    real: Box<dyn Batch>,
    pushed: Vec<Request>,
    done: Vec<Completion>,
}

impl Batch for ShadowBatch {
    fn push(&mut self, request: Request) {
        let ours = request.file.as_any().downcast_ref::<ShadowFile>();
        let untouched = ours.and_then(ShadowFile::untouched);
        match (untouched, &request.op) {
            (Some(file), Op::Read(_)) => self.real.push(Request { file, ..request }),
            _ => self.pushed.push(request),
        }
    }

    fn submit(&mut self) {
        self.real.submit();
        for request in self.pushed.drain(..) {
            let (file, offset) = (request.file, request.offset);
            let (result, buf) = match request.op {
                Op::Read(mut buf) => {
                    let read = file.read(Purpose::Other, offset, &mut buf);
                    (read, Some(buf))
                }
                Op::Write(buf) | Op::WriteDurable(buf) => {
                    let written = file.write(Purpose::Other, offset, &buf, false);
                    (written.map(|()| buf.len()), Some(buf))
                }
                Op::Sync => (Ok(0), None),
            };
            let token = request.token;
            self.done.push(Completion { token, result, buf });
        }
    }

    fn in_flight(&self) -> usize {
        self.pushed.len() + self.done.len() + self.real.in_flight()
    }

    fn poll(&mut self) -> Vec<Completion> {
        let mut done = std::mem::take(&mut self.done);
        done.extend(self.real.poll());
        done
    }

    fn wait(&mut self) -> Vec<Completion> {
        self.submit();
        if self.done.is_empty() {
            return self.real.wait();
        }
        self.poll()
    }
}
