//! What can be wrong with a vindex, its parameters or the values that it is given.
//!
//! Every variant names the vindex, what was expected and what was found.

use std::fmt;

use crate::map::MapError;

/// A vindex that cannot be built, or values that it cannot place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum VindexError {
    /// A kind that nobody registered.
    UnknownKind {
        /// The kind that was given.
        found: String,
        /// Those that there are.
        accepted: String,
    },
    /// A kind that is registered already.
    KindTaken {
        /// The kind.
        kind: String,
    },
    /// A parameter that the vindex does not have.
    UnknownParam {
        /// Kind of the vindex.
        vindex: String,
        /// The parameter that was given.
        found: String,
        /// Those that there are.
        accepted: String,
    },
    /// A parameter that is given twice.
    ParamTwice {
        /// Kind of the vindex.
        vindex: String,
        /// The parameter.
        param: String,
    },
    /// A parameter that is not given.
    ParamMissing {
        /// Kind of the vindex.
        vindex: String,
        /// The parameter.
        param: &'static str,
        /// What it must hold.
        expected: String,
    },
    /// A parameter whose value cannot be used.
    ParamValue {
        /// Kind of the vindex.
        vindex: String,
        /// The parameter.
        param: String,
        /// What it must hold.
        expected: String,
        /// What it holds, or what is wrong with it.
        found: String,
    },
    /// Two parameters of which one may be given.
    ParamConflict {
        /// Kind of the vindex.
        vindex: String,
        /// One of them.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// Another number of values than the vindex has columns.
    ColumnCount {
        /// Kind of the vindex.
        vindex: String,
        /// Columns of the vindex.
        expected: usize,
        /// Values that were given.
        found: usize,
    },
    /// A value that is too short to be taken apart.
    TooShort {
        /// Kind of the vindex.
        vindex: String,
        /// Bytes that the value must have.
        expected: usize,
        /// Bytes that it has.
        found: usize,
    },
    /// A vindex whose ids cannot be turned back into values.
    NotReversible {
        /// Kind of the vindex.
        vindex: String,
    },
    /// An id that the vindex cannot have made.
    ForeignId {
        /// Kind of the vindex.
        vindex: String,
        /// Most bytes of its ids.
        expected: usize,
        /// Bytes of the id.
        found: usize,
    },
    /// A value that gives no valid id.
    Id {
        /// Kind of the vindex.
        vindex: String,
        /// What is wrong with the id.
        source: Box<MapError>,
    },
    /// An error of a vindex that is not of this crate.
    Custom {
        /// Kind of the vindex.
        vindex: String,
        /// What is wrong: what was expected and what was found.
        message: String,
    },
}

impl VindexError {
    /// Wraps what is wrong with an id.
    pub(super) fn id(vindex: &str) -> impl Fn(MapError) -> VindexError {
        move |source| VindexError::Id {
            vindex: vindex.to_owned(),
            source: Box::new(source),
        }
    }

    fn fmt_param(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownParam {
                vindex,
                found,
                accepted,
            } => write!(
                f,
                "vindex {vindex}: expected parameters {accepted}, found {found:?}"
            ),
            Self::ParamTwice { vindex, param } => write!(
                f,
                "vindex {vindex}: expected each parameter once, found {param:?} twice"
            ),
            Self::ParamMissing {
                vindex,
                param,
                expected,
            } => write!(
                f,
                "vindex {vindex}: expected parameter {param:?} with {expected}, found none"
            ),
            Self::ParamValue {
                vindex,
                param,
                expected,
                found,
            } => write!(
                f,
                "vindex {vindex}, parameter {param:?}: expected {expected}, found {found}"
            ),
            Self::ParamConflict {
                vindex,
                first,
                second,
            } => write!(
                f,
                "vindex {vindex}: expected one of {first:?} and {second:?}, found both"
            ),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for VindexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKind { found, accepted } => {
                write!(f, "vindex: expected one of {accepted}, found {found:?}")
            }
            Self::KindTaken { kind } => {
                write!(f, "vindex {kind}: expected a new kind, found it registered")
            }
            Self::ColumnCount {
                vindex,
                expected,
                found,
            } => write!(
                f,
                "vindex {vindex}: expected values of {expected} columns, found {found}"
            ),
            Self::TooShort {
                vindex,
                expected,
                found,
            } => write!(
                f,
                "vindex {vindex}: expected a value of at least {expected} bytes, found {found}"
            ),
            Self::NotReversible { vindex } => write!(
                f,
                "vindex {vindex}: expected one that turns ids back into values, found one way only"
            ),
            Self::ForeignId {
                vindex,
                expected,
                found,
            } => write!(
                f,
                "vindex {vindex}: expected an id of at most {expected} bytes, found {found}"
            ),
            Self::Id { vindex, source } => write!(f, "vindex {vindex}: {source}"),
            Self::Custom { vindex, message } => write!(f, "vindex {vindex}: {message}"),
            Self::UnknownParam { .. }
            | Self::ParamTwice { .. }
            | Self::ParamMissing { .. }
            | Self::ParamValue { .. }
            | Self::ParamConflict { .. } => self.fmt_param(f),
        }
    }
}

impl std::error::Error for VindexError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Id { source, .. } => Some(&**source),
            _ => None,
        }
    }
}
