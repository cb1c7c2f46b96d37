//! The one error of the public API: opaque, one word wide, with a kind, an outcome and context.
//!
//! Every fallible call of this crate ends here. Lower crates have small enums of their own; they
//! become an [`Error`] at the border of this crate, with the lower error kept as its source.
//!
//! Invariants:
//! - E1: `Error` is one word, so `Result<()>` is one word too.
//! - E2: the kind says what the caller can do; text and context are for people, never for code.
//! - E3: an outcome is never guessed: an error says `Unknown` only when asked to, and the kind
//!   `Unknown` never says anything else.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, by what the caller can do about it.
///
/// More kinds may come, so a `match` needs a last arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Another transaction wrote what this one read or wrote; run it again.
    Conflict,
    /// A unique column already holds this value in another row.
    Constraint,
    /// The declared schema and the stored one disagree, or a schema is not valid.
    Schema,
    /// An argument is outside of what the call accepts.
    Invalid,
    /// A key, value or transaction is above its limit.
    TooLarge,
    /// The named thing does not exist.
    NotFound,
    /// The named thing exists already.
    Exists,
    /// Another process or handle holds the database.
    Locked,
    /// The handle, transaction or file system takes no writes.
    ReadOnly,
    /// No space or no slot is left; it clears itself when there is space again.
    Full,
    /// The snapshot is older than the versions that are kept.
    SnapshotTooOld,
    /// The transaction needs several shards and may not.
    CrossShard,
    /// This member does not lead the shard.
    NotLeader,
    /// A part that the call needs is not reachable now.
    Unavailable,
    /// The time given to the call has passed.
    TimedOut,
    /// Whether the commit happened is not known.
    Unknown,
    /// Stored bytes fail their check.
    Corrupt,
    /// The bytes were written by a newer version of this crate.
    Version,
    /// The encryption key is not the one of this database.
    WrongKey,
    /// A peer is not who it must be, or may not do this.
    Auth,
    /// Bytes do not decode as the type that was asked for.
    Codec,
    /// The handle is closed.
    Closed,
    /// The operating system refused an operation.
    Io,
}

impl ErrorKind {
    /// The name as it stands at the start of an error's text.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            ErrorKind::Conflict => "conflict",
            ErrorKind::Constraint => "constraint",
            ErrorKind::Schema => "schema",
            ErrorKind::Invalid => "invalid",
            ErrorKind::TooLarge => "too large",
            ErrorKind::NotFound => "not found",
            ErrorKind::Exists => "exists",
            ErrorKind::Locked => "locked",
            ErrorKind::ReadOnly => "read only",
            ErrorKind::Full => "full",
            ErrorKind::SnapshotTooOld => "snapshot too old",
            ErrorKind::CrossShard => "cross shard",
            ErrorKind::NotLeader => "not leader",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::TimedOut => "timed out",
            ErrorKind::Unknown => "unknown",
            ErrorKind::Corrupt => "corrupt",
            ErrorKind::Version => "version",
            ErrorKind::WrongKey => "wrong key",
            ErrorKind::Auth => "auth",
            ErrorKind::Codec => "codec",
            ErrorKind::Closed => "closed",
            ErrorKind::Io => "io",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What became of the transaction that a call belonged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Nothing of it happened, and nothing of it will.
    Aborted,
    /// All of it happened.
    Committed,
    /// One of the two; ask again with the idempotency key.
    Unknown,
}

/// The error of every call of this crate.
///
/// ```
/// use terrane::{Error, ErrorKind, Outcome};
///
/// let error = Error::new(ErrorKind::TooLarge, "a key is above its limit")
///     .with("given_bytes", 40_000)
///     .with("limit_bytes", 32_768);
/// assert_eq!(error.kind(), ErrorKind::TooLarge);
/// assert_eq!(error.outcome(), Outcome::Aborted);
/// assert!(!error.is_retryable());
/// assert_eq!(
///     error.to_string(),
///     "too large: a key is above its limit (given_bytes=40000, limit_bytes=32768)"
/// );
/// ```
pub struct Error {
    inner: Box<Inner>,
}

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    outcome: Outcome,
    retryable: bool,
    message: Cow<'static, str>,
    context: Vec<(&'static str, String)>,
    source: Option<Arc<dyn StdError + Send + Sync + 'static>>,
}

// E1
const _: () = assert!(size_of::<Error>() == size_of::<usize>());
const _: () = assert!(size_of::<Result<()>>() == size_of::<usize>());

impl Error {
    /// An error of `kind`, told in `message` (a phrase without a full stop).
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Error {
        let outcome = match kind {
            ErrorKind::Unknown => Outcome::Unknown, // E3
            _ => Outcome::Aborted,
        };
        let retryable = matches!(
            kind,
            ErrorKind::Conflict | ErrorKind::NotLeader | ErrorKind::Unavailable
        );
        let (message, context) = (message.into(), Vec::new());
        let inner = Inner {
            kind,
            outcome,
            retryable,
            message,
            context,
            source: None,
        };
        Error {
            inner: Box::new(inner),
        }
    }

