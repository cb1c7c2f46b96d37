//! Entries of a posting: sealed blocks of 32, their extra bits, and single entries of the tail.
//!
//! A sealed block is read where it lies: nothing is copied but the factors of the slots asked for.
//! Extra bits lie in groups of 8 slots, so that a record stays within a quarter of a page.
//!
//! Extra bits and filter columns are records of their own, read at another moment than their block,
//! and a fold may come between. Each carries the seal of its block: those of another seal say
//! nothing about its slots (F4).

use super::{Columns, Reader, RecordError, RowId, Vver};
use crate::code::{Factors, digit, half::bf16_to};
use crate::limits::{BLOCK_SLOTS, COLUMNS_MAX, EXTRA_BITS, GROUP_BYTES, GROUP_SLOTS};

/// Groups of extra bits that a block has.
const GROUPS: u32 = (BLOCK_SLOTS / GROUP_SLOTS) as u32;

/// Offsets of the arrays in a sealed block.
const ROWS: usize = 8;
const VVERS: usize = ROWS + 8 * BLOCK_SLOTS;
const ADDS: usize = VVERS + 4 * BLOCK_SLOTS;
const IPS: usize = ADDS + 4 * BLOCK_SLOTS;
const ERRS: usize = IPS + 2 * BLOCK_SLOTS;
const CODES: usize = ERRS + 2 * BLOCK_SLOTS;

const _: () = assert!(CODES == 648);

/// Bytes of a sealed block.
pub(super) const fn block_bytes(code_dim: usize) -> usize {
    CODES + code_dim / 4 * GROUP_BYTES
}

/// A sealed block as it lies in its record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block<'a> {
    used: usize,
    seal: u32,
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
        let seal = from.u32()?;
        from.take(CODES - ROWS + code_dim / 4 * GROUP_BYTES)?;
        from.end()?;
        Ok(Self { used, seal, bytes })
    }

    /// What the records beside it carry too if they were written with it.
    pub(crate) fn seal(&self) -> u32 {
        self.seal
    }

    /// Slots that hold an entry: the first ones.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Rows and versions of all slots, to keep beyond the record.
    pub(crate) fn ids(&self) -> BlockIds {
        match self.bytes[ROWS..].first_chunk() {
            Some(ids) => BlockIds(*ids),
            None => unreachable!("`decode` saw the length"),
        }
    }

    fn at<const N: usize>(&self, start: usize, slot: usize) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&self.bytes[start + N * slot..][..N]);
        out
    }

    pub(crate) fn row(&self, slot: usize) -> RowId {
        RowId(u64::from_le_bytes(self.at(ROWS, slot)))
    }

    pub(crate) fn vver(&self, slot: usize) -> Vver {
        Vver(u32::from_le_bytes(self.at(VVERS, slot)))
    }

    pub(crate) fn factors(&self, slot: usize) -> Factors {
        Factors {
            add: f32::from_le_bytes(self.at(ADDS, slot)),
            ip: bf16_to(u16::from_le_bytes(self.at(IPS, slot))),
            err: bf16_to(u16::from_le_bytes(self.at(ERRS, slot))),
        }
    }

    /// The factors of all slots as they lie, for the bounds kernel and [`Factors::of_block`].
    #[inline]
    pub(crate) fn factor_bytes(&self) -> &'a [u8; CODES - ADDS] {
        match self.bytes[ADDS..].first_chunk() {
            Some(factors) => factors,
            None => unreachable!("`decode` saw the length"),
        }
    }

    /// The digits of all slots, as the scan kernel takes them.
    pub(crate) fn codes(&self) -> &'a [u8] {
        &self.bytes[CODES..]
    }

    /// Appends the code of one slot.
    pub(crate) fn code(&self, slot: usize, out: &mut Vec<u8>) {
        let shift = 4 * (slot / GROUP_BYTES);
        let groups = self.codes().as_chunks::<GROUP_BYTES>().0;
        let nibble = |group: &[u8; GROUP_BYTES]| group[slot % GROUP_BYTES] >> shift & 15;
        let pairs = groups.as_chunks::<2>().0;
        out.extend(
            pairs
                .iter()
                .map(|[low, high]| nibble(low) | nibble(high) << 4),
        );
    }
}

