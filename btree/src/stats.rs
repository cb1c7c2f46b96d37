//! Counters of a store.

/// A reading of a store's counters. I/O by purpose stands in the disk's own statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Bytes of frames that the pool may use.
    pub pool_bytes: u64,
    /// Bytes of frames in use.
    pub pool_used_bytes: u64,
    /// Pages in memory.
    pub pages_resident: u64,
    /// Pages in memory that differ from disk.
    pub pages_dirty: u64,
    /// Pages read from disk.
    pub pages_loaded: u64,
    /// Pages dropped from memory.
    pub pages_evicted: u64,
    /// Dirty pages written to make room.
    pub pages_evicted_dirty: u64,
    /// Pages written by checkpoints.
    pub pages_checkpointed: u64,
    /// Frames copied because a writer met a page that a checkpoint still needed.
    pub pages_copied: u64,
    /// Checkpoints published.
    pub checkpoints: u64,
    /// Checkpoints abandoned.
    pub checkpoints_abandoned: u64,
    /// Page ids ever used.
    pub page_ids: u64,
    /// Bytes of slots that hold a page of the open or a retained image.
    pub slot_bytes_used: u64,
    /// Bytes of slots that are free.
    pub slot_bytes_free: u64,
    /// Bytes of slots that wait on a deadlist for an image to go.
    pub slot_bytes_dead: u64,
    /// Pages unlinked but still listed by an image.
    pub limbo_pages: u64,
    /// Bytes of the data files.
    pub file_bytes: u64,
    /// Bytes of the translation arrays that were touched at most.
    pub translation_bytes: u64,
    /// The open epoch.
    pub epoch: u32,
    /// Generation of the newest image.
    pub generation: u64,
}
