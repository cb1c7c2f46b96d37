//! What goes between the nodes of a cluster, and the network of those that live in one process.
//!
//! ```text
//! send -> is the link whole? -> lost? repeated? delayed? -> the receiver's queue -> unpark
//! receive <- the first in the queue, once it is due
//! ```
//!
//! The protocol takes packets that are lost, repeated and overtaken, so a network may do all three.
//! [`LocalNetwork::new`] does none of them on its own: it loses what a cut link carries, and what a
//! node that does not read has no room for. [`LocalNetwork::chaotic`] does what its [`Faults`] say,
//! by the clock and the randomness of an environment, so that a simulation replays it.
//!
//! One short mutex holds all queues and links, so a cut is one moment for both: what was on its way
//! is gone, and nothing that was sent before it comes after.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use terrane_shard::message::Message;
use terrane_shard::policy::MemberId;
use terrane_shard::suspicion::Word;
use terrane_wal::clock::Clock;
#[cfg(feature = "sim")]
use terrane_wal::env::Env;
use terrane_wal::env::{Rng, Waiter};
use terrane_wal::sync::Mutex;

/// Packets that may wait for a node: many rounds of all its shards.
const QUEUE_PACKETS_MAX: usize = 10_000;

/// Bytes of entries that wait for a node, from which on it gets no more. One packet may go beyond:
/// an entry may be larger than this, and would never come otherwise.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// A node of a cluster. The member that it hosts of a shard has its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl From<MemberId> for NodeId {
    fn from(id: MemberId) -> Self {
        Self(id.0)
    }
}

impl From<NodeId> for MemberId {
    fn from(id: NodeId) -> Self {
        Self(id.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.0)
    }
}

/// What goes between two nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Of which shard it is.
    pub shard: u32,
    /// Who sent it.
    pub from: NodeId,
    /// What it says.
    pub body: Body,
}

/// What a packet says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Of the replication protocol.
    Message(Message),
    /// Of the search for a leader that is gone.
    Word(Word),
}

impl Body {
    /// Bytes of the entries in it, which are all that can be large.
    fn entry_bytes(&self) -> usize {
        let entries = match self {
            Self::Message(Message::Append(append)) => &append.entries[..],
            Self::Message(Message::Suffix { entries, .. }) => &entries[..],
            _ => &[],
        };
        entries.iter().map(|entry| entry.bytes.len()).sum()
    }
}

/// A node's way to the others.
pub trait Transport: Send + Sync + fmt::Debug {
    /// Whose it is.
    fn node(&self) -> NodeId;

    /// Sends; may be lost, repeated, overtaken. Never blocks.
    fn send(&self, to: NodeId, shard: u32, body: Body);

    /// The next packet that has come, if one has.
    fn receive(&self) -> Option<Packet>;

    /// When there will be a packet to receive, by the environment's monotonic clock, if that is
    /// known: a time that is over if there is one. Who parks for longer sleeps through it.
    fn next_due(&self) -> Option<Duration> {
        None
    }

    /// Whom to wake when one comes or is sent; replaces the one before. It is woken at once if
    /// there are some.
    fn wake_by(&self, waiter: Arc<dyn Waiter>);
}

/// What a network does to packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// How many of a hundred never come.
    pub lose_percent: u64,
    /// How many of a hundred come twice.
    pub repeat_percent: u64,
    /// Each comes after some time up to this, so that later ones overtake it.
    pub delay_max: Duration,
}

/// A network in one process. Clones are handles of the same one.
#[derive(Clone, Debug)]
pub struct LocalNetwork {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Of a chaotic network alone.
    chance: Option<Chance>,
    state: Mutex<State>,
}

/// What decides about packets.
#[derive(Debug)]
struct Chance {
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
}

impl Chance {
    fn below(&self, n: u64) -> u64 {
        self.rng.next_u64("network") % n
    }

    /// When the copies of a packet that is sent now will come; none if it is lost.
    fn times(&self, faults: Faults) -> Vec<Duration> {
        if self.below(100) < faults.lose_percent {
            return Vec::new();
        }
        let copies = if self.below(100) < faults.repeat_percent {
            2
        } else {
            1
        };
        let now = self.clock.now_mono();
        let delay_ns_max = u64::try_from(faults.delay_max.as_nanos()).unwrap_or(u64::MAX);
        let delay = |_| Duration::from_nanos(self.below(delay_ns_max.saturating_add(1)));
        (0..copies).map(|copy| now + delay(copy)).collect()
    }
}

