//! A policy's answers, without the policy: what [`Quorums`] keep of it can be stored and put back,
//! whoever wrote the policy.

use super::{DurabilityPolicy, Member, MemberId, MemberSet, PolicyError, Quorums};

/// What a policy said of one member as leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Whether it may lead.
    pub(crate) may_lead: bool,
    /// Acknowledgements that it needs if it leads.
    pub(crate) acks_needed: usize,
    /// Who may give one, by place; never itself.
    pub(crate) ackers: MemberSet,
}

/// A policy that answers as another did.
#[derive(Debug)]
struct Enumerated<'a> {
    name: &'a str,
    members: &'a [Member],
    rules: &'a [Rule],
}

impl Enumerated<'_> {
    fn place(&self, id: MemberId) -> Option<usize> {
        self.members.iter().position(|member| member.id == id)
    }

    fn rule(&self, member: &Member) -> Option<&Rule> {
        self.rules.get(self.place(member.id)?)
    }
}

impl DurabilityPolicy for Enumerated<'_> {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn may_lead(&self, member: &Member) -> bool {
        self.rule(member).is_some_and(|rule| rule.may_lead)
    }

    fn acks_needed(&self, leader: &Member) -> usize {
        self.rule(leader).map_or(0, |rule| rule.acks_needed)
    }

    fn may_ack(&self, leader: &Member, acker: &Member) -> bool {
        match (self.rule(leader), self.place(acker.id)) {
            (Some(rule), Some(place)) => rule.ackers.contains(place),
            _ => false,
        }
    }
}

impl Quorums {
    /// The policy's name and parameters.
    #[must_use]
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// What the policy said of each member, by place.
    pub(crate) fn rules(&self) -> impl Iterator<Item = Rule> {
        self.leads.iter().map(|lead| Rule {
            may_lead: lead.may,
            acks_needed: lead.needed,
            ackers: lead.ackers,
        })
    }

    /// Quorums as a policy of this name made them, by its answers for each member.
    pub(crate) fn enumerated(
        name: &str,
        members: &[Member],
        rules: &[Rule],
    ) -> Result<Self, PolicyError> {
        let policy = Enumerated {
            name,
            members,
            rules,
        };
        Self::new(&policy, members)
    }
}
