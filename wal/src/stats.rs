//! Counters of one log. All are totals since it was opened.

/// A copy of the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Entries sequenced, VOID ones included.
    pub entries: u64,
    /// Entries that became VOID.
    pub voids: u64,
    /// Bytes of entries sequenced.
    pub entry_bytes: u64,
    /// Frames with entries written durably.
    pub flushes: u64,
    /// Bytes written, headers and padding included.
    pub bytes_written: u64,
    /// Empty frames written to vouch for the one before.
    pub vouching_frames: u64,
    /// Times a caller parked to wait for somebody else's flush or fill.
    pub parks: u64,
    /// Times a waiter was woken to lead the next flush.
    pub handoffs: u64,
    /// Most flushes seen in flight together.
    pub flushes_in_flight_peak: u64,
    /// Flushes that completed before an earlier one.
    pub out_of_order: u64,
    /// Times an admission had to wait for buffer bytes or a segment.
    pub admission_waits: u64,
    /// Segments created and zero-written.
    pub segments_created: u64,
    /// Segments reused under a new name and salt.
    pub segments_recycled: u64,
    /// Segments trimmed.
    pub segments_trimmed: u64,
    /// Frames found after the end of the log at open and discarded.
    pub discarded_frames: u64,
    /// Jumps of the wall clock that timestamps did not follow.
    pub clock_jumps_refused: u64,
}
