//! The one error of this program: a sentence for the person who started it.
//!
//! Everything that can go wrong ends here: the database's own errors keep their text, bad input is
//! told as file, place, expected and found. `main` prints it and exits with 1.

use std::fmt;
use std::path::Path;

/// Why the program ends early.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
}

impl Failure {
    /// A failure told in one sentence.
    pub(crate) fn new(message: impl Into<String>) -> Failure {
        Failure {
            message: message.into(),
        }
    }

    /// A file that is not what it should be: where in it, what was expected, what was found.
    pub(crate) fn bad_input(
        file: &Path,
        place: impl fmt::Display,
        expected: impl fmt::Display,
        found: impl fmt::Display,
    ) -> Failure {
        let file = file.display();
        Failure::new(format!(
            "{file}: {place}: expected {expected}, found {found}"
        ))
    }

    /// A file that the operating system would not read.
    pub(crate) fn unreadable(file: &Path, error: &std::io::Error) -> Failure {
        Failure::new(format!("{}: cannot be read: {error}", file.display()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<terrane::Error> for Failure {
    fn from(error: terrane::Error) -> Failure {
        // With what caused it, line by line.
        Failure::new(format!("database: {error:?}"))
    }
}
