//! What users write where keys, ranges, prefixes and conditions are asked for must infer.
//!
//! Tables that hold nothing stand in for the real ones: their methods have the bounds of the real
//! ones, and return the bytes that the traits wrote.

use std::marker::PhantomData;

use terrane::codec::{Column, Composite, Span};
use terrane::{
    AsKey, Desc, DynVector, ErrorKind, Field, Filter, Key, KeyPrefix, KeyRange, Record, Result,
    Value, Vector,
};

struct Table<K, V>(PhantomData<fn() -> (K, V)>);

struct Index<T>(PhantomData<fn() -> T>);

impl<K: Key, V: Value> Table<K, V> {
    const fn new() -> Table<K, V> {
        Table(PhantomData)
    }

    fn get<Q: AsKey<K>>(&self, key: Q) -> Vec<u8> {
        let mut out = Vec::new();
        key.write_key(&mut out);
        out
    }

    fn put<Q: AsKey<K>>(&self, key: Q, value: &V) -> Vec<u8> {
        let mut out = self.get(key);
        value.encode_value(&mut out);
        out
    }

    fn range<R: KeyRange<K>>(&self, range: R) -> Result<Span> {
        range.key_span()
    }

    fn prefix<P: KeyPrefix<K>>(&self, prefix: P) -> Span {
        prefix.prefix_span()
    }

    fn index<T: Key + Column>(&self, _: Field<V, T>) -> Index<T>
    where
        V: Record,
    {
        Index(PhantomData)
    }

    fn filter(&self, filter: Filter<V>) -> Filter<V>
    where
        V: Record,
    {
        filter
    }
}

impl<T: Key> Index<T> {
    fn get<Q: AsKey<T>>(&self, key: Q) -> Vec<u8> {
        let mut out = Vec::new();
        key.write_part(&mut out);
        out
    }

    fn range<R: KeyRange<T>>(&self, range: R) -> Result<Span> {
        range.part_span()
    }
}

fn key<K: Key>(key: &K) -> Vec<u8> {
    let mut out = Vec::new();
    key.encode_key(&mut out);
    out
}

#[derive(Record)]
struct User {
    #[terrane(id = 1, unique)]
    email: String,
    #[terrane(id = 2, index)]
    joined_day: u32,
    #[terrane(id = 3, default)]
    bio: String,
    #[terrane(id = 4, index)]
    age: Option<u8>,
}

#[derive(Record)]
struct Passage {
    #[terrane(id = 1, filter)]
    lang: String,
    #[terrane(id = 2, filter)]
    year: u16,
    #[terrane(id = 3)]
    text: String,
    #[terrane(id = 4, vector(metric = "cosine"))]
    embedding: Vector<3>,
    #[terrane(id = 5, vector(metric = "l2", dim = 2))]
    other: Option<DynVector>,
}

#[test]
fn lookups_of_the_design_infer() {
    let scores = Table::<String, u64>::new();
    assert_eq!(scores.put("ada", &90), b"ada\x5a");
    assert_eq!(scores.get("ada"), b"ada");
    let (owned, borrowed) = ("ada".to_string(), &"ada");
    assert_eq!(scores.get(&owned), scores.get(borrowed));
    assert_eq!(scores.get(owned), b"ada");

    let accounts = Table::<u64, u64>::new();
    let id = 7_u64;
    let by_reference = &id;
    assert_eq!(accounts.get(7), accounts.get(by_reference));
    assert_eq!(accounts.put(1, &5), [0, 0, 0, 0, 0, 0, 0, 1, 5]);
    let notes = Table::<u64, String>::new();
    notes.put(1, &"before".to_string());

    let orders = Table::<(u64, u64), u64>::new();
    let (alice, bob) = (17_u64, 42_u64);
    assert_eq!(orders.get((alice, 1)), key(&(17_u64, 1_u64)));
    let whole_key = &(alice, 1);
    assert_eq!(orders.get(whole_key), key(&(17_u64, 1_u64)));
    orders.put((bob, 1), &990);
    assert!(orders.prefix(bob).contains(&key(&(42_u64, u64::MAX))));
    assert!(!orders.prefix(42).contains(&key(&(43_u64, 0_u64))));

    let blobs = Table::<Vec<u8>, ()>::new();
    assert_eq!(blobs.put(b"\x00\x01", &()), [0, 1]);
    assert_eq!(blobs.get(&[1_u8, 2][..]), [1, 2]);
    let fixed = Table::<[u8; 2], bool>::new();
    assert_eq!(fixed.get([1, 2]), [1, 2]);
    let mixed = Table::<(String, Desc<u32>, Option<i8>), Vec<u8>>::new();
    let wanted = key(&("a".to_string(), Desc(1_u32), Some(-1_i8)));
    assert_eq!(mixed.get(("a", Desc(1), Some(-1))), wanted);
    assert_eq!(mixed.get(("a", Desc(1), -1)), wanted);
    assert!(mixed.prefix(("a", Desc(1))).contains(&wanted));
    assert!(mixed.prefix("a").contains(&wanted));
    assert!(!mixed.prefix("").contains(&wanted));
}

