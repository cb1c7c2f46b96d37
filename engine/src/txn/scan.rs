//! A scan: the rows of a range, in order, as one owned iterator.

use crate::error::Result;

/// Rows of a range as (key, value), in key order or its reverse. Owned and `Send`.
#[derive(Debug)]
pub struct RawScan {}

impl Iterator for RawScan {
    type Item = Result<(Vec<u8>, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        todo!()
    }
}
