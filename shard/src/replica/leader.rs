//! A member that leads: its log goes to the others, and what enough of them hold is committed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use terrane_wal::lsn::Lsn;

use super::handover::Handing;
use super::{APPEND_BYTES, Effect, IN_FLIGHT_BYTES, Replica, Role, Time, send};
use crate::codec::Barrier;
use crate::log::{Config, Head, Incarnation, Kind, Log, Point, Term};
use crate::message::{Ack, Append, Establish, Message, Mismatch};
use crate::policy::{MemberId, Role as PolicyRole};

/// A leadership.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Leading {
    pub(super) term: Term,
    coordinator: MemberId,
    /// The log that it began with.
    from: Lsn,
    /// The end of the term's barrier, once it is written.
    barrier: Option<Lsn>,
    /// Leases of others may be left until then.
    serve_from: Time,
    /// Since when the barrier is committed and that time past.
    pub(super) serving: Option<Time>,
    /// A change was given to the host and is not in the log yet.
    changing: bool,
    /// The newest attempt to hand over.
    pub(super) handing: Option<Handing>,
    pub(super) peers: BTreeMap<MemberId, Peer>,
}

/// What a leader knows of another member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Peer {
    /// Whose acknowledgements these are.
    pub(super) incarnation: Incarnation,
    pub(super) acked: Lsn,
    pub(super) applied: Lsn,
    /// Whether it can apply what is committed.
    pub(super) able: bool,
    /// The number of the newest acknowledgement: older ones were overtaken.
    count: (u64, u64),
    /// Both logs are equal up to here, as far as is known.
    common: Lsn,
    /// Entries were sent up to here.
    sent: Lsn,
    /// What `common` was at the last heartbeat.
    beat: Lsn,
    /// It had more on its disk before: an image of an earlier state was put back (I13).
    pub(super) forgot: bool,
    /// The newest time of this leader's clock that it has sent back.
    pub(super) echo: Option<Time>,
}

impl Peer {
    /// Other data is another member: nothing of what was acknowledged is known to be there (I9).
    fn is_of(&mut self, incarnation: Incarnation) {
        if self.incarnation != incarnation {
            self.incarnation = incarnation;
            (self.acked, self.count, self.echo) = (Lsn::ZERO, (0, 0), None);
            self.applied = Lsn::ZERO;
            self.forgot = false;
        }
    }
}

/// Why members or policy are not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeError {
    /// The member does not lead.
    NotLeading,
    /// The barrier or another change is not committed yet, or another member is about to lead: try
    /// again.
    Pending,
    /// The leader would no longer be a member that may lead: hand over first.
    LeaderLeaves {
        /// The leader.
        leader: MemberId,
    },
    /// A member stands there with other data than the shard trusts, or without any named.
    Incarnation {
        /// Which.
        member: MemberId,
    },
    /// A member would vote before it has the log: make it a reader first, and wait.
    Behind {
        /// Which.
        member: MemberId,
    },
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeading => write!(f, "change of members: expected the leader, found another"),
            Self::Pending => write!(
                f,
                "change of members: expected none under way, found one that is not committed yet"
            ),
            Self::LeaderLeaves { leader } => write!(
                f,
                "change of members: expected {leader}, which leads, to stay one that may lead, \
                 found it without"
            ),
            Self::Incarnation { member } => write!(
                f,
                "change of members: expected {member} with the data that the shard trusts, found \
                 other or none"
            ),
            Self::Behind { member } => write!(
                f,
                "change of members: expected {member} to be a reader that has all committed \
                 entries before it votes, found it without"
            ),
        }
    }
}

impl std::error::Error for ChangeError {}

impl Replica {
    pub(super) fn is_leading(&self, term: Term) -> bool {
        matches!(&self.role, Role::Leading(leading) if leading.term == term)
    }