    /// Adds a context pair: which file, which offset, what was expected, what was found.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Error {
        self.inner.context.push((key, value.to_string()));
        self
    }

    /// As [`Error::with`], unless the error says it already.
    pub(crate) fn with_unless_said(self, key: &'static str, value: impl fmt::Display) -> Error {
        match self.context().iter().any(|(said, _)| *said == key) {
            true => self,
            false => self.with(key, value),
        }
    }

    /// Keeps the error that this one came from; see [`std::error::Error::source`].
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        self.inner.source = Some(Arc::from(source.into()));
        self
    }

    /// The same error, to be told once more.
    #[cfg(not(loom))]
    pub(crate) fn again(&self) -> Error {
        Error {
            inner: self.inner.clone(),
        }
    }

    /// Says what became of the transaction, where it is not what the kind implies.
    ///
    /// The kind [`ErrorKind::Unknown`] keeps the outcome `Unknown` whatever is said here.
    #[must_use]
    pub fn with_outcome(mut self, outcome: Outcome) -> Error {
        if self.inner.kind != ErrorKind::Unknown {
            self.inner.outcome = outcome;
        }
        self
    }

    /// Says that running the transaction again can succeed, where the kind does not imply it (a
    /// schema that changed under the transaction), or that it cannot.
    #[must_use]
    pub fn with_retryable(mut self, retryable: bool) -> Error {
        self.inner.retryable = retryable;
        self
    }

    /// What went wrong, by what the caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// What became of the transaction that the failed call belonged to.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.inner.outcome
    }

    /// Whether the same transaction, run again as it is, can succeed. Never true while the
    /// outcome is not `Aborted`.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.inner.retryable && self.inner.outcome == Outcome::Aborted
    }

    /// The message alone, without kind and context.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// The context pairs in the order in which they were added.
    #[must_use]
    pub fn context(&self) -> &[(&'static str, String)] {
        &self.inner.context
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.inner.kind, self.inner.message)?;
        for (i, (key, value)) in self.inner.context.iter().enumerate() {
            write!(f, "{}{key}={value}", if i == 0 { " (" } else { ", " })?;
        }
        if self.inner.context.is_empty() {
            Ok(())
        } else {
            f.write_str(")")
        }
    }
}

/// One line for the error, one for each cause below it: what `unwrap` and a `main` that returns
/// an error print.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        if self.inner.outcome != Outcome::Aborted {
            write!(f, " [outcome: {:?}]", self.inner.outcome)?;
        }
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, "\n  caused by: {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_ref().map(|source| {
            let source: &(dyn StdError + 'static) = source.as_ref();
            source
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_kind_message_and_context() {
        let plain = Error::new(ErrorKind::Closed, "the database is closed");
        assert_eq!(plain.to_string(), "closed: the database is closed");
        let rich = Error::new(ErrorKind::SnapshotTooOld, "gone")
            .with("ts", 7)
            .with("floor", "9");
        assert_eq!(rich.to_string(), "snapshot too old: gone (ts=7, floor=9)");
        assert_eq!(rich.context()[1], ("floor", "9".to_string()));
    }

    #[test]
    fn debug_follows_the_chain_of_causes() {
        let lower = std::io::Error::other("disk on fire");
        let middle = Error::new(ErrorKind::Io, "a read failed").caused_by(lower);
        let top = Error::new(ErrorKind::Unknown, "the commit may be lost").caused_by(middle);
        assert_eq!(
            format!("{top:?}"),
            "unknown: the commit may be lost [outcome: Unknown]\n  \
             caused by: io: a read failed\n  caused by: disk on fire"
        );
    }

    #[cfg(not(loom))]
    #[test]
    fn an_error_that_is_told_again_says_all_of_it() {
        let lower = std::io::Error::other("disk on fire");
        let error = Error::new(ErrorKind::Unavailable, "nobody leads")
            .with("shard", 7)
            .with_outcome(Outcome::Committed)
            .with_retryable(false)
            .caused_by(lower);
        let again = error.again();
        assert_eq!(format!("{again:?}"), format!("{error:?}"));
        assert_eq!(
            (again.kind(), again.outcome()),
            (error.kind(), error.outcome())
        );
        assert!(!again.with_outcome(Outcome::Aborted).is_retryable());
    }

    #[test]
    fn outcome_follows_the_kind_unless_said() {
        assert_eq!(Error::new(ErrorKind::Io, "x").outcome(), Outcome::Aborted);
        let late = Error::new(ErrorKind::Io, "x").with_outcome(Outcome::Committed);
        assert_eq!(late.outcome(), Outcome::Committed);
        let unknown = Error::new(ErrorKind::Unknown, "x").with_outcome(Outcome::Aborted);
        assert_eq!(unknown.outcome(), Outcome::Unknown);
    }

    #[test]
    fn only_an_aborted_error_is_retryable() {
        assert!(Error::new(ErrorKind::Conflict, "x").is_retryable());
        assert!(!Error::new(ErrorKind::Schema, "x").is_retryable());
        assert!(
            Error::new(ErrorKind::Schema, "x")
                .with_retryable(true)
                .is_retryable()
        );
        let odd = Error::new(ErrorKind::Conflict, "x").with_outcome(Outcome::Unknown);
        assert!(!odd.is_retryable());
    }
}
