//! The log as text: one line for each segment, frame and entry.
//!
//! Segments and frames are read as they lie; entries come from the same reader that recovery uses,
//! so a log that recovery would refuse is told up to there and ends with that error. META is not
//! asked, so that the log of a database without one can be read too.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use terrane_wal::env::Env;
use terrane_wal::frame::{FRAME_EMPTY, FrameHeader, NO_ENTRY_ENDS, decode_frame, frame_bytes};
use terrane_wal::io::{BLOCK, Buf, File, Open, Purpose};
use terrane_wal::limits::{FRAME_BYTES_MAX, SEGMENT_HEADER_BYTES};
use terrane_wal::lsn::Lsn;
use terrane_wal::segment::{SegmentHeader, parse_segment_name};
use terrane_wal::{Body, Log, LogOptions, Record, ReplayEntry, WalError};

use crate::error::{Error, ErrorKind, Result};
use crate::recovery::directory;

/// What of a log is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Entries that end above this position; 0 for all.
    pub from: u64,
    /// Lines of segments and frames too.
    pub frames: bool,
    /// The keys of the records.
    pub keys: bool,
    /// At most so many entries.
    pub limit: Option<u64>,
}

/// Reads the log of the database in the directory `path`, which must not be open, and hands it out
/// line by line, in order; `sink` may end it. Changes nothing.
///
/// # Errors
/// `NotFound`, `Locked`, `Invalid`; `Corrupt` and `Version` behind the last good line; `Io`.
pub fn log(
    path: impl AsRef<Path>,
    query: &LogQuery,
    sink: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<()> {
    log_with(&super::system()?, path.as_ref(), query, sink)
}

pub(super) fn log_with(
    env: &Env,
    path: &Path,
    query: &LogQuery,
    sink: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<()> {
    let env = super::shadow_of(env, path)?;
    let _held = directory::take(&env, path, true)?;
    let dir = path.join("log");
    let segments = segments(&env, &dir)?;
    let Some(oldest) = segments.first() else {
        let error = Error::new(ErrorKind::NotFound, "there is no segment of a log");
        return Err(error.with("path", dir.display()));
    };
    let mut lines = Lines {
        query,
        sink,
        frames: segments.iter().flat_map(Segment::lines).collect(),
        told: 0,
        over: false,
    };
    lines.frames.sort_by_key(|line| line.at);
    let Some(start) = segments.iter().find_map(Segment::first_entry) else {
        lines.frames_up_to(Lsn(u64::MAX));
        return Ok(());
    };
    let uuid = oldest.header.db_uuid;
    let options = LogOptions::default();
    let read = Log::open(&env, &dir, uuid, start, Lsn::ZERO, options, &mut |entry| {
        lines.entry(&entry);
        match lines.over {
            false => Ok(()),
            true => Err(WalError::Closed),
        }
    });
    match read {
        Err(WalError::Closed) if lines.over => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => {
            lines.frames_up_to(Lsn(u64::MAX));
            Ok(())
        }
    }
}

/// A segment and the frames that chain in it.
struct Segment {
    name: String,
    path: PathBuf,
    len: u64,
    header: SegmentHeader,
    frames: Vec<(u64, FrameHeader)>,
    /// What stands behind the last frame, unless that is the end of the file.
    behind: String,
}

/// A line about a frame or segment, and the position before which it is told.
struct FrameLine {
    at: (Lsn, u64, u64),
    text: String,
}

/// Every file of the folder that is a segment, by rising number.
fn segments(env: &Env, dir: &Path) -> Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for name in env.disk.list(dir)? {
        let Some(seq) = parse_segment_name(&name) else {
            continue;
        };
        let path = dir.join(&name);
        let file = env.disk.open(&path, Open::Read)?;
        let mut block = Buf::zeroed(BLOCK);
        let read = file.read(Purpose::Other, 0, &mut block)?;
        // The id is what the header itself says; recovery holds it against META.
        let uuid = block[8..24].try_into().unwrap_or_default();
        let header = SegmentHeader::decode(&block[..read], uuid)?;
        let Some(header) = header.filter(|header| header.seq == seq) else {
            continue;
        };
        let mut segment = Segment {
            name,
            len: file.len()?,
            path,
            header,
            frames: Vec::new(),
            behind: String::new(),
        };
        segment.read(&*file)?;
        segments.push(segment);
    }
    segments.sort_by_key(|segment| segment.header.seq);
    Ok(segments)
}

impl Segment {
    fn read(&mut self, file: &dyn File) -> Result<()> {
        let mut offset = SEGMENT_HEADER_BYTES as u64;
        while offset < self.len {
            let mut buf = Buf::zeroed(FRAME_BYTES_MAX);
            let read = file.read(Purpose::Other, offset, &mut buf)?;
            match decode_frame(&buf[..read], self.header.salt) {
                Ok((header, payload)) => {
                    self.frames.push((offset, header));
                    offset += frame_bytes(payload.len()) as u64;
                }
                Err(fault) => {
                    self.behind = format!("{fault}");
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The first position of this segment at which an entry begins for certain.
    fn first_entry(&self) -> Option<Lsn> {
        if self.header.first_lsn == 0 {
            return (!self.frames.is_empty()).then_some(Lsn::ZERO);
        }
        let ends = |(_, frame): &&(u64, FrameHeader)| frame.first_end != NO_ENTRY_ENDS;
        let (_, frame) = self.frames.iter().find(|frame| ends(frame))?;
        Some(Lsn(frame.base_lsn).advance(u64::from(frame.first_end)))
    }

    fn lines(&self) -> Vec<FrameLine> {
        let header = &self.header;
        let first = FrameLine {
            at: (Lsn(header.first_lsn), header.seq, 0),
            text: format!(
                "segment {} bytes {} first_lsn {} term {} salt {:016x} frames {}, then {}",
                self.path.display(),
                self.len,
                header.first_lsn,
                header.term,
                header.salt,
                self.frames.len(),
                if self.behind.is_empty() {
                    "its end"
                } else {
                    &self.behind
                },
            ),
        };
        let frame = |(offset, frame): &(u64, FrameHeader)| FrameLine {
            at: (Lsn(frame.base_lsn), header.seq, *offset),
            text: format!(
                "frame {}@{offset} lsn {}..{} records {} ts {}..{} durable {} crc {:08x} \
                 after {:08x}{}",
                self.name,
                frame.base_lsn,
                frame.base_lsn + u64::from(frame.payload_len),
                frame.n_rec,
                frame.first_ts,
                frame.last_ts,
                frame.durable_lsn,
                frame.hdr_crc,
                frame.prev_crc,
                if frame.flags & FRAME_EMPTY == 0 {
                    ""
                } else {
                    " vouches"
                },
            ),
        };
        let frames = self.frames.iter().map(frame);
        std::iter::once(first).chain(frames).collect()
    }
}

/// The printer.
struct Lines<'a> {
    query: &'a LogQuery,
    sink: &'a mut dyn FnMut(&str) -> ControlFlow<()>,
    frames: Vec<FrameLine>,
    told: u64,
    over: bool,
}

impl Lines<'_> {
    fn tell(&mut self, line: &str) {
        if !self.over && (self.sink)(line).is_break() {
            self.over = true;
        }
    }

    /// Tells of the segments and frames that begin at or below `lsn`.
    fn frames_up_to(&mut self, lsn: Lsn) {
        let behind = self.frames.iter().position(|line| line.at.0 > lsn);
        let count = behind.unwrap_or(self.frames.len());
        let lines: Vec<FrameLine> = self.frames.drain(..count).collect();
        if self.query.frames {
            lines.iter().for_each(|line| self.tell(&line.text));
        }
    }

    fn entry(&mut self, entry: &ReplayEntry<'_>) {
        if entry.end.0 <= self.query.from {
            return;
        }
        if self.query.limit.is_some_and(|limit| self.told >= limit) {
            self.over = true;
            return;
        }
        self.told += 1;
        self.frames_up_to(entry.begin);
        let mut text = format!(
            "entry lsn {}..{} {} txn {} crc {:08x}:",
            entry.begin.0,
            entry.end.0,
            entry.ts,
            entry.entry.txn().0,
            entry.entry.crc(),
        );
        for record in entry.entry.records() {
            text.push(' ');
            text.push_str(&show(&record, self.query.keys));
            text.push(';');
        }
        text.pop();
        self.tell(&text);
    }
}

/// A record in a few words.
fn show(record: &Record<'_>, keys: bool) -> String {
    let tree = record.tree;
    let of = |key: &[u8]| match keys {
        true => format!(" b\"{}\"", key.escape_ascii()),
        false => String::new(),
    };
    match &record.body {
        Body::Put { key, value } => format!("put {tree}{} ({} bytes)", of(key), value.len()),
        Body::Del { key } => format!("del {tree}{}", of(key)),
        Body::Ddl(op) => format!("{:?} {} {:?} class {}", op.kind, op.tree, op.name, op.class),
        Body::Commit { idempotency: [] } => "commit".to_owned(),
        Body::Commit { idempotency } => format!("commit as b\"{}\"", idempotency.escape_ascii()),
        Body::Abort { txn } => format!("abort {}", txn.0),
        Body::Barrier { term, .. } => format!("barrier of {term}"),
        _ => format!("{:?}", record.body.kind()).to_lowercase(),
    }
}
