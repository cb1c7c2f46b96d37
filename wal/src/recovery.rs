//! Where the log ends, and why that is safe.
//!
//! ```text
//! segment k:   | F1 | F2 | F3 bad | F4 |        F4 vouches for at most what was durable when it
//! segment k+1: | F5 | ...                       was built. Beyond F2's end: Corrupt; else the end.
//! ```
//!
//! L2: a bad frame ends the log only if no other frame that could be a later one (in the rest of
//! its segment at any block boundary, in a later segment, in one that was passed over) names a
//! durable position beyond the entries found. That is enough: whatever was acknowledged lay below
//! the durable position of its time, and a log that was cut at an open went on from the cut, so no
//! frame that survives can name a position that was cut.
//!
//! After an open the log goes on in a fresh segment at the end of its last complete entry. So at
//! each frame, a later segment that begins inside or at the end of it, and whose first frame chains
//! to it, is where the log goes on; what the old segment holds behind that point was discarded.
//!
//! Nothing is changed here: a crash in recovery is recovered by doing it again (M3).

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::epochs::Epochs;
use crate::error::WalError;
use crate::frame::{FrameFault, FrameHeader, decode_any_header, frame_bytes};
use crate::io::{BLOCK, Disk, File, IoError, Open, Purpose, REQUEST_MAX};
use crate::log::{LogRecovery, ReplayEntry};
use crate::lsn::{Lsn, Term, Ts};
use crate::segment::{
    FIRST_FRAME, FrameWindow, Segment, SegmentHeader, Spare, TERMS_AT, decode_terms,
    parse_segment_name,
};
use crate::stream::EntryStream;

/// Highest number that a file may have: more than a log lives to see, and each has a next one.
const SEQ_MAX: u64 = u64::MAX >> 1;

/// Where a segment's header names its salt.
const SALT_AT: usize = std::mem::offset_of!(SegmentHeader, salt);

/// What recovery found: enough to go on.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) recovery: LogRecovery,
    /// The segments of the log, oldest first; those before the one that holds `redo` are kept for
    /// an older checkpoint, unread.
    pub(crate) live: VecDeque<Arc<Segment>>,
    /// Where the first segment that was read begins.
    pub(crate) oldest: Lsn,
    /// Its terms.
    pub(crate) epochs: Epochs,
    /// Files that are not part of it.
    pub(crate) spares: Vec<Spare>,
    /// Files that were part of it and were cut off. They are not used again: a stale frame in them
    /// may vouch for what the log lacks.
    pub(crate) removed: Vec<PathBuf>,
    /// Header crc of the last frame.
    pub(crate) prev_crc: u32,
    pub(crate) next_seq: u64,
}

impl Found {
    /// Where the log of a member begins, that others may need more of than its own image does: at
    /// the first of those segments that lead up to what was read. Before a gap in their numbers was
    /// a cut, and the next one goes on there; or some were trimmed, and one came back with a crash.
    pub(crate) fn oldest_in_order(&self) -> Result<Lsn, IoError> {
        let mut oldest = self.oldest;
        let mut next: Option<&Segment> = None;
        for segment in self.live.iter().rev() {
            let read = segment.first_lsn >= self.oldest;
            if let Some(next) = next.filter(|_| !read)
                && next.seq != segment.seq + 1
                && !leads_to(segment, next)?
            {
                break;
            }
            oldest = oldest.min(segment.first_lsn);
            next = Some(segment);
        }
        Ok(oldest)
    }

