//! What maintenance knows: the load of every posting, and in which order work comes.
//!
//! Loads are counted in memory: read with a posting's records, changed by what commits tell and by
//! maintenance itself. They decide what is looked at next and nothing else; a job counts for
//! itself before it acts, so a wrong load costs a look.
//!
//! Invariant: Q1. A posting stands in the queue once, with its most urgent work.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::index::VectorIndex;
use crate::record::{Key, Meta, PostingId, RecordError, State};
use crate::store::{IndexError, Write};

use super::delta::Delta;
use super::stats::MaintenanceStats;

/// A fold is due at this many tail entries.
pub(crate) const TAIL_MAX: i64 = 32;

/// At rest, one of so many is sealed too: an entry of a tail costs a search three times as much as
/// one in a block.
pub(crate) const TAIL_REST: i64 = 8;

/// Splits by moves of splits, and so on: deeper ones wait for everything else.
pub(crate) const DEPTH_MAX: u16 = 4;

/// Live entries below which a mean says nothing.
pub(crate) const DRIFT_LIVE: i64 = 16;

/// When there is nothing else to do, entries are compared with all centres and means with theirs so
/// often (rounds of k-means, in effect) in a posting that is new or has changed.
const POLISH: u8 = 3;

/// A posting has changed for that when commits gave or took one in so many of its entries.
const POLISHED: i64 = 16;

/// The mean of a posting is compared with its centre when one in so many entries came or went.
const CHANGED: i64 = 4;

/// Kinds of work, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Work {
    /// Rows that no posting has taken yet.
    Assign,
    Split,
    Fold,
    Merge,
    /// At rest: entries are compared with all centres, then the mean with its own.
    Sweep,
    /// A posting whose mean has moved gets a new centre.
    Recentre,
    Reassign,
    /// A split at the end of a chain of splits.
    DeepSplit,
}

/// What a posting holds, about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) state: State,
    pub(crate) live: i64,
    /// Marked entries.
    pub(crate) dead: i64,
    pub(crate) tail: i64,
    /// How many splits led to its last gain by a move.
    pub(crate) depth: u16,
    /// Entries that came and went since its centre was last compared with its mean.
    pub(crate) changed: i64,
    /// How often its mean is yet compared with its centre when there is nothing else to do.
    pub(crate) polish: u8,
    /// Entries that commits gave or took since that was last due.
    unpolished: i64,
    /// When a commit last changed it, by the board's clock.
    touched: u64,
    /// Made by a split: until then it is merged only where there is room.
    pub(crate) held_until: u64,
    /// It was folded for few marked entries since a commit last changed it.
    pub(crate) tidied: bool,
    /// No marked entry can be dropped before the horizon is here.
    pub(crate) drop_at: u64,
}

impl Load {
    pub(crate) fn new(state: State) -> Self {
        Self {
            state,
            live: 0,
            dead: 0,
            tail: 0,
            depth: 0,
            changed: 0,
            polish: POLISH,
            unpolished: 0,
            touched: 0,
            held_until: 0,
            tidied: false,
            drop_at: 0,
        }
    }

    /// Counts live, dead and tail entries in, here and in the sums over all postings.
    fn add(&mut self, change: [i64; 3], sums: &mut [i64; 3]) {
        let counts = [&mut self.live, &mut self.dead, &mut self.tail];
        for ((count, sum), one) in counts.into_iter().zip(sums).zip(change) {
            *count += one;
            *sum += one;
        }
    }
}

/// Loads, queue and counters of one index.
#[derive(Debug)]
pub(crate) struct Board {
    pub(crate) index: VectorIndex,
    pub(crate) meta: Meta,
    pub(crate) loads: BTreeMap<PostingId, Load>,
    pub(crate) stats: MaintenanceStats,
    /// Live, dead and tail entries of all postings.
    sums: [i64; 3],
    /// Changes of entries by commits that were observed.
    pub(crate) clock: u64,
    /// Nothing was observed for a while.
    pub(crate) quiet: bool,
    queue: BTreeSet<(Work, Reverse<i64>, PostingId)>,
    queued: BTreeMap<PostingId, (Work, Reverse<i64>)>,
    /// Postings whose marked entries wait for the horizon, by the timestamp that they wait for.
    blocked: BTreeSet<(u64, PostingId)>,
}

impl Board {
    pub(crate) fn new(index: VectorIndex, meta: Meta) -> Self {
        let mut loads = BTreeMap::new();
        loads.insert(PostingId::UNASSIGNED, Load::new(State::Ready));
        Self {
            index,
            meta,
            loads,
            stats: MaintenanceStats::default(),
            sums: [0; 3],
            clock: 0,
            quiet: false,
            queue: BTreeSet::new(),
            queued: BTreeMap::new(),
            blocked: BTreeSet::new(),
        }
    }

