//! Segments: the files of the log.
//!
//! ```text
//! 0          4096                                     len
//! | header ... | frame | frame | frame | (old bytes)  |
//! ```
//!
//! A file is written with zeros before it is used, because a file that was only allocated costs a
//! journal commit with each durable write. A trimmed file is renamed to the next number and used
//! again under a new salt. The header is written together with the segment's first frame, in one
//! durable write: a file whose header does not name its own number is *prepared*, not yet part of
//! the log.
//!
//! Invariants: a name is durable (directory synced) before the first frame is written, and is given
//! to a file once: one whose preparation failed in any call is removed, and its number is skipped.
//! The salt is drawn anew for each use, also within one run (L1).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};

use crate::error::WalError;
use crate::frame::{FrameFault, FrameHeader, decode_frame, decode_header, frame_bytes};
use crate::io::{BLOCK, Buf, Disk, File, IoError, Open, Purpose, REQUEST_MAX};
use crate::limits::SEGMENT_HEADER_BYTES;
use crate::lsn::{Lsn, Term};

/// `TERRLOG` and the format's number.
pub const SEGMENT_MAGIC: [u8; 8] = *b"TERRLOG\x01";

/// Header of a segment, as it lies on disk.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct SegmentHeader {
    /// [`SEGMENT_MAGIC`].
    pub magic: [u8; 8],
    /// The database.
    pub db_uuid: [u8; 16],
    /// Number of the segment, as in its name.
    pub seq: u64,
    /// Where its first frame's payload begins.
    pub first_lsn: u64,
    /// Drawn for this use of the file.
    pub salt: u64,
    /// Term of `first_lsn`.
    pub term: u64,
    /// Frames begin and end at multiples of this.
    pub block: u32,
    /// CRC over bytes 0..60.
    pub crc: u32,
}

const _: () = assert!(size_of::<SegmentHeader>() == 64);
const _: () = assert!(std::mem::offset_of!(SegmentHeader, db_uuid) == 8);
const _: () = assert!(std::mem::offset_of!(SegmentHeader, seq) == 24);
const _: () = assert!(std::mem::offset_of!(SegmentHeader, first_lsn) == 32);
const _: () = assert!(std::mem::offset_of!(SegmentHeader, salt) == 40);
const _: () = assert!(std::mem::offset_of!(SegmentHeader, term) == 48);
const _: () = assert!(std::mem::offset_of!(SegmentHeader, block) == 56);
const _: () = assert!(std::mem::offset_of!(SegmentHeader, crc) == 60);

impl SegmentHeader {
    /// A header with its crc.
    #[must_use]
    pub fn new(
        db_uuid: [u8; 16],
        seq: u64,
        first_lsn: Lsn,
        salt: u64,
        term: Term,
    ) -> SegmentHeader {
        let mut header = SegmentHeader {
            magic: SEGMENT_MAGIC,
            db_uuid,
            seq,
            first_lsn: first_lsn.0,
            salt,
            term: term.0,
            block: BLOCK as u32,
            crc: 0,
        };
        header.crc = crc32fast::hash(&bytemuck::bytes_of(&header)[..60]);
        header
    }

    /// Reads a header block. None if there is no header with a right crc: the file is prepared, or
    /// the write that began it was torn.
    ///
    /// A right crc with another format, database or block size is an error.
    pub fn decode(block: &[u8], db_uuid: [u8; 16]) -> Result<Option<SegmentHeader>, WalError> {
        let Some(head) = block.get(..size_of::<SegmentHeader>()) else {
            return Ok(None);
        };
        let header: SegmentHeader = bytemuck::pod_read_unaligned(head);
        if header.magic[..7] != SEGMENT_MAGIC[..7] || crc32fast::hash(&head[..60]) != header.crc {
            return Ok(None);
        }
        let version = |expected: String, found: String| WalError::Version {
            segment: PathBuf::new(),
            expected,
            found,
        };
        if header.magic != SEGMENT_MAGIC {
            let [.., format] = header.magic;
            return Err(version("log format 1".to_string(), format.to_string()));
        }
        if header.block as usize != BLOCK {
            let expected = format!("frames in blocks of {BLOCK}");
            return Err(version(expected, header.block.to_string()));
        }
        if header.db_uuid != db_uuid {
            return Err(WalError::corrupt(
                8,
                format!("a segment of database {}", hex(&db_uuid)),
                format!("one of {}", hex(&header.db_uuid)),
            ));
        }
        Ok(Some(header))
    }
}