    /// Leads, if this run promised the term and its log is the chosen one (I10, I7).
    pub(super) fn establish(
        &mut self,
        log: &impl Log,
        now: Time,
        from: MemberId,
        asked: &Establish,
        out: &mut Vec<Effect>,
    ) {
        let term = asked.term;
        if asked.run != self.run() && !planted!("lead_in_another_run") {
            return;
        }
        if term < self.promised {
            out.push(self.stale(from));
            return;
        }
        if let Role::Leading(leading) = &self.role
            && leading.term == term
        {
            if leading.serving.is_some() {
                out.push(send(from, Message::Established { term }));
            }
            return;
        }
        let promised = self.promised == term && self.promise_holds();
        let last = log.epochs().last();
        let right = last == asked.chosen || planted!("lead_with_a_lesser_log");
        if !promised || !right || self.follows().is_some() {
            return;
        }
        // It was able when it promised; the coordinator gives up after a while.
        if !self.able && !planted!("who_cannot_apply_leads") {
            return;
        }
        // Also what decides which configurations are active.
        self.commit_to(asked.commit.min(last.lsn), out);
        self.copying = None;
        self.role = Role::Leading(Leading {
            term,
            coordinator: from,
            from: last.lsn,
            barrier: None,
            serve_from: now.after(asked.wait_ms),
            serving: None,
            changing: false,
            handing: None,
            peers: BTreeMap::new(),
        });
        let barrier = Barrier {
            chosen: asked.chosen,
            reached: asked.reached.clone(),
            policy: self.configs.newest().quorums().policy().to_owned(),
        };
        out.push(Effect::WriteBarrier { term, barrier });
    }

    pub(super) fn appended(
        &mut self,
        log: &impl Log,
        now: Time,
        head: Head,
        kind: Kind,
        out: &mut Vec<Effect>,
    ) {
        // It is in the log, whoever leads now.
        if let Kind::Config(config) = &kind {
            self.configs.push(head.end, config.clone());
        }
        let Role::Leading(leading) = &mut self.role else {
            return;
        };
        if head.term != leading.term {
            return;
        }
        match kind {
            Kind::Data => {}
            Kind::Barrier => leading.barrier = Some(head.end),
            Kind::Config(_) => leading.changing = false,
        }
        self.send_new(log, now, out);
    }

    /// The members that the log goes to: all of every active configuration but this one. Who is
    /// to leave may be needed to commit that.
    fn others(&self) -> BTreeSet<MemberId> {
        let newest = self.configs.newest();
        let active = self.configs.active();
        let active =
            active.filter(|c| Arc::ptr_eq(c, newest) || !planted!("who_leaves_is_not_served"));
        let members = active.flat_map(|config| config.quorums().members());
        let others = members.filter(|member| member.id != self.me);
        others.map(|member| member.id).collect()
    }

    /// What every other member has on its disk, as far as a leader knows: where its log is still
    /// needed from.
    #[must_use]
    pub fn held_by_all(&self) -> Option<Lsn> {
        let Role::Leading(leading) = &self.role else {
            return None;
        };
        let acked = |id: &MemberId| leading.peers.get(id).map_or(Lsn::ZERO, |peer| peer.acked);
        self.others().iter().map(acked).min()
    }

    /// Sends each member what it was not sent yet.
    fn send_new(&mut self, log: &impl Log, now: Time, out: &mut Vec<Effect>) {
        for to in self.others() {
            self.send_to(log, now, to, out);
        }
    }

    /// Sends each member what it has not acknowledged, or a heartbeat.
    pub(super) fn beat(&mut self, log: &impl Log, now: Time, out: &mut Vec<Effect>) {
        for to in self.others() {
            if let Role::Leading(leading) = &mut self.role
                && let Some(peer) = leading.peers.get_mut(&to)
            {
                // Again, if nothing was acknowledged since the last time.
                if peer.common == peer.beat {
                    peer.sent = peer.common;
                }
                peer.beat = peer.common;
            }
            self.send_to(log, now, to, out);
        }
    }

    /// Sends a member that lags the next entries, now that it has some.
    pub(super) fn send_rest(
        &mut self,
        log: &impl Log,
        now: Time,
        to: MemberId,
        out: &mut Vec<Effect>,
    ) {
        let Role::Leading(leading) = &self.role else {
            return;
        };
        let last = log.epochs().last().lsn;
        let lags = leading.peers.get(&to).is_some_and(|peer| peer.sent < last);
        if lags {
            self.send_to(log, now, to, out);
        }
    }

