//! Failing calls: every outcome is right, nothing is guessed, and nothing hangs.

use terrane_wal::env::SimEnv;
use terrane_wal::io::sim::{Fault, OpKind};

use super::{Rows, after_power_cut, sim_builder, sim_open};
use crate::{Create, Database, ErrorKind, Outcome};

/// Rows 10 and 11 of the likeliest mistakes. Seen to fail with an error that says Aborted after
/// sequencing, and with the log write tried again and believed.
#[test]
fn a_failed_log_write_is_unknown_and_poisons_and_reads_go_on() {
    let sim = SimEnv::new(50);
    let db = sim_open(&sim);
    let rows = Rows::open(&db, "t");
    db.write(|tx| rows.put(tx, "a", "1")).unwrap();
    sim.disk().inject(Fault::nth(OpKind::Write, 0).on(".seg"));
    let error = db
        .writer()
        .idempotency("id")
        .run(|tx| rows.put(tx, "a", "2"))
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::Unknown, Outcome::Unknown)
    );
    assert!(!error.is_retryable());
    assert_eq!(
        rows.all(&db.snapshot()),
        "a=1",
        "what may be lost is not visible"
    );
    // No retry of the write, no later commit, the same cause each time.
    for _ in 0..2 {
        let error = db.write(|tx| rows.put(tx, "b", "1")).unwrap_err();
        assert_eq!(
            (error.kind(), error.outcome()),
            (ErrorKind::Io, Outcome::Aborted)
        );
    }
    assert!(db.checkpoint().is_err());
    assert_eq!(db.outcome("id").unwrap(), Outcome::Unknown);
    assert_eq!(db.stats().unknown, 1);
    // A read of what may be lost does not leave a transaction as if it were certain.
    let tx = db.begin();
    assert_eq!(
        rows.get(&tx, "a").unwrap().as_deref(),
        Some("2"),
        "tentative"
    );
    assert!(tx.commit().is_err());
    let again = after_power_cut(&sim, 500);
    drop(db);
    let db = sim_open(&again);
    let rows = Rows::open(&db, "t");
    let value = rows.get(&db.snapshot(), "a").unwrap().unwrap();
    let outcome = db.outcome("id").unwrap();
    assert_eq!(
        value == "2",
        outcome == Outcome::Committed,
        "{value} {outcome:?}"
    );
    db.write(|tx| rows.put(tx, "b", "1")).unwrap();
}

/// Row 10. Seen to fail with an error that says Aborted after sequencing, and with a failed flush
/// counted as done.
#[test]
fn every_call_that_fails_leaves_a_right_outcome() {
    // How many calls the script makes without a fault.
    let (calls, _) = script(None);
    let mut unknown = 0;
    for nth in 0..calls {
        for sticky in [false, true] {
            unknown += script(Some((nth, sticky))).1;
        }
    }
    assert!(unknown > 0, "some commit's outcome was unknown");
}

