//! What a commit does to the counters of postings.

use std::collections::BTreeMap;

use crate::record::{Key, PostingId};
use crate::store::Write;

/// A change of a posting's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delta {
    /// The posting.
    pub posting: PostingId,
    /// Entries that became live, less those that became dead.
    pub live: i32,
    /// Entries that became dead.
    pub dead: i32,
    /// Entries that the tail got.
    pub tail: i32,
}

impl Delta {
    /// What the records of a bound change do, posting by posting. A host hands this to the
    /// maintainer after the commit; what is lost on the way, in a crash, the maintainer's survey
    /// finds again. O(writes).
    #[must_use]
    pub fn of(writes: &[Write]) -> Vec<Self> {
        let mut all: BTreeMap<PostingId, Self> = BTreeMap::new();
        for write in writes {
            let (posting, live, dead, tail) = match write.key {
                Key::Tail(posting, ..) => (posting, 1, 0, 1),
                Key::Mark(posting, ..) => (posting, -1, 1, 0),
                _ => continue,
            };
            let none = Self {
                posting,
                live: 0,
                dead: 0,
                tail: 0,
            };
            let delta = all.entry(posting).or_insert(none);
            delta.live += live;
            delta.dead += dead;
            delta.tail += tail;
        }
        all.into_values().collect()
    }
}
