//! Where postings lie in their tree, so that a search need not go down from its root for each.
//!
//! Ids of postings rise and are never used again, so hints lie in chunks that stay where they are;
//! a posting beyond the last chunk is read without one.

use std::sync::OnceLock;

use terrane_btree::LeafHint;
use terrane_vector::PostingId;

/// Hints of a chunk.
const CHUNK: usize = 1024;
/// Chunks at most: 16 million postings are a billion rows.
const CHUNKS: usize = 16_384;
/// Groups of extra bits, in a row, that share a hint: about as many as a leaf holds.
const GROUPS: u32 = 4;

/// Hints of one posting; a cache line.
#[derive(Debug, Default)]
struct PostingHints {
    /// Its first leaves.
    leaves: [LeafHint; 3],
    /// Those of its extra bits.
    extra: [LeafHint; 5],
}

/// Hints for each posting.
#[derive(Debug)]
pub(super) struct Hints {
    chunks: Box<[OnceLock<Box<[PostingHints]>>]>,
}

impl Default for Hints {
    fn default() -> Hints {
        Hints {
            chunks: (0..CHUNKS).map(|_| OnceLock::new()).collect(),
        }
    }
}

impl Hints {
    /// The first leaves of a posting.
    pub(super) fn leaves(&self, id: PostingId) -> &[LeafHint] {
        self.of(id).map_or(&[], |hints| &hints.leaves)
    }

    /// The leaf of a group of its extra bits; none beyond the first groups.
    pub(super) fn extra(&self, id: PostingId, group: u32) -> &[LeafHint] {
        let at = (group / GROUPS) as usize;
        let hint = self.of(id).and_then(|hints| hints.extra.get(at));
        hint.map_or(&[], std::slice::from_ref)
    }

    fn of(&self, id: PostingId) -> Option<&PostingHints> {
        let at = id.0 as usize;
        let chunk = self.chunks.get(at / CHUNK)?;
        let chunk = chunk.get_or_init(|| (0..CHUNK).map(|_| PostingHints::default()).collect());
        chunk.get(at % CHUNK)
    }
}
