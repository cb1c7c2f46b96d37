//! The data files: where a slot lies, growth by whole zones, and which files await a sync.
//!
//! Growth reserves blocks (`fallocate`) before the zone is entered into the bitmaps, so a slot that
//! was handed out has its space. Two threads may grow at once: both reserve the same range, one of
//! them enters the zone. Blocks: never called inside the gate or under a latch.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use terrane_wal::io::{Disk, File, Open};
use terrane_wal::sync::Mutex;

use crate::error::StoreError;
use crate::ids::Slot;

use super::zones::{UNIT, file_of, zone_start, zone_units};

/// The open data files of a store.
#[derive(Debug)]
pub(crate) struct DataFiles {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    files: Mutex<Vec<Arc<dyn File>>>,
    /// Files written to since their last sync.
    unsynced: Mutex<BTreeSet<usize>>,
}

impl DataFiles {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: &Path) -> DataFiles {
        DataFiles {
            disk,
            dir: dir.to_owned(),
            files: Mutex::default(),
            unsynced: Mutex::default(),
        }
    }

    /// Opens the data files that are there, up to the first gap. Returns how many whole zones they
    /// hold; a torn last zone is growth that never counted.
    pub(crate) fn open_all(&self) -> Result<usize, StoreError> {
        let mut zones = 0;
        loop {
            let number = self.files.lock().len();
            let path = self.path(number);
            if self.disk.stat(&path)?.is_none() {
                return Ok(zones);
            }
            let file = self.disk.open(&path, Open::Write)?;
            let len = file.len()?;
            while file_of(Slot(zone_start(zones))).0 == number {
                let (_, offset) = file_of(Slot(zone_start(zones)));
                if offset + zone_units(zones) * UNIT > len {
                    break;
                }
                zones += 1;
            }
            self.files.lock().push(file);
            if file_of(Slot(zone_start(zones))).0 == number {
                return Ok(zones);
            }
        }
    }

    /// File and offset of a slot. None if there is no such file.
    pub(crate) fn place(&self, slot: Slot) -> Option<(Arc<dyn File>, u64)> {
        let (number, offset) = file_of(slot);
        let file = self.files.lock().get(number).cloned()?;
        Some((file, offset))
    }

    /// Reserves the blocks of a zone.
    pub(crate) fn reserve_zone(&self, zone: usize) -> Result<(), StoreError> {
        let (number, offset) = file_of(Slot(zone_start(zone)));
        let known = self.files.lock().get(number).cloned();
        let file = match known {
            Some(file) => file,
            None => self.create(number)?,
        };
        file.allocate(offset, zone_units(zone) * UNIT)?;
        self.unsynced.lock().insert(number);
        Ok(())
    }

    fn create(&self, number: usize) -> Result<Arc<dyn File>, StoreError> {
        let path = self.path(number);
        let file = match self.disk.open(&path, Open::CreateNew) {
            // Another thread, or a growth that a crash interrupted, was first.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                self.disk.open(&path, Open::Write)?
            }
            opened => opened?,
        };
        self.disk.sync_dir(&self.dir)?;
        let mut files = self.files.lock();
        if files.len() == number {
            files.push(file);
        }
        Ok(Arc::clone(&files[number]))
    }

    /// Notes that a slot's file was written to.
    pub(crate) fn wrote(&self, slot: Slot) {
        self.unsynced.lock().insert(file_of(slot).0);
    }

    /// Takes the files that need a sync.
    pub(crate) fn take_unsynced(&self) -> Vec<Arc<dyn File>> {
        let numbers = std::mem::take(&mut *self.unsynced.lock());
        let files = self.files.lock();
        numbers
            .into_iter()
            .filter_map(|number| files.get(number).cloned())
            .collect()
    }

    /// Bytes of all zones: what the files hold.
    pub(crate) fn bytes(zones: usize) -> u64 {
        zone_start(zones) * UNIT
    }

    fn path(&self, number: usize) -> PathBuf {
        self.dir.join(format!("data.{number}"))
    }
}
