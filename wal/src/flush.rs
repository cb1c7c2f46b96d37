//! Leading a flush: from the filled prefix to a frame on disk.
//!
//! ```text
//! tail lock:  take pieces -> copy into one aligned buffer -> crc, chain, place
//! no lock:    one durable write
//! board lock: complete: durable moves on, the covered wake up
//! ```
//!
//! The tail lock orders frames: the order of takes is the order on disk and in the chain (L1). It
//! is held for a copy, never over I/O.
//!
//! Invariants: a block is written once in a segment's life (L2); a frame lies in one segment; a
//! segment's header goes to disk together with its first frame.

use std::sync::Arc;

use bytemuck::Zeroable;

use crate::entry::records_within;
use crate::error::WalError;
use crate::frame::{FRAME_EMPTY, FrameHeader, NO_ENTRY_ENDS, frame_bytes, seal_frame};
use crate::group_commit::{Flight, Flusher, Piece};
use crate::io::{BLOCK, Buf, File, Purpose};
use crate::limits::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use crate::log::Log;
use crate::lsn::Lsn;
use crate::segment::{FIRST_FRAME, Segment, SegmentHeader, header_block};
use crate::sync::Ordering;

/// Where the next frame goes.
#[derive(Debug)]
pub(crate) struct Tail {
    /// The segment being written; None until the first frame after an open.
    pub(crate) segment: Option<Arc<Segment>>,
    /// Offset of the next frame in it.
    pub(crate) offset: u64,
    /// Header crc of the last frame of the log.
    pub(crate) prev_crc: u32,
    /// Highest durable position that a frame on disk names.
    pub(crate) vouched: Lsn,
}

/// One durable write.
struct Frame {
    flight: u64,
    file: Arc<dyn File>,
    offset: u64,
    buf: Buf,
}

/// Room for the next frame.
#[derive(Clone, Copy)]
struct Room {
    payload: usize,
    blocks_left: u64,
}

impl Flusher for Log {
    fn flush_once(&self) {
        let mut tail = self.tail.lock();
        let Some(room) = self.room(&tail) else {
            return;
        };
        let (flight, wakes) = self.board.take(room.payload, room.blocks_left);
        let frame = flight.map(|flight| self.build(&mut tail, &flight));
        drop(tail);
        wakes.wake();
        if let Some(frame) = frame {
            self.counters.flushes.fetch_add(1, Ordering::Relaxed);
            self.write_out(&frame);
        }
    }
}

impl Log {
    /// Writes an empty frame if the log is idle and its last frames are not vouched for.
    pub(crate) fn vouch(&self) {
        let mut tail = self.tail.lock();
        if tail.vouched >= self.board.durable_lsn() {
            return;
        }
        let Some(room) = self.room(&tail) else {
            return;
        };
        let Some(flight) = self.board.take_empty(room.blocks_left) else {
            return;
        };
        let frame = self.build(&mut tail, &flight);
        drop(tail);
        self.counters
            .vouching_frames
            .fetch_add(1, Ordering::Relaxed);
        self.write_out(&frame);
    }

    fn room(&self, tail: &Tail) -> Option<Room> {
        let current = tail.segment.as_ref();
        let left = current.map_or(0, |segment| segment.len - tail.offset);
        if left > 0 {
            let most = left.min(FRAME_BYTES_MAX as u64) as usize;
            return Some(Room {
                payload: most - FRAME_HEADER_BYTES,
                blocks_left: left / BLOCK as u64,
            });
        }
        let next = self.shelf.lock().prepared.front().map(|next| next.len)?;
        let left = next - SEGMENT_HEADER_BYTES as u64;
        let most = left.min((FRAME_BYTES_MAX - SEGMENT_HEADER_BYTES) as u64) as usize;
        Some(Room {
            payload: most - FRAME_HEADER_BYTES,
            blocks_left: left / BLOCK as u64,
        })
    }

