//! A member at work: what the protocol asks for is done to the log and the vote at once, the rest
//! is handed to the host.
//!
//! What goes into the log is synced when the host says so ([`Member::sync`]): the messages that
//! have come meanwhile share a flush.
//!
//! A failure of the disk, or a fault of the protocol, ends the member: what it had not answered was
//! not promised. It is opened again as after a crash.
//!
//! Invariants: I2 a promise is on disk before it is answered, for `VoteFile::save` returns then; a
//! synced entry is one that the log says is durable.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use terrane_shard::log::{Config, Incarnation};
use terrane_shard::message::Message;
use terrane_shard::policy::MemberId;
use terrane_shard::replica::{Effect, Event, Replica, Saved, Time};
use terrane_shard::topology::Run;
use terrane_wal::env::Env;
use terrane_wal::lsn::Lsn;
use terrane_wal::vote::VoteFile;

use super::log::{MemberLog, verified};
use crate::error::{Error, ErrorKind, Result};

/// A member that runs.
#[derive(Debug)]
pub(crate) struct Member {
    replica: Replica,
    log: MemberLog,
    vote: VoteFile,
    /// The log is on disk up to here, as far as the protocol was told.
    synced: Lsn,
    /// It has written an entry of the protocol's, which nobody else makes durable.
    wrote: bool,
}

/// A start that stands on the disk, and is to be entered in the topology before the member takes
/// part (I13).
#[derive(Debug)]
pub(crate) struct Start {
    vote: VoteFile,
}

impl Start {
    /// Counts a start on the disk that has this file.
    pub(crate) fn count(env: &Env, vote: &Path, uuid: [u8; 16]) -> Result<Self> {
        let mut file = VoteFile::open(&*env.disk, vote, uuid)?;
        let mut vote = file.vote();
        vote.boot += 1;
        file.save(vote)?;
        Ok(Self { vote: file })
    }

    /// Whose data it is, and how often it was started.
    pub(crate) fn run(&self) -> Run {
        let vote = self.vote.vote();
        Run {
            incarnation: Incarnation(vote.incarnation),
            boot: vote.boot,
        }
    }

    /// The disk is an old one that was put back: what is on it is other data from now on.
    ///
    /// # Errors
    /// Of the disk.
    pub(crate) fn forget(&mut self, incarnation: Incarnation) -> Result<()> {
        let mut vote = self.vote.vote();
        vote.incarnation = incarnation.0;
        Ok(self.vote.save(vote)?)
    }

    /// Takes part, with a log that was opened as a member's; `first` is the configuration before
    /// it, with the end of its entry.
    pub(crate) fn join(
        self,
        id: MemberId,
        wal: Arc<terrane_wal::Log>,
        first: (Lsn, Arc<Config>),
        now: Time,
    ) -> Result<Member> {
        let log = MemberLog::new(wal);
        let commit = log.wal().commit_lsn();
        let vote = self.vote.vote();
        let saved = Saved {
            promised: vote.promised,
            incarnation: Incarnation(vote.incarnation),
            boot: vote.boot,
            commit,
        };
        let configs = log.configs(first, commit)?;
        Ok(Member {
            replica: Replica::open(id, saved, configs, &log, now),
            synced: log.end(),
            log,
            vote: self.vote,
            wrote: false,
        })
    }
}

impl Member {
    /// The protocol's state.
    pub(crate) fn replica(&self) -> &Replica {
        &self.replica
    }

    /// The member's log.
    #[cfg(test)]
    pub(crate) fn wal(&self) -> &Arc<terrane_wal::Log> {
        self.log.wal()
    }

    /// Takes a message of another member.
    ///
    /// # Errors
    /// Of the disk, or `Corrupt` for what cannot be if all keep the rules: the member is over. An
    /// entry that is not what its head says is a message that is left aside.
    pub(crate) fn receive(
        &mut self,
        now: Time,
        from: MemberId,
        mut message: Message,
        out: &mut Vec<Effect>,
    ) -> Result<()> {
        let entries = match &mut message {
            Message::Append(append) => &mut append.entries[..],
            Message::Suffix { entries, .. } => &mut entries[..],
            _ => &mut [],
        };
        if entries.iter_mut().any(|entry| verified(entry).is_err()) {
            let reason = "an entry is not what its head says";
            out.push(Effect::Refuse { from, reason });
            return Ok(());
        }
        self.handle(now, Event::Receive { from, message }, out)
    }

