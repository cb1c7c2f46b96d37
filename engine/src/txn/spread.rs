//! A write transaction in a database of several shards: one leg for each shard that it touches,
//! all of which read one moment.
//!
//! ```text
//! first touch -> leader of the shard -> leg, at the moment that the first read has settled
//! commit      -> one shard takes part: its commit, which needs nobody else
//!             -> several do: two phases (`two_phase.rs`)
//! ```

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use terrane_wal::lsn::Ts;

use crate::database::{Commit, CrossShard, Database, Position, WriteOptions};
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::local::Local;
use crate::routes::{Anchor, Routes};
use crate::txn::Isolation;
use crate::txn::commit::Ticket;
use crate::txn::leg::{Conflicted, Leg};
use crate::txn::legs::Legs;
use crate::txn::moments::{Moment, Moments};
use crate::txn::prepared::{Dtid, Pending};
use crate::txn::raw::RawRead;
use crate::txn::two_phase;

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
        if self.legs.iter().next().is_some() {
            leg.held_elsewhere();
        }
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
    /// Those of a leg's commit; `CrossShard` if several shards take part and may not.
    pub(crate) fn commit_ticket(&mut self) -> Result<Ticket> {
        self.legs.iter().for_each(|(_, leg)| leg.end_scans());
        let counts = |leg: &Leg| match leg.isolation {
            Isolation::Snapshot => leg.has_written(),
            Isolation::Serializable => leg.has_written() || leg.has_read(),
        };
        let written = self.legs.iter().any(|(_, leg)| leg.has_written());
        if !written {
            return Ok(Ticket::Left(self.leave()?));
        }
        let (mut taking_part, mut others) = (Vec::new(), Vec::new());
        for (shard, leg) in self.legs.iter() {
            match counts(leg) {
                true => taking_part.push((leg.written(), shard)),
                false => others.push(leg),
            }
        }
        for other in others {
            other.leave()?;
        }
        match (&taking_part[..], self.routes.cross_shard()) {
            ([(_, only)], _) => self.leg_mut(*only)?.commit_ticket(),
            (_, CrossShard::Refuse) => Err(refused(taking_part.len())),
            (_, CrossShard::Atomic) => {
                // Who has most to write decides, and writes it once.
                taking_part.sort_unstable();
                let shards = taking_part.iter().rev().map(|(_, shard)| *shard);
                self.commit_in_two_phases(&shards.collect::<Vec<_>>())
            }
        }
    }

    /// All or none of these shards; the first one decides.
    fn commit_in_two_phases(&mut self, shards: &[u32]) -> Result<Ticket> {
        let [coordinator, others @ ..] = shards else {
            return Err(refused(0));
        };
        let rng = &self.moment.all().env().rng;
        let dtid = Dtid {
            coordinator: *coordinator,
            number: rng.next_u64("transaction"),
        };
        for shard in shards {
            self.leg_mut(*shard)?.held_elsewhere();
        }
        two_phase::lock_decision(self.leg_mut(*coordinator)?, dtid)?;
        let mut prepared = Vec::with_capacity(others.len());
        let decided = self.decide(dtid, *coordinator, others, &mut prepared);
        let commit = match &decided {
            Ok((_, ts)) => Some(*ts),
            Err(error) if error.outcome() == Outcome::Aborted => None,
            // Whether it is decided, the coordinator's next leader knows.
            Err(_) => return decided.map(|(commit, _)| Ticket::Left(commit)),
        };
        for (local, pending) in &prepared {
            // What is not done now is left to the resolver, and waited for by who reads it.
            let _ = two_phase::decide(local, pending, commit);
        }
        decided.map(|(commit, _)| Ticket::Left(commit))
    }

    /// Both phases up to the decision.
    fn decide(
        &mut self,
        dtid: Dtid,
        coordinator: u32,
        others: &[u32],
        prepared: &mut Vec<(Local, Arc<Pending>)>,
    ) -> Result<(Commit, Ts)> {
        let mut tickets = Vec::with_capacity(others.len());
        for shard in others {
            let leg = self.leg_mut(*shard)?;
            let local = leg.local()?.clone();
            let (pending, ticket) = two_phase::prepare(leg, dtid)?;
            prepared.push((local, pending));
            tickets.push(ticket);
        }
        for ticket in tickets {
            ticket.wait().map_err(|error| {
                let what = "a shard was lost while it prepared";
                Error::new(ErrorKind::Unavailable, what).caused_by(error)
            })?;
        }
        let leg = self.leg_mut(coordinator)?;
        two_phase::decides(leg, dtid, others.to_vec())?;
        let ticket = leg.commit_ticket()?;
        let Ticket::At(_, _, place) = &ticket else {
            return Err(Error::new(ErrorKind::Unknown, "nothing was decided"));
        };
        let ts = place.ts;
        let commit = ticket.wait()?;
        let shards = 1 + others.len() as u32;
        Ok((Commit { shards, ..commit }, ts))
    }
}

fn refused(shards: usize) -> Error {
    let what = "several shards take part in a transaction, and may not";
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
