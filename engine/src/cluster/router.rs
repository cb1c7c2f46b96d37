//! The way of a program's calls to the member that leads.
//!
//! ```text
//! leader    the member that takes commits; of several the one in the highest term
//! snapshot  taken there first, then: has it the lease? A pause in between makes nothing stale
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use terrane_wal::sync::Mutex;

use super::Inner;
use super::host::Host;
use crate::database::Database;
use crate::error::{Error, ErrorKind, Result};
use crate::local::Local;
use crate::routes::{Anchor, Routes};
use crate::txn::Snapshot;

/// Routes to one shard.
pub(super) struct Router {
    cluster: Arc<Inner>,
    shard: u32,
    /// Who led last.
    last: Mutex<Option<Arc<Host>>>,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Router({})", self.shard)
    }
}

impl Router {
    pub(super) fn new(cluster: &Arc<Inner>, shard: u32) -> Router {
        Router {
            cluster: Arc::clone(cluster),
            shard,
            last: Mutex::new(None),
        }
    }

    /// The host that leads, if one does. One that led last and has its lease leads still.
    fn host(&self) -> Option<Arc<Host>> {
        let last = self.last.lock().clone();
        let leads = |host: &Arc<Host>| is_current(host) && host.leads().is_some();
        if let Some(host) = last.filter(leads) {
            return Some(host);
        }
        let (_, host) = self.cluster.leader_of(self.shard)?;
        *self.last.lock() = Some(Arc::clone(&host));
        Some(host)
    }
}

/// Whether no other member can serve yet.
fn is_current(host: &Host) -> bool {
    host.has_lease() || terrane_wal::planted!("reads_without_a_lease")
}

impl Routes for Router {
    fn leader(&self) -> Result<Local> {
        self.cluster.wait_for(self.window(), || {
            let core = self.host()?.core()?;
            Some(Local::detached(&core))
        })
    }

    fn snapshot(&self, db: &Database) -> Result<Snapshot> {
        self.cluster.wait_for(self.window(), || {
            let host = self.host()?;
            let core = host.core()?;
            let snapshot = Snapshot::begin(Anchor::at(db, Ok(Local::detached(&core))));
            let shown = is_current(&host) && core.check_leads().is_ok();
            shown.then_some(snapshot)
        })
    }

    fn window(&self) -> Duration {
        self.cluster.layout.window
    }

    fn close(&self) -> Result<()> {
        Err(Error::new(
            ErrorKind::Invalid,
            "a cluster's database is closed by stopping its nodes",
        ))
    }
}
