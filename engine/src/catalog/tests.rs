//! Schemas: what is valid, what is read back, and what may follow what.

use proptest::collection::vec;
use proptest::prelude::*;

use super::schema::*;
use crate::codec::vector::{Metric, VectorDef};
use crate::codec::{DataType, Value};
use crate::error::ErrorKind;
use crate::{DynVector, Record, Vector};

fn field(id: u16, name: &str, data_type: DataType) -> FieldSchema {
    FieldSchema {
        id,
        name: name.into(),
        data_type,
        unique: false,
        index: false,
        filter: false,
        default: None,
        vector: None,
    }
}

fn record(fields: Vec<FieldSchema>) -> Schema {
    Schema {
        key: DataType::U64,
        value: ValueSchema::Record(fields),
    }
}

/// A schema with everything in it.
fn rich() -> Schema {
    let optional = DataType::Option(Box::new(DataType::String));
    record(vec![
        FieldSchema {
            unique: true,
            ..field(1, "email", DataType::String)
        },
        FieldSchema {
            index: true,
            filter: true,
            ..field(2, "day", DataType::U32)
        },
        FieldSchema {
            default: Some(vec![0xac, 2]),
            ..field(9, "size", DataType::U16)
        },
        field(12, "note", optional),
        FieldSchema {
            vector: Some(VectorDef {
                metric: Metric::Dot,
                dim: 3,
            }),
            ..field(300, "place", DataType::Vector(0))
        },
    ])
}

#[derive(Record)]
struct Wide {
    #[terrane(id = 1, unique)]
    name: String,
    #[terrane(id = 2, index, filter)]
    kind: Option<u8>,
    #[terrane(id = 3, default)]
    size: u32,
    #[terrane(id = 4, vector(metric = "cosine"))]
    a: Vector<2>,
    #[terrane(id = 5, vector(metric = "l2", dim = 4))]
    b: DynVector,
}

#[test]
fn the_derive_declares_a_valid_schema() {
    let schema = Schema::of::<(u64, String), Wide>().unwrap();
    assert_eq!(schema.key.to_string(), "(u64, String)");
    let shown: Vec<String> = schema.fields().iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "name: String #1 unique",
            "kind: Option<u8> #2 index filter",
            "size: u32 #3 default \\x00",
            "a: Vector<2> #4 vector(cosine, 2)",
            "b: DynVector #5 vector(l2, 4)",
        ]
    );
    assert_eq!(Schema::decode(&schema.encode()).unwrap(), schema);
    let plain = Schema::of::<String, Vec<u8>>().unwrap();
    assert_eq!(plain.encode(), [1, 16, 0, 17], "the bytes of the format");
    assert_eq!(plain.to_string(), "String -> Vec<u8>");
}

#[test]
fn rows_are_checked_by_the_schema_alone() {
    let schema = Schema::of::<u64, Wide>().unwrap();
    let row = Wide {
        name: "x".into(),
        kind: Some(1),
        size: 7,
        a: Vector::from([1.0, 2.0]),
        b: DynVector::try_from(vec![0.0; 4]).unwrap(),
    };
    let mut bytes = Vec::new();
    row.encode_value(&mut bytes);
    schema.check_value(&bytes).unwrap();
    let back = Wide::decode_value(&bytes).unwrap();
    assert_eq!(
        (back.name, back.kind, back.size),
        (row.name, row.kind, row.size)
    );
    assert_eq!((back.a, back.b), (row.a, row.b));
    for cut in 0..bytes.len() {
        assert!(schema.check_value(&bytes[..cut]).is_err(), "{cut}");
    }
    let without_name = [&bytes[..1], &bytes[4..]].concat();
    let error = schema.check_value(&without_name).unwrap_err();
    assert!(
        error.to_string().contains("missing (field=name, id=1)"),
        "{error}"
    );
}

/// The rich schema with another field at this place.
fn changed(at: usize, change: impl FnOnce(&mut FieldSchema)) -> Schema {
    let mut fields = rich().fields().to_vec();
    change(&mut fields[at]);
    record(fields)
}

