//! Keyspace ids of every vindex, as Vitess's own tests have them.
//!
//! Values are from `go/vt/vtgate/vindexes/*_test.go` of the Vitess repository (snapshot of
//! 2026-03-27), written in hex; each test names its file. Where those tests compute what they
//! expect, the values here were computed by other programs (MD5) or put together from golden ones.
//!
//! Seen to fail, each mistake alone: XXH64 highest byte first, XXH64 of the integer's bytes instead
//! of its text, NULL without a place for `xxhash`, a negative integer without one for `hash` and
//! with one for `numeric`, a fallback that is asked before a value is found to be no number, parts
//! of `cfc` not cut to their length, columns of `multicol` not filled up, what is left of
//! `multicol`'s bytes shared rounded down.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

use std::ops::Bound;
use std::sync::Arc;

use terrane_shard::{Column, Destination, KeyRange, Registry, Value, Vindex};

fn build(kind: &str, params: &[(&str, &str)]) -> Arc<dyn Vindex> {
    Registry::new().build(kind, params).unwrap()
}

/// The id, `none`, `all`, or the range.
fn shown(destination: &Destination) -> String {
    match destination {
        Destination::None => "none".to_owned(),
        Destination::All => "all".to_owned(),
        Destination::Id(id) => id.to_string(),
        Destination::Range(range) => format!("range {range}"),
    }
}

