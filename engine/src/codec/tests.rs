//! Laws of the codec, over random values and random bytes.

use std::cmp::Ordering;
use std::fmt::Debug;
use std::ops::Bound;

use proptest::collection::vec;
use proptest::prelude::*;

use super::key::Desc;
use super::record::{Fields, RECORD_VERSION};
use super::value::{read_payload, write_payload};
use super::vector::{VectorView, set_vver};
use super::*;
use crate::error::ErrorKind;
use crate::{DynVector, Vector};

fn lone<K: Key>(key: &K) -> Vec<u8> {
    let mut out = Vec::new();
    key.encode_key(&mut out);
    out
}

fn part<K: Key>(key: &K) -> Vec<u8> {
    let mut out = Vec::new();
    key.encode_part(&mut out);
    out
}

fn whole<V: Value>(value: &V) -> Vec<u8> {
    let mut out = Vec::new();
    value.encode_value(&mut out);
    out
}

/// C2: bytes compare as values, in both forms, also with something behind the part form; and
/// every form reads back as what was written, consuming exactly its own bytes.
fn key_law<K: Key + Debug>(a: &K, b: &K, wanted: Ordering) {
    assert_eq!(lone(a).cmp(&lone(b)), wanted, "lone {a:?} {b:?}");
    assert_eq!(part(a).cmp(&part(b)), wanted, "part {a:?} {b:?}");
    if wanted != Ordering::Equal && !part(a).is_empty() {
        let (behind_a, behind_b) = ([part(a), vec![0xff]].concat(), [part(b), vec![0]].concat());
        assert_eq!(behind_a.cmp(&behind_b), wanted, "prefix-free {a:?} {b:?}");
    }
    for key in [a, b] {
        assert_eq!(
            lone(&K::decode_key(&lone(key)).unwrap()),
            lone(key),
            "{key:?}"
        );
        let behind = [part(key), vec![7]].concat();
        let mut input = behind.as_slice();
        assert_eq!(
            part(&K::decode_part(&mut input).unwrap()),
            part(key),
            "{key:?}"
        );
        assert_eq!(input, [7], "{key:?}");
        let mut input = behind.as_slice();
        K::skip_part(&mut input).unwrap();
        assert_eq!(input, [7], "{key:?}");
        assert!(K::key_type().show_key(&lone(key)).is_ok(), "{key:?}");
    }
}

/// Text and bytes of few letters, so that prefixes and equal runs are frequent.
fn few_bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(prop::sample::select(vec![0_u8, 1, 0x61, 0xfe, 0xff]), 0..5)
}

fn few_letters() -> impl Strategy<Value = String> {
    vec(
        prop::sample::select(vec!['\0', '\u{1}', 'a', 'b', '\u{7f}', '\u{10ffff}']),
        0..5,
    )
    .prop_map(String::from_iter)
}

macro_rules! order_laws {
    ($($name:ident: $type:ty = $strategy:expr, $compare:expr;)*) => {
        proptest! {$(
            #[test]
            fn $name(a in $strategy, b in $strategy) {
                let compare: fn(&$type, &$type) -> Ordering = $compare;
                key_law::<$type>(&a, &b, compare(&a, &b));
                key_law::<Desc<$type>>(&Desc(a.clone()), &Desc(b.clone()), compare(&b, &a));
                let option = |a: &Option<$type>, b: &Option<$type>| match (a, b) {
                    (Some(a), Some(b)) => compare(a, b),
                    (a, b) => a.is_some().cmp(&b.is_some()),
                };
                let some = (Some(a.clone()), Some(b.clone()));
                for (a, b) in [some, (None, Some(b)), (Some(a), None)] {
                    key_law::<Option<$type>>(&a, &b, option(&a, &b));
                }
            }
        )*}
    };
}

