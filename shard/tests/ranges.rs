//! Key ranges and their texts: the values of Vitess, and laws over random ranges.
//!
//! The oracle of the laws is a set of sample ids: a range is what it says it contains.
//!
//! Seen to fail, each mistake alone: an end counted as part of its range, an open end compared as
//! the least id in `intersects`, `contains_range` without its end, a prefix without carry, a join
//! in one order only, bounds of the generator rounded up, the prefix `00` taken for all ids.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

use proptest::prelude::*;
use terrane_shard::{
    KeyRange, KeyspaceId, RoutingEpoch, ShardMap, even_names, even_ranges, parse_ranges,
};

fn id(text: &str) -> KeyspaceId {
    text.parse().unwrap()
}

fn range(text: &str) -> KeyRange {
    text.parse().unwrap()
}

fn names(ranges: &[KeyRange]) -> Vec<String> {
    ranges.iter().map(ToString::to_string).collect()
}

// Values: vitess go/vt/key/key_test.go, TestCompare, TestLess, TestUint64Key.
#[test]
fn ids_compare_without_zeros_at_their_end() {
    assert_eq!(id("80"), id("8000"));
    assert_eq!(id("11223344"), id("1122334400000000"));
    assert_eq!(id("00"), KeyspaceId::MIN);
    assert!(id("01") < id("02"));
    assert!(id("3000") > id("20"));
    assert!(id("1122") < id("112200000000000000000001"));
    assert!(id("ffffffffffffffff") < id("ffffffffffffffff01"));
    let words = [
        (1, "0000000000000001"),
        (0x7fff_ffff_ffff_ffff, "7fffffffffffffff"),
        (0x8000_0000_0000_0000, "80"),
        (u64::MAX, "ffffffffffffffff"),
        (0, ""),
    ];
    for (word, text) in words {
        assert_eq!(KeyspaceId::from_word(word).to_string(), text);
        assert_eq!(KeyspaceId::from_word(word), id(text));
    }
}

// Values: vitess go/vt/key/key_test.go, TestKeyRangeContiguous, TestKeyRangeIntersect and
// TestKeyRangeEqual; the last three rows are those that Vitess answers otherwise (`80-` before
// `-80`) or does not ask.
#[test]
fn two_ranges_are_neighbours_meet_or_are_equal() {
    let rows = [
        ("-40", "40-80", true, false, false),
        (
            "40-80",
            "8000000000000000-c000000000000000",
            true,
            false,
            false,
        ),
        (
            "4000000000000000-8000000000000000",
            "80-c0",
            true,
            false,
            false,
        ),
        ("40-80", "80-c0", true, false, false),
        ("40-80", "-40", false, false, false),
        ("40-80", "c0-", false, false, false),
        ("-80", "00-8000", false, true, true),
        ("-8000", "-8000000000000000", false, true, true),
        ("-", "-40", false, true, false),
        ("-", "-", false, true, true),
        ("0", "-", false, true, true),
        ("4000-8000", "20-40", false, false, false),
        ("-80", "80-", true, false, false),
        ("40-80", "60-a0", false, true, false),
        ("40-80", "10-50", false, true, false),
        ("40-80", "50-60", false, true, false),
        ("40-80", "30-90", false, true, false),
        ("4000-", "40-", false, true, true),
        ("80-", "c0-", false, true, false),
        ("-80", "-40", false, true, false),
        ("80-", "-80", false, false, false),
        ("-", "80-", false, true, false),
        ("40-", "-", false, true, false),
    ];
    for (a, b, follows, meets, equal) in rows {
        let (a, b) = (range(a), range(b));
        assert_eq!(a.is_followed_by(&b), follows, "{a} {b}");
        assert_eq!(a.intersects(&b), meets, "{a} {b}");
        assert_eq!(b.intersects(&a), meets, "{b} {a}");
        assert_eq!(a == b, equal, "{a} {b}");
    }
}

