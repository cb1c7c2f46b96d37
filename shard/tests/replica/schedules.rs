//! Schedules with a name, step by step: how other protocols lost what they had acknowledged.

use terrane_shard::log::{Config, Incarnation};
use terrane_shard::policy::{DurabilityPolicy, Member, MemberId, Quorums, SemiSync};
use terrane_shard::replica::{ChangeError, Effect};
use terrane_wal::lsn::Lsn;

use crate::world::World;

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

/// Begins a failover when no lease is left.
fn take_over(world: &mut World, at: usize) {
    world.pass(1_100);
    world.fail_over(at);
}

/// Three members, one acknowledgement, one entry a message; A leads and all have its barrier.
fn three() -> World {
    let mut world = World::new(1, Box::new(SemiSync::new(1)), "a b c", "");
    take_over(&mut world, A);
    world.among(&[A, B, C], |_| false);
    world.tick(A);
    world.among(&[A, B, C], |_| false);
    assert!(world.serves(A) && world.commit(B) == world.end(A));
    world
}

/// Writes an entry at a leader that nobody else gets.
fn write_alone(world: &mut World, at: usize) -> Lsn {
    world.propose(at);
    world.sync(at);
    world.lose();
    world.end(at)
}

// Figure 8 of the Raft paper, with three members and one acknowledgement. Planted:
// `commit_entries_of_old_terms`.
#[test]
fn an_entry_of_an_old_term_is_not_committed_by_its_copies() {
    let mut world = three();
    let old = write_alone(&mut world, A);
    world.crash(A);
    // B leads term 2, its barrier goes nowhere.
    take_over(&mut world, B);
    world.among(&[B, C], |world| world.leads(B));
    world.sync(B);
    world.lose();
    world.crash(B);
    // A leads term 3; C gets the old entry and acknowledges it, and the barrier of term 3 not.
    world.start(A);
    take_over(&mut world, A);
    world.among(&[A, C], |world| world.end(C) >= old);
    world.deliver_from(C, A);
    assert!(world.leads(A) && world.end(C) == old);
    assert!(
        world.commit(A) < old,
        "copies of another term commit nothing"
    );
    world.lose();
    world.crash(A);
    // B's barrier of term 2 is the greater log: what A and C hold is cut off.
    world.start(B);
    take_over(&mut world, B);
    world.among(&[B, C], |_| false);
    assert!(world.serves(B));
    world.start(A);
    world.heal();
}

// A member that lost its disk forgot its promise, and an old leader uses it: what it re-admits must
// not count before it is committed. Planted: `the_newest_configuration_alone`.
#[test]
fn an_old_leader_does_not_readmit_a_wiped_member_at_an_election() {
    let mut world = three();
    // A hears nothing; B leads term 2 with C and commits.
    take_over(&mut world, B);
    world.among(&[B, C], |_| false);
    world.propose(B);
    world.among(&[B, C], |_| false);
    assert!(world.serves(B) && world.commit(B) == world.end(B));
    world.lose();
    // C loses its disk; A, which still believes to lead term 1, fills it again.
    world.wipe(C);
    for _ in 0..4 {
        world.tick(A);
        world.among(&[A, C], |_| false);
    }
    assert!(world.leads(A) && world.end(C) == world.end(A));
    // Term 3 with A and C: B is not there, and C's promise of term 2 is gone.
    take_over(&mut world, A);
    for _ in 0..4 {
        world.tick(A);
        world.among(&[A, C], |_| false);
    }
    assert!(!world.serves(A), "C is nobody yet");
    world.heal();
}

// Answers are cumulative.
#[test]
fn a_lost_acknowledgement_heals_with_the_next_heartbeat() {
    let mut world = three();
    world.propose(A);
    world.sync(A);
    let end = world.end(A);
    // B and C get it; their answers are lost.
    world.among(&[A, B, C], |world| {
        world.end(B) == end && world.end(C) == end
    });
    world.lose();
    assert!(world.commit(A) < end);
    world.tick(A);
    world.among(&[A, B, C], |_| false);
    assert_eq!(world.commit(A), end);
}

