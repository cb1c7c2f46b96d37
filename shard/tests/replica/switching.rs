//! Switchovers with a name, step by step: nobody's call fails by one, whoever dies meanwhile.

use terrane_shard::log::Term;
use terrane_shard::message::Message;
use terrane_shard::policy::{MemberId, SemiSync};
use terrane_shard::switchover::SwitchError;

use crate::world::World;

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
const ALL: [usize; 3] = [A, B, C];

/// Three members, one acknowledgement; A leads, has written something, and all have and applied it.
fn three() -> World {
    let mut world = World::new(1, Box::new(SemiSync::new(1)), "a b c", "");
    world.pass(1_100);
    world.fail_over(A);
    world.work_among(&ALL, |_| false);
    world.propose(A);
    world.sync(A);
    beat(&mut world, A);
    beat(&mut world, A);
    assert!(world.serves(A) && world.commit(C) == world.end(A));
    world
}

fn beat(world: &mut World, at: usize) {
    world.tick(at);
    world.work_among(&ALL, |_| false);
}

fn is_ready(world: &World) -> bool {
    world.is_sent(|message| matches!(message, Message::Ready(_)))
}

/// B asks A to hand over to C; A is ready, and B does not know yet. The last entry is on its way
/// while they do that.
fn ready() -> World {
    let mut world = three();
    world.propose(A);
    assert_eq!(world.switch_over(B, C, 5_000), Ok(()));
    world.work_among(&ALL, is_ready);
    assert!(is_ready(&world) && world.serves(A) && !world.admits(A));
    world
}

// Without a heartbeat, and while A has a lease. Planted: `applied_waits_for_a_heartbeat`.
#[test]
fn a_switchover_waits_for_nothing_but_answers() {
    let mut world = ready();
    assert!(world.has_lease(A));
    let end = world.end(A);
    world.work_among(&ALL, |_| false);
    assert!(world.serves(C) && !world.leads(A) && world.admits(C));
    let leads = Some((Term(2), MemberId(2)));
    assert_eq!(world.topology().leader, leads);
    assert!(world.commit(C) > end, "what was admitted, and the barrier");
    beat(&mut world, C);
    assert!(world.same_log(A, C));
}

// Planted: `the_old_leader_is_not_waited_for`.
#[test]
fn the_old_leader_is_heard_before_another_leads() {
    let mut world = ready();
    world.deliver_from(A, B);
    // C and B promise before A hears of it.
    world.work_among(&[B, C], |_| false);
    assert!(!world.leads(C));
    world.work_among(&ALL, |_| false);
    assert!(world.serves(C), "no lease is waited out");
    // One that does not answer is not waited for long.
    let mut world = ready();
    world.deliver_from(A, B);
    world.lose();
    world.crash(A);
    for _ in 0..8 {
        world.pass(250);
        world.tick(B);
        world.tick(C);
        world.work_among(&[B, C], |_| false);
    }
    assert!(world.serves(C));
}

// Seen to fail with nothing said to a request that comes again.
#[test]
fn a_request_that_is_lost_or_comes_twice_is_as_good_as_one() {
    let mut world = three();
    assert_eq!(world.switch_over(B, C, 5_000), Ok(()));
    world.lose();
    // Asked again, and again.
    world.tick(B);
    world.tick(B);
    world.work_among(&ALL, is_ready);
    world.lose();
    world.tick(B);
    world.work_among(&ALL, |_| false);
    assert!(world.serves(C));
    // All that is left of it says nothing to anybody.
    beat(&mut world, C);
    assert!(world.serves(C) && world.admits(C));
    assert_eq!(world.topology().term, Term(2));
}

// Seen to fail with refusals not heard.
#[test]
fn a_leader_that_dies_meanwhile_is_replaced_like_any_other() {
    let mut world = three();
    assert_eq!(world.switch_over(B, C, 5_000), Ok(()));
    world.work_among(&ALL, |world| !world.admits(A));
    world.lose();
    world.crash(A);
    world.start(A);
    assert!(!world.leads(A), "it leads no more");
    // B asks whoever is there, and is told.
    world.tick(B);
    world.work_among(&ALL, |_| false);
    let refused = Some(SwitchError::NotLeading);
    assert_eq!(world.switching(B), (false, refused));
    world.heal();
}

