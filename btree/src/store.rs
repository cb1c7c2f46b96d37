//! A store: a directory of trees, its buffer pool, its space and its images.
//!
//! The store's own table of trees is a tree too: the tree directory, id 1, whose root META names.
//! Rows of it change only when a tree begins or ends. What changes pages is the trees' matter, what
//! publishes them the checkpoint's; the store ties them together and is what engine holds.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use terrane_wal::env::Env;
use terrane_wal::io::{BLOCK, Buf, File, Open, Purpose};
use terrane_wal::lsn::{Lsn, Term, TreeId, Ts};
use terrane_wal::sync::Mutex;

use crate::error::StoreError;
use crate::ids::{Class, Epoch, PageId};
use crate::image::mapfile::MapFiles;
use crate::image::meta::{self, Base, META_LEN, Meta};
use crate::image::open::{Extent, Image, base_path, delta_path, read_images};
use crate::image::writer::{Publisher, Retained};
use crate::image::{Checkpoint, LogView, Step};
use crate::pool::{Pool, Start};
use crate::space::SpaceDisk;
use crate::space::files::DataFiles;
use crate::stats::StoreStats;
use crate::tree::cursor::{Direction, LeafRows};
use crate::tree::{Edit, Seed, Tree};

/// Smallest pool: 64 frames of 8 KiB.
const MEMORY_MIN: usize = 64 * 8192;
/// The tree directory.
const DIRECTORY: TreeId = TreeId(1);
/// A directory row's version.
const ROW_VERSION: u8 = 1;
/// Flag of a directory row: the tree is being dropped; its pages may be gone already.
const DROPPING: u16 = 1;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Bytes of memory for pages: a hard bound. At least 512 KiB.
    pub memory_bytes: usize,
    /// Reads of pages that a reopen may cost: what the checkpoint trigger counts against.
    pub reopen_reads: u64,
    /// For proofs: hears of every slot that becomes free, before anything else can use it.
    #[cfg(feature = "sim")]
    pub freed: Option<FreedHook>,
}

/// Hears of freed slots: data file, byte offset, bytes.
#[cfg(feature = "sim")]
#[derive(Clone)]
pub struct FreedHook(pub Arc<OnFreed>);

/// What a [`FreedHook`] calls.
#[cfg(feature = "sim")]
pub type OnFreed = dyn Fn(&Path, u64, usize) + Send + Sync;

#[cfg(feature = "sim")]
impl std::fmt::Debug for FreedHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FreedHook")
    }
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            memory_bytes: 256 << 20,
            reopen_reads: 600_000,
            #[cfg(feature = "sim")]
            freed: None,
        }
    }
}

/// What open found.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The database's id.
    pub uuid: [u8; 16],
    /// Generation of the image that was opened.
    pub generation: u64,
    /// Its epoch.
    pub epoch: Epoch,
    /// Replay starts here.
    pub redo_lsn: Lsn,
    /// What the image holds was committed up to here.
    pub image_hi_lsn: Lsn,
    /// Timestamp of that entry.
    pub image_hi_ts: Ts,
    /// Term of that entry.
    pub image_hi_term: Term,
    /// The log must reach at least this far: so far reaches the newest image that META names, be it
    /// opened or not.
    pub reach_lsn: Lsn,
    /// No timestamp above this one was given out before the image.
    pub clock_bound: u64,
    /// The last close was orderly.
    pub clean_shutdown: bool,
    /// Why the newest image was not opened but the one before it.
    pub fell_back: Option<String>,
}

/// A store whose image is read and whose files are as they were found.
///
/// An image that does not verify still says how far the log must reach, and once it is taken out of
/// META nothing does. So the log is asked first, by whoever has it, and the store goes on after it.
#[derive(Debug)]
#[must_use = "a store that is not settled cannot be used"]
pub struct Found {
    env: Env,
    store: Store,
    opened: Opened,
}

