//! What is refused, and that each error says what, where, expected and found.
//!
//! Seen to fail, each mistake alone: `accept` that looks at no parameter, a parameter given twice,
//! a table whose second entry of a key wins, text behind a table let through, `json_path` passed
//! over beside `json`, offsets that may repeat, short keys of `cfc` let through, 0 bytes for a
//! column, ids one byte too long, a kind registered twice.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

use std::sync::Arc;

use terrane_shard::{
    Column, Destination, KeyRange, KeyspaceId, MapError, Registry, RoutingEpoch, ShardMap, Value,
    Vindex, VindexError, even_ranges, parse_ranges,
};

fn refused(kind: &str, params: &[(&str, &str)]) -> String {
    let built = Registry::new().build(kind, params);
    built.expect_err("it is refused").to_string()
}

#[test]
fn a_range_that_is_none_is_refused() {
    for (text, message) in [
        (
            "4-80",
            "\"4-80\" at byte 0: expected two hex digits a byte, found 1 digits",
        ),
        (
            "40-800",
            "\"40-800\" at byte 3: expected two hex digits a byte, found 3 digits",
        ),
        (
            "40-8x",
            "\"40-8x\" at byte 4: expected a hex digit, found 'x'",
        ),
        (
            "80-40",
            "key range: expected an end above its start 80, found 40",
        ),
        (
            "80-8000",
            "key range: expected an end above its start, found both at \"80\"",
        ),
        (
            "-00",
            "key range: expected an end above its start, found both at \"\"",
        ),
        (
            "40-00",
            "key range: expected an end above its start 40, found ",
        ),
        ("", "key range \"\": expected `start-end`, found 0 dashes"),
        (
            "40-60-80",
            "key range \"40-60-80\": expected `start-end`, found 2 dashes",
        ),
    ] {
        let error = text.parse::<KeyRange>().unwrap_err();
        assert_eq!(error.to_string(), message, "{text}");
    }
    let long = format!("{}-", "ab".repeat(256));
    let error = long.parse::<KeyRange>().unwrap_err();
    assert_eq!(error, MapError::IdTooLong { found: 256 });
    // An error does not repeat a text of any length.
    let error = "z".repeat(1 << 20).parse::<KeyspaceId>().unwrap_err();
    assert!(error.to_string().len() < 200);
    let range: KeyRange = "40-80".parse().unwrap();
    for at in ["40", "80", "3f", "c0"] {
        let error = range.split_at(&at.parse().unwrap()).unwrap_err();
        let message = format!("split of 40-80: expected an id inside, found \"{at}\"");
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn bounds_that_are_none_are_refused() {
    for (spec, message) in [
        (
            "---",
            "bounds of shards \"---\" at byte 1: expected a bound between two dashes, as in \
             `-40-80-`, found none",
        ),
        (
            "40--80",
            "bounds of shards \"40--80\" at byte 3: expected a bound between two dashes, as in \
             `-40-80-`, found none",
        ),
        (
            "4000",
            "bounds of shards \"4000\" at byte 4: expected a bound between two dashes, as in \
             `-40-80-`, found none",
        ),
        (
            "40-30",
            "key range: expected an end above its start 40, found 30",
        ),
        (
            "-80-8000-",
            "key range: expected an end above its start, found both at \"80\"",
        ),
        (
            "-40-8-",
            "\"-40-8-\" at byte 4: expected two hex digits a byte, found 1 digits",
        ),
        (
            "-40-8g-",
            "\"-40-8g-\" at byte 5: expected a hex digit, found 'g'",
        ),
    ] {
        assert_eq!(
            parse_ranges(spec).unwrap_err().to_string(),
            message,
            "{spec}"
        );
    }
    let error = parse_ranges(&"-".repeat(65_537)).unwrap_err();
    assert_eq!(error, MapError::ShardCount { found: 65_537 });
    for n in [0, 65_537, usize::MAX] {
        let error = even_ranges(n).unwrap_err();
        let message = format!("shards: expected 1 to 65536, found {n}");
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn a_map_that_is_no_partition_is_refused() {
    for (ranges, message) in [
        (
            "-40 60- ",
            "shard map: expected every id in one shard, found none for 40-60",
        ),
        (
            "40- ",
            "shard map: expected every id in one shard, found none for -40",
        ),
        (
            "-40 40-80",
            "shard map: expected every id in one shard, found none for 80-",
        ),
        (
            "-40 30-80 80-",
            "shard map: expected every id in one shard, found -40 and 30-80 overlapping",
        ),
        (
            "- 80-",
            "shard map: expected every id in one shard, found - and 80- overlapping",
        ),
        (
            "-80 -40 80-",
            "shard map: expected every id in one shard, found -40 and -80 overlapping",
        ),
        (
            "-80 80- 8000-",
            "shard map: expected every shard once, found 80- twice",
        ),
        ("", "shards: expected 1 to 65536, found 0"),
    ] {
        let ranges = ranges.split_whitespace().map(|text| text.parse().unwrap());
        let error = ShardMap::new(RoutingEpoch(1), ranges).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    let bound = "01".repeat(33);
    let ranges = parse_ranges(&format!("-{bound}-")).unwrap();
    let error = ShardMap::new(RoutingEpoch(1), ranges).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("shard -{bound}: expected bounds of at most 32 bytes, found 33")
    );
    let endless = std::iter::repeat(KeyRange::ALL);
    let error = ShardMap::new(RoutingEpoch(1), endless).unwrap_err();
    assert_eq!(error, MapError::ShardCount { found: 65_537 });
    let map = ShardMap::new(RoutingEpoch(1), parse_ranges("-40-80-").unwrap()).unwrap();
    let error = map.route_exactly(&"40-60".parse().unwrap()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "key range 40-60: expected bounds between shards, found shard 40-80 cut"
    );
}

#[test]
fn a_parameter_that_is_not_known_is_refused() {
    for kind in [
        "xxhash",
        "hash",
        "numeric",
        "binary",
        "binary_md5",
        "reverse_bits",
        "null",
    ] {
        assert_eq!(
            refused(kind, &[("hello", "world")]),
            format!("vindex {kind}: expected parameters none, found \"hello\"")
        );
    }
    assert_eq!(
        refused("cfc", &[("hash", "md5"), ("offset", "[3]")]),
        "vindex cfc: expected parameters hash, offsets, found \"offset\""
    );
    assert_eq!(
        refused("numeric_static_map", &[("json", "{}"), ("hello", "")]),
        "vindex numeric_static_map: expected parameters json, json_path, fallback_type, found \
         \"hello\""
    );
    assert_eq!(
        refused("multicol", &[("column_count", "1"), ("json", "{}")]),
        "vindex multicol: expected parameters column_count, column_bytes, column_vindex, found \
         \"json\""
    );
    assert_eq!(
        refused("cfc", &[("hash", "md5"), ("hash", "md5")]),
        "vindex cfc: expected each parameter once, found \"hash\" twice"
    );
    assert_eq!(
        refused("lookup", &[]),
        "vindex: expected one of binary, binary_md5, cfc, hash, multicol, null, numeric, \
         numeric_static_map, reverse_bits, xxhash, found \"lookup\""
    );
}

#[test]
fn a_static_map_without_a_table_is_refused() {
    let kind = "numeric_static_map";
    assert_eq!(
        refused(kind, &[]),
        "vindex numeric_static_map: expected parameter \"json\" with an object of numbers, as in \
         {\"1\": 2}, found none"
    );
    assert_eq!(
        refused(kind, &[("json", "{}"), ("json_path", "map.json")]),
        "vindex numeric_static_map: expected one of \"json\" and \"json_path\", found both"
    );
    assert_eq!(
        refused(kind, &[("json_path", "map.json")]),
        "vindex numeric_static_map, parameter \"json_path\": expected the text of the file in \
         `json` (no file is opened here), found \"map.json\""
    );
}

#[test]
fn a_table_that_is_none_is_refused() {
    let json = |text| refused("numeric_static_map", &[("json", text)]);
    let start = "vindex numeric_static_map, parameter \"json\": expected a JSON object of whole \
                 numbers, as in {\"1\": 2}, found ";
    for (text, found) in [
        (
            r#"{"1":1,"01":2}"#,
            "key 1 stands twice at line 1 column 14",
        ),
        (r#"{"1":1,"1":1}"#, "key 1 stands twice at line 1 column 13"),
        (r#"{"a":1}"#, "key \"a\" is no number at line 1 column 7"),
        ("{]", "key must be a string at line 1 column 2"),
        ("", "EOF while parsing a value at line 1 column 0"),
        (r#"{"1":a}"#, "expected value at line 1 column 6"),
        ("{} {}", "trailing characters at line 1 column 4"),
    ] {
        assert_eq!(json(text), format!("{start}{found}"), "{text}");
    }
    for text in [
        r#"{"1":2,"3":4,"5":6:8,"10":11}"#,
        r#"{"1":-1}"#,
        r#"{"1":1.5}"#,
        r#"{"1":null}"#,
        r#"{"1":18446744073709551616}"#,
        r#"{"18446744073709551616":1}"#,
        r#"{"-1":1}"#,
        r#"{"":1}"#,
        r#"{"1":"2"}"#,
        "[1]",
    ] {
        let message = json(text);
        assert!(message.starts_with(start), "{text}: {message}");
    }
    let deep = "[".repeat(100_000);
    assert!(json(&deep).starts_with(start));
}

#[test]
fn a_fallback_that_does_not_hash_one_column_is_refused() {
    let kind = "numeric_static_map";
    for fallback in [
        "not_found",
        "null",
        "cfc",
        "multicol",
        "numeric_static_map",
        "",
    ] {
        assert_eq!(
            refused(kind, &[("json", "{}"), ("fallback_type", fallback)]),
            format!(
                "vindex numeric_static_map, parameter \"fallback_type\": expected xxhash, hash, \
                 numeric, binary, binary_md5 or reverse_bits, found {fallback:?}"
            )
        );
    }
}

#[test]
fn offsets_that_do_not_rise_are_refused() {
    let cfc = |offsets| refused("cfc", &[("hash", "md5"), ("offsets", offsets)]);
    for offsets in [
        "10,12", "xxx", "[]", "[10,3]", "[-1,3]", "[4,4,6]", "[0,3]", "[1.5]",
    ] {
        assert_eq!(
            cfc(offsets),
            format!(
                "vindex cfc, parameter \"offsets\": expected a list of rising numbers above 0, as \
                 in [3,5], found {offsets:?}"
            )
        );
    }
    assert_eq!(
        refused("cfc", &[("hash", "md5")]),
        "vindex cfc: expected parameter \"offsets\" with where parts end, as in [3,5], found none"
    );
    assert_eq!(
        refused("cfc", &[("hash", "sha1"), ("offsets", "[3]")]),
        "vindex cfc, parameter \"hash\": expected md5 or xxhash64, found \"sha1\""
    );
    assert_eq!(
        cfc("[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15]"),
        "vindex cfc, parameter \"offsets\": expected at most 14 offsets, found 15"
    );
    assert!(
        Registry::new()
            .build("cfc", &[("offsets", "[1,2]")])
            .is_ok()
    );
    let params = [("hash", "md5"), ("offsets", "[3,5]")];
    let vindex = Registry::new().build("cfc", &params).unwrap();
    assert_eq!(
        vindex.map(&["abc".into()]).unwrap_err().to_string(),
        "vindex cfc: expected a value of at least 5 bytes, found 3"
    );
    assert!(vindex.map(&[Value::Null]).is_err());
}

#[test]
fn columns_that_do_not_fit_are_refused() {
    let multicol = |params: &[(&str, &str)]| refused("multicol", params);
    let of = |param: &str, expected: &str, found: &str| {
        format!("vindex multicol, parameter {param:?}: expected {expected}, found {found:?}")
    };
    assert_eq!(
        multicol(&[]),
        "vindex multicol: expected parameter \"column_count\" with a number from 1 to 8, found none"
    );
    for count in ["0", "9", "-1", "x", ""] {
        let found = multicol(&[("column_count", count)]);
        assert_eq!(found, of("column_count", "a number from 1 to 8", count));
    }
    let three = ("column_count", "3");
    let entries = "at most 3 entries, as `column_count` says";
    for param in ["column_bytes", "column_vindex"] {
        let found = multicol(&[three, (param, "1,2,3,4")]);
        assert_eq!(found, of(param, entries, "1,2,3,4"));
    }
    for bytes in ["100,200,300", "0,1,1", "-1", "a", "9"] {
        let found = multicol(&[three, ("column_bytes", bytes)]);
        assert_eq!(found, of("column_bytes", "numbers from 1 to 8", bytes));
    }
    for bytes in ["4,4", "3,3,3", "7,1", "8"] {
        let found = multicol(&[three, ("column_bytes", bytes)]);
        let expected = "at most 8 bytes in sum, and one for each column";
        assert_eq!(found, of("column_bytes", expected, bytes));
    }
    for vindex in ["null", "cfc", "lookup", "multicol"] {
        let found = multicol(&[three, ("column_vindex", &format!("binary,binary,{vindex}"))]);
        assert!(
            found.ends_with(&format!("numeric_static_map, found {vindex:?}")),
            "{found}"
        );
    }
    // Parameters of a column's vindex are that one's to judge.
    let map = [
        ("column_count", "1"),
        ("column_vindex", "numeric_static_map"),
    ];
    assert!(multicol(&map).starts_with("vindex numeric_static_map: expected parameter \"json\""));
    let with = [map[0], map[1], ("json", "{\"1\": 2}")];
    let vindex = Registry::new().build("multicol", &with).unwrap();
    let two = KeyspaceId::from_word(2);
    assert_eq!(vindex.map(&[Value::Int(1)]), Ok(Destination::Id(two)));
    let error = vindex.map(&[Value::Int(1), Value::Int(1)]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "vindex multicol: expected values of 1 columns, found 2"
    );
}

#[test]
fn values_and_ids_that_do_not_fit_are_refused() {
    for count in [0, 2] {
        let values = vec![Value::Int(1); count];
        for kind in ["xxhash", "null", "cfc"] {
            let vindex = Registry::new().build(kind, &[]).unwrap();
            assert_eq!(
                vindex.map(&values).unwrap_err().to_string(),
                format!("vindex {kind}: expected values of 1 columns, found {count}")
            );
        }
    }
    let long = Value::from(vec![1; 256]);
    let error = Column::Binary.map(std::slice::from_ref(&long)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "vindex binary: keyspace id: expected at most 255 bytes, found 256"
    );
    assert!(std::error::Error::source(&error).is_some());
    assert!(Column::Binary.prefix(&[1; 256]).is_err());
    let foreign: KeyspaceId = "166b40b44aba4bd6166b40b44aba4bd6".parse().unwrap();
    for column in [Column::Hash, Column::Numeric, Column::ReverseBits] {
        let error = column.invert(&foreign).unwrap_err();
        let name = column.name();
        assert_eq!(
            error.to_string(),
            format!("vindex {name}: expected an id of at most 8 bytes, found 16")
        );
    }
    for kind in ["xxhash", "binary_md5", "null", "cfc"] {
        let vindex = Registry::new().build(kind, &[]).unwrap();
        let vindex_name = kind.to_owned();
        let error = VindexError::NotReversible {
            vindex: vindex_name,
        };
        assert!(!vindex.is_reversible());
        assert_eq!(vindex.invert(&KeyspaceId::MIN), Err(error));
    }
}

#[test]
fn a_kind_is_registered_once() {
    let mut registry = Registry::new();
    let build = |_: &terrane_shard::Params<'_>| -> Result<Arc<dyn Vindex>, VindexError> {
        Ok(Arc::new(Column::Null))
    };
    registry.register("first", build).unwrap();
    for kind in ["first", "hash"] {
        let error = registry.register(kind, build).unwrap_err();
        let message = format!("vindex {kind}: expected a new kind, found it registered");
        assert_eq!(error.to_string(), message);
    }
    assert!(registry.build("first", &[]).is_ok());
    assert_eq!(registry.kinds().count(), 11);
}