// Planted: `admission_stays_closed`.
#[test]
fn a_coordinator_that_dies_leaves_a_leader_that_admits_again() {
    let mut world = ready();
    world.lose();
    world.crash(B);
    let mut waited = 0;
    while !world.admits(A) {
        world.pass(250);
        world.tick(A);
        world.work_among(&[A, C], |_| false);
        waited += 250;
        assert!(waited < 11_000, "closed for ever");
    }
    assert!(world.serves(A) && waited > 9_000);
    world.propose(A);
    world.sync(A);
    world.work_among(&[A, C], |_| false);
    assert_eq!(world.commit(A), world.end(A));
}

// Planted: `the_coordinator_waits_for_ever`.
#[test]
fn an_answer_that_comes_late_wins_no_term() {
    let mut world = ready();
    world.pass(5_100);
    world.deliver_from(A, B);
    assert_eq!(world.topology().term, Term(1));
    world.tick(B);
    world.work_among(&ALL, |_| false);
    let member = MemberId(2);
    let slow = Some(SwitchError::TooSlow { member });
    assert_eq!(world.switching(B), (false, slow));
    assert!(world.serves(A) && world.admits(A), "A was told");
}

// Planted: `a_switchover_ends_a_failover`.
#[test]
fn a_failover_of_somebody_else_goes_before() {
    let mut world = ready();
    world.fail_over(C);
    world.deliver_from(A, B);
    assert_eq!(world.topology().term, Term(2), "no term was won");
    assert_eq!(world.switching(B), (false, Some(SwitchError::Pending)));
    world.work_among(&ALL, |_| false);
    assert!(ALL.iter().any(|at| world.serves(*at) && world.admits(*at)));
    // Nor is one begun while the topology has no leader of its newest term.
    world.fail_over(C);
    let refused = world.switch_over(B, C, 5_000);
    assert_eq!(refused, Err(SwitchError::Pending));
}

// Seen to fail with the leader of the record not looked at.
#[test]
fn what_the_topology_alone_speaks_against_is_not_asked() {
    let mut world = World::new(1, Box::new(SemiSync::new(1)), "a b c", "");
    let refused = world.switch_over(B, C, 5_000);
    assert_eq!(refused, Err(SwitchError::NotLeading));
    let mut world = three();
    let member = MemberId(0);
    let refused = world.switch_over(B, A, 5_000);
    assert_eq!(refused, Err(SwitchError::Leads { member }));
}

// Planted: `who_cannot_apply_leads`, `an_apply_error_is_not_told`.
#[test]
fn a_member_that_cannot_apply_acknowledges_and_does_not_lead() {
    let mut world = three();
    world.apply_fails(B);
    // B alone has the newest entry, which is committed with it.
    world.propose(A);
    world.sync(A);
    world.work_among(&[A, B], |_| false);
    let end = world.end(A);
    assert_eq!(world.commit(A), end);
    world.lose();
    world.crash(A);
    world.pass(1_100);
    world.fail_over(B);
    world.work_among(&[B, C], |_| false);
    assert!(world.serves(C) && world.commit(C) > end, "with B's log");
    // It hands over to no such member either.
    world.start(A);
    beat(&mut world, C);
    assert_eq!(world.switch_over(A, B, 5_000), Ok(()));
    world.work_among(&ALL, |_| false);
    let member = MemberId(1);
    let refused = Some(SwitchError::CannotApply { member });
    assert_eq!(world.switching(A), (false, refused));
    // A start makes its trees again.
    world.crash(B);
    world.start(B);
    world.heal();
}

// Planted: `what_is_applied_is_not_compared`.
#[test]
fn of_equal_logs_the_one_that_is_applied_further_leads() {
    for (behind, leads) in [(B, C), (C, B)] {
        let mut world = three();
        world.propose(A);
        world.sync(A);
        world.among(&ALL, |_| false);
        world.tick(A);
        world.among(&ALL, |_| false);
        assert!(world.commit(B) == world.end(A) && world.commit(C) == world.end(A));
        world.apply(leads);
        world.lose();
        world.crash(A);
        world.pass(1_100);
        world.fail_over(behind);
        world.among(&[B, C], |_| false);
        assert!(world.serves(leads));
    }
}