impl Found {
    /// What open found.
    #[must_use]
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Goes on from the image: what META and the directory hold of others goes, bad copies of META
    /// are written again. Trees whose drop a crash interrupted are gone when it returns.
    pub fn settle(self) -> Result<(Store, Opened), StoreError> {
        let Found { env, store, opened } = self;
        let publisher = &store.inner.publisher;
        let state = publisher.state.lock();
        let kept: Vec<Meta> = [Some(&state.newest), state.older.as_ref()]
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        drop(state);
        if opened.fell_back.is_some() {
            // Two generations in a row lie apart.
            silence(&*publisher.meta, opened.generation + 1)?;
        }
        for meta in &kept {
            meta::heal(&*publisher.meta, meta.generation)?;
        }
        let epochs: Vec<Epoch> = kept.iter().map(|meta| meta.base.epoch).collect();
        remove_unnamed(&env, &publisher.dir, &epochs)?;
        store.finish_drops()?;
        Ok((store, opened))
    }
}

/// How background work goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing to do for now.
    Idle,
    /// Something was done; there is more.
    More,
}

/// What a checkpoint now would cost and save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirtyEstimate {
    /// Pages that a checkpoint would write.
    pub pages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Pages that redo would read if the process were killed now: those changed since the newest
    /// image, whether they were written since or not.
    pub redo_reads: u64,
    /// True if `redo_reads` is above the option `reopen_reads`.
    pub due: bool,
}

/// A store. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: Arc<Pool>,
    publisher: Arc<Publisher>,
    directory: Tree,
    options: StoreOptions,
    /// Trees in use. Held over a change of the directory: trees begin and end one at a time.
    trees: Mutex<BTreeMap<TreeId, Tree>>,
}

/// The log of a store that has none yet.
#[derive(Debug)]
struct NoLog;

impl LogView for NoLog {
    fn redo_lsn(&self) -> Lsn {
        Lsn::ZERO
    }

    fn image_hi(&self) -> (Lsn, Ts, Term) {
        (Lsn::ZERO, Ts::ZERO, Term::FIRST)
    }

    fn safe_lsn(&self) -> Lsn {
        Lsn::ZERO
    }

    fn nudge(&self) {}

    fn clock_bound(&self) -> u64 {
        0
    }

    fn clean_shutdown(&self) -> bool {
        true
    }
}

impl Store {
    /// Makes a store in an existing directory that holds none. Durable when it returns; a crash
    /// before leaves a directory in which it can be made again. `Invalid` if there is a store.
    pub fn create(
        env: &Env,
        dir: &Path,
        uuid: [u8; 16],
        options: StoreOptions,
    ) -> Result<Store, StoreError> {
        check_options(&options)?;
        clear_leftovers(env, dir)?;
        let path = dir.join("META.tmp");
        let meta_file = env.disk.open(&path, Open::CreateNew)?;
        let blank = Buf::zeroed((META_LEN as usize).next_multiple_of(BLOCK));
        meta_file.write(Purpose::Other, 0, &blank, false)?;
        let delta = env.disk.open(&delta_path(dir, Epoch(0)), Open::CreateNew)?;
        let files = DataFiles::new(Arc::clone(&env.disk), dir);
        files.open_all()?;
        let pool = Pool::new(Start {
            memory_bytes: options.memory_bytes,
            disk: Some(SpaceDisk {
                env: env.clone(),
                files,
                base: Mutex::new(None),
            }),
            epoch: Epoch(1),
            next_id: PageId::DIRECTORY,
        })?;
        let root = Tree::create_root(&pool, DIRECTORY, Class::K8)?;
        let nothing = Meta {
            uuid,
            generation: 0,
            epoch: Epoch(0),
            clean_shutdown: true,
            redo_lsn: Lsn::ZERO,
            image_hi: (Lsn::ZERO, Ts::ZERO, Term::FIRST),
            base: Base::default(),
            delta_len: 0,
            delta_crc: 0,
            dir_root: root,
            page_id_hi: PageId::DIRECTORY,
            clock_bound: 0,
            limbo_n: 0,
        };
        let store = Store::assemble(
            pool,
            dir,
            meta_file,
            retained(nothing, None, delta, None),
            options,
        );
        // M2: two generations from the first moment on.
        for _ in 0..2 {
            store.checkpoint_now(env)?;
        }
        store.inner.publisher.meta.sync()?;
        env.disk.rename(&path, &dir.join("META"))?;
        env.disk.sync_dir(dir)?;
        Ok(store)
    }

