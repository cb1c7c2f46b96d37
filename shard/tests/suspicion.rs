//! When a leader counts as gone, and when it does not.

use terrane_shard::log::Term;
use terrane_shard::policy::MemberId;
use terrane_shard::replica::Time;
use terrane_shard::suspicion::{Patience, Reason, Suspicion, Word};

const ME: MemberId = MemberId(0);
const LEADER: MemberId = MemberId(1);
const OTHER: MemberId = MemberId(2);
const READER: MemberId = MemberId(3);
const TERM: Term = Term(4);

/// A member that has followed its leader for more than a minute, until 100 s.
fn member() -> Suspicion {
    let voters = vec![ME, LEADER, OTHER];
    let mut suspicion = Suspicion::new(ME, voters, Patience::default(), Time(0));
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
    let asks = vec![(OTHER, Word::Ask { term: TERM })];
    assert_eq!(suspicion.asks(Time(101_500)), asks);
    assert_eq!(suspicion.verdict(Time(101_500)), None);
    assert_eq!(suspicion.asks(Time(101_900)), [], "asked just now");
    assert_eq!(suspicion.asks(Time(102_000)), asks, "and again");
    // Who has heard it, whoever is no voter, and the leader itself say nothing that counts.
    for (from, unheard_ms) in [
        (OTHER, 1_499),
        (READER, 9_000),
        (LEADER, 9_000),
        (ME, 9_000),
    ] {
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
        "not heard for 2040 ms here, and no sooner at member 2"
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
    let voters = vec![ME, LEADER, OTHER];
    let mut suspicion = Suspicion::new(ME, voters, Patience::default(), Time(0));
    assert_eq!(suspicion.asks(Time(999_999)), []);
    assert_eq!(suspicion.verdict(Time(999_999)), None);
    suspicion.heard(TERM, ME, Time(1_000_000));
    assert_eq!(suspicion.asks(Time(9_000_000)), []);
    assert_eq!(suspicion.verdict(Time(9_000_000)), None);
}

// A member whose own link is broken, among others that hear the leader well.
#[test]
fn a_member_that_is_cut_off_begins_no_failover() {
    let mut cut_off = member();
    let mut other = Suspicion::new(OTHER, vec![ME, LEADER, OTHER], Patience::default(), Time(0));
    for now in (100_000..160_000).step_by(250) {
        let now = Time(now);
        other.heard(TERM, LEADER, now);
        assert_eq!(cut_off.verdict(now), None);
        for (to, word) in cut_off.asks(now) {
            assert_eq!(to, OTHER);
            let answer = other.word(ME, word, now).expect("of the same term");
            cut_off.word(OTHER, answer, now);
        }
    }
}
