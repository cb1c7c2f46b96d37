//! The name of a record's field in the program: what an index, a filter or a search is asked by.

use std::fmt;
use std::marker::PhantomData;

use crate::codec::{Column, FieldDef, Record};
use crate::error::Result;

/// A field of the record `R`, of type `T`: the constants that `#[derive(Record)]` writes.
///
/// ```
/// use terrane::{Field, Record};
///
/// #[derive(Record)]
/// struct User {
///     #[terrane(id = 1, unique)]
///     email: String,
/// }
/// let email: Field<User, String> = User::EMAIL;
/// assert_eq!((email.id(), email.name()), (1, "email"));
/// ```
pub struct Field<R, T> {
    def: FieldDef,
    marker: PhantomData<fn() -> (R, T)>,
}

impl<R, T> Field<R, T> {
    /// Names the field that `def` describes, which must be of type `T`.
    #[doc(hidden)]
    #[must_use]
    pub const fn new(def: FieldDef) -> Field<R, T> {
        Field {
            def,
            marker: PhantomData,
        }
    }

    /// Its number, which is its identity for ever.
    #[must_use]
    pub const fn id(&self) -> u16 {
        self.def.id
    }

    /// Its name in the source.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.def.name
    }

    /// What the schema and the codec know of it.
    #[doc(hidden)]
    #[must_use]
    pub const fn def(&self) -> FieldDef {
        self.def
    }
}

impl<R: Record, T: Column> Field<R, T> {
    /// Decodes this field of an encoded record and no other.
    ///
    /// # Errors
    /// `Codec` when the bytes are no record of this type.
    pub(crate) fn read(&self, record: &[u8]) -> Result<T> {
        match (self.def.find_raw(record)?, T::absent()) {
            (Some(field), _) => T::decode_field(field.whole),
            (None, Some(absent)) => Ok(absent),
            // No option, so there is a default, or `find` fails.
            (None, None) => T::decode_field(&self.def.find(record)?.unwrap_or_default()),
        }
    }
}

impl<R, T> Clone for Field<R, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R, T> Copy for Field<R, T> {}

impl<R, T> fmt::Debug for Field<R, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (id {})", self.def.name, self.def.id)
    }
}
