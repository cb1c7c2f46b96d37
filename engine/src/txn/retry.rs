//! `write` and `try_write`: attempts of a closure until one commits.
//!
//! Whatever is safe to retry is tried again: a conflict, another leader, a table that changed under
//! the transaction. A conflict is remembered by the transaction, so it is answered by another
//! attempt also if the closure wrapped or hid the error. When the attempts are used up, the error
//! of the last one is the answer. Every attempt has the age of the first. An attempt after a
//! conflict on a row locks that row before it reads anything: holding nothing, it may wait for
//! anybody, so on a hot row the attempts queue up instead of failing again and again.
//!
//! In a cluster each attempt is made at who leads then. An attempt whose member leads no more has
//! done nothing, whatever the closure made of it: for as long as the window allows it is made again
//! elsewhere, and not counted. A commit whose outcome is not known is never made again, unless it
//! has a key by which the next leader can be asked.

use std::sync::Arc;
use std::time::Duration;

use terrane_wal::env::Env;

use crate::database::{Commit, Database, Place, Position, WriteOptions};
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::local::Local;
use crate::metrics::count;
use crate::routes::{Anchor, Routes};
use crate::txn::commit::Ticket;
use crate::txn::leg::{Begin, Conflicted};
use crate::txn::raw::RawRead;
use crate::txn::ring::RowKey;
use crate::txn::spread::Spread;
use crate::txn::transaction::Transaction;

/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_millis(2);

/// Runs `body` in transactions until one commits, `body` fails, or the retries are used up.
pub(crate) fn run<T, E: From<Error>>(
    db: &Database,
    options: &WriteOptions,
    mut body: impl FnMut(&mut Transaction) -> Result<T, E>,
) -> Result<(T, Commit), E> {
    let mut attempts = Attempts::of(db, options);
    loop {
        let tx = attempts.next()?;
        let (goes_on, error) = match attempt(&mut attempts, tx, &mut body) {
            Ended::Committed(value, commit) => return Ok((value, commit)),
            Ended::Failed(error) => return Err(error),
            Ended::Conflict(row, error) => {
                attempts.row = row;
                (attempts.count_conflict(), error)
            }
            Ended::Moved(told, error) => match attempts.waits() {
                true => (true, None),
                false => (false, told.or_else(|| Some(attempts.lost(error).into()))),
            },
            Ended::Unknown(value, error) => match attempts.settle(error)? {
                Some(commit) => return Ok((value, commit)),
                None => (true, None),
            },
        };
        if !goes_on {
            return Err(error.unwrap_or_else(|| {
                // The closure hid it.
                let error = Error::new(ErrorKind::Conflict, "conflicts used up the retries");
                error.with("retries", options.retries).into()
            }));
        }
    }
}

/// A row of a shard.
type Row = (u32, RowKey);

/// What an attempt came to.
enum Ended<T, E> {
    Committed(T, Commit),
    /// Of the closure, or one that no other attempt mends.
    Failed(E),
    /// With the row to be locked first by the next attempt; no error if the closure hid it.
    Conflict(Option<Row>, Option<E>),
    /// Nothing has happened, and another member leads: what the closure said, and why that is void.
    Moved(Option<E>, Error),
    /// It has its place in the log, but may yet be lost.
    Unknown(T, Error),
}

impl<T, E: From<Error>> Ended<T, E> {
    /// Of an error before the commit.
    fn by(error: Error, told: Option<E>) -> Self {
        match is_moved(&error) {
            true => Ended::Moved(told, error),
            false => Ended::Failed(error.into()),
        }
    }
}

/// Nothing has happened, and the next leader may take it.
fn is_moved(error: &Error) -> bool {
    let kind = error.kind();
    matches!(kind, ErrorKind::NotLeader | ErrorKind::Unavailable)
        && error.outcome() == Outcome::Aborted
}

