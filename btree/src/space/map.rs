//! The bytes of the page map: base chunks and delta runs.
//!
//! An image's map is a base (an array by page id) with delta runs applied in order. The base is
//! read chunk by chunk, each verified by its own crc; the delta file is walked from its last footer
//! backwards. A run begins at a block boundary and ends with its footer; between a footer and the
//! next run there are zeros, so no published block is ever written again.
//!
//! Byte tables: engine/src/guide/format.md, "Page map". Nothing here trusts a byte: every length is
//! checked against the file before anything is allocated by it.

use std::collections::BTreeMap;

use bytemuck::{Pod, Zeroable};
use terrane_wal::io::BLOCK;

use crate::error::StoreError;
use crate::ids::{Class, Epoch, PageId, Slot};
use crate::pool::translate::Location;

/// Entries of a base chunk.
pub(crate) const CHUNK_ENTRIES: u64 = 252;
/// Bytes of a base chunk.
pub(crate) const CHUNK: usize = 4096;
/// Bytes of a delta footer.
pub(crate) const FOOTER: usize = 32;
/// Bytes of a delta entry.
pub(crate) const DELTA_ENTRY: usize = 24;
const BASE_MAGIC: u32 = u32::from_le_bytes(*b"TMAP");
const DELTA_MAGIC: u32 = u32::from_le_bytes(*b"TDLT");
const NO_FOOTER: u64 = u64::MAX;
const KIND_PAGES: u32 = 0;
const KIND_LIMBO: u32 = 1;

/// A map entry as it lies on disk.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub(crate) struct MapEntry {
    word: u64,
    birth: u32,
    crc: u32,
}

/// Header of a base chunk.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct ChunkHeader {
    crc: u32,
    magic: u32,
    first_page_id: u64,
    epoch: u32,
    n: u32,
    reserved: [u64; 5],
}

/// One line of a delta run.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct DeltaEntry {
    page_id: u64,
    entry: MapEntry,
}

/// The end of a delta run.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Footer {
    magic: u32,
    crc: u32,
    epoch: u32,
    kind: u32,
    n: u64,
    prev_off: u64,
}

const _: () = {
    assert!(size_of::<MapEntry>() == 16);
    assert!(size_of::<ChunkHeader>() == 64);
    assert!(64 + 16 * CHUNK_ENTRIES as usize == CHUNK);
    assert!(size_of::<DeltaEntry>() == DELTA_ENTRY);
    assert!(size_of::<Footer>() == FOOTER);
    assert!(std::mem::offset_of!(ChunkHeader, first_page_id) == 8);
    assert!(std::mem::offset_of!(ChunkHeader, n) == 20);
    assert!(std::mem::offset_of!(Footer, n) == 16);
    assert!(std::mem::offset_of!(Footer, prev_off) == 24);
};

/// Pages as the deltas of an image leave them; `at: None` is a page that ended.
pub(crate) type Deltas = BTreeMap<PageId, Location>;

/// What a delta file says about one image.
#[derive(Debug, Default)]
pub(crate) struct DeltaImage {
    pub(crate) pages: Deltas,
    pub(crate) limbo: Vec<(PageId, Location)>,
}

impl MapEntry {
    pub(crate) fn of(location: Location) -> MapEntry {
        match location.at {
            None => MapEntry {
                birth: location.birth.0,
                ..MapEntry::default()
            },
            Some((slot, class)) => MapEntry {
                word: slot.0 | u64::from(class.number()) << 40,
                birth: location.birth.0,
                crc: location.crc,
            },
        }
    }

    /// What the entry says; None if it says nothing of a legal page.
    fn location(self) -> Option<Location> {
        if self.word == 0 && self.crc == 0 {
            return Some(Location::none(Epoch(self.birth)));
        }
        if self.word >> 48 != 0 {
            return None;
        }
        Some(Location {
            at: Some((
                Slot(self.word & ((1 << 40) - 1)),
                Class::new((self.word >> 40) as u8)?,
            )),
            birth: Epoch(self.birth),
            crc: self.crc,
        })
    }
}

fn bad(expected: impl std::fmt::Display, found: impl std::fmt::Display) -> StoreError {
    StoreError::corrupt("map", expected, found)
}

/// First page id of a base chunk.
pub(crate) fn chunk_start(chunk: u64) -> PageId {
    PageId(1 + chunk * CHUNK_ENTRIES)
}

/// The base chunk of a page id.
pub(crate) fn chunk_of(id: PageId) -> u64 {
    id.0.saturating_sub(1) / CHUNK_ENTRIES
}

