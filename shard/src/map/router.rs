//! From an id to its shard: a binary search over the first eight bytes of every start.
//!
//! The starts of 4,096 shards are 32 KiB in one piece, so a look-up touches a dozen words that are
//! mostly in the first cache, and no id is compared byte by byte unless starts agree in their first
//! eight bytes.
//!
//! Invariants:
//! - O1: the words rise with the shards, ties allowed; the first is 0, because the first start is
//!   the least id.

use super::id::KeyspaceId;

/// The first eight bytes of every shard's start.
#[derive(Debug, Clone)]
pub(super) struct Router {
    words: Vec<u64>,
}

impl Router {
    /// A router over starts that rise and begin at the least id.
    pub(super) fn new<'a>(starts: impl Iterator<Item = &'a KeyspaceId>) -> Router {
        let words: Vec<u64> = starts.map(KeyspaceId::word).collect();
        assert!(words.first() == Some(&0), "O1: the first start is not 0");
        assert!(words.is_sorted(), "O1: starts do not rise");
        Router { words }
    }

    /// Index of the last shard whose start is not above `id`; `start` gives the whole start of a
    /// shard. Logarithmic in the number of shards.
    pub(super) fn find<'a>(
        &self,
        id: &KeyspaceId,
        start: impl Fn(usize) -> &'a KeyspaceId,
    ) -> usize {
        let word = id.word();
        // Starts with a lesser word are below the id, those with a greater one above.
        let above = self.words.partition_point(|&other| other <= word);
        debug_assert!(above > 0, "O1: no start is at or below the id");
        if self.words[above - 1] < word || start(above - 1) <= id {
            return above - 1;
        }
        // The last start of this word is above the id: the rest of the starts decides.
        let mut low = self.words[..above].partition_point(|&other| other < word);
        let mut high = above - 1;
        while low < high {
            let middle = low.midpoint(high);
            if start(middle) <= id {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        // The first start is the least id, so some start is not above this one.
        low.saturating_sub(1)
    }
}
