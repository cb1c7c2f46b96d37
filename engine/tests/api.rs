//! The numbered examples, run as a user runs them: as processes, with and without a folder.
//!
//! Each asserts on what it computes; here its output and what it leaves behind are looked at.
#![allow(clippy::unwrap_used)] // a test may panic wherever it stands in its file

use std::path::PathBuf;
use std::process::{Command, Output};

/// The built example beside this test; `cargo test --test api` alone does not build it.
fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(|deps| deps.parent()).unwrap();
    let path = profile.join("examples").join(name);
    if !path.exists() {
        let built = Command::new(env!("CARGO"))
            .args([
                "build",
                "--quiet",
                "--package",
                "terrane",
                "--example",
                name,
            ])
            .status()
            .unwrap();
        assert!(built.success(), "{name} does not build");
    }
    path
}

fn run(name: &str, folder: Option<&std::path::Path>) -> Vec<String> {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(program(name)).args(folder).output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{name}: {status}\n{stderr}");
    let text = String::from_utf8(stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn open_put_get_range() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run("01_table", Some(folder.path())), ["ada: 90"]);
    assert!(folder.path().join("game.terrane/META").exists());
    // The rows of the first run are there; the program writes them again.
    assert_eq!(run("01_table", Some(folder.path())), ["ada: 90"]);
    assert_eq!(run("01_table", None), ["ada: 90"]);
}

#[test]
fn transactions() {
    let wanted = [
        "overdrawn: short by 40",
        "balances: (Some(30), Some(70))",
        "paid: Some(990)",
        "visits: Some(20)",
    ];
    assert_eq!(run("02_transactions", None), wanted);
}

#[test]
fn secondary_indexes() {
    let lines = run("03_indexes", None);
    assert_eq!(lines[0], "ada@example.org");
    assert_eq!(
        lines[1],
        "constraint: another row holds this unique value (table=users, field=email, \
         value=\"ada@example.org\", key=8, holder=7)"
    );
}

#[test]
fn a_vector_column() {
    let lines = run("04_vectors", None);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].ends_with("2 near the question"), "{lines:?}");
    assert!(lines[1].ends_with("1 just written"), "{lines:?}");
}