#[test]
fn the_tail_of_a_leader_that_restarts_is_cut_off() {
    let mut world = three();
    let tail = write_alone(&mut world, A);
    world.crash(A);
    take_over(&mut world, B);
    world.among(&[B, C], |_| false);
    world.start(A);
    assert!(
        world.end(A) == tail && !world.leads(A),
        "it follows, with its tail"
    );
    world.tick(B);
    world.among(&[A, B, C], |_| false);
    assert!(world.same_log(A, B));
}

// The entry was on nobody's disk but B's before its leader died: it survives.
#[test]
fn an_entry_shipped_before_the_leaders_own_sync_survives_with_its_holder() {
    let mut world = three();
    world.propose(A);
    let end = world.end(A);
    world.among(&[A, B], |world| world.end(B) == end);
    world.sync(B);
    world.lose();
    world.crash(A);
    world.set_back(A, Lsn(end.0 - 1));
    take_over(&mut world, C);
    world.among(&[B, C], |_| false);
    assert!(world.serves(B), "B has the greater log");
    world.start(A);
    assert!(
        !world.leads(A) && world.end(A) < end,
        "a restarted leader leads nothing"
    );
    world.tick(B);
    world.among(&[A, B, C], |_| false);
    assert!(world.commit(A) >= end && world.same_log(A, B));
}

// Planted: `forgotten_acknowledgements_count`.
#[test]
fn a_member_whose_disk_was_set_back_counts_no_more() {
    let mut world = three();
    let before = world.end(B);
    // C is away: A and B commit.
    world.propose(A);
    world.sync(A);
    world.among(&[A, B], |_| false);
    let kept = world.end(A);
    assert_eq!(world.commit(A), kept);
    world.crash(B);
    world.set_back(B, before);
    world.start(B);
    world.tick(A);
    world.among(&[A, B], |_| false);
    // It has everything again, and is not believed: who knows what else it forgot.
    world.propose(A);
    world.sync(A);
    world.among(&[A, B], |_| false);
    world.tick(A);
    world.among(&[A, B], |_| false);
    assert_eq!((world.end(B), world.commit(A)), (world.end(A), kept));
    world.tick(A);
    world.among(&[A, C], |_| false);
    world.tick(A);
    world.among(&[A, C], |_| false);
    assert_eq!(world.commit(A), world.end(A));
}

/// Members as said, with the data that they have.
fn config(members: Vec<Member>) -> Config {
    config_of(&SemiSync::new(1), members)
}

fn config_of(policy: &dyn DurabilityPolicy, members: Vec<Member>) -> Config {
    let incarnation = |member: &Member| Incarnation(u64::from(member.id.0) + 100);
    let incarnations = members.iter().map(incarnation).collect();
    let quorums = Quorums::new(policy, &members).unwrap();
    Config::new(quorums, incarnations).unwrap()
}

/// Three members that A leads, and a host that is none.
fn with_a_spare() -> World {
    let mut world = World::new(1, Box::new(SemiSync::new(1)), "a b c", "d");
    take_over(&mut world, A);
    world.among(&[A, B, C], |_| false);
    world
}

fn voters() -> Vec<Member> {
    let zones = ["a", "b", "c"].into_iter().zip(0..);
    zones.map(|(zone, id)| Member::voter(id, zone)).collect()
}

fn with(member: Member) -> Config {
    config([voters(), vec![member]].concat())
}

fn refused(world: &mut World, at: usize, config: Config) -> (ChangeError, String) {
    let error = world.replica_mut(at).change(config).unwrap_err();
    (error, error.to_string())
}

#[test]
fn changes_that_cannot_be_made_are_refused() {
    let mut world = with_a_spare();
    let (error, text) = refused(&mut world, A, with(Member::voter(3, "d")));
    assert_eq!(
        error,
        ChangeError::Behind {
            member: MemberId(3)
        }
    );
    assert_eq!(
        text,
        "change of members: expected member 3 to be a reader that has all committed entries before \
         it votes, found it without"
    );
    let (error, text) = refused(&mut world, B, with(Member::reader(3, "d")));
    assert_eq!(error, ChangeError::NotLeading);
    assert_eq!(
        text,
        "change of members: expected the leader, found another"
    );
    let (error, _) = refused(&mut world, A, config(voters()[1..].to_vec()));
    assert_eq!(
        error,
        ChangeError::LeaderLeaves {
            leader: MemberId(0)
        }
    );
    let other = config(voters()).with_incarnation(MemberId(2), Incarnation(9));
    let (error, _) = refused(&mut world, A, other);
    assert_eq!(
        error,
        ChangeError::Incarnation {
            member: MemberId(2)
        }
    );
}

