//! The workloads whose every I/O boundary is photographed, by the path through the engine.

use terrane_fuzz::keys::{KeyId, Length, RowId};
use terrane_fuzz::model::{Model, Writes};
use terrane_fuzz::ops::Setup;
use terrane_wal::io::sim::{Fault, ImageKind, OpKind, SimDisk};

use crate::stage::Stage;

/// A path through the engine.
pub(crate) struct Path {
    pub(crate) name: &'static str,
    /// Kinds of images that cannot arise on it, and why not is said beside it.
    pub(crate) cannot: &'static [ImageKind],
    /// What happens before the camera rolls.
    pub(crate) prepare: fn(u64) -> Stage,
    /// What is photographed.
    pub(crate) act: fn(&mut Stage),
}

const PLAIN: Setup = Setup {
    buffered: false,
    small_pool: false,
};
const SMALL: Setup = Setup {
    buffered: false,
    small_pool: true,
};

/// How a path's databases are opened.
pub(crate) fn setup(path: &Path) -> Setup {
    if path.name == "eviction" {
        SMALL
    } else {
        PLAIN
    }
}

fn fresh(seed: u64) -> Stage {
    let mut stage = Stage::new(seed, PLAIN);
    stage.fill(0, 0..20, Length::Small);
    stage.fill(1, 0..5, Length::Tiny);
    stage
}

fn with_image(seed: u64) -> Stage {
    let mut stage = fresh(seed);
    stage.checkpoint();
    stage
}

/// Many leaves, all of them in an image.
fn many_rows(seed: u64) -> Stage {
    let mut stage = with_image(seed);
    for from in (0..400).step_by(100) {
        stage.fill(0, from..from + 100, Length::Small);
    }
    stage.checkpoint();
    stage.checkpoint();
    stage
}

fn single_put(stage: &mut Stage) {
    // Longer than a sector, so that it can be torn.
    stage.put(0, 3, Length::Medium);
    stage.put(0, 700, Length::Medium);
}

fn split(stage: &mut Stage) {
    stage.fill(0, 20..140, Length::Small);
    stage.checkpoint();
    stage.fill(0, 140..260, Length::Small);
    stage.checkpoint();
}

fn merge(stage: &mut Stage) {
    stage.clear(0, 10..250);
    stage.checkpoint();
    stage.clear(0, 250..390);
    stage.checkpoint();
}

fn overflow(stage: &mut Stage) {
    let row = RowId {
        table: 0,
        key: KeyId::bulk(7),
    };
    for length in [Length::Overflow, Length::Huge, Length::Small] {
        let val = stage.val(length);
        stage.commit(Writes::from([(row, Some(val))]));
        stage.checkpoint();
    }
    // The longest key lies outside of its page too.
    let row = RowId {
        table: 0,
        key: KeyId::pick(38 * 4 + 2),
    };
    assert_eq!(row.key.bytes().len(), 32 << 10);
    let val = stage.val(Length::Overflow);
    stage.commit(Writes::from([(row, Some(val))]));
    stage.commit(Writes::from([(row, None)]));
    stage.checkpoint();
}

fn two_tables(stage: &mut Stage) {
    for round in 0..3 {
        let writes = (0..8).map(|n| {
            let row = RowId {
                table: n as u8 % 2,
                key: KeyId::bulk(round * 3 + n),
            };
            let val = if n == 5 {
                None
            } else {
                Some(stage.val(Length::Medium))
            };
            (row, val)
        });
        let writes = writes.collect();
        stage.commit(writes);
    }
}

fn group(stage: &mut Stage) {
    stage.group(4, 3);
}

fn log_switch(stage: &mut Stage) {
    for round in 0..14 {
        stage.put(1, round, Length::Huge);
    }
    assert!(
        stage.rig.db.stats().log.segments_created > 1,
        "no segment was full"
    );
}

fn checkpoint(stage: &mut Stage) {
    stage.put(0, 2, Length::Medium);
    stage.put(1, 2, Length::Overflow);
    stage.checkpoint();
    stage.checkpoint();
}

