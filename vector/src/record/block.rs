//! Entries of a posting: sealed blocks of 32, their extra bits, and single entries of the tail.
//!
//! A sealed block is read where it lies: nothing is copied but the factors of the slots asked for.

use super::{Reader, RecordError, RowId, Vver};
use crate::code::{Factors, digit, half::bf16_to};
use crate::limits::{BLOCK_SLOTS, EXTRA_BITS, GROUP_BYTES};

/// Offsets of the arrays in a sealed block.
const VVERS: usize = 4 + 8 * BLOCK_SLOTS;
const ADDS: usize = VVERS + 4 * BLOCK_SLOTS;
const IPS: usize = ADDS + 4 * BLOCK_SLOTS;
const ERRS: usize = IPS + 2 * BLOCK_SLOTS;
const CODES: usize = ERRS + 2 * BLOCK_SLOTS;

const _: () = assert!(CODES == 644);

/// A sealed block as it lies in its record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block<'a> {
    used: usize,
    bytes: &'a [u8],
}

impl<'a> Block<'a> {
    pub(crate) fn decode(bytes: &'a [u8], code_dim: usize) -> Result<Self, RecordError> {
        let mut from = Reader::new("block", bytes);
        from.version()?;
        let used = usize::from(from.u8()?);
        if !(1..=BLOCK_SLOTS).contains(&used) {
            return Err(from.wrong("slots", used as u64));
        }
        from.code_dim(code_dim)?;
        from.take(CODES - 4 + code_dim / 4 * GROUP_BYTES)?;
        from.end()?;
        Ok(Self { used, bytes })
    }

    /// Slots that hold an entry: the first ones.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    fn at<const N: usize>(&self, start: usize, slot: usize) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&self.bytes[start + N * slot..][..N]);
        out
    }

    pub(crate) fn row(&self, slot: usize) -> RowId {
        RowId(u64::from_le_bytes(self.at(4, slot)))
    }

    pub(crate) fn vver(&self, slot: usize) -> Vver {
        Vver(u32::from_le_bytes(self.at(VVERS, slot)))
    }

    #[cfg(test)]
    pub(crate) fn factors(&self, slot: usize) -> Factors {
        Factors {
            add: f32::from_le_bytes(self.at(ADDS, slot)),
            ip: bf16_to(u16::from_le_bytes(self.at(IPS, slot))),
            err: bf16_to(u16::from_le_bytes(self.at(ERRS, slot))),
        }
    }

    /// The factors of all slots, kind by kind: add, ip, err.
    #[inline]
    pub(crate) fn all_factors(&self) -> [[f32; BLOCK_SLOTS]; 3] {
        let mut out = [[0.0; BLOCK_SLOTS]; 3];
        let adds = self.bytes[ADDS..IPS].as_chunks::<4>().0;
        for (out, bytes) in out[0].iter_mut().zip(adds) {
            *out = f32::from_le_bytes(*bytes);
        }
        for (kind, start) in [(1, IPS), (2, ERRS)] {
            let narrow = self.bytes[start..start + 2 * BLOCK_SLOTS]
                .as_chunks::<2>()
                .0;
            for (out, bytes) in out[kind].iter_mut().zip(narrow) {
                *out = bf16_to(u16::from_le_bytes(*bytes));
            }
        }
        out
    }

    /// The digits of all slots, as the scan kernel takes them.
    pub(crate) fn codes(&self) -> &'a [u8] {
        &self.bytes[CODES..]
    }

    /// The code of one slot, gathered.
    pub(crate) fn code(&self, slot: usize) -> Vec<u8> {
        let shift = 4 * (slot / GROUP_BYTES);
        let groups = self.codes().as_chunks::<GROUP_BYTES>().0;
        let nibble = |group: &[u8; GROUP_BYTES]| group[slot % GROUP_BYTES] >> shift & 15;
        let pairs = groups.as_chunks::<2>().0;
        pairs
            .iter()
            .map(|[low, high]| nibble(low) | nibble(high) << 4)
            .collect()
    }
}

/// Gathers up to 32 entries into a sealed block and the record of their extra bits.
#[derive(Debug)]
pub(crate) struct BlockBuilder {
    code_dim: usize,
    used: usize,
    block: Vec<u8>,
    extra: Vec<u8>,
}

