//! The seeds of the fuzz target `vector`: one record of every kind, as the encoders write it today.
//!
//! `fuzz/corpus/vector/` has a file for each decoder of [`decode_any`], by its name. After a change
//! of a format they are made anew:
//! `TERRANE_GOLDEN=write cargo test -p terrane-vector --lib -- record::seeds::write_the_seeds`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::*;
use crate::code::{Factors, encode_extra, encode_signs};
use crate::metric::Metric;
use crate::params::IndexParams;

/// The corpus beside the checkout that is tested: a build folder that checkouts share may hold a
/// program that another one built.
fn folder() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR");
    let package = here.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    package.join("../fuzz/corpus/vector")
}

const DIM: usize = 64;

/// Code, factors and extra bits of a vector around a centre.
type Coded = (Vec<u8>, Factors, Vec<u8>, Factors);

fn coded(seed: u32) -> Coded {
    let element = |at: u32| ((seed + at * at * 7) % 31) as f32 / 16.0 - 1.0;
    let vector: Vec<f32> = (0..DIM as u32).map(element).collect();
    let centre = vec![0.125; DIM];
    let (code, factors) = encode_signs(Metric::L2, &vector, &centre);
    let (planes, more) = encode_extra(Metric::L2, &vector, &centre);
    (code, factors, planes, more)
}

/// Records of entries: with columns and extra bits, where some have columns and some have none.
fn entries() -> [(&'static str, Vec<u8>); 4] {
    let mut builder = BlockBuilder::new(DIM, 7);
    let mut tail = Vec::new();
    for slot in 0..11_u8 {
        let (code, factors, planes, more) = coded(u32::from(slot));
        let columns = [slot; 3];
        let entry = TailEntry {
            factors,
            code: &code,
            extra: Some((more, &planes)),
            columns: (slot % 4 > 0).then_some(&columns[..usize::from(slot) % 4]),
        };
        builder.push(RowId(100 + u64::from(slot)), Vver(u32::from(slot)), &entry);
        tail = entry.encode();
    }
    let (block, extra, columns) = builder.finish();
    [
        ("block", block),
        ("extra", extra[0].clone()),
        ("columns", columns.unwrap()),
        ("tail", tail),
    ]
}

/// A value of every kind of record, and a key.
fn seeds() -> BTreeMap<&'static str, Vec<u8>> {
    let mut centre: Vec<f32> = (0..DIM).map(|at| at as f32 / 50.0 - 0.6).collect();
    narrow(&mut centre);
    let children = [PostingId(8), PostingId(9)];
    let head = Head {
        generation: 7,
        lacks_since: 3,
        fold_horizon: 40,
        live: 9,
        dead: 2,
        tail: 0,
    };
    let locator = Locator {
        vver: Vver(3),
        live: true,
        stale: 2,
        postings: vec![PostingId(5), PostingId(8)],
        key: Some(b"key".to_vec()),
    };
    let points = TARGETS.map(|target| Point {
        patience: (target * 100.0) as u32,
        ratio: f32::INFINITY,
        recall: target,
        scanned: 1000.0 * target,
    });
    let job = Job {
        kind: JobKind::Reassign,
        depth: 1,
        children,
        pivot: 0,
        centre: centre.clone(),
    };
    let meta = Meta {
        cursor: b"row".to_vec(),
        ..Meta::new(
            IndexParams::new(Metric::Cosine, 60, 42),
            IndexState::Building,
        )
    };
    let centroid = Centroid {
        state: State::Draining,
        epoch: 12,
        radius: 0.5,
        children,
        centre,
    };
    let tuning = Tuning {
        k: 10,
        samples: 384,
        rows: 5000,
        points,
    };
    let others = [
        ("key", Key::Tail(PostingId(5), RowId(100), Vver(3)).encode()),
        ("head", head.encode()),
        ("mark", Mark::Moved(13).encode()),
        ("locator", locator.encode()),
        ("tuning", tuning.encode()),
        ("centroid", centroid.encode()),
        ("job", job.encode()),
        ("meta", meta.encode()),
    ];
    others.into_iter().chain(entries()).collect()
}

/// A seed as the target takes it: the first two bytes choose the dimension, 0 is [`DIM`].
fn input(value: &[u8]) -> Vec<u8> {
    [&[0, 0], value].concat()
}

// Seen to fail with: the seal left out of the seed of a block, and a seed for a kind too few.
#[test]
fn every_decoder_has_a_seed_that_it_takes_and_gives_back() {
    let mut files = BTreeMap::new();
    for file in std::fs::read_dir(folder()).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        files.insert(name, std::fs::read(path).unwrap());
    }
    let seeds = seeds();
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(names, seeds.keys().copied().collect::<Vec<_>>());
    for (name, bytes) in &files {
        let taken = decode_any(bytes);
        assert!(taken.contains(&(name, true)), "{name}: {taken:?}");
        assert_eq!(
            *bytes,
            input(&seeds[&name[..]]),
            "{name} is not what is written today"
        );
    }
}

#[test]
fn write_the_seeds() {
    if std::env::var("TERRANE_GOLDEN").as_deref() != Ok("write") {
        return;
    }
    for (name, value) in seeds() {
        std::fs::write(folder().join(name), input(&value)).unwrap();
    }
}