order_laws! {
    u8_sorts: u8 = any::<u8>(), Ord::cmp;
    u16_sorts: u16 = any::<u16>(), Ord::cmp;
    u32_sorts: u32 = any::<u32>(), Ord::cmp;
    u64_sorts: u64 = any::<u64>(), Ord::cmp;
    u128_sorts: u128 = any::<u128>(), Ord::cmp;
    i8_sorts: i8 = any::<i8>(), Ord::cmp;
    i16_sorts: i16 = any::<i16>(), Ord::cmp;
    i32_sorts: i32 = any::<i32>(), Ord::cmp;
    i64_sorts: i64 = any::<i64>(), Ord::cmp;
    i128_sorts: i128 = any::<i128>(), Ord::cmp;
    f32_sorts: f32 = any::<u32>().prop_map(f32::from_bits), f32::total_cmp;
    f64_sorts: f64 = any::<u64>().prop_map(f64::from_bits), f64::total_cmp;
    bool_sorts: bool = any::<bool>(), Ord::cmp;
    char_sorts: char = any::<char>(), Ord::cmp;
    text_sorts: String = few_letters(), Ord::cmp;
    bytes_sort: Vec<u8> = few_bytes(), Ord::cmp;
    arrays_sort: [u8; 3] = any::<[u8; 3]>(), Ord::cmp;
    pairs_sort: (Vec<u8>, i8) = (few_bytes(), any::<i8>()), Ord::cmp;
    triples_sort: (String, Desc<Vec<u8>>, Option<String>) =
        (few_letters(), few_bytes().prop_map(Desc), prop::option::of(few_letters())), Ord::cmp;
    nested_sort: ((u8, String), (), (Option<u8>,)) =
        ((0..3_u8, few_letters()), Just(()), (prop::option::of(0..3_u8),)), Ord::cmp;
}

proptest! {
    #[test]
    fn prefixes_find_the_keys_that_have_them(
        a in few_letters(), b in few_letters(), c in any::<u8>(), d in few_letters(),
    ) {
        let key = (a.clone(), c, d.clone());
        let span = KeyPrefix::<(String, u8, String)>::prefix_span(&b.as_str());
        prop_assert_eq!(span.contains(&lone(&key)), a == b);
        let span = KeyPrefix::<(String, u8, String)>::prefix_span(&(&b, c));
        prop_assert_eq!(span.contains(&lone(&key)), a == b);
        let span = KeyPrefix::<String>::prefix_span(&b);
        prop_assert_eq!(span.contains(a.as_bytes()), a.starts_with(&b));
    }

    #[test]
    fn leading_bytes_find_the_keys_that_have_them(a in few_bytes(), b in few_bytes()) {
        let span = KeyPrefix::<Vec<u8>>::prefix_span(&&b);
        prop_assert_eq!(span.contains(&a), a.starts_with(&b));
        prop_assert!(span.end().is_none_or(|end| span.start() < end || b.is_empty()));
    }

    #[test]
    fn spans_hold_what_ranges_hold(
        low in few_bytes(), high in few_bytes(), key in few_bytes(), kind in 0..9_u8,
    ) {
        let bound = |kind: u8, key: &Vec<u8>| match kind {
            0 => Bound::Included(key.clone()),
            1 => Bound::Excluded(key.clone()),
            _ => Bound::Unbounded,
        };
        let range = (bound(kind % 3, &low), bound(kind / 3, &high));
        let bounded = kind % 3 < 2 && kind / 3 < 2;
        let spans = [KeyRange::<Vec<u8>>::key_span(&range), KeyRange::<Vec<u8>>::part_span(&range)];
        let keys = [key.clone(), [part(&key), vec![9, 9]].concat()];
        for (span, bytes) in spans.into_iter().zip(keys) {
            if bounded && low > high {
                prop_assert_eq!(span.unwrap_err().kind(), ErrorKind::Invalid);
                continue;
            }
            let span = span.unwrap();
            let above = match &range.0 {
                Bound::Included(low) => key >= *low,
                Bound::Excluded(low) => key > *low,
                Bound::Unbounded => true,
            };
            let below = match &range.1 {
                Bound::Included(high) => key <= *high,
                Bound::Excluded(high) => key < *high,
                Bound::Unbounded => true,
            };
            prop_assert_eq!(span.contains(&bytes), above && below);
            prop_assert!(span.end().is_none_or(|end| span.start() <= end)); // P1
        }
    }
}

/// C1 and C3: whatever a decoder accepts is what the encoder writes for it.
fn canonical_key<K: Key>(bytes: &[u8]) {
    if let Ok(key) = K::decode_key(bytes) {
        assert_eq!(lone(&key), bytes, "{}", K::key_type());
    }
    let mut rest = bytes;
    if let Ok(key) = K::decode_part(&mut rest) {
        assert_eq!(
            [part(&key), rest.to_vec()].concat(),
            bytes,
            "{}",
            K::key_type()
        );
        let mut skipped = bytes;
        K::skip_part(&mut skipped).unwrap();
        assert_eq!(skipped, rest);
    }
}

