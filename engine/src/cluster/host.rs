//! A member of a shard on its node: the protocol, the trees, and who does what between them.
//!
//! ```text
//! node's thread   packets, time -> Member -> sends, commits ...      `Seat::turn`, in seat.rs
//! committers      the log has more -> Member -> sends                `Host::ship`
//! trees' thread   what is committed -> trees; serve, reopen, upkeep  `Tending::step`, tending.rs
//! ```
//!
//! The member is in one hand at a time and in no lock: who wants it and finds it taken says so, and
//! whoever has it does that too. Nothing here waits for another member.
//!
//! Invariants: what is committed is in the committed prefix before a caller is told (I5); trees are
//! written by commits only between `lead` and `depose` of their standing.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use terrane_shard::ShardId;
use terrane_shard::log::{Incarnation, Term};
use terrane_shard::message::Message;
use terrane_shard::policy::MemberId;
use terrane_shard::replica::{Effect, Time};
use terrane_shard::suspicion::Patience;
use terrane_shard::topology::{Topology, update};
use terrane_wal::env::{Env, Waiter};
use terrane_wal::lsn::Lsn;
use terrane_wal::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use terrane_wal::{Log, WalError};

use super::network::{Body, NodeId, Transport};
use crate::builder::Options;
use crate::error::{Error, ErrorKind, Result};
use crate::recovery::member::Opening;
use crate::replica::{Member, Start, config_file};
use crate::runtime::Core;
use crate::runtime::fence::Fence;
use crate::runtime::standing::{Ship, Standing};

/// Where a member lives, and by which rules.
#[derive(Clone, Debug)]
pub(super) struct Home {
    pub(super) id: MemberId,
    /// The shard's number in the cluster.
    pub(super) number: u32,
    pub(super) shard: ShardId,
    pub(super) uuid: [u8; 16],
    pub(super) dir: PathBuf,
    pub(super) env: Env,
    pub(super) options: Options,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) topology: Arc<dyn Topology>,
    pub(super) patience: Patience,
    /// How long a commit waits for the others.
    pub(super) within: Duration,
}

/// What the trees' thread is to do.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Take commits in this term, once all up to there is applied.
    pub(super) serve: Option<(Term, Lsn)>,
    /// Make the trees again: the term that was led is over.
    pub(super) reopen: bool,
    /// Admission is to be closed, or open.
    pub(super) hold: bool,
}

/// A member on its node.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) home: Home,
    pub(super) log: Arc<Log>,
    /// Empty while somebody has it in hand, and once it has failed.
    member: Mutex<Option<Box<Member>>>,
    /// A committer wants to be heard.
    shipped: AtomicBool,
    /// The node's thread wants the member.
    wanted: AtomicBool,
    /// There is something to do for the node's thread.
    called: AtomicBool,
    /// What this member says to itself.
    own: Mutex<VecDeque<Message>>,
    /// The trees of now, with the fence around their files.
    trees: Mutex<Option<(Arc<Core>, Arc<Fence>)>>,
    pub(super) work: Mutex<Work>,
    /// Everything up to here is applied; less than before once the trees are made again.
    pub(super) applied: AtomicU64,
    /// All that was admitted is in the log.
    pub(super) drained: AtomicBool,
    /// What is committed cannot be applied.
    pub(super) unable: AtomicBool,
    /// Until when this member, if it leads, may answer reads by itself.
    lease_ms: AtomicU64,
    /// Why it takes no part any more.
    failed: Mutex<Option<Error>>,
    pub(super) refused: AtomicU64,
    shipper: Arc<OnceLock<Weak<Host>>>,
    node: Arc<dyn Waiter>,
    tender: Arc<dyn Waiter>,
}

/// A committer's way to the host.
#[derive(Debug)]
struct Shipper(Arc<OnceLock<Weak<Host>>>);

impl Ship for Shipper {
    fn ship(&self) {
        if let Some(host) = self.0.get().and_then(Weak::upgrade) {
            host.ship();
        }
    }
}

impl Home {
    /// The time of this node.
    pub(super) fn now(&self) -> Time {
        Time(self.env.clock.now_mono().as_millis() as u64)
    }

    /// Counts a start, on the disk first and then in the topology (I13). An old disk that was put
    /// back is other data from now on.
    fn begin(&self) -> Result<Start> {
        let mut start = Start::count(&self.env, &self.dir.join("VOTE"), self.uuid)?;
        loop {
            let mut amnesia = false;
            let entered = update(&*self.topology, &self.shard, |record| {
                amnesia = record.begin(self.id, start.run()).is_err();
                (!amnesia).then_some(())
            });
            entered.map_err(|error| {
                let what = "a member's start cannot be entered in the topology";
                Error::new(ErrorKind::Unavailable, what).caused_by(error)
            })?;
            if !amnesia {
                return Ok(start);
            }
            start.forget(Incarnation(self.env.rng.next_u64("incarnation")))?;
        }
    }