/// The rich schema with one field more.
fn added(field: FieldSchema) -> Schema {
    let mut fields = rich().fields().to_vec();
    fields.push(field);
    fields.sort_by_key(|field| field.id);
    record(fields)
}

/// The rich schema without the field at this place.
fn without(at: usize) -> Schema {
    let mut fields = rich().fields().to_vec();
    fields.remove(at);
    record(fields)
}

fn keyed(key: DataType) -> Schema {
    Schema { key, ..rich() }
}

fn searched(metric: Metric, dim: u32) -> Option<VectorDef> {
    Some(VectorDef { metric, dim })
}

#[test]
fn schemas_that_mean_nothing_are_refused() {
    fn refuse(schema: Schema, wanted: &str) {
        let error = schema.validate().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Schema, "{error}");
        let text = error.to_string();
        assert!(text.contains(wanted), "{text}, wanted {wanted}");
        // Read back it is refused as well, whatever finds it first.
        assert!(Schema::decode(&schema.encode()).is_err(), "{text}");
    }
    rich().validate().unwrap();
    let list = DataType::List(Box::new(DataType::U8));
    let deep = (0..20).fold(DataType::U8, |inner, _| DataType::Option(Box::new(inner)));
    refuse(record(vec![]), "no fields");
    refuse(changed(1, |f| f.id = 1), "stands twice");
    refuse(changed(0, |f| f.id = 0), "hidden columns");
    refuse(changed(4, |f| f.id = 16_384), "above its limit");
    refuse(changed(0, |f| f.name.clear()), "empty or too long");
    refuse(
        changed(0, |f| f.name = "n".repeat(256)),
        "empty or too long",
    );
    refuse(changed(0, |f| f.index = true), "an index already");
    refuse(changed(0, |f| f.data_type = list.clone()), "no order");
    let no_u16 = "default is no value";
    refuse(changed(2, |f| f.default = Some(vec![])), no_u16);
    refuse(
        changed(2, |f| f.default = Some(vec![0xff, 0xff, 0x7f])),
        no_u16,
    );
    refuse(
        changed(3, |f| f.default = Some(vec![0])),
        "default of an option",
    );
    let no_vector = "no vector of its dimension";
    refuse(
        changed(4, |f| f.vector = searched(Metric::L2, 0)),
        no_vector,
    );
    refuse(changed(4, |f| f.data_type = DataType::Vector(2)), no_vector);
    refuse(
        changed(1, |f| f.vector = searched(Metric::L2, 3)),
        no_vector,
    );
    refuse(
        changed(3, |f| f.data_type = DataType::Record),
        "does not nest",
    );
    refuse(changed(3, |f| f.data_type = deep), "nests too deep");
    refuse(keyed(list), "cannot be a key");
    refuse(keyed(DataType::Record), "cannot be a key");
}

#[test]
fn bytes_that_are_no_schema_are_refused_by_kind() {
    let good = rich().encode();
    assert_eq!(Schema::decode(&good).unwrap(), rich());
    for cut in 0..good.len() {
        let kind = Schema::decode(&good[..cut]).unwrap_err().kind();
        assert!(
            matches!(kind, ErrorKind::Corrupt | ErrorKind::Schema),
            "{cut}: {kind}"
        );
    }
    let decode = |bytes: &[u8]| Schema::decode(bytes).unwrap_err().kind();
    assert_eq!(decode(&[&[2], &good[1..]].concat()), ErrorKind::Version);
    assert_eq!(decode(&[&[0], &good[1..]].concat()), ErrorKind::Corrupt);
    assert_eq!(decode(&[&good[..], &[0]].concat()), ErrorKind::Corrupt);
    assert_eq!(
        decode(&[1, 26, 0, 17]),
        ErrorKind::Schema,
        "an unknown type"
    );
    assert_eq!(
        decode(&[1, 16, 2, 17]),
        ErrorKind::Schema,
        "an unknown kind of value"
    );
    assert_eq!(
        decode(&[1, 16, 1, 1, 1, 1, b'a', 7, 32]),
        ErrorKind::Schema,
        "unknown flags"
    );
    assert_eq!(decode(&[1, 16, 1, 0]), ErrorKind::Schema, "no fields");
    assert_eq!(
        decode(&[1, 16, 0, 25]),
        ErrorKind::Schema,
        "a record is no plain value"
    );
}

