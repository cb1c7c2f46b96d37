//! A table with an index that is made while the camera rolls: after any crash it is not there, or
//! there with its index in step.

use terrane::{Database, Record, Result, Table, TableDef};

#[derive(Record, Debug, PartialEq)]
struct Note {
    #[terrane(id = 1, index)]
    day: u32,
    #[terrane(id = 2)]
    text: String,
}

const LATE: TableDef<u64, Note> = TableDef::new("late");

/// Rows written in one commit each.
const ROWS: u64 = 3;

fn note(id: u64) -> Note {
    Note {
        day: (id % 2) as u32,
        text: format!("note {id}"),
    }
}

/// Makes the table and writes its rows.
pub(crate) fn create_and_fill(db: &Database) {
    let late: Table<u64, Note> = db.table(LATE).unwrap();
    for id in 0..ROWS {
        db.write(|tx| late.put(tx, id, &note(id))).unwrap();
    }
}

/// The rows are a prefix of what was written, and the index names exactly them.
///
/// # Errors
/// They are not, in words.
pub(crate) fn check(db: &Database) -> Result<(), String> {
    let words = |error: terrane::Error| format!("the late table: {error}");
    let late = db.table(LATE).map_err(words)?;
    let now = db.snapshot();
    let rows: Result<Vec<(u64, Note)>> = late.iter(&now).collect();
    let rows = rows.map_err(words)?;
    let wanted: Vec<(u64, Note)> = (0..rows.len() as u64).map(|id| (id, note(id))).collect();
    if rows != wanted {
        return Err(format!("the late table holds {rows:?}"));
    }
    let mut found = Vec::new();
    for day in 0..2 {
        for row in late.index(Note::DAY).range(&now, day..day + 1) {
            let (id, note) = row.map_err(words)?;
            if note.day != day {
                return Err(format!("the index of day {day} names {note:?}"));
            }
            found.push(id);
        }
    }
    found.sort_unstable();
    if found != (0..rows.len() as u64).collect::<Vec<_>>() {
        return Err(format!("the index names {found:?} of {} rows", rows.len()));
    }
    Ok(())
}
