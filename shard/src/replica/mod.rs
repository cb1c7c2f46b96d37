//! A member of a shard: promises, the log it takes, the log it leads. A state machine: events in,
//! effects out, no clock, no disk, no wire.
//!
//! ```text
//!            Fence: promise, then answer          Establish, promised in this run
//!   Idle <------------------------------ any ---> Leading: barrier -> committed -> serving
//!    | ^                                           |
//!    | +------ a higher term anywhere -------------+   (the tail stays, the host reopens)
//!    v
//!   Following: Append -> log -> synced -> Ack
//!
//! Leading, asked to hand over: admission closed -> the target has all -> Ready -> fenced as above
//! ```
//!
//! The rules are those of `policy.rs` for who must hold what, and of Raft for the order: promises
//! that only rise, a greater log wins, a leader commits by an entry of its own term (Ongaro 2014,
//! 3.6). Two are stricter, because an acknowledgement may come from any one of the others: a
//! process never leads in a term that it did not establish in this run (I10), and a member that
//! lost its data is nobody until a committed configuration names what it has now (I9).
//!
//! Invariants (numbers as in `ARCHITECTURE.md`):
//! * I2. Nothing is acknowledged in a term below the promised one, and a promise is on disk before
//!   it is answered.
//! * I3. Entries are taken only behind the entry that they follow at their leader.
//! * I4. A leader commits what is on its own disk and on those of as many trusted ackers as the
//!   policy wants, once an entry of its own term is among it.
//! * I8. Entries at or below the commit position are never cut off: a member that would have to is
//!   put aside.
//! * I9. A member counts only with the incarnation that every active configuration names.
//! * I10. A term is led only by the run of the process that promised it to the term's coordinator.
//! * I11. An entry is a repeat only if its bounds and checksum are equal too; within one term
//!   another entry at its place means that two histories exist, and the member is put aside.

mod follower;
mod handover;
mod leader;
mod lease;

use std::fmt;
use std::sync::Arc;

use terrane_wal::lsn::Lsn;

use crate::codec::Barrier;
use crate::log::{Config, Configs, Entry, Head, Incarnation, Kind, Log, Point, Term, malformed};
use crate::message::{Message, Report};
use crate::policy::MemberId;
use crate::topology::Run;

pub use leader::ChangeError;
use leader::Leading;
use lease::Granted;
pub use lease::{DRIFT_PERCENT, Grant, LEASE_MS, Time, wait_ms};

/// Bytes of entries in one message, about.
pub const APPEND_BYTES: usize = 1 << 20;

/// Bytes of entries on their way to one member, about: more is sent when it acknowledges some.
pub const IN_FLIGHT_BYTES: u64 = 64 << 20;

/// What a member keeps on disk besides its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Saved {
    /// The highest term that it promised.
    pub promised: Term,
    /// Made when the disk was formatted.
    pub incarnation: Incarnation,
    /// Starts on this disk, this one included.
    pub boot: u64,
    /// Committed at least up to here; no more than what of the log was synced before.
    pub commit: Lsn,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A message came.
    Receive {
        /// From whom.
        from: MemberId,
        /// What it says.
        message: Message,
    },
    /// A promise is on disk.
    PromiseSaved {
        /// Which.
        term: Term,
    },
    /// The log is on disk up to the end of this entry. Not said of bytes that were cut off since.
    Synced {
        /// The entry's end.
        lsn: Lsn,
    },
    /// The leading host has put an entry of its term behind its log, in memory; said at once,
    /// before any other event.
    Appended {
        /// Where it lies.
        head: Head,
        /// What it means.
        kind: Kind,
    },
    /// All that was admitted before [`Effect::CloseAdmission`] is in the log. Not said once
    /// admission was opened again, or the member was demoted.
    Drained,
    /// All up to here is applied; less than before if the trees were made again.
    Applied {
        /// The end of the last such entry.
        lsn: Lsn,
    },
    /// What is committed cannot be applied: until it is started again this member acknowledges but
    /// does not lead.
    ApplyFailed,
    /// Time for a heartbeat.
    Tick,
}

