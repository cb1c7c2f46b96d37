//! Verification of a whole tree: what every page says about itself, and what pages say about each
//! other.
//!
//! A page alone is [`crate::page::verify`]'s matter. Here: a child's fences are its parent's
//! separators (T1), levels fall by one, every page is reached once, each chain has the pages and
//! the length that its row or separator says. The tree must not change meanwhile. A bad page is
//! reported and its subtree left out; the rest is checked. Work is bounded: each page is visited at
//! most once.

use std::collections::BTreeSet;

use crate::error::StoreError;
use crate::ids::PageId;
use crate::page::header::{BRANCH, LEAF, LEVEL_MAX, page_id};
use crate::page::image::{Entry, PageCopy, StoredKey};
use crate::page::leaf::{ROW_GHOST, ROW_OVERFLOW};
use crate::page::overflow::{self, Link, OverflowRef};
use crate::page::verify::verify;
use crate::page::view::PageView;
use crate::pool::Stall;
use crate::tree::Tree;

/// Something that is not as it must be.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Where and what: page, tree, expected, found.
    pub error: StoreError,
}

/// What a tree consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeReport {
    /// Levels, the leaves' included.
    pub height: usize,
    /// Leaf pages.
    pub leaves: u64,
    /// Branch pages.
    pub branches: u64,
    /// Overflow pages.
    pub overflow: u64,
    /// Rows that are no ghosts.
    pub rows: u64,
    /// Ghosts.
    pub ghosts: u64,
    /// Bytes in leaves and branches that are neither free nor garbage.
    pub live_bytes: u64,
    /// Things found wrong.
    pub findings: u64,
}

impl TreeReport {
    /// All pages.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.leaves + self.branches + self.overflow
    }
}

/// A page still to be visited, and what its parent says about it.
struct Visit {
    id: PageId,
    level: Option<u8>,
    lower: Option<StoredKey>,
    upper: Option<StoredKey>,
}

struct Check<'a> {
    tree: &'a Tree,
    reached: &'a mut BTreeSet<PageId>,
    report: TreeReport,
    found: &'a mut dyn FnMut(Finding),
    /// The key before, over page boundaries.
    last: Option<Vec<u8>>,
}

/// Checks `tree`, calls `found` for everything wrong, and adds each page reached to `reached`
/// (which may hold those of other trees: a page of two trees is a finding). `Err` only if a page
/// cannot be had for want of memory or by a failing device.
pub fn check_tree(
    tree: &Tree,
    reached: &mut BTreeSet<PageId>,
    found: &mut dyn FnMut(Finding),
) -> Result<TreeReport, StoreError> {
    let mut check = Check {
        tree,
        reached,
        report: TreeReport::default(),
        found,
        last: None,
    };
    let mut stack = vec![Visit {
        id: tree.root(),
        level: None,
        lower: None,
        upper: None,
    }];
    while let Some(visit) = stack.pop() {
        check.visit(visit, &mut stack)?;
    }
    Ok(check.report)
}

