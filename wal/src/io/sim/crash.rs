//! Crash images: every disk that a power cut at this moment could leave behind, by kind.
//!
//! An image is the durable world plus a selection of the unsynced changes, some of them damaged.
//! Images are made one at a time from recipes, share their blocks with the disk, and equal ones are
//! dropped by hash within one call. (Across boundaries a driver must keep equal images apart when
//! more was acknowledged in between.)

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::SimDisk;
use super::world::{Change, Node, SECTOR, World};
use crate::env::Xoshiro;
use crate::io::BLOCK;

/// How an image came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImageKind {
    /// Nothing that was not synced.
    None,
    /// Everything.
    All,
    /// A length was kept and the data lost, or the reverse.
    Length,
    /// A name was kept or lost without the sync of its directory.
    Rename,
    /// One write was kept in part.
    Torn,
    /// The sectors of one write hold zeros or garbage.
    Stale,
    /// One bit of a write that was not synced is wrong.
    Flip,
    /// The first n changes.
    Prefix,
    /// One change alone, or all but one.
    Single,
    /// Any subset.
    Subset,
}

impl ImageKind {
    /// All kinds, in the order in which images are made.
    pub const ALL: [ImageKind; 10] = [
        ImageKind::None,
        ImageKind::All,
        ImageKind::Length,
        ImageKind::Rename,
        ImageKind::Torn,
        ImageKind::Stale,
        ImageKind::Flip,
        ImageKind::Prefix,
        ImageKind::Single,
        ImageKind::Subset,
    ];

    /// The kind's name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ImageKind::None => "none",
            ImageKind::All => "all",
            ImageKind::Length => "length",
            ImageKind::Rename => "rename",
            ImageKind::Torn => "torn",
            ImageKind::Stale => "stale",
            ImageKind::Flip => "flip",
            ImageKind::Prefix => "prefix",
            ImageKind::Single => "single",
            ImageKind::Subset => "subset",
        }
    }
}

/// How many images of each kind are made.
#[derive(Clone, Copy, Debug)]
pub struct CrashCaps {
    /// Up to this many changes all subsets are made.
    pub subset_exact_changes: usize,
    /// Above it, so many subsets are drawn.
    pub subsets: usize,
    /// Boundaries at which one write is torn; more are drawn from.
    pub tears_per_write: usize,
    /// Images of any one kind; more are drawn from.
    pub images_per_kind: usize,
}

impl Default for CrashCaps {
    /// Everything up to ten changes; 1,024 subsets above; each sector boundary.
    fn default() -> CrashCaps {
        CrashCaps {
            subset_exact_changes: 10,
            subsets: 1024,
            tears_per_write: usize::MAX,
            images_per_kind: usize::MAX,
        }
    }
}

impl CrashCaps {
    /// At most `images` of each kind and eight tears of each write: for many boundaries.
    #[must_use]
    pub fn at_most(images: usize) -> CrashCaps {
        CrashCaps {
            subset_exact_changes: 5,
            subsets: images,
            tears_per_write: 8,
            images_per_kind: images,
        }
    }
}

/// A disk as a crash left it. Cheap to clone.
#[derive(Clone)]
pub struct Image {
    pub(super) world: World,
    how: String,
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({}, {} names)", self.how, self.world.names.len())
    }
}

impl Image {
    pub(super) fn of(world: World, how: String) -> Image {
        Image { world, how }
    }

    /// What was kept and what was damaged, for the report of a failure.
    #[must_use]
    pub fn how(&self) -> &str {
        &self.how
    }

