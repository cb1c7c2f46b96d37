//! A member of a shard: the protocol of `terrane-shard` over a log, a vote and messages of a host.
//!
//! ```text
//! messages, ticks -> member.rs: Replica::step -> effects: the log (log.rs), the vote, syncs
//!                                             -> what the host does: send, apply, serve, demote
//! ```
//!
//! Nothing here waits for another member, so one thread can drive many, and a simulation all.

pub(crate) mod config_file;
mod follow;
mod log;
mod member;
#[cfg(test)]
mod tests;

pub(crate) use follow::Follower;
pub(crate) use member::{Member, Start};
