//! Where the log ends, and why that is safe.
//!
//! ```text
//! segment k:   | F1 | F2 | F3 bad | F4 |        F4 vouches for at most what was durable when it
//! segment k+1: | F5 | ...                       was built: beyond F2's end? Corrupt. Else: the end.
//! ```
//!
//! L2: a bad frame ends the log only if no later frame, in the rest of its segment at any block
//! boundary or in a later segment, names a durable position beyond the entries found. That is
//! enough: whatever was acknowledged lay below the durable position of its time, and a log that was
//! cut at an open went on from the cut, so no frame that survives can name a position that was cut.
//!
//! After an open the log goes on in a fresh segment at the end of its last complete entry. So at
//! each frame, a later segment that begins inside or at the end of it, and whose first frame chains
//! to it, is where the log goes on; what the old segment holds behind that point was discarded.
//!
//! Nothing is changed here: a crash in recovery is recovered by doing it again (M3).

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::WalError;
use crate::frame::{FrameFault, FrameHeader, frame_bytes};
use crate::io::{BLOCK, Disk, File, Open, Purpose, REQUEST_MAX};
use crate::log::{LogRecovery, ReplayEntry};
use crate::lsn::{Lsn, Ts};
use crate::segment::{FIRST_FRAME, FrameWindow, Segment, SegmentHeader, Spare, parse_segment_name};
use crate::stream::EntryStream;

/// What recovery found: enough to go on.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) recovery: LogRecovery,
    /// The segments of the log, oldest first; those before the one that holds `redo` are kept for
    /// an older checkpoint, unread.
    pub(crate) live: VecDeque<Arc<Segment>>,
    /// Where the first segment that was read begins.
    pub(crate) oldest: Lsn,
    /// Files that are not part of it.
    pub(crate) spares: Vec<Spare>,
    /// Header crc of the last frame.
    pub(crate) prev_crc: u32,
    pub(crate) next_seq: u64,
}

impl Found {
    /// A log without a byte.
    pub(crate) fn nothing() -> Found {
        Found {
            recovery: LogRecovery::default(),
            live: VecDeque::new(),
            oldest: Lsn::ZERO,
            spares: Vec::new(),
            prev_crc: 0,
            next_seq: 1,
        }
    }
}

/// A file whose header names its own number.
#[derive(Debug)]
struct Candidate {
    header: SegmentHeader,
    path: PathBuf,
    file: Arc<dyn File>,
    len: u64,
}

impl Candidate {
    fn window(&self) -> FrameWindow {
        FrameWindow::new(Arc::clone(&self.file), Purpose::Replay, REQUEST_MAX)
    }

    /// Header crc and `prev_crc` of a valid first frame.
    fn first_frame(&self) -> Result<Option<FrameHeader>, WalError> {
        let mut window = self.window();
        let frame = window.frame(FIRST_FRAME, self.header.salt)?;
        let header = frame.ok().map(|(header, _)| header);
        Ok(header.filter(|h| h.base_lsn == self.header.first_lsn && h.term == self.header.term))
    }
}

