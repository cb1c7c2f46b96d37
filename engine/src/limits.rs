//! Limits of keys, values and schemas, and how they relate.
//!
//! Everything here is part of format 1 or guards a decoder; what a database may be configured to
//! lies in its builder.

use crate::error::{Error, ErrorKind, Result};

/// Bytes of the longest encoded key, index keys included.
pub const MAX_KEY_BYTES: usize = 32 << 10;
/// Bytes of the longest encoded value, until large values are stored outside of the tree.
pub const MAX_VALUE_BYTES: usize = 64 << 10;
/// Dimensions of the longest vector.
pub const MAX_DIMENSIONS: u32 = 16_000;
/// The highest id of a record's field; id 0 belongs to the hidden columns.
pub const MAX_FIELD_ID: u16 = 16_383;
/// Fields of the widest record.
pub const MAX_FIELDS: usize = 1_000;
/// Bytes of the longest name of a field.
pub const MAX_FIELD_NAME_BYTES: usize = 255;
/// Bytes of the longest name of a value format that is not built in.
pub const MAX_TYPE_NAME_BYTES: usize = 255;
/// Parts of the widest tuple.
pub const MAX_TUPLE_PARTS: usize = 8;
/// How deep types nest.
pub const MAX_TYPE_DEPTH: usize = 16;
/// Bytes of the longest encoded schema.
pub const MAX_SCHEMA_BYTES: usize = 1 << 20;

/// Keys of the largest commit, unless the builder says otherwise.
pub const COMMIT_KEYS: usize = 100_000;
/// Bytes of keys and values of the largest commit, unless the builder says otherwise.
pub const COMMIT_BYTES: usize = 64 << 20;
/// Bytes of the longest idempotency key.
pub const MAX_IDEMPOTENCY_KEY_BYTES: usize = 64;
/// Bytes of the longest table name.
pub const MAX_TABLE_NAME_BYTES: usize = 255;
/// How long an idempotency key is remembered.
pub const IDEMPOTENCY_MS: u64 = 24 * 60 * 60 * 1000;
/// Row ids of a table that are logged as given out at a time.
pub const ROW_ID_BLOCK: u64 = 4096;
/// Shards of the recent-writes index.
pub(crate) const RECENT_SHARDS: usize = 16;
/// Stripes of the registry of read positions.
pub(crate) const PIN_STRIPES: usize = 8;
/// Ghosts that wait for a second look at most; others are met again by scans.
pub(crate) const LEFTOVER_GHOSTS: usize = 4096;

// The widest vector fits into a value beside its header, its tag and the record's version byte.
const _: () = assert!(MAX_DIMENSIONS as usize * 4 + 64 <= MAX_VALUE_BYTES);
const _: () = assert!(MAX_DIMENSIONS as usize <= terrane_vector::MAX_DIM);
// A tag, (id << 3 | wire), takes at most three bytes.
const _: () = assert!((MAX_FIELD_ID as u32) << 3 < 1 << 21);
// Recovery re-reads what a commit could write.
const _: () = assert!(COMMIT_BYTES * 2 <= terrane_wal::limits::ENTRY_BYTES_MAX);
// A key never outgrows the value of a unique index row, which holds a primary key.
const _: () = assert!(MAX_KEY_BYTES <= MAX_VALUE_BYTES);

/// Checks an encoded key against its limit; the empty key is allowed.
///
/// # Errors
/// `TooLarge` above [`MAX_KEY_BYTES`].
pub fn check_key(key: &[u8]) -> Result<()> {
    check("a key is above its limit", key.len(), MAX_KEY_BYTES)
}

/// Checks an encoded value against its limit; the empty value is allowed.
///
/// # Errors
/// `TooLarge` above [`MAX_VALUE_BYTES`].
pub fn check_value(value: &[u8]) -> Result<()> {
    check("a value is above its limit", value.len(), MAX_VALUE_BYTES)
}

fn check(message: &'static str, given: usize, limit: usize) -> Result<()> {
    if given <= limit {
        return Ok(());
    }
    let error = Error::new(ErrorKind::TooLarge, message);
    Err(error.with("given_bytes", given).with("limit_bytes", limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_itself_is_allowed_and_one_more_is_not() {
        assert!(check_key(&[]).is_ok());
        assert!(check_key(&vec![0; MAX_KEY_BYTES]).is_ok());
        let error = check_key(&vec![0; MAX_KEY_BYTES + 1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert!(
            error
                .to_string()
                .contains("given_bytes=32769, limit_bytes=32768")
        );
        assert!(check_value(&vec![0; MAX_VALUE_BYTES]).is_ok());
        let error = check_value(&vec![0; MAX_VALUE_BYTES + 1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
    }
}
