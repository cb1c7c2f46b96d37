//! Vectors: distance kernels, metrics, and exact search for the nearest rows.
//!
//! A library over slices. It knows no page, transaction, table or log: the engine walks the rows
//! of a snapshot, lets its filter decide, and offers what is left; what comes back is the ids of
//! the nearest rows with their distances. The exact search here is the answer by definition, and
//! so the oracle for every approximate one.
//!
//! ```
//! use terrane_vector::{ExactScan, Metric, Prepared};
//!
//! # fn main() -> Result<(), terrane_vector::VectorError> {
//! let rows = [("north", [0.0, 2.0]), ("east", [3.0, 0.0]), ("north-east", [1.0, 1.0])];
//!
//! let query = Prepared::new(Metric::Cosine, &[0.1, 0.9])?;
//! let mut scan = ExactScan::new(&query, 2)?;
//! for (name, row) in &rows {
//!     scan.offer(*name, row)?;
//! }
//! let names: Vec<&str> = scan.finish()?.into_iter().map(|hit| hit.id).collect();
//! assert_eq!(names, ["north", "north-east"]);
//! # Ok(())
//! # }
//! ```
//!
//! # What holds everywhere
//! * The same vectors give the same distances, to the last bit, on every processor (K1 in
//!   `kernel/mod.rs`), and the same hits in the same order, ties by id (H1 in `topk.rs`).
//! * A vector that [`Metric::check`] accepts never gives a NaN or an infinity (D1 in
//!   `prepared.rs`), be it subnormal or huge.
//! * Input that cannot be served is a [`VectorError`] that names what was expected and found.
//!   Panics are kept for slices whose shapes the caller fixes.
//!
//! # Where to start reading
//! `metric.rs` (what "near" means, which vectors are accepted), `prepared.rs` (a query and its
//! distances), `exact.rs` (the scan), `topk.rs` (the heap), then `kernel/mod.rs` (the sums, how a
//! tier is chosen) and `kernel/scalar.rs`. `unsafe` is in `kernel/` only: loads, stores, and the
//! calls into code compiled for an instruction set.

mod build;
mod centroid;
mod cluster;
mod code;
mod error;
mod exact;
mod index;
mod kernel;
mod limits;
mod memory;
mod metric;
mod prepared;
mod record;
mod search;
mod store;
mod topk;
mod wide;

pub use centroid::CentroidSet;
pub use error::VectorError;
pub use exact::{ExactScan, nearest};
pub use index::{Change, IndexParams, VectorIndex};
pub use kernel::{Kernels, Tier};
pub use limits::{MAX_DIM, MAX_K};
pub use memory::MemoryStore;
pub use metric::Metric;
pub use prepared::Prepared;
pub use record::{Key, PostingId, RecordError, RowId, Vver, decode_any};
pub use search::{Found, RowFilter, SearchParams, Stop};
pub use store::{IndexError, PostingStore, VisitRecord, VisitRow, Write};
pub use topk::{Neighbour, TopK};
