//! A node: one directory, one way to the others, and two threads for all the members it hosts.
//!
//! ```text
//! "terrane-node"   packets, heartbeats, failovers: what others wait for
//! "terrane-trees"  followers, upkeep, checkpoints: what nobody waits for
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use terrane_shard::switchover::SwitchError;
use terrane_wal::env::{Env, Joiner, Waiter};
use terrane_wal::io::{BackendChoice, Lock};
use terrane_wal::sync::{AtomicBool, Mutex, Ordering};

use super::host::{Home, Host};
use super::network::{NodeId, Transport};
use super::seat::Seat;
use super::tending::Tending;
use crate::builder::check_path;
use crate::error::{Error, ErrorKind, Result};
use crate::recovery::directory;
use crate::runtime::worker::{DEVICE_PAUSE, Due, TICK};

/// Longest pause of the node's thread.
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// What an operator asks of a node's thread.
#[derive(Debug)]
struct Order {
    shard: u32,
    to: NodeId,
    reply: Arc<Reply>,
}

/// Where the answer to an order comes.
#[derive(Debug)]
pub(super) struct Reply {
    outcome: Mutex<Option<Result<(), SwitchError>>>,
    waiter: Arc<dyn Waiter>,
}

impl Reply {
    fn say(&self, outcome: Result<(), SwitchError>) {
        *self.outcome.lock() = Some(outcome);
        self.waiter.unpark();
    }

    /// The answer; None if none came in time.
    pub(super) fn wait(&self, within: Duration) -> Option<Result<(), SwitchError>> {
        // Woken or not, what was said by then counts.
        while self.outcome.lock().is_none() && self.waiter.park_timeout(within) {}
        self.outcome.lock().take()
    }
}

type Orders = Arc<Mutex<VecDeque<Order>>>;

/// The threads of a node, while they run.
#[derive(Default)]
struct Threads {
    joiners: Vec<Box<dyn Joiner>>,
}

/// A node of a cluster: hosts a member of each shard that is placed on it. Clones are handles of
/// the same one; the last one stops it when dropped.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    id: NodeId,
    dir: PathBuf,
    env: Env,
    transport: Arc<dyn Transport>,
    lock: Mutex<Option<Box<dyn Lock>>>,
    hosts: Mutex<Vec<Arc<Host>>>,
    orders: Orders,
    threads: Mutex<Threads>,
    stop: Arc<AtomicBool>,
    node: Arc<dyn Waiter>,
    tender: Arc<dyn Waiter>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({}, {})", self.inner.id, self.inner.dir.display())
    }
}

impl Node {
    /// Opens the node whose files are in `dir`, made if it is missing; its parent must exist. It
    /// takes part once a cluster is made of it, or opened with it.
    ///
    /// # Errors
    /// `Invalid` for a bad path, `Locked` if the directory is open in this process or another,
    /// `NotFound`, `ReadOnly`, `Io`.
    pub fn open(
        id: NodeId,
        dir: impl AsRef<Path>,
        transport: impl Transport + 'static,
    ) -> Result<Node> {
        let (env, _) = Env::system(BackendChoice::Auto)?;
        Node::open_in(env, id, dir.as_ref(), Arc::new(transport))
    }

    /// As [`Node::open`], in a world of the caller's.
    pub(super) fn open_in(
        env: Env,
        id: NodeId,
        dir: &Path,
        transport: Arc<dyn Transport>,
    ) -> Result<Node> {
        check_path(dir)?;
        if transport.node() != id {
            let error = Error::new(
                ErrorKind::Invalid,
                "the way to the others is another node's",
            );
            return Err(error.with("node", id).with("given", transport.node()));
        }
        directory::make(&env, dir)?;
        let lock = directory::take(&env, dir, false)?;
        let (node, tender) = (env.park.waiter(), env.park.waiter());
        Ok(Node {
            inner: Arc::new(Inner {
                id,
                dir: dir.to_path_buf(),
                env,
                transport,
                lock: Mutex::new(lock),
                hosts: Mutex::default(),
                orders: Orders::default(),
                threads: Mutex::default(),
                stop: Arc::new(AtomicBool::new(false)),
                node,
                tender,
            }),
        })
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.inner.id
    }

    pub(super) fn dir(&self) -> &Path {
        &self.inner.dir
    }

    pub(super) fn env(&self) -> &Env {
        &self.inner.env
    }

    pub(super) fn transport(&self) -> &Arc<dyn Transport> {
        &self.inner.transport
    }

    /// The member of a shard.
    pub(super) fn host(&self, shard: u32) -> Option<Arc<Host>> {
        let hosts = self.inner.hosts.lock();
        hosts.get(shard as usize).cloned()
    }

