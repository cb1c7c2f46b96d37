//! What the simulated disk holds: the live world, the durable world, and the changes between them.
//!
//! Invariant S1: live world = durable world + all unsynced changes, in order, except where an older
//! change was overtaken by a newer durable one and took over its bytes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::world::{Change, Content, Inode, Node, World, parent};
use crate::io::IoError;
use crate::io::syscall::failed;

/// A change that no sync has covered.
#[derive(Clone, Debug)]
pub(super) struct Unsynced {
    /// Rises with each change; names it across syncs.
    pub(super) seq: u64,
    /// False while the request that makes the change is still in flight: no sync covers it yet.
    pub(super) done: bool,
    pub(super) change: Change,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) live: World,
    pub(super) durable: World,
    pub(super) unsynced: Vec<Unsynced>,
    pub(super) next_seq: u64,
    pub(super) next_inode: Inode,
    pub(super) handles: BTreeMap<Inode, usize>,
    pub(super) locks: Vec<PathBuf>,
    /// Ranges that nobody may write into, by file.
    protected: Vec<(Inode, Range<u64>)>,
    /// Ranges that nobody may read before they are written again, by file.
    freed: Vec<(Inode, Range<u64>)>,
}

impl State {
    /// A disk on which everything is durable.
    pub(super) fn over(world: World) -> State {
        let next_inode = world.contents.keys().next_back().copied().unwrap_or(0);
        State {
            live: world.clone(),
            durable: world,
            next_inode,
            ..State::default()
        }
    }

    /// Makes a change live and remembers it as unsynced.
    pub(super) fn change(&mut self, change: Change, done: bool) -> u64 {
        self.live.apply(&change);
        let seq = self.next_seq;
        self.next_seq += 1;
        self.unsynced.push(Unsynced { seq, done, change });
        seq
    }

    /// Marks changes of a request that has ended.
    pub(super) fn finish(&mut self, seqs: &[u64]) {
        for item in &mut self.unsynced {
            item.done |= seqs.binary_search(&item.seq).is_ok();
        }
    }

    /// Makes the selected changes durable, in order. Older changes that stay behind must not come
    /// back over a newer durable one: their overlapping bytes are replaced, and those that say
    /// something else about the same name are forgotten.
    pub(super) fn make_durable(&mut self, select: impl Fn(&Unsynced) -> bool) {
        let mut rest: Vec<Unsynced> = Vec::with_capacity(self.unsynced.len());
        for item in std::mem::take(&mut self.unsynced) {
            if !select(&item) {
                rest.push(item);
                continue;
            }
            self.durable.apply(&item.change);
            if let Change::Data {
                inode,
                offset,
                bytes,
                ..
            } = &item.change
            {
                rest.iter_mut()
                    .for_each(|older| patch(&mut older.change, *inode, *offset, bytes));
            }
            rest.retain(|older| !older.change.shares_name(&item.change));
        }
        self.unsynced = rest;
    }

    /// The node at a path, or the error of looking for it.
    pub(super) fn file(&self, op: &'static str, path: &Path) -> Result<Inode, IoError> {
        match self.live.node(path) {
            Some(Node::File(inode)) => Ok(inode),
            Some(Node::Directory) => Err(failed(op, path, Errno::ISDIR)),
            None => Err(failed(op, path, Errno::NOENT)),
        }
    }

    /// Checks that a name could be put into its directory.
    pub(super) fn place(&self, op: &'static str, path: &Path) -> Result<(), IoError> {
        match self.live.node(parent(path)) {
            Some(Node::Directory) => Ok(()),
            Some(Node::File(_)) => Err(failed(op, path, Errno::NOTDIR)),
            None => Err(failed(op, path, Errno::NOENT)),
        }
    }

    /// Checks that a name could be put into its directory and is not there yet.
    pub(super) fn vacant(&self, op: &'static str, path: &Path) -> Result<(), IoError> {
        self.place(op, path)?;
        match self.live.node(path) {
            None => Ok(()),
            Some(_) => Err(failed(op, path, Errno::EXIST)),
        }
    }

    /// After a failed sync no later one covers what this one should have covered.
    pub(super) fn give_up(&mut self, select: impl Fn(&Unsynced) -> bool) {
        for item in &mut self.unsynced {
            item.done &= !select(item);
        }
    }

    /// Blocks of files that a name or a handle leads to.
    pub(super) fn used_blocks(&self) -> usize {
        let named = |inode: Inode| self.live.names.values().any(|n| *n == Node::File(inode));
        let contents = self.live.contents.iter();
        contents
            .filter(|(inode, _)| self.handles.contains_key(inode) || named(**inode))
            .map(|(_, content)| content.used())
            .sum()
    }

