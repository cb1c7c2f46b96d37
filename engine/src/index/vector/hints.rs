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
/// Hints for the groups of extra bits of a posting. One of 112 entries has 14 to 16 groups; where
/// there are more, some share a hint.
const GROUPS: usize = 21;

/// Hints of one posting: three cache lines.
#[derive(Debug, Default)]
struct PostingHints {
    /// Its first leaves.
    leaves: [LeafHint; 3],
    /// Those of its extra bits.
    extra: [LeafHint; GROUPS],
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

    /// The leaf of a group of its extra bits.
    pub(super) fn extra(&self, id: PostingId, group: u32) -> &[LeafHint] {
        let at = group as usize % GROUPS;
        let hint = self.of(id).map(|hints| &hints.extra[at]);
        hint.map_or(&[], std::slice::from_ref)
    }

    fn of(&self, id: PostingId) -> Option<&PostingHints> {
        let at = id.0 as usize;
        let chunk = self.chunks.get(at / CHUNK)?;
        let chunk = chunk.get_or_init(|| (0..CHUNK).map(|_| PostingHints::default()).collect());
        chunk.get(at % CHUNK)
    }
}
