//! How long nobody's commit is acknowledged, when a leader ends and when it hands over.
//!
//! A pause is the longest time without an acknowledgement, from the moment in which something is
//! done to the leader to the first acknowledgement of a call that began when it was done.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use terrane::cluster::Topology;
use terrane::{Database, Outcome, Table, TableDef};

use super::fleet::{Fleet, PATIENCE, layout};
use super::{Ground, value};
use crate::Failure;

const ROWS: TableDef<u64, Vec<u8>> = TableDef::new("rows");
const WRITERS: u64 = 4;
const WRITER_SHIFT: u32 = 32;
/// Load between two events.
const CALM: Duration = Duration::from_millis(200);

/// How soon a leader is missed.
#[derive(Clone, Copy)]
pub(super) enum Detection {
    /// As a cluster does it that says nothing.
    Usual,
    Fast,
}

impl Detection {
    fn name(self) -> &'static str {
        match self {
            Detection::Usual => "default",
            Detection::Fast => "fast",
        }
    }

    /// Changes of leader come as often as they are made here.
    fn layout(self) -> Topology {
        let layout = layout().calm_after_failover(Duration::ZERO);
        match self {
            Detection::Usual => layout,
            Detection::Fast => layout.suspect_after(Duration::from_millis(600)),
        }
    }
}

/// What writers were told.
#[derive(Default)]
struct Told {
    acknowledged: BTreeSet<u64>,
    /// Those that must not be there.
    refused: BTreeSet<u64>,
    unknown: BTreeSet<u64>,
    /// Begin and end of each acknowledged call.
    acks: Vec<(Instant, Instant)>,
}

/// Writers at work.
struct Load {
    db: Database,
    rows: Table<u64, Vec<u8>>,
    stop: AtomicBool,
    told: Mutex<Told>,
}

impl Load {
    fn on(fleet: &Fleet) -> Result<Load, Failure> {
        let db = fleet.cluster.database();
        Ok(Load {
            rows: db.table(ROWS)?,
            db,
            stop: AtomicBool::new(false),
            told: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, writer: u64) {
        for number in 1.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let key = writer << WRITER_SHIFT | number;
            let (row, begin) = (value(key), Instant::now());
            let outcome = self.db.write(|tx| self.rows.put(tx, key, &row));
            let mut told = self.lock();
            match outcome {
                Ok(()) => {
                    told.acknowledged.insert(key);
                    told.acks.push((begin, Instant::now()));
                }
                Err(error) if error.outcome() == Outcome::Unknown => {
                    told.unknown.insert(key);
                }
                Err(_) => {
                    told.refused.insert(key);
                }
            }
            drop(told);
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The pause since `begin`, once it is over.
    fn pause_since(&self, begin: Instant) -> Result<Duration, Failure> {
        let now = Instant::now();
        while now.elapsed() < PATIENCE {
            if let Some(pause) = longest_pause(&mut self.lock().acks, begin, now) {
                return Ok(pause);
            }
            thread::sleep(Duration::from_millis(1));
        }
        Err("commits did not go on".into())
    }

    /// Does something so many times while writers write, and gives the pauses in milliseconds.
    fn beside(
        &self,
        count: usize,
        mut event: impl FnMut() -> Result<Duration, Failure>,
    ) -> Result<Vec<f64>, Failure> {
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                scope.spawn(move || self.write(writer));
            }
            let mut pauses = Vec::new();
            let outcome = (0..count).try_for_each(|_| {
                thread::sleep(CALM);
                pauses.push(event()?.as_secs_f64() * 1e3);
                Ok::<_, Failure>(())
            });
            self.stop.store(true, Ordering::Relaxed);
            outcome.map(|()| pauses)
        })
    }

    /// Rows that are missing, and rows that must not be there.
    fn judge(&self) -> Result<(usize, usize), Failure> {
        let mut found = BTreeSet::new();
        for row in self.rows.iter(&self.db.snapshot()) {
            let (key, bytes) = row?;
            if bytes != value(key) {
                return Err(format!("row {key}: expected what was put, found another").into());
            }
            found.insert(key);
        }
        let told = self.lock();
        let lost = told.acknowledged.difference(&found).count();
        let asked = |key: &&u64| told.acknowledged.contains(key) || told.unknown.contains(key);
        let uncalled = found.iter().filter(|key| !asked(key)).count();
        Ok((lost, uncalled))
    }

