//! Leases: until when a leader may answer reads without asking, because no other can lead yet.
//!
//! ```text
//! leader    sent ------------------------------- sent + LEASE - 2 % : its lease, by its own clock
//!               \ Append                 Ack (echo: sent)
//! member         heard ---------------------------- heard + LEASE : told to whoever fences it
//! ```
//!
//! A grant begins where its append was sent, by the leader's clock, and ends no earlier at the
//! member, who heard of it later. A new leader serves only when every grant that a reached member
//! has given is over; an old one has too few grants from those that were not reached (P1). The
//! clocks count boot time and may drift apart by [`DRIFT_PERCENT`]. (Gray, Cheriton 1989.)
//!
//! The same echoes serve a read without a lease: what enough members have echoed since the read
//! began was sent by a leader that led then.

use super::{Replica, Role};
use crate::log::Term;

/// Milliseconds of a process's boot-time clock, which goes on while the machine sleeps. Those of
/// two processes have nothing to do with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

impl Time {
    /// So many milliseconds later.
    #[must_use]
    pub fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from now until then, 0 if it is past.
    #[must_use]
    pub fn until(self, then: Self) -> u64 {
        then.0.saturating_sub(self.0)
    }
}

/// What a member grants, in milliseconds. Below the time after which a leader is suspected.
pub const LEASE_MS: u64 = 1_000;

/// How far two clocks may drift apart, in per cent of the time that passes.
pub const DRIFT_PERCENT: u64 = 2;

/// What a leader takes of it.
const USED_MS: u64 = LEASE_MS * (100 - DRIFT_PERCENT) / 100;

/// What a member has granted, in milliseconds that are left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grant {
    /// The leader's term that it was granted to last.
    pub term: Term,
    /// To that one.
    pub left_ms: u64,
    /// To others before, or in a run before.
    pub before_ms: u64,
}

/// The grants of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Granted {
    term: Term,
    until: Time,
    before: Time,
}

impl Granted {
    /// A member that has just started may have granted something in the run before.
    pub(super) fn at_start(now: Time) -> Self {
        let before = if planted!("grants_end_with_the_run") {
            now
        } else {
            now.after(LEASE_MS)
        };
        Self {
            term: Term(0),
            until: now,
            before,
        }
    }

    /// Grants the leader of a term, who was heard.
    pub(super) fn renew(&mut self, term: Term, now: Time) {
        if term != self.term && !planted!("a_grant_ends_the_one_before") {
            self.before = self.before.max(self.until);
        }
        (self.term, self.until) = (term, now.after(LEASE_MS));
    }

    pub(super) fn report(self, now: Time) -> Grant {
        Grant {
            term: self.term,
            left_ms: now.until(self.until),
            before_ms: now.until(self.before),
        }
    }
}

/// How long a new leader must not serve: until the grants are over that the reached members gave to
/// leaders that were not reached.
#[must_use]
pub fn wait_ms<'r>(grants: impl Iterator<Item = &'r Grant>, reached_leaders: &[Term]) -> u64 {
    if planted!("leases_not_waited_out") {
        return 0;
    }
    let others = grants.map(|grant| match reached_leaders.contains(&grant.term) {
        true => grant.before_ms,
        false => grant.before_ms.max(grant.left_ms),
    });
    // An honest grant is never longer.
    let left = others.max().unwrap_or(0).min(LEASE_MS);
    // Longer by the drift: the clock that waits may be the faster one.
    left + left.div_ceil(100) * DRIFT_PERCENT
}

impl Replica {
    /// The newest time of this leader's clock that enough members have echoed: what was sent then
    /// was answered by members that had promised no higher term.
    fn echoed(&self) -> Option<Time> {
        let Role::Leading(leading) = &self.role else {
            return None;
        };
        leading.serving?;
        let mut times: Vec<Time> = leading
            .peers
            .values()
            .filter_map(|peer| peer.echo)
            .collect();
        times.sort_unstable();
        let alone = self.is_trusted_with(|_| false).then_some(Time(u64::MAX));
        let mut newest = times.into_iter().rev();
        let by_peers = || {
            newest.find(|time| {
                self.is_trusted_with(|peer| peer.echo.is_some_and(|echo| echo >= *time))
            })
        };
        alone.or_else(by_peers)
    }

    /// Whether this member leads and no other can serve yet. A read takes its snapshot first, asks
    /// this, and then reads: asked before, a pause in between makes it stale.
    #[must_use]
    pub fn has_lease(&self, now: Time) -> bool {
        self.lease_until() > now
    }

    /// Until when it has the lease; a time that is over if it has none.
    #[must_use]
    pub fn lease_until(&self) -> Time {
        let echoed = self.echoed();
        echoed.map_or(Time(0), |echoed| echoed.after(USED_MS))
    }

    /// Whether this member led at some moment after `since`, and served then: a read that took its
    /// snapshot then may be answered, whatever the clocks of others do.
    #[must_use]
    pub fn led_after(&self, since: Time) -> bool {
        // Before it served, what it knew to be committed may have been too little.
        let served = match &self.role {
            Role::Leading(leading) => leading.serving.is_some_and(|time| time < since),
            _ => false,
        };
        if !served && !planted!("a_read_from_before_the_barrier") {
            return false;
        }
        let later = |echoed| echoed > since || planted!("a_read_by_an_old_echo");
        self.echoed().is_some_and(later)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_grant_to_an_unreached_leader_is_waited_out() {
        let grant = |term, left_ms, before_ms| Grant {
            term: Term(term),
            left_ms,
            before_ms,
        };
        let grants = [grant(3, 900, 0), grant(2, 400, 100), grant(0, 0, 90)];
        assert_eq!(wait_ms(grants.iter(), &[]), 918);
        assert_eq!(wait_ms(grants.iter(), &[Term(3)]), 408);
        assert_eq!(wait_ms(grants.iter(), &[Term(3), Term(2)]), 102);
        assert_eq!(wait_ms([].iter(), &[]), 0);
        assert_eq!(wait_ms([grant(1, u64::MAX, 7)].iter(), &[]), 1_020);
    }
}
