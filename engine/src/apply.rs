//! The applier: rows of a commit into the trees.
//!
//! They go through the recent-writes index: pre-image and begin timestamp first, then value and
//! versioned bit, both under the leaf's latch. (Recovered rows have no readers and no older
//! versions: `recovery` puts them where they belong by itself.) A row whose leaf cannot be read
//! stays here as unapplied: it counts for the redo position, keeps its intent, and is tried again
//! in the background (X2).

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use terrane_btree::{Edit, Progress, Row, RowValue, RunRow, StoreError, Tree};
use terrane_wal::Sequenced;
use terrane_wal::io::Purpose;
use terrane_wal::lsn::{Lsn, TreeId, Ts};
use terrane_wal::sync::{AtomicUsize, Mutex, Ordering};

use crate::catalog::{OUTCOMES, Remembered};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::Core;
use crate::txn::intents::Intents;
use crate::txn::owner::Owner;
use crate::txn::records::Records;
use crate::txn::snapshot::Found;
use crate::txn::write_set::WriteSet;

/// How often a row is tried while the store is full, at a millisecond each.
const FULL_ATTEMPTS: u32 = 2_000;

/// Pages of 8 KiB that applying writes and records may need: what the bytes fill, and some for
/// splits.
pub(crate) fn pages_wanted(writes: &WriteSet, records: &Records) -> u64 {
    let bytes = writes.bytes() + records.bytes();
    let many = (writes.len() + records.len()).min(256);
    (bytes / 4096 + many + 4) as u64
}

/// Step 7 of a commit: every row into its tree, read from `shown` on, or from when it is committed.
///
/// # Errors
/// `Unknown`, and the database is poisoned: the store stayed full although room was admitted.
pub(crate) fn rows(
    core: &Arc<Core>,
    writes: &WriteSet,
    intents: &mut Intents,
    (place, shown): (Sequenced, Option<Ts>),
) -> Result<()> {
    let shown = shown.filter(|_| !terrane_wal::planted!("decided_rows_are_read_from_then_on"));
    let times = (place.ts, shown.unwrap_or(place.ts));
    let outcome = Remembered {
        ts: place.ts,
        begin: place.begin,
    }
    .encode();
    for (tree, key, write) in writes.iter() {
        let value = if tree == OUTCOMES {
            Some(&*outcome)
        } else {
            write.value.as_deref()
        };
        let mut attempts = 0;
        loop {
            match row(core, tree, key, value, times) {
                Ok(()) => break,
                Err(StoreError::Full { .. }) if attempts < FULL_ATTEMPTS => {
                    attempts += 1;
                    make_room(core);
                }
                Err(error @ (StoreError::Corrupt(_) | StoreError::Io(_))) => {
                    let owner = intents.owner().clone();
                    let waiting = Waiting::new(place, value, Some(owner), error);
                    core.unapplied.add(tree, key.clone(), waiting);
                    intents.leave_standing(tree, key);
                    break;
                }
                Err(error) => return Err(not_applied(core, error)),
            }
        }
    }
    Ok(())
}

/// Step 7 for the records of vector indexes: into their trees, as recovery would put them.
///
/// # Errors
/// As [`rows`].
pub(crate) fn records(core: &Core, records: &Records, place: Sequenced) -> Result<()> {
    for (tree, records) in records.trees() {
        let Ok(handle) = core.tree(tree) else {
            panic!("X2: the index in {tree} has no handle");
        };
        let rows: Vec<RunRow<'_>> = records
            .iter()
            .map(|(key, record)| (&key[..], record.value.as_deref()))
            .collect();
        if core.unapplied.len() > 0 {
            one_by_one(core, handle, &rows, place);
            continue;
        }
        let mut attempts = 0;
        loop {
            match handle.apply_run(&rows, Purpose::Miss) {
                Ok(()) => break,
                // Doing the first of them again changes nothing.
                Err(StoreError::Full { .. }) if attempts < FULL_ATTEMPTS => {
                    attempts += 1;
                    make_room(core);
                }
                Err(StoreError::Corrupt(_) | StoreError::Io(_)) => {
                    one_by_one(core, handle, &rows, place);
                    break;
                }
                Err(error) => return Err(not_applied(core, error)),
            }
        }
    }
    Ok(())
}

