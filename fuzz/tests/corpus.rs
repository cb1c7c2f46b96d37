//! The fuzz targets on the stable compiler: every file of their corpora, and seeded noise, through
//! the same bodies. Where no fuzzer runs, this is the gate.
#![allow(clippy::unwrap_used)] // a test ends at its first surprise

use std::path::PathBuf;

use terrane_fuzz::targets::TARGETS;

/// The package's folder where this runs: a build folder that checkouts share may hold a program
/// that another one built.
fn package() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR");
    here.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// Inputs of noise per target: cheap ones get many.
fn noise_count(name: &str) -> u64 {
    match name {
        "store" => 1_500,
        "ops" => 60,
        "page" => 2_000,
        _ => 20_000,
    }
}

/// SplitMix64.
fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 27)
}

#[test]
fn saved_inputs_and_noise_pass_every_target() {
    for (name, target) in TARGETS {
        let folder = package().join("corpus").join(name);
        let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{folder:?}: {e}"));
        let mut saved: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        saved.sort();
        assert!(!saved.is_empty(), "the corpus of {name} is empty");
        let mut inputs: Vec<Vec<u8>> = saved
            .iter()
            .map(|path| std::fs::read(path).unwrap())
            .collect();
        for (path, bytes) in saved.iter().zip(&inputs) {
            let outcome = std::panic::catch_unwind(|| target(bytes));
            assert!(outcome.is_ok(), "{path:?} fails");
        }
        let mut state = name.len() as u64 * 7_919;
        for _ in 0..noise_count(name) {
            // Half noise, half a saved input with a few bytes changed.
            let drawn = draw(&mut state);
            let mut bytes: Vec<u8> = if drawn & 1 == 0 {
                (0..drawn % 300).map(|_| draw(&mut state) as u8).collect()
            } else {
                inputs[drawn as usize % saved.len()].clone()
            };
            for _ in 0..drawn % 4 {
                if !bytes.is_empty() {
                    let at = draw(&mut state) as usize % bytes.len();
                    bytes[at] = draw(&mut state) as u8;
                }
            }
            let outcome = std::panic::catch_unwind(|| target(&bytes));
            assert!(outcome.is_ok(), "{name} fails for {bytes:02x?}");
        }
        println!(
            "fuzz corpus: {name}, {} saved, {} drawn",
            saved.len(),
            noise_count(name)
        );
        inputs.clear();
    }
}
