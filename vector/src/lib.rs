//! Vectors: distance kernels, metrics, exact search for the nearest rows, and an index.
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
//! # The index
//!
//! Rows lie in *postings*, lists of about a hundred around a centre (SPFresh; Xu and others, SOSP
//! 2023). A posting holds codes, not vectors: one bit for each dimension in sealed blocks of 32,
//! three more in records of their own, single entries in a tail until a fold packs them. A search
//! orders the centres, reads postings nearest first, keeps what the codes' error bounds cannot rule
//! out, and reads the rows of that. The row is the truth, an entry a hint: a hit is a row that the
//! snapshot holds with the very version that its entry names.
//!
//! [`VectorIndex`] stores nothing. It reads through a [`PostingStore`] and returns records for the
//! host to put with the row; [`MemoryStore`] is such a host.
//!
//! ```
//! use terrane_vector::{
//!     CentroidSet, IndexParams, Key, MemoryStore, Metric, PostingStore, RowId, SearchParams,
//!     VectorIndex, Vver,
//! };
//!
//! # fn main() -> Result<(), terrane_vector::IndexError> {
//! let index = VectorIndex::new(IndexParams::new(Metric::L2, 2, 42))?;
//! let mut store = MemoryStore::new(CentroidSet::empty(Metric::L2, 2));
//! let rows: Vec<[f32; 2]> = (0..1000_u16).map(|i| [f32::from(i), f32::from(i % 7)]).collect();
//! let numbered = || (0..).map(RowId).zip(&rows);
//! store.apply(1, index.build(1, numbered().map(|(id, row)| (id, &row[..])))?)?;
//! for (id, row) in numbered() {
//!     store.put_row(1, id, Some((Vver(0), row.to_vec())));
//! }
//!
//! // A commit: made ready, bound to a posting, applied with its row.
//! let change = index.prepare(RowId(5000), Some(&[500.1, 3.0]))?;
//! let set = store.centroids();
//! let locator = store.record(Key::Locator(RowId(5000)));
//! let (vver, writes) = index.bind(&set, &change, locator)?;
//! store.apply_commit(2, writes)?;
//! store.put_row(2, RowId(5000), Some((vver, vec![500.1, 3.0])));
//!
//! let params = SearchParams { exact_below: 0, ..SearchParams::new(2) };
//! let found = index.search(&store, &[500.1, 3.1], &params)?;
//! assert_eq!(found.hits[0].id, RowId(5000));
//! assert_eq!(found.hits[1].id, RowId(500));
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
//!
//! The index: `code/mod.rs` (estimates and bounds), `record/mod.rs` (what is stored), `store.rs`
//! (what a host provides), `centroid.rs`, `search/mod.rs`
//! (with `stop.rs` and `filter.rs`), `index.rs` (a change becomes records),
//! `build.rs` with `cluster.rs`, `maintain/mod.rs`.

// Before all others: they use its macro.
#[macro_use]
mod planted;

mod build;
mod calibrate;
mod centroid;
mod check;
mod cluster;
mod code;
mod error;
mod exact;
mod filter;
mod index;
mod kernel;
mod limits;
mod maintain;
mod memory;
mod metric;
mod params;
mod prepared;
mod quality;
mod record;
mod router;
mod search;
mod stop;
mod store;
mod topk;
mod wide;

pub use build::NewRow;
pub use calibrate::{Calibration, CalibrationStep};
pub use centroid::CentroidSet;
pub use check::check;
pub use error::VectorError;
pub use exact::{ExactScan, nearest};
pub use filter::Admit;
pub use index::{Change, VectorIndex};
pub use kernel::{Kernels, Tier};
pub use limits::{COLUMNS_MAX, MAX_DIM, MAX_K};
pub use maintain::{
    Delta, Maintainer, MaintenanceHost, MaintenanceStats, Progress, Publish, RecordStore,
};
pub use memory::MemoryStore;
pub use metric::Metric;
pub use params::IndexParams;
pub use prepared::Prepared;
pub use quality::Quality;
pub use record::{
    IndexState, Key, Meta, PostingId, RecordError, RowId, Tuning, Vver, decode_any,
    largest_record_bytes, locator_is_live, locator_key,
};
pub use search::{Found, Scratch, SearchParams, Stop};
pub use store::{IndexError, PostingStore, VisitRecord, VisitRow, Write};
pub use topk::{Neighbour, TopK};
