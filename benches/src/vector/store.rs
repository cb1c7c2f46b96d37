//! Terrane as the suite uses it: one table with a vector, four fields to filter by, and a plain
//! table beside it; only the public interface is called, so whatever serves it is measured.

use std::path::Path;
use std::sync::Arc;

use terrane::{
    Database, Durability, Filter, Nearest, Record, Snapshot, Stats, Table, TableDef, Vector,
};
use terrane_vector::Metric;

use super::answers::Hits;
use super::dataset::{Attributes, Condition, Dataset, NEAREST};
use crate::Failure;

/// A row on its way into the table.
pub(crate) struct NewRow {
    pub(crate) id: u64,
    pub(crate) attributes: Attributes,
    pub(crate) vector: Vec<f32>,
}

/// An opened database.
pub(crate) trait Store: Send + Sync {
    /// One transaction that writes all of `rows`, over those of the same ids.
    fn put(&self, rows: &[NewRow]) -> Result<(), Failure>;

    /// One transaction that deletes all of `ids`.
    fn delete(&self, ids: std::ops::Range<u64>) -> Result<(), Failure>;

    /// The ten rows nearest to a query in a snapshot of now, with a goal of recall.
    fn nearest(
        &self,
        query: &[f32],
        recall: f64,
        filter: Option<&Condition>,
    ) -> Result<Hits, Failure>;

    /// One transaction that writes one row of the plain table.
    fn note(&self, key: u64) -> Result<(), Failure>;

    /// Rows of the table.
    fn count(&self) -> Result<u64, Failure>;

    /// The database, for its counters and checkpoints.
    fn db(&self) -> &Database;
}

/// Bytes of a row of the plain table.
const NOTE_LEN: usize = 100;
const NOTES: TableDef<u64, Vec<u8>> = TableDef::new("notes");

/// A record with a vector of one dimension and metric.
trait Row: Record {
    fn new(row: &NewRow) -> Result<Self, Failure>;
    fn filter(condition: &Condition) -> Result<Filter<Self>, Failure>;
    fn search(table: &Table<u64, Self>, query: &[f32]) -> Nearest<u64, Self>;
}

/// Two records: with a vector that can be searched for, and with one that is only stored.
macro_rules! row {
    ($name:ident, $plain:ident, $dim:tt, $metric:tt) => {
        #[derive(Record)]
        struct $name {
            #[terrane(id = 1, filter)]
            section: String,
            #[terrane(id = 2, filter)]
            installed_size: u32,
            #[terrane(id = 3, filter)]
            id_mod_20: u16,
            #[terrane(id = 4, filter)]
            id_mod_200: u16,
            #[terrane(id = 5, vector(metric = $metric))]
            embedding: Vector<$dim>,
        }

        #[derive(Record)]
        struct $plain {
            #[terrane(id = 1)]
            section: String,
            #[terrane(id = 2)]
            installed_size: u32,
            #[terrane(id = 3)]
            id_mod_20: u16,
            #[terrane(id = 4)]
            id_mod_200: u16,
            #[terrane(id = 5)]
            embedding: Vector<$dim>,
        }

        row!(methods $name, |condition| match condition {
            Condition::SizeAtMost(kib) => Ok($name::INSTALLED_SIZE.le(*kib)),
            Condition::SectionIs(section) => Ok($name::SECTION.eq(section.as_str())),
            Condition::IdModulo { modulus: 20, remainder } => {
                Ok($name::ID_MOD_20.eq(u16::try_from(*remainder)?))
            }
            Condition::IdModulo { modulus: 200, remainder } => {
                Ok($name::ID_MOD_200.eq(u16::try_from(*remainder)?))
            }
            other => Err(format!("no field serves {other:?}").into()),
        });
        row!(methods $plain, |_| Err("these rows are not searched".into()));
    };
    (methods $name:ident, |$condition:pat_param| $filter:expr) => {
        impl Row for $name {
            fn new(row: &NewRow) -> Result<Self, Failure> {
                Ok($name {
                    section: row.attributes.section.clone(),
                    installed_size: row.attributes.installed_size_kib,
                    id_mod_20: u16::try_from(row.id % 20)?,
                    id_mod_200: u16::try_from(row.id % 200)?,
                    embedding: Vector::try_from(&row.vector[..])?,
                })
            }

            fn filter($condition: &Condition) -> Result<Filter<Self>, Failure> {
                $filter
            }

            fn search(table: &Table<u64, Self>, query: &[f32]) -> Nearest<u64, Self> {
                table.nearest($name::EMBEDDING, query, NEAREST)
            }
        }
    };
}