/// Seen to fail (a corrupt page in a crash image) on a simulated disk that kept what a failed write
/// left as a change of its own for ever: later crash images damaged it again, over slots that had
/// been written and synced since.
fn abandoned(stage: &mut Stage) {
    let disk = stage.rig.sim.disk().clone();
    stage.fill(0, 30..60, Length::Small);
    disk.inject(Fault::nth(OpKind::Write, 0).on("data.").sticky());
    let failed = stage.rig.db.checkpoint();
    assert!(failed.is_err(), "a page write that failed was not noticed");
    disk.clear_faults();
    stage.put(0, 31, Length::Overflow);
    stage.checkpoint();
    // Once: what could not be written goes elsewhere, in this checkpoint or in the next.
    stage.put(0, 32, Length::Small);
    disk.inject(Fault::nth(OpKind::Write, 0).on("map."));
    let _ = stage.rig.db.checkpoint();
    disk.clear_faults();
    stage.put(0, 33, Length::Small);
    stage.checkpoint();
}

fn recycle(stage: &mut Stage) {
    for round in 0..4 {
        for n in 0..6 {
            stage.put(1, 10 * round + n, Length::Huge);
        }
        stage.checkpoint();
    }
    for n in 0..6 {
        stage.put(1, n, Length::Huge);
    }
}

fn growth(stage: &mut Stage) {
    for round in 0..3 {
        stage.fill(1, round * 10..round * 10 + 10, Length::Huge);
        stage.checkpoint();
    }
}

fn eviction_prepare(seed: u64) -> Stage {
    let mut stage = Stage::new(seed, SMALL);
    for round in 0..6 {
        stage.fill(0, round * 150..round * 150 + 150, Length::Medium);
    }
    stage.checkpoint();
    stage
}

fn eviction(stage: &mut Stage) {
    for round in 0..5 {
        stage.fill(1, round * 150..round * 150 + 150, Length::Medium);
    }
    stage.clear(0, 100..300);
    stage.checkpoint();
}

/// What the camera sees of a change of the schema: a third table, an index on it, and rows.
fn schema(stage: &mut Stage) {
    crate::late::create_and_fill(&stage.rig.db);
    stage.fill(1, 0..6, Length::Huge);
    stage.fill(0, 20..140, Length::Small);
    stage.checkpoint();
}

/// A database whose last commits are in the log alone, cut off from its power.
pub(crate) fn interrupted(seed: u64) -> (SimDisk, Model) {
    let mut stage = with_image(seed);
    stage.fill(0, 40..90, Length::Small);
    stage.put(1, 8, Length::Huge);
    stage.clear(0, 5..15);
    let left = stage.rig.sim.disk().crash(seed);
    let model = stage.model.clone();
    stage.rig.stop();
    (left, model)
}

use ImageKind::Rename;

/// Nothing is made, renamed or removed on the path.
const NO_NAMES: &[ImageKind] = &[Rename];

/// All paths of one running database.
pub(crate) const PATHS: &[Path] = &[
    Path {
        name: "single put",
        cannot: NO_NAMES,
        prepare: fresh,
        act: single_put,
    },
    Path {
        name: "page split",
        cannot: NO_NAMES,
        prepare: with_image,
        act: split,
    },
    Path {
        name: "merge",
        cannot: NO_NAMES,
        prepare: many_rows,
        act: merge,
    },
    Path {
        name: "large value",
        cannot: NO_NAMES,
        prepare: with_image,
        act: overflow,
    },
    Path {
        name: "two tables",
        cannot: NO_NAMES,
        prepare: fresh,
        act: two_tables,
    },
    Path {
        name: "group commit",
        cannot: NO_NAMES,
        prepare: fresh,
        act: group,
    },
    Path {
        name: "log switch",
        cannot: &[],
        prepare: fresh,
        act: log_switch,
    },
    Path {
        name: "checkpoint",
        cannot: NO_NAMES,
        prepare: fresh,
        act: checkpoint,
    },
    Path {
        name: "abandoned",
        cannot: &[],
        prepare: fresh,
        act: abandoned,
    },
    Path {
        name: "log recycle",
        cannot: &[],
        prepare: fresh,
        act: recycle,
    },
    Path {
        name: "zone growth",
        cannot: &[],
        prepare: fresh,
        act: growth,
    },
    Path {
        name: "eviction",
        cannot: &[],
        prepare: eviction_prepare,
        act: eviction,
    },
    Path {
        name: "schema change",
        cannot: &[],
        prepare: with_image,
        act: schema,
    },
];
