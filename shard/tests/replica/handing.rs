//! A leader that is asked to hand over, told what the others say.

use terrane_shard::log::{Kind, Term};
use terrane_shard::message::{Ack, Message};
use terrane_shard::policy::MemberId;
use terrane_shard::replica::{ChangeError, Effect, Event, IN_FLIGHT_BYTES, Time};
use terrane_shard::switchover::{Attempt, SwitchError};
use terrane_wal::lsn::Lsn;

use crate::leading::Leader;

/// Who is to take over, and who asks.
const TARGET: u32 = 1;
const BY: u32 = 2;

fn attempt(asked: u64) -> Attempt {
    Attempt {
        term: Term(2),
        to: MemberId(TARGET),
        asked: Time(asked),
    }
}

fn asks(leader: &mut Leader, attempt: Attempt) -> Vec<Effect> {
    let closed_ms = 400;
    leader.says(BY, Message::HandOver { attempt, closed_ms })
}

fn refused(attempt: Attempt, error: SwitchError) -> Effect {
    let message = Message::Refused { attempt, error };
    let to = MemberId(BY);
    Effect::Send { to, message }
}

fn ready() -> Effect {
    Effect::Send {
        to: MemberId(BY),
        message: Message::Ready(attempt(7)),
    }
}

/// A leader with an entry behind its barrier, up to 13, that all have, and that was asked.
fn asked() -> Leader {
    let mut leader = Leader::new();
    leader.write(Kind::Data, 10);
    leader.step(Event::Synced { lsn: Lsn(13) });
    leader.acks(TARGET, 13, 7, 2);
    leader.acks(2, 13, 7, 2);
    assert_eq!(leader.replica.commit(), Lsn(13));
    assert_eq!(asks(&mut leader, attempt(7)), [Effect::CloseAdmission]);
    leader
}

/// The target's answer to what was sent just now.
fn says(leader: &mut Leader, ack: Ack) -> Vec<Effect> {
    leader.says(TARGET, Message::Ack(ack))
}

// Planted: `hand_over_before_it_is_drained`.
#[test]
fn what_was_admitted_gets_into_the_log_first() {
    let mut leader = asked();
    leader.acks(TARGET, 13, 7, 3);
    assert_eq!(leader.acks(TARGET, 13, 7, 4), []);
    // One more that was admitted before.
    leader.write(Kind::Data, 10);
    leader.step(Event::Synced { lsn: Lsn(23) });
    leader.acks(TARGET, 23, 7, 5);
    let out = leader.step(Event::Drained);
    assert!(
        matches!(out[..], [Effect::Send { .. }]),
        "a heartbeat: {out:?}"
    );
    assert_eq!(leader.acks(TARGET, 23, 7, 6), [ready()]);
    assert_eq!(leader.acks(TARGET, 23, 7, 7), [], "said once");
    assert_eq!(asks(&mut leader, attempt(7)), [ready()], "unless asked");
}

// Planted: `hand_over_what_is_not_committed`.
#[test]
fn no_caller_is_left_without_an_answer() {
    let mut leader = asked();
    leader.write(Kind::Data, 10);
    leader.step(Event::Drained);
    // The target has it; the leader's own disk does not.
    leader.acks(TARGET, 23, 7, 3);
    assert_eq!(leader.acks(TARGET, 23, 7, 4), []);
    let out = leader.step(Event::Synced { lsn: Lsn(23) });
    assert!(out.contains(&Effect::Commit(Lsn(23))));
    assert_eq!(leader.acks(TARGET, 23, 7, 5), [ready()]);
}

