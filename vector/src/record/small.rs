//! The records of few bytes: head, mark, locator, centroid, job, meta.

use super::{PostingId, Reader, RecordError, Vver};
use crate::code::half::{f16_from, f16_to};
use crate::metric::Metric;

/// Counters and horizons of a posting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Head {
    pub(crate) generation: u64,
    /// The epoch since which the posting lacks entries that it once had.
    pub(crate) lacks_since: u64,
    /// Snapshots before this commit timestamp may miss entries.
    pub(crate) fold_horizon: u64,
    pub(crate) live: u32,
    pub(crate) dead: u32,
    pub(crate) tail: u32,
}

impl Head {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![1];
        for number in [self.generation, self.lacks_since, self.fold_horizon] {
            out.extend(number.to_le_bytes());
        }
        for number in [self.live, self.dead, self.tail] {
            out.extend(number.to_le_bytes());
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut from = Reader::new("head", bytes);
        from.version()?;
        let head = Self {
            generation: from.u64()?,
            lacks_since: from.u64()?,
            fold_horizon: from.u64()?,
            live: from.u32()?,
            dead: from.u32()?,
            tail: from.u32()?,
        };
        from.end()?;
        Ok(head)
    }
}

/// Why an entry counts no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Replaced or deleted by the commit with this timestamp: older snapshots still see it.
    Dead(u64),
    /// Copied to another posting in this epoch: searches of later epochs find it there.
    Moved(u64),
}

impl Mark {
    pub(crate) fn encode(self) -> Vec<u8> {
        let (kind, number) = match self {
            Self::Dead(ts) => (1, ts),
            Self::Moved(epoch) => (2, epoch),
        };
        let mut out = vec![kind];
        out.extend(number.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut from = Reader::new("mark", bytes);
        let kind = from.u8()?;
        let number = from.u64()?;
        from.end()?;
        match kind {
            1 => Ok(Self::Dead(number)),
            2 => Ok(Self::Moved(number)),
            other => Err(from.wrong("kind", u64::from(other))),
        }
    }
}

/// Where the entries of a row's newest vector are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Locator {
    pub(crate) vver: Vver,
    pub(crate) live: bool,
    /// Copies of older versions that no fold has dropped yet.
    pub(crate) stale: u16,
    /// At most four.
    pub(crate) postings: Vec<PostingId>,
}

impl Locator {
    pub(crate) fn encode(&self) -> Vec<u8> {
        assert!(
            self.postings.len() <= 4,
            "a locator lists at most 4 postings"
        );
        let mut out = self.vver.0.to_le_bytes().to_vec();
        out.push(self.postings.len() as u8 | u8::from(self.live) << 7);
        out.extend(self.stale.to_le_bytes());
        for posting in &self.postings {
            out.extend(posting.0.to_le_bytes());
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut from = Reader::new("locator", bytes);
        let vver = Vver(from.u32()?);
        let flags = from.u8()?;
        let (count, live) = (flags & 0x7f, flags & 0x80 != 0);
        if count > 4 {
            return Err(from.wrong("number of postings", u64::from(count)));
        }
        let stale = from.u16()?;
        let postings = (0..count).map(|_| Ok(PostingId(from.u32()?)));
        let postings = postings.collect::<Result<_, RecordError>>()?;
        from.end()?;
        Ok(Self {
            vver,
            live,
            stale,
            postings,
        })
    }
}

/// What a posting may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Takes entries of new rows and of a posting that is being split or merged.
    Receiving = 1,
    /// The ordinary state.
    Ready = 2,
    /// Takes no new rows; its entries go elsewhere.
    Draining = 3,
}

/// The centre of a posting.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Centroid {
    pub(crate) state: State,
    pub(crate) epoch: u64,
    pub(crate) radius: f32,
    /// Where the entries of a draining posting go; 0 for none.
    pub(crate) children: [PostingId; 2],
    /// Elements that binary16 holds exactly ([`narrow`]).
    pub(crate) centre: Vec<f32>,
}

/// The elements as binary16 gives them back: codes must be made and read with these.
pub(crate) fn narrow(centre: &mut [f32]) {
    for element in centre {
        // A centre beyond binary16 would be infinite; the nearest finite one serves.
        *element = f16_to(f16_from(element.clamp(-65_504.0, 65_504.0)));
    }
}

