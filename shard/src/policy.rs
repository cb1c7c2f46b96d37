//! Durability policies: who must hold an entry before it is committed, and whom a new leader must
//! have reached before it may lead.
//!
//! ```text
//! DurabilityPolicy + members -> Quorums -> committed(leader, holders)     write path (I4)
//!                                       -> revoked, establishable(reached) failover (I6)
//!                                       -> report(): what it survives, before it is accepted
//! ```
//!
//! A policy says three things of each member: whether it may lead, how many acknowledgements it
//! needs if it leads, and who may give them. Majority is one case of that. Everything else follows:
//! a leader is *revoked* once it is reached itself, or too few of its ackers are left unreached to
//! commit anything; so whoever revoked all that may lead has met a holder of every committed entry.
//!
//! Invariants:
//! * P1. Every set of holders that commits an entry meets every set that revokes its leader
//!   (follows from the formula of [`Quorums::revoked`]; `tests` enumerate it for all policies).
//! * P2. [`Quorums`] exist only for members of which at least one can lead and commit.

pub(crate) mod enumerated;

use std::collections::BTreeSet;
use std::fmt;

/// Members of a shard at most: sets of them are enumerated.
pub const MEMBERS_MAX: usize = 16;

/// A member of a shard: one replica on one node, by its node's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u32);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "member {}", self.0)
    }
}

/// What a member is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// May lead and acknowledge, as the policy says.
    Voter,
    /// Holds a copy for reads; acknowledges only where the policy counts readers.
    Reader,
}

/// A member as a policy sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Member {
    /// Its number.
    pub id: MemberId,
    /// What fails together: a rack, a data centre. Compared by name.
    pub zone: String,
    /// What it is for.
    pub role: Role,
}

impl Member {
    /// A voter in a zone.
    pub fn voter(id: u32, zone: impl Into<String>) -> Self {
        Self {
            id: MemberId(id),
            zone: zone.into(),
            role: Role::Voter,
        }
    }

    /// A reader in a zone.
    pub fn reader(id: u32, zone: impl Into<String>) -> Self {
        Self {
            role: Role::Reader,
            ..Self::voter(id, zone)
        }
    }
}

/// Who must hold an entry before it is committed. Answers must be the same whenever they are asked
/// for the same members: [`Quorums::new`] asks once.
pub trait DurabilityPolicy: fmt::Debug + Send + Sync {
    /// Its name and parameters, for people.
    fn name(&self) -> String;

    /// Whether this member may lead.
    fn may_lead(&self, member: &Member) -> bool {
        member.role == Role::Voter
    }

    /// Acknowledgements that this member needs if it leads, besides its own disk.
    fn acks_needed(&self, leader: &Member) -> usize;

    /// Whether `acker` may give one of them. Never asked about the leader itself.
    fn may_ack(&self, leader: &Member, acker: &Member) -> bool;
}

/// An entry is committed when its leader has it on disk. A failover needs the old leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoAcks;

impl DurabilityPolicy for NoAcks {
    fn name(&self) -> String {
        "none".into()
    }

    fn acks_needed(&self, _: &Member) -> usize {
        0
    }

    fn may_ack(&self, _: &Member, _: &Member) -> bool {
        false
    }
}

/// An entry is committed when so many others have it on disk as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SemiSync {
    acks: usize,
    with_readers: bool,
    cross_zone: bool,
}

impl SemiSync {
    /// So many voters besides the leader; with 0 it is as [`NoAcks`].
    #[must_use]
    pub fn new(acks: usize) -> Self {
        Self {
            acks,
            with_readers: false,
            cross_zone: false,
        }
    }

    /// So many voters of other zones than the leader's.
    #[must_use]
    pub fn cross_zone(acks: usize) -> Self {
        Self {
            cross_zone: true,
            ..Self::new(acks)
        }
    }

    /// Readers count as voters do.
    #[must_use]
    pub fn with_readers(self) -> Self {
        Self {
            with_readers: true,
            ..self
        }
    }
}

impl DurabilityPolicy for SemiSync {
    fn name(&self) -> String {
        let kind = if self.cross_zone {
            "cross_zone"
        } else {
            "semi_sync"
        };
        let readers = if self.with_readers {
            ", readers too"
        } else {
            ""
        };
        format!("{kind}({}{readers})", self.acks)
    }

    fn acks_needed(&self, _: &Member) -> usize {
        self.acks
    }

    fn may_ack(&self, leader: &Member, acker: &Member) -> bool {
        let counts = acker.role == Role::Voter || self.with_readers;
        counts && (!self.cross_zone || leader.zone != acker.zone)
    }
}

/// Some of the members of a shard, by their place in [`Quorums::members`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct MemberSet(u32);

impl MemberSet {
    /// None of them.
    pub const EMPTY: Self = Self(0);

