//! A handle over two leaders, one after the other, and over none.
//!
//! Each leader is a database by itself that was given a standing: what is looked at here is which
//! of them a call goes to, not how the second comes to hold what the first had.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use terrane_shard::{RoutingEpoch, ShardMap};
use terrane_wal::env::SimEnv;
use terrane_wal::io::sim::{Fault, OpKind};
use terrane_wal::lsn::{Term, Ts};
use terrane_wal::sync::Mutex;

use super::{Anchor, Routes};
use crate::local::Local;
use crate::recovery;
use crate::runtime::Core;
use crate::runtime::home::Home;
use crate::runtime::standing::{Ship, Standing};
use crate::txn::moments::Moments;
use crate::txn::snapshot::{View, check_floor, read_row};
use crate::txn::tests::sim_builder;
use crate::{
    CrossShard, Database, Durability, Error, ErrorKind, Outcome, Record, Result, Snapshot, Table,
    TableDef, Vector,
};

const WINDOW: Duration = Duration::from_millis(500);

#[derive(Clone, Debug, PartialEq, Record)]
struct Note {
    #[terrane(id = 1, unique)]
    name: String,
    #[terrane(id = 2, vector(metric = "l2", exact))]
    at: Vector<2>,
}

const NOTES: TableDef<u64, Note> = TableDef::new("notes");

fn note(name: &str) -> Note {
    Note {
        name: name.into(),
        at: Vector::from([1.0, 2.0]),
    }
}

#[derive(Debug)]
struct Nowhere;

impl Ship for Nowhere {
    fn ship(&self) {}
}

/// A member that leads, with a disk of its own.
fn member(sim: &SimEnv, path: &str) -> Local {
    let options = sim_builder(sim).resolve().unwrap();
    let mut core = recovery::open(sim.env(), Path::new(path), options).unwrap();
    let standing = Standing::new(Box::new(Nowhere), WINDOW);
    standing.lead(Term(1));
    let inner = Arc::get_mut(&mut core).unwrap();
    (inner.home, inner.standing) = (Home::shard([7; 16]), Some(standing));
    Local::over(core, false).unwrap()
}

fn depose(local: &Local) {
    local.core().standing.as_ref().unwrap().depose();
}

/// Who leads, and for how many questions more; the last one goes on leading.
type Turn = (u32, Option<Local>);

#[derive(Debug)]
struct Turns {
    turns: Mutex<VecDeque<Turn>>,
    map: Arc<ShardMap>,
}

impl Turns {
    fn set(&self, turns: impl IntoIterator<Item = Turn>) {
        *self.turns.lock() = turns.into_iter().collect();
    }
}

impl Routes for Turns {
    fn map(&self) -> &Arc<ShardMap> {
        &self.map
    }

    fn moments(&self) -> Option<&Arc<Moments>> {
        None
    }

    fn leader(&self, _: u32) -> Result<Local> {
        let mut turns = self.turns.lock();
        let leader = turns.front().and_then(|(_, leader)| leader.clone());
        if turns.len() > 1 {
            turns[0].0 -= 1;
            if turns[0].0 == 0 {
                turns.pop_front();
            }
        }
        leader.ok_or_else(|| Error::new(ErrorKind::Unavailable, "nobody leads"))
    }

    fn view(&self, db: &Database, shard: u32, _: Option<Ts>) -> Result<View> {
        Ok(View::begin(Anchor::at(db, Ok(self.leader(shard)?))))
    }

    fn cross_shard(&self) -> CrossShard {
        CrossShard::Atomic
    }

    fn window(&self) -> Duration {
        WINDOW
    }

    fn close(&self) -> Result<()> {
        let turns = self.turns.lock();
        let mut all = turns.iter().filter_map(|(_, leader)| leader.as_ref());
        all.try_for_each(Local::close)
    }
}

/// Two members of one shard, each with the table; the first leads.
struct Shard {
    members: [Local; 2],
    turns: Arc<Turns>,
    db: Database,
    notes: Table<u64, Note>,
    /// Outlives what runs in it.
    sim: SimEnv,
}