#[derive(Debug, Default)]
struct State {
    faults: Faults,
    inboxes: BTreeMap<NodeId, Inbox>,
    /// Links that carry nothing, by sender and receiver.
    cut: BTreeSet<(NodeId, NodeId)>,
    isolated: BTreeSet<NodeId>,
    /// Packets put into queues so far: what is due at one time comes in this order.
    queued: u64,
    /// Endpoints made so far.
    endpoints: u64,
}

impl State {
    fn is_whole(&self, from: NodeId, to: NodeId) -> bool {
        let isolated = self.isolated.contains(&from) || self.isolated.contains(&to);
        !isolated && !self.cut.contains(&(from, to))
    }

    /// Takes from all queues what is on its way over a link that is cut now, for the caller to drop
    /// outside of the mutex.
    fn take_cut(&mut self) -> Vec<Packet> {
        let mut inboxes = std::mem::take(&mut self.inboxes);
        let mut taken = Vec::new();
        for (to, inbox) in &mut inboxes {
            taken.extend(inbox.take_if(|from| !self.is_whole(from, *to)));
        }
        self.inboxes = inboxes;
        taken
    }
}

/// What is on its way to a node.
#[derive(Debug)]
struct Inbox {
    /// Which endpoint reads it.
    endpoint: u64,
    /// By when they are due, then in the order in which they were sent.
    queue: BTreeMap<(Duration, u64), Packet>,
    /// Bytes of entries in the queue.
    bytes: usize,
    waiter: Option<Arc<dyn Waiter>>,
}

impl Inbox {
    /// Puts a packet in, if there is room.
    fn push(&mut self, due: Duration, number: u64, packet: Packet) {
        if self.queue.len() < QUEUE_PACKETS_MAX && self.bytes < QUEUE_BYTES_MAX {
            self.bytes += packet.body.entry_bytes();
            self.queue.insert((due, number), packet);
        }
    }

    /// The first that is due.
    fn pop(&mut self, now: Duration) -> Option<Packet> {
        let first = self.queue.first_entry();
        let first = first.filter(|first| first.key().0 <= now)?;
        let packet = first.remove();
        self.bytes -= packet.body.entry_bytes();
        Some(packet)
    }

    fn take_if(&mut self, is_taken: impl Fn(NodeId) -> bool) -> Vec<Packet> {
        let taken = self.queue.extract_if(.., |_, packet| is_taken(packet.from));
        let taken: Vec<Packet> = taken.map(|(_, packet)| packet).collect();
        let bytes = taken.iter().map(|packet| packet.body.entry_bytes());
        self.bytes -= bytes.sum::<usize>();
        taken
    }
}

impl Default for LocalNetwork {
    fn default() -> Self {
        Self::new()
    }
}

impl LocalNetwork {
    /// A network that delivers at once and in order.
    pub fn new() -> Self {
        Self::with(None, Faults::default())
    }

    /// A network that loses, repeats and delays.
    #[cfg(feature = "sim")]
    pub fn chaotic(env: &Env, faults: Faults) -> Self {
        let chance = Chance {
            clock: env.clock.clone(),
            rng: env.rng.clone(),
        };
        Self::with(Some(chance), faults)
    }

    fn with(chance: Option<Chance>, faults: Faults) -> Self {
        let state = State {
            faults,
            ..State::default()
        };
        Self {
            shared: Arc::new(Shared {
                chance,
                state: Mutex::new(state),
            }),
        }
    }

    /// The way of a node to the others. One that it had before is of a process that is gone: it
    /// sends and receives nothing more, and what was on its way to it is lost. So it is with a node
    /// whose endpoint was dropped.
    pub fn endpoint(&self, node: NodeId) -> Endpoint {
        let mut state = self.shared.state.lock();
        state.endpoints += 1;
        let number = state.endpoints;
        let inbox = Inbox {
            endpoint: number,
            queue: BTreeMap::new(),
            bytes: 0,
            waiter: None,
        };
        let before = state.inboxes.insert(node, inbox);
        drop(state);
        drop(before);
        Endpoint {
            shared: self.shared.clone(),
            node,
            number,
        }
    }