#[test]
fn ranges_of_the_design_infer() {
    let scores = Table::<String, u64>::new();
    let span = scores.range("ada".."b").unwrap();
    assert!(span.contains(b"ada") && span.contains(b"az\xff") && !span.contains(b"b"));
    assert!(scores.range("ada"..="b").unwrap().contains(b"b"));
    assert!(!scores.range("ada"..="b").unwrap().contains(b"b\0"));
    assert_eq!(scores.range(..).unwrap(), Span::all());
    assert!(scores.prefix("ad").contains(b"ada"));

    let accounts = Table::<u64, u64>::new();
    let (low, high) = (1, 2);
    assert_eq!(
        accounts.range(high..low).unwrap_err().kind(),
        ErrorKind::Invalid
    );
    assert!(accounts.range(2..2).unwrap().is_empty());
    assert!(accounts.range(..=u64::MAX).unwrap().contains(&[0xff; 8]));
    let orders = Table::<(u64, u64), u64>::new();
    assert!(
        orders
            .range((1, 5)..(2, 0))
            .unwrap()
            .contains(&key(&(1_u64, 6_u64)))
    );
}

#[test]
fn indexes_of_the_design_infer() {
    let users = Table::<u64, User>::new();
    assert_eq!(users.index(User::EMAIL).get("a@b"), b"a@b\0\0");
    let span = users.index(User::JOINED_DAY).range(20_400..20_420).unwrap();
    assert!(span.contains(&[0, 0, 0x4f, 0xb0, 9, 9]));
    assert!(!span.contains(&[0, 0, 0x4f, 0xc4]));
    assert_eq!(users.index(User::AGE).get(30), [1, 30]);
    assert_eq!(users.index(User::AGE).get(None::<u8>), [0]);
    assert!(
        users
            .index(User::AGE)
            .range(..=30)
            .unwrap()
            .contains(&[1, 30, 0xff])
    );
    let ada = User {
        email: "ada@example.org".into(),
        joined_day: 20_411,
        bio: String::new(),
        age: None,
    };
    users.put(7, &ada);
    assert_eq!(
        (ada.bio.len(), ada.joined_day, ada.age, ada.email.len()),
        (0, 20_411, None, 15)
    );
}

#[test]
fn filters_of_the_design_infer() {
    let passages = Table::<u64, Passage>::new();
    let row = Passage {
        lang: "en".into(),
        year: 2021,
        text: "x".into(),
        embedding: Vector::from([0.0, 1.0, 0.0]),
        other: None,
    };
    let mut bytes = Vec::new();
    row.encode_value(&mut bytes);
    let holds = |filter: Filter<Passage>| filter.matches(&bytes, &mut Vec::new()).unwrap();
    let filter = Passage::LANG.eq("en") & Passage::YEAR.between(2020..);
    assert!(holds(passages.filter(filter)));
    assert!(holds(
        Passage::LANG.is_in(["de", "en"]) & !Passage::YEAR.lt(2021)
    ));
    assert!(holds(
        Passage::TEXT.starts_with("") | Passage::YEAR.gt(3000)
    ));
    assert!(!holds(Passage::YEAR.is_in([1, 2])));
    let back = Passage::decode_value(&bytes).unwrap();
    assert_eq!(
        (back.lang, back.year, back.text),
        (row.lang, row.year, row.text)
    );
    assert_eq!((back.embedding, back.other), (row.embedding, row.other));
}

/// An own key type says how it sorts by delegating to a built-in one.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tenant(u64);

impl Key for Tenant {
    fn key_type() -> terrane::codec::DataType {
        u64::key_type()
    }

    fn encode_part(&self, out: &mut Vec<u8>) {
        self.0.encode_part(out);
    }

    fn decode_part(input: &mut &[u8]) -> Result<Self> {
        u64::decode_part(input).map(Tenant)
    }
}

#[test]
fn own_keys_are_given_by_reference() {
    let orders = Table::<(Tenant, u32), ()>::new();
    let tenant = Tenant(3);
    assert_eq!(orders.get((&tenant, 4)), orders.get(&(tenant, 4)));
    assert!(orders.prefix(&tenant).contains(&key(&(tenant, 4_u32))));
    fn head<K: Composite<Head = Tenant>>(_: &Table<K, ()>) {}
    head(&orders);
}
