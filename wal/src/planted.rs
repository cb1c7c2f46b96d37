//! Planted mistakes: a rule is broken on purpose, to see that a test notices.
//!
//! `planted!("name")` is false, known to the compiler, unless the crates are built with
//! `--cfg planted`; then it is true where the environment variable `TERRANE_PLANTED` is that name.
//! `.ci/planted` says for each name which test must fail, and `.ci/run` sees to it.

use std::sync::OnceLock;

/// Whether the mistake of this name is planted.
#[doc(hidden)]
#[macro_export]
macro_rules! planted {
    ($name:literal) => {
        cfg!(planted) && $crate::planted::is_named($name)
    };
}

/// Whether the environment names this mistake. Looked at once in the life of a process.
#[must_use]
pub fn is_named(name: &str) -> bool {
    static NAMED: OnceLock<String> = OnceLock::new();
    NAMED.get_or_init(|| std::env::var("TERRANE_PLANTED").unwrap_or_default()) == name
}
