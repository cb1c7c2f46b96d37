//! Where rows lie and what a policy survives, computed from what is given: no file is opened.
//!
//! ```text
//! count or ranges -> shard map; value, vindex -> keyspace id -> shard      `shard_map`, `place`
//! members, acknowledgements -> what a failover needs, what may be down     `policy`
//! ```
//! `terrane shard` and `terrane policy` (feature `cli`) are these functions and a printer.

use std::error::Error as StdError;
use std::fmt;
use std::str::FromStr;

use terrane_shard::policy::{
    DurabilityPolicy, Member, NoAcks, PolicyReport, Quorums, Role, SemiSync,
};
use terrane_shard::{
    Destination, KeyRange, MapError, Registry, RoutingEpoch, ShardId, ShardMap, Value, even_ranges,
    parse_ranges,
};

use crate::error::{Error, ErrorKind, Result};

/// Which shards there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shards {
    /// So many, with nearly equal ranges.
    Even(usize),
    /// Those of a list: `-40,40-80,80-`, or `-40-80-` for the same.
    Ranges(String),
}

/// What is to be placed, and by which rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlaceQuery {
    /// The kind of the vindex.
    pub vindex: String,
    /// Its parameters, each `name=value`.
    pub params: Vec<String>,
    /// Values, one for each column of the vindex; text that is an integer's counts as one.
    pub values: Vec<String>,
}

/// Where a row lies, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Placement {
    /// The vindex on the values, as a call.
    pub rule: String,
    /// The keyspace id, or the range of ids; None where values have no place.
    pub destination: Option<String>,
    /// The shards that serve it.
    pub shards: Vec<ShardId>,
    /// All shards there are.
    pub of: usize,
    /// What the vindex is like.
    pub vindex: String,
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.destination.as_deref().unwrap_or("none");
        writeln!(f, "keyspace id  {place}")?;
        let shards: Vec<String> = self.shards.iter().map(ShardId::to_string).collect();
        let shards = if shards.is_empty() {
            "none".to_owned()
        } else {
            shards.join(", ")
        };
        writeln!(f, "shard        {shards}, of {}", self.of)?;
        writeln!(f, "rule         {}", self.rule)?;
        write!(f, "vindex       {}", self.vindex)
    }
}

/// The shard map of these shards; its text is a table.
///
/// # Errors
/// `Invalid`, caused by the `MapError`: half bytes, other characters, ranges that are empty,
/// overlap or leave ids out, a number of shards that no map has.
pub fn shard_map(shards: &Shards) -> Result<ShardMap> {
    let made = match shards {
        Shards::Even(count) => even_ranges(*count),
        Shards::Ranges(text) if text.contains(',') => text
            .split(',')
            .map(|range| KeyRange::from_str(range.trim()))
            .collect::<Result<Vec<KeyRange>, MapError>>(),
        Shards::Ranges(text) => parse_ranges(text),
    };
    made.and_then(|ranges| ShardMap::new(RoutingEpoch(1), ranges))
        .map_err(|error| invalid("these are no shards", error))
}

/// Where a row with these values lies.
///
/// # Errors
/// Those of [`shard_map`]; `Invalid`, caused by the `VindexError`: a kind or a parameter that is
/// not known, another number of values than the vindex has columns, values that it refuses.
pub fn place(shards: &Shards, query: &PlaceQuery) -> Result<Placement> {
    let map = shard_map(shards)?;
    let pairs: Result<Vec<(&str, &str)>> = query.params.iter().map(|text| pair(text)).collect();
    let refused = |error| invalid("the vindex does not place this", error);
    let vindex = Registry::new()
        .build(&query.vindex, &pairs?)
        .map_err(refused)?;
    let values: Vec<Value<'_>> = query.values.iter().map(|text| value(text)).collect();
    let destination = vindex.map(&values).map_err(refused)?;
    let yes = |is: bool, word: &'static str| if is { word } else { "" };
    let words = query.values.iter().zip(&values).map(shown);
    Ok(Placement {
        rule: format!(
            "{}({})",
            vindex.kind(),
            words.collect::<Vec<String>>().join(", ")
        ),
        shards: map.resolve(&destination).to_vec(),
        destination: match destination {
            Destination::None => None,
            Destination::Id(id) if id.is_empty() => Some("the least".to_owned()),
            Destination::Id(id) => Some(id.to_string()),
            Destination::Range(range) => Some(range.to_string()),
            Destination::All => Some("any".to_owned()),
        },
        of: map.shards().len(),
        vindex: format!(
            "{}, cost {}{}{}{}",
            vindex.kind(),
            vindex.cost(),
            yes(vindex.is_unique(), ", unique"),
            yes(vindex.is_reversible(), ", reversible"),
            yes(vindex.is_ordered(), ", ordered"),
        ),
    })
}

/// What `name` (`none`, `semi_sync`, `cross_zone`) with so many acknowledgements survives on these
/// members, each `number:zone` or `number:zone:reader`.
///
/// # Errors
/// `Invalid`, caused by the `PolicyError` where members do not fit the policy.
pub fn policy(name: &str, acks: usize, readers: bool, members: &[String]) -> Result<PolicyReport> {
    let members: Result<Vec<Member>> = members.iter().map(|text| member(text)).collect();
    let with = |policy: SemiSync| match readers {
        true => policy.with_readers(),
        false => policy,
    };
    let policy: Box<dyn DurabilityPolicy> = match name {
        "none" => Box::new(NoAcks),
        "semi_sync" => Box::new(with(SemiSync::new(acks))),
        "cross_zone" => Box::new(with(SemiSync::cross_zone(acks))),
        _ => {
            let error = Error::new(ErrorKind::Invalid, "there is no such policy");
            return Err(error
                .with("given", format!("{name:?}"))
                .with("allowed", "none, semi_sync, cross_zone"));
        }
    };
    let quorums = Quorums::new(&*policy, &members?)
        .map_err(|error| invalid("the policy does not fit its members", error))?;
    Ok(quorums.report())
}

fn member(text: &str) -> Result<Member> {
    let parts: Vec<&str> = text.split(':').collect();
    let made = match parts[..] {
        [id, zone] => (id.parse().ok()).map(|id| Member::voter(id, zone)),
        [id, zone, "reader"] => (id.parse().ok()).map(|id| Member {
            role: Role::Reader,
            ..Member::voter(id, zone)
        }),
        _ => None,
    };
    made.ok_or_else(|| {
        Error::new(ErrorKind::Invalid, "a member cannot be read")
            .with("given", format!("{text:?}"))
            .with("allowed", "number:zone or number:zone:reader")
    })
}

fn pair(text: &str) -> Result<(&str, &str)> {
    text.split_once('=').ok_or_else(|| {
        Error::new(ErrorKind::Invalid, "a parameter cannot be read")
            .with("given", format!("{text:?}"))
            .with("allowed", "name=value")
    })
}

/// An integer where the text is the one that the integer has, so that bytes are never changed.
fn value(text: &str) -> Value<'_> {
    let signed = text.parse::<i64>().ok();
    let unsigned = text.parse::<u64>().ok();
    match (signed, unsigned) {
        (Some(number), _) if number.to_string() == text => Value::Int(number),
        (_, Some(number)) if number.to_string() == text => Value::Uint(number),
        _ => text.into(),
    }
}

fn shown((text, value): (&String, &Value<'_>)) -> String {
    match value {
        Value::Bytes(_) => format!("{text:?}"),
        _ => text.clone(),
    }
}

fn invalid(what: &'static str, error: impl StdError + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Invalid, what).caused_by(error)
}
