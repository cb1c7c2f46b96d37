//! The recent-writes index by itself: claims, versions, validation, collection.

use std::collections::BTreeMap;

use super::*;

const TREE: TreeId = TreeId(300);

fn key(text: &str) -> Arc<[u8]> {
    Arc::from(text.as_bytes())
}

/// A committed write of `value` over `before`.
fn write(recent: &Recent, name: &str, ts: u64, before: Option<&str>, ghost: bool) {
    let owner = Owner::new(ts);
    let key = key(name);
    assert!(matches!(
        recent.claim(TREE, &key, &owner, None),
        Claim::Granted(_)
    ));
    owner.set_stamp(Ts(ts));
    recent.push(TREE, &key, Ts(ts), before.map(str::as_bytes), ghost);
    recent.release(TREE, &key, &owner);
    owner.released();
}

#[test]
fn a_reader_gets_the_version_of_its_time() {
    let recent = Recent::new();
    write(&recent, "a", 10, None, false);
    write(&recent, "a", 20, Some("ten"), false);
    write(&recent, "a", 30, Some("twenty"), true);
    let seen = |at| recent.seen(TREE, b"a", Ts(at));
    assert_eq!(seen(5), Seen::Older(Ts::ZERO, None));
    assert_eq!(
        seen(10),
        Seen::Older(Ts(10), Some(Arc::from(b"ten".as_slice())))
    );
    assert_eq!(
        seen(29),
        Seen::Older(Ts(20), Some(Arc::from(b"twenty".as_slice())))
    );
    assert_eq!(seen(30), Seen::Leaf(Ts(30)));
    assert_eq!(recent.seen(TREE, b"b", Ts(1)), Seen::Leaf(Ts::ZERO));
}

#[test]
fn a_second_push_of_one_commit_changes_nothing() {
    let recent = Recent::new();
    let (owner, name) = (Owner::new(1), key("a"));
    assert!(matches!(
        recent.claim(TREE, &name, &owner, None),
        Claim::Granted(Ts::ZERO)
    ));
    recent.push(TREE, &name, Ts(10), Some(b"old"), false);
    let bytes = recent.bytes();
    recent.push(TREE, &name, Ts(10), Some(b"NEW"), false);
    assert_eq!(recent.bytes(), bytes);
    assert_eq!(
        recent.seen(TREE, &name, Ts(9)),
        Seen::Older(Ts::ZERO, Some(Arc::from(b"old".as_slice())))
    );
}

#[test]
fn claims_exclude_each_other_and_honour_the_snapshot() {
    let recent = Recent::new();
    write(&recent, "a", 10, None, false);
    let (mine, other, name) = (Owner::new(1), Owner::new(2), key("a"));
    assert!(matches!(
        recent.claim(TREE, &name, &mine, Some(Ts(9))),
        Claim::Newer(Ts(10))
    ));
    assert!(matches!(
        recent.claim(TREE, &name, &mine, Some(Ts(10))),
        Claim::Granted(Ts(10))
    ));
    assert!(
        matches!(recent.claim(TREE, &name, &mine, None), Claim::Granted(_)),
        "again"
    );
    let Claim::Held(holder) = recent.claim(TREE, &name, &other, None) else {
        panic!("held")
    };
    assert_eq!(holder.age(), 1);
    recent.release(TREE, &name, &other);
    assert!(
        matches!(recent.claim(TREE, &name, &other, None), Claim::Held(_)),
        "not its to give"
    );
    recent.release(TREE, &name, &mine);
    assert!(matches!(
        recent.claim(TREE, &name, &other, None),
        Claim::Granted(_)
    ));
}

#[test]
fn an_aborted_claim_leaves_nothing_behind() {
    let recent = Recent::new();
    let (owner, name) = (Owner::new(1), key("fresh"));
    recent.claim(TREE, &name, &owner, None);
    assert!(recent.contains(TREE, &name));
    recent.release(TREE, &name, &owner);
    assert!(!recent.contains(TREE, &name));
    assert_eq!((recent.bytes(), recent.entries()), (0, 0));
}