    pub(super) fn send_to(
        &mut self,
        log: &impl Log,
        now: Time,
        to: MemberId,
        out: &mut Vec<Effect>,
    ) {
        let commit = self.commit;
        let Role::Leading(leading) = &mut self.role else {
            return;
        };
        if leading.barrier.is_none() {
            return;
        }
        let from = leading.from;
        let peer = leading.peers.entry(to).or_insert(Peer {
            incarnation: Incarnation::default(),
            acked: Lsn::ZERO,
            applied: Lsn::ZERO,
            able: true,
            count: (0, 0),
            common: from,
            sent: from,
            beat: from,
            forgot: false,
            echo: None,
        });
        let prev = Point {
            term: log.epochs().term_at(peer.sent),
            lsn: peer.sent,
        };
        // What it has not acknowledged waits in its memory, or on the wire.
        let in_flight = peer.sent.0.saturating_sub(peer.common.0);
        let entries = if in_flight < IN_FLIGHT_BYTES || planted!("no_end_of_what_is_in_flight") {
            log.read(peer.sent, APPEND_BYTES)
        } else {
            Vec::new()
        };
        if let Some(last) = entries.last() {
            peer.sent = last.head.end;
        }
        let append = Append {
            term: leading.term,
            prev,
            entries,
            commit,
            sent: now,
        };
        out.push(send(to, Message::Append(append)));
    }

    /// What a member has on its disk.
    pub(super) fn acked(&mut self, from: MemberId, ack: &Ack) {
        let Role::Leading(leading) = &mut self.role else {
            return;
        };
        let Some(peer) = leading.peers.get_mut(&from) else {
            return;
        };
        if !planted!("acks_of_any_incarnation") {
            peer.is_of(ack.incarnation);
        }
        if ack.count <= peer.count {
            return;
        }
        peer.count = ack.count;
        peer.echo = peer.echo.max(Some(ack.echo));
        (peer.applied, peer.able) = (ack.applied, ack.able);
        // What was acknowledged in a term is not cut off in it.
        peer.forgot |= ack.held < peer.acked;
        peer.acked = peer.acked.max(ack.durable);
        peer.common = peer.common.max(ack.durable);
    }

    /// A member's log is not what was thought: what it lacks or has otherwise is sent again.
    pub(super) fn go_back(
        &mut self,
        log: &impl Log,
        now: Time,
        from: MemberId,
        found: &Mismatch,
        out: &mut Vec<Effect>,
    ) {
        let common = log.epochs().common(&found.epochs).lsn;
        if let Role::Leading(leading) = &mut self.role
            && let Some(peer) = leading.peers.get_mut(&from)
        {
            peer.is_of(found.incarnation);
            if found.count <= peer.count {
                return;
            }
            peer.count = found.count;
            (peer.common, peer.sent) = (common, common);
            self.send_to(log, now, from, out);
        }
    }

    /// Commits what enough members hold (I4), and serves once the barrier is among it and no lease
    /// of another is left.
    pub(super) fn advance(&mut self, now: Time, out: &mut Vec<Effect>) {
        let Role::Leading(leading) = &self.role else {
            return;
        };
        let Some(barrier) = leading.barrier else {
            return;
        };
        let acked = leading.peers.values().map(|peer| peer.acked);
        let mut ends: Vec<Lsn> = acked.chain([self.durable]).collect();
        ends.sort_unstable();
        let own_term = |end: Lsn| end >= barrier || planted!("commit_entries_of_old_terms");
        let mut ends = ends.into_iter().rev();
        if let Some(commit) = ends.find(|end| own_term(*end) && self.is_held(*end)) {
            self.commit_to(commit, out);
        }
        let committed = self.commit >= barrier;
        if let Role::Leading(leading) = &mut self.role
            && leading.serving.is_none()
            && committed
            && now >= leading.serve_from
        {
            leading.serving = Some(now);
            let term = leading.term;
            out.push(Effect::Serve(term));
            out.push(send(leading.coordinator, Message::Established { term }));
        }
    }

    /// Whether the disks of enough trusted members hold the log up to here.
    fn is_held(&self, end: Lsn) -> bool {
        let own = self.durable >= end || planted!("commit_before_the_own_sync");
        own && self.is_trusted_with(|peer| peer.acked >= end)
    }