// Values: vitess go/vt/key/key_test.go, TestKeyRangeContains, TestKeyRangeContainsKeyRange.
#[test]
fn a_range_holds_its_start_and_not_its_end() {
    assert!(range("3000000000000000-").contains(&id("3000000000000000")));
    assert!(!range("-3000000000000000").contains(&id("30")));
    assert!(range("30-").contains(&id("4000000000000000")));
    assert!(!range("30-").contains(&id("20")));
    assert!(KeyRange::ALL.contains(&KeyspaceId::MIN));
    assert!(range("db-").contains(&id(&"ff".repeat(255))));
    let rows = [
        ("-", "-", true),
        ("-", "80-c0", true),
        ("40-60", "4000-6000", true),
        ("40-80", "40-50", true),
        ("4000-8000", "70-80", true),
        ("40-80", "5000-7000", true),
        ("-c0", "-", false),
        ("80-", "-", false),
        ("40-80", "60-a0", false),
        ("40-80", "40-", false),
    ];
    for (outer, inner, expected) in rows {
        let found = range(outer).contains_range(&range(inner));
        assert_eq!(found, expected, "{outer} {inner}");
    }
}

// Values: vitess go/vt/key/key_test.go, TestKeyRangeAdd.
#[test]
fn neighbours_join_in_either_order() {
    let rows = [
        ("-80", "80-", Some("-")),
        ("80-", "-80", Some("-")),
        ("-40", "40-80", Some("-80")),
        ("40-80", "-40", Some("-80")),
        ("40-80", "80-c0", Some("40-c0")),
        ("80-c0", "40-80", Some("40-c0")),
        ("80-", "-40", None),
        ("-40", "80-", None),
        ("-", "-", None),
        ("-", "80-", None),
    ];
    for (a, b, joined) in rows {
        assert_eq!(range(a).join(&range(b)), joined.map(range), "{a} {b}");
    }
}

// Values: vitess go/vt/vtgate/vindexes/cfc_test.go, TestDestinationKeyRangeFromPrefix.
#[test]
fn a_prefix_ends_where_its_last_byte_is_one_more() {
    let rows: [(&[u8], &str); 12] = [
        (&[3, 123, 255], "037bff-037c"),
        (&[3, 123, 255, 6, 7], "037bff0607-037bff0608"),
        (&[255, 255, 255], "ffffff-"),
        (&[], "-"),
        (&[213], "d5-d6"),
        (&[213, 7], "d507-d508"),
        (&[213, 255], "d5ff-d6"),
        (&[1, 255, 255], "01ffff-02"),
        (&[255], "ff-"),
        (&[255, 255], "ffff-"),
        // Zeros of a prefix count, though an id does not keep them.
        (&[0], "-01"),
        (&[128, 0], "80-8001"),
    ];
    for (prefix, expected) in rows {
        let found = KeyRange::of_prefix(prefix).unwrap();
        assert_eq!(found.to_string(), expected, "{prefix:?}");
    }
}

// Values: vitess go/vt/key/key_test.go, TestIsValidKeyRange and TestParseShardingSpec.
#[test]
fn texts_are_read_as_vitess_reads_them() {
    for text in ["-", "00-", "-80", "40-80", "80-", "a0-", "-A0", "0"] {
        assert!(text.parse::<KeyRange>().is_ok(), "{text}");
    }
    for text in [
        "", "11", "-1", "-111", "1-2", "x-80", "-80x", "select", "+", "--", "40--80", "-40-",
    ] {
        assert!(text.parse::<KeyRange>().is_err(), "{text}");
    }
    let spec = parse_ranges("-4000000000000000-8000000000000000-").unwrap();
    assert_eq!(names(&spec), ["-40", "40-80", "80-"]);
    assert_eq!(names(&parse_ranges("-").unwrap()), ["-"]);
    assert_eq!(names(&parse_ranges("0").unwrap()), ["-"]);
    assert_eq!(
        names(&parse_ranges("40-80-c0").unwrap()),
        ["40-80", "80-c0"]
    );
}

