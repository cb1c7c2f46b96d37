//! `cfc`: a key of concatenated parts of fixed width, each hashed for itself.
//!
//! A key is parent, child, grandchild in one byte string, and the id is the hashes of the parts one
//! behind the other. So all children of a parent have ids with one prefix, and a search by a prefix
//! of the key asks the shards of one range instead of all:
//!
//! ```text
//! key       abc   de  f        offsets [3,5]
//! id        h(abc) h(de) h(f)  each hash cut to the length of its part
//! prefix    abcd -> h(abc)     what does not fill a part is left out
//! ```
//!
//! Parameters: `hash` is `md5` or `xxhash64`; without it the key itself is the id. `offsets` is a
//! list of where parts end, needed with a hash. The last part may be of any length, none included.
//! Ids are those of Vitess (`go/vt/vtgate/vindexes/cfc.go`); the range of a prefix is not always:
//! it hashes what a prefix holds behind the last offset, but `h(f)` does not begin `h(fg)`, so that
//! range misses keys that the prefix matches. Here it ends at the last offset.
//!
//! Invariants:
//! - P1: the id of every key that begins with a prefix is in the range of that prefix.

use super::column::{md5, xxhash};
use super::error::VindexError;
use super::params::Params;
use super::value::Value;
use super::{Vindex, begin_with};
use crate::limits::CFC_OFFSETS_MAX;
use crate::map::{Destination, KeyspaceId};

/// How a part is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PartHash {
    Md5,
    Xxhash64,
}

/// The vindex `cfc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cfc {
    /// The hash, and where parts end: rising and not empty. None where the key is the id.
    parts: Option<(PartHash, Vec<usize>)>,
}

/// Cost of a search by prefix where the number of parts is not known.
const PREFIX_COST: u32 = 2;

impl Cfc {
    /// The name that a schema knows it by.
    pub const NAME: &'static str = "cfc";

    /// Builds it from its parameters.
    ///
    /// Offsets without a hash are checked and have no effect, as in Vitess.
    ///
    /// # Errors
    /// [`VindexError::ParamValue`] for another hash, for offsets that are no JSON list of rising
    /// numbers above 0, and for more than [`CFC_OFFSETS_MAX`]; [`VindexError::ParamMissing`] for a
    /// hash without offsets; [`VindexError::UnknownParam`].
    pub fn new(params: &Params<'_>) -> Result<Cfc, VindexError> {
        params.accept(&["hash", "offsets"])?;
        let hash = match params.get("hash") {
            None | Some("") => None,
            Some("md5") => Some(PartHash::Md5),
            Some("xxhash64") => Some(PartHash::Xxhash64),
            Some(other) => return Err(params.bad("hash", "md5 or xxhash64", other)),
        };
        let offsets = match params.get("offsets") {
            None | Some("") => None,
            Some(text) => Some(parse_offsets(params, text)?),
        };
        match (hash, offsets) {
            (None, _) => Ok(Cfc { parts: None }),
            (Some(_), None) => Err(params.missing("offsets", "where parts end, as in [3,5]")),
            (Some(hash), Some(offsets)) => Ok(Cfc {
                parts: Some((hash, offsets)),
            }),
        }
    }

    /// The hashes of the parts that are whole, and of what is behind the last offset.
    fn raw(&self, key: &[u8]) -> Vec<u8> {
        let Some((hash, offsets)) = &self.parts else {
            return key.to_vec();
        };
        let mut raw = Vec::new();
        let mut push = |part: &[u8]| match hash {
            PartHash::Md5 => raw.extend_from_slice(&md5(part)[..part.len().min(16)]),
            PartHash::Xxhash64 => {
                let word = xxhash(part).to_be_bytes();
                raw.extend_from_slice(&word[..part.len().min(8)]);
            }
        };
        let mut start = 0;
        for &end in offsets {
            let Some(part) = key.get(start..end) else {
                return raw;
            };
            push(part);
            start = end;
        }
        push(&key[start..]); // nothing where the key ends here
        raw
    }
}

fn parse_offsets(params: &Params<'_>, text: &str) -> Result<Vec<usize>, VindexError> {
    let expected = "a list of rising numbers above 0, as in [3,5]";
    let offsets: Vec<usize> =
        serde_json::from_str(text).map_err(|_| params.bad("offsets", expected, text))?;
    let rising = offsets.windows(2).all(|two| two[0] < two[1]);
    if offsets.first().is_none_or(|first| *first == 0) || !rising {
        return Err(params.bad("offsets", expected, text));
    }
    if offsets.len() > CFC_OFFSETS_MAX {
        let expected = format!("at most {CFC_OFFSETS_MAX} offsets");
        return Err(params.fault("offsets", &expected, offsets.len().to_string()));
    }
    Ok(offsets)
}

impl Vindex for Cfc {
    fn kind(&self) -> &str {
        Cfc::NAME
    }

    fn cost(&self) -> u32 {
        1
    }

    fn map(&self, values: &[Value<'_>]) -> Result<Destination, VindexError> {
        let [value] = values else {
            return Err(VindexError::ColumnCount {
                vindex: Cfc::NAME.to_owned(),
                expected: 1,
                found: values.len(),
            });
        };
        let parts = self.parts.as_ref();
        let expected = parts
            .and_then(|(_, offsets)| offsets.last())
            .map_or(0, |&last| last);
        value.with_text(|key| {
            if key.len() < expected {
                return Err(VindexError::TooShort {
                    vindex: Cfc::NAME.to_owned(),
                    expected,
                    found: key.len(),
                });
            }
            let id = KeyspaceId::new(&self.raw(key)).map_err(VindexError::id(Cfc::NAME))?;
            Ok(Destination::Id(id))
        })
    }

    fn prefix_cost(&self) -> Option<u32> {
        let parts = self.parts.as_ref();
        // At most CFC_OFFSETS_MAX of them.
        Some(parts.map_or(PREFIX_COST, |(_, offsets)| offsets.len() as u32))
    }

    fn prefix(&self, prefix: &[u8]) -> Result<Destination, VindexError> {
        // P1: the hash of the beginning of the last part says nothing.
        let whole = match &self.parts {
            Some((_, offsets)) => offsets.last().map_or(0, |last| prefix.len().min(*last)),
            None => prefix.len(),
        };
        begin_with(Cfc::NAME, &self.raw(&prefix[..whole]))
    }
}