/// C1 and C3 for values; and what a type's name accepts is what the type accepts.
fn canonical_value<V: Column>(bytes: &[u8]) {
    let value = V::decode_value(bytes);
    let named = V::value_type().check_value(bytes);
    assert_eq!(
        value.is_ok(),
        named.is_ok(),
        "{}: {bytes:?} {named:?}",
        V::value_type()
    );
    assert_eq!(V::WIRE, V::value_type().wire());
    assert_eq!(V::FIELD_WIRE, V::value_type().field_wire());
    assert_eq!(
        V::decode_field(bytes).is_ok(),
        V::value_type().check_field(bytes).is_ok()
    );
    if let Ok(value) = value {
        assert_eq!(whole(&value), bytes, "{}", V::value_type());
    }
}

macro_rules! every_type {
    ($law:ident, $bytes:expr; $($type:ty),* $(,)?) => { $($law::<$type>($bytes);)* };
}

proptest! {
    #[test]
    fn random_bytes_are_refused_or_canonical_keys(
        bytes in prop_oneof![vec(any::<u8>(), 0..24), few_bytes()],
    ) {
        every_type!(canonical_key, &bytes;
            u8, u16, u32, u64, u128, i8, i64, f32, f64, bool, char, (), String, Vec<u8>, [u8; 4],
            Option<String>, Option<u8>, Desc<String>, (String, u8), (Vec<u8>, Option<Vec<u8>>),
            (Desc<Vec<u8>>, bool), ((u8,), String),
        );
    }

    #[test]
    fn random_bytes_are_refused_or_canonical_values(
        bytes in prop_oneof![
            vec(any::<u8>(), 0..24),
            vec(0..4_u8, 0..12),
            (any::<u64>(), 0..64_u32).prop_map(|(number, shift)| whole(&(number >> shift))),
            vec(any::<u8>(), 8).prop_map(|tail| [&[2, 0, 0, 0, 1, 0, 0, 0, 0], &tail[..]].concat()),
        ],
    ) {
        every_type!(canonical_value, &bytes;
            u8, u16, u32, u64, u128, i8, i16, i32, i64, i128, f32, f64, bool, char, (), String,
            Vec<u8>, [u8; 4], Option<String>, Option<Option<u8>>, Vec<u16>, Vec<()>, Vec<String>,
            Vec<Option<u8>>, (u8, String), (Vec<u8>, Option<u32>, bool), Vec<(u8, Vec<u8>)>,
            Vector<2>, DynVector, Option<Vector<2>>, Desc<u8>, Vec<Vec<Vec<u8>>>,
        );
        let _ = Demo::decode_value(&bytes).map(|demo| assert_eq!(whole(&demo), bytes));
        let mut record = vec![RECORD_VERSION];
        record.extend_from_slice(&bytes);
        let _ = Demo::decode_value(&record).map(|demo| assert_eq!(whole(&demo), record));
    }

    /// What the stored schema says of a damaged record is what the Rust type says.
    #[test]
    fn schema_and_type_agree_on_damaged_records(
        name in few_letters(), size in any::<i32>(), note in prop::option::of(few_letters()),
        extra in vec(any::<u16>(), 0..3), place in any::<Option<[f32; 2]>>(),
        cut in 0..60_usize, len in 0..12_usize, with in vec(0..64_u8, 0..3),
    ) {
        let place = place.map(Vector::from);
        let mut bytes = whole(&Demo { note, name, size, extra, place });
        let schema = crate::catalog::schema::Schema::of::<u64, Demo>().unwrap();
        schema.check_value(&bytes).unwrap();
        let cut = cut.min(bytes.len());
        bytes.splice(cut..(cut + len).min(bytes.len()), with);
        let (typed, named) = (Demo::decode_value(&bytes), schema.check_value(&bytes));
        prop_assert_eq!(typed.is_ok(), named.is_ok(), "{:?} {:?}", typed, named);
    }

    #[test]
    fn types_read_back_from_their_names(bytes in vec(0..26_u8, 0..24)) {
        let mut input = bytes.as_slice();
        if let Ok(data_type) = DataType::decode(&mut input) {
            let mut out = Vec::new();
            data_type.encode(&mut out);
            out.extend_from_slice(input);
            prop_assert_eq!(out, bytes);
        }
    }

    #[test]
    fn values_round_trip(
        numbers in (any::<u64>(), any::<i64>(), any::<i8>(), any::<u128>(), any::<f64>()),
        lists in (vec(any::<i16>(), 0..300), vec(few_letters(), 0..4), vec(Just(()), 0..4)),
        options in (any::<Option<u8>>(), any::<Option<Option<bool>>>()),
    ) {
        let value = (numbers, lists, options);
        prop_assert_eq!(&<_ as RoundTrip>::again(&value), &value);
    }
}