    /// The first so many.
    fn first(count: usize) -> Self {
        Self((1 << count) - 1)
    }

    /// Puts one in.
    pub fn insert(&mut self, place: usize) {
        self.0 |= 1 << place;
    }

    /// Whether it is in.
    #[must_use]
    pub fn contains(self, place: usize) -> bool {
        self.0 >> place & 1 == 1
    }

    /// How many are in.
    #[must_use]
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether none is in.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those not in `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl FromIterator<usize> for MemberSet {
    fn from_iter<I: IntoIterator<Item = usize>>(places: I) -> Self {
        let mut set = Self::EMPTY;
        places.into_iter().for_each(|place| set.insert(place));
        set
    }
}

/// Why a policy does not fit its members.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyError {
    /// No members, or above [`MEMBERS_MAX`].
    Members {
        /// How many there are.
        found: usize,
    },
    /// A member stands there twice.
    Twice {
        /// Which.
        member: MemberId,
    },
    /// Not one incarnation for each member.
    Incarnations {
        /// Members.
        expected: usize,
        /// Incarnations.
        found: usize,
    },
    /// No member may lead.
    NobodyLeads {
        /// The policy.
        policy: String,
    },
    /// No member that may lead has as many ackers as it needs: nothing would ever be committed.
    TooFewAckers {
        /// The policy.
        policy: String,
        /// The member with most ackers.
        leader: MemberId,
        /// Acknowledgements it needs.
        needed: usize,
        /// Members that may give one.
        found: usize,
    },
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Members { found } => write!(
                f,
                "members of a shard: expected 1 to {MEMBERS_MAX}, found {found}"
            ),
            Self::Twice { member } => {
                write!(
                    f,
                    "members of a shard: expected {member} once, found it twice"
                )
            }
            Self::Incarnations { expected, found } => write!(
                f,
                "members of a shard: expected {expected} incarnations, one each, found {found}"
            ),
            Self::NobodyLeads { policy } => write!(
                f,
                "policy {policy}: expected a member that may lead, found none"
            ),
            Self::TooFewAckers {
                policy,
                leader,
                needed,
                found,
            } => write!(
                f,
                "policy {policy}: expected {needed} members that may acknowledge for {leader}, \
                 found {found}"
            ),
        }
    }
}

impl std::error::Error for PolicyError {}

/// What a policy says of one member as leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Lead {
    may: bool,
    needed: usize,
    ackers: MemberSet,
}

/// A policy, applied to the members of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Quorums {
    policy: String,
    members: Vec<Member>,
    leads: Vec<Lead>,
}

impl Quorums {
    /// What the policy says of these members. O(members^2).
    ///
    /// # Errors
    /// [`PolicyError`] if there are none or above [`MEMBERS_MAX`], if one stands there twice, or if
    /// no member could ever lead and commit.
    pub fn new(policy: &dyn DurabilityPolicy, members: &[Member]) -> Result<Self, PolicyError> {
        let found = members.len();
        if !(1..=MEMBERS_MAX).contains(&found) {
            return Err(PolicyError::Members { found });
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = members.iter().find(|member| !seen.insert(member.id)) {
            return Err(PolicyError::Twice { member: twice.id });
        }
        let lead = |(place, leader): (usize, &Member)| {
            let others = members.iter().enumerate().filter(|(at, _)| *at != place);
            let ackers = others.filter(|(_, acker)| policy.may_ack(leader, acker));
            Lead {
                may: policy.may_lead(leader),
                needed: policy.acks_needed(leader),
                ackers: ackers.map(|(at, _)| at).collect(),
            }
        };
        let quorums = Self {
            policy: policy.name(),
            members: members.to_vec(),
            leads: members.iter().enumerate().map(lead).collect(),
        };
        let leaders = quorums
            .leads
            .iter()
            .enumerate()
            .filter(|(_, lead)| lead.may);
        let missing = |lead: &Lead| lead.needed.saturating_sub(lead.ackers.len());
        let best = leaders.min_by_key(|(_, lead)| missing(lead));
        match best {
            None => Err(PolicyError::NobodyLeads {
                policy: quorums.policy,
            }),
            Some((place, lead)) if lead.ackers.len() < lead.needed => {
                Err(PolicyError::TooFewAckers {
                    leader: quorums.members[place].id,
                    needed: lead.needed,
                    found: lead.ackers.len(),
                    policy: quorums.policy,
                })
            }
            Some(_) => Ok(quorums),
        }
    }

    /// The members, in the order that sets count them.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The place of a member.
    #[must_use]
    pub fn place(&self, id: MemberId) -> Option<usize> {
        self.members.iter().position(|member| member.id == id)
    }

    /// Whether the member at this place may lead.
    #[must_use]
    pub fn may_lead(&self, place: usize) -> bool {
        self.leads[place].may
    }

    /// Whether an entry of this leader is committed when these hold it on their disks: itself and
    /// as many of its ackers as it needs (I4).
    #[must_use]
    pub fn committed(&self, leader: usize, holders: MemberSet) -> bool {
        let lead = self.leads[leader];
        holders.contains(leader) && lead.ackers.and(holders).len() >= lead.needed
    }

    /// Whether no old leader can commit anything without one of `reached`, who all promised not to
    /// help it (the first half of I6): each that may lead was reached, or too few of its ackers
    /// were not.
    #[must_use]
    pub fn revoked(&self, reached: MemberSet) -> bool {
        let mut leads = self.leads.iter().enumerate().filter(|(_, lead)| lead.may);
        leads.all(|(place, lead)| {
            let left = lead.ackers.without(reached).len();
            reached.contains(place) || left < lead.needed
        })
    }

    /// Whether this member could lead with these: it may, it is among them, and enough of its
    /// ackers are (the candidacy of I6).
    #[must_use]
    pub fn establishable(&self, leader: usize, reached: MemberSet) -> bool {
        self.leads[leader].may && self.committed(leader, reached)
    }

    /// Whether a failover can end with these reached.
    #[must_use]
    pub fn can_fail_over(&self, reached: MemberSet) -> bool {
        let mut places = 0..self.members.len();
        self.revoked(reached) && places.any(|leader| self.establishable(leader, reached))
    }

    /// What the policy survives with these members. O(2^members x members).
    #[must_use]
    pub fn report(&self) -> PolicyReport {
        let count = self.members.len();
        let all = MemberSet::first(count);
        let sets = || (0..1_u32 << count).map(MemberSet);
        let works: Vec<bool> = sets().map(|set| self.can_fail_over(set)).collect();
        let works = |set: MemberSet| works[set.0 as usize];
        let fewest = sets().filter(|set| works(*set)).map(MemberSet::len).min();
        let any_down = |down: usize| {
            let mut lost = sets().filter(|set| set.len() == down);
            lost.all(|set| works(all.without(set)))
        };
        let leaders = self.leads.iter().filter(|lead| lead.may);
        let spare = leaders.map(|lead| lead.ackers.len().saturating_sub(lead.needed));
        let zones: BTreeSet<&str> = self.members.iter().map(|m| m.zone.as_str()).collect();
        let of_zone = |zone: &str| -> MemberSet {
            let places = (0..count).filter(|place| self.members[*place].zone == zone);
            places.collect()
        };
        // The least sets in which somebody could lead: two that do not meet could both choose.
        let lead_in = |set: MemberSet| (0..count).any(|leader| self.establishable(leader, set));
        PolicyReport {
            policy: self.policy.clone(),
            failover_members: fewest,
            failover_with_down: (0..=count).take_while(|down| any_down(*down)).last(),
            ackers_spare: spare.min().unwrap_or(0),
            survives_any_zone: zones.iter().all(|zone| works(all.without(of_zone(zone)))),
            needs_arbiter: sets().any(|set| lead_in(set) && lead_in(all.without(set))),
        }
    }
}

/// What a policy survives, to be read before it is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyReport {
    /// The policy.
    pub policy: String,
    /// The fewest members with which a failover can end; `None` if it never can.
    pub failover_members: Option<usize>,
    /// Members of which any so many may be down at a failover; `None` if not even none.
    pub failover_with_down: Option<usize>,
    /// Ackers that may be down under the same leader, whoever it is.
    pub ackers_spare: usize,
    /// Whether any one zone may be lost whole.
    pub survives_any_zone: bool,
    /// Whether two leaders could be established by members that do not meet, so that terms must
    /// come from a store that orders them; otherwise the members' own promises do.
    pub needs_arbiter: bool,
}

impl PolicyReport {
    /// What an operator should know before accepting it.
    #[must_use]
    pub fn warnings(&self) -> Vec<&'static str> {
        let mut out = Vec::new();
        if self.failover_with_down == Some(0) || self.failover_with_down.is_none() {
            out.push("no failover while any member is down");
        }
        if self.ackers_spare == 0 {
            out.push("one acker down stops the writes of some leader");
        }
        out
    }
}

impl fmt::Display for PolicyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |n: Option<usize>| n.map_or("never".to_owned(), |n| n.to_string());
        let yes = |b: bool| if b { "yes" } else { "no" };
        write!(
            f,
            "{}: failover with {} members, with any {} down; {} spare ackers; \
             survives any zone: {}; needs arbiter: {}",
            self.policy,
            count(self.failover_members),
            count(self.failover_with_down),
            self.ackers_spare,
            yes(self.survives_any_zone),
            yes(self.needs_arbiter)
        )
    }
}
