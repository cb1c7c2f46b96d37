//! The recent-writes index: who is about to write a key, when its value began, what it was before.
//!
//! One structure is conflict table, phantom check, version store and lock table. Leaf rows carry no
//! timestamp: a row whose versioned bit is clear is visible to all, one whose bit is set is judged
//! here. Writers come through `commit`, readers through `snapshot`, the collector through `sweep`.
//!
//! Sharded by a hash of (tree, key), each shard an ordered map per tree: sequential inserts spread
//! over all shards, where shards by range would put them all into the last one. A range check asks
//! every shard; it need not be atomic, because each commit below the asked bound is in its shard as
//! a stamped intent or as a begin timestamp at any later moment (R2).
//!
//! Invariants:
//! - R1: a reader asks the leaf first and this index after it.
//! - R2: the entry of a write exists from its intent until every possible reader is beyond it.
//! - R3: the pre-image is pushed before the leaf changes, also when nobody reads (X6).
//! - R4: a shard's mutex is the last lock taken; nobody waits or takes a latch under it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use terrane_wal::lsn::{TreeId, Ts};
use terrane_wal::sync::{AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering};

use crate::limits::RECENT_SHARDS;
use crate::txn::owner::Owner;

/// Bytes that an entry is taken to cost besides its key and values.
const ENTRY_COST: usize = 160;
/// Bytes that an older version is taken to cost besides its value.
const VERSION_COST: usize = 48;

/// A value that is no longer in the leaf.
#[derive(Debug)]
struct Version {
    /// When it became the value; zero if that was before everything that is remembered.
    begin: Ts,
    /// From when on it is read: before that where other shards decided it.
    shown: Ts,
    /// None: the row did not exist.
    value: Option<Arc<[u8]>>,
}

/// What is known of one key.
#[derive(Debug)]
struct Entry {
    /// Who may write the key next.
    owner: Option<Arc<Owner>>,
    /// When the value that is (or is about to be) in the leaf began.
    begin: Ts,
    /// From when on it is read.
    shown: Ts,
    /// True if that value is the absence of the row.
    ghost: bool,
    /// What it was before, oldest first.
    older: Vec<Version>,
}

impl Entry {
    fn is_of_other(&self, owner: &Arc<Owner>) -> bool {
        let holder = self.owner.as_ref();
        holder.is_some_and(|holder| !Arc::ptr_eq(holder, owner))
    }
}

type Rows = BTreeMap<Arc<[u8]>, Entry>;

/// One shard; its own cache line matters less than its own mutex.
#[derive(Debug)]
struct Shard {
    rows: Mutex<BTreeMap<TreeId, Rows>>,
    /// Entries in `rows`; read without the lock by readers whose leaf row has its bit set.
    entries: AtomicUsize,
}

impl Shard {
    fn new() -> Shard {
        Shard {
            rows: Mutex::new(BTreeMap::new()),
            entries: AtomicUsize::new(0),
        }
    }
}

/// What a reader of a leaf row with a set versioned bit is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The leaf's value is the one; it began then (zero: long ago).
    Leaf(Ts),
    /// An older value is; None: the row did not exist.
    Older(Ts, Option<Arc<[u8]>>),
    /// The value was given up: the snapshot is too old.
    Gone,
}

/// The answer to a wish to write a key.
#[derive(Debug)]
pub(crate) enum Claim {
    /// The intent stands; the value that it guards began then.
    Granted(Ts),
    /// Somebody else holds the key.
    Held(Arc<Owner>),
    /// The value began after the claimant's snapshot.
    Newer(Ts),
}

/// What became of an entry that the collector looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Collected {
    /// It is still needed.
    Kept,
    /// It left, and the leaf row is a live one.
    Left,
    /// It left, and the leaf row is a ghost that can be removed now.
    LeftGhost,
}

/// The recent-writes index of one shard of the database.
#[derive(Debug)]
pub(crate) struct Recent {
    shards: Vec<Shard>,
    /// Bytes that entries and versions take, by estimate.
    bytes: AtomicUsize,
    /// Read positions below this one are refused: their versions may be gone.
    floor: AtomicU64,
    /// The highest horizon that a sweep has used.
    swept: AtomicU64,
    /// Ghosts to look at again.
    leftover: Mutex<Vec<(TreeId, Arc<[u8]>)>>,
}

