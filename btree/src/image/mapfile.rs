//! How a checkpoint writes the map: a run behind the delta file, or a new base.
//!
//! Each call of [`MapWrite::step`] reads or writes at most 1 MiB per request and never waits. What
//! is written lies beyond the published length of the delta file or in files of a new name, so an
//! abandoned write leaves nothing that a retained image could read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use terrane_wal::io::{Batch, Buf, Disk, File, IoError, Op, Open, Purpose, REQUEST_MAX, Request};

use crate::error::StoreError;
use crate::ids::{Epoch, PageId};
use crate::pool::translate::Location;
use crate::space::map::{self, CHUNK, CHUNK_ENTRIES, Deltas, FOOTER};

use super::meta::{Base, Meta};
use super::open::{base_path, delta_path, read_prefix};

/// A delta file is folded into a new base when it is longer than this and than half the base.
const DELTA_MIN: u64 = 64 << 10;

/// The files of the newest map.
#[derive(Clone, Debug)]
pub(crate) struct MapFiles {
    pub(crate) base: Option<Arc<dyn File>>,
    pub(crate) delta: Arc<dyn File>,
}

/// What META says of a map that was written.
#[derive(Clone, Debug)]
pub(crate) struct MapWritten {
    pub(crate) base: Base,
    pub(crate) delta_len: u64,
    pub(crate) delta_crc: u32,
    pub(crate) files: MapFiles,
}

/// Requests to one file, each at most 1 MiB, and the sync behind them.
#[derive(Debug)]
struct Writing {
    batch: Box<dyn Batch>,
    file: Arc<dyn File>,
    synced: bool,
}

/// Writing one map.
#[derive(Debug)]
pub(crate) struct MapWrite {
    writing: Writing,
    fold: Option<Fold>,
    result: MapWritten,
}

/// A new base in the making: the old base with all deltas laid over it.
#[derive(Debug)]
struct Fold {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    epoch: Epoch,
    old: Option<(Arc<dyn File>, Base)>,
    deltas: Deltas,
    chunk: u64,
    chunks: u64,
    crcs: crc32fast::Hasher,
}

impl Writing {
    fn new(disk: &dyn Disk, file: Arc<dyn File>) -> Writing {
        Writing {
            batch: disk.batch(Purpose::Checkpoint),
            file,
            synced: false,
        }
    }

    fn push(&mut self, offset: u64, op: Op) {
        self.batch.push(Request {
            token: offset,
            file: Arc::clone(&self.file),
            offset,
            op,
        });
        self.batch.submit();
    }

    /// Takes completions. True if nothing is in flight.
    fn idle(&mut self) -> Result<bool, IoError> {
        for completion in self.batch.poll() {
            completion.result?;
        }
        Ok(self.batch.in_flight() == 0)
    }
}

impl MapWrite {
    /// Starts writing the map of image `epoch`: that of `meta` with `changes` laid over it.
    pub(crate) fn start(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        meta: &Meta,
        files: &MapFiles,
        changes: &Deltas,
        epoch: Epoch,
        force_base: bool,
    ) -> Result<MapWrite, StoreError> {
        let at = meta
            .delta_len
            .next_multiple_of(terrane_wal::io::BLOCK as u64);
        let prev = meta.delta_len.checked_sub(FOOTER as u64);
        let grown = at + (changes.len() * map::DELTA_ENTRY + FOOTER) as u64;
        if !force_base && grown <= DELTA_MIN.max(meta.base.len / 2) {
            return Ok(MapWrite::append(
                disk,
                meta,
                files,
                changes,
                epoch,
                (at, prev),
            ));
        }
        let old_bytes = read_prefix(&*files.delta, meta.delta_len)?;
        let mut deltas = map::read_deltas(
            &old_bytes,
            meta.delta_crc,
            meta.limbo_n,
            meta.base.epoch,
            meta.epoch,
        )?
        .pages;
        deltas.extend(changes);
        let last = deltas.last_key_value().map_or(PageId(1), |(&id, _)| id);
        let old_chunks = meta.base.len / CHUNK as u64;
        let chunks = old_chunks.max(map::chunk_of(last) + 1);
        let file = create(&**disk, &base_path(dir, epoch))?;
        let delta = create(&**disk, &delta_path(dir, epoch))?;
        Ok(MapWrite {
            writing: Writing::new(&**disk, Arc::clone(&file)),
            fold: Some(Fold {
                disk: Arc::clone(disk),
                dir: dir.to_owned(),
                epoch,
                old: files.base.clone().map(|file| (file, meta.base)),
                deltas,
                chunk: 0,
                chunks,
                crcs: crc32fast::Hasher::new(),
            }),
            result: MapWritten {
                base: Base {
                    epoch,
                    len: chunks * CHUNK as u64,
                    crc: 0,
                },
                delta_len: 0,
                delta_crc: 0,
                files: MapFiles {
                    base: Some(file),
                    delta,
                },
            },
        })
    }