impl Shard {
    fn new(seed: u64) -> Shard {
        let sim = SimEnv::new(seed);
        let members = [member(&sim, "/first"), member(&sim, "/second")];
        let turns = Arc::new(Turns {
            turns: Mutex::default(),
            map: Arc::new(ShardMap::unsharded(RoutingEpoch(1))),
        });
        let db = Database::routed(Arc::clone(&turns) as Arc<dyn Routes>);
        turns.set([(1, Some(members[1].clone())), (1, Some(members[0].clone()))]);
        db.table(NOTES).unwrap();
        Shard {
            notes: db.table(NOTES).unwrap(),
            sim,
            members,
            turns,
            db,
        }
    }

    /// The first one leads for so many questions more, the second one after it.
    fn first_for(&self, questions: u32) {
        let [first, second] = self.members.clone();
        self.turns
            .set([(questions, Some(first)), (1, Some(second))]);
    }

    /// The name in row 1 at a member.
    fn name_at(&self, member: usize) -> Option<String> {
        let now = Snapshot::begin((&self.members[member]).into());
        self.notes.get(&now, 1).unwrap().map(|note| note.name)
    }

    fn core(&self, member: usize) -> &Core {
        self.members[member].core()
    }

    /// The next commit at the first member may or may not survive.
    fn lose_a_write(&self) {
        let fault = Fault::nth(OpKind::Write, 0).on("/first/log");
        self.sim.disk().inject(fault);
    }
}

fn is_unavailable<T>(result: Result<T>) {
    let error = result.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert_eq!(error.outcome(), Outcome::Aborted);
}

#[test]
fn where_nobody_leads_every_call_says_so() {
    let Shard {
        sim,
        turns,
        db,
        notes,
        ..
    } = Shard::new(1);
    turns.set([(1, None)]);
    let names = notes.index(Note::NAME);

    let now = db.snapshot();
    is_unavailable(notes.get(&now, 1));
    is_unavailable(notes.get_ref(&now, 1));
    is_unavailable(notes.contains(&now, 1));
    is_unavailable(notes.count(&now));
    is_unavailable(notes.range(&now, ..).next_back().unwrap());
    is_unavailable(notes.iter(&now).keys().next().unwrap());
    is_unavailable(names.get(&now, "a"));
    is_unavailable(names.range(&now, ..).next().unwrap());
    is_unavailable(notes.nearest(Note::AT, &[1.0, 2.0], 1).run(&now));
    assert_eq!(now.position(), Default::default());
    assert!(format!("{now:?}{:?}", now.database()).contains("no leader"));

    let mut tx = db.begin();
    let place = tx.savepoint();
    is_unavailable(notes.get(&tx, 1));
    is_unavailable(notes.get_for_update(&mut tx, 1));
    is_unavailable(notes.put(&mut tx, 1, &note("a")));
    is_unavailable(notes.insert(&mut tx, 1, &note("a")));
    is_unavailable(notes.delete(&mut tx, 1));
    is_unavailable(notes.iter(&tx).next().unwrap());
    is_unavailable(names.get(&tx, "a"));
    is_unavailable(notes.nearest(Note::AT, &[1.0, 2.0], 1).run(&tx));
    tx.rollback_to(place);
    assert!(!format!("{tx:?}{:?}", tx.database()).is_empty());
    is_unavailable(tx.commit());

    is_unavailable(db.write(|tx| notes.put(tx, 1, &note("a"))));
    is_unavailable(db.writer().begin());
    is_unavailable(db.table(NOTES));
    is_unavailable(db.outcome("key"));
    is_unavailable(db.checkpoint());
    is_unavailable(notes.create_vector_index(Note::AT).run(&db));
    assert!(db.notices().is_empty() && db.stats().commits == 0);
    db.close().unwrap();
    drop((db.begin(), sim));
}

