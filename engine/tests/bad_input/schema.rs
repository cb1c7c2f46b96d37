//! Rows 34 to 36 and 38: names and schemas.
//!
//! Seen to fail with reserved table names let through.

use terrane::codec::{DataType, FieldDef, Value, Wire};
use terrane::{ErrorKind, Record, Result, TableDef};

use crate::surgeon::{Surgeon, u32_at};
use crate::{Made, OTHER, assert_usable, refused};

#[test]
fn row_34_names_that_are_none() {
    let made = Made::new();
    let db = made.open().unwrap();
    let long: &'static str = Box::leak("n".repeat(256).into_boxed_str());
    let trees = terrane::check(made.killed_copy().dir()).unwrap().tables;
    for name in ["", long, "terrane.catalog", "a\0b"] {
        let parts = ["name=", "limit=255"];
        refused(
            db.table(TableDef::<u64, u64>::new(name)),
            ErrorKind::Invalid,
            &parts,
        );
    }
    // Names are `&str`: what is not UTF-8 cannot be given. The longest one is taken.
    let longest: &'static str = Box::leak("n".repeat(255).into_boxed_str());
    db.table(TableDef::<u64, u64>::new(longest)).unwrap();
    db.table(TableDef::<u64, u64>::new("z\u{e4}hler")).unwrap();
    assert_usable(&db);
    db.close().unwrap();
    assert_eq!(terrane::check(made.dir()).unwrap().tables, trees + 2);
}

#[test]
fn row_35_another_type() {
    let made = Made::new();
    let before = made.bytes();
    let db = made.open().unwrap();
    let parts = ["table=rows", "stored=u64, declared=String"];
    refused(
        db.table(TableDef::<String, Vec<u8>>::new("rows")),
        ErrorKind::Schema,
        &parts,
    );
    let parts = ["table=rows", "stored=Vec<u8>, declared=Option<u8>"];
    refused(
        db.table(TableDef::<u64, Option<u8>>::new("rows")),
        ErrorKind::Schema,
        &parts,
    );
    assert_usable(&db);
    assert!(made.bytes() != before, "the other table took a write");
}

/// A record written by hand, whose fields a test chooses.
struct Odd<const CASE: usize>;

const SWITCH: FieldDef = FieldDef::of::<bool>(7, "switch");

impl<const CASE: usize> Value for Odd<CASE> {
    const WIRE: Wire = Wire::List;

    fn value_type() -> DataType {
        DataType::Record
    }

    fn encode_value(&self, _: &mut Vec<u8>) {}

    fn decode_value(_: &[u8]) -> Result<Self> {
        Ok(Odd)
    }

    fn fields() -> &'static [FieldDef] {
        const TWICE: [FieldDef; 2] = [SWITCH, SWITCH];
        const WRONG_DEFAULT: [FieldDef; 1] = [FieldDef {
            default: Some(|out| out.push(2)),
            ..SWITCH
        }];
        const DEEP: [FieldDef; 1] = [FieldDef {
            data_type: || {
                (0..40).fold(DataType::Bool, |inner, _| DataType::Option(Box::new(inner)))
            },
            ..SWITCH
        }];
        [&[][..], &TWICE, &WRONG_DEFAULT, &DEEP][CASE]
    }
}

#[derive(Record)]
struct Later {
    #[terrane(id = 1)]
    added: u64,
}

#[test]
fn row_36_schemas_that_contradict_themselves() {
    let made = Made::new();
    let db = made.open().unwrap();
    let odd = "odd";
    let parts = ["table=odd"];
    refused(
        db.table(TableDef::<u64, Odd<0>>::new(odd)),
        ErrorKind::Schema,
        &parts,
    );
    let twice = ["table=odd", "switch"];
    refused(
        db.table(TableDef::<u64, Odd<1>>::new(odd)),
        ErrorKind::Schema,
        &twice,
    );
    refused(
        db.table(TableDef::<u64, Odd<2>>::new(odd)),
        ErrorKind::Schema,
        &twice,
    );
    refused(
        db.table(TableDef::<u64, Odd<3>>::new(odd)),
        ErrorKind::Schema,
        &parts,
    );
    // A record where a plain value is stored.
    let parts = ["table=other", "record", "u64"];
    refused(
        db.table(TableDef::<u64, Later>::new("other")),
        ErrorKind::Schema,
        &parts,
    );
    db.table(TableDef::<u64, u64>::new(odd)).unwrap();
    assert_usable(&db);
}

#[test]
fn row_38_a_schema_of_a_later_version() {
    // The version byte of the schema of "other", in the one leaf of the catalog: found behind the
    // row's key as the first byte of the schema. And the version byte of the catalog row itself.
    for (what, back) in [("schema", 0), ("catalog row", 15)] {
        let made = Made::new();
        let surgeon = Surgeon::new(&made.dir());
        let leaves = surgeon.pages(2, 1);
        let [(_, place)] = leaves[..] else {
            panic!("{leaves:?}")
        };
        surgeon.edit_page(place, |page| {
            let at = page.windows(5).position(|bytes| bytes == b"other").unwrap() + 5;
            // version, state, class, reserved, tree, schema version, row ids, no index; schema.
            let head: Vec<u8> = page[at..at + 15].to_vec();
            assert_eq!((head[0], u32_at(&head, 8), head[13]), (1, 1, 0), "{head:?}");
            assert_eq!(page[at + 14], 1, "the schema's own version");
            page[at + 14 - back.min(14)] = 9;
        });
        let error = refused(made.open(), ErrorKind::Version, &["found=9"]);
        assert!(
            format!("{error:?}").contains("expected"),
            "{what}: {error:?}"
        );
        refused(terrane::check(made.dir()), ErrorKind::Version, &["found=9"]);
    }
    let made = Made::new();
    let db = made.open().unwrap();
    assert_eq!(db.table(OTHER).unwrap().count(&db.snapshot()).unwrap(), 10);
}
