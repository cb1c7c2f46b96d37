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
    /// Held while a file is made.
    creating: Mutex<()>,
    /// Files written to since their last sync.
    unsynced: Mutex<BTreeSet<usize>>,
}

impl DataFiles {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: &Path) -> DataFiles {
        DataFiles {
            disk,
            dir: dir.to_owned(),
            files: Mutex::default(),
            creating: Mutex::default(),
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

    /// Makes the next data file. One thread at a time: a file whose name could not be made durable
    /// is removed, because a later sync of the directory would not cover that name any more.
    fn create(&self, number: usize) -> Result<Arc<dyn File>, StoreError> {
        let _one = self.creating.lock();
        if let Some(file) = self.files.lock().get(number).cloned() {
            return Ok(file);
        }
        let path = self.path(number);
        let file = match self.disk.open(&path, Open::CreateNew) {
            // A growth that a crash interrupted was first.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                self.disk.open(&path, Open::Write)?
            }
            opened => opened?,
        };
        if let Err(error) = self.disk.sync_dir(&self.dir) {
            let _ = self.disk.remove(&path);
            return Err(error.into());
        }
        self.files.lock().push(Arc::clone(&file));
        Ok(file)
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

#[cfg(test)]
mod tests {
    use terrane_wal::io::sim::{Fault, OpKind, SimDisk};

    use super::*;

    /// Seen to fail with a file that stays when its name could not be synced: the next sync of the
    /// directory goes well, and the name is gone after a power cut all the same.
    #[test]
    fn the_name_of_a_data_file_is_durable_or_the_growth_failed() {
        let disk = SimDisk::new();
        let files = DataFiles::new(Arc::new(disk.clone()), Path::new("/"));
        files.reserve_zone(0).expect("the first zone");
        // The first zone of the second file.
        let zone = 69;
        disk.inject(Fault::nth(OpKind::SyncDir, 0));
        files
            .reserve_zone(zone)
            .expect_err("the name is not durable");
        files.reserve_zone(zone).expect("made anew");
        let (file, _) = files.place(Slot(zone_start(zone))).expect("a place");
        file.sync().expect("sync");
        // A power cut that keeps nothing but what was synced.
        let kept = (0..64).map(|seed| disk.crash(seed)).all(|after| {
            let there = after.stat(&files.path(1)).expect("stat");
            there.is_some_and(|stat| stat.len >= zone_units(zone) * UNIT)
        });
        assert!(kept, "a slot may lie in a file that is gone");
    }
}
