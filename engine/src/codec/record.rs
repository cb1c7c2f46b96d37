//! Records: fields in rising id, each behind a tag of id and wire type.
//!
//! ```text
//! 01 | hidden columns, if any (id 0) | field | field | ..        version byte, then fields
//! field = varint (id << 3 | wire), payload                       see `value.rs`
//! ```
//!
//! The bytes say where each field ends but not what it is; that is the schema's, here as a static
//! table of [`FieldDef`]s that the derive writes. Indexes, filters and vector search read single
//! fields of an encoded record with it and decode nothing else.
//!
//! Invariants:
//! - R1: ids rise strictly; a field that is not `None` is always written, one that is never.
//! - R2: an id that the schema does not know is an error, never skipped.
//! - R3: a field that is missing reads as its default if it has one, as `None` if it is an
//!   option, and is an error otherwise.

use std::borrow::Cow;

use super::hidden::Hidden;
use super::key::Key;
use super::value::{Column, Value, Wire};
use super::vector::{Metric, VectorColumn, VectorDef};
use super::{DataType, malformed, varint};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::MAX_FIELD_ID;

/// The first byte of every record.
pub const RECORD_VERSION: u8 = 1;

/// A struct that is stored field by field: `#[derive(Record)]`.
///
/// The derive also writes a [`Field`](crate::Field) constant per field, in upper case.
///
/// ```
/// use terrane::{Record, Value, Vector};
///
/// #[derive(Debug, PartialEq, Record)]
/// struct Passage {
///     #[terrane(id = 1, filter)]
///     lang: String,
///     #[terrane(id = 2, default)] // added later: old rows read as the default
///     year: u16,
///     #[terrane(id = 3)]
///     note: Option<String>, // needs no default: `None` is left out
///     #[terrane(id = 4, vector(metric = "cosine"))]
///     embedding: Vector<2>,
/// }
///
/// let row = Passage {
///     lang: "en".into(),
///     year: 1998,
///     note: None,
///     embedding: Vector::from([0.6, 0.8]),
/// };
/// let mut bytes = Vec::new();
/// row.encode_value(&mut bytes);
/// assert_eq!(Passage::decode_value(&bytes)?, row);
/// # Ok::<(), terrane::Error>(())
/// ```
///
/// A field without an id does not compile, nor a field of a type that is no column (a record does
/// not nest), an index on a type without order, a vector without elements, or a `DynVector` that
/// is searched without a dimension:
///
/// ```compile_fail
/// # use terrane::Record;
/// #[derive(Record)]
/// struct User { email: String }
/// ```
/// ```compile_fail
/// # use terrane::Record;
/// #[derive(Record)]
/// struct User { #[terrane(id = 1)] email: std::time::Duration }
/// ```
/// ```compile_fail
/// # use terrane::Record;
/// #[derive(Record)]
/// struct Inner { #[terrane(id = 1)] email: String }
/// #[derive(Record)]
/// struct Outer { #[terrane(id = 1)] inner: Inner }
/// ```
/// ```compile_fail
/// # use terrane::Record;
/// #[derive(Record)]
/// struct User { #[terrane(id = 1, index)] tags: Vec<String> }
/// ```
/// ```compile_fail
/// # use terrane::{Record, Value, Vector};
/// #[derive(Record)]
/// struct User { #[terrane(id = 1, vector(metric = "l2"))] face: Vector<0> }
/// let _ = User::fields();
/// ```
/// ```compile_fail
/// # use terrane::{DynVector, Record, Value};
/// #[derive(Record)]
/// struct User { #[terrane(id = 1, vector(metric = "l2"))] face: DynVector }
/// let _ = User::fields();
/// ```
#[diagnostic::on_unimplemented(message = "`{Self}` is no record", note = "derive `Record` for it")]
pub trait Record: Value {
    /// The fields in rising id.
    const FIELDS: &'static [FieldDef];
}

/// What the code knows of a field: the declared half of a schema, with the functions that read
/// the field out of an encoded record.
#[derive(Clone, Copy, Debug)]
pub struct FieldDef {
    /// Number of the field, which is its identity for ever; 1 to `MAX_FIELD_ID`.
    pub id: u16,
    /// Name in the source; may change.
    pub name: &'static str,
    /// Name of its type in a stored schema.
    pub data_type: fn() -> DataType,
    /// Wire type in its tag.
    pub wire: Wire,
    /// Whether it may be left out: it is an `Option`.
    pub optional: bool,
    /// Appends the whole form of what it reads as in rows written before the field was added.
    pub default: Option<fn(&mut Vec<u8>)>,
    /// Whether no two rows may hold the same value (`None` excepted).
    pub unique: bool,
    /// Whether it has a secondary index.
    pub index: bool,
    /// Whether it is stored beside vector codes, for filtered search.
    pub filter: bool,
    /// Appends the part form of its key, from the whole form behind its tag; set for unique,
    /// indexed and filtered fields.
    pub part: Option<PartOfField>,
    /// Takes one part form off the front of an index key; set where `part` is.
    pub skip: Option<SkipPart>,
    /// Metric and dimension of a vector field that can be searched.
    pub vector: Option<VectorDef>,
    /// Whether a table is made without an index of the vector. Not part of the stored schema: an
    /// index may be made later.
    pub exact: bool,
}