// Values: vitess go/vt/key/key_test.go, TestGenerateShardRanges (all of its lists for 7, 49, 103
// and 107; the ends of those for 256 and 512), TestEvenShardsKeyRange.
#[test]
fn even_ranges_have_the_names_of_vitess() {
    assert_eq!(even_names(1).unwrap(), ["-"]);
    assert_eq!(even_names(2).unwrap(), ["-80", "80-"]);
    let of = |n: usize| even_names(n).unwrap().join(" ");
    assert_eq!(of(7), "-24 24-49 49-6d 6d-92 92-b6 b6-db db-");
    let bounds = [
        (
            49,
            "05 0a 0f 14 1a 1f 24 29 2f 34 39 3e 43 49 4e 53 58 5e 63 68 6d 72 78 7d 82 87 \
             8d 92 97 9c a1 a7 ac b1 b6 bc c1 c6 cb d0 d6 db e0 e5 eb f0 f5 fa",
        ),
        (
            103,
            "02 04 07 09 0c 0e 11 13 16 18 1b 1d 20 22 25 27 2a 2c 2f 31 34 36 39 3b 3e 40 \
             43 45 48 4a 4d 4f 52 54 56 59 5b 5e 60 63 65 68 6a 6d 6f 72 74 77 79 7c 7e 81 \
             83 86 88 8b 8d 90 92 95 97 9a 9c 9f a1 a4 a6 a9 ab ad b0 b2 b5 b7 ba bc bf c1 \
             c4 c6 c9 cb ce d0 d3 d5 d8 da dd df e2 e4 e7 e9 ec ee f1 f3 f6 f8 fb fd",
        ),
        (
            107,
            "02 04 07 09 0b 0e 10 13 15 17 1a 1c 1f 21 23 26 28 2b 2d 2f 32 34 37 39 3b 3e \
             40 42 45 47 4a 4c 4e 51 53 56 58 5a 5d 5f 62 64 66 69 6b 6e 70 72 75 77 7a 7c \
             7e 81 83 85 88 8a 8d 8f 91 94 96 99 9b 9d a0 a2 a5 a7 a9 ac ae b1 b3 b5 b8 ba \
             bd bf c1 c4 c6 c8 cb cd d0 d2 d4 d7 d9 dc de e0 e3 e5 e8 ea ec ef f1 f4 f6 f8 \
             fb fd",
        ),
    ];
    for (n, bounds) in bounds {
        let sides: Vec<&str> = [""]
            .into_iter()
            .chain(bounds.split(' '))
            .chain([""])
            .collect();
        let expected: Vec<String> = sides
            .windows(2)
            .map(|s| format!("{}-{}", s[0], s[1]))
            .collect();
        assert_eq!(even_names(n).unwrap(), expected);
    }
    let wide = even_names(512).unwrap();
    assert_eq!(wide[..3], ["-0080", "0080-0100", "0100-0180"]);
    assert_eq!(wide[256], "8000-8080");
    assert_eq!(wide[510..], ["ff00-ff80", "ff80-"]);
    let bytes = even_names(256).unwrap();
    assert_eq!((&bytes[1][..], &bytes[255][..]), ("01-02", "ff-"));
}

#[test]
fn even_ranges_are_a_partition_for_every_number() {
    for n in (1..=4096).chain([65_535, 65_536]) {
        let ranges = even_ranges(n).unwrap();
        let map = ShardMap::new(RoutingEpoch(0), ranges.clone()).unwrap();
        assert_eq!(map.shards().len(), n);
        // Texts take most of the time: all of two digits, some of four.
        if n <= 300 || n % 97 == 0 {
            let texts = even_names(n).unwrap();
            let read: Vec<KeyRange> = texts.iter().map(|text| range(text)).collect();
            assert_eq!(read, ranges, "{n}");
        }
        // The sizes differ by one step at most: two digits up to 256, four above.
        let step = if n <= 256 { 1_u128 << 56 } else { 1 << 48 };
        let size = |range: &KeyRange| {
            let end = range.end().map_or(1 << 64, |end| u128::from(end.word()));
            end - u128::from(range.start().word())
        };
        let sizes = ranges.iter().map(size);
        let (least, most) = (sizes.clone().min().unwrap(), sizes.max().unwrap());
        assert!(most - least <= step, "{n}: {least} to {most}");
    }
}

/// Bytes that often agree, with zeros and ff at all places.
fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        3 => Just(0_u8),
        3 => Just(0xff),
        3 => Just(1),
        2 => Just(0x80),
        2 => any::<u8>(),
    ];
    prop::collection::vec(byte, 0..=most)
}

