//! Vector indexes on trees: what `terrane_vector` needs of a host.
//!
//! ```text
//! commit   txn/commit -> bind (postings of the newest set, under the guard) -> records in the
//! entry search   query/nearest -> View (snapshot, then newest set) -> terrane_vector -> hits
//! upkeep   runtime/worker -> maintain (one slice) -> a commit of records alone
//! ```
//!
//! An index is one tree of records (guide/format.md), which are hints: they have a single version
//! and pass by the recent-writes index, so upkeep conflicts with nobody. What is in memory (set of
//! centres, queue of work) is derived from the records at open.

pub(crate) mod bind;
pub(crate) mod build;
mod hints;
pub(crate) mod maintain;
#[cfg(test)]
mod places;
pub(crate) mod source;
pub(crate) mod view;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use terrane_btree::{Direction, LeafRows, Tree};
use terrane_vector::{
    CentroidSet, Delta, IndexError, IndexParams, IndexState, Key, Maintainer, Meta, PostingId,
    RecordError, SearchParams, Tuning, VectorIndex, VisitRecord,
};
use terrane_wal::lsn::{TreeId, Ts};
use terrane_wal::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering};

use crate::catalog::schema::FieldSchema;
use crate::catalog::{TableInfo, VectorInfo};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{MaintenanceStats, SearchCounters, VectorStats};
use crate::runtime::Core;
use crate::txn::epochs::Epochs;
use crate::txn::leg::Leg;
use crate::txn::raw::RawRead;
use crate::txn::records::Record;
use hints::Hints;
use maintain::Upkeep;
use source::Source;

/// Postings below which the rows of an index are counted and not estimated.
const COUNTED_POSTINGS: usize = 64;

/// One vector index of an open database.
#[derive(Debug)]
pub(crate) struct Hosted {
    /// The tree of its records.
    pub(crate) tree: TreeId,
    /// The field that it indexes.
    pub(crate) field: FieldSchema,
    /// What it was made with.
    pub(crate) index: VectorIndex,
    /// The newest set of centres and who binds to it.
    pub(crate) epochs: Epochs<CentroidSet>,
    /// Leaves in which postings begin.
    hints: Hints,
    /// What commits have done to postings since the last slice of upkeep.
    pub(crate) observed: Mutex<Vec<Delta>>,
    /// The queue of upkeep; None while somebody has it in hand.
    pub(crate) upkeep: Mutex<Option<Upkeep>>,
    /// Jobs by which upkeep is behind commits.
    pub(crate) behind: AtomicUsize,
    /// Slices of upkeep that ended with an error.
    pub(crate) failures: AtomicU64,
    /// The newest commit that may have bound below an epoch, once all of those have their place.
    pub(crate) last_bound: Mutex<BTreeMap<u64, Ts>>,
    /// How long to search for what recall, fitted to the rows; None until there are enough.
    pub(crate) tuning: Mutex<Option<Tuning>>,
    /// Changes of rows since it was fitted.
    pub(crate) changes: AtomicU64,
    /// From which snapshot on searches may use it; above all of them while it is being built.
    ready_from: AtomicU64,
    /// What searches took.
    pub(crate) searches: SearchCounters,
    /// What upkeep has counted, as of the end of its last slice.
    counted: Mutex<MaintenanceStats>,
    /// Rows that a posting has at the least, for an estimate.
    posting_least: usize,
    /// Rows with a vector, about; counted when first asked for, then kept by commits.
    rows: AtomicU64,
    rows_known: AtomicBool,
}

/// A table with vector indexes.
#[derive(Debug)]
pub(crate) struct VectorTable {
    /// How its rows are read.
    pub(crate) source: Source,
    /// Its vector indexes, by rising field id.
    pub(crate) indexes: Vec<Arc<Hosted>>,
    /// Indexes that could not be opened: field, name of the field, why.
    broken: Vec<(u16, String, String)>,
}

impl VectorTable {
    /// Refuses an index that could not be opened: rows cannot be written without it, and searches
    /// would miss some. The table can be read and scanned, and the index dropped.
    ///
    /// # Errors
    /// `Corrupt`, with what was found when the database was opened.
    pub(crate) fn check_whole(&self, field: Option<u16>) -> Result<()> {
        let asked = |id: u16| field.is_none_or(|field| field == id);
        let Some((_, name, cause)) = self.broken.iter().find(|(id, ..)| asked(*id)) else {
            return Ok(());
        };
        let error = Error::new(ErrorKind::Corrupt, "a vector index is damaged; drop it");
        Err(error
            .with("structure", "vector index")
            .with("table", &self.source.name)
            .with("field", name)
            .with("found", cause))
    }