// Planted: `hand_over_before_the_log_is_there`, `hand_over_before_it_is_applied`,
// `hand_over_to_the_silent`.
#[test]
fn who_takes_over_has_all_and_is_there() {
    let mut leader = asked();
    leader.write(Kind::Data, 10);
    leader.step(Event::Synced { lsn: Lsn(23) });
    leader.acks(2, 23, 7, 3);
    assert_eq!(leader.replica.commit(), Lsn(23));
    let mut late = leader.ack(23, 7, 3);
    leader.step(Event::Drained);
    let lacks = Ack {
        applied: Lsn(23),
        ..leader.ack(13, 7, 4)
    };
    assert!(!says(&mut leader, lacks).contains(&ready()));
    let applies = Ack {
        applied: Lsn(13),
        ..leader.ack(23, 7, 5)
    };
    assert_eq!(says(&mut leader, applies), []);
    late.count = (1, 6);
    let out = says(&mut leader, late);
    assert_eq!(out, [ready()], "it has answered a later one meanwhile");

    let mut leader = asked();
    let late = leader.ack(13, 7, 3);
    leader.now += 5;
    leader.step(Event::Drained);
    leader.acks(2, 13, 7, 4);
    let out = says(&mut leader, late);
    assert_eq!(out, [], "that was before it was told");
    assert_eq!(leader.acks(TARGET, 13, 7, 4), [ready()]);
}

// Planted: `admission_stays_closed`, `an_overtaken_request_closes_again`.
#[test]
fn admission_is_opened_again_in_time() {
    let mut leader = asked();
    assert_eq!(asks(&mut leader, attempt(7)), [], "once");
    leader.now += 390;
    let ticks = leader.step(Event::Tick);
    assert!(!ticks.contains(&Effect::OpenAdmission));
    leader.now += 10;
    let out = leader.step(Event::Tick);
    let slow = SwitchError::TooSlow {
        member: MemberId(TARGET),
    };
    assert!(out.ends_with(&[Effect::OpenAdmission, refused(attempt(7), slow)]));
    // The same request, which something else overtook, closes nothing; a new one does.
    assert_eq!(asks(&mut leader, attempt(7)), [refused(attempt(7), slow)]);
    assert_eq!(leader.step(Event::Drained), [], "too late");
    leader.acks(TARGET, 13, 7, 3);
    assert_eq!(asks(&mut leader, attempt(8)), [Effect::CloseAdmission]);
    // A leader that is fenced admits nothing at all; whoever leads next does.
    let out = leader.says(2, Message::Fence { term: Term(3) });
    let promise = Effect::SavePromise(Term(3));
    assert_eq!(out, [Effect::Demote, promise]);
    leader.now += 5_000;
    assert_eq!(leader.step(Event::Tick), []);
}

// Planted: `any_resume_opens`.
#[test]
fn a_coordinator_that_gives_up_opens_what_it_closed() {
    let mut leader = asked();
    for (by, attempt) in [(BY, attempt(6)), (0, attempt(7))] {
        assert_eq!(leader.says(by, Message::Resume(attempt)), []);
    }
    let out = leader.says(BY, Message::Resume(attempt(7)));
    assert_eq!(out[0], Effect::OpenAdmission);
    assert_eq!(leader.says(BY, Message::Resume(attempt(7))), []);
}

// Planted: `members_change_while_handing_over`.
#[test]
fn members_do_not_change_while_another_is_to_lead() {
    let mut leader = asked();
    // Member 2 lost its disk and has everything again.
    let named = |out: &[Effect]| {
        let mut configs = out.iter();
        configs.any(|effect| matches!(effect, Effect::WriteConfig(_)))
    };
    let out = leader.acks(2, 13, 9, 1);
    assert!(!named(&out), "{out:?}");
    let config = (**leader.replica.config()).clone();
    let pending = leader.replica.change(config);
    assert_eq!(pending, Err(ChangeError::Pending));
    leader.says(BY, Message::Resume(attempt(7)));
    assert!(named(&leader.acks(2, 13, 9, 2)));
}