/// One attempt, and its commit.
fn attempt<T, E: From<Error>>(
    attempts: &mut Attempts<'_>,
    mut tx: Transaction,
    body: &mut impl FnMut(&mut Transaction) -> Result<T, E>,
) -> Ended<T, E> {
    if let Some((shard, row)) = attempts.row.take()
        && let Err(error) = tx.lock(shard, &row)
    {
        return Ended::by(error, None);
    }
    let outcome = body(&mut tx);
    if let Some(conflict) = tx.take_conflict() {
        return Ended::Conflict(row_of(conflict), outcome.err());
    }
    if let Err(error) = tx.check_leads() {
        return Ended::by(error, outcome.err());
    }
    let value = match outcome {
        Ok(value) => value,
        // What the closure saw leaves with its error.
        Err(error) => match tx.leave() {
            Ok(_) => return Ended::Failed(error),
            Err(lost) => return Ended::by(lost, None),
        },
    };
    let ticket = tx.commit_ticket();
    let conflict = tx.take_conflict();
    // Intents and read position are given back before the wait for the log.
    drop(tx);
    match ticket.and_then(Ticket::wait) {
        Ok(commit) => Ended::Committed(value, commit),
        Err(error) if error.outcome() == Outcome::Unknown => Ended::Unknown(value, error),
        Err(error) if error.is_retryable() && !is_moved(&error) => {
            let error = error.with("retries", attempts.options.retries);
            Ended::Conflict(conflict.and_then(row_of), Some(error.into()))
        }
        Err(error) => Ended::by(error, None),
    }
}

fn row_of((shard, conflict): (u32, Conflicted)) -> Option<Row> {
    conflict.key.map(|key| (shard, key))
}

/// The attempts of one write.
struct Attempts<'a> {
    db: &'a Database,
    options: &'a WriteOptions,
    /// How they run; of another age at each member.
    begin: Begin,
    /// What the next one locks first.
    row: Option<Row>,
    /// How many were made.
    made: u32,
    conflicts: u32,
    /// In a cluster of one shard: the member of the last attempt.
    at: Option<Local>,
    /// In a cluster: how long other leaders are looked for.
    window: Option<Window>,
}

impl<'a> Attempts<'a> {
    fn of(db: &'a Database, options: &'a WriteOptions) -> Self {
        Self {
            db,
            options,
            begin: Begin::default(),
            row: None,
            made: 0,
            conflicts: 0,
            at: None,
            window: None,
        }
    }

    /// Where the next attempt is made.
    fn next(&mut self) -> Result<Transaction> {
        if self.made > 0
            && let Some(env) = self.env()
        {
            pause(env, self.made, self.row.is_some());
        }
        loop {
            match self.place() {
                Err(error) if is_moved(&error) && self.waits() => self.rest(),
                Err(error) if is_moved(&error) => return Err(self.lost(error)),
                placed => {
                    self.made += 1;
                    return placed;
                }
            }
        }
    }

    fn place(&mut self) -> Result<Transaction> {
        if let Some((routes, moments)) = self.db.spread() {
            if self.window.is_none() {
                self.options.check_spread()?;
                self.begin.age = moments.next_age();
                self.window = Some(Window::of(&**routes, moments.env()));
            }
            let all = (routes, moments);
            let spread = Spread::begin(self.db, all, self.options, self.begin.age);
            return Ok(Transaction::spread(spread));
        }
        let anchor = Anchor::of(self.db);
        let local = anchor.local()?;
        let core = local.core();
        if self.made > 0 {
            count(&core.counters.retries);
        }
        let known = match self.db.place() {
            Place::Alone(_) => self.made > 0,
            Place::Cluster(routes) => {
                let window = || Window::of(&**routes, &core.env);
                self.window.get_or_insert_with(window);
                let before = self.at.replace(local.clone());
                before.is_some_and(|before| Arc::ptr_eq(before.core(), core))
            }
        };
        if !known {
            // A row that is held at one member is not held at another.
            self.row = None;
            self.begin = self.options.begin(core)?;
            core.check_writable()?;
        }
        Ok(Transaction::begin(anchor, self.begin.clone()))
    }

    fn env(&self) -> Option<&Env> {
        let alone = self.db.lone().map(|local| &local.core().env);
        alone.or(self.window.as_ref().map(|window| &window.env))
    }

    /// Lets others come to lead.
    fn rest(&self) {
        if let Some(env) = self.env() {
            pause(env, self.made.max(1), false);
        }
    }