// Seen to fail with a voter taken that lags, and with a second change taken beside the first.
#[test]
fn a_member_reads_before_it_votes_and_changes_come_one_by_one() {
    let mut world = with_a_spare();
    // As a reader first; then it has the log, and may vote.
    let join = world
        .replica_mut(A)
        .change(with(Member::reader(3, "d")))
        .unwrap();
    assert!(matches!(join, Effect::WriteConfig(_)));
    world.does(A, join);
    let (error, _) = refused(&mut world, A, with(Member::reader(3, "d")));
    assert_eq!(error, ChangeError::Pending, "one is under way");
    world.sync(A);
    world.among(&[A, B, C], |_| false);
    let (error, _) = refused(&mut world, A, with(Member::voter(3, "d")));
    assert_eq!(
        error,
        ChangeError::Behind {
            member: MemberId(3)
        }
    );
    world.tick(A);
    world.among(&[0, 1, 2, 3], |_| false);
    let votes = world
        .replica_mut(A)
        .change(with(Member::voter(3, "d")))
        .unwrap();
    world.does(A, votes);
    world.sync(A);
    world.among(&[0, 1, 2, 3], |_| false);
    assert_eq!(world.commit(A), world.end(A));
    // Four voters with one acknowledgement: two that are cut off are no majority of anything, and
    // a failover needs three.
    world.crash(A);
    take_over(&mut world, 3);
    world.among(&[2, 3], |_| false);
    assert!(!world.leads(2) && !world.leads(3));
    world.among(&[1, 2, 3], |_| false);
    assert!(world.serves(1) || world.serves(2) || world.serves(3));
}

/// A has a lease by what C alone has said; B has heard nothing of it for long.
fn leased_by(world: &mut World, other: usize) {
    world.pass(1_100);
    assert!(!world.has_lease(A), "the old one is over");
    world.tick(A);
    world.among(&[A, other], |_| false);
    world.lose();
    assert!(world.has_lease(A));
}

/// Nobody of these serves as long as A may answer reads, and then somebody does.
fn serve_after_the_lease(world: &mut World, others: &[usize]) {
    let mut waited = 0;
    while !others.iter().any(|at| world.serves(*at)) {
        world.pass(50);
        others.iter().for_each(|at| world.tick(*at));
        world.among(others, |_| false);
        let serves = others.iter().any(|at| world.serves(*at));
        assert!(!serves || !world.has_lease(A), "a read of A may be stale");
        waited += 50;
        assert!(waited < 2_000, "nobody serves");
    }
    assert!(waited > 500, "the lease was waited for");
}

// Planted: `grants_end_with_the_run`.
#[test]
fn a_member_that_restarts_may_have_granted_a_lease() {
    let mut world = three();
    leased_by(&mut world, C);
    world.crash(C);
    world.start(C);
    world.fail_over(B);
    world.among(&[B, C], |_| false);
    serve_after_the_lease(&mut world, &[B, C]);
}

// Planted: `a_grant_ends_the_one_before`.
#[test]
fn a_grant_to_a_new_leader_does_not_end_that_to_the_old_one() {
    let mut world = three();
    leased_by(&mut world, C);
    // B leads term 2 and waits; C follows it already. Then term 3, and B is reached.
    world.fail_over(B);
    world.among(&[B, C], |_| false);
    assert!(world.leads(B) && !world.serves(B) && world.end(C) == world.end(B));
    world.fail_over(C);
    world.among(&[B, C], |_| false);
    serve_after_the_lease(&mut world, &[B, C]);
}