/// What the host is to do, in this order. Of its log it does it at once, in memory: the next event
/// finds it done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Puts the promise on disk; answered by [`Event::PromiseSaved`].
    SavePromise(Term),
    /// Cuts the log off behind the end of an entry.
    Truncate(Lsn),
    /// Puts entries behind the log and syncs them; answered by [`Event::Synced`].
    Append(Vec<Entry>),
    /// Sends a message; it may be lost.
    Send {
        /// To whom.
        to: MemberId,
        /// What.
        message: Message,
    },
    /// All up to here is committed: it may be applied, shown and acknowledged to callers.
    Commit(Lsn),
    /// Appends the barrier of a term; answered by [`Event::Appended`].
    WriteBarrier {
        /// The term.
        term: Term,
        /// By what right it begins.
        barrier: Barrier,
    },
    /// Appends a configuration; answered by [`Event::Appended`].
    WriteConfig(Arc<Config>),
    /// The barrier is committed: the member serves, and admits writes.
    Serve(Term),
    /// Admits no more writes: new calls wait. Once those that were admitted are in the log, says
    /// [`Event::Drained`].
    CloseAdmission,
    /// Admits writes again, first those that wait.
    OpenAdmission,
    /// The member leads no more: waiting commits end with an unknown outcome, calls that were not
    /// admitted go to the next leader, and its trees are made again from its newest image and the
    /// log up to the commit position.
    Demote,
    /// A message was left aside, for no member that works sends such a one: to be logged.
    Refuse {
        /// Who sent it.
        from: MemberId,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The member stops, for what it holds cannot be right.
    Quarantine(Fault),
}

