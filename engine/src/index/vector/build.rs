//! An index over a table that is in use: made in slices while others read and write.
//!
//! ```text
//! change of the schema: tree, meta (building), catalog row   from here commits bind to it
//! centres from a sample of the rows                          one system transaction
//! rows in the order of their keys, 64 a slice                entry and locator, and how far it is
//! meta (ready)                                               from here searches ask it
//! ```
//!
//! A row that nobody has changed since the index was made has no locator: a slice gives it one,
//! with an entry under the version that the stored row carries, so that no row is written. Under
//! its intent, since a commit that changes it at the same time binds it by itself; then it has a
//! locator and the slice leaves it. What is done stands in the records: after a crash, or an error,
//! the same call goes on behind the last slice. Memory: the sample and one slice.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::time::Duration;

use terrane_btree::{Direction, LeafRows};
use terrane_vector::{IndexState, Key, Meta};
use terrane_wal::lsn::Ts;

use super::bind::Binding;
use super::maintain::{self, Upkeep, system};
use super::view::View;
use super::{Hosted, VectorTable};
use crate::catalog;
use crate::codec::{FieldDef, Key as TableKey, Record as TableRecord};
use crate::database::Database;
use crate::error::{Error, ErrorKind, Result};
use crate::local::Local;
use crate::table::Shape;
use crate::table::place::Rooms;
use crate::txn::commit::{Entrance, run};
use crate::txn::records::Record;
use crate::txn::snapshot::read_row;

/// Rows of a slice.
const SLICE: usize = 64;
/// Bytes of the sample that places the centres, at most; it is held twice, once as codes see it.
const SAMPLE_BYTES: usize = 32 << 20;

/// Rows of the sample's pass between two reports.
const REPORT_EVERY: u64 = 4096;

/// How far a build has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BuildProgress {
    /// Rows read for the sample that places the centres, by this call.
    pub sampled: u64,
    /// Rows that were looked at, by this call.
    pub rows: u64,
    /// Of these, rows that got an entry; others had one, or no vector.
    pub indexed: u64,
    /// True when searches use the index.
    pub done: bool,
}

/// How a build ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Built {
    /// Searches use the index.
    Ready,
    /// The callback ended it: there is no index, and nothing of it but pages that the next open
    /// takes back.
    Cancelled,
}

type OnProgress<'p> = Box<dyn FnMut(BuildProgress) -> ControlFlow<()> + 'p>;

/// Told of each step in one shard.
type Report<'r> = dyn FnMut(BuildProgress) -> ControlFlow<()> + 'r;

/// An index to be made; by [`crate::Table::create_vector_index`].
#[must_use = "nothing is built until it is run"]
pub struct CreateIndex<'p> {
    rooms: Rooms,
    def: FieldDef,
    replicas: Option<usize>,
    bits: Option<u8>,
    on_progress: OnProgress<'p>,
}

