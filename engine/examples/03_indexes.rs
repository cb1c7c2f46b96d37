//! Secondary indexes are declared on the record.
//!
//! `cargo run --example 03_indexes [FOLDER]`; without a folder a fresh temporary one is used and
//! removed at the end.
#![allow(clippy::expect_used)] // what was just written is there

use std::path::{Path, PathBuf};

use terrane::{Database, ErrorKind, Record, Result, TableDef};

#[derive(Record)]
struct User {
    #[terrane(id = 1, unique)]
    email: String,
    #[terrane(id = 2, index)]
    joined_day: u32,
    #[terrane(id = 3, default)] // added later: old rows read as the default
    bio: String,
}
const USERS: TableDef<u64, User> = TableDef::new("users");

fn run(folder: &Path) -> Result<Vec<String>> {
    let db = Database::open(folder.join("app.terrane"))?;
    let users = db.table(USERS)?;
    let ada = User {
        email: "ada@example.org".into(),
        joined_day: 20_411,
        bio: String::new(),
    };
    db.write(|tx| users.put(tx, 7, &ada))?; // row and index entries in one commit

    let now = db.snapshot();
    let (id, found) = users
        .index(User::EMAIL)
        .get(&now, "ada@example.org")?
        .expect("just written");
    assert_eq!(id, 7);
    assert_eq!(found.bio, "");
    let mut lines = Vec::new();
    for row in users.index(User::JOINED_DAY).range(&now, 20_400..20_420) {
        lines.push(row?.1.email);
    }

    // A unique value belongs to one row.
    let refused = db
        .write(|tx| users.put(tx, 8, &ada))
        .expect_err("8 is not 7");
    assert_eq!(refused.kind(), ErrorKind::Constraint);
    lines.push(refused.to_string());
    Ok(lines)
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let given = std::env::args_os().nth(1).map(PathBuf::from);
    let temporary = std::env::temp_dir().join(format!("terrane-03-{}", std::process::id()));
    let folder = given.as_ref().unwrap_or(&temporary);
    std::fs::create_dir_all(folder)?;

    let lines = run(folder)?;
    for line in &lines {
        println!("{line}");
    }
    assert_eq!(lines[0], "ada@example.org");
    assert!(lines[1].starts_with("constraint: another row holds this unique value"));
    assert!(lines[1].contains("table=users") && lines[1].contains("holder=7"));

    if given.is_none() {
        std::fs::remove_dir_all(&temporary)?;
    }
    Ok(())
}
