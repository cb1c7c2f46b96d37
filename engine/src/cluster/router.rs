//! The way of a program's calls to the member that leads.
//!
//! ```text
//! leader  the member that takes commits; of several the one in the highest term
//! view    taken there first, then: has it the lease? A pause in between makes nothing stale
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use terrane_shard::ShardMap;
use terrane_wal::lsn::Ts;
use terrane_wal::sync::Mutex;

use super::Inner;
use super::host::Host;
use crate::database::{CrossShard, Database};
use crate::error::{Error, ErrorKind, Result};
use crate::local::Local;
use crate::routes::{Anchor, Routes};
use crate::txn::moments::Moments;
use crate::txn::snapshot::View;
use crate::txn::transaction::no_such_shard;

/// Routes to the shards.
pub(super) struct Router {
    cluster: Arc<Inner>,
    /// Who led each last.
    last: Vec<Mutex<Option<Arc<Host>>>>,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Router({} shards)", self.last.len())
    }
}

impl Router {
    pub(super) fn new(cluster: &Arc<Inner>) -> Router {
        let shards = cluster.map.shards().iter();
        Router {
            last: shards.map(|_| Mutex::new(None)).collect(),
            cluster: Arc::clone(cluster),
        }
    }

    /// The host that leads a shard, if one does. One that led last and has its lease leads still.
    fn host(&self, shard: u32) -> Option<Arc<Host>> {
        let place = self.last.get(shard as usize)?;
        let last = place.lock().clone();
        let leads = |host: &Arc<Host>| is_current(host) && host.leads().is_some();
        if let Some(host) = last.filter(leads) {
            return Some(host);
        }
        let (_, host) = self.cluster.leader_of(shard)?;
        *place.lock() = Some(Arc::clone(&host));
        Some(host)
    }

    fn check(&self, shard: u32) -> Result<()> {
        if (shard as usize) < self.last.len() {
            return Ok(());
        }
        Err(no_such_shard(shard))
    }
}

/// Whether no other member can serve yet.
fn is_current(host: &Host) -> bool {
    host.has_lease() || terrane_wal::planted!("reads_without_a_lease")
}

impl Routes for Router {
    fn map(&self) -> &Arc<ShardMap> {
        &self.cluster.map
    }

    fn moments(&self) -> Option<&Arc<Moments>> {
        self.cluster.moments.as_ref()
    }

    fn leader(&self, shard: u32) -> Result<Local> {
        self.check(shard)?;
        self.cluster.wait_for(self.window(), || {
            // One that nobody has answered for the time of a lease has nobody to acknowledge.
            let host = self.host(shard).filter(|host| is_current(host))?;
            Some(Local::detached(&host.core()?))
        })
    }

    fn view(&self, db: &Database, shard: u32, moment: Option<Ts>) -> Result<View> {
        self.check(shard)?;
        self.cluster.wait_for(self.window(), || {
            let host = self.host(shard)?;
            let core = host.core()?;
            let anchor = Anchor::at(db, Ok(Local::detached(&core)));
            let view = match moment {
                None => Ok(View::begin(anchor)),
                Some(moment) => View::at(anchor, moment),
            };
            let shown = is_current(&host) && core.check_leads().is_ok();
            shown.then_some(view)
        })?
    }

    fn cross_shard(&self) -> CrossShard {
        self.cluster.layout.cross_shard
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
