//! The rows nearest to a vector: an exact search over the rows of a snapshot or transaction.
//!
//! Every row is asked the filter and, if it passes, measured, both on its encoded bytes: no record
//! is decoded before its row is among the hits. The answer is the definition of "nearest" and the
//! oracle of every approximate search.
//!
//! ```text
//! visit rows -> filter (one field at a time) -> elements of the vector -> kernels -> top k
//!            -> rows of the k hits, copied
//! ```
//!
//! Invariants:
//! - Q1: fewer than `k` hits only if fewer rows have a vector and pass the filter.
//! - Q2: hits are ordered by distance, then by key.

use std::fmt;
use std::marker::PhantomData;

use terrane_vector::{ExactScan, MAX_K, Prepared};

use crate::codec::vector::VectorView;
use crate::codec::{FieldDef, Key, Record, Span};
use crate::error::{Error, ErrorKind, Result};
use crate::query::filter::Filter;
use crate::query::hit::Hit;
use crate::table::Shape;
use crate::table::scan::bounds;
use crate::table::vectors::{check_vector, refusal};
use crate::txn::Read;

/// A search for the rows nearest to a vector; made by [`crate::Table::nearest`].
#[must_use = "a search does nothing until it is run"]
pub struct Nearest<K, V> {
    shape: Shape,
    def: FieldDef,
    query: Vec<f32>,
    k: usize,
    filter: Option<Filter<V>>,
    recall: Option<f64>,
    key: PhantomData<fn() -> K>,
}

impl<K: Key, V: Record> Nearest<K, V> {
    pub(crate) fn new(shape: Shape, def: FieldDef, query: &[f32], k: usize) -> Nearest<K, V> {
        Nearest {
            shape,
            def,
            query: query.to_vec(),
            k,
            filter: None,
            recall: None,
            key: PhantomData,
        }
    }

    /// Only rows that meet `filter`; of several filters, all. The search still returns `k` hits
    /// if so many rows pass.
    pub fn filter(mut self, filter: Filter<V>) -> Nearest<K, V> {
        self.filter = Some(match self.filter {
            Some(before) => before & filter,
            None => filter,
        });
        self
    }

    /// The share of the true nearest rows that the result should hold, above 0 and up to 1. A
    /// goal for a search by index; the exact search reaches 1 whatever is asked for.
    pub fn recall(mut self, recall: f64) -> Nearest<K, V> {
        self.recall = Some(recall);
        self
    }

    /// Runs the search over the rows that `read` sees, a transaction's own writes among them.
    ///
    /// Hits come nearest first, those of equal distance by key. Rows whose optional vector is
    /// `None` are never found. O(rows x dimension).
    ///
    /// # Errors
    /// `Invalid` when the field is not declared `vector(..)`, the query has another dimension or
    /// an element that is not finite, its square sum is above what `f32` holds, it is all zeros
    /// and the metric is cosine, the recall is outside of (0, 1], or a range of the filter starts
    /// above its end; `TooLarge` when `k` is above 10,000; those of a read.
    pub fn run(self, read: &impl Read) -> Result<Vec<Hit<K, V>>> {
        self.shape.check_read(read)?;
        let query = self.check().map_err(|error| {
            error
                .with("table", &self.shape.info.name)
                .with("field", self.def.name)
        })?;
        if self.k == 0 {
            return Ok(Vec::new());
        }
        let tree = self.shape.info.tree;
        let mut scan = ExactScan::new(&query, self.k).map_err(|error| refusal(&error))?;
        let mut scratch = Vec::new();
        let (lower, upper) = bounds(&Span::all());
        read.scan_raw(tree, lower, upper, false)?
            .visit(|key, record| {
                if let Some(filter) = &self.filter
                    && !filter.matches(record, &mut scratch)?
                {
                    return Ok(());
                }
                let Some(whole) = self.def.find(record)? else {
                    return Ok(());
                };
                let vector = VectorView::of_whole(&whole)?;
                scan.offer_bytes(key.to_vec(), vector.elements)
                    .map_err(|error| self.stored(&error, key))
            })?;
        let found = scan.finish().map_err(|error| self.stored(&error, &[]))?;
        let hit = |found: terrane_vector::Neighbour<Vec<u8>>| -> Result<Hit<K, V>> {
            let row = read.get_raw(tree, &found.id)?.ok_or_else(|| {
                Error::new(
                    ErrorKind::Corrupt,
                    "a row is in a scan and not in a look-up",
                )
                .with("table", &self.shape.info.name)
                .with("key", self.shape.show_key(&found.id))
            })?;
            Ok(Hit::new(K::decode_key(&found.id)?, found.distance, &row))
        };
        found.into_iter().map(hit).collect()
    }

    /// Whether the search can be served; the query, prepared.
    fn check(&self) -> Result<Prepared> {
        let vector = self.def.vector.ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "a field cannot be searched by distance")
        })?;
        check_vector(&vector, &self.query)?;
        if self.k > MAX_K {
            return Err(Error::new(ErrorKind::TooLarge, "k is above its limit")
                .with("given", self.k)
                .with("limit", MAX_K));
        }
        if let Some(recall) = self.recall
            && !(recall > 0.0 && recall <= 1.0)
        {
            return Err(Error::new(ErrorKind::Invalid, "a recall is out of range")
                .with("given", recall)
                .with("range", "above 0, up to 1"));
        }
        if let Some(filter) = &self.filter {
            filter.check()?;
        }
        Prepared::new(vector.metric, &self.query).map_err(|error| refusal(&error))
    }

    /// A stored vector that could not have been stored through this table.
    #[cold]
    fn stored(&self, error: &terrane_vector::VectorError, key: &[u8]) -> Error {
        Error::new(ErrorKind::Corrupt, "a stored vector fails its check")
            .with("table", &self.shape.info.name)
            .with("field", self.def.name)
            .with("key", self.shape.show_key(key))
            .caused_by(error.clone())
    }
}

impl<K, V> fmt::Debug for Nearest<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nearest")
            .field("table", &self.shape.info.name)
            .field("field", &self.def.name)
            .field("dim", &self.query.len())
            .field("k", &self.k)
            .field("filter", &self.filter)
            .field("recall", &self.recall)
            .finish()
    }
}
