//! Which shard a row lies in: the vindex of its table on the first part of its key.
//!
//! ```text
//! encoded key -> value of its first part -> vindex -> keyspace id -> shard map -> shard
//! ```
//!
//! Rows that share the first part share the shard, whatever the rest of their keys is: a tenant's
//! orders lie together. The vindex is `xxhash`, which places a number or a text as Vitess does: by
//! the text that SQL has for it.

use std::fmt;
use std::sync::Arc;

use terrane_shard::{
    Column, Destination, KeyspaceId, RoutingEpoch, ShardId, ShardMap, Value, Vindex,
};

use crate::codec::key::{Key, invert};
use crate::codec::{DataType, FieldDef, Span};
use crate::error::{Error, ErrorKind, Result};
use crate::table::Shape;

/// Where a row lies, and why; made by [`crate::Table::route`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Route {
    /// The shard; the one of all ids in a database that has no other.
    pub shard: ShardId,
    /// Where the row lies among all ids; None where there is one shard.
    pub keyspace_id: Option<KeyspaceId>,
    /// The rule that chose it, as a call.
    pub rule: String,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {}", self.shard)?;
        if let Some(id) = &self.keyspace_id {
            write!(f, ", keyspace id {id}")?;
        }
        write!(f, ", by {}", self.rule)
    }
}

/// A table in every shard.
#[derive(Clone)]
pub(crate) struct Rooms {
    inner: Arc<Inner>,
}

struct Inner {
    /// In the order of the shards' numbers.
    shapes: Vec<Shape>,
    /// None: there is one shard.
    placing: Option<(Arc<ShardMap>, Column)>,
}

impl Rooms {
    /// A table as each shard knows it.
    ///
    /// # Errors
    /// `Invalid` if there is none.
    pub(crate) fn new(map: Option<&Arc<ShardMap>>, shapes: Vec<Shape>) -> Result<Rooms> {
        if map.map_or(1, |map| map.shards().len()) != shapes.len() || shapes.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "a table is in each shard"));
        }
        let placing = map.map(|map| (Arc::clone(map), Column::Xxhash));
        let inner = Arc::new(Inner { shapes, placing });
        Ok(Rooms { inner })
    }

    /// As the first shard knows it.
    #[inline]
    pub(crate) fn first(&self) -> &Shape {
        &self.inner.shapes[0]
    }

    /// In all shards, by their numbers.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u32, &Shape)> {
        let shapes = self.inner.shapes.iter().enumerate();
        shapes.map(|(shard, shape)| (shard as u32, shape))
    }

    /// In the shard of a row.
    ///
    /// # Errors
    /// `Codec` if `key` is no key of the table.
    #[inline]
    pub(crate) fn of(&self, key: &[u8]) -> Result<(u32, &Shape)> {
        let Some((map, vindex)) = &self.inner.placing else {
            return Ok((0, self.first()));
        };
        let (_, id) = self.placed(*vindex, key)?;
        let shard = match terrane_wal::planted!("rows_lie_in_the_first_shard") {
            true => 0,
            false => map.position(&id),
        };
        Ok((shard as u32, &self.inner.shapes[shard]))
    }

    /// The value that places a row, and where.
    fn placed<'k>(&self, vindex: Column, key: &'k [u8]) -> Result<(Value<'k>, KeyspaceId)> {
        let value = first_part(&(self.first().key_type)(), key)?;
        let id = id_of(vindex, &value)?;
        Ok((value, id))
    }

    /// In the shards that may have rows of a span: one if all its keys share their first part.
    pub(crate) fn of_span(&self, span: &Span) -> Vec<(u32, &Shape)> {
        if self.inner.placing.is_some()
            && let Some(key) = self.shared(span)
            && let Ok(place) = self.of(key)
        {
            return vec![place];
        }
        self.all().collect()
    }

    /// The first part that all keys of a span begin with, if there is one.
    fn shared<'s>(&self, span: &'s Span) -> Option<&'s [u8]> {
        let DataType::Tuple(parts) = (self.first().key_type)() else {
            return None;
        };
        let mut rest = span.start();
        parts.first()?.show_part(&mut rest).ok()?;
        let part = &span.start()[..span.start().len() - rest.len()];
        let behind = Span::prefix(part.to_vec());
        let within = span.end()? <= behind.end()?;
        (within && !part.is_empty()).then_some(part)
    }

    /// See [`crate::Table::route`].
    ///
    /// # Errors
    /// As [`Rooms::of`].
    pub(crate) fn route(&self, key: &[u8]) -> Result<Route> {
        let Some((map, vindex)) = &self.inner.placing else {
            return Ok(Route {
                shard: ShardMap::unsharded(RoutingEpoch(1)).shards()[0].clone(),
                keyspace_id: None,
                rule: "the only shard".to_owned(),
            });
        };
        let (value, id) = self.placed(*vindex, key)?;
        let shown = match &value {
            Value::Null => "null".to_owned(),
            Value::Int(number) => number.to_string(),
            Value::Uint(number) => number.to_string(),
            Value::Bytes(bytes) => format!("\"{}\"", bytes.escape_ascii()),
        };
        Ok(Route {
            shard: map.route(&id).clone(),
            keyspace_id: Some(id),
            rule: format!("{}({shown})", vindex.kind()),
        })
    }
}

/// Whether rows of a table can be placed among several shards.
///
/// # Errors
/// `Invalid`, with why not.
pub(crate) fn check(table: &str, key: &DataType, fields: &[FieldDef]) -> Result<()> {
    let refused = |what: &'static str| Error::new(ErrorKind::Invalid, what).with("table", table);
    if let Some(field) = fields.iter().find(|field| field.unique) {
        let what = "a unique field of a table in several shards is not kept yet";
        return Err(refused(what).with("field", field.name));
    }
    match key {
        DataType::Tuple(parts) if matches!(parts.first(), Some(DataType::Custom(_))) => Err(
            refused("the first part of a key has no place: it is of a type of the program's own"),
        ),
        _ => Ok(()),
    }
}

