//! Parameters of a vindex: pairs of text, each known and given once, or the vindex is not built.
//!
//! A mistyped parameter that is passed over places rows by a rule that nobody asked for, and moving
//! them later is a reshard. So an unknown one is an error (Vitess warns).

use super::error::VindexError;

/// Characters of a bad value that an error repeats.
const QUOTED: usize = 64;

/// The parameters that a vindex of some kind is built from.
#[derive(Debug, Clone)]
pub struct Params<'a> {
    kind: &'a str,
    pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> Params<'a> {
    /// Parameters for a vindex of this kind.
    ///
    /// # Errors
    /// [`VindexError::ParamTwice`].
    pub fn new(kind: &'a str, pairs: &[(&'a str, &'a str)]) -> Result<Params<'a>, VindexError> {
        let mut pairs = pairs.to_vec();
        pairs.sort_unstable();
        if let Some(twice) = pairs.windows(2).find(|two| two[0].0 == two[1].0) {
            return Err(VindexError::ParamTwice {
                vindex: kind.to_owned(),
                param: twice[0].0.to_owned(),
            });
        }
        Ok(Params { kind, pairs })
    }

    /// Kind of the vindex, as it was asked for.
    #[must_use]
    pub fn kind(&self) -> &'a str {
        self.kind
    }

    /// The value of a parameter, if it is given.
    #[must_use]
    pub fn get(&self, param: &str) -> Option<&'a str> {
        let pair = self.pairs.iter().find(|(name, _)| *name == param);
        pair.map(|(_, value)| *value)
    }

    /// Refuses parameters that are not in `accepted`.
    ///
    /// # Errors
    /// [`VindexError::UnknownParam`] for the first of them by name.
    pub fn accept(&self, accepted: &[&str]) -> Result<(), VindexError> {
        let strange = self.pairs.iter().find(|(name, _)| !accepted.contains(name));
        strange.map_or(Ok(()), |(found, _)| {
            Err(VindexError::UnknownParam {
                vindex: self.kind.to_owned(),
                found: (*found).to_owned(),
                accepted: match accepted {
                    [] => "none".to_owned(),
                    names => names.join(", "),
                },
            })
        })
    }

    /// The error of a parameter that must be given; `expected` says what it must hold.
    pub(super) fn missing(&self, param: &'static str, expected: &str) -> VindexError {
        VindexError::ParamMissing {
            vindex: self.kind.to_owned(),
            param,
            expected: expected.to_owned(),
        }
    }

    /// The error of a value that cannot be used, `found` told as it is.
    pub(super) fn fault(&self, param: &str, expected: &str, found: String) -> VindexError {
        VindexError::ParamValue {
            vindex: self.kind.to_owned(),
            param: param.to_owned(),
            expected: expected.to_owned(),
            found,
        }
    }

    /// The error of a value that cannot be used, in quotes and cut short.
    pub(super) fn bad(&self, param: &str, expected: &str, found: &str) -> VindexError {
        let quoted: String = found.chars().take(QUOTED).collect();
        let dots = if quoted.len() < found.len() { ".." } else { "" };
        self.fault(param, expected, format!("{quoted:?}{dots}"))
    }

    /// Parameters for a part of this vindex: those of `accepted` that are given.
    pub(super) fn part(&self, kind: &'a str, accepted: &[&str]) -> Params<'a> {
        let pairs = self.pairs.iter().copied();
        Params {
            kind,
            pairs: pairs.filter(|(name, _)| accepted.contains(name)).collect(),
        }
    }
}