#[test]
fn numbers_end_where_their_types_end() {
    fn edge<T: Column + PartialEq + Debug>(low: T, high: T, above: u64) {
        for number in [low, high] {
            canonical_value::<T>(&whole(&number));
            assert_eq!(T::decode_value(&whole(&number)).unwrap(), number);
        }
        canonical_value::<T>(&whole(&above));
        assert!(T::decode_value(&whole(&above)).is_err());
    }
    edge(u8::MIN, u8::MAX, 1 << 8);
    edge(u16::MIN, u16::MAX, 1 << 16);
    edge(u32::MIN, u32::MAX, 1 << 32);
    edge(i8::MIN, i8::MAX, 1 << 8);
    edge(i16::MIN, i16::MAX, 1 << 16);
    edge(i32::MIN, i32::MAX, 1 << 32);
    edge('\0', char::MAX, 0x11_0000);
    edge(false, true, 2);
    for surrogate in [0xd800_u64, 0xdfff] {
        canonical_value::<char>(&whole(&surrogate));
    }
}

trait RoundTrip: Value {
    fn again(value: &Self) -> Self {
        let mut bytes = Vec::new();
        write_payload(value, &mut bytes);
        bytes.push(0xaa);
        let mut input = bytes.as_slice();
        let back = read_payload(&mut input).unwrap();
        assert_eq!(input, [0xaa]);
        back
    }
}

impl<V: Value> RoundTrip for V {}

#[derive(Clone, Debug, PartialEq, crate::Record)]
struct Demo {
    #[terrane(id = 5, index)]
    note: Option<String>,
    #[terrane(id = 1, unique)]
    name: String,
    #[terrane(id = 2, index)]
    size: i32,
    #[terrane(id = 200, default)]
    extra: Vec<u16>,
    #[terrane(id = 7, vector(metric = "l2"))]
    place: Option<Vector<2>>,
}

fn demo() -> Demo {
    Demo {
        name: "ada".into(),
        size: -2,
        note: Some("n".into()),
        extra: vec![300],
        place: Some(Vector::from([1.0, -1.0])),
    }
}

fn def(name: &str) -> FieldDef {
    *Demo::FIELDS.iter().find(|def| def.name == name).unwrap()
}

/// The bytes of `guide/format.md`, frozen.
#[rustfmt::skip]
const GOLDEN: [u8; 36] = [
    1,                                  // version
    1 << 3 | 4, 3, b'a', b'd', b'a',    // 1: bytes
    2 << 3, 3,                          // 2: varint, zigzag
    5 << 3 | 4, 1, b'n',                // 5: bytes
    7 << 3 | 6, 17,                     // 7: vector
    2, 0, 0, 0, 1, 0, 0, 0, 0,          //    dim, f32, vver
    0, 0, 0x80, 0x3f, 0, 0, 0x80, 0xbf,
    0xc5, 0x0c, 2, 0xac, 0x02,          // 200 << 3 | 5: list of one payload
    0,                                  // (cut off by the tests)
];

#[test]
fn records_have_the_bytes_of_the_format() {
    let golden = &GOLDEN[..35];
    assert_eq!(whole(&demo()), golden);
    assert_eq!(Demo::decode_value(golden).unwrap(), demo());
    let small = Demo {
        note: None,
        extra: vec![],
        place: None,
        ..demo()
    };
    assert_eq!(whole(&small), [&golden[..8], &[0xc5, 0x0c, 0]].concat());
    assert_eq!(
        Demo::decode_value(&golden[..8]).unwrap(),
        small,
        "the default is read"
    );
    let ids: Vec<u16> = Demo::fields().iter().map(|def| def.id).collect();
    assert_eq!(ids, [1, 2, 5, 7, 200]);
}

