//! A row that a search found: its key and distance at once, its record when asked for.

use std::fmt;

use crate::codec::{Ref, Value};
use crate::error::Result;

/// A row found by [`crate::Nearest::run`].
///
/// It owns a copy of the row as the search saw it, still encoded: a search for 1,000 rows decodes
/// no vector, and the record can be read after the transaction has ended.
pub struct Hit<K, V> {
    /// Key of the row.
    pub key: K,
    /// Distance to the query under the metric of the field; smaller is nearer.
    pub distance: f32,
    row: Ref<V>,
}

impl<K, V: Value> Hit<K, V> {
    pub(crate) fn new(key: K, distance: f32, row: &[u8]) -> Hit<K, V> {
        let row = Ref::new(row);
        Hit { key, distance, row }
    }

    /// The record, decoded now.
    ///
    /// # Errors
    /// `Codec` when the stored row does not decode.
    pub fn record(&self) -> Result<V> {
        self.row.decode()
    }

    /// The record as it is stored, to read single fields of it.
    #[must_use]
    pub fn encoded(&self) -> &Ref<V> {
        &self.row
    }
}

impl<K: Clone, V: Value> Clone for Hit<K, V> {
    fn clone(&self) -> Self {
        Hit {
            key: self.key.clone(),
            distance: self.distance,
            row: self.row.clone(),
        }
    }
}

impl<K: fmt::Debug, V: Value> fmt::Debug for Hit<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hit")
            .field("key", &self.key)
            .field("distance", &self.distance)
            .field("row", &self.row)
            .finish()
    }
}
