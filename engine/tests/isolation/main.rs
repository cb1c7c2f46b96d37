//! Isolation: what transactions may see of each other, at both levels.
//!
//! `stepped` interleaves hand-made transactions on one thread, one anomaly each: at the weaker
//! level those that it allows must show, or the test sees nothing; `reach` does so for what a scan
//! has seen and for what it has not, `indexes` for the ways of reading above it, `near` for
//! searches that a vector index serves. `threads` runs workloads with an invariant on real threads.
//! `list_append` records whole histories on four threads and hands them to two checkers, our own
//! (`graph`) and the crate `adya`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something unexpected happens"
)]

mod graph;
mod indexes;
mod list_append;
mod near;
mod reach;
mod stepped;
mod threads;

use tempfile::TempDir;
use terrane::{Database, Error, ErrorKind, Isolation, Table, TableDef};

/// Rows of every workload here: a number by a number.
const CELLS: TableDef<u64, i64> = TableDef::new("cells");

const BOTH: [Isolation; 2] = [Isolation::Snapshot, Isolation::Serializable];

/// A database of one level, in a folder that goes with it.
struct World {
    db: Database,
    cells: Table<u64, i64>,
    isolation: Isolation,
    _folder: TempDir,
}

impl World {
    fn new(isolation: Isolation) -> World {
        let folder = tempfile::tempdir().expect("a folder");
        let db = Database::builder()
            .isolation(isolation)
            .segment_bytes(256 << 10)
            .open(folder.path().join("db"))
            .expect("opens");
        let cells = db.table(CELLS).expect("a table");
        World {
            db,
            cells,
            isolation,
            _folder: folder,
        }
    }

    /// A world whose first cells hold these numbers.
    fn with(isolation: Isolation, numbers: &[i64]) -> World {
        let world = World::new(isolation);
        let put = world.db.write(|tx| {
            for (key, number) in numbers.iter().enumerate() {
                world.cells.put(tx, key as u64, number)?;
            }
            Ok(())
        });
        put.expect("set up");
        world
    }

    fn number(&self, key: u64) -> i64 {
        let found = self.cells.get(&self.db.snapshot(), key).expect("a read");
        found.unwrap_or(0)
    }

    fn is_serializable(&self) -> bool {
        self.isolation == Isolation::Serializable
    }
}

/// True for a commit, false for a conflict; anything else ends the test.
fn committed<T>(outcome: Result<T, Error>) -> bool {
    match outcome {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::Conflict => {
            assert!(error.is_retryable(), "{error:?}");
            false
        }
        Err(error) => panic!("a commit or a conflict was expected: {error:?}"),
    }
}

/// splitmix64
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}