    /// Edits bytes in both worlds.
    pub(super) fn corrupt(
        &mut self,
        path: &Path,
        offset: u64,
        len: usize,
        edit: impl Fn(&mut [u8]),
    ) -> bool {
        let Some(Node::File(inode)) = self.live.node(path) else {
            return false;
        };
        for world in [&mut self.live, &mut self.durable] {
            let Some(content) = world.contents.get(&inode) else {
                continue;
            };
            let mut bytes = vec![0; len];
            let there = content.read(offset, &mut bytes);
            edit(&mut bytes[..there]);
            world.write(inode, offset, &bytes[..there], false);
        }
        true
    }

    pub(super) fn protect(&mut self, path: &Path, offset: u64, len: u64) -> bool {
        let Some(Node::File(inode)) = self.live.node(path) else {
            return false;
        };
        self.protected.push((inode, offset..offset + len));
        true
    }

    pub(super) fn unprotect(&mut self, path: &Path) {
        if let Some(Node::File(inode)) = self.live.node(path) {
            self.protected.retain(|(mine, _)| *mine != inode);
            self.freed.retain(|(mine, _)| *mine != inode);
        }
    }

    /// Forbids reads of a range that nobody owns any more.
    pub(super) fn free(&mut self, path: &Path, range: Range<u64>) -> bool {
        let Some(Node::File(inode)) = self.live.node(path) else {
            return false;
        };
        self.freed.push((inode, range));
        true
    }

    /// A write makes its bytes readable again.
    pub(super) fn reuse(&mut self, inode: Inode, range: &Range<u64>) {
        let rest = |held: &Range<u64>| {
            let front = held.start..held.end.min(range.start);
            let back = held.start.max(range.end)..held.end;
            [front, back]
                .into_iter()
                .filter(|part| part.start < part.end)
        };
        let freed = std::mem::take(&mut self.freed);
        for (mine, held) in freed {
            match mine == inode {
                true => self.freed.extend(rest(&held).map(|part| (mine, part))),
                false => self.freed.push((mine, held)),
            }
        }
    }

    /// Panics if a read sees freed bytes.
    pub(super) fn check_freed(&self, inode: Inode, path: &Path, range: Range<u64>) {
        for (mine, held) in &self.freed {
            let overlap = *mine == inode && held.start < range.end && range.start < held.end;
            assert!(
                !overlap,
                "T5: a read of bytes {range:?} of {} sees the freed range {held:?}",
                path.display()
            );
        }
    }

    /// Panics if a change of these bytes would rewrite what was acknowledged.
    pub(super) fn check_protected(&self, inode: Inode, path: &Path, range: Range<u64>) {
        for (mine, held) in &self.protected {
            let overlap = *mine == inode && held.start < range.end && range.start < held.end;
            assert!(
                !overlap,
                "L2: bytes {range:?} of {} overwrite the acknowledged range {held:?}",
                path.display()
            );
        }
    }

    pub(super) fn create_file(&mut self, path: &Path) -> Inode {
        self.next_inode += 1;
        let inode = self.next_inode;
        self.live.contents.insert(inode, Content::default());
        self.durable.contents.insert(inode, Content::default());
        let node = Node::File(inode);
        let path = path.to_owned();
        self.change(Change::Create { path, node }, true);
        inode
    }

    /// Forgets files that nothing leads to any more.
    pub(super) fn sweep(&mut self) {
        let (handles, unsynced) = (&self.handles, &self.unsynced);
        let kept = |inode: Inode| {
            let named = |item: &Unsynced| match item.change {
                Change::Create { node, .. } | Change::Rename { node, .. } => {
                    node == Node::File(inode)
                }
                _ => false,
            };
            handles.contains_key(&inode) || unsynced.iter().any(named)
        };
        self.durable.sweep(kept);
        let durable = &self.durable;
        self.live
            .contents
            .retain(|inode, _| durable.contents.contains_key(inode));
    }
}

/// Replaces the part of an older change that a newer durable write covers.
fn patch(older: &mut Change, newer: Inode, at: u64, with: &[u8]) {
    let Change::Data {
        inode,
        offset,
        bytes,
        free,
    } = older
    else {
        return;
    };
    let start = at.max(*offset);
    let end = (at + with.len() as u64).min(*offset + bytes.len() as u64);
    if *inode != newer || start >= end {
        return;
    }
    let mut fresh = bytes.to_vec();
    fresh[(start - *offset) as usize..(end - *offset) as usize]
        .copy_from_slice(&with[(start - at) as usize..(end - at) as usize]);
    *bytes = fresh.into();
    *free = false;
}
