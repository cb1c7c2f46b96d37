//! What maintenance asks of its host, beyond what a search does.

use crate::record::{Key, RowId};
use crate::store::{PostingStore, VisitRecord, VisitRow, Write};

/// Records of an index by key: what maintenance and the checker read besides postings.
pub trait RecordStore: PostingStore {
    /// Visits one record, if it is there.
    ///
    /// # Errors
    /// What the host could not read, or what `visit` returned.
    fn read(&self, key: Key, visit: &mut VisitRecord<'_>) -> Result<(), Self::Error>;

    /// Visits records in the order of their keys' bytes, from one key up to, not including,
    /// another; `None` is the end of the index.
    ///
    /// # Errors
    /// As [`RecordStore::read`].
    fn scan(
        &self,
        from: Key,
        to: Option<Key>,
        visit: &mut VisitRecord<'_>,
    ) -> Result<(), Self::Error>;
}

/// When the changes of centroid records in a system transaction become the newest set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publish {
    /// The transaction has none.
    Nothing,
    /// As this epoch, once the records are applied: new postings are there before a search or a
    /// commit can know them.
    After(u64),
    /// As this epoch, before the records are applied: a posting is out of the set before its
    /// records go, so that no new search meets a half-deleted one.
    Before(u64),
}

/// A host that lets maintenance write. Reads of [`PostingStore`] are at a fresh snapshot, which is
/// now: they see every applied commit.
///
/// One maintainer runs for an index, in the steps of one thread. Nothing here waits for commits or
/// searches, and none of these waits for it but for the rows whose intents it holds.
pub trait MaintenanceHost: RecordStore {
    /// The timestamp below which no snapshot reads, here or on a replica (S2).
    fn horizon(&self) -> u64;

    /// Visits the version of a row that a snapshot at `ts` sees, if there is one and it is kept.
    ///
    /// # Errors
    /// As [`RecordStore::read`].
    fn row_at(&self, row: RowId, ts: u64, visit: &mut VisitRow<'_>) -> Result<(), Self::Error>;

    /// Tries for the intent of a row, never waits; true if it is held now. A row that is held
    /// already is held still. Given back by [`MaintenanceHost::commit`] and
    /// [`MaintenanceHost::release`].
    fn try_intent(&mut self, row: RowId) -> bool;

    /// Writes a system transaction: one log entry, all or nothing, applied on return. Intents are
    /// given back, also on an error.
    ///
    /// # Errors
    /// The host's. Whether the transaction was written may then be unknown: the maintainer loads
    /// its state from the records again.
    fn commit(&mut self, writes: Vec<Write>, publish: Publish) -> Result<(), Self::Error>;

    /// Gives intents back without a transaction.
    fn release(&mut self);

    /// Whether every commit that bound under an older epoch than `epoch` is applied: what drains
    /// since `epoch` receives no more entries then.
    fn quiesced(&self, epoch: u64) -> bool;
}