#[test]
fn records_that_are_not_canonical_are_refused() {
    let golden = &GOLDEN[..35];
    for (bytes, wanted) in [
        (vec![], "no bytes"),
        ([&[2], &golden[1..]].concat(), "another version"),
        (GOLDEN.to_vec(), "do not rise"),
        (golden[..34].to_vec(), "end inside a value"),
        ([golden, &[0xc8, 0x0c, 0]].concat(), "does not know"), // id 201
        (
            [&golden[..8], &golden[6..8], &golden[8..]].concat(),
            "do not rise",
        ),
        (
            [&golden[..1], &golden[6..8], &golden[1..6]].concat(),
            "missing",
        ),
        (
            [&golden[..8], &[3 << 3, 0], &golden[8..]].concat(),
            "does not know",
        ), // id 3
        (golden[..6].to_vec(), "missing"),
        (
            [&golden[..6], &[2 << 3 | 1, 0, 0, 0, 0]].concat(),
            "another wire type",
        ),
        (
            [&golden[..6], &[2 << 3, 0x83, 0]].concat(),
            "longer than it needs",
        ),
        (
            [&golden[..6], &[2 << 3 | 7, 0]].concat(),
            "unknown wire type",
        ),
        (vec![1, 1 << 3 | 4, 1, 0xff, 2 << 3, 3], "not UTF-8"),
        (vec![1, 5, 0], "hidden columns"),
        (vec![1, 0xff, 0xff, 0xff, 0xff, 0x7f], "unknown wire type"),
        (vec![1, 0xfc, 0xff, 0xff, 0x7f, 0], "out of range"),
    ] {
        let error = Demo::decode_value(&bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Codec);
        assert!(
            error.to_string().contains(wanted),
            "{bytes:?}: {error}, wanted {wanted}"
        );
    }
}

#[test]
fn hidden_columns_are_passed_over() {
    let hidden = hidden::Hidden {
        row_id: Some(9),
        expires_ms: Some(1 << 40),
    };
    let with = hidden.write(&whole(&demo())).unwrap();
    assert_eq!(Demo::decode_value(&with).unwrap(), demo());
    assert_eq!(hidden::Hidden::read(&with).unwrap(), hidden);
    assert_eq!(Demo::NAME.read(&with).unwrap(), "ada");
}

#[test]
fn single_fields_are_read_without_the_others() {
    let bytes = whole(&demo());
    assert_eq!(Demo::SIZE.read(&bytes).unwrap(), -2);
    assert_eq!(Demo::NOTE.read(&bytes).unwrap().as_deref(), Some("n"));
    let old = &bytes[..8];
    assert_eq!(Demo::NOTE.read(old).unwrap(), None);
    assert_eq!(Demo::EXTRA.read(old).unwrap(), Vec::<u16>::new());
    assert_eq!(
        Demo::SIZE.read(&bytes[..6]).unwrap_err().kind(),
        ErrorKind::Codec
    );
    assert_eq!(Ref::<Demo>::new(&bytes).field(Demo::SIZE).unwrap(), -2);
}

#[test]
fn vectors_are_found_and_versioned_in_place() {
    let mut bytes = whole(&demo());
    let raw = def("place").find_raw(&bytes).unwrap().unwrap();
    let view = VectorView::of_field(&raw).unwrap();
    assert_eq!((view.vver, view.dim(), view.offset), (0, 2, 22));
    assert_eq!(view.elements, &bytes[22..30]);
    assert_eq!(view.iter().collect::<Vec<_>>(), [1.0, -1.0]);
    let mut out = [0.0; 2];
    view.copy_to(&mut out).unwrap();
    assert_eq!(out, [1.0, -1.0]);
    assert!(view.copy_to(&mut [0.0; 3]).is_err());
    set_vver(&mut bytes, def("place").id, 0x0102_0304).unwrap();
    let raw = def("place").find_raw(&bytes).unwrap().unwrap();
    assert_eq!(VectorView::of_field(&raw).unwrap().vver, 0x0102_0304);
    assert_eq!(
        Demo::decode_value(&bytes).unwrap(),
        demo(),
        "the version is not the user's"
    );
    assert!(set_vver(&mut bytes, def("name").id, 1).is_err());
}

fn entry(def: &FieldDef, record: &Demo, primary: &impl Key) -> (Vec<u8>, Vec<u8>) {
    let (mut key, mut value) = (vec![1], vec![1]);
    index::write_entry(def, &whole(record), &lone(primary), &mut key, &mut value).unwrap();
    (key, value)
}