fn any_id() -> impl Strategy<Value = KeyspaceId> {
    bytes(12).prop_map(|bytes| KeyspaceId::new(&bytes).unwrap())
}

fn any_range() -> impl Strategy<Value = KeyRange> {
    (any_id(), prop::option::of(any_id())).prop_filter_map("empty", |(a, b)| match b {
        Some(b) if b < a => KeyRange::new(b, Some(a)).ok(),
        b => KeyRange::new(a, b).ok(),
    })
}

/// Ids at and around the bounds of ranges: where two ranges differ, they differ on one of these.
fn samples(ranges: &[&KeyRange]) -> Vec<KeyspaceId> {
    let bounds = ranges.iter().flat_map(|r| [Some(r.start()), r.end()]);
    let mut ids = vec![KeyspaceId::MIN, id(&"ff".repeat(20))];
    ids.extend(bounds.flatten().cloned());
    ids
}

fn filled(bytes: &[u8]) -> Vec<u8> {
    let mut filled = bytes.to_vec();
    filled.resize(64, 0);
    filled
}

proptest! {
    #[test]
    fn ids_are_in_the_order_of_their_bytes_filled_up(a in bytes(20), b in bytes(20)) {
        let (x, y) = (KeyspaceId::new(&a).unwrap(), KeyspaceId::new(&b).unwrap());
        prop_assert_eq!(x.cmp(&y), filled(&a).cmp(&filled(&b)));
        prop_assert_eq!(x.to_bytes().len(), x.len());
        prop_assert_eq!(KeyspaceId::new(&x.to_bytes()).unwrap(), x.clone());
        prop_assert_eq!(x.to_string().parse::<KeyspaceId>().unwrap(), x);
    }

    #[test]
    fn a_range_is_read_as_it_is_shown(range in any_range()) {
        prop_assert_eq!(range.to_string().parse::<KeyRange>().unwrap(), range.clone());
        let spec = parse_ranges(&range.to_string()).unwrap();
        prop_assert_eq!(spec, vec![range]);
    }

    #[test]
    fn ranges_agree_with_the_ids_they_contain(a in any_range(), b in any_range(), at in any_id()) {
        let ids = samples(&[&a, &b]);
        let both = |id: &&KeyspaceId| a.contains(id) && b.contains(id);
        prop_assert_eq!(a.intersects(&b), ids.iter().any(|id| both(&id)));
        prop_assert_eq!(a.intersection(&b).is_some(), a.intersects(&b));
        if let Some(common) = a.intersection(&b) {
            for id in ids.iter().chain([&at]) {
                prop_assert_eq!(common.contains(id), both(&id));
            }
        }
        let inside = ids.iter().all(|id| !b.contains(id) || a.contains(id));
        let ends = a.end().is_none() || b.end().is_some();
        prop_assert_eq!(a.contains_range(&b), inside && ends && a.start() <= b.start()
            && (a.end().is_none() || b.end() <= a.end()));
        prop_assert_eq!(a.contains_range(&b), a.intersection(&b).as_ref() == Some(&b));
    }

    #[test]
    fn a_split_is_two_neighbours_that_join(range in any_range(), at in any_id(), id in any_id()) {
        match range.split_at(&at) {
            Err(_) => prop_assert!(!range.contains(&at) || *range.start() == at),
            Ok((below, above)) => {
                prop_assert!(below.is_followed_by(&above) && !above.is_followed_by(&below));
                prop_assert!(!below.intersects(&above));
                prop_assert_eq!(below.contains(&id) || above.contains(&id), range.contains(&id));
                prop_assert_eq!(below.join(&above), Some(range.clone()));
                prop_assert_eq!(above.join(&below), Some(range));
            }
        }
    }

    #[test]
    fn a_prefix_holds_what_begins_with_it(prefix in bytes(6), other in bytes(12)) {
        let range = KeyRange::of_prefix(&prefix).unwrap();
        let begins = filled(&other).starts_with(&prefix);
        prop_assert_eq!(range.contains(&KeyspaceId::new(&other).unwrap()), begins);
    }
}