    /// Finds the newest image that verifies and reads its map. Changes nothing.
    pub fn open(env: &Env, dir: &Path, options: StoreOptions) -> Result<Found, StoreError> {
        check_options(&options)?;
        let path = dir.join("META");
        let meta_file = env.disk.open(&path, Open::Write)?;
        // What is read may still be on its way to the disk of a process that was killed.
        meta_file.sync()?;
        let metas = meta::read_all(&*meta_file)?;
        let files = DataFiles::new(Arc::clone(&env.disk), dir);
        let zones = files.open_all()?;
        let images = read_images(&*env.disk, dir, &metas, Extent { zones })?;
        let image = images.newest;
        let seen = metas.iter().map(|meta| meta.epoch).max();
        let pool = Pool::new(Start {
            memory_bytes: options.memory_bytes,
            disk: Some(SpaceDisk {
                env: env.clone(),
                files,
                base: Mutex::new(image.base.clone().map(|file| (file, image.meta.base))),
            }),
            epoch: seen.unwrap_or(image.meta.epoch).next(),
            next_id: image.next_id,
        })?;
        let opened = opened(&image.meta, &metas, images.fell_back);
        let Image {
            meta,
            deltas,
            base,
            delta,
            zones,
            gaps,
            ..
        } = image;
        for (&id, &location) in &deltas.pages {
            pool.set_location(id, location);
        }
        pool.set_gaps(gaps);
        {
            let mut slots = pool.space.slots.lock();
            slots.zones = zones;
            for (slot, class) in images.dying {
                // It is live in the older image only: dead since the newer one's epoch.
                let reusable = slots.dead.died(slot, class, Epoch(0), meta.epoch);
                debug_assert!(!reusable, "an image of epoch 0");
            }
            // Nobody reads unlinked pages of the last run any more.
            for (_, location) in deltas.limbo {
                if let Some((slot, class)) = location.at {
                    let _ = slots.dead.died(slot, class, Epoch(0), meta.epoch.next());
                }
            }
        }
        let state = retained(meta, images.older, delta, base);
        Ok(Found {
            env: env.clone(),
            store: Store::assemble(pool, dir, meta_file, state, options),
            opened,
        })
    }

    fn assemble(
        pool: Arc<Pool>,
        dir: &Path,
        meta: Arc<dyn File>,
        state: Retained,
        options: StoreOptions,
    ) -> Store {
        let root = state.newest.dir_root;
        #[cfg(feature = "sim")]
        if let Some(hook) = &options.freed {
            pool.space.slots.lock().freed = Some((hook.clone(), dir.to_owned()));
        }
        let publisher = Arc::new(Publisher {
            pool: Arc::clone(&pool),
            dir: dir.to_owned(),
            meta,
            state: Mutex::new(state),
        });
        Store {
            inner: Arc::new(Inner {
                directory: Tree::attach(Arc::clone(&pool), DIRECTORY, Class::K8, root),
                pool,
                publisher,
                options,
                trees: Mutex::default(),
            }),
        }
    }

    /// Runs a whole checkpoint of a store without a log.
    fn checkpoint_now(&self, env: &Env) -> Result<(), StoreError> {
        let mut checkpoint = self.begin_checkpoint(Arc::new(NoLog))?;
        loop {
            match checkpoint.step()? {
                Step::Done(_) => return Ok(()),
                Step::Working => {}
                Step::Waiting => env.park.yield_now(),
            }
        }
    }

    /// Starts a checkpoint. One at a time: a second one is Invalid until the first is done or
    /// dropped. `Poisoned` after a failed sync or superblock write.
    pub fn begin_checkpoint(&self, log: Arc<dyn LogView>) -> Result<Checkpoint, StoreError> {
        self.inner.publisher.begin(log)
    }

    /// Asks, before a commit is sequenced, for the slots of `pages` more pages (8 KiB each); `Full`
    /// if the device has no room for them beside the pages that are dirty already and the reserve.
    /// Blocks: never inside the gate. Clears itself when a checkpoint or a delete made room.
    pub fn admit(&self, pages: u64) -> Result<(), StoreError> {
        let dirty = self.inner.pool.counters.dirty_bytes.load(Ordering::Relaxed);
        let wanted = pages * Class::K8.bytes() as u64;
        self.inner.pool.space.admit(wanted, dirty)
    }

