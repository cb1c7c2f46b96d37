//! A store on a simulated disk, a log of blind operations beside it, and random work for both.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use terrane_btree::store::FreedHook;
use terrane_btree::{
    Class, Direction, Edit, LeafRows, LogView, Opened, Step, Store, StoreError, StoreOptions, Tree,
};
use terrane_wal::clock::SystemClock;
use terrane_wal::env::{Env, SystemPark, SystemRng, SystemSpawn};
use terrane_wal::io::sim::SimDisk;
use terrane_wal::lsn::{Lsn, Term, TreeId, Ts};

pub(crate) const TREE: TreeId = TreeId(256);
pub(crate) type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// A blind operation: the row's value from now on.
pub(crate) type Op = (Vec<u8>, Option<Vec<u8>>);

pub(crate) fn root() -> &'static Path {
    Path::new("/")
}

pub(crate) fn plain_env(disk: &SimDisk) -> Env {
    Env {
        disk: Arc::new(disk.clone()),
        clock: Arc::new(SystemClock::new()),
        rng: Arc::new(SystemRng::seeded(1)),
        spawn: Arc::new(SystemSpawn),
        park: Arc::new(SystemPark),
    }
}

/// The smallest pool, freed slots poisoned: whoever reads one fails.
pub(crate) fn options(disk: &SimDisk) -> StoreOptions {
    let disk = disk.clone();
    StoreOptions {
        memory_bytes: 64 * 8192,
        freed: Some(FreedHook(Arc::new(move |path: &Path, offset, len| {
            disk.corrupt(path, offset, len, |bytes| bytes.fill(0xdd));
        }))),
        ..StoreOptions::default()
    }
}

pub(crate) fn create(disk: &SimDisk, env: &Env) -> Result<(Store, Tree), StoreError> {
    let store = Store::create(env, root(), [3; 16], options(disk))?;
    let tree = store.create_tree(TREE, Class::K8)?;
    Ok((store, tree))
}

pub(crate) fn open(disk: &SimDisk) -> Result<(Store, Opened), StoreError> {
    Store::open(&plain_env(disk), root(), options(disk))?.settle()
}

pub(crate) fn apply(tree: &Tree, (key, value): &Op) -> Result<(), StoreError> {
    tree.update(key, &mut |_| match value {
        Some(value) => Edit::Put {
            value,
            versioned: false,
        },
        None => Edit::Remove,
    })
}

pub(crate) fn apply_to(rows: &mut Rows, (key, value): &Op) {
    match value {
        Some(value) => rows.insert(key.clone(), value.clone()),
        None => rows.remove(key),
    };
}

/// All rows of the tree; none if the image is older than the tree.
pub(crate) fn content(store: &Store) -> Result<Rows, StoreError> {
    let mut rows = Rows::new();
    let Some(tree) = store.tree(TREE)? else {
        return Ok(rows);
    };
    let mut cursor = tree.cursor(Bound::Unbounded, Bound::Unbounded, Direction::Forward);
    let mut leaf = LeafRows::default();
    while cursor.next_leaf(&mut leaf)? {
        for row in leaf.iter() {
            rows.insert(row.key.to_vec(), row.value.to_vec());
        }
    }
    Ok(rows)
}

/// Panics on whatever `check` finds.
pub(crate) fn assert_clean(store: &Store, when: &str) {
    let mut findings = Vec::new();
    let report = store
        .check(&mut |finding| findings.push(finding.error.to_string()))
        .unwrap_or_else(|error| panic!("{when}: {error}"));
    assert!(findings.is_empty(), "{when}: {findings:#?}");
    assert!(report.pages > 0);
}

/// A log in memory: entry n lies at n..n+1.
#[derive(Debug, Default)]
pub(crate) struct ModelLog(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    ops: Vec<Op>,
    unapplied: BTreeSet<u64>,
    /// Entries below are on disk.
    durable: u64,
    /// What `nudge` flushes at once.
    eager: bool,
    nudges: u64,
}

impl ModelLog {
    pub(crate) fn eager() -> Arc<ModelLog> {
        let log = ModelLog::default();
        log.0.lock().unwrap().eager = true;
        Arc::new(log)
    }