    /// From now on packets are lost, repeated and delayed like this; those on their way come as
    /// they would have.
    ///
    /// # Panics
    /// If this network has no clock and no randomness, as one of [`LocalNetwork::new`].
    #[cfg(feature = "sim")]
    pub fn set_faults(&self, faults: Faults) {
        let can = self.shared.chance.is_some() || faults == Faults::default();
        assert!(can, "faults of a network that was made without an Env");
        self.shared.state.lock().faults = faults;
    }

    /// The node sends nothing and receives nothing, until [`LocalNetwork::heal`].
    pub fn isolate(&self, node: NodeId) {
        self.cut(|state| {
            state.isolated.insert(node);
        });
    }

    /// What one node sends does not reach the other; the way back is left as it is.
    pub fn cut_link(&self, from: NodeId, to: NodeId) {
        self.cut(|state| {
            state.cut.insert((from, to));
        });
    }

    /// Nobody of one side reaches anybody of the other.
    pub fn partition(&self, one: &[NodeId], other: &[NodeId]) {
        let pairs = one.iter().flat_map(|a| other.iter().map(|b| (*a, *b)));
        self.cut(|state| state.cut.extend(pairs.flat_map(|(a, b)| [(a, b), (b, a)])));
    }

    /// What one node sends reaches the other again, if neither is isolated.
    pub fn reconnect(&self, from: NodeId, to: NodeId) {
        self.shared.state.lock().cut.remove(&(from, to));
    }

    /// All links are whole again. Faults stay as they are.
    pub fn heal(&self) {
        let mut state = self.shared.state.lock();
        state.cut.clear();
        state.isolated.clear();
    }

    /// Changes links, and drops what was on its way over those that are cut now.
    fn cut(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.shared.state.lock();
        change(&mut state);
        let lost = state.take_cut();
        drop(state);
        drop(lost);
    }
}

/// A node's end of a [`LocalNetwork`].
#[derive(Debug)]
pub struct Endpoint {
    shared: Arc<Shared>,
    node: NodeId,
    /// Which of all that were made.
    number: u64,
}

impl Endpoint {
    /// The queue of this endpoint, if the node has no newer one.
    fn inbox<'a>(&self, state: &'a mut State) -> Option<&'a mut Inbox> {
        let inbox = state.inboxes.get_mut(&self.node)?;
        (inbox.endpoint == self.number).then_some(inbox)
    }
}

impl Transport for Endpoint {
    fn node(&self) -> NodeId {
        self.node
    }

    fn send(&self, to: NodeId, shard: u32, body: Body) {
        let from = self.node;
        let mut state = self.shared.state.lock();
        if self.inbox(&mut state).is_none() || !state.is_whole(from, to) {
            return;
        }
        let times = match &self.shared.chance {
            None => vec![Duration::ZERO],
            Some(chance) => chance.times(state.faults),
        };
        let numbers = state.queued..;
        state.queued += times.len() as u64;
        let Some(inbox) = state.inboxes.get_mut(&to) else {
            return;
        };
        // The last of them is the packet itself.
        let copies = std::iter::repeat_n(Packet { shard, from, body }, times.len());
        for ((number, due), packet) in numbers.zip(times).zip(copies) {
            inbox.push(due, number, packet);
        }
        let waiter = inbox.waiter.clone();
        drop(state);
        if let Some(waiter) = waiter {
            waiter.unpark();
        }
    }

    fn receive(&self) -> Option<Packet> {
        let chance = self.shared.chance.as_ref();
        let now = chance.map_or(Duration::ZERO, |chance| chance.clock.now_mono());
        self.inbox(&mut self.shared.state.lock())?.pop(now)
    }

    fn next_due(&self) -> Option<Duration> {
        let mut state = self.shared.state.lock();
        let (due, _) = self.inbox(&mut state)?.queue.first_key_value()?.0;
        Some(*due)
    }

    fn wake_by(&self, waiter: Arc<dyn Waiter>) {
        let mut state = self.shared.state.lock();
        let Some(inbox) = self.inbox(&mut state) else {
            return;
        };
        let waits = !inbox.queue.is_empty();
        let before = inbox.waiter.replace(waiter.clone());
        drop(state);
        drop(before);
        if waits {
            waiter.unpark();
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        if self.inbox(&mut state).is_some() {
            let lost = state.inboxes.remove(&self.node);
            drop(state);
            drop(lost);
        }
    }
}

#[cfg(test)]
mod tests;