/// Some commits, a checkpoint and a close with one failing call; then a reopen without.
/// Returns the calls made after the open, and how many outcomes were unknown.
fn script(fault: Option<(u64, bool)>) -> (u64, u32) {
    let sim = SimEnv::new(51);
    let db = sim_open(&sim);
    let rows = Rows::open(&db, "t");
    let before = sim.disk().calls();
    if let Some((nth, sticky)) = fault {
        let fault = Fault::nth_call(nth);
        sim.disk()
            .inject(if sticky { fault.sticky() } else { fault });
    }
    let (mut certain, mut maybe) = (Vec::new(), Vec::new());
    for round in 0..8 {
        let key = format!("k{round}");
        match db.write(|tx| rows.put(tx, &key, &"v".repeat(3000))) {
            Ok(()) => certain.push(key),
            Err(error) if error.outcome() == Outcome::Unknown => maybe.push(key),
            Err(error) => assert_eq!(error.outcome(), Outcome::Aborted, "{error:?}"),
        }
        if round == 4 {
            let _ = db.checkpoint();
        }
    }
    let now = db.snapshot();
    for key in &certain {
        if let Ok(value) = rows.get(&now, key) {
            assert!(value.is_some(), "{fault:?}: {key} is visible while open");
        }
    }
    drop(now);
    let _ = db.close();
    drop(db);
    let calls = sim.disk().calls() - before;
    sim.disk().clear_faults();
    let again = after_power_cut(&sim, 510);
    let db = sim_open(&again);
    let rows = Rows::open(&db, "t");
    let now = db.snapshot();
    for round in 0..8 {
        let key = format!("k{round}");
        let there = rows.get(&now, &key).unwrap().is_some();
        assert!(
            there || !certain.contains(&key),
            "{fault:?}: {key} was acknowledged"
        );
        let allowed = certain.contains(&key) || maybe.contains(&key);
        assert!(!there || allowed, "{fault:?}: {key} was aborted");
    }
    db.write(|tx| rows.put(tx, "after", "1")).unwrap();
    (calls, maybe.len() as u32)
}

#[test]
fn a_full_disk_refuses_and_clears_itself() {
    let sim = SimEnv::new(52);
    let db = sim_open(&sim);
    let rows = Rows::open(&db, "t");
    db.write(|tx| rows.put(tx, "a", "1")).unwrap();
    sim.disk().set_capacity(Some(sim.disk().used_bytes()));
    let mut refused = None;
    let mut written = 0;
    for round in 0..400 {
        match db.write(|tx| rows.put(tx, &format!("k{round}"), &"v".repeat(8000))) {
            Ok(()) => written += 1,
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let error = refused.expect("the disk is full at some time");
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::Full, Outcome::Aborted),
        "{error:?}"
    );
    assert_eq!(rows.get(&db.snapshot(), "a").unwrap().as_deref(), Some("1"));
    sim.disk().set_capacity(None);
    db.write(|tx| rows.put(tx, "z", "1")).unwrap();
    assert_eq!(
        rows.range(&db.snapshot(), "k", "l", false).unwrap().len() > 8000 * written,
        written > 0
    );
}

#[test]
fn a_panic_inside_a_commit_poisons() {
    let sim = SimEnv::new(53);
    let db = sim_open(&sim);
    let rows = Rows::open(&db, "t");
    db.write(|tx| rows.put(tx, "a", "1")).unwrap();
    sim.disk().on_io(|_, event| {
        if event.path.to_string_lossy().ends_with(".seg") {
            panic!("inside a commit")
        }
    });
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut tx = db.begin();
        rows.put(&mut tx, "a", "2").unwrap();
        tx.commit()
    }));
    sim.disk().off_io();
    assert!(outcome.is_err());
    assert_eq!(rows.all(&db.snapshot()), "a=1");
    let error = db.write(|tx| rows.put(tx, "b", "1")).unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::Io, Outcome::Aborted)
    );
    assert!(error.to_string().contains("panic"), "{error}");
    // A reopen finds the acknowledged state, or the one after it.
    let again = after_power_cut(&sim, 530);
    let db = sim_open(&again);
    let value = Rows::open(&db, "t").all(&db.snapshot());
    assert!(value == "a=1" || value == "a=2", "{value}");
}

fn refused(builder: crate::Builder, path: &std::path::Path) -> ErrorKind {
    builder.open(path).unwrap_err().kind()
}

