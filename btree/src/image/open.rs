//! Reading images: which one counts, and what it says about slots and page ids.
//!
//! The newest generation whose map verifies is opened, else the one before it. Both retained maps
//! are streamed once, because both own slots (T5): bitmaps exist in memory only. What the older one
//! owns alone goes onto the deadlist of the newer one's epoch (M2).
//!
//! Work is proportional to the entries of the maps; nothing is allocated by a number from disk that
//! was not first held against a file's length.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use terrane_wal::io::{Buf, Disk, File, Open, Purpose, REQUEST_MAX};

use crate::error::StoreError;
use crate::ids::{Class, PageId, Slot};
use crate::pool::translate::Location;
use crate::space::map::{self, DeltaImage};
use crate::space::zones::{Zones, file_of};

use super::meta::Meta;

/// Path of a base.
pub(crate) fn base_path(dir: &Path, epoch: crate::ids::Epoch) -> PathBuf {
    dir.join(format!("map.{}.base", epoch.0))
}

/// Path of the delta file beside a base.
pub(crate) fn delta_path(dir: &Path, epoch: crate::ids::Epoch) -> PathBuf {
    dir.join(format!("map.{}.delta", epoch.0))
}

/// An image as open needs it.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) meta: Meta,
    pub(crate) deltas: DeltaImage,
    pub(crate) base: Option<Arc<dyn File>>,
    pub(crate) delta: Arc<dyn File>,
    /// Slots that it owns.
    pub(crate) zones: Zones,
    /// Ids between live ones, as half-open ranges.
    pub(crate) gaps: Vec<(u64, u64)>,
    /// The first id above all live ones.
    pub(crate) next_id: PageId,
}

/// The images that a store goes on from.
#[derive(Debug)]
pub(crate) struct Images {
    pub(crate) newest: Image,
    pub(crate) older: Option<Meta>,
    /// Slots that only the older image owns.
    pub(crate) dying: Vec<(Slot, Class)>,
    pub(crate) fell_back: Option<String>,
}

/// Where the data lies and how much of it there is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Zones that the data files hold.
    pub(crate) zones: usize,
}

/// Reads the retained images. `metas` as META has them, newest first.
pub(crate) fn read_images(
    disk: &dyn Disk,
    dir: &Path,
    metas: &[Meta],
    extent: Extent,
) -> Result<Images, StoreError> {
    let mut failed: Option<StoreError> = None;
    for (index, meta) in metas.iter().enumerate() {
        let image = match read_image(disk, dir, meta, extent, &mut |_, _| {}) {
            Ok(image) => image,
            // A device that fails now may read well later: then two images would have grown from
            // one. Only bytes that are wrong, or not there, make the image before it count.
            Err(StoreError::Io(error)) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::Io(error));
            }
            Err(error) => {
                failed.get_or_insert(error);
                continue;
            }
        };
        let fell_back = failed.map(|error| {
            format!(
                "generation {} does not verify ({error}); opened generation {}",
                metas[0].generation, meta.generation
            )
        });
        let mut images = Images {
            newest: image,
            older: None,
            dying: Vec::new(),
            fell_back,
        };
        if let Some(older) = metas.get(index + 1) {
            images.add_older(disk, dir, older, extent);
        }
        return Ok(images);
    }
    Err(failed.unwrap_or_else(|| StoreError::corrupt("META", "a generation", "none")))
}

impl Images {
    /// The older image stays openable if it verifies; else the newest stands alone, and the next
    /// checkpoint writes over the older one's copies of META.
    fn add_older(&mut self, disk: &dyn Disk, dir: &Path, meta: &Meta, extent: Extent) {
        let mut dying = Vec::new();
        let zones = &self.newest.zones;
        let read = read_image(disk, dir, meta, extent, &mut |slot, class| {
            if !zones.is_used(slot, class) {
                dying.push((slot, class));
            }
        });
        if read.is_err() {
            return;
        }
        let fits = dying
            .iter()
            .all(|&(slot, class)| self.newest.zones.mark(slot, class).is_ok());
        if fits {
            self.dying = dying;
            self.older = Some(meta.clone());
        }
    }
}