/// Seen to fail with attempts that count against the retries, and with what the closure says
/// believed where its member leads no more.
#[test]
fn a_write_is_made_again_at_the_next_leader() {
    let shard = Shard::new(2);
    let Shard { db, notes, .. } = &shard;
    db.write(|tx| notes.put(tx, 1, &note("before"))).unwrap();
    depose(&shard.members[0]);
    for hides in [false, true] {
        shard.first_for(4);
        let mut runs = 0;
        let (found, commit) = db
            .writer()
            .retries(0)
            .run(|tx| -> Result<_> {
                runs += 1;
                let found = match notes.get(tx, 1) {
                    Err(_) if hides => None,
                    other => other?,
                };
                if !hides || found.is_some() {
                    notes.put(tx, 1, &note("after"))?;
                }
                Ok(found.map(|note| note.name))
            })
            .unwrap();
        // At each member it begins with a look at whether that takes writes.
        assert!(runs <= 4, "{runs}");
        let wanted = hides.then(|| "after".to_owned());
        assert_eq!((found, commit.shards), (wanted, 1));
    }
    assert_eq!(shard.name_at(1).as_deref(), Some("after"));
    // What else asks a leader goes on likewise.
    shard.first_for(3);
    db.table(TableDef::<u64, u64>::new("other")).unwrap();
    shard.first_for(3);
    db.checkpoint().unwrap();
    shard.first_for(3);
    assert_eq!(db.outcome("key").unwrap(), Outcome::Aborted);
}

/// Seen to fail without a look at the standing after the closure.
#[test]
fn a_leader_that_is_deposed_under_the_closure_has_done_nothing() {
    let shard = Shard::new(3);
    let Shard { db, notes, .. } = &shard;
    shard.first_for(1);
    let mut runs = 0;
    let told = db.try_write(|tx| -> Result<(), Box<dyn std::error::Error>> {
        runs += 1;
        notes.put(tx, 1, &note("x"))?;
        if runs == 1 {
            depose(&shard.members[0]);
            return Err("of the closure".into());
        }
        Ok(())
    });
    told.unwrap();
    assert_eq!((runs, shard.name_at(1).as_deref()), (2, Some("x")));

    // And an error of the closure at a member that leads is its answer.
    let told = db.try_write(|_| -> Result<(), Box<dyn std::error::Error>> { Err("mine".into()) });
    assert_eq!(told.unwrap_err().to_string(), "mine");
}

#[test]
fn after_the_window_nobody_is_waited_for() {
    let shard = Shard::new(4);
    let Shard { db, notes, sim, .. } = &shard;
    depose(&shard.members[0]);
    let calls: [&dyn Fn() -> Result<()>; 4] = [
        &|| db.write(|tx| notes.put(tx, 1, &note("x"))),
        &|| db.checkpoint(),
        &|| db.table(TableDef::<u64, u64>::new("other")).map(drop),
        &|| db.outcome("key").map(drop),
    ];
    for (at, call) in calls.into_iter().enumerate() {
        for then in [Some(shard.members[0].clone()), None] {
            shard
                .turns
                .set([(1, Some(shard.members[0].clone())), (1, then)]);
            let since = sim.env().clock.now_mono();
            let error = call().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{at}: {error:?}");
            let said = error.context().iter().any(|(key, _)| *key == "window_ms");
            let took = sim.env().clock.now_mono() - since;
            // An error of the closure is given back as it is.
            assert!(said || at == 0, "{at}: {error:?}");
            assert!(took >= WINDOW && took < WINDOW * 2, "{took:?}");
        }
    }
    assert_eq!(shard.name_at(1), None);
}

