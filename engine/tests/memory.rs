//! One budget: what a database takes of the machine stays within `memory_bytes` and a constant.
//!
//! A child process of this binary loads several times its budget, updates under a long snapshot,
//! scans, checkpoints, and dies without a close; a second one replays what it left. Each says the
//! most memory that it ever held (VmHWM of proc_pid_status(5)).
//!
//! The constant holds this binary, stacks and allocator slack, the transaction in hand and, in a
//! replay, the arena of the log's tail. Seen with a budget of 32 MiB: 3 MiB before the open, 56 MiB
//! at most, after loading as after replay.
#![allow(clippy::unwrap_used)] // a test ends at its first surprise

use std::io::Write;
use std::path::Path;
use std::process::Command;

use terrane::{Database, Durability, ErrorKind, Table, TableDef};

/// Tells this binary that it is the child, and in which folder.
const CHILD: &str = "TERRANE_MEMORY_CHILD";
/// Which of the two it is.
const ROLE: &str = "TERRANE_MEMORY_ROLE";

const BUDGET: usize = 24 << 20;
const SLACK: usize = 64 << 20;
/// Of 550 bytes on average: 4 times the budget.
const ROWS: u64 = 160_000;
const BATCH: u64 = 500;
/// Rows that go to the log after the last checkpoint.
const TAIL: u64 = 20_000;

const TABLE: TableDef<u64, Vec<u8>> = TableDef::new("rows");

/// 100 to 1000 bytes; one in 600 lies in pages of its own.
fn value(key: u64, round: u8) -> Vec<u8> {
    let len = match key % 600 {
        599 => 20_000,
        n => 100 + n * 3 / 2,
    };
    vec![round ^ key as u8; len as usize]
}

/// The most memory that this process ever held, in bytes.
fn peak_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.unwrap().trim().strip_suffix(" kB").unwrap();
    number.trim().parse::<usize>().unwrap() << 10
}

/// Tells the parent how high memory has risen.
fn tell(phase: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n@{phase} {}", peak_bytes()).unwrap();
}

fn open(folder: &Path) -> (Database, Table<u64, Vec<u8>>) {
    let db = Database::builder()
        .memory_bytes(BUDGET)
        .segment_bytes(4 << 20)
        .durability(Durability::Buffered)
        .open(folder.join("db"))
        .unwrap();
    let table = db.table(TABLE).unwrap();
    (db, table)
}

fn write(db: &Database, table: &Table<u64, Vec<u8>>, keys: std::ops::Range<u64>, round: u8) {
    for from in keys.clone().step_by(BATCH as usize) {
        let to = (from + BATCH).min(keys.end);
        db.write(|tx| (from..to).try_for_each(|key| table.put(tx, key, &value(key, round))))
            .unwrap();
    }
}

fn scan(db: &Database, table: &Table<u64, Vec<u8>>, round_of: impl Fn(u64) -> u8) {
    let mut next = 0;
    for row in table.iter(&db.snapshot()) {
        let (key, found) = row.unwrap();
        assert_eq!(key, next);
        assert!(found == value(key, round_of(key)), "row {key}");
        next += 1;
    }
    assert_eq!(next, ROWS);
}

/// The child: does nothing where it is not one.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(CHILD) else {
        return;
    };
    tell("start");
    let (db, table) = open(Path::new(&folder));
    tell("open");
    if std::env::var(ROLE).unwrap() == "replay" {
        scan(&db, &table, |key| if key < TAIL { 3 } else { 2 });
        tell("scan");
        db.close().unwrap();
        tell("close");
        return;
    }
    write(&db, &table, 0..ROWS, 1);
    tell("load");
    // More older versions than the budget takes: the snapshot is given up, not the budget.
    let old = db.snapshot();
    write(&db, &table, 0..ROWS, 2);
    let late = table.get(&old, 0);
    assert_eq!(late.unwrap_err().kind(), ErrorKind::SnapshotTooOld);
    drop(old);
    tell("update");
    scan(&db, &table, |_| 2);
    tell("scan");
    db.checkpoint().unwrap();
    tell("checkpoint");
    write(&db, &table, 0..TAIL, 3);
    // The last one waits for the disk, and with it all before; then neither close nor drop.
    db.writer()
        .durability(Durability::Local)
        .run(|tx| table.put(tx, 0, &value(0, 3)))
        .unwrap();
    tell("tail");
    std::process::exit(0);
}

fn run(folder: &Path, role: &str) {
    let out = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, folder)
        .env(ROLE, role)
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{role}: {text}{errors}");
    let peaks = text.lines().filter_map(|line| line.strip_prefix('@'));
    for line in peaks.clone() {
        let (phase, bytes) = line.split_once(' ').unwrap();
        let bytes: usize = bytes.parse().unwrap();
        println!("memory: {role} {phase}: {} MiB", bytes >> 20);
        assert!(
            bytes <= BUDGET + SLACK,
            "{role}, {phase}: {bytes} bytes with a budget of {BUDGET}"
        );
    }
    assert!(peaks.count() >= 4, "{role}: {text}");
}

#[test]
fn memory_stays_within_the_budget() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), "load");
    run(folder.path(), "replay");
}
