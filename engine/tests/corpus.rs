//! Scripts that once failed, or that reach what noise seldom does: replayed for ever.
//!
//! Each file of `fuzz/corpus/ops/` is a seed (two bytes) and a script, as the fuzzer keeps them.
#![allow(clippy::unwrap_used)] // a test ends at its first surprise

use std::path::PathBuf;

use terrane_fuzz::check::{self, Report};
use terrane_fuzz::ops::Script;

/// The package's folder where this runs: a build folder that checkouts share may hold a program
/// that another one built.
fn package() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR");
    here.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

#[test]
fn saved_scripts_agree_with_the_model() {
    let folder = package().join("../fuzz/corpus/ops");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    let mut sum = Report::default();
    for path in &files {
        let bytes = std::fs::read(path).unwrap();
        let seed = u64::from(u16::from_le_bytes([bytes[0], bytes[1]]));
        let script = Script::decode(&bytes[2..]);
        match check::run(&script, seed) {
            Ok(report) => sum.add(&report),
            Err(words) => panic!("{}: {words}\n{script}", path.display()),
        }
    }
    println!("model: {} saved scripts, {sum}", files.len());
    assert!(files.len() >= 10, "the saved scripts are gone");
}