    pub(crate) fn sequence(&self, op: Op) -> u64 {
        let mut entries = self.0.lock().unwrap();
        entries.ops.push(op);
        let at = entries.ops.len() as u64 - 1;
        entries.unapplied.insert(at);
        at
    }

    pub(crate) fn op(&self, at: u64) -> Op {
        self.0.lock().unwrap().ops[at as usize].clone()
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.lock().unwrap().ops.len() as u64
    }

    /// A log of its own that begins as a copy, durable, with nothing from `redo` on applied.
    pub(crate) fn fork(&self, redo: u64) -> Arc<ModelLog> {
        let entries = self.0.lock().unwrap();
        let end = entries.ops.len() as u64;
        Arc::new(ModelLog(Mutex::new(Entries {
            ops: entries.ops.clone(),
            unapplied: (redo..end).collect(),
            durable: end,
            eager: true,
            nudges: 0,
        })))
    }

    pub(crate) fn applied(&self, at: u64) {
        self.0.lock().unwrap().unapplied.remove(&at);
    }

    pub(crate) fn flush(&self) {
        let mut entries = self.0.lock().unwrap();
        entries.durable = entries.ops.len() as u64;
    }

    pub(crate) fn nudges(&self) -> u64 {
        self.0.lock().unwrap().nudges
    }

    /// Sequences and applies an operation.
    pub(crate) fn run(&self, tree: &Tree, op: Op) -> Result<(), StoreError> {
        let at = self.sequence(op.clone());
        apply(tree, &op)?;
        self.applied(at);
        Ok(())
    }

    /// The rows after the first `n` entries.
    pub(crate) fn rows_at(&self, n: u64) -> Rows {
        self.redo(Rows::new(), 0, n)
    }

    /// `rows` with entries `from..to` applied.
    pub(crate) fn redo(&self, mut rows: Rows, from: u64, to: u64) -> Rows {
        let entries = self.0.lock().unwrap();
        for op in &entries.ops[from as usize..to as usize] {
            apply_to(&mut rows, op);
        }
        rows
    }
}

impl LogView for ModelLog {
    fn redo_lsn(&self) -> Lsn {
        let entries = self.0.lock().unwrap();
        let end = entries.ops.len() as u64;
        Lsn(entries.unapplied.first().copied().unwrap_or(end))
    }

    fn image_hi(&self) -> (Lsn, Ts, Term) {
        let end = self.0.lock().unwrap().ops.len() as u64;
        (Lsn(end), Ts(end), Term::FIRST)
    }

    fn safe_lsn(&self) -> Lsn {
        Lsn(self.0.lock().unwrap().durable)
    }

    fn nudge(&self) {
        let eager = {
            let mut entries = self.0.lock().unwrap();
            entries.nudges += 1;
            entries.eager
        };
        if eager {
            self.flush();
        }
    }

    fn clock_bound(&self) -> u64 {
        77
    }
}

/// Runs a whole checkpoint.
pub(crate) fn checkpoint(store: &Store, log: &Arc<ModelLog>) -> Result<(), StoreError> {
    let mut checkpoint = store.begin_checkpoint(log.clone())?;
    while !matches!(checkpoint.step()?, Step::Done(_)) {}
    Ok(())
}

/// Small numbers from a seed (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// A row to put or delete: short rows, long ones, and such as need overflow pages. `keys` keys;
    /// deletes come in stretches, so that pages merge.
    pub(crate) fn op(&mut self, keys: u64, deletes_percent: u64) -> Op {
        let n = self.below(keys);
        let key = format!("row {n:05}").into_bytes();
        if self.below(100) < deletes_percent {
            return (key, None);
        }
        let len = match self.below(40) {
            0 => 3000 + self.below(9000),
            1..=8 => 400 + self.below(1200),
            _ => self.below(120),
        };
        let byte = self.next() as u8;
        (key, Some(vec![byte; len as usize]))
    }
}

/// Paths of the store's files that hold `part` in their names.
pub(crate) fn files_with(disk: &SimDisk, part: &str) -> Vec<PathBuf> {
    let files = disk.image().files();
    files
        .into_iter()
        .filter(|path| path.to_string_lossy().contains(part))
        .collect()
}