    /// Opens the members in order of their shards' numbers, and begins to take part.
    ///
    /// # Errors
    /// Those of opens; `Invalid` if it takes part already.
    pub(super) fn start(&self, homes: Vec<Home>) -> Result<()> {
        let inner = &self.inner;
        if inner.stop.load(Ordering::Acquire) || !inner.hosts.lock().is_empty() {
            let what = "the node takes part in a cluster, or was stopped";
            return Err(Error::new(ErrorKind::Invalid, what).with("node", inner.id));
        }
        let mut hosts = Vec::with_capacity(homes.len());
        for home in homes {
            hosts.push(home.host(Arc::clone(&inner.node), Arc::clone(&inner.tender))?);
        }
        *inner.hosts.lock() = hosts.clone();
        let seats: Vec<Seat> = hosts.iter().filter_map(Seat::of).collect();
        let tendings: Vec<Tending> = hosts.iter().map(Tending::of).collect();
        inner.transport.wake_by(Arc::clone(&inner.node));
        let mut threads = inner.threads.lock();
        let started = inner.spawn("terrane-node", {
            let orders = Weaver::of(self);
            move || orders.run(seats)
        })?;
        threads.joiners.push(started);
        let started = inner.spawn("terrane-trees", {
            let (stop, waiter) = (Arc::clone(&inner.stop), Arc::clone(&inner.tender));
            move || tend(tendings, &stop, &*waiter)
        })?;
        threads.joiners.push(started);
        Ok(())
    }

    /// Asks the member of a shard to hand leadership to another node.
    pub(super) fn switch(&self, shard: u32, to: NodeId) -> Arc<Reply> {
        let reply = Arc::new(Reply {
            outcome: Mutex::new(None),
            waiter: self.inner.env.park.waiter(),
        });
        let order = Order {
            shard,
            to,
            reply: Arc::clone(&reply),
        };
        self.inner.orders.lock().push_back(order);
        self.inner.node.unpark();
        reply
    }

    /// Stops taking part, as a process that ends. What was acknowledged is on the disks; opened
    /// again, it goes on. A second call does nothing.
    pub fn stop(&self) {
        self.inner.stop();
    }
}

impl Inner {
    fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<Box<dyn Joiner>> {
        self.env.spawn.spawn(name, Box::new(body)).map_err(|error| {
            Error::new(ErrorKind::Io, "a thread of a node cannot be started").caused_by(error)
        })
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.node.unpark();
        self.tender.unpark();
        let joiners = std::mem::take(&mut self.threads.lock().joiners);
        for joiner in joiners {
            // A thread that panicked has said so; the others are ended all the same.
            let _ = joiner.join();
        }
        let hosts = std::mem::take(&mut *self.hosts.lock());
        for host in hosts {
            // Whatever it did not get to is in the log, or was never acknowledged.
            let _ = host.close();
        }
        drop(self.lock.lock().take());
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The node's thread: holds no handle of the node, whose last one stops it.
struct Weaver {
    orders: Orders,
    env: Env,
    transport: Arc<dyn Transport>,
    stop: Arc<AtomicBool>,
    waiter: Arc<dyn Waiter>,
}

impl Weaver {
    fn of(node: &Node) -> Weaver {
        let inner = &node.inner;
        Weaver {
            orders: Arc::clone(&inner.orders),
            env: inner.env.clone(),
            transport: Arc::clone(&inner.transport),
            stop: Arc::clone(&inner.stop),
            waiter: Arc::clone(&inner.node),
        }
    }

    fn run(&self, mut seats: Vec<Seat>) {
        let mut switching: Vec<(u32, Arc<Reply>)> = Vec::new();
        while !self.stop.load(Ordering::Acquire) {
            self.take_orders(&mut seats, &mut switching);
            while let Some(packet) = self.transport.receive() {
                if let Some(seat) = seats.get_mut(packet.shard as usize) {
                    seat.hear(packet.from.into(), packet.body);
                }
            }
            let due = seats.iter_mut().map(Seat::turn).min();
            switching.retain(|(shard, reply)| {
                let seat = seats.get_mut(*shard as usize);
                let switched = seat.and_then(Seat::take_switched);
                let open = switched.is_none();
                switched.into_iter().for_each(|outcome| reply.say(outcome));
                open
            });
            let now = self.env.clock.now_mono();
            let due = due.map_or(PAUSE_MAX, |due| {
                Duration::from_millis(due.0).saturating_sub(now)
            });
            let next = self.transport.next_due();
            let next = next.map_or(PAUSE_MAX, |next| next.saturating_sub(now));
            self.waiter.park_timeout(due.min(next).min(PAUSE_MAX));
        }
    }

    fn take_orders(&self, seats: &mut [Seat], switching: &mut Vec<(u32, Arc<Reply>)>) {
        let orders = std::mem::take(&mut *self.orders.lock());
        for Order { shard, to, reply } in orders {
            let seat = seats.get_mut(shard as usize);
            match seat.map(|seat| seat.switch(to.into())) {
                Some(Ok(())) => switching.push((shard, reply)),
                Some(Err(error)) => reply.say(Err(error)),
                None => reply.say(Err(SwitchError::NotLeading)),
            }
        }
    }
}

/// The trees' thread.
fn tend(mut tendings: Vec<Tending>, stop: &AtomicBool, waiter: &dyn Waiter) {
    while !stop.load(Ordering::Acquire) {
        let due = tendings.iter_mut().map(Tending::step).max();
        let pause = match due.unwrap_or(Due::Later) {
            Due::Now => continue,
            Due::Soon => DEVICE_PAUSE,
            Due::Later => TICK,
        };
        waiter.park_timeout(pause);
    }
}