/// Rows and versions of the slots of a block, as they lie there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockIds([u8; ADDS - ROWS]);

impl BlockIds {
    /// The entry of a slot; the block says how many it uses.
    pub(crate) fn slot(&self, slot: usize) -> (RowId, Vver) {
        let (rows, vvers) = self.0.split_at(VVERS - ROWS);
        let (row, vver) = (rows.as_chunks().0[slot], vvers.as_chunks().0[slot]);
        (
            RowId(u64::from_le_bytes(row)),
            Vver(u32::from_le_bytes(vver)),
        )
    }
}

/// Gathers up to 32 entries into a sealed block and the records beside it.
#[derive(Debug)]
pub(crate) struct BlockBuilder {
    code_dim: usize,
    seal: u32,
    used: usize,
    block: Vec<u8>,
    /// Of the slots that have extra bits: groups of [`GROUP_SLOTS`].
    extra: Vec<Vec<u8>>,
    with_extra: usize,
    columns: Vec<Option<Vec<u8>>>,
}

/// What a full builder gives: the sealed block; its extra bits, a value for each group of slots,
/// none if some entry has none; its filter columns, if some entry has them.
pub(crate) type Sealed = (Vec<u8>, Vec<Vec<u8>>, Option<Vec<u8>>);

impl BlockBuilder {
    /// A block of a posting's generation: its low half is the seal.
    pub(crate) fn new(code_dim: usize, generation: u64) -> Self {
        let seal = generation as u32;
        let mut block = vec![0; block_bytes(code_dim)];
        block[0] = 1;
        block[2..4].copy_from_slice(&((code_dim / 64) as u16).to_le_bytes());
        block[4..ROWS].copy_from_slice(&seal.to_le_bytes());
        Self {
            code_dim,
            seal,
            used: 0,
            block,
            extra: Vec::new(),
            with_extra: 0,
            columns: Vec::new(),
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.used == BLOCK_SLOTS
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
        put(ROWS, &row.0.to_le_bytes());
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
            self.push_extra(slot, factors, planes);
        }
        self.columns.push(entry.columns.map(<[u8]>::to_vec));
        self.used += 1;
        self.block[1] = self.used as u8;
    }

    fn push_extra(&mut self, slot: usize, factors: Factors, planes: &[u8]) {
        let within = slot % GROUP_SLOTS;
        if within == 0 {
            let planes = GROUP_SLOTS * EXTRA_BITS * self.code_dim / 8;
            let mut group = Vec::with_capacity(EXTRA_HEAD + planes);
            group.extend([1, 0, self.block[2], self.block[3]]);
            group.extend(self.seal.to_le_bytes());
            group.resize(EXTRA_HEAD, 0);
            self.extra.push(group);
        }
        if let Some(group) = self.extra.last_mut() {
            let at = EXTRA_FACTORS + Factors::BYTES * within;
            group[at..at + Factors::BYTES].copy_from_slice(&factors.to_bytes());
            group.extend_from_slice(planes);
            group[1] = within as u8 + 1;
        }
        self.with_extra += 1;
    }

    /// The values of the block and of the records beside it.
    pub(crate) fn finish(self) -> Sealed {
        let whole = self.with_extra == self.used;
        let columns: Vec<Option<&[u8]>> = self.columns.iter().map(Option::as_deref).collect();
        let extra = if whole { self.extra } else { Vec::new() };
        (self.block, extra, Columns::encode(&columns, self.seal))
    }
}

/// Bytes before the planes of a group: head and factors.
const EXTRA_HEAD: usize = EXTRA_FACTORS + Factors::BYTES * GROUP_SLOTS;

