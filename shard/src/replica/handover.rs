//! A leader that hands over: it admits nothing more, waits until the member that takes over has all
//! that it has, and is ready to be fenced.
//!
//! ```text
//! HandOver -> CloseAdmission -> Drained -> all is committed -> a heartbeat says so -> the target
//!   has it on disk and applied -> Ready -> fenced, as any other member
//! any time before: Resume, the deadline, a target that cannot lead any more -> OpenAdmission
//! ```
//!
//! What was admitted is committed before another is asked to lead, so no caller is left without an
//! answer. Nothing is remembered on disk: a leader that restarts leads no more (I10).

use terrane_wal::lsn::Lsn;

use super::{Effect, IN_FLIGHT_BYTES, LEASE_MS, Replica, Role, Time, send};
use crate::log::Log;
use crate::message::Message;
use crate::policy::MemberId;
use crate::switchover::{Attempt, CLOSED_MS_MAX, SwitchError};

/// A leadership on its way to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Handing {
    by: MemberId,
    attempt: Attempt,
    /// Until then admission is closed, unless it ends before.
    until: Time,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stage {
    /// Admission is closed; what was admitted is not all in the log yet.
    Closed,
    /// It is.
    Drained,
    /// It is committed, and the one that takes over was told so then.
    Told(Time),
    /// It has all, and the coordinator knows.
    Ready,
    /// Admission is open again. Kept so that a request that was overtaken does not close it.
    Over(SwitchError),
}

impl Handing {
    /// Whether admission is closed.
    pub(super) fn is_closed(&self) -> bool {
        !matches!(self.stage, Stage::Over(_))
    }
}

impl Replica {
    /// Closes admission so that another member can take over, or says why not.
    pub(super) fn hand_over(
        &mut self,
        log: &impl Log,
        now: Time,
        by: MemberId,
        attempt: Attempt,
        closed_ms: u64,
        out: &mut Vec<Effect>,
    ) {
        if attempt.term < self.promised {
            out.push(self.stale(by));
            return;
        }
        let known = self.handing().filter(|handing| {
            let again = planted!("an_overtaken_request_closes_again") && !handing.is_closed();
            (handing.by, handing.attempt) == (by, attempt) && !again
        });
        if known.is_some() {
            self.say_stage(now, out);
            return;
        }
        if let Err(error) = self.may_hand_over(log, now, attempt) {
            out.push(send(by, Message::Refused { attempt, error }));
            return;
        }
        if let Role::Leading(leading) = &mut self.role {
            leading.handing = Some(Handing {
                by,
                attempt,
                until: now.after(closed_ms.min(CLOSED_MS_MAX)),
                stage: Stage::Closed,
            });
            out.push(Effect::CloseAdmission);
        }
    }

    /// Opens admission if that was the attempt that closed it.
    pub(super) fn resume(&mut self, by: MemberId, attempt: Attempt, out: &mut Vec<Effect>) {
        let same = |handing: &Handing| {
            (handing.by, handing.attempt) == (by, attempt) || planted!("any_resume_opens")
        };
        if self.handing().is_some_and(|handing| same(&handing)) {
            let member = attempt.to;
            self.reopen(SwitchError::TooSlow { member }, out);
        }
    }

    /// All that was admitted before admission was closed is in the log.
    pub(super) fn drained(&mut self) {
        if self
            .handing()
            .is_some_and(|handing| handing.stage == Stage::Closed)
        {
            self.set_stage(Stage::Drained);
        }
    }

    /// One stage further, if what it waits for has come.
    pub(super) fn hand_on(&mut self, log: &impl Log, now: Time, out: &mut Vec<Effect>) {
        let Some(handing) = self.handing().filter(Handing::is_closed) else {
            return;
        };
        let member = handing.attempt.to;
        if now >= handing.until && !planted!("admission_stays_closed") {
            self.reopen(SwitchError::TooSlow { member }, out);
            return;
        }
        if let Err(error) = self.can_take_over(member) {
            self.reopen(error, out);
            return;
        }
        let end = log.epochs().last().lsn;
        let drained = handing.stage == Stage::Drained
            || handing.stage == Stage::Closed && planted!("hand_over_before_it_is_drained");
        let committed = self.commit >= end || planted!("hand_over_what_is_not_committed");
        match handing.stage {
            _ if drained && committed => {
                self.set_stage(Stage::Told(now));
                self.send_to(log, now, member, out);
            }
            Stage::Told(since) if self.has_all(member, end, since) => {
                self.set_stage(Stage::Ready);
                self.say_stage(now, out);
            }
            _ => {}
        }
    }