proptest! {
    #[test]
    fn random_bytes_are_refused_or_canonical(bytes in vec(0..30_u8, 0..40)) {
        let bytes = [&[SCHEMA_VERSION], &bytes[..]].concat();
        if let Ok(schema) = Schema::decode(&bytes) {
            prop_assert_eq!(schema.encode(), bytes);
        }
    }

    #[test]
    fn damaged_schemas_never_panic(at in 0..60_usize, byte in any::<u8>()) {
        let mut bytes = rich().encode();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(schema) = Schema::decode(&bytes) {
            prop_assert_eq!(schema.encode(), bytes);
        }
    }
}

fn with_default(id: u16) -> FieldSchema {
    let default = Some(vec![0]);
    FieldSchema {
        default,
        ..field(id, "new", DataType::U8)
    }
}

fn optional(id: u16) -> FieldSchema {
    field(id, "new", DataType::Option(Box::new(DataType::U8)))
}

fn plain() -> Schema {
    let value = ValueSchema::Plain(DataType::U8);
    Schema {
        key: DataType::U64,
        value,
    }
}

/// The upper half of the table of `guide/format.md`: what may be declared over what is stored.
#[test]
fn schemas_evolve_where_old_rows_survive() {
    let allowed = |declared: &Schema| check(&rich(), declared).unwrap();
    let replace = |added: &[u16], renamed: &[u16]| {
        let (added, renamed) = (added.to_vec(), renamed.to_vec());
        Evolution::Replace { added, renamed }
    };
    assert_eq!(allowed(&rich()), Evolution::Same);
    assert_eq!(check(&plain(), &plain()).unwrap(), Evolution::Same);
    let renamed = changed(1, |f| f.name = "d".into());
    assert_eq!(allowed(&renamed), replace(&[], &[2]));
    assert_eq!(allowed(&added(with_default(5))), replace(&[5], &[]));
    assert_eq!(allowed(&added(with_default(400))), replace(&[400], &[]));
    assert_eq!(allowed(&added(optional(400))), replace(&[400], &[]));
}

/// The lower half.
#[test]
fn schemas_evolve_nowhere_else() {
    fn refuse(declared: Schema, wanted: &str) {
        let error = check(&rich(), &declared).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Schema);
        let text = error.to_string();
        assert!(text.contains(wanted), "{text}, wanted {wanted}");
    }
    refuse(
        keyed(DataType::U32),
        "the key has another type (stored=u64, declared=u32)",
    );
    refuse(
        plain(),
        "the value has another type (stored=record { email: String,",
    );
    let gone = "no longer declared (stored=day: u32 #2 index filter, declared=nothing)";
    refuse(without(1), gone);
    refuse(without(4), "no longer declared (stored=place");
    let no_default = "no default (stored=nothing, declared=new: u8 #5)";
    refuse(added(field(5, "new", DataType::U8)), no_default);
    let (index, unique) = (true, true);
    refuse(
        added(FieldSchema {
            index,
            ..with_default(5)
        }),
        "has an index",
    );
    refuse(
        added(FieldSchema {
            unique,
            ..optional(400)
        }),
        "has an index",
    );
    let another_type = "stored=day: u32 #2 index filter, declared=day: u64";
    refuse(changed(1, |f| f.data_type = DataType::U64), another_type);
    refuse(changed(1, |f| f.index = false), "declared otherwise");
    refuse(changed(1, |f| f.filter = false), "declared otherwise");
    refuse(changed(0, |f| f.unique = false), "declared otherwise");
    refuse(
        changed(2, |f| f.default = Some(vec![1])),
        "declared otherwise",
    );
    refuse(changed(2, |f| f.default = None), "declared otherwise");
    refuse(
        changed(0, |f| f.default = Some(vec![])),
        "declared otherwise",
    );
    refuse(changed(4, |f| f.vector = None), "declared otherwise");
    let metric =
        "stored=place: DynVector #300 vector(dot, 3), declared=place: DynVector #300 vector(l2";
    refuse(changed(4, |f| f.vector = searched(Metric::L2, 3)), metric);
}