/// Appends the part form of a key, from the whole form of a field.
pub type PartOfField = fn(&[u8], &mut Vec<u8>) -> Result<()>;

/// Takes one part form off the front of its input.
pub type SkipPart = fn(&mut &[u8]) -> Result<()>;

impl FieldDef {
    /// A field without any flag.
    #[must_use]
    pub const fn of<T: Column>(id: u16, name: &'static str) -> FieldDef {
        assert!(id > 0 && id <= MAX_FIELD_ID, "an id is 1 to MAX_FIELD_ID");
        FieldDef {
            id,
            name,
            data_type: T::value_type,
            wire: T::FIELD_WIRE,
            optional: T::OPTIONAL,
            default: None,
            unique: false,
            index: false,
            filter: false,
            part: None,
            skip: None,
            vector: None,
            exact: false,
        }
    }

    /// With a unique index.
    #[must_use]
    pub const fn unique<T: Column + Key>(mut self) -> FieldDef {
        self.unique = true;
        self.with_order::<T>()
    }

    /// With a secondary index.
    #[must_use]
    pub const fn index<T: Column + Key>(mut self) -> FieldDef {
        self.index = true;
        self.with_order::<T>()
    }

    /// Stored beside vector codes.
    #[must_use]
    pub const fn filter<T: Column + Key>(mut self) -> FieldDef {
        self.filter = true;
        self.with_order::<T>()
    }

    /// With the order of its type, whether or not the schema uses it.
    #[must_use]
    pub const fn with_order<T: Column + Key>(mut self) -> FieldDef {
        self.part = Some(T::part_of_field);
        self.skip = Some(T::skip_part);
        self
    }

    /// With `T::default()` for rows that lack it; an option needs none.
    #[must_use]
    pub const fn default<T: Column + Default>(mut self) -> FieldDef {
        if !T::OPTIONAL {
            self.default = Some(|out| T::default().encode_value(out));
        }
        self
    }

    /// Searchable by distance; `dim` is 0 where the type says the dimension.
    #[must_use]
    pub const fn vector<T: Column + VectorColumn>(mut self, metric: Metric, dim: u32) -> FieldDef {
        assert!(
            T::DIM != 0 || dim != 0,
            "a DynVector needs a dimension: vector(.., dim = N)"
        );
        assert!(
            T::DIM == 0 || dim == 0 || dim == T::DIM,
            "`dim` is not the type's dimension"
        );
        self.vector = Some(VectorDef {
            metric,
            dim: if T::DIM == 0 { dim } else { T::DIM },
        });
        self
    }

    /// A vector that is searched by scanning rows, until an index is asked for.
    #[must_use]
    pub const fn exact(mut self) -> FieldDef {
        self.exact = true;
        self
    }

    /// The number in front of the field.
    #[must_use]
    pub const fn tag(&self) -> u64 {
        (self.id as u64) << 3 | self.wire as u64
    }

    /// The whole form of this field in `record`: what is stored, or its default, or `None` for an
    /// option that was left out. Walks over the fields before it, decodes none.
    ///
    /// # Errors
    /// `Codec` when the bytes are no record, the field has another wire type, or it is missing
    /// without a default (R3).
    pub fn find<'a>(&self, record: &'a [u8]) -> Result<Option<Cow<'a, [u8]>>> {
        match self.find_raw(record)? {
            Some(field) => Ok(Some(Cow::Borrowed(field.whole))),
            None if self.optional => Ok(None),
            None => {
                let default = self.default.ok_or_else(|| self.missing())?;
                let mut whole = Vec::new();
                default(&mut whole);
                Ok(Some(Cow::Owned(whole)))
            }
        }
    }

    /// The field as it lies in `record`; `None` when it was left out.
    ///
    /// # Errors
    /// `Codec` when the bytes are no record or the field has another wire type.
    pub fn find_raw<'a>(&self, record: &'a [u8]) -> Result<Option<RawField<'a>>> {
        find_field(record, self.id)?
            .map(|field| self.expect(field))
            .transpose()
    }

    /// Appends the part form of this field's key, as an index or a filter compares it.
    ///
    /// # Errors
    /// `Codec` as [`FieldDef::find`]; `Invalid` for a field that is no key.
    pub fn write_part(&self, record: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let part = self.part.ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "a field has no order").with("field", self.name)
        })?;
        match self.find(record)? {
            Some(whole) => part(&whole, out),
            None => {
                out.push(0); // `None`
                Ok(())
            }
        }
    }

    fn expect<'a>(&self, field: RawField<'a>) -> Result<RawField<'a>> {
        if field.wire == self.wire {
            return Ok(field);
        }
        Err(malformed("a field has another wire type than its type")
            .with("field", self.name)
            .with("expected", format_args!("{:?}", self.wire))
            .with("found", format_args!("{:?}", field.wire)))
    }

    fn missing(&self) -> Error {
        malformed("a field without a default is missing")
            .with("field", self.name)
            .with("id", self.id)
    }
}