/// Installs records around leaves that cannot be read; those wait, and so does what comes after
/// them.
fn one_by_one(core: &Core, tree: &Tree, rows: &[RunRow<'_>], place: Sequenced) {
    for &(key, value) in rows {
        if core.unapplied.replace(tree.id(), key, place.ts, value) {
            continue;
        }
        if let Err(error) = record(tree, key, value) {
            let waiting = Waiting::new(place, value, None, error);
            core.unapplied.add(tree.id(), key.into(), waiting);
        }
    }
}

/// One record of an index: nobody reads an older version of it.
fn record(tree: &Tree, key: &[u8], value: Option<&[u8]>) -> Result<(), StoreError> {
    tree.update(key, &mut |_| match value {
        Some(value) => Edit::Put {
            value,
            versioned: false,
        },
        None => Edit::Remove,
    })
}

/// Closes the database for writing: a commit is in the log and not in the trees.
fn not_applied(core: &Core, error: StoreError) -> Error {
    core.poison(format!("a commit could not be applied: {error}"));
    Error::new(ErrorKind::Unknown, "the commit is not visible yet").caused_by(error)
}

/// Lets the store write out and free something, or lets others do it.
fn make_room(core: &Core) {
    if !matches!(core.store.background_step(), Ok(Progress::More)) {
        core.env
            .park
            .waiter()
            .park_timeout(Duration::from_millis(1));
    }
}

/// One row of a commit.
fn row(
    core: &Core,
    tree: TreeId,
    key: &[u8],
    value: Option<&[u8]>,
    times: (Ts, Ts),
) -> Result<(), StoreError> {
    let Ok(handle) = core.tree(tree) else {
        panic!("X2: {tree} passed the schema check and has no handle");
    };
    // Bytes of a long value are not in the leaf; the intent keeps the row as it is meanwhile.
    let mut long: Option<Vec<u8>> = None;
    loop {
        let mut wants_long = false;
        handle.update(key, &mut |row: Option<Row<'_>>| {
            let before = match row {
                Some(row) if !row.flags.ghost => match row.value {
                    RowValue::Inline(bytes) => Some(bytes),
                    RowValue::Overflow { .. } if long.is_none() => {
                        wants_long = true;
                        return Edit::Keep;
                    }
                    RowValue::Overflow { .. } => long.as_deref(),
                },
                _ => None,
            };
            wants_long = false;
            let ghost = value.is_none();
            core.recent.push_shown(tree, key, times, before, ghost);
            match value {
                Some(value) => Edit::Put {
                    value,
                    versioned: true,
                },
                None if row.is_some() => Edit::Ghost,
                None => Edit::Keep,
            }
        })?;
        if !wants_long {
            return Ok(());
        }
        let mut bytes = Vec::new();
        handle.get(key, &mut bytes)?;
        long = Some(bytes);
    }
}

/// Takes a ghost out of its leaf if nobody has an interest in it any more. True if it went.
pub(crate) fn purge(core: &Core, tree: TreeId, key: &[u8]) -> Result<bool> {
    let handle = core.tree(tree)?;
    let mut gone = false;
    let mut wanted = false;
    handle.update(key, &mut |row| {
        let ghost = row.is_some_and(|row| row.flags.ghost);
        // Asked under the latch: a writer that comes now changes the leaf after this.
        wanted = ghost && core.recent.contains(tree, key);
        gone = ghost && !wanted;
        if gone { Edit::Remove } else { Edit::Keep }
    })?;
    if wanted {
        core.recent.note_ghost(tree, key);
    }
    Ok(gone)
}

/// A row that waits for its leaf to become readable.
#[derive(Debug)]
struct Waiting {
    begin: Lsn,
    ts: Ts,
    value: Option<Vec<u8>>,
    /// Who holds the row's intent; None: a record of an index, which has none.
    owner: Option<Arc<Owner>>,
    cause: StoreError,
}

impl Waiting {
    fn new(
        place: Sequenced,
        value: Option<&[u8]>,
        owner: Option<Arc<Owner>>,
        cause: StoreError,
    ) -> Waiting {
        let value = value.map(<[u8]>::to_vec);
        Waiting {
            begin: place.begin,
            ts: place.ts,
            value,
            owner,
            cause,
        }
    }
}

type WaitingRows = BTreeMap<TreeId, BTreeMap<Arc<[u8]>, Waiting>>;

/// Committed rows that are not in their trees.
#[derive(Debug, Default)]
pub(crate) struct Unapplied {
    rows: Mutex<WaitingRows>,
    /// Rows in `rows`: readers pass without the lock while there is none.
    count: AtomicUsize,
}