/// Seen to fail with `Unknown` made again without a key: the second member would have it too.
#[test]
fn an_unknown_outcome_is_settled_by_the_key_alone() {
    let shard = Shard::new(5);
    let Shard { db, notes, .. } = &shard;
    shard.lose_a_write();
    shard.first_for(1);
    let error = db.write(|tx| notes.put(tx, 1, &note("x"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown);
    assert_eq!(shard.name_at(1), None);

    // The next leader knows nothing of the key: made again there.
    let shard = Shard::new(6);
    let Shard { db, notes, .. } = &shard;
    shard.lose_a_write();
    // The failed one is asked for the outcome twice, and says that it does not know.
    shard.first_for(3);
    let put = |name: &str| {
        let mut runs = 0;
        let writer = db.writer().retries(0).idempotency("key");
        let done = writer.run(|tx| {
            runs += 1;
            notes.put(tx, 1, &note(name))
        });
        (runs, done.unwrap().1)
    };
    let (runs, commit) = put("x");
    assert_eq!((runs, commit.shards), (2, 1));
    assert_eq!(shard.name_at(1).as_deref(), Some("x"));
    assert_eq!(db.outcome("key").unwrap(), Outcome::Committed);

    // It has it: not made again.
    let shard = Shard::new(7);
    let Shard { db, notes, .. } = &shard;
    let known = Database::alone(shard.members[1].clone());
    let writer = known.writer().idempotency("key");
    writer
        .run(|tx| notes.put(tx, 1, &note("survived")))
        .unwrap();
    shard.lose_a_write();
    shard.first_for(2);
    let mut runs = 0;
    let done = db.writer().idempotency("key").run(|tx| {
        runs += 1;
        notes.put(tx, 1, &note("x"))
    });
    assert!(done.unwrap().1.position > Default::default());
    assert_eq!((runs, shard.name_at(1).as_deref()), (1, Some("survived")));
}

#[test]
fn a_transaction_stays_where_it_began() {
    let shard = Shard::new(8);
    let Shard { db, notes, .. } = &shard;
    let (mut tx, before) = (db.begin(), db.snapshot());
    assert_eq!(notes.get(&tx, 1).unwrap(), None);
    shard.turns.set([(1, Some(shard.members[1].clone()))]);
    notes.put(&mut tx, 1, &note("first")).unwrap();
    db.write(|tx| notes.put(tx, 1, &note("second"))).unwrap();
    tx.commit().unwrap();
    assert_eq!(shard.name_at(0).as_deref(), Some("first"));
    assert_eq!(shard.name_at(1).as_deref(), Some("second"));
    assert_eq!(notes.get(&before, 1).unwrap(), None);
    let found = notes.get(&db.snapshot(), 1).unwrap();
    assert_eq!(found.map(|note| note.name).as_deref(), Some("second"));
}

/// Seen to fail without the look at the standing after a read: rows of trees that are made again.
#[test]
fn a_deposed_member_shows_nothing() {
    let shard = Shard::new(9);
    let Shard { db, notes, .. } = &shard;
    db.write(|tx| {
        notes.put(tx, 1, &note("a"))?;
        notes.put(tx, 2, &note("b"))
    })
    .unwrap();
    let (tx, now) = (db.begin(), db.snapshot());
    let mut open = [notes.iter(&tx), notes.iter(&now)];
    for scan in &mut open {
        assert_eq!(scan.next().unwrap().unwrap().0, 1);
    }
    let core = shard.core(0);
    let (tree, key) = (notes.shape().info.tree, 1_u64.to_be_bytes());
    assert!(read_row(core, tree, &key, Ts(u64::MAX)).is_ok());
    depose(&shard.members[0]);
    for scan in &mut open {
        is_unavailable(scan.next().unwrap());
        assert!(scan.next().is_none());
    }
    is_unavailable(notes.get(&now, 1));
    is_unavailable(notes.get(&tx, 1));
    is_unavailable(notes.nearest(Note::AT, &[1.0, 2.0], 1).run(&now));
    is_unavailable(tx.commit());
    // A read that had begun before.
    is_unavailable(read_row(core, tree, &key, Ts(u64::MAX)));
    is_unavailable(check_floor(core, Ts(0)));
    let damage = || Error::new(ErrorKind::Corrupt, "of a file that is gone");
    is_unavailable(core.shown::<()>(Err(damage())));
    is_unavailable(core.shown_error::<()>(Err(damage())));
    core.shown_error(Ok(())).unwrap();
    assert_eq!(
        core.shown(shard.core(1).shown(Ok(1)))
            .err()
            .map(|e| e.kind()),
        Some(ErrorKind::Unavailable)
    );
}

#[test]
fn a_members_writes_may_ask_for_replicas_and_not_for_less() {
    let shard = Shard::new(10);
    let ask = |durability| shard.db.writer().durability(durability).begin();
    ask(Durability::Replicated).unwrap();
    assert_eq!(
        ask(Durability::Buffered).unwrap_err().kind(),
        ErrorKind::Invalid
    );
    // Without members there is nobody to have it.
    let alone = sim_builder(&shard.sim).open("/alone").unwrap();
    let asked = alone.writer().durability(Durability::Replicated).begin();
    assert_eq!(asked.unwrap_err().kind(), ErrorKind::Invalid);
    // A table is of the shard, whoever leads, and of nothing else.
    let now = alone.snapshot();
    assert_eq!(
        shard.notes.get(&now, 1).unwrap_err().kind(),
        ErrorKind::Invalid
    );
    shard.first_for(1);
    for _ in 0..2 {
        assert_eq!(shard.notes.get(&shard.db.snapshot(), 1).unwrap(), None);
    }
}
