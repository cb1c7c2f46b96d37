//! A member that takes a leader's log: what is new goes behind its own, what differs is cut off.

use terrane_wal::lsn::Lsn;

use super::{Effect, Fault, Following, Replica, Role, Time, send};
use crate::log::{Entry, Head, Kind, Log, Point, Term};
use crate::message::{Ack, Append, Message, Mismatch};
use crate::policy::MemberId;

/// What a member's own log says to an entry of its leader's.
enum Place {
    /// It has it.
    Repeat,
    /// Its log ends where the entry begins.
    New,
    /// Entries of another term are in the way.
    Differs,
    /// Another entry of the same term is there (I11).
    Diverged,
}

impl Replica {
    /// Whether an append of this term from this leader counts; the term is promised first (I2).
    pub(super) fn takes(&mut self, term: Term, leader: MemberId, out: &mut Vec<Effect>) -> bool {
        if term < self.promised && !planted!("take_what_a_lower_term_sends") {
            out.push(self.stale(leader));
            return false;
        }
        if self.is_leading(term) {
            let other = leader;
            self.quarantine(Fault::TwoLeaders { term, other }, out);
            return false;
        }
        if term > self.promised {
            self.step_down(term, out);
            self.promise(term, out);
        }
        let known = matches!(self.role, Role::Following(following) if following.term == term);
        self.copying = None;
        if !known {
            let matched = Lsn::ZERO;
            self.role = Role::Following(Following {
                term,
                leader,
                matched,
                heard: None,
            });
        }
        true
    }

    pub(super) fn append(
        &mut self,
        log: &impl Log,
        now: Time,
        append: Append,
        out: &mut Vec<Effect>,
    ) {
        if let Role::Following(following) = &mut self.role {
            following.heard = following.heard.max(Some(append.sent));
        }
        if let Some(matched) = self.take(log, append.prev, append.entries, out) {
            self.matched(now, matched, append.commit, out);
        }
    }

    /// Puts entries that follow `prev` elsewhere behind it here too. Up to where both logs are
    /// equal then; `None` if `prev` is not here, or the member was put aside.
    pub(super) fn take(
        &mut self,
        log: &impl Log,
        prev: Point,
        entries: Vec<Entry>,
        out: &mut Vec<Effect>,
    ) -> Option<Lsn> {
        let epochs = log.epochs();
        let has = epochs.last().lsn >= prev.lsn && epochs.term_at(prev.lsn) == prev.term;
        if !has && !planted!("entries_behind_a_gap") {
            self.mismatch(log, out);
            return None;
        }
        if prev.lsn > untrimmed(log) && log.ending(prev.lsn).is_none() {
            let found = epochs.last();
            let expected = Head {
                term: prev.term,
                start: prev.lsn,
                end: prev.lsn,
                crc: 0,
            };
            self.quarantine(Fault::Diverged { found, expected }, out);
            return None;
        }
        let own = own_beside(log, prev.lsn, &entries);
        let mut matched = prev.lsn;
        let mut rest = entries.into_iter().peekable();
        // What is there already.
        while let Some(entry) = rest.peek() {
            match place(log, &own, &entry.head) {
                Place::Repeat => matched = entry.head.end,
                Place::New => break,
                Place::Differs => {
                    if !self.cut(entry.head.start, out) {
                        return None;
                    }
                    break;
                }
                Place::Diverged => {
                    let found = Point {
                        term: entry.head.term,
                        lsn: epochs.last().lsn.min(entry.head.end),
                    };
                    let expected = entry.head;
                    self.quarantine(Fault::Diverged { found, expected }, out);
                    return None;
                }
            }
            rest.next();
        }
        let new: Vec<Entry> = rest.collect();
        for entry in &new {
            assert_eq!(
                entry.head.start, matched,
                "`malformed` saw that there are no gaps"
            );
            matched = entry.head.end;
            if let Kind::Config(config) = &entry.kind {
                self.configs.push(entry.head.end, config.clone());
            }
        }
        if !new.is_empty() {
            out.push(Effect::Append(new));
        }
        Some(matched)
    }

    /// The log is the leader's up to here, in memory.
    fn matched(&mut self, now: Time, matched: Lsn, commit: Lsn, out: &mut Vec<Effect>) {
        let Role::Following(following) = &mut self.role else {
            return;
        };
        following.matched = following.matched.max(matched);
        let commit = commit.min(following.matched);
        self.commit_to(commit, out);
        self.acknowledge(now, out);
    }

