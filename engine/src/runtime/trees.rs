//! Handles of all trees, by id, without a lock on the way of a read.
//!
//! Ids are dense, allocated upwards and never reused, so a handle once set stays.

use std::sync::OnceLock;

use terrane_btree::Tree;
use terrane_wal::lsn::TreeId;

use crate::error::{Error, ErrorKind, Result};

const CHUNK: usize = 1024;
const CHUNKS: usize = 4096;

type Chunk = Box<[OnceLock<Tree>]>;

/// Handles of trees.
#[derive(Debug)]
pub(crate) struct Trees {
    chunks: Box<[OnceLock<Chunk>]>,
}

impl Trees {
    /// No trees.
    pub(crate) fn new() -> Trees {
        Trees {
            chunks: (0..CHUNKS).map(|_| OnceLock::new()).collect(),
        }
    }

    /// The tree with this id.
    pub(crate) fn get(&self, id: TreeId) -> Result<&Tree> {
        let at = id.0 as usize;
        let chunk = self.chunks.get(at / CHUNK).and_then(OnceLock::get);
        match chunk.and_then(|chunk| chunk[at % CHUNK].get()) {
            Some(tree) => Ok(tree),
            None => Err(Error::new(ErrorKind::NotFound, "no such tree").with("tree", id.0)),
        }
    }

    /// Keeps a handle; one that is there already stays.
    pub(crate) fn set(&self, id: TreeId, tree: Tree) -> Result<()> {
        let at = id.0 as usize;
        let Some(chunk) = self.chunks.get(at / CHUNK) else {
            let error = Error::new(ErrorKind::Full, "no more trees can be made");
            return Err(error.with("tree", id.0).with("limit", CHUNK * CHUNKS));
        };
        let chunk = chunk.get_or_init(|| (0..CHUNK).map(|_| OnceLock::new()).collect());
        let _ = chunk[at % CHUNK].set(tree);
        Ok(())
    }
}
