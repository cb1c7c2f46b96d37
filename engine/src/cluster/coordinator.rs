//! Who sees to it that a shard has a leader: each member, for its own shard.
//!
//! ```text
//! suspicion (or a leader that was started again, or none yet) -> lock -> term, by a swap of the
//!   record -> Failover -> leader published -> unlocked
//! an operator's wish -> Switchover -> term behind the leader's -> the same Failover
//! ```
//!
//! The lock keeps two from doing at once what one can do; safety rests on the swap (I1). If the
//! topology does not answer, everything goes on but this, and is tried again.

use std::sync::Arc;

use terrane_shard::ShardId;
use terrane_shard::failover::{Failover, Step};
use terrane_shard::log::{Config, Term};
use terrane_shard::message::Message;
use terrane_shard::policy::MemberId;
use terrane_shard::replica::{Replica, Time};
use terrane_shard::suspicion::{Patience, Suspicion, Word};
use terrane_shard::switchover::{SWITCH_MS, SwitchError, SwitchStep, Switchover};
use terrane_shard::topology::{Fencing, ShardRecord, Topology, TopologyError, Version, update};

/// How often what was not answered is said again, in milliseconds.
const AGAIN_MS: u64 = 50;
/// Pause after an attempt that came to nothing, in milliseconds; members differ by their number.
const RETRY_MS: u64 = 200;
/// How often the record is looked at, in milliseconds.
const LOOK_MS: u64 = 250;
/// How long a lock lasts if its holder dies, in milliseconds: a failover ends before.
const LOCK_MS: u64 = 5_000;

/// What is to be sent: to whom, and what.
pub(super) type Sends = Vec<(MemberId, Sent)>;

/// What a coordinator sends.
#[derive(Debug)]
pub(super) enum Sent {
    Message(Message),
    Word(Word),
}

/// The coordinator of a shard on one of its members.
#[derive(Debug)]
pub(super) struct Coordinator {
    me: MemberId,
    shard: ShardId,
    topology: Arc<dyn Topology>,
    suspicion: Suspicion,
    failover: Option<Failover>,
    switchover: Option<Switchover>,
    lock: Option<Fencing>,
    /// The record, as it was last seen.
    record: (Version, ShardRecord),
    /// The highest term that somebody was found to have promised.
    above: Term,
    /// The highest term that this member has promised, as far as suspicion knows.
    promised: Term,
    look_at: Time,
    tick_at: Time,
    /// Nothing is begun before.
    begin_at: Time,
    /// What became of the last switchover, until somebody asks.
    switched: Option<Result<(), SwitchError>>,
}

impl Coordinator {
    pub(super) fn new(
        me: MemberId,
        shard: ShardId,
        topology: Arc<dyn Topology>,
        config: Arc<Config>,
        patience: Patience,
        now: Time,
    ) -> Coordinator {
        Coordinator {
            me,
            shard,
            topology,
            suspicion: Suspicion::new(me, config, patience, now),
            failover: None,
            switchover: None,
            lock: None,
            record: (Version::default(), ShardRecord::default()),
            above: Term(0),
            promised: Term(0),
            look_at: now,
            tick_at: now,
            begin_at: now,
            switched: None,
        }
    }

    /// A leader was heard; a leader hears itself.
    pub(super) fn heard(&mut self, term: Term, leader: MemberId, now: Time) {
        self.suspicion.heard(term, leader, now);
    }

    /// Takes what is said to a coordinator.
    pub(super) fn receive(&mut self, from: MemberId, message: Message, now: Time, out: &mut Sends) {
        if let Some(switchover) = &mut self.switchover {
            let mut steps = Vec::new();
            switchover.receive(from, &message, now, &mut steps);
            self.switch_steps(steps, now, out);
        }
        if let Some(failover) = &mut self.failover {
            let mut steps = Vec::new();
            failover.receive(from, message, &mut steps);
            self.steps(steps, now, out);
        }
    }

    /// Takes another member's word about the leader.
    pub(super) fn word(&mut self, from: MemberId, word: Word, now: Time, out: &mut Sends) {
        let answer = self.suspicion.word(from, word, now);
        out.extend(answer.map(|word| (from, Sent::Word(word))));
    }

    /// Does what is due, and says when it wants to be asked again.
    pub(super) fn tick(&mut self, replica: &Replica, now: Time, out: &mut Sends) -> Time {
        if replica.promised() > self.promised {
            self.promised = replica.promised();
            self.suspicion.fenced(self.promised, now);
        }
        self.suspicion.set_config(Arc::clone(replica.config()));
        if now >= self.look_at {
            self.look_at = now.after(LOOK_MS);
            self.look(now);
        }
        let asks = self.suspicion.asks(now);
        out.extend(asks.into_iter().map(|(to, word)| (to, Sent::Word(word))));
        if now >= self.tick_at && (self.failover.is_some() || self.switchover.is_some()) {
            self.tick_at = now.after(AGAIN_MS);
            self.again(now, out);
        }
        if self.failover.is_none() && now >= self.begin_at && self.is_wanted(replica, now) {
            self.begin(replica, now, out);
        }
        let busy = self.failover.is_some() || self.switchover.is_some();
        if busy { self.tick_at } else { self.look_at }
    }

    fn again(&mut self, now: Time, out: &mut Sends) {
        if let Some(switchover) = &mut self.switchover {
            let mut steps = Vec::new();
            switchover.tick(now, &mut steps);
            self.switch_steps(steps, now, out);
        }
        if let Some(failover) = &mut self.failover {
            let mut steps = Vec::new();
            failover.tick(&mut steps);
            self.steps(steps, now, out);
        }
    }

