//! A write transaction in a database of several shards: one leg for each shard that it touches,
//! all of which read one moment.
//!
//! ```text
//! first touch -> leader of the shard -> leg, at the moment that the first read has settled
//! commit      -> one shard wrote and no other counts: its commit, which needs nobody else
//! ```

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use crate::database::{Commit, Database, Position, WriteOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::routes::{Anchor, Routes};
use crate::txn::Isolation;
use crate::txn::commit::Ticket;
use crate::txn::leg::{Conflicted, Leg};
use crate::txn::legs::Legs;
use crate::txn::moments::{Moment, Moments};

/// The legs of a transaction.
pub(crate) struct Spread {
    db: Database,
    routes: Arc<dyn Routes>,
    options: WriteOptions,
    age: u64,
    moment: Arc<Moment>,
    legs: Legs<Leg>,
    /// Marks of all legs that there were, of each savepoint.
    savepoints: Vec<Vec<(u32, usize)>>,
    /// Why a shard could not be reached, though the closure may hide it.
    lost: RefCell<Option<Error>>,
}

impl Spread {
    pub(crate) fn begin(
        db: &Database,
        (routes, moments): (&Arc<dyn Routes>, &Arc<Moments>),
        options: &WriteOptions,
        age: u64,
    ) -> Spread {
        Spread {
            db: db.clone(),
            routes: Arc::clone(routes),
            options: options.clone(),
            age,
            moment: moments.later(),
            legs: Legs::new(),
            savepoints: Vec::new(),
            lost: RefCell::new(None),
        }
    }

    pub(crate) fn database(&self) -> &Database {
        &self.db
    }

    /// What is done in a shard.
    ///
    /// # Errors
    /// `Unavailable` if none of its members leads.
    pub(crate) fn leg(&self, shard: u32) -> Result<&Leg> {
        self.legs.open(shard, || {
            self.open(shard).inspect_err(|error| {
                self.lost.borrow_mut().get_or_insert(error.again());
            })
        })
    }

    fn open(&self, shard: u32) -> Result<Leg> {
        let local = self.routes.leader(shard)?;
        let mut begin = self.options.begin(local.core())?;
        (begin.age, begin.moment) = (self.age, Some(Arc::clone(&self.moment)));
        let mut leg = Leg::begin(Anchor::at(&self.db, Ok(local)), begin);
        if !self.savepoints.is_empty() {
            // All of it comes after them.
            leg.mark();
        }
        Ok(leg)
    }

    /// As [`Spread::leg`], to write.
    pub(crate) fn leg_mut(&mut self, shard: u32) -> Result<&mut Leg> {
        self.leg(shard)?;
        let absent = || Error::new(ErrorKind::Unavailable, "a shard was not reached");
        self.legs.get_mut(shard).ok_or_else(absent)
    }

    /// The number of a new savepoint.
    pub(crate) fn savepoint(&mut self) -> usize {
        let shards: Vec<u32> = self.legs.iter().map(|(shard, _)| shard).collect();
        let mark = |shard| Some((shard, self.legs.get_mut(shard)?.mark()));
        let marks = shards.into_iter().filter_map(mark).collect();
        self.savepoints.push(marks);
        self.savepoints.len() - 1
    }

    /// A savepoint beyond the present does nothing.
    pub(crate) fn rollback_to(&mut self, savepoint: usize) {
        let Some(marks) = self.savepoints.get(savepoint).cloned() else {
            return;
        };
        self.savepoints.truncate(savepoint + 1);
        let shards: Vec<u32> = self.legs.iter().map(|(shard, _)| shard).collect();
        for shard in shards {
            // A leg of later is taken back as a whole.
            let mark = marks.iter().find(|(at, _)| *at == shard);
            if let Some(leg) = self.legs.get_mut(shard) {
                leg.back_to(mark.map_or(0, |(_, mark)| *mark));
            }
        }
    }

    /// The conflict that an operation has met, if any, and in which shard.
    pub(crate) fn take_conflict(&self) -> Option<(u32, Conflicted)> {
        let mut legs = self.legs.iter();
        legs.find_map(|(shard, leg)| Some((shard, leg.take_conflict()?)))
    }

    /// Whether all members that it works at lead still.
    pub(crate) fn check_leads(&self) -> Result<()> {
        if let Some(error) = &*self.lost.borrow() {
            return Err(error.again());
        }
        self.legs.iter().try_for_each(|(_, leg)| leg.check_leads())
    }

    /// See [`Leg::leave`].
    pub(crate) fn leave(&self) -> Result<Commit> {
        for (_, leg) in self.legs.iter() {
            leg.leave()?;
        }
        Ok(self.left())
    }

    /// Nothing was written; the state that was read.
    fn left(&self) -> Commit {
        let moments = self.moment.all();
        let read = self.moment.ts().unwrap_or_else(|| moments.known());
        Commit {
            position: Position(read.0),
            shards: 0,
        }
    }

    /// See [`Leg::commit_ticket`].
    ///
    /// # Errors
    /// `CrossShard` if more than one shard is to be changed, or one was read and another is to be
    /// changed and that must count.
    pub(crate) fn commit_ticket(&mut self) -> Result<Ticket> {
        self.legs.iter().for_each(|(_, leg)| leg.end_scans());
        let counts = |leg: &Leg| match leg.isolation {
            Isolation::Snapshot => leg.has_written(),
            Isolation::Serializable => leg.has_written() || leg.has_read(),
        };
        let written = self.legs.iter().filter(|(_, leg)| leg.has_written());
        let written: Vec<u32> = written.map(|(shard, _)| shard).collect();
        let [shard] = written[..] else {
            return match written.len() {
                0 => Ok(Ticket::Left(self.leave()?)),
                shards => Err(refused(shards)),
            };
        };
        let taking_part = self.legs.iter().filter(|(_, leg)| counts(leg)).count();
        if taking_part > 1 {
            return Err(refused(taking_part));
        }
        for (_, other) in self.legs.iter().filter(|(at, _)| *at != shard) {
            other.leave()?;
        }
        self.leg_mut(shard)?.commit_ticket()
    }
}

fn refused(shards: usize) -> Error {
    let what = "a transaction that writes takes part in one shard alone";
    let hint = "place what is changed together in one shard, or read with isolation `Snapshot`";
    Error::new(ErrorKind::CrossShard, what)
        .with("shards", shards)
        .with("hint", hint)
}

impl fmt::Debug for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let legs = self.legs.iter();
        f.debug_map().entries(legs).finish()
    }
}