type Replay<'a> = &'a mut dyn FnMut(ReplayEntry<'_>) -> Result<(), WalError>;

/// Finds the end of the log in `dir` and replays it from `redo` on.
pub(crate) fn find_end(
    disk: &dyn Disk,
    dir: &Path,
    uuid: [u8; 16],
    redo: Lsn,
    must_reach: Lsn,
    replay: Replay<'_>,
) -> Result<Found, WalError> {
    let (candidates, mut spares) = survey(disk, dir, uuid)?;
    let highest = candidates.last().map_or(0, |last| last.header.seq);
    let mut scan = Scan::new(&candidates, redo);
    match start(&candidates, redo)? {
        Some(first) => scan.run(first, replay)?,
        None if redo == Lsn::ZERO => scan.judge(
            None,
            FrameFault::Short {
                needed: BLOCK,
                found: 0,
            },
        )?,
        None => {
            let found = match candidates.first() {
                Some(first) => format!(
                    "the first segment begins at {}",
                    Lsn(first.header.first_lsn)
                ),
                None => "no segment".to_string(),
            };
            return Err(
                WalError::corrupt(0, format!("a segment that holds {redo}"), found).in_file(dir, 0),
            );
        }
    }
    let end = scan.stream.position();
    let reach = must_reach.max(redo);
    if end < reach {
        let found = format!("its end at {end}");
        return Err(
            WalError::corrupt(0, format!("a log that reaches {reach}"), found).in_file(dir, 0),
        );
    }
    let chain = std::mem::take(&mut scan.chain);
    let prev_crc = scan.prev.unwrap_or(0);
    let recovery = LogRecovery { end, ..scan.report };
    let first = chain
        .first()
        .map(|&at| Lsn(candidates[at].header.first_lsn));
    Ok(Found {
        recovery,
        live: keep(candidates, &chain, &mut spares),
        oldest: first.unwrap_or(end),
        spares,
        prev_crc,
        next_seq: highest + 1,
    })
}

/// The segments to keep: those on the chain, and those before it (L4). One before it that begins at
/// or behind a later one was cut off at an earlier open.
fn keep(
    candidates: Vec<Candidate>,
    chain: &[usize],
    spares: &mut Vec<Spare>,
) -> VecDeque<Arc<Segment>> {
    let mut live: VecDeque<Arc<Segment>> = VecDeque::new();
    let first = chain.first().copied().unwrap_or(0);
    for (at, candidate) in candidates.into_iter().enumerate().rev() {
        let begin = Lsn(candidate.header.first_lsn);
        let older = at < first && live.front().is_some_and(|next| begin < next.first_lsn);
        if chain.contains(&at) || older {
            live.push_front(Arc::new(Segment {
                seq: candidate.header.seq,
                first_lsn: begin,
                salt: candidate.header.salt,
                file: candidate.file,
                len: candidate.len,
            }));
        } else {
            spares.push(Spare {
                path: candidate.path,
                len: candidate.len,
            });
        }
    }
    live
}

/// Sorts the files of the folder into segments by number, and files that were only prepared.
fn survey(
    disk: &dyn Disk,
    dir: &Path,
    uuid: [u8; 16],
) -> Result<(Vec<Candidate>, Vec<Spare>), WalError> {
    let mut candidates = Vec::new();
    let mut spares = Vec::new();
    for name in disk.list(dir)? {
        let Some(seq) = parse_segment_name(&name) else {
            continue;
        };
        let path = dir.join(&name);
        let file = disk.open(&path, Open::Write)?;
        let len = file.len()? / BLOCK as u64 * BLOCK as u64;
        let mut window = FrameWindow::new(Arc::clone(&file), Purpose::Replay, BLOCK);
        let block = window.bytes(0, BLOCK)?;
        let header = SegmentHeader::decode(block, uuid).map_err(|e| e.in_file(&path, 0))?;
        match header.filter(|header| header.seq == seq) {
            Some(header) => {
                // What is only in the kernel's memory may be read now and gone after a power cut;
                // nothing is trusted before it is durable.
                file.sync()?;
                candidates.push(Candidate {
                    header,
                    path,
                    file,
                    len,
                });
            }
            None => spares.push(Spare { path, len }),
        }
    }
    candidates.sort_by_key(|candidate| candidate.header.seq);
    Ok((candidates, spares))
}

/// The last segment that begins at or below `redo` and has a valid first frame.
fn start(candidates: &[Candidate], redo: Lsn) -> Result<Option<usize>, WalError> {
    for (at, candidate) in candidates.iter().enumerate().rev() {
        if candidate.header.first_lsn <= redo.0 && candidate.first_frame()?.is_some() {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// A walk along the chain of frames.
struct Scan<'a> {
    candidates: &'a [Candidate],
    stream: EntryStream,
    /// Where the next frame's payload begins.
    position: Lsn,
    /// Header crc of the last good frame.
    prev: Option<u32>,
    /// Segments that are part of the log, as indexes.
    chain: Vec<usize>,
    report: LogRecovery,
}

impl<'a> Scan<'a> {
    fn new(candidates: &'a [Candidate], redo: Lsn) -> Scan<'a> {
        Scan {
            candidates,
            stream: EntryStream::new(redo),
            position: Lsn::ZERO,
            prev: None,
            chain: Vec::new(),
            report: LogRecovery::default(),
        }
    }

    /// Follows the log from segment `first` to its end.
    fn run(&mut self, first: usize, replay: Replay<'_>) -> Result<(), WalError> {
        let mut at = first;
        'segment: loop {
            let candidate = &self.candidates[at];
            self.chain.push(at);
            self.position = Lsn(candidate.header.first_lsn);
            let mut window = candidate.window();
            let mut offset = FIRST_FRAME;
            loop {
                let frame = match window.frame(offset, candidate.header.salt)? {
                    Ok((header, payload)) => {
                        self.follows(candidate, header).map(|()| (header, payload))
                    }
                    Err(fault) => Err(fault),
                };
                let (header, payload) = match frame {
                    Ok(frame) => frame,
                    Err(fault) => return self.judge(Some((at, offset)), fault),
                };
                self.prev = Some(header.hdr_crc);
                let next = self.successor(at, &header)?;
                let end = Lsn(header.base_lsn).advance(payload.len() as u64);
                let cut = next.map_or(end, |next| Lsn(self.candidates[next].header.first_lsn));
                let used = cut.since(Lsn(header.base_lsn)) as usize;
                self.stream.feed(Lsn(header.base_lsn), &payload[..used]);
                self.position = cut;
                self.replay_complete(candidate, offset, replay)?;
                if let Some(next) = next {
                    at = next;
                    continue 'segment;
                }
                offset += frame_bytes(payload.len()) as u64;
            }
        }
    }

    /// Checks that a frame continues the log.
    fn follows(&self, candidate: &Candidate, header: FrameHeader) -> Result<(), FrameFault> {
        if let Some(expected) = self.prev
            && header.prev_crc != expected
        {
            return Err(FrameFault::Chain {
                expected,
                found: header.prev_crc,
            });
        }
        if header.base_lsn != self.position.0 {
            return Err(FrameFault::Base {
                expected: self.position.0,
                found: header.base_lsn,
            });
        }
        if header.term != candidate.header.term {
            return Err(FrameFault::Term(header.term));
        }
        Ok(())
    }

    /// The later segment that goes on inside or at the end of the frame just read, if any.
    fn successor(&self, at: usize, frame: &FrameHeader) -> Result<Option<usize>, WalError> {
        let base = frame.base_lsn;
        let end = base + u64::from(frame.payload_len);
        for (next, candidate) in self.candidates.iter().enumerate().skip(at + 1).rev() {
            let first = candidate.header.first_lsn;
            let inside = first == end || (base < first && first < end);
            if inside
                && let Some(header) = candidate.first_frame()?
                && header.prev_crc == frame.hdr_crc
            {
                return Ok(Some(next));
            }
        }
        Ok(None)
    }

    fn replay_complete(
        &mut self,
        candidate: &Candidate,
        offset: u64,
        replay: Replay<'_>,
    ) -> Result<(), WalError> {
        loop {
            let taken = self
                .stream
                .take()
                .map_err(|e| e.in_file(&candidate.path, offset))?;
            let Some(entry) = taken else {
                return Ok(());
            };
            self.report.entries += 1;
            self.report.bytes += entry.end.since(entry.begin);
            self.report.last_ts = self.report.last_ts.max(Ts(entry.ts.0));
            replay(entry)?;
        }
    }

    /// A frame is bad (`at`: segment and offset): the end of the log if nobody vouches for it,
    /// else Corrupt (L2).
    fn judge(&mut self, at: Option<(usize, u64)>, fault: FrameFault) -> Result<(), WalError> {
        let (from, mut offset) = at.unwrap_or((0, FIRST_FRAME));
        let end = self.stream.position();
        let mut discarded = 0;
        for candidate in &self.candidates[from..] {
            let mut window = candidate.window();
            while offset < candidate.len {
                match window.header(offset, candidate.header.salt)? {
                    Ok(header) => {
                        discarded += 1;
                        let vouched = Lsn(header.durable_lsn.max(header.commit_lsn));
                        if vouched > end {
                            return Err(self.vouched(at, fault, vouched));
                        }
                    }
                    Err(unknown @ FrameFault::Unknown { .. }) => {
                        return Err(WalError::Version {
                            segment: candidate.path.clone(),
                            expected: unknown.expected(),
                            found: unknown.found(),
                        });
                    }
                    Err(_) => {}
                }
                offset += BLOCK as u64;
            }
            offset = FIRST_FRAME;
        }
        self.report.discarded_frames = discarded;
        Ok(())
    }

    fn vouched(&self, at: Option<(usize, u64)>, fault: FrameFault, vouched: Lsn) -> WalError {
        let (from, offset) = at.unwrap_or((0, FIRST_FRAME));
        WalError::Corrupt {
            segment: self.candidates[from].path.clone(),
            offset,
            expected: format!(
                "{} (entries up to {vouched} were durable, found up to {})",
                fault.expected(),
                self.stream.position()
            ),
            found: fault.found(),
        }
    }
}