/// Reads and verifies one image; `owns` hears of each slot that it owns.
pub(super) fn read_image(
    disk: &dyn Disk,
    dir: &Path,
    meta: &Meta,
    extent: Extent,
    owns: &mut dyn FnMut(Slot, Class),
) -> Result<Image, StoreError> {
    let path = delta_path(dir, meta.base.epoch);
    let delta = disk.open(&path, Open::Write)?;
    let bytes = read_prefix(&*delta, meta.delta_len)?;
    let deltas = map::read_deltas(
        &bytes,
        meta.delta_crc,
        meta.limbo_n,
        meta.base.epoch,
        meta.epoch,
    )
    .map_err(|error| error.at(&path, 0))?;
    drop(bytes);
    let mut reader = ImageReader {
        meta,
        deltas: &deltas,
        zones: Zones::default(),
        files: file_of(Slot(crate::space::zones::zone_start(extent.zones))).0,
        gaps: Vec::new(),
        expected: 1,
        owns,
    };
    for _ in 0..extent.zones {
        reader.zones.grow();
    }
    let base = reader.read(disk, dir).map_err(|error| error.at(&path, 0))?;
    let ImageReader {
        zones,
        gaps,
        expected,
        ..
    } = reader;
    Ok(Image {
        meta: meta.clone(),
        deltas,
        base,
        delta,
        zones,
        gaps,
        next_id: PageId(expected),
    })
}

/// Reads the first `len` bytes of a file into memory.
pub(crate) fn read_prefix(file: &dyn File, len: u64) -> Result<Vec<u8>, StoreError> {
    let there = file.len()?;
    if there < len {
        let error = StoreError::corrupt("map", format!("{len} bytes"), format!("{there} bytes"));
        return Err(error.at(file.path(), there));
    }
    let mut bytes = Vec::with_capacity(len as usize);
    while (bytes.len() as u64) < len {
        let at = bytes.len() as u64;
        let mut buf = Buf::zeroed((len - at).min(REQUEST_MAX as u64) as usize);
        let read = file.read(Purpose::Replay, at, &mut buf)?;
        let wanted = read.min((len - at) as usize);
        if wanted == 0 {
            return Err(StoreError::corrupt("map", format!("{len} bytes"), at).at(file.path(), at));
        }
        bytes.extend_from_slice(&buf[..wanted]);
    }
    Ok(bytes)
}

struct ImageReader<'a> {
    meta: &'a Meta,
    deltas: &'a DeltaImage,
    zones: Zones,
    /// Number of the data file that would hold the next zone.
    files: usize,
    gaps: Vec<(u64, u64)>,
    /// All live ids so far lie below this one.
    expected: u64,
    owns: &'a mut dyn FnMut(Slot, Class),
}

