//! Errors of the lower crates, as they leave this one: the kind by what the caller can do, the
//! lower error kept as the source.

use terrane_btree::StoreError;
use terrane_wal::WalError;
use terrane_wal::io::IoError;

use crate::error::{Error, ErrorKind};

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Error {
        match &error {
            StoreError::Full { what, .. } => {
                Error::new(ErrorKind::Full, "no room is left").with("what", *what)
            }
            StoreError::TooLarge { what, len, limit } => {
                Error::new(ErrorKind::TooLarge, format!("a {what} is above its limit"))
                    .with("given_bytes", len)
                    .with("limit_bytes", limit)
            }
            StoreError::Corrupt(place) => {
                let mut error = Error::new(ErrorKind::Corrupt, "stored bytes fail their check")
                    .with("structure", place.what);
                if let Some(page) = place.page {
                    error = error.with("page", page.0);
                }
                if let Some(tree) = place.tree {
                    error = error.with("tree", tree.0);
                }
                if let Some(file) = &place.file {
                    error = error
                        .with("file", file.display())
                        .with("offset", place.offset);
                }
                error
                    .with("expected", &place.expected)
                    .with("found", &place.found)
            }
            StoreError::Io(source) => of_io(source),
            StoreError::Invalid { what } => Error::new(ErrorKind::Invalid, what.clone()),
            StoreError::Version {
                file,
                supported,
                found,
            } => Error::new(ErrorKind::Version, "written by another version")
                .with("file", file.display())
                .with("supported", supported)
                .with("found", found),
            StoreError::Poisoned { .. } => Error::new(
                ErrorKind::Io,
                "an earlier write failed; reopen the database",
            ),
        }
        .caused_by(error)
    }
}

impl From<WalError> for Error {
    fn from(error: WalError) -> Error {
        match &error {
            WalError::Full { needed, .. } => {
                Error::new(ErrorKind::Full, "no room is left for the log").with("bytes", needed)
            }
            WalError::TooLarge { what, len, max } => {
                Error::new(ErrorKind::TooLarge, format!("{what} is above its limit"))
                    .with("given_bytes", len)
                    .with("limit_bytes", max)
            }
            WalError::Poisoned { .. } => Error::new(
                ErrorKind::Io,
                "an earlier log write failed; reopen the database",
            ),
            WalError::Corrupt {
                segment,
                offset,
                expected,
                found,
            } => Error::new(ErrorKind::Corrupt, "the log fails its check")
                .with("structure", "wal")
                .with("file", segment.display())
                .with("offset", offset)
                .with("expected", expected)
                .with("found", found),
            WalError::Version { segment, .. } => {
                Error::new(ErrorKind::Version, "the log was written by another version")
                    .with("file", segment.display())
            }
            WalError::Short { dir, reach, end } => Error::new(
                ErrorKind::Corrupt,
                "the checkpoint is newer than the log's end",
            )
            .with("structure", "checkpoint")
            .with("file", dir.display())
            .with("expected", format!("a log that reaches {reach}"))
            .with("found", format!("its end at {end}")),
            WalError::Io(source) => of_io(source),
            WalError::Closed => Error::new(ErrorKind::Closed, "the database is closed"),
            WalError::Invalid { what } => Error::new(ErrorKind::Invalid, what.clone()),
            WalError::Deposed { term } => {
                Error::new(ErrorKind::NotLeader, "another member leads the shard")
                    .with("led_until", term)
            }
            WalError::TimedOut { within, .. } => {
                Error::new(ErrorKind::TimedOut, "not enough replicas have it yet")
                    .with("within_ms", within.as_millis())
            }
            _ => Error::new(ErrorKind::Io, "the log failed"),
        }
        .caused_by(error)
    }
}

impl From<IoError> for Error {
    fn from(error: IoError) -> Error {
        of_io(&error).caused_by(error)
    }
}

/// Kind and text of an I/O error, without its source.
fn of_io(error: &IoError) -> Error {
    use std::io::ErrorKind::{NotFound, ReadOnlyFilesystem};
    let kind = match error.kind() {
        _ if error.is_full() => ErrorKind::Full,
        NotFound => ErrorKind::NotFound,
        ReadOnlyFilesystem => ErrorKind::ReadOnly,
        _ => ErrorKind::Io,
    };
    Error::new(kind, format!("{} failed", error.op)).with("path", error.path.display())
}