    /// Most and least live entries of a posting.
    pub(crate) fn bounds(&self) -> (i64, i64) {
        let params = self.index.params();
        (params.posting_max as i64, params.posting_min() as i64)
    }

    /// The counters, with live, dead and tail entries as they are now. O(1).
    pub(crate) fn counters(&self) -> MaintenanceStats {
        let [live, dead, tail] = self.sums.map(|sum| sum.max(0) as u64);
        MaintenanceStats {
            live,
            dead,
            tail,
            ..self.stats
        }
    }

    /// Counts in what a commit did.
    pub(crate) fn observe(&mut self, delta: &Delta) {
        self.clock += 1;
        self.quiet = false;
        let clock = self.clock;
        // A posting that is not known has been dropped since the commit bound.
        if let Some(load) = self.loads.get_mut(&delta.posting) {
            let change = [delta.live, delta.dead, delta.tail].map(i64::from);
            load.add(change, &mut self.sums);
            load.changed += change[0].abs();
            load.touched = clock;
            load.tidied = false;
            load.unpolished += change[0].abs();
            if POLISHED * load.unpolished >= load.live {
                (load.polish, load.unpolished) = (POLISH, 0);
            }
            self.consider(delta.posting);
        }
    }

    /// Counts in what a system transaction did.
    pub(crate) fn change(&mut self, id: PostingId, live: i64, dead: i64, tail: i64) {
        if let Some(load) = self.loads.get_mut(&id) {
            load.add([live, dead, tail], &mut self.sums);
            load.changed += live.abs();
            load.tidied &= live == 0;
        }
    }

    /// What was counted in the records themselves.
    pub(crate) fn count(&mut self, id: PostingId, (live, dead): (u32, u32), tail: usize) {
        if let Some(load) = self.loads.get_mut(&id) {
            let (live, dead) = (i64::from(live), i64::from(dead));
            let change = [live - load.live, dead - load.dead, tail as i64 - load.tail];
            load.add(change, &mut self.sums);
        }
    }

    /// Postings that take entries, besides the unassigned one.
    pub(crate) fn open_postings(&self) -> usize {
        let open = |(id, load): &(&PostingId, &Load)| {
            **id != PostingId::UNASSIGNED && load.state != State::Draining
        };
        self.loads.iter().filter(open).count()
    }

    fn any_open(&self) -> bool {
        let open = |(id, load): (&PostingId, &Load)| {
            *id != PostingId::UNASSIGNED && load.state != State::Draining
        };
        self.loads.iter().any(open)
    }

    /// Whether nothing came to a posting lately: a growing one is not merged away.
    pub(crate) fn is_cold(&self, id: PostingId) -> bool {
        let load = self.loads.get(&id);
        self.quiet || load.is_none_or(|load| load.touched == 0 || self.clock - load.touched >= 16)
    }

    /// Puts a posting into the queue if there is something to do.
    pub(crate) fn consider(&mut self, id: PostingId) {
        let Some(load) = self.loads.get(&id).copied() else {
            return;
        };
        let (max, min) = self.bounds();
        let entries = load.live + load.dead;
        let many_dead = load.dead > 0 && 4 * load.dead >= entries;
        let fold = many_dead || load.tail >= TAIL_MAX;
        let ready = load.state == State::Ready;
        if load.state == State::Draining {
        } else if id == PostingId::UNASSIGNED {
            if load.live > max || load.live > 0 && self.any_open() {
                self.enqueue(Work::Assign, load.live, id);
            } else if many_dead {
                self.fold_when_possible(load, id);
            }
        } else if ready && load.live > max {
            let deep = load.depth >= DEPTH_MAX;
            let work = if deep { Work::DeepSplit } else { Work::Split };
            self.enqueue(work, load.live, id);
        } else if fold {
            if load.tail >= TAIL_MAX {
                self.enqueue(Work::Fold, load.tail + load.dead, id);
            } else {
                self.fold_when_possible(load, id);
            }
        } else if ready && load.live < min && self.open_postings() > 1 {
            self.enqueue(Work::Merge, -load.live, id);
        } else if ready && load.live >= DRIFT_LIVE && CHANGED * load.changed >= load.live {
            self.enqueue(Work::Recentre, load.changed, id);
        }
    }

    /// Looks at a posting again for the sake of its marked entries, which a job could not drop.
    pub(crate) fn consider_blocked(&mut self, id: PostingId) {
        let Some(load) = self.loads.get(&id).copied() else {
            return;
        };
        let marked = load.dead > 0 && 4 * load.dead >= load.live + load.dead;
        let (max, _) = self.bounds();
        if marked && load.live <= max && load.tail < TAIL_MAX {
            // Without a time to wait for, the next commit that touches it looks again.
            if load.drop_at > 0 {
                self.blocked.insert((load.drop_at, id));
            }
        } else {
            self.consider(id);
        }
    }