    /// A log without a byte.
    pub(crate) fn nothing() -> Found {
        Found {
            recovery: LogRecovery::default(),
            live: VecDeque::new(),
            oldest: Lsn::ZERO,
            epochs: Epochs::default(),
            spares: Vec::new(),
            removed: Vec::new(),
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

    /// The header of a valid first frame behind a valid header block: they are written together.
    fn first_frame(&self) -> Result<Option<FrameHeader>, WalError> {
        let mut window = self.window();
        if decode_terms(window.bytes(0, BLOCK)?).is_none() {
            return Ok(None);
        }
        let frame = window.frame(FIRST_FRAME, self.header.salt)?;
        let header = frame.ok().map(|(header, _)| header);
        Ok(header.filter(|h| h.base_lsn == self.header.first_lsn && h.term == self.header.term))
    }
}

/// A file whose first frame its header does not explain: the header is none of its own, or names
/// another salt. Stale frames of an earlier use, or a damaged header: then they still vouch.
#[derive(Debug)]
struct Suspect {
    path: PathBuf,
    file: Arc<dyn File>,
    len: u64,
    first: FrameHeader,
}

/// The files of the folder.
#[derive(Debug, Default)]
struct Survey {
    /// Segments by number.
    candidates: Vec<Candidate>,
    suspects: Vec<Suspect>,
    spares: Vec<Spare>,
    /// Highest number of a name, part of the log or not.
    highest: u64,
}

impl Survey {
    /// A salt is drawn anew for each use of a file, so two files with the same one are copies. The
    /// log might go on in either of them, and leave out what follows the other.
    fn refuse_copies(&self) -> Result<(), WalError> {
        let candidates = self.candidates.iter().map(|c| (c.header.salt, &c.path));
        let suspects = self.suspects.iter().map(|s| (s.first.salt, &s.path));
        let mut owners = BTreeMap::new();
        for (salt, path) in candidates.chain(suspects) {
            if let Some(other) = owners.insert(salt, path) {
                let found = format!("that of {}", other.display());
                return Err(WalError::corrupt(SALT_AT, "a salt of its own", found).in_file(path, 0));
            }
        }
        Ok(())
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
    let Survey {
        candidates,
        suspects,
        spares,
        highest,
    } = survey(disk, dir, uuid)?;
    let [at_redo, below] = starts(&candidates, redo)?;
    let mut scan = Scan::new(&candidates, &suspects, redo);
    if let Some(first) = at_redo {
        scan.run(first, replay)?;
    }
    // Without a complete entry from `redo` on, the next frame must chain to the one where `redo`
    // lies. Nothing was replayed yet.
    if let Some(first) = below.filter(|_| scan.kept.0 == 0) {
        scan = Scan::new(&candidates, &suspects, redo);
        scan.run(first, replay)?;
    }
    if scan.chain.is_empty() {
        // What follows `redo` is there, what holds it is not.
        let first = candidates.first().map(|first| Lsn(first.header.first_lsn));
        if let Some(first) = first.filter(|first| redo > Lsn::ZERO && *first > redo) {
            let found = format!("the first begins at {first}");
            let expected = format!("a segment that holds {redo}");
            return Err(WalError::corrupt(0, expected, found).in_file(dir, 0));
        }
        let nothing = FrameFault::Short {
            needed: BLOCK,
            found: 0,
        };
        scan.judge(None, nothing)?;
    }
    // The stream begins at `redo` even if the log ends before it.
    let end = scan.stream.position().min(scan.position);
    let reach = must_reach.max(redo);
    if end < reach {
        return Err(WalError::Short {
            dir: dir.to_path_buf(),
            reach,
            end,
        });
    }
    let chain = scan.chain[..scan.kept.0].to_vec();
    let prev_crc = scan.kept.1;
    let recovery = LogRecovery { end, ..scan.report };
    let mut epochs = scan.epochs;
    epochs.begin(epochs.last().term, end);
    epochs.truncate(end);
    let first = chain
        .first()
        .map(|&at| Lsn(candidates[at].header.first_lsn));
    let (live, removed) = keep(candidates, &chain);
    Ok(Found {
        recovery,
        live,
        oldest: first.unwrap_or(end),
        epochs,
        spares,
        removed,
        prev_crc,
        next_seq: highest + 1,
    })
}

/// The segments to keep: those on the chain, and those before it (L4). One before it that begins at
/// or behind a later one was cut off. Returns those, and the files of the others.
fn keep(candidates: Vec<Candidate>, chain: &[usize]) -> (VecDeque<Arc<Segment>>, Vec<PathBuf>) {
    let mut live: VecDeque<Arc<Segment>> = VecDeque::new();
    let mut removed = Vec::new();
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
            removed.push(candidate.path);
        }
    }
    (live, removed)
}

/// Sorts the files of the folder.
fn survey(disk: &dyn Disk, dir: &Path, uuid: [u8; 16]) -> Result<Survey, WalError> {
    let mut survey = Survey::default();
    for name in disk.list(dir)? {
        let Some(seq) = parse_segment_name(&name) else {
            continue;
        };
        let path = dir.join(&name);
        if seq > SEQ_MAX {
            let expected = format!("segment numbers up to {SEQ_MAX:x}");
            return Err(WalError::corrupt(0, expected, name).in_file(&path, 0));
        }
        survey.highest = survey.highest.max(seq);
        let file = disk.open(&path, Open::Write)?;
        let len = file.len()? / BLOCK as u64 * BLOCK as u64;
        let mut window = FrameWindow::new(Arc::clone(&file), Purpose::Replay, 2 * BLOCK);
        let block = window.bytes(0, BLOCK)?;
        let header = SegmentHeader::decode(block, uuid).map_err(|e| e.in_file(&path, 0))?;
        let header = header.filter(|header| header.seq == seq);
        if let Ok(first) = decode_any_header(window.bytes(FIRST_FRAME, BLOCK)?)
            && header.is_none_or(|header| header.salt != first.salt)
        {
            survey.suspects.push(Suspect {
                path: path.clone(),
                file: Arc::clone(&file),
                len,
                first,
            });
        }
        if let Some(header) = header {
            // What is only in the kernel's memory may be read now and gone after a power cut;
            // nothing is trusted before it is durable.
            file.sync()?;
            survey.candidates.push(Candidate {
                header,
                path,
                file,
                len,
            });
        } else {
            survey.spares.push(Spare { path, len });
        }
    }
    survey.refuse_copies()?;
    survey
        .candidates
        .sort_by_key(|candidate| candidate.header.seq);
    Ok(survey)
}

/// Where to begin: the last segment with a valid first frame that begins at `redo`, and the last
/// one that begins below it.
fn starts(candidates: &[Candidate], redo: Lsn) -> Result<[Option<usize>; 2], WalError> {
    let mut at_redo = None;
    for (at, candidate) in candidates.iter().enumerate().rev() {
        let first = Lsn(candidate.header.first_lsn);
        let late = first > redo || (first == redo && at_redo.is_some());
        if late || candidate.first_frame()?.is_none() {
            continue;
        }
        if first < redo {
            return Ok([at_redo, Some(at)]);
        }
        at_redo = Some(at);
    }
    Ok([at_redo, None])
}

/// Whether the first frame of a segment chains to one of another, and begins inside or behind that.
fn leads_to(segment: &Segment, next: &Segment) -> Result<bool, IoError> {
    let window = |segment: &Segment| {
        FrameWindow::new(Arc::clone(&segment.file), Purpose::Replay, REQUEST_MAX)
    };
    let Ok(first) = window(next).header(FIRST_FRAME, next.salt)? else {
        return Ok(false);
    };
    let (mut frames, mut offset) = (window(segment), FIRST_FRAME);
    while offset < segment.len {
        let Ok(header) = frames.header(offset, segment.salt)? else {
            break;
        };
        let end = header.base_lsn + u64::from(header.payload_len);
        if header.hdr_crc == first.prev_crc {
            return Ok((header.base_lsn..=end).contains(&next.first_lsn.0));
        }
        offset += frame_bytes(header.payload_len as usize) as u64;
    }
    Ok(false)
}

/// A walk along the chain of frames.
struct Scan<'a> {
    candidates: &'a [Candidate],
    suspects: &'a [Suspect],
    stream: EntryStream,
    /// Where the next frame's payload begins.
    position: Lsn,
    /// Header crc of the last good frame.
    prev: Option<u32>,
    /// The terms of what was read, and of what lies before.
    epochs: Epochs,
    /// Segments that were followed, as indexes.
    chain: Vec<usize>,
    /// How many of them, and the header crc of which frame, hold the end of the last complete
    /// entry: there the log goes on. What follows is part of an entry without its end.
    kept: (usize, u32),
    report: LogRecovery,
}

