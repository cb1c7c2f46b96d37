//! Names and contents at one moment, and the changes that lead from one moment to the next.
//!
//! The live view, the durable image and every crash image are the same [`World`], reached by the
//! same [`World::apply`] over different selections of changes. Cloning a world shares its blocks,
//! so thousands of crash images cost little more than what they change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::io::BLOCK;

/// Smallest piece of a write that a device keeps or loses as a whole.
pub const SECTOR: usize = 512;

/// A file's or directory's number; never reused in one world.
pub(super) type Inode = u64;

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Directory,
    File(Inode),
}

/// One block and its hash; a block of zeros has the hash of a hole, 0.
#[derive(Debug)]
struct Block {
    bytes: [u8; BLOCK],
    hash: u64,
}

impl Block {
    fn new(bytes: [u8; BLOCK]) -> Arc<Block> {
        let words = bytes.as_chunks().0.iter();
        let words = words.map(|word| u64::from_le_bytes(*word));
        let hash = match bytes.iter().all(|byte| *byte == 0) {
            true => 0,
            false => words.fold(1, mix),
        };
        Arc::new(Block { bytes, hash })
    }
}

/// One step of a 64-bit hash (multiply and fold, as in wyhash): good enough to drop duplicates.
pub(super) fn mix(hash: u64, word: u64) -> u64 {
    let product =
        u128::from(hash ^ word ^ 0xa076_1d64_78bd_642f) * u128::from(0xe703_7ed1_a0b4_28db_u64);
    (product as u64) ^ ((product >> 64) as u64).wrapping_add(hash.rotate_left(17))
}

/// Hash of some bytes, for names.
pub(super) fn mix_bytes(hash: u64, bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(mix(hash, bytes.len() as u64), |hash, byte| {
            mix(hash, u64::from(*byte))
        })
}

/// The bytes of a file: a length and blocks, of which those never written are holes.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    len: u64,
    blocks: Arc<Vec<Option<Arc<Block>>>>,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Blocks that take space.
    pub(super) fn used(&self) -> usize {
        self.blocks.iter().flatten().count()
    }

    /// Blocks that a write of the range would have to take.
    pub(super) fn missing(&self, offset: u64, len: usize) -> usize {
        let first = (offset / BLOCK as u64) as usize;
        let last = (offset + len as u64).div_ceil(BLOCK as u64) as usize;
        (first..last)
            .filter(|index| self.blocks.get(*index).is_none_or(Option::is_none))
            .count()
    }

    /// Copies from `offset` on, up to the length; returns how many bytes there were.
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> usize {
        let there = self.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        let mut done = 0;
        while done < there {
            let at = offset as usize + done;
            let (index, start) = (at / BLOCK, at % BLOCK);
            let n = (BLOCK - start).min(there - done);
            let target = &mut buf[done..done + n];
            match self.blocks.get(index).and_then(Option::as_ref) {
                Some(block) => target.copy_from_slice(&block.bytes[start..start + n]),
                None => target.fill(0),
            }
            done += n;
        }
        there
    }

    /// Writes what lies below the length; the rest has nowhere to be. With `free`, blocks that
    /// become zero as a whole are given back.
    fn write(&mut self, offset: u64, bytes: &[u8], free: bool) {
        let there = self.len.saturating_sub(offset).min(bytes.len() as u64) as usize;
        let blocks = Arc::make_mut(&mut self.blocks);
        let mut done = 0;
        while done < there {
            let at = offset as usize + done;
            let (index, start) = (at / BLOCK, at % BLOCK);
            let n = (BLOCK - start).min(there - done);
            if blocks.len() <= index {
                blocks.resize(index + 1, None);
            }
            let slot = &mut blocks[index];
            let mut fresh = slot.as_ref().map_or([0; BLOCK], |block| block.bytes);
            fresh[start..start + n].copy_from_slice(&bytes[done..done + n]);
            let block = Block::new(fresh);
            let frees = free && block.hash == 0;
            *slot = if frees { None } else { Some(block) };
            done += n;
        }
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            let blocks = Arc::make_mut(&mut self.blocks);
            blocks.truncate(len.div_ceil(BLOCK as u64) as usize);
            let start = (len % BLOCK as u64) as usize;
            if start > 0
                && let Some(Some(last)) = blocks.last_mut()
            {
                let mut fresh = last.bytes;
                fresh[start..].fill(0);
                *last = Block::new(fresh);
            }
        }
        self.len = len;
    }

    fn hash(&self, hash: u64) -> u64 {
        let mut hash = mix(hash, self.len);
        for (index, block) in self.blocks.iter().enumerate() {
            if let Some(block) = block
                && block.hash != 0
            {
                hash = mix(mix(hash, index as u64), block.hash);
            }
        }
        hash
    }
}

/// One change to names or contents.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// Bytes at an offset. `free`: they are zeros that give their blocks back.
    Data {
        inode: Inode,
        offset: u64,
        bytes: Arc<[u8]>,
        free: bool,
    },
    /// The length is at least this.
    Grow { inode: Inode, len: u64 },
    /// The length is this.
    SetLen { inode: Inode, len: u64 },
    /// Blocks of zeros are reserved.
    Reserve { inode: Inode, offset: u64, len: u64 },
    /// A new name.
    Create { path: PathBuf, node: Node },
    /// A name replaced by another.
    Rename {
        from: PathBuf,
        to: PathBuf,
        node: Node,
    },
    /// A name less.
    Remove { path: PathBuf },
}

