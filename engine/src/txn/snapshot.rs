//! A snapshot: one consistent state of the database, for as long as somebody holds it.

use std::ops::Bound;

use terrane_wal::lsn::TreeId;

use crate::database::Position;
use crate::error::Result;
use crate::txn::raw::RawRead;
use crate::txn::scan::RawScan;

/// One consistent, unchanging state of the database. Owned, cheap to clone, blocks no writer.
#[derive(Clone, Debug)]
pub struct Snapshot {}

impl Snapshot {
    /// The log position whose effects the snapshot holds, and nothing above it.
    #[must_use]
    pub fn position(&self) -> Position {
        todo!()
    }
}

impl RawRead for Snapshot {
    fn get_raw(&self, _tree: TreeId, _key: &[u8]) -> Result<Option<Vec<u8>>> {
        todo!()
    }

    fn scan_raw(
        &self,
        _tree: TreeId,
        _lower: Bound<Vec<u8>>,
        _upper: Bound<Vec<u8>>,
        _reverse: bool,
    ) -> Result<RawScan> {
        todo!()
    }
}