    /// Gathers the flight into a buffer and gives it its place. The caller holds the tail's lock.
    fn build(&self, tail: &mut Tail, flight: &Flight) -> Frame {
        let full = tail.segment.as_ref().is_none_or(|s| tail.offset == s.len);
        let opened = full.then(|| self.next_segment(tail, flight));
        let head = opened.as_ref().map_or(0, |_| SEGMENT_HEADER_BYTES);
        let Some(segment) = tail.segment.clone() else {
            panic!("X2: a frame without a segment");
        };
        let size = frame_bytes(flight.payload_len);
        let mut buf = Buf::zeroed(head + size);
        if let Some(header) = opened {
            let terms = self.board.starts_to(flight.base);
            header_block(&header, &terms, &mut buf[..SEGMENT_HEADER_BYTES]);
        }
        let frame = &mut buf[head..];
        let mut at = FRAME_HEADER_BYTES;
        for piece in &flight.pieces {
            let bytes = &piece.content.bytes[piece.from..piece.to];
            frame[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        }
        assert_eq!(at, FRAME_HEADER_BYTES + flight.payload_len);
        let mut header = describe(flight);
        let all = crate::planted!("what_is_durable_is_committed");
        let commit = if all {
            flight.durable
        } else {
            self.commit_lsn()
        };
        header.commit_lsn = commit.min(flight.durable).0;
        header.salt = segment.salt;
        header.prev_crc = tail.prev_crc;
        header.wall_us = self.env.clock.now_wall().as_micros() as u64;
        tail.prev_crc = seal_frame(frame, header);
        tail.vouched = flight.durable;
        let offset = tail.offset;
        assert!(
            offset + size as u64 <= segment.len,
            "a frame in one segment"
        );
        tail.offset += size as u64;
        Frame {
            flight: flight.id,
            file: Arc::clone(&segment.file),
            offset: offset - head as u64,
            buf,
        }
    }

    /// Makes the next prepared file the current segment and returns its header.
    fn next_segment(&self, tail: &mut Tail, flight: &Flight) -> SegmentHeader {
        let first_lsn = flight.base;
        let drawn = self.env.rng.next_u64("log.salt");
        let mut shelf = self.shelf.lock();
        let Some(next) = shelf.prepared.pop_front() else {
            panic!("X2: no segment was prepared");
        };
        // Numbers never repeat, so a generator that starts again does not repeat a salt either.
        let salt = drawn ^ next.seq.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let segment = Arc::new(Segment {
            seq: next.seq,
            first_lsn,
            salt,
            file: next.file,
            len: next.len,
        });
        shelf.live.push_back(Arc::clone(&segment));
        drop(shelf);
        let header = SegmentHeader::new(self.uuid, segment.seq, first_lsn, salt, flight.term);
        tail.segment = Some(segment);
        tail.offset = FIRST_FRAME;
        header
    }

    fn write_out(&self, frame: &Frame) {
        let result = frame
            .file
            .write(Purpose::Log, frame.offset, &frame.buf, true);
        self.counters
            .bytes_written
            .fetch_add(frame.buf.len() as u64, Ordering::Relaxed);
        let result = result.map_err(WalError::Io);
        self.board.complete(frame.flight, result).wake();
    }
}

/// The part of a frame's header that follows from its payload.
fn describe(flight: &Flight) -> FrameHeader {
    let mut header = FrameHeader {
        base_lsn: flight.base.0,
        payload_len: flight.payload_len as u32,
        term: flight.term.0,
        durable_lsn: flight.durable.0,
        first_end: NO_ENTRY_ENDS,
        ..FrameHeader::zeroed()
    };
    if flight.pieces.is_empty() {
        header.flags = FRAME_EMPTY;
    }
    let mut at = 0;
    for piece in &flight.pieces {
        at += piece.to - piece.from;
        header.n_rec += records_in(piece);
        if piece.to < piece.content.bytes.len() {
            continue;
        }
        if header.first_end == NO_ENTRY_ENDS {
            header.first_end = at as u32;
        }
        let ts = piece.content.ts.0;
        if header.first_ts == 0 {
            header.first_ts = ts;
        }
        // Chunks have no timestamp.
        header.last_ts = header.last_ts.max(ts);
    }
    header
}

/// Records that end in a piece.
fn records_in(piece: &Piece) -> u32 {
    let entry = &piece.content.bytes;
    if piece.from == 0 && piece.to == entry.len() {
        return piece.content.n_rec;
    }
    records_within(entry, piece.to) - records_within(entry, piece.from)
}
