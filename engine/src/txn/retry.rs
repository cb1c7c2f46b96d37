//! `write` and `try_write`: attempts of a closure until one commits.
//!
//! Whatever is safe to retry is tried again: a conflict, another leader, a table that changed under
//! the transaction. A conflict is remembered by the transaction, so it is answered by another
//! attempt also if the closure wrapped or hid the error. When the attempts are used up, the error
//! of the last one is the answer. Every attempt has the age of the first. An attempt after a
//! conflict on a row locks that row before it reads anything: holding nothing, it may wait for
//! anybody, so on a hot row the attempts queue up instead of failing again and again.

use std::time::Duration;

use crate::database::{Commit, Database, WriteOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::count;
use crate::txn::ring::RowKey;
use crate::txn::transaction::{Begin, Transaction};

/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_millis(2);

/// Runs `body` in transactions until one commits, `body` fails, or the retries are used up.
pub(crate) fn run<T, E: From<Error>>(
    db: &Database,
    options: &WriteOptions,
    mut body: impl FnMut(&mut Transaction) -> Result<T, E>,
) -> Result<(T, Commit), E> {
    let core = db.core();
    let durability = options.effective_durability(core)?;
    core.check_writable()?;
    let begin = Begin {
        isolation: options.isolation.unwrap_or(core.options.isolation),
        durability,
        idempotency: options.idempotency.clone(),
        age: core.next_age(),
    };
    let mut locked_first: Option<RowKey> = None;
    let mut last = None;
    for attempt in 0..=options.retries {
        if attempt > 0 {
            count(&core.counters.retries);
            pause(db, attempt, locked_first.is_some());
        }
        let mut tx = Transaction::begin(db, begin.clone());
        if let Some((tree, key)) = locked_first.take() {
            tx.lock(tree, &key)?;
        }
        let outcome = body(&mut tx);
        if let Some(conflict) = tx.take_conflict() {
            locked_first = conflict.key;
            last = outcome.err();
            continue;
        }
        let value = match outcome {
            Ok(value) => value,
            Err(error) => {
                // What the closure saw leaves with its error.
                tx.leave()?;
                return Err(error);
            }
        };
        let ticket = tx.commit_ticket();
        let conflict = tx.take_conflict();
        // Intents and read position are given back before the wait for the log.
        drop(tx);
        match ticket {
            Ok(ticket) => return Ok((value, ticket.wait()?)),
            Err(error) if error.is_retryable() => {
                locked_first = conflict.and_then(|c| c.key);
                last = Some(error.with("retries", options.retries).into());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(last.unwrap_or_else(|| {
        // The closure hid it.
        let error = Error::new(ErrorKind::Conflict, "conflicts used up the retries");
        error.with("retries", options.retries).into()
    }))
}

/// Lets others finish: not at all before a lock that queues, else for a random while that grows.
fn pause(db: &Database, attempt: u32, queued: bool) {
    let env = &db.core().env;
    if queued {
        return env.park.yield_now();
    }
    let most = Duration::from_micros(20 << attempt.min(7)).min(PAUSE_MAX);
    let random = env.rng.next_u64("retry") % (most.as_micros() as u64 + 1);
    env.park
        .waiter()
        .park_timeout(Duration::from_micros(random));
}