fn id_of(vindex: Column, value: &Value<'_>) -> Result<KeyspaceId> {
    match vindex.map(std::slice::from_ref(value)) {
        Ok(Destination::Id(id)) => Ok(id),
        Ok(_) => Err(Error::new(ErrorKind::Invalid, "a key has no place")),
        Err(error) => Err(Error::new(ErrorKind::Invalid, "a key has no place").caused_by(error)),
    }
}

/// The value that places a row, from its encoded key.
fn first_part<'k>(key_type: &DataType, key: &'k [u8]) -> Result<Value<'k>> {
    match key_type {
        DataType::String | DataType::Bytes => Ok(key.into()),
        DataType::Tuple(parts) => match parts.first() {
            Some(first) => part(first, &mut &*key),
            None => Ok(Value::Null),
        },
        DataType::Option(inner) => match key.split_first() {
            Some((1, rest)) => first_part(inner, rest),
            _ => Ok(Value::Null),
        },
        other => part(other, &mut &*key),
    }
}

/// The value of a part form at the front of `input`.
fn part(part_type: &DataType, input: &mut &[u8]) -> Result<Value<'static>> {
    fn take<K: Key>(input: &mut &[u8]) -> Result<K> {
        K::decode_part(input)
    }
    let signed = |number: i64| Value::Int(number);
    let unsigned = |number: u64| Value::Uint(number);
    let text = |text: String| Value::from(text.into_bytes());
    Ok(match part_type {
        DataType::Unit => Value::Null,
        DataType::Bool => unsigned(take::<bool>(input)?.into()),
        DataType::Char => text(take::<char>(input)?.to_string()),
        DataType::U8 => unsigned(take::<u8>(input)?.into()),
        DataType::U16 => unsigned(take::<u16>(input)?.into()),
        DataType::U32 => unsigned(take::<u32>(input)?.into()),
        DataType::U64 => unsigned(take::<u64>(input)?),
        DataType::U128 => text(take::<u128>(input)?.to_string()),
        DataType::I8 => signed(take::<i8>(input)?.into()),
        DataType::I16 => signed(take::<i16>(input)?.into()),
        DataType::I32 => signed(take::<i32>(input)?.into()),
        DataType::I64 => signed(take::<i64>(input)?),
        DataType::I128 => text(take::<i128>(input)?.to_string()),
        DataType::String => text(take::<String>(input)?),
        DataType::Bytes => Value::from(take::<Vec<u8>>(input)?),
        DataType::Option(inner) => match take::<bool>(input)? {
            true => part(inner, input)?,
            false => Value::Null,
        },
        DataType::Desc(inner) => {
            let mut turned = input.to_vec();
            invert(&mut turned);
            part(inner, &mut turned.as_slice())?
        }
        // As they are encoded: these have one form.
        DataType::F32 | DataType::F64 | DataType::FixedBytes(_) | DataType::Tuple(_) => {
            let mut rest = *input;
            part_type.show_part(&mut rest)?;
            Value::from(input[..input.len() - rest.len()].to_vec())
        }
        DataType::List(_) | DataType::Vector(_) | DataType::Custom(_) | DataType::Record => {
            Value::from(input.to_vec())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Desc;

    fn placed<K: Key>(key: &K) -> Value<'static> {
        let mut bytes = Vec::new();
        key.encode_key(&mut bytes);
        match first_part(&K::key_type(), &bytes).unwrap() {
            Value::Bytes(bytes) => Value::from(bytes.into_owned()),
            Value::Int(number) => Value::Int(number),
            Value::Uint(number) => Value::Uint(number),
            Value::Null => Value::Null,
        }
    }

    /// The lone key, the first part of a longer one, and the same value turned around or optional
    /// have one place.
    #[test]
    fn a_value_has_one_place_whatever_surrounds_it() {
        assert_eq!(placed(&17_u64), Value::Uint(17));
        assert_eq!(placed(&(17_u64, "x".to_owned())), Value::Uint(17));
        assert_eq!(placed(&(Desc(17_u64), 3_u8)), Value::Uint(17));
        assert_eq!(placed(&Desc(-17_i32)), Value::Int(-17));
        assert_eq!(placed(&(Some(17_u64), 1_u8)), Value::Uint(17));
        assert_eq!(placed(&(None::<u64>, 1_u8)), Value::Null);
        let text = "a\0b".to_owned();
        let bytes = Value::from(text.clone().into_bytes());
        assert_eq!(placed(&text), bytes);
        assert_eq!(placed(&(text.clone(), 1_u8)), bytes);
        assert_eq!(placed(&(text.clone().into_bytes(), 1_u8)), bytes);
        assert_eq!(placed(&(Desc(text.clone()), 1_u8)), bytes);
        assert_eq!(placed(&Some(text)), bytes);
        assert_eq!(placed(&'\u{df}'), Value::from("\u{df}".as_bytes().to_vec()));
        assert_eq!(placed(&u128::MAX), placed(&u128::MAX.to_string()));
        assert_eq!(placed(&((1_u8, 2_u8), 3_u8)), placed(&((1_u8, 2_u8), 4_u8)));
        assert_ne!(placed(&((1_u8, 2_u8), 3_u8)), placed(&((1_u8, 3_u8), 3_u8)));
        assert_eq!(placed(&()), Value::Null);
    }
}