/// What cannot be if every member keeps the rules and its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// Two entries of one term at one place (I11).
    Diverged {
        /// The entry that this member has, or where it has none that ends there.
        found: Point,
        /// The leader's.
        expected: Head,
    },
    /// A leader's log lacks what this member knows to be committed (I8).
    CommittedLost {
        /// What it knows.
        commit: Lsn,
        /// Where it would have to cut.
        cut: Lsn,
    },
    /// Another member leads the term that this one leads (I1).
    TwoLeaders {
        /// The term.
        term: Term,
        /// The other.
        other: MemberId,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Diverged { found, expected } => write!(
                f,
                "log: expected the entry from {} to {} of {} with crc {:08x}, found another at \
                 {found}",
                expected.start, expected.end, expected.term, expected.crc
            ),
            Self::CommittedLost { commit, cut } => write!(
                f,
                "log: expected the leader to have all up to {commit}, which is committed, found it \
                 to differ from {cut} on"
            ),
            Self::TwoLeaders { term, other } => {
                write!(
                    f,
                    "{term}: expected no leader but this member, found {other}"
                )
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Role {
    Idle,
    Following(Following),
    Leading(Leading),
}

/// What a follower knows of its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Following {
    term: Term,
    leader: MemberId,
    /// Up to here the log is the leader's.
    matched: Lsn,
    /// When the newest of its appends was sent, by its clock.
    heard: Option<Time>,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Replica {
    me: MemberId,
    incarnation: Incarnation,
    boot: u64,
    /// Acknowledgements given since the start.
    answers: u64,
    /// The highest term promised, and the highest whose promise is on disk.
    promised: Term,
    saved: Term,
    /// Whom to tell of the promise once it is on disk.
    fenced_by: Option<MemberId>,
    /// What is to be copied before this member can lead: from whom, up to where.
    copying: Option<(MemberId, Point)>,
    /// The last term that it led in this run and leads no more: nobody has a lease of it.
    led: Option<Term>,
    commit: Lsn,
    durable: Lsn,
    applied: Lsn,
    /// Whether what is committed can be applied.
    able: bool,
    configs: Configs,
    granted: Granted,
    role: Role,
    fault: Option<Fault>,
}

impl Replica {
    /// A member that has just started: it follows nobody and leads nothing. All of `log` is on its
    /// disk; `configs` are those in it.
    #[must_use]
    pub fn open(me: MemberId, saved: Saved, configs: Configs, log: &impl Log, now: Time) -> Self {
        // The promise of a leader's term may have been lost on its way to the disk when that
        // leader's entries were not: they are as good.
        let mut promised = saved.promised.max(log.epochs().last().term);
        if planted!("entries_promise_nothing") {
            promised = saved.promised;
        }
        Self {
            me,
            incarnation: saved.incarnation,
            boot: saved.boot,
            answers: 0,
            promised,
            saved: promised,
            fenced_by: None,
            copying: None,
            led: None,
            commit: saved.commit.min(log.epochs().last().lsn),
            durable: log.epochs().last().lsn,
            applied: Lsn::ZERO,
            able: true,
            configs,
            granted: Granted::at_start(now),
            role: Role::Idle,
            fault: None,
        }
    }

    /// The highest term that it promised.
    #[must_use]
    pub fn promised(&self) -> Term {
        self.promised
    }

    /// All up to here is committed, as far as it knows.
    #[must_use]
    pub fn commit(&self) -> Lsn {
        self.commit
    }

    /// The term that it leads, and whether the barrier is committed.
    #[must_use]
    pub fn leads(&self) -> Option<(Term, bool)> {
        match &self.role {
            Role::Leading(leading) => Some((leading.term, leading.serving.is_some())),
            _ => None,
        }
    }

    /// The leader that it follows.
    #[must_use]
    pub fn follows(&self) -> Option<MemberId> {
        match &self.role {
            Role::Following(following) => Some(following.leader),
            _ => None,
        }
    }

    /// Why it was put aside.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// The newest configuration in its log.
    #[must_use]
    pub fn config(&self) -> &Arc<Config> {
        self.configs.newest()
    }

    /// The last committed configuration, with the end of its entry.
    #[must_use]
    pub fn committed_config(&self) -> (Lsn, &Arc<Config>) {
        self.configs.committed()
    }

    /// How far the trees are, as far as the host said.
    #[must_use]
    pub fn applied(&self) -> Lsn {
        self.applied
    }

    /// Takes an event; what is to be done is put behind `out`. O(members + entries of the event).
    pub fn step(&mut self, log: &impl Log, now: Time, event: Event, out: &mut Vec<Effect>) {
        if self.fault.is_some() {
            return;
        }
        match event {
            Event::Receive { from, message } => self.receive(log, now, from, message, out),
            Event::PromiseSaved { term } => self.promise_saved(log, now, term, out),
            Event::Synced { lsn } => {
                self.durable = self.durable.max(lsn.min(log.epochs().last().lsn));
                self.acknowledge(now, out);
                self.advance(now, out);
                self.copy(log, now, out);
            }
            Event::Appended { head, kind } => self.appended(log, now, head, kind, out),
            Event::Drained => self.drained(),
            Event::Applied { lsn } => self.has_applied(now, lsn, out),
            Event::ApplyFailed => self.able = planted!("an_apply_error_is_not_told"),
            Event::Tick => {
                self.advance(now, out);
                self.beat(log, now, out);
            }
        }
        self.hand_on(log, now, out);
    }

    fn receive(
        &mut self,
        log: &impl Log,
        now: Time,
        from: MemberId,
        message: Message,
        out: &mut Vec<Effect>,
    ) {
        match message {
            Message::Append(append) => {
                if self.is_well_formed(from, append.term, append.prev, &append.entries, out)
                    && self.takes(append.term, from, out)
                {
                    self.append(log, now, append, out);
                }
            }
            Message::Fence { term } => self.fence(log, now, from, term, out),
            Message::Establish(establish) => self.establish(log, now, from, &establish, out),
            Message::Copy {
                term,
                from: holder,
                chosen,
                run,
            } if self.stands_by(term) => {
                // Another run, or a log that has more, is past that: there may be a leader.
                let wanted = run == self.run() && log.epochs().last() < chosen;
                if wanted || planted!("copy_in_another_run") {
                    (self.fenced_by, self.copying) = (Some(from), Some((holder, chosen)));
                    self.copy(log, now, out);
                }
            }
            Message::Fetch { term, epochs } if self.stands_by(term) => {
                let prev = log.epochs().common(&epochs);
                let entries = log.read(prev.lsn, APPEND_BYTES);
                let suffix = Message::Suffix {
                    term,
                    prev,
                    entries,
                };
                out.push(send(from, suffix));
            }
            Message::Suffix {
                term,
                prev,
                entries,
            } if self.stands_by(term) && self.copies_from(from) => {
                // Once it is synced the rest is asked for.
                if self.is_well_formed(from, term, prev, &entries, out) {
                    self.take(log, prev, entries, out);
                }
            }
            Message::Ack(ack) if self.is_leading(ack.term) => {
                self.acked(from, &ack);
                self.advance(now, out);
                self.readmit(out);
                self.send_rest(log, now, from, out);
            }
            Message::Mismatch(mismatch) if self.is_leading(mismatch.term) => {
                self.go_back(log, now, from, &mismatch, out);
            }
            Message::Stale { term } => self.step_down(term, out),
            Message::HandOver { attempt, closed_ms } => {
                self.hand_over(log, now, from, attempt, closed_ms, out);
            }
            Message::Resume(attempt) => self.resume(from, attempt, out),
            // Those of another term, and what coordinators are told.
            Message::Ack(_)
            | Message::Mismatch(_)
            | Message::Copy { .. }
            | Message::Fetch { .. }
            | Message::Suffix { .. }
            | Message::Fenced { .. }
            | Message::Established { .. }
            | Message::Ready(_)
            | Message::Refused { .. } => {}
        }
    }

    /// Promises a term, tells the coordinator once that is on disk, and leads and follows nobody.
    fn fence(
        &mut self,
        log: &impl Log,
        now: Time,
        from: MemberId,
        term: Term,
        out: &mut Vec<Effect>,
    ) {
        if term < self.promised {
            out.push(self.stale(from));
            return;
        }
        if term > self.promised {
            self.step_down(term, out);
            self.role = Role::Idle;
            self.promise(term, out);
        }
        // A leader of this term is past that.
        if !self.is_leading(term) {
            self.fenced_by = Some(from);
            self.report(log, now, out);
        }
    }

    fn promise(&mut self, term: Term, out: &mut Vec<Effect>) {
        self.promised = term;
        (self.fenced_by, self.copying) = (None, None);
        out.push(Effect::SavePromise(term));
    }

    fn promise_saved(&mut self, log: &impl Log, now: Time, term: Term, out: &mut Vec<Effect>) {
        self.saved = self.saved.max(term);
        self.report(log, now, out);
        self.acknowledge(now, out);
    }

    /// Whether the promise is on disk (I2).
    fn promise_holds(&self) -> bool {
        self.saved == self.promised || planted!("answer_before_the_promise_is_saved")
    }

    /// Tells the coordinator what was promised, once it is on disk.
    fn report(&mut self, log: &impl Log, now: Time, out: &mut Vec<Effect>) {
        if !self.promise_holds() {
            return;
        }
        if let Some(coordinator) = self.fenced_by.take() {
            let report = Report {
                last: log.epochs().last(),
                commit: self.commit,
                applied: self.applied,
                run: self.run(),
                able: self.able,
                grant: self.granted.report(now),
                led: self.led,
                configs: self.configs.to_vec(),
            };
            let term = self.promised;
            out.push(send(coordinator, Message::Fenced { term, report }));
        }
    }

    /// Whether it waits for the leader of a term that it promised.
    fn stands_by(&self, term: Term) -> bool {
        self.promised == term && self.promise_holds() && self.role == Role::Idle
    }

    fn copies_from(&self, from: MemberId) -> bool {
        self.copying.is_some_and(|(holder, _)| holder == from)
    }

    /// Whether entries of a peer could stand in a log.
    fn is_well_formed(
        &self,
        from: MemberId,
        term: Term,
        prev: Point,
        entries: &[Entry],
        out: &mut Vec<Effect>,
    ) -> bool {
        let reason = malformed(prev, entries, term);
        out.extend(reason.map(|reason| Effect::Refuse { from, reason }));
        reason.is_none()
    }

    /// All up to here is committed, and in the log.
    fn commit_to(&mut self, commit: Lsn, out: &mut Vec<Effect>) {
        if commit > self.commit {
            self.commit = commit;
            self.configs.commit(commit);
            out.push(Effect::Commit(commit));
        }
    }

    fn run(&self) -> Run {
        Run {
            incarnation: self.incarnation,
            boot: self.boot,
        }
    }

    /// Tells who speaks of a lower term what was promised.
    fn stale(&self, to: MemberId) -> Effect {
        let term = self.promised;
        send(to, Message::Stale { term })
    }

    /// Leads no more if a higher term exists.
    fn step_down(&mut self, term: Term, out: &mut Vec<Effect>) {
        if let Role::Leading(leading) = &self.role
            && leading.term < term
        {
            self.led = Some(leading.term);
            self.role = Role::Idle;
            // Its trees are made again: the host says how far they are.
            self.applied = Lsn::ZERO;
            out.push(Effect::Demote);
        }
    }

    fn quarantine(&mut self, fault: Fault, out: &mut Vec<Effect>) {
        self.role = Role::Idle;
        self.fault = Some(fault);
        out.push(Effect::Quarantine(fault));
    }
}

fn send(to: MemberId, message: Message) -> Effect {
    Effect::Send { to, message }
}
