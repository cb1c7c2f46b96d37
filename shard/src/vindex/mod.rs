//! Vindexes: from column values to keyspace ids, and so to shards.
//!
//! A vindex is asked once for each row that is written and once for each condition of a query. Its
//! answer is a [`Destination`]: one id where all of its columns are known, a range where some are,
//! every shard where the condition says nothing. Which shards that is, the shard map knows.
//!
//! Reading order: `value.rs` (what is placed), this file (what a vindex is), `column.rs` (the seven
//! of one column), `static_map.rs`, `cfc.rs`, `multicol.rs`; `params.rs` and `registry.rs` (how a
//! schema names one).
//!
//! Invariants:
//! - W1: a vindex is a function: the same values have the same destination for ever, on every host.
//!   No clock, no state, no random number. Rows are found only where it says.
//! - W2: an answer may name a shard too many, never one too few.

mod cfc;
mod column;
mod error;
mod multicol;
mod params;
mod registry;
mod static_map;
mod value;

use std::fmt;
use std::ops::Bound;

pub use cfc::Cfc;
pub use column::Column;
pub use error::VindexError;
pub use multicol::Multicol;
pub use params::Params;
pub use registry::Registry;
pub use static_map::StaticMap;
pub use value::Value;

use crate::map::{Destination, KeyRange, KeyspaceId};

/// Ids that begin with these bytes.
fn begin_with(vindex: &str, prefix: &[u8]) -> Result<Destination, VindexError> {
    let range = KeyRange::of_prefix(prefix).map_err(VindexError::id(vindex))?;
    Ok(range.into())
}

/// A rule that places rows by the values of some of their columns.
///
/// The kinds of this crate are built by name, see [`Registry`]. A host writes its own by
/// implementing `kind`, `cost` and `map`:
///
/// ```
/// use std::sync::Arc;
/// use terrane_shard::{Destination, KeyspaceId, Registry, Value, Vindex, VindexError};
///
/// /// Places by country: 40 for those that keep their data at home, 80 for the rest.
/// #[derive(Debug)]
/// struct ByCountry;
///
/// impl Vindex for ByCountry {
///     fn kind(&self) -> &str {
///         "by_country"
///     }
///     fn cost(&self) -> u32 {
///         1
///     }
///     fn map(&self, values: &[Value<'_>]) -> Result<Destination, VindexError> {
///         let [Value::Bytes(country)] = values else {
///             return Ok(Destination::None);
///         };
///         let first = if &country[..] == b"de" { 0x40 } else { 0x80 };
///         Ok(Destination::Id(KeyspaceId::from_word(first << 56)))
///     }
/// }
///
/// # fn main() -> Result<(), VindexError> {
/// let mut registry = Registry::new();
/// registry.register("by_country", |params| {
///     params.accept(&[])?;
///     Ok(Arc::new(ByCountry))
/// })?;
/// let vindex = registry.build("by_country", &[])?;
/// let home = vindex.map(&["de".into()])?;
/// assert_eq!(home, Destination::Id(KeyspaceId::from_word(0x40 << 56)));
/// # Ok(())
/// # }
/// ```
pub trait Vindex: fmt::Debug + Send + Sync {
    /// The name of its kind.
    fn kind(&self) -> &str;

    /// What asking it costs beside others: a query that several vindexes could serve takes the
    /// cheapest. 0 and 1 compute, 100 is a last resort.
    fn cost(&self) -> u32;

    /// Columns that it takes. One unless it says otherwise.
    fn columns(&self) -> usize {
        1
    }

    /// Where values lie, one for each column; where it is allowed, for the first columns only.
    ///
    /// # Errors
    /// [`VindexError::ColumnCount`], or values that it must refuse: text that is too short or gives
    /// an id that is too long. A value that merely has no place is [`Destination::None`].
    fn map(&self, values: &[Value<'_>]) -> Result<Destination, VindexError>;

    /// Whether values of all columns have one id at most. A vindex that places rows must; only
    /// look-ups through an index do not.
    fn is_unique(&self) -> bool {
        true
    }

    /// Whether [`Vindex::invert`] works.
    fn is_reversible(&self) -> bool {
        false
    }

    /// A value that lies at an id: of all that do, the one without zero bytes at its end.
    ///
    /// # Errors
    /// [`VindexError::NotReversible`], or [`VindexError::ForeignId`] for an id that no value has.
    fn invert(&self, id: &KeyspaceId) -> Result<Value<'static>, VindexError> {
        let _ = id;
        Err(VindexError::NotReversible {
            vindex: self.kind().to_owned(),
        })
    }

    /// Whether [`Vindex::between`] answers with less than all shards.
    fn is_ordered(&self) -> bool {
        false
    }

    /// Where values between two bounds lie. A bound says whether it is included; in Vitess the
    /// range ends at the upper value, which leaves that value's own id out.
    ///
    /// # Errors
    /// Those of [`Vindex::map`].
    fn between(
        &self,
        from: Bound<&Value<'_>>,
        to: Bound<&Value<'_>>,
    ) -> Result<Destination, VindexError> {
        let _ = (from, to);
        Ok(Destination::All)
    }

    /// What asking [`Vindex::prefix`] costs; none where its answer is always all shards.
    fn prefix_cost(&self) -> Option<u32> {
        None
    }

    /// Where values that begin with some bytes lie.
    ///
    /// # Errors
    /// [`VindexError::Id`] where no value with a place can begin so.
    fn prefix(&self, prefix: &[u8]) -> Result<Destination, VindexError> {
        let _ = prefix;
        Ok(Destination::All)
    }
}
