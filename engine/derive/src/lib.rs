//! Derive macros of `terrane`.
//!
//! `#[derive(Record)]` reads the attributes of a struct (`attributes.rs`), refuses what has no
//! meaning at the place where it stands, and writes the codec, the field constants and the static
//! schema (`expand.rs`). It runs in the compiler and touches no bytes: what it writes calls
//! `terrane::codec`.
//!
//! Invariants:
//! - M1: bad input gives one error per mistake, at the mistake, and never a panic.
//! - M2: what is written depends on the struct alone, in rising id, whatever the order in the
//!   source.

mod attributes;
mod expand;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Makes a struct with named fields a record: the value of a table, stored field by field.
///
/// Every field has an id, its identity for ever; names may change. For each field there is a
/// constant in upper case, of type `Field<Struct, Type>`, with the visibility of the field.
///
/// | attribute | meaning |
/// |---|---|
/// | `id = N` | number of the field, 1 to 16,383, never reused |
/// | `unique` | no two rows hold the same value (`None` excepted); also an index |
/// | `index` | a secondary index |
/// | `filter` | stored beside vector codes: filtered search reads no rows |
/// | `default` | rows written before the field was added read as `Default::default()` |
/// | `vector(metric = "l2")` | searchable by distance: `l2`, `cosine` or `dot` |
/// | `vector(metric = "l2", dim = N)` | the same for a `DynVector` |
#[proc_macro_derive(Record, attributes(terrane))]
pub fn derive_record(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    match attributes::Table::of(&input) {
        Ok(table) => expand::record(&table).into(),
        Err(error) => error.into_compile_error().into(),
    }
}
