//! Models of commits with vectors against upkeep: loom runs the shipped guard, prefix and intents
//! through all interleavings; `models.rs` says how. Each rule is also modelled switched off.

use std::sync::Arc;

use loom::thread;
use terrane_wal::lsn::{Lsn, TreeId, Ts};
use terrane_wal::sync::Mutex;

use crate::txn::epochs::Epochs;
use crate::txn::owner::Owner;
use crate::txn::prefix::Prefix;
use crate::txn::recent::{Claim, Recent};

const TREE: TreeId = TreeId(300);
const KEY: &[u8] = b"k";

/// Commits that bind to postings of the newest set, and the upkeep that drains one.
struct Postings {
    epochs: Epochs<u8>,
    prefix: Prefix,
    /// Position and timestamp of the next commit; the sequencer's section.
    sequencer: Mutex<u64>,
    /// What commits have put into posting P and into its child A.
    old: Mutex<u32>,
    new: Mutex<u32>,
}

/// Posting P is open in the set 1 and drains into A from set 2 on.
const OPEN: u8 = 1;

impl Postings {
    fn new() -> Arc<Postings> {
        Arc::new(Postings {
            epochs: Epochs::new(1, Arc::new(OPEN)),
            prefix: Prefix::new(Lsn(0), Ts(0)),
            sequencer: Mutex::new(0),
            old: Mutex::new(0),
            new: Mutex::new(0),
        })
    }

    /// A commit of one vector. With `guarded` switched off it trusts the set that it bound to.
    fn commit(&self, guarded: bool) {
        loop {
            let set = self.epochs.newest();
            let inside = self.epochs.enter();
            if guarded && *inside.set() != *set {
                continue;
            }
            let ts = {
                let mut sequencer = self.sequencer.lock();
                *sequencer += 1;
                let at = *sequencer;
                self.prefix.enter(Lsn(at), Lsn(at + 1), Ts(at));
                *sequencer += 1;
                Ts(at)
            };
            drop(inside);
            let posting = if *set == OPEN { &self.old } else { &self.new };
            *posting.lock() += 1;
            self.prefix.mark(ts);
            return;
        }
    }

    /// Publishes the set in which P drains and, once nobody can put more into P, moves what is
    /// there. False if that is not so yet.
    fn drain(&self, waits: bool) -> bool {
        self.epochs.publish(2, Arc::new(OPEN + 1));
        if waits {
            if !self.epochs.left(2) {
                return false;
            }
            let last = self.prefix.newest();
            if self.prefix.applied_ts() < last {
                return false;
            }
        }
        let moved = std::mem::take(&mut *self.old.lock());
        *self.new.lock() += moved;
        true
    }
}

fn drains(guarded: bool, waits: bool) {
    loom::model(move || {
        let postings = Postings::new();
        let committers: Vec<_> = (0..2)
            .map(|_| {
                let postings = postings.clone();
                thread::spawn(move || postings.commit(guarded))
            })
            .collect();
        let drained = postings.drain(waits);
        for committer in committers {
            committer.join().expect("a commit");
        }
        let (old, new) = (*postings.old.lock(), *postings.new.lock());
        assert_eq!(old + new, 2, "no vector is lost");
        assert!(
            !drained || old == 0,
            "a posting that was emptied got one more"
        );
    });
}

#[test]
fn a_posting_that_was_drained_receives_no_more() {
    drains(true, true);
}

#[test]
#[should_panic(expected = "got one more")]
fn without_the_guard_a_drained_posting_receives_one_more() {
    drains(false, true);
}

#[test]
#[should_panic(expected = "got one more")]
fn without_waiting_for_older_epochs_a_drained_posting_receives_one_more() {
    drains(true, false);
}

/// A row with a vector: its locator, and the versions of which postings P and A have a live entry,
/// a bit each.
struct Row {
    recent: Recent,
    /// The version, and true while its entry stands in A.
    locator: Mutex<(u32, bool)>,
    live: [Mutex<u32>; 2],
}

impl Row {
    /// Version 1, in P.
    fn new() -> Arc<Row> {
        Arc::new(Row {
            recent: Recent::new(),
            locator: Mutex::new((1, false)),
            live: [Mutex::new(1 << 1), Mutex::new(0)],
        })
    }

    fn add(&self, in_a: bool, vver: u32) {
        *self.live[usize::from(in_a)].lock() |= 1 << vver;
    }

    fn drop_from(&self, in_a: bool, vver: u32) {
        *self.live[usize::from(in_a)].lock() &= !(1 << vver);
    }

    /// A commit that gives the row another vector, which goes to P; false if somebody has the row,
    /// where it would wait and then be what another interleaving has.
    fn update(&self) -> bool {
        let (owner, key) = (Owner::new(1), Arc::from(KEY));
        if !self.claim(&key, &owner) {
            return false;
        }
        let (vver, in_a) = *self.locator.lock();
        self.add(false, vver + 1);
        self.drop_from(in_a, vver);
        *self.locator.lock() = (vver + 1, false);
        self.recent.release(TREE, KEY, &owner);
        owner.released();
        true
    }

    fn claim(&self, key: &Arc<[u8]>, owner: &Arc<Owner>) -> bool {
        let claim = self.recent.claim(TREE, key, owner, None);
        matches!(claim, Claim::Granted(_))
    }

    /// Upkeep that has read of version 1 in P and moves it to A: not if somebody has the row, and
    /// not if the locator, read under the intent, lists something else by now (S7).
    fn reassign(&self, intent: bool, read_again: bool) {
        let (owner, key) = (Owner::new(2), Arc::from(KEY));
        if intent && !self.claim(&key, &owner) {
            return;
        }
        if !read_again || *self.locator.lock() == (1, false) {
            self.add(true, 1);
            self.drop_from(false, 1);
            *self.locator.lock() = (1, true);
        }
        if intent {
            self.recent.release(TREE, KEY, &owner);
            owner.released();
        }
    }
}

/// A reassign, and `updates` commits to the same row.
fn moves(updates: usize, intent: bool, read_again: bool) {
    loom::model(move || {
        let row = Row::new();
        let writers: Vec<_> = (0..updates)
            .map(|_| {
                let row = row.clone();
                thread::spawn(move || row.update())
            })
            .collect();
        row.reassign(intent, read_again);
        let mut updated = 0;
        for writer in writers {
            updated += u32::from(writer.join().expect("a commit"));
        }
        let (vver, in_a) = *row.locator.lock();
        let mut expected = [0, 0];
        expected[usize::from(in_a)] = 1 << vver;
        let found = [*row.live[0].lock(), *row.live[1].lock()];
        assert_eq!(vver, 1 + updated, "V5");
        assert_eq!(
            found, expected,
            "V1: the live entries are those of the locator"
        );
    });
}

#[test]
fn a_move_and_commits_leave_the_entries_that_the_locator_lists() {
    moves(1, true, true);
    moves(2, true, true);
}

#[test]
#[should_panic(expected = "V")]
fn a_move_without_the_intent_off() {
    moves(1, false, true);
}

#[test]
#[should_panic(expected = "V")]
fn a_move_by_a_locator_of_before_the_intent_off() {
    moves(1, true, false);
}