    /// Bounded background work: keeps a share of the frames free or clean, so that callers need not
    /// evict themselves, and room on the device for the pages that are dirty.
    pub fn background_step(&self) -> Result<Progress, StoreError> {
        let pool = &self.inner.pool;
        self.admit(0)?;
        let used = pool.frames_used();
        let dirty = pool.counters.dirty_bytes.load(Ordering::Relaxed);
        let bytes = pool.frame_bytes();
        if used < bytes - bytes / 16 || dirty < bytes / 4 {
            return Ok(Progress::Idle);
        }
        match pool.clean_ahead()? {
            0 => Ok(Progress::Idle),
            _ => Ok(Progress::More),
        }
    }

    /// What a checkpoint now would cost and save.
    pub fn dirty_estimate(&self) -> DirtyEstimate {
        let counters = &self.inner.pool.counters;
        let pages = counters.dirty.load(Ordering::Relaxed);
        let lists = self.inner.pool.space.lists.lock();
        let written: usize = lists.values().map(Vec::len).sum();
        let redo_reads = pages + written as u64;
        DirtyEstimate {
            pages,
            bytes: counters.dirty_bytes.load(Ordering::Relaxed),
            redo_reads,
            due: redo_reads > self.inner.options.reopen_reads,
        }
    }

    /// Makes a tree of pages of this class, or returns the one that is there. `Invalid` if that has
    /// another class, or the id is the directory's or 0.
    pub fn create_tree(&self, id: TreeId, class: Class) -> Result<Tree, StoreError> {
        if id <= DIRECTORY {
            return Err(StoreError::Invalid {
                what: format!("{id} cannot be made"),
            });
        }
        if let Some(tree) = self.tree(id)? {
            if tree.class() == class {
                return Ok(tree);
            }
            return Err(StoreError::Invalid {
                what: format!("{id} has pages of {}, not {class}", tree.class()),
            });
        }
        let key = key(id);
        let seed = Seed {
            id,
            class,
            key: &key,
        };
        let row = |root| DirectoryRow {
            class,
            dropping: false,
            root,
        };
        let planted = self
            .inner
            .directory
            .plant(seed, &|root| row(root).encode())?;
        let Some(root) = planted else {
            // Another thread made it meanwhile.
            return self.create_tree(id, class);
        };
        let tree = Tree::attach(Arc::clone(&self.inner.pool), id, class, root);
        Ok(self.inner.trees.lock().entry(id).or_insert(tree).clone())
    }

    /// Drops a tree and its pages. Ok also if there is none. Nobody may use it meanwhile.
    pub fn drop_tree(&self, id: TreeId) -> Result<(), StoreError> {
        let Some(mut row) = self.row(id)? else {
            return Ok(());
        };
        self.inner.trees.lock().remove(&id);
        // The mark first: if a crash leaves pages of a tree half gone, open goes on with the drop.
        row.dropping = true;
        let value = row.encode();
        self.inner.directory.update(&key(id), &mut |_| Edit::Put {
            value: &value,
            versioned: false,
        })?;
        self.drop_marked(id, row)
    }

    /// A tree; None if there is none with this id.
    pub fn tree(&self, id: TreeId) -> Result<Option<Tree>, StoreError> {
        if let Some(tree) = self.inner.trees.lock().get(&id) {
            return Ok(Some(tree.clone()));
        }
        let Some(row) = self.row(id)?.filter(|row| !row.dropping) else {
            return Ok(None);
        };
        let tree = Tree::attach(Arc::clone(&self.inner.pool), id, row.class, row.root);
        Ok(Some(
            self.inner.trees.lock().entry(id).or_insert(tree).clone(),
        ))
    }

    /// Why no checkpoint can be published any more, if a sync or superblock write of one failed.
    /// What was committed is in the log; the store must be opened again.
    pub fn poisoned(&self) -> Option<StoreError> {
        self.inner.publisher.state.lock().poisoned.clone()
    }

    /// All trees with their page class, by rising id; not the directory itself.
    pub fn trees(&self) -> Result<Vec<(TreeId, Class)>, StoreError> {
        let rows = self.rows()?.into_iter();
        Ok(rows
            .filter(|(_, row)| !row.dropping)
            .map(|(id, row)| (id, row.class))
            .collect())
    }