// Planted: `hand_over_to_any_data`.
#[test]
fn a_target_that_can_lead_no_more_ends_it() {
    let member = MemberId(TARGET);
    let mut leader = asked();
    let unable = Ack {
        able: false,
        ..leader.ack(13, 7, 3)
    };
    let error = SwitchError::CannotApply { member };
    let end = [Effect::OpenAdmission, refused(attempt(7), error)];
    assert!(says(&mut leader, unable).ends_with(&end));
    let mut leader = asked();
    let out = leader.acks(TARGET, 13, 9, 1);
    let error = SwitchError::Incarnation { member };
    assert!(out.contains(&refused(attempt(7), error)), "{out:?}");
}

/// What an operator is told who asks for this, of a leader that lacks nothing.
fn answer(to: u32, leader: &mut Leader) -> (SwitchError, String) {
    let attempt = Attempt {
        to: MemberId(to),
        ..attempt(7)
    };
    let out = asks(leader, attempt);
    let [Effect::Send { message, .. }] = &out[..] else {
        panic!("{out:?}");
    };
    let Message::Refused { error, .. } = message else {
        panic!("{message:?}");
    };
    (*error, error.to_string())
}

// Planted: `hand_over_to_any_data`.
#[test]
fn switchovers_that_cannot_be_are_refused() {
    let member = MemberId(TARGET);
    let (error, text) = answer(0, &mut Leader::new());
    let leads = MemberId(0);
    assert_eq!(error, SwitchError::Leads { member: leads });
    assert_eq!(
        text,
        "switchover: expected another member, found member 0, which leads"
    );
    let (error, text) = answer(9, &mut Leader::new());
    let stranger = MemberId(9);
    assert_eq!(error, SwitchError::MayNotLead { member: stranger });
    assert_eq!(
        text,
        "switchover: expected a member that may lead, found member 9, which may not"
    );
    let mut leader = Leader::new();
    leader.acks(TARGET, 0, 9, 1);
    assert_eq!(
        answer(TARGET, &mut leader).0,
        SwitchError::Incarnation { member }
    );
    let mut leader = Leader::new();
    let unable = Ack {
        able: false,
        ..leader.ack(3, 7, 2)
    };
    says(&mut leader, unable);
    assert_eq!(
        answer(TARGET, &mut leader).0,
        SwitchError::CannotApply { member }
    );
}

// Planted: `any_lag_is_small`.
#[test]
fn who_is_far_behind_does_not_take_over() {
    let member = MemberId(TARGET);
    // In its log.
    let mut leader = Leader::new();
    leader.write(Kind::Data, IN_FLIGHT_BYTES + 1);
    let (error, text) = answer(TARGET, &mut leader);
    assert_eq!(error, SwitchError::Behind { member });
    assert_eq!(
        text,
        "switchover: expected member 1 to answer and to have nearly all of the log, found it \
         silent or behind"
    );
    // In its trees.
    let applies = Ack {
        applied: Lsn(3),
        ..leader.ack(4 + IN_FLIGHT_BYTES, 7, 2)
    };
    says(&mut leader, applies);
    assert_eq!(
        answer(TARGET, &mut leader).0,
        SwitchError::Behind { member }
    );
    // It is silent.
    let mut leader = Leader::new();
    leader.now += 1_000;
    assert_eq!(
        answer(TARGET, &mut leader).0,
        SwitchError::Behind { member }
    );
}

// Planted: `members_change_while_handing_over`.
#[test]
fn one_change_at_a_time_and_by_the_leader_alone() {
    // Another is under way.
    let (error, text) = answer(2, &mut asked());
    assert_eq!(error, SwitchError::Pending);
    assert_eq!(
        text,
        "switchover: expected no other change under way, found one"
    );
    let mut leader = asked();
    leader.says(2, Message::Fence { term: Term(3) });
    let stale = Effect::Send {
        to: MemberId(BY),
        message: Message::Stale { term: Term(3) },
    };
    assert_eq!(asks(&mut leader, attempt(8)), [stale], "it leads no more");
    let next = Attempt {
        term: Term(3),
        ..attempt(8)
    };
    let error = SwitchError::NotLeading;
    assert_eq!(asks(&mut leader, next), [refused(next, error)]);
}
