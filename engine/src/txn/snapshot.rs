//! A snapshot: one consistent state of the database, for as long as somebody holds it.
//!
//! The read rule lives here: the snapshot's position first, then the leaf (value and versioned bit
//! in one validated read), then, if the bit is set, the recent-writes index (R1); at the end the
//! floor, below which versions may be gone (X3: rather refused than changed).

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use terrane_btree::LeafHint;
use terrane_wal::lsn::{Lsn, TreeId, Ts};

use crate::database::{Database, Position};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::count;
use crate::runtime::Core;
use crate::txn::positions::ReadPin;
use crate::txn::range::Range;
use crate::txn::raw::{RawRead, ReadState};
use crate::txn::recent::Seen;
use crate::txn::scan::RawScan;

/// One consistent, unchanging state of the database. Owned, `Send`, cheap to clone; it blocks no
/// writer. Older values are kept in memory for it up to a budget: a snapshot that is held for long
/// under many updates ends with `SnapshotTooOld`.
#[derive(Clone)]
pub struct Snapshot {
    held: Arc<Held>,
}

struct Held {
    db: Database,
    pin: Arc<ReadPin>,
    lsn: Lsn,
    /// Taken in a forked child: every read is refused.
    forked: bool,
}

impl Snapshot {
    /// The state at the visible position.
    pub(crate) fn begin(db: &Database) -> Snapshot {
        let core = db.core();
        // Read before the position, so that it names at most what the snapshot holds.
        let lsn = core.visible_lsn();
        let pin = Arc::new(core.reads.pin(core.now(), || core.visible_ts()));
        let forked = core.check_process().is_err() && core.check_open().is_ok();
        Snapshot {
            held: Arc::new(Held {
                db: db.clone(),
                pin,
                lsn,
                forked,
            }),
        }
    }

    /// A log position all of whose effects the snapshot holds.
    #[must_use]
    pub fn position(&self) -> Position {
        Position(self.held.lsn.0)
    }

    /// The database that the snapshot was taken of.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.held.db
    }

    fn open_core(&self) -> Result<&Arc<Core>> {
        let core = self.held.db.core();
        if self.held.forked {
            core.check_process()?;
        }
        core.check_open()?;
        Ok(core)
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot({}, {})", self.held.pin.ts(), self.held.lsn)
    }
}

impl RawRead for Snapshot {
    fn database(&self) -> &Database {
        self.database()
    }

    fn get_raw(&self, tree: TreeId, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let core = self.open_core()?;
        Ok(read_row(core, tree, key, self.held.pin.ts())?.value)
    }

    fn scan_raw(
        &self,
        tree: TreeId,
        lower: Bound<Vec<u8>>,
        upper: Bound<Vec<u8>>,
        reverse: bool,
    ) -> Result<RawScan> {
        self.open_core()?;
        let range = Arc::new(Range { tree, lower, upper });
        RawScan::new(&self.held.db, self.held.pin.clone(), range, reverse, None)
    }

    fn state(&self, _: TreeId) -> Result<ReadState> {
        self.open_core()?;
        Ok(ReadState {
            pin: self.held.pin.clone(),
            own: None,
        })
    }
}

/// A row as one reader sees it.
#[derive(Debug)]
pub(crate) struct Found {
    /// Its value; None: there is no row.
    pub(crate) value: Option<Vec<u8>>,
    /// When that began; zero if before everything that is remembered.
    pub(crate) begin: Ts,
}

/// The row at `key` as a reader at `at` sees it.
pub(crate) fn read_row(core: &Core, tree: TreeId, key: &[u8], at: Ts) -> Result<Found> {
    read_row_at(core, tree, key, at, &LeafHint::default())
}

/// As [`read_row`], in a leaf that was found before, if it still is the one.
pub(crate) fn read_row_at(
    core: &Core,
    tree: TreeId,
    key: &[u8],
    at: Ts,
    hint: &LeafHint,
) -> Result<Found> {
    if let Some(found) = core.unapplied.get(tree, key, at) {
        return Ok(found);
    }
    let mut value = Vec::new();
    let flags = core.tree(tree)?.get_at(key, hint, &mut value)?;
    let (live, judged) = match flags {
        None => (false, false),
        Some(flags) => (!flags.ghost, flags.versioned || flags.ghost),
    };
    let leaf = |begin| Found {
        value: live.then_some(value),
        begin,
    };
    let found = if judged {
        match core.recent.seen(tree, key, at) {
            Seen::Leaf(begin) => leaf(begin),
            Seen::Older(begin, value) => Found {
                value: value.map(|value| value.to_vec()),
                begin,
            },
            Seen::Gone => return Err(too_old(core, at)),
        }
    } else {
        leaf(Ts::ZERO)
    };
    check_floor(core, at)?;
    Ok(found)
}

/// Refuses what was read if versions that the reader needed may be gone.
pub(crate) fn check_floor(core: &Core, at: Ts) -> Result<()> {
    if at < core.recent.floor() {
        Err(too_old(core, at))
    } else {
        Ok(())
    }
}

/// The error of a read position that was given up.
pub(crate) fn too_old(core: &Core, at: Ts) -> Error {
    count(&core.counters.snapshots_too_old);
    Error::new(
        ErrorKind::SnapshotTooOld,
        "the snapshot's versions were given up; take a new one",
    )
    .with("snapshot", at)
    .with("oldest", core.recent.floor())
}
