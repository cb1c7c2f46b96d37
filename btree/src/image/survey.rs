//! What META and the maps of both retained images say, without opening a store.
//!
//! `terrane check` asks this beside [`crate::Store::check`]: open takes the first copy that is good
//! and the newest image that verifies, and is silent about the others, on which the next failure
//! would have to rest. Nothing is changed.

use std::path::Path;
use std::sync::Arc;

use terrane_wal::io::{Buf, Disk, Open, Purpose};
use terrane_wal::lsn::{Lsn, Ts};

use crate::error::StoreError;
use crate::space::files::DataFiles;

use super::meta::{COPY, Meta, STRIDE};
use super::open::{Extent, read_image};

/// A generation that META names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surveyed {
    /// The database's id.
    pub uuid: [u8; 16],
    /// Its number.
    pub generation: u64,
    /// Where replay over its image begins.
    pub redo_lsn: Lsn,
    /// The log must reach at least this far.
    pub image_hi_lsn: Lsn,
    /// Timestamp of that entry.
    pub image_hi_ts: Ts,
    /// Its map verifies.
    pub is_whole: bool,
}

/// Reads the four copies of META and verifies the map of each generation found, newest first.
/// `found` hears of every bad copy and every map that does not verify. `Err` only if a file cannot
/// be read.
pub fn survey(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    found: &mut dyn FnMut(StoreError),
) -> Result<Vec<Surveyed>, StoreError> {
    let path = dir.join("META");
    let file = disk.open(&path, Open::Read)?;
    let mut metas: Vec<Meta> = Vec::new();
    for copy in 0..4 {
        let offset = copy * STRIDE;
        let mut buf = Buf::zeroed(COPY);
        let read = file.read(Purpose::Other, offset, &mut buf)?;
        match Meta::decode(&buf[..read], &path) {
            Ok(meta) if metas.contains(&meta) => {}
            Ok(meta) => metas.push(meta),
            Err(mut error) => {
                // A copy knows its file, not its place in it.
                if let StoreError::Corrupt(corruption) = &mut error {
                    corruption.offset = offset;
                }
                found(error);
            }
        }
    }
    metas.sort_by_key(|meta| std::cmp::Reverse(meta.generation));
    for pair in metas.windows(2) {
        if pair[0].generation == pair[1].generation || pair[0].uuid != pair[1].uuid {
            let expected = "copies of one generation that agree, generations of one database";
            let error = StoreError::corrupt("META", expected, format!("{pair:?}"));
            found(error.at(&path, 0));
        }
    }
    let zones = DataFiles::new(Arc::clone(disk), dir).open_all()?;
    let mut generations = Vec::new();
    for meta in metas {
        let image = read_image(&**disk, dir, &meta, Extent { zones }, &mut |_, _| {});
        let is_whole = image.is_ok();
        if let Err(error) = image {
            found(error);
        }
        generations.push(Surveyed {
            uuid: meta.uuid,
            generation: meta.generation,
            redo_lsn: meta.redo_lsn,
            image_hi_lsn: meta.image_hi.0,
            image_hi_ts: meta.image_hi.1,
            is_whole,
        });
    }
    Ok(generations)
}
