//! Options of an open, each checked before any file is touched.
//!
//! An option given twice with different values is refused rather than the last one taken, and one
//! out of its range is refused with the range, never clamped.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use terrane_btree::{Class, StoreOptions};
use terrane_vector::Kernels;
use terrane_wal::env::Env;
use terrane_wal::io::BackendChoice;
use terrane_wal::{LogOptions, limits as wal_limits};

use crate::database::{Database, Durability, no_replicas};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{COMMIT_BYTES, COMMIT_KEYS};
use crate::local::Local;
use crate::recovery::{self, RecoveryProgress};
use crate::txn::Isolation;
use crate::txn::moments::Moments;

/// Least memory of a database: what its page pool and its log buffer need.
const MEMORY_MIN: usize = 4 << 20;
/// Smallest log segment that a builder accepts.
const SEGMENT_MIN: u64 = 256 << 10;
/// Random reads that a device is taken to serve in a second: what the reopen bound is counted in.
const READS_PER_S: u64 = 50_000;

/// What to do about a database that is there, or is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Create {
    /// Opens it, or makes it in a directory that is missing or empty.
    #[default]
    IfMissing,
    /// Opens it; `NotFound` if there is none.
    Never,
    /// Makes it; `Exists` if there is one.
    New,
}

/// Which machinery serves batches of I/O.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Io {
    /// io_uring where the kernel grants it, else a pool of threads.
    #[default]
    Auto,
    /// io_uring, or an error.
    Ring,
    /// A pool of threads.
    Pool,
}

/// Called with the progress of a recovery.
pub(crate) type OnRecovery = Arc<dyn Fn(RecoveryProgress) + Send + Sync>;

/// Options of an open; see [`Database::builder`].
#[derive(Clone, Default)]
pub struct Builder {
    memory_bytes: Option<usize>,
    page_bytes: Option<usize>,
    segment_bytes: Option<u64>,
    durability: Option<Durability>,
    isolation: Option<Isolation>,
    create: Option<Create>,
    read_only: Option<bool>,
    io: Option<Io>,
    reopen_secs: Option<f64>,
    commit_keys: Option<usize>,
    commit_bytes: Option<usize>,
    lock_timeout: Option<Duration>,
    snapshot_age: Option<Duration>,
    version_bytes: Option<usize>,
    background: Option<bool>,
    on_recovery: Option<OnRecovery>,
    env: Option<Env>,
    /// The first option that was given twice with different values.
    twice: Option<&'static str>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("memory_bytes", &self.memory_bytes)
            .field("page_bytes", &self.page_bytes)
            .field("segment_bytes", &self.segment_bytes)
            .field("durability", &self.durability)
            .field("isolation", &self.isolation)
            .finish_non_exhaustive()
    }
}

/// The options of an open database, complete and checked.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) durability: Durability,
    pub(crate) isolation: Isolation,
    pub(crate) create: Create,
    pub(crate) read_only: bool,
    pub(crate) page_class: Class,
    /// The page size was asked for by name: tables that have another one are refused.
    pub(crate) page_class_named: bool,
    pub(crate) commit_keys: usize,
    pub(crate) commit_bytes: usize,
    pub(crate) lock_timeout: Duration,
    pub(crate) snapshot_age: Duration,
    pub(crate) version_bytes: usize,
    pub(crate) background: bool,
    pub(crate) on_recovery: Option<OnRecovery>,
    /// Of a member of one of several shards: what is read in all of them.
    pub(crate) moments: Option<Arc<Moments>>,
    /// What open found worth telling: see [`Database::notices`].
    pub(crate) notices: Vec<String>,
    pub(crate) store: StoreOptions,
    pub(crate) log: LogOptions,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("durability", &self.durability)
            .field("isolation", &self.isolation)
            .field("store", &self.store)
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

/// Sets an option, or notes that it was set to something else before.
fn set<T: PartialEq>(
    option: &mut Option<T>,
    value: T,
    name: &'static str,
    twice: &mut Option<&'static str>,
) {
    if option.as_ref().is_some_and(|before| *before != value) {
        twice.get_or_insert(name);
    }
    *option = Some(value);
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $name(mut self, value: $type) -> Builder {
            set(&mut self.$name, value, stringify!($name), &mut self.twice);
            self
        }
    )*};
}

impl Builder {
    /// Every option at its default.
    #[must_use]
    pub fn new() -> Builder {
        Builder::default()
    }