    /// Counts a conflict; whether another attempt is made.
    fn count_conflict(&mut self) -> bool {
        self.conflicts += 1;
        self.conflicts <= self.options.retries
    }

    /// Whether another leader is waited for.
    fn waits(&self) -> bool {
        self.window.as_ref().is_some_and(Window::is_open)
    }

    /// The end of an attempt after which no leader is waited for.
    fn lost(&self, error: Error) -> Error {
        lost(error, self.window.as_ref())
    }

    /// After a commit whose outcome is not known: what whoever leads then says of its key. None: it
    /// has not committed, and is to be made again.
    ///
    /// # Errors
    /// `unknown`, without a key and if nobody could say.
    fn settle(&self, unknown: Error) -> Result<Option<Commit>> {
        let Some(key) = &self.options.idempotency else {
            return Err(unknown);
        };
        while self.waits() {
            match outcome(self.db, key) {
                Ok((Outcome::Committed, position)) => {
                    let shards = 1;
                    return Ok(Some(Commit { position, shards }));
                }
                Ok((Outcome::Aborted, _)) => return Ok(None),
                Ok((Outcome::Unknown, _)) => self.rest(),
                Err(error) if is_moved(&error) => self.rest(),
                Err(_) => return Err(unknown),
            }
        }
        Err(unknown)
    }
}

/// How long the next leader is waited for.
struct Window {
    env: Env,
    end: Duration,
    length: Duration,
}

impl Window {
    /// From now on, by this clock.
    fn of(routes: &dyn Routes, env: &Env) -> Window {
        let length = routes.window();
        Window {
            end: env.clock.now_mono().saturating_add(length),
            env: env.clone(),
            length,
        }
    }

    fn is_open(&self) -> bool {
        self.env.clock.now_mono() < self.end
    }
}

/// The error when the window is over: which member refused says nothing to the caller.
fn lost(error: Error, window: Option<&Window>) -> Error {
    let error = match error.kind() {
        ErrorKind::Unavailable => error,
        _ => Error::new(ErrorKind::Unavailable, "no member led for long enough").caused_by(error),
    };
    match window {
        None => error,
        Some(window) => error.with_unless_said("window_ms", window.length.as_millis()),
    }
}

/// Does `work` where a shard is served: in a cluster at who leads it, and as long as the window
/// allows at the next leader if it leads no more.
pub(crate) fn at_leader<T>(
    db: &Database,
    shard: u32,
    work: impl FnMut(&Local) -> Result<T>,
) -> Result<T> {
    at(db, |routes| routes.leader(shard), work)
}

/// What became of the transaction with an idempotency key, as a member says that is known to lead:
/// one that was deposed and has not heard of it would say `Aborted` of what the next one committed.
pub(crate) fn outcome(db: &Database, key: &[u8]) -> Result<(Outcome, Position)> {
    let known = |routes: &dyn Routes| routes.view(db, 0, None)?.local().cloned();
    at(db, known, |local| local.outcome(key))
}

fn at<T>(
    db: &Database,
    find: impl Fn(&dyn Routes) -> Result<Local>,
    mut work: impl FnMut(&Local) -> Result<T>,
) -> Result<T> {
    let routes = match db.place() {
        Place::Alone(local) => return work(local),
        Place::Cluster(routes) => &**routes,
    };
    let mut window: Option<Window> = None;
    let mut made = 0;
    loop {
        made += 1;
        let done = find(routes).and_then(|local| {
            window.get_or_insert_with(|| Window::of(routes, &local.core().env));
            work(&local)
        });
        match (done, &window) {
            (Err(error), Some(window)) if is_moved(&error) && window.is_open() => {
                pause(&window.env, made, false);
            }
            (Err(error), window) if is_moved(&error) => return Err(lost(error, window.as_ref())),
            (done, _) => return done,
        }
    }
}

/// Lets others finish: not at all before a lock that queues, else for a random while that grows.
fn pause(env: &Env, attempt: u32, queued: bool) {
    if queued {
        return env.park.yield_now();
    }
    let most = Duration::from_micros(20 << attempt.min(7)).min(PAUSE_MAX);
    let random = env.rng.next_u64("retry") % (most.as_micros() as u64 + 1);
    env.park
        .waiter()
        .park_timeout(Duration::from_micros(random));
}
