//! A member in the hand of its node's thread: what has come is taken, what is due is done, and what
//! goes into the log is synced once for all of it.

use std::collections::VecDeque;
use std::sync::Arc;

use terrane_shard::log::Term;
use terrane_shard::message::Message;
use terrane_shard::policy::MemberId;
use terrane_shard::replica::{Effect, Event, Time};
use terrane_shard::switchover::SwitchError;
use terrane_wal::lsn::Lsn;
use terrane_wal::sync::Ordering;

use super::coordinator::{Coordinator, Sends, Sent};
use super::host::Host;
use super::network::Body;
use crate::error::Result;
use crate::replica::{Member, config_file};

/// How often a leader is heard when it has nothing to say, in milliseconds.
pub(super) const BEAT_MS: u64 = 250;
/// Bytes of log that every member keeps.
const KEEP_BYTES: u64 = 256 << 20;
/// Bytes of log that a leader keeps for a member that lags.
const KEEP_BYTES_MAX: u64 = 1 << 30;

/// A member at its node.
#[derive(Debug)]
pub(super) struct Seat {
    host: Arc<Host>,
    coordinator: Coordinator,
    inbox: VecDeque<(MemberId, Body)>,
    beat_at: Time,
    /// There is nothing to do before, unless something comes.
    due: Time,
    /// The configuration beside the log ends there.
    config_end: Lsn,
    told_unable: bool,
}

impl Seat {
    pub(super) fn of(host: &Arc<Host>) -> Option<Seat> {
        let home = &host.home;
        let now = home.now();
        let (config, config_end) = host.peek(|member| {
            let replica = member.replica();
            (Arc::clone(replica.config()), replica.committed_config().0)
        })?;
        Some(Seat {
            host: Arc::clone(host),
            coordinator: Coordinator::new(
                home.id,
                home.shard.clone(),
                Arc::clone(&home.topology),
                config,
                home.patience,
                now,
            ),
            inbox: VecDeque::new(),
            beat_at: now,
            due: now,
            config_end,
            told_unable: false,
        })
    }

    /// Takes what has come for it; done at the next turn.
    pub(super) fn hear(&mut self, from: MemberId, body: Body) {
        self.inbox.push_back((from, body));
    }

    /// Asks the leader to hand over to a member.
    ///
    /// # Errors
    /// [`SwitchError`] if it is not tried.
    pub(super) fn switch(&mut self, to: MemberId) -> Result<(), SwitchError> {
        let mut sends = Sends::new();
        let now = self.host.home.now();
        let tried = self.coordinator.switch(to, now, &mut sends);
        self.send(sends);
        tried
    }

    /// What became of a switchover.
    pub(super) fn take_switched(&mut self) -> Option<Result<(), SwitchError>> {
        self.coordinator.take_switched()
    }

    /// Does what is to be done now, if there is something; says when there will be again.
    pub(super) fn turn(&mut self) -> Time {
        let now = self.host.home.now();
        let called = self.host.is_called();
        if called || !self.inbox.is_empty() || now >= self.due {
            self.due = self.due_after(now);
        }
        self.due
    }

    fn due_after(&mut self, now: Time) -> Time {
        let Some(mut member) = self.host.take() else {
            // A committer has it and will say when it has not; a failed one never comes back.
            return now.after(BEAT_MS);
        };
        if let Err(error) = self.work(&mut member) {
            self.host.fail(error);
            return now.after(BEAT_MS);
        }
        let mut sends = Sends::new();
        let again = self.coordinator.tick(member.replica(), now, &mut sends);
        self.host.put_back(member);
        self.send(sends);
        again.min(self.beat_at)
    }

    fn work(&mut self, member: &mut Member) -> Result<()> {
        let mut out = Vec::new();
        self.news(member, &mut out)?;
        loop {
            while let Some(message) = self.host.hear_self() {
                let me = self.host.home.id;
                self.inbox.push_back((me, Body::Message(message)));
            }
            let Some((from, body)) = self.inbox.pop_front() else {
                break;
            };
            self.deliver(member, from, body, &mut out)?;
            self.host.carry_out(&mut out);
        }
        let now = self.host.home.now();
        if now >= self.beat_at {
            self.beat_at = now.after(BEAT_MS);
            member.tick(now, &mut out)?;
            self.keep(member)?;
            if let Some((term, _)) = member.replica().leads() {
                self.coordinator.heard(term, self.host.home.id, now);
                self.look_for_higher(member, term, now);
            }
        }
        member.logged(now, &mut out)?;
        // What is for others goes out before this disk is waited for.
        self.host.carry_out(&mut out);
        member.sync(self.host.home.now(), &mut out)?;
        self.host.carry_out(&mut out);
        Ok(())
    }