#[test]
fn paths_and_directories_that_cannot_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let open = || Database::builder();
    assert_eq!(refused(open(), "".as_ref()), ErrorKind::Invalid);
    assert_eq!(refused(open(), "a\0b".as_ref()), ErrorKind::Invalid);
    assert_eq!(
        refused(open(), "p".repeat(5000).as_ref()),
        ErrorKind::Invalid
    );
    std::fs::write(at("file"), "x").unwrap();
    assert_eq!(refused(open(), &at("file")), ErrorKind::Invalid);
    std::fs::create_dir(at("foreign")).unwrap();
    std::fs::write(at("foreign/notes.txt"), "x").unwrap();
    assert_eq!(refused(open(), &at("foreign")), ErrorKind::Invalid);
    assert_eq!(refused(open(), &at("no/such")), ErrorKind::NotFound);
    assert!(!at("no").exists());
    assert_eq!(
        refused(open().create(Create::Never), &at("new")),
        ErrorKind::NotFound
    );
    assert_eq!(
        refused(open().read_only(true), &at("new")),
        ErrorKind::NotFound
    );
    assert!(!at("new").exists());

    let db = open().create(Create::New).open(at("new")).unwrap();
    assert_eq!(
        refused(open().create(Create::New), &at("new")),
        ErrorKind::Exists
    );
    let error = open().open(at("new")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    if std::fs::metadata("/proc/locks").is_ok() {
        let owner = ("owner_pid", std::process::id().to_string());
        assert!(error.context().contains(&owner), "{error}");
    }
    std::os::unix::fs::symlink(at("new"), at("link")).unwrap();
    assert_eq!(refused(open(), &at("link")), ErrorKind::Locked);
    let rows = Rows::open(&db, "t");
    db.write(|tx| rows.put(tx, "a", "1")).unwrap();
    db.close().unwrap();
    drop(db);
    let db = open().open(at("link")).unwrap();
    assert_eq!(Rows::open(&db, "t").all(&db.snapshot()), "a=1");
}

#[test]
fn a_read_only_open_reads_and_takes_no_writes() {
    let sim = SimEnv::new(54);
    let db = sim_open(&sim);
    let rows = Rows::open(&db, "t");
    db.write(|tx| rows.put(tx, "a", "1")).unwrap();
    let crashed = after_power_cut(&sim, 540);
    let error = sim_builder(&crashed)
        .read_only(true)
        .open("/db")
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error:?}");
    db.close().unwrap();
    drop(db);
    let db = sim_builder(&sim).read_only(true).open("/db").unwrap();
    let rows = Rows::open(&db, "t");
    assert_eq!(rows.all(&db.snapshot()), "a=1");
    assert_eq!(
        db.write(|tx| rows.put(tx, "b", "1")).unwrap_err().kind(),
        ErrorKind::ReadOnly
    );
    assert_eq!(
        Rows::try_open(&db, "other").unwrap_err().kind(),
        ErrorKind::ReadOnly
    );
    assert_eq!(db.checkpoint().unwrap_err().kind(), ErrorKind::ReadOnly);
    drop(db);
    let db = sim_open(&sim);
    assert_eq!(Rows::open(&db, "t").all(&db.snapshot()), "a=1");
}

#[test]
fn options_out_of_range_are_refused_with_their_names() {
    let open = || Database::builder();
    let builders = [
        (open().page_bytes(0), "page_bytes"),
        (open().page_bytes(4096), "page_bytes"),
        (open().page_bytes(65536), "page_bytes"),
        (open().page_bytes(10_000), "page_bytes"),
        (open().memory_bytes(0), "memory_bytes"),
        (open().memory_bytes(1 << 20), "memory_bytes"),
        (open().segment_bytes(128 << 10), "segment_bytes"),
        (open().segment_bytes((256 << 10) + 1), "segment_bytes"),
        (open().reopen_secs(f64::NAN), "reopen_secs"),
        (open().reopen_secs(-1.0), "reopen_secs"),
        (open().commit_keys(0), "commit_keys"),
        (open().commit_bytes(usize::MAX), "commit_bytes"),
        (
            open().durability(crate::Durability::Replicated),
            "durability",
        ),
        (
            open().memory_bytes(8 << 20).memory_bytes(9 << 20),
            "memory_bytes",
        ),
        (
            open().read_only(true).create(Create::New),
            "read_only, create",
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    for (builder, name) in builders {
        let error = builder.open(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(name), "{error}");
        assert!(!path.exists());
    }
}