/// Writes one base chunk into `out` (4 KiB). Returns its crc.
pub(crate) fn put_chunk(out: &mut [u8], chunk: u64, epoch: Epoch, entries: &[Location]) -> u32 {
    out.fill(0);
    let mut header = ChunkHeader {
        magic: BASE_MAGIC,
        first_page_id: chunk_start(chunk).0,
        epoch: epoch.0,
        n: entries.len() as u32,
        ..ChunkHeader::zeroed()
    };
    for (to, &location) in out[64..].chunks_exact_mut(16).zip(entries) {
        to.copy_from_slice(bytemuck::bytes_of(&MapEntry::of(location)));
    }
    out[..64].copy_from_slice(bytemuck::bytes_of(&header));
    header.crc = crc32fast::hash(&out[4..CHUNK]);
    out[..4].copy_from_slice(&header.crc.to_le_bytes());
    header.crc
}

/// Reads one base chunk: its crc and its entries.
pub(crate) fn read_chunk(
    bytes: &[u8],
    chunk: u64,
    epoch: Epoch,
) -> Result<(u32, Vec<Location>), StoreError> {
    let Some(header) = bytes
        .get(..64)
        .map(bytemuck::pod_read_unaligned::<ChunkHeader>)
        .filter(|_| bytes.len() >= CHUNK)
    else {
        return Err(bad(format!("{CHUNK} bytes of a base chunk"), bytes.len()));
    };
    let crc = crc32fast::hash(&bytes[4..CHUNK]);
    if header.crc != crc {
        return Err(bad(
            format!("crc {:#010x} of base chunk {chunk}", header.crc),
            format!("{crc:#010x}"),
        ));
    }
    if header.magic != BASE_MAGIC || header.first_page_id != chunk_start(chunk).0 {
        return Err(bad(
            format!("base chunk from {}", chunk_start(chunk)),
            format!("magic {:#x}, page {}", header.magic, header.first_page_id),
        ));
    }
    if header.epoch != epoch.0 || u64::from(header.n) > CHUNK_ENTRIES {
        return Err(bad(
            format!("base chunk of {epoch}, at most {CHUNK_ENTRIES} entries"),
            format!("epoch {}, {} entries", header.epoch, header.n),
        ));
    }
    let mut entries = Vec::with_capacity(header.n as usize);
    for raw in bytes[64..CHUNK].chunks_exact(16).take(header.n as usize) {
        let raw: MapEntry = bytemuck::pod_read_unaligned(raw);
        let location = raw
            .location()
            .ok_or_else(|| bad("a legal map entry", format!("{:#x}", raw.word)))?;
        entries.push(location);
    }
    Ok((crc, entries))
}

/// One delta run with its footer, padded to whole blocks. `at` is its offset in the file (a block
/// boundary), `prev` the offset of the footer before. Returns bytes, the end of the footer in the
/// file, and the crc of the footer.
pub(crate) fn put_run(
    entries: &Deltas,
    epoch: Epoch,
    at: u64,
    prev: Option<u64>,
) -> (Vec<u8>, u64, u32) {
    let mut bytes = Vec::with_capacity(entries.len() * DELTA_ENTRY + FOOTER);
    for (&id, &location) in entries {
        let entry = DeltaEntry {
            page_id: id.0,
            entry: MapEntry::of(location),
        };
        bytes.extend_from_slice(bytemuck::bytes_of(&entry));
    }
    let mut footer = Footer {
        magic: DELTA_MAGIC,
        crc: 0,
        epoch: epoch.0,
        kind: KIND_PAGES,
        n: entries.len() as u64,
        prev_off: prev.unwrap_or(NO_FOOTER),
    };
    footer.crc = run_crc(&footer, &bytes);
    bytes.extend_from_slice(bytemuck::bytes_of(&footer));
    let end = at + bytes.len() as u64;
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    (bytes, end, crc32fast::hash(bytemuck::bytes_of(&footer)))
}

fn run_crc(footer: &Footer, entries: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytemuck::bytes_of(footer)[8..]);
    hasher.update(entries);
    hasher.finalize()
}