    fn opening(&self, fence: &Arc<Fence>, shipper: &Arc<OnceLock<Weak<Host>>>) -> Opening<'_> {
        let ship = Box::new(Shipper(Arc::clone(shipper)));
        Opening {
            env: &self.env,
            trees: Arc::clone(fence) as _,
            dir: &self.dir,
            options: self.options.clone(),
            standing: Standing::new(ship, self.within),
        }
    }

    /// Opens the member. `node` and `tender` are woken when there is something to do for them.
    ///
    /// # Errors
    /// Those of an open; `Unavailable` if the topology does not answer.
    pub(super) fn host(self, node: Arc<dyn Waiter>, tender: Arc<dyn Waiter>) -> Result<Arc<Host>> {
        let start = self.begin()?;
        let fence = Fence::around(Arc::clone(&self.env.disk));
        let shipper = Arc::new(OnceLock::new());
        let (core, log) = self.opening(&fence, &shipper).start()?;
        let path = self.dir.join("CONFIG");
        let first = config_file::load(&*self.env.disk, &path, self.uuid)?;
        let member = start.join(self.id, Arc::clone(&log), first, self.now())?;
        let applied = core.prefix.applied().0;
        let host = Arc::new(Host {
            home: self,
            log,
            member: Mutex::new(Some(Box::new(member))),
            shipped: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
            called: AtomicBool::new(true),
            own: Mutex::default(),
            trees: Mutex::new(Some((core, fence))),
            work: Mutex::default(),
            applied: AtomicU64::new(applied.0),
            drained: AtomicBool::new(false),
            unable: AtomicBool::new(false),
            lease_ms: AtomicU64::new(0),
            failed: Mutex::new(None),
            refused: AtomicU64::new(0),
            shipper,
            node,
            tender,
        });
        // Nobody has set it before.
        let _ = host.shipper.set(Arc::downgrade(&host));
        Ok(host)
    }
}

impl Host {
    /// The trees of now; None once the host is closed.
    pub(super) fn core(&self) -> Option<Arc<Core>> {
        let trees = self.trees.lock();
        trees.as_ref().map(|(core, _)| Arc::clone(core))
    }

    /// The term in which commits are taken here.
    pub(super) fn leads(&self) -> Option<Term> {
        let core = self.core()?;
        core.standing.as_ref().and_then(Standing::leads)
    }

    /// Everything up to here is in the trees; entries of the protocol itself have nothing for them.
    pub(super) fn applied(&self) -> Lsn {
        let Some(core) = self.core().filter(|_| self.leads().is_some()) else {
            return Lsn(self.applied.load(Ordering::Acquire));
        };
        let filled = self.log.positions().filled.0;
        match core.prefix.is_at_rest() {
            true => filled,
            false => core.prefix.applied().0,
        }
    }

    /// Whether this member leads and no other can serve yet. Asked after a snapshot was taken.
    pub(super) fn has_lease(&self) -> bool {
        self.home.now().0 < self.lease_ms.load(Ordering::Acquire)
    }

    /// Why it takes no part any more.
    pub(super) fn failure(&self) -> Option<String> {
        self.failed.lock().as_ref().map(Error::to_string)
    }

    /// Does something with the member, if it is not in another's hand.
    pub(super) fn peek<T>(&self, look: impl FnOnce(&Member) -> T) -> Option<T> {
        self.member.lock().as_deref().map(look)
    }

    /// Takes the member for the node's thread; if it is in another's hand, that one will say when
    /// it is not.
    pub(super) fn take(&self) -> Option<Box<Member>> {
        let taken = self.member.lock().take();
        if taken.is_some() {
            return taken;
        }
        self.wanted.store(true, Ordering::SeqCst);
        self.member.lock().take()
    }

    /// Gives the member back.
    pub(super) fn put_back(&self, member: Box<Member>) {
        self.note_lease(&member);
        *self.member.lock() = Some(member);
        self.serve_shipped();
    }

    /// The log has another entry, or is on disk farther: told to the member, by whoever has it in
    /// hand.
    fn ship(&self) {
        self.shipped.store(true, Ordering::SeqCst);
        self.serve_shipped();
    }

