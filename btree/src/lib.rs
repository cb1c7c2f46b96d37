//! Pages, buffer pool, trees and checkpoints for Terrane: bytes and epochs, no transactions.

pub mod check;
pub mod error;
pub mod ids;
pub mod image;
pub mod page;
pub mod pool;
mod space;
pub mod stats;
pub mod store;
pub mod tree;

pub use error::{Corruption, StoreError};
pub use ids::{Class, Epoch, PageId};
pub use image::{Checkpoint, LogView, Published, Step};
pub use stats::StoreStats;
pub use store::{DirtyEstimate, Opened, Progress, Store, StoreOptions};
pub use tree::cursor::{Cursor, Direction, LeafRows};
pub use tree::{Edit, Row, RowFlags, RowValue, Tree};