    /// Judges, reports, and fails if a row is lost.
    fn report(
        &self,
        ground: &Ground,
        part: &str,
        detection: &str,
        mut pauses: Vec<f64>,
    ) -> Result<(), Failure> {
        let (lost, uncalled) = self.judge()?;
        pauses.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let place = (pauses.len() * percent).div_ceil(100).max(1) - 1;
            pauses.get(place)
        };
        let told = self.lock();
        ground.say(&json!({
            "part": part, "detection": detection, "n": pauses.len(),
            "p50_ms": at(50), "p99_ms": at(99), "max_ms": at(100),
            "acknowledged": told.acknowledged.len(), "unknown": told.unknown.len(),
            "refused": told.refused.len(), "lost": lost, "uncalled": uncalled,
        }));
        if lost + uncalled > 0 {
            return Err(format!("{part}: {lost} rows are lost, {uncalled} uncalled").into());
        }
        Ok(())
    }
}

/// Leaders that end: the node is stopped, and opened again when another leads.
pub(super) fn failovers(
    ground: &Ground,
    detection: Detection,
    count: usize,
) -> Result<(), Failure> {
    let mut fleet = Fleet::make(&ground.dir.join(detection.name()), detection.layout())?;
    let load = Load::on(&fleet)?;
    let mut done = 0;
    let pauses = load.beside(count, || {
        let (leader, begin) = (fleet.leader()?, Instant::now());
        fleet.stop(leader);
        let pause = load.pause_since(begin)?;
        fleet.reopen(leader)?;
        fleet.level()?;
        done += 1;
        eprintln!("[failover, {}] {done}: {pause:.1?}", detection.name());
        Ok(pause)
    })?;
    fleet.level()?;
    load.report(ground, "failover", detection.name(), pauses)?;
    fleet.end()
}

/// Leaders that hand over.
pub(super) fn switchovers(ground: &Ground, count: usize) -> Result<(), Failure> {
    let fleet = Fleet::make(&ground.dir.join("switchovers"), layout())?;
    let load = Load::on(&fleet)?;
    let pauses = load.beside(count, || {
        let begin = Instant::now();
        fleet.switch()?;
        load.pause_since(begin)
    })?;
    eprintln!("[switchovers] {}", pauses.len());
    fleet.level()?;
    load.report(ground, "switchover", "default", pauses)?;
    fleet.end()
}

/// The longest time between two acknowledgements from `begin` to the first of a call that began at
/// `after` or later; None before that. Forgets what was before.
fn longest_pause(
    acks: &mut Vec<(Instant, Instant)>,
    begin: Instant,
    after: Instant,
) -> Option<Duration> {
    acks.retain(|(_, done)| *done >= begin);
    let fresh = acks.iter().filter(|(began, _)| *began >= after);
    let end = fresh.map(|(_, done)| *done).min()?;
    let inside = acks.iter().map(|(_, done)| *done);
    let mut times: Vec<Instant> = inside.filter(|at| *at <= end).collect();
    times.push(begin);
    times.sort_unstable();
    times.windows(2).map(|two| two[1] - two[0]).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_ends_with_a_call_that_began_after_it() {
        let zero = Instant::now();
        let at = |ms: u64| zero + Duration::from_millis(ms);
        // Harm from 10 to 20: one call that was under way is acknowledged at 25, a new one at 90.
        let mut acks = vec![(at(1), at(5)), (at(6), at(25)), (at(30), at(90))];
        let pause = |acks: &mut Vec<_>| longest_pause(acks, at(10), at(20));
        assert_eq!(pause(&mut acks), Some(Duration::from_millis(65)));
        assert_eq!(acks.len(), 2);
        acks.pop();
        assert_eq!(pause(&mut acks), None);
    }
}
