//! Whether stored bytes are a row of their table, by the stored schema alone.
//!
//! `terrane check` and fuzzing ask this; a table decodes with its Rust types instead. Both must
//! agree, which a property test holds.

use super::schema::FieldSchema;
use crate::codec::hidden::Hidden;
use crate::codec::malformed;
use crate::codec::record::Fields;
use crate::error::Result;

/// Checks every field of an encoded record against its schema.
///
/// # Errors
/// `Codec`: an unknown id, another wire type, bytes that are no value of the field's type, or a
/// field that is missing and may not be.
pub(super) fn check_record(schema: &[FieldSchema], record: &[u8]) -> Result<()> {
    let mut fields = Fields::of(record)?;
    let mut known = schema.iter();
    while let Some(field) = fields.next_field()? {
        if field.id == 0 {
            Hidden::of_field(&field)?;
            continue;
        }
        let found = loop {
            match known.next() {
                Some(known) if known.id < field.id => missing(known)?,
                Some(known) if known.id == field.id => break known,
                _ => {
                    return Err(
                        malformed("a record has a field that the schema does not know")
                            .with("id", field.id),
                    );
                }
            }
        };
        if field.wire != found.data_type.field_wire() {
            return Err(malformed("a field has another wire type than its type")
                .with("field", &found.name)
                .with("found", format_args!("{:?}", field.wire)));
        }
        found
            .data_type
            .check_field(field.whole)
            .map_err(|error| error.with("field", &found.name))?;
    }
    known.try_for_each(missing)
}

fn missing(field: &FieldSchema) -> Result<()> {
    if field.may_be_missing() {
        return Ok(());
    }
    Err(malformed("a field without a default is missing")
        .with("field", &field.name)
        .with("id", field.id))
}
