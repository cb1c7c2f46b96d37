//! The lone durable write under a kernel that answers short, with interruptions, or with errors.
//! The kernel's answers come from strace in a child process; without strace the tests say so.

#![cfg(not(loom))]
#![allow(
    clippy::unwrap_used,
    reason = "a test stops where an answer is missing"
)]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use terrane_wal::env::{SystemPark, SystemSpawn};
use terrane_wal::io::{BackendChoice, Buf, Open, Purpose, open_system_disk};

const DIR: &str = "TERRANE_TEST_LONE_WRITE_IN";

/// The child: one durable write of two blocks, then a plain sync.
#[test]
fn child_writes_durably() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let (spawn, park) = (Arc::new(SystemSpawn), Arc::new(SystemPark));
    let (disk, _) = open_system_disk(spawn, park, BackendChoice::Auto).unwrap();
    let file = disk
        .open(&Path::new(&dir).join("a"), Open::CreateNew)
        .unwrap();
    let mut buf = Buf::zeroed(8192);
    buf.fill(7);
    match file.write(Purpose::Log, 4096, &buf, true) {
        Ok(()) => println!("said ok"),
        Err(error) => println!("said {error}; full {}", error.is_full()),
    }
    println!("length {}", file.len().unwrap());
}

/// What the child said, and its calls; None, aloud, if strace cannot run here.
fn child(inject: &[&str]) -> Option<(String, Vec<String>)> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let log = dir.path().join("log");
    let mut command = Command::new("strace");
    command.args(["-f", "-e", "trace=pwritev2,fdatasync"]);
    for rule in inject {
        command.args(["-e", &format!("inject={rule}")]);
    }
    let output = command
        .arg("-o")
        .arg(&log)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child_writes_durably", "--nocapture"])
        .env(DIR, dir.path())
        .output();
    let said = match output {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => error.to_string(),
    };
    if !said.contains("said ") {
        eprintln!("SKIPPED: strace cannot trace here ({said})");
        return None;
    }
    let log = std::fs::read_to_string(log).unwrap();
    let calls = log
        .lines()
        .filter(|line| line.contains('(') && !line.contains("+++"));
    Some((said, calls.map(str::to_owned).collect()))
}

#[test]
fn a_healthy_durable_write_is_one_call() {
    let Some((said, calls)) = child(&[]) else {
        return;
    };
    assert!(
        said.contains("said ok") && said.contains("length 12288"),
        "{said}"
    );
    // Without O_DIRECT there would be a second one, the sync.
    assert!(
        calls.len() == 1 || calls[1].contains("fdatasync"),
        "{calls:?}"
    );
    assert!(
        calls[0].contains("4096, RWF_DSYNC") || calls.len() == 2,
        "{calls:?}"
    );
}

#[test]
fn a_short_durable_write_is_completed_and_synced_as_a_whole() {
    let Some((said, calls)) = child(&["pwritev2:retval=4096:when=1"]) else {
        return;
    };
    assert!(said.contains("said ok"), "{said}");
    assert_eq!(calls.len(), 3, "{calls:?}");
    assert!(calls[1].contains("8192, 0"), "the rest, plainly: {calls:?}");
    assert!(calls[2].contains("fdatasync"), "{calls:?}");
}

#[test]
fn an_interrupted_write_is_repeated() {
    let Some((said, calls)) = child(&["pwritev2:error=EINTR:when=1..2"]) else {
        return;
    };
    assert!(
        said.contains("said ok") && said.contains("length 12288"),
        "{said}"
    );
    assert!(calls.len() >= 3, "{calls:?}");
}

#[test]
fn a_failed_sync_is_reported_and_not_repeated() {
    let rules = ["pwritev2:retval=4096:when=1", "fdatasync:error=EIO:when=1"];
    let Some((said, calls)) = child(&rules) else {
        return;
    };
    let expected = "said write of ";
    assert!(
        said.contains(expected) && said.contains("at offset 4096, 8192 bytes"),
        "{said}"
    );
    let syncs = calls
        .iter()
        .filter(|call| call.contains("fdatasync"))
        .count();
    assert_eq!(syncs, 1, "{calls:?}");
}

#[test]
fn no_space_no_quota_and_the_file_size_limit_are_full() {
    for errno in ["ENOSPC", "EDQUOT", "EFBIG"] {
        let Some((said, _)) = child(&[&format!("pwritev2:error={errno}:when=1")]) else {
            return;
        };
        assert!(said.contains("full true"), "{errno}: {said}");
    }
    let Some((said, _)) = child(&["pwritev2:error=EIO:when=1"]) else {
        return;
    };
    assert!(said.contains("full false"), "{said}");
}