    /// Equal for images with the same names and bytes. Reads every block's hash, not the bytes.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.world.hash()
    }

    /// Paths of all files, in order.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let files = self.world.names.iter();
        files
            .filter(|(_, node)| **node != Node::Directory)
            .map(|(path, _)| path.clone())
            .collect()
    }

    /// The bytes of a file.
    #[must_use]
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let Node::File(inode) = self.world.node(path)? else {
            return None;
        };
        let content = self.world.contents.get(&inode)?;
        let mut bytes = vec![0; content.len() as usize];
        content.read(0, &mut bytes);
        Some(bytes)
    }

    /// Replaces the bytes of a file and its length. False if there is no such file.
    pub fn replace(&mut self, path: &Path, bytes: &[u8]) -> bool {
        let Some(Node::File(inode)) = self.world.node(path) else {
            return false;
        };
        let len = bytes.len() as u64;
        self.world.apply(&Change::SetLen { inode, len });
        self.world.write(inode, 0, bytes, false);
        true
    }
}

/// Which changes a recipe keeps.
#[derive(Clone, Debug)]
enum Keep {
    First(usize),
    AllBut(usize),
    Only(usize),
    These(Vec<bool>),
}

impl Keep {
    fn keeps(&self, index: usize) -> bool {
        match self {
            Keep::First(n) => index < *n,
            Keep::AllBut(i) => index != *i,
            Keep::Only(i) => index == *i,
            Keep::These(mask) => mask[index],
        }
    }
}

/// What happens to the bytes of one write.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// Only these bytes arrive.
    Part { from: usize, to: usize },
    /// Zeros arrive instead.
    Zeros,
    /// Garbage arrives in these bytes.
    Garbage { seed: u64, from: usize, to: usize },
    /// One bit arrives wrong.
    Bit { at: usize, bit: u8 },
}

#[derive(Clone, Debug)]
struct Recipe {
    kind: ImageKind,
    keep: Keep,
    damage: Option<(usize, Damage)>,
}

/// The images of one moment; see [`SimDisk::crash_images`].
pub struct CrashImages {
    durable: World,
    changes: Vec<Change>,
    recipes: std::vec::IntoIter<Recipe>,
    seen: BTreeSet<u64>,
}

impl fmt::Debug for CrashImages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (changes, left) = (self.changes.len(), self.recipes.len());
        write!(f, "CrashImages({changes} changes, {left} recipes left)")
    }
}

impl SimDisk {
    /// The images that a crash now could leave, by kind, duplicates dropped. The seed draws where
    /// `caps` (or the kind itself) asks for a sample. The disk goes on unharmed.
    #[must_use]
    pub fn crash_images(&self, seed: u64, caps: &CrashCaps) -> CrashImages {
        let state = self.0.state.lock();
        let changes: Vec<Change> = state.unsynced.iter().map(|u| u.change.clone()).collect();
        let durable = state.durable.clone();
        drop(state);
        let rng = Xoshiro::named(seed, "crash");
        let recipes = Recipes {
            changes: &changes,
            caps,
            rng,
            made: Vec::new(),
        };
        let recipes = recipes.make().into_iter();
        CrashImages {
            durable,
            changes,
            recipes,
            seen: BTreeSet::new(),
        }
    }

    /// The disk as it stands, everything kept.
    #[must_use]
    pub fn image(&self) -> Image {
        let world = self.0.state.lock().live.clone();
        Image::of(world, "as it stands".to_owned())
    }
}

impl Iterator for CrashImages {
    type Item = (ImageKind, Image);

    fn next(&mut self) -> Option<(ImageKind, Image)> {
        loop {
            let recipe = self.recipes.next()?;
            let world = self.cook(&recipe);
            if self.seen.insert(world.hash()) {
                let Recipe { kind, keep, damage } = &recipe;
                let name = kind.name();
                let count = self.changes.len();
                let how = match damage {
                    None => format!("{name}: {keep:?} of {count}"),
                    Some((index, damage)) => {
                        format!("{name}: {keep:?} of {count}, {damage:?} of change {index}")
                    }
                };
                return Some((*kind, Image::of(world, how)));
            }
        }
    }
}

