//! Policies against tables and enumeration.

// A helper of a test ends the test on the spot.
#![allow(clippy::unwrap_used)]

use terrane_shard::policy::*;

fn members(zones: &str) -> Vec<Member> {
    let zones = zones.split(' ').enumerate();
    zones
        .map(|(id, zone)| Member::voter(id as u32, zone))
        .collect()
}

fn quorums(policy: &dyn DurabilityPolicy, zones: &str) -> Quorums {
    Quorums::new(policy, &members(zones)).unwrap()
}

fn policies() -> Vec<Box<dyn DurabilityPolicy>> {
    let mut all: Vec<Box<dyn DurabilityPolicy>> = vec![Box::new(NoAcks)];
    for acks in 1..=3 {
        for policy in [SemiSync::new(acks), SemiSync::cross_zone(acks)] {
            all.push(Box::new(policy));
            all.push(Box::new(policy.with_readers()));
        }
    }
    all
}

/// All subsets of so many members.
fn sets(count: usize) -> impl Iterator<Item = MemberSet> {
    let member_of = move |bits: u32| (0..count).filter(move |place| bits >> place & 1 == 1);
    (0..1_u32 << count).map(move |bits| member_of(bits).collect())
}

// P1. Seen to fail with `left <= needed`, and with the ackers of the leader not asked about.
#[test]
fn holders_of_a_committed_entry_meet_whoever_revokes_its_leader() {
    for zones in ["a", "a b", "a b c", "a a b", "a a b b c", "a a b b c c"] {
        for readers in [0, 1, 2] {
            let mut members = members(zones);
            let voters = members.len() as u32;
            members.extend((0..readers).map(|n| Member::reader(voters + n, "a")));
            for policy in policies() {
                let Ok(quorums) = Quorums::new(&*policy, &members) else {
                    continue;
                };
                let count = members.len();
                let revoking: Vec<MemberSet> =
                    sets(count).filter(|set| quorums.revoked(*set)).collect();
                assert!(!revoking.is_empty(), "all members revoke");
                for leader in (0..count).filter(|place| quorums.may_lead(*place)) {
                    let held = sets(count).filter(|set| quorums.committed(leader, *set));
                    for holders in held {
                        let met = revoking.iter().all(|set| !set.and(holders).is_empty());
                        assert!(met, "{} with {zones}", policy.name());
                    }
                }
            }
        }
    }
}

// The rows were found by enumeration when the protocol was designed.
#[test]
fn what_policies_survive() {
    let semi = |acks| -> Box<dyn DurabilityPolicy> { Box::new(SemiSync::new(acks)) };
    let cross = |acks| -> Box<dyn DurabilityPolicy> { Box::new(SemiSync::cross_zone(acks)) };
    // Policy, zones; failover with, with any down, spare ackers, survives any zone, needs arbiter.
    for (policy, zones, with, down, spare, zone, arbiter) in [
        (semi(1), "a b c", 2, 1, 1, true, false),
        (semi(2), "a b c", 3, 0, 0, false, false),
        (semi(1), "a a b", 2, 1, 1, false, false),
        (cross(1), "a b c", 2, 1, 1, true, false),
        (cross(1), "a a b", 2, 0, 0, false, false),
        (semi(1), "a a b b c", 4, 1, 3, false, true),
        (semi(2), "a a b b c", 3, 2, 2, true, false),
        (cross(1), "a a b b c", 3, 1, 2, true, true),
        (cross(1), "a a b b c c", 4, 1, 3, true, true),
        (semi(1), "a b", 2, 0, 0, false, false),
    ] {
        let report = quorums(&*policy, zones).report();
        let expected = PolicyReport {
            policy: policy.name(),
            failover_members: Some(with),
            failover_with_down: Some(down),
            ackers_spare: spare,
            survives_any_zone: zone,
            needs_arbiter: arbiter,
        };
        assert_eq!(report, expected, "{} with {zones}", policy.name());
        let warned = !report.warnings().is_empty();
        assert_eq!(warned, down == 0 || spare == 0, "{report}");
    }
}

#[test]
fn without_acks_a_failover_needs_every_member_that_may_have_led() {
    let report = quorums(&NoAcks, "a b c").report();
    assert_eq!(report.failover_members, Some(3));
    assert_eq!(report.failover_with_down, Some(0));
    assert!(report.needs_arbiter);
}

#[test]
fn a_policy_that_cannot_work_is_refused() {
    let error = |policy: &dyn DurabilityPolicy, members: &[Member]| {
        let error = Quorums::new(policy, members).unwrap_err();
        error.to_string()
    };
    assert_eq!(
        error(&SemiSync::new(2), &members("a b")),
        "policy semi_sync(2): expected 2 members that may acknowledge for member 0, found 1"
    );
    assert_eq!(
        error(&SemiSync::cross_zone(1), &members("a a a")),
        "policy cross_zone(1): expected 1 members that may acknowledge for member 0, found 0"
    );
    assert_eq!(
        error(&SemiSync::new(usize::MAX), &members("a b")),
        "policy semi_sync(18446744073709551615): expected 18446744073709551615 members that may \
         acknowledge for member 0, found 1"
    );
    assert_eq!(
        error(&NoAcks, &[Member::reader(4, "a")]),
        "policy none: expected a member that may lead, found none"
    );
    assert_eq!(
        error(&NoAcks, &[]),
        "members of a shard: expected 1 to 16, found 0"
    );
    let twice = [Member::voter(4, "a"), Member::voter(4, "b")];
    assert_eq!(
        error(&NoAcks, &twice),
        "members of a shard: expected member 4 once, found it twice"
    );
    let many: Vec<Member> = (0..17).map(|id| Member::voter(id, "a")).collect();
    assert_eq!(
        error(&NoAcks, &many),
        "members of a shard: expected 1 to 16, found 17"
    );
}

#[test]
fn readers_count_only_where_the_policy_says_so() {
    let mut members = members("a b");
    members.push(Member::reader(2, "c"));
    let without = Quorums::new(&SemiSync::new(1), &members).unwrap();
    let with = SemiSync::new(1).with_readers();
    let with = Quorums::new(&with, &members).unwrap();
    let pair: MemberSet = [0, 2].into_iter().collect();
    assert!(!without.committed(0, pair) && with.committed(0, pair));
    assert!(!with.may_lead(2) && with.may_lead(1));
}