/// Terms that a header block has room for; older ones are left out.
const TERMS_MAX: usize = (SEGMENT_HEADER_BYTES - TERMS_AT - 8) / 16;

/// Where the table of terms begins in a header block.
pub(crate) const TERMS_AT: usize = size_of::<SegmentHeader>();

/// Writes a header block: the header, and the terms of the log up to the first frame with the
/// places where they begin. `| count u32 | crc u32, over the others | (term u64, lsn u64) .. |`
pub(crate) fn header_block(header: &SegmentHeader, terms: &[(Term, Lsn)], block: &mut [u8]) {
    block[..TERMS_AT].copy_from_slice(bytemuck::bytes_of(header));
    let terms = &terms[terms.len().saturating_sub(TERMS_MAX)..];
    let table = &mut block[TERMS_AT..];
    table[..4].copy_from_slice(&(terms.len() as u32).to_le_bytes());
    for ((term, lsn), pair) in terms.iter().zip(table[8..].chunks_exact_mut(16)) {
        pair.copy_from_slice(bytemuck::bytes_of(&[term.0, lsn.0]));
    }
    let crc = terms_crc(table, terms.len());
    table[4..8].copy_from_slice(&crc.to_le_bytes());
}

fn terms_crc(table: &[u8], count: usize) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&table[..4]);
    crc.update(&table[8..8 + 16 * count]);
    crc.finalize()
}

/// The terms in a header block. None if the table's crc is not right: the write was torn.
///
/// Zeros are the table of a log that was written before there were tables: its only term is the
/// first. They are no torn write, for they share the header's sector.
pub(crate) fn decode_terms(block: &[u8]) -> Option<Vec<(Term, Lsn)>> {
    let table = block.get(TERMS_AT..SEGMENT_HEADER_BYTES)?;
    if table[..8] == [0; 8] {
        return Some(vec![(Term::FIRST, Lsn::ZERO)]);
    }
    let count = u32::from_le_bytes(*table.first_chunk()?) as usize;
    let crc = u32::from_le_bytes(*table[4..].first_chunk()?);
    if count > TERMS_MAX || crc != terms_crc(table, count) {
        return None;
    }
    let pairs = table[8..].chunks_exact(16).take(count);
    let terms = pairs.map(|pair| {
        let [term, lsn]: [u64; 2] = bytemuck::pod_read_unaligned(pair);
        (Term(term), Lsn(lsn))
    });
    Some(terms.collect())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// File name of segment `seq`.
#[must_use]
pub fn segment_name(seq: u64) -> String {
    format!("{seq:016x}.seg")
}

/// The number in a segment's file name; None for any other name.
#[must_use]
pub fn parse_segment_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    let seq = u64::from_str_radix(digits, 16).ok()?;
    // One spelling only: no sign, no capitals, no missing zeros.
    (segment_name(seq) == name).then_some(seq)
}

/// A segment that is part of the log.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) seq: u64,
    pub(crate) first_lsn: Lsn,
    pub(crate) salt: u64,
    pub(crate) file: Arc<dyn File>,
    pub(crate) len: u64,
}

/// A file that carries the next number and is ready to become a segment.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) seq: u64,
    pub(crate) file: Arc<dyn File>,
    pub(crate) len: u64,
}

/// A file that is no longer part of the log and may be used again.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) path: PathBuf,
    pub(crate) len: u64,
}

/// Makes a file of `len` zeros and its name durable. If that fails, the file is given up: `seq`
/// must not be used again.
pub(crate) fn create_segment(
    disk: &dyn Disk,
    dir: &Path,
    seq: u64,
    len: u64,
) -> Result<Prepared, IoError> {
    let path = dir.join(segment_name(seq));
    let file = disk.open(&path, Open::CreateNew)?;
    let made = write_zeros(&*file, len).and_then(|()| disk.sync_dir(dir));
    if let Err(error) = made {
        drop(file);
        // The original error says more than one of the clean-up.
        let _ = disk.remove(&path);
        return Err(error);
    }
    Ok(Prepared { seq, file, len })
}