impl CrashImages {
    fn cook(&self, recipe: &Recipe) -> World {
        let mut world = self.durable.clone();
        for (index, change) in self.changes.iter().enumerate() {
            match (&recipe.damage, change) {
                (
                    Some((damaged, damage)),
                    Change::Data {
                        inode,
                        offset,
                        bytes,
                        ..
                    },
                ) if *damaged == index => {
                    let (from, bytes) = damage.inflict(bytes);
                    world.write(*inode, offset + from as u64, &bytes, false);
                }
                _ if recipe.keep.keeps(index) => world.apply(change),
                _ => {}
            }
        }
        world
    }
}

impl Damage {
    /// What arrives, and how far into the write.
    fn inflict(&self, bytes: &Arc<[u8]>) -> (usize, Vec<u8>) {
        match *self {
            Damage::Part { from, to } => (from, bytes[from..to].to_vec()),
            Damage::Zeros => (0, vec![0; bytes.len()]),
            Damage::Garbage { seed, from, to } => {
                let mut rng = Xoshiro::new(seed);
                let mut fresh = bytes.to_vec();
                fresh[from..to].fill_with(|| rng.next_u64() as u8);
                (0, fresh)
            }
            Damage::Bit { at, bit } => {
                let mut fresh = bytes.to_vec();
                fresh[at] ^= 1 << bit;
                (0, fresh)
            }
        }
    }
}

/// Makes the recipes of one moment.
struct Recipes<'a> {
    changes: &'a [Change],
    caps: &'a CrashCaps,
    rng: Xoshiro,
    made: Vec<Recipe>,
}