// Planted: `leases_not_waited_out`.
#[test]
fn a_lease_is_waited_out_unless_its_leader_is_reached() {
    let mut world = three();
    leased_by(&mut world, C);
    world.fail_over(B);
    world.among(&[B, C], |_| false);
    serve_after_the_lease(&mut world, &[B, C]);
    let mut world = three();
    leased_by(&mut world, C);
    world.fail_over(A);
    world.among(&[A, B, C], |_| false);
    let serves = [A, B, C].into_iter().any(|at| world.serves(at));
    assert!(serves, "a leader that answers has no lease left");
}

// Nobody is hindered, and the one that should lead does: what a planned switch ends with.
#[test]
fn who_should_lead_does_if_its_log_is_as_good() {
    let mut world = three();
    world.pass(1_100);
    world.fail_over_to(A, Some(C));
    while !world.leads(C) && world.deliver_among(&[B, C]) {}
    assert!(
        !world.leads(C),
        "A is not fenced, and two are not told of it yet"
    );
    world.among(&[A, B, C], |_| false);
    assert!(world.serves(C) && !world.leads(A));
    // B has less: C keeps the lead that it could lose to A alone.
    world.propose(C);
    world.sync(C);
    world.among(&[A, C], |_| false);
    world.lose();
    world.pass(1_100);
    world.fail_over_to(A, Some(B));
    world.among(&[A, B, C], |_| false);
    assert!(!world.serves(B) && (world.serves(A) || world.serves(C)));
}

// Planted: `a_read_by_an_old_echo`.
#[test]
fn a_read_without_a_lease_waits_for_answers_to_what_was_sent_after_it() {
    let mut world = three();
    world.pass(1_100);
    let since = world.time(A);
    assert!(!world.replica(A).led_after(since), "nobody was asked since");
    world.pass(1);
    world.tick(A);
    world.among(&[A, B, C], |_| false);
    assert!(world.replica(A).led_after(since), "B and C have answered");
    // Others lead and write; A, which does not know, finds nobody who answers.
    let since = world.time(A);
    take_over(&mut world, B);
    world.among(&[B, C], |_| false);
    world.propose(B);
    world.among(&[B, C], |_| false);
    assert!(world.serves(B) && world.leads(A) && world.commit(B) > world.commit(A));
    assert!(!world.replica(A).led_after(since));
}

// Found by seed 113518: a reader that is about to leave held what only it and the old leader had,
// and was not asked because the newest configuration does not name it. Planted:
// `who_leaves_is_not_asked`.
#[test]
fn a_member_that_leaves_still_has_what_was_committed_with_it() {
    const D: usize = 3;
    let policy = SemiSync::new(1).with_readers();
    let mut world = World::new(1, Box::new(policy), "a b r:c r:d", "");
    take_over(&mut world, A);
    world.among(&[A, B, C, D], |_| false);
    // Committed with D alone.
    world.propose(A);
    world.sync(A);
    world.among(&[A, D], |_| false);
    let end = world.end(A);
    assert_eq!(world.commit(A), end);
    // D is to leave, and is the only one that hears of it: it answers just then.
    world.tick(A);
    world.deliver_from(A, D);
    let members = vec![
        Member::voter(0, "a"),
        Member::voter(1, "b"),
        Member::reader(2, "c"),
    ];
    let without = config_of(&policy, members);
    let leave = world.replica_mut(A).change(without).unwrap();
    world.does(A, leave);
    world.deliver_from(D, A);
    world.among(&[A, D], |_| false);
    assert!(world.end(D) == world.end(A) && world.end(D) > end);
    world.lose();
    world.crash(A);
    take_over(&mut world, B);
    world.among(&[B, C, D], |_| false);
    assert!(world.serves(B) && world.commit(B) > end);
}

// Planted: `starts_not_compared`.
#[test]
fn an_old_disk_put_back_is_other_data() {
    let mut world = three();
    world.copy_disk(B);
    world.crash(B);
    world.start(B);
    // Committed with B alone.
    world.tick(A);
    world.among(&[A, B], |_| false);
    world.propose(A);
    world.sync(A);
    world.among(&[A, B], |_| false);
    let end = world.end(A);
    assert_eq!((world.commit(A), world.end(B)), (end, end));
    world.crash(B);
    world.put_back(B);
    world.start(B);
    assert!(world.end(B) < end);
    // Without A nobody knows of the entry: B and C do not lead.
    world.lose();
    world.crash(A);
    take_over(&mut world, B);
    world.among(&[B, C], |_| false);
    assert!(!world.leads(B) && !world.leads(C));
    // With A it is there again, and B is trusted with what it has now.
    world.start(A);
    world.heal();
    assert!(world.commit(B) > end);
}

