//! A small table with a vector index, for the tests beside the code.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use crate::{Database, Record, Table, TableDef, Vector};

#[derive(Record)]
pub(super) struct Place {
    #[terrane(id = 1, vector(metric = "l2"))]
    pub(super) at: Vector<2>,
}

pub(super) const PLACES: TableDef<u32, Place> = TableDef::new("places");

/// A database whose upkeep works only when it is asked to.
pub(super) fn open(path: &Path) -> Database {
    Database::builder().background(false).open(path).unwrap()
}

/// The table with so many rows, so many in each transaction.
pub(super) fn filled(db: &Database, rows: u32, step: u32) -> Table<u32, Place> {
    let places = db.table(PLACES).unwrap();
    for from in (0..rows).step_by(step as usize) {
        db.write(|tx| {
            (from..from + step).try_for_each(|key| {
                let at = Vector::from([(key * 37 % 101) as f32, (key * 53 % 97) as f32]);
                places.put(tx, key, &Place { at })
            })
        })
        .unwrap();
    }
    places
}