    setters! {
        /// Memory for pages, log buffer and older versions together. Default 256 MiB, at least
        /// 4 MiB.
        memory_bytes: usize;
        /// Page size of new tables: 8, 16 or 32 KiB; one with vectors may take larger ones. If it
        /// is given, a table that has smaller pages is refused. Default 8 KiB.
        page_bytes: usize;
        /// Length of a log segment: a multiple of 4096, 256 KiB to 1 GiB. Default 64 MiB.
        segment_bytes: u64;
        /// How safe a commit is when it returns. Default `Local`.
        durability: Durability;
        /// What transactions may overlook of each other. Default `Serializable`.
        isolation: Isolation;
        /// What to do about a database that is there, or is not. Default `IfMissing`.
        create: Create;
        /// Opens for reading only; the database must have been closed in order. Default false.
        read_only: bool;
        /// Machinery of batches of I/O. Default `Auto`.
        io: Io;
        /// Seconds of reading that a reopen after a crash may cost, by estimate; more frequent
        /// checkpoints keep it. Default 10, more than 0.
        reopen_secs: f64;
        /// Keys of the largest commit, 1 to 10,000,000. Every later commit waits while a large one
        /// is applied. Default 100,000.
        commit_keys: usize;
        /// Bytes of the largest commit, 1 to 64 MiB. Default 64 MiB.
        commit_bytes: usize;
        /// How long a row that another transaction has locked is waited for. Default 5 s.
        lock_timeout: Duration;
        /// Age at which a snapshot that keeps older versions may be given up. Default 24 h.
        snapshot_age: Duration;
        /// Memory for older versions; above it the oldest snapshot is given up. Default a tenth of
        /// `memory_bytes`.
        version_bytes: usize;
    }

    /// Told the progress of a recovery at open.
    #[must_use]
    pub fn on_recovery(
        mut self,
        call: impl Fn(RecoveryProgress) + Send + Sync + 'static,
    ) -> Builder {
        self.on_recovery = Some(Arc::new(call));
        self
    }

    /// Disk, clock, randomness, threads and waiting from the caller.
    #[cfg(feature = "sim")]
    #[must_use]
    pub fn env(mut self, env: Env) -> Builder {
        self.env = Some(env);
        self
    }

    /// Whether the background thread runs; without it a test calls `Database::background_step`.
    #[cfg(feature = "sim")]
    #[must_use]
    pub fn background(mut self, value: bool) -> Builder {
        set(&mut self.background, value, "background", &mut self.twice);
        self
    }

