//! Planted mistakes: a rule is broken on purpose, to see that a test notices.
//!
//! `planted!("name")` is false, known to the compiler, unless the crate is built with
//! `--cfg planted`; then it is true where the environment variable `TERRANE_PLANTED` is that name.
//! `.ci/planted` says for each name which test must fail, and `.ci/run` sees to it. This crate
//! imports nothing of ours, so it has a macro of its own; the others take that of `terrane-wal`.

use std::sync::OnceLock;

/// Whether the mistake of this name is planted.
macro_rules! planted {
    ($name:literal) => {
        cfg!(planted) && $crate::planted::is_named($name)
    };
}

/// Whether the environment names this mistake. Looked at once in the life of a process.
pub(crate) fn is_named(name: &str) -> bool {
    static NAMED: OnceLock<String> = OnceLock::new();
    NAMED.get_or_init(|| std::env::var("TERRANE_PLANTED").unwrap_or_default()) == name
}
