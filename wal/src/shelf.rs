//! The files of a log: which are part of it, which are ready to be, which may be used again.
//!
//! ```text
//! spares <- trim - live (oldest first) <- switch - prepared <- prepare
//! ```
//!
//! All of it is lists under one lock; file operations happen outside of it, by one caller at a time
//! (the board's `preparing` mark sees to that).
//!
//! Invariants: live segments have rising numbers and positions; the last live segment is never
//! trimmed, nor one without a durable successor, so that the chain can always be followed (L1). A
//! number is drawn once, also when its file could not be made: what became of that name on disk is
//! unknown, and no later sync of the folder can tell (a failed sync is final).

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::WalError;
use crate::io::{Disk, IoError};
use crate::limits::{SEGMENT_BYTES_FIRST, SPARE_SEGMENTS_MAX};
use crate::lsn::Lsn;
use crate::retention::Retention;
use crate::segment::{Prepared, Segment, Spare, create_segment, recycle_segment, segment_name};

/// Files of one log.
#[derive(Debug)]
pub(crate) struct Shelf {
    pub(crate) live: VecDeque<Arc<Segment>>,
    pub(crate) prepared: VecDeque<Prepared>,
    pub(crate) spares: Vec<Spare>,
    pub(crate) consumers: Retention,
    /// Number of the next file; no name in the folder has it or a higher one.
    next_seq: u64,
    /// Length of the next file.
    pub(crate) next_len: u64,
    /// Nothing below this position can be read any more.
    pub(crate) oldest: Lsn,
    /// Where the log was cut since it was opened.
    pub(crate) cuts: Vec<Lsn>,
    len_max: u64,
}

/// What to do for the next prepared segment.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) seq: u64,
    pub(crate) len: u64,
    pub(crate) spare: Option<Spare>,
}

impl Shelf {
    /// A shelf whose next file has number `next_seq`; `len_last` is the length of the file before.
    pub(crate) fn new(len_max: u64, next_seq: u64, len_last: Option<u64>, oldest: Lsn) -> Shelf {
        let next_len = len_last.map_or(SEGMENT_BYTES_FIRST, |len| len.saturating_mul(2));
        Shelf {
            live: VecDeque::new(),
            prepared: VecDeque::new(),
            spares: Vec::new(),
            consumers: Retention::default(),
            next_seq,
            next_len: next_len.min(len_max),
            oldest,
            cuts: Vec::new(),
            len_max,
        }
    }

    /// What the next prepared segment will be: a spare file that is long enough, or a new one.
    pub(crate) fn plan(&mut self) -> Plan {
        let fit = self.spares.iter().position(|s| s.len >= self.next_len);
        let spare = fit.map(|at| self.spares.swap_remove(at));
        let seq = self.next_seq;
        self.next_seq += 1;
        Plan {
            seq,
            len: spare.as_ref().map_or(self.next_len, |spare| spare.len),
            spare,
        }
    }

    /// The plan was carried out.
    pub(crate) fn stock(&mut self, prepared: Prepared) {
        self.next_len = prepared.len.saturating_mul(2).min(self.len_max);
        self.prepared.push_back(prepared);
    }

    /// Takes what lies wholly below `below` and no consumer with a lease needs off the log. Returns
    /// the number of segments taken off, and the files that are too many to keep.
    pub(crate) fn trim(&mut self, dir: &Path, below: Lsn, durable: Lsn) -> (u64, Vec<Spare>) {
        let limit = self.consumers.limit(below, durable);
        let mut trimmed = 0;
        while let Some(next) = self.live.get(1)
            && next.first_lsn <= limit
            && next.first_lsn < durable
        {
            self.oldest = self.oldest.max(next.first_lsn);
            trimmed += 1;
            if let Some(segment) = self.live.pop_front() {
                self.spares.push(Spare {
                    path: dir.join(segment_name(segment.seq)),
                    len: segment.len,
                });
            }
        }
        // Files that are shorter than what comes next will not be used again.
        let wanted = self.next_len;
        self.spares.sort_by_key(|spare| spare.len < wanted);
        let useful = self.spares.iter().filter(|s| s.len >= wanted).count();
        let surplus = self.spares.split_off(useful.min(SPARE_SEGMENTS_MAX));
        (trimmed, surplus)
    }

    /// Takes what begins at `to` or behind it off the log, and returns its files. They are not used
    /// again: a stale frame that vouches for what was cut would end in a log that lacks it.
    pub(crate) fn cut(&mut self, dir: &Path, to: Lsn) -> Vec<PathBuf> {
        let kept = self.live.partition_point(|s| s.first_lsn < to);
        let gone = self.live.split_off(kept);
        self.oldest = self.oldest.min(to);
        self.cuts.push(to);
        if crate::planted!("files_behind_a_cut_used_again") {
            let spare = |segment: &Arc<Segment>| Spare {
                path: dir.join(segment_name(segment.seq)),
                len: segment.len,
            };
            self.spares.extend(gone.iter().map(spare));
            return Vec::new();
        }
        let path = |segment: Arc<Segment>| dir.join(segment_name(segment.seq));
        gone.into_iter().map(path).collect()
    }

    /// The live segment that holds `position`, and the one after it.
    pub(crate) fn find(&self, position: Lsn) -> Option<Arc<Segment>> {
        let after = self.live.partition_point(|s| s.first_lsn <= position);
        after
            .checked_sub(1)
            .and_then(|at| self.live.get(at))
            .cloned()
    }

    /// The live segment after number `seq`.
    pub(crate) fn after(&self, seq: u64) -> Option<Arc<Segment>> {
        let at = self.live.partition_point(|s| s.seq <= seq);
        self.live.get(at).cloned()
    }
}

/// Carries out a plan. The error names `Full` if space ran out.
pub(crate) fn carry_out(disk: &dyn Disk, dir: &Path, plan: &Plan) -> Result<Prepared, WalError> {
    let made = match &plan.spare {
        Some(spare) => recycle_segment(disk, dir, spare, plan.seq),
        None => create_segment(disk, dir, plan.seq, plan.len),
    };
    made.map_err(|error| full_or_io(error, plan.len))
}

fn full_or_io(error: IoError, needed: u64) -> WalError {
    if error.is_full() {
        WalError::Full {
            needed,
            source: error,
        }
    } else {
        WalError::Io(error)
    }
}