// The dimensions and metrics of the data sets there are; one line makes another.
row!(Cosine384, Plain384, 384, "cosine");
row!(L2Of128, Plain128, 128, "l2");
row!(L2Of16, Plain16, 16, "l2");

struct Opened<R> {
    db: Database,
    rows: Table<u64, R>,
    notes: Table<u64, Vec<u8>>,
}

/// How a database is opened.
#[derive(Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) durability: Durability,
    /// Budget of everything, in MiB.
    pub(crate) cache_mib: u64,
    /// False: the vectors are stored and cannot be searched for.
    pub(crate) searchable: bool,
}

/// Opens or creates the database in a folder for vectors like those of the data set.
pub(crate) fn open(
    dir: &Path,
    data: &Dataset,
    setting: Setting,
) -> Result<Arc<dyn Store>, Failure> {
    match (data.metric, data.dim(), setting.searchable) {
        (Metric::Cosine, 384, true) => opened::<Cosine384>(dir, setting),
        (Metric::Cosine, 384, false) => opened::<Plain384>(dir, setting),
        (Metric::L2, 128, true) => opened::<L2Of128>(dir, setting),
        (Metric::L2, 128, false) => opened::<Plain128>(dir, setting),
        (Metric::L2, 16, true) => opened::<L2Of16>(dir, setting),
        (Metric::L2, 16, false) => opened::<Plain16>(dir, setting),
        (metric, dim, _) => {
            let what = format!("this build has no table for {metric} with {dim} dimensions");
            Err(what.into())
        }
    }
}

fn opened<R: Row + 'static>(dir: &Path, setting: Setting) -> Result<Arc<dyn Store>, Failure> {
    let db = Database::builder()
        .durability(setting.durability)
        .memory_bytes(usize::try_from(setting.cache_mib << 20)?)
        .open(dir.join("terrane"))?;
    let def: TableDef<u64, R> = TableDef::new("vectors");
    let rows = db.table(def)?;
    let notes = db.table(NOTES)?;
    Ok(Arc::new(Opened { db, rows, notes }))
}

impl<R> Drop for Opened<R> {
    fn drop(&mut self) {
        // The next process opens the same rows; what was not synced must not depend on luck.
        if let Err(failure) = self.db.close() {
            eprintln!("terrane-bench: closing: {failure}");
        }
    }
}

impl<R: Row + 'static> Store for Opened<R> {
    fn put(&self, rows: &[NewRow]) -> Result<(), Failure> {
        let made: Vec<(u64, R)> = rows
            .iter()
            .map(|row| Ok((row.id, R::new(row)?)))
            .collect::<Result<_, Failure>>()?;
        Ok(self.db.write(|tx| {
            for (id, row) in &made {
                self.rows.put(tx, *id, row)?;
            }
            Ok(())
        })?)
    }

    fn delete(&self, ids: std::ops::Range<u64>) -> Result<(), Failure> {
        let mut missed = 0;
        self.db.write(|tx| {
            missed = 0;
            for id in ids.clone() {
                missed += u64::from(!self.rows.delete(tx, id)?);
            }
            Ok(())
        })?;
        if missed > 0 {
            return Err(format!("{missed} of the rows {ids:?} were not there").into());
        }
        Ok(())
    }

    fn nearest(
        &self,
        query: &[f32],
        recall: f64,
        filter: Option<&Condition>,
    ) -> Result<Hits, Failure> {
        let mut search = R::search(&self.rows, query).recall(recall);
        if let Some(condition) = filter {
            search = search.filter(R::filter(condition)?);
        }
        let now: Snapshot = self.db.snapshot();
        let found = search.run(&now)?;
        Ok(found.iter().map(|hit| (hit.key, hit.distance)).collect())
    }

    fn note(&self, key: u64) -> Result<(), Failure> {
        let value = vec![key as u8; NOTE_LEN];
        Ok(self.db.write(|tx| self.notes.put(tx, key, &value))?)
    }

    fn count(&self) -> Result<u64, Failure> {
        Ok(self.rows.count(&self.db.snapshot())?)
    }

    fn db(&self) -> &Database {
        &self.db
    }
}

/// Counters of the index, where the engine has them.
#[derive(Clone, Copy, Default)]
pub(crate) struct IndexCounts {
    /// Vectors that searches measured by their codes so far.
    pub(crate) scanned: Option<u64>,
}

/// The engine's counters of its vector index. An exact search counts nothing.
pub(crate) fn index_counts(stats: &Stats) -> IndexCounts {
    let scanned = stats.vectors.iter().map(|index| index.entries_scanned);
    IndexCounts {
        scanned: (!stats.vectors.is_empty()).then(|| scanned.sum()),
    }
}
