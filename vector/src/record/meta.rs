//! The record of the index itself.

use super::{Reader, RecordError};
use crate::limits::MAX_DIM;
use crate::metric::Metric;
use crate::params::IndexParams;

/// Whether searches may use an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexState {
    /// Commits write to it, but rows that were there before may be missing.
    Building = 1,
    /// It holds every row.
    Ready = 2,
}

/// What an index is, and how far it has come. Read when it is opened; written when it is made, by
/// every system transaction that raises the epoch or takes posting ids, and by an online build.
/// User commits never touch it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Fixed when the index is made.
    pub params: IndexParams,
    /// Whether searches may use it.
    pub state: IndexState,
    /// The newest epoch: that of the last change of centroids.
    pub epoch: u64,
    /// The next posting id. Ids are never used again.
    pub next_posting: u32,
    /// Centroid records: an open that finds another number of them has lost some.
    pub centroids: u32,
    /// How far a build has come, in the host's own encoding of a row's key; empty at its beginning
    /// and once the index is ready.
    pub cursor: Vec<u8>,
}

impl Meta {
    /// The meta record of a new index: epoch 0, no posting but the unassigned one.
    #[must_use]
    pub fn new(params: IndexParams, state: IndexState) -> Self {
        Self {
            params,
            state,
            epoch: 0,
            next_posting: 1,
            centroids: 0,
            cursor: Vec::new(),
        }
    }

    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let params = &self.params;
        let mut out = vec![1, params.metric.code()];
        out.extend((params.dim as u16).to_le_bytes());
        out.extend(params.seed.to_le_bytes());
        out.push(if params.extra_bits { 4 } else { 1 });
        out.extend([params.replicas as u8, u8::from(params.columns)]);
        out.push(self.state as u8);
        out.extend((params.posting_max as u32).to_le_bytes());
        out.extend(self.epoch.to_le_bytes());
        out.extend(self.next_posting.to_le_bytes());
        out.extend(self.centroids.to_le_bytes());
        out.extend(&self.cursor);
        out
    }

    /// The record of these bytes.
    ///
    /// # Errors
    /// [`RecordError`] if no meta record has them.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut from = Reader::new("meta", bytes);
        from.version()?;
        let code = from.u8()?;
        let metric = Metric::from_code(code).map_err(|_| from.wrong("metric", code.into()))?;
        let dim = usize::from(from.u16()?);
        let seed = from.u64()?;
        let [bits, replicas, columns, state] = from.array::<4>()?;
        let state = match state {
            1 => IndexState::Building,
            2 => IndexState::Ready,
            other => return Err(from.wrong("state", u64::from(other))),
        };
        let fields = [
            ("dimension", dim as u64, (1..=MAX_DIM).contains(&dim)),
            ("bits", u64::from(bits), bits == 1 || bits == 4),
            ("replicas", u64::from(replicas), (1..=4).contains(&replicas)),
            ("flags", u64::from(columns), columns < 2),
        ];
        if let Some((field, found, _)) = fields.into_iter().find(|(_, _, fits)| !fits) {
            return Err(from.wrong(field, found));
        }
        let params = IndexParams {
            metric,
            dim,
            seed,
            extra_bits: bits == 4,
            replicas: usize::from(replicas),
            posting_max: from.u32()? as usize,
            columns: columns == 1,
        };
        let (epoch, next_posting, centroids) = (from.u64()?, from.u32()?, from.u32()?);
        let cursor = from.rest().to_vec();
        Ok(Self {
            params,
            state,
            epoch,
            next_posting,
            centroids,
            cursor,
        })
    }
}