impl Recipes<'_> {
    fn make(mut self) -> Vec<Recipe> {
        let count = self.changes.len();
        let mut all = Vec::new();
        for kind in ImageKind::ALL {
            match kind {
                ImageKind::None => self.keep(kind, Keep::First(0)),
                ImageKind::All => self.keep(kind, Keep::First(count)),
                ImageKind::Length => self.lengths(),
                ImageKind::Rename => self.names(),
                ImageKind::Torn => self.tears(),
                ImageKind::Stale => self.stale(),
                ImageKind::Flip => self.flips(),
                ImageKind::Prefix => (1..count).for_each(|n| self.keep(kind, Keep::First(n))),
                ImageKind::Single => (0..count).for_each(|i| {
                    self.keep(kind, Keep::AllBut(i));
                    self.keep(kind, Keep::Only(i));
                }),
                ImageKind::Subset => self.subsets(),
            }
            let mut made = std::mem::take(&mut self.made);
            sample(&mut self.rng, &mut made, self.caps.images_per_kind);
            all.append(&mut made);
        }
        all
    }

    fn keep(&mut self, kind: ImageKind, keep: Keep) {
        self.made.push(Recipe {
            kind,
            keep,
            damage: None,
        });
    }

    fn damage(&mut self, kind: ImageKind, keep: Keep, index: usize, damage: Damage) {
        self.made.push(Recipe {
            kind,
            keep,
            damage: Some((index, damage)),
        });
    }

    fn mask(&self, keeps: impl Fn(usize, &Change) -> bool) -> Keep {
        let changes = self.changes.iter().enumerate();
        Keep::These(changes.map(|(i, change)| keeps(i, change)).collect())
    }

    /// Writes, by index, with their length.
    fn writes(&self) -> Vec<(usize, usize)> {
        let changes = self.changes.iter().enumerate();
        changes
            .filter_map(|(index, change)| match change {
                Change::Data { bytes, .. } => Some((index, bytes.len())),
                _ => None,
            })
            .collect()
    }

    fn lengths(&mut self) {
        let is_data = |change: &Change| matches!(change, Change::Data { .. });
        for (index, change) in self.changes.iter().enumerate() {
            if change.is_length() {
                let inode = change.inode();
                let no_data = self.mask(|_, other| !is_data(other) || other.inode() != inode);
                self.keep(ImageKind::Length, no_data);
                self.keep(ImageKind::Length, Keep::AllBut(index));
                let only = self.mask(|i, other| i == index || other.directory().is_some());
                self.keep(ImageKind::Length, only);
            }
        }
    }

    fn names(&mut self) {
        let count = self.changes.len();
        for (index, change) in self.changes.iter().enumerate() {
            if change.directory().is_some() {
                self.keep(ImageKind::Rename, Keep::AllBut(index));
                self.keep(ImageKind::Rename, Keep::Only(index));
                let before = self.mask(|i, other| i < index || other.directory().is_none());
                self.keep(ImageKind::Rename, before);
            }
        }
        if self
            .changes
            .iter()
            .any(|change| change.directory().is_some())
        {
            let names_only = self.mask(|_, change| change.directory().is_some());
            self.keep(ImageKind::Rename, names_only);
            let no_names = self.mask(|_, change| change.directory().is_none());
            self.keep(ImageKind::Rename, no_names);
            assert!(count > 0, "a name was changed");
        }
    }

    /// Front, back and middle of each write, cut at sectors and, as a second mode, at blocks; once
    /// as the last change that arrived, once with all others.
    fn tears(&mut self) {
        for (index, len) in self.writes() {
            let mut cuts: Vec<usize> = (SECTOR..len).step_by(SECTOR).collect();
            sample(&mut self.rng, &mut cuts, self.caps.tears_per_write);
            for cut in cuts {
                let back = len - (len - cut).min(SECTOR);
                let mut parts = vec![(0, cut), (cut, len)];
                if cut < back {
                    parts.push((cut, back));
                }
                if cut.is_multiple_of(BLOCK) && cut + BLOCK < len {
                    parts.push((cut, cut + BLOCK));
                }
                for (from, to) in parts {
                    let part = Damage::Part { from, to };
                    self.damage(ImageKind::Torn, Keep::First(index), index, part);
                    self.damage(ImageKind::Torn, Keep::AllBut(index), index, part);
                }
            }
        }
    }

    fn stale(&mut self) {
        for (index, len) in self.writes() {
            let seed = self.rng.next_u64();
            let sector = self.rng.below(len.div_ceil(SECTOR).max(1)) * SECTOR;
            let whole = Damage::Garbage {
                seed,
                from: 0,
                to: len,
            };
            let one = Damage::Garbage {
                seed,
                from: sector.min(len),
                to: (sector + SECTOR).min(len),
            };
            for damage in [Damage::Zeros, whole, one] {
                self.damage(ImageKind::Stale, Keep::AllBut(index), index, damage);
            }
        }
    }

    fn flips(&mut self) {
        for (index, len) in self.writes() {
            for _ in 0..3 {
                if len > 0 {
                    let at = self.rng.below(len);
                    let bit = self.rng.below(8) as u8;
                    let damage = Damage::Bit { at, bit };
                    self.damage(ImageKind::Flip, Keep::AllBut(index), index, damage);
                }
            }
        }
    }

    fn subsets(&mut self) {
        let count = self.changes.len();
        if count <= self.caps.subset_exact_changes {
            for bits in 0..1_usize << count {
                let these = (0..count).map(|i| bits >> i & 1 == 1).collect();
                self.keep(ImageKind::Subset, Keep::These(these));
            }
            return;
        }
        for _ in 0..self.caps.subsets {
            // From nearly nothing to nearly everything.
            let eighths = 1 + self.rng.below(7);
            let these = (0..count).map(|_| self.rng.below(8) < eighths).collect();
            self.keep(ImageKind::Subset, Keep::These(these));
        }
    }
}

/// Keeps `most` of the items, drawn without replacement (Fisher, Yates), in their order.
fn sample<T>(rng: &mut Xoshiro, items: &mut Vec<T>, most: usize) {
    if items.len() <= most {
        return;
    }
    let mut places: Vec<usize> = (0..items.len()).collect();
    for place in 0..most {
        let other = place + rng.below(places.len() - place);
        places.swap(place, other);
    }
    let kept: BTreeSet<usize> = places[..most].iter().copied().collect();
    let mut index = 0;
    items.retain(|_| {
        index += 1;
        kept.contains(&(index - 1))
    });
}
