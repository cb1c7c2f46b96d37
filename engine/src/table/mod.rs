//! Tables: typed rows over the byte rows of a transaction.
//!
//! A [`Table`] is what `Database::table` returns for a [`TableDef`]: the definition, checked
//! against the catalog, with the trees of the rows and of their indexes. It holds no transaction
//! and no lock; every method takes the snapshot or transaction to work in. Keys and values become
//! bytes here and stay bytes below.
//!
//! ```text
//! put  -> encode -> check vectors -> old row? -> index entries -> rows of the write set
//! get  -> row as bytes -> decode
//! ```
//!
//! Invariants:
//! - B1: a row and its index entries are written by one transaction or not at all: a `put` that
//!   fails leaves the transaction as it was.
//! - B2: a row id is never given to another key, and a row keeps its own while it is replaced.

pub(crate) mod def;
mod merge;
mod open;
pub(crate) mod place;
pub(crate) mod scan;
pub(crate) mod vectors;
mod write;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::catalog::TableInfo;
use crate::codec::{AsKey, DataType, FieldDef, Key, KeyPrefix, KeyRange, Record, Ref, Span, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::field::Field;
use crate::index::Index;
use crate::limits::check_key;
use crate::query::nearest::Nearest;
use crate::runtime::home::Home;
use crate::table::place::{Rooms, Route};
use crate::table::scan::{RawEnds, Scan, bounds};
use crate::txn::raw::RawRead;
use crate::txn::{Read, Transaction};

/// What the table layer knows of a table beside its types: shared by its handle, its indexes and
/// its searches.
#[derive(Clone)]
pub(crate) struct Shape {
    /// Trees, schema version and row numbering.
    pub(crate) info: Arc<TableInfo>,
    /// The open database that the table belongs to.
    pub(crate) home: Home,
    /// The declared fields; none for plain values.
    pub(crate) fields: &'static [FieldDef],
    /// Type of the keys.
    pub(crate) key_type: fn() -> DataType,
}

impl Shape {
    /// Whether `read` is of the database that the table belongs to: tree numbers mean other rows
    /// in another one.
    ///
    /// # Errors
    /// `Invalid` when it is not, or the database was opened anew since; `Unavailable` when no
    /// member of the cluster led as `read` began.
    pub(crate) fn check_read(&self, read: &(impl RawRead + ?Sized)) -> Result<()> {
        if read.local()?.core().home == self.home {
            return Ok(());
        }
        Err(
            Error::new(ErrorKind::Invalid, "a table is used with another database")
                .with("table", &self.info.name),
        )
    }

    /// A lone key as text, for an error: the beginning of a long one.
    pub(crate) fn show_key(&self, key: &[u8]) -> String {
        shown((self.key_type)().show_key(key))
    }
}

/// The beginning of a text, for an error.
pub(crate) fn shown(text: Result<String>) -> String {
    const SHOWN_CHARS: usize = 80;
    let Ok(mut text) = text else {
        return "?".into();
    };
    if let Some((end, _)) = text.char_indices().nth(SHOWN_CHARS) {
        text.truncate(end);
        text.push_str("..");
    }
    text
}

/// A table of an open database: the handle to keep. Clones are cheap and name the same table.
///
/// It outlives transactions; each method takes the [`crate::Snapshot`] or [`Transaction`] that it
/// works in, which must be of the same database.
///
/// ```no_run
/// use terrane::{Database, TableDef};
///
/// const SCORES: TableDef<String, u64> = TableDef::new("scores");
///
/// # fn main() -> terrane::Result<()> {
/// let db = Database::open("game.terrane")?;
/// let scores = db.table(SCORES)?;
/// db.write(|tx| scores.put(tx, "ada", &90))?;
/// assert_eq!(scores.get(&db.snapshot(), "ada")?, Some(90));
/// # Ok(())
/// # }
/// ```
pub struct Table<K, V> {
    /// In the only shard, or in each.
    rooms: Rooms,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: Key, V: Value> Table<K, V> {
    pub(crate) fn new(rooms: Rooms) -> Table<K, V> {
        Table {
            rooms,
            types: PhantomData,
        }
    }

    pub(crate) fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    /// As the first shard knows it.
    pub(crate) fn shape(&self) -> &Shape {
        self.rooms.first()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shape().info.name
    }

    /// Where the row at `key` lies, whether there is one or not, and by which rule.
    ///
    /// # Errors
    /// `TooLarge` for a key above 32 KiB.
    pub fn route(&self, key: impl AsKey<K>) -> Result<Route> {
        self.rooms.route(&encode_key(&key)?)
    }

    /// The row at `key`, decoded. O(log rows).
    ///
    /// # Errors
    /// `TooLarge` for a key above 32 KiB; `Codec` when the row does not decode; those of a read:
    /// `SnapshotTooOld`, `Corrupt`, `Io`, `Closed`.
    pub fn get(&self, read: &impl Read, key: impl AsKey<K>) -> Result<Option<V>> {
        let row = self.row(read, &encode_key(&key)?)?;
        row.map(|bytes| self.decode(&bytes)).transpose()
    }

    /// The row at `key` as it is stored, to read without decoding all of it: one owned, aligned
    /// copy, never a slice of a page. O(log rows).
    ///
    /// # Errors
    /// As [`Table::get`], `Codec` excepted.
    pub fn get_ref(&self, read: &impl Read, key: impl AsKey<K>) -> Result<Option<Ref<V>>> {
        let row = self.row(read, &encode_key(&key)?)?;
        Ok(row.map(Ref::of))
    }

    /// The row at `key`, locked for this transaction until it ends: another transaction that
    /// wants to write it waits or gives way. Asked before anything else is read, it makes a
    /// read-modify-write of a hot row succeed at the first attempt.
    ///
    /// # Errors
    /// As [`Table::get`], and `Conflict`, `TimedOut` when the lock is not granted.
    pub fn get_for_update(&self, tx: &mut Transaction, key: impl AsKey<K>) -> Result<Option<V>> {
        let key = encode_key(&key)?;
        let (shard, shape) = self.rooms.of(&key)?;
        let leg = tx.leg_mut(shard)?;
        shape.check_read(leg)?;
        let row = leg.get_for_update_raw(shape.info.tree, &key)?;
        row.map(|bytes| self.decode(&bytes)).transpose()
    }

    /// Whether there is a row at `key`. O(log rows).
    ///
    /// # Errors
    /// As [`Table::get_ref`].
    pub fn contains(&self, read: &impl Read, key: impl AsKey<K>) -> Result<bool> {
        let row = self.row(read, &encode_key(&key)?)?;
        Ok(row.is_some())
    }

    /// Writes a row, replacing the one at `key`; its index entries change with it.
    ///
    /// # Errors
    /// `Constraint` when another row holds a unique value of this one; `Invalid` for a vector of
    /// another dimension, with an element that is not finite, with a square sum above what `f32`
    /// holds, or of zeros where the metric is cosine; `TooLarge` above 32 KiB of key or 64 KiB of
    /// value, or above the limit of a transaction; those of a read. The transaction is then as it
    /// was before the call (B1).
    pub fn put(&self, tx: &mut Transaction, key: impl AsKey<K>, value: &V) -> Result<()> {
        let key = encode_key(&key)?;
        let (shard, shape) = self.rooms.of(&key)?;
        write::put(shape, tx.leg_mut(shard)?, key, encode_value(value))
    }

    /// Writes a row that must be new.
    ///
    /// # Errors
    /// `Exists` when there is a row at `key`; otherwise as [`Table::put`].
    pub fn insert(&self, tx: &mut Transaction, key: impl AsKey<K>, value: &V) -> Result<()> {
        let key = encode_key(&key)?;
        if self.row(tx, &key)?.is_some() {
            return Err(Error::new(ErrorKind::Exists, "a row exists already")
                .with("table", self.name())
                .with("key", self.shape().show_key(&key)));
        }
        let (shard, shape) = self.rooms.of(&key)?;
        write::put(shape, tx.leg_mut(shard)?, key, encode_value(value))
    }

    /// Deletes the row at `key` and its index entries; `false` when there was none.
    ///
    /// # Errors
    /// Those of a read, and `TooLarge` above the limit of a transaction.
    pub fn delete(&self, tx: &mut Transaction, key: impl AsKey<K>) -> Result<bool> {
        let key = encode_key(&key)?;
        let (shard, shape) = self.rooms.of(&key)?;
        write::delete(shape, tx.leg_mut(shard)?, key)
    }

    /// The rows whose keys lie in `range`, in key order; `.rev()` gives them from the end. A range
    /// that starts above its end gives one error, `Invalid`; equal bounds give no row.
    pub fn range(&self, read: &impl Read, range: impl KeyRange<K>) -> Scan<K, V> {
        self.scan(read, range.key_span())
    }

    /// The rows whose keys begin with `prefix`: the first parts of a tuple, or the first bytes of
    /// a `String` or `Vec<u8>`.
    pub fn prefix(&self, read: &impl Read, prefix: impl KeyPrefix<K>) -> Scan<K, V> {
        self.scan(read, Ok(prefix.prefix_span()))
    }

    /// All rows in key order.
    pub fn iter(&self, read: &impl Read) -> Scan<K, V> {
        self.scan(read, Ok(Span::all()))
    }

    /// How many rows there are. O(rows): they are counted.
    ///
    /// # Errors
    /// Those of a read.
    pub fn count(&self, read: &impl Read) -> Result<u64> {
        let mut rows = 0;
        for (shard, shape) in self.rooms.all() {
            let leg = read.leg(shard)?;
            shape.check_read(leg)?;
            let (lower, upper) = bounds(&Span::all());
            let scan = leg.scan_raw(shape.info.tree, lower, upper, false)?;
            scan.visit(|_, _| {
                rows += 1;
                Ok(())
            })?;
        }
        Ok(rows)
    }

    fn row(&self, read: &impl Read, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let (shard, shape) = self.rooms.of(key)?;
        let leg = read.leg(shard)?;
        shape.check_read(leg)?;
        leg.get_raw(shape.info.tree, key)
    }

    fn scan(&self, read: &impl Read, span: Result<Span>) -> Scan<K, V> {
        let span = span.map_err(|error| error.with("table", self.name()));
        let rows = span.and_then(|span| {
            let rows = |(shard, shape): (u32, &Shape)| {
                let leg = read.leg(shard)?;
                shape.check_read(leg)?;
                Ok(RawEnds::open(leg, shape.info.tree, Ok(span.clone())))
            };
            let rooms = self.rooms.of_span(&span);
            let ends: Result<Vec<_>> = rooms.into_iter().map(rows).collect();
            ends.map(RawEnds::merge)
        });
        Scan::new(rows.unwrap_or_else(RawEnds::refused))
    }

    fn decode(&self, bytes: &[u8]) -> Result<V> {
        V::decode_value(bytes).map_err(|error| error.with("table", self.name()))
    }
}

impl<K: Key, V: Record> Table<K, V> {
    /// The index of a field that is declared `unique` or `index`.
    #[must_use]
    pub fn index<T: Key>(&self, field: Field<V, T>) -> Index<K, V, T> {
        Index::new(self.rooms.clone(), field)
    }

    /// A search for the `k` rows whose vector in `field` is nearest to `query`.
    pub fn nearest<T>(&self, field: Field<V, T>, query: &[f32], k: usize) -> Nearest<K, V> {
        Nearest::new(self.rooms.clone(), field.def(), query, k)
    }
}

impl<K, V> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        Table {
            rooms: self.rooms.clone(),
            types: PhantomData,
        }
    }
}

impl<K, V> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Table({:?}, tree {:?})",
            self.rooms.first().info.name,
            self.rooms.first().info.tree
        )
    }
}

/// The lone form of a key that is within its limit.
pub(crate) fn encode_key<K: Key>(key: &impl AsKey<K>) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    key.write_key(&mut out);
    check_key(&out)?;
    Ok(out)
}

fn encode_value<V: Value>(value: &V) -> Vec<u8> {
    let mut out = Vec::new();
    value.encode_value(&mut out);
    out
}