/// Checks the ids of single values, written with all their zeros.
fn check(vindex: &dyn Vindex, rows: &[(Value<'_>, &str)]) {
    for (value, expected) in rows {
        let found = vindex.map(std::slice::from_ref(value)).unwrap();
        let normal = match *expected {
            "none" => expected.to_string(),
            hex => hex
                .parse::<terrane_shard::KeyspaceId>()
                .unwrap()
                .to_string(),
        };
        assert_eq!(shown(&found), normal, "{} of {value:?}", vindex.kind());
    }
}

fn text(text: &str) -> Value<'_> {
    text.into()
}

// xxhash_test.go, TestXXHashMap and TestXXHashVerify.
#[test]
fn xxhash_takes_the_text_of_a_value() {
    let rows = [
        (text("test1"), "d01ab7e4d6978f0b"),
        (text("test2"), "87eb11714c0a0e89"),
        (
            text("testaverylongvaluetomakesurethisworks"),
            "81d8c38e0d850e6a",
        ),
        (Value::Int(1), "d46405367612b4b7"),
        (text("1"), "d46405367612b4b7"),
        (Value::Uint(1), "d46405367612b4b7"),
        (Value::Null, "99e9d85137db46ef"),
        (text(""), "99e9d85137db46ef"),
        (Value::Int(-1), "d8e2a6a7c8c7623d"),
        (Value::Uint(u64::MAX), "477cfa8d6d8f1f8d"),
        (Value::Int(i64::MAX), "b37eb01f7bffafd8"),
        (Value::Uint(i64::MAX as u64), "b37eb01f7bffafd8"),
        (Value::Int(i64::MIN), "102c27ddb26a609e"),
        // numeric_static_map_test.go, TestNumericStaticMapWithFallback.
        (Value::Int(2), "8b59801662b52160"),
    ];
    check(&*build("xxhash", &[]), &rows);
    assert_eq!(Column::default(), Column::Xxhash);
}

const HASHES: [(Value<'_>, &str); 15] = [
    (Value::Int(1), "166b40b44aba4bd6"),
    (Value::Int(2), "06e7ea22ce92708f"),
    (Value::Int(3), "4eb190c9a2fa169c"),
    (Value::Int(4), "d2fd8867d50d2dfe"),
    (Value::Int(5), "70bb023c810ca87a"),
    (Value::Int(6), "f098480ac4c4be71"),
    (Value::Int(0), "8ca64de9c1b123a7"),
    (Value::Int(-1), "355550b2150e2451"),
    (Value::Uint(u64::MAX), "355550b2150e2451"),
    (Value::Int(i64::MAX), "f77d48aadda1f1bb"),
    (Value::Uint(i64::MAX as u64), "f77d48aadda1f1bb"),
    (Value::Int(i64::MIN), "95f8a5e5dd31d900"),
    // hash_auto_test.go (of 2015), TestHashAutoConvert.
    (Value::Int(11), "aefc44491cfe474c"),
    (Value::Int(0x0100_0000_0000_0000), "0d9f279ba5d87260"),
    (Value::Int(0x0800_0000_0000_0000), "20b9e767b2fb1456"),
];

// hash_test.go, TestHashMap, TestHashVerify (a text is no number), TestHashReverseMap.
#[test]
fn hash_takes_negative_integers_and_can_be_undone() {
    let hash = build("hash", &[]);
    check(&*hash, &HASHES);
    check(
        &*hash,
        &[
            (Value::Null, "none"),
            (text("aa"), "none"),
            (text("-1"), "none"),
            (text("1"), "166b40b44aba4bd6"),
        ],
    );
    for (value, id) in HASHES {
        let number = match value {
            Value::Int(number) => number.cast_unsigned(),
            Value::Uint(number) => number,
            _ => unreachable!("all of them are integers"),
        };
        let back = hash.invert(&id.parse().unwrap()).unwrap();
        assert_eq!(back, Value::Uint(number), "{id}");
    }
}

// numeric_test.go, TestNumericMap, TestNumericVerify, TestNumericReverseMap; key_test.go,
// TestUint64Key.
#[test]
fn numeric_is_the_number() {
    let numeric = build("numeric", &[]);
    let mut rows: Vec<(Value<'_>, String)> = (1..=8)
        .map(|number| (Value::Int(number), format!("{number:016x}")))
        .collect();
    rows.push((Value::Uint(u64::MAX), "f".repeat(16)));
    rows.push((Value::Uint(1 << 63), "8000000000000000".to_owned()));
    rows.push((Value::Int(0), "0000000000000000".to_owned()));
    rows.push((text(" 10 "), "000000000000000a".to_owned()));
    for value in [text("1.1"), text("aa"), Value::Null, Value::Int(-1)] {
        rows.push((value, "none".to_owned()));
    }
    for (value, id) in &rows {
        check(&*numeric, &[(value.clone(), id)]);
    }
    let back = numeric.invert(&"0000000000000001".parse().unwrap());
    assert_eq!(back, Ok(Value::Uint(1)));
}

// reverse_bits_test.go, TestReverseBitsMap, TestReverseBitsReverseMap.
#[test]
fn reverse_bits_spreads_rising_numbers() {
    let reverse = build("reverse_bits", &[]);
    let rows = [
        (Value::Int(1), "8000000000000000"),
        (Value::Int(2), "4000000000000000"),
        (Value::Int(3), "c000000000000000"),
        (Value::Int(4), "2000000000000000"),
        (Value::Int(5), "a000000000000000"),
        (Value::Int(6), "6000000000000000"),
        (Value::Uint(u64::MAX), "ffffffffffffffff"),
        (Value::Uint(1 << 63), "0000000000000001"),
        (Value::Null, "none"),
        (Value::Int(-1), "none"),
        (text("aa"), "none"),
    ];
    check(&*reverse, &rows);
    let back = reverse.invert(&"80".parse().unwrap());
    assert_eq!(back, Ok(Value::Uint(1)));
}

// binary_test.go, TestBinaryMap, TestBinaryVerify, TestBinaryReverseMap, TestBinaryRangeMap.
#[test]
fn binary_is_the_text() {
    let binary = build("binary", &[]);
    let rows = [
        (text("test1"), "7465737431"),
        (text("test2"), "7465737432"),
        (Value::Null, ""),
        (text(""), ""),
        (text("1"), "31"),
        (Value::Int(1), "31"),
        (Value::from(&[0x8a, 0x1e][..]), "8a1e"),
        (
            Value::from(vec![0, 0, 0, 0, 0, 0, 0, 1]),
            "0000000000000001",
        ),
        (Value::from(vec![1, 0]), "01"),
    ];
    check(&*binary, &rows);
    let back = binary.invert(&"0000000000000001".parse().unwrap());
    assert_eq!(back, Ok(Value::from(vec![0, 0, 0, 0, 0, 0, 0, 1])));
    let (from, to) = (Value::from(vec![1]), Value::from(vec![0x10]));
    let below = binary.between(Bound::Included(&from), Bound::Excluded(&to));
    assert_eq!(shown(&below.unwrap()), "range 01-10");
    let with = binary.between(Bound::Included(&from), Bound::Included(&to));
    assert_eq!(shown(&with.unwrap()), "range 01-1001");
}

// binarymd5_test.go, TestBinaryMD5Map, TestBinaryMD5Verify; the last rows are the test suite of
// RFC 1321.
#[test]
fn binary_md5_is_the_digest() {
    let rows = [
        (text("test1"), "5a105e8b9d40e1329780d62ea2265d8a"),
        (text("TEST"), "033bd94b1168d7e4f0d644c3c95e35bf"),
        (text("Test"), "0cbc6611f5540bd0809a388dc95a615b"),
        (Value::Null, "d41d8cd98f00b204e9800998ecf8427e"),
        (text(""), "d41d8cd98f00b204e9800998ecf8427e"),
        (text("TEst"), "8daa64cec109d9f8083412d8e4ee22dc"),
        (text("a"), "0cc175b9c0f1b6a831c399e269772661"),
        (text("abc"), "900150983cd24fb0d6963f7d28e17f72"),
        (text("message digest"), "f96b697d7cb7938d525a2f31aaf161d0"),
    ];
    check(&*build("binary_md5", &[]), &rows);
}

// null_test.go, TestNullMap.
#[test]
fn null_is_the_first_shard_always() {
    let null = build("null", &[]);
    let mut values: Vec<Value<'_>> = (1..=6).map(Value::Int).collect();
    values.extend([text("1234567890123"), Value::Null]);
    for value in values {
        check(&*null, &[(value, "00")]);
    }
}

// numeric_static_map_test.go, TestNumericStaticMapMap, TestNumericStaticMapWithFallback,
// TestNumericStaticMapWithFallbackVerify.
#[test]
fn a_static_map_comes_before_its_fallback() {
    let plain = build("numeric_static_map", &[("json", "{\"1\": 1, \"3\": 2}")]);
    let word = |number: u64| format!("{number:016x}");
    for (number, place) in [
        (1, 1),
        (2, 2),
        (3, 2),
        (4, 4),
        (5, 5),
        (6, 6),
        (7, 7),
        (8, 8),
    ] {
        check(&*plain, &[(Value::Int(number), &word(place))]);
    }
    check(
        &*plain,
        &[
            (text("1.1"), "none"),
            (Value::Null, "none"),
            (Value::Int(-3), "none"),
        ],
    );

    let json = "{\"1\":2,\"3\":4,\"4\":5,\"5\":6,\"6\":7,\"7\":8,\"8\":9,\
                \"10\":18446744073709551615}";
    let params = [("json", json), ("fallback_type", "xxhash")];
    let hashed = build("numeric_static_map", &params);
    for (number, place) in [
        (1, 2),
        (3, 4),
        (4, 5),
        (5, 6),
        (6, 7),
        (7, 8),
        (8, 9),
        (10, u64::MAX),
    ] {
        check(&*hashed, &[(Value::Int(number), &word(place))]);
    }
    let rows = [
        (Value::Int(2), "8b59801662b52160"),
        (text("3"), "0000000000000004"),
        (text("1.1"), "none"),
        (text("test1"), "none"),
        (Value::Null, "none"),
    ];
    check(&*hashed, &rows);
    assert_eq!((hashed.cost(), hashed.kind()), (1, "numeric_static_map"));
}

// cfc_test.go, TestCFCComputeKsid, TestCFCVerifyWithHash, TestCFCMap, TestCFCPrefixMap,
// TestCFCPrefixQueryMapNoHash, TestCFCBuildPrefix. The keys are those of its cases, MD5 of their
// parts computed elsewhere; parts of XXH64 are golden ids of xxhash_test.go.
#[test]
fn cfc_joins_the_hashes_of_parts() {
    let md5 = build("cfc", &[("hash", "md5"), ("offsets", "[3,5]")]);
    let long: Vec<u8> = [5, 21, 124, 75, 5].into_iter().chain(1..=18).collect();
    let rows = [
        (Value::from(vec![12, 234, 2, 7, 1, 6]), "c3fd2df68906"),
        (Value::from(vec![5, 21, 124, 75, 5]), "e6d45c688a"),
        (
            Value::from(long),
            "e6d45c688a0f514b1f70495f72ee834a83866e3a45",
        ),
        (Value::from(vec![1, 234, 3, 12, 32, 7, 9]), "420d1b0e2c8374"),
        (text("abcde"), "9001505f02"),
        (text("abcdef"), "9001505f028f"),
        (text("12345567"), "202cb96c8399c5e0"),
        (Value::Int(12_345_567), "202cb96c8399c5e0"),
    ];
    check(&*md5, &rows);
    for (prefix, expected) in [
        ("abcd", "range 900150-900151"),
        ("abc", "range 900150-900151"),
        ("abcde", "range 9001505f02-9001505f03"),
        ("ab", "all"),
        ("", "all"),
        // Vitess answers 9001505f028f-9001505f0290, and so misses the key "abcdefg".
        ("abcdef", "range 9001505f02-9001505f03"),
    ] {
        let found = md5.prefix(prefix.as_bytes()).unwrap();
        assert_eq!(shown(&found), expected, "{prefix}");
    }

    let xxhash = build("cfc", &[("hash", "xxhash64"), ("offsets", "[5,10]")]);
    let rows = [
        (text("test1test2"), "d01ab7e4d687eb11714c"),
        (text("test2test1"), "87eb11714cd01ab7e4d6"),
        (text("test1test21"), "d01ab7e4d687eb11714cd4"),
        (
            text("test1test2testaverylongvaluetomakesurethisworks"),
            "d01ab7e4d687eb11714c81d8c38e0d850e6a",
        ),
    ];
    check(&*xxhash, &rows);

    let plain = build("cfc", &[]);
    check(
        &*plain,
        &[(Value::from(vec![3, 6, 20, 7, 60, 1]), "030614073c01")],
    );
    check(
        &*plain,
        &[
            (Value::from(vec![3, 10, 7, 200]), "030a07c8"),
            (Value::Null, ""),
        ],
    );
    for (prefix, expected) in [
        (&[3, 123, 255][..], "range 037bff-037c"),
        (&[3, 123, 255, 6, 7], "range 037bff0607-037bff0608"),
        (&[255, 255, 255], "range ffffff-"),
    ] {
        assert_eq!(shown(&plain.prefix(prefix).unwrap()), expected);
    }
    let three = build("cfc", &[("hash", "xxhash64"), ("offsets", "[1,2,3]")]);
    assert_eq!(
        (plain.prefix_cost(), three.prefix_cost()),
        (Some(2), Some(3))
    );
}

// multicol_test.go, TestMultiColMap, TestMulticolCreateVindex; the rows with `binary` and
// `column_bytes` are put together from golden ids by the rule of multicol.go.
#[test]
fn multicol_joins_the_beginnings_of_ids() {
    let (one, big, odd) = (Value::Int(1), Value::Int(256), text("abcd"));
    let three = build("multicol", &[("column_count", "3")]);
    let rows: [(&[Value<'_>], &str); 8] = [
        (&[one.clone(), one.clone(), one.clone()], "166b40166b40166b"),
        (
            &[Value::Int(255), one.clone(), one.clone()],
            "254e88166b40166b",
        ),
        (&[big.clone(), one.clone(), one.clone()], "dd7c0b166b40166b"),
        (std::slice::from_ref(&one), "range 166b40-166b41"),
        (
            &[one.clone(), one.clone()],
            "range 166b40166b40-166b40166b41",
        ),
        (&[odd.clone(), big.clone(), big.clone()], "none"),
        (&[big.clone(), big.clone(), odd.clone()], "none"),
        (&[], "all"),
    ];
    for (values, expected) in rows {
        assert_eq!(shown(&three.map(values).unwrap()), expected, "{values:?}");
    }
    assert_eq!((three.cost(), three.columns()), (3, 3));

    let params = [
        ("column_count", "3"),
        ("column_bytes", "1,,3"),
        ("column_vindex", "binary, binary_md5,hash"),
    ];
    let mixed = build("multicol", &params);
    let rows: [(&[Value<'_>], &str); 6] = [
        (
            &[text("ab"), text("test1"), one.clone()],
            "615a105e8b166b40",
        ),
        (&[text(""), text("test1"), one.clone()], "005a105e8b166b40"),
        (
            &[Value::Null, text("Test"), Value::Int(2)],
            "000cbc661106e7ea",
        ),
        (&[text("a"), text("TEST")], "range 61033bd94b-61033bd94c"),
        (&[text("")], "range -01"),
        (&[text("a"), text("b"), Value::Null], "none"),
    ];
    for (values, expected) in rows {
        assert_eq!(shown(&mixed.map(values).unwrap()), expected, "{values:?}");
    }
    assert_eq!(mixed.cost(), 2);

    // A short column in the middle is filled up, one at the end is as short as it is.
    let params = [
        ("column_count", "3"),
        ("column_vindex", "binary,binary,binary"),
    ];
    let binary = build("multicol", &params);
    let short = binary.map(&[text("a"), text("b"), text("c")]).unwrap();
    assert_eq!(shown(&short), "61000062000063");
    assert_eq!(binary.cost(), 0);
}

// The costs of vindex creation in the tests of each kind.
#[test]
fn costs_tell_cheap_from_dear() {
    for (kind, cost) in [
        ("binary", 0),
        ("numeric", 0),
        ("hash", 1),
        ("xxhash", 1),
        ("binary_md5", 1),
        ("reverse_bits", 1),
        ("cfc", 1),
        ("null", 100),
    ] {
        let vindex = build(kind, &[]);
        assert_eq!((vindex.kind(), vindex.cost()), (kind, cost));
        assert!(vindex.is_unique());
        assert_eq!(vindex.columns(), 1);
    }
    assert_eq!(Registry::new().kinds().count(), 10);
    assert_eq!(KeyRange::ALL.to_string(), "-");
}