impl Unapplied {
    /// Rows that wait.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    fn add(&self, tree: TreeId, key: Arc<[u8]>, waiting: Waiting) {
        self.rows
            .lock()
            .entry(tree)
            .or_default()
            .insert(key, waiting);
        self.count.fetch_add(1, Ordering::Release);
    }

    /// Gives a record that waits its newer value; false if it does not wait.
    fn replace(&self, tree: TreeId, key: &[u8], ts: Ts, value: Option<&[u8]>) -> bool {
        let mut rows = self.rows.lock();
        match rows.get_mut(&tree).and_then(|rows| rows.get_mut(key)) {
            Some(waiting) => {
                (waiting.ts, waiting.value) = (ts, value.map(<[u8]>::to_vec));
                true
            }
            None => false,
        }
    }

    /// Takes over a row that recovery could not put into its leaf, before anybody else comes. The
    /// log has it from `begin` on.
    pub(crate) fn restore(
        &self,
        core: &Core,
        (tree, key): (TreeId, Arc<[u8]>),
        value: Option<Vec<u8>>,
        begin: Lsn,
        cause: StoreError,
    ) {
        if core.tree(tree).is_err() {
            return;
        }
        let ts = core.prefix.applied_ts();
        let owner = (!core.vectors.is_index(tree)).then(|| {
            let owner = Owner::new(core.next_age());
            owner.set_committing();
            owner.set_stamp(ts);
            core.recent.claim(tree, &key, &owner, None);
            owner
        });
        let waiting = Waiting {
            begin,
            ts,
            value,
            owner,
            cause,
        };
        self.add(tree, key, waiting);
    }

    /// The row as a reader at `at` sees it, if it waits here.
    pub(crate) fn get(&self, tree: TreeId, key: &[u8], at: Ts) -> Option<Found> {
        if self.len() == 0 {
            return None;
        }
        let rows = self.rows.lock();
        let waiting = rows.get(&tree)?.get(key)?;
        (waiting.ts <= at).then(|| Found {
            value: waiting.value.clone(),
            begin: waiting.ts,
        })
    }

    /// Refuses a scan over a row that waits.
    pub(crate) fn check_range(
        &self,
        tree: TreeId,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
    ) -> Result<()> {
        if self.len() == 0 || crate::txn::range::crossed(lower, upper) {
            return Ok(());
        }
        let rows = self.rows.lock();
        let found = rows
            .get(&tree)
            .and_then(|rows| rows.range::<[u8], _>((lower, upper)).next());
        match found {
            Some((_, waiting)) => Err(waiting.cause.clone().into()),
            None => Ok(()),
        }
    }

    /// Where redo has to begin for the sake of these rows.
    pub(crate) fn redo_lsn(&self) -> Option<Lsn> {
        if self.len() == 0 {
            return None;
        }
        self.rows
            .lock()
            .values()
            .flat_map(BTreeMap::values)
            .map(|waiting| waiting.begin)
            .min()
    }

    /// Tries every row again. Called by one thread at a time.
    pub(crate) fn retry(&self, core: &Core) {
        if self.len() == 0 {
            return;
        }
        let keys: Vec<(TreeId, Arc<[u8]>)> = {
            let rows = self.rows.lock();
            let keys = |(tree, rows): (&TreeId, &BTreeMap<Arc<[u8]>, Waiting>)| {
                rows.keys()
                    .map(|key| (*tree, key.clone()))
                    .collect::<Vec<_>>()
            };
            rows.iter().flat_map(keys).collect()
        };
        for (tree, key) in keys {
            let (value, ts, owner) = {
                let rows = self.rows.lock();
                let Some(waiting) = rows.get(&tree).and_then(|rows| rows.get(&key)) else {
                    continue;
                };
                (waiting.value.clone(), waiting.ts, waiting.owner.clone())
            };
            let done = match (&owner, core.tree(tree)) {
                (Some(_), _) => row(core, tree, &key, value.as_deref(), (ts, ts)),
                (None, Ok(handle)) => record(handle, &key, value.as_deref()),
                (None, Err(_)) => Ok(()),
            };
            if done.is_ok() {
                let mut rows = self.rows.lock();
                // A record may have become another meanwhile: it is tried again.
                match rows.get_mut(&tree) {
                    Some(rows) if rows.get(&key).is_some_and(|waiting| waiting.ts == ts) => {
                        rows.remove(&key);
                    }
                    _ => continue,
                }
                drop(rows);
                self.count.fetch_sub(1, Ordering::Release);
                if let Some(owner) = owner {
                    core.recent.release(tree, &key, &owner);
                    owner.released();
                }
            }
        }
    }
}
