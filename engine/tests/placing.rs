//! `shard_map`, `place` and `policy`: what `terrane shard` and `terrane policy` print, and what
//! they refuse.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something unexpected happens"
)]

use std::error::Error as _;

use terrane::inspect::{PlaceQuery, Shards, place, policy, shard_map};
use terrane::{Error, ErrorKind};
use terrane_shard::policy::PolicyError;
use terrane_shard::{MapError, VindexError};

fn ranges(text: &str) -> Shards {
    Shards::Ranges(text.into())
}

fn query(vindex: &str, params: &[&str], values: &[&str]) -> PlaceQuery {
    let owned = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect();
    PlaceQuery {
        vindex: vindex.into(),
        params: owned(params),
        values: owned(values),
    }
}

fn names(shards: &Shards) -> Vec<String> {
    let map = shard_map(shards).unwrap();
    map.shards().iter().map(ToString::to_string).collect()
}

/// The cause, which says what is wrong.
fn cause<T: std::error::Error + Clone + 'static>(error: &Error) -> T {
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    let cause = error.source().and_then(|source| source.downcast_ref());
    T::clone(cause.unwrap_or_else(|| panic!("another cause: {error:?}")))
}

#[test]
fn shards_are_a_count_or_ranges() {
    assert_eq!(names(&Shards::Even(4)), ["-40", "40-80", "80-c0", "c0-"]);
    let three = ["-40", "40-80", "80-"];
    for text in ["-40,40-80,80-", "80-, -4000 ,40-80", "-40-80-"] {
        assert_eq!(names(&ranges(text)), three, "{text}");
    }
    assert_eq!(names(&ranges("-")), ["-"]);
    let table = shard_map(&Shards::Even(2)).unwrap().to_string();
    assert!(table.contains("80-      500"), "{table}");
}

#[test]
fn shards_that_are_no_map_are_refused() {
    let wrong = |shards: &Shards| cause::<MapError>(&shard_map(shards).unwrap_err());
    let count = |found| MapError::ShardCount { found };
    assert_eq!(wrong(&Shards::Even(0)), count(0));
    assert_eq!(wrong(&Shards::Even(100_000)), count(100_000));
    for (text, said) in [
        ("-4,4-", "found 1 digits"),
        ("-4g,4g-", "found 'g'"),
        ("", "found none"),
        ("-40,,40-", "found 0 dashes"),
        ("-40,40-40,40-", "found both at \"40\""),
        ("-80,80-40,40-", "found 40"),
        ("-40,30-80,80-", "-40 and 30-80 overlapping"),
        ("-40,80-", "found none for 40-80"),
        ("40-80,80-", "found none for -40"),
        ("-40", "found none for 40-"),
        ("-40,-40,40-", "found -40 twice"),
    ] {
        let found = wrong(&ranges(text)).to_string();
        assert!(found.contains(said), "{text:?}: {found:?}, not {said:?}");
    }
}

#[test]
fn values_are_placed_as_their_vindex_says() {
    let two = Shards::Even(2);
    let hashed = place(&two, &query("hash", &[], &["1"])).unwrap();
    assert_eq!(
        hashed.to_string(),
        "keyspace id  166b40b44aba4bd6\n\
         shard        -80, of 2\n\
         rule         hash(1)\n\
         vindex       hash, cost 1, unique, reversible"
    );
    // A text stays the text it is; only `hash` knows negative numbers.
    let padded = place(&two, &query("binary", &[], &["007"])).unwrap();
    assert_eq!(padded.destination.as_deref(), Some("303037"));
    assert_eq!(padded.rule, "binary(\"007\")");
    let nowhere = place(&two, &query("numeric", &[], &["-1"])).unwrap();
    assert_eq!(
        (nowhere.destination.clone(), nowhere.shards.len()),
        (None, 0)
    );
    assert!(nowhere.to_string().contains("shard        none, of 2"));
    let biggest = place(&two, &query("numeric", &[], &["18446744073709551615"])).unwrap();
    assert_eq!(biggest.shards[0].to_string(), "80-");
    // The first of three columns alone names a range.
    let some = query("multicol", &["column_count=3"], &["1"]);
    let some = place(&Shards::Even(256), &some).unwrap();
    assert_eq!(some.destination.as_deref(), Some("166b40-166b41"));
    assert_eq!(some.shards[0].to_string(), "16-17");
}

#[test]
fn what_a_vindex_does_not_know_is_refused() {
    let wrong = |query: &PlaceQuery| place(&Shards::Even(2), query).unwrap_err();
    let refused = |vindex: &str, params: &[&str], values: &[&str]| {
        cause::<VindexError>(&wrong(&query(vindex, params, values)))
    };
    let unknown = refused("md5", &[], &["1"]);
    assert!(matches!(unknown, VindexError::UnknownKind { .. }));
    let unknown = refused("xxhash", &["seed=1"], &["1"]);
    assert!(matches!(unknown, VindexError::UnknownParam { .. }));
    let twice = refused("cfc", &["hash=md5", "hash=md5"], &["1"]);
    assert!(matches!(twice, VindexError::ParamTwice { .. }));
    let count = refused("hash", &[], &["1", "2"]);
    assert!(matches!(count, VindexError::ColumnCount { found: 2, .. }));
    let error = wrong(&query("cfc", &["hash"], &["1"]));
    assert_eq!(
        error.to_string(),
        "invalid: a parameter cannot be read (given=\"hash\", allowed=name=value)"
    );
    let error = place(&ranges("-40"), &query("hash", &[], &["1"])).unwrap_err();
    assert!(matches!(cause::<MapError>(&error), MapError::Gap { .. }));
}

#[test]
fn a_policy_is_reported_before_it_is_accepted() {
    let members =
        |texts: &[&str]| -> Vec<String> { texts.iter().map(|text| text.to_string()).collect() };
    let three = members(&["1:a", "2:b", "3:c"]);
    let report = policy("semi_sync", 1, false, &three).unwrap();
    assert_eq!(
        report.to_string(),
        "semi_sync(1): failover with 2 members, with any 1 down; 1 spare ackers; survives any \
         zone: yes; needs arbiter: no"
    );
    assert_eq!(report.warnings(), Vec::<&str>::new());
    let two = policy("semi_sync", 1, false, &members(&["1:a", "2:b"])).unwrap();
    assert_eq!(two.warnings().len(), 2);
    let with_reader = members(&["1:a", "2:b:reader"]);
    let error = policy("cross_zone", 1, false, &with_reader).unwrap_err();
    let few = cause::<PolicyError>(&error);
    assert!(matches!(few, PolicyError::TooFewAckers { found: 0, .. }));
    assert!(policy("cross_zone", 1, true, &with_reader).is_ok());
    for (name, members, said) in [
        ("majority", &three, "given=\"majority\""),
        ("none", &members(&["1"]), "given=\"1\""),
        ("none", &members(&["x:a"]), "given=\"x:a\""),
        ("none", &members(&["1:a:writer"]), "given=\"1:a:writer\""),
    ] {
        let error = policy(name, 1, false, members).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(said), "{error}");
    }
}