impl<'a> Scan<'a> {
    fn new(candidates: &'a [Candidate], suspects: &'a [Suspect], redo: Lsn) -> Scan<'a> {
        Scan {
            candidates,
            suspects,
            stream: EntryStream::new(redo),
            position: Lsn::ZERO,
            prev: None,
            epochs: Epochs::default(),
            chain: Vec::new(),
            kept: (0, 0),
            report: LogRecovery::default(),
        }
    }

    /// Follows the log from segment `first` to its end.
    fn run(&mut self, first: usize, replay: Replay<'_>) -> Result<(), WalError> {
        let mut at = first;
        loop {
            let candidate = &self.candidates[at];
            self.chain.push(at);
            self.position = Lsn(candidate.header.first_lsn);
            let mut window = candidate.window();
            if self.chain.len() == 1 {
                self.epochs = terms_of(candidate, &mut window)?;
            }
            let mut offset = FIRST_FRAME;
            at = loop {
                let frame = window.frame(offset, candidate.header.salt)?;
                let followed = frame.and_then(|(header, payload)| {
                    self.follows(candidate, offset, header)?;
                    Ok((header, payload))
                });
                let (header, payload) = match followed {
                    Ok(frame) => frame,
                    Err(fault @ FrameFault::Unknown { .. }) => {
                        return Err(WalError::Version {
                            segment: candidate.path.clone(),
                            expected: fault.expected(),
                            found: fault.found(),
                        });
                    }
                    Err(fault) => return self.judge(Some((at, offset)), fault),
                };
                let next = self.accept(at, offset, &header, payload, replay)?;
                if let Some(next) = next {
                    break next;
                }
                offset += frame_bytes(payload.len()) as u64;
            };
        }
    }

    /// Takes the payload of a good frame, up to where a later segment goes on; returns that one.
    fn accept(
        &mut self,
        at: usize,
        offset: u64,
        header: &FrameHeader,
        payload: &[u8],
        replay: Replay<'_>,
    ) -> Result<Option<usize>, WalError> {
        let base = Lsn(header.base_lsn);
        let end = base.advance(payload.len() as u64);
        let next = self.successor(at, header)?;
        let cut = next.map_or(end, |next| Lsn(self.candidates[next].header.first_lsn));
        self.stream.feed(base, &payload[..cut.since(base) as usize]);
        if !payload.is_empty() {
            self.epochs.begin(Term(header.term), base);
        }
        self.report.commit = self.report.commit.max(Lsn(header.commit_lsn));
        self.prev = Some(header.hdr_crc);
        self.position = cut;
        self.replay_complete(&self.candidates[at], offset, replay)?;
        let entries_end = self.stream.position();
        if entries_end > base || (entries_end == base && payload.is_empty()) {
            self.kept = (self.chain.len(), header.hdr_crc);
        }
        Ok(next)
    }

    /// Checks that a frame continues the log.
    fn follows(
        &self,
        candidate: &Candidate,
        offset: u64,
        header: FrameHeader,
    ) -> Result<(), FrameFault> {
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
        // One that only vouches may stand before a frame of the next term, at the same place.
        let mut first = offset == FIRST_FRAME;
        if crate::planted!("terms_begin_with_segments") {
            first = header.base_lsn == candidate.header.first_lsn;
        }
        let last = self.epochs.last().term.0;
        if header.term < last || (first && header.term != candidate.header.term) {
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
            // G1. Before the first barrier there is the first term.
            let here = self.epochs.next_start(entry.begin);
            let here = here.filter(|(_, start)| *start == entry.begin);
            let begins = entry.entry.begins();
            let first = begins.is_none() && here == Some((Term::FIRST, Lsn::ZERO));
            if here.map(|(term, _)| term) != begins && !first {
                let name = |term: Option<Term>| term.map_or("none".into(), |t| t.to_string());
                let expected = format!("a barrier of {}", name(here.map(|(term, _)| term)));
                let error = WalError::corrupt(0, expected, name(begins));
                return Err(error.in_file(&candidate.path, offset));
            }
            self.report.entries += 1;
            self.report.bytes += entry.end.since(entry.begin);
            self.report.last_ts = self.report.last_ts.max(Ts(entry.ts.0));
            replay(entry)?;
        }
    }

    /// A frame is bad (`at`: segment and offset): the end of the log if nobody vouches for it,
    /// else Corrupt (L2).
    fn judge(&mut self, at: Option<(usize, u64)>, fault: FrameFault) -> Result<(), WalError> {
        let (from, offset) = at.unwrap_or((0, FIRST_FRAME));
        let end = self.stream.position();
        let mut discarded = 0;
        let mut vouched = Lsn::ZERO;
        let begin = self
            .chain
            .first()
            .map_or(0, |&first| self.candidates[first].header.first_lsn);
        for (number, candidate) in self.candidates.iter().enumerate() {
            // Before the bad frame only what was passed over can say more than what was read: it
            // was cut off, which never happens to what is committed.
            let passed_over = !self.chain.contains(&number) && candidate.header.first_lsn >= begin;
            if number < from && !passed_over {
                continue;
            }
            let start = if number == from { offset } else { FIRST_FRAME };
            let salt = candidate.header.salt;
            let claims = claims(candidate.window(), salt, start, candidate.len)?;
            if number < from {
                let all = crate::planted!("what_was_cut_vouches");
                vouched = vouched.max(if all { claims.durable } else { claims.commit });
                continue;
            }
            // One that vouches for more than where it begins had its first frame on disk, and the
            // log goes on there. It was not found, so that frame is bad.
            let first = Lsn(candidate.header.first_lsn);
            if number > from
                && claims.durable > first
                && first < end
                && !crate::planted!("the_log_before_a_cut")
            {
                return Err(self.vouched(at, fault, claims.durable));
            }
            discarded += claims.frames;
            vouched = vouched.max(claims.durable);
        }
        for suspect in self.suspects.iter().filter(|s| s.first.base_lsn >= end.0) {
            let window = FrameWindow::new(Arc::clone(&suspect.file), Purpose::Replay, REQUEST_MAX);
            let claims = claims(window, suspect.first.salt, FIRST_FRAME, suspect.len)?;
            if claims.durable > end {
                let found = format!("none, and frames that vouch for {}", claims.durable);
                return Err(
                    WalError::corrupt(0, "a segment header", found).in_file(&suspect.path, 0)
                );
            }
        }
        if vouched > end && !crate::planted!("no_frame_vouches") {
            return Err(self.vouched(at, fault, vouched));
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

/// The terms in a segment's header block, which is valid, up to its first frame.
fn terms_of(candidate: &Candidate, window: &mut FrameWindow) -> Result<Epochs, WalError> {
    let first = Lsn(candidate.header.first_lsn);
    let terms = decode_terms(window.bytes(0, BLOCK)?).unwrap_or_default();
    let found = format!("{} terms", terms.len());
    let epochs = Epochs::new(terms, first).filter(|e| e.last().term.0 == candidate.header.term);
    let wrong = || WalError::corrupt(TERMS_AT, "terms that rise to the segment's", found);
    epochs.ok_or_else(|| wrong().in_file(&candidate.path, 0))
}

/// What frames say.
#[derive(Debug, Default)]
struct Claims {
    frames: u64,
    /// The highest position that they vouch for.
    durable: Lsn,
    /// The highest committed position that they name.
    commit: Lsn,
}

/// Frames with `salt` at any block boundary from `offset` on. The header alone counts: what it says
/// was true when it was built.
fn claims(
    mut window: FrameWindow,
    salt: u64,
    mut offset: u64,
    len: u64,
) -> Result<Claims, WalError> {
    let mut claims = Claims::default();
    while offset < len {
        if let Ok(header) = window.header(offset, salt)? {
            claims.frames += 1;
            claims.commit = claims.commit.max(Lsn(header.commit_lsn));
            claims.durable = claims
                .durable
                .max(Lsn(header.durable_lsn.max(header.commit_lsn)));
        }
        offset += BLOCK as u64;
    }
    Ok(claims)
}
