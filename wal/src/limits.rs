//! Limits of the log, in one place, and how they relate.

use crate::io::{BLOCK, REQUEST_MAX};

/// Bytes of a frame header.
pub const FRAME_HEADER_BYTES: usize = 128;

/// Longest frame on disk, header and padding included.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// Bytes of a segment header block: the header itself and zeros.
pub const SEGMENT_HEADER_BYTES: usize = BLOCK;

/// Length of a log's first segment; each later one is twice as long, up to the configured length.
pub const SEGMENT_BYTES_FIRST: u64 = 256 << 10;

/// Default length of a full-grown segment.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;

/// Shortest configurable segment: its header block, and three blocks of frames.
pub const SEGMENT_BYTES_MIN: u64 = 4 * BLOCK as u64;

/// Longest configurable segment.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// Longest entry. Engine's cap on a commit (64 MiB of rows) stays below it.
pub const ENTRY_BYTES_MAX: usize = 128 << 20;

/// Entries up to this length may be filled inside the sequencer's section.
pub const FILL_INSIDE_BYTES_MAX: usize = 512;

/// Longest idempotency key of a commit.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 64;

/// Default bytes of entries that may be admitted and not yet taken by a flush.
pub const BUFFER_BYTES_DEFAULT: usize = 32 << 20;

/// Most flushes that can ever be in flight together.
pub const FLUSHES_IN_FLIGHT_MAX: usize = 4;

/// Trimmed segments kept for reuse; more are removed.
pub const SPARE_SEGMENTS_MAX: usize = 2;

const _: () = assert!(FRAME_HEADER_BYTES < BLOCK);
const _: () = assert!(FRAME_BYTES_MAX <= REQUEST_MAX);
const _: () = assert!(FRAME_BYTES_MAX.is_multiple_of(BLOCK));
const _: () = assert!(SEGMENT_BYTES_FIRST >= SEGMENT_BYTES_MIN);
const _: () = assert!(SEGMENT_BYTES_DEFAULT <= SEGMENT_BYTES_MAX);
const _: () = assert!(ENTRY_BYTES_MAX < u32::MAX as usize);
