//! Reading a table by the value of an indexed field.
//!
//! An index is a tree of entries (`codec/index.rs`): the field's value, then the primary key. A
//! read walks entries and fetches each row by its key, all in one snapshot or transaction, so an
//! entry without its row is a damaged database and not a race.

pub(crate) mod secondary;
pub(crate) mod vector;

use std::fmt;
use std::marker::PhantomData;

use terrane_wal::lsn::TreeId;

use crate::codec::index::primary_key;
use crate::codec::key::escape;
use crate::codec::{AsKey, DataType, FieldDef, Key, KeyPrefix, KeyRange, Record, Span};
use crate::error::{Error, ErrorKind, Result};
use crate::field::Field;
use crate::limits::check_key;
use crate::table::Shape;
use crate::table::place::Rooms;
use crate::table::scan::{RawEnds, RawRow};
use crate::txn::Read;
use crate::txn::raw::RawRead;

/// An index of a table with keys `K` and records `V`, on a field of type `T`; made by
/// [`crate::Table::index`].
///
/// Rows come in the order of the field, those of one value in the order of their keys; `None` is
/// the lowest value of an optional field.
pub struct Index<K, V, T> {
    rooms: Rooms,
    field: Field<V, T>,
    key: PhantomData<fn() -> K>,
}

impl<K: Key, V: Record, T: Key> Index<K, V, T> {
    pub(crate) fn new(rooms: Rooms, field: Field<V, T>) -> Index<K, V, T> {
        Index {
            rooms,
            field,
            key: PhantomData,
        }
    }

    /// The row whose field is `value`: at most one where the field is unique, else the one of
    /// lowest key. O(log rows).
    ///
    /// # Errors
    /// `Invalid` when the field has no index; `TooLarge` for a value above 32 KiB; those of
    /// [`crate::Table::get`].
    pub fn get(&self, read: &impl Read, value: impl AsKey<T>) -> Result<Option<(K, V)>> {
        let mut part = Vec::new();
        value.write_part(&mut part);
        check_key(&part)?;
        let def = self.field.def();
        // Entries of `None` carry the primary key behind it, as those of a secondary index do.
        if def.unique && !(def.optional && part == [0]) {
            let (leg, shape) = (read.leg(0)?, self.rooms.first());
            let row = leg.get_raw(self.tree(shape, leg)?, &part)?;
            return row.map(|primary| fetch(shape, leg, &primary)).transpose();
        }
        self.rows(read, Ok(Span::prefix(part))).next().transpose()
    }

    /// The rows whose field lies in `range`; `.rev()` gives them from the end. A range that starts
    /// above its end gives one error, `Invalid`.
    pub fn range<'r>(&self, read: &'r impl Read, range: impl KeyRange<T>) -> IndexScan<'r, K, V> {
        self.rows(read, range.part_span())
    }

    /// The rows whose field begins with `prefix`: the first bytes of a `String` or `Vec<u8>`, or
    /// the first parts of a tuple.
    pub fn prefix<'r>(
        &self,
        read: &'r impl Read,
        prefix: impl KeyPrefix<T>,
    ) -> IndexScan<'r, K, V> {
        let span = prefix.prefix_span();
        // Text and bytes stand escaped in an entry; the end of the part is not in a prefix of it.
        let span = if matches!(T::key_type(), DataType::String | DataType::Bytes) {
            let mut part = Vec::new();
            escape(span.start(), &mut part);
            part.truncate(part.len() - 2);
            Span::prefix(part)
        } else {
            span
        };
        self.rows(read, Ok(span))
    }

    fn rows<'r>(&self, read: &'r impl Read, span: Result<Span>) -> IndexScan<'r, K, V> {
        let mut reads: Vec<(&'r dyn RawRead, Shape)> = Vec::new();
        let opened = self.rooms.all().map(|(shard, shape)| {
            let leg = read.leg(shard)?;
            let tree = self.tree(shape, leg)?;
            let span = span.as_ref().map_err(Error::again);
            let span = span.cloned().map_err(|error| self.in_field(error));
            reads.push((leg, shape.clone()));
            Ok(RawEnds::open(leg, tree, span))
        });
        let entries = opened.collect::<Result<Vec<_>>>().map(RawEnds::merge);
        IndexScan {
            entries: entries.unwrap_or_else(|error| RawEnds::refused(self.in_field(error))),
            reads,
            def: self.field.def(),
            types: PhantomData,
        }
    }

    /// The tree of the entries in a shard.
    fn tree(&self, shape: &Shape, leg: &impl RawRead) -> Result<TreeId> {
        shape.check_read(leg)?;
        let id = self.field.id();
        let index = shape.info.indexes.iter().find(|index| index.field == id);
        index.map(|index| index.tree).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "a field has no index")
                .with("table", &shape.info.name)
                .with("field", self.field.name())
        })
    }

    fn in_field(&self, error: Error) -> Error {
        error.with("index", self.field.name())
    }
}

/// The row that an entry names.
fn fetch<K: Key, V: Record>(
    shape: &Shape,
    read: &(impl RawRead + ?Sized),
    primary: &[u8],
) -> Result<(K, V)> {
    let Some(row) = read.get_raw(shape.info.tree, primary)? else {
        return Err(
            Error::new(ErrorKind::Corrupt, "an index entry names no row")
                .with("table", &shape.info.name)
                .with("key", shape.show_key(primary)),
        );
    };
    Ok((K::decode_key(primary)?, V::decode_value(&row)?))
}

/// Rows in the order of an indexed field, from either end; made by [`Index::range`] and
/// [`Index::prefix`].
///
/// It borrows what it reads from, since each row is looked up when its entry is reached: in a
/// serializable transaction that look-up is a read which the commit validates.
///
/// Each item is a row or the error that ended the scan.
#[must_use = "a scan reads nothing until it is iterated"]
pub struct IndexScan<'r, K, V> {
    entries: RawEnds,
    /// What each part of the entries is read in.
    reads: Vec<(&'r dyn RawRead, Shape)>,
    def: FieldDef,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: Key, V: Record> IndexScan<'_, K, V> {
    /// The row of the entry that was just given out.
    fn row(&self, entry: Result<RawRow>) -> Result<(K, V)> {
        let (key, value) = entry?;
        let primary = primary_key(&self.def, &key, &value)?;
        let part = match terrane_wal::planted!("entries_are_looked_up_in_the_first_shard") {
            true => 0,
            false => self.entries.part(),
        };
        let (read, shape) = &self.reads[part];
        fetch(shape, *read, primary)
    }
}

impl<K: Key, V: Record> Iterator for IndexScan<'_, K, V> {
    type Item = Result<(K, V)>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next()?;
        Some(self.row(entry))
    }

    /// Counts entries without looking up their rows.
    fn count(self) -> usize {
        self.entries.count()
    }
}

impl<K: Key, V: Record> DoubleEndedIterator for IndexScan<'_, K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next_back()?;
        Some(self.row(entry))
    }
}

impl<K, V, T> Clone for Index<K, V, T> {
    fn clone(&self) -> Self {
        Index {
            rooms: self.rooms.clone(),
            field: self.field,
            key: PhantomData,
        }
    }
}

impl<K, V, T> fmt::Debug for Index<K, V, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.rooms.first().info.name;
        write!(f, "Index({name:?}, {:?})", self.field)
    }
}

impl<K, V> fmt::Debug for IndexScan<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IndexScan({}, {:?})", self.def.name, self.entries)
    }
}
