//! When a leader counts as gone, and when it does not.

// A helper of a test ends the test on the spot.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use terrane_shard::log::{Config, Incarnation, Term};
use terrane_shard::policy::{Member, MemberId, Quorums, SemiSync};
use terrane_shard::replica::Time;
use terrane_shard::suspicion::{Patience, Reason, Suspicion, Word};

const ME: MemberId = MemberId(0);
const LEADER: MemberId = MemberId(1);
const OTHER: MemberId = MemberId(2);
const STRANGER: MemberId = MemberId(3);
const TERM: Term = Term(4);

fn config(members: u32, acks: usize) -> Arc<Config> {
    let members: Vec<Member> = (0..members).map(|id| Member::voter(id, "a")).collect();
    let quorums = Quorums::new(&SemiSync::new(acks), &members).unwrap();
    let incarnations = vec![Incarnation(7); members.len()];
    Arc::new(Config::new(quorums, incarnations).unwrap())
}

/// One of three members, who knows no leader.
fn new(id: MemberId, now: u64) -> Suspicion {
    Suspicion::new(id, config(3, 1), Patience::default(), Time(now))
}

/// A member that has followed its leader for more than a minute, until 100 s.
fn member() -> Suspicion {
    let mut suspicion = new(ME, 0);
    suspicion.heard(TERM, LEADER, Time(10_000));
    suspicion.heard(TERM, LEADER, Time(100_000));
    suspicion
}

fn opinion(unheard_ms: u64) -> Word {
    Word::Opinion {
        term: TERM,
        unheard_ms,
    }
}

// Planted: `one_opinion_suffices`.
#[test]
fn one_member_alone_decides_nothing() {
    let mut suspicion = member();
    assert_eq!(suspicion.asks(Time(101_499)), []);
    let asks = [LEADER, OTHER].map(|of| (of, Word::Ask { term: TERM }));
    let asks = asks.to_vec();
    assert_eq!(suspicion.asks(Time(101_500)), asks);
    assert_eq!(suspicion.verdict(Time(101_500)), None);
    assert_eq!(suspicion.asks(Time(101_900)), [], "asked just now");
    assert_eq!(suspicion.asks(Time(102_000)), asks, "and again");
    // Who has heard it, the leader that leads, and whoever is no member say nothing that counts.
    for (from, unheard_ms) in [(OTHER, 1_499), (LEADER, 0), (STRANGER, 9_000), (ME, 9_000)] {
        assert_eq!(
            suspicion.word(from, opinion(unheard_ms), Time(102_010)),
            None
        );
        assert_eq!(suspicion.verdict(Time(102_020)), None, "{from}");
    }
    suspicion.word(OTHER, opinion(1_500), Time(102_030));
    let gone = suspicion.verdict(Time(102_040));
    let (term, reason) = gone.expect("two agree");
    assert_eq!(term, TERM);
    assert_eq!(
        reason.to_string(),
        "not heard for 2040 ms here, nor lately by 1 more"
    );
}

// Seen to fail with opinions kept for ever, and with those before the heartbeat kept.
#[test]
fn an_opinion_is_of_its_moment() {
    let mut suspicion = member();
    suspicion.word(OTHER, opinion(1_500), Time(101_500));
    assert!(suspicion.verdict(Time(101_999)).is_some());
    assert_eq!(suspicion.verdict(Time(102_000)), None, "it is old");
    suspicion.word(OTHER, opinion(2_000), Time(102_010));
    suspicion.heard(TERM, LEADER, Time(102_020));
    assert_eq!(suspicion.verdict(Time(102_030)), None, "it was heard");
    suspicion.word(OTHER, opinion(9_000), Time(103_500));
    suspicion.word(OTHER, opinion(3), Time(103_510));
    assert_eq!(
        suspicion.verdict(Time(103_600)),
        None,
        "it has changed its mind"
    );
    let old = Word::Opinion {
        term: Term(3),
        unheard_ms: 9_000,
    };
    suspicion.word(OTHER, old, Time(103_610));
    assert_eq!(
        suspicion.verdict(Time(103_620)),
        None,
        "another leader is meant"
    );
}

// Planted: `no_calm_after_a_failover`.
#[test]
fn a_new_leader_is_left_alone_for_a_while() {
    let mut suspicion = member();
    suspicion.heard(Term(5), OTHER, Time(110_000));
    let reason = Reason::Stalled;
    suspicion.certain(TERM, reason);
    assert_eq!(
        suspicion.gone(Time(120_000)),
        None,
        "that was another leader"
    );
    suspicion.certain(Term(5), reason);
    assert_eq!(suspicion.verdict(Time(169_999)), None);
    assert_eq!(
        suspicion.gone(Time(169_999)),
        Some(reason),
        "for an operator"
    );
    assert_eq!(suspicion.verdict(Time(170_000)), Some((Term(5), reason)));
    // The next leader has nothing to do with it; words of an older one are not heard.
    suspicion.heard(Term(6), LEADER, Time(170_010));
    suspicion.heard(Term(5), OTHER, Time(300_000));
    assert_eq!(suspicion.gone(Time(170_020)), None);
    let ask = Word::Ask { term: Term(6) };
    let answer = suspicion.word(OTHER, ask, Time(300_000));
    let unheard_ms = 300_000 - 170_010;
    assert_eq!(
        answer,
        Some(Word::Opinion {
            term: Term(6),
            unheard_ms
        })
    );
    let of_old = Word::Ask { term: Term(5) };
    assert_eq!(suspicion.word(OTHER, of_old, Time(300_000)), None);
}

