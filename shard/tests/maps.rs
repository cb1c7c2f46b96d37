//! Shard maps: routing beside a linear scan, ranges of shards, replacement by newer maps.
//!
//! Seen to fail, each mistake alone: a tie of the first eight bytes given to its last shard, an end
//! between two shards that takes the one behind it, an exact range that lets its last shard stick
//! out, a diff that forgets what comes after the last common shard, `replaces` without its epochs,
//! a map that is not asked for gaps, overlaps or shards that stand twice.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

use std::collections::BTreeSet;

use proptest::prelude::*;
use terrane_shard::{
    Destination, KeyRange, KeyspaceId, MapError, RoutingEpoch, ShardId, ShardMap, even_ranges,
    parse_ranges,
};

fn map(epoch: u64, spec: &str) -> ShardMap {
    ShardMap::new(RoutingEpoch(epoch), parse_ranges(spec).unwrap()).unwrap()
}

fn names(shards: &[ShardId]) -> String {
    let names: Vec<String> = shards.iter().map(ToString::to_string).collect();
    names.join(" ")
}

#[test]
fn every_id_has_one_shard() {
    let map = map(1, "-40-80-c0-");
    for (id, shard) in [
        ("", "-40"),
        ("3fffffffffffffffffff", "-40"),
        ("40", "40-80"),
        ("7f", "40-80"),
        ("80", "80-c0"),
        ("800001", "80-c0"),
        ("ff", "c0-"),
    ] {
        assert_eq!(map.route(&id.parse().unwrap()).to_string(), shard, "{id}");
    }
    let whole = ShardMap::unsharded(RoutingEpoch(7));
    assert_eq!(names(whole.shards()), "-");
    assert_eq!(whole.epoch(), RoutingEpoch(7));
    assert_eq!(whole.route(&"ff".parse().unwrap()).to_string(), "-");
    // The last shard of 103 is open: ids from ff on are served (vitess issues 16033 and 18641).
    let many = ShardMap::new(RoutingEpoch(0), even_ranges(103).unwrap()).unwrap();
    assert_eq!(many.route(&"ff".parse().unwrap()).to_string(), "fd-");
}

#[test]
fn a_range_goes_to_the_shards_that_serve_some_of_it() {
    let map = map(1, "-40-80-c0-");
    for (range, some, all) in [
        ("-", "-40 40-80 80-c0 c0-", true),
        ("40-80", "40-80", true),
        ("40-c0", "40-80 80-c0", true),
        ("50-60", "40-80", false),
        ("50-80", "40-80", false),
        ("40-8000000001", "40-80 80-c0", false),
        ("bf-", "80-c0 c0-", false),
        ("-01", "-40", false),
        ("c000-", "c0-", true),
    ] {
        let range: KeyRange = range.parse().unwrap();
        assert_eq!(names(map.route_range(&range)), some, "{range}");
        let exact = map.route_exactly(&range);
        assert_eq!(exact.is_ok(), all, "{range}");
        assert!(exact.is_err() || names(exact.unwrap()) == some);
        let to = Destination::Range(range);
        assert_eq!(names(map.resolve(&to)), some);
    }
    assert_eq!(map.resolve(&Destination::None).len(), 0);
    assert_eq!(map.resolve(&Destination::All).len(), 4);
    let id = Destination::Id("41".parse().unwrap());
    assert_eq!(names(map.resolve(&id)), "40-80");
}

#[test]
fn a_map_gives_way_to_a_newer_one_only() {
    let (old, new) = (map(3, "-40-80-"), map(4, "-40-60-80-"));
    let change = new.replaces(&old).unwrap();
    assert_eq!(names(&change.gone), "40-80");
    assert_eq!(names(&change.come), "40-60 60-80");
    assert_eq!(names(&change.stay), "-40 80-");
    assert!(!change.is_empty());
    let back = old.replaces(&new).unwrap_err();
    assert_eq!(
        back.to_string(),
        "shard map: expected an epoch above 4, found 3"
    );
    assert!(old.replaces(&map(3, "-40-8000-")).unwrap().is_empty());
    assert!(map(9, "-40-80-").replaces(&old).unwrap().is_empty());
    let reused = map(3, "-80-").replaces(&old).unwrap_err();
    let epoch = RoutingEpoch(3);
    assert_eq!(reused, MapError::EpochReused { epoch });
}

#[test]
fn a_map_is_shown_as_a_table() {
    assert_eq!(
        map(12, "-40-8080-c0-").to_string(),
        "epoch 12\n\
         shard    share\n\
         -40        250\n\
         40-8080    251\n\
         8080-c0    248\n\
         c0-        250"
    );
    assert_eq!(format!("{:?}", map(2, "-80-")), "ShardMap(2: -80 80-)");
}

