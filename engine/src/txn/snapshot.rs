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
use crate::local::Local;
use crate::metrics::count;
use crate::routes::{Anchor, Routes};
use crate::runtime::Core;
use crate::txn::legs::Legs;
use crate::txn::moments::{Moment, Moments};
use crate::txn::positions::ReadPin;
use crate::txn::range::Range;
use crate::txn::raw::{Legged, RawRead, ReadState};
use crate::txn::recent::Seen;
use crate::txn::scan::RawScan;
use crate::txn::transaction::no_such_shard;

/// One consistent, unchanging state of the database. Owned, `Send`, cheap to clone; it blocks no
/// writer. Older values are kept in memory for it up to a budget: a snapshot that is held for long
/// under many updates ends with `SnapshotTooOld`.
///
/// Of a database of several shards it is one timestamp, at or above that of every commit that
/// anybody in this process was told of; a shard is asked for it at the first read there.
#[derive(Clone)]
pub struct Snapshot {
    held: Arc<Held>,
}

enum Held {
    /// The database has one shard.
    One(View),
    Spread {
        db: Database,
        routes: Arc<dyn Routes>,
        moment: Arc<Moment>,
        views: Legs<View>,
    },
}

/// What a snapshot reads in one shard; all of it where there is one.
pub struct View {
    anchor: Anchor,
    /// None: there was no leader to take it at.
    pin: Option<Arc<ReadPin>>,
    lsn: Lsn,
    /// Taken in a forked child: every read is refused.
    forked: bool,
    /// Read in other shards too: what they have decided is waited for.
    spread: bool,
}

impl View {
    /// The state at the visible position.
    pub(crate) fn begin(anchor: Anchor) -> View {
        let mut view = View {
            anchor,
            pin: None,
            lsn: Lsn::ZERO,
            forked: false,
            spread: false,
        };
        if let Ok(local) = view.anchor.local() {
            let core = local.core();
            // Read before the position, so that it names at most what the snapshot holds.
            let lsn = core.visible_lsn();
            let pin = Arc::new(core.reads.pin(core.now(), || core.visible_ts()));
            let forked = core.check_process().is_err() && core.check_open().is_ok();
            (view.pin, view.lsn, view.forked) = (Some(pin), lsn, forked);
        }
        view
    }

    /// The state at a moment of all shards.
    ///
    /// # Errors
    /// `SnapshotTooOld`; those of a wait for what was committed before the moment.
    pub(crate) fn at(anchor: Anchor, moment: Ts) -> Result<View> {
        let core = anchor.local()?.core();
        let pin = Arc::new(core.reads.pin(core.now(), || moment));
        core.reach_shown(moment)?;
        Ok(View {
            lsn: core.visible_lsn(),
            anchor,
            pin: Some(pin),
            forked: false,
            spread: true,
        })
    }

    /// As [`View::open`], once nothing is undecided that may be seen there.
    fn settled(
        &self,
        tree: TreeId,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> Result<(&Local, &Arc<ReadPin>)> {
        let (local, pin) = self.open()?;
        if self.spread {
            let core = local.core();
            core.prepared.settle(core, tree, bounds, pin.ts())?;
        }
        Ok((local, pin))
    }

    /// The trees and the position in them, if they may be read.
    fn open(&self) -> Result<(&Local, &Arc<ReadPin>)> {
        let local = self.anchor.local()?;
        let core = local.core();
        if self.forked {
            core.check_process()?;
        }
        core.check_open()?;
        match &self.pin {
            Some(pin) => Ok((local, pin)),
            None => Err(Error::new(ErrorKind::Unavailable, "no member led")),
        }
    }
}

impl Snapshot {
    /// Of the only shard.
    pub(crate) fn of(view: View) -> Snapshot {
        Snapshot {
            held: Arc::new(Held::One(view)),
        }
    }

    /// The state at the visible position of the only shard.
    pub(crate) fn begin(anchor: Anchor) -> Snapshot {
        Snapshot::of(View::begin(anchor))
    }

    /// The state of all shards now.
    pub(crate) fn spread(db: &Database, routes: &Arc<dyn Routes>, all: &Arc<Moments>) -> Snapshot {
        Snapshot {
            held: Arc::new(Held::Spread {
                db: db.clone(),
                routes: Arc::clone(routes),
                moment: all.now(),
                views: Legs::new(),
            }),
        }
    }

    /// A position all of whose effects the snapshot holds.
    #[must_use]
    pub fn position(&self) -> Position {
        Position(match &*self.held {
            Held::One(view) => view.lsn.0,
            Held::Spread { moment, .. } => moment.ts().map_or(0, |ts| ts.0),
        })
    }

    /// The database that the snapshot was taken of.
    #[must_use]
    pub fn database(&self) -> &Database {
        match &*self.held {
            Held::One(view) => view.anchor.database(),
            Held::Spread { db, .. } => db,
        }
    }
}

impl Legged for Snapshot {
    type Leg = View;

    #[inline]
    fn leg(&self, shard: u32) -> Result<&View> {
        match &*self.held {
            Held::One(view) if shard == 0 => Ok(view),
            Held::One(_) => Err(no_such_shard(shard)),
            Held::Spread {
                db,
                routes,
                moment,
                views,
            } => {
                let at = moment.at(|| Ts::ZERO);
                views.open(shard, || routes.view(db, shard, Some(at)))
            }
        }
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pin {
            Some(pin) => write!(f, "Snapshot({}, {})", pin.ts(), self.lsn),
            None => f.write_str("Snapshot(no leader)"),
        }
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.held {
            Held::One(view) => view.fmt(f),
            Held::Spread { moment, .. } => write!(f, "Snapshot({:?})", moment.ts()),
        }
    }
}

impl RawRead for View {
    fn local(&self) -> Result<&Local> {
        self.anchor.local()
    }

    fn get_raw(&self, tree: TreeId, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let (local, pin) = self.settled(tree, (Bound::Included(key), Bound::Included(key)))?;
        Ok(read_row(local.core(), tree, key, pin.ts())?.value)
    }

    fn scan_raw(
        &self,
        tree: TreeId,
        lower: Bound<Vec<u8>>,
        upper: Bound<Vec<u8>>,
        reverse: bool,
    ) -> Result<RawScan> {
        let range = Arc::new(Range { tree, lower, upper });
        let (local, pin) = self.settled(tree, range.bounds())?;
        RawScan::new(local, pin.clone(), range, reverse, None)
    }

    fn state(&self, tree: TreeId) -> Result<ReadState> {
        let (_, pin) = self.settled(tree, (Bound::Unbounded, Bound::Unbounded))?;
        Ok(ReadState {
            pin: pin.clone(),
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
    core.shown(read_leaf(core, tree, key, at, hint))
}

#[inline]
fn read_leaf(core: &Core, tree: TreeId, key: &[u8], at: Ts, hint: &LeafHint) -> Result<Found> {
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

/// Refuses what was read if versions that the reader needed may be gone, or if it was read while
/// the trees were being made again.
pub(crate) fn check_floor(core: &Core, at: Ts) -> Result<()> {
    core.check_shown()?;
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