    /// Reads the record if it has changed. A topology that does not answer is asked again.
    fn look(&mut self, now: Time) {
        let first = self.record.0 == Version::default();
        if let Ok(Some(newer)) = self.topology.watch(&self.shard, self.record.0) {
            self.record = newer;
            if let Some((term, leader)) = self.record.1.leader
                && leader != self.me
            {
                // Of one that was there before this member was started nothing was heard yet, and
                // it did not take over just now.
                let at = if first { Time(0) } else { now };
                self.suspicion.heard(term, leader, at);
            }
        }
    }

    /// Whether this member is to begin a failover.
    fn is_wanted(&self, replica: &Replica, now: Time) -> bool {
        match self.record.1.leader {
            // The first one; before this member has looked it knows of none.
            None => self.record.0 > Version::default(),
            // I10: what this member led before it was started again it leads no more. Nobody else
            // has to wait until it is missed.
            Some((term, leader)) if leader == self.me => {
                let leads = replica.leads().is_some_and(|(led, _)| led >= term);
                !leads && replica.follows().is_none() && replica.promised() <= term
                    || self.suspicion.verdict(now).is_some()
            }
            Some(_) => self.suspicion.verdict(now).is_some(),
        }
    }

    fn begin(&mut self, replica: &Replica, now: Time, out: &mut Sends) {
        self.begin_at = now.after(RETRY_MS * (1 + u64::from(self.me.0 % 8)));
        if !self.take_lock() {
            return;
        }
        // Another may have done it since this member has looked.
        self.look(now);
        if !self.is_wanted(replica, now) {
            self.unlock();
            return;
        }
        let known = (self.record.1.term, self.record.1.leader);
        let above = self.above;
        let won = update(&*self.topology, &self.shard, |record| {
            ((record.term, record.leader) == known).then(|| {
                record.next_term(above);
                record.clone()
            })
        });
        self.won(won, None, now, out);
    }

    /// Begins the failover of a term that was won.
    fn won(
        &mut self,
        won: Result<Option<ShardRecord>, TopologyError>,
        wanted: Option<MemberId>,
        now: Time,
        out: &mut Sends,
    ) {
        self.look(now);
        match won {
            Ok(Some(record)) => {
                let mut steps = Vec::new();
                self.failover = Some(Failover::new(record, wanted, &mut steps));
                self.tick_at = now.after(AGAIN_MS);
                self.steps(steps, now, out);
            }
            Ok(None) | Err(_) => self.unlock(),
        }
    }

    fn steps(&mut self, steps: Vec<Step>, now: Time, out: &mut Sends) {
        for step in steps {
            match step {
                Step::Send { to, message } => out.push((to, Sent::Message(message))),
                Step::Publish { term, leader } => {
                    // If the topology does not answer, the leader leads all the same, and is heard.
                    let _ = update(&*self.topology, &self.shard, |record| {
                        record.publish(term, leader).then_some(())
                    });
                    self.over(now);
                }
                Step::GiveUp { term } => {
                    self.above = self.above.max(term);
                    self.over(now);
                }
            }
        }
    }

    fn over(&mut self, now: Time) {
        self.failover = None;
        self.unlock();
        self.look(now);
    }

    /// Asks the leader to hand over to a member.
    ///
    /// # Errors
    /// [`SwitchError`] if it is not tried.
    pub(super) fn switch(
        &mut self,
        to: MemberId,
        now: Time,
        out: &mut Sends,
    ) -> Result<(), SwitchError> {
        if self.failover.is_some() || self.switchover.is_some() || !self.take_lock() {
            return Err(SwitchError::Pending);
        }
        self.look(now);
        let mut steps = Vec::new();
        match Switchover::new(&self.record.1, to, SWITCH_MS, now, &mut steps) {
            Ok(switchover) => self.switchover = Some(switchover),
            Err(error) => {
                self.unlock();
                return Err(error);
            }
        }
        self.switched = None;
        self.tick_at = now.after(AGAIN_MS);
        self.switch_steps(steps, now, out);
        Ok(())
    }

    /// What became of the switchover: nothing while it is under way.
    pub(super) fn take_switched(&mut self) -> Option<Result<(), SwitchError>> {
        self.switched.take()
    }

    fn switch_steps(&mut self, steps: Vec<SwitchStep>, now: Time, out: &mut Sends) {
        for step in steps {
            match step {
                SwitchStep::Send { to, message } => out.push((to, Sent::Message(message))),
                SwitchStep::TakeOver { behind, wanted } => {
                    let won = update(&*self.topology, &self.shard, |record| {
                        record.next_term_behind(behind)?;
                        Some(record.clone())
                    });
                    let switchover = self.switchover.take();
                    if let (Some(mut switchover), false) = (switchover, matches!(won, Ok(Some(_))))
                    {
                        let mut steps = Vec::new();
                        switchover.give_up(SwitchError::Pending, &mut steps);
                        self.switch_steps(steps, now, out);
                    } else {
                        self.switched = Some(Ok(()));
                        self.won(won, Some(wanted), now, out);
                    }
                }
                SwitchStep::Fail(error) => {
                    self.switchover = None;
                    self.switched = Some(Err(error));
                    self.unlock();
                }
            }
        }
    }

    fn take_lock(&mut self) -> bool {
        let taken = self.topology.lock(&self.shard, self.me, LOCK_MS);
        self.lock = taken.ok().flatten();
        self.lock.is_some()
    }

    fn unlock(&mut self) {
        if let Some(lock) = self.lock.take() {
            // It ends by itself.
            let _ = self.topology.unlock(&self.shard, lock);
        }
    }
}
