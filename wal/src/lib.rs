//! Durable storage for Terrane: disk, clock, log. Imports nothing of ours; knows no page.
//!
//! Reading order: [`io`] (what a disk promises), [`mod@env`] (how the world enters), [`clock`]
//! (time and commit timestamps), [`lsn`] (positions).

pub mod clock;
pub mod env;
pub mod io;
pub mod lsn;
pub mod sync;