    /// Opens the database in the directory `path`.
    ///
    /// # Errors
    /// `Invalid`: an option, a path that is no database directory, or a `TERRANE_KERNELS` in the
    /// environment that names no kernels of this processor. `NotFound`, `Exists`: see
    /// [`Create`]; `NotFound` also if the parent directory is missing. `Locked`: it is open in
    /// this process or another. `ReadOnly`: the directory takes no writes, or a read-only open of a
    /// database that needs recovery. `Version`, `Corrupt`, `Io`, `Full`.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Database> {
        let path = path.as_ref();
        check_path(path)?;
        let mut options = self.resolve()?;
        let env = match self.env {
            Some(env) => env,
            None => {
                let choice = match self.io.unwrap_or_default() {
                    Io::Auto => BackendChoice::Auto,
                    Io::Ring => BackendChoice::Ring,
                    Io::Pool => BackendChoice::Pool,
                };
                let (env, notice) = Env::system(choice)?;
                options
                    .notices
                    .extend(notice.map(|notice| notice.to_string()));
                env
            }
        };
        let background = options.background;
        let core = recovery::open(env, path, options)?;
        Ok(Database::alone(Local::over(core, background)?))
    }

    /// Checks every option and fills in the defaults.
    pub(crate) fn resolve(&self) -> Result<Options> {
        if let Some(name) = self.twice {
            let error = Error::new(ErrorKind::Invalid, "an option was given twice");
            return Err(error.with("option", name));
        }
        Kernels::asked().map_err(|error| {
            let what = "an environment variable has an unknown value";
            Error::new(ErrorKind::Invalid, what).caused_by(error)
        })?;
        let memory = self.memory_bytes.unwrap_or(256 << 20);
        within("memory_bytes", memory, MEMORY_MIN, isize::MAX as usize)?;
        let version_bytes = self.version_bytes.unwrap_or(memory / 10);
        within("version_bytes", version_bytes, 64 << 10, memory / 2)?;
        let page_class = self.page_class()?;
        let durability = self.durability.unwrap_or_default();
        if durability == Durability::Replicated {
            return Err(no_replicas());
        }
        let commit_keys = self.commit_keys.unwrap_or(COMMIT_KEYS);
        within("commit_keys", commit_keys, 1, 10_000_000)?;
        let commit_bytes = self.commit_bytes.unwrap_or(COMMIT_BYTES);
        within("commit_bytes", commit_bytes, 1, COMMIT_BYTES)?;
        let (read_only, create) = (
            self.read_only.unwrap_or(false),
            self.create.unwrap_or_default(),
        );
        if read_only && create == Create::New {
            let error = Error::new(ErrorKind::Invalid, "two options contradict each other");
            return Err(error.with("options", "read_only, create"));
        }
        // The log's buffer and the versions have their part; the pool has the rest.
        let buffer_bytes = (memory / 8).min(wal_limits::BUFFER_BYTES_DEFAULT);
        let pool_bytes = memory - buffer_bytes - version_bytes;
        // Simulation adds a field.
        #[allow(clippy::needless_update)]
        let store = StoreOptions {
            memory_bytes: pool_bytes,
            reopen_reads: self.reopen_reads()?,
            ..StoreOptions::default()
        };
        let log = LogOptions {
            segment_bytes: self.segment()?,
            buffer_bytes,
            ..LogOptions::default()
        };
        Ok(Options {
            durability,
            isolation: self.isolation.unwrap_or_default(),
            create,
            read_only,
            page_class,
            page_class_named: self.page_bytes.is_some(),
            commit_keys,
            commit_bytes,
            lock_timeout: self.lock_timeout.unwrap_or(Duration::from_secs(5)),
            snapshot_age: self
                .snapshot_age
                .unwrap_or(Duration::from_secs(24 * 60 * 60)),
            version_bytes,
            background: self.background.unwrap_or(true),
            on_recovery: self.on_recovery.clone(),
            moments: None,
            notices: Vec::new(),
            store,
            log,
        })
    }

    fn segment(&self) -> Result<u64> {
        let default = wal_limits::SEGMENT_BYTES_DEFAULT;
        let bytes = self.segment_bytes.unwrap_or(default);
        let most = wal_limits::SEGMENT_BYTES_MAX;
        within("segment_bytes", bytes, SEGMENT_MIN, most)?;
        if !bytes.is_multiple_of(4096) {
            return Err(invalid("segment_bytes", bytes, "a multiple of 4096"));
        }
        Ok(bytes)
    }

    /// Reads that the reopen bound allows.
    fn reopen_reads(&self) -> Result<u64> {
        let secs = self.reopen_secs.unwrap_or(10.0);
        if !(secs > 0.0 && secs <= 86_400.0) {
            return Err(invalid("reopen_secs", secs, "above 0, at most 86400"));
        }
        Ok(((READS_PER_S as f64 * secs) as u64).max(1))
    }

    fn page_class(&self) -> Result<Class> {
        let bytes = self.page_bytes.unwrap_or(Class::K8.bytes());
        match Class::ALL.into_iter().find(|class| class.bytes() == bytes) {
            Some(class) => Ok(class),
            None => Err(invalid("page_bytes", bytes, "8192, 16384 or 32768")),
        }
    }
}

/// Row 1 of the bad-input catalogue: refused before any I/O.
pub(crate) fn check_path(path: &Path) -> Result<()> {
    let bytes = path.as_os_str().as_encoded_bytes();
    let what = match bytes {
        [] => "a path is empty",
        _ if bytes.contains(&0) => "a path has a NUL byte",
        // The longest name that is made below it must fit as well.
        _ if bytes.len() > 4096 - 64 => "a path is too long",
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::Invalid, what).with("bytes", bytes.len()))
}

fn within<T: PartialOrd + fmt::Display>(
    name: &'static str,
    value: T,
    min: T,
    max: T,
) -> Result<()> {
    if value < min || value > max {
        return Err(invalid(name, value, format!("{min} to {max}")));
    }
    Ok(())
}

fn invalid(name: &'static str, value: impl fmt::Display, allowed: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Invalid, "an option is out of its range")
        .with("option", name)
        .with("given", value)
        .with("allowed", allowed)
}
