//! A vector column, and a filtered search inside the transaction.
//!
//! `cargo run --example 04_vectors [FOLDER]`; without a folder a fresh temporary one is used and
//! removed at the end.

use std::path::{Path, PathBuf};

use terrane::{Database, Hit, Record, Result, TableDef, Vector};

#[derive(Record)]
struct Passage {
    #[terrane(id = 1, filter)] // stored beside each code: filtering reads no rows
    lang: String,
    #[terrane(id = 2, filter)]
    year: u16,
    #[terrane(id = 3)]
    text: String,
    #[terrane(id = 4, vector(metric = "cosine"))]
    embedding: Vector<384>, // owns a box; DynVector where the schema gives the dimension
}
const PASSAGES: TableDef<u64, Passage> = TableDef::new("passages");

fn add_and_ask(db: &Database, new: &Passage, question: &[f32]) -> Result<Vec<Hit<u64, Passage>>> {
    let passages = db.table(PASSAGES)?;
    let best = db.write(|tx| {
        passages.put(tx, 1, new)?;
        passages
            .nearest(Passage::EMBEDDING, question, 10) // sees the row just written
            .filter(Passage::LANG.eq("en") & Passage::YEAR.between(2020..))
            .recall(0.95) // a goal; the engine picks how many postings to read
            .run(tx)
    })?;
    for hit in &best {
        // Decoded when asked for.
        println!("{:.3} {} {}", hit.distance, hit.key, hit.record()?.text);
    }
    Ok(best)
}

/// A passage whose embedding points along one axis.
fn passage(lang: &str, year: u16, text: &str, axis: usize) -> Passage {
    let mut elements = [0.1_f32; 384];
    elements[axis] = 5.0;
    Passage {
        lang: lang.into(),
        year,
        text: text.into(),
        embedding: Vector::from(elements),
    }
}

fn run(folder: &Path) -> Result<()> {
    let db = Database::open(folder.join("passages.terrane"))?;
    let passages = db.table(PASSAGES)?;
    db.write(|tx| {
        passages.put(tx, 2, &passage("en", 2024, "near the question", 3))?;
        passages.put(tx, 3, &passage("fr", 2024, "in another language", 3))?;
        passages.put(tx, 4, &passage("en", 1999, "too old", 3))
    })?;

    let question = passage("en", 2026, "", 3).embedding;
    let new = passage("en", 2023, "just written", 200);
    let best = add_and_ask(&db, &new, &question)?;
    let keys: Vec<u64> = best.iter().map(|hit| hit.key).collect();
    assert_eq!(keys, [2, 1], "those that pass the filter, nearest first");
    assert!(best[0].distance.abs() < 1e-6);
    assert_eq!(best[1].record()?.text, "just written");
    Ok(())
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let given = std::env::args_os().nth(1).map(PathBuf::from);
    let temporary = std::env::temp_dir().join(format!("terrane-04-{}", std::process::id()));
    let folder = given.as_ref().unwrap_or(&temporary);
    std::fs::create_dir_all(folder)?;

    run(folder)?;

    if given.is_none() {
        std::fs::remove_dir_all(&temporary)?;
    }
    Ok(())
}