    /// Whether the members that `says` picks are enough besides this one, by every active
    /// configuration: with the data that is trusted, and never found to have forgotten some.
    pub(super) fn is_trusted_with(&self, says: impl Fn(&Peer) -> bool) -> bool {
        let Role::Leading(leading) = &self.role else {
            return false;
        };
        let peers = leading.peers.iter();
        let counted = peers.filter(|(_, peer)| {
            let counts = !peer.forgot || planted!("forgotten_acknowledgements_count");
            counts && says(peer)
        });
        let mut members: Vec<(MemberId, Incarnation)> =
            counted.map(|(id, peer)| (*id, peer.incarnation)).collect();
        members.push((self.me, self.incarnation));
        let newest = self.configs.newest();
        self.configs.active().all(|config| {
            if planted!("the_rule_of_the_newest_alone") && !Arc::ptr_eq(config, newest) {
                return true;
            }
            let place = config.trusted(self.me, self.incarnation);
            place.is_some_and(|place| {
                let trusted = if planted!("acks_of_any_incarnation") {
                    let places = members
                        .iter()
                        .filter_map(|(id, _)| config.quorums().place(*id));
                    places.collect()
                } else {
                    config.trusted_of(members.iter().copied())
                };
                config.quorums().committed(place, trusted)
            })
        })
    }

    /// Changes members or policy: what the host appends as an entry (answered by
    /// [`super::Event::Appended`]). It is in force at once, beside the one before until it is
    /// committed by both; so one change at a time.
    ///
    /// # Errors
    /// [`ChangeError`] for a change that cannot be made, or not now.
    pub fn change(&mut self, config: Config) -> Result<Effect, ChangeError> {
        let Role::Leading(leading) = &self.role else {
            return Err(ChangeError::NotLeading);
        };
        if self.is_changing() {
            return Err(ChangeError::Pending);
        }
        let place = config.trusted(self.me, self.incarnation);
        if !place.is_some_and(|place| config.quorums().may_lead(place)) {
            return Err(ChangeError::LeaderLeaves { leader: self.me });
        }
        let before = self.configs.newest();
        for (place, member) in config.quorums().members().iter().enumerate() {
            let known = before.quorums().place(member.id);
            let incarnation = known.map(|known| before.incarnations()[known]);
            let found = Some(config.incarnations()[place]);
            if incarnation.is_some() && incarnation != found {
                return Err(ChangeError::Incarnation { member: member.id });
            }
            let voted = known.map(|known| before.quorums().members()[known].role);
            if member.role == PolicyRole::Voter && voted != Some(PolicyRole::Voter) {
                let peer = leading.peers.get(&member.id);
                let caught_up = peer.is_some_and(|peer| {
                    let trusted = Some(peer.incarnation) == found && !peer.forgot;
                    trusted && peer.acked >= self.commit
                });
                if voted.is_none() || !caught_up {
                    return Err(ChangeError::Behind { member: member.id });
                }
            }
        }
        self.will_change();
        Ok(Effect::WriteConfig(Arc::new(config)))
    }

    /// Whether the leadership is just beginning or about to end, or a change is under way.
    pub(super) fn is_changing(&self) -> bool {
        let Role::Leading(leading) = &self.role else {
            return false;
        };
        let handing = leading.handing.is_some_and(|handing| handing.is_closed());
        let handing = handing && !planted!("members_change_while_handing_over");
        leading.serving.is_none()
            || leading.changing
            || handing
            || self.configs.active().count() > 1
    }

    fn will_change(&mut self) {
        if let Role::Leading(leading) = &mut self.role {
            leading.changing = true;
        }
    }

    /// Names the data of a member that lost what it had, once it has caught up: one change at a
    /// time, committed without its help (I9).
    pub(super) fn readmit(&mut self, out: &mut Vec<Effect>) {
        let Role::Leading(leading) = &self.role else {
            return;
        };
        if self.is_changing() {
            return;
        }
        let config = self.configs.newest();
        let stranger = leading.peers.iter().find(|(id, peer)| {
            let member = config.quorums().place(**id).is_some();
            let trusted = config.trusted(**id, peer.incarnation).is_some();
            member && !trusted && !peer.forgot && peer.acked >= self.commit
        });
        if let Some((id, peer)) = stranger {
            let config = config.with_incarnation(*id, peer.incarnation);
            self.will_change();
            out.push(Effect::WriteConfig(Arc::new(config)));
        }
    }
}