impl Change {
    /// The file whose sync makes the change durable.
    pub(super) fn inode(&self) -> Option<Inode> {
        match self {
            Change::Data { inode, .. }
            | Change::Grow { inode, .. }
            | Change::SetLen { inode, .. }
            | Change::Reserve { inode, .. } => Some(*inode),
            Change::Create { .. } | Change::Rename { .. } | Change::Remove { .. } => None,
        }
    }

    /// The directory whose sync makes the change durable.
    pub(super) fn directory(&self) -> Option<&Path> {
        match self {
            Change::Create { path, .. } | Change::Remove { path } => Some(parent(path)),
            Change::Rename { to, .. } => Some(parent(to)),
            _ => None,
        }
    }

    /// The names that the change is about.
    fn names(&self) -> [Option<&Path>; 2] {
        match self {
            Change::Create { path, .. } | Change::Remove { path } => [Some(path), None],
            Change::Rename { from, to, .. } => [Some(from), Some(to)],
            _ => [None, None],
        }
    }

    /// True if both are about one name.
    pub(super) fn shares_name(&self, other: &Change) -> bool {
        let mut names = self.names().into_iter().flatten();
        names.any(|name| other.names().contains(&Some(name)))
    }

    /// True for a change of length.
    pub(super) fn is_length(&self) -> bool {
        matches!(self, Change::Grow { .. } | Change::SetLen { .. })
    }
}

/// The directory of a path; the root stands above all.
pub(super) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// True for the directories that are always there.
fn is_root(path: &Path) -> bool {
    path.as_os_str().is_empty() || path == Path::new("/")
}

/// Names and contents.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub(super) names: BTreeMap<PathBuf, Node>,
    pub(super) contents: BTreeMap<Inode, Content>,
}

impl World {
    /// What a path leads to.
    pub(super) fn node(&self, path: &Path) -> Option<Node> {
        match is_root(path) {
            true => Some(Node::Directory),
            false => self.names.get(path).copied(),
        }
    }

    /// Names in a directory, in byte order.
    pub(super) fn list(&self, path: &Path) -> Vec<String> {
        let names = self.names.keys();
        let mut inside: Vec<String> = names
            .filter(|name| parent(name) == path)
            .filter_map(|name| Some(name.file_name()?.to_string_lossy().into_owned()))
            .collect();
        inside.sort_unstable();
        inside
    }

    /// Applies a change.
    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Data {
                inode,
                offset,
                bytes,
                free,
            } => self.write(*inode, *offset, bytes, *free),
            Change::Grow { inode, len } => {
                if let Some(content) = self.contents.get_mut(inode) {
                    content.set_len(content.len.max(*len));
                }
            }
            Change::SetLen { inode, len } => {
                if let Some(content) = self.contents.get_mut(inode) {
                    content.set_len(*len);
                }
            }
            Change::Reserve { inode, offset, len } => {
                if let Some(content) = self.contents.get_mut(inode) {
                    content.reserve(*offset, *len);
                }
            }
            Change::Create { path, node } => self.link(path, *node),
            Change::Rename { from, to, node } => {
                // With the old name lost, the new one still leads to the file.
                if self.names.get(from) == Some(node) {
                    self.names.remove(from);
                }
                self.link(to, *node);
            }
            Change::Remove { path } => {
                self.names.remove(path);
            }
        }
    }

    /// Writes a part of a change's bytes.
    pub(super) fn write(&mut self, inode: Inode, offset: u64, bytes: &[u8], free: bool) {
        if let Some(content) = self.contents.get_mut(&inode) {
            content.write(offset, bytes, free);
        }
    }

    /// A name inside a directory that was lost is lost with it.
    fn link(&mut self, path: &Path, node: Node) {
        if self.node(parent(path)) == Some(Node::Directory) {
            self.names.insert(path.to_owned(), node);
        }
    }

    /// Hash of everything that can be reached by a name.
    pub(super) fn hash(&self) -> u64 {
        self.names.iter().fold(0, |hash, (path, node)| {
            let hash = mix_bytes(hash, path.as_os_str().as_encoded_bytes());
            match node {
                Node::Directory => mix(hash, u64::MAX),
                Node::File(inode) => match self.contents.get(inode) {
                    Some(content) => content.hash(hash),
                    None => hash,
                },
            }
        })
    }

    /// Forgets contents that no name leads to and that `keep` does not hold on to.
    pub(super) fn sweep(&mut self, keep: impl Fn(Inode) -> bool) {
        let names = &self.names;
        self.contents
            .retain(|inode, _| keep(*inode) || names.values().any(|n| *n == Node::File(*inode)));
    }
}

impl Content {
    fn reserve(&mut self, offset: u64, len: u64) {
        let first = (offset / BLOCK as u64) as usize;
        let last = (offset + len).div_ceil(BLOCK as u64) as usize;
        let blocks = Arc::make_mut(&mut self.blocks);
        if blocks.len() < last {
            blocks.resize(last, None);
        }
        let zero = Block::new([0; BLOCK]);
        for slot in &mut blocks[first..last] {
            slot.get_or_insert_with(|| Arc::clone(&zero));
        }
    }
}
