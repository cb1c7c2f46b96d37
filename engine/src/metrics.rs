//! What a database counts: its own transactions, and a reading of the layers below.

use std::sync::atomic::{AtomicU64, Ordering};

use terrane_btree::StoreStats;
use terrane_vector::Found;
pub use terrane_vector::MaintenanceStats;
use terrane_wal::LogStats;
use terrane_wal::io::{Backend, IoStats};

/// Counters of the transaction layer.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) commits: AtomicU64,
    pub(crate) conflicts: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) voids: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) ghosts_purged: AtomicU64,
    pub(crate) snapshots_too_old: AtomicU64,
    pub(crate) checkpoints_failed: AtomicU64,
}

/// Counters of the searches of one vector index.
#[derive(Debug, Default)]
pub(crate) struct SearchCounters {
    pub(crate) searches: AtomicU64,
    pub(crate) postings: AtomicU64,
    pub(crate) scanned: AtomicU64,
    pub(crate) rows: AtomicU64,
    pub(crate) restarts: AtomicU64,
    pub(crate) partial: AtomicU64,
}

impl SearchCounters {
    /// Counts in what a search took.
    pub(crate) fn note(&self, found: &Found) {
        let add = |counter: &AtomicU64, by: u64| counter.fetch_add(by, Ordering::Relaxed);
        add(&self.searches, 1);
        add(&self.postings, found.postings as u64);
        add(&self.scanned, found.scanned as u64);
        add(&self.rows, found.rows as u64);
        add(&self.restarts, u64::from(found.restarts));
        add(&self.partial, u64::from(found.partial));
    }
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A reading of everything that a database counts; see [`crate::Database::stats`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Transactions that committed with at least one write.
    pub commits: u64,
    /// Attempts that ended in a conflict.
    pub conflicts: u64,
    /// Attempts that `write` and `try_write` made beyond the first.
    pub retries: u64,
    /// Conflicts found after the commit had its place in the log.
    pub voids: u64,
    /// Commits whose outcome was not known.
    pub unknown: u64,
    /// Rows of the recent-writes index.
    pub recent_rows: u64,
    /// Bytes of the recent-writes index, by estimate.
    pub recent_bytes: u64,
    /// Snapshots and transactions that hold a read position.
    pub read_positions: u64,
    /// Deleted rows taken out of the trees.
    pub ghosts_purged: u64,
    /// Times that a read position was given up.
    pub snapshots_too_old: u64,
    /// Checkpoints that were abandoned because of an error.
    pub checkpoints_failed: u64,
    /// Vector indexes, one after the other.
    pub vectors: Vec<VectorStats>,
    /// Which machinery serves the disk.
    pub backend: Backend,
    /// Counters of the disk.
    pub io: IoCounts,
    /// Counters of the log.
    pub log: LogStats,
    /// Counters of pool, space and images.
    pub store: StoreStats,
}

impl Stats {
    /// Of a cluster that nobody leads.
    pub(crate) fn none() -> Stats {
        Stats {
            commits: 0,
            conflicts: 0,
            retries: 0,
            voids: 0,
            unknown: 0,
            recent_rows: 0,
            recent_bytes: 0,
            read_positions: 0,
            ghosts_purged: 0,
            snapshots_too_old: 0,
            checkpoints_failed: 0,
            vectors: Vec::new(),
            backend: Backend::Pool,
            io: IoCounts::default(),
            log: LogStats::default(),
            store: StoreStats::default(),
        }
    }
}

/// What a vector index counts.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VectorStats {
    /// Name of the table.
    pub table: String,
    /// Name of the field.
    pub field: String,
    /// Searches, those by scan excepted.
    pub searches: u64,
    /// Postings that they read.
    pub postings_read: u64,
    /// Entries whose code they looked at.
    pub entries_scanned: u64,
    /// Rows that they read.
    pub rows_read: u64,
    /// Times that one began again because a posting had changed.
    pub restarts: u64,
    /// Searches that a limit ended before they had what they looked for.
    pub partial: u64,
    /// Number of the newest set of centres.
    pub epoch: u64,
    /// Bytes that the set takes in memory, about.
    pub centroid_bytes: u64,
    /// Slices of upkeep since open that ended with an error, without room or at a page that cannot
    /// be read; the next one tries again.
    pub upkeep_failures: u64,
    /// Upkeep since open, as of the end of its last slice; postings by state are those of the
    /// newest set of centres. Entries are counted posting by posting after an open.
    pub upkeep: MaintenanceStats,
}

/// A reading of a disk's counters, by purpose: log, miss, prefetch, checkpoint, evict, replay,
/// other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IoCounts {
    /// Operations that went through a batch: the ring, or the pool's queue.
    pub batched: [u64; 7],
    /// Operations by a lone blocking call.
    pub lone: [u64; 7],
    /// Bytes read.
    pub bytes_read: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Device flushes.
    pub flushes: u64,
}

impl IoCounts {
    /// The counters as they stand.
    pub(crate) fn read(stats: &IoStats) -> IoCounts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        IoCounts {
            batched: std::array::from_fn(|at| load(&stats.batched[at])),
            lone: std::array::from_fn(|at| load(&stats.lone[at])),
            bytes_read: load(&stats.bytes_read),
            bytes_written: load(&stats.bytes_written),
            flushes: load(&stats.flushes),
        }
    }
}