impl<'p> CreateIndex<'p> {
    pub(crate) fn new(rooms: Rooms, def: FieldDef) -> CreateIndex<'p> {
        CreateIndex {
            rooms,
            def,
            replicas: None,
            bits: None,
            on_progress: Box::new(|_| ControlFlow::Continue(())),
        }
    }

    /// Postings in which each row stands, 1 to 4. Default 1; more for an index that is read from
    /// the device: fewer, fuller postings are read for the same recall.
    pub fn replicas(mut self, replicas: usize) -> CreateIndex<'p> {
        self.replicas = Some(replicas);
        self
    }

    /// Bits of a code for each dimension: 1, or 4 in two stages (default), which reads fewer rows.
    pub fn bits(mut self, bits: u8) -> CreateIndex<'p> {
        self.bits = Some(bits);
        self
    }

    /// Called after every slice, and every few thousand rows while the sample that places the
    /// centres is drawn; `Break` ends the build and takes the index away.
    pub fn on_progress(
        mut self,
        call: impl FnMut(BuildProgress) -> ControlFlow<()> + 'p,
    ) -> CreateIndex<'p> {
        self.on_progress = Box::new(call);
        self
    }

    /// Builds the index, or goes on with a build that was interrupted. Others read and write the
    /// table meanwhile. Returns at once if the index is there.
    ///
    /// # Errors
    /// `Invalid` for a field that is not declared `vector(..)`, replicas outside 1 to 4, or bits
    /// that are not 1 or 4; `Schema` if the index is there or was begun with other options than
    /// those given here; `ReadOnly`, `Closed`, `Full`, `TimedOut` (a row stayed locked), those of
    /// a read and of a commit: what was built stays and is gone on with by the next call.
    pub fn run(mut self, db: &Database) -> Result<Built> {
        let named = |error: Error, this: &Self| {
            let error = error.with("table", &this.rooms.first().info.name);
            error.with("field", this.def.name)
        };
        if self.def.vector.is_none() {
            let error = Error::new(ErrorKind::Invalid, "a field cannot be searched by distance");
            return Err(named(error, &self));
        }
        let (replicas, bits) = (self.replicas.unwrap_or(1), self.bits.unwrap_or(4));
        let ranges = [
            ("replicas", replicas, (1..=4).contains(&replicas), "1 to 4"),
            ("bits", bits.into(), bits == 1 || bits == 4, "1 or 4"),
        ];
        if let Some((option, given, _, range)) = ranges.into_iter().find(|(.., fits, _)| !fits) {
            let error = Error::new(ErrorKind::Invalid, "an option is out of range");
            let error = error.with("option", option).with("given", given);
            return Err(named(error.with("range", range), &self));
        }
        let options = (replicas, bits == 4);
        let rooms = self.rooms.clone();
        let mut before = BuildProgress::default();
        let last = rooms.all().count() - 1;
        for (shard, shape) in rooms.all() {
            // All of a shard's build is done at one member.
            let local = db.leader(shard)?;
            let mut here = BuildProgress::default();
            let built = self.run_in(&local, shape, options, &mut |call, progress| {
                here = progress;
                call(BuildProgress {
                    sampled: before.sampled + progress.sampled,
                    rows: before.rows + progress.rows,
                    indexed: before.indexed + progress.indexed,
                    done: progress.done && shard as usize == last,
                })
            });
            if built.map_err(|error| named(error, &self))? == Built::Cancelled {
                for (shard, shape) in rooms.all() {
                    let local = db.leader(shard)?;
                    catalog::drop_vector_index(&local, &shape.info.name, self.def.id)?;
                }
                return Ok(Built::Cancelled);
            }
            before.sampled += here.sampled;
            before.rows += here.rows;
            before.indexed += here.indexed;
        }
        Ok(Built::Ready)
    }

    /// The build in a shard.
    fn run_in(
        &mut self,
        local: &Local,
        shape: &Shape,
        options: (usize, bool),
        report: &mut dyn FnMut(&mut OnProgress<'p>, BuildProgress) -> ControlFlow<()>,
    ) -> Result<Built> {
        let field = self.def.id;
        catalog::add_vector_index(local, &shape.info.name, field, options)?;
        let core = local.core();
        let lost = || Error::new(ErrorKind::NotFound, "the index was taken away meanwhile");
        let table = core.vectors.get(shape.info.tree).ok_or_else(lost)?;
        table.check_whole(Some(field))?;
        let hosted = table.of_field(field).ok_or_else(lost)?.clone();
        self.check_options(&hosted)?;
        let build = Build {
            local,
            table: &table,
            hosted: &hosted,
        };
        let call = &mut self.on_progress;
        core.shown_error(build.run(&mut |progress| report(call, progress)))
    }

    /// Whether an index was made with the options that were given.
    fn check_options(&self, hosted: &Hosted) -> Result<()> {
        let made = hosted.index.params();
        let bits = if made.extra_bits { 4 } else { 1 };
        let pairs = [
            ("replicas", self.replicas, made.replicas),
            ("bits", self.bits.map(usize::from), bits),
        ];
        for (option, given, made) in pairs {
            if given.is_some_and(|given| given != made) {
                let error = Error::new(ErrorKind::Schema, "the index has other options");
                let error = error.with("option", option).with("expected", made);
                return Err(error.with("found", given.unwrap_or(made)));
            }
        }
        Ok(())
    }
}

