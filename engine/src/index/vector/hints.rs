//! Where postings begin in their tree, so that a search need not go down from its root for each.
//!
//! Ids of postings rise and are never used again, so hints lie in chunks that stay where they are;
//! a posting beyond the last chunk is read without one.

use std::sync::OnceLock;

use terrane_btree::LeafHint;
use terrane_vector::PostingId;

/// Hints of a chunk.
const CHUNK: usize = 4096;
/// Chunks at most: 16 million postings are a billion rows.
const CHUNKS: usize = 4096;

/// A hint for each posting.
#[derive(Debug)]
pub(super) struct Hints {
    chunks: Box<[OnceLock<Box<[LeafHint]>>]>,
}

impl Default for Hints {
    fn default() -> Hints {
        Hints {
            chunks: (0..CHUNKS).map(|_| OnceLock::new()).collect(),
        }
    }
}

impl Hints {
    /// The hint of a posting.
    pub(super) fn of(&self, id: PostingId) -> Option<&LeafHint> {
        let at = id.0 as usize;
        let chunk = self.chunks.get(at / CHUNK)?;
        let chunk = chunk.get_or_init(|| (0..CHUNK).map(|_| LeafHint::default()).collect());
        chunk.get(at % CHUNK)
    }
}