proptest! {
    #[test]
    fn index_entries_sort_by_field_then_key(
        a in prop::option::of(few_letters()), b in prop::option::of(few_letters()),
        x in few_letters(), y in few_letters(),
    ) {
        let row = |note: &Option<String>| Demo { note: note.clone(), ..demo() };
        let (one, two) = (entry(&def("note"), &row(&a), &x), entry(&def("note"), &row(&b), &y));
        prop_assert_eq!(one.0.cmp(&two.0), (&a, &x).cmp(&(&b, &y)));
        prop_assert!(one.1.is_empty());
        let found = index::primary_key(&def("note"), &one.0, &one.1).unwrap();
        prop_assert_eq!(found, x.as_bytes());
        let span = KeyRange::<Option<String>>::part_span(&(a.clone()..=a.clone())).unwrap();
        prop_assert!(span.contains(&one.0));
        prop_assert_eq!(span.contains(&two.0), a == b);
    }
}

#[test]
fn unique_entries_hold_the_value_once_and_none_often() {
    let (key, value) = entry(&def("name"), &demo(), &7_u64);
    assert_eq!(
        (key.as_slice(), value.as_slice()),
        (&b"ada\0\0"[..], &lone(&7_u64)[..])
    );
    assert_eq!(
        index::primary_key(&def("name"), &key, &value).unwrap(),
        value
    );
    let optional = FieldDef::of::<Option<String>>(5, "note").unique::<Option<String>>();
    let none = Demo {
        note: None,
        ..demo()
    };
    let (first, value) = entry(&optional, &none, &7_u64);
    assert_eq!(first, [&[0][..], &lone(&7_u64)].concat());
    assert_eq!(value, lone(&7_u64));
    assert_ne!(first, entry(&optional, &none, &8_u64).0);
    assert_eq!(entry(&optional, &demo(), &7_u64).0, b"\x01n\0\0");
}

#[test]
fn integer_keys_are_their_own_row_ids() {
    let row_id = |data_type: DataType, key: &[u8]| data_type.row_id(key).unwrap();
    assert_eq!(row_id(u64::key_type(), &lone(&u64::MAX)), Some(u64::MAX));
    assert_eq!(row_id(u8::key_type(), &lone(&7_u8)), Some(7));
    assert_eq!(row_id(i64::key_type(), &lone(&i64::MIN)), Some(0));
    assert_eq!(row_id(i32::key_type(), &lone(&-1_i32)), Some(0x7fff_ffff));
    assert_eq!(row_id(String::key_type(), b"ada"), None);
    assert_eq!(row_id(u128::key_type(), &lone(&1_u128)), None);
    assert_eq!(row_id(<(u64,)>::key_type(), &lone(&(1_u64,))), None);
    assert_eq!(
        DataType::U64.row_id(&[1]).unwrap_err().kind(),
        ErrorKind::Codec
    );
}

#[test]
fn keys_have_the_bytes_of_the_format() {
    assert_eq!(lone(&-1_i32), [0x7f, 0xff, 0xff, 0xff]);
    assert_eq!(lone(&1.0_f64), [0xbf, 0xf0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(lone(&-0.0_f32), [0x7f, 0xff, 0xff, 0xff]);
    assert_eq!(lone(&"a\0b".to_string()), b"a\0b");
    assert_eq!(part(&"a\0b".to_string()), b"a\0\xffb\0\0");
    assert_eq!(lone(&(7_u8, "a".to_string())), b"\x07a\0\0");
    assert_eq!(lone(&Some("a".to_string())), b"\x01a");
    assert_eq!(part(&Some("a".to_string())), b"\x01a\0\0");
    assert_eq!(lone(&None::<String>), [0]);
    assert_eq!(lone(&Desc("a".to_string())), [!b'a', 0xff, 0xff]);
    assert_eq!(lone(&'a'), [0, 0, 0, 0x61]);
    assert_eq!((lone(&()), lone(&String::new())), (vec![], vec![]));
    assert_eq!(
        <(String, Desc<u8>)>::key_type().to_string(),
        "(String, Desc<u8>)"
    );
    let shown = <(String, Desc<u8>)>::key_type().show_key(&lone(&("a".to_string(), Desc(7_u8))));
    assert_eq!(shown.unwrap(), "(\"a\", Desc(7))");
}

#[test]
fn a_walk_over_a_record_says_where_its_fields_lie() {
    let bytes = whole(&demo());
    let mut fields = Fields::of(&bytes).unwrap();
    let mut seen = Vec::new();
    while let Some(field) = fields.next_field().unwrap() {
        assert_eq!(
            &bytes[field.offset..field.offset + field.whole.len()],
            field.whole
        );
        seen.push(field.id);
    }
    assert_eq!(seen, [1, 2, 5, 7, 200]);
}