/// A build under way.
struct Build<'a> {
    local: &'a Local,
    table: &'a Arc<VectorTable>,
    hosted: &'a Arc<Hosted>,
}

impl Build<'_> {
    fn run(&self, on_progress: &mut Report<'_>) -> Result<Built> {
        let mut progress = BuildProgress::default();
        if self.hosted.is_ready() {
            return Ok(Built::Ready);
        }
        if self.hosted.epochs.newest().is_empty()
            && self.seed(&mut progress, on_progress)?.is_break()
        {
            return Ok(Built::Cancelled);
        }
        loop {
            let more = self.slice(&mut progress)?;
            // Postings split while the index is built.
            maintain::slice(self.local.core(), self.table, self.hosted);
            progress.done = !more;
            let go_on = on_progress(progress);
            if !more {
                return Ok(Built::Ready);
            }
            if go_on.is_break() {
                return Ok(Built::Cancelled);
            }
        }
    }

    /// Holds upkeep back while the meta record is written, which both write.
    fn alone<T>(&self, work: impl FnOnce(&mut Upkeep) -> Result<T>) -> Result<T> {
        let waiter = self.local.core().env.park.waiter();
        let mut upkeep = loop {
            match self.hosted.upkeep.lock().take() {
                Some(upkeep) => break upkeep,
                None => waiter.park_timeout(Duration::from_micros(100)),
            };
        };
        let done = work(&mut upkeep);
        *self.hosted.upkeep.lock() = Some(upkeep);
        done
    }

    fn meta(&self) -> Result<Meta> {
        let mut value = Vec::new();
        self.hosted.get(self.local.core(), Key::Meta, &mut value)?;
        Meta::decode(&value).map_err(|error| self.hosted.broken(error))
    }

    /// The first centres, from a sample of the rows that is drawn in one pass.
    fn seed(
        &self,
        progress: &mut BuildProgress,
        on_progress: &mut Report<'_>,
    ) -> Result<ControlFlow<()>> {
        let core = self.local.core();
        let view = View::new(core, self.table, self.hosted, Ts(u64::MAX));
        let dim = self.hosted.index.dim();
        let most = (SAMPLE_BYTES / (4 * self.hosted.index.code_dim())).max(256) as u64;
        let (mut sample, mut rows) = (Vec::new(), 0_u64);
        let mut go_on = ControlFlow::Continue(());
        // Each row has the same chance (reservoir sampling; Vitter, TOMS 11(1), 1985).
        view.rows_while(&mut |_, _, vector| {
            rows += 1;
            if rows <= most {
                sample.extend_from_slice(vector);
            } else {
                let place = core.env.rng.next_u64("vector sample") % rows;
                if place < most {
                    sample[place as usize * dim..][..dim].copy_from_slice(vector);
                }
            }
            progress.sampled = rows;
            if rows.is_multiple_of(REPORT_EVERY) {
                go_on = on_progress(*progress);
            }
            go_on
        })?;
        if go_on.is_break() || rows < self.hosted.index.least_rows() {
            return Ok(go_on);
        }
        self.alone(|upkeep| {
            let meta = self.meta()?;
            let index = &self.hosted.index;
            let (meta, writes) = index.seed(&meta, sample.chunks_exact(dim), rows)?;
            maintain::commit_seed(core, self.table, self.hosted, writes, meta.epoch)?;
            *upkeep = Upkeep::new(index);
            Ok(go_on)
        })
    }

    /// Indexes the next rows; false when the last ones are done and the index is ready.
    fn slice(&self, progress: &mut BuildProgress) -> Result<bool> {
        let core = self.local.core();
        let meta = self.meta()?;
        let tree = self.table.source.tree;
        let keys = self.next_keys(&meta.cursor)?;
        let more = !keys.is_empty();
        let mut tx = system(self.local);
        let mut last = None;
        let mut binding = Binding::over(self.hosted);
        for key in keys {
            let key: Arc<[u8]> = key.into();
            if last.is_none() {
                // Holding nothing yet, it may wait for whoever has the row.
                tx.lock(tree, &key)?;
            } else if !tx.try_lock(tree, &key) {
                break;
            }
            progress.rows += 1;
            if let Some(record) = read_row(core, tree, &key, Ts(u64::MAX))?.value
                && binding.adopt(core, self.table, &key, &record)?
            {
                progress.indexed += 1;
            }
            last = Some(key);
        }
        self.alone(|_| {
            // Read again: upkeep may have written it meanwhile.
            let mut meta = self.meta()?;
            match last {
                Some(key) => meta.cursor = [&[1], &key[..]].concat(),
                None => (meta.state, meta.cursor) = (IndexState::Ready, Vec::new()),
            }
            let record = Record {
                value: Some(meta.encode()),
                stamped: false,
            };
            tx.records.put(self.hosted.tree, Key::Meta.encode(), record);
            tx.adopt(binding);
            let ticket = run(&mut tx, Entrance::Beside)?;
            if more {
                drop(ticket);
            } else {
                ticket.wait()?;
                self.hosted.set_ready(core.prefix.applied_ts());
            }
            Ok(())
        })?;
        Ok(more)
    }

    /// Keys behind the cursor, in order: empty at its beginning, else 1 and the last key.
    fn next_keys(&self, cursor: &[u8]) -> Result<Vec<Vec<u8>>> {
        let lower = match cursor.split_first() {
            Some((_, key)) => Bound::Excluded(key),
            None => Bound::Unbounded,
        };
        let tree = self.local.core().tree(self.table.source.tree)?;
        let mut rows = tree.cursor(lower, Bound::Unbounded, Direction::Forward);
        let (mut leaf, mut keys) = (LeafRows::default(), Vec::new());
        while keys.len() < SLICE && rows.next_leaf(&mut leaf)? {
            let wanted = SLICE - keys.len();
            keys.extend(leaf.iter().take(wanted).map(|row| row.key.to_vec()));
        }
        Ok(keys)
    }
}