/// Reads the runs of an image from the first `len` bytes of its delta file. `limbo_n` entries of a
/// limbo run are expected in the last run, if that is not 0.
pub(crate) fn read_deltas(
    file: &[u8],
    footer_crc: u32,
    limbo_n: u64,
    base: Epoch,
    epoch: Epoch,
) -> Result<DeltaImage, StoreError> {
    let mut image = DeltaImage::default();
    let mut end = file.len();
    let mut above = epoch;
    while end > 0 {
        let Some(start) = end.checked_sub(FOOTER) else {
            return Err(bad("a whole delta footer", format!("{end} bytes")));
        };
        let raw = &file[start..end];
        let footer: Footer = bytemuck::pod_read_unaligned(raw);
        if end == file.len() && crc32fast::hash(raw) != footer_crc {
            return Err(bad(
                format!("last delta footer with crc {footer_crc:#010x}"),
                format!("{:#010x}", crc32fast::hash(raw)),
            ));
        }
        let run = usize::try_from(footer.n)
            .ok()
            .and_then(|n| n.checked_mul(DELTA_ENTRY))
            .and_then(|len| start.checked_sub(len))
            .filter(|_| footer.magic == DELTA_MAGIC && footer.kind <= KIND_LIMBO)
            .map(|from| &file[from..start])
            .ok_or_else(|| bad("a delta footer", format!("{footer:?} at {start}")))?;
        if run_crc(&footer, run) != footer.crc {
            return Err(bad(
                format!("delta run with crc {:#010x}", footer.crc),
                format!("{:#010x} before {start}", run_crc(&footer, run)),
            ));
        }
        // Epochs fall towards the front, so a run of a foreign or an abandoned image is noticed.
        if Epoch(footer.epoch) > above || Epoch(footer.epoch) <= base {
            return Err(bad(
                format!("delta run of an epoch in {}..={}", base.0 + 1, above.0),
                footer.epoch,
            ));
        }
        above = Epoch(footer.epoch);
        read_run(&footer, run, end == file.len(), &mut image)?;
        end = match footer.prev_off {
            NO_FOOTER => 0,
            // A footer before must lie before this run: this ends every loop.
            prev if prev + FOOTER as u64 <= (start - run.len()) as u64 => prev as usize + FOOTER,
            prev => return Err(bad(format!("a footer before {start}"), prev)),
        };
    }
    if image.limbo.len() as u64 != limbo_n {
        return Err(bad(format!("{limbo_n} limbo entries"), image.limbo.len()));
    }
    Ok(image)
}

fn read_run(
    footer: &Footer,
    run: &[u8],
    last: bool,
    image: &mut DeltaImage,
) -> Result<(), StoreError> {
    for raw in run.chunks_exact(DELTA_ENTRY) {
        let raw: DeltaEntry = bytemuck::pod_read_unaligned(raw);
        let id = PageId(raw.page_id);
        let location = raw
            .entry
            .location()
            .filter(|_| !id.is_none() && id < PageId::LIMIT)
            .ok_or_else(|| bad("a legal delta entry", format!("{raw:?}")))?;
        if footer.kind == KIND_PAGES {
            // Walking backwards: what is there already is newer.
            image.pages.entry(id).or_insert(location);
        } else if last {
            image.limbo.push((id, location));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(slot: u64, birth: u32) -> Location {
        Location {
            at: Some((Slot(slot), Class::K8)),
            birth: Epoch(birth),
            crc: 77,
        }
    }

    fn two_runs() -> (Vec<u8>, u64, u32) {
        let first: Deltas = [(PageId(1), location(2, 2)), (PageId(2), location(4, 2))].into();
        let second: Deltas = [(PageId(2), location(6, 3))].into();
        let (mut file, end, _) = put_run(&first, Epoch(2), 0, None);
        let (bytes, end, crc) = put_run(
            &second,
            Epoch(3),
            file.len() as u64,
            Some(end - FOOTER as u64),
        );
        file.extend_from_slice(&bytes);
        (file, end, crc)
    }

    #[test]
    fn the_newest_run_wins() {
        let (file, end, crc) = two_runs();
        let image = read_deltas(&file[..end as usize], crc, 0, Epoch(1), Epoch(3)).expect("valid");
        let expect = [(PageId(1), location(2, 2)), (PageId(2), location(6, 3))];
        assert_eq!(image.pages, Deltas::from(expect));
    }

    /// Seen to fail with the check of the entries' crc left out.
    #[test]
    fn every_changed_byte_of_a_run_is_noticed() {
        let (file, end, crc) = two_runs();
        let covered: Vec<usize> = (0..80).chain(4096..end as usize).collect();
        for at in covered {
            for bit in [1, 0x80] {
                let mut bad = file.clone();
                bad[at] ^= bit;
                let read = read_deltas(&bad[..end as usize], crc, 0, Epoch(1), Epoch(3));
                assert!(read.is_err(), "byte {at} bit {bit:#x}");
            }
        }
        for len in 0..end as usize {
            assert!(
                read_deltas(&file[..len], crc, 0, Epoch(1), Epoch(3)).is_err() || len == 0,
                "cut to {len}"
            );
        }
    }

    #[test]
    fn every_changed_byte_of_a_chunk_is_noticed() {
        let mut chunk = vec![0; CHUNK];
        let entries = [location(2, 1), Location::none(Epoch(1)), location(8, 4)];
        put_chunk(&mut chunk, 3, Epoch(4), &entries);
        let (_, read) = read_chunk(&chunk, 3, Epoch(4)).expect("valid");
        assert_eq!(read, entries);
        assert!(read_chunk(&chunk, 4, Epoch(4)).is_err(), "another place");
        assert!(read_chunk(&chunk, 3, Epoch(5)).is_err(), "another base");
        for at in 0..CHUNK {
            let mut bad = chunk.clone();
            bad[at] ^= 0x10;
            assert!(read_chunk(&bad, 3, Epoch(4)).is_err(), "byte {at}");
        }
    }
}
