//! Pages: what lies in one, how it is looked at, built, changed and verified.
//!
//! ```text
//! 0        128            heap_top                                size-32    size
//! | header | slots ---> ...   free   ... <--- entries and fences | trailer |
//! ```
//!
//! - [`view`]: word-wise access that tolerates a page changing under the reader's eyes.
//! - [`header`]: the 128 bytes in front, kinds, flags, the checksum.
//! - [`slots`]: searching the slot array by key heads; shared by leaves and branches.
//! - [`leaf`], [`branch`]: rows and separators in place. [`overflow`]: chains of long bytes.
//! - [`image`]: a page as owned bytes, taken apart and built anew (split, merge, compaction).
//! - [`verify`]: what a valid page is. A page that passed may be read and changed without any
//!   further check of offsets; so every page passes when it is loaded.
//!
//! The byte tables stand in engine/src/guide/format.md, "Pages".

pub(crate) mod branch;
pub mod header;
pub(crate) mod image;
pub(crate) mod leaf;
pub mod overflow;
pub(crate) mod slots;
#[cfg(test)]
mod tests;
pub mod verify;
pub mod view;
