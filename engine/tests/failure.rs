//! N-th-call sweep: a workload runs once for every I/O call that it makes, with that call failing,
//! once or from then on, with EIO or ENOSPC.
//!
//! Whatever fails: each commit ends Committed, Aborted without a trace, or Unknown, never wrongly
//! and never not at all (a world that goes round in circles panics); after a reopen everything
//! acknowledged is there. A full disk heals itself when space returns; a log that failed stays
//! closed for writing until a reopen, and its failed sync is not tried again.
//!
//! Seen to fail with a commit that is acknowledged without the wait for its flush, with `Unknown`
//! told as an error that says Aborted, with a failed log write tried again and believed, and with a
//! failed flush counted as done.
#![allow(clippy::unwrap_used)] // a test ends at its first surprise

use std::sync::{Arc, Mutex};

use terrane::{ErrorKind, Outcome};
use terrane_fuzz::keys::{KeyId, Length, RowId, Val};
use terrane_fuzz::model::{Model, Writes};
use terrane_fuzz::ops::Setup;
use terrane_fuzz::rig::{self, Rig};
use terrane_wal::env::SimEnv;
use terrane_wal::io::sim::{Fault, OpKind, SimDisk};

const SETUP: Setup = Setup {
    buffered: false,
    small_pool: true,
};
/// Error numbers of the operating system.
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// What became of a workload.
#[derive(Default)]
struct Tally {
    committed: u64,
    aborted: u64,
    unknown: u64,
}

/// One commit against the model.
fn commit(rig: &Rig, model: &mut Model, writes: Writes, tally: &mut Tally) -> Result<(), String> {
    let outcome = rig.db.write(|tx| {
        for (row, val) in &writes {
            let table = &rig.tables[row.table as usize];
            match val {
                Some(val) => table.put(tx, row.key.bytes(), &val.bytes(*row))?,
                None => table.delete(tx, row.key.bytes()).map(drop)?,
            }
        }
        Ok(())
    });
    let error = match outcome {
        Ok(()) => {
            let state = model.commit(writes);
            model.acknowledge(state);
            tally.committed += 1;
            return Ok(());
        }
        Err(error) => error,
    };
    let expected = [
        ErrorKind::Io,
        ErrorKind::Full,
        ErrorKind::Corrupt,
        ErrorKind::Unknown,
    ];
    if !expected.contains(&error.kind()) {
        return Err(format!("a commit ended in {error}"));
    }
    match error.outcome() {
        Outcome::Aborted => tally.aborted += 1,
        Outcome::Unknown => {
            tally.unknown += 1;
            model.commit(writes);
        }
        Outcome::Committed => return Err(format!("an error that says Committed: {error}")),
    }
    Ok(())
}

fn writes(version: &mut u32, rows: &[(u8, usize, Option<Length>)]) -> Writes {
    let write = |(table, bulk, length): &(u8, usize, Option<Length>)| {
        *version += 1;
        let row = RowId {
            table: *table,
            key: KeyId::bulk(*bulk),
        };
        (row, length.map(|length| Val::new(*version, length)))
    };
    rows.iter().map(write).collect()
}

/// Commits of all sizes, reads, a checkpoint, and what follows it.
fn workload(rig: &Rig, model: &mut Model) -> Result<Tally, String> {
    let mut tally = Tally::default();
    let mut version = 0;
    let small = Some(Length::Small);
    for round in 0..3 {
        let one = writes(&mut version, &[(0, round, small)]);
        commit(rig, model, one, &mut tally)?;
        let two = writes(
            &mut version,
            &[(0, 10 + round, Some(Length::Overflow)), (1, 3, small)],
        );
        commit(rig, model, two, &mut tally)?;
        // Together more than the pool holds, so that pages are evicted and read again.
        for part in [0, 20] {
            let rows = (0..20).map(|n| (1, 100 * round + part + n, Some(Length::Overflow)));
            let many = writes(&mut version, &rows.collect::<Vec<_>>());
            commit(rig, model, many, &mut tally)?;
        }
        // Its failure is nobody's business but its own.
        let _ = rig.db.checkpoint();
        let less: Vec<_> = (10..40).map(|n| (1, 100 * round + n, None)).collect();
        let gone = writes(&mut version, &less);
        commit(rig, model, gone, &mut tally)?;
        while rig.db.background_step() {}
    }
    Ok(tally)
}