    fn handing(&self) -> Option<Handing> {
        match &self.role {
            Role::Leading(leading) => leading.handing,
            _ => None,
        }
    }

    fn set_stage(&mut self, stage: Stage) {
        if let Role::Leading(leading) = &mut self.role
            && let Some(handing) = &mut leading.handing
        {
            handing.stage = stage;
        }
    }

    fn reopen(&mut self, error: SwitchError, out: &mut Vec<Effect>) {
        let Some(handing) = self.handing().filter(Handing::is_closed) else {
            return;
        };
        self.set_stage(Stage::Over(error));
        out.push(Effect::OpenAdmission);
        let attempt = handing.attempt;
        out.push(send(handing.by, Message::Refused { attempt, error }));
    }

    /// Says how an attempt stands that was asked for again.
    fn say_stage(&self, now: Time, out: &mut Vec<Effect>) {
        let Some(handing) = self.handing() else {
            return;
        };
        let attempt = handing.attempt;
        let message = match handing.stage {
            Stage::Ready if now < handing.until => Message::Ready(attempt),
            Stage::Over(error) => Message::Refused { attempt, error },
            _ => return,
        };
        out.push(send(handing.by, message));
    }

    fn may_hand_over(
        &self,
        log: &impl Log,
        now: Time,
        attempt: Attempt,
    ) -> Result<(), SwitchError> {
        let Role::Leading(leading) = &self.role else {
            return Err(SwitchError::NotLeading);
        };
        if leading.term != attempt.term {
            return Err(SwitchError::NotLeading);
        }
        let member = attempt.to;
        if member == self.me {
            return Err(SwitchError::Leads { member });
        }
        if self.is_changing() {
            return Err(SwitchError::Pending);
        }
        self.can_take_over(member)?;
        // What is missing can be on its way at once.
        let end = log.epochs().last().lsn;
        let near = |has: Lsn| end.0.saturating_sub(has.0) <= IN_FLIGHT_BYTES;
        let peer = leading.peers.get(&member);
        let close = peer.is_some_and(|peer| {
            let heard = peer.echo.is_some_and(|echo| echo.until(now) < LEASE_MS);
            heard && near(peer.acked) && near(peer.applied)
        });
        match close || planted!("any_lag_is_small") {
            true => Ok(()),
            false => Err(SwitchError::Behind { member }),
        }
    }

    /// Whether a member could lead as far as its leader knows, once it has the log.
    fn can_take_over(&self, member: MemberId) -> Result<(), SwitchError> {
        let Role::Leading(leading) = &self.role else {
            return Err(SwitchError::NotLeading);
        };
        let config = self.configs.newest();
        let place = config.quorums().place(member);
        if !place.is_some_and(|place| config.quorums().may_lead(place)) {
            return Err(SwitchError::MayNotLead { member });
        }
        let Some(peer) = leading.peers.get(&member) else {
            return Err(SwitchError::Behind { member });
        };
        let trusted = config.trusted(member, peer.incarnation).is_some() && !peer.forgot;
        if !trusted && !planted!("hand_over_to_any_data") {
            return Err(SwitchError::Incarnation { member });
        }
        if !peer.able {
            return Err(SwitchError::CannotApply { member });
        }
        Ok(())
    }

    /// Whether a member has answered since, and has and applied all up to here.
    fn has_all(&self, member: MemberId, end: Lsn, since: Time) -> bool {
        let Role::Leading(leading) = &self.role else {
            return false;
        };
        leading.peers.get(&member).is_some_and(|peer| {
            let answered =
                peer.echo.is_some_and(|echo| echo >= since) || planted!("hand_over_to_the_silent");
            let has = peer.acked >= end || planted!("hand_over_before_the_log_is_there");
            let applied = peer.applied >= end || planted!("hand_over_before_it_is_applied");
            answered && has && applied
        })
    }
}