/// Where the factors of a group begin.
const EXTRA_FACTORS: usize = 8;

/// The extra bits of a group of slots as they lie in their record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extra<'a> {
    seal: u32,
    factors: &'a [u8],
    planes: &'a [u8],
    plane_bytes: usize,
}

impl<'a> Extra<'a> {
    pub(crate) fn decode(bytes: &'a [u8], code_dim: usize) -> Result<Self, RecordError> {
        let mut from = Reader::new("extra bits", bytes);
        from.version()?;
        let used = usize::from(from.u8()?);
        if !(1..=GROUP_SLOTS).contains(&used) {
            return Err(from.wrong("slots", used as u64));
        }
        from.code_dim(code_dim)?;
        let seal = from.u32()?;
        let factors = from.take(EXTRA_HEAD - EXTRA_FACTORS)?;
        let plane_bytes = EXTRA_BITS * code_dim / 8;
        let planes = from.take(used * plane_bytes)?;
        from.end()?;
        Ok(Self {
            seal,
            factors,
            planes,
            plane_bytes,
        })
    }

    /// The seal of the block that it belongs to.
    pub(crate) fn seal(&self) -> u32 {
        self.seal
    }

    /// Slots that hold an entry.
    pub(crate) fn used(&self) -> usize {
        self.planes.len() / self.plane_bytes
    }

    /// The group that holds the extra bits of a block's slot.
    pub(crate) fn group(block: u32, slot: usize) -> u32 {
        block * GROUPS + (slot / GROUP_SLOTS) as u32
    }

    /// Factors and planes of a slot of the block, if the group holds it and it has an entry.
    pub(crate) fn slot(&self, slot: usize) -> Option<(Factors, &'a [u8])> {
        let within = slot % GROUP_SLOTS;
        let planes = self.planes.chunks_exact(self.plane_bytes).nth(within)?;
        let factors = self.factors.as_chunks().0.get(within)?;
        Some((Factors::from_bytes(*factors), planes))
    }
}

/// An entry by itself: code and factors, with or without extra bits and filter columns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TailEntry<'a> {
    pub(crate) factors: Factors,
    pub(crate) code: &'a [u8],
    pub(crate) extra: Option<(Factors, &'a [u8])>,
    /// What the host's filters may be told without the row, at most 255 bytes; `None` where they
    /// must be told the row.
    pub(crate) columns: Option<&'a [u8]>,
}

/// In the byte of stages: filter columns follow.
const WITH_COLUMNS: u8 = 0x80;

impl<'a> TailEntry<'a> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let room = 14 + self.code.len() * (2 + EXTRA_BITS) + self.columns.map_or(0, <[u8]>::len);
        let mut out = Vec::with_capacity(room);
        let columns = if self.columns.is_some() {
            WITH_COLUMNS
        } else {
            0
        };
        out.extend([1, columns | (1 + u8::from(self.extra.is_some()))]);
        out.extend(((self.code.len() / 8) as u16).to_le_bytes());
        out.extend(self.factors.to_bytes());
        out.extend(self.code);
        if let Some((factors, planes)) = self.extra {
            out.extend(factors.to_bytes());
            out.extend(planes);
        }
        if let Some(columns) = self.columns {
            assert!(columns.len() <= COLUMNS_MAX, "columns have a limit");
            out.push(columns.len() as u8);
            out.extend(columns);
        }
        out
    }

    pub(crate) fn decode(bytes: &'a [u8], code_dim: usize) -> Result<Self, RecordError> {
        let mut from = Reader::new("tail entry", bytes);
        from.version()?;
        let flags = from.u8()?;
        let stages = flags & !WITH_COLUMNS;
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
        let columns = if flags & WITH_COLUMNS == 0 {
            None
        } else {
            let len = from.u8()?;
            Some(from.take(usize::from(len))?)
        };
        from.end()?;
        Ok(Self {
            factors,
            code,
            extra,
            columns,
        })
    }
}