/// Runs the workload with a fault planned, cuts the power, reopens without it, and compares.
fn strike(fault: Option<Fault>, seed: u64) -> Result<(Tally, u64), String> {
    let rig = Rig::over(seed, SimDisk::seeded(seed), SETUP).map_err(|error| error.to_string())?;
    let disk = rig.sim.disk().clone();
    let before = disk.calls();
    let struck: Arc<Mutex<String>> = Arc::default();
    if let Some(fault) = fault {
        let (note, number) = (struck.clone(), before + fault.after);
        disk.on_io(move |_, event| {
            if event.call == number {
                *note.lock().unwrap() = format!("{:?} of {}", event.op, event.path.display());
            }
        });
        disk.inject(fault);
    }
    let mut model = Model::default();
    let tally = workload(&rig, &mut model)?;
    let calls = disk.calls() - before;
    disk.off_io();
    let struck = struck.lock().unwrap().clone();
    // As it stands, after a process that ended; and as a power cut leaves it.
    let left = [
        rig.sim.disk().crash(seed),
        SimDisk::from_image(&rig.sim.disk().image()),
    ];
    rig.stop();
    for disk in left {
        let again = Rig::over(seed + 1, disk, SETUP)
            .map_err(|error| format!("{struck} failed, reopen: {error}"))?;
        let rows = rig::rows(&again.tables, &again.db.snapshot())?;
        let words = |words| format!("{struck} failed: {words}");
        model.explain(&rows).map_err(words)?;
        rig::check_store(&again.db).map_err(words)?;
        again.stop();
    }
    Ok((tally, calls))
}

/// The N-th call of the workload fails, for every `stride`-th N, and for every N in a long run.
fn sweep(name: &str, errno: i32, sticky: bool, stride: usize) {
    let (clean, calls) = strike(None, 1).unwrap();
    assert_eq!((clean.aborted, clean.unknown), (0, 0));
    let mut sum = Tally::default();
    let all = std::env::var("TERRANE_CRASH").as_deref() == Ok("full");
    for call in (0..calls).step_by(if all { 1 } else { stride }) {
        let fault = Fault::nth_call(call).with_errno(errno);
        let fault = if sticky { fault.sticky() } else { fault };
        let (tally, _) = strike(Some(fault), 1 + call)
            .unwrap_or_else(|words| panic!("{name}, call {call} of {calls}: {words}"));
        sum.committed += tally.committed;
        sum.aborted += tally.aborted;
        sum.unknown += tally.unknown;
    }
    let Tally {
        committed,
        aborted,
        unknown,
    } = sum;
    println!(
        "failure sweep: {name}, {calls} calls: {committed} committed, {aborted} aborted, \
         {unknown} unknown"
    );
    assert!(aborted + unknown > 0, "{name}: no failure was ever felt");
}

#[test]
fn any_call_may_fail_once_with_eio() {
    sweep("EIO once", EIO, false, 1);
}

#[test]
fn all_calls_may_fail_from_any_on_with_eio() {
    sweep("EIO for ever", EIO, true, 3);
}

#[test]
fn the_disk_may_be_full_for_any_call() {
    sweep("ENOSPC once", ENOSPC, false, 2);
    sweep("ENOSPC for ever", ENOSPC, true, 5);
}

#[test]
fn a_full_disk_heals_itself_when_space_returns() {
    let rig = Rig::over(9, SimDisk::seeded(9), SETUP).unwrap();
    let disk = rig.sim.disk().clone();
    let mut model = Model::default();
    let mut tally = Tally::default();
    let mut version = 0;
    disk.set_capacity(Some(disk.used_bytes() + (1 << 20)));
    let mut round = 0;
    let full = loop {
        let rows: Vec<_> = (0..3)
            .map(|n| (0, 3 * round + n, Some(Length::Huge)))
            .collect();
        let before = model.newest();
        commit(&rig, &mut model, writes(&mut version, &rows), &mut tally).unwrap();
        let _ = rig.db.checkpoint();
        if model.newest() == before {
            break round;
        }
        round += 1;
        assert!(round < 200, "a full disk was never noticed");
    };
    assert!(full > 0, "nothing fitted at all");
    assert_eq!(
        tally.unknown, 0,
        "full is found out before anything is sequenced"
    );
    // Reads go on.
    let now = rig.db.snapshot();
    let rows = rig::rows(&rig.tables, &now).unwrap();
    assert_eq!(model.explain(&rows), Ok(model.newest()));
    drop(now);
    disk.set_capacity(None);
    let one = writes(&mut version, &[(1, 1, Some(Length::Huge))]);
    let committed = tally.committed;
    commit(&rig, &mut model, one, &mut tally).unwrap();
    assert_eq!(
        tally.committed,
        committed + 1,
        "full was remembered after space had returned"
    );
    rig.db.checkpoint().unwrap();
    let left = rig.crash(4);
    let again = Rig::over(10, left, SETUP).unwrap();
    let rows = rig::rows(&again.tables, &again.db.snapshot()).unwrap();
    assert_eq!(model.explain(&rows), Ok(model.newest()));
}