#[test]
fn who_leads_or_knows_no_leader_suspects_nobody() {
    let mut suspicion = new(ME, 0);
    assert_eq!(suspicion.asks(Time(999_999)), []);
    assert_eq!(suspicion.verdict(Time(999_999)), None);
    for now in (1_000_000..1_100_000).step_by(250) {
        suspicion.heard(TERM, ME, Time(now));
        assert_eq!(suspicion.asks(Time(now + 249)), []);
        assert_eq!(suspicion.verdict(Time(now + 249)), None);
    }
}

// Planted: `no_opinion_of_a_term_not_heard_of`. Found by seed 4021: the last leader was told of a
// higher term, whose failover came to nothing, and only it knew of its own; it suspected nobody,
// and those who knew of leaders before got no answer.
#[test]
fn a_leader_that_leads_no_more_says_so() {
    let mut leader = new(LEADER, 0);
    leader.heard(TERM, LEADER, Time(100_000));
    let ask = Word::Ask { term: TERM };
    let mut other = member();
    let answer = leader.word(ME, ask, Time(101_500)).expect("its own term");
    other.word(LEADER, answer, Time(101_500));
    assert!(other.verdict(Time(101_500)).is_some());
    // It asks, too, and is believed by those who never heard of its term.
    assert_eq!(leader.asks(Time(170_000)), [ME, OTHER].map(|of| (of, ask)));
    let mut third = new(OTHER, 160_000);
    let answer = third
        .word(LEADER, ask, Time(170_010))
        .expect("a higher one");
    assert_eq!(answer, opinion(10_010));
    leader.word(OTHER, answer, Time(170_020));
    assert!(leader.verdict(Time(170_020)).is_some());
}

// Planted: `failovers_end_each_other`.
#[test]
fn a_failover_that_was_begun_is_given_time() {
    let mut suspicion = member();
    suspicion.fenced(TERM, Time(101_400));
    suspicion.word(OTHER, opinion(1_500), Time(101_500));
    assert!(
        suspicion.verdict(Time(101_500)).is_some(),
        "that is the leader's"
    );
    suspicion.fenced(Term(5), Time(101_510));
    assert_eq!(suspicion.verdict(Time(101_520)), None);
    for (now, gone) in [(106_509, false), (106_510, true)] {
        suspicion.word(OTHER, opinion(6_000), Time(now));
        assert_eq!(suspicion.verdict(Time(now)).is_some(), gone);
    }
    // It found a leader; whether that one is gone is another question.
    suspicion.heard(Term(5), OTHER, Time(106_600));
    suspicion.certain(Term(5), Reason::Stalled);
    assert!(suspicion.verdict(Time(166_600)).is_some());
}

// A member whose own link is broken, among others that hear the leader well.
#[test]
fn a_member_that_is_cut_off_begins_no_failover() {
    let mut cut_off = member();
    let mut other = new(OTHER, 0);
    for now in (100_000..160_000).step_by(250) {
        let now = Time(now);
        other.heard(TERM, LEADER, now);
        assert_eq!(cut_off.verdict(now), None);
        for (to, word) in cut_off.asks(now) {
            if to == LEADER {
                continue; // The broken link.
            }
            let answer = other.word(ME, word, now).expect("of the same term");
            cut_off.word(OTHER, answer, now);
        }
    }
}

// Found by seed 9765: two that a change had left out, and that did not hear of it, agreed against a
// leader that was well. Planted: `two_are_always_enough`.
#[test]
fn too_few_to_end_a_failover_begin_none() {
    let mut suspicion = Suspicion::new(ME, config(5, 2), Patience::default(), Time(0));
    suspicion.heard(TERM, LEADER, Time(10_000));
    let now = Time(100_000);
    suspicion.word(OTHER, opinion(90_000), now);
    assert_eq!(suspicion.verdict(now), None, "it takes three");
    suspicion.word(MemberId(4), opinion(3), now);
    assert_eq!(suspicion.verdict(now), None);
    suspicion.word(MemberId(3), opinion(90_000), now);
    assert!(suspicion.verdict(now).is_some());
    // Whoever knows that it is no member begins nothing.
    let mut out = Suspicion::new(STRANGER, config(3, 1), Patience::default(), Time(0));
    out.heard(TERM, LEADER, Time(10_000));
    out.word(ME, opinion(90_000), now);
    out.word(OTHER, opinion(90_000), now);
    assert_eq!(out.verdict(now), None);
}