// Planted: `answer_before_the_promise_is_saved`.
#[test]
fn a_promise_that_a_crash_takes_away_was_not_answered() {
    let mut world = three();
    take_over(&mut world, B);
    world.among(&[B], |_| false);
    // C has heard of term 2; the promise is still on its way to the disk.
    world.deliver_from(B, C);
    world.crash(C);
    world.start(C);
    world.among(&[B], |_| false);
    world.deliver_from(C, B);
    world.among(&[B], |_| false);
    assert!(!world.leads(B), "C would still follow A");
    world.heal();
}

// The old rule wants an acknowledgement of the one that leaves. Planted:
// `who_leaves_is_not_served`.
#[test]
fn a_member_that_leaves_is_served_until_it_is_left_out() {
    const D: usize = 3;
    let policy = SemiSync::new(2);
    let mut world = World::new(1, Box::new(policy), "a b c r:d", "");
    take_over(&mut world, A);
    let all = [A, B, C, D];
    for _ in 0..3 {
        world.tick(A);
        world.among(&all, |_| false);
    }
    assert!(world.serves(A) && world.end(D) == world.end(A));
    let members = vec![
        Member::voter(0, "a"),
        Member::voter(1, "b"),
        Member::voter(3, "d"),
    ];
    let change = world
        .replica_mut(A)
        .change(config_of(&policy, members))
        .unwrap();
    world.does(A, change);
    world.sync(A);
    for _ in 0..3 {
        world.tick(A);
        world.among(&all, |_| false);
    }
    assert_eq!(world.commit(A), world.end(A));
    assert!(world.has_lease(A));
}

// A request to copy comes again when the term has its leader, and its log has more. Planted:
// `copy_in_another_run`.
#[test]
fn a_late_request_to_copy_takes_nothing_away() {
    const H: usize = 3;
    let mut world = World::new(1, Box::new(SemiSync::new(1)), "a b c r:d", "");
    take_over(&mut world, A);
    for _ in 0..2 {
        world.tick(A);
        world.among(&[A, B, C, H], |_| false);
    }
    let base = world.end(A);
    // B leads term 2; its barrier reaches the reader alone, and B loses it.
    world.pass(1_100);
    world.fail_over_to(B, Some(B));
    world.among(&[A, B, C, H], |world| world.leads(B));
    world.deliver_from(B, H);
    world.sync(H);
    world.lose();
    world.crash(B);
    world.set_back(B, base);
    // C leads term 3; its barrier stays with it.
    world.pass(1_100);
    world.fail_over_to(C, Some(C));
    world.among(&[A, C], |world| world.leads(C));
    world.sync(C);
    world.lose();
    world.crash(C);
    world.start(B);
    // Term 4: A is asked to copy the reader's log, and the request is slow.
    take_over(&mut world, B);
    world.among(&[B, H], |_| false);
    let mut copy = None;
    while copy.is_none() && world.deliver_among(&[A, B, H]) {
        copy = world.take_copy();
    }
    let copy = copy.expect("A is to copy");
    // Then C comes back, whose log is greater, and leads with A.
    world.start(C);
    world.tick(B);
    for _ in 0..4 {
        while world.take_copy().is_some() {}
        world.among(&[B, C], |world| world.leads(C));
    }
    assert!(world.leads(C));
    world.sync(C);
    world.pass(1_100);
    for _ in 0..4 {
        world.tick(C);
        world.among(&[A, C], |_| false);
    }
    assert!(world.serves(C) && world.end(A) == world.end(C));
    let committed = world.commit(C);
    world.lose();
    // In this run and in the next one of A.
    world.deliver_again(B, A, copy.clone());
    world.among(&[A, H], |_| false);
    assert!(world.end(A) >= committed);
    world.crash(A);
    world.start(A);
    world.deliver_again(B, A, copy);
    world.among(&[A, H], |_| false);
    assert!(world.end(A) >= committed, "what was committed is there");
    world.heal();
}