#[test]
fn a_log_that_failed_stays_closed_until_a_reopen_and_no_sync_is_tried_again() {
    for op in [OpKind::Write, OpKind::Sync] {
        let rig = Rig::over(11, SimDisk::seeded(11), SETUP).unwrap();
        let disk = rig.sim.disk().clone();
        let mut model = Model::default();
        let mut tally = Tally::default();
        let mut version = 0;
        let mut one = |bulk| writes(&mut version, &[(0, bulk, Some(Length::Small))]);
        commit(&rig, &mut model, one(1), &mut tally).unwrap();
        // Once: a second try of the same thing would go well, and must not be made.
        disk.inject(Fault::nth(op, 0).on("log/"));
        let mut bulk = 2;
        while tally.unknown == 0 {
            commit(&rig, &mut model, one(bulk), &mut tally).unwrap();
            bulk += 1;
            if bulk == 400 {
                break;
            }
        }
        if op == OpKind::Sync && tally.unknown == 0 {
            // The log makes its writes durable by themselves and never syncs a segment in use.
            continue;
        }
        assert_eq!(
            tally.unknown, 1,
            "{op:?}: a failed log write must leave its commit unknown"
        );
        let calls = disk.calls();
        for bulk in 500..503 {
            let row = RowId {
                table: 0,
                key: KeyId::bulk(bulk),
            };
            let val = Val::new(bulk as u32, Length::Small);
            let put = rig
                .db
                .write(|tx| rig.tables[0].put(tx, row.key.bytes(), &val.bytes(row)));
            let error = put.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            assert_eq!(error.outcome(), Outcome::Aborted, "{error}");
        }
        assert_eq!(
            disk.calls(),
            calls,
            "{op:?}: a refused commit touched the disk"
        );
        // Reads go on at what is durable.
        let rows = rig::rows(&rig.tables, &rig.db.snapshot()).unwrap();
        model.explain(&rows).unwrap();
        let left = rig.crash(5);
        let again = Rig::over(12, left, SETUP).unwrap();
        let rows = rig::rows(&again.tables, &again.db.snapshot()).unwrap();
        model.explain(&rows).unwrap();
        let handle = &again.tables[0];
        let row = RowId {
            table: 0,
            key: KeyId::bulk(600),
        };
        let put = |tx: &mut terrane::Transaction| {
            handle.put(
                tx,
                row.key.bytes(),
                &Val::new(1 << 20, Length::Small).bytes(row),
            )
        };
        again.db.write(put).unwrap();
    }
}

#[test]
fn an_open_that_fails_at_any_call_leaves_the_database_as_it_was() {
    let rig = Rig::over(21, SimDisk::seeded(21), SETUP).unwrap();
    let mut model = Model::default();
    workload(&rig, &mut model).unwrap();
    let image = rig.sim.disk().image();
    rig.stop();
    let calls = {
        let sim = SimEnv::with_disk(22, SimDisk::from_image(&image));
        drop(rig::open(&sim, SETUP).unwrap());
        sim.disk().calls()
    };
    let mut refused = 0;
    for call in 0..calls {
        let sim = SimEnv::with_disk(22 + call, SimDisk::from_image(&image));
        sim.disk().inject(Fault::nth_call(call));
        if let Err(error) = rig::open(&sim, SETUP) {
            let kind = error.kind();
            let expected = [ErrorKind::Io, ErrorKind::Corrupt, ErrorKind::Full];
            assert!(expected.contains(&kind), "call {call}: {error}");
            refused += 1;
        }
        sim.disk().clear_faults();
        let left = SimDisk::from_image(&sim.disk().image());
        drop(sim);
        let again = Rig::over(23, left, SETUP)
            .unwrap_or_else(|error| panic!("call {call}: the next open: {error}"));
        let rows = rig::rows(&again.tables, &again.db.snapshot()).unwrap();
        model
            .explain(&rows)
            .unwrap_or_else(|words| panic!("call {call}: {words}"));
        again.stop();
    }
    assert!(refused > 0, "no failure was ever felt");
    println!("failure sweep: open, {calls} calls, {refused} refused");
}