impl<K: TableKey, V: TableRecord> crate::Table<K, V> {
    /// Makes a vector index for a field of a table that exists, while others read and write it. A
    /// field that is declared `vector(..)` without `exact` has one from the table's creation on.
    ///
    /// ```no_run
    /// # use terrane::{Built, Database, Record, TableDef, Vector};
    /// # #[derive(Record)]
    /// # struct Passage {
    /// #     #[terrane(id = 1, vector(metric = "cosine", exact))]
    /// #     embedding: Vector<384>,
    /// # }
    /// # fn main() -> terrane::Result<()> {
    /// # let db = Database::open("app.terrane")?;
    /// let passages = db.table(TableDef::<u64, Passage>::new("passages"))?;
    /// let built = passages
    ///     .create_vector_index(Passage::EMBEDDING)
    ///     .on_progress(|so_far| {
    ///         println!("{} rows", so_far.rows);
    ///         std::ops::ControlFlow::Continue(())
    ///     })
    ///     .run(&db)?;
    /// assert_eq!(built, Built::Ready);
    /// # Ok(())
    /// # }
    /// ```
    pub fn create_vector_index<'p, T>(&self, field: crate::Field<V, T>) -> CreateIndex<'p> {
        CreateIndex::new(self.rooms().clone(), field.def())
    }

    /// Takes the vector index of a field away; searches scan the rows from then on. Does nothing if
    /// there is none. Its pages are taken back by the next open.
    ///
    /// # Errors
    /// `ReadOnly`, `Closed`, and those of a commit.
    pub fn drop_vector_index<T>(&self, db: &Database, field: crate::Field<V, T>) -> Result<()> {
        self.rooms().all().try_for_each(|(shard, shape)| {
            let local = db.leader(shard)?;
            local.core().check_writable()?;
            catalog::drop_vector_index(&local, &shape.info.name, field.id())
        })
    }
}

impl std::fmt::Debug for CreateIndex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreateIndex")
            .field("table", &self.rooms.first().info.name)
            .field("field", &self.def.name)
            .field("replicas", &self.replicas)
            .finish_non_exhaustive()
    }
}