    /// Counters.
    pub fn stats(&self) -> StoreStats {
        let pool = &self.inner.pool;
        let counters = &pool.counters;
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let mut stats = StoreStats {
            pool_bytes: pool.frame_bytes(),
            pool_used_bytes: pool.frames_used(),
            pages_resident: read(&counters.resident),
            pages_dirty: read(&counters.dirty),
            pages_loaded: read(&counters.loaded),
            pages_evicted: read(&counters.evicted),
            pages_evicted_dirty: read(&counters.evicted_dirty),
            pages_checkpointed: read(&counters.checkpointed),
            pages_copied: read(&counters.copied),
            page_ids: pool.page_id_hi().0 - 1,
            translation_bytes: pool.page_id_hi().0 * 32,
            epoch: pool.gate.current().0,
            ..StoreStats::default()
        };
        {
            let slots = pool.space.slots.lock();
            stats.slot_bytes_dead = slots.dead.bytes();
            stats.slot_bytes_used = slots.zones.used_bytes();
            stats.slot_bytes_free = slots.zones.free_bytes();
            stats.file_bytes = DataFiles::bytes(slots.zones.len());
        }
        let state = self.inner.publisher.state.lock();
        stats.generation = state.newest.generation;
        stats.limbo_pages = state.newest.limbo_n;
        stats.checkpoints = state.published;
        stats.checkpoints_abandoned = state.abandoned;
        stats
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.inner.pool
    }

    /// The directory and every tree that it names, also those being dropped.
    pub(crate) fn all_trees(
        &self,
        found: &mut dyn FnMut(StoreError),
    ) -> Result<Vec<Tree>, StoreError> {
        let mut trees = vec![self.inner.directory.clone()];
        match self.rows() {
            Ok(rows) => trees.extend(rows.into_iter().map(|(id, row)| {
                Tree::attach(Arc::clone(&self.inner.pool), id, row.class, row.root)
            })),
            Err(error @ StoreError::Corrupt(_)) => found(error),
            Err(error) => return Err(error),
        }
        Ok(trees)
    }

    fn row(&self, id: TreeId) -> Result<Option<DirectoryRow>, StoreError> {
        let mut value = Vec::new();
        match self.inner.directory.get(&key(id), &mut value)? {
            Some(flags) if !flags.ghost => DirectoryRow::decode(id, &value).map(Some),
            _ => Ok(None),
        }
    }

    fn rows(&self) -> Result<Vec<(TreeId, DirectoryRow)>, StoreError> {
        let directory = &self.inner.directory;
        let mut cursor = directory.cursor(Bound::Unbounded, Bound::Unbounded, Direction::Forward);
        let mut leaf = LeafRows::default();
        let mut rows = Vec::new();
        while cursor.next_leaf(&mut leaf)? {
            for row in leaf.iter() {
                let Ok(id) = <[u8; 4]>::try_from(row.key) else {
                    let found = format!("{} bytes", row.key.len());
                    return Err(StoreError::corrupt(
                        "tree directory",
                        "keys of 4 bytes",
                        found,
                    ));
                };
                let id = TreeId(u32::from_be_bytes(id));
                rows.push((id, DirectoryRow::decode(id, row.value)?));
            }
        }
        Ok(rows)
    }

    /// Goes on with drops that a crash interrupted.
    fn finish_drops(&self) -> Result<(), StoreError> {
        for (id, row) in self.rows()? {
            if row.dropping {
                self.drop_marked(id, row)?;
            }
        }
        Ok(())
    }

    fn drop_marked(&self, id: TreeId, row: DirectoryRow) -> Result<(), StoreError> {
        // The image may hold the mark and not the pages; the root's id may have a new owner.
        if self.inner.pool.tree_of(row.root)? == Some(id) {
            let tree = Tree::attach(Arc::clone(&self.inner.pool), id, row.class, row.root);
            tree.drop_contents()?;
        }
        self.inner.directory.update(&key(id), &mut |_| Edit::Remove)
    }
}

/// A row of the tree directory.
#[derive(Clone, Copy, Debug)]
struct DirectoryRow {
    class: Class,
    dropping: bool,
    root: PageId,
}