    /// Cuts off entries that the leader does not have. False if they are committed (I8).
    fn cut(&mut self, to: Lsn, out: &mut Vec<Effect>) -> bool {
        if to < self.commit && !planted!("cut_what_is_committed") {
            let commit = self.commit;
            self.quarantine(Fault::CommittedLost { commit, cut: to }, out);
            return false;
        }
        self.durable = self.durable.min(to);
        self.configs.truncate(to);
        out.push(Effect::Truncate(to));
        true
    }

    /// Tells the leader how much of its log is on this disk.
    pub(super) fn acknowledge(&mut self, now: Time, out: &mut Vec<Effect>) {
        let promised = self.promise_holds();
        let Role::Following(following) = &self.role else {
            return;
        };
        let Some(echo) = following.heard.filter(|_| promised) else {
            return;
        };
        let mut durable = self.durable.min(following.matched);
        if planted!("acknowledge_before_the_sync") {
            durable = following.matched;
        }
        self.answers += 1;
        let ack = Ack {
            term: following.term,
            durable,
            held: self.durable,
            applied: self.applied,
            able: self.able,
            incarnation: self.incarnation,
            count: (self.boot, self.answers),
            echo,
        };
        self.granted.renew(following.term, now);
        out.push(send(following.leader, Message::Ack(ack)));
    }

    /// The trees are as far as that. A leader that hands over waits for the last of it, so it is
    /// told at once when nothing is left.
    pub(super) fn has_applied(&mut self, now: Time, lsn: Lsn, out: &mut Vec<Effect>) {
        self.applied = lsn;
        if lsn == self.durable && !planted!("applied_waits_for_a_heartbeat") {
            self.acknowledge(now, out);
        }
    }

    /// Asks for what the greatest log has more.
    pub(super) fn copy(&mut self, log: &impl Log, now: Time, out: &mut Vec<Effect>) {
        let Some((from, chosen)) = self.copying else {
            return;
        };
        if log.epochs().last() == chosen {
            self.copying = None;
            self.report(log, now, out);
            return;
        }
        let term = self.promised;
        let epochs = log.epochs().clone();
        out.push(send(from, Message::Fetch { term, epochs }));
    }

    fn mismatch(&mut self, log: &impl Log, out: &mut Vec<Effect>) {
        if let Role::Following(following) = &self.role {
            self.answers += 1;
            let answer = Mismatch {
                count: (self.boot, self.answers),
                term: following.term,
                epochs: log.epochs().clone(),
                incarnation: self.incarnation,
            };
            out.push(send(following.leader, Message::Mismatch(answer)));
        }
    }
}

/// Where the entries begin that can still be compared.
fn untrimmed(log: &impl Log) -> Lsn {
    if planted!("trimmed_entries_are_looked_for") {
        return Lsn::ZERO;
    }
    log.oldest()
}

/// The own entries where those of a message lie, as far as the log has them: looked for together,
/// for a log that has them on its disk alone reads much for each.
fn own_beside(log: &impl Log, from: Lsn, entries: &[Entry]) -> Vec<Head> {
    let last = log.epochs().last().lsn;
    let beside = entries.iter().take_while(|entry| entry.head.start < last);
    let bytes: usize = beside.map(|entry| entry.bytes.len()).sum();
    let own = match bytes {
        0 => Vec::new(),
        bytes => log.read(from, bytes),
    };
    own.into_iter().map(|entry| entry.head).collect()
}

fn place(log: &impl Log, own: &[Head], entry: &Head) -> Place {
    let epochs = log.epochs();
    if epochs.last().lsn <= entry.start {
        return Place::New;
    }
    // The own entry that begins where this one does.
    let term = epochs.term_at(Lsn(entry.start.0 + 1));
    if term != entry.term {
        return Place::Differs;
    }
    // A message that was long on its way. What was trimmed is committed, and of this term.
    if entry.end <= untrimmed(log) {
        return Place::Repeat;
    }
    let found = match own.binary_search_by_key(&entry.end, |own| own.end) {
        Ok(at) => Some(own[at]),
        Err(_) => log.ending(entry.end),
    };
    if found == Some(*entry) || planted!("a_repeat_by_its_place_alone") && found.is_some() {
        Place::Repeat
    } else {
        Place::Diverged
    }
}