    /// The index of a field.
    pub(crate) fn of_field(&self, field: u16) -> Option<&Arc<Hosted>> {
        self.indexes.iter().find(|hosted| hosted.field.id == field)
    }
}

/// All tables with vector indexes, by the tree of their rows.
#[derive(Debug, Default)]
pub(crate) struct VectorTables {
    tables: Mutex<BTreeMap<TreeId, Arc<VectorTable>>>,
    /// True once there is one: commits of other databases ask no further.
    any: AtomicBool,
}

impl VectorTables {
    /// The table whose rows are in `tree`, if it has a vector index.
    pub(crate) fn get(&self, tree: TreeId) -> Option<Arc<VectorTable>> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        self.tables.lock().get(&tree).cloned()
    }

    /// Forgets all of them.
    pub(crate) fn clear(&self) {
        self.tables.lock().clear();
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<VectorTable>> {
        if !self.any.load(Ordering::Acquire) {
            return Vec::new();
        }
        self.tables.lock().values().cloned().collect()
    }

    /// What all indexes count.
    pub(crate) fn stats(&self) -> Vec<VectorStats> {
        let tables = self.all();
        let of_table = |table: &Arc<VectorTable>| {
            let stats = |hosted: &Arc<Hosted>| hosted.stats(&table.source.name);
            table.indexes.iter().map(stats).collect::<Vec<_>>()
        };
        tables.iter().flat_map(of_table).collect()
    }

    /// Whether a tree holds the records of a vector index.
    pub(crate) fn is_index(&self, tree: TreeId) -> bool {
        let tables = self.all();
        let mut indexes = tables.iter().flat_map(|table| &table.indexes);
        indexes.any(|hosted| hosted.tree == tree)
    }

    /// Takes over a table as the catalog has it now. Indexes that are open stay.
    pub(crate) fn install(&self, core: &Core, table: &TableInfo) {
        let before = self.get(table.tree);
        if table.vectors.is_empty() {
            self.tables.lock().remove(&table.tree);
            return;
        }
        let (mut indexes, mut broken) = (Vec::new(), Vec::new());
        for info in &table.vectors {
            let stays = before.as_ref().and_then(|table| table.of_field(info.field));
            let opened = match stays {
                Some(hosted) if hosted.tree == info.tree => Ok(hosted.clone()),
                _ => Hosted::open(core, table, info).map(Arc::new),
            };
            match opened {
                Ok(hosted) => indexes.push(hosted),
                // One index that is damaged keeps nobody from the rest of the database.
                Err(error) => {
                    let mut fields = table.schema.fields().iter();
                    let field = fields.find(|field| field.id == info.field);
                    let name = field.map_or_else(String::new, |field| field.name.clone());
                    broken.push((info.field, name, in_full(&error)));
                }
            }
        }
        let vectors = VectorTable {
            source: Source::of(table),
            indexes,
            broken,
        };
        self.tables.lock().insert(table.tree, Arc::new(vectors));
        self.any.store(true, Ordering::Release);
    }
}