#[test]
fn validation_finds_commits_and_stamped_intents_in_keys_and_ranges() {
    let recent = Recent::new();
    write(&recent, "b", 10, None, false);
    write(&recent, "b", 20, None, false);
    let me = Owner::new(9);
    let asked = |after, upto| Asked {
        after: Ts(after),
        upto: Ts(upto),
        owner: &me,
    };
    assert!(
        recent.changed(&asked(5, 10), TREE, b"b"),
        "also if a later one lies above the bound"
    );
    assert!(!recent.changed(&asked(10, 19), TREE, b"b"));
    assert!(!recent.changed(&asked(20, 99), TREE, b"b"));
    let range = |after, upto, lower: &'static str, upper: &'static str| {
        let (lower, upper) = (lower.as_bytes(), upper.as_bytes());
        let bounds = (Bound::Included(lower), Bound::Excluded(upper));
        recent.range_changed(&asked(after, upto), TREE, bounds.0, bounds.1)
    };
    assert!(range(5, 99, "a", "c") && range(5, 99, "b", "c"));
    assert!(!range(5, 99, "a", "b") && !range(5, 99, "c", "d") && !range(20, 99, "a", "c"));

    // An intent counts from its stamp on, unless it is the asker's own.
    let other = Owner::new(1);
    recent.claim(TREE, &key("x"), &other, None);
    assert!(!recent.changed(&asked(20, 30), TREE, b"x"), "no stamp yet");
    other.set_stamp(Ts(25));
    assert!(recent.changed(&asked(20, 30), TREE, b"x") && range(20, 30, "w", "z"));
    assert!(
        !recent.changed(&asked(20, 24), TREE, b"x"),
        "stamped above the bound"
    );
    let own = Asked {
        after: Ts(20),
        upto: Ts(30),
        owner: &other,
    };
    assert!(!recent.changed(&own, TREE, b"x"));
}

#[test]
fn the_collector_keeps_what_a_reader_at_the_horizon_sees() {
    let recent = Recent::new();
    for (ts, before) in [(10, None), (20, Some("ten")), (30, Some("twenty"))] {
        write(&recent, "a", ts, before, false);
    }
    assert_eq!(recent.collect(TREE, b"a", Ts(20)), Collected::Kept);
    assert_eq!(
        recent.seen(TREE, b"a", Ts(20)),
        Seen::Older(Ts(20), Some(Arc::from(b"twenty".as_slice())))
    );
    assert_eq!(recent.seen(TREE, b"a", Ts(19)), Seen::Gone);
    assert_eq!(recent.collect(TREE, b"a", Ts(29)), Collected::Kept);
    assert_eq!(recent.collect(TREE, b"a", Ts(30)), Collected::Left);
    assert_eq!((recent.bytes(), recent.entries()), (0, 0));
}

#[test]
fn a_ghost_leaves_with_its_entry_also_when_an_intent_was_in_the_way() {
    let recent = Recent::new();
    write(&recent, "a", 10, Some("old"), true);
    let (owner, name) = (Owner::new(1), key("a"));
    recent.claim(TREE, &name, &owner, None);
    assert_eq!(recent.collect(TREE, b"a", Ts(10)), Collected::Kept, "R2");
    recent.release(TREE, &name, &owner);
    assert_eq!(recent.take_leftover(), vec![(TREE, name)]);
    assert_eq!(recent.collect(TREE, b"a", Ts(10)), Collected::LeftGhost);
}

/// Random commits, snapshots and collections of one index against all versions ever written.
#[test]
fn every_snapshot_at_or_above_the_horizon_reads_its_own_history() {
    let mut state = 0x1234_5678_u64;
    let mut random = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for _ in 0..200 {
        let recent = Recent::new();
        let mut leaf: BTreeMap<String, Option<String>> = BTreeMap::new();
        let mut history: Vec<(u64, BTreeMap<String, Option<String>>)> = vec![(0, leaf.clone())];
        let (mut ts, mut horizon) = (0, 0);
        for _ in 0..60 {
            if random(4) > 0 {
                ts += 1 + random(3);
                let name = format!("k{}", random(3));
                let before = leaf.get(&name).cloned().flatten();
                let value = (random(4) > 0).then(|| format!("v{ts}"));
                write(&recent, &name, ts, before.as_deref(), value.is_none());
                leaf.insert(name, value);
                history.push((ts, leaf.clone()));
            } else {
                horizon = horizon.max(random(ts + 1));
                for name in ["k0", "k1", "k2"] {
                    recent.collect(TREE, name.as_bytes(), Ts(horizon));
                }
            }
            for at in horizon..=ts {
                let state = &history
                    .iter()
                    .rev()
                    .find(|(begin, _)| *begin <= at)
                    .unwrap()
                    .1;
                for name in ["k0", "k1", "k2"] {
                    let found = match recent.seen(TREE, name.as_bytes(), Ts(at)) {
                        Seen::Leaf(_) => leaf.get(name).cloned().flatten(),
                        Seen::Older(_, value) => {
                            value.map(|value| String::from_utf8(value.to_vec()).unwrap())
                        }
                        Seen::Gone => panic!("{name} at {at} is gone, horizon {horizon}"),
                    };
                    assert_eq!(found, state.get(name).cloned().flatten(), "{name} at {at}");
                }
            }
        }
    }
}
