//! Changes a closed database directory at the places that `guide/format.md` gives, with every
//! checksum above the change made good again, so that what notices the change is a check of its
//! meaning.
//!
//! Knows the format from its description alone; works on directories whose map has no base yet.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) const COPY_STRIDE: usize = 64 << 10;
pub(crate) const COPY: usize = 4096;
const FOOTER: usize = 32;
const ENTRY: usize = 24;

/// Bytes of one file, and access by little-endian numbers.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

pub(crate) fn set_u32(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

pub(crate) fn set_u64(bytes: &mut [u8], at: usize, number: u64) {
    bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
}

/// Where a page lies, and the entry of the map that says so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Byte offset in `data.0`.
    pub(crate) offset: usize,
    pub(crate) size: usize,
    /// Byte offset of the entry in the delta file.
    pub(crate) entry: usize,
}

/// A closed directory under the knife.
pub(crate) struct Surgeon {
    dir: PathBuf,
}

impl Surgeon {
    pub(crate) fn new(dir: &Path) -> Surgeon {
        let surgeon = Surgeon {
            dir: dir.to_path_buf(),
        };
        assert_eq!(u64_at(&surgeon.newest(), 104), 0, "a map without a base");
        surgeon
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// Changes a file and nothing else.
    pub(crate) fn edit(&self, name: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.read(name);
        let before = bytes.clone();
        edit(&mut bytes);
        assert_ne!(before, bytes, "nothing was changed in {name}");
        fs::write(self.path(name), bytes).unwrap();
    }

    /// The newest copy of META.
    pub(crate) fn newest(&self) -> Vec<u8> {
        let meta = self.read("META");
        let copies = (0..4).map(|copy| meta[copy * COPY_STRIDE..][..COPY].to_vec());
        copies.max_by_key(|copy| u64_at(copy, 48)).unwrap()
    }

    /// Byte offsets in META of the two copies of the newest generation, then of the older one.
    pub(crate) fn generations(&self) -> [[usize; 2]; 2] {
        let newest = u64_at(&self.newest(), 48) as usize % 2;
        let of = |which: usize| [2 * which * COPY_STRIDE, (2 * which + 1) * COPY_STRIDE];
        [of(newest), of(1 - newest)]
    }

    /// Changes copies of META at these offsets and seals them.
    pub(crate) fn edit_meta(&self, copies: &[usize], edit: impl Fn(&mut [u8])) {
        self.edit("META", |bytes| {
            for &at in copies {
                let copy = &mut bytes[at..at + COPY];
                edit(copy);
                seal_meta(copy);
            }
        });
    }

    /// The delta file that the newest image names.
    pub(crate) fn delta(&self) -> String {
        format!("map.{}.delta", u32_at(&self.newest(), 96))
    }

    /// Every page of the newest image by id, as its newest entry says.
    pub(crate) fn places(&self) -> BTreeMap<u64, Place> {
        let delta = self.read(&self.delta());
        let mut places = BTreeMap::new();
        for (from, footer) in self.runs(&delta) {
            if u32_at(&delta, footer + 12) != 0 {
                continue;
            }
            for entry in (from..footer).step_by(ENTRY) {
                let word = u64_at(&delta, entry + 8);
                let place = (word != 0).then(|| Place {
                    offset: (word & 0xff_ffff_ffff) as usize * 4096,
                    size: 4096 << (word >> 40 & 0xff),
                    entry,
                });
                places.entry(u64_at(&delta, entry)).or_insert(place);
            }
        }
        let there = |(id, place): (u64, Option<Place>)| place.map(|place| (id, place));
        places.into_iter().filter_map(there).collect()
    }

    /// Runs of the newest image, newest first: where entries begin, and the footer behind them.
    pub(crate) fn runs(&self, delta: &[u8]) -> Vec<(usize, usize)> {
        let mut runs = Vec::new();
        let mut end = u64_at(&self.newest(), 112) as usize;
        while end > 0 {
            let footer = end - FOOTER;
            let entries = u64_at(delta, footer + 16) as usize;
            runs.push((footer - entries * ENTRY, footer));
            end = match u64_at(delta, footer + 24) {
                u64::MAX => 0,
                prev => prev as usize + FOOTER,
            };
        }
        runs
    }

    /// Pages of a tree of a kind (1 leaf, 2 branch, 3 overflow), by id.
    pub(crate) fn pages(&self, tree: u32, kind: u8) -> Vec<(u64, Place)> {
        let data = self.read("data.0");
        let wanted = |(_, place): &(u64, Place)| {
            let page = &data[place.offset..];
            u32_at(page, 16) == tree && page[6] == kind
        };
        self.places().into_iter().filter(wanted).collect()
    }

    pub(crate) fn page(&self, place: Place) -> Vec<u8> {
        self.read("data.0")[place.offset..place.offset + place.size].to_vec()
    }

    /// Changes a page; its crc and everything that names it is made good.
    pub(crate) fn edit_page(&self, place: Place, edit: impl FnOnce(&mut [u8])) {
        let mut crc = 0;
        self.edit("data.0", |bytes| {
            let page = &mut bytes[place.offset..place.offset + place.size];
            edit(page);
            crc = crc32fast::hash(&page[4..]);
            set_u32(page, 0, crc);
        });
        self.edit_delta(|delta| set_u32(delta, place.entry + 8 + 12, crc));
    }

    /// Changes the delta file, then seals its runs and whatever META says of them.
    pub(crate) fn edit_delta(&self, edit: impl FnOnce(&mut Vec<u8>)) {
        let name = self.delta();
        // As they were: the edit may have made a loop of them.
        let runs = self.runs(&self.read(&name));
        self.edit(&name, edit);
        self.seal(&runs);
    }

    fn seal(&self, runs: &[(usize, usize)]) {
        let name = self.delta();
        let mut delta = self.read(&name);
        for &(from, footer) in runs {
            let mut hasher = crc32fast::Hasher::new();
            hasher.update(&delta[footer + 8..footer + FOOTER]);
            hasher.update(&delta[from..footer]);
            set_u32(&mut delta, footer + 4, hasher.finalize());
        }
        fs::write(self.path(&name), &delta).unwrap();
        let mut meta = self.read("META");
        for copy in 0..4 {
            let copy = &mut meta[copy * COPY_STRIDE..][..COPY];
            let end = u64_at(copy, 112) as usize;
            if end >= FOOTER && end <= delta.len() {
                let crc = crc32fast::hash(&delta[end - FOOTER..end]);
                set_u32(copy, 120, crc);
                seal_meta(copy);
            }
        }
        fs::write(self.path("META"), meta).unwrap();
    }
}

pub(crate) fn seal_meta(copy: &mut [u8]) {
    let crc = crc32fast::hash(&copy[12..COPY]);
    set_u32(copy, 8, crc);
}
