//! Open, put, get, range: a table of scores.
//!
//! `cargo run --example 01_table [FOLDER]`; without a folder a fresh temporary one is used and
//! removed at the end.

use std::path::{Path, PathBuf};

use terrane::{Database, Result, TableDef};

const SCORES: TableDef<String, u64> = TableDef::new("scores");

fn run(folder: &Path) -> Result<Vec<String>> {
    let db = Database::open(folder.join("game.terrane"))?;
    // Created, or checked against the stored schema; keep the handle.
    let scores = db.table(SCORES)?;

    db.write(|tx| {
        scores.put(tx, "ada", &90)?;
        scores.put(tx, "grace", &97)
    })?;

    let now = db.snapshot(); // owned, Send, cheap; blocks no writer
    assert_eq!(scores.get(&now, "ada")?, Some(90));
    let mut lines = Vec::new();
    for row in scores.range(&now, "ada".."b").rev() {
        let (name, score) = row?;
        lines.push(format!("{name}: {score}"));
    }
    Ok(lines)
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let given = std::env::args_os().nth(1).map(PathBuf::from);
    let temporary = std::env::temp_dir().join(format!("terrane-01-{}", std::process::id()));
    let folder = given.as_ref().unwrap_or(&temporary);
    std::fs::create_dir_all(folder)?;

    let lines = run(folder)?;
    for line in &lines {
        println!("{line}");
    }
    assert_eq!(lines, ["ada: 90"]);

    if given.is_none() {
        std::fs::remove_dir_all(&temporary)?;
    }
    Ok(())
}
