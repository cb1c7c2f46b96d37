//! Chains of overflow pages as the tree uses them: read under somebody's version, written and freed
//! together with the row or separator that names them, in one epoch (T2).

use std::cmp::Ordering;

use crate::error::{Corruption, StoreError};
use crate::ids::PageId;
use crate::page::header::{HEADER_LEN, OVERFLOW, page_id, tree};
use crate::page::overflow::{self, Link, OverflowRef};
use crate::page::slots::Tails;
use crate::page::view::{PageEdit, PageView};
use crate::pool::{Excl, GateGuard, Stall};

use super::{Tree, header_of};

/// Compares tails by reading their chains.
pub(super) struct ChainTails<'a>(pub(super) &'a Tree);

impl Tails for ChainTails<'_> {
    type Error = Stall;

    fn compare(&self, tail: OverflowRef, rest: &[u8]) -> Result<Ordering, Stall> {
        // Page by page: mostly the first one tells.
        let mut order = Ordering::Equal;
        let mut left = rest;
        self.0.walk_chain(tail, &mut |view, len| {
            let (here, after) = left.split_at(left.len().min(len));
            order = view.compare(HEADER_LEN, len, here);
            left = after;
            order == Ordering::Equal
        })?;
        if order == Ordering::Equal && !left.is_empty() {
            return Ok(Ordering::Less);
        }
        Ok(order)
    }
}

/// The pages of a new chain: latched, in the guard's epoch, not written yet.
#[derive(Debug)]
pub(super) struct NewChain<'a> {
    pages: Vec<Excl<'a>>,
}

impl Tree {
    /// Appends the bytes of a chain to `out`. `Corrupt` must not be believed before the page that
    /// named the chain was validated.
    pub(super) fn read_chain(&self, chain: OverflowRef, out: &mut Vec<u8>) -> Result<(), Stall> {
        self.walk_chain(chain, &mut |view, len| view.append_to(HEADER_LEN, len, out))
    }

    /// Shows each page of a chain and the length of its data to `look`, which says whether to go
    /// on. What it saw counts only if the walk ends well. Bounded: each page must say its place in
    /// this very chain.
    fn walk_chain(
        &self,
        chain: OverflowRef,
        look: &mut dyn FnMut(PageView<'_>, usize) -> bool,
    ) -> Result<(), Stall> {
        let mut id = chain.first;
        let size = self.class.bytes();
        if chain.len == 0 || chain.len as usize > overflow::CHAIN_MAX {
            return Err(self.bad_chain(chain, id, "a chain of at most 64 KiB", &chain.len));
        }
        for index in 0..overflow::pages(size, chain.len as usize) {
            let page = self.pool.optimistic(id)?;
            let view = PageView::new(page.words());
            let link = Link::read(view);
            let mine = page_id(view) == id && tree(view) == self.id.0;
            let fits = link.filter(|link| mine && link.fits(size, chain, index));
            let go_on = fits.is_some_and(|link| look(view, link.len));
            if !page.validate() {
                return Err(Stall::Latched);
            }
            let Some(fits) = fits else {
                return Err(self.bad_chain(chain, id, &format!("page {index} of it"), &link));
            };
            if !go_on {
                return Ok(());
            }
            id = fits.next;
        }
        Ok(())
    }

    fn bad_chain(
        &self,
        chain: OverflowRef,
        page: PageId,
        expected: &str,
        found: &dyn std::fmt::Debug,
    ) -> Stall {
        Stall::Corrupt(StoreError::Corrupt(Box::new(Corruption {
            what: "overflow",
            page: Some(page),
            tree: Some(self.id),
            expected: format!(
                "{expected} (chain of {} bytes from {})",
                chain.len, chain.first
            ),
            found: format!("{found:?}"),
            ..Corruption::default()
        })))
    }

    /// Latches all pages of a chain that is about to end. Nothing is changed yet.
    pub(super) fn latch_chain<'a>(
        &'a self,
        guard: &GateGuard<'_>,
        chain: Option<OverflowRef>,
        held: &mut Vec<Excl<'a>>,
    ) -> Result<(), Stall> {
        let Some(chain) = chain else { return Ok(()) };
        let size = self.class.bytes();
        let mut id = chain.first;
        for index in 0..overflow::pages(size, chain.len as usize) {
            let page = self.pool.optimistic(id)?.upgrade_structure(guard)?;
            let link = Link::read(PageView::new(page.words()));
            match link.filter(|link| link.fits(size, chain, index)) {
                Some(link) => id = link.next,
                None => return Err(self.bad_chain(chain, id, "a page of it", &link)),
            }
            held.push(page);
        }
        Ok(())
    }

    /// Reserves the pages for a chain of `len` bytes. On a stall none stays reserved.
    pub(super) fn reserve_chain(
        &self,
        guard: &GateGuard<'_>,
        len: usize,
    ) -> Result<NewChain<'_>, Stall> {
        assert!(len <= overflow::CHAIN_MAX, "a chain that is too long");
        let mut chain = NewChain { pages: Vec::new() };
        for _ in 0..overflow::pages(self.class.bytes(), len) {
            match self.pool.allocate(guard, self.class, self.id, OVERFLOW) {
                Ok(page) => chain.pages.push(page),
                Err(stall) => {
                    self.abandon(guard, chain.pages);
                    return Err(stall);
                }
            }
        }
        Ok(chain)
    }

    /// Gives pages back that were allocated under this guard and not linked, or unlinked just now.
    pub(super) fn abandon(&self, guard: &GateGuard<'_>, pages: Vec<Excl<'_>>) {
        for page in pages {
            self.pool.free(guard, page);
        }
    }

    /// Gives a reserved chain back.
    pub(super) fn abandon_chain(&self, guard: &GateGuard<'_>, chain: NewChain<'_>) {
        self.abandon(guard, chain.pages);
    }
}

impl NewChain<'_> {
    /// Writes `bytes`, for as many of which the chain was reserved. `None` for no bytes.
    pub(super) fn write(self, bytes: &[u8]) -> Option<OverflowRef> {
        let first = self.pages.first()?;
        let size = first.class().bytes();
        let reference = OverflowRef {
            first: first.id(),
            len: bytes.len() as u32,
        };
        assert_eq!(
            self.pages.len(),
            overflow::pages(size, bytes.len()),
            "reserved for others"
        );
        for (index, data) in bytes.chunks(overflow::capacity(size)).enumerate() {
            let page = &self.pages[index];
            let link = Link {
                len: data.len(),
                next: self.pages.get(index + 1).map_or(PageId::NONE, Excl::id),
                index: index as u32,
                total: bytes.len() as u32,
            };
            let image = overflow::build(&header_of(page), size, &link, data);
            PageEdit::new(page.words()).write_page(&image);
        }
        Some(reference)
    }
}