    fn append(
        disk: &Arc<dyn Disk>,
        meta: &Meta,
        files: &MapFiles,
        changes: &Deltas,
        epoch: Epoch,
        (at, prev): (u64, Option<u64>),
    ) -> MapWrite {
        let (bytes, end, crc) = map::put_run(changes, epoch, at, prev);
        let mut writing = Writing::new(&**disk, Arc::clone(&files.delta));
        for (index, piece) in bytes.chunks(REQUEST_MAX).enumerate() {
            let mut buf = Buf::zeroed(piece.len());
            buf[..piece.len()].copy_from_slice(piece);
            writing.push(at + (index * REQUEST_MAX) as u64, Op::Write(buf));
        }
        MapWrite {
            writing,
            fold: None,
            result: MapWritten {
                base: meta.base,
                delta_len: end,
                delta_crc: crc,
                files: files.clone(),
            },
        }
    }

    /// Does a bounded piece of work. The result when all is written and synced; `Ok(None)` as long
    /// as it is not. Any error leaves the published map as it is.
    pub(crate) fn step(&mut self) -> Result<Option<MapWritten>, StoreError> {
        if !self.writing.idle()? {
            return Ok(None);
        }
        if let Some(fold) = &mut self.fold
            && fold.chunk < fold.chunks
        {
            let offset = fold.chunk * CHUNK as u64;
            let buf = fold.next_piece()?;
            self.writing.push(offset, Op::Write(buf));
            return Ok(None);
        }
        if !self.writing.synced {
            self.writing.synced = true;
            self.writing.push(0, Op::Sync);
            return Ok(None);
        }
        if let Some(fold) = self.fold.take() {
            self.result.base.crc = fold.crcs.finalize();
            fold.disk.sync_dir(&fold.dir)?;
        }
        Ok(Some(self.result.clone()))
    }
}

impl Fold {
    /// The next chunks of the new base, at most 1 MiB.
    fn next_piece(&mut self) -> Result<Buf, StoreError> {
        let many = (self.chunks - self.chunk).min((REQUEST_MAX / CHUNK) as u64);
        let mut out = Buf::zeroed(many as usize * CHUNK);
        let mut old = Buf::zeroed(out.len());
        let mut there = 0;
        if let Some((file, base)) = &self.old {
            let offset = self.chunk * CHUNK as u64;
            let want = base.len.saturating_sub(offset).min(out.len() as u64);
            if want > 0 {
                let read = file.read(Purpose::Checkpoint, offset, &mut old)?;
                there = read.min(want as usize);
            }
        }
        for (index, to) in out.chunks_exact_mut(CHUNK).enumerate() {
            let number = self.chunk + index as u64;
            let from = index * CHUNK;
            let mut entries = match &self.old {
                Some((_, base)) if number * (CHUNK as u64) < base.len => {
                    let bytes = &old[from.min(there)..(from + CHUNK).min(there)];
                    map::read_chunk(bytes, number, base.epoch)?.1
                }
                _ => Vec::new(),
            };
            let first = map::chunk_start(number);
            let end = PageId(first.0 + CHUNK_ENTRIES);
            for (&id, &location) in self.deltas.range(first..end) {
                let at = (id.0 - first.0) as usize;
                if entries.len() <= at {
                    entries.resize(at + 1, Location::none(Epoch(0)));
                }
                entries[at] = location;
            }
            let crc = map::put_chunk(to, number, self.epoch, &entries);
            self.crcs.update(&crc.to_le_bytes());
        }
        self.chunk += many;
        Ok(out)
    }
}

/// A new, empty file; one that an abandoned attempt left is emptied.
fn create(disk: &dyn Disk, path: &Path) -> Result<Arc<dyn File>, StoreError> {
    match disk.open(path, Open::CreateNew) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let file = disk.open(path, Open::Write)?;
            file.set_len(0)?;
            Ok(file)
        }
        opened => Ok(opened?),
    }
}