impl Hosted {
    /// Reads what an index was made with and its centres. O(postings).
    fn open(core: &Core, table: &TableInfo, info: &VectorInfo) -> Result<Hosted> {
        let missing = |what: &'static str| {
            Error::new(ErrorKind::Corrupt, what)
                .with("structure", "vector index")
                .with("table", &table.name)
                .with("field", info.field)
        };
        let mut fields = table.schema.fields().iter();
        let field = fields.find(|field| field.id == info.field);
        let field = field.ok_or_else(|| missing("a vector index of a field that is not there"))?;
        let tree = core.tree(info.tree)?;
        let mut value = Vec::new();
        let found = tree.get(&Key::Meta.encode(), &mut value)?;
        if found.is_none_or(|flags| flags.ghost) {
            return Err(missing("a vector index without its meta record"));
        }
        let wrong = |error: RecordError| missing("a record fails its check").caused_by(error);
        let meta = Meta::decode(&value).map_err(wrong)?;
        let (metric, dim) = (meta.params.metric, meta.params.dim);
        if let Some(def) = table.vector_def(info)
            && (metric, dim) != (def.metric, def.dim as usize)
        {
            let error = missing("the vector index is that of another field");
            let error = error.with(
                "expected",
                format!("{} of dimension {}", def.metric, def.dim),
            );
            return Err(error.with("found", format!("{metric} of dimension {dim}")));
        }
        let params = VectorIndex::new(meta.params);
        let index = params.map_err(|error| missing("a record fails its check").caused_by(error))?;
        // No snapshot is older than this open, so none is older than an index that was ready.
        let ready_from = match meta.state {
            IndexState::Ready => 0,
            IndexState::Building => u64::MAX,
        };
        let centroids = read_centroids(tree)?;
        if centroids.len() != meta.centroids as usize {
            let error = missing("centroids are missing or too many").with("found", centroids.len());
            return Err(error.with("expected", meta.centroids));
        }
        let tuning = match tree.get(&Key::Tuning.encode(), &mut value)? {
            // Derived from the rows: what cannot be read is found out again, and `check` tells.
            Some(flags) if !flags.ghost => Tuning::decode(&value).ok(),
            _ => None,
        };
        let records = centroids.iter().map(|(id, value)| (*id, &value[..]));
        let set =
            CentroidSet::load(index.metric(), index.dim(), meta.epoch, records).map_err(wrong)?;
        Ok(Hosted {
            tree: info.tree,
            field: field.clone(),
            epochs: Epochs::new(meta.epoch, Arc::new(set)),
            hints: Hints::default(),
            observed: Mutex::new(Vec::new()),
            upkeep: Mutex::new(Some(Upkeep::new(&index))),
            behind: AtomicUsize::new(0),
            failures: AtomicU64::new(0),
            last_bound: Mutex::new(BTreeMap::new()),
            tuning: Mutex::new(tuning),
            changes: AtomicU64::new(0),
            ready_from: AtomicU64::new(ready_from),
            searches: SearchCounters::default(),
            counted: Mutex::new(MaintenanceStats::default()),
            posting_least: meta.params.posting_max / 3,
            rows: AtomicU64::new(0),
            rows_known: AtomicBool::new(false),
            index,
        })
    }

    /// Whether every row is in it.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready_from.load(Ordering::Acquire) < u64::MAX
    }

    /// Whether a search at this snapshot may use it.
    pub(crate) fn serves(&self, at: Ts) -> bool {
        self.ready_from.load(Ordering::Acquire) <= at.0
    }

    /// Every row is in it, for snapshots from `from` on.
    pub(crate) fn set_ready(&self, from: Ts) {
        self.ready_from.store(from.0, Ordering::Release);
    }

    /// Reads a record into `value`; false if there is none.
    pub(crate) fn get(&self, core: &Core, key: Key, value: &mut Vec<u8>) -> Result<bool> {
        let key = key.encode();
        let exact = (Bound::Included(&key[..]), Bound::Included(&key[..]));
        core.unapplied.check_range(self.tree, exact.0, exact.1)?;
        let found = core.tree(self.tree)?.get(&key, value)?;
        Ok(found.is_some_and(|flags| !flags.ghost))
    }

    /// Decodes the key of a record and shows it.
    pub(crate) fn show(&self, key: &[u8], value: &[u8], visit: &mut VisitRecord<'_>) -> Result<()> {
        let shown = Key::decode(key).and_then(|key| visit(key, value));
        shown.map_err(|error| self.broken(error))
    }

    /// The error of a record that is not what the format says.
    #[cold]
    pub(crate) fn broken(&self, error: RecordError) -> Error {
        Error::new(
            ErrorKind::Corrupt,
            "a record of a vector index fails its check",
        )
        .with("structure", "vector index")
        .with("tree", self.tree.0)
        .with("field", &self.field.name)
        .caused_by(error)
    }

    /// Keeps a reading of the counters of upkeep, at the end of a slice. O(1).
    pub(crate) fn count(&self, maintainer: &Maintainer) {
        *self.counted.lock() = maintainer.counters();
    }

    /// What the index counts. O(postings).
    pub(crate) fn stats(&self, table: &str) -> VectorStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let set = self.epochs.newest();
        let mut upkeep = *self.counted.lock();
        set.count_postings(&mut upkeep);
        VectorStats {
            table: table.to_owned(),
            field: self.field.name.clone(),
            searches: load(&self.searches.searches),
            postings_read: load(&self.searches.postings),
            entries_scanned: load(&self.searches.scanned),
            rows_read: load(&self.searches.rows),
            restarts: load(&self.searches.restarts),
            partial: load(&self.searches.partial),
            epoch: set.epoch(),
            centroid_bytes: set.memory_bytes() as u64,
            upkeep_failures: load(&self.failures),
            upkeep,
        }
    }

    /// Rows with a vector, about: what decides between search and exact scan.
    pub(crate) fn row_count(&self, core: &Core) -> Result<u64> {
        let set = self.epochs.newest();
        if set.len() >= COUNTED_POSTINGS {
            return Ok((set.len() * self.posting_least) as u64);
        }
        if !self.rows_known.load(Ordering::Acquire) {
            let rows = self.count_rows(core)?;
            self.rows.store(rows, Ordering::Release);
            self.rows_known.store(true, Ordering::Release);
        }
        Ok(self.rows.load(Ordering::Acquire))
    }

    /// Counts live locators.
    fn count_rows(&self, core: &Core) -> Result<u64> {
        let (lower, upper) = Key::locator_range();
        let (lower, upper) = (Bound::Included(&lower[..]), Bound::Excluded(&upper[..]));
        let tree = core.tree(self.tree)?;
        let mut cursor = tree.cursor(lower, upper, Direction::Forward);
        let (mut rows, mut count) = (LeafRows::default(), 0);
        while cursor.next_leaf(&mut rows)? {
            for row in rows.iter().filter(|row| !row.flags.ghost) {
                let live = terrane_vector::locator_is_live(row.value);
                count += u64::from(live.map_err(|error| self.broken(error))?);
            }
        }
        Ok(count)
    }

    /// When a search for `k` neighbours ends that is to find this share of them.
    pub(crate) fn search_params(&self, k: usize, recall: f64) -> Result<SearchParams> {
        match &*self.tuning.lock() {
            Some(tuning) => Ok(tuning.params(k, (recall as f32).max(f32::MIN_POSITIVE))?),
            None => Ok(SearchParams::new(k)),
        }
    }

    /// Rows came or went with a commit.
    pub(crate) fn rows_changed(&self, by: i64) {
        self.rows
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |rows| {
                Some(rows.saturating_add_signed(by))
            })
            .ok();
    }
}

