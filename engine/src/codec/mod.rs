//! From Rust values to stored bytes and back: keys that sort, values that do not.
//!
//! Where it stands: a table encodes what the user gives it here, before anything else sees it;
//! transactions, log, pages and indexes know bytes only. The byte tables are in
//! `guide/format.md`, frozen with format 1.
//!
//! | file | noun |
//! |---|---|
//! | [`key`] | the order-preserving codec of keys |
//! | [`as_key`], [`span`] | what the user may write where a key, a range or a prefix is asked for |
//! | [`value`] | plain values: numbers, text, bytes, options, lists, tuples |
//! | [`record`] | records: fields in rising id, each with its wire type |
//! | [`hidden`] | columns of a record that the engine writes, not the user |
//! | [`index`] | rows of unique and secondary indexes |
//! | [`vector`] | vector fields: where their elements lie, and the checks on them |
//! | [`data_type`] | the name of a type in a stored schema |
//! | [`check`] | whether bytes are a value of a stored type, without the Rust type |
//! | [`show`] | encoded keys as text |
//! | [`guard`] | [`Ref`], one owned aligned copy of an encoded value |
//!
//! Invariants:
//! - C1: a value has exactly one encoding; a decoder refuses every other (`Codec`).
//! - C2: for keys, bytes compare (memcmp) as values do; the form inside a tuple is prefix-free.
//! - C3: no input makes a decoder panic, nor allocate more than a small multiple of its length.

pub mod as_key;
pub mod check;
pub mod data_type;
pub mod guard;
pub mod hidden;
pub mod index;
pub mod key;
pub mod order;
pub mod record;
pub mod show;
pub mod span;
pub mod value;
pub(crate) mod varint;
pub mod vector;

pub use as_key::AsKey;
pub use data_type::DataType;

pub use guard::Ref;
pub use key::{Composite, Desc, Key};
pub use record::{FieldDef, Record};
pub use span::{KeyPrefix, KeyRange, Span};
pub use value::{Column, Value, Wire};

use crate::error::{Error, ErrorKind};

/// A `Codec` error: `what` says what is wrong with the bytes.
pub(crate) fn malformed(what: &'static str) -> Error {
    Error::new(ErrorKind::Codec, what)
}

#[cfg(test)]
mod tests;
