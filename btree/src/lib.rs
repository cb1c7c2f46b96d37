//! Pages, buffer pool, trees and checkpoints for Terrane: bytes and epochs, no transactions.
//!
//! Reading order: [`ids`] (the numbers), [`page`] (what lies in a page), [`pool`] (pages in
//! memory),
//! `space` (pages on disk), [`tree`] (rows), [`image`] (checkpoints and open), [`store`] (all of it
//! together), [`check`] (verification).
//!
//! ```text
//! row -> tree -> pool (frame, latch, epoch gate) -> eviction, checkpoint -> slot in a zone
//!                                                     \-> delta list of the content -> map -> META
//! ```
//! Invariants (numbers of the architecture page): T1 fences enclose keys. T2 a change of structure
//! lies in one epoch, and a checkpoint writes delta lists, never the live locations. T3 page id and
//! crc are verified on every read. T4 no wait inside the gate or under a latch. T5 a slot is
//! written only if it is free in every retained map. M1 nothing is published that the log could
//! lose. M2 two generations are openable; an abandoned checkpoint is covered by the next.
//!
//! Under `--cfg loom` only the parts that models run exist: the state word and the gate, the very
//! files that ship.

#[cfg(not(loom))]
mod whole {
    pub use crate::audit::CheckReport;
    pub use crate::error::{Corruption, StoreError};
    pub use crate::ids::{Class, Epoch, PageId};
    pub use crate::image::survey::{Surveyed, survey};
    pub use crate::image::{Checkpoint, LogView, Published, Step};
    pub use crate::stats::StoreStats;
    pub use crate::store::{DirtyEstimate, Found, Opened, Progress, Store, StoreOptions};
    pub use crate::tree::cursor::LeafRow;
    pub use crate::tree::cursor::{Cursor, Direction, LeafRows};
    pub use crate::tree::run::RunRow;
    pub use crate::tree::span::{LeafHint, Span, SpanRows};
    pub use crate::tree::{Edit, Row, RowFlags, RowValue, Tree};
}
#[cfg(not(loom))]
pub use whole::*;

#[cfg(not(loom))]
pub mod audit;
#[cfg(not(loom))]
pub mod check;
#[cfg(not(loom))]
pub mod error;
pub mod ids;
#[cfg(not(loom))]
pub mod image;
#[cfg(not(loom))]
pub mod page;
#[cfg(not(loom))]
pub mod pool;
#[cfg(not(loom))]
mod space;
#[cfg(not(loom))]
pub mod stats;
#[cfg(not(loom))]
pub mod store;
#[cfg(not(loom))]
pub mod tree;

#[cfg(loom)]
#[path = "image/gate.rs"]
pub mod gate;
#[cfg(loom)]
#[path = "pool/latch.rs"]
pub mod latch;