fn write_zeros(file: &dyn File, len: u64) -> Result<(), IoError> {
    let mut zeros = Buf::zeroed(len.min(REQUEST_MAX as u64) as usize);
    let mut at = 0;
    while at < len {
        let n = (len - at).min(REQUEST_MAX as u64);
        zeros.truncate(n as usize);
        file.write(Purpose::Log, at, &zeros, false)?;
        at += n;
    }
    file.sync()
}

/// Renames a spare file to the next number. Its old bytes stay: no frame in it has the new salt. If
/// that fails, the file is given up: `seq` must not be used again.
pub(crate) fn recycle_segment(
    disk: &dyn Disk,
    dir: &Path,
    spare: &Spare,
    seq: u64,
) -> Result<Prepared, IoError> {
    let path = dir.join(segment_name(seq));
    let made = disk.rename(&spare.path, &path).and_then(|()| {
        let file = disk.open(&path, Open::Write)?;
        // Whoever made a file that was found at an open may have died before it was durable.
        file.sync()?;
        disk.sync_dir(dir)?;
        Ok(file)
    });
    match made {
        Ok(file) => Ok(Prepared {
            seq,
            file,
            len: spare.len,
        }),
        Err(error) => {
            // One of the two names leads to the file. The original error says more than one of the
            // clean-up.
            let _ = disk.remove(&path);
            let _ = disk.remove(&spare.path);
            Err(error)
        }
    }
}

/// A failed read, or else what was looked for, or else why it is not there.
pub(crate) type Checked<T> = Result<Result<T, FrameFault>, IoError>;

/// A window over a segment file: reads ahead, hands out frames.
#[derive(Debug)]
pub(crate) struct FrameWindow {
    file: Arc<dyn File>,
    purpose: Purpose,
    ahead: usize,
    start: u64,
    have: usize,
    buf: Buf,
}

impl FrameWindow {
    /// A window that reads `ahead` bytes at a time.
    pub(crate) fn new(file: Arc<dyn File>, purpose: Purpose, ahead: usize) -> FrameWindow {
        FrameWindow {
            file,
            purpose,
            ahead: ahead.next_multiple_of(BLOCK),
            start: 0,
            have: 0,
            buf: Buf::zeroed(0),
        }
    }

    /// Forgets what was read, so that bytes written since are seen.
    pub(crate) fn forget(&mut self) {
        self.have = 0;
    }

    /// At most `len` bytes from `offset` (a multiple of 4096); fewer at the end of the file.
    pub(crate) fn bytes(&mut self, offset: u64, len: usize) -> Result<&[u8], IoError> {
        let inside = offset >= self.start && offset + len as u64 <= self.start + self.have as u64;
        if !inside {
            let want = len.max(self.ahead).next_multiple_of(BLOCK);
            self.buf = Buf::zeroed(want);
            self.start = offset;
            self.have = self.file.read(self.purpose, offset, &mut self.buf)?;
        }
        let from = (offset - self.start) as usize;
        let to = (from + len).min(self.have);
        Ok(&self.buf[from.min(to)..to])
    }

    /// The header at `offset`, whatever follows it.
    pub(crate) fn header(&mut self, offset: u64, salt: u64) -> Checked<FrameHeader> {
        Ok(decode_header(self.bytes(offset, BLOCK)?, salt))
    }

    /// The whole frame at `offset`: its header and payload.
    pub(crate) fn frame(&mut self, offset: u64, salt: u64) -> Checked<(FrameHeader, &[u8])> {
        let header = match self.header(offset, salt)? {
            Ok(header) => header,
            Err(fault) => return Ok(Err(fault)),
        };
        let whole = frame_bytes(header.payload_len as usize);
        Ok(decode_frame(self.bytes(offset, whole)?, salt))
    }
}

/// Offset of a segment's first frame.
pub(crate) const FIRST_FRAME: u64 = SEGMENT_HEADER_BYTES as u64;
