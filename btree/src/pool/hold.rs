//! How a thread holds a page: a look without a latch ([`Opt`]), or exclusively ([`Excl`]).
//!
//! The step from one to the other makes the page dirty in the right epoch. Content of the epoch
//! that a checkpoint is cutting off, dirty and not yet written, must survive: the writer copies the
//! frame, leaves the old one to the checkpoint and goes on with the copy (about 1 us for 8 KiB).

use std::sync::atomic::{AtomicU64, Ordering};

use crate::ids::{Class, Epoch, PageId};

use super::frame::Owner;
use super::latch;
use super::translate::{Entry, FrameWord};
use super::{Frozen, GateGuard, Pool, Stall};

/// A page that is looked at without a latch.
#[derive(Debug)]
pub struct Opt<'a> {
    pub(super) pool: &'a Pool,
    pub(super) id: PageId,
    pub(super) entry: Entry<'a>,
    pub(super) seen: u64,
    pub(super) class: Class,
    pub(super) words: &'a [AtomicU64],
}

/// A page held exclusively, dirty, in its epoch. Dropping it unlatches and bumps the version.
#[derive(Debug)]
pub struct Excl<'a> {
    pub(super) id: PageId,
    pub(super) entry: Entry<'a>,
    pub(super) frame: FrameWord,
    pub(super) epoch: Epoch,
    pub(super) words: &'a [AtomicU64],
}

impl<'a> Opt<'a> {
    /// The page's id.
    #[must_use]
    pub fn id(&self) -> PageId {
        self.id
    }

    /// Its size class.
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    /// Its words, which may be changing: `PageView::new(page.words())`.
    #[must_use]
    pub fn words(&self) -> &'a [AtomicU64] {
        self.words
    }

    /// True if everything read so far was one state of this page, and it is still the state.
    #[inline]
    #[must_use]
    pub fn validate(&self) -> bool {
        latch::unchanged(self.entry.state, self.seen)
    }

    /// Latches the page for a change that stays inside it, in the guard's epoch or in the page's
    /// newer one. `Latched` (changed since the look) or `NoFrame` (a frozen page must be copied).
    pub fn upgrade(self, guard: &GateGuard<'_>) -> Result<Excl<'a>, Stall> {
        self.latch(guard, false)
    }

    /// Latches the page as part of a change that spans pages; also `NewerEpoch` (T2).
    pub fn upgrade_structure(self, guard: &GateGuard<'_>) -> Result<Excl<'a>, Stall> {
        self.latch(guard, true)
    }

    fn latch(self, guard: &GateGuard<'_>, structure: bool) -> Result<Excl<'a>, Stall> {
        if !latch::try_upgrade(self.entry.state, self.seen) {
            return Err(Stall::Latched);
        }
        match self.make_dirty(guard.epoch(), structure) {
            Ok((frame, epoch, words)) => Ok(Excl {
                id: self.id,
                entry: self.entry,
                frame,
                epoch,
                words,
            }),
            Err(stall) => {
                latch::release_unchanged(self.entry.state);
                Err(stall)
            }
        }
    }

    /// Under the latch: moves the page into the writer's epoch, copying the frame if a checkpoint
    /// still needs the old content.
    fn make_dirty(
        &self,
        writer: Epoch,
        structure: bool,
    ) -> Result<(FrameWord, Epoch, &'a [AtomicU64]), Stall> {
        let pool = self.pool;
        let Some(old) = FrameWord::unpack(self.entry.frame.load(Ordering::Relaxed)) else {
            return Err(Stall::Latched);
        };
        let content = old.epoch(pool.gate.current());
        if structure && content > writer {
            return Err(Stall::NewerEpoch);
        }
        let epoch = content.max(writer);
        let cut = pool.cut();
        let state = self.entry.state.load(Ordering::Relaxed);
        let dirty = state & latch::DIRTY != 0;
        let mut frame = old.frame;
        let mut words = self.words;
        if dirty && content <= cut && epoch > cut {
            frame = pool.take_or_want(self.class).ok_or(Stall::NoFrame)?;
            let Some(copy) = pool.frames.words(frame, self.class) else {
                return Err(Stall::NoFrame);
            };
            super::copy_words(words, copy);
            words = copy;
            pool.frames.set_owner(old.frame, Owner::Frozen(self.id));
            pool.frames.set_owner(frame, Owner::Page(self.id));
            pool.freeze(
                (self.id, content),
                Frozen {
                    frame: old.frame,
                    class: self.class,
                    version: latch::version(state),
                    busy: false,
                },
            );
        } else if !dirty {
            latch::set(self.entry.state, latch::DIRTY);
            pool.counters.dirtied(self.class);
        }
        let new = FrameWord::new(frame, epoch, self.class);
        self.entry.frame.store(new.pack(), Ordering::Release);
        super::stamp(words, epoch);
        Ok((new, epoch, words))
    }
}

impl<'a> Excl<'a> {
    /// The page's id.
    #[must_use]
    pub fn id(&self) -> PageId {
        self.id
    }

    /// Its size class.
    #[must_use]
    pub fn class(&self) -> Class {
        self.frame.class
    }

    /// Its words, which nobody else changes: `PageEdit::new(page.words())`, `PageView::new(..)`.
    #[must_use]
    pub fn words(&self) -> &'a [AtomicU64] {
        self.words
    }

    /// The epoch of the page's content from now on.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }
}

impl Drop for Excl<'_> {
    fn drop(&mut self) {
        latch::release_changed(self.entry.state);
    }
}