impl Recent {
    /// An empty index: every row is visible to all.
    pub(crate) fn new() -> Recent {
        Recent {
            shards: (0..RECENT_SHARDS).map(|_| Shard::new()).collect(),
            bytes: AtomicUsize::new(0),
            floor: AtomicU64::new(0),
            swept: AtomicU64::new(0),
            leftover: Mutex::new(Vec::new()),
        }
    }

    /// Bytes held, by estimate.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Keys held.
    pub(crate) fn entries(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.entries.load(Ordering::Relaxed))
            .sum()
    }

    /// The lowest read position that is still served.
    pub(crate) fn floor(&self) -> Ts {
        Ts(self.floor.load(Ordering::Acquire))
    }

    /// Gives up every read position below `floor`. Versions may be dropped only after this.
    pub(crate) fn raise_floor(&self, floor: Ts) {
        self.floor.fetch_max(floor.0, Ordering::AcqRel);
    }

    fn shard(&self, tree: TreeId, key: &[u8]) -> &Shard {
        // FNV-1a over words: cheap, fixed, and spreads sequential keys.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ u64::from(tree.0);
        for chunk in key.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01b3);
            hash ^= hash >> 29;
        }
        &self.shards[(hash >> 8) as usize % self.shards.len()]
    }

    fn rows(&self, tree: TreeId, key: &[u8]) -> (&Shard, MutexGuard<'_, BTreeMap<TreeId, Rows>>) {
        let shard = self.shard(tree, key);
        (shard, shard.rows.lock())
    }

    /// Asks for the right to write `key`. With a `read_ts`, a value that began after it refuses
    /// (first committer wins).
    pub(crate) fn claim(
        &self,
        tree: TreeId,
        key: &Arc<[u8]>,
        owner: &Arc<Owner>,
        read_ts: Option<Ts>,
    ) -> Claim {
        let (shard, mut rows) = self.rows(tree, key);
        let rows = rows.entry(tree).or_default();
        if let Some(entry) = rows.get_mut(key) {
            match &entry.owner {
                Some(holder) if !Arc::ptr_eq(holder, owner) => return Claim::Held(holder.clone()),
                _ => {}
            }
            if read_ts.is_some_and(|read_ts| entry.shown > read_ts) {
                return Claim::Newer(entry.begin);
            }
            entry.owner = Some(owner.clone());
            return Claim::Granted(entry.begin);
        }
        let entry = Entry {
            owner: Some(owner.clone()),
            begin: Ts::ZERO,
            shown: Ts::ZERO,
            ghost: false,
            older: Vec::new(),
        };
        rows.insert(key.clone(), entry);
        shard.entries.fetch_add(1, Ordering::Release);
        self.bytes
            .fetch_add(ENTRY_COST + key.len(), Ordering::Relaxed);
        Claim::Granted(Ts::ZERO)
    }

    /// Gives a claim back, written or not. Who waits for the owner is woken by the owner.
    pub(crate) fn release(&self, tree: TreeId, key: &[u8], owner: &Arc<Owner>) {
        let (shard, mut trees) = self.rows(tree, key);
        let Some(rows) = trees.get_mut(&tree) else {
            return;
        };
        let Some(entry) = rows.get_mut(key) else {
            return;
        };
        if !entry
            .owner
            .as_ref()
            .is_some_and(|holder| Arc::ptr_eq(holder, owner))
        {
            return;
        }
        entry.owner = None;
        // Below the horizon of a sweep nobody asks for older versions either (X6).
        let idle = entry.begin.0 <= self.swept.load(Ordering::Acquire);
        if !idle {
            return;
        }
        // The sweep that would have taken the entry met the intent, so it leaves here.
        if entry.ghost {
            if let Some((key, _)) = rows.get_key_value(key) {
                self.leftover.lock().push((tree, key.clone()));
            }
            return;
        }
        self.remove(shard, rows, key);
    }

    fn remove(&self, shard: &Shard, rows: &mut Rows, key: &[u8]) {
        let Some(entry) = rows.remove(key) else {
            return;
        };
        let versions: usize = entry.older.iter().map(cost).sum();
        shard.entries.fetch_sub(1, Ordering::Release);
        self.bytes
            .fetch_sub(ENTRY_COST + key.len() + versions, Ordering::Release);
    }

    /// Step 7a of a commit: the value `before` ends at `ts`, where the next one begins. Called
    /// under the leaf's latch before the leaf changes; a second call with the same `ts` does
    /// nothing, so the latched section may run again.
    #[cfg(test)]
    pub(crate) fn push(
        &self,
        tree: TreeId,
        key: &[u8],
        ts: Ts,
        before: Option<&[u8]>,
        ghost: bool,
    ) {
        self.push_shown(tree, key, (ts, ts), before, ghost);
    }

    /// As [`Recent::push`], of a value that is read from the second timestamp on, at or below the
    /// first: several shards have decided it together, and this one has heard of it now. Readers
    /// in between have waited for it. Everything but what is read goes by the first (R2).
    pub(crate) fn push_shown(
        &self,
        tree: TreeId,
        key: &[u8],
        (ts, shown): (Ts, Ts),
        before: Option<&[u8]>,
        ghost: bool,
    ) {
        let (_, mut rows) = self.rows(tree, key);
        let entry = rows.get_mut(&tree).and_then(|rows| rows.get_mut(key));
        let Some(entry) = entry else {
            panic!("R2: a write of {tree} at {ts} has no entry");
        };
        if entry.begin == ts {
            return;
        }
        assert!(
            entry.begin < ts,
            "R2: {tree} has {} before {ts}",
            entry.begin
        );
        let version = Version {
            begin: entry.begin,
            shown: entry.shown,
            value: before.map(Arc::from),
        };
        self.bytes.fetch_add(cost(&version), Ordering::Relaxed);
        entry.older.push(version);
        (entry.begin, entry.shown) = (ts, shown);
        entry.ghost = ghost;
    }

    /// Which value a reader at `at` sees of a key whose leaf row has its versioned bit set. The
    /// leaf must have been read before (R1).
    pub(crate) fn seen(&self, tree: TreeId, key: &[u8], at: Ts) -> Seen {
        // An entry counts here before its version is pushed and until it is dropped, so a reader
        // that saw a changed leaf (R3) and nothing here came after every drop.
        if self.bytes.load(Ordering::Acquire) == 0 {
            return Seen::Leaf(Ts::ZERO);
        }
        let shard = self.shard(tree, key);
        if shard.entries.load(Ordering::Acquire) == 0 {
            return Seen::Leaf(Ts::ZERO);
        }
        let rows = shard.rows.lock();
        let Some(entry) = rows.get(&tree).and_then(|rows| rows.get(key)) else {
            return Seen::Leaf(Ts::ZERO);
        };
        if entry.shown <= at {
            return Seen::Leaf(entry.begin);
        }
        match entry.older.iter().rev().find(|version| version.shown <= at) {
            Some(version) => Seen::Older(version.begin, version.value.clone()),
            None => Seen::Gone,
        }
    }

    /// True if somebody has an interest in `key`: a version, an intent.
    pub(crate) fn contains(&self, tree: TreeId, key: &[u8]) -> bool {
        let (_, rows) = self.rows(tree, key);
        rows.get(&tree).is_some_and(|rows| rows.contains_key(key))
    }

    /// Validation of a read key: did a value begin in (`after`, `upto`], or is one about to?
    pub(crate) fn changed(&self, read: &Asked<'_>, tree: TreeId, key: &[u8]) -> bool {
        let (_, rows) = self.rows(tree, key);
        let entry = rows.get(&tree).and_then(|rows| rows.get(key));
        entry.is_some_and(|entry| read.hits(entry))
    }

    /// Validation of a range that was read; see [`Recent::changed`].
    pub(crate) fn range_changed(
        &self,
        read: &Asked<'_>,
        tree: TreeId,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
    ) -> bool {
        self.shards.iter().any(|shard| {
            if shard.entries.load(Ordering::Acquire) == 0 {
                return false;
            }
            let rows = shard.rows.lock();
            let Some(rows) = rows.get(&tree) else {
                return false;
            };
            rows.range::<[u8], _>((lower, upper))
                .any(|(_, entry)| read.hits(entry))
        })
    }

    /// Whether another than `owner` is about to write a key.
    pub(crate) fn is_claimed(&self, tree: TreeId, key: &[u8], owner: &Arc<Owner>) -> bool {
        let (_, rows) = self.rows(tree, key);
        let entry = rows.get(&tree).and_then(|rows| rows.get(key));
        entry.is_some_and(|entry| entry.is_of_other(owner))
    }

    /// Whether another than `owner` is about to write a key between the bounds.
    pub(crate) fn is_range_claimed(
        &self,
        tree: TreeId,
        (lower, upper): (Bound<&[u8]>, Bound<&[u8]>),
        owner: &Arc<Owner>,
    ) -> bool {
        self.shards.iter().any(|shard| {
            let rows = shard.rows.lock();
            let mut within = rows.get(&tree).into_iter();
            within.any(|rows| {
                let mut rows = rows.range::<[u8], _>((lower, upper));
                rows.any(|(_, entry)| entry.is_of_other(owner))
            })
        })
    }

    /// Drops what no reader at or above `horizon` can ask for of one key.
    pub(crate) fn collect(&self, tree: TreeId, key: &[u8], horizon: Ts) -> Collected {
        self.swept.fetch_max(horizon.0, Ordering::AcqRel);
        let (shard, mut trees) = self.rows(tree, key);
        let Some(rows) = trees.get_mut(&tree) else {
            return Collected::Left;
        };
        let Some(entry) = rows.get_mut(key) else {
            return Collected::Left;
        };
        // A version ends where the next one begins; it is needed while that lies above the horizon.
        let mut keep_from = entry.older.len();
        let mut end = entry.begin;
        while keep_from > 0 && end > horizon {
            keep_from -= 1;
            end = entry.older[keep_from].begin;
        }
        let freed: usize = entry
            .older
            .drain(..keep_from)
            .map(|version| cost(&version))
            .sum();
        self.bytes.fetch_sub(freed, Ordering::Relaxed);
        if entry.begin > horizon || entry.owner.is_some() {
            return Collected::Kept;
        }
        let ghost = entry.ghost;
        self.remove(shard, rows, key);
        if rows.is_empty() {
            trees.remove(&tree);
        }
        if ghost {
            Collected::LeftGhost
        } else {
            Collected::Left
        }
    }

    /// Notes a ghost that nobody needs any more; bounded, since it is met again.
    pub(crate) fn note_ghost(&self, tree: TreeId, key: &[u8]) {
        let mut leftover = self.leftover.lock();
        if leftover.len() < crate::limits::LEFTOVER_GHOSTS {
            leftover.push((tree, key.into()));
        }
    }

    /// Ghosts to look at again.
    pub(crate) fn take_leftover(&self) -> Vec<(TreeId, Arc<[u8]>)> {
        std::mem::take(&mut *self.leftover.lock())
    }
}

fn cost(version: &Version) -> usize {
    VERSION_COST + version.value.as_ref().map_or(0, |value| value.len())
}

/// What a validation asks of an entry.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    /// The reader's snapshot.
    pub(crate) after: Ts,
    /// Up to which timestamp this check answers.
    pub(crate) upto: Ts,
    /// The reader's own intents do not count.
    pub(crate) owner: &'a Arc<Owner>,
}

impl Asked<'_> {
    fn hits(&self, entry: &Entry) -> bool {
        if entry.begin > self.after && entry.begin <= self.upto {
            return true;
        }
        // The value that began last may lie above the bound, one before it inside.
        let inside = |version: &Version| version.begin > self.after && version.begin <= self.upto;
        if entry.older.iter().any(inside) {
            return true;
        }
        entry.owner.as_ref().is_some_and(|holder| {
            let stamp = holder.stamp();
            let foreign = !Arc::ptr_eq(holder, self.owner);
            foreign && stamp > Ts::ZERO && stamp <= self.upto
        })
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests;