#[test]
fn ranges_in_any_order_and_any_text_make_one_map() {
    let texts = ["c000-", "-4000000000000000", "80-C0", "40-80"];
    let ranges = texts.map(|text| text.parse::<KeyRange>().unwrap());
    let found = ShardMap::new(RoutingEpoch(1), ranges).unwrap();
    assert_eq!(found, map(1, "-40-80-c0-"));
    assert_eq!("8000-".parse::<ShardId>(), "80-".parse());
}

/// Bounds of which many agree in their first eight bytes.
fn bounds() -> impl Strategy<Value = BTreeSet<KeyspaceId>> {
    let head = prop_oneof![
        Just(vec![0_u8; 8]),
        Just(vec![0x80; 8]),
        Just(vec![0xff; 8]),
        prop::collection::vec(any::<u8>(), 1..4),
    ];
    let tail = prop::collection::vec(prop_oneof![Just(0_u8), Just(1), any::<u8>()], 0..4);
    let bound = (head, tail).prop_map(|(head, tail)| KeyspaceId::new(&[head, tail].concat()));
    prop::collection::btree_set(bound.prop_map(Result::unwrap), 0..40)
}

fn ranges(bounds: &BTreeSet<KeyspaceId>) -> Vec<KeyRange> {
    let mut left = KeyRange::ALL;
    let mut ranges = Vec::new();
    for bound in bounds {
        if let Ok((below, above)) = left.split_at(bound) {
            ranges.push(below);
            left = above;
        }
    }
    ranges.push(left);
    ranges
}

proptest! {
    #[test]
    fn routes_agree_with_a_linear_scan(bounds in bounds(), more in bounds()) {
        let ranges = ranges(&bounds);
        let map = ShardMap::new(RoutingEpoch(1), ranges.clone()).unwrap();
        for id in bounds.iter().chain(&more) {
            let scan: Vec<&KeyRange> = ranges.iter().filter(|r| r.contains(id)).collect();
            prop_assert_eq!(scan, vec![map.route(id).range()]);
        }
    }

    #[test]
    fn ranges_of_shards_agree_with_a_linear_scan(bounds in bounds(), more in bounds()) {
        let ranges = ranges(&bounds);
        let map = ShardMap::new(RoutingEpoch(1), ranges.clone()).unwrap();
        let ids: Vec<&KeyspaceId> = bounds.iter().take(8).chain(more.iter().take(8)).collect();
        let mut asked: Vec<KeyRange> = Vec::new();
        for start in &ids {
            let ends = ids.iter().map(|end| Some((*end).clone())).chain([None]);
            asked.extend(ends.filter_map(|end| KeyRange::new((*start).clone(), end).ok()));
        }
        for range in asked {
            let scan: Vec<&KeyRange> = ranges.iter().filter(|r| r.intersects(&range)).collect();
            let found: Vec<&KeyRange> =
                map.route_range(&range).iter().map(ShardId::range).collect();
            prop_assert_eq!(&scan, &found);
            let exact = scan.iter().all(|shard| range.contains_range(shard));
            prop_assert_eq!(map.route_exactly(&range).is_ok(), exact);
        }
    }

    #[test]
    fn a_diff_is_what_sets_say(old in bounds(), new in bounds()) {
        let both: BTreeSet<KeyspaceId> = old.union(&new).cloned().collect();
        for new in [&new, &both] {
            let (old, new) = (ranges(&old), ranges(new));
            let old_map = ShardMap::new(RoutingEpoch(1), old.clone()).unwrap();
            let new_map = ShardMap::new(RoutingEpoch(2), new.clone()).unwrap();
            let diff = new_map.replaces(&old_map).unwrap();
            let set = |ranges: Vec<KeyRange>| ranges.into_iter().collect::<BTreeSet<_>>();
            let (old, new) = (set(old), set(new));
            let list = |shards: &[ShardId]| {
                shards.iter().map(|s| s.range().clone()).collect::<Vec<_>>()
            };
            prop_assert_eq!(list(&diff.gone), old.difference(&new).cloned().collect::<Vec<_>>());
            prop_assert_eq!(list(&diff.come), new.difference(&old).cloned().collect::<Vec<_>>());
            prop_assert_eq!(list(&diff.stay), old.intersection(&new).cloned().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_map_with_a_range_too_few_or_too_many_is_none(
        bounds in bounds(), drop in any::<prop::sample::Index>(), twice in any::<bool>(),
    ) {
        let mut ranges = ranges(&bounds);
        let at = drop.index(ranges.len());
        let one = ranges[at].clone();
        let many = ranges.len() > 1;
        if twice {
            ranges.insert(0, one.clone());
            let error = ShardMap::new(RoutingEpoch(1), ranges).unwrap_err();
            prop_assert_eq!(error, MapError::Duplicate { range: one });
        } else {
            ranges.remove(at);
            let error = ShardMap::new(RoutingEpoch(1), ranges).unwrap_err();
            let (start, end) = (one.start().clone(), one.end().cloned());
            let gap = if many { MapError::Gap { start, end } } else {
                MapError::ShardCount { found: 0 }
            };
            prop_assert_eq!(error, gap);
        }
    }
}
