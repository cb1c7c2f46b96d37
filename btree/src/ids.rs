//! Numbers with a meaning: page ids, size classes, epochs, slots.
//!
//! A page id names a page for as long as it lives; where its bytes lie (its slot) changes with each
//! write-out. An epoch numbers the stretch of changes between two checkpoints.

use std::fmt;

/// Names a page. Ids start at 1; 0 means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageId(pub u64);

impl PageId {
    /// No page.
    pub const NONE: PageId = PageId(0);
    /// The root of the tree directory in every store.
    pub const DIRECTORY: PageId = PageId(1);
    /// Ids lie below this one: 40 bits, as many as there are slots.
    pub const LIMIT: PageId = PageId(1 << 40);

    /// True for the id that names nothing.
    #[must_use]
    pub fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {}", self.0)
    }
}

/// Size class c: pages of 4096 << c bytes. Classes 1, 2 and 3 are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class(u8);

impl Class {
    /// 8 KiB, the default.
    pub const K8: Class = Class(1);
    /// 16 KiB.
    pub const K16: Class = Class(2);
    /// 32 KiB.
    pub const K32: Class = Class(3);
    /// All that are built, smallest first.
    pub const ALL: [Class; 3] = [Class::K8, Class::K16, Class::K32];

    /// The class with this number, if it is built.
    #[must_use]
    pub fn new(number: u8) -> Option<Class> {
        (1..=3).contains(&number).then_some(Class(number))
    }

    /// The number as it stands in pages, map entries and the tree directory.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }

    /// Bytes of a page.
    #[must_use]
    pub fn bytes(self) -> usize {
        4096 << self.0
    }

    /// Slot units of 4 KiB that a page fills.
    #[must_use]
    pub fn units(self) -> u64 {
        1 << self.0
    }

    /// Words of a frame.
    #[must_use]
    pub fn words(self) -> usize {
        self.bytes() / 8
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB", self.bytes() / 1024)
    }
}

/// Numbers the stretch of changes that one checkpoint cuts off. Starts at 1; 0 is before all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The one after. Panics after 2^32 checkpoints: at one a second that is 136 years.
    #[must_use]
    pub fn next(self) -> Epoch {
        match self.0.checked_add(1) {
            Some(next) => Epoch(next),
            None => panic!("epochs are exhausted"),
        }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {}", self.0)
    }
}

/// Where a page's bytes lie: 4 KiB units from the start of the data zones, 40 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u64);

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}", self.0)
    }
}