    /// A leader that nobody answers asks the topology whether there is a higher term: those who
    /// wait for its commits then wait for nothing.
    fn look_for_higher(&self, member: &Member, term: Term, now: Time) {
        let has_lease = member.replica().has_lease(now);
        if has_lease || terrane_wal::planted!("reads_without_a_lease") {
            return;
        }
        let home = &self.host.home;
        if let Ok((_, record)) = home.topology.read(&home.shard)
            && record.term > term
        {
            let term = record.term;
            self.host.say_to_self(Message::Stale { term });
        }
    }

    /// What the trees' thread has done.
    fn news(&mut self, member: &mut Member, out: &mut Vec<Effect>) -> Result<()> {
        let now = self.host.home.now();
        let lsn = Lsn(self.host.applied.load(Ordering::Acquire));
        let leads = member.replica().leads().is_some();
        let deposed = self.host.work.lock().reopen;
        if !leads && !deposed && lsn != member.replica().applied() {
            member.handle(now, Event::Applied { lsn }, out)?;
        }
        if self.host.drained.swap(false, Ordering::AcqRel) && leads {
            member.logged(now, out)?;
            member.handle(now, Event::Drained, out)?;
        }
        let unable = self.host.unable.load(Ordering::Acquire);
        if unable && !self.told_unable {
            self.told_unable = true;
            member.handle(now, Event::ApplyFailed, out)?;
        }
        Ok(())
    }

    fn deliver(
        &mut self,
        member: &mut Member,
        from: MemberId,
        body: Body,
        out: &mut Vec<Effect>,
    ) -> Result<()> {
        let now = self.host.home.now();
        let mut sends = Sends::new();
        match body {
            Body::Word(word) => self.coordinator.word(from, word, now, &mut sends),
            Body::Message(message) => {
                match &message {
                    Message::Fenced { .. }
                    | Message::Established { .. }
                    | Message::Ready(_)
                    | Message::Refused { .. } => {
                        self.coordinator.receive(from, message, now, &mut sends);
                        self.send(sends);
                        return Ok(());
                    }
                    Message::Stale { .. } => {
                        let message = message.clone();
                        self.coordinator.receive(from, message, now, &mut sends);
                    }
                    _ => {}
                }
                let append = matches!(message, Message::Append(_));
                let term = message.term();
                member.receive(now, from, message, out)?;
                if append && member.replica().follows() == Some(from) {
                    self.coordinator.heard(term, from, now);
                }
            }
        }
        self.send(sends);
        Ok(())
    }

    fn send(&self, sends: Sends) {
        for (to, sent) in sends {
            match sent {
                Sent::Message(message) if to == self.host.home.id => self.host.say_to_self(message),
                Sent::Message(message) => self.host.send(to, Body::Message(message)),
                Sent::Word(word) => self.host.send(to, Body::Word(word)),
            }
        }
    }

    /// How much of the log is kept, and the configuration before it.
    fn keep(&mut self, member: &Member) -> Result<()> {
        let home = &self.host.home;
        let replica = member.replica();
        let (end, config) = replica.committed_config();
        if end > self.config_end {
            let path = home.dir.join("CONFIG");
            config_file::save(&*home.env.disk, &path, home.uuid, (end, config))?;
            self.config_end = end;
        }
        let commit = replica.commit().0;
        let usual = commit.saturating_sub(KEEP_BYTES);
        let needed = replica
            .held_by_all()
            .map_or(usual, |held| held.0.min(usual));
        let keep = needed.max(commit.saturating_sub(KEEP_BYTES_MAX));
        if let Some(core) = self.host.core()
            && let Some(standing) = &core.standing
        {
            standing.keep_from(Lsn(keep));
        }
        Ok(())
    }
}
