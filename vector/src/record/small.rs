//! The records of few fields: head, mark, locator, centroid, job.

use super::{PostingId, Reader, RecordError, Vver};
use crate::code::half::{f16_from, f16_to};

/// Counters and horizons of a posting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Head {
    /// Raised by every rewrite of the blocks.
    pub(crate) generation: u64,
    /// The epoch since which the posting lacks entries that it once had.
    pub(crate) lacks_since: u64,
    /// Snapshots before this commit timestamp may miss entries.
    pub(crate) fold_horizon: u64,
    /// Sealed entries without and with a mark, and entries of the tail, as the last system
    /// transaction that rewrote the blocks left them. Commits do not touch a head.
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
    /// Copied to another posting: searches of this epoch and of later ones find it there. The
    /// epoch is the one after that of the copying, for a search of that one may have read the
    /// other posting before.
    Moved(u64),
}

impl Mark {
    /// An entry of a draining posting that has been dealt with: no search skips it, because one
    /// may have read the posting that took it before.
    pub(crate) const DONE: Self = Self::Moved(u64::MAX);

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
    /// Marked copies of any version that no fold has dropped yet.
    pub(crate) stale: u16,
    /// At most four.
    pub(crate) postings: Vec<PostingId>,
    /// The row's key, where the host finds a row by that and not by its id.
    pub(crate) key: Option<Vec<u8>>,
}

/// Flags of a locator.
const LIVE: u8 = 0x80;
const KEYED: u8 = 0x40;

impl Locator {
    pub(crate) fn encode(&self) -> Vec<u8> {
        assert!(
            self.postings.len() <= 4,
            "a locator lists at most 4 postings"
        );
        let mut out = self.vver.0.to_le_bytes().to_vec();
        let live = if self.live { LIVE } else { 0 };
        let keyed = if self.key.is_some() { KEYED } else { 0 };
        out.push(self.postings.len() as u8 | live | keyed);
        out.extend(self.stale.to_le_bytes());
        for posting in &self.postings {
            out.extend(posting.0.to_le_bytes());
        }
        out.extend(self.key.iter().flatten());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut from = Reader::new("locator", bytes);
        let vver = Vver(from.u32()?);
        let flags = from.u8()?;
        let (count, live) = (flags & !(LIVE | KEYED), flags & LIVE != 0);
        if count > 4 {
            return Err(from.wrong("number of postings", u64::from(count)));
        }
        let stale = from.u16()?;
        let postings = (0..count).map(|_| Ok(PostingId(from.u32()?)));
        let postings = postings.collect::<Result<_, RecordError>>()?;
        let key = (flags & KEYED != 0).then(|| from.rest().to_vec());
        from.end()?;
        Ok(Self {
            vver,
            live,
            stale,
            postings,
            key,
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
    /// Root of the mean square of the members' distances when the posting was made.
    pub(crate) radius: f32,
    /// Where the entries of a draining posting go; 0 for none.
    pub(crate) children: [PostingId; 2],
    /// Never changed: the posting's codes are made against it, and searches of any epoch read
    /// them. Elements that binary16 holds exactly ([`narrow`]).
    pub(crate) centre: Vec<f32>,
}

/// The elements as binary16 gives them back: codes must be made and read with these.
pub(crate) fn narrow(centre: &mut [f32]) {
    for element in centre {
        // A centre beyond binary16 would be infinite; the nearest finite one serves.
        *element = f16_to(f16_from(element.clamp(-65_504.0, 65_504.0)));
    }
}

impl Reader<'_> {
    /// Elements of a centre, all finite.
    fn centre(&mut self, elements: usize) -> Result<Vec<f32>, RecordError> {
        let mut centre = Vec::with_capacity(elements);
        for &element in self.take(2 * elements)?.as_chunks().0 {
            let bits = u16::from_le_bytes(element);
            let value = f16_to(bits);
            if !value.is_finite() {
                return Err(self.wrong("element", u64::from(bits)));
            }
            centre.push(value);
        }
        Ok(centre)
    }
}

/// Bytes of a centroid record.
pub(super) const fn centroid_bytes(code_dim: usize) -> usize {
    24 + 2 * code_dim
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
        let centre = from.centre(code_dim)?;
        from.end()?;
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum JobKind {
    /// Its entries go to new postings, one or two.
    Split = 2,
    /// Its entries go to the postings that are there.
    Merge = 3,
    /// It was split: entries around it may now be nearer to other postings.
    Reassign = 4,
}

/// Work that outlives a crash.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Job {
    pub(crate) kind: JobKind,
    /// How many splits led to this one, each by what it moved.
    pub(crate) depth: u16,
    /// The children of a split posting; 0 for none.
    pub(crate) children: [PostingId; 2],
    /// Where the children of a split have one centre: rows from here on go to the second.
    pub(crate) pivot: u64,
    /// What was the centre of a posting that was split, for [`JobKind::Reassign`]; else empty.
    pub(crate) centre: Vec<f32>,
}

impl Job {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![1, self.kind as u8];
        out.extend(self.depth.to_le_bytes());
        for child in self.children {
            out.extend(child.0.to_le_bytes());
        }
        out.extend(self.pivot.to_le_bytes());
        for &element in &self.centre {
            out.extend(f16_from(element).to_le_bytes());
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8], code_dim: usize) -> Result<Self, RecordError> {
        let mut from = Reader::new("job", bytes);
        from.version()?;
        let kind = match from.u8()? {
            2 => JobKind::Split,
            3 => JobKind::Merge,
            4 => JobKind::Reassign,
            other => return Err(from.wrong("kind", u64::from(other))),
        };
        let depth = from.u16()?;
        let children = [PostingId(from.u32()?), PostingId(from.u32()?)];
        let pivot = from.u64()?;
        let elements = if kind == JobKind::Reassign {
            code_dim
        } else {
            0
        };
        let centre = from.centre(elements)?;
        from.end()?;
        Ok(Self {
            kind,
            depth,
            children,
            pivot,
            centre,
        })
    }
}