    /// Takes note of what commits of this member have put into the log, and of the time.
    ///
    /// # Errors
    /// As [`Member::receive`].
    pub(crate) fn tick(&mut self, now: Time, out: &mut Vec<Effect>) -> Result<()> {
        self.logged(now, out)?;
        self.handle(now, Event::Tick, out)
    }

    /// Takes note of what commits of this member have put into the log, which goes to the others,
    /// and of how far the log is on disk. Waits for nothing.
    ///
    /// # Errors
    /// As [`Member::receive`].
    pub(crate) fn logged(&mut self, now: Time, out: &mut Vec<Effect>) -> Result<()> {
        if self.replica.leads().is_some() {
            for (head, kind) in self.log.own()? {
                self.handle(now, Event::Appended { head, kind }, out)?;
            }
        }
        let lsn = self.log.durable();
        if lsn > self.synced {
            self.synced = lsn;
            self.handle(now, Event::Synced { lsn }, out)?;
        }
        Ok(())
    }

    /// Makes durable what a leader sent since the last time, which is acknowledged together, and
    /// what the protocol itself has logged. Commits of this member do that for themselves.
    ///
    /// # Errors
    /// As [`Member::receive`].
    pub(crate) fn sync(&mut self, now: Time, out: &mut Vec<Effect>) -> Result<()> {
        let own = std::mem::take(&mut self.wrote);
        if self.synced < self.log.end() && (own || self.replica.leads().is_none()) {
            self.log.sync()?;
        }
        self.logged(now, out)
    }

    /// Takes an event and all that follows from it here. What is left to the host is put behind
    /// `out`.
    pub(crate) fn handle(&mut self, now: Time, event: Event, out: &mut Vec<Effect>) -> Result<()> {
        let mut events = VecDeque::from([event]);
        let mut effects = Vec::new();
        while let Some(event) = events.pop_front() {
            self.replica.step(&self.log, now, event, &mut effects);
            self.log.failed()?;
            for effect in effects.drain(..) {
                self.carry_out(effect, &mut events, out)?;
            }
        }
        Ok(())
    }

    fn carry_out(
        &mut self,
        effect: Effect,
        events: &mut VecDeque<Event>,
        out: &mut Vec<Effect>,
    ) -> Result<()> {
        match effect {
            Effect::SavePromise(term) => {
                let mut vote = self.vote.vote();
                vote.promised = term;
                if !terrane_wal::planted!("a_promise_stays_in_memory") {
                    self.vote.save(vote)?;
                }
                events.push_back(Event::PromiseSaved { term });
            }
            Effect::Truncate(to) => {
                self.log.truncate(to)?;
                self.synced = self.synced.min(to);
            }
            Effect::Append(entries) => self.log.append(entries)?,
            Effect::WriteBarrier { term, barrier } => {
                self.log.begin(term, &barrier)?;
                self.wrote(events)?;
            }
            Effect::WriteConfig(config) => {
                self.log.write_config(&config)?;
                self.wrote(events)?;
            }
            Effect::Demote => {
                self.log.wal().seal()?;
                out.push(effect);
            }
            Effect::Quarantine(fault) => {
                let error =
                    Error::new(ErrorKind::Corrupt, "this member holds what cannot be right");
                return Err(error.with("fault", fault));
            }
            _ => out.push(effect),
        }
        Ok(())
    }

    /// What this member has just logged is told to the protocol before anything else.
    fn wrote(&mut self, events: &mut VecDeque<Event>) -> Result<()> {
        self.wrote = true;
        for (head, kind) in self.log.own()?.into_iter().rev() {
            events.push_front(Event::Appended { head, kind });
        }
        Ok(())
    }
}