    /// Finds work for a time when there is nothing else to do: postings with few marked entries or
    /// with a tail, which searches look at too, and means that are near their centres but not on
    /// them. True if there is some.
    pub(crate) fn tidy(&mut self) -> bool {
        let mut found = Vec::new();
        for (&id, load) in &mut self.loads {
            if load.state != State::Ready || id == PostingId::UNASSIGNED {
                continue;
            }
            let some = load.dead > 0 && 16 * load.dead >= load.live + load.dead;
            if some && load.drop_at == 0 && !load.tidied {
                load.tidied = true;
                found.push((Work::Fold, load.dead, id));
            } else if load.tail >= TAIL_REST {
                found.push((Work::Fold, load.tail, id));
            } else if load.polish > 0 && load.live > 0 {
                load.polish -= 1;
                found.push((Work::Sweep, load.live, id));
            }
        }
        for &(work, weight, id) in &found {
            self.enqueue(work, weight, id);
        }
        !found.is_empty()
    }

    /// Rounds that a posting still has.
    pub(crate) fn polish(&self, id: PostingId) -> Option<u8> {
        self.loads.get(&id).map(|load| load.polish)
    }

    fn fold_when_possible(&mut self, load: Load, id: PostingId) {
        if load.drop_at == 0 {
            self.enqueue(Work::Fold, load.dead, id);
        } else {
            self.blocked.insert((load.drop_at, id));
        }
    }

    /// Puts work into the queue, unless the posting waits for something more urgent.
    pub(crate) fn enqueue(&mut self, work: Work, weight: i64, id: PostingId) {
        let new = (work, Reverse(weight));
        if let Some(&old) = self.queued.get(&id) {
            if old <= new {
                return;
            }
            self.queue.remove(&(old.0, old.1, id));
        }
        self.queued.insert(id, new);
        self.queue.insert((new.0, new.1, id));
    }

    /// The most urgent work. Postings whose horizon has come are looked at first.
    pub(crate) fn pop(&mut self, horizon: u64) -> Option<(Work, PostingId)> {
        while let Some(&(at, id)) = self.blocked.first() {
            if at > horizon {
                break;
            }
            self.blocked.pop_first();
            if let Some(load) = self.loads.get_mut(&id) {
                load.drop_at = 0;
                self.consider(id);
            }
        }
        let (work, _, id) = self.queue.pop_first()?;
        self.queued.remove(&id);
        Some((work, id))
    }

    /// A posting that was there before this maintainer: it has been polished, or is when commits
    /// change it.
    pub(crate) fn find(&mut self, id: PostingId, state: State) {
        let polish = 0;
        self.loads.insert(
            id,
            Load {
                polish,
                ..Load::new(state)
            },
        );
    }

    /// A new posting.
    pub(crate) fn add(&mut self, id: PostingId, state: State) {
        self.loads.insert(id, Load::new(state));
    }

    pub(crate) fn set_state(&mut self, id: PostingId, state: State) {
        if let Some(load) = self.loads.get_mut(&id) {
            load.state = state;
        }
    }

    /// Keeps a child of a split from being merged at once into a neighbour that has no room.
    pub(crate) fn hold(&mut self, id: PostingId) {
        let until = self.clock + self.index.params().posting_max as u64;
        if let Some(load) = self.loads.get_mut(&id) {
            load.held_until = until;
        }
    }

    /// A posting that is gone.
    pub(crate) fn forget(&mut self, id: PostingId) {
        if let Some(mut load) = self.loads.remove(&id) {
            load.add([-load.live, -load.dead, -load.tail], &mut self.sums);
        }
        if let Some((work, weight)) = self.queued.remove(&id) {
            self.queue.remove(&(work, weight, id));
        }
    }

    pub(crate) fn queue_len(&self) -> usize {
        self.queue.len()
    }

    /// Folds that it would take to seal what tails have beyond their bounds.
    pub(crate) fn folds_behind(&self) -> usize {
        let [_, _, tail] = self.sums;
        let most = TAIL_MAX * self.loads.len() as i64;
        ((tail - most).max(0) / TAIL_MAX) as usize
    }

    /// Splits that wait: above a few, reassigns look at fewer neighbours.
    pub(crate) fn backlog(&self) -> usize {
        let splits = |entry: &&(Work, Reverse<i64>, PostingId)| entry.0 <= Work::Split;
        self.queue.iter().take(64).take_while(splits).count()
    }

    /// Raises the epoch and takes posting ids; the record belongs into the same transaction.
    pub(crate) fn next_epoch(&mut self, meta: Meta, ids: u32) -> Result<Write, IndexError> {
        self.meta = meta;
        self.meta.epoch += 1;
        let next = self.meta.next_posting.checked_add(ids);
        self.meta.next_posting = next.ok_or(IndexError::Record(RecordError::Value {
            record: "meta",
            field: "next posting",
            found: u64::from(self.meta.next_posting),
        }))?;
        Ok(Write::put(Key::Meta, self.meta.encode()))
    }
}