impl Check<'_> {
    fn report(&mut self, error: StoreError) {
        self.report.findings += 1;
        (self.found)(Finding {
            error: error.in_tree(self.tree.id()),
        });
    }

    fn wrong(&mut self, page: PageId, expected: &str, found: &dyn std::fmt::Debug) {
        self.report(StoreError::corrupt_page(
            page,
            expected,
            format!("{found:?}"),
        ));
    }

    /// A page's bytes as they are in memory, read from disk if need be. `None` after a finding.
    fn copy(&mut self, id: PageId) -> Result<Option<PageCopy>, StoreError> {
        if id.is_none() || !self.reached.insert(id) {
            self.wrong(id, "each page reached once", &"it again");
            return Ok(None);
        }
        loop {
            let stall = match self.tree.pool().optimistic(id) {
                Ok(page) => {
                    let copy = PageCopy::of(PageView::new(page.words()));
                    if page.validate() {
                        return Ok(self.verified(id, copy));
                    }
                    Stall::Latched
                }
                Err(stall) => stall,
            };
            match self.tree.settle(stall) {
                Ok(()) => {}
                Err(error @ StoreError::Corrupt(_)) => {
                    self.report(error);
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn verified(&mut self, id: PageId, copy: PageCopy) -> Option<PageCopy> {
        if let Err(damage) = verify(copy.bytes()) {
            self.report(damage.of_page(id));
            return None;
        }
        let header = copy.header();
        if header.page_id != id.0 || header.tree != self.tree.id().0 {
            let found = (header.page_id, header.tree);
            self.wrong(id, &format!("{id} of {}", self.tree.id()), &found);
            return None;
        }
        Some(copy)
    }

    fn visit(&mut self, visit: Visit, stack: &mut Vec<Visit>) -> Result<(), StoreError> {
        let Some(copy) = self.copy(visit.id)? else {
            return Ok(());
        };
        let header = *copy.header();
        let level = visit.level.unwrap_or(header.level());
        let kind = if level == 0 { LEAF } else { BRANCH };
        if header.level() != level || header.kind != kind || level > LEVEL_MAX {
            let found = (header.kind, header.level());
            self.wrong(visit.id, &format!("kind {kind} of level {level}"), &found);
            return Ok(());
        }
        if visit.level.is_none() {
            self.report.height = usize::from(level) + 1;
        }
        if copy.lower() != visit.lower || copy.upper() != visit.upper {
            let found = (copy.lower(), copy.upper());
            let expected = format!("fences {:?} (T1)", (&visit.lower, &visit.upper));
            self.wrong(visit.id, &expected, &found);
        }
        self.report.live_bytes += copy.live_bytes() as u64;
        if level == 0 {
            self.leaf(visit.id, &copy)
        } else {
            self.branch(visit, &copy, stack)
        }
    }

    fn leaf(&mut self, id: PageId, copy: &PageCopy) -> Result<(), StoreError> {
        self.report.leaves += 1;
        for entry in copy.entries() {
            let key = self.whole(id, &entry)?;
            if entry.flags & ROW_OVERFLOW != 0
                && let Some(chain) = OverflowRef::parse(entry.value)
            {
                self.chain(chain, None)?;
            }
            let ghost = entry.flags & ROW_GHOST != 0;
            self.report.ghosts += u64::from(ghost);
            self.report.rows += u64::from(!ghost);
            if self.last.as_ref().is_some_and(|last| *last >= key) {
                self.wrong(id, "keys that rise (T1)", &"a key not above the one before");
            }
            self.last = Some(key);
        }
        Ok(())
    }

    fn branch(
        &mut self,
        visit: Visit,
        copy: &PageCopy,
        stack: &mut Vec<Visit>,
    ) -> Result<(), StoreError> {
        self.report.branches += 1;
        let level = Some(copy.header().level() - 1);
        let mut lower = visit.lower;
        let mut children = Vec::new();
        for entry in copy.entries() {
            self.whole(visit.id, &entry)?;
            let upper = Some(entry.stored_key());
            children.push(Visit {
                id: entry.child,
                level,
                lower,
                upper: upper.clone(),
            });
            lower = upper;
        }
        let id = PageId(copy.header().upper_child);
        children.push(Visit {
            id,
            level,
            lower,
            upper: visit.upper,
        });
        // The first child is visited first, so that keys rise over page boundaries.
        stack.extend(children.into_iter().rev());
        Ok(())
    }

    /// The whole key of an entry, its chain checked and counted.
    fn whole(&mut self, page: PageId, entry: &Entry<'_>) -> Result<Vec<u8>, StoreError> {
        let mut key = entry.inline();
        if let Some(tail) = entry.tail {
            self.chain(tail, Some(&mut key))?;
            if key.len() > crate::tree::KEY_MAX {
                self.wrong(page, "a key of at most 32 KiB", &key.len());
            }
        }
        Ok(key)
    }

    /// Checks a chain and appends its bytes to `out`.
    fn chain(
        &mut self,
        chain: OverflowRef,
        mut out: Option<&mut Vec<u8>>,
    ) -> Result<(), StoreError> {
        let size = self.tree.class().bytes();
        let mut id = chain.first;
        for index in 0..overflow::pages(size, chain.len as usize) {
            let Some(copy) = self.copy(id)? else {
                return Ok(());
            };
            let bytes = copy.bytes();
            let words: Vec<_> = bytes
                .chunks_exact(8)
                .map(|c| c.first_chunk().map_or(0, |c| u64::from_le_bytes(*c)).into())
                .collect();
            let view = PageView::new(&words);
            let link = Link::read(view).filter(|link| link.fits(size, chain, index));
            let Some(link) = link.filter(|_| page_id(view) == id) else {
                let expected = format!("page {index} of a chain of {} bytes", chain.len);
                self.report(StoreError::corrupt("overflow", expected, format!("{id}")));
                return Ok(());
            };
            self.report.overflow += 1;
            if let Some(out) = out.as_deref_mut() {
                let start = crate::page::header::HEADER_LEN;
                out.extend_from_slice(&bytes[start..start + link.len]);
            }
            id = link.next;
        }
        Ok(())
    }
}