    fn serve_shipped(&self) {
        while self.shipped.load(Ordering::SeqCst) {
            let Some(mut member) = self.member.lock().take() else {
                return;
            };
            let mut out = Vec::new();
            let mut outcome = Ok(());
            while outcome.is_ok() && self.shipped.swap(false, Ordering::SeqCst) {
                outcome = member.logged(self.home.now(), &mut out);
                self.carry_out(&mut out);
            }
            match outcome {
                Ok(()) => *self.member.lock() = Some(member),
                Err(error) => self.fail(error),
            }
            if self.wanted.swap(false, Ordering::SeqCst) {
                self.call_node();
            }
        }
    }

    fn note_lease(&self, member: &Member) {
        let until = member.replica().lease_until();
        self.lease_ms.store(until.0, Ordering::Release);
    }

    /// Does what the protocol asks of the host.
    pub(super) fn carry_out(&self, out: &mut Vec<Effect>) {
        for effect in out.drain(..) {
            match effect {
                Effect::Send { to, message } if to == self.home.id => self.say_to_self(message),
                Effect::Send { to, message } => self.send(to, Body::Message(message)),
                Effect::Commit(commit) => self.committed(commit),
                Effect::Serve(term) => {
                    let at = self.log.commit_lsn();
                    self.with_work(|work| work.serve = Some((term, at)));
                }
                Effect::Demote => self.depose(),
                Effect::CloseAdmission => self.with_work(|work| work.hold = true),
                Effect::OpenAdmission => self.with_work(|work| work.hold = false),
                // The rest is done by the member itself.
                _ => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    pub(super) fn say_to_self(&self, message: Message) {
        self.own.lock().push_back(message);
        self.call_node();
    }

    /// The next message of this member to itself.
    pub(super) fn hear_self(&self) -> Option<Message> {
        self.own.lock().pop_front()
    }

    pub(super) fn send(&self, to: MemberId, body: Body) {
        let number = self.home.number;
        self.home.transport.send(NodeId::from(to), number, body);
    }

    /// The prefix first: who is woken by the log finds its commit there.
    fn committed(&self, commit: Lsn) {
        if let Some(core) = self.core() {
            core.prefix.commit_to(commit);
        }
        self.log.commit_to(commit);
        self.tender.unpark();
    }

    /// There is something to do for the node's thread.
    pub(super) fn call_node(&self) {
        self.called.store(true, Ordering::SeqCst);
        self.node.unpark();
    }

    /// Whether there was; asked once.
    pub(super) fn is_called(&self) -> bool {
        self.called.swap(false, Ordering::SeqCst)
    }

    fn with_work(&self, change: impl FnOnce(&mut Work)) {
        change(&mut self.work.lock());
        self.tender.unpark();
    }

    /// Neither commits nor reads are taken from now on, until the trees are made again.
    fn depose(&self) {
        let mut work = self.work.lock();
        work.serve = None;
        work.hold = false;
        work.reopen = true;
        if let Some(core) = self.core()
            && let Some(standing) = &core.standing
        {
            standing.depose();
            // Who waits for a decision is told that this member leads no more.
            core.prepared.clear();
        }
        drop(work);
        self.tender.unpark();
    }

    /// The member is over: it is opened again by a start of its node.
    pub(super) fn fail(&self, error: Error) {
        self.failed.lock().get_or_insert(error);
        self.depose();
        // Who waits for a commit here waits for nothing.
        let _ = self.log.seal();
    }

    /// Makes the trees again, after `depose` (I15).
    ///
    /// # Errors
    /// Those of an open.
    pub(super) fn reopen(&self) -> Result<Arc<Core>> {
        let old = self.trees.lock().take();
        if let Some((core, fence)) = old {
            crate::checkpoint::abandon(&core);
            fence.close();
            let waiter = self.home.env.park.waiter();
            while !fence.is_quiet() {
                // Collects what eviction has under way.
                let _ = core.store.background_step();
                waiter.park_timeout(Duration::from_millis(1));
            }
        }
        let fence = Fence::around(Arc::clone(&self.home.env.disk));
        let opening = self.home.opening(&fence, &self.shipper);
        let core = opening.again(&self.log)?;
        *self.trees.lock() = Some((Arc::clone(&core), fence));
        Ok(core)
    }

    /// Ends it: nothing is taken any more.
    pub(super) fn close(&self) -> Result<(), WalError> {
        drop(self.member.lock().take());
        self.depose();
        // Who waits for a commit here is told that it is not known, and goes to the next leader.
        self.log.seal()?;
        let trees = self.trees.lock().take();
        if let Some((core, _)) = &trees {
            crate::checkpoint::abandon(core);
        }
        drop(trees);
        self.log.close()
    }
}