impl Centroid {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![1, self.state as u8];
        out.extend(((self.centre.len() / 64) as u16).to_le_bytes());
        out.extend(self.epoch.to_le_bytes());
        out.extend(self.radius.to_le_bytes());
        for child in self.children {
            out.extend(child.0.to_le_bytes());
        }
        for &element in &self.centre {
            out.extend(f16_from(element).to_le_bytes());
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8], code_dim: usize) -> Result<Self, RecordError> {
        let mut from = Reader::new("centroid", bytes);
        from.version()?;
        let state = match from.u8()? {
            1 => State::Receiving,
            2 => State::Ready,
            3 => State::Draining,
            other => return Err(from.wrong("state", u64::from(other))),
        };
        from.code_dim(code_dim)?;
        let epoch = from.u64()?;
        let radius = f32::from_bits(from.u32()?);
        let children = [PostingId(from.u32()?), PostingId(from.u32()?)];
        let elements = from.take(2 * code_dim)?.as_chunks().0;
        from.end()?;
        let mut centre = Vec::with_capacity(code_dim);
        for &element in elements {
            let value = f16_to(u16::from_le_bytes(element));
            if !value.is_finite() {
                return Err(from.wrong("element", u64::from(u16::from_le_bytes(element))));
            }
            centre.push(value);
        }
        Ok(Self {
            state,
            epoch,
            radius,
            children,
            centre,
        })
    }
}

/// What is to be done with a posting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobKind {
    Fold = 1,
    Split = 2,
    Merge = 3,
    Reassign = 4,
}

/// Work that outlives a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) kind: JobKind,
    pub(crate) attempt: u16,
    pub(crate) hint: u32,
    pub(crate) cursor: u64,
}

impl Job {
    #[cfg(test)]
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![1, self.kind as u8];
        out.extend(self.attempt.to_le_bytes());
        out.extend(self.hint.to_le_bytes());
        out.extend(self.cursor.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut from = Reader::new("job", bytes);
        from.version()?;
        let kind = match from.u8()? {
            1 => JobKind::Fold,
            2 => JobKind::Split,
            3 => JobKind::Merge,
            4 => JobKind::Reassign,
            other => return Err(from.wrong("kind", u64::from(other))),
        };
        let job = Self {
            kind,
            attempt: from.u16()?,
            hint: from.u32()?,
            cursor: from.u64()?,
        };
        from.end()?;
        Ok(job)
    }
}

/// What an index is, fixed when it is made, but for the last two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) metric: Metric,
    pub(crate) dim: u16,
    pub(crate) seed: u64,
    /// Bits of a code: 1, or 4 with a second stage.
    pub(crate) bits: u8,
    pub(crate) replicas: u8,
    pub(crate) posting_max: u32,
    pub(crate) epoch: u64,
    pub(crate) next_posting: u32,
}

impl Meta {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![1, self.metric.code()];
        out.extend(self.dim.to_le_bytes());
        out.extend(self.seed.to_le_bytes());
        out.extend([self.bits, self.replicas, 0, 0]);
        out.extend(self.posting_max.to_le_bytes());
        out.extend(self.epoch.to_le_bytes());
        out.extend(self.next_posting.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut from = Reader::new("meta", bytes);
        from.version()?;
        let code = from.u8()?;
        let metric = Metric::from_code(code).map_err(|_| from.wrong("metric", code.into()))?;
        let dim = from.u16()?;
        let seed = from.u64()?;
        let [bits, replicas, reserved @ ..] = from.array::<4>()?;
        let fields = [
            ("dimension", u64::from(dim), (1..=16_384).contains(&dim)),
            ("bits", u64::from(bits), bits == 1 || bits == 4),
            ("replicas", u64::from(replicas), (1..=4).contains(&replicas)),
            ("reserved", u64::from(reserved[0]), reserved == [0, 0]),
        ];
        if let Some((field, found, _)) = fields.into_iter().find(|(_, _, fits)| !fits) {
            return Err(from.wrong(field, found));
        }
        let (posting_max, epoch, next_posting) = (from.u32()?, from.u64()?, from.u32()?);
        from.end()?;
        Ok(Self {
            metric,
            dim,
            seed,
            bits,
            replicas,
            posting_max,
            epoch,
            next_posting,
        })
    }
}