impl BlockBuilder {
    pub(crate) fn new(code_dim: usize) -> Self {
        let mut block = vec![0; CODES + code_dim / 4 * GROUP_BYTES];
        block[0] = 1;
        block[2..4].copy_from_slice(&((code_dim / 64) as u16).to_le_bytes());
        let mut extra = block[..4].to_vec();
        extra.resize(4 + Factors::BYTES * BLOCK_SLOTS, 0);
        Self {
            code_dim,
            used: 0,
            block,
            extra,
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.used == BLOCK_SLOTS
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Adds an entry.
    ///
    /// # Panics
    /// If the block is full or the entry has another dimension.
    pub(crate) fn push(&mut self, row: RowId, vver: Vver, entry: &TailEntry<'_>) {
        assert!(!self.is_full(), "room for an entry");
        assert_eq!(entry.code.len() * 8, self.code_dim);
        let slot = self.used;
        let factors = entry.factors.to_bytes();
        let mut put = |start: usize, bytes: &[u8]| {
            self.block[start + bytes.len() * slot..][..bytes.len()].copy_from_slice(bytes);
        };
        put(4, &row.0.to_le_bytes());
        put(VVERS, &vver.0.to_le_bytes());
        put(ADDS, &factors[..4]);
        put(IPS, &factors[4..6]);
        put(ERRS, &factors[6..]);
        let shift = 4 * (slot / GROUP_BYTES);
        let groups = self.block[CODES..].as_chunks_mut::<GROUP_BYTES>().0;
        for (group, bytes) in groups.iter_mut().enumerate() {
            bytes[slot % GROUP_BYTES] |= digit(entry.code, group) << shift;
        }
        if let Some((factors, planes)) = entry.extra {
            let at = 4 + Factors::BYTES * slot;
            self.extra[at..at + Factors::BYTES].copy_from_slice(&factors.to_bytes());
            self.extra.extend_from_slice(planes);
        }
        self.used += 1;
        (self.block[1], self.extra[1]) = (self.used as u8, self.used as u8);
    }

    /// The values of the block and of its extra bits, if its entries have some.
    pub(crate) fn finish(self) -> (Vec<u8>, Option<Vec<u8>>) {
        let planes = self.used * EXTRA_BITS * self.code_dim / 8;
        let whole = self.extra.len() == 4 + Factors::BYTES * BLOCK_SLOTS + planes;
        (self.block, whole.then_some(self.extra))
    }
}

/// The extra bits of a block as they lie in their record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extra<'a> {
    factors: &'a [u8],
    planes: &'a [u8],
    plane_bytes: usize,
}

impl<'a> Extra<'a> {
    pub(crate) fn decode(bytes: &'a [u8], code_dim: usize) -> Result<Self, RecordError> {
        let mut from = Reader::new("extra bits", bytes);
        from.version()?;
        let used = usize::from(from.u8()?);
        if !(1..=BLOCK_SLOTS).contains(&used) {
            return Err(from.wrong("slots", used as u64));
        }
        from.code_dim(code_dim)?;
        let factors = from.take(Factors::BYTES * BLOCK_SLOTS)?;
        let plane_bytes = EXTRA_BITS * code_dim / 8;
        let planes = from.take(used * plane_bytes)?;
        from.end()?;
        Ok(Self {
            factors,
            planes,
            plane_bytes,
        })
    }

    /// Factors and planes of a slot, if it holds an entry.
    pub(crate) fn slot(&self, slot: usize) -> Option<(Factors, &'a [u8])> {
        let planes = self.planes.chunks_exact(self.plane_bytes).nth(slot)?;
        let factors = self.factors.as_chunks().0.get(slot)?;
        Some((Factors::from_bytes(*factors), planes))
    }
}

/// An entry by itself: code and factors, with or without extra bits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TailEntry<'a> {
    pub(crate) factors: Factors,
    pub(crate) code: &'a [u8],
    pub(crate) extra: Option<(Factors, &'a [u8])>,
}

impl<'a> TailEntry<'a> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![1, 1 + u8::from(self.extra.is_some())];
        out.extend(((self.code.len() / 8) as u16).to_le_bytes());
        out.extend(self.factors.to_bytes());
        out.extend(self.code);
        if let Some((factors, planes)) = self.extra {
            out.extend(factors.to_bytes());
            out.extend(planes);
        }
        out
    }

    pub(crate) fn decode(bytes: &'a [u8], code_dim: usize) -> Result<Self, RecordError> {
        let mut from = Reader::new("tail entry", bytes);
        from.version()?;
        let stages = from.u8()?;
        if !(1..=2).contains(&stages) {
            return Err(from.wrong("stages", u64::from(stages)));
        }
        from.code_dim(code_dim)?;
        let factors = Factors::from_bytes(from.array()?);
        let code = from.take(code_dim / 8)?;
        let extra = if stages == 2 {
            let factors = Factors::from_bytes(from.array()?);
            Some((factors, from.take(EXTRA_BITS * code_dim / 8)?))
        } else {
            None
        };
        from.end()?;
        Ok(Self {
            factors,
            code,
            extra,
        })
    }
}