/// The field `id` as it lies in `record`; `None` when it was left out. Walks over those before it.
///
/// # Errors
/// `Codec` when the bytes are no record.
pub fn find_field(record: &[u8], id: u16) -> Result<Option<RawField<'_>>> {
    let mut fields = Fields::of(record)?;
    while let Some(field) = fields.next_field()? {
        if field.id >= id {
            return Ok((field.id == id).then_some(field));
        }
    }
    Ok(None)
}

/// The fields of an encoded record, one after the other.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
    /// Where `rest` begins in the record.
    at: usize,
    last: Option<u16>,
}

/// A field of an encoded record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawField<'a> {
    /// Number of the field; 0 for the hidden columns.
    pub id: u16,
    /// Wire type in its tag.
    pub wire: Wire,
    /// Where its whole form begins in the record.
    pub offset: usize,
    /// Its whole form.
    pub whole: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Walks `record`.
    ///
    /// # Errors
    /// `Codec` when the bytes are no record of this version.
    pub fn of(record: &'a [u8]) -> Result<Fields<'a>> {
        match record.split_first() {
            Some((&RECORD_VERSION, rest)) => Ok(Fields {
                rest,
                at: 1,
                last: None,
            }),
            Some((&version, _)) => Err(malformed("a record has another version than expected")
                .with("expected", RECORD_VERSION)
                .with("found", version)),
            None => Err(malformed("a record has no bytes")),
        }
    }

    /// The next field, `None` at the end.
    ///
    /// # Errors
    /// `Codec` when ids do not rise (R1) or the bytes end inside a field.
    pub fn next_field(&mut self) -> Result<Option<RawField<'a>>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let before = self.rest.len();
        let tag = varint::read(&mut self.rest)?;
        let wire = Wire::of((tag & 7) as u8)?;
        let id = u16::try_from(tag >> 3)
            .map_err(|_| malformed("a field's id is out of range").with("found", tag >> 3))?;
        if self.last.is_some_and(|last| last >= id) {
            return Err(malformed("the ids of a record's fields do not rise").with("field", id));
        }
        let whole = wire
            .take(&mut self.rest)
            .map_err(|error| error.with("field", id))?;
        self.last = Some(id);
        self.at += before - self.rest.len();
        Ok(Some(RawField {
            id,
            wire,
            offset: self.at - whole.len(),
            whole,
        }))
    }
}

/// Reads the fields of a record in the order of their ids: what the derived decoder calls.
#[derive(Debug)]
pub struct Reader<'a> {
    fields: Fields<'a>,
    next: Option<RawField<'a>>,
}

impl<'a> Reader<'a> {
    /// Begins to read `record` and passes over its hidden columns.
    ///
    /// # Errors
    /// `Codec` when the bytes are no record of this version.
    pub fn of(record: &'a [u8]) -> Result<Reader<'a>> {
        let mut fields = Fields::of(record)?;
        let mut next = fields.next_field()?;
        if let Some(field) = next.filter(|field| field.id == 0) {
            Hidden::of_field(&field)?;
            next = fields.next_field()?;
        }
        Ok(Reader { fields, next })
    }

    /// Reads the field that `def` describes; ids must rise from call to call.
    ///
    /// # Errors
    /// `Codec` when a field before it is unknown (R2), its bytes are not of this type, or it is
    /// missing without a default (R3).
    pub fn field<T: Column>(&mut self, def: &FieldDef) -> Result<T> {
        match self.next {
            Some(field) if field.id < def.id => Err(unknown(field.id)),
            Some(field) if field.id == def.id => {
                def.expect(field)?;
                self.next = self.fields.next_field()?;
                T::decode_field(field.whole).map_err(|error| error.with("field", def.name))
            }
            _ => match (T::absent(), def.default) {
                (Some(absent), _) => Ok(absent),
                (None, Some(default)) => {
                    let mut whole = Vec::new();
                    default(&mut whole);
                    T::decode_field(&whole)
                }
                (None, None) => Err(def.missing()),
            },
        }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// `Codec` when a field is left, which is one that the schema does not know (R2).
    pub fn finish(self) -> Result<()> {
        self.next.map_or(Ok(()), |field| Err(unknown(field.id)))
    }
}

fn unknown(id: u16) -> Error {
    malformed("a record has a field that the schema does not know").with("id", id)
}