impl DirectoryRow {
    fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[0] = ROW_VERSION;
        bytes[1] = self.class.number();
        let flags = if self.dropping { DROPPING } else { 0 };
        bytes[2..4].copy_from_slice(&flags.to_le_bytes());
        bytes[8..].copy_from_slice(&self.root.0.to_le_bytes());
        bytes
    }

    fn decode(id: TreeId, bytes: &[u8]) -> Result<DirectoryRow, StoreError> {
        let bad = |expected: &str| {
            Err(
                StoreError::corrupt("tree directory", expected, format!("{bytes:02x?}"))
                    .in_tree(id),
            )
        };
        let Ok(raw) = <[u8; 16]>::try_from(bytes) else {
            return bad("a row of 16 bytes");
        };
        let [version, class, flag, zero, _, _, _, _, root @ ..] = raw;
        let Some(class) = Class::new(class) else {
            return bad("a page class");
        };
        if version != ROW_VERSION || u16::from(flag) > DROPPING || zero != 0 {
            return bad("a row of version 1");
        }
        Ok(DirectoryRow {
            class,
            dropping: u16::from(flag) == DROPPING,
            root: PageId(u64::from_le_bytes(root)),
        })
    }
}

fn key(id: TreeId) -> [u8; 4] {
    id.0.to_be_bytes()
}

fn retained(
    newest: Meta,
    older: Option<Meta>,
    delta: Arc<dyn File>,
    base: Option<Arc<dyn File>>,
) -> Retained {
    Retained {
        newest,
        older,
        files: MapFiles { base, delta },
        force_base: false,
        poisoned: None,
        running: false,
        published: 0,
        abandoned: 0,
    }
}

fn opened(meta: &Meta, metas: &[Meta], fell_back: Option<String>) -> Opened {
    let reach = metas.iter().map(|meta| meta.image_hi.0).max();
    Opened {
        uuid: meta.uuid,
        generation: meta.generation,
        epoch: meta.epoch,
        redo_lsn: meta.redo_lsn,
        image_hi_lsn: meta.image_hi.0,
        image_hi_ts: meta.image_hi.1,
        image_hi_term: meta.image_hi.2,
        reach_lsn: reach.unwrap_or(meta.image_hi.0),
        clock_bound: meta.clock_bound,
        clean_shutdown: meta.clean_shutdown,
        fell_back,
    }
}

fn check_options(options: &StoreOptions) -> Result<(), StoreError> {
    if options.memory_bytes < MEMORY_MIN {
        return Err(StoreError::Invalid {
            what: format!(
                "a pool of {} bytes; the least is {MEMORY_MIN}",
                options.memory_bytes
            ),
        });
    }
    Ok(())
}

/// An interrupted `create` leaves files, never one called META. Anything that it cannot have left
/// is refused.
fn clear_leftovers(env: &Env, dir: &Path) -> Result<(), StoreError> {
    let ours = ["META.tmp", "data.0", "map.0.delta"];
    let mut leftovers: Vec<PathBuf> = Vec::new();
    for name in env.disk.list(dir)? {
        let store = name == "META" || name.starts_with("data.") || name.starts_with("map.");
        if ours.contains(&name.as_str()) {
            leftovers.push(dir.join(name));
        } else if store {
            return Err(StoreError::Invalid {
                what: format!("{} holds a store already ({name})", dir.display()),
            });
        }
    }
    for path in &leftovers {
        // A store whose META was lost is not a leftover of a few pages.
        if path.ends_with("data.0")
            && env
                .disk
                .stat(path)?
                .is_some_and(|stat| stat.len > DataFiles::bytes(2))
        {
            return Err(StoreError::Invalid {
                what: format!("{} has data but no META", dir.display()),
            });
        }
    }
    for path in &leftovers {
        env.disk.remove(path)?;
    }
    Ok(())
}

/// Takes a generation that does not verify out of META, so that it cannot come back after its slots
/// were used again.
fn silence(file: &dyn File, generation: u64) -> Result<(), StoreError> {
    let blank = Buf::zeroed(meta::COPY);
    for offset in meta::offsets(generation) {
        file.write(Purpose::Other, offset, &blank, true)?;
    }
    Ok(())
}

/// Removes map files of abandoned checkpoints and of images that are gone.
fn remove_unnamed(env: &Env, dir: &Path, kept: &[Epoch]) -> Result<(), StoreError> {
    for name in env.disk.list(dir)? {
        let path = dir.join(&name);
        let named = kept
            .iter()
            .any(|&epoch| path == base_path(dir, epoch) || path == delta_path(dir, epoch));
        if name.starts_with("map.") && !named {
            env.disk.remove(&path)?;
        }
    }
    Ok(())
}