/// The centroid records of an index. O(postings).
fn read_centroids(tree: &Tree) -> Result<Vec<(PostingId, Vec<u8>)>> {
    let (lower, upper) = Key::centroid_range();
    let (lower, upper) = (Bound::Included(&lower[..]), Bound::Excluded(&upper[..]));
    let mut cursor = tree.cursor(lower, upper, Direction::Forward);
    let (mut rows, mut centroids) = (LeafRows::default(), Vec::new());
    while cursor.next_leaf(&mut rows)? {
        for row in rows.iter().filter(|row| !row.flags.ghost) {
            if let Key::Centroid(id) = Key::decode(row.key).map_err(IndexError::from)? {
                centroids.push((id, row.value.to_vec()));
            }
        }
    }
    Ok(centroids)
}

/// What an error says, and what it came from.
fn in_full(error: &Error) -> String {
    let mut told = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        told += &format!(", {error}");
        cause = error.source();
    }
    told
}

/// Makes an empty index: its first records are part of the change of the schema.
pub(crate) fn create(
    tx: &mut Leg,
    table: &TableInfo,
    info: &VectorInfo,
    (replicas, extra_bits): (usize, bool),
    state: IndexState,
) -> Result<()> {
    let Some(def) = table.vector_def(info) else {
        let error = Error::new(ErrorKind::Invalid, "a field cannot be searched by distance");
        return Err(error.with("table", &table.name).with("field", info.field));
    };
    let seed = tx.local()?.core().env.rng.next_u64("vector index");
    let params = IndexParams {
        columns: table.schema.fields().iter().any(|field| field.filter),
        replicas,
        extra_bits,
        ..IndexParams::new(def.metric, def.dim as usize, seed)
    };
    let meta = Meta::new(params, state);
    let record = Record {
        value: Some(meta.encode()),
        stamped: false,
    };
    tx.records.put(info.tree, Key::Meta.encode(), record);
    Ok(())
}

impl From<IndexError> for Error {
    fn from(error: IndexError) -> Error {
        match &error {
            IndexError::Vector(vector) => crate::table::vectors::refusal(vector),
            IndexError::SnapshotTooOld { .. } => Error::new(
                ErrorKind::SnapshotTooOld,
                "the vector index has dropped what the snapshot needs; take a new one",
            ),
            IndexError::Parameter { .. } => Error::new(
                ErrorKind::Invalid,
                "a parameter of a search is out of range",
            ),
            _ => Error::new(ErrorKind::Corrupt, "a vector index fails its check")
                .with("structure", "vector index"),
        }
        .caused_by(error)
    }
}
