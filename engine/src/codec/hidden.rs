//! Hidden columns: what the engine keeps in a record beside the user's fields.
//!
//! They are the record's field 0, a list of kind and number. A record without any has no field 0,
//! so the bytes of a record that needs none are the user's alone.
//!
//! ```text
//! 05 len | kind u8, varint | kind u8, varint       kinds rise: 1 row id, 2 expiry
//! ```
//!
//! Plain values (those that are no records) have no place for hidden columns, and need none: a
//! row id belongs to a vector field, and expiry is refused on tables of plain values.

use super::record::{Fields, RECORD_VERSION, RawField};
use super::value::Wire;
use super::{malformed, varint};
use crate::error::Result;

const ROW_ID: u8 = 1;
const EXPIRES_MS: u8 = 2;
/// The tag of field 0.
const TAG: u8 = Wire::List as u8;

/// The hidden columns of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hidden {
    /// Row id of a table with a vector field whose key is not an integer.
    pub row_id: Option<u64>,
    /// When the row expires, in milliseconds since 1970 as the commit timestamps count them.
    pub expires_ms: Option<u64>,
}

impl Hidden {
    /// The hidden columns of `record`.
    ///
    /// # Errors
    /// `Codec` when the bytes are no record.
    pub fn read(record: &[u8]) -> Result<Hidden> {
        match Fields::of(record)?.next_field()? {
            Some(field) if field.id == 0 => Hidden::of_field(&field),
            _ => Ok(Hidden::default()),
        }
    }

    /// A copy of `record` that has these hidden columns in place of its own.
    ///
    /// # Errors
    /// `Codec` when the bytes are no record.
    pub fn write(&self, record: &[u8]) -> Result<Vec<u8>> {
        let mut fields = Fields::of(record)?;
        let user = match fields.next_field()? {
            Some(field) if field.id == 0 => field.offset + field.whole.len(),
            _ => 1,
        };
        let mut whole = Vec::new();
        for (kind, number) in [(ROW_ID, self.row_id), (EXPIRES_MS, self.expires_ms)] {
            if let Some(number) = number {
                whole.push(kind);
                varint::write(number, &mut whole);
            }
        }
        let mut out = Vec::with_capacity(record.len() + 2 + whole.len());
        out.push(RECORD_VERSION);
        if !whole.is_empty() {
            out.push(TAG);
            varint::write(whole.len() as u64, &mut out);
            out.extend_from_slice(&whole);
        }
        out.extend_from_slice(&record[user..]);
        Ok(out)
    }

    /// Reads field 0.
    pub(crate) fn of_field(field: &RawField<'_>) -> Result<Hidden> {
        let (mut hidden, mut rest, mut last) = (Hidden::default(), field.whole, 0);
        if field.wire != Wire::List || rest.is_empty() {
            return Err(malformed("the hidden columns are no list, or empty"));
        }
        while let Some((&kind, after)) = rest.split_first() {
            rest = after;
            if kind <= last {
                return Err(malformed("the kinds of the hidden columns do not rise"));
            }
            last = kind;
            match kind {
                ROW_ID => hidden.row_id = Some(varint::read(&mut rest)?),
                EXPIRES_MS => hidden.expires_ms = Some(varint::read(&mut rest)?),
                _ => return Err(malformed("an unknown hidden column").with("kind", kind)),
            }
        }
        Ok(hidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_columns_come_and_go_without_touching_the_fields() {
        let plain = [RECORD_VERSION, 1 << 3, 42];
        assert_eq!(Hidden::read(&plain).unwrap(), Hidden::default());
        let hidden = Hidden {
            row_id: Some(300),
            expires_ms: None,
        };
        let with = hidden.write(&plain).unwrap();
        assert_eq!(
            with,
            [RECORD_VERSION, TAG, 3, ROW_ID, 0xac, 0x02, 1 << 3, 42]
        );
        assert_eq!(Hidden::read(&with).unwrap(), hidden);
        let both = Hidden {
            expires_ms: Some(7),
            ..hidden
        };
        let again = both.write(&with).unwrap();
        assert_eq!(Hidden::read(&again).unwrap(), both);
        assert_eq!(Hidden::default().write(&again).unwrap(), plain);
    }

    #[test]
    fn malformed_hidden_columns_are_refused() {
        for whole in [
            &[][..],
            &[3, 1],
            &[2, 1, 1, 1],
            &[1, 1, 1, 1],
            &[1],
            &[1, 0x80],
        ] {
            let mut record = vec![RECORD_VERSION, TAG, whole.len() as u8];
            record.extend_from_slice(whole);
            assert!(Hidden::read(&record).is_err(), "{whole:?}");
        }
        assert!(
            Hidden::read(&[RECORD_VERSION, 0, 1]).is_err(),
            "another wire type"
        );
    }
}