impl ImageReader<'_> {
    fn read(&mut self, disk: &dyn Disk, dir: &Path) -> Result<Option<Arc<dyn File>>, StoreError> {
        let base = self.meta.base;
        let mut after_base = PageId(1);
        let mut file = None;
        if base.len > 0 {
            let path = base_path(dir, base.epoch);
            let opened = disk.open(&path, Open::Read)?;
            let mut crcs = crc32fast::Hasher::new();
            read_base(&*opened, self.meta, &mut |chunk, crc, entries| {
                crcs.update(&crc.to_le_bytes());
                let first = map::chunk_start(chunk);
                for (index, &location) in entries.iter().enumerate() {
                    let id = PageId(first.0 + index as u64);
                    let location = self.deltas.pages.get(&id).copied().unwrap_or(location);
                    self.page(id, location)?;
                }
                after_base = PageId(first.0 + entries.len() as u64);
                Ok(())
            })
            .map_err(|error| error.at(&path, 0))?;
            let crc = crcs.finalize();
            if crc != base.crc {
                let error = StoreError::corrupt(
                    "map",
                    format!("base with crc {:#010x}", base.crc),
                    format!("{crc:#010x}"),
                );
                return Err(error.at(&path, 0));
            }
            file = Some(opened);
        }
        for (&id, &location) in self.deltas.pages.range(after_base..) {
            self.page(id, location)?;
        }
        self.limbo()?;
        if !self.live_root() {
            return Err(StoreError::corrupt(
                "map",
                format!("the tree directory's root {}", self.meta.dir_root),
                "no such page",
            ));
        }
        Ok(file)
    }

    /// The root's id is below all gaps' ends and in none of them.
    fn live_root(&self) -> bool {
        let root = self.meta.dir_root.0;
        root < self.expected && !self.gaps.iter().any(|gap| (gap.0..gap.1).contains(&root))
    }

    fn page(&mut self, id: PageId, location: Location) -> Result<(), StoreError> {
        let Some((slot, class)) = location.at else {
            return Ok(());
        };
        if id >= self.meta.page_id_hi || location.birth > self.meta.epoch {
            return Err(StoreError::corrupt(
                "map",
                format!(
                    "pages below {} of {}",
                    self.meta.page_id_hi, self.meta.epoch
                ),
                format!("{id} of {}", location.birth),
            ));
        }
        if id.0 > self.expected {
            self.gaps.push((self.expected, id.0));
        }
        self.expected = id.0 + 1;
        self.own(id, slot, class)
    }

    fn own(&mut self, id: PageId, slot: Slot, class: Class) -> Result<(), StoreError> {
        let zones = self.zones.len();
        match self.zones.mark(slot, class) {
            Ok(true) => {
                (self.owns)(slot, class);
                Ok(())
            }
            Ok(false) => Err(StoreError::corrupt(
                "map",
                format!("{slot} owned by one page"),
                format!("{id} owns it too"),
            )),
            // The file is there, but shorter than the map needs.
            Err(_)
                if slot.0 >= crate::space::zones::zone_start(zones)
                    && file_of(slot).0 <= self.files =>
            {
                Err(StoreError::corrupt(
                    "length",
                    format!("data.{} as long as {slot} of {id} needs", file_of(slot).0),
                    format!("data files of {zones} zones"),
                ))
            }
            Err(error) => Err(error),
        }
    }

    fn limbo(&mut self) -> Result<(), StoreError> {
        for &(id, location) in &self.deltas.limbo {
            let live =
                id.0 < self.expected && !self.gaps.iter().any(|gap| (gap.0..gap.1).contains(&id.0));
            let Some((slot, class)) = location.at.filter(|_| !live) else {
                return Err(StoreError::corrupt(
                    "map",
                    "unlinked pages in the limbo run",
                    format!("{id}, which is live"),
                ));
            };
            self.own(id, slot, class)?;
        }
        Ok(())
    }
}

/// Hears of one chunk: its number, crc and entries.
type OnChunk<'a> = dyn FnMut(u64, u32, &[Location]) -> Result<(), StoreError> + 'a;

/// Streams the chunks of a base.
fn read_base(file: &dyn File, meta: &Meta, chunk: &mut OnChunk<'_>) -> Result<(), StoreError> {
    let len = meta.base.len;
    let mut at = 0;
    while at < len {
        let mut buf = Buf::zeroed((len - at).min(REQUEST_MAX as u64) as usize);
        let read = file.read(Purpose::Replay, at, &mut buf)?;
        if read < buf.len() {
            return Err(StoreError::corrupt(
                "map",
                format!("{len} bytes of a base"),
                format!("{}", at + read as u64),
            ));
        }
        for (index, bytes) in buf.chunks_exact(map::CHUNK).enumerate() {
            let number = at / map::CHUNK as u64 + index as u64;
            let (crc, entries) = map::read_chunk(bytes, number, meta.base.epoch)?;
            chunk(number, crc, &entries)?;
        }
        at += buf.len() as u64;
    }
    Ok(())
}
