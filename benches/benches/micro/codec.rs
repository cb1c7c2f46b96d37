//! Keys and records: encoded, decoded, and one field read out of a stored record.

use std::hint::black_box;

use criterion::Criterion;
use terrane::{Desc, Key, Record, Ref, Value};

/// Five fields, as a small application has them.
#[derive(Record, Debug, PartialEq)]
struct Person {
    #[terrane(id = 1)]
    email: String,
    #[terrane(id = 2)]
    joined_day: u32,
    #[terrane(id = 3)]
    score: f64,
    #[terrane(id = 4)]
    tags: Vec<String>,
    #[terrane(id = 5)]
    boss: Option<u64>,
}

fn person() -> Person {
    Person {
        email: "ada@example.org".into(),
        joined_day: 20_411,
        score: 0.75,
        tags: vec!["admin".into(), "founder".into()],
        boss: Some(12),
    }
}

pub(crate) fn all(c: &mut Criterion) {
    keys(c);
    records(c);
}

/// Encodes and decodes one key; the decoded one is compared.
fn key<K: Key + PartialEq + std::fmt::Debug>(c: &mut Criterion, name: &str, key: &K) {
    let mut group = c.benchmark_group("codec/key");
    let mut out = Vec::new();
    group.bench_function(format!("encode_{name}"), |b| {
        b.iter(|| {
            out.clear();
            black_box(key).encode_key(&mut out);
        });
    });
    group.bench_function(format!("decode_{name}"), |b| {
        b.iter(|| assert_eq!(&K::decode_key(black_box(&out)).expect("a key"), key));
    });
    group.finish();
}

fn keys(c: &mut Criterion) {
    key(c, "u64", &123_456_789u64);
    let parts = ("acme".to_string(), Desc(20_411u32), 7u64);
    key(c, "string_desc_u64", &parts);
}

fn records(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec/record_of_5_fields");
    let (person, mut out) = (person(), Vec::new());
    group.bench_function("encode", |b| {
        b.iter(|| {
            out.clear();
            black_box(&person).encode_value(&mut out);
        });
    });
    group.bench_function("decode", |b| {
        b.iter(|| {
            let found = Person::decode_value(black_box(&out)).expect("a record");
            assert_eq!(found, person);
        });
    });
    let stored: Ref<Person> = Ref::new(&out);
    group.bench_function("read_one_field", |b| {
        b.iter(|| {
            let score = black_box(&stored).field(Person::SCORE).expect("a field");
            assert!(score.to_bits() == 0.75f64.to_bits());
        });
    });
    group.finish();
}
